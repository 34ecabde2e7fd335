//! What a stage has delivered is delivered once, also when the stage is rolled back.
//!
//! Where an executor is lost with shuffles that a running stage reads, Ballista (55) rolls that stage back and runs all of its
//! partitions again. But what its finished tasks had delivered stays in the list of inputs of the next stage, or of the
//! result: it was then read twice, and a `count(*)` or an INSERT's count came out too high. Ids of tasks began at 0 again, so
//! that files of the first attempt were overwritten while somebody read them. And what a lost executor had delivered to the result
//! stayed in it, beside what came in its stead.
//!
//! Spark keeps a rolled back stage's finished tasks and runs the others. So does this graph: it stands in front of
//! Ballista's and puts the finished tasks back into the new attempt of a stage. As in Spark, a query whose rows fall into
//! partitions in another way each time (a LIMIT without an order, `random()`) can still mix two attempts.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use ballista_core::JobId;
use ballista_core::error::Result;
use ballista_core::serde::protobuf::failed_task::FailedReason;
use ballista_core::serde::protobuf::{FailedTask, JobStatus, ResultLost, RunningTask, SuccessfulTask, TaskKilled, TaskStatus};
use ballista_core::serde::protobuf::{job_status, task_status};
use ballista_core::serde::scheduler::{ExecutorMetadata, PartitionLocation};
use ballista_scheduler::scheduler_server::event::QueryStageSchedulerEvent;
use ballista_scheduler::state::execution_graph::{ExecutionGraph, ExecutionGraphBox, RunningTaskInfo};
use ballista_scheduler::state::execution_stage::{ExecutionStage, PendingPartitions, RunningStage, TaskInfo};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;

use crate::telemetry::COUNTERS;

/// Tasks of a stage, by stage.
type Tasks = HashMap<usize, Vec<TaskInfo>>;

/// Ballista's graph of a job, which forgets no finished task.
pub(super) struct KeepingGraph {
    ballista: ExecutionGraphBox,
    /// Tasks of stages which were rolled back and have not begun again.
    kept: Tasks,
    /// Tasks of the last stage whose results went with their executor.
    lost_results: HashSet<usize>,
}

impl KeepingGraph {
    /// Stands in front of `ballista`, of which no task has begun.
    pub(super) fn new(ballista: ExecutionGraphBox) -> Self {
        Self { ballista, kept: HashMap::new(), lost_results: HashSet::new() }
    }

    /// What a rollback would forget.
    fn tasks(&self) -> Tasks {
        let tasks = self.ballista.stages().iter().filter_map(|(id, stage)| match stage {
            ExecutionStage::Running(stage) => Some((*id, &stage.task_infos)),
            ExecutionStage::Successful(stage) => Some((*id, &stage.task_infos)),
            _ => None,
        });
        tasks.map(|(id, tasks)| (id, tasks.iter().map(without_partitions).collect())).collect()
    }

    /// Keeps those of the tasks `before` whose stage was rolled back.
    fn keep(&mut self, before: Tasks) {
        for (id, tasks) in before {
            let is_rolled_back = match self.ballista.stages().get(&id) {
                Some(ExecutionStage::UnResolved(_) | ExecutionStage::Resolved(_)) => true,
                Some(ExecutionStage::Running(stage)) => stage.task_infos.is_empty(),
                _ => false,
            };
            // A stage may be rolled back again before its kept tasks are put back.
            if is_rolled_back && !tasks.is_empty() {
                self.kept.insert(id, tasks);
            }
        }
    }

    /// Takes out of a finished job's result what went with its executor.
    fn drop_lost_results(&mut self) {
        let mut status = self.ballista.status().clone();
        if let Some(job_status::Status::Successful(job)) = &mut status.status
            && !self.lost_results.is_empty()
        {
            job.partition_location.retain(|location| !self.lost_results.contains(&(location.map_partition_id as usize)));
            self.ballista.update_status(status);
        }
    }

    fn has_failed(&self) -> bool {
        matches!(self.ballista.status().status, Some(job_status::Status::Failed(_)))
    }
}

