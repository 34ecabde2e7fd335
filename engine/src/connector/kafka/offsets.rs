//! Topic → exact offset ranges → splits. Before: bounds in the user's words; after: `Vec<Split>`, sorted by partition and offset.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use smol_str::SmolStr;

use super::client::{Consumer, kafka_error, refusal, with_consumer};
use super::partition_object;
use super::spec::{Bound, EARLIEST, KafkaSpec, LATEST, OffsetRange};
use crate::connector::blob::Compression;
use crate::connector::split::{Split, digest_id};
use crate::error::{Error, ErrorKind, Result};

/// How long to wait for one answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to look for brokers and leaders before they count as unreachable. A partition that was just created has no leader yet.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);

/// Oldest offset which is kept and offset after the newest one, for each partition.
pub(crate) type Watermarks = BTreeMap<i32, (i64, i64)>;

/// The ranges which a table has now.
///
/// # Errors
/// Unreachable, when no broker answers; Config, when there is no such topic or partition; Conflict, when an offset that was
/// asked for is gone or not there yet and `kafka.fail_on_data_loss` is 'true'.
pub async fn resolve(spec: &KafkaSpec) -> Result<Vec<OffsetRange>> {
    if let Some(pinned) = &spec.pinned {
        return Ok(pinned.clone());
    }
    let table = spec.clone();
    with_consumer(spec, move |consumer| {
        patiently(consumer, &table, || {
            let marks = watermarks(consumer, &table)?;
            let first = bound_offsets(consumer, &table, &table.starting, &marks)?;
            let end = bound_offsets(consumer, &table, &table.ending, &marks)?;
            marks.iter().map(|(partition, marks)| clip(&table, *partition, first[partition], end[partition], *marks)).collect()
        })
    })
    .await
}

/// The offsets which there are now.
///
/// # Errors
/// As [`resolve`].
pub(crate) async fn current(spec: &KafkaSpec) -> Result<Watermarks> {
    let table = spec.clone();
    with_consumer(spec, move |consumer| patiently(consumer, &table, || watermarks(consumer, &table))).await
}

/// The first offsets of a table, by its `starting`, with the offsets which there are now.
///
/// # Errors
/// As [`resolve`].
pub(crate) async fn starting(spec: &KafkaSpec) -> Result<(BTreeMap<i32, i64>, Watermarks)> {
    let table = spec.clone();
    with_consumer(spec, move |consumer| {
        patiently(consumer, &table, || {
            let marks = watermarks(consumer, &table)?;
            Ok((bound_offsets(consumer, &table, &table.starting, &marks)?, marks))
        })
    })
    .await
}

/// Cuts ranges into splits of equal length, at most `kafka.split_records` offsets: a pure function of the ranges.
pub fn cut(spec: &KafkaSpec, ranges: &[OffsetRange]) -> Vec<Split> {
    let mut splits = Vec::new();
    for range in ranges.iter().filter(|range| range.length() > 0) {
        let pieces = range.length().div_ceil(spec.split_records);
        let step = range.length().div_ceil(pieces) as i64;
        let object = SmolStr::from(partition_object(&spec.topic, range.partition));
        let mut start = range.first;
        while start < range.end {
            let end = range.end.min(start + step);
            splits.push(Split {
                id: digest_id(&[&object, &start.to_string(), &end.to_string()], 16).into(),
                object: object.clone(),
                version: SmolStr::default(),
                size: range.end as u64,
                last_modified: 0,
                compression: Compression::None,
                start: start as u64,
                end: end as u64,
            });
            start = end;
        }
    }
    splits
}

