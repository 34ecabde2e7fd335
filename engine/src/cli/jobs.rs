//! `baler jobs`: what runs on a fleet, and the state of a job.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Output, print_json, print_line};
use crate::cluster::client::Fleet;
use crate::error::{Error, Result};
use crate::job::JobRef;
use crate::job::seen::SeenJob;
use crate::job::state::JobState;
use crate::job::summary::{JobSummary, QuerySummary, list_jobs, summarize, summarize_again, unknown_job};
use crate::options::format_bytes;
use crate::runtime::stop_signal;
use crate::session::SessionParts;
use crate::stream::lag::PartitionLag;
use crate::stream::log::BatchCommit;

/// How often a watched job is looked at: its receipts are listed each time.
const WATCH_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct JobsArgs {
    /// Folder or bucket with the state of all jobs.
    #[arg(long, global = true, env = "BALER_STATE", default_value = "./baler-state")]
    state: String,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// All jobs and streaming queries in the state folder (the default); of a query, micro-batches are counted in place of splits.
    List,
    /// One job: its statement, splits, receipts, dead letters; one query: its micro-batches and lag.
    Show {
        /// Name of the job or query.
        job: String,
        /// Tell each change until the job is committed.
        #[arg(long)]
        watch: bool,
    },
    /// Stops a job's work on a fleet; `baler run` goes on where it stopped.
    Cancel {
        /// Name of the job, or Ballista's id of a query.
        job: String,
        /// The scheduler of the fleet, df://host:50050, or dfs:// for TLS.
        #[arg(long, env = "BALER_SCHEDULER")]
        scheduler: String,
    },
}

pub(super) async fn run(args: JobsArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    match args.action.unwrap_or(Action::List) {
        Action::List => list(&args.state, parts, output).await?,
        Action::Show { job, watch: true } => {
            // Leaving is how one stops watching.
            tokio::select! {
                watched = watch(&args.state, &job, parts, output) => watched?,
                signal = stop_signal() => drop(signal?),
            }
        }
        Action::Show { job, watch: false } => show(&args.state, &job, parts, output).await?,
        Action::Cancel { job, scheduler } => {
            let fleet = Fleet::connect(&scheduler, parts).await?;
            let cancelled = fleet.cancel_parts(&job).await?;
            if cancelled == 0 {
                return Err(Error::config(format!("nothing of job `{job}` runs on {}", fleet.url())));
            }
            print_line(format!("cancelled {cancelled} running parts of {job}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(folder: &str, parts: &SessionParts, output: Output) -> Result<()> {
    let jobs = list_jobs(&parts.local()?.runtime_env(), folder).await?;
    if output == Output::Json {
        return print_json(&jobs);
    }
    print_line(format!(
        "{:<24} {:<10} {:>15} {:>10} {:>10} {:>8} {:>20}",
        "JOB", "STATUS", "SPLITS", "SOURCE", "DOCUMENTS", "ATTEMPTS", "LAG"
    ));
    for job in jobs {
        let JobSummary { job: name, status, attempts, .. } = &job;
        let documents = job.commit.as_ref().map_or_else(|| "-".to_string(), |commit| commit.documents.to_string());
        let splits = format!("{}/{}", job.splits_done, job.splits);
        let source = format_bytes(job.source_bytes);
        let lag = job.query.as_ref().map_or_else(|| "-".to_string(), describe_lag);
        print_line(format!("{name:<24} {status:<10} {splits:>15} {source:>10} {documents:>10} {attempts:>8} {lag:>20}"));
    }
    Ok(())
}

/// `1200 records, 35 s`, or `unknown` where the brokers cannot be reached.
fn describe_lag(query: &QuerySummary) -> String {
    match (query.lag_records, query.lag_seconds) {
        (Some(records), Some(seconds)) => format!("{records} records, {seconds:.0} s"),
        _ => "unknown".to_string(),
    }
}

async fn show(folder: &str, name: &str, parts: &SessionParts, output: Output) -> Result<()> {
    let env = parts.local()?.runtime_env();
    let job = summarize(&env, folder, name).await?.ok_or_else(|| unknown_job(folder, name))?;
    if output == Output::Json {
        return print_json(&job);
    }
    print_line(format!("job {name}: {}", job.status));
    if let Some(query) = &job.query {
        show_query(&job, query);
        return Ok(());
    }
    let state = JobState::open(&env, &JobRef::try_new(folder, name)?)?;
    let manifest = state.manifest().await?.ok_or_else(|| unknown_job(folder, name))?;
    print_line(format!("  state      {}", state.uri()));
    print_line(format!("  target     {}", manifest.sink.target()));
    print_line(format!("  source     {} objects, {}", job.objects, format_bytes(job.source_bytes)));
    print_line(format!("  splits     {}", describe_splits(&job)));
    if let Some(commit) = &job.commit {
        let ratio = commit.raw_bytes as f64 / commit.compressed_bytes.max(1) as f64;
        print_line(format!(
            "  committed  {}: {} documents, {} records, ratio {ratio:.2}",
            commit.committed, commit.documents, commit.records
        ));
    }
    print_line("  statement");
    manifest.statement.lines().for_each(|line| print_line(format!("    {line}")));
    Ok(())
}

fn describe_splits(job: &JobSummary) -> String {
    let JobSummary { splits_done, splits, dead_letters, attempts, .. } = job;
    format!("{splits_done} of {splits} done, {dead_letters} dead letters, {attempts} attempts")
}

fn show_query(job: &JobSummary, query: &QuerySummary) {
    print_line(format!("  topic      {}, {} partitions", query.topic, job.objects));
    print_line(format!("  batches    {} of {} committed, {} drivers", job.splits_done, job.splits, job.attempts));
    if let Some(commit) = &query.last_commit {
        let BatchCommit { batch, records, documents, committed, .. } = commit;
        print_line(format!("  last       batch {batch} at {committed}: {records} records, {documents} documents"));
    }
    print_line(format!("  lag        {}", describe_lag(query)));
    if let Some(minutes) = query.expiry_minutes {
        print_line(format!("  expires    the oldest record which is needed, in {minutes:.0} minutes"));
    }
    for PartitionLag { partition, next_offset, records, .. } in query.lag.iter().flat_map(|lag| &lag.partitions) {
        print_line(format!("  partition {partition:<4} from offset {next_offset}: {records} records wait"));
    }
}

/// Tells each change of a job until it is committed, and of a query for ever: a line a change, in JSON an object.
async fn watch(folder: &str, name: &str, parts: &SessionParts, output: Output) -> Result<()> {
    let env = parts.local()?.runtime_env();
    let (mut before, mut seen) = (String::new(), SeenJob::default());
    loop {
        let job = summarize_again(&env, folder, name, &mut seen).await?.ok_or_else(|| unknown_job(folder, name))?;
        let line = match (output, &job.query) {
            (Output::Json, _) => serde_json::to_string(&job).map_err(|e| Error::internal("a job does not encode").with_source(e))?,
            (Output::Text, Some(query)) => format!(
                "{name}: {}, {} of {} micro-batches committed, lag {}",
                job.status,
                job.splits_done,
                job.splits,
                describe_lag(query)
            ),
            (Output::Text, None) => format!("{name}: {}, splits {}", job.status, describe_splits(&job)),
        };
        if line != before {
            print_line(&line);
            before = line;
        }
        if job.commit.is_some() {
            return Ok(());
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}
