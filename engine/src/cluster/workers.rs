//! A scheduler as the dashboard sees it: executors, Ballista jobs, and the splits in running tasks.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::serde::protobuf::{job_status, task_status};
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::state::execution_stage::ExecutionStage;
use datafusion::physical_plan::ExecutionPlan;

use super::scheduler::{Scheduler, fresh_executors};
use super::{ExecutorInfo, ballista_error};
use crate::connector::split::{Split, leaf_rows};
use crate::error::{Error, Result};
use crate::web::board::{Workers, is_part_of};
use crate::web::schema::{Part, Setting};

/// Ballista jobs which are shown: a job of `baler run` has hundreds of waves.
const PARTS_MAX: usize = 200;

/// The scheduler of a fleet.
pub(super) struct FleetWorkers {
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) config: Arc<SchedulerConfig>,
}

#[async_trait]
impl Workers for FleetWorkers {
    fn mode(&self) -> &'static str {
        "fleet"
    }

    async fn executors(&self) -> Result<Vec<ExecutorInfo>> {
        fresh_executors(&self.scheduler, self.config.executor_timeout_seconds).await
    }

    async fn parts(&self) -> Result<Vec<Part>> {
        let jobs = self.scheduler.state.task_manager.get_all_jobs().await.map_err(ballista_error)?;
        let mut parts: Vec<Part> = jobs
            .into_iter()
            .map(|job| {
                let (status, error) = match &job.status.status {
                    Some(job_status::Status::Running(_)) => ("Running", None),
                    Some(job_status::Status::Successful(_)) => ("Completed", None),
                    Some(job_status::Status::Failed(failed)) => ("Failed", Some(describe(&failed.error))),
                    Some(job_status::Status::Queued(_)) | None => ("Queued", None),
                };
                Part {
                    id: job.job_id.to_string(),
                    name: job.job_name,
                    status: status.to_string(),
                    started: job.start_time,
                    ended: job.end_time,
                    stages: job.num_stages,
                    stages_done: job.completed_stages,
                    error,
                }
            })
            .collect();
        parts.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| a.id.cmp(&b.id)));
        parts.truncate(PARTS_MAX);
        Ok(parts)
    }

    async fn is_running(&self, job: &str) -> Result<bool> {
        for running in self.scheduler.state.task_manager.get_running_job_cache().values() {
            if is_part_of(job, running.execution_graph.read().await.job_name()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn running_splits(&self, job: &str) -> Result<HashSet<String>> {
        let mut found = HashSet::new();
        for running in self.scheduler.state.task_manager.get_running_job_cache().values() {
            let graph = running.execution_graph.read().await;
            if !is_part_of(job, graph.job_name()) {
                continue;
            }
            for stage in graph.stages().values() {
                let ExecutionStage::Running(stage) = stage else { continue };
                let Some(splits) = splits_of(&stage.plan)? else { continue };
                let tasks = stage.task_infos.iter().filter(|task| matches!(task.task_status, task_status::Status::Running(_)));
                for partition in tasks.flat_map(|task| &task.global_input_partition_ids) {
                    found.extend(splits.get(*partition).into_iter().flatten().map(|split| split.id.clone()));
                }
            }
        }
        Ok(found)
    }

    async fn cancel(&self, job: &str) -> Result<usize> {
        let mut cancelled = 0;
        for part in self.parts().await? {
            if is_part_of(job, &part.name) && matches!(part.status.as_str(), "Queued" | "Running") {
                self.scheduler.cancel_job(part.id.into()).await.map_err(ballista_error)?;
                cancelled += 1;
            }
        }
        Ok(cancelled)
    }

    fn settings(&self) -> Vec<Setting> {
        let config = &self.config;
        let settings = [
            ("bind-host", config.bind_host.clone()),
            ("bind-port", config.bind_port.to_string()),
            ("scheduler-policy", format!("{:?}", config.scheduling_policy)),
            ("executor-timeout-seconds", config.executor_timeout_seconds.to_string()),
            ("finished-job-state-clean-up-interval-seconds", config.finished_job_state_clean_up_interval_seconds.to_string()),
            ("grpc-server-max-decoding-message-size", config.grpc_server_max_decoding_message_size.to_string()),
            ("tls", config.use_tls.to_string()),
        ];
        settings.into_iter().map(|(name, value)| Setting { name: name.to_string(), value }).collect()
    }
}

/// The splits of each partition of a stage.
fn splits_of(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Vec<Vec<Split>>>> {
    match plan.children().as_slice() {
        [] => leaf_rows(plan.as_ref()),
        [input] => splits_of(input),
        _ => Ok(None),
    }
}

/// Ballista's text of a failure → what a person needs of it.
fn describe(text: &str) -> String {
    const LENGTH_MAX: usize = 600;
    let text = Error::from_wire(text).map_or_else(|| text.split_whitespace().collect::<Vec<_>>().join(" "), |error| error.to_string());
    text.chars().take(LENGTH_MAX).collect()
}
