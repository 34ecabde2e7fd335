//! Stages of a Ballista job, as the dashboard shows them: how their tasks did, and the plan with what its nodes did.

use std::collections::HashMap;

use ballista_core::serde::protobuf::failed_task::FailedReason;
use ballista_core::serde::protobuf::{FailedTask, SuccessfulTask, task_status};
use ballista_scheduler::state::execution_graph::ExecutionGraph;
use ballista_scheduler::state::execution_stage::{ExecutionStage, TaskInfo};
use datafusion::physical_plan::metrics::MetricsSet;

use super::workers::describe;
use crate::web::plan::{StagePlan, graph};
use crate::web::schema::{PlanNode, Stage};

/// What was seen of one Ballista job.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) stages: Vec<Stage>,
    pub(super) nodes: Vec<PlanNode>,
}

/// Looks at a job; `hosts` are the addresses of executors by their ids.
pub(super) fn look_at(job: &dyn ExecutionGraph, hosts: &HashMap<String, String>) -> Seen {
    let mut stages: Vec<_> = job.stages().iter().collect();
    stages.sort_by_key(|(number, _)| **number);
    // The last stage is the one which no other reads.
    let plans: Vec<StagePlan<'_>> = stages
        .iter()
        .rev()
        .map(|(number, stage)| StagePlan { stage: Some(**number), plan: stage.plan(), metrics: metrics_of(stage) })
        .collect();
    let nodes = graph(&plans);
    let stages = stages.into_iter().map(|(number, stage)| describe_stage(job.job_name(), *number, stage, hosts)).collect();
    Seen { stages, nodes }
}

fn metrics_of(stage: &ExecutionStage) -> &[MetricsSet] {
    match stage {
        ExecutionStage::Running(stage) => stage.stage_metrics.as_deref().unwrap_or_default(),
        ExecutionStage::Successful(stage) => &stage.stage_metrics,
        ExecutionStage::Failed(stage) => stage.stage_metrics.as_deref().unwrap_or_default(),
        ExecutionStage::UnResolved(_) | ExecutionStage::Resolved(_) => &[],
    }
}

fn describe_stage(part: &str, number: usize, stage: &ExecutionStage, hosts: &HashMap<String, String>) -> Stage {
    let (attempt, partitions) = match stage {
        ExecutionStage::UnResolved(stage) => (stage.stage_attempt_num, 0),
        ExecutionStage::Resolved(stage) => (stage.stage_attempt_num, stage.partitions),
        ExecutionStage::Running(stage) => (stage.stage_attempt_num, stage.partitions),
        ExecutionStage::Successful(stage) => (stage.stage_attempt_num, stage.partitions),
        ExecutionStage::Failed(stage) => (stage.stage_attempt_num, stage.partitions),
    };
    let mut told = Stage {
        part: part.to_string(),
        stage: number,
        attempt: attempt + 1,
        status: stage.variant_name().to_string(),
        partitions,
        done: 0,
        running: 0,
        failed: 0,
        median_seconds: None,
        longest_seconds: None,
        slowest_executor: None,
        error: None,
    };
    let mut times: Vec<(f64, &str)> = Vec::new();
    for task in stage.task_infos().unwrap_or_default() {
        match &task.task_status {
            task_status::Status::Running(_) => told.running += 1,
            task_status::Status::Successful(SuccessfulTask { executor_id, .. }) => {
                told.done += 1;
                times.push((seconds_of(task), executor_id));
            }
            task_status::Status::Failed(failed) => {
                // The tasks of a stage which failed are cancelled with it.
                if matches!(stage, ExecutionStage::Failed(_)) && matches!(failed.failed_reason, Some(FailedReason::TaskKilled(_))) {
                    continue;
                }
                told.failed += 1;
                told.error = told.error.or_else(|| cause_of(failed));
            }
        }
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    told.median_seconds = times.get(times.len() / 2).map(|(seconds, _)| *seconds);
    if let Some((seconds, executor)) = times.last() {
        told.longest_seconds = Some(*seconds);
        told.slowest_executor = Some(hosts.get(*executor).cloned().unwrap_or_else(|| (*executor).to_string()));
    }
    told
}

fn seconds_of(task: &TaskInfo) -> f64 {
    task.end_exec_time.saturating_sub(task.start_exec_time) as f64 / 1e3
}

/// Why a task failed, unless Ballista has put a word of its own in the place of the cause.
fn cause_of(failed: &FailedTask) -> Option<String> {
    (failed.error != "task reset for retry").then(|| describe(&failed.error))
}
