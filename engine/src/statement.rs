//! SQL text → plans: variables, statements, and INSERT into a sink that has no declared columns.

use std::collections::HashMap;

use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{DdlStatement, DmlStatement, Expr, LogicalPlan, LogicalPlanBuilder, PlanType, ToStringifiedPlan, WriteOp};
use datafusion::sql::parser::{DFParser, ExplainStatement, Statement};
use datafusion::sql::sqlparser::ast::{Statement as SqlStatement, TableObject};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

use crate::connector::documents::sample_schema;
use crate::connector::sink::SinkTable;
use crate::error::{Error, Result};
use crate::options::nearest;

/// Replaces `${NAME}` from `given`, else from the environment.
///
/// # Errors
/// Config, when a name has no value: names the nearest given one.
pub fn substitute(text: &str, given: &HashMap<String, String>) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let end = after.find('}').ok_or_else(|| Error::config("`${` without `}` in the statement"))?;
        let name = &after[..end];
        let value = given.get(name).cloned().or_else(|| std::env::var(name).ok());
        let value = value.ok_or_else(|| {
            let hint = nearest(name, given.keys().map(String::as_str)).map(|near| format!("; given was `{near}`")).unwrap_or_default();
            Error::config(format!("${{{name}}} has no value; pass --set {name}=… or set it in the environment{hint}"))
        })?;
        // A value stands inside a quoted literal, so its own quotes are doubled.
        out.push_str(&value.replace('\'', "''"));
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Parses a file of statements.
///
/// # Errors
/// Config, with line and column.
pub fn parse(text: &str) -> Result<Vec<Statement>> {
    Ok(DFParser::parse_sql(text)?.into_iter().collect())
}

/// The same statements without comments. Not printed from what was parsed: that leaves the options of tables out.
fn without_comments(text: &str) -> Result<String> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).with_unescape(false).tokenize();
    let tokens = tokens.map_err(|e| Error::config(format!("the statements cannot be read: {e}")))?;
    let plain = tokens.iter().map(|token| match token {
        Token::Whitespace(Whitespace::SingleLineComment { .. }) => "\n".to_string(),
        Token::Whitespace(Whitespace::MultiLineComment(_)) => " ".to_string(),
        token => token.to_string(),
    });
    Ok(plain.collect::<String>().trim().to_string())
}

/// Runs the statements of a job, whose variables are replaced, up to its INSERT; returns them as they ran, and that.
///
/// # Errors
/// Config, when they do not end with an INSERT; else as [`plan()`].
pub async fn plan_job(context: &SessionContext, text: &str) -> Result<(String, DmlStatement)> {
    let statements = parse(text)?;
    let whole = without_comments(text)?;
    let mut insert: Option<DmlStatement> = None;
    for parsed in statements {
        if insert.is_some() {
            return Err(Error::config("a job file ends with its INSERT; put what follows it into a file of its own"));
        }
        match plan(context, parsed).await? {
            LogicalPlan::Dml(dml) => insert = Some(dml),
            plan => {
                context.execute_logical_plan(plan).await?.collect().await?;
            }
        }
    }
    let insert =
        insert.ok_or_else(|| Error::config("a job file needs an INSERT INTO a MONGODB or BSON table; use `baler sql` for queries"))?;
    Ok((whole, insert))
}

/// Plans one statement, or an EXPLAIN of it. An INSERT into a sink without declared columns takes those of its query; a query of
/// one takes those which a sample of the stored documents has.
///
/// # Errors
/// Config, as the planner's; what the store answers, where a sample is needed.
pub async fn plan(context: &SessionContext, statement: Statement) -> Result<LogicalPlan> {
    let (explain, statement) = match statement {
        Statement::Explain(ExplainStatement { options, statement }) => (Some(options), *statement),
        statement => (None, statement),
    };
    let explained = |statement| match &explain {
        Some(options) => Statement::Explain(ExplainStatement { options: options.clone(), statement: Box::new(statement) }),
        None => statement,
    };
    let insert = insert_parts(&statement);
    sample_tables(context, insert.as_ref().map_or(&statement, |insert| &insert.query)).await?;
    let state = context.state();
    if let Some(InsertParts { table, columns, query }) = insert {
        let provider = context.table_provider(table.clone()).await?;
        if let Some(sink) = provider.downcast_ref::<SinkTable>()
            && sink.schema.fields().is_empty()
        {
            let insert = |query: &Arc<LogicalPlan>| {
                let query = if columns.is_empty() { Arc::clone(query) } else { Arc::new(renamed(query, &columns)?) };
                let target = provider_as_source(Arc::new(sink.bind(query.schema().as_arrow(), None)));
                Ok::<_, Error>(LogicalPlan::Dml(DmlStatement::new(table.clone(), target, WriteOp::Insert(InsertOp::Append), query)))
            };
            // The EXPLAIN of the query is planned, and then the INSERT put between the two.
            return Ok(match state.statement_to_plan(explained(query)).await? {
                LogicalPlan::Explain(mut explain) => {
                    let insert = insert(&explain.plan)?;
                    explain.stringified_plans = vec![insert.to_stringified(PlanType::InitialLogicalPlan)];
                    explain.plan = Arc::new(insert);
                    LogicalPlan::Explain(explain)
                }
                LogicalPlan::Analyze(mut analyze) => {
                    analyze.input = Arc::new(insert(&analyze.input)?);
                    LogicalPlan::Analyze(analyze)
                }
                query => insert(&Arc::new(query))?,
            });
        }
    }
    Ok(state.statement_to_plan(explained(statement)).await?)
}

