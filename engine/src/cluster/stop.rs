//! A task that is cancelled ends.
//!
//! Ballista drops a cancelled task's future, but its shuffle writer drives the plan from a spawned task of its own, which goes
//! on to the end of its input (Ballista 55): it would read, compress and write for minutes on a slot that is given away already.
//! So each stage's plan gets a [`StoppableExec`] under the shuffle writer, whose streams end in an error as soon as
//! the [`StoppableStage`] that runs it is dropped; all below it is dropped with them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use ballista_core::serde::protobuf::{RuntimeStatsReport, ShuffleWritePartition, TaskColumnStats, WindowStateReport};
use ballista_executor::execution_engine::QueryStageExecutor;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;
use tokio::sync::watch;
use tracing::{Instrument, Span};

use super::transfer::retryable;
use crate::error::Error;
use crate::telemetry::plan::plan_metrics;

/// Puts a [`StoppableExec`] under the shuffle writer `stage`; the plan runs for as long as the sender lives. `span` is what its log lines
/// belong to.
///
/// # Errors
/// DataFusion's, from rebuilding the plan.
pub(super) fn make_stoppable(stage: Arc<dyn ExecutionPlan>, span: &Span) -> DataFusionResult<(Arc<dyn ExecutionPlan>, watch::Sender<()>)> {
    let (alive, stopped) = watch::channel(());
    let children = stage.children().into_iter().cloned();
    let children = children
        .map(|input| Arc::new(StoppableExec { input, stopped: stopped.clone(), span: span.clone() }) as Arc<dyn ExecutionPlan>)
        .collect();
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Ok((stage.replace_children(children, options)?, alive))
}

/// Passes rows on until its stage is dropped.
#[derive(Debug)]
struct StoppableExec {
    input: Arc<dyn ExecutionPlan>,
    stopped: watch::Receiver<()>,
    span: Span,
}

impl DisplayAs for StoppableExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoppableExec")
    }
}

impl ExecutionPlan for StoppableExec {
    fn name(&self) -> &str {
        "StoppableExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let [input] = children.as_slice() else { return Err(Error::internal("StoppableExec has one input").into()) };
        Ok(Arc::new(Self { input: Arc::clone(input), stopped: self.stopped.clone(), span: self.span.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let open = (self.span.in_scope(|| self.input.execute(partition, context))?, self.stopped.clone(), self.span.clone());
        let rows = futures::stream::try_unfold(open, |(mut rows, mut stopped, span)| async move {
            let next = tokio::select! {
                biased;
                // Nothing is ever sent: this ends when the sender is dropped.
                _ = stopped.changed() => return Err(Error::permanent("the task was cancelled").into()),
                next = rows.next().instrument(span.clone()) => next.transpose()?,
            };
            Ok::<_, DataFusionError>(next.map(|batch| (batch, (rows, stopped, span))))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// A stage whose plan stops when it is dropped, which Ballista does when its task has ended or was cancelled.
#[derive(Debug)]
pub(super) struct StoppableStage {
    stage: Arc<dyn QueryStageExecutor>,
    /// What the shuffle writer reads.
    input: Option<Arc<dyn ExecutionPlan>>,
    reads_shuffles: bool,
    _alive: watch::Sender<()>,
    _running: RunningTask,
}

static RUNNING_TASKS: AtomicUsize = AtomicUsize::new(0);

/// Tasks which this process runs now.
pub(super) fn running_tasks() -> usize {
    RUNNING_TASKS.load(Ordering::Relaxed)
}

/// One of them, for as long as it is kept.
#[derive(Debug)]
struct RunningTask;

impl RunningTask {
    fn begin() -> Self {
        RUNNING_TASKS.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        RUNNING_TASKS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl StoppableStage {
    /// Runs `stage`, which writes the shuffles of `input` and whose plan [`make_stoppable`] has made to stop with `alive`. Where it
    /// reads shuffles, a transfer that breaks off does not fail the query.
    pub(super) fn new(
        stage: Arc<dyn QueryStageExecutor>,
        input: Option<Arc<dyn ExecutionPlan>>,
        reads_shuffles: bool,
        alive: watch::Sender<()>,
    ) -> Self {
        Self { stage, input, reads_shuffles, _alive: alive, _running: RunningTask::begin() }
    }
}

impl fmt::Display for StoppableStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stage.fmt(f)
    }
}

#[async_trait]
impl QueryStageExecutor for StoppableStage {
    async fn execute_query_stage(&self, task_id: usize, context: Arc<TaskContext>) -> DataFusionResult<Vec<ShuffleWritePartition>> {
        self.stage.execute_query_stage(task_id, context).await.map_err(|error| if self.reads_shuffles { retryable(error) } else { error })
    }

    /// Ballista's, with what a writer's copies of nodes have done.
    fn collect_plan_metrics(&self) -> Vec<MetricsSet> {
        let mut metrics = self.stage.collect_plan_metrics();
        if let Some(input) = &self.input {
            let below = plan_metrics(input.as_ref());
            // The first is the shuffle writer's. Ballista may have rebuilt the plan, where it reads shuffles.
            if !self.reads_shuffles && metrics.len() == below.len() + 1 {
                metrics.truncate(1);
                metrics.extend(below);
            }
        }
        metrics
    }

    fn collect_runtime_stats_reports(&self) -> Vec<RuntimeStatsReport> {
        self.stage.collect_runtime_stats_reports()
    }

    fn collect_window_state_reports(&self) -> DataFusionResult<Vec<WindowStateReport>> {
        self.stage.collect_window_state_reports()
    }

    fn collect_column_stats(&self) -> Vec<TaskColumnStats> {
        self.stage.collect_column_stats()
    }
}
