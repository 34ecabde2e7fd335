//! Stored documents as a table: what `SELECT` reads of a MONGODB or BSON table.
//!
//! As every scan it is a table of what there is to read (here [`Part`]s: `_id` ranges of a collection, part files of a dump)
//! under a reader node which turns each into rows. Columns which the query does not name are not fetched from a server, nor are documents
//! which cannot pass its filters.

use std::fmt;
use std::sync::Arc;

use ::bson::RawDocumentBuf;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::SinkSpec;
use super::document::{DocumentDecoder, infer_schema};
use super::predicate::Predicate;
use super::split::LeafReader;
use crate::error::{Error, Result};
use crate::runtime;

/// Bytes of documents in one batch of rows.
const BATCH_BYTES: usize = 8 << 20;
/// Documents in one batch of rows: DataFusion's own batch size.
const BATCH_DOCS: usize = 8_192;
/// Documents which are looked at where a table has no declared columns.
const SAMPLE_DOCS: usize = 200;

/// What one reader reads. The parts of a table do not overlap and are all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A file of a dump, by its name in the folder.
    File(String),
    /// The whole collection.
    Collection,
    /// Documents whose `_id` is a text, from `from` on and before `until`; open where there is none.
    Texts {
        /// First `_id`.
        from: Option<String>,
        /// First `_id` which is not meant any more.
        until: Option<String>,
    },
    /// Documents whose `_id` is no text.
    NoTexts,
}

/// What a reader may leave out of a part.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    /// Fields which are wanted; all, if `None`.
    pub columns: Option<Vec<String>>,
    /// What wanted documents fulfil. A dump is read whole, whatever it says.
    pub predicate: Option<Predicate>,
    /// How many documents are wanted at most.
    pub limit: Option<usize>,
}

/// The schema of a sample of the stored documents.
///
/// # Errors
/// As [`SinkSpec::read`]; Config, when nothing is stored or its fields do not merge to columns.
pub async fn sample_schema(spec: &SinkSpec, env: &Arc<RuntimeEnv>) -> Result<SchemaRef> {
    let (spec_io, env) = (spec.clone(), Arc::clone(env));
    let documents: Vec<RawDocumentBuf> = runtime::spawn_io(async move {
        let mut found = Vec::new();
        for part in spec_io.parts(&env, 1).await? {
            let documents = spec_io.read(&env, &part, &Wanted { limit: Some(SAMPLE_DOCS - found.len()), ..Wanted::default() }).await?;
            found.extend(documents.try_collect::<Vec<_>>().await?);
            if found.len() >= SAMPLE_DOCS {
                break;
            }
        }
        Ok::<_, Error>(found)
    })?
    .join()
    .await??;
    if documents.is_empty() {
        return Err(Error::config(format!("nothing is stored in {}, so its columns are unknown; declare them", spec.target())));
    }
    let schema = infer_schema(documents.iter().map(|document| document.as_bytes()))?;
    Ok(Arc::new(schema))
}

/// Reads the parts of its input, one after the other, and yields their documents as rows.
#[derive(Debug, Clone)]
pub struct DocumentScanExec {
    input: Arc<dyn ExecutionPlan>,
    spec: SinkSpec,
    predicate: Option<Predicate>,
    limit: Option<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl DocumentScanExec {
    /// A reader over a table of parts, which yields the columns of `schema`, at most `limit` rows a part.
    ///
    /// # Errors
    /// Config, when a column has no BSON type.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, spec: SinkSpec, schema: SchemaRef, limit: Option<usize>) -> Result<Self> {
        Self::with_predicate(input, spec, schema, None, limit)
    }

