//! Each plan gives the rows of its twin in `sql/`.
#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use baler::statement::{parse, plan, substitute};
use baler::{Baler, Result};
use baler_plans::{compress_objects, compression_statistics, pack_records, restore, verification};
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;

/// Runs a file of `sql/` up to its last statement; returns the plan of that.
async fn last_plan(context: &SessionContext, file: &str, variables: &[(&str, String)]) -> Result<LogicalPlan> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql").join(file)).unwrap();
    let variables: HashMap<String, String> = variables.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    let mut statements = parse(&substitute(&text, &variables)?)?;
    let last = statements.pop().unwrap();
    for statement in statements {
        let plan = plan(context, statement).await?;
        context.execute_logical_plan(plan).await?.collect().await?;
    }
    plan(context, last).await
}

async fn rows(context: &SessionContext, plan: LogicalPlan) -> Result<RecordBatch> {
    let frame = context.execute_logical_plan(plan).await?;
    let schema = frame.schema().as_arrow().clone();
    Ok(concat_batches(&schema.into(), &frame.collect().await?).unwrap())
}

/// Rows of both, sorted by their first column.
async fn expect_equal(context: &SessionContext, sql: LogicalPlan, twin: LogicalPlan) -> Result<usize> {
    let sorted = |batch: RecordBatch| {
        let mut lines: Vec<String> = pretty_format_batches(&[batch]).unwrap().to_string().lines().map(String::from).collect();
        lines.sort();
        lines
    };
    let (sql, twin) = (rows(context, sql).await?, rows(context, twin).await?);
    let names = |batch: &RecordBatch| {
        batch.schema().fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect::<Vec<_>>()
    };
    assert_eq!(names(&sql), names(&twin));
    let count = sql.num_rows();
    assert_eq!(sorted(sql), sorted(twin));
    Ok(count)
}

/// The query of a file of `sql/` over the table `stored` in place of its own.
async fn stored_query(context: &SessionContext, file: &str, object: &str) -> Result<LogicalPlan> {
    let query = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql").join(file)).unwrap();
    let (_, select) = query.split_once(";\n").unwrap();
    let select = select.replace("FROM documents", "FROM stored").replace("${OBJECT}", object);
    plan(context, parse(&select)?.remove(0)).await
}

/// The content of chunks, which must come in order without a gap.
fn restored_bytes(rows: &RecordBatch) -> Vec<u8> {
    let (offsets, contents) = (rows.column(0).as_primitive::<Int64Type>(), rows.column(1).as_binary::<i32>());
    let mut content = Vec::new();
    for row in 0..rows.num_rows() {
        assert_eq!(offsets.value(row), content.len() as i64);
        content.extend_from_slice(contents.value(row));
    }
    content
}

#[tokio::test]
async fn plans_give_the_rows_of_their_sql() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(place("in")).unwrap();
    for number in 0..3 {
        let text: String = (0..20_000 * number).map(|line| format!("{{\"n\":{line},\"object\":{number}}}\n")).collect();
        std::fs::write(place(&format!("in/{number}.json")), text).unwrap();
    }
    let context = Baler::local()?;
    let insert = last_plan(&context, "compress.sql", &[("INPUT", place("in/")), ("OUTPUT", place("dump"))]).await?;
    let LogicalPlan::Dml(dml) = &insert else { panic_on("compress.sql ends with an INSERT") };
    let twin = compress_objects(&context, "objects").await?.into_unoptimized_plan();
    assert!(expect_equal(&context, dml.input.as_ref().clone(), twin).await? >= 2);

    context.execute_logical_plan(insert).await?.collect().await?;
    let stored = format!("CREATE EXTERNAL TABLE stored STORED AS BSON LOCATION '{}'", place("dump"));
    for statement in parse(&stored)? {
        let plan = plan(&context, statement).await?;
        context.execute_logical_plan(plan).await?;
    }
    let sql = stored_query(&context, "stats.sql", "").await?;
    let twin = compression_statistics(&context, "stored").await?.into_unoptimized_plan();
    assert_eq!(expect_equal(&context, sql, twin).await?, 1);

    let object = format!("file://{}", place("in/2.json"));
    let sql = stored_query(&context, "restore.sql", &object).await?;
    let twin = restore(&context, "stored", &object).await?;
    let content = restored_bytes(&rows(&context, twin.logical_plan().clone()).await?);
    assert!(content == std::fs::read(place("in/2.json")).unwrap(), "{} bytes came back", content.len());
    assert!(expect_equal(&context, sql, twin.into_unoptimized_plan()).await? >= 1);

    let sql = stored_query(&context, "verification.sql", "").await?;
    let twin = verification(&context, "stored").await?.into_unoptimized_plan();
    assert_eq!(expect_equal(&context, sql, twin).await?, 2, "the empty object has no document");
    Ok(())
}

/// Rows of chunks as a KAFKA table has them; `tests/it/stream.rs` runs the file itself on a real broker.
fn chunks(context: &SessionContext, name: &str, schema: SchemaRef) -> Result<()> {
    const CHUNKS: i64 = 5;
    let of_number = |make: &dyn Fn(i64) -> i64| (0..CHUNKS).map(make).collect::<Vec<_>>();
    let content: Vec<String> = (0..CHUNKS).map(|chunk| format!("{{\"chunk\":{chunk}}}\n").repeat(1000)).collect();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "id" => Arc::new(StringArray::from_iter_values((0..CHUNKS).map(|chunk| format!("id {chunk}")))),
            "topic" => Arc::new(StringArray::from_iter_values((0..CHUNKS).map(|_| "events"))),
            "partition" => Arc::new(Int32Array::from_iter_values(0..CHUNKS as i32)),
            "first_offset" => Arc::new(Int64Array::from(of_number(&|chunk| chunk * 1000))),
            "last_offset" => Arc::new(Int64Array::from(of_number(&|chunk| chunk * 1000 + 999))),
            "records" => Arc::new(Int64Array::from(of_number(&|_| 1000))),
            "byte_length" => Arc::new(Int64Array::from_iter_values(content.iter().map(|content| content.len() as i64))),
            "content" => Arc::new(BinaryArray::from_iter_values(&content)),
            _ => Arc::new(TimestampMillisecondArray::from(of_number(&|chunk| chunk * 60_000)).with_timezone("UTC")),
        }
    });
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap();
    context.register_table(name, Arc::new(MemTable::try_new(schema, vec![vec![rows]])?))?;
    Ok(())
}

#[tokio::test]
async fn packed_records_are_those_of_the_sql() -> Result<()> {
    let context = Baler::local()?;
    let variables = [("INPUT", "kafka://localhost:9092/events".to_string()), ("OUTPUT", "mongodb://localhost/db.documents".to_string())];
    let LogicalPlan::Dml(_) = last_plan(&context, "stream.sql", &variables).await? else { panic_on("stream.sql ends with an INSERT") };
    let schema = context.table_provider("feed").await?.schema();
    chunks(&context, "chunks", schema)?;
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/stream.sql")).unwrap();
    let (_, query) = text.split_once("INSERT INTO documents\n").unwrap();
    let sql = plan(&context, parse(&query.replace("FROM feed", "FROM chunks"))?.remove(0)).await?;
    let twin = pack_records(&context, "chunks").await?.into_unoptimized_plan();
    assert_eq!(expect_equal(&context, sql, twin).await?, 5);
    Ok(())
}

#[expect(clippy::panic, reason = "this is a test")]
fn panic_on(expected: &str) -> ! {
    panic!("not so: {expected}")
}
