//! Ready-made plans in the DataFrame API, each the twin of a file in `sql/`, to read and to start from.
//!
//! | plan | SQL |
//! | --- | --- |
//! | [`compress_objects`] | `sql/compress.sql`, `sql/compress-to-mongodb.sql` |
//! | [`pack_records`] | `sql/stream.sql` |
//! | [`compression_statistics`] | `sql/stats.sql` |
//! | [`restore`] | `sql/restore.sql` |
//! | [`verification`] | `sql/verification.sql` |

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::functions::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{avg, count, sum};
use datafusion::functions_window::expr_fn::lag;
use datafusion::logical_expr::{Expr, ExprFunctionExt, Operator, binary_expr, cast, col, lit};
use datafusion::prelude::{DataFrame, SessionContext};

/// The level which the standard document names; the encoder behind it is chosen from a sample (`baler::function::zlib`).
const LEVEL: i64 = 9;

/// The call of a function of Baler's.
fn call(context: &SessionContext, name: &str, arguments: Vec<Expr>) -> Result<Expr> {
    Ok(Arc::unwrap_or_clone(context.udf(name)?).call(arguments))
}

/// Standard documents out of a BLOB table: one row a chunk, compressed with zlib, with its place, sizes and checksum.
///
/// # Errors
/// DataFusion's, when there is no such table or it is no BLOB table.
pub async fn compress_objects(context: &SessionContext, table: &str) -> Result<DataFrame> {
    standard_documents(context, table, &["object", "version", "byte_offset"], "last_modified").await
}

/// Standard documents out of a KAFKA table of packed records: one row a chunk of consecutive records of a partition, compressed with
/// zlib, with its place, sizes and checksum.
///
/// # Errors
/// DataFusion's, when there is no such table or it is no KAFKA table whose rows are chunks.
pub async fn pack_records(context: &SessionContext, table: &str) -> Result<DataFrame> {
    standard_documents(context, table, &["topic", "partition", "first_offset", "last_offset"], "last_timestamp").await
}

/// One document a chunk; `place` are the columns which say where it comes from.
async fn standard_documents(context: &SessionContext, table: &str, place: &[&str], timestamp: &str) -> Result<DataFrame> {
    let call = |name: &str, arguments: Vec<Expr>| call(context, name, arguments);
    let packed_size = || call("octet_length", vec![col("data")]);
    let compressed = context.table(table).await?.with_column("data", call("zlib_compress", vec![col("content"), lit(LEVEL)])?)?;
    let mut columns = vec![col("id").alias("_id")];
    columns.extend(place.iter().map(|name| col(*name)));
    columns.extend([
        col("records"),
        col("byte_length").alias("original_size"),
        packed_size()?.alias("compressed_size"),
        call("compression_ratio", vec![col("byte_length"), packed_size()?])?.alias("compression_ratio"),
        lit("zlib").alias("codec"),
        lit(LEVEL).alias("level"),
        call("crc32", vec![col("content")])?.alias("crc32"),
        col(timestamp).alias("timestamp"),
        col("data"),
    ]);
    compressed.select(columns)
}

/// One row of totals over stored documents: how many, how large before and after, and the average ratio.
///
/// # Errors
/// DataFusion's, when there is no such table or it lacks one of the standard document's columns.
pub async fn compression_statistics(context: &SessionContext, table: &str) -> Result<DataFrame> {
    let total = |name: &str| sum(col(name)).alias(name);
    let totals = vec![
        count(lit(1)).alias("documents"),
        total("records"),
        total("original_size"),
        total("compressed_size"),
        avg(col("compression_ratio")).alias("average_ratio"),
    ];
    let overall = col("original_size") / cast(col("compressed_size"), DataType::Float64);
    context.table(table).await?.aggregate(vec![], totals)?.with_column("overall_ratio", overall)
}

/// The content of one object out of its stored documents, chunk by chunk in order. `baler restore` writes whole objects, in bounded memory.
///
/// # Errors
/// DataFusion's, when there is no such table or it lacks one of the standard document's columns.
pub async fn restore(context: &SessionContext, table: &str, object: &str) -> Result<DataFrame> {
    let content = call(context, "zlib_decompress", vec![col("data")])?.alias("content");
    let chunks = context.table(table).await?.filter(col("object").eq(lit(object)))?;
    chunks.select(vec![col("byte_offset"), content])?.sort(vec![col("byte_offset").sort(true, false)])
}

/// What can be checked of stored documents by themselves: one row an object; sound ones have 0 gaps, 0 overlaps and 0 damaged
/// documents. An end which is missing and documents which were replaced as a whole are found by `baler verify`, which knows the receipts.
///
/// # Errors
/// As [`restore`].
pub async fn verification(context: &SessionContext, table: &str) -> Result<DataFrame> {
    let call = |name: &str, arguments: Vec<Expr>| call(context, name, arguments);
    let raw = || call("try_zlib_decompress", vec![col("data")]);
    let differs = |left: Expr, right: &str| binary_expr(left, Operator::IsDistinctFrom, col(right));
    let is_damaged = differs(call("octet_length", vec![col("data")])?, "compressed_size")
        .or(differs(call("octet_length", vec![raw()?])?, "original_size"))
        .or(differs(call("crc32", vec![raw()?])?, "crc32"));
    let place = || vec![col("object"), col("version")];
    let end_before = lag(col("byte_offset") + col("original_size"), Some(1), None)
        .partition_by(place())
        .order_by(vec![col("byte_offset").sort(true, false)])
        .build()?;
    let checked = vec![col("object"), col("version"), col("byte_offset"), col("original_size"), is_damaged.alias("is_damaged")];
    let count_where = |condition: Expr| count(lit(1)).filter(condition).build();
    let totals = vec![
        count(lit(1)).alias("documents"),
        sum(col("original_size")).alias("bytes"),
        count_where(col("byte_offset").gt(col("expected")))?.alias("gaps"),
        count_where(col("byte_offset").lt(col("expected")))?.alias("overlaps"),
        count_where(col("is_damaged"))?.alias("damaged"),
    ];
    let documents = context.table(table).await?.select(checked)?.with_column("expected", coalesce(vec![end_before, lit(0_i64)]))?;
    documents.aggregate(place(), totals)?.sort(vec![col("object").sort(true, false), col("version").sort(true, false)])
}