    /// The same, which may leave out what does not fulfil `predicate`.
    ///
    /// # Errors
    /// As [`Self::try_new`].
    pub fn with_predicate(
        input: Arc<dyn ExecutionPlan>,
        spec: SinkSpec,
        schema: SchemaRef,
        predicate: Option<Predicate>,
        limit: Option<usize>,
    ) -> Result<Self> {
        DocumentDecoder::try_new(Arc::clone(&schema))?;
        let partitions = Partitioning::UnknownPartitioning(input.output_partitioning().partition_count());
        let properties =
            PlanProperties::new(EquivalenceProperties::new(schema), partitions, EmissionType::Incremental, Boundedness::Bounded);
        Ok(Self { input, spec, predicate, limit, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }

    /// The same over its parts, which may leave out what does not fulfil `predicate`.
    ///
    /// # Errors
    /// As [`Self::try_new`].
    pub fn filtered(&self, predicate: Predicate) -> Result<Self> {
        Self::with_predicate(Arc::clone(&self.input), self.spec.clone(), self.schema(), Some(predicate), self.limit)
    }

    /// What it reads.
    pub fn spec(&self) -> &SinkSpec {
        &self.spec
    }

    /// What the documents fulfil that it has to read.
    pub fn predicate(&self) -> Option<&Predicate> {
        self.predicate.as_ref()
    }

    /// How many rows of each part it reads at most.
    pub fn limit(&self) -> Option<usize> {
        self.limit
    }
}

impl DisplayAs for DocumentScanExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.schema();
        let columns: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "DocumentScanExec: source={}, projection={columns:?}, limit={:?}", self.spec.target(), self.limit)?;
        self.predicate.as_ref().map_or(Ok(()), |predicate| write!(f, ", predicate={predicate}"))
    }
}

impl ExecutionPlan for DocumentScanExec {
    fn name(&self) -> &str {
        "DocumentScanExec"
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
        let [input] = children.as_slice() else { return Err(Error::internal("DocumentScanExec has one input").into()) };
        let (spec, predicate) = (self.spec.clone(), self.predicate.clone());
        Ok(Arc::new(Self::with_predicate(Arc::clone(input), spec, self.schema(), predicate, self.limit)?))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let reader = PartReader {
            spec: self.spec.clone(),
            wanted: Wanted { columns: Some(column_names(&self.schema())), predicate: self.predicate.clone(), limit: self.limit },
            decoder: DocumentDecoder::try_new(self.schema())?,
            env: context.runtime_env(),
            output_rows: MetricBuilder::new(&self.metrics).output_rows(partition),
            parts: LeafReader::new(self.input.execute(partition, context)?),
            open: None,
        };
        let batches = futures::stream::try_unfold(reader, |mut reader| async move {
            let batch = reader.next_batch().await?;
            Ok::<_, DataFusionError>(batch.map(|batch| (batch, reader)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

/// Reads one partition's parts.
struct PartReader {
    spec: SinkSpec,
    wanted: Wanted,
    decoder: DocumentDecoder,
    env: Arc<RuntimeEnv>,
    output_rows: Count,
    parts: LeafReader<Part>,
    open: Option<BoxStream<'static, Result<RawDocumentBuf>>>,
}

impl PartReader {
    /// The next rows; `None` after the last part.
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let Some(mut open) = self.open.take() else {
                let Some(part) = self.parts.next().await? else { return Ok(None) };
                self.open = Some(self.open_part(part).await?);
                continue;
            };
            let (mut documents, mut bytes) = (Vec::new(), 0);
            while documents.len() < BATCH_DOCS && bytes < BATCH_BYTES {
                let Some(document) = open.try_next().await? else { break };
                bytes += document.as_bytes().len();
                documents.push(document);
            }
            if documents.is_empty() {
                continue;
            }
            self.open = Some(open);
            self.output_rows.add(documents.len());
            return self.decoder.decode(documents.iter().map(|document| document.as_bytes())).map(Some);
        }
    }

    async fn open_part(&mut self, part: Part) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
        let (spec, env, wanted) = (self.spec.clone(), Arc::clone(&self.env), self.wanted.clone());
        runtime::spawn_io(async move { spec.read(&env, &part, &wanted).await })?.join().await?
    }
}

fn column_names(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}
