//! Whether a topic is still the one that was read: its first records are the same. Before: the first records which an earlier look
//! found; after: those of now, or an error.
//!
//! The binding of librdkafka tells no topic id. But a record never changes its offset and time, and a topic that was deleted and made
//! anew begins with younger ones. One request for all partitions asks for the first record younger than the one which was first:
//! in the same topic that is never the first one itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::KafkaSpec;
use super::client::{Consumer, is_passing, kafka_error, with_consumer};
use super::offsets::{Watermarks, query};
use crate::error::{Error, Result};

/// How long to wait for the first record of a partition. Without it the partition is compared by its offsets alone.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

/// The first record of a partition which could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Kafka partition.
    pub partition: i32,
    /// Oldest offset which was kept then.
    pub low: i64,
    /// Offset of the record: `low` or more.
    pub offset: i64,
    /// Its time, milliseconds since 1970 UTC.
    pub timestamp: i64,
}

/// The origins which hold from now on: those known whose records are still there, and new ones of other partitions that have records.
///
/// # Errors
/// Conflict, when the topic is another one than that of `known`; else as
/// [`resolve`](super::offsets::resolve).
pub(crate) async fn follow_origins(spec: &KafkaSpec, known: Vec<Origin>, marks: &Watermarks) -> Result<Vec<Origin>> {
    let (table, marks) = (spec.clone(), marks.clone());
    with_consumer(spec, move |consumer| {
        check(consumer, &table, &known)?;
        let mut origins: BTreeMap<i32, Origin> = BTreeMap::new();
        for (partition, (low, high)) in &marks {
            let kept = known.iter().find(|origin| origin.partition == *partition && origin.offset >= *low);
            let origin = match kept {
                Some(kept) => Some(*kept),
                None if low < high => find(consumer, &table, *partition, *low)?,
                None => None,
            };
            origins.extend(origin.map(|origin| (*partition, origin)));
        }
        Ok(origins.into_values().collect())
    })
    .await
}

fn check(consumer: &Consumer, spec: &KafkaSpec, known: &[Origin]) -> Result<()> {
    if known.is_empty() {
        return Ok(());
    }
    let younger = query(consumer, spec, known.iter().map(|origin| (origin.partition, Offset::Offset(origin.timestamp + 1))))?;
    for origin in known {
        let Some(first) = younger.get(&origin.partition).copied().flatten() else { continue };
        // Before the first record only markers and aborted records can be, unless there are offsets again which were gone.
        if first == origin.offset || first < origin.low {
            return Err(Error::conflict(format!(
                "{} was re-created: partition {} began with offset {} when it was read, and the record there now is a younger one; \
                 begin a new query under another name, into another target, because equal offsets make equal _ids",
                spec.target(),
                origin.partition,
                origin.offset
            )));
        }
    }
    Ok(())
}

/// The first record at or after `low`; `None` if there is none that can be read.
fn find(consumer: &Consumer, spec: &KafkaSpec, partition: i32, low: i64) -> Result<Option<Origin>> {
    let place = format!("reading the first record of partition {partition} of");
    let failed = |e| kafka_error(spec, &place, &e, Some(consumer.context()));
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&spec.topic, partition, Offset::Offset(low)).map_err(failed)?;
    consumer.assign(&list).map_err(failed)?;
    let started = Instant::now();
    let found = loop {
        match consumer.poll(POLL) {
            Some(Ok(record)) => {
                let timestamp = record.timestamp().to_millis();
                break Ok(timestamp.map(|timestamp| Origin { partition, low, offset: record.offset(), timestamp }));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => break Ok(None),
            Some(Err(error)) if error.rdkafka_error_code().is_none_or(|code| !is_passing(code)) => break Err(failed(error)),
            Some(Err(_)) | None if started.elapsed() > PATIENCE => break Ok(None),
            Some(Err(_)) | None => {}
        }
    };
    consumer.unassign().map_err(failed)?;
    found
}
