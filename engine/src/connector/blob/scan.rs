//! The plan node which turns split rows into chunk rows. Before: one row per split; after: `RecordBatch`es of [`BLOB_SCHEMA`].

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMillisecondArray,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};

use super::block::BlockShape;
use super::chunk::{ChunkRun, Chunker};
use super::decompress::decompress;
use super::read::{BlockStream, read_range};
use super::{BLOB_SCHEMA, BlobSpec, Boundary, Compression};
use crate::connector::split::{LeafReader, Split, digest_id};
use crate::error::{Error, ErrorKind, Result};
use crate::job::dead_letter::{DeadLetter, DeadLetterLog, OnError};
use crate::store::{Location, locate};
use crate::telemetry::COUNTERS;

/// Raw bytes of one batch. Twice as many took as long, and on two cores 40 MiB more of data which does not compress.
const BATCH_BYTES: usize = 4 << 20;

/// Reads the splits of its input, one after the other, and yields their chunks.
#[derive(Debug, Clone)]
pub struct BlobScanExec {
    input: Arc<dyn ExecutionPlan>,
    spec: BlobSpec,
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    dead_letters: Option<DeadLetterLog>,
}

impl BlobScanExec {
    /// A reader over a split table; `projection` picks columns of [`BLOB_SCHEMA`].
    ///
    /// # Errors
    /// DataFusion's, when a projected column does not exist.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, spec: BlobSpec, projection: Option<Vec<usize>>) -> DataFusionResult<Self> {
        let schema = match &projection {
            Some(columns) => Arc::new(BLOB_SCHEMA.project(columns)?),
            None => Arc::clone(&BLOB_SCHEMA),
        };
        let partitions = Partitioning::UnknownPartitioning(input.output_partitioning().partition_count());
        let properties =
            PlanProperties::new(EquivalenceProperties::new(schema), partitions, EmissionType::Incremental, Boundedness::Bounded);
        Ok(Self { input, spec, projection, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new(), dead_letters: None })
    }

    /// What it reads.
    pub fn spec(&self) -> &BlobSpec {
        &self.spec
    }

    /// The columns it yields, by their place in [`BLOB_SCHEMA`]; all, if `None`.
    pub fn projection(&self) -> Option<&[usize]> {
        self.projection.as_deref()
    }

    /// The same reader over another input, with the same metrics, which notes what it cannot read in `dead_letters`.
    #[must_use]
    pub fn with_input(&self, input: Arc<dyn ExecutionPlan>, dead_letters: DeadLetterLog) -> Self {
        Self { input, dead_letters: Some(dead_letters), ..self.clone() }
    }
}

impl DisplayAs for BlobScanExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BlobSpec { location, split_bytes, chunk_bytes, boundary, compression, on_corrupt } = &self.spec;
        write!(
            f,
            "BlobScanExec: location={location}, split_size={split_bytes}, chunk_size={chunk_bytes}, boundary={boundary:?}, compression={compression:?}, on_corrupt={on_corrupt:?}, projection={:?}",
            self.schema().fields().iter().map(|field| field.name()).collect::<Vec<_>>()
        )
    }
}

impl ExecutionPlan for BlobScanExec {
    fn name(&self) -> &str {
        "BlobScanExec"
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
        let [input] = children.as_slice() else { return Err(Error::internal("BlobScanExec has one input").into()) };
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
            projection: self.projection.clone(),
            env: context.runtime_env(),
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

/// A split which is being read.
struct OpenSplit {
    split: Split,
    blocks: BlockStream,
    chunker: Chunker,
}

/// Reads one partition's splits. Blocks are read ahead on the I/O runtime; here they are only cut.
struct SplitReader {
    spec: BlobSpec,
    schema: SchemaRef,
    projection: Option<Vec<usize>>,
    env: Arc<RuntimeEnv>,
    dead_letters: Option<DeadLetterLog>,
    output_rows: Count,
    source_bytes: Count,
    splits: LeafReader<Split>,
    open: Option<OpenSplit>,
}

impl SplitReader {
    /// The next chunks; `None` after the last split.
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some(mut open) = self.open.take() else {
                let Some(split) = self.splits.next().await? else { return Ok(None) };
                self.open = self.open_split(split).await?;
                continue;
            };
            let run = match open.blocks.next().await {
                Some(block) => open.chunker.push(block?),
                None => open.chunker.finish(),
            };
            let batch = run.map(|run| self.build_batch(&open.split, run)).transpose()?;
            if !open.chunker.is_done() {
                self.open = Some(open);
            }
            if batch.is_some() {
                return Ok(batch);
            }
        }
    }

