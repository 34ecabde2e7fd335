//! The flags by which a driver shows its metrics.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::error::{Error, Result};
use crate::telemetry::serve::{MetricsServer, routes};
use crate::telemetry::text::Published;

#[derive(Debug, Clone, Args)]
pub(super) struct MetricsArgs {
    /// Serve /metrics (Prometheus' text), /healthz and /readyz on this port while the command runs; off without it.
    #[arg(long, env = "BALER_METRICS_PORT")]
    metrics_port: Option<u16>,
    /// Where that port listens. Nothing listens beyond this machine unless asked to.
    #[arg(long, env = "BALER_METRICS_BIND_HOST", default_value = "127.0.0.1")]
    metrics_bind_host: String,
    /// Stay for at most so many seconds after the end, until the last figures were scraped once. Without it what came since the last
    /// scrape is never seen.
    #[arg(long, env = "BALER_METRICS_LINGER_SECONDS", default_value_t = 0)]
    metrics_linger_seconds: u64,
}

impl MetricsArgs {
    /// Serves what is `published`, if it was asked for.
    ///
    /// # Errors
    /// Config, for an address that is none; Unreachable, when the port cannot be had.
    pub(super) async fn serve(&self, published: &Published) -> Result<Option<MetricsServer>> {
        let Some(port) = self.metrics_port else { return Ok(None) };
        let address = format!("{}:{port}", self.metrics_bind_host);
        let address: SocketAddr =
            address.parse().map_err(|e| Error::config(format!("--metrics-bind-host: cannot bind to {address}")).with_source(e))?;
        MetricsServer::start(address, |scrapes| routes(published.clone(), scrapes, || true, "")).await.map(Some)
    }

    /// Ends the service.
    pub(super) async fn finish(&self, server: Option<MetricsServer>) {
        if let Some(server) = server {
            server.finish(Duration::from_secs(self.metrics_linger_seconds)).await;
        }
    }
}
