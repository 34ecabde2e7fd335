//! Splits, and the leaf of every scan: a table of what there is to read.
//!
//! A scan is a `DataSourceExec` over a `MemorySourceConfig` whose rows are splits or parts (JSON), under a reader node of ours which
//! turns each row into the split's real rows. Ballista slices a stage per task only at the leaves it knows, and this is one
//! of them; a leaf of our own with several partitions would be read whole by every task, silently doubling rows.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, StringArray, cast::AsArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use smol_str::SmolStr;

use super::blob::Compression;
use super::blob::scan::document_id;
use super::documents::Part;
use super::kafka::{parse_partition, row_id};
use crate::error::{Error, Result};
use crate::hex::to_hex;

/// A byte range of one object, or a range of offsets of a Kafka partition: the unit of retry, resume and progress. A job has up to
/// millions, so splits of an object share its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// 16 hex digits: a pure function of object, version and range.
    pub id: SmolStr,
    /// URI of the object; `kafka:topic/3` for a Kafka partition, whose other fields are then empty or count offsets.
    pub object: SmolStr,
    /// Etag of the object, else size and modification time.
    pub version: SmolStr,
    /// Size of the object in bytes, as stored.
    pub size: u64,
    /// When the object was last written, milliseconds since 1970 UTC.
    pub last_modified: i64,
    /// How the object is compressed; `Auto` means that its first bytes decide when it is read.
    pub compression: Compression,
    /// First byte of the range, within the stored object.
    pub start: u64,
    /// Byte after the range; `size` for the last split and for a compressed object, which has one split.
    pub end: u64,
}

impl Split {
    /// Bytes of the range, as stored, or offsets.
    pub fn length(&self) -> u64 {
        self.end - self.start
    }

    /// The partition of a topic, if it is a range of one.
    pub fn kafka_partition(&self) -> Option<i32> {
        parse_partition(&self.object).map(|(_, partition)| partition)
    }

    /// The `_id` of the document which begins at `offset` of it (promise P2).
    pub fn document_id(&self, offset: u64) -> String {
        match parse_partition(&self.object) {
            Some((topic, partition)) => row_id(topic, partition, offset as i64),
            None => document_id(&self.object, &self.version, offset),
        }
    }

    /// Bytes to read, as far as is known before: those of a range of records are guessed.
    pub fn work_bytes(&self) -> u64 {
        if self.kafka_partition().is_some() { (self.length() * RECORD_BYTES).max(RANGE_BYTES_MIN) } else { self.length() }
    }
}

/// What a Kafka record is taken to hold where its size is not known: the seed's records are of this size.
const RECORD_BYTES: u64 = 1 << 10;
/// What a range of offsets counts as at least: its consumer's queue may fill with large records.
const RANGE_BYTES_MIN: u64 = 4 << 20;

/// 16 hex digits of SHA-256 over the parts, each ended by a zero byte.
pub fn digest_id(parts: &[&str], hex_digits: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut text = to_hex(hash.finalize());
    text.truncate(hex_digits);
    text
}

/// What a row of the leaf describes; also the name of its only column.
pub trait LeafRow: Clone + Serialize + DeserializeOwned {
    /// Name of the column.
    const COLUMN: &str;
}

impl LeafRow for Split {
    const COLUMN: &str = "split";
}

impl LeafRow for Part {
    const COLUMN: &str = "part";
}

fn leaf_schema<T: LeafRow>() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(T::COLUMN, DataType::Utf8, false)]))
}

/// Deals rows over at most `partitions` partitions in contiguous runs, so that a partition reads neighbours.
pub fn deal<T: Clone>(rows: &[T], partitions: usize) -> Vec<Vec<T>> {
    let per_partition = rows.len().div_ceil(partitions.max(1)).max(1);
    rows.chunks(per_partition).map(<[T]>::to_vec).collect()
}

/// The leaf: one partition for each run of rows. Without any it has one empty partition.
///
/// # Errors
/// Internal, when a row does not encode.
pub fn leaf_table<T: LeafRow>(partitions: &[Vec<T>]) -> Result<Arc<dyn ExecutionPlan>> {
    let mut data = Vec::new();
    for run in partitions {
        let rows = run.iter().map(serde_json::to_string).collect::<serde_json::Result<Vec<_>>>();
        let rows = rows.map_err(|e| Error::internal("a row of a leaf does not encode as JSON").with_source(e))?;
        let column = Arc::new(StringArray::from(rows));
        data.push(vec![
            RecordBatch::try_new(leaf_schema::<T>(), vec![column]).map_err(|e| Error::internal("the leaf of a scan").with_source(e))?,
        ]);
    }
    if data.is_empty() {
        data.push(Vec::new());
    }
    let source = MemorySourceConfig::try_new(&data, leaf_schema::<T>(), None)?.with_show_sizes(false);
    Ok(DataSourceExec::from_data_source(source))
}

/// The rows in `plan`, if it is a leaf of such rows: those of each partition.
///
/// # Errors
/// Decode, when a row is none of this version.
pub fn leaf_rows<T: LeafRow>(plan: &dyn ExecutionPlan) -> Result<Option<Vec<Vec<T>>>> {
    let Some(leaf) = plan.downcast_ref::<DataSourceExec>() else { return Ok(None) };
    let source: &dyn Any = leaf.data_source().as_ref();
    let Some(memory) = source.downcast_ref::<MemorySourceConfig>() else { return Ok(None) };
    if leaf.schema() != leaf_schema::<T>() {
        return Ok(None);
    }
    let rows_of = |batches: &Vec<RecordBatch>| batches.iter().map(rows_in).collect::<Result<Vec<_>>>().map(|rows| rows.concat());
    memory.partitions().iter().map(rows_of).collect::<Result<Vec<_>>>().map(Some)
}

/// Reads the rows of one partition of a leaf, one after the other.
pub(super) struct LeafReader<T> {
    batches: SendableRecordBatchStream,
    waiting: VecDeque<T>,
}

impl<T: LeafRow> LeafReader<T> {
    /// Before the first row of `batches`.
    pub(super) fn new(batches: SendableRecordBatchStream) -> Self {
        Self { batches, waiting: VecDeque::new() }
    }

    /// The next row; `None` after the last.
    ///
    /// # Errors
    /// As [`rows_in`] and the leaf.
    pub(super) async fn next(&mut self) -> Result<Option<T>> {
        while self.waiting.is_empty() {
            let Some(rows) = self.batches.next().await else { return Ok(None) };
            self.waiting.extend(rows_in::<T>(&rows?)?);
        }
        Ok(self.waiting.pop_front())
    }
}

/// The rows in one batch of a leaf.
///
/// # Errors
/// Decode, when a row is none of this version.
fn rows_in<T: LeafRow>(batch: &RecordBatch) -> Result<Vec<T>> {
    let column = batch.column(0).as_string_opt::<i32>().ok_or_else(|| Error::internal("the leaf of a scan has one text column"))?;
    let rows = column.iter().flatten().map(serde_json::from_str).collect::<serde_json::Result<Vec<_>>>();
    rows.map_err(|e| {
        Error::decode("a row of a scan's leaf cannot be read; scheduler, executors and client must be of one version").with_source(e)
    })
}
