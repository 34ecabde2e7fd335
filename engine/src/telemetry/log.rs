//! What is logged, and in which form: text for people, one JSON object a line for machines.
//!
//! A line has the ids of what it belongs to (`job`, `split`; `query`, `batch`; on an executor Ballista's `ballista_job`, `stage`, `task`) as
//! fields of its spans, and never a value of a row or a secret.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use opentelemetry_sdk::trace::SdkTracer;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, SubscriberExt};
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

/// What this process drives, for lines which belong to all of it.
static JOB: OnceLock<String> = OnceLock::new();
static QUERY: OnceLock<String> = OnceLock::new();

/// From now on progress and the last error name this job.
pub fn name_job(name: &str) {
    JOB.get_or_init(|| name.to_string());
}

/// The same for a query.
pub fn name_query(name: &str) {
    QUERY.get_or_init(|| name.to_string());
}

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
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal);
    let lines = if is_json { lines.json().flatten_event(true).boxed() } else { lines.boxed() };
    // Spans alone: the texts of events are for the log.
    let ours: fn(&Metadata<'_>) -> bool = is_our_span;
    let traces = tracer.map(|tracer| tracing_opentelemetry::layer().with_tracer(tracer).with_filter(filter_fn(ours)));
    // One filter before all layers, not one of the layer of lines: under such a one, spans are missing in lines now and then.
    let started = tracing_subscriber::registry().with(traces).with(lines).with(KeepSpans(filter)).try_init();
    if let Err(error) = started {
        eprintln!("warning: no log: {error}");
    }
    keep_spans();
}

fn is_our_span(data: &Metadata<'_>) -> bool {
    data.is_span() && data.target().starts_with("baler") && *data.level() <= Level::INFO
}

/// tracing's filter, which spans of ours pass whatever it says: a line has their ids where only warnings are logged.
#[derive(Debug)]
struct KeepSpans(EnvFilter);

impl<S: Subscriber> Layer<S> for KeepSpans {
    fn register_callsite(&self, data: &'static Metadata<'static>) -> Interest {
        let interest = Layer::<S>::register_callsite(&self.0, data);
        if is_our_span(data) { Interest::always() } else { interest }
    }

    fn enabled(&self, data: &Metadata<'_>, context: Context<'_, S>) -> bool {
        is_our_span(data) || Layer::<S>::enabled(&self.0, data, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Layer::<S>::max_level_hint(&self.0).map(|level| level.max(LevelFilter::INFO))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        Layer::<S>::on_new_span(&self.0, attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        Layer::<S>::on_record(&self.0, id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        Layer::<S>::on_enter(&self.0, id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        Layer::<S>::on_exit(&self.0, id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        Layer::<S>::on_close(&self.0, id, context);
    }
}

/// Whether lines are JSON objects.
pub fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// A line about how a command goes on: as it is, or as a log line where these are JSON.
pub fn say(line: &str) {
    if is_json() {
        tracing::info!(target: "baler::progress", job = JOB.get(), query = QUERY.get(), "{line}");
    } else {
        eprintln!("{line}");
    }
}

/// The error which a command ends with.
pub fn say_error(error: &crate::error::Error) {
    if is_json() {
        tracing::error!(exit_code = error.exit_code(), job = JOB.get(), query = QUERY.get(), "{error}");
    } else {
        eprintln!("error: {error}");
    }
}
