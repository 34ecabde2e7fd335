//! Each stage of a row's way by itself: read, chunk, compress, encode, write. All over the same 64 MiB of sample data.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up should stop")]

use std::hint::black_box;
use std::sync::Arc;

use baler::connector::SinkSpec;
use baler::connector::batch::{BatchBuilder, BatchLimits};
use baler::connector::blob::Boundary;
use baler::connector::blob::block::{Block, BlockShape, Filling};
use baler::connector::blob::chunk::Chunker;
use baler::connector::blob::read::read_range;
use baler::connector::bson::BsonSpec;
use baler::connector::document::DocumentEncoder;
use baler::generate::{GenerateOptions, Shape, generate};
use baler::runtime;
use baler::session::local_session;
use baler::store::locate;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use datafusion::arrow::array::RecordBatch;
use object_store::ObjectStoreExt;

const BYTES: u64 = 64 << 20;
const CHUNK_BYTES: usize = 1 << 20;
const SHAPE: BlockShape = BlockShape { headroom: CHUNK_BYTES, block_bytes: 8 << 20, counts_feeds: true };

fn stages(criterion: &mut Criterion) {
    let io = runtime::io().expect("an I/O runtime");
    let context = local_session().expect("a session");
    let folder = tempfile::tempdir().expect("a folder");
    let url = folder.path().join("data").to_string_lossy().into_owned();
    let place = locate(&context.runtime_env(), &url).expect("a place");
    let options = GenerateOptions { total_bytes: BYTES, files: 1, shape: Shape::Json, compress: None, seed: 1 };
    io.block_on(generate(Arc::clone(&place.store), &place.path, &options, |_| {})).expect("sample data");
    let object = place.join("events-00000.json");
    let meta = io.block_on(object.store.head(&object.path)).expect("an object");
    let data = std::fs::read(format!("/{}", object.path)).expect("its bytes");
    let version = meta.e_tag.clone().unwrap_or_default();

    let mut group = criterion.benchmark_group("stages");
    group.sample_size(10).throughput(Throughput::Bytes(data.len() as u64));

    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            let mut blocks = read_range(object.clone(), version.clone(), 0..meta.size, meta.size, SHAPE).expect("a reader");
            io.block_on(async {
                while let Some(block) = blocks.next().await {
                    black_box(block.expect("a block"));
                }
            });
        });
    });

    group.bench_function("chunk", |bencher| {
        let blocks = || -> Vec<Block> {
            let block = |(index, bytes): (usize, &[u8])| {
                let mut filling = Filling::new(SHAPE, bytes.len(), (index * SHAPE.block_bytes) as u64);
                filling.put(bytes);
                filling.finish()
            };
            data.chunks(SHAPE.block_bytes).enumerate().map(block).collect()
        };
        bencher.iter_batched(
            blocks,
            |blocks| {
                let mut chunker = Chunker::new(Boundary::Line, CHUNK_BYTES, 0, meta.size);
                for block in blocks {
                    black_box(chunker.push(block));
                }
                black_box(chunker.finish());
            },
            BatchSize::LargeInput,
        );
    });

    let query =
        |sql: &str| -> Vec<RecordBatch> { io.block_on(async { context.sql(sql).await.expect("a plan").collect().await.expect("rows") }) };
    query(&format!("CREATE EXTERNAL TABLE objects STORED AS BLOB LOCATION '{url}/'"));
    query("CREATE TABLE chunks AS SELECT * FROM objects");
    group.bench_function("compress", |bencher| {
        bencher.iter(|| black_box(query("SELECT sum(octet_length(zlib_compress(content, 9))) FROM chunks")));
    });

    let documents = query("SELECT id AS _id, object, byte_offset, zlib_compress(content, 9) AS data FROM chunks");
    let encoder = DocumentEncoder::try_new(&documents[0].schema()).expect("an encoder");
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            for batch in &documents {
                black_box(encoder.encode(batch).expect("documents"));
            }
        });
    });

    let dump = folder.path().join("dump").to_string_lossy().into_owned();
    let sink = SinkSpec::Bson(BsonSpec::try_new(&dump, &Default::default()).expect("a sink"));
    let limits = BatchLimits { bytes_max: 8 << 20, docs_max: 1000, age_max: std::time::Duration::from_secs(5) };
    group.bench_function("write", |bencher| {
        bencher.iter(|| {
            io.block_on(async {
                let mut writer = sink.open(&context.runtime_env(), "part").await.expect("a writer");
                let mut builder = BatchBuilder::new(limits);
                for batch in &documents {
                    for full in builder.add(encoder.encode(batch).expect("documents")) {
                        writer.write(full).await.expect("room");
                    }
                }
                if let Some(last) = builder.take() {
                    writer.write(last).await.expect("room");
                }
                writer.finish().await.expect("durable");
            });
        });
    });
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
