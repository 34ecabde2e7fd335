//! The functions through real SQL, over every input type. [`stream`] damages streams; [`size`] holds sizes against zlib's.

mod size;
mod stream;

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryViewArray, FixedSizeBinaryArray, LargeBinaryArray, LargeStringArray, RecordBatch, StringViewArray,
};
use datafusion::arrow::array::{BinaryArray, StringArray, cast::AsArray};
use datafusion::arrow::util::pretty::pretty_format_batches;

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
        (
            "SELECT zlib_decompress('not zlib')",
            "row 0 of the batch: the compressed stream is corrupt near byte 2 of 8: incorrect header check",
        ),
        ("SELECT compress('x', 'zlib(9')", "the level is no number"),
        ("SELECT decompress('x', 'none', -1)", "max_bytes -1 is negative"),
        ("SELECT try_zlib_decompress(zlib_compress(repeat('x', 1000)), 999)", "raise max_bytes"),
        ("SELECT zlib_decompress(zlib_compress(repeat('x', 1000)), 999)", "raise max_bytes"),
    ] {
        let error = error(sql).await;
        assert!(error.contains(words), "{sql}: {error}");
    }
}

#[tokio::test]
async fn level_and_effort_may_be_columns_and_a_null_among_them_gives_null() {
    let sql = "SELECT bit_length(encode(zlib_compress(repeat('abc', 400), l, e), 'hex')) > 0 AS r
               FROM (VALUES (0, 1), (6, 12), (9, NULL), (NULL, 6)) AS t(l, e)";
    assert_eq!(rows(sql).await, ["true", "true", "", ""]);
    let sql =
        "SELECT zlib_decompress(zlib_compress(v, l)) = arrow_cast(v, 'Binary') AS r FROM (VALUES ('a', 0), ('b', 9), ('a', 0)) AS t(v, l)";
    assert_eq!(rows(sql).await, ["true", "true", "true"]);
    let stored = "SELECT octet_length(zlib_compress(repeat('x', 1000), 0)) > 1000 AS r";
    assert_eq!(rows(stored).await, ["true"], "level 0 stores");
}

#[tokio::test]
async fn empty_columns_and_dictionaries_are_taken() {
    let none = "SELECT zlib_compress(v), compress(v, 'lz4'), crc32(v), octet_length(v) FROM (VALUES ('a')) AS t(v) WHERE v = 'b'";
    assert_eq!(rows(none).await, Vec::<String>::new());
    let sql =
        "SELECT zlib_decompress(zlib_compress(d)) = arrow_cast('aa', 'Binary') AND octet_length(d) = 2 AND crc32(d) = crc32('aa') AS r
               FROM (SELECT arrow_cast('aa', 'Dictionary(Int32, Utf8)') AS d)";
    assert_eq!(rows(sql).await, ["true"]);
}

#[tokio::test]
async fn octet_length_still_counts_every_kind_of_text() {
    for kind in ["Utf8", "LargeUtf8", "Utf8View", "Binary", "LargeBinary", "BinaryView"] {
        let sql = format!("SELECT arrow_typeof(octet_length(v)), octet_length(v) FROM (SELECT arrow_cast('grün', '{kind}') AS v)");
        let wide = if kind.starts_with("Large") { "Int64" } else { "Int32" };
        let row = rows(&sql).await.remove(0);
        assert!(row.starts_with(wide) && row.ends_with('5'), "{kind}: {row}");
    }
}

#[tokio::test]
async fn the_error_names_the_lowest_bad_row() {
    let sql = "SELECT zlib_decompress(v) FROM (VALUES (zlib_compress('a')), (arrow_cast('bad', 'Binary')), (arrow_cast('worse', 'Binary'))) AS t(v)";
    for _ in 0..8 {
        let error = error(sql).await;
        assert!(error.contains("row 1 of the batch"), "{error}");
    }
}
