//! The plan node which writes. Before: rows with an `_id`; after: one `count` row a partition.
//!
//! Every partition writes by itself, in parallel. Where the input is a plain chain over a split table (scan, filter,
//! projection), the node takes one split after the other: it runs the chain over that split alone, waits until every
//! document is acknowledged, and stores the split's receipt. A split which has its receipt already is not read again.
//! The node's partitions share one queue of splits, so no partition is idle while another has work left.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use datafusion::arrow::array::{RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, Time};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::StreamExt;
use tracing::Instrument;

use super::batch::BatchBuilder;
use super::blob::BlobScanExec;
use super::document::DocumentEncoder;
use super::kafka::KafkaScanExec;
use super::part::{TaskPartitions, part_name};
use super::queue::{Room, WorkQueue};
use super::receipt::{DocumentDigest, DocumentFacts, Receipt, SCHEMA_VERSION};
use super::split::{Split, leaf_rows, leaf_table};
use super::{Refused, SinkSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::function::zlib::for_one_split;
use crate::job::JobRef;
use crate::job::dead_letter::{DeadLetter, DeadLetterLog};
use crate::job::state::JobState;
use crate::runtime;
use crate::telemetry::{COUNTERS, Done, OpenSplit};

/// Writes its input's rows as documents.
#[derive(Debug)]
pub struct WriteExec {
    input: Arc<dyn ExecutionPlan>,
    spec: SinkSpec,
    job: Option<JobRef>,
    /// Splits not begun yet, shared by the partitions; filled when the node is made.
    queue: Option<Arc<WorkQueue<Split>>>,
    /// The task of the fleet which runs it.
    task: Option<TaskPartitions>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// What the copies of the nodes below did, from the input down; none where it does not run split by split.
    chain: Vec<ExecutionPlanMetricsSet>,
}

impl WriteExec {
    /// A writer over `input`; with `job`, receipts go into its state.
    ///
    /// # Errors
    /// Config, when a column has no BSON type or there is no `_id`: before anything is read.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, spec: SinkSpec, job: Option<JobRef>) -> Result<Self> {
        let encoder = DocumentEncoder::try_new(&input.schema())?;
        if encoder.id_index().is_none() {
            return Err(Error::config(format!(
                "the query for {} has no column `_id`: without a deterministic _id a repeated split would double its documents; \
                 name one, for instance `id AS _id`",
                spec.target()
            )));
        }
        let queue = split_leaf(&input)?.map(|partitions| Arc::new(WorkQueue::new(partitions.into_iter().flatten(), Split::work_bytes)));
        let schema = Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]));
        let partitions = Partitioning::UnknownPartitioning(input.output_partitioning().partition_count());
        let properties = PlanProperties::new(EquivalenceProperties::new(schema), partitions, EmissionType::Final, Boundedness::Bounded);
        let chain = queue.iter().flat_map(|_| chain_of(&input)).map(|_| ExecutionPlanMetricsSet::new()).collect();
        let (properties, metrics) = (Arc::new(properties), ExecutionPlanMetricsSet::new());
        Ok(Self { input, spec, job, queue, task: None, properties, metrics, chain })
    }

    /// The same writer as a part of `task`.
    ///
    /// # Errors
    /// As [`Self::try_new`].
    pub fn in_task(&self, task: TaskPartitions) -> Result<Self> {
        let writer = Self::try_new(Arc::clone(&self.input), self.spec.clone(), self.job.clone())?;
        Ok(Self { task: Some(task), ..writer })
    }

    /// Where it writes.
    pub fn sink(&self) -> &SinkSpec {
        &self.spec
    }

    /// On whose behalf it writes.
    pub fn job(&self) -> Option<&JobRef> {
        self.job.as_ref()
    }

    /// What the nodes below have done as copies, one for each split; from the input down. A scan's copies count for the scan itself.
    pub fn chain_metrics(&self) -> &[ExecutionPlanMetricsSet] {
        &self.chain
    }

    /// Whether the input can be run split by split.
    pub fn is_split_parallel(&self) -> bool {
        self.queue.is_some()
    }

    /// Whether every row of the source is written: no node between it and the sink drops any.
    pub fn keeps_every_row(&self) -> bool {
        let mut next = Some(&self.input);
        while let Some(plan) = next {
            if plan.name() == "FilterExec" {
                return false;
            }
            next = plan.children().first().copied();
        }
        self.is_split_parallel()
    }
}

impl DisplayAs for WriteExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteExec: target={}, by_split={}", self.spec.target(), self.is_split_parallel())?;
        self.job.as_ref().map_or(Ok(()), |job| write!(f, ", job={}", job.name))
    }
}

