//! A scheduler as the dashboard sees it: executors, Ballista jobs with their stages and plans, and the splits in running tasks.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use ballista_core::JobId;
use ballista_core::serde::protobuf::{job_status, task_status};
use ballista_scheduler::cluster::JobState;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::state::execution_stage::ExecutionStage;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use futures::FutureExt;

use super::scheduler::{Scheduler, Versions, fresh_executors};
use super::stages::{Seen, look_at};
use super::{ExecutorInfo, ballista_error};
use crate::connector::split::{Split, leaf_rows};
use crate::error::{Error, Result};
use crate::web::board::{Asked, Workers, is_part_of};
use crate::web::plan::add_wave;
use crate::web::schema::{Cause, Part, Plan, PlanNode, Setting, Work};
use crate::web::secret::{environment_and_options, setting};

/// Ballista jobs which are shown: a job of `baler run` has hundreds of waves.
pub(crate) const PARTS_MAX: usize = 200;
/// Of how many of a job's parts stages and plans are shown: 50 waves are 25,000 tasks.
const PARTS_WITH_STAGES: usize = 50;
/// Parts which have ended and are remembered as they were seen: their graphs are large, and never change.
pub(crate) const ENDED_MAX: usize = 4 * PARTS_WITH_STAGES;

/// The scheduler of a fleet.
pub(super) struct FleetWorkers {
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) config: Arc<SchedulerConfig>,
    pub(super) versions: Arc<Versions>,
    /// Options of every session.
    pub(super) session: SessionConfig,
    /// Where graphs of ended jobs are.
    pub(super) jobs: Arc<dyn JobState>,
    ended: Mutex<HashMap<String, Seen>>,
}

impl FleetWorkers {
    pub(super) fn new(
        scheduler: Arc<Scheduler>,
        config: Arc<SchedulerConfig>,
        versions: Arc<Versions>,
        session: SessionConfig,
        jobs: Arc<dyn JobState>,
    ) -> Self {
        Self { scheduler, config, versions, session, jobs, ended: Mutex::default() }
    }

    /// Stages and plan of a part; `None` if it has none yet, or is forgotten.
    async fn seen(&self, part: &Part, hosts: &HashMap<String, String>) -> Result<Option<Seen>> {
        let id: JobId = part.id.clone().into();
        if let Some(running) = self.scheduler.state.task_manager.get_running_job_cache().get(&id) {
            return Ok(Some(look_at(running.execution_graph.read().await.as_ref(), hosts)));
        }
        if let Some(seen) = self.ended.lock().unwrap_or_else(PoisonError::into_inner).get(&part.id) {
            return Ok(Some(seen.clone()));
        }
        let Some(graph) = self.jobs.get_execution_graph(&id).await.map_err(ballista_error)? else { return Ok(None) };
        let seen = look_at(graph.as_ref(), hosts);
        if matches!(part.status.as_str(), "Completed" | "Failed") {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            if ended.len() >= ENDED_MAX {
                ended.clear();
            }
            ended.insert(part.id.clone(), seen.clone());
        }
        Ok(Some(seen))
    }
}

