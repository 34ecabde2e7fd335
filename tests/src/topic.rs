//! Topics of the tests, with producers and a consumer of the tests' own.
//!
//! Nothing here uses the engine's code: what a topic holds is read by a consumer which begins at the first offset and goes on to the
//! end of each partition.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::Kafka;
use crate::servers::random_name;
use crate::{DEADLINE, block_on, wait_until};

/// A topic of one test.
#[derive(Debug, Clone)]
pub struct Topic<'a> {
    kafka: &'a Kafka,
    /// Its random name.
    pub name: String,
}

/// One record, as a producer sends it or a consumer finds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// A record with a value only.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }
}

/// The values of a topic.
#[derive(Debug, Default)]
pub struct Values {
    /// All of them.
    pub bytes: Vec<u8>,
    /// How many.
    pub records: u64,
}

/// All records of a topic: (partition, offset) → record.
pub type Records = BTreeMap<(i32, i64), Record>;

impl<'a> Topic<'a> {
    /// The topic `name`, which need not be there.
    pub(crate) fn new(kafka: &'a Kafka, name: &str) -> Self {
        Self { kafka, name: name.to_string() }
    }
}

impl Topic<'_> {
    /// What a table's LOCATION says.
    pub fn url(&self) -> String {
        self.url_at(None)
    }

    /// The same at another port of the broker.
    pub fn url_at(&self, port: Option<u16>) -> String {
        format!("kafka://127.0.0.1:{}/{}", port.unwrap_or(self.kafka.port), self.name)
    }

    /// Creates the topic, again if it was deleted.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn create(&self, partitions: i32, settings: &[(&str, &str)]) {
        let topic = settings
            .iter()
            .fold(NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1)), |topic, (key, value)| topic.set(key, value));
        let admin = self.kafka.admin();
        wait_until("the topic is created", || {
            // A topic which was just deleted may still be on its way out.
            block_on(admin.create_topics([&topic], &AdminOptions::new())).expect("the broker answers")[0].is_ok()
        });
        self.wait_partitions(partitions);
    }

    /// Deletes the topic and waits until it is gone.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn delete(&self) {
        let admin = self.kafka.admin();
        block_on(admin.delete_topics(&[&self.name], &AdminOptions::new())).expect("the broker answers")[0].as_ref().expect("it is deleted");
        wait_until("the topic is gone", || {
            let found = admin.inner().fetch_metadata(Some(&self.name), Duration::from_secs(5));
            found.is_ok_and(|found| found.topics()[0].error().is_some())
        });
    }

    /// Gives the topic more partitions.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn grow(&self, partitions: i32) {
        let admin = self.kafka.admin();
        let wanted = NewPartitions::new(&self.name, partitions as usize);
        block_on(admin.create_partitions([&wanted], &AdminOptions::new())).expect("the broker answers")[0].as_ref().expect("it grows");
        self.wait_partitions(partitions);
    }

    fn wait_partitions(&self, count: i32) {
        let admin = self.kafka.admin();
        wait_until("all partitions have a leader", || {
            let found = admin.inner().fetch_metadata(Some(&self.name), Duration::from_secs(5));
            found.is_ok_and(|found| {
                let partitions = found.topics()[0].partitions();
                partitions.len() == count as usize && partitions.iter().all(|partition| partition.leader() >= 0)
            })
        });
    }

    /// Removes all records before these offsets, as retention does.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn trim(&self, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(before)).expect("a valid offset");
        block_on(self.kafka.admin().delete_records(&list, &AdminOptions::new())).expect("records are deleted");
    }

    /// An idempotent producer with further settings, such as `("compression.type", "zstd")`.
    pub fn producer(&self, settings: &[(&str, &str)]) -> Producer<'_> {
        let mut config = self.kafka.config();
        config.set("enable.idempotence", "true").set("message.max.bytes", "33554432").set("linger.ms", "5");
        settings.iter().for_each(|(key, value)| {
            config.set(*key, *value);
        });
        Producer { topic: self, producer: config.create().expect("a producer of the harness") }
    }

    /// Sends records to their partitions and waits until all are acknowledged.
    pub fn send(&self, records: impl IntoIterator<Item = (i32, Record)>) {
        let producer = self.producer(&[]);
        records.into_iter().for_each(|(partition, record)| producer.send(partition, &record));
        producer.flush();
    }

    /// Sends records in a transaction, which is committed or aborted.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn send_transaction(&self, records: impl IntoIterator<Item = (i32, Record)>, commit: bool) {
        let producer = self.producer(&[("transactional.id", &random_name("writer"))]);
        producer.producer.init_transactions(DEADLINE).expect("transactions begin");
        producer.producer.begin_transaction().expect("a transaction begins");
        records.into_iter().for_each(|(partition, record)| producer.send(partition, &record));
        producer.flush();
        match commit {
            true => producer.producer.commit_transaction(DEADLINE).expect("a transaction is committed"),
            false => producer.producer.abort_transaction(DEADLINE).expect("a transaction is aborted"),
        }
    }

    /// Everything which a reader of committed records finds.
    ///
    /// # Panics
    /// When the broker does not answer.
    pub fn read(&self) -> Records {
        let mut config = self.kafka.config();
        config.set("isolation.level", "read_committed").set("fetch.message.max.bytes", "33554432");
        let mut records = Records::new();
        self.consume(config, |message| {
            let headers =
                message.headers().map(|all| all.iter().map(|one| (one.key.to_string(), one.value.unwrap_or_default().to_vec())).collect());
            let record = Record {
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: headers.unwrap_or_default(),
            };
            assert!(records.insert((message.partition(), message.offset()), record).is_none(), "a record came twice");
        });
        records
    }

    /// The same by Kafka partition in their order, each with its time: what must be equal in a copy, whose offsets may be others.
    ///
    /// # Panics
    /// When the broker does not answer.
    pub fn in_order(&self) -> BTreeMap<i32, Vec<(Record, Option<i64>)>> {
        let mut times = BTreeMap::new();
        let mut config = self.kafka.config();
        config.set("isolation.level", "read_committed").set("fetch.message.max.bytes", "33554432");
        self.consume(config, |message| {
            times.insert((message.partition(), message.offset()), message.timestamp().to_millis());
        });
        let mut all: BTreeMap<i32, Vec<_>> = BTreeMap::new();
        for ((partition, offset), record) in self.read() {
            all.entry(partition).or_default().push((record, times[&(partition, offset)]));
        }
        all
    }

    /// Reads all partitions from their first record to their end.
    fn consume(&self, mut config: ClientConfig, mut take: impl FnMut(&BorrowedMessage<'_>)) {
        config.set("group.id", random_name("checker")).set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().expect("a consumer of the harness");
        let metadata = consumer.fetch_metadata(Some(&self.name), DEADLINE).expect("the broker answers");
        let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            list.add_partition_offset(&self.name, *partition, Offset::Beginning).expect("a valid offset");
        }
        consumer.assign(&list).expect("partitions are assigned");
        let mut open = partitions.len();
        while open > 0 {
            match consumer.poll(DEADLINE) {
                Some(Ok(message)) => take(&message),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                other => panic!("the consumer of the harness failed: {other:?}"),
            }
        }
    }

    /// All values one behind the other, each with a line feed, by a bare loop with librdkafka's own settings: for benchmarks.
    ///
    /// # Panics
    /// When the broker does not answer.
    pub fn read_values(&self) -> Values {
        let mut values = Values::default();
        self.consume(self.kafka.config().set("check.crcs", "true").clone(), |message| {
            values.bytes.extend_from_slice(message.payload().unwrap_or_default());
            values.bytes.push(b'\n');
            values.records += 1;
        });
        values
    }

    /// The offsets which a group has committed, by partition.
    ///
    /// # Panics
    /// When the broker does not answer.
    pub fn committed(&self, group: &str, partitions: i32) -> BTreeMap<i32, i64> {
        let mut config = self.kafka.config();
        let consumer: BaseConsumer = config.set("group.id", group).create().expect("a consumer of the harness");
        let mut list = TopicPartitionList::new();
        (0..partitions).for_each(|partition| {
            list.add_partition(&self.name, partition);
        });
        let found = consumer.committed_offsets(list, DEADLINE).expect("the broker answers");
        found
            .elements()
            .iter()
            .filter_map(|element| Some((element.partition(), element.offset().to_raw().filter(|offset| *offset >= 0)?)))
            .collect()
    }
}

/// Sends records to one topic.
pub struct Producer<'a> {
    topic: &'a Topic<'a>,
    producer: BaseProducer,
}

impl std::fmt::Debug for Producer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("topic", &self.topic.name).finish_non_exhaustive()
    }
}

impl Producer<'_> {
    /// Queues a record; waits while the queue is full.
    ///
    /// # Panics
    /// When the broker refuses.
    pub fn send(&self, partition: i32, record: &Record) {
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let mut queued: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic.name).partition(partition).headers(headers);
        queued.key = record.key.as_deref();
        queued.payload = record.value.as_deref();
        loop {
            match self.producer.send(queued) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    self.producer.poll(Duration::from_millis(10));
                    queued = again;
                }
                Err((error, _)) => panic!("cannot produce: {error}"),
            }
        }
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until all records are acknowledged.
    ///
    /// # Panics
    /// When they are not.
    pub fn flush(&self) {
        self.producer.flush(DEADLINE).expect("records are acknowledged");
    }
}
