//! Compressed CSV and JSON tables on the cluster.
//!
//! DataFusion's plan format has no place for the compression of a file scan (`FileScanExecConf`, DataFusion 55), so executors
//! would read gzip as text. [`wrap_scans`] puts a [`CompressedScanExec`] over each such scan when the scheduler has planned a
//! query; the codec carries the node's one word, and [`CompressedScanExec::restore`] tells it to the scan again.
//! The scan stays the leaf, where Ballista cuts a stage into tasks.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::GetExt;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::Error;

/// Passes rows on; says that the file scan below it reads compressed files.
#[derive(Debug)]
pub struct CompressedScanExec {
    scan: Arc<dyn ExecutionPlan>,
    compression: String,
}

impl CompressedScanExec {
    /// Tells `compression` (`gz`, `bz2`, `xz`, `zst`) to the file scans in `input` and stands over them.
    ///
    /// # Errors
    /// DataFusion's, when it knows no such compression.
    pub fn restore(input: &Arc<dyn ExecutionPlan>, compression: &str) -> DataFusionResult<Self> {
        let kind: FileCompressionType = compression.parse()?;
        let scan = Arc::clone(input).transform_up(|plan| {
            Ok(match file_scan(&plan) {
                Some(config) => {
                    let config = FileScanConfigBuilder::from(config.clone()).with_file_compression_type(kind).build();
                    Transformed::yes(DataSourceExec::from_data_source(config) as Arc<dyn ExecutionPlan>)
                }
                None => Transformed::no(plan),
            })
        });
        Ok(Self { scan: scan.data()?, compression: compression.to_string() })
    }

    /// The suffix of the compression, without its dot.
    pub fn compression(&self) -> &str {
        &self.compression
    }
}

fn file_scan(plan: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    let source: &dyn Any = plan.downcast_ref::<DataSourceExec>()?.data_source().as_ref();
    source.downcast_ref::<FileScanConfig>()
}

/// Puts a [`CompressedScanExec`] over each scan of compressed files.
///
/// # Errors
/// DataFusion's, from rebuilding the plan.
pub fn wrap_scans(plan: Arc<dyn ExecutionPlan>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let wrapped = plan.transform_up(|plan| {
        let compression = file_scan(&plan).map(|config| config.file_compression_type).filter(FileCompressionType::is_compressed);
        Ok(match compression {
            Some(kind) => {
                let compression = kind.get_ext().trim_start_matches('.').to_string();
                Transformed::yes(Arc::new(CompressedScanExec { scan: plan, compression }) as Arc<dyn ExecutionPlan>)
            }
            None => Transformed::no(plan),
        })
    });
    wrapped.data()
}

impl DisplayAs for CompressedScanExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompressedScanExec: compression={}", self.compression)
    }
}

impl ExecutionPlan for CompressedScanExec {
    fn name(&self) -> &str {
        "CompressedScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.scan.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.scan]
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
        let [scan] = children.as_slice() else { return Err(Error::internal("CompressedScanExec has one input").into()) };
        Ok(Arc::new(Self { scan: Arc::clone(scan), compression: self.compression.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        self.scan.execute(partition, context)
    }
}

/// The scheduler's planner: DataFusion's, then [`wrap_scans`].
#[derive(Debug)]
pub struct ClusterPlanner;

impl QueryPlanner for ClusterPlanner {
    // Handed on, so that the compiler checks once whether a plan may move between threads and not for this function by itself.
    fn create_physical_plan<'a, 'b, 'c, 'f>(&'a self, plan: &'b LogicalPlan, session: &'c dyn Session) -> Planned<'f>
    where
        Self: 'f,
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        planned(plan, session)
    }
}

type Planned<'f> = BoxFuture<'f, DataFusionResult<Arc<dyn ExecutionPlan>>>;

fn planned<'f>(plan: &'f LogicalPlan, session: &'f dyn Session) -> Planned<'f> {
    async move { wrap_scans(DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await?) }.boxed()
}
