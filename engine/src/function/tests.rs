//! The functions through real SQL, over every input type, and against zlib itself.

use std::fmt::Write;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryViewArray, FixedSizeBinaryArray, LargeBinaryArray, LargeStringArray, RecordBatch, StringViewArray,
};
use datafusion::arrow::array::{BinaryArray, StringArray, cast::AsArray};
use datafusion::arrow::util::pretty::pretty_format_batches;
use proptest::prelude::*;

use super::codec::{Method, decompress_value_of};
use super::zlib::{compress_all, compress_value};
use crate::session::local_session;

async fn query(sql: &str) -> crate::Result<Vec<RecordBatch>> {
    Ok(local_session()?.sql(sql).await?.collect().await?)
}

/// The rows of a query, trimmed, without the frame.
async fn rows(sql: &str) -> Vec<String> {
    let shown = pretty_format_batches(&query(sql).await.unwrap()).unwrap().to_string();
    shown
        .lines()
        .skip(3)
        .filter(|line| line.starts_with('|'))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").trim_matches('|').trim().to_string())
        .collect()
}

async fn error(sql: &str) -> String {
    query(sql).await.unwrap_err().to_string()
}

#[tokio::test]
async fn every_text_and_binary_type_goes_round() {
    let values = [Some("alpha"), None, Some(""), Some("omega omega omega")];
    let bytes = values.map(|value| value.map(str::as_bytes));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(values)),
        Arc::new(LargeStringArray::from_iter(values)),
        Arc::new(StringViewArray::from_iter(values)),
        Arc::new(BinaryArray::from_iter(bytes)),
        Arc::new(LargeBinaryArray::from_iter(bytes)),
        Arc::new(BinaryViewArray::from_iter(bytes)),
    ];
    for column in columns {
        let session = local_session().unwrap();
        // A slice with an offset, as operators hand them on.
        let batch = RecordBatch::try_from_iter([("v", column.slice(1, 3))]).unwrap();
        session.register_batch("t", batch).unwrap();
        let sql =
            "SELECT zlib_decompress(zlib_compress(v, 6)), decompress(compress(v, 'zstd(3)'), 'zstd'), octet_length(v), crc32(v) FROM t";
        let found = session.sql(sql).await.unwrap().collect().await.unwrap();
        for index in [0, 1] {
            let raw: Vec<_> = found[0].column(index).as_binary::<i32>().iter().collect();
            assert_eq!(raw, vec![bytes[1], bytes[2], bytes[3]], "{}", column.data_type());
        }
        assert_eq!(found[0].column(3).null_count(), 1);
    }
    let fixed: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter([b"abcd", b"efgh"].into_iter()).unwrap());
    let session = local_session().unwrap();
    session.register_batch("t", RecordBatch::try_from_iter([("v", fixed)]).unwrap()).unwrap();
    let found = session.sql("SELECT zlib_decompress(zlib_compress(v)) FROM t").await.unwrap().collect().await.unwrap();
    assert_eq!(found[0].column(0).as_binary::<i32>().value(1), b"efgh");
}

#[tokio::test]
async fn constants_and_nulls_give_constants_and_nulls() {
    assert_eq!(rows("SELECT octet_length('ü'), octet_length(x'00ff'), octet_length(NULL), octet_length(12345)").await, ["2 | 2 | | 5"]);
    assert_eq!(rows("SELECT crc32('123456789')").await, ["3421780262"]);
    assert_eq!(rows("SELECT compression_ratio('aaaa', 'bb') AS r").await, ["2.0"]);
    assert_eq!(rows("SELECT compression_ratio(10, 4) AS r").await, ["2.5"]);
    assert_eq!(rows("SELECT compression_ratio(10, 0) IS NULL AS r").await, ["true"]);
    assert_eq!(rows("SELECT zlib_compress(NULL) IS NULL AND zlib_compress('x', NULL) IS NULL AS r").await, ["true"]);
    assert_eq!(rows("SELECT try_zlib_decompress('not zlib') IS NULL AS r").await, ["true"]);
    for method in ["zlib", "zlib(1)", "gzip(6)", "zstd", "zstd(19)", "lz4", "none"] {
        let sql = format!("SELECT decompress(compress('some text', '{method}'), '{method}') = arrow_cast('some text', 'Binary') AS r");
        assert_eq!(rows(&sql).await, ["true"], "{method}");
    }
}

#[tokio::test]
async fn bad_calls_name_function_value_and_remedy() {
    for (sql, words) in [
        ("SELECT zlib_compress('x', 10)", "level 10 is out of range, take 0 to 9"),
        ("SELECT zlib_compress('x', 9, 13)", "effort 13 is out of range, take 1 to 12"),
        ("SELECT zlib_compress(1.5)", "argument 1 is Float64, but text or binary is wanted"),
        ("SELECT compress('x', 'zlip(9)')", "did you mean 'zlib'?"),
        ("SELECT compress('x', 'zstd(23)')", "take 1 to 22"),
        ("SELECT zlib_decompress('not zlib')", "row 0 of the batch"),
        ("SELECT zlib_decompress(zlib_compress(repeat('x', 1000)), 999)", "raise max_bytes"),
    ] {
        let error = error(sql).await;
        assert!(error.contains(words), "{sql}: {error}");
    }
}

