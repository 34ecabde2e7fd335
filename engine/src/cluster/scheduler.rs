//! The scheduler's process: Ballista's services and ours on one port.
//!
//! Ballista starts its server by itself only without our routes and without a place for a check of who calls, so the router is
//! put together here from its public parts. All of it is behind one layer: gRPC, REST and Flight alike.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arrow_flight::flight_service_server::FlightServiceServer;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ballista_core::extension::BallistaConfigGrpcEndpoint;
use ballista_core::flight_proxy_service::BallistaFlightProxyService;
use ballista_core::serde::protobuf::executor_metric::Metric;
use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpcServer;
use ballista_scheduler::api::get_routes;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::create_scheduler;
use ballista_scheduler::scheduler_server::SchedulerServer;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SessionState;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tonic::service::RoutesBuilder;

use super::flight_sql::FlightSql;
use super::slots::{CountedSlots, used_slots};
use super::workers::FleetWorkers;
use super::{ExecutorInfo, FleetInfo, VERSION_HEADER, ballista_error, read_agent};
use crate::codec::{LogicalCodec, PhysicalCodec, version_error};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Place, SessionParts};
use crate::statement;
use crate::telemetry::host::{local_folder, publish_certificates, publish_disks};
use crate::telemetry::serve::metrics_answer;
use crate::telemetry::text::Published;
use crate::trust::guard::{guarded, is_grpc};
use crate::trust::{self, Trust};
use crate::web;
use crate::web::board::Board;

/// Ballista's scheduler, over DataFusion's plan format.
pub(crate) type Scheduler = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;

/// How long a port which is still held by a killed scheduler is waited for.
const BIND_PATIENCE: Duration = Duration::from_secs(15);

/// A connection without traffic for this long is probed; after nine probes (Linux) without an answer it is closed: two minutes.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);
const PROBE_PAUSE: Duration = Duration::from_secs(10);

/// Runs a scheduler until the process ends. `tables` are DDL statements whose tables every session knows; `state` is the URL of the folder
/// whose jobs the dashboard shows; `trust` says who may come in.
///
/// # Errors
/// Config, for settings or tables which are not valid; Unreachable, when the port cannot be had.
pub async fn serve(mut config: SchedulerConfig, parts: SessionParts, tables: String, state: &str, trust: Trust) -> Result<()> {
    config.validate().map_err(ballista_error)?;
    if config.web_tui_route == "/" {
        return Err(Error::config("--web-tui-route / is where the dashboard is; take another path for Ballista's own page"));
    }
    let env = parts.local()?.runtime_env();
    let address: SocketAddr = format!("{}:{}", config.bind_host, config.bind_port)
        .parse()
        .map_err(|e| Error::config(format!("cannot bind to {}:{}", config.bind_host, config.bind_port)).with_source(e))?;
    // Executors come back to this name with what their tasks did. Ballista's default reaches the scheduler from its own machine alone.
    if config.external_host == "localhost" && !address.ip().is_unspecified() {
        config.external_host.clone_from(&config.bind_host);
    }
    let shared = Arc::new(SharedTables::define(&parts, &tables).await?);
    let session = parts.config(&Place::Server);
    let (for_config, for_state) = (parts.clone(), parts);
    config.override_config_producer = Some(Arc::new(move || for_config.config(&Place::Server)));
    config.override_session_builder = Some(Arc::new(move |config| shared.session_state(&for_state, config)));
    config.override_logical_codec = Some(Arc::new(LogicalCodec::default()));
    config.override_physical_codec = Some(Arc::new(PhysicalCodec::default()));
    config.use_tls = trust.tls.is_some();
    config.override_create_grpc_client_endpoint = trust.tls.as_ref().map(|tls| tls.endpoint_override());
    let config = Arc::new(config);

    let listener = bind(address).await?;
    let cluster = BallistaCluster::new_from_config(&config).await.map_err(ballista_error)?;
    let jobs = cluster.job_state();
    let cluster = BallistaCluster::new(Arc::new(CountedSlots::default()), Arc::clone(&jobs));
    let scheduler: Scheduler = create_scheduler(cluster, Arc::clone(&config)).await.map_err(ballista_error)?;
    let scheduler = Arc::new(scheduler);
    let versions = Arc::new(Versions::default());
    let workers = FleetWorkers::new(Arc::clone(&scheduler), Arc::clone(&config), Arc::clone(&versions), session, jobs);
    let board = Arc::new(Board::new(env, state, Arc::new(workers))?);
    let router = guarded(router(scheduler, &config, tables, versions, board), &trust);
    tracing::info!(%address, version = crate::VERSION, tls = config.use_tls, "scheduler listens");
    let forever = std::future::pending();
    trust::serve::serve(listener, router, trust.tls, tune, forever).await;
    Ok(())
}

