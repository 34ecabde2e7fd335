//! What is logged, and in which form: text for people, one JSON object a line for machines.
//!
//! A line has the ids of what it belongs to (`job`, `split`; `query`, `batch`; on an executor Ballista's `ballista_job`, `stage`, `task`) as
//! fields of its spans, and never a value of a row or a secret.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use opentelemetry_sdk::trace::SdkTracer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::trace::keep_spans;

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// JSON in a pod of Kubernetes, and from a scheduler or executor whose stderr is no terminal; else text.
    Auto,
    /// For people.
    Text,
    /// One object a line: also progress and the error a command ends with.
    Json,
}

/// Whether lines are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// Starts the log of this process on stderr. `BALER_LOG` takes tracing's filter language; without it, warnings of ours are logged, and from
/// a server also what it does. Spans of ours go to `tracer`, whatever is logged.
pub fn start(format: LogFormat, is_server: bool, tracer: Option<SdkTracer>) {
    let is_terminal = std::io::stderr().is_terminal();
    let is_json = match format {
        LogFormat::Auto => std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || (is_server && !is_terminal),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    JSON.store(is_json, Ordering::Relaxed);
    // What Ballista's and Kubernetes' clients log about a failed call is in the error which the command ends with.
    let default = if is_server {
        "warn,baler=info,kube_client::client::builder=off"
    } else {
        "error,baler=warn,ballista_core::execution_plans=off,baler::progress=info"
    };
    let filter = std::env::var("BALER_LOG").unwrap_or_else(|_| default.to_string());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new(default));
    let started = match tracer {
        None => {
            let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(is_terminal);
            if is_json { log.json().flatten_event(true).try_init() } else { log.try_init() }
        }
        Some(tracer) => {
            let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal);
            let lines =
                if is_json { lines.json().flatten_event(true).with_filter(filter).boxed() } else { lines.with_filter(filter).boxed() };
            let log = tracing_subscriber::registry().with(lines);
            // Spans alone: the texts of events are for the log.
            let is_ours = filter_fn(|data| data.is_span() && data.target().starts_with("baler") && *data.level() <= tracing::Level::INFO);
            log.with(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(is_ours)).try_init().map_err(Into::into)
        }
    };
    if let Err(error) = started {
        eprintln!("warning: no log: {error}");
    }
    keep_spans();
}

/// Whether lines are JSON objects.
pub fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// A line about how a command goes on: as it is, or as a log line where these are JSON.
pub fn say(line: &str) {
    if is_json() {
        tracing::info!(target: "baler::progress", "{line}");
    } else {
        eprintln!("{line}");
    }
}

/// The error which a command ends with.
pub fn say_error(error: &crate::error::Error) {
    if is_json() {
        tracing::error!(exit_code = error.exit_code(), "{error}");
    } else {
        eprintln!("error: {error}");
    }
}
