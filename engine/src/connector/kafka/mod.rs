//! The KAFKA table: partitions of a topic → splits → chunks or records. Before: a URL; after: rows with their place.
//!
//! - [`spec`]: location and options → `KafkaSpec`
//! - [`client`]: consumers of this process; credentials; which error means what
//! - [`offsets`]: topic → exact offset ranges → splits (planning)
//! - [`origin`]: whether a topic is still the one that was read
//! - [`pack`]: records → chunks or single rows
//! - [`frame`]: how records lie in a chunk, and back
//! - [`produce`]: records of one partition → another topic, each once
//! - [`read`]: split → batches of rows, ahead of the reader
//! - [`scan`]: the plan node
//!
//! To the rest of the engine a Kafka partition is an object, `kafka:topic/3`, and a record's offset is its place in it. Offsets
//! have gaps, where records were compacted away or where transactions left their markers.

pub mod client;
pub mod frame;
pub mod offsets;
pub mod origin;
pub mod pack;
pub mod produce;
pub mod read;
pub mod scan;
pub mod spec;

use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

pub use self::scan::KafkaScanExec;
pub use self::spec::KafkaSpec;
use super::split::{Split, digest_id};
use crate::error::Result;

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// Columns of a KAFKA table of chunks (DESIGN section 4).
pub static CHUNK_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("first_offset", DataType::Int64, false),
        Field::new("last_offset", DataType::Int64, false),
        Field::new("records", DataType::Int64, false),
        Field::new("first_timestamp", timestamp(), true),
        Field::new("last_timestamp", timestamp(), true),
        Field::new("byte_length", DataType::Int64, false),
        Field::new("content", DataType::Binary, false),
    ]))
});

/// Name and value of a record's header.
pub(crate) static HEADER_FIELDS: LazyLock<Fields> =
    LazyLock::new(|| Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)]));

/// Columns of a KAFKA table of single records; the last one is left out without `kafka.include_headers`.
pub static RECORD_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let header = Field::new("item", DataType::Struct(HEADER_FIELDS.clone()), false);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("key", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", timestamp(), true),
        Field::new("headers", DataType::List(Arc::new(header)), false),
    ]))
});

/// The columns of a table.
pub(crate) fn table_schema(spec: &KafkaSpec) -> SchemaRef {
    if !spec.is_by_record() {
        return Arc::clone(&CHUNK_SCHEMA);
    }
    if spec.include_headers {
        return Arc::clone(&RECORD_SCHEMA);
    }
    let fields = RECORD_SCHEMA.fields();
    Arc::new(Schema::new(fields[..fields.len() - 1].to_vec()))
}

const OBJECT_SCHEME: &str = "kafka:";

/// How a partition is named where objects are: `kafka:topic/3`.
pub fn partition_object(topic: &str, partition: i32) -> String {
    format!("{OBJECT_SCHEME}{topic}/{partition}")
}

/// Topic and partition of such a name; `None` for an object of a store.
pub fn parse_partition(object: &str) -> Option<(&str, i32)> {
    let (topic, partition) = object.strip_prefix(OBJECT_SCHEME)?.rsplit_once('/')?;
    Some((topic, partition.parse().ok()?))
}

/// What a place in an object is counted in: bytes, or offsets of a Kafka partition.
pub fn unit_of(object: &str) -> &'static str {
    if object.starts_with(OBJECT_SCHEME) { "offset" } else { "byte" }
}

/// Id of the row whose first record is at `offset`: 32 hex digits, a pure function of topic, partition and offset (promise P2).
pub fn row_id(topic: &str, partition: i32, offset: i64) -> String {
    digest_id(&["kafka", topic, &partition.to_string(), &offset.to_string()], 32)
}

/// The splits which a table has now.
///
/// # Errors
/// As [`offsets::resolve`].
pub async fn list_splits(spec: &KafkaSpec) -> Result<Vec<Split>> {
    let ranges = offsets::resolve(spec).await?;
    Ok(offsets::cut(spec, &ranges))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_named_and_found_again() {
        let object = partition_object("shop.events-1", 17);
        assert_eq!((object.as_str(), parse_partition(&object)), ("kafka:shop.events-1/17", Some(("shop.events-1", 17))));
        assert_eq!(parse_partition("s3://bucket/kafka:x/3"), None);
    }

    #[test]
    fn an_id_differs_by_topic_partition_and_offset_and_never_changes() {
        let ids = [row_id("a", 1, 2), row_id("a", 12, 0), row_id("a1", 2, 0), row_id("a", 1, 3)];
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 4);
        assert_eq!(ids[0], row_id("a", 1, 2));
    }
}
