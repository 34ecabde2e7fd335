//! How far a query is behind its topic, in records and in time, and how long what it still needs is kept.
//!
//! It is looked at beside the driver, so that it is true also while a long micro-batch runs. A record is committed when the micro-batch that
//! holds it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::connector::kafka::KafkaSpec;
use crate::connector::kafka::client::{Consumer, kafka_error, settings_with_secrets, with_consumer};
use crate::connector::kafka::offsets::current;
use crate::connector::kafka::spec::OffsetRange;
use crate::error::Result;
use crate::telemetry::text::{Kind, Published, Text};

/// How often a running query is looked at: twice in the usual interval of a scrape.
const LOOK_EVERY: Duration = Duration::from_secs(7);
/// How often the topic's retention is asked for.
const RETENTION_EVERY: Duration = Duration::from_secs(600);
/// How long the oldest records may take to come. What has not come by then has no time.
const RECORDS_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A partition and what is not committed of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionLag {
    /// Number of the partition.
    pub partition: i32,
    /// The next offset to be committed.
    pub next_offset: i64,
    /// Offsets between it and the end: records, where there are no gaps.
    pub records: u64,
    /// When the oldest record that is not committed was produced; none where nothing waits, or it could not be read.
    pub oldest: Option<DateTime<Utc>>,
    /// Whether records between the next offset and the oldest one that is kept are gone.
    pub is_lost: bool,
}

/// A topic and what is not committed of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicLag {
    /// The topic.
    pub topic: String,
    /// All partitions, in order.
    pub partitions: Vec<PartitionLag>,
    /// `retention.ms` of the topic; none where it keeps its records for ever, or must not be asked.
    pub retention_ms: Option<i64>,
    /// When this was so.
    pub looked: DateTime<Utc>,
}

impl TopicLag {
    /// Records of all partitions.
    pub fn records(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.records).sum()
    }

    /// Seconds since the oldest record was produced which is not committed; 0 where nothing waits.
    pub fn seconds(&self) -> f64 {
        self.partitions.iter().filter_map(|partition| self.partition_seconds(partition)).fold(0.0, f64::max)
    }

    /// The same of one partition; none where the record's time is not known.
    fn partition_seconds(&self, partition: &PartitionLag) -> Option<f64> {
        match partition.oldest {
            Some(oldest) => Some(((self.looked - oldest).num_milliseconds() as f64 / 1e3).max(0.0)),
            None => (partition.records == 0).then_some(0.0),
        }
    }

    /// Minutes until the first record which is still needed may be removed by the topic's retention; 0 where some are gone; none where nothing
    /// waits, or nothing expires. Brokers remove whole segments, so a record often stays longer.
    pub fn expiry_minutes(&self) -> Option<f64> {
        if self.partitions.iter().any(|partition| partition.is_lost) {
            return Some(0.0);
        }
        let (retention, oldest) = (self.retention_ms?, self.partitions.iter().filter_map(|partition| partition.oldest).min()?);
        Some(((retention - (self.looked - oldest).num_milliseconds()) as f64 / 60e3).max(0.0))
    }
}

/// Looks once. `next` are the next offsets to be committed; a partition that is not among them is new and wholly to be read.
///
/// # Errors
/// As the brokers'.
pub async fn look(spec: &KafkaSpec, next: &BTreeMap<i32, i64>, retention_ms: Option<i64>) -> Result<TopicLag> {
    let marks = current(spec).await?;
    let partitions: Vec<PartitionLag> = marks
        .iter()
        .map(|(partition, (low, high))| {
            let next_offset = next.get(partition).copied().unwrap_or(*low);
            let records = high.saturating_sub(next_offset).max(0) as u64;
            PartitionLag { partition: *partition, next_offset, records, oldest: None, is_lost: next_offset < *low }
        })
        .collect();
    let waiting: BTreeMap<i32, i64> = partitions
        .iter()
        .filter(|partition| partition.records > 0)
        .map(|partition| (partition.partition, partition.next_offset.max(marks.get(&partition.partition).map_or(0, |(low, _)| *low))))
        .collect();
    let oldest = oldest_records(spec, waiting).await?;
    let partitions = partitions
        .into_iter()
        .map(|partition| PartitionLag {
            oldest: oldest.get(&partition.partition).and_then(|ms| DateTime::from_timestamp_millis(*ms)),
            ..partition
        })
        .collect();
    Ok(TopicLag { topic: spec.topic.clone(), partitions, retention_ms, looked: Utc::now() })
}

