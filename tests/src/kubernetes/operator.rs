//! A cluster with our overlay, controllers, a node, a fleet and `baler operator`: what a test of the operator begins with. The operator has the
//! rights of its own service account, and no others.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Cluster;
use super::kubelet::{Kubelet, Node};
use crate::authority::Identity;
use crate::baler::binary;
use crate::fleet::Fleet;
use crate::proxy::{Protocol, Proxy};
use crate::servers::{Scratch, Server, free_port, logs_of, random_name};
use crate::wait_until;

/// One operator process.
#[derive(Debug)]
pub struct Operator {
    /// The process.
    pub server: Server,
    /// Where it answers `/metrics`.
    pub metrics_port: u16,
    /// Who may look there.
    watcher: Identity,
}

impl Operator {
    /// Waits until it answers.
    pub fn wait_up(&mut self) {
        let (port, anybody) = (self.metrics_port, Identity { ca: self.watcher.ca.clone(), own: None });
        self.server.wait_ready(|| anybody.get(port, "/healthz").is_some());
    }

    /// The same when it acts.
    #[must_use]
    pub fn leading(mut self) -> Self {
        self.wait_up();
        wait_until("the operator acts", || self.is_leader());
        self
    }

    /// Whether it acts, as it says itself.
    pub fn is_leader(&self) -> bool {
        self.figure("baler_operator_is_leader") == Some(1.0)
    }

    /// One of its figures.
    pub fn figure(&self, name: &str) -> Option<f64> {
        let text = self.watcher.get(self.metrics_port, "/metrics")?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }
}

/// All of it. Its fleet has no executors at first, so that jobs wait until the test gives them some. Everything is by TLS, with the certificates of
/// `k8s/certificates.sh` and the roles of the overlay.
#[derive(Debug)]
pub struct Scene {
    /// The node. It goes before what it talks to.
    pub kubelet: Kubelet,
    /// The fleet of all jobs which name no other.
    pub fleet: Fleet,
    /// The cluster, with the overlay `kind`.
    pub cluster: Cluster,
    /// Folders of the test: `input`, `state`, and what jobs write.
    pub scratch: Scratch,
    /// Prometheus, as the fleet knows it.
    pub watcher: Identity,
    driver: Vec<(String, String)>,
    account: PathBuf,
}

impl Scene {
    /// Sets it up; `files` are put into the folder `input`.
    pub fn new(cluster: Cluster, overlay: &Path, files: &[(String, Vec<u8>)]) -> Self {
        Self::with_node(cluster, overlay, files, |_node, _fleet, _scratch| {})
    }