/// A task without the places of what it delivered, which can be many and are known to those that read them.
fn without_partitions(task: &TaskInfo) -> TaskInfo {
    let task_status = match &task.task_status {
        task_status::Status::Successful(done) => task_status::Status::Successful(SuccessfulTask {
            executor_id: done.executor_id.clone(),
            task_column_stats: done.task_column_stats.clone(),
            ..SuccessfulTask::default()
        }),
        other => other.clone(),
    };
    TaskInfo { task_status, global_input_partition_ids: task.global_input_partition_ids.clone(), ..*task }
}

/// Whether a task failed by itself: not because it was cancelled, or because an executor was lost.
fn is_own_failure(status: &TaskStatus) -> bool {
    let Some(task_status::Status::Failed(failed)) = &status.status else { return false };
    !matches!(
        failed.failed_reason,
        Some(
            FailedReason::TaskKilled(_)
                | FailedReason::ExecutorLost(_)
                | FailedReason::ResultLost(_)
                | FailedReason::FetchPartitionError(_)
        )
    )
}

fn failed(reason: FailedReason) -> task_status::Status {
    let error = "the stage was rolled back".to_string();
    task_status::Status::Failed(FailedTask { error, retryable: true, count_to_failures: false, failed_reason: Some(reason) })
}

/// Marks what `executor` has finished or runs as lost.
fn lose(tasks: &mut [TaskInfo], executor: &str) {
    for task in tasks {
        if let task_status::Status::Successful(SuccessfulTask { executor_id, .. })
        | task_status::Status::Running(RunningTask { executor_id }) = &task.task_status
            && executor_id == executor
        {
            task.task_status = failed(FailedReason::ResultLost(ResultLost {}));
        }
    }
}

/// Puts finished tasks back into a stage that begins again; the others' partitions are to be run.
fn put_back(stage: &mut RunningStage, mut tasks: Vec<TaskInfo>) {
    let mut is_done = vec![false; stage.partitions];
    for task in &mut tasks {
        match &task.task_status {
            task_status::Status::Successful(_) => {
                for &partition in &task.global_input_partition_ids {
                    if let Some(is_done) = is_done.get_mut(partition) {
                        *is_done = true;
                    }
                }
            }
            // Cancelled when the stage was rolled back.
            task_status::Status::Running(_) => task.task_status = failed(FailedReason::TaskKilled(TaskKilled {})),
            task_status::Status::Failed(_) => {}
        }
    }
    stage.pending = PendingPartitions::empty(stage.partitions);
    stage.pending.reschedule(is_done.iter().enumerate().filter(|(_, is_done)| !**is_done).map(|(partition, _)| partition));
    stage.task_infos = tasks;
}

impl fmt::Debug for KeepingGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ballista.fmt(f)
    }
}

impl ExecutionGraph for KeepingGraph {
    fn update_task_status(
        &mut self,
        executor: &ExecutorMetadata,
        statuses: Vec<TaskStatus>,
        max_task_failures: usize,
        max_stage_failures: usize,
    ) -> Result<Vec<QueryStageSchedulerEvent>> {
        COUNTERS.tasks_failed.add(statuses.iter().filter(|status| is_own_failure(status)).count() as u64);
        let is_failure = |status: &TaskStatus| matches!(status.status, Some(task_status::Status::Failed(_)));
        let mut events = Vec::new();
        // Only a task that failed rolls a stage back. Each goes alone, so that what others have delivered is seen before.
        for batch in statuses.chunk_by(|a, b| !is_failure(a) && !is_failure(b)) {
            let before = batch.first().is_some_and(is_failure).then(|| self.tasks());
            events.extend(self.ballista.update_task_status(executor, batch.to_vec(), max_task_failures, max_stage_failures)?);
            if let Some(before) = before {
                self.keep(before);
            }
            if self.has_failed() {
                break;
            }
        }
        self.drop_lost_results();
        Ok(events)
    }

