//! A statement's way: SQL → plan → job → result.
//!
//! Before: text of a client; after: partitions at the executors, or rows of the scheduler's own. The plan comes from
//! [`statement::plan`], like that of every other statement of Baler.

use std::sync::Arc;
use std::time::Duration;

use ballista_core::JobId;
use ballista_core::planner::scans_only_information_schema;
use ballista_core::serde::protobuf::job_status::Status as State;
use ballista_core::serde::protobuf::{JobStatus, PartitionLocation, SuccessfulJob};
use ballista_scheduler::scheduler_server::event::SubmitPlan;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as Parsed;
use tokio::sync::mpsc;
use tonic::Status;

use super::analyze;
use super::encode::{failure_status, planning_status};
use super::session::LocalResult;
use crate::cluster::ballista_error;
use crate::cluster::scheduler::Scheduler;
use crate::error::Error;
use crate::{runtime, statement};

/// Statuses of a job which may wait to be read. They are read as they come, so this only takes up bursts.
pub(crate) const STATUSES_WAITING_MAX: usize = 16;

/// Characters of a statement in the name of its job: a line of `baler jobs list`.
const NAME_CHARS_MAX: usize = 60;

/// How settings begin which are of a process and not of a session: one of them names a folder, which is made at once.
const RUNTIME: &str = "datafusion.runtime.";

/// Pause between two looks at a job which is to be cancelled, and how many of them there are: ten minutes, in which the largest
/// job gets through its planning. A job cannot be cancelled before.
const CANCEL_PAUSE: Duration = Duration::from_millis(200);
const CANCEL_LOOKS_MAX: usize = 3000;

/// What a statement returned.
pub(super) enum Outcome {
    /// Rows, in the scheduler's memory: the catalog's answers.
    Here(LocalResult),
    /// Rows at the executors.
    AtExecutors { schema: SchemaRef, partitions: Vec<PartitionLocation> },
}

/// Plans the one statement in `sql`.
///
/// # Errors
/// `INVALID_ARGUMENT`, as the planner's, or when it is none or several; `UNIMPLEMENTED` for one which the fleet cannot run, with
/// what to do instead.
pub(super) async fn plan(context: &SessionContext, sql: &str) -> Result<LogicalPlan, Status> {
    let mut statements = statement::parse(sql).map_err(|e| planning_status(&e))?;
    let Some(parsed) = statements.pop() else { return Err(Status::invalid_argument("there is no statement in the request")) };
    if !statements.is_empty() {
        return Err(Status::invalid_argument(format!(
            "there are {} statements in the request; send them one by one",
            statements.len() + 1
        )));
    }
    if matches!(parsed, Parsed::CopyTo(_)) {
        return Err(Status::unimplemented(
            "COPY is not supported here; make a target with CREATE EXTERNAL TABLE … STORED AS BSON or MONGODB and run INSERT INTO … SELECT",
        ));
    }
    let plan = statement::plan(context, parsed).await.map_err(|e| planning_status(&e))?;
    match refusal(&plan) {
        Some(why) => Err(Status::unimplemented(why)),
        None => Ok(plan),
    }
}

/// Why the fleet cannot run a plan, wherever in it the reason is: `EXPLAIN` and subqueries do not hide it.
fn refusal(plan: &LogicalPlan) -> Option<&'static str> {
    let mut why = None;
    let visited = plan.apply_with_subqueries(|node| {
        why = match node {
            LogicalPlan::Copy(_) => Some("COPY is not supported here; run INSERT INTO a MONGODB or BSON table instead"),
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(_)) => Some(
                "CREATE TABLE would keep its rows in the scheduler's memory; use CREATE VIEW … AS SELECT for a name, or \
                 CREATE EXTERNAL TABLE … STORED AS BSON or MONGODB and INSERT INTO … SELECT for a copy",
            ),
            LogicalPlan::Statement(Statement::SetVariable(set)) if set.variable.to_ascii_lowercase().starts_with(RUNTIME) => {
                Some("memory, caches and the folder of temporary files are the server's own and are set where it is started")
            }
            LogicalPlan::Statement(Statement::Execute(_)) => {
                Some("EXECUTE is not supported here; prepare the statement through the driver instead")
            }
            _ => None,
        };
        Ok(if why.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    visited.err().map_or(why, |_| Some("the statement's plan cannot be looked through"))
}

/// Whether a plan writes, and so returns the number of its rows.
pub(super) fn is_write(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Dml(_))
}