    /// The same with a node of the test's own choice.
    pub fn with_node(
        mut cluster: Cluster,
        overlay: &Path,
        files: &[(String, Vec<u8>)],
        choose: impl FnOnce(&mut Node, &Fleet, &Scratch),
    ) -> Self {
        let scratch = Scratch::new();
        cluster.apply(overlay);
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "crd/balerjobs.baler.dev", "crd/balerstreams.baler.dev"];
        cluster.kubectl(&wait).expect_silent();
        cluster.start_controllers();
        for folder in ["input", "state", "ca"] {
            std::fs::create_dir(scratch.join(folder)).expect("cannot make a folder");
        }
        for (name, bytes) in files {
            std::fs::write(scratch.join("input").join(name), bytes).expect("cannot write a file");
        }
        cluster.make_certificates(&[]);
        let [member, driver, watcher] = ["member", "driver", "prometheus"]
            .map(|name| cluster.identity(&format!("baler-{name}-tls"), &scratch.join(&format!("certificates/{name}"))));
        let roles = cluster.kubectl(&["--namespace=baler", "get", "configmap", "baler-access", "--output=jsonpath={.data.roles}"]);
        std::fs::write(scratch.join("roles"), roles.expect_silent()).expect("cannot write a file");
        let more = [("BALER_ACCESS", scratch.join("roles").display().to_string()), ("BALER_TLS_FLEET_NAME", "fleet.baler.svc".to_string())];
        let more = more.map(|(name, value)| (name.to_string(), value));
        let fleet = Fleet::start_secure_at("localhost", 0, &member, &more);
        let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql").canonicalize().expect("a folder").display().to_string();
        let here = scratch.join("").display().to_string();
        let mut node = Node {
            selector: "app.kubernetes.io/managed-by=baler-operator".to_string(),
            // The test's own folder is the same within a pod.
            files: vec![("/usr/share/baler/sql", sql), ("/etc/baler/ca", scratch.join("ca").display().to_string())],
            same: vec![here],
            values: Vec::new(),
        };
        choose(&mut node, &fleet, &scratch);
        let kubelet = Kubelet::start(&cluster, node);
        let account = cluster.kubeconfig_of("baler-operator");
        Self { cluster, fleet, scratch, kubelet, watcher, driver: [driver.variables(), more.to_vec()].concat(), account }
    }

    /// Starts an operator and does not wait for it.
    pub fn operator(&self) -> Operator {
        self.operator_with("--lease=10s")
    }

    /// The same with another lease.
    pub fn operator_with(&self, lease: &str) -> Operator {
        self.operator_as(&self.account, lease)
    }

    /// An operator whose requests pass through the proxy, readable, and the gateway behind it.
    pub fn operator_through_proxy(&self, lease: &str) -> (Operator, Proxy, Server) {
        let (gateway, port) = self.cluster.gateway();
        let proxy = Proxy::start(port, Protocol::Bytes);
        (self.operator_as(&self.cluster.kubeconfig_at(&self.account, proxy.port), lease), proxy, gateway)
    }

    fn operator_as(&self, account: &Path, lease: &str) -> Operator {
        let metrics_port = free_port();
        let state = format!("--state={}", self.state().display());
        let mut command = Command::new(binary());
        command.args(["operator", "--poll=500ms", lease, &state, &format!("--scheduler={}", self.fleet.url())]);
        command.arg(format!("--metrics-port={metrics_port}"));
        command.env_clear().env("KUBECONFIG", account).env("BALER_LOG", "info,kube=info").envs(self.driver.iter().cloned());
        let server = Server::start(&random_name("operator"), &mut command);
        Operator { server, metrics_port, watcher: self.watcher.clone() }
    }

    /// Starts an operator which acts.
    pub fn leading_operator(&self) -> Operator {
        self.operator().leading()
    }

    /// The folder with the state of all jobs.
    pub fn state(&self) -> PathBuf {
        self.scratch.join("state")
    }

    /// Creates or changes a resource.
    #[track_caller]
    pub fn apply(&self, resource: &Value) {
        let file = self.scratch.join(&random_name("resource")).display().to_string();
        std::fs::write(&file, resource.to_string()).expect("cannot write a file");
        self.cluster.kubectl(&["apply", "--validate=strict", "--filename", &file]).expect_silent();
    }

    /// Sets a field of a resource.
    #[track_caller]
    pub fn patch(&self, resource: &str, patch: &Value) {
        self.kubectl(&["patch", resource, "--type=merge", "--patch", &patch.to_string()]);
    }

    /// Runs `kubectl` in the namespace; it succeeds and says nothing else.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.cluster.kubectl(&[&["--namespace=baler"], arguments].concat()).expect_silent()
    }

    /// An object, if it is there.
    pub fn get(&self, object: &str) -> Option<Value> {
        let answer = self.cluster.kubectl(&["--namespace=baler", "get", object, "--output=json", "--ignore-not-found"]).expect_silent();
        (!answer.is_empty()).then(|| serde_json::from_str(&answer).expect("kubectl answers in JSON"))
    }

    /// All objects of a kind.
    pub fn list(&self, kind: &str, more: &[&str]) -> Vec<Value> {
        let answer: Value = serde_json::from_str(&self.kubectl(&[&["get", kind, "--output=json"], more].concat())).expect("JSON");
        answer["items"].as_array().expect("a list").clone()
    }

    /// Waits for a phase of a resource and returns its status.
    ///
    /// # Panics
    /// When it does not come; the text holds the resource.
    #[track_caller]
    pub fn wait_phase(&self, resource: &str, phase: &str) -> Value {
        let wanted = format!("--for=jsonpath={{.status.phase}}={phase}");
        let answer = self.cluster.kubectl(&["--namespace=baler", "wait", &wanted, "--timeout=150s", resource]);
        let found = self.get(resource);
        assert!(
            answer.is_ok,
            "{resource} is not {phase}: {found:#?}\n{}\n{:?}\n{}",
            answer.errors,
            self.kubelet.ended(),
            logs_of("operator-")
        );
        found.map_or(Value::Null, |found| found["status"].clone())
    }

    /// Waits until an object is gone.
    #[track_caller]
    pub fn wait_gone(&self, object: &str) {
        wait_until(&format!("{object} is gone; it is {:?} at first", self.get(object)), || self.get(object).is_none());
    }
}
