//! What Baler's pods do: their commands, environment and mounted files are taken from the objects which the API server stored, and run on this
//! machine as a kubelet would run them, against real servers. Replaced are names of services, what the stores' Secrets hold, and the amount of sample
//! data. Baler's own certificates are those of `certificates.sh`.

use std::process::Command;

use baler_tests::authority::Identity;
use baler_tests::baler::{Baler, Finished, binary};
use baler_tests::fleet;
use baler_tests::kafka::Kafka;
use baler_tests::kubernetes::Cluster;
use baler_tests::kubernetes::pod::{Local, find, localize, pod};
use baler_tests::minio::{Bucket, Minio};
use baler_tests::mongo::{Collection, Mongo};
use baler_tests::servers::{Scratch, Server, free_port, random_name};
use bson::Document;
use serde_json::{Value, json};

use crate::kubernetes::{apply_with_jobs, cluster, k8s};

/// The kind overlay with all jobs, and an encrypting MinIO over https, a MongoDB with a login and perhaps a Kafka over TLS in place of its stores.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) scratch: Scratch,
    /// What the API server stored, certificates among it.
    pub(crate) objects: Vec<Value>,
    bucket: Bucket,
    pub(crate) collection: Collection<'static>,
    password: String,
    values: Vec<(&'static str, String)>,
}

/// Ports of this machine at which a fleet of pods listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) scheduler: u16,
    pub(crate) flight: u16,
    pub(crate) tasks: u16,
    pub(crate) health: u16,
}

impl Stage {
    pub(crate) fn new(minio: &Minio, kafka: Option<&Kafka>) -> Self {
        let scratch = Scratch::new();
        let cluster = cluster();
        let mut objects = apply_with_jobs(&cluster, &k8s().join("overlays/kind"));
        cluster.make_certificates(&[]);
        objects.extend(cluster.secrets());
        let mongo = Mongo::with_login();
        let (collection, login) = (mongo.collection(), mongo.login.clone().unwrap());
        let logins = minio.environment();
        let of = |name: &str| logins.iter().find(|(key, _)| key == name).unwrap().1.clone();
        std::fs::create_dir(scratch.join("ca")).unwrap();
        // The cluster has one authority for all stores; here each server has its own.
        let mut authorities = std::fs::read_to_string(of("AWS_CA_BUNDLE")).unwrap();
        let mut values = vec![
            ("AWS_ENDPOINT", of("AWS_ENDPOINT")),
            ("AWS_ACCESS_KEY_ID", of("AWS_ACCESS_KEY_ID")),
            ("AWS_SECRET_ACCESS_KEY", of("AWS_SECRET_ACCESS_KEY")),
            ("MONGODB_USERNAME", login.user),
            ("MONGODB_PASSWORD", login.password.clone()),
            ("OUTPUT", collection.url.clone()),
        ];
        if let Some(secure) = kafka.and_then(|kafka| kafka.secure.as_ref()) {
            authorities += &std::fs::read_to_string(&secure.certificates.authority).unwrap();
            values.push(("KAFKA_USERNAME", secure.login.user.clone()));
            values.push(("KAFKA_PASSWORD", secure.login.password.clone()));
        }
        std::fs::write(scratch.join("ca/ca.crt"), authorities).unwrap();
        let bucket = minio.make_bucket_named("baler");
        Self { cluster, scratch, objects, bucket, collection, password: login.password, values }
    }

    /// The pod of an object.
    pub(crate) fn pod(&self, name: &str) -> Value {
        pod(find(&self.objects, name)).unwrap()
    }

    /// A variable of a pod.
    pub(crate) fn variable(&self, name: &str, variable: &str) -> String {
        let pod = self.pod(name);
        let variables = pod["spec"]["containers"][0]["env"].as_array().unwrap();
        variables.iter().find(|one| one["name"] == variable).unwrap()["value"].as_str().unwrap().to_string()
    }

    /// The pod with another argument, which has to be there.
    pub(crate) fn pod_with(&self, name: &str, replaced: &[(&str, &str)]) -> Value {
        let mut pod = self.pod(name);
        for (argument, other) in replaced {
            let arguments = pod.pointer_mut("/spec/containers/0/args").unwrap().as_array_mut().unwrap();
            *arguments.iter_mut().find(|one| *one == argument).unwrap_or_else(|| panic!("{name} has no {argument}")) = json!(other);
        }
        pod
    }