/// When the first record at or after each offset was produced, in milliseconds since 1970.
async fn oldest_records(spec: &KafkaSpec, waiting: BTreeMap<i32, i64>) -> Result<BTreeMap<i32, i64>> {
    if waiting.is_empty() {
        return Ok(BTreeMap::new());
    }
    // A consumer of its own, which fetches little: one record of each partition is wanted.
    let mut client = BTreeMap::clone(&spec.client);
    client.insert("fetch.message.max.bytes".to_string(), "65536".to_string());
    client.insert("queued.max.messages.kbytes".to_string(), "1024".to_string());
    let spec = KafkaSpec { client, ..spec.clone() };
    let table = spec.clone();
    with_consumer(&spec, move |consumer| read_oldest(consumer, &table, waiting)).await
}

fn read_oldest(consumer: &Consumer, spec: &KafkaSpec, mut waiting: BTreeMap<i32, i64>) -> Result<BTreeMap<i32, i64>> {
    let failed = |e| kafka_error(spec, "reading the oldest records of", &e, Some(consumer.context()));
    let mut list = TopicPartitionList::new();
    for (partition, offset) in &waiting {
        list.add_partition_offset(&spec.topic, *partition, Offset::Offset(*offset)).map_err(failed)?;
    }
    consumer.assign(&list).map_err(failed)?;
    let (started, mut found) = (Instant::now(), BTreeMap::new());
    while !waiting.is_empty() && started.elapsed() < RECORDS_TIMEOUT {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) if waiting.remove(&message.partition()).is_some() => {
                if let Some(time) = message.timestamp().to_millis() {
                    found.insert(message.partition(), time);
                }
                let mut done = TopicPartitionList::new();
                done.add_partition(&spec.topic, message.partition());
                consumer.pause(&done).map_err(failed)?;
            }
            // What was under way when its partition was paused.
            Some(Ok(_)) | None => {}
            // Only markers and aborted records wait there.
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(waiting.remove(&partition)),
            Some(Err(error)) => return Err(failed(error)),
        }
    }
    Ok(found)
}

/// How long the topic keeps its records, in milliseconds; none where it keeps them for ever, or this user must not ask.
pub async fn retention_ms(spec: &KafkaSpec) -> Option<i64> {
    let answer = async {
        let client: AdminClient<DefaultClientContext> =
            settings_with_secrets(spec)?.create().map_err(|e| kafka_error(spec, "setting up a client for", &e, None))?;
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let topic = ResourceSpecifier::Topic(&spec.topic);
        client.describe_configs([&topic], &options).await.map_err(|e| kafka_error(spec, "reading the configuration of", &e, None))
    };
    let resources = match answer.await {
        Ok(resources) => resources,
        Err(error) => {
            tracing::debug!(%error, "the topic's retention is not known");
            return None;
        }
    };
    let resource = resources.into_iter().next()?.inspect_err(|code| tracing::debug!(%code, "the topic's retention is not known")).ok()?;
    let setting = |name: &str| resource.entries.iter().find(|entry| entry.name == name)?.value.clone();
    let is_deleted = setting("cleanup.policy").is_none_or(|policy| policy.split(',').any(|word| word.trim() == "delete"));
    setting("retention.ms")?.parse().ok().filter(|retention| is_deleted && *retention >= 0)
}

/// The next offset of each partition: behind `ranges` if these are committed, else where they begin.
pub fn next_offsets(ranges: &[OffsetRange], is_committed: bool) -> BTreeMap<i32, i64> {
    ranges.iter().map(|range| (range.partition, if is_committed { range.end } else { range.first })).collect()
}

/// What a query shows of itself while it runs.
#[derive(Debug, Default)]
struct Shown {
    next: Option<BTreeMap<i32, i64>>,
    committed: Option<DateTime<Utc>>,
    lag: Option<TopicLag>,
}

/// The figures of a running query, written by its driver and by [`Self::watch`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StreamFigures {
    query: Arc<str>,
    shown: Arc<Mutex<Shown>>,
}

impl StreamFigures {
    /// Of query `name`, which has not begun.
    pub fn new(name: &str) -> Self {
        Self { query: name.into(), shown: Arc::default() }
    }

