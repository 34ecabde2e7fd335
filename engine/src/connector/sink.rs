//! The table in front of a sink: DDL → spec, INSERT → [`WriteExec`], SELECT → [`DocumentScanExec`].

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::error::Result as DataFusionResult;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{CreateExternalTable, Expr, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use super::SinkSpec;
use super::documents::DocumentScanExec;
use super::split::{deal, leaf_table};
use super::write::WriteExec;
use crate::error::{Error, Result};
use crate::job::JobRef;
use crate::runtime;
use crate::trust::reach;

/// A sink as a table.
#[derive(Debug)]
pub struct SinkTable {
    /// What the table writes to.
    pub spec: SinkSpec,
    /// The declared columns; without any, those of the inserting query.
    pub schema: SchemaRef,
    /// The job on whose behalf it writes.
    pub job: Option<JobRef>,
}

impl SinkTable {
    /// The same sink, taking the fields of a query where none were declared, and writing for `job`.
    pub fn bind(&self, query: &Schema, job: Option<JobRef>) -> Self {
        let schema = if self.schema.fields().is_empty() { Arc::new(query.clone()) } else { Arc::clone(&self.schema) };
        Self { spec: self.spec.clone(), schema, job }
    }
}

/// Makes sink tables for `CREATE EXTERNAL TABLE … STORED AS MONGODB | BSON`.
#[derive(Debug)]
pub struct SinkTableFactory;

impl TableProviderFactory for SinkTableFactory {
    // What `async fn` would come to, but that no future holds the command: the compiler checks all that is held, in each such function, and a
    // command holds whole plans.
    fn create<'a, 'b, 'c, 'f>(&'a self, _: &'b dyn Session, command: &'c CreateExternalTable) -> TableFuture<'f>
    where
        Self: 'f,
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        let table = |spec| Arc::new(SinkTable { spec, schema: Arc::clone(command.schema.inner()), job: None }) as Arc<dyn TableProvider>;
        ready(parse_spec(command).map(table).map_err(Into::into)).boxed()
    }
}

/// What a factory returns.
pub(super) type TableFuture<'f> = BoxFuture<'f, DataFusionResult<Arc<dyn TableProvider>>>;

fn parse_spec(command: &CreateExternalTable) -> Result<SinkSpec> {
    let format = command.file_type.to_ascii_uppercase();
    let [location] = command.locations.as_slice() else {
        return Err(Error::config(format!("a {format} table has one LOCATION")));
    };
    let spec = match format.as_str() {
        "MONGODB" => SinkSpec::Mongodb(super::mongodb::MongodbSpec::try_new(location, &command.options)?),
        "BSON" => SinkSpec::Bson(super::bson::BsonSpec::try_new(location, &command.options)?),
        _ => return Err(Error::config(format!("unknown table format {format}"))),
    };
    reach::check_location(location)?;
    Ok(spec)
}

#[async_trait]
impl TableProvider for SinkTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    // As in [`SinkTableFactory`]: no future holds the filters.
    fn scan<'a, 'b, 'c, 'd, 'f>(
        &'a self,
        session: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        _: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'f, DataFusionResult<Arc<dyn ExecutionPlan>>>
    where
        Self: 'f,
        'a: 'f,
        'b: 'f,
        'c: 'f,
        'd: 'f,
    {
        async move {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => Arc::clone(&self.schema),
            };
            let (spec, env, wanted) = (self.spec.clone(), Arc::clone(session.runtime_env()), session.config().target_partitions());
            let parts = runtime::spawn_io(async move { spec.parts(&env, wanted).await })?.join().await??;
            let leaf = leaf_table(&deal(&parts, wanted))?;
            Ok(Arc::new(DocumentScanExec::try_new(leaf, self.spec.clone(), schema, limit)?) as Arc<dyn ExecutionPlan>)
        }
        .boxed()
    }

    async fn insert_into(
        &self,
        _session: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        operation: InsertOp,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        if operation != InsertOp::Append {
            return Err(
                Error::config("INSERT OVERWRITE and REPLACE INTO are not supported; set mongodb.write_mode to 'replace' instead").into()
            );
        }
        sum_counts(Arc::new(WriteExec::try_new(input, self.spec.clone(), self.job.clone())?))
    }
}

/// One `count` row for the client out of one a partition.
fn sum_counts(write: Arc<dyn ExecutionPlan>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let all: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(write));
    let schema = all.schema();
    let count: Arc<dyn PhysicalExpr> = col("count", &schema)?;
    let sum = AggregateExprBuilder::new(sum_udaf(), vec![count]).schema(Arc::clone(&schema)).alias("count").build()?;
    let group = PhysicalGroupBy::new_single(vec![]);
    Ok(Arc::new(AggregateExec::try_new(AggregateMode::Single, group, vec![Arc::new(sum)], vec![None], all, schema)?))
}
