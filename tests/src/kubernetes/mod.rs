//! A real Kubernetes API: etcd from Debian, kube-apiserver, kubectl and kube-controller-manager built from their published Go modules. There is
//! no node: what is applied is checked and stored as on a cluster, but no container is started. [`pod`] runs a pod's command in its place, and
//! [`kubelet`] does so for all that the controllers make.

pub mod kubelet;
pub mod operator;
pub mod pod;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::authority::Identity;
use crate::servers::{Scratch, Server, free_port, random, random_name, run_folder, say};
use crate::{cache, packages};

/// The release which the tests run. Its staging modules are published as `v0.` and the rest of the version.
pub const VERSION: &str = "1.36.3";

/// The folder of `kube-apiserver` and `kubectl`.
pub fn binaries() -> PathBuf {
    let how = "go build, which takes about ten minutes";
    cache::tool(&format!("kubernetes-{VERSION}"), how, |place| build(place, &["kube-apiserver", "kubectl"]))
}

fn controller_manager() -> PathBuf {
    let name = "kube-controller-manager";
    cache::tool(&format!("{name}-{VERSION}"), "go build, which takes about two minutes", |place| build(place, &[name])).join(name)
}

/// Builds programs of Kubernetes into a folder.
fn build(place: &Path, programs: &[&str]) {
    let source = packages::go_module(&format!("k8s.io/kubernetes@v{VERSION}"));
    fs::write(place.join("go.mod"), module(&source)).expect("cannot write to the cache");
    fs::copy(source.join("go.sum"), place.join("go.sum")).expect("cannot write to the cache");
    let mut build = Command::new("go");
    build.current_dir(place).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod").args(["build", "-o"]).arg(place);
    build.arg(format!("-ldflags=-s -w -X k8s.io/component-base/version.gitVersion=v{VERSION}"));
    build.args(programs.iter().map(|program| format!("k8s.io/kubernetes/cmd/{program}")));
    cache::step(&mut build, "Go (`go`)");
}

/// A go.mod from which Kubernetes' programs build. Its own names folders of its repository for the staging modules, which a module that
/// depends on it does not have; each is published by itself, under the release's number.
fn module(source: &Path) -> String {
    let output = Command::new("go").args(["mod", "edit", "-json"]).arg(source.join("go.mod")).output().expect("these tests need `go`");
    let own: Value = serde_json::from_slice(&output.stdout).expect("go describes a module");
    let staging_version = format!("v0.{}", VERSION.split_once('.').expect("a version").1);
    let published = |version: &str| if version == "v0.0.0" { staging_version.clone() } else { version.to_string() };
    let required: Vec<_> =
        own["Require"].as_array().expect("requirements").iter().map(|one| (text(&one["Path"]), text(&one["Version"]))).collect();
    let lines = required.iter().map(|(name, version)| format!("\t{name} {}\n", published(version)));
    let replaced = required.iter().filter(|(_, version)| *version == "v0.0.0");
    let replaced = replaced.map(|(name, _)| format!("\t{name} => {name} {staging_version}\n"));
    format!(
        "module kubernetes\n\ngo {}\n\nrequire (\n\tk8s.io/kubernetes v{VERSION}\n{})\n\nreplace (\n{})\n",
        text(&own["Go"]),
        lines.collect::<String>(),
        replaced.collect::<String>()
    )
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What a command of `kubectl` said.
#[derive(Debug)]
pub struct Answer {
    /// Whether it succeeded.
    pub is_ok: bool,
    /// Its results.
    pub shown: String,
    /// Warnings and errors.
    pub errors: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { is_ok: output.status.success(), shown: text(&output.stdout), errors: text(&output.stderr) }
    }
}

impl Answer {
    /// Its results; it succeeded and said nothing else.
    ///
    /// # Panics
    /// When it failed or warned.
    #[track_caller]
    pub fn expect_silent(self) -> String {
        assert!(self.is_ok && self.errors.is_empty(), "kubectl failed or warned:\n{}\n{}", self.errors, self.shown);
        self.shown
    }