/// Binds a port, with patience for one which is still held.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    let begun = std::time::Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && begun.elapsed() < BIND_PATIENCE => {
                tracing::warn!(%address, "the port is in use; trying again");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(Error::new(ErrorKind::Unreachable, format!("cannot listen on {address}")).with_source(error)),
        }
    }
}

/// Small answers leave at once, and a client whose machine went away without a word is noticed, so that its statement's job is
/// cancelled like that of one which said goodbye.
pub(super) fn tune(stream: &mut TcpStream) {
    let keep_alive = TcpKeepalive::new().with_time(SILENCE_MAX).with_interval(PROBE_PAUSE);
    let tuned = stream.set_nodelay(true).and_then(|()| SockRef::from(&*stream).set_tcp_keepalive(&keep_alive));
    if let Err(error) = tuned {
        tracing::warn!(%error, "a connection keeps the operating system's settings");
    }
}

/// Tables which every session of the scheduler knows from its start.
struct SharedTables(Vec<(String, Arc<dyn TableProvider>)>);

impl SharedTables {
    /// Runs DDL statements once.
    async fn define(parts: &SessionParts, statements: &str) -> Result<Self> {
        let context = SessionContext::new_with_state(parts.state(&Place::Server, parts.config(&Place::Server))?);
        statement::define_tables(&context, statements).await?;
        let mut tables = Vec::new();
        let schema = context.catalog("datafusion").and_then(|catalog| catalog.schema("public"));
        for name in schema.iter().flat_map(|schema| schema.table_names()) {
            let table = context.table_provider(TableReference::bare(name.clone())).await?;
            tables.push((name, table));
        }
        Ok(Self(tables))
    }

    fn session_state(&self, parts: &SessionParts, config: SessionConfig) -> DataFusionResult<SessionState> {
        let state = parts.state(&Place::Server, config)?;
        let context = SessionContext::new_with_state(state);
        for (name, table) in &self.0 {
            context.register_table(TableReference::bare(name.clone()), Arc::clone(table))?;
        }
        Ok(context.state())
    }
}

/// gRPC, Flight SQL, REST, health and ours.
fn router(scheduler: Arc<Scheduler>, config: &SchedulerConfig, tables: String, versions: Arc<Versions>, board: Arc<Board>) -> Router {
    let (decoding, encoding) =
        (config.grpc_server_max_decoding_message_size as usize, config.grpc_server_max_encoding_message_size as usize);
    let endpoint = config.override_create_grpc_client_endpoint.clone().map(|change| Arc::new(BallistaConfigGrpcEndpoint::new(change)));
    let proxy = BallistaFlightProxyService::new(decoding, encoding, config.use_tls, endpoint);
    let mut services = RoutesBuilder::default();
    services.add_service(
        SchedulerGrpcServer::new(Scheduler::clone(&scheduler)).max_decoding_message_size(decoding).max_encoding_message_size(encoding),
    );
    let flight = FlightSql::new(Arc::clone(&scheduler), proxy);
    services.add_service(FlightServiceServer::new(flight).max_decoding_message_size(decoding).max_encoding_message_size(encoding));
    let published = Published::default();
    publish_disks(&published, local_folder(board.state()).map(|folder| ("state", folder)).into_iter().collect());
    publish_certificates(&published);
    let (executor_timeout_seconds, guard) = (config.executor_timeout_seconds, Arc::clone(&versions));
    let served = Served { scheduler: Arc::clone(&scheduler), executor_timeout_seconds, tables, versions, published };
    let ours = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/baler", get(fleet_info))
        .with_state(Arc::new(served));
    let origins = config.cors_allowed_origins.split(',').map(str::trim).filter(|origin| !origin.is_empty()).map(String::from);
    let pages = web::routes(board, &origins.collect::<Vec<_>>());
    let all = get_routes(scheduler).merge(services.routes().into_axum_router()).merge(ours).merge(pages);
    all.fallback(unknown).layer(from_fn_with_state(guard, check_caller))
}

/// There is nothing at this path. gRPC has an answer of its own for a method which nobody knows, whose HTTP status is 200.
async fn unknown(request: Request) -> Response {
    if is_grpc(request.headers()) {
        tonic::Status::unimplemented("").into_http()
    } else {
        (StatusCode::NOT_FOUND, "there is nothing here\n").into_response()
    }
}

/// What our own routes answer from.
struct Served {
    scheduler: Arc<Scheduler>,
    executor_timeout_seconds: u64,
    tables: String,
    versions: Arc<Versions>,
    /// Disks and certificates.
    published: Published,
}

/// Versions of executors by their ids, as their calls say.
#[derive(Debug, Default)]
pub(super) struct Versions(Mutex<HashMap<String, String>>);

