//! The plan node of work whose answer is a row. Before: a table of items (objects, splits); after: one answer an item, as JSON.
//!
//! What is done to an item is a [`Task`]: `restore` and `verify` are two. The node's partitions share their items, so none is idle while
//! another has work left; on a fleet each task of a wave holds some of them.

use std::fmt;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::array::{RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::connector::queue::{Room, WorkQueue};
use crate::connector::split::{LeafRow, leaf_rows, leaf_table};
use crate::error::{Error, Result};

/// What is done to each item. It travels in a plan, so it holds no client and no secret.
#[async_trait]
pub trait Task: fmt::Debug + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What it is done to.
    type Item: LeafRow + fmt::Debug + Send + Sync + 'static;
    /// What comes of it.
    type Answer: Serialize + DeserializeOwned + Send;
    /// Name of the plan node.
    const NODE: &str;

    /// How large an item is; small ones are worked on together.
    fn bytes_of(item: &Self::Item) -> u64;

    /// How people see it in a plan.
    fn describe(&self) -> String;

    /// Does it. May be done twice to one item, by two processes at once.
    ///
    /// # Errors
    /// Those which end the whole work; what concerns one item alone may be in its answer.
    async fn perform(&self, item: Self::Item, env: &Arc<RuntimeEnv>) -> Result<Self::Answer>;
}

static ANSWER_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| Arc::new(Schema::new(vec![Field::new("answer", DataType::Utf8, false)])));

/// The answers in a batch of the node's rows.
///
/// # Errors
/// Decode, when a row is none of this version.
pub(super) fn read_answers<A: DeserializeOwned>(batch: &RecordBatch) -> Result<Vec<A>> {
    let broken = || Error::decode("a row of a fleet's answer cannot be read; scheduler, executors and client must be of one version");
    let column = batch.columns().first().and_then(|column| column.as_string_opt::<i32>()).ok_or_else(broken)?;
    let answers = column.iter().flatten().map(serde_json::from_str).collect::<serde_json::Result<Vec<_>>>();
    answers.map_err(|e| broken().with_source(e))
}

/// The items of each task, as a table whose scan works on them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct ItemTable<T: Task> {
    /// What is done.
    pub task: T,
    /// To what, by task of the plan.
    pub items: Vec<Vec<T::Item>>,
}

impl<T: Task> ItemTable<T> {
    /// The node over its items.
    ///
    /// # Errors
    /// Internal, when an item does not encode.
    pub(super) fn plan(&self) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(ItemExec::try_new(leaf_table(&self.items)?, self.task.clone())?))
    }
}

#[async_trait]
impl<T: Task> TableProvider for ItemTable<T> {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&ANSWER_SCHEMA)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        if projection.is_some_and(|columns| columns.as_slice() != [0]) {
            return Err(Error::internal(format!("{} yields its answers and nothing else", T::NODE)).into());
        }
        Ok(self.plan()?)
    }
}

/// Works on the items of its input.
#[derive(Debug)]
pub struct ItemExec<T: Task> {
    input: Arc<dyn ExecutionPlan>,
    task: T,
    queue: Arc<WorkQueue<T::Item>>,
    properties: Arc<PlanProperties>,
}

impl<T: Task> ItemExec<T> {
    /// A node over a table of items.
    ///
    /// # Errors
    /// Internal, when the input is no such table.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, task: T) -> Result<Self> {
        let items = leaf_rows::<T::Item>(input.as_ref())?;
        let items = items.ok_or_else(|| Error::internal(format!("{} reads a table of its items", T::NODE)))?;
        let queue = Arc::new(WorkQueue::new(items.into_iter().flatten(), T::bytes_of));
        let partitions = Partitioning::UnknownPartitioning(input.output_partitioning().partition_count());
        let equivalences = EquivalenceProperties::new(Arc::clone(&ANSWER_SCHEMA));
        let properties = PlanProperties::new(equivalences, partitions, EmissionType::Final, Boundedness::Bounded);
        Ok(Self { input, task, queue, properties: Arc::new(properties) })
    }

    /// What it does.
    pub fn task(&self) -> &T {
        &self.task
    }
}

impl<T: Task> DisplayAs for ItemExec<T> {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", T::NODE, self.task.describe())
    }
}

impl<T: Task> ExecutionPlan for ItemExec<T> {
    fn name(&self) -> &str {
        T::NODE
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
        let [input] = children.as_slice() else { return Err(Error::internal(format!("{} has one input", T::NODE)).into()) };
        Ok(Arc::new(Self::try_new(Arc::clone(input), self.task.clone())?))
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let (task, queue) = (self.task.clone(), Arc::clone(&self.queue));
        let answered = async move {
            let env = context.runtime_env();
            let mut answers = Vec::new();
            let perform = |item, room: Room| {
                let performing = task.perform(item, &env);
                async move {
                    let answer = performing.await;
                    drop(room);
                    answer
                }
            };
            queue.run(perform, |answer| answers.push(serde_json::to_string(&answer))).await?;
            let answers = answers.into_iter().collect::<serde_json::Result<Vec<_>>>();
            let answers = answers.map_err(|e| Error::internal("an answer does not encode").with_source(e))?;
            Ok(RecordBatch::try_new(Arc::clone(&ANSWER_SCHEMA), vec![Arc::new(StringArray::from(answers))])?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), futures::stream::once(answered))))
    }
}