/// Whether anything in a plan writes, or changes tables; settings of the own session are nobody else's matter.
pub(super) fn changes_something(plan: &LogicalPlan) -> bool {
    let is_change = |node: &LogicalPlan| matches!(node, LogicalPlan::Dml(_) | LogicalPlan::Ddl(_) | LogicalPlan::Copy(_));
    // A plan that cannot be looked through may hold anything.
    let mut found = false;
    let visited = plan.apply_with_subqueries(|node| {
        found |= is_change(node);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    visited.is_err() || found
}

/// Whether a plan changes the session and returns nothing.
pub(super) fn is_change_of_session(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Statement(_))
}

/// Whether a plan is answered by the scheduler itself: from its catalog, which executors know nothing of.
fn is_local(plan: &LogicalPlan) -> Result<bool, Status> {
    if is_change_of_session(plan) || matches!(plan, LogicalPlan::DescribeTable(_)) {
        return Ok(true);
    }
    scans_only_information_schema(plan).map_err(|e| Status::unimplemented(Error::from(e).to_string()))
}

/// Runs a plan to its end. Dropping the future cancels its job.
///
/// # Errors
/// As [`planning_status`] says, until the job is submitted; then as [`failure_status`].
pub(super) async fn run(
    scheduler: &Arc<Scheduler>,
    context: &Arc<SessionContext>,
    plan: LogicalPlan,
    sql: &str,
) -> Result<Outcome, Status> {
    if is_local(&plan)? {
        return run_here(context, plan).await.map(Outcome::Here).map_err(|e| planning_status(&e));
    }
    let name = job_name(sql);
    let (schema, plan) = match plan {
        // The scheduler adds the plan of stages to it, and so must get it whole.
        plan @ LogicalPlan::Explain(_) => (LogicalPlan::explain_schema(), SubmitPlan::Logical(plan)),
        LogicalPlan::Analyze(analyze) => {
            let (_, plan) = physical(context, &analyze.input).await?;
            let done = run_job(scheduler, context, &plan, &name).await?;
            let result = analyze::measured(scheduler, &done.id, Arc::clone(analyze.schema.inner())).await?;
            return Ok(Outcome::Here(result));
        }
        plan => physical(context, &plan).await?,
    };
    let done = run_job(scheduler, context, &plan, &name).await?;
    Ok(Outcome::AtExecutors { schema, partitions: done.partitions })
}

/// The plan as executors run it, and the schema of its rows, which may say less about nulls than the logical plan's.
async fn physical(context: &SessionContext, plan: &LogicalPlan) -> Result<(SchemaRef, SubmitPlan), Status> {
    let plan = context.state().create_physical_plan(plan).await.map_err(|e| planning_status(&e.into()))?;
    Ok((plan.schema(), SubmitPlan::Physical(plan)))
}

async fn run_here(context: &SessionContext, plan: LogicalPlan) -> crate::Result<LocalResult> {
    let frame = context.execute_logical_plan(plan).await?;
    let planned: SchemaRef = Arc::clone(frame.schema().inner());
    let batches = frame.collect().await?;
    // The promised schema must be the data's, which may say more about nulls than the plan's.
    let schema = batches.first().map_or(planned, |batch| batch.schema());
    Ok(LocalResult { schema, batches })
}

/// A job which is done.
struct Done {
    id: JobId,
    partitions: Vec<PartitionLocation>,
}

async fn run_job(scheduler: &Arc<Scheduler>, context: &Arc<SessionContext>, plan: &SubmitPlan, name: &str) -> Result<Done, Status> {
    let internal = |e| Status::internal(ballista_error(e).to_string());
    let (sender, mut statuses) = mpsc::channel(STATUSES_WAITING_MAX);
    let id = scheduler.submit_plan(name, Arc::clone(context), plan, Some(sender)).await.map_err(internal)?;
    let mut job = RunningJob { scheduler: Arc::clone(scheduler), id, is_over: false };
    let ended = loop {
        let status = match statuses.recv().await {
            Some(status) => status,
            // The scheduler has forgotten who listens, so the job is over.
            None => {
                job.is_over = true;
                let last = scheduler.state.task_manager.get_job_status(&job.id).await.map_err(internal)?;
                break last.and_then(end_of);
            }
        };
        if let Some(ended) = end_of(status) {
            break Some(ended);
        }
    };
    job.is_over = true;
    match ended {
        Some(Ok(done)) => Ok(Done { id: job.id.clone(), partitions: done.partition_location }),
        Some(Err(text)) if text == "Cancelled" => Err(Status::cancelled("the statement's job was cancelled")),
        Some(Err(text)) => Err(failure_status(&text)),
        None => Err(Status::internal(format!("job {} ended without a word", job.id))),
    }
}

fn end_of(status: JobStatus) -> Option<Result<SuccessfulJob, String>> {
    match status.status? {
        State::Successful(done) => Some(Ok(done)),
        State::Failed(failed) => Some(Err(failed.error)),
        State::Queued(_) | State::Running(_) => None,
    }
}

/// A job somebody waits for; when nobody does any more, it is cancelled.
struct RunningJob {
    scheduler: Arc<Scheduler>,
    id: JobId,
    is_over: bool,
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        tracing::info!(job_id = %self.id, "the client of a Flight SQL statement left; its job is cancelled");
        match runtime::server() {
            Ok(server) => drop(server.spawn(cancel(Arc::clone(&self.scheduler), self.id.clone()))),
            Err(error) => tracing::warn!(job_id = %self.id, %error, "the job of a client that left goes on"),
        }
    }
}