impl ExecutionPlan for WriteExec {
    fn name(&self) -> &str {
        "WriteExec"
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
        let [input] = children.as_slice() else { return Err(Error::internal("WriteExec has one input").into()) };
        let writer = Self::try_new(Arc::clone(input), self.spec.clone(), self.job.clone())?;
        Ok(Arc::new(Self { task: self.task.clone(), ..writer }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let part = PartWriter {
            plan: Arc::clone(&self.input),
            encoder: DocumentEncoder::try_new(&self.input.schema())?,
            spec: self.spec.clone(),
            job: self.job.clone(),
            documents: MetricBuilder::new(&self.metrics).counter("documents", partition),
            document_bytes: MetricBuilder::new(&self.metrics).counter("document_bytes", partition),
            splits: MetricBuilder::new(&self.metrics).counter("splits", partition),
            chain: self.chain.iter().map(|node| NodeFigures::new(node, partition)).collect(),
            context,
        };
        let (queue, task, schema) = (self.queue.clone(), self.task.clone(), self.schema());
        let written = async move {
            if part.job.is_none() {
                // A job's driver has prepared the target before it stored the manifest.
                part.prepare().await?;
            }
            let count = match queue {
                Some(queue) => part.write_splits(&queue).await?,
                None => part.write_partition(partition, &part_name(part.job.as_ref(), task.as_ref(), partition)).await?,
            };
            Ok(RecordBatch::try_new(schema, vec![Arc::new(UInt64Array::from(vec![count]))])?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), futures::stream::once(written))))
    }
}

/// Nodes which treat each row by itself, so that running them split by split is the same as running them at once.
fn is_row_wise(plan: &dyn ExecutionPlan) -> bool {
    matches!(plan.name(), "ProjectionExec" | "FilterExec" | "CoalesceBatchesExec" | "CooperativeExec" | "BlobScanExec" | "KafkaScanExec")
        && plan.children().len() == 1
        // A filter may carry a LIMIT, which counts over all splits.
        && plan.fetch().is_none()
}

/// The splits at the end of a chain of row-wise nodes, by partition; `None` if the plan is anything else.
fn split_leaf(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Vec<Vec<Split>>>> {
    if let Some(splits) = leaf_rows(plan.as_ref())? {
        return Ok(Some(splits));
    }
    match plan.children().as_slice() {
        [input] if is_row_wise(plan.as_ref()) => split_leaf(input),
        _ => Ok(None),
    }
}

/// A plan and the nodes below it, as far as each has one input.
fn chain_of(plan: &Arc<dyn ExecutionPlan>) -> impl Iterator<Item = &Arc<dyn ExecutionPlan>> {
    std::iter::successors(Some(plan), |plan| plan.children().first().copied())
}

/// What the copies of one node did.
struct NodeFigures {
    rows: Count,
    compute: Time,
}

impl NodeFigures {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let (rows, compute) = (MetricBuilder::new(metrics).output_rows(partition), MetricBuilder::new(metrics).elapsed_compute(partition));
        Self { rows, compute }
    }

    /// Adds what `copy` did. A scan's copies share its metrics, which are as many as there are splits: they are not even looked at.
    fn add(&self, copy: &dyn ExecutionPlan) {
        if !copy.is::<BlobScanExec>()
            && !copy.is::<KafkaScanExec>()
            && let Some(did) = copy.metrics()
        {
            self.rows.add(did.output_rows().unwrap_or_default());
            self.compute.add_duration(Duration::from_nanos(did.elapsed_compute().unwrap_or_default() as u64));
        }
    }
}

/// The same chain over one split.
fn narrow_to_split(plan: &Arc<dyn ExecutionPlan>, split: &Split, log: &DeadLetterLog) -> Result<Arc<dyn ExecutionPlan>> {
    let children = plan.children();
    let Some(input) = children.first() else { return leaf_table(&[vec![split.clone()]]) };
    let input = narrow_to_split(input, split, log)?;
    if let Some(scan) = plan.downcast_ref::<BlobScanExec>() {
        return Ok(Arc::new(scan.with_input(input, log.clone())));
    }
    if let Some(scan) = plan.downcast_ref::<KafkaScanExec>() {
        return Ok(Arc::new(scan.with_input(input, log.clone())));
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let narrow = |column: &ProjectionExpr| -> DataFusionResult<_> {
            Ok(ProjectionExpr { expr: for_one_split(&column.expr)?, alias: column.alias.clone() })
        };
        let columns = projection.expr().iter().map(narrow).collect::<DataFusionResult<Vec<_>>>()?;
        return Ok(Arc::new(ProjectionExec::try_new(columns, input)?));
    }
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Ok(Arc::clone(plan).replace_children(vec![input], options)?)
}

