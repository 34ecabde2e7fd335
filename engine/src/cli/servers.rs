//! `baler scheduler` and `baler executor`: Ballista's flags under their own names, and a few of ours.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ballista_executor::config::Config as BallistaExecutorFlags;
use ballista_executor::executor_process::ExecutorProcessConfig;
use ballista_scheduler::config::{Config as BallistaSchedulerFlags, SchedulerConfig};
use clap::Args;

use super::tls::TrustArgs;
use crate::cluster::{ballista_error, executor, scheduler};
use crate::error::{Error, Result};
use crate::runtime::{server, stop_signal};
use crate::session::SessionParts;
use crate::store::full_url;
use crate::telemetry::host::local_folder;
use crate::trust::limit::REQUESTS_PER_SECOND;
use crate::trust::reach::Reach;
use crate::trust::{Trust, is_loopback};

/// What those may do who came in.
#[derive(Debug, Args)]
pub(super) struct BoundArgs {
    /// Folders whose files tables may read and write, divided by commas, with all that is below them. Without it tables may name every file of a
    /// server which only its own machine reaches, and none of another. Give scheduler and executors the same.
    #[arg(long, value_name = "FOLDERS", value_delimiter = ',')]
    allow_files: Vec<PathBuf>,
    /// Hosts which tables may name, divided by commas: host, host:port, *.domain, or s3://bucket. Without it tables may name all but the metadata
    /// services of clouds, which are always refused. Give scheduler and executors the same.
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    allow_hosts: Vec<String>,
    /// Requests of one caller in a second, on average. Five times as many may come at once; others are answered by 429 or RESOURCE_EXHAUSTED.
    /// A caller is whoever a token or certificate names, else an address. What executors send is not counted.
    #[arg(long, value_name = "REQUESTS", default_value_t = REQUESTS_PER_SECOND, value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_second: u32,
}

impl BoundArgs {
    /// `trust` with these bounds, which tables know from here on; `is_local` if only this machine reaches the server.
    fn bind(&self, mut trust: Trust, is_local: bool, own: Option<&Path>) -> Result<Trust> {
        trust.requests_per_second = self.requests_per_second;
        let reach = Reach::of_server(&self.allow_files, &self.allow_hosts, is_local)?;
        own.map_or(reach.clone(), |own| reach.with_own(own)).install()?;
        Ok(trust)
    }
}

#[derive(Debug, Args)]
pub(super) struct SchedulerArgs {
    /// A file of CREATE EXTERNAL TABLE and CREATE VIEW statements; every session knows these tables.
    #[arg(long)]
    tables: Option<PathBuf>,
    /// Folder or bucket with the state of all jobs, whose history the dashboard shows.
    #[arg(long, default_value = "./baler-state")]
    state: String,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    bounds: BoundArgs,
    #[command(flatten)]
    ballista: BallistaSchedulerFlags,
}

pub(super) async fn run_scheduler(args: SchedulerArgs, parts: &SessionParts) -> Result<ExitCode> {
    let tables = match &args.tables {
        Some(file) => std::fs::read_to_string(file).map_err(|e| Error::config(format!("cannot read {}: {e}", file.display())))?,
        None => String::new(),
    };
    let host = &args.ballista.bind_host;
    // The dashboard reads the scheduler's own folder.
    let own = full_url(&args.state).ok().and_then(|url| local_folder(&url));
    let trust = args.bounds.bind(args.trust.of_server(parts, host)?, is_loopback(host), own.as_deref())?;
    let config = SchedulerConfig::try_from(args.ballista).map_err(ballista_error)?;
    let (parts, state) = (parts.clone(), args.state);
    let served = server()?.spawn(async move { scheduler::serve(config, parts, tables, &state, trust).await });
    tokio::select! {
        ended = served => ended.map_err(|e| Error::internal("the scheduler ended early").with_source(e))?.map(|()| ExitCode::SUCCESS),
        signal = stop_signal() => {
            eprintln!("stopped by {}; running tasks go on at their executors, drivers come back by themselves", signal?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ExecutorArgs {
    /// Seconds which SIGTERM waits for splits under way. Shorter than what Kubernetes grants, which is 30.
    #[arg(long, default_value = "25")]
    drain_seconds: u64,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    bounds: BoundArgs,
    #[command(flatten)]
    ballista: BallistaExecutorFlags,
}

pub(super) async fn run_executor(args: ExecutorArgs, parts: &SessionParts) -> Result<ExitCode> {
    let health = format!("{}:{}", args.ballista.bind_host, args.ballista.bind_health_port);
    let health = health.parse().map_err(|e| Error::config(format!("cannot serve health at {health}")).with_source(e))?;
    // Tasks come from the scheduler, so whoever reaches that one reaches this.
    let (host, scheduler) = (&args.ballista.bind_host, &args.ballista.scheduler_host);
    let is_local = is_loopback(host) && (scheduler == "localhost" || is_loopback(scheduler));
    let trust = args.bounds.bind(args.trust.of_server(parts, host)?, is_local, None)?;
    let options = executor::ExecutorOptions { health, drain: Duration::from_secs(args.drain_seconds), trust };
    let config = ExecutorProcessConfig::try_from(args.ballista).map_err(ballista_error)?;
    let served = server()?.spawn(executor::serve(config, parts.clone(), options));
    served.await.map_err(|e| Error::internal("the executor ended early").with_source(e))?.map(|()| ExitCode::SUCCESS)
}
