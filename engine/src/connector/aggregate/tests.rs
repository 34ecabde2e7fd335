//! Which aggregates a server is asked for, and which answers hold. Against a real server: `tests/it/push_down.rs`.

use std::collections::HashMap;

use async_trait::async_trait;
use bson::doc;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Fields, Int64Type};
use datafusion::catalog::{Session, TableProvider};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;

use super::*;
use crate::connector::documents::DocumentScanExec;
use crate::connector::split::leaf_table;
use crate::session::local_session;

/// A collection which is planned over and never reached.
#[derive(Debug)]
pub(crate) struct Unreached {
    schema: SchemaRef,
}

impl Unreached {
    /// With columns of several types.
    pub(crate) fn new() -> Self {
        let within = Fields::from(vec![Field::new("x", DataType::Int64, true)]);
        let fields = vec![
            Field::new("_id", DataType::Utf8View, false),
            Field::new("n", DataType::Int64, true),
            Field::new("ratio", DataType::Float64, true),
            Field::new("inner", DataType::Struct(within), true),
            Field::new("list", DataType::List(Field::new("item", DataType::Int64, true).into()), true),
        ];
        Self { schema: Arc::new(Schema::new(fields)) }
    }
}

#[async_trait]
impl TableProvider for Unreached {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let spec = MongodbSpec::try_new("mongodb://nowhere/db.documents", &HashMap::new())?;
        let cut = Some("m".to_string());
        let parts = [vec![Part::NoTexts, Part::Texts { from: None, until: cut.clone() }], vec![Part::Texts { from: cut, until: None }]];
        let columns: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&columns)?);
        Ok(Arc::new(DocumentScanExec::try_new(leaf_table(&parts)?, SinkSpec::Mongodb(spec), schema, limit)?))
    }
}

async fn plan(context: &SessionContext, query: &str) -> String {
    let plan = context.sql(query).await.unwrap().create_physical_plan().await.unwrap();
    displayable(plan.as_ref()).indent(true).to_string()
}

#[test]
fn a_server_is_asked_for_what_is_the_same_on_both_sides() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let context = local_session().unwrap();
        context.register_table("d", Arc::new(Unreached::new())).unwrap();
        for query in [
            "SELECT count(*) FROM d",
            "SELECT count(n), min(n), max(_id), sum(n), avg(n), count(ratio) FROM d",
            "SELECT count(*) FROM d WHERE n > 3 AND (inner['x'] IS NULL OR _id IN ('a', 'b', 'c', 'd'))",
            "SELECT max(n) FROM d WHERE ratio IS NOT NULL",
            "SELECT max(inner['x']), min(y) FROM (SELECT inner, n AS y FROM d WHERE n > 3) WHERE y < 9 AND inner['x'] IS NOT NULL",
        ] {
            let plan = plan(&context, query).await;
            assert!(plan.contains("DocumentAggregateExec"), "{query}: {plan}");
        }
        for query in [
            "SELECT max(ratio) FROM d",
            "SELECT count(list) FROM d",
            "SELECT count(*) FROM d WHERE ratio > 1.5",
            "SELECT count(*) FROM d WHERE n > 3 AND length(_id) = 1",
            "SELECT count(DISTINCT n) FROM d",
            "SELECT n, count(*) FROM d GROUP BY n",
            "SELECT count(*) FROM (SELECT * FROM d LIMIT 5)",
            "SELECT count(*) FROM d WHERE random() < 0.5",
            "SELECT max(n + 1) FROM d",
        ] {
            let plan = plan(&context, query).await;
            assert!(!plan.contains("DocumentAggregateExec"), "{query}: {plan}");
        }
    });
}

/// The row of an answer about count, least value and sum of `n`.
fn answered(answer: Document) -> Result<Option<RecordBatch>> {
    let n = || "n".to_string();
    let types = vec![FieldTypes { path: n(), types: vec!["int", "long"] }];
    let question = Question { predicate: None, types, wanted: vec![Fact::Count(n()), Fact::Min(n()), Fact::Sum(n())] };
    let fields: Vec<Field> = ["count", "min", "sum"].map(|name| Field::new(name, DataType::Int64, true)).into();
    row(&question, &answer, &Arc::new(Schema::new(fields)))
}

#[test]
fn an_answer_is_a_row_where_it_holds() {
    let good = doc! { "rows": 3, "unfit": 0, "fact0": 2, "fact1": 5, "fact2": 11_i64, "fact2min": 5, "fact2max": 6_i64 };
    let row = answered(good.clone()).unwrap().unwrap();
    let values: Vec<i64> = row.columns().iter().map(|column| column.as_primitive::<Int64Type>().value(0)).collect();
    assert_eq!(values, [2, 5, 11]);

    // Over nothing: zero, and no value at all.
    let row = answered(Document::new()).unwrap().unwrap();
    assert_eq!(row.column(0).as_primitive::<Int64Type>().value(0), 0);
    assert_eq!((row.column(1).null_count(), row.column(2).null_count()), (1, 1));

    let with = |name: &str, value: Bson| {
        let mut answer = good.clone();
        answer.insert(name, value);
        answered(answer)
    };
    assert!(with("unfit", 1.into()).unwrap().is_none(), "values of other types");
    assert!(with("fact2max", (1_i64 << 52).into()).unwrap().is_none(), "a sum beyond what a double holds");
    assert!(with("fact2min", i64::MIN.into()).unwrap().is_none());
    assert!(with("rows", Bson::Null).unwrap_err().to_string().contains("`rows`"));
    assert!(with("fact1", 1.5.into()).is_err(), "a double is no value of this column");
}