impl Workers for FleetWorkers {
    fn mode(&self) -> &'static str {
        "fleet"
    }

    fn executors(&self) -> Asked<'_, Vec<ExecutorInfo>> {
        async move { fresh_executors(&self.scheduler, self.config.executor_timeout_seconds, &self.versions).await }.boxed()
    }

    fn parts(&self) -> Asked<'_, Vec<Part>> {
        async move {
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
        .boxed()
    }

    fn is_running<'a>(&'a self, job: &'a str) -> Asked<'a, bool> {
        async move {
            for running in self.scheduler.state.task_manager.get_running_job_cache().values() {
                if is_part_of(job, running.execution_graph.read().await.job_name()) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        .boxed()
    }

    fn running_splits<'a>(&'a self, job: &'a str) -> Asked<'a, HashSet<String>> {
        async move {
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
                        found.extend(splits.get(*partition).into_iter().flatten().map(|split| split.id.to_string()));
                    }
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn cancel<'a>(&'a self, job: &'a str) -> Asked<'a, usize> {
        async move {
            let mut cancelled = 0;
            for part in self.parts().await? {
                if is_part_of(job, &part.name) && matches!(part.status.as_str(), "Queued" | "Running") {
                    self.scheduler.cancel_job(part.id.into()).await.map_err(ballista_error)?;
                    cancelled += 1;
                }
            }
            Ok(cancelled)
        }
        .boxed()
    }

    fn work<'a>(&'a self, job: &'a str, wanted: Option<&'a str>) -> Asked<'a, Work> {
        async move {
            let hosts: HashMap<String, String> =
                self.executors().await?.into_iter().map(|executor| (executor.id, format!("{}:{}", executor.host, executor.port))).collect();
            let (mut work, mut plans) = (Work::default(), Vec::new());
            let parts = self.parts().await?.into_iter().filter(|part| is_part_of(job, &part.name)).enumerate();
            for (place, part) in parts {
                let (is_new, is_wanted) = (place < PARTS_WITH_STAGES, wanted.is_some_and(|wanted| wanted == part.id));
                if !is_new && !is_wanted {
                    continue;
                }
                let Some(seen) = self.seen(&part, &hosts).await? else { continue };
                if is_new {
                    work.stages.extend(seen.stages);
                }
                if !seen.nodes.is_empty() && (is_wanted || wanted.is_none()) {
                    plans.push((part, seen.nodes));
                }
            }
            work.plan = together(plans);
            Ok(work)
        }
        .boxed()
    }

    /// Executors tell it themselves.
    fn retries(&self) -> Vec<Cause> {
        Vec::new()
    }

    fn threads(&self) -> Option<usize> {
        None
    }

    fn settings(&self) -> Vec<Setting> {
        let config = &self.config;
        let settings = [
            ("bind-host", config.bind_host.clone()),
            ("bind-port", config.bind_port.to_string()),
            ("scheduler-policy", format!("{:?}", config.scheduling_policy)),
            ("executor-timeout-seconds", config.executor_timeout_seconds.to_string()),
            ("external-host", config.external_host.clone()),
            ("task-distribution", format!("{:?}", config.task_distribution)),
            ("expire-dead-executor-interval-seconds", config.expire_dead_executor_interval_seconds.to_string()),
            ("executor-termination-grace-period", config.executor_termination_grace_period.to_string()),
            ("finished-job-data-clean-up-interval-seconds", config.finished_job_data_clean_up_interval_seconds.to_string()),
            ("finished-job-state-clean-up-interval-seconds", config.finished_job_state_clean_up_interval_seconds.to_string()),
            ("cors-allowed-origins", config.cors_allowed_origins.clone()),
            ("grpc-server-max-encoding-message-size", config.grpc_server_max_encoding_message_size.to_string()),
            ("grpc-server-max-decoding-message-size", config.grpc_server_max_decoding_message_size.to_string()),
            ("tls", config.use_tls.to_string()),
        ];
        let mut settings: Vec<Setting> = settings.iter().map(|(name, value)| setting(name, value)).collect();
        settings.extend(environment_and_options(&self.session));
        settings
    }
}

/// The plans of all waves of the newest attempt as one, from those of parts, newest first. A wave whose plan is another one is left out.
fn together(plans: Vec<(Part, Vec<PlanNode>)>) -> Option<Plan> {
    let attempt = plans.first().map(|(part, _)| attempt_of(&part.name).to_string())?;
    let mut plans: Vec<_> = plans.into_iter().filter(|(part, _)| attempt_of(&part.name) == attempt).collect();
    // One that is whole says most of itself, one that was stopped least.
    plans.sort_by_key(|(part, _)| match part.status.as_str() {
        "Completed" => 0,
        "Running" => 1,
        _ => 2,
    });
    let mut plans = plans.into_iter();
    let (first, mut nodes) = plans.next()?;
    let waves = 1 + plans.filter(|(_, other)| add_wave(&mut nodes, other)).count();
    let name = if waves == 1 { first.name } else { format!("{waves} waves{attempt}") };
    Some(Plan { name, nodes })
}

/// ` of attempt <m>` at the end of a wave's name; nothing for what is no wave.
fn attempt_of(part: &str) -> &str {
    part.find(" of attempt ").map_or("", |at| &part[at..])
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
pub(super) fn describe(text: &str) -> String {
    const LENGTH_MAX: usize = 600;
    let text = Error::from_wire(text).map_or_else(|| text.split_whitespace().collect::<Vec<_>>().join(" "), |error| error.to_string());
    text.chars().take(LENGTH_MAX).collect()
}
