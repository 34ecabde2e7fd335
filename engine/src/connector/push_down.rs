//! The last rule of the planner: what a server can do of a query on its documents is left to it.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result as DataFusionResult;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::{ProjectionExpr, update_expr};
use datafusion::physical_expr::{PhysicalExpr, conjunction_opt};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;

use super::SinkSpec;
use super::aggregate::DocumentAggregateExec;
use super::documents::DocumentScanExec;
use super::predicate::left_to_reader;

/// Gives filters to the scans of collections below them, and stands [`DocumentAggregateExec`] over aggregates of such scans.
#[derive(Debug)]
pub struct PushDown;

impl PhysicalOptimizerRule for PushDown {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let pushed = plan.transform_up(|plan| {
            if let Some(plan) = over_filtered_scan(&plan)? {
                return Ok(Transformed::yes(plan));
            }
            Ok(match DocumentAggregateExec::over(&plan) {
                Some(asking) => Transformed::yes(Arc::new(asking) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(plan),
            })
        });
        pushed.data()
    }

    fn name(&self) -> &str {
        "push_down_to_server"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The same filter over a scan which leaves out what cannot pass it. It stays: a server may let through what has another place in
/// BSON's order of values.
fn over_filtered_scan(plan: &Arc<dyn ExecutionPlan>) -> DataFusionResult<Option<Arc<dyn ExecutionPlan>>> {
    if !plan.is::<FilterExec>() {
        return Ok(None);
    }
    let Some(ScanBelow { scan, filter: Some(filter), .. }) = scan_below(plan, Vec::new()) else { return Ok(None) };
    // Rows under a limit are chosen before the filter.
    if !matches!(scan.spec(), SinkSpec::Mongodb(_)) || scan.limit().is_some() {
        return Ok(None);
    }
    let Some(left) = left_to_reader(&filter, &scan.schema()) else { return Ok(None) };
    let filtered: Arc<dyn ExecutionPlan> = Arc::new(scan.filtered(left.predicate)?);
    let replace = |node: Arc<dyn ExecutionPlan>| match node.is::<DocumentScanExec>() {
        true => Ok(Transformed::yes(Arc::clone(&filtered))),
        false => Ok(Transformed::no(node)),
    };
    Arc::clone(plan).transform_up(replace).data().map(Some)
}

/// A scan with nothing above it but filters and projections.
pub(super) struct ScanBelow<'a> {
    pub(super) scan: &'a DocumentScanExec,
    /// All filters together, over the columns of the scan.
    pub(super) filter: Option<Arc<dyn PhysicalExpr>>,
    /// The given expressions, over the columns of the scan.
    pub(super) expressions: Vec<Arc<dyn PhysicalExpr>>,
}

/// Finds the scan under `plan`, whose columns `expressions` are over; `None` if there is anything else in between.
pub(super) fn scan_below(mut plan: &Arc<dyn ExecutionPlan>, mut expressions: Vec<Arc<dyn PhysicalExpr>>) -> Option<ScanBelow<'_>> {
    let mut filters = Vec::new();
    loop {
        if let Some(scan) = plan.downcast_ref::<DocumentScanExec>() {
            return Some(ScanBelow { scan, filter: conjunction_opt(filters), expressions });
        }
        let (input, projected, predicate) = if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            (projection.input(), Some(projection.expr().to_vec()), None)
        } else {
            let filter = plan.downcast_ref::<FilterExec>().filter(|filter| filter.fetch().is_none())?;
            let columns = filter.input().schema();
            let column = |index: &usize| {
                let name = columns.field(*index).name();
                ProjectionExpr { expr: Arc::new(Column::new(name, *index)), alias: name.clone() }
            };
            (filter.input(), filter.projection().as_ref().map(|kept| kept.iter().map(column).collect()), Some(filter.predicate()))
        };
        if let Some(projected) = projected {
            expressions = below_projection(&expressions, &projected)?;
            filters = below_projection(&filters, &projected)?;
        }
        filters.extend(predicate.cloned());
        plan = input;
    }
}

fn below_projection(expressions: &[Arc<dyn PhysicalExpr>], projected: &[ProjectionExpr]) -> Option<Vec<Arc<dyn PhysicalExpr>>> {
    expressions.iter().map(|expression| update_expr(expression, projected, true).ok()?).collect()
}