    /// Its results as JSON; it succeeded and said nothing else.
    ///
    /// # Panics
    /// When it failed or warned.
    #[track_caller]
    pub fn expect_json(self) -> Value {
        serde_json::from_str(&self.expect_silent()).expect("kubectl answers in JSON")
    }
}

/// `kubectl` with the rights of one user. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kubectl {
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Runs it.
    pub fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Answer {
        let mut command = Command::new(binaries().join("kubectl"));
        command.args(arguments.iter().map(AsRef::as_ref)).env("KUBECONFIG", &self.kubeconfig);
        command.output().expect("cannot run kubectl").into()
    }
}

/// An empty cluster of one test: etcd and an API server on free ports, and controllers if the test asks for them.
#[derive(Debug)]
pub struct Cluster {
    kubectl: Kubectl,
    folder: PathBuf,
    url: String,
    api_arguments: Vec<OsString>,
    api: Server,
    etcd: Server,
    controllers: Option<Server>,
}

impl Drop for Cluster {
    /// etcd takes 124 MB of disk for its first entry: not to be kept for each test until the end of the run.
    fn drop(&mut self) {
        drop(self.controllers.take());
        self.api.kill();
        self.etcd.kill();
        fs::remove_dir_all(self.folder.join("etcd")).ok();
    }
}

impl Cluster {
    /// Starts one.
    ///
    /// # Panics
    /// When its parts cannot be had or do not come up.
    pub fn start() -> Self {
        let name = random_name("kubernetes");
        let folder = run_folder().join(&name);
        fs::create_dir(&folder).expect("cannot make a folder");
        let (clients, peers, port) = (free_port(), free_port(), free_port());
        let etcd_url = format!("http://127.0.0.1:{clients}");
        let mut etcd = Command::new(packages::debian("etcd", &["etcd-server"]).join("usr/bin/etcd"));
        etcd.arg("--data-dir").arg(folder.join("etcd")).arg("--unsafe-no-fsync");
        etcd.args(["--listen-client-urls", &etcd_url, "--advertise-client-urls", &etcd_url]);
        for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            etcd.args([flag, &format!("http://127.0.0.1:{peers}")]);
        }
        etcd.arg("--initial-cluster").arg(format!("default=http://127.0.0.1:{peers}"));
        let etcd = Server::start(&format!("{name}-etcd"), &mut etcd);

