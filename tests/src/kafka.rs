//! Apache Kafka in KRaft mode: the real broker, fetched by Maven; start, stop, kill, restart, TLS and logins.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use crate::minio::Certificates;
use crate::mongo::Login;
use crate::servers::{Server, free_port, random, random_name, run_folder, say};
use crate::topic::Topic;
use crate::{cache, packages, wait_until};

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

/// The folder of the jars of the broker and its tools.
pub fn jars() -> PathBuf {
    let log4j = |artifact: &str| format!("org.apache.logging.log4j:{artifact}:{LOG4J}");
    let kafka = |artifact: &str| format!("org.apache.kafka:{artifact}:{VERSION}");
    let artifacts = [kafka(&format!("kafka_{SCALA}")), kafka("kafka-tools"), log4j("log4j-slf4j-impl"), log4j("log4j-core")];
    packages::maven(&format!("kafka-{VERSION}"), &artifacts)
}

/// A port with TLS and a login.
#[derive(Debug)]
pub struct Secure {
    /// The port on the loopback address.
    pub port: u16,
    /// The broker's certificate and its authority's.
    pub certificates: Certificates,
    /// Who may log in.
    pub login: Login,
}

/// One broker with its port and data folder, which stay the same over stops and starts.
#[derive(Debug)]
pub struct Kafka {
    /// The port on the loopback address.
    pub port: u16,
    /// Set, when a second port wants TLS and a login.
    pub secure: Option<Secure>,
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
        Self::launch(false)
    }

    /// Starts a broker which also has a port with TLS, where users log in with PLAIN or SCRAM-SHA-256.
    pub fn start_secure() -> Self {
        Self::launch(true)
    }

    fn launch(is_secure: bool) -> Self {
        let name = random_name("kafka");
        let folder = run_folder().join(&name);
        fs::create_dir(&folder).expect("cannot make a folder");
        let secure = is_secure.then(|| Secure {
            port: free_port(),
            certificates: Certificates::make(&folder.join("tls")),
            login: Login { user: "loader".to_string(), password: format!("p{:016x}", random()) },
        });
        let kafka = Self { port: free_port(), secure, folder, name, server: Mutex::new(None) };
        fs::write(kafka.properties(), kafka.settings(free_port()) + &kafka.secure_settings()).expect("cannot write a file");
        fs::write(kafka.folder.join("log4j2.properties"), LOGGING).expect("cannot write a file");
        let format = ["format", "--cluster-id", "bGVzdHMtb2YtYmFsZXItMQ", "--standalone", "--config"];
        let mut tool = kafka.java("kafka.tools.StorageTool");
        tool.args(format).arg(kafka.properties());
        if let Some(Secure { login, .. }) = &kafka.secure {
            tool.args(["--add-scram", &format!("SCRAM-SHA-256=[name={},password={}]", login.user, login.password)]);
        }
        cache::step(&mut tool, "Java 17 (`java`)");
        kafka.restart();
        say(&format!("Kafka listens on 127.0.0.1:{}", kafka.port));
        kafka
    }

    fn properties(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn settings(&self, controller: u16) -> String {
        let (port, data) = (self.port, self.folder.join("data").display().to_string());
        let secure = self.secure.as_ref().map(|secure| format!(",SASL_SSL://127.0.0.1:{}", secure.port)).unwrap_or_default();
        format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{secure}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{secure}\n\
             controller.listener.names=CONTROLLER\nlog.dirs={data}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=2\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.num.partitions=2\ntransaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n\
             message.max.bytes=33554432\nreplica.fetch.max.bytes=33554432\nlog.retention.check.interval.ms=500\n\
             log.segment.delete.delay.ms=100\nlog.cleaner.backoff.ms=200\nlog.initial.task.delay.ms=500\n"
        )
    }

    fn secure_settings(&self) -> String {
        let Some(Secure { certificates, login, .. }) = &self.secure else { return String::new() };
        let read = |name: &str| fs::read_to_string(certificates.folder.join(name)).expect("a certificate");
        let keys = certificates.folder.join("server.pem");
        fs::write(&keys, read("private.key") + &read("public.crt")).expect("cannot write a file");
        let (keys, Login { user, password }) = (keys.display(), login);
        format!(
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256\nssl.keystore.type=PEM\nssl.keystore.location={keys}\n\
             listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
             user_{user}=\"{password}\";\n\
             listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
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

    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", format!("127.0.0.1:{}", self.port)).set("log_level", "0");
        config
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("a client of the harness")
    }

    /// A topic which is there already.
    pub fn find(&self, name: &str) -> Topic<'_> {
        Topic::new(self, name)
    }

    /// A topic with a random name and its own settings, such as `("cleanup.policy", "compact")`.
    ///
    /// # Panics
    /// When the broker refuses it.
    pub fn topic(&self, partitions: i32, settings: &[(&str, &str)]) -> Topic<'_> {
        let topic = self.find(&random_name("feed"));
        topic.create(partitions, settings);
        topic
    }
}
