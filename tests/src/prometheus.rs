//! A Prometheus server which scrapes what a test runs.
//!
//! Debian's package is unpacked into the cache of the tests: the machine itself is not changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cache;
use crate::fleet::get;
use crate::servers::{Scratch, Server, free_port, random_name};
use crate::{packages, wait_until};

/// Which Prometheus the tests use.
pub fn description() -> String {
    format!("Debian's package of prometheus, in {}", cache::folder().display())
}

/// A program of the package: `prometheus` or `promtool`.
///
/// # Panics
/// When the package cannot be had.
pub fn program(name: &str) -> PathBuf {
    packages::debian("prometheus", &["prometheus"]).join("usr/bin").join(name)
}

/// `promtool` with these arguments; `input` is what it reads. Returns what it said.
///
/// # Panics
/// When it finds fault.
#[track_caller]
pub fn promtool(arguments: &[&str], input: &str) -> String {
    let folder = Scratch::new();
    let file = folder.join("input");
    std::fs::write(&file, input).expect("cannot write a file");
    let output = Command::new(program("promtool"))
        .args(arguments)
        .stdin(std::fs::File::open(&file).expect("the file was just written"))
        .output()
        .expect("cannot run promtool");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?} finds fault:\n{said}\n{input}");
    said
}

/// A Prometheus which scrapes some ports of this machine, often.
#[derive(Debug)]
pub struct Prometheus {
    /// Its port.
    pub port: u16,
    _server: Server,
    _scratch: Scratch,
}

impl Prometheus {
    /// Scrapes each `(job, port)` ten times a second.
    pub fn start(targets: &[(&str, u16)]) -> Self {
        Self::start_with(&configuration_of(targets))
    }

    /// The same by a configuration of the test's own.
    pub fn start_with(text: &str) -> Self {
        let mut command = Command::new(program("prometheus"));
        let (scratch, port) = (Scratch::new(), free_port());
        let configuration = scratch.join("prometheus.yml");
        std::fs::write(&configuration, text).expect("cannot write a configuration");
        command
            .arg(flag("config.file", &configuration))
            .arg(flag("storage.tsdb.path", &scratch.join("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            // The package looks for these outside of the cache; the API does not need them.
            .arg("--log.level=warn");
        let mut server = Server::start(&random_name("prometheus"), &mut command);
        server.wait_ready(|| get(port, "/-/ready").is_some());
        Self { port, _server: server, _scratch: scratch }
    }

    /// The samples of an instant query: their labels and values.
    ///
    /// # Panics
    /// When Prometheus refuses it.
    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = get(self.port, &format!("/api/v1/query?query={escaped}")).unwrap_or_else(|| panic!("Prometheus refuses {query}"));
        let answer: Value = serde_json::from_str(&answer).expect("Prometheus answers in JSON");
        let samples = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("no result: {answer}"));
        let value = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse().ok()).expect("a number");
        samples.iter().map(|sample| (sample["metric"].clone(), value(sample))).collect()
    }

    /// The only sample of a query; `None` if there is none.
    #[track_caller]
    pub fn value(&self, query: &str) -> Option<f64> {
        let samples = self.query(query);
        assert!(samples.len() < 2, "{query} has several samples: {samples:?}");
        samples.first().map(|(_, value)| *value)
    }

    /// Waits until a query has this value.
    #[track_caller]
    pub fn wait_for(&self, query: &str, wanted: f64) {
        wait_until(&format!("{query} is {wanted}; it is {:?} at first", self.query(query)), || self.value(query) == Some(wanted));
    }
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

fn configuration_of(targets: &[(&str, u16)]) -> String {
    let mut text = "global:\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\nscrape_configs:\n".to_string();
    let jobs: std::collections::BTreeSet<&str> = targets.iter().map(|(job, _)| *job).collect();
    for job in jobs {
        let ports: Vec<String> = targets.iter().filter(|(name, _)| *name == job).map(|(_, port)| format!("'127.0.0.1:{port}'")).collect();
        text += &format!("  - job_name: {job}\n    static_configs:\n      - targets: [{}]\n", ports.join(", "));
    }
    text
}
