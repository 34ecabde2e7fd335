//! `count`, `min`, `max`, `sum` and `avg` of a collection, which the server computes where its answer is exactly that of the rows.
//!
//! [`DocumentAggregateExec`] stands over the aggregate which it spares. For each partition it puts one [`Question`] to the server, over
//! the same parts which the scan would read, and the server says in its answer whether all values have types whose order and sum
//! are the same on both sides. If they have not, the partition is read as if nobody had asked.

use std::fmt;
use std::sync::Arc;

use ::bson::{Bson, Document, RawDocumentBuf};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{CastExpr, Literal};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::SinkSpec;
use super::document::DocumentDecoder;
use super::documents::Part;
use super::mongodb::MongodbSpec;
use super::mongodb::aggregate::{self, ROWS, UNFIT};
use super::predicate::{Predicate, field, left_to_reader};
use super::push_down::{ScanBelow, scan_below};
use super::split::LeafReader;
use crate::error::{Error, Result};
use crate::runtime;

/// Sums below this are the same in doubles as in integers, whatever the order.
const EXACT_SUM_MAX: u128 = 1 << 53;

/// What a server is asked about some parts of a collection.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// What the documents fulfil.
    pub predicate: Option<Predicate>,
    /// What must hold of each of them, or the answer does not.
    pub types: Vec<FieldTypes>,
    /// What is wanted.
    pub wanted: Vec<Fact>,
}

/// The BSON types which a field may have, as `$type` names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTypes {
    /// Names from the outside in, with dots between them.
    pub path: String,
    /// With `missing`, if it need not be there.
    pub types: Vec<&'static str>,
}

/// A figure of many documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// How many there are.
    Rows,
    /// How many of them have a value in this field.
    Count(String),
    /// The least value.
    Min(String),
    /// The greatest value.
    Max(String),
    /// The sum of integers.
    Sum(String),
}

/// What an aggregate function is made of.
enum Aggregate {
    /// Of one figure.
    Plain(Fact),
    /// Of number and sum.
    Average(String),
}

/// Asks a server for what the aggregate below it would compute.
#[derive(Debug)]
pub struct DocumentAggregateExec {
    input: Arc<dyn ExecutionPlan>,
    spec: MongodbSpec,
    question: Question,
    metrics: ExecutionPlanMetricsSet,
}

