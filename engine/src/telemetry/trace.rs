//! Traces: spans to an OpenTelemetry collector (OTLP over gRPC), where one is named.
//!
//! `job › wave › task › split › sink_batch`, and `batch` of a query above `job`. The driver's span travels to the executors with the job in
//! the plan, so a job is one trace, whoever works on it. Spans carry the ids of log lines and counts, never texts of
//! errors or values of rows.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use futures::FutureExt;
use futures::future::BoxFuture;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::error::{Error, Result};

/// How long the last spans may take to leave when a process ends: a collector that is away must not hold it up.
const LAST_SPANS: Duration = Duration::from_secs(10);

/// How long a connection to the collector may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The variable which names the file of the authority that the collector's certificate is from, as OpenTelemetry has it.
const AUTHORITY: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Where spans go: the collector at `endpoint` (`http://host:4317`, or `https://…`), under the service name `OTEL_SERVICE_NAME`, else `service`.
/// Call it within a Tokio runtime, on which the connection lives; it is made when the first spans are sent, and spans are dropped while it cannot
/// be.
///
/// # Errors
/// Config, for an endpoint which cannot be one, or certificates which cannot be read.
pub fn open(endpoint: &str, service: &str) -> Result<SdkTracer> {
    let parsed = url::Url::parse(endpoint).map_err(|e| bad(endpoint).with_source(e))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err(bad(endpoint));
    }
    let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint);
    if parsed.scheme() == "https" {
        let authority = std::env::var_os(AUTHORITY).filter(|file| !file.is_empty()).map(PathBuf::from);
        exporter = exporter.with_channel(secure_channel(endpoint, authority.as_deref())?);
    }
    let exporter = exporter.build().map_err(|e| bad(endpoint).with_source(e))?;
    let mut resource = Resource::builder()
        .with_attributes([KeyValue::new("service.version", crate::VERSION), KeyValue::new("process.pid", i64::from(std::process::id()))]);
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service.to_string());
    }
    let provider = SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build();
    Ok(PROVIDER.get_or_init(|| provider).tracer("baler"))
}

fn bad(endpoint: &str) -> Error {
    Error::config(format!(
        "--otlp-endpoint: `{endpoint}` is no collector's address; write http://host:4317 or https://host:4317 (OTLP over gRPC)"
    ))
}

/// A way to a collector by TLS, whose certificate is from an authority in the file `authority`, else from one which this machine trusts.
fn secure_channel(endpoint: &str, authority: Option<&Path>) -> Result<Channel> {
    let target = Endpoint::from_shared(endpoint.to_string()).map_err(|e| bad(endpoint).with_source(e))?;
    let tls = match authority {
        Some(file) => ClientTlsConfig::new().trust_anchors(authorities(file)?.roots),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    let failed = |e| {
        Error::config(format!(
            "TLS to {endpoint} cannot be set up; where this machine trusts no authority, name the collector's in {AUTHORITY}"
        ))
        .with_source(e)
    };
    Ok(target.tls_config(tls).map_err(failed)?.connect_timeout(CONNECT_TIMEOUT).connect_lazy())
}

/// The authorities in a file.
fn authorities(file: &Path) -> Result<RootCertStore> {
    let bad = || Error::config(format!("{AUTHORITY}: {} holds no certificate of an authority in PEM", file.display()));
    let mut found = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| bad().with_source(e))? {
        found.add(certificate.map_err(|e| bad().with_source(e))?).map_err(|e| bad().with_source(e))?;
    }
    if found.is_empty() { Err(bad()) } else { Ok(found) }
}

/// Sends what is left. Blocks for at most ten seconds.
pub fn finish() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown_with_timeout(LAST_SPANS)
    {
        tracing::warn!(%error, "the last spans were not sent");
    }
}

/// Tasks which DataFusion begins belong to the span that began them: else a partition's log lines and spans would stand alone.
#[derive(Debug)]
struct KeepSpan;

/// What a task gives back, whatever that is.
type Anything = Box<dyn Any + Send>;

impl JoinSetTracer for KeepSpan {
    fn trace_future(&self, future: BoxFuture<'static, Anything>) -> BoxFuture<'static, Anything> {
        future.in_current_span().boxed()
    }

    fn trace_block(&self, work: Box<dyn FnOnce() -> Anything + Send>) -> Box<dyn FnOnce() -> Anything + Send> {
        let span = Span::current();
        Box::new(move || span.in_scope(work))
    }
}

/// Has DataFusion's tasks keep their spans, from now on.
pub fn keep_spans() {
    if let Err(error) = set_join_set_tracer(&KeepSpan) {
        tracing::debug!(%error, "spans are kept already");
    }
}

/// W3C `traceparent` of the present span; `None` where there is none, or traces are not exported.
pub fn current() -> Option<String> {
    PROVIDER.get()?;
    let context = Span::current().context();
    let span = context.span();
    let place = span.span_context();
    let flags = place.trace_flags().to_u8();
    place.is_valid().then(|| format!("00-{}-{}-{flags:02x}", place.trace_id(), place.span_id()))
}

/// Puts a span that has not begun under the span of another process, where that is known.
pub fn continue_from(span: &Span, parent: Option<&str>) {
    if let Some(place) = parent.and_then(read_parent)
        && PROVIDER.get().is_some()
        && let Err(error) = span.set_parent(Context::new().with_remote_span_context(place))
    {
        tracing::debug!(%error, "a span stands alone");
    }
}

/// `00-<trace>-<span>-<flags>` → the span of another process.
fn read_parent(text: &str) -> Option<SpanContext> {
    let parts: Vec<&str> = text.split('-').collect();
    let ["00", trace, span, flags] = parts.as_slice() else { return None };
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let place = SpanContext::new(trace, span, flags, true, TraceState::default());
    place.is_valid().then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_as_w3c_writes_it() {
        let place = read_parent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert_eq!((place.span_id().to_string().as_str(), place.is_sampled()), ("b7ad6b7169203331", true));
        for wrong in ["", "00-0af7", "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-zz-b7ad6b7169203331-01"] {
            assert!(read_parent(wrong).is_none(), "{wrong}");
        }
        assert!(read_parent("00-00000000000000000000000000000000-b7ad6b7169203331-01").is_none());
    }

    #[test]
    fn an_endpoint_is_an_address_of_http_or_https() {
        for wrong in ["localhost:4317", "grpc://collector:4317", "collector"] {
            assert!(open(wrong, "baler").unwrap_err().to_string().contains("https://host:4317"), "{wrong}");
        }
    }

    #[test]
    fn a_file_without_an_authority_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, absent) = (folder.path().join("empty.crt"), folder.path().join("absent.crt"));
        std::fs::write(&empty, "no certificate").unwrap();
        for wrong in [empty, absent] {
            let refused = secure_channel("https://collector:4317", Some(&wrong)).unwrap_err().to_string();
            assert!(refused.contains(AUTHORITY) && refused.contains(wrong.to_str().unwrap()), "{refused}");
        }
    }
}