/// Executors whose versions are known. More than a fleet has: ids of those which are gone are forgotten.
pub(crate) const VERSIONS_MAX: usize = 20_000;

impl Versions {
    fn note(&self, headers: &HeaderMap) {
        let Some((id, version)) = headers.get(USER_AGENT).and_then(|agent| read_agent(agent.to_str().ok()?)) else { return };
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if versions.get(id).is_some_and(|known| known == version) {
            return;
        }
        if versions.len() >= VERSIONS_MAX {
            versions.clear();
        }
        versions.insert(id.to_string(), version.to_string());
    }

    fn of(&self, id: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

/// Executors whose heartbeat is fresh, by id.
pub(super) async fn fresh_executors(scheduler: &Scheduler, timeout_seconds: u64, versions: &Versions) -> Result<Vec<ExecutorInfo>> {
    let state = scheduler.state.executor_manager.get_executors_state().await.map_err(ballista_error)?;
    let used = used_slots(&scheduler.state.task_manager.get_running_job_cache()).await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let executors = state.into_iter().map(|(executor, heartbeat, metrics)| {
        let memory = |wanted: fn(&Metric) -> Option<u64>| {
            metrics.iter().filter_map(|metric| wanted(metric.metric.as_ref()?)).find(|bytes| *bytes > 0)
        };
        ExecutorInfo {
            slots_used: used.get(&executor.id).map_or(0, |slots| *slots as usize),
            memory_bytes: memory(|metric| if let Metric::ProcPhysicalMemory(bytes) = metric { Some(*bytes) } else { None }),
            memory_peak_bytes: memory(|metric| if let Metric::PeakPhysicalMemory(bytes) = metric { Some(*bytes) } else { None }),
            version: versions.of(&executor.id),
            id: executor.id,
            host: executor.host,
            port: executor.port,
            slots: executor.specification.vcores as usize,
            heartbeat_age_seconds: now.saturating_sub(heartbeat.unwrap_or_default()).as_secs(),
        }
    });
    let mut executors: Vec<_> = executors.filter(|executor| executor.heartbeat_age_seconds <= timeout_seconds).collect();
    executors.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(executors)
}

async fn ready(State(served): State<Arc<Served>>) -> Response {
    if served.scheduler.is_ready() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: no executor has registered\n").into_response()
    }
}

/// Ballista's families and ours, with tasks and slots as they are now.
async fn metrics(State(served): State<Arc<Served>>) -> Response {
    let jobs = served.scheduler.state.task_manager.get_running_job_cache();
    let (mut pending, mut running) = (0, 0);
    for job in jobs.values() {
        let graph = job.execution_graph.read().await;
        pending += graph.available_tasks();
        running += graph.running_tasks().len();
    }
    let executors = match fresh_executors(&served.scheduler, served.executor_timeout_seconds, &served.versions).await {
        Ok(executors) => executors,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    let slots: usize = executors.iter().map(|executor| executor.slots).sum();
    let gauges = [
        ("baler_tasks_pending", "Tasks which could run and have no slot yet.", pending),
        ("baler_tasks_running", "Tasks which run.", running),
        ("baler_slots", "Tasks which the executors can run at once.", slots),
        ("baler_executors", "Executors whose heartbeat is fresh.", executors.len()),
        ("baler_ballista_jobs", "Ballista jobs which wait or run; a job of `baler run` has some at once.", jobs.len()),
    ];
    let now = Published::default();
    let published = served.published.clone();
    now.add(Box::new(move |text| {
        gauges.iter().for_each(|(name, help, value)| text.gauge(name, help, &[], *value as f64));
        published.write(text);
    }));
    metrics_answer(&now)
}

async fn fleet_info(State(served): State<Arc<Served>>) -> Response {
    let executors = match fresh_executors(&served.scheduler, served.executor_timeout_seconds, &served.versions).await {
        Ok(executors) => executors,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    };
    axum::Json(FleetInfo { version: crate::VERSION.to_string(), executors, tables: served.tables.clone() }).into_response()
}

/// Refuses clients of another version before they send a plan which would be misread, and changes which a page of another origin asks
/// for; notes the versions of executors.
async fn check_caller(State(versions): State<Arc<Versions>>, request: Request, next: Next) -> Response {
    if web::is_cross_site(&request) {
        return (StatusCode::FORBIDDEN, "a page of another origin may change nothing here").into_response();
    }
    versions.note(request.headers());
    match foreign_version(request.headers()) {
        Some(error) => tonic::Status::failed_precondition(format!("{error:?}")).into_http(),
        None => next.run(request).await,
    }
}

fn foreign_version(headers: &HeaderMap) -> Option<Error> {
    let theirs = headers.get(VERSION_HEADER)?.to_str().unwrap_or("of an unreadable version");
    (theirs != crate::VERSION).then(|| version_error(theirs))
}