/// Cancels a job, however far it is: the scheduler overlooks the word as long as it plans.
async fn cancel(scheduler: Arc<Scheduler>, id: JobId) {
    for _ in 0..CANCEL_LOOKS_MAX {
        match scheduler.state.task_manager.get_job_status(&id).await.map(|status| status.and_then(|status| status.status)) {
            Ok(Some(State::Successful(_) | State::Failed(_))) => return,
            Ok(Some(State::Running(_))) => {
                if let Err(error) = scheduler.cancel_job(id.clone()).await {
                    tracing::warn!(job_id = %id, %error, "cannot cancel the job of a client that left");
                }
            }
            Ok(Some(State::Queued(_)) | None) | Err(_) => {}
        }
        tokio::time::sleep(CANCEL_PAUSE).await;
    }
    tracing::warn!(job_id = %id, "the job of a client that left could not be cancelled");
}

/// The beginning of a statement, on one line.
fn job_name(sql: &str) -> String {
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::local_session;

    async fn refused(sql: &str) -> String {
        plan(&local_session().unwrap(), sql).await.unwrap_err().message().to_string()
    }

    #[tokio::test]
    async fn what_cannot_run_is_refused_with_what_to_do_instead() {
        assert!(refused("SELECT 1; SELECT 2").await.contains("2 statements in the request; send them one by one"));
        assert!(refused(" ; ").await.contains("no statement"));
        assert!(refused("COPY (SELECT 1) TO 'x.csv'").await.contains("STORED AS BSON or MONGODB"));
        assert!(refused("CREATE TABLE t AS SELECT 1").await.contains("CREATE VIEW"));
        assert!(refused("SET datafusion.runtime.temp_directory = '/tmp/x'").await.contains("the server's own"));
        assert!(refused("EXPLAIN CREATE TABLE t AS SELECT 1").await.contains("CREATE VIEW"));
        assert!(!refused("SELECT * FROM nowhere").await.contains('\n'));
    }

    #[test]
    fn a_job_is_named_by_the_first_line_of_its_statement() {
        assert_eq!(job_name("SELECT\n  1\t;"), "SELECT 1 ;");
        let name = job_name(&"ü".repeat(500));
        assert_eq!(name.chars().count(), NAME_CHARS_MAX + 1);
    }
}