impl DocumentAggregateExec {
    /// Over an aggregate of a scan; `None` where `input` is something else, or something which a server may answer otherwise.
    pub fn over(input: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let aggregate = input.downcast_ref::<AggregateExec>()?;
        let is_partial = match aggregate.mode() {
            AggregateMode::Partial => true,
            AggregateMode::Single => false,
            _ => return None,
        };
        let groups = aggregate.group_expr();
        if !groups.expr().is_empty() || aggregate.filter_expr().iter().any(Option::is_some) || aggregate.limit_options().is_some() {
            return None;
        }
        let functions = aggregate.aggr_expr();
        let arguments = functions.iter().map(|function| <[_; 1]>::try_from(function.expressions()).ok());
        let arguments = arguments.collect::<Option<Vec<_>>>()?.concat();
        let ScanBelow { scan, filter, expressions } = scan_below(aggregate.input(), arguments)?;
        let SinkSpec::Mongodb(spec) = scan.spec() else { return None };
        if scan.limit().is_some() || filter.is_none() && scan.predicate().is_some() {
            return None;
        }
        let columns = scan.schema();
        let predicate = match filter {
            Some(filter) => Some(left_to_reader(&filter, &columns).filter(|left| left.is_all)?.predicate),
            None => None,
        };
        let mut question = Question { predicate: None, types: Vec::new(), wanted: Vec::new() };
        for path in predicate.iter().flat_map(Predicate::paths) {
            question.demand(path, &columns, false)?;
        }
        question.predicate = predicate;
        for (function, argument) in functions.iter().zip(&expressions) {
            question.want(function, argument, &columns, is_partial)?;
        }
        (!question.wanted.is_empty()).then(|| Self {
            input: Arc::clone(input),
            spec: spec.clone(),
            question,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// The table of parts under all.
    fn leaf(&self) -> Option<Arc<dyn ExecutionPlan>> {
        let aggregate = self.input.downcast_ref::<AggregateExec>()?;
        let below = scan_below(aggregate.input(), Vec::new())?;
        below.scan.children().first().copied().cloned()
    }
}

impl Question {
    /// Adds what this function of `argument` is made of.
    fn want(
        &mut self,
        function: &AggregateFunctionExpr,
        argument: &Arc<dyn PhysicalExpr>,
        columns: &Schema,
        is_partial: bool,
    ) -> Option<()> {
        if function.is_distinct() || function.ignore_nulls() {
            return None;
        }
        let name = function.fun().name();
        let aggregate = match argument.downcast_ref::<Literal>() {
            Some(literal) => (name == "count" && !literal.value().is_null()).then_some(Aggregate::Plain(Fact::Rows))?,
            None => {
                // Sums and averages are of a wider type than their column.
                let cast = argument.downcast_ref::<CastExpr>().filter(|_| matches!(name, "sum" | "avg"));
                let (path, data_type) = field(cast.map_or(argument, CastExpr::expr), columns)?;
                self.demand(&path, columns, name == "count")?;
                match (name, data_type) {
                    ("count", _) => Aggregate::Plain(Fact::Count(path)),
                    ("min", data_type) if is_ordered(&data_type) => Aggregate::Plain(Fact::Min(path)),
                    ("max", data_type) if is_ordered(&data_type) => Aggregate::Plain(Fact::Max(path)),
                    ("sum", DataType::Int32 | DataType::Int64) => Aggregate::Plain(Fact::Sum(path)),
                    ("avg", DataType::Int32 | DataType::Int64) => Aggregate::Average(path),
                    _ => return None,
                }
            }
        };
        let states: Vec<DataType> = match is_partial {
            true => function.state_fields().ok()?.iter().map(|field| field.data_type().clone()).collect(),
            false => vec![function.field().data_type().clone()],
        };
        match (aggregate, states.as_slice()) {
            // A fact is a column, so an average is asked for where it travels as number and sum.
            (Aggregate::Plain(Fact::Sum(path)), [DataType::Int64]) => self.wanted.push(Fact::Sum(path)),
            (Aggregate::Plain(Fact::Sum(_)), _) => return None,
            (Aggregate::Plain(fact), [_]) => self.wanted.push(fact),
            (Aggregate::Average(path), [DataType::UInt64, DataType::Float64]) => {
                self.wanted.extend([Fact::Count(path.clone()), Fact::Sum(path)]);
            }
            _ => return None,
        }
        Some(())
    }

    /// Notes which types the field of a column may have on all its levels; `None` where its column has no such types.
    fn demand(&mut self, path: &str, columns: &Schema, is_counted: bool) -> Option<()> {
        let mut fields = columns.fields();
        let mut names = path.split('.').peekable();
        let mut so_far = String::new();
        while let Some(name) = names.next() {
            let (_, field) = fields.find(name)?;
            so_far = if so_far.is_empty() { name.to_string() } else { format!("{so_far}.{name}") };
            let mut types = match field.data_type() {
                DataType::Struct(within) if names.peek().is_some() => {
                    fields = within;
                    vec!["object"]
                }
                data_type => bson_types(data_type, is_counted)?,
            };
            // The reader refuses a document without a value here.
            if field.is_nullable() {
                types.extend(["null", "missing"]);
            }
            let expected = FieldTypes { path: so_far.clone(), types };
            if !self.types.contains(&expected) {
                self.types.push(expected);
            }
        }
        Some(())
    }
}

/// Types of values which a column of this type always takes, and which compare there as they do here. What is only counted need not compare.
fn bson_types(data_type: &DataType, is_counted: bool) -> Option<Vec<&'static str>> {
    Some(match data_type {
        DataType::Boolean => vec!["bool"],
        DataType::Int32 => vec!["int"],
        DataType::Int64 => vec!["int", "long"],
        DataType::Float64 => vec!["double", "int"],
        DataType::Timestamp(TimeUnit::Millisecond, _) => vec!["date"],
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => vec!["binData"],
        text if text.is_string() && is_counted => vec!["string", "objectId", "symbol"],
        text if text.is_string() => vec!["string"],
        _ => return None,
    })
}

/// Whether the least and greatest of such values are the same on both sides. Of doubles they are not: NaN and both zeros have another place.
fn is_ordered(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Boolean | DataType::Int32 | DataType::Int64 | DataType::Timestamp(TimeUnit::Millisecond, _))
        || data_type.is_string()
}

/// The row of an answer; `None` where it does not hold.
fn row(question: &Question, answer: &Document, schema: &SchemaRef) -> Result<Option<RecordBatch>> {
    // Over no documents there is no answer, which is one.
    let rows = if answer.is_empty() { 0 } else { number(answer, ROWS)? };
    if !question.types.is_empty() && rows > 0 && number(answer, UNFIT)? > 0 {
        return Ok(None);
    }
    let mut values = Document::new();
    for (index, fact) in question.wanted.iter().enumerate() {
        let name = aggregate::name(index);
        let value: Bson = match fact {
            Fact::Rows => rows.into(),
            Fact::Count(_) if rows == 0 => 0_i64.into(),
            Fact::Count(_) => number(answer, &name)?.into(),
            Fact::Min(_) | Fact::Max(_) => answer.get(&name).cloned().unwrap_or(Bson::Null),
            Fact::Sum(_) => match aggregate::bounds(index).map(|bound| answer.get(&bound).and_then(integer)) {
                [Some(least), Some(greatest)] => {
                    let largest = u128::from(least.unsigned_abs().max(greatest.unsigned_abs()));
                    if largest * u128::from(rows.unsigned_abs()) > EXACT_SUM_MAX {
                        return Ok(None);
                    }
                    let sum = number(answer, &name)?;
                    // As the column wants it: an average's sum is a double.
                    if schema.field(index).data_type() == &DataType::Float64 { (sum as f64).into() } else { sum.into() }
                }
                _ => Bson::Null,
            },
        };
        values.insert(name, value);
    }
    let named = |(index, field): (usize, &Arc<Field>)| Field::new(aggregate::name(index), field.data_type().clone(), true);
    let by_index: SchemaRef = Arc::new(Schema::new(schema.fields().iter().enumerate().map(named).collect::<Vec<_>>()));
    let values = RawDocumentBuf::try_from(&values).map_err(|e| Error::internal("an answer does not encode").with_source(e))?;
    let batch = DocumentDecoder::try_new(by_index)?.decode([values.as_bytes()])?;
    let batch = RecordBatch::try_new(Arc::clone(schema), batch.columns().to_vec());
    batch.map(Some).map_err(|e| Error::internal("an answer is no row of the aggregate").with_source(e))
}

fn number(answer: &Document, name: &str) -> Result<i64> {
    answer.get(name).and_then(integer).ok_or_else(|| Error::decode(format!("the server's answer has no number `{name}`: {answer}")))
}

fn integer(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(value) => Some((*value).into()),
        Bson::Int64(value) => Some(*value),
        _ => None,
    }
}