/// Runs statements which define tables, views and schemas.
///
/// # Errors
/// Config, for a statement which does anything else, or a table which is not valid.
pub async fn define_tables(context: &SessionContext, text: &str) -> Result<()> {
    for parsed in parse(text)? {
        let words = parsed.to_string();
        match plan(context, parsed).await? {
            plan @ LogicalPlan::Ddl(
                DdlStatement::CreateExternalTable(_)
                | DdlStatement::CreateView(_)
                | DdlStatement::CreateCatalogSchema(_)
                | DdlStatement::CreateCatalog(_),
            ) => {
                context.execute_logical_plan(plan).await?;
            }
            _ => return Err(Error::config(format!("only tables, views and schemas can be defined at the start, not `{words}`"))),
        }
    }
    Ok(())
}

/// Gives columns to the tables of stored documents which a query reads and which have none.
async fn sample_tables(context: &SessionContext, query: &Statement) -> Result<()> {
    if !matches!(query, Statement::Statement(inner) if matches!(inner.as_ref(), SqlStatement::Query(_))) {
        return Ok(());
    }
    for name in context.state().resolve_table_references(query)? {
        let Ok(provider) = context.table_provider(name.clone()).await else { continue }; // the planner says it better
        if let Some(table) = provider.downcast_ref::<SinkTable>()
            && table.schema.fields().is_empty()
        {
            let schema = sample_schema(&table.spec, &context.runtime_env()).await?;
            let sampled = SinkTable { spec: table.spec.clone(), schema, job: None };
            context.deregister_table(name.clone())?;
            context.register_table(name, Arc::new(sampled))?;
        }
    }
    Ok(())
}

/// A plain `INSERT INTO table [(columns)] SELECT …`.
struct InsertParts {
    table: TableReference,
    /// Names for the query's columns, in order; none where they keep their own.
    columns: Vec<String>,
    query: Statement,
}

fn insert_parts(statement: &Statement) -> Option<InsertParts> {
    let Statement::Statement(statement) = statement else { return None };
    let SqlStatement::Insert(insert) = statement.as_ref() else { return None };
    let TableObject::TableName(name) = &insert.table else { return None };
    let query = insert.source.as_ref()?;
    if insert.overwrite || insert.replace_into {
        return None;
    }
    let columns = insert.columns.iter().map(|name| match name.0.last().and_then(|part| part.as_ident()) {
        Some(name) if name.quote_style.is_none() => name.value.to_lowercase(),
        Some(name) => name.value.clone(),
        None => name.to_string(),
    });
    Some(InsertParts {
        table: TableReference::parse_str(&name.to_string()),
        columns: columns.collect(),
        query: Statement::Statement(Box::new(SqlStatement::Query(query.clone()))),
    })
}

/// The query with other names for its columns.
fn renamed(query: &LogicalPlan, columns: &[String]) -> Result<LogicalPlan> {
    let fields = query.schema().columns();
    if fields.len() != columns.len() {
        return Err(Error::config(format!("the INSERT names {} columns and its query has {}", columns.len(), fields.len())));
    }
    let names = fields.into_iter().zip(columns).map(|(field, name)| Expr::Column(field).alias(name));
    Ok(LogicalPlanBuilder::from(query.clone()).project(names)?.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_quotes_stay_inside_their_literal() {
        let given = HashMap::from([("INPUT".to_string(), "s3://b/it's".to_string())]);
        assert_eq!(substitute("LOCATION '${INPUT}';", &given).unwrap(), "LOCATION 's3://b/it''s';");
        let error = substitute("${INPUTS_NOT_SET}", &given).unwrap_err().to_string();
        assert!(error.contains("--set INPUTS_NOT_SET") && error.contains("`INPUT`"), "{error}");
    }

    #[test]
    fn statements_lose_their_comments_and_nothing_else() {
        let text = "-- a comment\nCREATE EXTERNAL TABLE \"o\" STORED AS BLOB LOCATION 'it''s -- no comment' /* one */ OPTIONS ('blob.boundary' 'a\n\n b');\nSELECT 1";
        let plain = without_comments(text).unwrap();
        let kept =
            "CREATE EXTERNAL TABLE \"o\" STORED AS BLOB LOCATION 'it''s -- no comment'   OPTIONS ('blob.boundary' 'a\n\n b');\nSELECT 1";
        assert_eq!(plain, kept);
        assert_eq!(parse(&plain).unwrap(), parse(text).unwrap());
    }
}