/// How often a writer outside of a job tries to prepare its target, and the first pause in between.
const PREPARE_ATTEMPTS: u32 = 4;
const PREPARE_PAUSE: Duration = Duration::from_millis(200);

/// Totals of one part.
#[derive(Default)]
struct Totals {
    /// Rows which came.
    chunks: u64,
    documents: u64,
    records: i64,
    raw_bytes: i64,
    compressed_bytes: i64,
    /// First byte and byte after the last, of documents which carry their place.
    range: Option<(u64, u64)>,
    already_there: u64,
    digest: DocumentDigest,
    refused: Vec<Refused>,
}

/// What one partition needs in order to write.
struct PartWriter {
    plan: Arc<dyn ExecutionPlan>,
    encoder: DocumentEncoder,
    spec: SinkSpec,
    job: Option<JobRef>,
    documents: Count,
    document_bytes: Count,
    splits: Count,
    chain: Vec<NodeFigures>,
    context: Arc<TaskContext>,
}

impl PartWriter {
    /// Prepares the target; tries again if it cannot be reached, because a task which fails for that fails its job.
    async fn prepare(&self) -> Result<()> {
        let mut attempts = 1;
        while let Err(error) = self.spec.prepare(&self.context.runtime_env()).await {
            if error.kind() != ErrorKind::Unreachable || attempts == PREPARE_ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(PREPARE_PAUSE * attempts).await;
            attempts += 1;
        }
        Ok(())
    }

    /// Takes splits from the queue until it is empty: one at a time, or a few if they are small.
    async fn write_splits(&self, queue: &WorkQueue<Split>) -> Result<u64> {
        let state = self.job.as_ref().map(|job| JobState::open(&self.context.runtime_env(), job)).transpose()?;
        let mut count = 0;
        let write = |split: Split, room: Room| {
            let state = state.as_ref();
            let job = self.job.as_ref().map(|job| job.name.as_str());
            let span = tracing::info_span!("split", job, split = split.id.as_str());
            async move { self.write_split(&split, state, room).await }.instrument(span)
        };
        let done = |documents| {
            count += documents;
            self.splits.add(1);
        };
        queue.run(write, done).await?;
        Ok(count)
    }

    /// Writes one split and stores its receipt; answers from the receipt if there is one.
    async fn write_split(&self, split: &Split, state: Option<&JobState>, room: Room) -> Result<u64> {
        if let Some(state) = state
            && let Some(receipt) = state.receipt(&split.id).await?
        {
            return Ok(receipt.documents);
        }
        let (started, _open) = (Utc::now(), OpenSplit::begin(&split.id));
        let log = DeadLetterLog::default();
        let chain = narrow_to_split(&self.plan, split, &log)?;
        let rows = chain.execute(0, Arc::clone(&self.context))?;
        let totals = self.write_rows(rows, &split.id, Some(room)).await?;
        self.chain.iter().zip(chain_of(&chain)).for_each(|(node, copy)| node.add(copy.as_ref()));
        let done = totals.done();
        for refused in totals.refused {
            log.add(DeadLetter::document(split, refused.id, refused.reason));
        }
        let dead_letters = log.take();
        let Some(state) = state else {
            return match dead_letters.first() {
                None => {
                    COUNTERS.add_done(&done, 1);
                    Ok(totals.documents)
                }
                Some(letter) => Err(Error::permanent(format!("{}; run it with `baler run` to keep dead letters", letter.reason))),
            };
        };
        state.put_dead_letters(&split.id, &dead_letters).await?;
        let receipt = Receipt {
            schema_version: SCHEMA_VERSION,
            split: split.id.clone(),
            documents: totals.documents,
            records: totals.records as u64,
            raw_bytes: totals.raw_bytes as u64,
            compressed_bytes: totals.compressed_bytes as u64,
            first_byte: totals.range.map(|(first, _)| first),
            next_byte: totals.range.map(|(_, next)| next),
            already_there: totals.already_there,
            dead_letters: dead_letters.len() as u64,
            digest: totals.digest.finish(),
            attempt: self.job.as_ref().map_or(1, |job| job.attempt),
            executor: executor_name(),
            started,
            finished: Utc::now(),
        };
        // Of two attempts which both wrote the split, the one whose receipt holds counts.
        if state.put_receipt(&receipt).await? {
            COUNTERS.add_done(&done, 1);
            COUNTERS.add_dead_letters(&dead_letters);
            tracing::debug!(documents = done.documents, raw_bytes = done.raw_bytes, dead_letters = dead_letters.len(), "a split is done");
        }
        Ok(totals.documents)
    }

