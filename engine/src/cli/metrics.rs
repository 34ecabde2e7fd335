//! The flags by which a command shows its metrics, and a driver its dashboard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use datafusion::prelude::SessionContext;
use tokio::sync::watch;

use super::tls::TrustArgs;
use crate::error::{Error, Result};
use crate::job::JobRef;
use crate::session::SessionParts;
use crate::store::full_url;
use crate::telemetry::host::{local_folder, publish_certificates, publish_disks};
use crate::telemetry::log::say;
use crate::telemetry::serve::{MetricsServer, routes};
use crate::telemetry::text::Published;
use crate::web;
use crate::web::OneProcess;
use crate::web::board::Board;

#[derive(Debug, Clone, Args)]
pub(super) struct MetricsArgs {
    /// Serve /metrics (Prometheus' text), /healthz and /readyz on this port while the command runs; off without it.
    #[arg(long, env = "BALER_METRICS_PORT")]
    metrics_port: Option<u16>,
    /// Where that port and the dashboard's listen. Nothing listens beyond this machine unless asked to, and then with TLS.
    #[arg(long, env = "BALER_METRICS_BIND_HOST", default_value = "127.0.0.1")]
    metrics_bind_host: String,
    /// Stay for at most so many seconds after the end, until the last figures were scraped once. Without it what came since the last
    /// scrape is never seen.
    #[arg(long, env = "BALER_METRICS_LINGER_SECONDS", default_value_t = 0)]
    metrics_linger_seconds: u64,
    #[command(flatten)]
    trust: TrustArgs,
}

#[derive(Debug, Clone, Args)]
pub(super) struct DashboardArgs {
    /// Serve the dashboard on this port of the same host while the command runs in one process; off without it.
    #[arg(long, env = "BALER_DASHBOARD", value_name = "PORT")]
    dashboard: Option<u16>,
}

/// The dashboard of one process; ends when it is dropped.
pub(super) struct Dashboard {
    served: Option<MetricsServer>,
    stopped: watch::Receiver<bool>,
}

impl Dashboard {
    /// Returns when somebody cancels the job on the page, and the page was answered.
    pub(super) async fn cancelled(&mut self) {
        if self.stopped.wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending::<()>().await;
        }
        if let Some(served) = self.served.take() {
            served.finish(Duration::ZERO).await;
        }
    }
}

impl DashboardArgs {
    /// Serves the dashboard of job or query `name`, which this process runs, where `metrics` are served; also /metrics. What is returned becomes
    /// `true` when somebody cancels it there; without a dashboard it never does.
    ///
    /// # Errors
    /// As [`MetricsArgs::serve`]; Config, on a fleet, whose scheduler serves one already.
    pub(super) async fn serve(
        &self,
        metrics: &MetricsArgs,
        job: &JobRef,
        context: &SessionContext,
        published: &Published,
        parts: &SessionParts,
        on_fleet: bool,
    ) -> Result<Dashboard> {
        let (workers, stopped) = OneProcess::new(&job.name, context.copied_config());
        let Some(port) = self.dashboard else { return Ok(Dashboard { served: None, stopped }) };
        if on_fleet {
            return Err(Error::config("--dashboard shows what this process does; on a fleet open the scheduler's address in a browser"));
        }
        let board = Arc::new(Board::new(context.runtime_env(), &job.state, Arc::new(workers))?);
        let trust = metrics.trust.of_client(parts, &metrics.metrics_bind_host)?;
        let served = MetricsServer::start(metrics.address(port)?, &trust, |scrapes| {
            routes(published.clone(), scrapes, || true, "").merge(web::routes(board, &[]))
        });
        let served = served.await?;
        let scheme = if trust.tls.is_some() { "https" } else { "http" };
        say(&format!("dashboard: {scheme}://{}:{port}/", metrics.metrics_bind_host));
        Ok(Dashboard { served: Some(served), stopped })
    }

    /// Whether a dashboard was asked for.
    pub(super) fn is_wanted(&self) -> bool {
        self.dashboard.is_some()
    }
}

impl MetricsArgs {
    fn address(&self, port: u16) -> Result<SocketAddr> {
        let address = format!("{}:{port}", self.metrics_bind_host);
        address.parse().map_err(|e| Error::config(format!("--metrics-bind-host: cannot bind to {address}")).with_source(e))
    }

    /// Serves what is `published`, if it was asked for; among it the disks of the state folder `state`, if the command has one, and of spilled data,
    /// where they are local.
    ///
    /// # Errors
    /// Config, for an address that is none, and one which others reach without TLS; Unreachable, when the port cannot be had.
    pub(super) async fn serve(&self, published: &Published, state: Option<&str>, parts: &SessionParts) -> Result<Option<MetricsServer>> {
        let mut places = vec![("scratch", std::env::temp_dir())];
        if let Some(state) = state {
            places.extend(local_folder(&full_url(state)?).map(|folder| ("state", folder)));
        }
        publish_disks(published, places);
        publish_certificates(published);
        let Some(port) = self.metrics_port else { return Ok(None) };
        let trust = self.trust.of_client(parts, &self.metrics_bind_host)?;
        MetricsServer::start(self.address(port)?, &trust, |scrapes| routes(published.clone(), scrapes, || true, "")).await.map(Some)
    }

    /// Ends the service.
    pub(super) async fn finish(&self, server: Option<MetricsServer>) {
        if let Some(server) = server {
            server.finish(Duration::from_secs(self.metrics_linger_seconds)).await;
        }
    }
}
