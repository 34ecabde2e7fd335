//! Ready-made plans in the DataFrame API, each the twin of a file in `sql/`, to read and to start from.
//!
//! | plan | SQL |
//! | --- | --- |
//! | [`compress_objects`] | `sql/compress.sql`, `sql/compress-to-mongodb.sql` |

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{Expr, col, lit};
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