    fn change(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes where the query is: `ranges` of its newest micro-batch, and when that was committed.
    pub fn note(&self, ranges: &[OffsetRange], committed: Option<DateTime<Utc>>) {
        self.change(|shown| {
            shown.next = Some(next_offsets(ranges, committed.is_some()));
            shown.committed = committed.or(shown.committed);
        });
    }

    /// Looks at the topic again and again, until it is dropped.
    pub async fn watch(self, spec: KafkaSpec) {
        let (mut retention, mut asked) = (None, None::<Instant>);
        loop {
            let next = self.shown.lock().unwrap_or_else(PoisonError::into_inner).next.clone();
            if let Some(next) = next {
                if asked.is_none_or(|asked| asked.elapsed() > RETENTION_EVERY) {
                    (retention, asked) = (retention_ms(&spec).await, Some(Instant::now()));
                }
                match look(&spec, &next, retention).await {
                    Ok(lag) => self.change(|shown| shown.lag = Some(lag)),
                    // What was true once must not be shown for ever.
                    Err(error) => {
                        tracing::warn!(query = %self.query, %error, "the lag is not known");
                        self.change(|shown| shown.lag = None);
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            } else {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// Shows them as `baler_stream_…{query}`.
    pub fn publish(&self, published: &Published) {
        let figures = self.clone();
        published.add(Box::new(move |text| figures.write(text)));
    }

    fn write(&self, text: &mut Text) {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let query = self.query.as_ref();
        if let Some(committed) = shown.committed {
            let age = ((Utc::now() - committed).num_milliseconds() as f64 / 1e3).max(0.0);
            text.gauge("baler_stream_commit_age_seconds", "Time since the last micro-batch was committed.", &[("query", query)], age);
        }
        let Some(lag) = &shown.lag else { return };
        let by_partition = |text: &mut Text, name: &str, help: &str, value: &dyn Fn(&PartitionLag) -> Option<f64>| {
            text.family(name, Kind::Gauge, help);
            for partition in &lag.partitions {
                if let Some(value) = value(partition) {
                    let number = partition.partition.to_string();
                    text.sample(name, &[("query", query), ("topic", &lag.topic), ("partition", &number)], value);
                }
            }
        };
        by_partition(text, "baler_stream_lag_records", "Offsets which are not committed.", &|partition| Some(partition.records as f64));
        let seconds = "Time since the oldest record was produced which is not committed; 0 where nothing waits.";
        by_partition(text, "baler_stream_lag_seconds", seconds, &|partition| lag.partition_seconds(partition));
        let labels = [("query", query), ("topic", lag.topic.as_str())];
        if let Some(minutes) = lag.expiry_minutes() {
            let help =
                "Minutes until the oldest record which is still needed may be removed by the topic's retention; 0 where some are gone.";
            text.gauge("baler_stream_expiry_minutes", help, &labels, minutes);
        }
        if let Some(retention) = lag.retention_ms {
            text.gauge("baler_stream_retention_seconds", "How long the topic keeps its records.", &labels, retention as f64 / 1e3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(ages_ms: &[Option<i64>], retention_ms: Option<i64>) -> TopicLag {
        let looked = Utc::now();
        let partition = |(number, age): (usize, &Option<i64>)| PartitionLag {
            partition: number as i32,
            next_offset: 5,
            records: age.map_or(0, |_| 3),
            oldest: age.map(|age| looked - chrono::Duration::milliseconds(age)),
            is_lost: false,
        };
        TopicLag { topic: "t".into(), partitions: ages_ms.iter().enumerate().map(partition).collect(), retention_ms, looked }
    }

    #[test]
    fn the_oldest_needed_record_decides_lag_and_expiry() {
        let behind = lag(&[Some(60_000), None, Some(90_000)], Some(600_000));
        assert_eq!((behind.records(), behind.seconds(), behind.expiry_minutes()), (6, 90.0, Some(8.5)));
        assert_eq!(lag(&[None], Some(600_000)).expiry_minutes(), None);
        assert_eq!(lag(&[Some(1)], None).expiry_minutes(), None);
        let mut lost = lag(&[Some(1)], Some(600_000));
        lost.partitions[0].is_lost = true;
        assert_eq!(lost.expiry_minutes(), Some(0.0));
    }
}
