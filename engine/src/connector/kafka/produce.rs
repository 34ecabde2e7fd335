//! Records → one partition of a topic, each once. Before: records in order of offset at their source; after: the same, committed
//! together with how far the source is read.
//!
//! Progress is the offset of a consumer group, which Kafka commits in the records' own transaction: whoever is killed, the next one
//! begins behind the last record that counts. The transactional id is a function of source and target, so a writer that
//! comes back from the dead is fenced off by the brokers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::KafkaSpec;
use super::client::{Lease, kafka_error, settings_with_secrets, with_consumer};
use super::pack::Record;
use crate::connector::split::digest_id;
use crate::error::{Error, Result};

/// How long to wait for room in the queue before looking again.
const QUEUE_PAUSE: Duration = Duration::from_millis(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the brokers may take to end a transaction: as long as an election or a restarted broker.
const COMMIT_PATIENCE: Duration = Duration::from_secs(120);
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// What differs from librdkafka's defaults; `kafka.client.` options may change it.
const DEFAULTS: [(&str, &str); 4] = [
    ("linger.ms", "20"),
    // A transaction is open while a split's documents are read; this is the brokers' own upper bound.
    ("transaction.timeout.ms", "900000"),
    // The brokers say how large a record may be, not the client.
    ("message.max.bytes", "1000000000"),
    // Bytes which wait to be sent, for each partition that is written at once. librdkafka's own bound is 1 GiB.
    ("queue.buffering.max.kbytes", "131072"),
];

/// Counts what the brokers did not take.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    /// Told the bytes of each value that they took.
    delivered: Option<fn(u64)>,
    failed: AtomicU64,
    first_failure: Mutex<Option<KafkaError>>,
}

impl Deliveries {
    /// The same, which also tells `delivered` the bytes of each value that the brokers acknowledged.
    pub(crate) fn telling(delivered: fn(u64)) -> Self {
        Self { delivered: Some(delivered), ..Self::default() }
    }

    /// Records which were refused so far.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why the first of them was refused; told once.
    pub(crate) fn take_failure(&self) -> Option<KafkaError> {
        self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match (result, self.delivered) {
            (Ok(record), Some(delivered)) => delivered(record.payload_len() as u64),
            (Ok(_), None) => {}
            (Err((error, _)), _) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
            }
        }
    }
}

/// Queues one record; waits while the queue is full.
///
/// # Errors
/// librdkafka's, for a record which it refuses at once.
pub(crate) fn enqueue(producer: &BaseProducer<Deliveries>, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<(), KafkaError> {
    loop {
        match producer.send(record) {
            Err((KafkaError::MessageProduction(Code::QueueFull), again)) => {
                producer.poll(QUEUE_PAUSE);
                record = again;
            }
            sent => return sent.map_err(|(error, _)| error),
        }
    }
}

/// How many partitions a topic has.
///
/// # Errors
/// Config, when there is no such topic; else as the brokers'.
pub(crate) async fn count_partitions(spec: &KafkaSpec) -> Result<i32> {
    let table = spec.clone();
    with_consumer(spec, move |consumer| {
        let failed = |e: &KafkaError| kafka_error(&table, "looking at", e, Some(consumer.context()));
        let found = consumer.fetch_metadata(Some(&table.topic), REQUEST_TIMEOUT).map_err(|e| failed(&e))?;
        let topic = found.topics().iter().find(|topic| topic.name() == table.topic);
        let is_there = topic.filter(|topic| topic.error().is_none() && !topic.partitions().is_empty());
        let topic = is_there.ok_or_else(|| failed(&KafkaError::MetadataFetch(Code::UnknownTopicOrPartition)))?;
        Ok(i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))
    })
    .await
}

/// Writes one partition of a topic. Every call blocks. Dropped with a transaction open, it aborts that.
pub(crate) struct PartitionProducer {
    spec: KafkaSpec,
    partition: i32,
    producer: BaseProducer<Deliveries>,
    /// Names the group in which progress is kept.
    group: Lease,
    is_open: bool,
}

impl PartitionProducer {
    /// A writer for one partition on behalf of `source`, and how far earlier ones came: the offset of the source from which on nothing
    /// is written yet. It fences earlier ones off, and ends what they had begun.
    ///
    /// # Errors
    /// Conflict, when the partition holds records of somebody else; else as the brokers'.
    pub(crate) fn open(spec: &KafkaSpec, partition: i32, source: &str, first: u64) -> Result<(Self, u64)> {
        let name = format!("baler-restore-{}", digest_id(&[source, &spec.target(), &partition.to_string()], 32));
        let mut spec = spec.clone();
        spec.client.insert("group.id".to_string(), name.clone());
        let mut config = settings_with_secrets(&spec)?;
        for (key, value) in DEFAULTS.iter().filter(|(key, _)| !spec.client.contains_key(*key)) {
            config.set(*key, *value);
        }
        config.set("enable.idempotence", "true").set("transactional.id", &name);
        let producer = config.create_with_context(Deliveries::default());
        let producer = producer.map_err(|e| kafka_error(&spec, "setting up a client for", &e, None))?;
        let group = Lease::take(&spec)?;
        let mut writer = Self { spec, partition, producer, group, is_open: false };
        writer.producer.init_transactions(REQUEST_TIMEOUT).map_err(|e| writer.failed("beginning to write", &e))?;
        if let Some(offset) = writer.progress()? {
            return Ok((writer, offset));
        }
        writer.expect_empty()?;
        // From now on records in there are known to be this writer's.
        writer.begin()?;
        writer.commit(first)?;
        Ok((writer, first))
    }

