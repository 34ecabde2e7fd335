use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::write::ZlibEncoder;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::{Arc, Compression, FileSource, GenerateOptions, Generated, ObjectStore, Path, Shape, TryStreamExt, generate, share_of};

const SHAPES: [Shape; 6] = [Shape::Json, Shape::Csv, Shape::Logs, Shape::Text, Shape::Binary, Shape::LongLines];

fn options(shape: Shape, total_bytes: u64, files: usize) -> GenerateOptions {
    GenerateOptions { total_bytes, files, shape, compress: None, seed: 7 }
}

fn raw(shape: Shape, seed: u64, file: u64, share: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let source = FileSource { shape, compress: None, seed, file, share };
    source.make_blocks(|block| bytes.write_all(&block.stored).is_ok()).unwrap();
    bytes
}

/// Runs `generate` and reads back what it wrote: names with contents, in order.
async fn run(options: &GenerateOptions) -> (Generated, Vec<(String, Vec<u8>)>) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let told = AtomicU64::new(0);
    let count = |bytes| {
        told.fetch_add(bytes, Ordering::Relaxed);
    };
    let generated = generate(Arc::clone(&store), &Path::from("in/here"), options, count).await.unwrap();
    assert_eq!(told.into_inner(), generated.raw_bytes);
    let mut objects = Vec::new();
    for meta in store.list(None).try_collect::<Vec<_>>().await.unwrap() {
        let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        objects.push((meta.location.to_string(), bytes.to_vec()));
    }
    objects.sort();
    assert_eq!(objects.len(), generated.objects);
    assert_eq!(objects.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>(), generated.stored_bytes);
    (generated, objects)
}

