//! What the nodes of a plan have done: DataFusion's metrics, completed where a node runs as one copy a split.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};

use crate::connector::write::WriteExec;

/// A job's name, and a plan.
type Shown = (String, Arc<dyn ExecutionPlan>);

static SHOWN: Mutex<Option<Shown>> = Mutex::new(None);

/// From now on `plan`, which this process runs for job `job`, is the one that [`shown_plan`] returns.
pub fn show_plan(job: &str, plan: &Arc<dyn ExecutionPlan>) {
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some((job.to_string(), Arc::clone(plan)));
}

/// The plan which this process runs, or ran last, and the job's name.
pub fn shown_plan() -> Option<Shown> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The metrics of each node that has some, a node before its inputs: Ballista's order.
pub fn plan_metrics(plan: &dyn ExecutionPlan) -> Vec<MetricsSet> {
    let mut found = Vec::new();
    collect(plan, &[], &mut found);
    found
}

/// `copies` belong to `plan` and the nodes below it, one after the other.
fn collect(plan: &dyn ExecutionPlan, copies: &[ExecutionPlanMetricsSet], found: &mut Vec<MetricsSet>) {
    if let Some(mut metrics) = plan.metrics() {
        for copy in copies.iter().take(1) {
            copy.clone_inner().iter().for_each(|metric| metrics.push(Arc::clone(metric)));
        }
        found.push(metrics);
    }
    let below = match plan.downcast_ref::<WriteExec>() {
        Some(write) => write.chain_metrics(),
        None => copies.get(1..).unwrap_or_default(),
    };
    for input in plan.children() {
        collect(input.as_ref(), below, found);
    }
}
