//! Apache Kafka in KRaft mode, and producers and a consumer of the tests' own.
//!
//! The broker is the real one, fetched by Maven. Nothing here uses the engine's code: what a topic holds is read by a consumer which
//! begins at the first offset and goes on to the end of each partition.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::servers::{Server, free_port, random_name, run_folder, say};
use crate::{DEADLINE, block_on, cache, wait_until};

const VERSION: &str = "4.3.0";
const SCALA: &str = "2.13";
const LOG4J: &str = "2.24.3";

/// Warnings go to the log of the run.
const LOGGING: &str = "appender.out.type=Console\nappender.out.name=out\nappender.out.layout.type=PatternLayout\n\
                       appender.out.layout.pattern=%d %p %m (%c)%n%ex\nrootLogger.level=warn\nrootLogger.appenderRef.out.ref=out\n";

/// Which broker the tests use.
pub fn description() -> String {
    format!("Apache Kafka {VERSION} in KRaft mode from Maven")
}

/// The folder of the broker's jars.
fn jars() -> PathBuf {
    let place = cache::tool(&format!("kafka-{VERSION}"), "mvn dependency:copy-dependencies", |place| {
        fs::write(place.join("pom.xml"), project()).expect("cannot write to the cache");
        let folder = format!("-DoutputDirectory={}", place.join("lib").display());
        let mut maven = Command::new("mvn");
        maven.args(["--quiet", "--batch-mode", "--file"]).arg(place.join("pom.xml")).args(["dependency:copy-dependencies", &folder]);
        cache::step(&mut maven, "Maven (`mvn`)");
    });
    place.join("lib")
}

/// A Maven project which needs nothing but the broker.
fn project() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!("<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>")
    };
    let dependencies = [
        dependency("org.apache.kafka", &format!("kafka_{SCALA}"), VERSION),
        dependency("org.apache.kafka", "kafka-tools", VERSION),
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J),
        dependency("org.apache.logging.log4j", "log4j-core", LOG4J),
    ];
    format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>baler</groupId><artifactId>kafka</artifactId><version>1</version>\
         <dependencies>{}</dependencies></project>",
        dependencies.concat()
    )
}

/// One broker with its port and data folder, which stay the same over stops and starts.
#[derive(Debug)]
pub struct Kafka {
    /// The port on the loopback address.
    pub port: u16,
    folder: PathBuf,
    name: String,
    server: Mutex<Option<Server>>,
}

impl Kafka {
    /// The broker of this run which all tests share that do not stop it.
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Kafka> = OnceLock::new();
        SERVER.get_or_init(Self::start)
    }

    /// Starts a broker of a test's own, which it may stop and kill.
    pub fn start() -> Self {
        let name = random_name("kafka");
        let kafka = Self { port: free_port(), folder: run_folder().join(&name), name, server: Mutex::new(None) };
        fs::create_dir(&kafka.folder).expect("cannot make a folder");
        fs::write(kafka.properties(), kafka.settings(free_port())).expect("cannot write a file");
        fs::write(kafka.folder.join("log4j2.properties"), LOGGING).expect("cannot write a file");
        let format = ["format", "--cluster-id", "bGVzdHMtb2YtYmFsZXItMQ", "--standalone", "--config"];
        cache::step(kafka.java("kafka.tools.StorageTool").args(format).arg(kafka.properties()), "Java 17 (`java`)");
        kafka.restart();
        say(&format!("Kafka listens on 127.0.0.1:{}", kafka.port));
        kafka
    }

    fn properties(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn settings(&self, controller: u16) -> String {
        let (port, data) = (self.port, self.folder.join("data").display().to_string());
        format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\nlog.dirs={data}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=2\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.num.partitions=2\ntransaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n\
             message.max.bytes=33554432\nreplica.fetch.max.bytes=33554432\nlog.retention.check.interval.ms=500\n\
             log.segment.delete.delay.ms=100\nlog.cleaner.backoff.ms=200\nlog.initial.task.delay.ms=500\n"
        )
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        let log = format!("-Dlog4j2.configurationFile={}", self.folder.join("log4j2.properties").display());
        command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", &log, "-cp"]).arg(jars().join("*")).arg(class);
        command
    }

    /// Starts it again on the same port and folder.
    ///
    /// # Panics
    /// When it runs already or does not come up.
    pub fn restart(&self) {
        let mut slot = self.slot();
        assert!(slot.is_none(), "the broker runs already");
        let start = || Server::start(&self.name, self.java("kafka.Kafka").arg(self.properties()));
        let mut server = start();
        let admin = self.admin();
        wait_until("the broker answers", || {
            // While it was down, a connection of somebody else may have taken one of its ports for a moment.
            if !server.is_running() {
                server = start();
            }
            admin.inner().fetch_metadata(None, Duration::from_millis(500)).is_ok_and(|found| !found.brokers().is_empty())
        });
        *slot = Some(server);
    }

    /// Ends it with SIGTERM.
    pub fn stop(&self) {
        self.slot().take().expect("the broker runs").stop();
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) {
        self.slot().take().expect("the broker runs").kill();
    }

    fn slot(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", format!("127.0.0.1:{}", self.port)).set("log_level", "0");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("a client of the harness")
    }

    /// A topic with a random name and its own settings, such as `("cleanup.policy", "compact")`.
    ///
    /// # Panics
    /// When the broker refuses it.
    pub fn topic(&self, partitions: i32, settings: &[(&str, &str)]) -> Topic<'_> {
        let topic = Topic { kafka: self, name: random_name("feed") };
        topic.create(partitions, settings);
        topic
    }
}

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

/// All records of a topic: (partition, offset) → record.
pub type Records = BTreeMap<(i32, i64), Record>;

impl Topic<'_> {
    /// What a table's LOCATION says.
    pub fn url(&self) -> String {
        format!("kafka://127.0.0.1:{}/{}", self.kafka.port, self.name)
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
        config.set("group.id", random_name("checker")).set("enable.partition.eof", "true").set("isolation.level", "read_committed");
        config.set("auto.offset.reset", "earliest").set("fetch.message.max.bytes", "33554432").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().expect("a consumer of the harness");
        let metadata = consumer.fetch_metadata(Some(&self.name), DEADLINE).expect("the broker answers");
        let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            list.add_partition_offset(&self.name, *partition, Offset::Beginning).expect("a valid offset");
        }
        consumer.assign(&list).expect("partitions are assigned");
        let mut open = partitions.len();
        let mut records = Records::new();
        while open > 0 {
            match consumer.poll(DEADLINE) {
                Some(Ok(message)) => {
                    let headers = message
                        .headers()
                        .map(|all| all.iter().map(|one| (one.key.to_string(), one.value.unwrap_or_default().to_vec())).collect());
                    let record = Record {
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.payload().map(<[u8]>::to_vec),
                        headers: headers.unwrap_or_default(),
                    };
                    assert!(records.insert((message.partition(), message.offset()), record).is_none(), "a record came twice");
                }
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                other => panic!("the consumer of the harness failed: {other:?}"),
            }
        }
        records
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