    /// Writes a partition of a plan which has no splits.
    async fn write_partition(&self, partition: usize, part: &str) -> Result<u64> {
        let rows = self.plan.execute(partition, Arc::clone(&self.context))?;
        let totals = self.write_rows(rows, part, None).await?;
        match totals.refused.first() {
            Some(refused) => Err(Error::permanent(format!("document {}: {}", refused.id, refused.reason))),
            None => {
                // Of a job without splits, the driver stores the one receipt and counts its documents.
                let documents = if self.job.is_some() { 0 } else { totals.documents };
                COUNTERS.add_done(&Done { documents, ..totals.done() }, 0);
                Ok(totals.documents)
            }
        }
    }

    /// The row's way: batch of rows → documents → batches → sink. Gives the room back when all rows are read.
    async fn write_rows(&self, mut rows: SendableRecordBatchStream, part: &str, room: Option<Room>) -> Result<Totals> {
        let (spec, env, name) = (self.spec.clone(), self.context.runtime_env(), part.to_string());
        let mut writer = runtime::spawn_io(async move { spec.open(&env, &name).await })?.join().await??;
        let mut batches = BatchBuilder::new(self.spec.limits());
        let mut totals = Totals::default();
        loop {
            let waited = Instant::now();
            let next = match batches.deadline() {
                None => rows.next().await,
                Some(deadline) => match tokio::time::timeout_at(deadline.into(), rows.next()).await {
                    Ok(next) => next,
                    Err(_elapsed) => {
                        if let Some(batch) = batches.take() {
                            writer.write(batch).await?;
                        }
                        continue;
                    }
                },
            };
            COUNTERS.row_wait.add_since(waited);
            let Some(rows) = next else { break };
            let rows = rows?;
            totals.chunks += rows.num_rows() as u64;
            let documents = self.encoder.encode(&rows)?;
            for refused in documents.refused() {
                let refused = Refused { id: self.id_of(&rows, refused.row)?, reason: refused.reason.clone() };
                if !self.spec.keeps_dead_letters() {
                    return Err(Error::permanent(format!(
                        "{} cannot take document {}: {}",
                        self.spec.target(),
                        refused.id,
                        refused.reason
                    )));
                }
                totals.refused.push(refused);
            }
            for document in documents.iter() {
                totals.add(&DocumentFacts::read(document)?);
            }
            self.documents.add(documents.len());
            for batch in batches.add(documents) {
                self.document_bytes.add(batch.bytes().len());
                let waited = Instant::now();
                writer.write(batch).await?;
                COUNTERS.sink_wait.add_since(waited);
            }
        }
        drop((rows, room));
        if let Some(batch) = batches.take() {
            self.document_bytes.add(batch.bytes().len());
            writer.write(batch).await?;
        }
        let waited = Instant::now();
        let written = writer.finish().await?;
        COUNTERS.sink_wait.add_since(waited);
        totals.already_there = written.already_there;
        totals.documents -= written.refused.len() as u64;
        totals.refused.extend(written.refused);
        Ok(totals)
    }
}

impl PartWriter {
    /// The `_id` of a row, as text, for an error or a dead letter.
    fn id_of(&self, rows: &RecordBatch, row: usize) -> Result<String> {
        let column = self.encoder.id_index().map(|index| rows.column(index)).ok_or_else(|| Error::internal("the rows have no _id"))?;
        array_value_to_string(column, row).map_err(|e| Error::internal("an _id cannot be shown").with_source(e))
    }
}

impl Totals {
    fn done(&self) -> Done {
        Done {
            chunks: self.chunks,
            documents: self.documents,
            records: self.records as u64,
            raw_bytes: self.raw_bytes as u64,
            compressed_bytes: self.compressed_bytes as u64,
        }
    }

    fn add(&mut self, facts: &DocumentFacts) {
        self.documents += 1;
        self.records += facts.records;
        self.raw_bytes += facts.original_size;
        self.compressed_bytes += facts.compressed_size;
        if facts.has_place() {
            let (first, next) = (facts.byte_offset as u64, facts.next_offset as u64);
            self.range = Some(self.range.map_or((first, next), |(low, high)| (low.min(first), high.max(next))));
        }
        self.digest.add(facts);
    }
}

/// `host/pid`: where a receipt came from.
fn executor_name() -> String {
    let host = std::env::var("HOSTNAME").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    format!("{}/{}", host.as_deref().unwrap_or("localhost").trim(), std::process::id())
}