#[test]
fn damaged_streams_are_told_apart() {
    let raw: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let packed = compress_value(&raw, 7).unwrap();
    let inflate = |packed: &[u8]| decompress_value_of(Method::Zlib(9), packed, 1 << 20);
    assert_eq!(inflate(&packed).unwrap(), raw);
    assert!(inflate(&packed[..packed.len() / 2]).unwrap_err().to_string().contains("truncated"));
    let mut trailing = packed.clone();
    trailing.push(0);
    assert!(inflate(&trailing).unwrap_err().to_string().contains("1 bytes follow the end"));
    let mut flipped = packed.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1; // the checksum
    assert!(inflate(&flipped).unwrap_err().to_string().contains("corrupt"));
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let packed = compress_value(&vec![0; 64 << 20], 6).unwrap();
    assert!(packed.len() < 100_000);
    let error = decompress_value_of(Method::Zlib(9), &packed, 1 << 20).unwrap_err();
    assert!(error.to_string().contains("more than 1.0 MiB"), "{error}");
}

/// Corpora of 8 MiB each: what the machine has, and what can be made.
fn corpora() -> Vec<(&'static str, Vec<u8>)> {
    const BYTES: usize = 8 << 20;
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let (mut json, mut csv, mut log) = (String::new(), String::new(), String::new());
    while json.len() < BYTES {
        let (a, b, c, d) = (random(), random() % 40_000, random() % 300, random() % 20);
        let kind = ["view", "click", "cart", "buy", "scroll"][a as usize % 5];
        writeln!(json, r#"{{"ts":17{a:011},"user":{b},"type":"{kind}","page":"/product/{c}/detail","agent":"Mozilla/5.0 (X11; Linux x86_64) Chrome/1{d:02}.0"}}"#).unwrap();
    }
    while csv.len() < BYTES {
        let (a, b, c) = (random(), random() % 9_000, random() % 50);
        writeln!(csv, "{a}|{b}|{c}|{}.{:02}|0.0{}|N|O|1996-0{}-1{}|DELIVER IN PERSON|TRUCK|", b * 7, c, a % 9, 1 + a % 9, b % 9).unwrap();
    }
    while log.len() < BYTES {
        let (a, b) = (random(), random());
        let (o1, o2, o3) = (a % 223, b % 255, (a >> 8) % 255);
        writeln!(
            log,
            "{o1}.{o2}.{o3}.7 - - [23/Nov/2026:10:{:02}:{:02} +0000] \"GET /a/{}/{} HTTP/1.1\" 200 {}",
            a % 60,
            b % 60,
            b % 90,
            a % 900,
            b % 70_000
        )
        .unwrap();
    }
    let mut sources = Vec::new();
    let mut folders = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { sources.extend(std::fs::read(path).unwrap()) }
        }
    }
    let mut program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    program.truncate(BYTES);
    let noise = (0..BYTES / 8).map(|_| random() as u8).collect();
    vec![
        ("json", json.into_bytes()),
        ("csv", csv.into_bytes()),
        ("log", log.into_bytes()),
        ("rust", sources),
        ("elf", program),
        ("noise", noise),
    ]
}

#[test]
fn level_9_is_within_half_a_percent_of_zlib_on_every_corpus() {
    for (name, corpus) in corpora() {
        let chunks: Vec<Option<&[u8]>> = corpus.chunks(1 << 20).map(Some).collect();
        let ours: usize = compress_all(&chunks, 9, None).unwrap().iter().flatten().map(Vec::len).sum();
        let zlib: usize = chunks.iter().flatten().map(|chunk| zlib_reference::compressed_size(chunk, 9)).sum();
        assert!(ours as f64 <= zlib as f64 * 1.005, "{name}: {ours} bytes, zlib {zlib}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_at_any_level_and_effort_go_round_and_repeat(
        data in prop::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..5000), level in 0u8..=9, effort in prop::option::of(1u8..=12),
    ) {
        let values = [Some(data.as_slice()), None, Some(&data[..data.len() / 2])];
        let packed = compress_all(&values, level, effort).unwrap();
        prop_assert_eq!(&packed, &compress_all(&values, level, effort).unwrap());
        for (value, packed) in values.iter().zip(&packed) {
            let raw = packed.as_ref().map(|packed| decompress_value_of(Method::Zlib(9), packed, 1 << 20).unwrap());
            prop_assert_eq!(raw.as_deref(), *value);
        }
    }

    #[test]
    fn no_decoder_panics_on_foreign_bytes(data in prop::collection::vec(any::<u8>(), 0..300), head in 0usize..4) {
        // Real headers lead further in.
        let heads: [&[u8]; 4] = [&[], &[0x78, 0x9c], &[0x1f, 0x8b, 8, 0], &[0x28, 0xb5, 0x2f, 0xfd]];
        let data = [heads[head], &data].concat();
        for method in [Method::Zlib(9), Method::Gzip(6), Method::Zstd(3), Method::Lz4, Method::None] {
            drop(decompress_value_of(method, &data, 10_000));
        }
    }
}