    /// Starts reading a split; `None` if its object is corrupt and became a dead letter.
    async fn open_split(&mut self, split: Split) -> Result<Option<OpenSplit>> {
        let chunk_bytes = self.spec.chunk_bytes as usize;
        let counts_feeds = self.spec.boundary == Boundary::Line;
        let shape = BlockShape { headroom: chunk_bytes, block_bytes: BATCH_BYTES.max(chunk_bytes), counts_feeds };
        // One byte earlier tells whether a line starts at the split's first byte.
        let from = if self.spec.boundary == Boundary::Line { split.start.saturating_sub(1) } else { split.start };
        let (mut blocks, compression) = open_split(locate(&self.env, &split.object)?, &split, from, shape).await?;
        if compression != Compression::None && self.spec.on_corrupt == OnError::DeadLetter {
            if !self.is_whole(&split, blocks).await? {
                return Ok(None);
            }
            blocks = open_split(locate(&self.env, &split.object)?, &split, from, shape).await?.0;
        }
        let end = if compression == Compression::None { split.end } else { u64::MAX };
        let chunker = Chunker::new(self.spec.boundary, chunk_bytes, split.start, end);
        Ok(Some(OpenSplit { split, blocks, chunker }))
    }

    /// Decodes a compressed object to its end; notes a corrupt one as dead letter.
    async fn is_whole(&mut self, split: &Split, mut blocks: BlockStream) -> Result<bool> {
        let log = self.dead_letters.as_ref().ok_or_else(|| {
            Error::config("blob.on_corrupt = 'dead_letter' needs a job: use `baler run`, which keeps dead letters in the job's state")
        })?;
        while let Some(block) = blocks.next().await {
            match block {
                Err(error) if error.kind() == ErrorKind::Decode => {
                    log.add(DeadLetter::whole_object(split, error.to_string()));
                    return Ok(false);
                }
                block => drop(block?),
            }
        }
        Ok(true)
    }

    /// Builds only the columns which the query uses.
    fn build_batch(&self, split: &Split, run: ChunkRun) -> Result<RecordBatch> {
        let rows = run.ends.len();
        self.output_rows.add(rows);
        self.source_bytes.add(run.bytes.len());
        COUNTERS.read_chunks.add(rows as u64);
        COUNTERS.read_bytes.add(run.bytes.len() as u64);
        let starts = || std::iter::once(0).chain(run.ends.iter().copied()).take(rows);
        let offsets = || starts().map(|start| run.offset + start as u64);
        let failed = |e| Error::internal("building a batch of chunks").with_source(e);
        let column = |index: usize| -> Result<ArrayRef> {
            Ok(match index {
                0 => Arc::new(StringArray::from_iter_values(offsets().map(|offset| document_id(&split.object, &split.version, offset)))),
                1 => Arc::new(StringArray::from_iter_values((0..rows).map(|_| &split.object))),
                2 => Arc::new(StringArray::from_iter_values((0..rows).map(|_| &split.version))),
                3 => Arc::new(Int64Array::from_iter_values(offsets().map(|offset| offset as i64))),
                4 => Arc::new(Int64Array::from_iter_values(starts().zip(&run.ends).map(|(start, end)| (end - start) as i64))),
                5 => Arc::new(Int64Array::from(run.records.clone())),
                6 => Arc::new(TimestampMillisecondArray::from_value(split.last_modified, rows).with_timezone("UTC")),
                _ => {
                    let ends = OffsetBuffer::from_lengths(starts().zip(&run.ends).map(|(start, end)| end - start));
                    Arc::new(BinaryArray::try_new(ends, run.bytes.clone(), None).map_err(failed)?)
                }
            })
        };
        let wanted: Vec<usize> = self.projection.clone().unwrap_or_else(|| (0..BLOB_SCHEMA.fields().len()).collect());
        let columns = wanted.into_iter().map(column).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(failed)
    }
}

/// Id of the chunk at `offset`: 32 hex digits, a pure function of object, version and offset (promise P2).
pub fn document_id(object: &str, version: &str, offset: u64) -> String {
    digest_id(&[object, version, &offset.to_string()], 32)
}

/// The plain blocks of a split from byte `from` on, and how its object turned out to be compressed.
///
/// # Errors
/// As [`read_range`]; Decode when the first block cannot be had.
pub async fn open_split(location: Location, split: &Split, from: u64, shape: BlockShape) -> Result<(BlockStream, Compression)> {
    let mut blocks = read_range(location, split.version.to_string(), from..split.end, split.size, shape)?;
    let compression = match split.compression {
        Compression::Auto if from == 0 => match blocks.next().await.transpose()? {
            Some(first) => {
                let found = Compression::from_magic(first.bytes());
                blocks = blocks.with_first(first);
                found
            }
            None => Compression::None,
        },
        Compression::Auto => Compression::None,
        known => known,
    };
    if compression != Compression::None {
        blocks = decompress(split.object.to_string(), compression, blocks, shape)?;
    }
    Ok((blocks, compression))
}
