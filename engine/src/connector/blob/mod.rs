//! The BLOB table: objects → splits → chunks. Before: a URL; after: rows of `content` with their place.
//!
//! - [`list`]: URL → objects → splits (planning)
//! - [`read`]: split → blocks of bytes, ahead of the reader
//! - [`block`]: a block, and how it is filled
//! - [`buffer`]: the memory of blocks, used again
//! - [`decompress`]: compressed blocks → plain blocks
//! - [`chunk`]: blocks → chunks that end at record boundaries
//! - [`scan`]: chunks → `RecordBatch`es, the plan node

pub mod block;
pub mod buffer;
pub mod chunk;
pub mod decompress;
pub mod list;
pub mod read;
pub mod scan;

use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

pub use self::decompress::Compression;
pub use self::scan::BlobScanExec;
use crate::error::Result;
use crate::job::dead_letter::OnError;
use crate::options::TableOptions;
use crate::store::full_url;

/// Columns of a BLOB table (DESIGN section 4).
pub static BLOB_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("object", DataType::Utf8, false),
        Field::new("version", DataType::Utf8, false),
        Field::new("byte_offset", DataType::Int64, false),
        Field::new("byte_length", DataType::Int64, false),
        Field::new("records", DataType::Int64, false),
        Field::new("last_modified", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false),
        Field::new("content", DataType::Binary, false),
    ]))
});

/// Where a chunk may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boundary {
    /// After a line feed. Only a line longer than a chunk is cut inside.
    Line,
    /// Anywhere: chunks of equal size, for binary data.
    None,
}

/// Description of a BLOB table; holds no client and no secret, so it may travel in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobSpec {
    /// Object, prefix (ends with `/`) or glob; a full URL.
    pub location: String,
    /// Bytes of one split; 128 MiB as Spark and HDFS have it: large enough to amortise a task, small enough to retry.
    pub split_bytes: u64,
    /// Raw bytes of one chunk and so of one document; 1 MiB is where zlib's ratio stops growing.
    pub chunk_bytes: u64,
    /// Where chunks may end.
    pub boundary: Boundary,
    /// How objects are compressed; `Auto` looks at suffix and first bytes.
    pub compression: Compression,
    /// What to do about a corrupt one. A damaged stream can yield wrong bytes long before its checksum tells, so with 'dead_letter'
    /// each compressed object is decoded once to check it, and once more to read it; nothing is stored of a corrupt one.
    pub on_corrupt: OnError,
}

/// A chunk must fit into one document (16 MiB) with its metadata even where it does not compress.
pub(crate) const CHUNK_BYTES_MAX: u64 = 15 << 20;

/// What its options do, in the words of the reference.
pub(crate) const OPTION_TEXTS: &[(&str, &str)] = &[
    ("split_size", "Bytes of one split, the unit of retry and progress; as Spark and HDFS have it."),
    ("chunk_size", "Raw bytes of one chunk, and so of one document; zlib's ratio hardly grows beyond. At most 15 MiB."),
    ("boundary", "Where a chunk may end: behind a line, or anywhere, for binary data."),
    ("compression", "How objects are compressed; 'auto' looks at suffix and first bytes."),
    ("on_corrupt", "What to do about a corrupt object; with 'dead_letter' compressed ones are decoded twice."),
];

impl BlobSpec {
    /// Reads location and options of a `CREATE EXTERNAL TABLE … STORED AS BLOB`.
    ///
    /// # Errors
    /// Config, for an unknown option or a bad value.
    pub fn try_new(location: &str, options: &std::collections::HashMap<String, String>) -> Result<Self> {
        let mut options = TableOptions::try_new("blob", options)?;
        let spec = Self::read(location, &mut options)?;
        options.finish()?;
        Ok(spec)
    }

    /// Reads them one by one.
    pub(crate) fn read(location: &str, options: &mut TableOptions) -> Result<Self> {
        let spec = Self {
            location: full_url(location)?,
            split_bytes: options.take_bytes("split_size", 128 << 20, 1, 1 << 40)?,
            chunk_bytes: options.take_bytes("chunk_size", 1 << 20, 1, CHUNK_BYTES_MAX)?,
            boundary: options.take_choice("boundary", Boundary::Line, &[("line", Boundary::Line), ("none", Boundary::None)])?,
            compression: options.take_choice("compression", Compression::Auto, Compression::WORDS)?,
            on_corrupt: options.take_choice("on_corrupt", OnError::Fail, OnError::WORDS)?,
        };
        Ok(spec)
    }
}
