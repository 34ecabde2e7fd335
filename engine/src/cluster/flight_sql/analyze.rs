//! `EXPLAIN ANALYZE`: what each operator of each stage did, summed over its tasks.
//!
//! DataFusion's own node for it measures the process it runs in, which on a fleet is the last task of the last stage. So the query
//! runs as a job like any other, and the scheduler is asked what its executors reported.

use std::sync::Arc;

use ballista_core::JobId;
use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpc;
use ballista_core::serde::protobuf::{GetJobMetricsParams, JobStageMetrics, OperatorMetricsSet};
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::physical_plan::metrics::MetricsSet;
use tonic::{Request, Status};

use super::session::LocalResult;
use crate::cluster::ballista_error;
use crate::cluster::scheduler::Scheduler;

/// The answer to `EXPLAIN ANALYZE` about a job which is done, under `schema`.
///
/// # Errors
/// `INTERNAL`, when the scheduler knows no such job any more.
pub(super) async fn measured(scheduler: &Scheduler, id: &JobId, schema: SchemaRef) -> Result<LocalResult, Status> {
    let params = GetJobMetricsParams { job_id: id.to_string() };
    let metrics = scheduler.get_job_metrics(Request::new(params)).await?.into_inner();
    let stages = metrics.stages.into_iter().map(stage_text).collect::<Result<Vec<_>, _>>()?;
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["Plan with Metrics"])), Arc::new(StringArray::from(vec![stages.join("\n\n")]))];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| Status::internal(e.to_string()))?;
    Ok(LocalResult { schema, batches: vec![batch] })
}

fn stage_text(stage: JobStageMetrics) -> Result<String, Status> {
    let mut text = format!("stage {}, {} partitions", stage.stage_id, stage.partitions);
    for operator in stage.operators {
        let set = OperatorMetricsSet { metrics: operator.metrics };
        let metrics: MetricsSet = set.try_into().map_err(|e| Status::internal(ballista_error(e).to_string()))?;
        let metrics = metrics.aggregate_by_name().sorted_for_display().timestamps_removed();
        let indent = "  ".repeat(operator.depth as usize + 1);
        text.push_str(&format!("\n{indent}{}, metrics=[{metrics}]", operator.operator_desc));
    }
    Ok(text)
}
