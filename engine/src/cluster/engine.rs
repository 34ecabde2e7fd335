//! How an executor makes a task ready to run: Ballista's way, with a plan that stops when the task is cancelled ([`super::stop`]), and
//! each writer in it learns which partitions of the whole plan it writes. Without that a task which is run again could not replace what its first attempt left in a dump.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ballista_core::JobId;
use ballista_core::client::BallistaClient;
use ballista_core::client_pool::{BallistaClientPool, PooledClient};
use ballista_core::error::Result as BallistaResult;
use ballista_core::execution_plans::ShuffleReaderExec;
use ballista_core::extension::BallistaConfigGrpcEndpoint;
use ballista_core::utils::GrpcClientConfig;
use ballista_executor::execution_engine::{DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DataFusionResult;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;

use super::stop::{StoppableStage, make_stoppable};
use crate::connector::part::TaskPartitions;
use crate::connector::write::WriteExec;
use crate::telemetry::trace;

/// Ballista's engine under ours.
pub(super) struct TaskEngine {
    ballista: DefaultExecutionEngine,
}

impl TaskEngine {
    /// An engine which keeps connections to other executors for `idle`; none, if that is zero.
    pub(super) fn new(idle: Duration) -> Self {
        if idle.is_zero() {
            return Self { ballista: DefaultExecutionEngine::new() };
        }
        Self { ballista: DefaultExecutionEngine::with_client_pool(Arc::new(Connections { idle: Arc::default(), idle_max: idle })) }
    }
}

impl ExecutionEngine for TaskEngine {
    fn create_query_stage_exec(
        &self,
        job_id: JobId,
        stage_id: usize,
        task_id: usize,
        partitions: Vec<usize>,
        plan: Arc<dyn ExecutionPlan>,
        work_dir: &str,
        config: &SessionConfig,
    ) -> DataFusionResult<Arc<dyn QueryStageExecutor>> {
        let (mut reads_shuffles, mut parent) = (false, None);
        let plan = plan.transform_up(|node| {
            reads_shuffles |= node.is::<ShuffleReaderExec>();
            Ok(match node.downcast_ref::<WriteExec>() {
                Some(write) => {
                    parent = write.job().and_then(|job| job.trace.clone());
                    let task = TaskPartitions { run: job_id.to_string(), partitions: partitions.clone() };
                    Transformed::yes(Arc::new(write.in_task(task)?) as Arc<dyn ExecutionPlan>)
                }
                None => Transformed::no(node),
            })
        })?;
        let span = tracing::info_span!("task", ballista_job = %job_id, stage = stage_id, task = task_id);
        trace::continue_from(&span, parent.as_deref());
        let (plan, alive) = make_stoppable(plan.data, &span)?;
        let input = plan.children().first().copied().map(Arc::clone);
        let stage = self.ballista.create_query_stage_exec(job_id, stage_id, task_id, partitions, plan, work_dir, config)?;
        Ok(Arc::new(StoppableStage::new(stage, input, reads_shuffles, alive)))
    }
}

/// Connections to other executors which nobody uses now. Ballista's own pool cannot be had with an engine of ours.
struct Connections {
    idle: Arc<Mutex<HashMap<Peer, Vec<Idle>>>>,
    idle_max: Duration,
}

/// Host, port and settings.
type Peer = (String, u16, GrpcClientConfig);

struct Idle {
    client: BallistaClient,
    since: Instant,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("idle_max", &self.idle_max).finish_non_exhaustive()
    }
}

impl Connections {
    /// A connection to `peer`, if one is left.
    fn take(&self, peer: &Peer) -> Option<BallistaClient> {
        self.close_old();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.get_mut(peer)?.pop().map(|idle| idle.client)
    }

    /// Closes what has been idle for too long.
    fn close_old(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, clients| {
            clients.retain(|client| client.since.elapsed() < self.idle_max);
            !clients.is_empty()
        });
    }
}

#[async_trait]
impl BallistaClientPool for Connections {
    async fn acquire(
        &self,
        host: &str,
        port: u16,
        config: &GrpcClientConfig,
        customize: Option<Arc<BallistaConfigGrpcEndpoint>>,
    ) -> BallistaResult<PooledClient> {
        let peer = (host.to_string(), port, config.clone());
        let client = match self.take(&peer) {
            Some(client) => client,
            None => {
                let windows = (config.initial_connection_window_size, config.initial_stream_window_size);
                let (retries, pause) = (config.io_retries_times, config.io_retry_wait_time_ms);
                BallistaClient::try_new(
                    host,
                    port,
                    config.max_message_size,
                    config.use_tls,
                    customize,
                    retries,
                    pause,
                    windows.0,
                    windows.1,
                )
                .await?
            }
        };
        let idle = Arc::clone(&self.idle);
        let give_back = move |client| {
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.entry(peer).or_default().push(Idle { client, since: Instant::now() });
        };
        Ok(PooledClient::new(client, Box::new(give_back)))
    }

    async fn evict_idle(&self) {
        self.close_old();
    }
}
