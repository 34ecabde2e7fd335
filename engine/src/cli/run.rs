//! `baler run`: a batch job from a SQL file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::DmlStatement;
use serde::Serialize;
use tracing::Instrument;

use super::metrics::{DashboardArgs, MetricsArgs};
use super::progress::show_progress;
use super::{Output, print_json, print_line};
use crate::cluster::client::Fleet;
use crate::error::{Error, Result};
use crate::job::JobRef;
use crate::job::run::{Job, Outcome};
use crate::job::state::Commit;
use crate::options::format_bytes;
use crate::runtime::stop_signal;
use crate::session::SessionParts;
use crate::statement;
use crate::telemetry::log::{name_job, say};
use crate::telemetry::publish_job;
use crate::telemetry::text::Published;

/// What a round's number takes the place of.
const ROUND: &str = "{round}";

/// Which job it is, and where.
#[derive(Debug, Args)]
pub(super) struct JobArgs {
    /// The statements; the last one is an INSERT into a MONGODB or BSON table.
    file: PathBuf,
    /// Name of the job; the file's name if not given.
    #[arg(long, env = "BALER_JOB")]
    job: Option<String>,
    /// Folder or bucket for the state of all jobs.
    #[arg(long, env = "BALER_STATE", default_value = "./baler-state")]
    state: String,
    /// The scheduler of the fleet that does the work, df://host:50050 or dfs:// for TLS; without one this process does.
    #[arg(long, env = "BALER_SCHEDULER")]
    scheduler: Option<String>,
    /// A value for `${KEY}` in the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl JobArgs {
    /// The text of the file and the values for its variables.
    pub(super) fn statements(&self) -> Result<(String, HashMap<String, String>)> {
        Ok((read_file(&self.file)?, parse_variables(&self.set)?))
    }

    /// The job, by its name or that of its file.
    pub(super) fn place(&self) -> Result<JobRef> {
        let of_file = || self.file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("job");
        JobRef::try_new(&self.state, self.job.as_deref().unwrap_or_else(of_file))
    }

    /// Whether a value says where it has the number of a round of `baler chaos`.
    pub(super) fn has_rounds(&self) -> bool {
        self.set.iter().any(|word| word.contains(ROUND))
    }

    /// The job of a round, and the command which runs it.
    pub(super) fn round(&self, number: u32) -> Result<(JobRef, Vec<String>)> {
        let mut place = self.place()?;
        place.name = format!("{}-{number}", place.name);
        let mut words = vec!["run".to_string(), self.file.display().to_string()];
        let flags =
            [("--job", &place.name), ("--state", &self.state)].into_iter().chain(self.scheduler.iter().map(|url| ("--scheduler", url)));
        words.extend(flags.flat_map(|(flag, value)| [flag.to_string(), value.clone()]));
        words.extend(self.set.iter().flat_map(|word| ["--set".to_string(), word.replace(ROUND, &number.to_string())]));
        Ok((place, words))
    }

    /// The fleet which does the work, if one is named.
    pub(super) fn scheduler(&self) -> Option<&str> {
        self.scheduler.as_deref()
    }
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
    #[command(flatten)]
    dashboard: DashboardArgs,
}

/// A finished run, for machines.
#[derive(Debug, Serialize)]
struct RunResult<'a> {
    #[serde(flatten)]
    commit: &'a Commit,
    attempt: u32,
    written_now: u64,
    seconds: f64,
}

pub(super) async fn run(args: RunArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    let ((text, variables), place) = (args.job.statements()?, args.job.place()?);
    let name = place.name.clone();
    name_job(&name);
    let started = Instant::now();
    let published = Published::default();
    let served = args.metrics.serve(&published, Some(&args.job.state), parts).await?;
    let fleet = Fleet::connect_if_named(args.job.scheduler(), parts).await?;
    let context = parts.local()?;
    let mut dashboard = args.dashboard.serve(&args.metrics, &place, &context, &published, parts, fleet.is_some()).await?;
    let job = prepare_job(&context, fleet.clone(), &text, &variables, place).await?;
    let attempt = job.attempt();
    publish_job(&published, &name, job.size(), job.figures());
    let outcome = tokio::select! {
        outcome = run_job(&name, job) => outcome?,
        () = dashboard.cancelled() => {
            return Err(Error::permanent(format!("job `{name}` was cancelled; run the same command again to go on where it stopped")));
        }
        signal = stop_signal() => {
            if let Some(fleet) = fleet {
                fleet.cancel_parts(&name).await?;
            }
            say(&format!("stopped by {}; run the same command again to go on where job `{name}` stopped", signal?));
            return Ok(ExitCode::from(1));
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    args.metrics.finish(served).await;
    match output {
        Output::Json => print_json(&RunResult { commit: &outcome.commit, attempt, written_now: outcome.written_now, seconds })?,
        Output::Text => print_outcome(&outcome, seconds),
    }
    Ok(ExitCode::SUCCESS)
}

/// The text of a SQL file.
pub(super) fn read_file(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|e| Error::config(format!("cannot read {}: {e}", file.display())))
}

/// `KEY=VALUE` words → map.
pub(super) fn parse_variables(words: &[String]) -> Result<HashMap<String, String>> {
    words
        .iter()
        .map(|word| {
            let (key, value) = word.split_once('=').ok_or_else(|| Error::config(format!("--set {word}: write KEY=VALUE")))?;
            Ok((key.to_string(), value.to_string()))
        })
        .collect()
}

/// Runs a file's statements up to its INSERT and prepares that as a job.
pub(super) async fn prepare_job(
    context: &SessionContext,
    fleet: Option<Fleet>,
    text: &str,
    variables: &HashMap<String, String>,
    job: JobRef,
) -> Result<Job> {
    let (whole, insert) = plan_insert(context, text, variables).await?;
    Job::prepare(context, fleet, job, &whole, insert).await
}

/// Runs a file's statements up to its INSERT; returns them as they ran, and that.
pub(super) async fn plan_insert(
    context: &SessionContext,
    text: &str,
    variables: &HashMap<String, String>,
) -> Result<(String, DmlStatement)> {
    statement::plan_job(context, &statement::substitute(text, variables)?).await
}

/// Runs a prepared job with its progress on stderr.
pub(super) async fn run_job(name: &str, job: Job) -> Result<Outcome> {
    let (all, done) = job.splits();
    let (bytes, pending) = job.bytes();
    let span = tracing::info_span!("job", job = name, attempt = job.attempt());
    let progress = span.in_scope(|| {
        if done > 0 {
            say(&format!("{name}: {done} of {all} splits are done already"));
        }
        show_progress(name, ["read", "documents"], bytes, bytes - pending, job.figures())
    })?;
    let outcome = job.run().instrument(span).await;
    progress.stop().await;
    outcome
}

pub(super) fn print_outcome(outcome: &Outcome, seconds: f64) {
    let Commit { job, splits, documents, records, raw_bytes, compressed_bytes, dead_letters, .. } = &outcome.commit;
    let ratio = *raw_bytes as f64 / (*compressed_bytes).max(1) as f64;
    print_line(format!("job {job}: {documents} documents, {records} records, {splits} splits, {dead_letters} dead letters"));
    if *compressed_bytes > 0 {
        print_line(format!("  {} → {} (ratio {ratio:.2})", format_bytes(*raw_bytes), format_bytes(*compressed_bytes)));
    }
    if outcome.written_now == 0 {
        print_line("  it was complete already; nothing was written");
    } else {
        print_line(format!("  {} documents written in {seconds:.1} s", outcome.written_now));
    }
}
