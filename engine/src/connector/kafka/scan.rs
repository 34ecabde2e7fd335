//! The plan node which turns split rows into chunks or records. Before: one row per split; after: `RecordBatch`es of the table.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};

use super::read::RowStream;
use super::{KafkaSpec, table_schema};
use crate::connector::split::{LeafReader, Split};
use crate::error::{Error, Result};
use crate::job::dead_letter::DeadLetterLog;
use crate::telemetry::COUNTERS;

/// Reads the splits of its input, one after the other, and yields their rows.
#[derive(Debug, Clone)]
pub struct KafkaScanExec {
    input: Arc<dyn ExecutionPlan>,
    spec: KafkaSpec,
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    dead_letters: Option<DeadLetterLog>,
}

impl KafkaScanExec {
    /// A reader over a split table; `projection` picks columns of the table's schema.
    ///
    /// # Errors
    /// DataFusion's, when a projected column does not exist.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, spec: KafkaSpec, projection: Option<Vec<usize>>) -> DataFusionResult<Self> {
        let all = table_schema(&spec);
        let schema = match &projection {
            Some(columns) => Arc::new(all.project(columns)?),
            None => all,
        };
        let partitions = Partitioning::UnknownPartitioning(input.output_partitioning().partition_count());
        let properties =
            PlanProperties::new(EquivalenceProperties::new(schema), partitions, EmissionType::Incremental, Boundedness::Bounded);
        Ok(Self { input, spec, projection, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new(), dead_letters: None })
    }

    /// What it reads.
    pub fn spec(&self) -> &KafkaSpec {
        &self.spec
    }

    /// The columns it yields, by their place in the table; all, if `None`.
    pub fn projection(&self) -> Option<&[usize]> {
        self.projection.as_deref()
    }

    /// The same reader over another input, with the same metrics, which notes what no row can hold in `dead_letters`.
    #[must_use]
    pub fn with_input(&self, input: Arc<dyn ExecutionPlan>, dead_letters: DeadLetterLog) -> Self {
        Self { input, dead_letters: Some(dead_letters), ..self.clone() }
    }
}

impl DisplayAs for KafkaScanExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KafkaSpec { framing, chunk_records, chunk_bytes, .. } = &self.spec;
        write!(
            f,
            "KafkaScanExec: location={}, framing={framing:?}, chunk_records={chunk_records}, chunk_size={chunk_bytes}, projection={:?}",
            self.spec.target(),
            self.schema().fields().iter().map(|field| field.name()).collect::<Vec<_>>()
        )
    }
}

impl ExecutionPlan for KafkaScanExec {
    fn name(&self) -> &str {
        "KafkaScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
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
        let [input] = children.as_slice() else { return Err(Error::internal("KafkaScanExec has one input").into()) };
        let mut scan = Self::try_new(Arc::clone(input), self.spec.clone(), self.projection.clone())?;
        scan.dead_letters.clone_from(&self.dead_letters);
        Ok(Arc::new(scan))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let reader = SplitReader {
            spec: self.spec.clone(),
            schema: self.schema(),
            dead_letters: self.dead_letters.clone(),
            output_rows: MetricBuilder::new(&self.metrics).output_rows(partition),
            source_bytes: MetricBuilder::new(&self.metrics).counter("source_bytes", partition),
            splits: LeafReader::new(self.input.execute(partition, context)?),
            open: None,
        };
        let batches = futures::stream::try_unfold(reader, |mut reader| async move {
            let batch = reader.next_batch().await?;
            Ok::<_, DataFusionError>(batch.map(|batch| (batch, reader)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

/// Reads one partition's splits, one after the other.
struct SplitReader {
    spec: KafkaSpec,
    schema: SchemaRef,
    dead_letters: Option<DeadLetterLog>,
    output_rows: Count,
    source_bytes: Count,
    splits: LeafReader<Split>,
    open: Option<RowStream>,
}

impl SplitReader {
    /// The next rows; `None` after the last split.
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(open) = &mut self.open {
                let waited = Instant::now();
                let batch = open.next().await?;
                COUNTERS.source_wait.add_since(waited);
                if let Some(batch) = batch {
                    self.count(&batch);
                    return Ok(Some(batch));
                }
                self.open = None;
            }
            let Some(split) = self.splits.next().await? else { return Ok(None) };
            self.open = Some(RowStream::open(&self.spec, &split, Arc::clone(&self.schema), self.dead_letters.clone())?);
        }
    }

    fn count(&self, batch: &RecordBatch) {
        let payload = batch.column_by_name("content").or_else(|| batch.column_by_name("value"));
        let bytes = payload.and_then(|column| column.as_binary_opt::<i32>()).map_or(0, |column| column.value_data().len());
        let records = batch.column_by_name("records").and_then(|column| column.as_primitive_opt::<Int64Type>());
        let records = records.map_or(batch.num_rows() as i64, |records| records.values().iter().sum());
        self.output_rows.add(batch.num_rows());
        self.source_bytes.add(bytes);
        COUNTERS.read_chunks.add(batch.num_rows() as u64);
        COUNTERS.read_records.add(records as u64);
        COUNTERS.read_bytes.add(bytes as u64);
    }
}
