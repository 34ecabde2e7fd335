//! Ready-made plans in the DataFrame API, each the twin of a file in `sql/`, to read and to start from.
//!
//! | plan | SQL |
//! | --- | --- |
//! | [`compress_objects`] | `sql/compress.sql`, `sql/compress-to-mongodb.sql` |
//! | [`compression_statistics`] | `sql/stats.sql` |

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::functions_aggregate::expr_fn::{avg, count, sum};
use datafusion::logical_expr::{Expr, cast, col, lit};
use datafusion::prelude::{DataFrame, SessionContext};

/// The level which the standard document names; the encoder behind it is chosen from a sample (`baler::function::zlib`).
const LEVEL: i64 = 9;

/// Standard documents out of a BLOB table: one row a chunk, compressed with zlib, with its place, sizes and checksum.
///
/// # Errors
/// DataFusion's, when there is no such table or it is no BLOB table.
pub async fn compress_objects(context: &SessionContext, table: &str) -> Result<DataFrame> {
    let call = |name: &str, arguments: Vec<Expr>| -> Result<Expr> { Ok(Arc::unwrap_or_clone(context.udf(name)?).call(arguments)) };
    let packed_size = || call("octet_length", vec![col("data")]);
    let compressed = context.table(table).await?.with_column("data", call("zlib_compress", vec![col("content"), lit(LEVEL)])?)?;
    compressed.select(vec![
        col("id").alias("_id"),
        col("object"),
        col("version"),
        col("byte_offset"),
        col("records"),
        col("byte_length").alias("original_size"),
        packed_size()?.alias("compressed_size"),
        call("compression_ratio", vec![col("byte_length"), packed_size()?])?.alias("compression_ratio"),
        lit("zlib").alias("codec"),
        lit(LEVEL).alias("level"),
        call("crc32", vec![col("content")])?.alias("crc32"),
        col("last_modified").alias("timestamp"),
        col("data"),
    ])
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
