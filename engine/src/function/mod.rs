//! SQL functions, one file a family. Each is also registered on every server, by [`all`].
//!
//! | place | functions |
//! | --- | --- |
//! | [`zlib`] | `zlib_compress`, `zlib_decompress`, `try_zlib_decompress` |
//! | [`codec`] | `compress`, `decompress` by method name |
//! | [`binary`] | `crc32`, `compression_ratio`, `octet_length` of binary |
//! | [`effort`] | how hard the zlib encoder works |
//! | [`deflate`] | one value → zlib or gzip |
//! | [`inflate`] | one value back, within a limit, or an error that says where |
//! | `pool` | the threads which compress and decompress |
//! | [`argument`] | arguments of any text or binary type as byte slices |

pub mod argument;
pub mod binary;
pub mod codec;
pub mod deflate;
pub mod effort;
pub mod inflate;
pub(crate) mod pool;
pub mod zlib;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

/// Every function of ours.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    [
        ScalarUDF::from(zlib::ZlibCompress::default()),
        ScalarUDF::from(zlib::ZlibDecompress::strict()),
        ScalarUDF::from(zlib::ZlibDecompress::lenient()),
        ScalarUDF::from(codec::Compress::default()),
        ScalarUDF::from(codec::Decompress::default()),
        ScalarUDF::from(binary::Crc32::default()),
        ScalarUDF::from(binary::CompressionRatio::default()),
        ScalarUDF::from(binary::OctetLength::default()),
    ]
    .into_iter()
    .map(Arc::new)
    .collect()
}

#[cfg(test)]
mod tests;