/// Packs 1 MiB chunks as `sql/compress.sql` does: the smallest, the overall and the largest ratio.
fn zlib_ratios(bytes: &[u8]) -> (f64, f64, f64) {
    let mut ratios = Vec::new();
    let mut packed_bytes = 0;
    let chunks: Vec<&[u8]> = bytes.chunks_exact(1 << 20).collect();
    for chunk in &chunks {
        let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::new(9));
        encoder.write_all(chunk).unwrap();
        let packed = encoder.finish().unwrap().len();
        packed_bytes += packed;
        ratios.push(chunk.len() as f64 / packed as f64);
    }
    ratios.sort_by(f64::total_cmp);
    (ratios[0], (chunks.len() << 20) as f64 / packed_bytes as f64, ratios[ratios.len() - 1])
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_seeds_give_equal_objects_and_others_do_not() {
    for shape in SHAPES {
        let options = options(shape, 3_000_000, 3);
        let (first, objects) = run(&options).await;
        assert_eq!(run(&options).await, (first, objects.clone()), "{shape:?}");
        let (_, others) = run(&GenerateOptions { seed: 8, ..options }).await;
        assert!(objects.iter().zip(&others).all(|(one, other)| one.0 == other.0 && one.1 != other.1), "{shape:?}");
        assert!(objects[0].1 != objects[1].1, "{shape:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_is_what_was_asked_for_and_at_most_a_record_per_object_more() {
    for shape in [Shape::Json, Shape::Csv, Shape::Logs, Shape::Text, Shape::Binary] {
        let (generated, objects) = run(&options(shape, 5_000_001, 4)).await;
        assert_eq!(generated.raw_bytes, generated.stored_bytes);
        for (index, (name, bytes)) in objects.iter().enumerate() {
            let share = share_of(5_000_001, index as u64, 4);
            let excess = bytes.len() as u64 - share;
            assert!(excess < 4096, "{shape:?}: {excess}");
            assert_eq!(*name, format!("in/here/events-{index:05}.{}", shape.suffix()));
        }
        if shape != Shape::Binary {
            let lines: usize = objects.iter().map(|(_, bytes)| bytes.iter().filter(|byte| **byte == b'\n').count()).sum();
            assert_eq!(generated.records, lines as u64, "{shape:?}");
            assert!(objects.iter().all(|(_, bytes)| bytes.ends_with(b"\n")));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_go_up_in_parts() {
    let (generated, objects) = run(&options(Shape::LongLines, 40 << 20, 1)).await;
    assert_eq!(objects[0].1.len() as u64, generated.raw_bytes);
    assert_eq!(objects[0].1, raw(Shape::LongLines, 7, 0, 40 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_objects_hold_the_same_bytes() {
    let plain = run(&options(Shape::Json, 3_000_000, 2)).await.1;
    for compress in [Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz] {
        let (generated, objects) = run(&GenerateOptions { compress: Some(compress), ..options(Shape::Json, 3_000_000, 2) }).await;
        assert!(generated.stored_bytes * 4 < generated.raw_bytes);
        for ((name, packed), (plain_name, plain)) in objects.iter().zip(&plain) {
            assert_eq!(*name, format!("{plain_name}{}", compress.suffix()));
            let mut bytes = Vec::new();
            match compress {
                Compression::Gzip => flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes),
                Compression::Zstd => zstd::stream::read::Decoder::new(&packed[..]).unwrap().read_to_end(&mut bytes),
                Compression::Bzip2 => bzip2::read::BzDecoder::new(&packed[..]).read_to_end(&mut bytes),
                Compression::Xz => liblzma::read::XzDecoder::new(&packed[..]).read_to_end(&mut bytes),
            }
            .unwrap();
            assert!(bytes == *plain, "{compress:?}");
        }
    }
}

#[tokio::test]
async fn no_files_are_refused_and_no_bytes_are_empty_objects() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let error = generate(store, &Path::default(), &options(Shape::Json, 1, 0), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Config);
    let (generated, objects) = run(&options(Shape::Json, 0, 2)).await;
    assert_eq!((generated.records, generated.raw_bytes, objects.len()), (0, 0, 2));
}

#[test]
fn zlib_packs_json_events_about_ten_to_one_in_every_chunk() {
    for (file, share) in [(0, 8 << 20), (3, 8 << 20), (1, 64 << 20)] {
        let bytes = raw(Shape::Json, 42, file, share);
        let (smallest, overall, largest) = zlib_ratios(&bytes[..8 << 20]);
        println!("json {smallest:.2} {overall:.2} {largest:.2}");
        assert!((8.0..=12.0).contains(&smallest) && (8.0..=12.0).contains(&largest), "{smallest}, {overall}, {largest}");
    }
}

#[test]
fn json_events_are_distinct_valid_and_in_order_of_time() {
    let bytes = raw(Shape::Json, 1, 0, 4 << 20);
    let text = std::str::from_utf8(&bytes).unwrap();
    let mut seen = std::collections::HashSet::new();
    let mut types = std::collections::HashSet::new();
    let mut last = String::new();
    for line in text.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = event["event_id"].as_str().unwrap();
        assert!(id.len() == 36 && seen.insert(id.to_owned()), "{id}");
        let time = event["timestamp"].as_str().unwrap().to_owned();
        assert!(time >= last && time.len() == 24, "{time}");
        last = time;
        types.insert(event["type"].as_str().unwrap().to_owned());
        assert!(event["properties"].is_object() && event["geo"]["city"].is_string());
    }
    assert_eq!(types.len(), 7);
    assert!(text.lines().count() > 4000);
}

#[test]
fn other_shapes_are_what_they_claim() {
    let csv = raw(Shape::Csv, 1, 0, 100_000);
    assert!(std::str::from_utf8(&csv).unwrap().lines().all(|line| line.split('|').count() == 17));
    let logs = raw(Shape::Logs, 1, 0, 100_000);
    assert!(std::str::from_utf8(&logs).unwrap().lines().all(|line| line.split('"').count() == 7 && line.contains(" +0000] ")));
    let text = raw(Shape::Text, 1, 0, 100_000);
    let text = std::str::from_utf8(&text).unwrap().to_lowercase();
    assert!(text.matches(" the ").count() > text.matches(" water ").count() * 5);
    let long = raw(Shape::LongLines, 1, 0, 20 << 20);
    let long = std::str::from_utf8(&long).unwrap();
    let longest = long.lines().max_by_key(|line| line.len()).unwrap();
    assert!((2 << 20..9 << 20).contains(&longest.len()));
    assert!(serde_json::from_str::<serde_json::Value>(longest).unwrap()["events"].as_array().unwrap().len() > 1000);
    let (_, binary, _) = zlib_ratios(&raw(Shape::Binary, 1, 0, 2 << 20));
    assert!(binary < 1.15, "{binary}");
}
