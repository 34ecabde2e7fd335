//! `/metrics`, `/healthz` and `/readyz` of a process.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use super::COUNTERS;
use super::text::{CONTENT_TYPE, Published, Text};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{Spawned, spawn_io};
use crate::trust::Trust;
use crate::trust::guard::guarded;
use crate::trust::serve::serve;

/// The answer to a scrape: the counters of this process, what it publishes, and what the operating system says of it.
pub fn metrics_answer(published: &Published) -> Response {
    let mut text = Text::default();
    COUNTERS.write(&mut text);
    published.write(&mut text);
    match prometheus::TextEncoder::new().encode_to_string(&prometheus::gather()) {
        Ok(process) => text.append(&process),
        Err(error) => tracing::warn!(%error, "the figures of the process cannot be had"),
    }
    (StatusCode::OK, [(header::CONTENT_TYPE, CONTENT_TYPE)], text.into_string()).into_response()
}

/// Counts the scrapes which have begun.
pub type Scrapes = watch::Sender<u64>;

/// Routes of a process which is alive as long as it answers, and ready when `is_ready` says so; else `not_ready` says why it is not.
pub fn routes(
    published: Published,
    scrapes: Scrapes,
    is_ready: impl Fn() -> bool + Clone + Send + Sync + 'static,
    not_ready: &'static str,
) -> Router {
    let ready = async move || {
        if is_ready() {
            (StatusCode::OK, "ready\n".to_string())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {not_ready}\n"))
        }
    };
    let metrics = async move || {
        scrapes.send_modify(|scrapes| *scrapes += 1);
        metrics_answer(&published)
    };
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

/// How long answers under way may take when the service ends.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The service of one process. It ends when it is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    served: Spawned<()>,
    stop: oneshot::Sender<()>,
    scrapes: watch::Receiver<u64>,
}

impl MetricsServer {
    /// Serves routes at `address`, whose port is bound when this returns, to whom `trust` lets in.
    ///
    /// # Errors
    /// Unreachable, when the port cannot be had.
    pub async fn start(address: SocketAddr, trust: &Trust, routes: impl FnOnce(Scrapes) -> Router) -> Result<Self> {
        let failed = |e: std::io::Error| Error::new(ErrorKind::Unreachable, format!("cannot listen on {address}")).with_source(e);
        let listener = spawn_io(TcpListener::bind(address))?.join().await?.map_err(failed)?;
        tracing::info!(%address, "serves metrics and health");
        let ((count, scrapes), (stop, stopped)) = (watch::channel(0), oneshot::channel::<()>());
        let routes = guarded(routes(count), trust);
        let tls = trust.tls.clone();
        let served = spawn_io(async move {
            // A dropped sender ends it as well.
            let stopped = async move { drop(stopped.await) };
            serve(listener, routes, tls, |_: &mut TcpStream| {}, stopped).await;
        })?;
        Ok(Self { served, stop, scrapes })
    }

    /// Ends the service: after one more scrape, or `linger`, and when answers under way are sent.
    pub async fn finish(self, linger: Duration) {
        let Self { served, stop, mut scrapes } = self;
        let before = *scrapes.borrow();
        if let Ok(Err(error)) = tokio::time::timeout(linger, scrapes.wait_for(|scrapes| *scrapes > before)).await {
            tracing::debug!(%error, "metrics were no longer served");
        }
        if stop.send(()).is_ok()
            && let Err(error) = tokio::time::timeout(ANSWER_TIMEOUT, served.join()).await
        {
            tracing::debug!(%error, "an answer was still under way");
        }
    }
}