    /// Puts the certificates as they are now where the pods have theirs, as a kubelet does.
    pub(crate) fn renew_mounts(&mut self) {
        let renewed = self.cluster.secrets();
        self.objects
            .retain(|object| object["kind"] != "Secret" || renewed.iter().all(|one| one["metadata"]["name"] != object["metadata"]["name"]));
        self.objects.extend(renewed);
        for pod in ["Deployment/baler-scheduler", "StatefulSet/baler-executor"] {
            localize(&self.pod(pod), &self.objects, &self.scratch, &self.files(), &[]);
        }
    }

    fn files(&self) -> [(&'static str, String); 2] {
        [
            ("/etc/baler/ca", self.scratch.join("ca").display().to_string()),
            ("/usr/share/baler/sql", k8s().join("../sql").canonicalize().unwrap().display().to_string()),
        ]
    }

    /// The pod's command on this machine, with other values of some variables.
    pub(crate) fn local(&self, pod: &Value, more: &[(&'static str, String)]) -> Local {
        let mut local = localize(pod, &self.objects, &self.scratch, &self.files(), &[&self.values[..], more].concat());
        for (name, value) in local.variables.iter_mut().filter(|(name, _)| more.iter().all(|(other, _)| name != other)) {
            match name.as_str() {
                "BALER_METRICS_PORT" => *value = free_port().to_string(),
                // Nobody scrapes it here.
                "BALER_METRICS_LINGER_SECONDS" => *value = "0".to_string(),
                _ => {}
            }
        }
        local
    }

    pub(crate) fn call(&self, pod: &Value, more: &[(&'static str, String)]) -> Baler {
        let local = self.local(pod, more);
        Baler::new(local.arguments).envs(&local.variables)
    }

    pub(crate) fn run(&self, pod: &Value) -> Finished {
        self.call(pod, &[]).run().expect_code(0).expect_no_secret(&self.password)
    }

    /// Starts a scheduler and an executor with their pods' commands. From then on, pods find them.
    pub(crate) fn start_fleet(&mut self) -> ([Server; 2], Ports) {
        let [grpc, flight, executor_grpc, health] = [(); 4].map(|()| free_port());
        let url = self.config("BALER_SCHEDULER").replace("baler-scheduler.baler.svc:50050", &format!("localhost:{grpc}"));
        self.values.push(("BALER_SCHEDULER", url));
        let here = ("BALER_EXTERNAL_HOST", "127.0.0.1".to_string());
        let anybody = self.anybody();
        let probe = |pod: &Value, name: &str, port: u16| probe(&anybody, pod, name, port);

        let scheduler_pod = self.pod("Deployment/baler-scheduler");
        let mut local = self.local(&scheduler_pod, std::slice::from_ref(&here));
        local.variables.push(("BALER_BIND_PORT".to_string(), grpc.to_string()));
        let mut scheduler = start(&local, "scheduler");
        scheduler.wait_ready(|| probe(&scheduler_pod, "startupProbe", grpc));
        assert!(
            probe(&scheduler_pod, "livenessProbe", grpc) && !probe(&scheduler_pod, "readinessProbe", grpc),
            "ready without an executor"
        );

        let executor_pod = self.pod("StatefulSet/baler-executor");
        // A pod's own address, in both places.
        let bound = ("BALER_BIND_HOST", here.1.clone());
        let mut local = self.local(&executor_pod, &[here, bound, ("BALER_SCHEDULER_HOST", "localhost".to_string())]);
        for (name, port) in
            [("SCHEDULER_PORT", grpc), ("BIND_PORT", flight), ("BIND_GRPC_PORT", executor_grpc), ("BIND_HEALTH_PORT", health)]
        {
            local.variables.push((format!("BALER_{name}"), port.to_string()));
        }
        let mut executor = start(&local, "executor");
        executor.wait_ready(|| probe(&executor_pod, "startupProbe", health) && probe(&executor_pod, "readinessProbe", health));
        executor.wait_ready(|| probe(&executor_pod, "livenessProbe", health) && probe(&scheduler_pod, "readinessProbe", grpc));
        ([scheduler, executor], Ports { scheduler: grpc, flight, tasks: executor_grpc, health })
    }

    /// An address of the ConfigMap of all pods.
    pub(crate) fn config(&self, name: &str) -> String {
        find(&self.objects, "ConfigMap/baler-config")["data"][name].as_str().unwrap().to_string()
    }

    /// Who has the certificate in a Secret.
    pub(crate) fn identity(&self, secret: &str) -> Identity {
        self.cluster.identity(secret, &self.scratch.join(&random_name(secret)))
    }

    /// Who knows the fleet's authority, and has no certificate.
    pub(crate) fn anybody(&self) -> Identity {
        Identity { own: None, ..self.identity("baler-prometheus-tls") }
    }
}

/// A server of Baler's, started with a pod's own command.
fn start(local: &Local, name: &str) -> Server {
    let mut command = Command::new(binary());
    command.args(&local.arguments).env_clear().envs(local.variables.iter().cloned());
    Server::start(&random_name(name), &mut command)
}

/// Asks what a probe of the pod asks, on this machine's port: by TLS if it says so, and without a certificate, as a kubelet does.
pub(crate) fn probe(anybody: &Identity, pod: &Value, probe: &str, port: u16) -> bool {
    let asked = pod.pointer(&format!("/spec/containers/0/{probe}/httpGet")).unwrap_or_else(|| panic!("the pod has no {probe}"));
    let path = asked["path"].as_str().unwrap();
    let answer = if asked["scheme"] == "HTTPS" { anybody.get(port, path) } else { fleet::get(port, path) };
    answer.is_some()
}

/// A MinIO which encrypts, as that of the manifests, with the key of the kind overlay.
pub(crate) fn encrypted() -> Minio {
    let secret = std::fs::read_to_string(k8s().join("overlays/kind/minio-root.env")).unwrap();
    Minio::start_encrypted(secret.lines().find_map(|line| line.strip_prefix("kms-key=")).unwrap())
}

#[test]
fn the_pods_commands_do_the_whole_batch_job() {
    let minio = encrypted();
    let mut stage = Stage::new(&minio, None);
    let (_fleet, _) = stage.start_fleet();
    stage.run(&stage.pod_with("Job/baler-generate", &[("--size=1GiB", "--size=8MiB")]));
    assert_eq!(stage.bucket.list("input/").len(), 16);
    stage.run(&stage.pod("Job/baler-batch"));
    assert!(stage.bucket.list("state/").contains(&"state/batch-2tb/commit.json".to_string()), "the state lies in the bucket");
    let documents = stage.collection.count();
    assert!(documents >= 16, "{documents} documents");
    let shown = stage.run(&stage.pod("Job/baler-verify")).stdout;
    assert!(shown.contains("16/16 splits") && shown.contains("0 missing, 0 duplicate, 0 mismatched, 0 dead letters"), "{shown}");
    // A pod that is started again after its job is done.
    stage.run(&stage.pod("Job/baler-batch"));
    assert_eq!(stage.collection.count(), documents);
}

#[test]
fn the_streaming_driver_goes_on_where_the_pod_before_it_stopped() {
    let (minio, kafka) = (encrypted(), Kafka::start_secure());
    let mut stage = Stage::new(&minio, Some(&kafka));
    let (_fleet, _) = stage.start_fleet();
    let topic = kafka.find("events");
    topic.create(20, &[]);
    let url = topic.url_at(Some(kafka.secure.as_ref().unwrap().port));
    let to = format!("--to={url}");
    let replaced = [("--to=kafka://kafka.baler.svc:9092/events", to.as_str()), ("--size=1GiB", "--size=4MiB")];
    let generate = stage.pod_with("Job/baler-generate-feed", &replaced);
    let stored = || -> i64 {
        let records = |document: &Document| document.get_i64("records").unwrap_or_else(|e| panic!("{document}: {e}"));
        stage.collection.read().iter().map(records).sum()
    };
    let driver = stage.call(&stage.pod("Deployment/baler-stream"), &[("FEED", url)]);
    let mut sent = 0;
    for _ in 0..2 {
        let mut json = stage.local(&generate, &[]);
        json.variables.push(("BALER_OUTPUT".to_string(), "json".to_string()));
        let shown = Baler::new(json.arguments).envs(&json.variables).run().expect_code(0).stdout;
        sent += serde_json::from_str::<Value>(&shown).unwrap()["records"].as_i64().unwrap();
        let mut running = driver.start();
        assert!(running.runs_until("all records are stored", || stored() >= sent), "the driver ended: {}", running.stderr());
        running.terminate().expect_code(0).expect_no_secret(&stage.password);
        assert_eq!(stored(), sent);
    }
    // The second driver took up what the first one may have left between its documents and its commit, and went on after it.
    let (begun, ended) = (stage.bucket.list("state/feed/offsets/").len(), stage.bucket.list("state/feed/commits/").len());
    assert!(begun >= 2 && ended + 1 >= begun, "{begun} micro-batches begun, {ended} ended");
}
