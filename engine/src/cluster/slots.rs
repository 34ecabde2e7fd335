//! Free slots of the executors, counted from what runs.
//!
//! Ballista keeps a number for each executor: less when tasks are bound, more when they report their end. A stage which is rolled
//! back, because a shuffle under it was lost with its executor, forgets its tasks; what these report then gives no slot back
//! (`sum_vcores_for_statuses`, Ballista 55). The slots of the survivors are lost for good: two such tasks on an executor with two
//! slots, and it never gets another task; were they the last ones, the job hangs. So nothing is kept here between two
//! decisions: what is free is what an executor has, less what the stages of running jobs say is running on it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::JobId;
use ballista_core::error::Result;
use ballista_core::extension::SessionConfigExt;
use ballista_core::serde::protobuf::{ExecutorHeartbeat, RunningTask, task_status};
use ballista_core::serde::scheduler::{ExecutorData, ExecutorMetadata};
use ballista_scheduler::cluster::memory::InMemoryClusterState;
use ballista_scheduler::cluster::{BoundTask, ClusterState, ClusterStateEventStream, ExecutorSlot};
use ballista_scheduler::config::TaskDistributionPolicy;
use ballista_scheduler::state::execution_stage::ExecutionStage;
use ballista_scheduler::state::task_manager::JobInfoCache;
use tokio::sync::Mutex;

use super::kept::KeepingGraph;

/// Slots of one executor.
#[derive(Debug)]
struct Slots {
    all: u32,
    /// What Ballista's state below believes to be free.
    believed_free: u32,
}

/// Ballista's state in memory, whose count of free slots is put right before each decision.
#[derive(Default)]
pub(super) struct CountedSlots {
    ballista: InMemoryClusterState,
    executors: Mutex<HashMap<String, Slots>>,
    /// Jobs which keep what their stages delivered.
    keeping: Mutex<HashSet<JobId>>,
}

impl CountedSlots {
    /// Puts a [`KeepingGraph`] in front of the graph of each new job, before its first task is given out.
    async fn keep_outputs(&self, jobs: &HashMap<JobId, JobInfoCache>) {
        let mut keeping = self.keeping.lock().await;
        keeping.retain(|job| jobs.contains_key(job));
        for (id, job) in jobs {
            if keeping.insert(id.clone()) {
                let mut graph = job.execution_graph.write().await;
                // Adaptive graphs, for those who ask for them, make their stages as they go: they are left as they are.
                if graph.session_config().ballista_config().adaptive_query_planner_enabled() {
                    continue;
                }
                *graph = Box::new(KeepingGraph::new(graph.cloned()));
            }
        }
    }
}

/// Slots in use, by executor.
pub(super) async fn used_slots(jobs: &HashMap<JobId, JobInfoCache>) -> HashMap<String, u32> {
    let mut used = HashMap::new();
    for job in jobs.values() {
        let graph = job.execution_graph.read().await;
        for stage in graph.stages().values() {
            let ExecutionStage::Running(stage) = stage else { continue };
            for task in &stage.task_infos {
                if let task_status::Status::Running(RunningTask { executor_id }) = &task.task_status {
                    *used.entry(executor_id.clone()).or_default() += task.vcores_consumed;
                }
            }
        }
    }
    used
}

#[async_trait]
impl ClusterState for CountedSlots {
    async fn init(&self) -> Result<()> {
        self.ballista.init().await
    }

    async fn bind_schedulable_tasks(
        &self,
        distribution: TaskDistributionPolicy,
        active_jobs: Arc<HashMap<JobId, JobInfoCache>>,
        executors: Option<HashSet<String>>,
    ) -> Result<Vec<BoundTask>> {
        self.keep_outputs(&active_jobs).await;
        let mut slots = self.executors.lock().await;
        let used = used_slots(&active_jobs).await;
        let mut freed = Vec::new();
        for (executor, slots) in slots.iter_mut() {
            let free = slots.all.saturating_sub(used.get(executor).copied().unwrap_or_default());
            if free > slots.believed_free {
                freed.push((executor.clone(), free - slots.believed_free));
                slots.believed_free = free;
            }
        }
        self.ballista.unbind_tasks(freed).await?;
        let bound = self.ballista.bind_schedulable_tasks(distribution, active_jobs, executors).await?;
        for (executor, task) in &bound {
            if let Some(slots) = slots.get_mut(executor) {
                slots.believed_free = slots.believed_free.saturating_sub(task.vcores_consumed);
            }
        }
        Ok(bound)
    }

    /// Nothing: each decision counts anew.
    async fn unbind_tasks(&self, _slots: Vec<ExecutorSlot>) -> Result<()> {
        Ok(())
    }

    async fn register_executor(&self, metadata: ExecutorMetadata, data: ExecutorData) -> Result<()> {
        let (id, slots) = (metadata.id.clone(), Slots { all: data.available_vcores, believed_free: data.available_vcores });
        let mut executors = self.executors.lock().await;
        self.ballista.register_executor(metadata, data).await?;
        executors.insert(id, slots);
        Ok(())
    }

    async fn save_executor_metadata(&self, metadata: ExecutorMetadata) -> Result<()> {
        self.ballista.save_executor_metadata(metadata).await
    }

    async fn get_executor_metadata(&self, executor_id: &str) -> Result<ExecutorMetadata> {
        self.ballista.get_executor_metadata(executor_id).await
    }

    async fn registered_executor_metadata(&self) -> Vec<ExecutorMetadata> {
        self.ballista.registered_executor_metadata().await
    }

    async fn save_executor_heartbeat(&self, heartbeat: ExecutorHeartbeat) -> Result<()> {
        self.ballista.save_executor_heartbeat(heartbeat).await
    }

    async fn remove_executor(&self, executor_id: &str) -> Result<()> {
        let mut executors = self.executors.lock().await;
        executors.remove(executor_id);
        self.ballista.remove_executor(executor_id).await
    }

    fn executor_heartbeats(&self) -> HashMap<String, ExecutorHeartbeat> {
        self.ballista.executor_heartbeats()
    }

    fn get_executor_heartbeat(&self, executor_id: &str) -> Option<ExecutorHeartbeat> {
        self.ballista.get_executor_heartbeat(executor_id)
    }

    async fn cluster_state_events(&self) -> Result<ClusterStateEventStream> {
        self.ballista.cluster_state_events().await
    }
}
