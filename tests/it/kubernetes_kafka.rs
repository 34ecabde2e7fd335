//! Kafka as the manifests set it up: three real brokers with `start.sh`, `server.properties` and the certificates of `certificates.sh`, and the
//! topic of `topics.sh`. Replaced are host names, ports and folders, and the image's launchers by `java` with the same classes.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use baler_tests::baler::Baler;
use baler_tests::kafka::jars;
use baler_tests::kubernetes::Cluster;
use baler_tests::servers::{Scratch, Server, free_port, random_name};
use baler_tests::wait_until;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use crate::kubernetes::k8s;
use crate::kubernetes_scripts::run;

const LOGIN: [(&str, &str); 2] = [("KAFKA_USERNAME", "baler"), ("KAFKA_PASSWORD", "p4ssword-of-a-test")];

/// Ports of one broker: clients, controllers, brokers.
type Ports = [u16; 3];

struct Brokers {
    scratch: Scratch,
    ports: Vec<Ports>,
}

impl Brokers {
    fn new(cluster: &Cluster) -> Self {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.join("tls")).unwrap();
        for key in ["tls-combined.pem", "ca.crt"] {
            std::fs::write(scratch.join("tls").join(key), cluster.secret("kafka-tls", key)).unwrap();
        }
        Self { scratch, ports: (0..3).map(|_| [(); 3].map(|()| free_port())).collect() }
    }

    fn authority(&self) -> String {
        self.scratch.join("tls/ca.crt").display().to_string()
    }

    fn folder(&self, number: usize) -> PathBuf {
        self.scratch.join(&format!("broker-{number}"))
    }

    /// A file of the ConfigMap for one broker of this machine.
    fn local(&self, name: &str, number: usize) -> String {
        let folder = self.folder(number).display().to_string();
        let mut text = std::fs::read_to_string(k8s().join("components/kafka").join(name)).unwrap();
        // First, because the other folders lie below it.
        text = text.replace("/tmp/", &format!("{folder}/tmp/")).replace("/tls/", &format!("{}/", self.scratch.join("tls").display()));
        text = text.replace("/config/", &format!("{folder}/config/")).replace("/data/", &format!("{folder}/data/"));
        for (other, ports) in self.ports.iter().enumerate() {
            text = text.replace(&format!("kafka-{other}.kafka.baler.svc:9093"), &format!("localhost:{}", ports[1]));
        }
        for (listener, from, port) in [("CLIENT", 9092, 0), ("CONTROLLER", 9093, 1), ("INTERNAL", 9094, 2)] {
            let here = format!("localhost:{}", self.ports[number][port]);
            text = text.replace(&format!("$POD_NAME.kafka.baler.svc:{from}"), &here);
            text = text.replace(&format!("{listener}://:{from}"), &format!("{listener}://{here}"));
        }
        text = text.replace("kafka.baler.svc:9092", &format!("localhost:{}", self.ports[0][0]));
        for (launcher, class) in
            [("storage", "kafka.tools.StorageTool"), ("server-start", "kafka.Kafka"), ("topics", "org.apache.kafka.tools.TopicCommand")]
        {
            let java = format!("java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp '{}/*' {class}", jars().display());
            text = text.replace(&format!("/opt/kafka/bin/kafka-{launcher}.sh"), &java);
        }
        assert!(!text.contains("baler.svc") && !text.contains("/opt/"), "{text}");
        text
    }

    fn command(&self, script: &str, number: usize) -> Command {
        let mut command = Command::new("sh");
        command.arg(self.folder(number).join("config").join(script)).envs(LOGIN);
        command.env("POD_NAME", format!("kafka-{number}")).env("CLUSTER_ID", "YmFsZXItay1jbHVzdGVyMQ");
        command
    }

    fn start(&self, number: usize) -> Server {
        for folder in ["tmp", "config", "data"] {
            std::fs::create_dir_all(self.folder(number).join(folder)).unwrap();
        }
        for name in ["server.properties", "start.sh", "topics.sh"] {
            std::fs::write(self.folder(number).join("config").join(name), self.local(name, number)).unwrap();
        }
        Server::start(&random_name("kubernetes-kafka"), &mut self.command("start.sh", number))
    }

    fn admin(&self, password: &str) -> AdminClient<DefaultClientContext> {
        let brokers: Vec<_> = self.ports.iter().map(|ports| format!("localhost:{}", ports[0])).collect();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers.join(",")).set("security.protocol", "SASL_SSL").set("sasl.mechanisms", "SCRAM-SHA-256");
        config
            .set("sasl.username", LOGIN[0].1)
            .set("sasl.password", password)
            .set("ssl.ca.location", self.authority())
            .set("log_level", "0");
        config.create().unwrap()
    }

    fn make_topic(&self) -> Output {
        self.command("topics.sh", 0).output().unwrap()
    }
}

/// Members in sync of each partition of the topic.
fn in_sync(admin: &AdminClient<DefaultClientContext>) -> Vec<usize> {
    let found = admin.inner().fetch_metadata(Some("events"), Duration::from_secs(2));
    found.map(|found| found.topics()[0].partitions().iter().map(|partition| partition.isr().len()).collect()).unwrap_or_default()
}

#[test]
fn three_brokers_keep_the_topic_and_take_records_when_one_of_them_is_gone() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "namespace", "baler"]).expect_silent();
    run("certificates.sh", &[], &cluster.environment()).expect(0, &["made Secret kafka-tls"]);
    let brokers = Brokers::new(&cluster);
    let mut servers: Vec<_> = (0..3).map(|number| brokers.start(number)).collect();
    let admin = brokers.admin(LOGIN[1].1);
    servers[0].wait_ready(|| admin.inner().fetch_metadata(None, Duration::from_secs(2)).is_ok_and(|found| found.brokers().len() == 3));
    for _ in 0..2 {
        let made = brokers.make_topic();
        assert!(made.status.success(), "{}{}", String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
    }
    wait_until("all members are in sync", || in_sync(&admin) == [3; 20]);
    let stranger = brokers.admin("wrong");
    assert!(stranger.inner().fetch_metadata(None, Duration::from_secs(5)).is_err(), "a wrong password gets in");

    servers[2].kill();
    // It may have led the controllers: then the others choose first, and nothing is created meanwhile.
    wait_until("a controller answers", || brokers.make_topic().status.success());
    let to = format!("--to=kafka://localhost:{},localhost:{}/events", brokers.ports[0][0], brokers.ports[1][0]);
    let authority = format!("--client=ssl.ca.location={}", brokers.authority());
    let arguments =
        ["generate", &to, "--size=1MiB", "--client=security.protocol=SASL_SSL", "--client=sasl.mechanism=SCRAM-SHA-256", &authority];
    let login: Vec<_> = LOGIN.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
    Baler::new(arguments).envs(&login).run().expect_code(0);
    // It comes back with the disk it had, and catches up.
    servers[2] = brokers.start(2);
    wait_until("the third member is in sync again", || in_sync(&admin) == [3; 20]);
}