impl DisplayAs for DocumentAggregateExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DocumentAggregateExec: source={}, asked={:?}", self.spec.target(), self.question.wanted)
    }
}

impl ExecutionPlan for DocumentAggregateExec {
    fn name(&self) -> &str {
        "DocumentAggregateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
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
        let [input] = children.as_slice() else { return Err(Error::internal("DocumentAggregateExec has one input").into()) };
        // Above something else there is nothing to spare.
        Ok(match Self::over(input) {
            Some(asking) => Arc::new(asking),
            None => Arc::clone(input),
        })
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let leaf = self.leaf().ok_or_else(|| Error::internal("DocumentAggregateExec stands over a scan"))?;
        let mut leaf = LeafReader::<Part>::new(leaf.execute(partition, Arc::clone(&context))?);
        let (input, schema, spec, question) = (Arc::clone(&self.input), self.schema(), self.spec.clone(), self.question.clone());
        let answered = MetricBuilder::new(&self.metrics).counter("answered_by_server", partition);
        let rows = async move {
            let mut parts = Vec::new();
            while let Some(part) = leaf.next().await? {
                parts.push(part);
            }
            let asked = question.clone();
            let answer = runtime::spawn_io(async move { aggregate::ask(&spec, &parts, &asked).await })?.join().await??;
            let rows: BoxStream<'static, DataFusionResult<RecordBatch>> = match row(&question, &answer, &input.schema())? {
                Some(batch) => {
                    answered.add(1);
                    futures::stream::once(async { Ok(batch) }).boxed()
                }
                None => input.execute(partition, context)?.boxed(),
            };
            Ok::<_, DataFusionError>(rows)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(rows).try_flatten())))
    }
}

#[cfg(test)]
pub(crate) mod tests;