        let token = format!("{:016x}", random());
        fs::write(folder.join("tokens.csv"), format!("{token},admin,admin,system:masters\n")).expect("cannot write a file");
        let key = folder.join("accounts.key");
        cache::step(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048"), "the `openssl` tool");
        let kubeconfig = folder.join("kubeconfig");
        let url = format!("https://127.0.0.1:{port}");
        fs::write(&kubeconfig, config(&folder, &url, &token, "default")).expect("cannot write a file");
        let mut api = Command::new(binaries().join("kube-apiserver"));
        api.args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
        ]);
        api.args(["--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16"]);
        api.args([format!("--secure-port={port}"), format!("--etcd-servers={etcd_url}")]);
        for (flag, value) in [
            ("--cert-dir", folder.join("certificates")),
            ("--token-auth-file", folder.join("tokens.csv")),
            ("--service-account-key-file", key.clone()),
            ("--service-account-signing-key-file", key),
        ] {
            api.arg(flag).arg(value);
        }
        let api_arguments = api.get_args().map(OsString::from).collect();
        let (kubectl, api) = (Kubectl { kubeconfig }, Server::start(&format!("{name}-api"), &mut api));
        let mut cluster = Self { kubectl, folder, url, api_arguments, api, etcd, controllers: None };
        cluster.wait_ready();
        say(&format!("Kubernetes API server v{VERSION} listens on 127.0.0.1:{port}"));
        cluster
    }

    fn wait_ready(&mut self) {
        let kubectl = self.kubectl.clone();
        self.api.wait_ready(|| kubectl.run(&["get", "--raw", "/readyz"]).is_ok);
    }

    /// Kills the API server and starts it again, as an upgrade does: all watches end, and what they missed is not remembered.
    ///
    /// # Panics
    /// When it does not come up again.
    pub fn restart_api(&mut self) {
        self.api.kill();
        let mut api = Command::new(binaries().join("kube-apiserver"));
        api.args(&self.api_arguments);
        self.api = Server::start(&format!("{}-api", self.folder.file_name().expect("a name").display()), &mut api);
        self.wait_ready();
    }

    /// Starts the controllers of Jobs, Deployments, what belongs to a removed owner, and quotas (without which no pod is admitted).
    pub fn start_controllers(&mut self) {
        let port = free_port();
        let mut command = Command::new(controller_manager());
        command.arg("--kubeconfig").arg(&self.kubectl.kubeconfig).arg("--cert-dir").arg(self.folder.join("controllers"));
        command.args(["--leader-elect=false", "--bind-address=127.0.0.1", &format!("--secure-port={port}")]);
        let controllers = ["job", "deployment", "replicaset", "garbage-collector", "resourcequota"];
        command.arg(format!("--controllers={}", controllers.map(|name| format!("{name}-controller")).join(",")));
        let log = format!("{}-controllers", self.folder.file_name().expect("a name").display());
        let mut server = Server::start(&log, &mut command);
        server.wait_ready(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        self.controllers = Some(server);
    }

    /// Runs `kubectl`.
    pub fn kubectl<S: AsRef<str>>(&self, arguments: &[S]) -> Answer {
        self.kubectl.run(arguments)
    }

    /// `kubectl` for another thread.
    pub fn client(&self) -> Kubectl {
        self.kubectl.clone()
    }

    /// A file by which a program reaches the API as a service account of the namespace, as its pods would.
    ///
    /// # Panics
    /// When there is no such account.
    pub fn kubeconfig_of(&self, account: &str) -> PathBuf {
        let token = self.kubectl(&["--namespace=baler", "create", "token", account, "--duration=2h"]).expect_silent();
        let file = self.folder.join(random_name(account));
        fs::write(&file, config(&self.folder, &self.url, token.trim(), "baler")).expect("cannot write a file");
        file
    }

    /// Starts `kubectl proxy`, which takes requests without TLS, so that a [`Proxy`](crate::proxy::Proxy) before it can read them. Returns it and
    /// its port.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn gateway(&self) -> (Server, u16) {
        let port = free_port();
        let mut command = Command::new(binaries().join("kubectl"));
        command.args(["proxy", &format!("--port={port}")]).env("KUBECONFIG", &self.kubectl.kubeconfig);
        let mut gateway = Server::start(&random_name("kubectl-proxy"), &mut command);
        gateway.wait_ready(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        (gateway, port)
    }

    /// The configuration `account` for one that is reached at `port` without TLS.
    ///
    /// # Panics
    /// When it cannot be read or written.
    pub fn kubeconfig_at(&self, account: &Path, port: u16) -> PathBuf {
        let text = fs::read_to_string(account).expect("cannot read a file").replace(&self.url, &format!("http://127.0.0.1:{port}"));
        let file = self.folder.join(random_name("gateway"));
        fs::write(&file, text).expect("cannot write a file");
        file
    }

    /// A folder with the files by which a pod reaches the API as a service account of the namespace, and the variables which a pod has for it.
    ///
    /// # Panics
    /// When there is no such account.
    pub fn account_files(&self, account: &str) -> (PathBuf, Vec<(&'static str, String)>) {
        let folder = self.folder.join(random_name(account));
        fs::create_dir(&folder).expect("cannot make a folder");
        let token = self.kubectl(&["--namespace=baler", "create", "token", account, "--duration=2h"]).expect_silent();
        fs::write(folder.join("token"), token.trim()).expect("cannot write a file");
        fs::copy(self.folder.join("certificates/apiserver.crt"), folder.join("ca.crt")).expect("cannot copy a certificate");
        let (host, port) = self.url.trim_start_matches("https://").split_once(':').expect("a port");
        (folder, vec![("KUBERNETES_SERVICE_HOST", host.to_string()), ("KUBERNETES_SERVICE_PORT", port.to_string())])
    }

    /// What a script of ours needs to reach this cluster with this `kubectl`.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = format!("{}:{}", binaries().display(), std::env::var("PATH").unwrap_or_default());
        vec![("KUBECONFIG".to_string(), self.kubectl.kubeconfig.display().to_string()), ("PATH".to_string(), path)]
    }

    /// Applies a folder of manifests on the server's side, with strict validation, and returns the objects as they are stored.
    ///
    /// # Panics
    /// When the server refuses one or warns.
    #[track_caller]
    pub fn apply(&self, folder: &Path) -> Vec<Value> {
        let folder = folder.display().to_string();
        let answer = self.kubectl(&["apply", "--server-side", "--validate=strict", "--output=json", "-k", &folder]).expect_json();
        match answer["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![answer],
        }
    }

    /// Asks the server to check an object as if it was created, with all admission of a cluster, and to keep nothing.
    pub fn admit(&self, scratch: &Scratch, object: &Value) -> Answer {
        self.create(scratch, object, &[])
    }

    /// The same, asked by a service account of the namespace.
    pub fn admit_as(&self, account: &str, scratch: &Scratch, object: &Value) -> Answer {
        self.create(scratch, object, &[&format!("--as=system:serviceaccount:baler:{account}")])
    }

    fn create(&self, scratch: &Scratch, object: &Value, more: &[&str]) -> Answer {
        let file = scratch.join(&random_name("object")).display().to_string();
        fs::write(&file, object.to_string()).expect("cannot write a file");
        self.kubectl(&[&["create", "--dry-run=server", "--validate=strict", "--filename", &file], more].concat())
    }

    /// One value of a Secret of the namespace.
    ///
    /// # Panics
    /// When it is not there.
    pub fn secret(&self, name: &str, key: &str) -> Vec<u8> {
        let path = format!("--output=jsonpath={{.data.{}}}", key.replace('.', "\\."));
        decode(&self.kubectl(&["--namespace=baler", "get", "secret", name, &path]).expect_silent())
    }

    /// All Secrets of the namespace.
    ///
    /// # Panics
    /// When they cannot be had.
    pub fn secrets(&self) -> Vec<Value> {
        let answer = self.kubectl(&["--namespace=baler", "get", "secrets", "--output=json"]).expect_json();
        answer["items"].as_array().expect("a list").clone()
    }

    /// Makes certificates as a person does: by `k8s/certificates.sh`, with these arguments.
    ///
    /// # Panics
    /// When it fails.
    pub fn make_certificates(&self, arguments: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/certificates.sh");
        cache::step(Command::new(script).args(arguments).envs(self.environment()), "`openssl` and what k8s/certificates.sh needs");
    }

    /// Who has the certificate in a Secret, whose files are put into `folder`.
    ///
    /// # Panics
    /// When it is not there.
    pub fn identity(&self, secret: &str, folder: &Path) -> Identity {
        fs::create_dir_all(folder).expect("cannot make a folder");
        let [ca, certificate, key] = ["ca.crt", "tls.crt", "tls.key"].map(|name| {
            let place = folder.join(name);
            fs::write(&place, self.secret(secret, name)).expect("cannot write a file");
            place
        });
        Identity { ca, own: Some((certificate, key)) }
    }

    /// Whether a service account of the namespace may do something, such as `["create", "pods"]`.
    ///
    /// # Panics
    /// When the server does not answer yes or no.
    pub fn may(&self, account: &str, what: &[&str]) -> bool {
        let user = format!("--as=system:serviceaccount:baler:{account}");
        let answer = self.kubectl(&[&["auth", "can-i", &user, "--namespace=baler"], what].concat());
        match answer.shown.trim() {
            "yes" => true,
            "no" => false,
            _ => panic!("kubectl does not say whether {account} may {what:?}: {answer:?}"),
        }
    }
}

/// What base64 means.
///
/// # Panics
/// When it is none.
pub fn decode(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap_or_else(|e| panic!("`{text}` is no base64: {e}"))
}

/// Bytes as a Secret holds them.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn config(folder: &Path, url: &str, token: &str, namespace: &str) -> String {
    let authority = folder.join("certificates/apiserver.crt");
    let value = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": authority}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
    });
    value.to_string()
}