    fn reset_stages_on_lost_executor(&mut self, executor: &str) -> Result<(HashSet<usize>, Vec<RunningTaskInfo>)> {
        let results = self.ballista.output_locations().into_iter().filter(|location| location.executor_meta.id == executor);
        self.lost_results.extend(results.map(|location| location.map_partition_id));
        let mut before = self.tasks();
        for tasks in before.values_mut().chain(self.kept.values_mut()) {
            lose(tasks, executor);
        }
        let reset = self.ballista.reset_stages_on_lost_executor(executor)?;
        self.keep(before);
        Ok(reset)
    }

    fn fetch_running_stage(&mut self, black_list: &[usize]) -> Option<&mut RunningStage> {
        let stage = self.ballista.fetch_running_stage(black_list)?;
        if stage.task_infos.is_empty()
            && let Some(tasks) = self.kept.remove(&stage.stage_id)
        {
            put_back(stage, tasks);
        }
        Some(stage)
    }

    fn output_locations(&self) -> Vec<PartitionLocation> {
        let mut locations = self.ballista.output_locations();
        locations.retain(|location| !self.lost_results.contains(&location.map_partition_id));
        locations
    }

    fn cloned(&self) -> ExecutionGraphBox {
        Box::new(Self { ballista: self.ballista.cloned(), kept: self.kept.clone(), lost_results: self.lost_results.clone() })
    }

    fn succeed_job(&mut self) -> Result<()> {
        self.ballista.succeed_job()?;
        self.drop_lost_results();
        Ok(())
    }

    // All else is Ballista's.

    fn job_id(&self) -> &JobId {
        self.ballista.job_id()
    }

    fn job_name(&self) -> &str {
        self.ballista.job_name()
    }

    fn session_id(&self) -> &str {
        self.ballista.session_id()
    }

    fn scheduler_id(&self) -> Option<&str> {
        self.ballista.scheduler_id()
    }

    fn session_config(&self) -> Arc<SessionConfig> {
        self.ballista.session_config()
    }

    fn status(&self) -> &JobStatus {
        self.ballista.status()
    }

    fn logical_plan(&self) -> Option<&str> {
        self.ballista.logical_plan()
    }

    fn physical_plan(&self) -> Arc<dyn ExecutionPlan> {
        self.ballista.physical_plan()
    }

    fn start_time(&self) -> u64 {
        self.ballista.start_time()
    }

    fn end_time(&self) -> u64 {
        self.ballista.end_time()
    }

    fn completed_stages(&self) -> usize {
        self.ballista.completed_stages()
    }

    fn is_successful(&self) -> bool {
        self.ballista.is_successful()
    }

    fn revive(&mut self) -> bool {
        self.ballista.revive()
    }

    fn running_stages(&self) -> Vec<usize> {
        self.ballista.running_stages()
    }

    fn running_tasks(&self) -> Vec<RunningTaskInfo> {
        self.ballista.running_tasks()
    }

    fn available_tasks(&self) -> usize {
        self.ballista.available_tasks()
    }

    fn update_status(&mut self, status: JobStatus) {
        self.ballista.update_status(status);
    }

    fn resolve_stage(&mut self, stage_id: usize) -> Result<bool> {
        self.ballista.resolve_stage(stage_id)
    }

    fn succeed_stage(&mut self, stage_id: usize) -> bool {
        self.ballista.succeed_stage(stage_id)
    }

    fn fail_stage(&mut self, stage_id: usize, err_msg: String) -> bool {
        self.ballista.fail_stage(stage_id, err_msg)
    }

    fn rollback_running_stage(&mut self, stage_id: usize, failure_reasons: HashSet<String>) -> Result<Vec<RunningTaskInfo>> {
        self.ballista.rollback_running_stage(stage_id, failure_reasons)
    }

    fn rollback_resolved_stage(&mut self, stage_id: usize) -> Result<bool> {
        self.ballista.rollback_resolved_stage(stage_id)
    }

    fn rerun_successful_stage(&mut self, stage_id: usize) -> bool {
        self.ballista.rerun_successful_stage(stage_id)
    }

    fn fail_job(&mut self, error: String) {
        self.ballista.fail_job(error);
    }

    fn stages(&self) -> &HashMap<usize, ExecutionStage> {
        self.ballista.stages()
    }

    fn stage_count(&self) -> usize {
        self.ballista.stage_count()
    }
}

#[cfg(test)]
mod tests;