    fn place(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.spec.topic, self.partition);
        list
    }

    fn progress(&self) -> Result<Option<u64>> {
        let found = self.group.consumer().committed_offsets(self.place(), REQUEST_TIMEOUT);
        let found = found.map_err(|e| self.failed("asking for the progress of", &e))?;
        Ok(found.elements().first().and_then(|place| match place.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        }))
    }

    fn expect_empty(&self) -> Result<()> {
        let marks = self.group.consumer().fetch_watermarks(&self.spec.topic, self.partition, REQUEST_TIMEOUT);
        let (low, high) = marks.map_err(|e| self.failed("looking at", &e))?;
        if low == high {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "partition {} of {} holds the offsets {low}–{high}, and nothing says that this restore wrote them; take an empty topic",
            self.partition,
            self.spec.target()
        )))
    }

    /// Begins a transaction, unless one is open.
    pub(crate) fn begin(&mut self) -> Result<()> {
        if !self.is_open {
            self.producer.begin_transaction().map_err(|e| self.failed("beginning to write", &e))?;
            self.is_open = true;
        }
        Ok(())
    }

    /// Adds a record to the open transaction.
    ///
    /// # Errors
    /// As the brokers', perhaps for an earlier record.
    pub(crate) fn send(&self, record: &Record<'_>) -> Result<()> {
        let mut queued: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.spec.topic).partition(self.partition);
        (queued.key, queued.payload, queued.timestamp) = (record.key, record.value, record.timestamp);
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            let add = |all: OwnedHeaders, (key, value): &(&str, Option<&[u8]>)| all.insert(Header { key, value: *value });
            queued = queued.headers(record.headers.iter().fold(headers, add));
        }
        enqueue(&self.producer, queued).map_err(|e| self.failed("writing to", &e))?;
        self.producer.poll(Duration::ZERO);
        self.check_deliveries()
    }

    fn check_deliveries(&self) -> Result<()> {
        match self.producer.context().take_failure() {
            Some(error) => Err(self.failed("writing to", &error)),
            None => Ok(()),
        }
    }

    /// Ends the transaction: all its records count now, and with them that the source is read up to `next`.
    ///
    /// # Errors
    /// As the brokers'. Then none of them counts, or the next writer finds that they do.
    pub(crate) fn commit(&mut self, next: u64) -> Result<()> {
        let mut progress = self.place();
        let offset = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
        progress.set_partition_offset(&self.spec.topic, self.partition, offset).map_err(|e| self.failed("writing to", &e))?;
        let group = self.group.consumer().group_metadata();
        let group = group.ok_or_else(|| Error::internal("a consumer of Kafka has no group"))?;
        let flushed = self.producer.flush(COMMIT_PATIENCE);
        self.check_deliveries()?;
        flushed.map_err(|e| self.failed("writing to", &e))?;
        self.patiently("committing the progress of", |producer| producer.send_offsets_to_transaction(&progress, &group, REQUEST_TIMEOUT))?;
        self.patiently("committing to", |producer| producer.commit_transaction(REQUEST_TIMEOUT))?;
        self.is_open = false;
        Ok(())
    }

    /// Asks again as long as the brokers' answer says that this may help.
    fn patiently(&self, action: &str, ask: impl Fn(&BaseProducer<Deliveries>) -> Result<(), KafkaError>) -> Result<()> {
        let started = Instant::now();
        loop {
            match ask(&self.producer) {
                Err(KafkaError::Transaction(error)) if error.is_retriable() && started.elapsed() < COMMIT_PATIENCE => {}
                ended => return ended.map_err(|e| self.failed(action, &e)),
            }
        }
    }

    fn failed(&self, action: &str, error: &KafkaError) -> Error {
        let action = format!("{action} partition {} of", self.partition);
        if matches!(error.rdkafka_error_code(), Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)) {
            let target = self.spec.target();
            return Error::permanent(format!("{action} {target}: another restore of the same into the same topic has begun meanwhile"));
        }
        kafka_error(&self.spec, &action, error, Some(self.group.consumer().context()))
    }
}

impl std::fmt::Debug for PartitionProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartitionProducer").field("target", &self.spec.target()).field("partition", &self.partition).finish_non_exhaustive()
    }
}

impl Drop for PartitionProducer {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        // Whoever reads committed records waits for this transaction to end; if that fails, the next writer or its timeout ends it.
        let started = Instant::now();
        // What is on its way must be told of before an abort can end, and only this thread is told.
        drop(self.producer.flush(ABORT_TIMEOUT / 4));
        while let Err(error) = self.producer.abort_transaction(ABORT_TIMEOUT / 20) {
            self.producer.poll(QUEUE_PAUSE);
            if !matches!(&error, KafkaError::Transaction(error) if error.is_retriable()) || started.elapsed() > ABORT_TIMEOUT {
                tracing::debug!(topic = self.spec.topic, partition = self.partition, %error, "a transaction was left open");
                break;
            }
        }
    }
}
