//! The executor's process: Ballista's executor, which leaves in good order and comes back by itself.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};

use super::client::{Caller, same_version};
use super::engine::TaskEngine;
use super::secure::secure_ports;
use super::stop::running_tasks;
use super::{ballista_error, executor_agent};
use crate::codec::{LogicalCodec, PhysicalCodec};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{self, cpu_threads, stop_signal};
use crate::session::{Place, SessionParts, runtime_env};
use crate::telemetry::host::{publish_certificates, publish_disks};
use crate::telemetry::serve::{MetricsServer, routes};
use crate::telemetry::text::Published;
use crate::trust::Trust;

/// Pause before an executor which lost its scheduler starts again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Settings of an executor's process besides Ballista's.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    pub health: SocketAddr,
    /// How long SIGTERM waits for splits under way, in whole: shorter than what Kubernetes grants (30 s).
    pub drain: Duration,
    /// Who may come in.
    pub trust: Trust,
}

/// Runs an executor until SIGTERM or SIGINT. It then takes no more tasks, finishes the splits under way, hands its other splits
/// back, and leaves within [`ExecutorOptions::drain`]. An executor whose scheduler is away starts anew, as a fresh process image under the same id
/// of the process, until it is back.
///
/// # Errors
/// Config, for settings which are not valid or a scheduler of another version; Unreachable, when a port cannot be had.
pub async fn serve(mut config: ExecutorProcessConfig, parts: SessionParts, options: ExecutorOptions) -> Result<()> {
    if config.vcores == 0 {
        // One task more than cores: while one waits for its sink, the others keep the compression pool full.
        config.vcores = cpu_threads() + 1;
    }
    let scratch = match &config.work_dir {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir().join(format!("baler-executor-{}", std::process::id())).to_string_lossy().into_owned(),
    };
    std::fs::create_dir_all(&scratch).map_err(|e| Error::config(format!("cannot make the work folder {scratch}")).with_source(e))?;
    let work_folder = std::path::PathBuf::from(&scratch);
    config.work_dir = Some(scratch.clone());
    let trust = options.trust.clone();
    let _front = match &trust.tls {
        Some(tls) => Some(secure_ports(&mut config, tls, &trust.access).await?),
        None => None,
    };
    let secure = trust.tls.as_ref().map(|tls| tls.endpoint_override());
    let functions = parts.function_registry()?;
    config.override_function_registry = Some(Arc::new(functions));
    config.override_config_producer = Some(Arc::new(move || parts.config(&Place::Server)));
    config.override_runtime_producer = Some(Arc::new(move |_| runtime_env(Some(&scratch))));
    config.override_execution_engine = Some(Arc::new(TaskEngine::new(Duration::from_secs(config.client_ttl))));
    config.override_logical_codec = Some(Arc::new(LogicalCodec::default()));
    config.override_physical_codec = Some(Arc::new(PhysicalCodec::default()));
    // Heartbeats say whose they are and of which version, which Ballista's messages have no place for.
    let agent = executor_agent(&config.executor_id);
    config.override_create_grpc_client_endpoint = Some(Arc::new(move |endpoint| {
        let endpoint = match &secure {
            Some(secure) => secure(endpoint)?,
            None => endpoint,
        };
        // An id which no header can hold stays unnamed.
        Ok(endpoint.clone().user_agent(agent.as_str()).unwrap_or(endpoint))
    }));

    let (health, slots) = (config.health.clone(), config.vcores as f64);
    let published = Published::default();
    published.add(Box::new(move |text| text.gauge("baler_executor_slots", "Tasks which this executor runs at once.", &[], slots)));
    publish_disks(&published, vec![("scratch", work_folder)]);
    publish_certificates(&published);
    published.add(Box::new(|text| {
        text.gauge("baler_executor_running_tasks", "Tasks which this executor runs now.", &[], running_tasks() as f64);
    }));
    let not_ready = "the scheduler has not answered the last heartbeat";
    let _served =
        MetricsServer::start(options.health, &trust, |scrapes| routes(published, scrapes, move || health.is_ready(), not_ready)).await?;
    if run(Arc::new(config), &options).await? { Ok(()) } else { start_anew() }
}

/// `true` when the process was asked to stop; `false` when its scheduler was lost.
async fn run(config: Arc<ExecutorProcessConfig>, options: &ExecutorOptions) -> Result<bool> {
    let scheme = if options.trust.tls.is_some() { "https" } else { "http" };
    let scheduler = format!("{scheme}://{}:{}", config.scheduler_host, config.scheduler_port);
    let caller = Caller::member(options.trust.tls.clone())?;
    let stopped = runtime::spawn_io(stop_signal())?;
    tokio::pin! {
        let stopped = stopped.join();
    }
    loop {
        let answer = tokio::select! {
            answer = same_version(&scheduler, &caller) => answer,
            signal = &mut stopped => return signal?.map(|_| true),
        };
        match answer {
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Unreachable => {
                tracing::warn!(%scheduler, %error, "the scheduler does not answer; trying again");
                tokio::time::sleep(RESTART_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
    let process = start_executor_process(Arc::clone(&config));
    tokio::pin!(process);
    tokio::select! {
        ended = &mut process => {
            match ended {
                Ok(()) => tracing::warn!("the executor lost its scheduler"),
                Err(error) => tracing::warn!(%error, "the executor ended"),
            }
            return Ok(false);
        }
        signal = &mut stopped => tracing::info!(signal = signal??, "leaving"),
    }
    runtime::begin_drain();
    match tokio::time::timeout(options.drain, process).await {
        Ok(ended) => ended.map_err(ballista_error)?,
        Err(_elapsed) => tracing::warn!("splits were still under way at the end of the grace period; other executors repeat them"),
    }
    Ok(true)
}

/// Replaces this process by a new one with the same arguments: Ballista marks a process which ended once as leaving for good.
fn start_anew() -> Result<()> {
    std::thread::sleep(RESTART_PAUSE);
    let program = std::env::current_exe().map_err(|e| Error::internal("cannot find this program to start it anew").with_source(e))?;
    let error = Command::new(program).args(std::env::args_os().skip(1)).exec();
    Err(Error::internal("cannot start the executor anew").with_source(error))
}