/// Tries again while brokers or leaders are missing, but not where the brokers refuse the user.
fn patiently<T>(consumer: &Consumer, spec: &KafkaSpec, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Err(error) if error.is_retryable() => {
                if let Some(refused) = refusal(consumer) {
                    return Err(kafka_error(spec, "reading the offsets of", &refused, Some(consumer.context())));
                }
                if started.elapsed() >= PATIENCE {
                    return Err(Error::new(
                        ErrorKind::Unreachable,
                        format!("{error}; check the brokers in the LOCATION, the network and kafka.client.security.protocol"),
                    ));
                }
                std::thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

/// Partitions of the topic with their oldest and next offsets; under read_committed the next one is that of the first open transaction.
fn watermarks(consumer: &Consumer, spec: &KafkaSpec) -> Result<Watermarks> {
    let failed = |e| kafka_error(spec, "reading the offsets of", &e, Some(consumer.context()));
    let metadata = consumer.fetch_metadata(Some(&spec.topic), REQUEST_TIMEOUT).map_err(failed)?;
    let mut partitions = Vec::new();
    for topic in metadata.topics() {
        if let Some(code) = topic.error() {
            return Err(failed(rdkafka::error::KafkaError::MetadataFetch(code.into())));
        }
        partitions.extend(topic.partitions().iter().map(|partition| partition.id()));
    }
    if partitions.is_empty() {
        return Err(failed(rdkafka::error::KafkaError::MetadataFetch(rdkafka::error::RDKafkaErrorCode::UnknownTopicOrPartition)));
    }
    let low = query(consumer, spec, partitions.iter().map(|partition| (*partition, Offset::Beginning)))?;
    let high = query(consumer, spec, partitions.iter().map(|partition| (*partition, Offset::End)))?;
    partitions
        .into_iter()
        .map(|partition| match (low.get(&partition), high.get(&partition)) {
            (Some(Some(low)), Some(Some(high))) => Ok((partition, (*low, *high))),
            _ => Err(Error::new(ErrorKind::Transient, format!("partition {partition} of {} has no offsets yet", spec.target()))),
        })
        .collect()
}

/// Offsets by time, one request for each leader; `None` where no record is that young.
pub(super) fn query(
    consumer: &Consumer,
    spec: &KafkaSpec,
    wanted: impl Iterator<Item = (i32, Offset)>,
) -> Result<BTreeMap<i32, Option<i64>>> {
    let failed = |e| kafka_error(spec, "reading the offsets of", &e, Some(consumer.context()));
    let mut list = TopicPartitionList::new();
    for (partition, offset) in wanted {
        list.add_partition_offset(&spec.topic, partition, offset).map_err(failed)?;
    }
    let answer = consumer.offsets_for_times(list, REQUEST_TIMEOUT).map_err(failed)?;
    let mut offsets = BTreeMap::new();
    for element in answer.elements() {
        element.error().map_err(failed)?;
        let offset = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        offsets.insert(element.partition(), offset);
    }
    Ok(offsets)
}

/// The offset of a bound in each partition.
fn bound_offsets(consumer: &Consumer, spec: &KafkaSpec, bound: &Bound, marks: &Watermarks) -> Result<BTreeMap<i32, i64>> {
    match bound {
        Bound::Earliest => Ok(marks.iter().map(|(partition, (low, _))| (*partition, *low)).collect()),
        Bound::Latest => Ok(marks.iter().map(|(partition, (_, high))| (*partition, *high)).collect()),
        Bound::Timestamp(time) => {
            let found = query(consumer, spec, marks.keys().map(|partition| (*partition, Offset::Offset(*time))))?;
            Ok(marks.iter().map(|(partition, (_, high))| (*partition, found.get(partition).copied().flatten().unwrap_or(*high))).collect())
        }
        Bound::Offsets(given) => {
            let given: BTreeMap<i32, i64> = given.iter().copied().collect();
            if let Some(partition) = given.keys().find(|partition| !marks.contains_key(partition)) {
                return Err(Error::config(format!("{} has no partition {partition}; it has {}", spec.target(), marks.len())));
            }
            let offset = |(partition, (low, high)): (&i32, &(i64, i64))| match given.get(partition) {
                Some(&EARLIEST) => Ok((*partition, *low)),
                Some(&LATEST) => Ok((*partition, *high)),
                Some(offset) => Ok((*partition, *offset)),
                None => Err(Error::config(format!(
                    "the offsets given for {} leave out partition {partition}; name every partition, with -2 for the earliest or -1 for the latest",
                    spec.target()
                ))),
            };
            marks.iter().map(offset).collect()
        }
    }
}

/// What is left of `first..end` where the partition holds `low..high`.
fn clip(spec: &KafkaSpec, partition: i32, first: i64, end: i64, (low, high): (i64, i64)) -> Result<OffsetRange> {
    if first < low || first > high || end > high {
        let wanted = if first < low || first > high { first } else { end };
        if spec.fail_on_data_loss {
            return Err(data_loss(spec, partition, wanted, (low, high)));
        }
        tracing::warn!(topic = spec.topic, partition, wanted, low, high, "offsets which were asked for are not there");
    }
    let first = first.clamp(low, high);
    Ok(OffsetRange { partition, first, end: end.clamp(first, high) })
}

/// Offsets which were asked for are not there.
pub(crate) fn data_loss(spec: &KafkaSpec, partition: i32, wanted: i64, (low, high): (i64, i64)) -> Error {
    let cause = if wanted < low {
        format!("the earliest is {low}: retention removed what was before")
    } else {
        format!("the latest is {high}: the topic was re-created or lost its newest records")
    };
    Error::conflict(format!(
        "{} partition {partition}: offset {wanted} is not there, {cause}; set kafka.fail_on_data_loss to 'false' to go on with what is left",
        spec.target()
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn spec(split_records: &str) -> KafkaSpec {
        let options = HashMap::from([("kafka.split_records".to_string(), split_records.to_string())]);
        KafkaSpec::try_new("kafka://a/t", &options).unwrap()
    }

    #[test]
    fn splits_cover_each_range_once_and_are_of_equal_length() {
        let ranges = [(0, 5, 5), (1, 7, 108), (2, 0, 1)].map(|(partition, first, end)| OffsetRange { partition, first, end });
        let splits = cut(&spec("30"), &ranges);
        let found: Vec<_> = splits.iter().map(|split| (split.object.as_str(), split.start, split.end)).collect();
        let hot = "kafka:t/1";
        assert_eq!(found, [(hot, 7, 33), (hot, 33, 59), (hot, 59, 85), (hot, 85, 108), ("kafka:t/2", 0, 1)]);
        assert_eq!(splits, cut(&spec("30"), &ranges));
    }

    #[test]
    fn offsets_which_are_gone_fail_or_are_left_out_by_the_users_choice() {
        let mut spec = spec("30");
        let error = clip(&spec, 3, 2, 20, (10, 20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let text = error.to_string();
        assert!(
            ["kafka://a:9092/t", "partition 3", "offset 2", "earliest is 10", "fail_on_data_loss"].iter().all(|word| text.contains(word)),
            "{text}"
        );
        assert!(clip(&spec, 3, 30, 40, (10, 20)).unwrap_err().to_string().contains("re-created"));
        spec.fail_on_data_loss = false;
        assert_eq!(clip(&spec, 3, 2, 20, (10, 20)).unwrap(), OffsetRange { partition: 3, first: 10, end: 20 });
        assert_eq!(clip(&spec, 3, 30, 40, (10, 20)).unwrap().length(), 0);
    }
}
