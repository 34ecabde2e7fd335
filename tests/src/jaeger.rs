//! A Jaeger (v2: an OpenTelemetry collector with a store in memory), which takes spans by OTLP over gRPC and tells them by its API.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::cache;
use crate::fleet::get;
use crate::minio::Certificates;
use crate::servers::{Scratch, Server, free_port, random_name};

const VERSION: &str = "v1.76.0";

/// Which Jaeger the tests use.
pub fn description() -> String {
    format!("Jaeger {VERSION} (cmd/jaeger), built by Go on first use (some minutes)")
}

/// A running Jaeger.
#[derive(Debug)]
pub struct Jaeger {
    /// Where it takes spans: what `--otlp-endpoint` names.
    pub endpoint: String,
    /// The certificate of its authority, where it takes them by TLS.
    pub authority: Option<PathBuf>,
    query: u16,
    _server: Server,
    _scratch: Scratch,
}

impl Jaeger {
    /// Starts one of a test's own.
    ///
    /// # Panics
    /// When it cannot be built or started.
    pub fn start() -> Self {
        Self::launch(false)
    }

    /// The same, which takes spans by TLS alone.
    ///
    /// # Panics
    /// As [`Jaeger::start`].
    pub fn start_tls() -> Self {
        Self::launch(true)
    }

    fn launch(is_secure: bool) -> Self {
        let place = cache::tool(&format!("jaeger-{VERSION}"), "go build", |place| {
            // Its module has replacements, which `go install` refuses: a module of ours holds it as a tool.
            let go = |arguments: &[&str]| {
                let mut command = Command::new("go");
                command.args(arguments).current_dir(place).env_remove("GOOS");
                cache::step(&mut command, "Go 1.24 or newer (`go`)");
            };
            go(&["mod", "init", "tool"]);
            go(&["get", "-tool", &format!("github.com/jaegertracing/jaeger/cmd/jaeger@{VERSION}")]);
            go(&["build", "-o", "jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger"]);
        });
        let (scratch, [otlp, query, grpc]) = (Scratch::new(), [free_port(), free_port(), free_port()]);
        let configuration = scratch.join("jaeger.yaml");
        let certificates = is_secure.then(|| Certificates::make(&scratch.join("tls")));
        let tls = certificates.as_ref().map_or_else(String::new, |certificates| {
            let file = |name: &str| certificates.folder.join(name).display().to_string();
            format!(", tls: {{cert_file: \"{}\", key_file: \"{}\"}}", file("public.crt"), file("private.key"))
        });
        std::fs::write(&configuration, configuration_of(otlp, &tls, query, grpc)).expect("cannot write a configuration");
        let mut command = Command::new(place.join("jaeger"));
        command.arg("--config").arg(&configuration);
        let mut server = Server::start(&random_name("jaeger"), &mut command);
        server.wait_ready(|| get(query, "/api/services").is_some());
        let scheme = if is_secure { "https" } else { "http" };
        let authority = certificates.map(|certificates| certificates.authority);
        Self { endpoint: format!("{scheme}://127.0.0.1:{otlp}"), authority, query, _server: server, _scratch: scratch }
    }

    /// The spans of the newest traces in which this service takes part.
    pub fn spans(&self, service: &str) -> Vec<Span> {
        let path = format!("/api/traces?service={service}&lookback=1h&limit=100");
        let answer: Value = get(self.query, &path).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        answer["data"].as_array().into_iter().flatten().flat_map(spans_of).collect()
    }
}

/// One span.
#[derive(Debug, Clone)]
pub struct Span {
    /// Of which trace.
    pub trace: String,
    /// Its id.
    pub id: String,
    /// The id of the span in which it began.
    pub parent: Option<String>,
    /// What it is.
    pub name: String,
    /// Whose it is.
    pub service: String,
    /// Its attributes.
    pub tags: Value,
}

fn spans_of(trace: &Value) -> Vec<Span> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let span = |span: &Value| {
        let parent = span["references"].as_array().and_then(|all| all.iter().find(|one| one["refType"] == "CHILD_OF"));
        let tags = span["tags"].as_array().into_iter().flatten().map(|tag| (text(&tag["key"]), tag["value"].clone()));
        Span {
            trace: text(&span["traceID"]),
            id: text(&span["spanID"]),
            parent: parent.map(|parent| text(&parent["spanID"])),
            name: text(&span["operationName"]),
            service: text(&trace["processes"][text(&span["processID"])]["serviceName"]),
            tags: tags.collect(),
        }
    };
    trace["spans"].as_array().into_iter().flatten().map(span).collect()
}

fn configuration_of(otlp: u16, tls: &str, query: u16, grpc: u16) -> String {
    format!(
        "service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], processors: [], exporters: [jaeger_storage_exporter]}}
  telemetry:
    metrics: {{level: none}}
    logs: {{level: warn}}
extensions:
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: \"127.0.0.1:{query}\"}}
    grpc: {{endpoint: \"127.0.0.1:{grpc}\"}}
  jaeger_storage:
    backends:
      memory:
        memory: {{max_traces: 10000}}
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: \"127.0.0.1:{otlp}\"{tls}}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
"
    )
}
