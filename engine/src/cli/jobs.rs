//! `baler jobs`: what runs on a fleet, and the state of a job.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Output, print_json, print_line};
use crate::cluster::client::{Fleet, FleetJob};
use crate::error::{Error, Result};
use crate::job::JobRef;
use crate::job::folder::job_names;
use crate::job::manifest::Manifest;
use crate::job::state::{Commit, JobState};
use crate::options::format_bytes;
use crate::session::SessionParts;
use crate::store::locate;

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
    /// All jobs in the state folder (the default).
    List,
    /// One job: its statement, splits, receipts, dead letters.
    Show {
        /// Name of the job.
        job: String,
    },
    /// Stops a job's work on a fleet; `baler run` goes on where it stopped.
    Cancel {
        /// Name of the job, or Ballista's id of a query.
        job: String,
        /// The scheduler of the fleet, df://host:50050.
        #[arg(long, env = "BALER_SCHEDULER")]
        scheduler: String,
    },
}

/// A job for lists and machines.
#[derive(Debug, Serialize)]
struct JobSummary {
    job: String,
    status: &'static str,
    splits: usize,
    splits_done: usize,
    objects: usize,
    source_bytes: u64,
    attempts: usize,
    dead_letters: usize,
    commit: Option<Commit>,
}

pub(super) async fn run(args: JobsArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    match args.action.unwrap_or(Action::List) {
        Action::List => list(&args.state, parts, output).await?,
        Action::Show { job } => show(&args.state, &job, parts, output).await?,
        Action::Cancel { job, scheduler } => {
            let fleet = Fleet::connect(&scheduler, parts).await?;
            let cancelled = cancel_waves(&fleet, &job).await?;
            if cancelled == 0 {
                return Err(Error::config(format!("nothing of job `{job}` runs on {}", fleet.url())));
            }
            print_line(format!("cancelled {cancelled} running parts of {job}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Cancels all that runs on the fleet for job `name`; returns how many Ballista jobs that were.
pub(super) async fn cancel_waves(fleet: &Fleet, name: &str) -> Result<usize> {
    // A micro-batch of a query is job `<query>.<number>`.
    let is_batch =
        |job: &str| job.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')).is_some_and(|number| number.parse::<u64>().is_ok());
    let is_wave = |text: &str| text.split_once(" wave ").is_some_and(|(job, _)| job == name || is_batch(job));
    let is_meant = |job: &FleetJob| job.job_id == name || job.job_name == name || is_batch(&job.job_name) || is_wave(&job.job_name);
    let mut cancelled = 0;
    for job in fleet.jobs().await? {
        if is_meant(&job) && matches!(job.status.as_str(), "Queued" | "Running") && fleet.cancel(&job.job_id).await? {
            cancelled += 1;
        }
    }
    Ok(cancelled)
}

async fn list(state: &str, parts: &SessionParts, output: Output) -> Result<()> {
    let env = parts.local()?.runtime_env();
    let mut jobs = Vec::new();
    for name in job_names(&locate(&env, state)?).await? {
        let state = JobState::open(&env, &JobRef::try_new(state, &name)?)?;
        if let Some(manifest) = state.manifest().await? {
            jobs.push(summarize(&state, &manifest).await?);
        }
    }
    if output == Output::Json {
        return print_json(&jobs);
    }
    print_line(format!("{:<24} {:<10} {:>15} {:>10} {:>10} {:>8}", "JOB", "STATUS", "SPLITS", "SOURCE", "DOCUMENTS", "ATTEMPTS"));
    for job in jobs {
        let documents = job.commit.as_ref().map_or_else(|| "-".to_string(), |commit| commit.documents.to_string());
        let splits = format!("{}/{}", job.splits_done, job.splits);
        let source = format_bytes(job.source_bytes);
        print_line(format!("{:<24} {:<10} {splits:>15} {source:>10} {documents:>10} {:>8}", job.job, job.status, job.attempts));
    }
    Ok(())
}

async fn show(state: &str, name: &str, parts: &SessionParts, output: Output) -> Result<()> {
    let env = parts.local()?.runtime_env();
    let state = JobState::open(&env, &JobRef::try_new(state, name)?)?;
    let manifest = state.manifest().await?.ok_or_else(|| Error::config(format!("there is no job `{name}` at {}", state.uri())))?;
    let job = summarize(&state, &manifest).await?;
    if output == Output::Json {
        return print_json(&job);
    }
    print_line(format!("job {name}: {}", job.status));
    print_line(format!("  state      {}", state.uri()));
    print_line(format!("  target     {}", manifest.sink.target()));
    print_line(format!("  source     {} objects, {}", job.objects, format_bytes(job.source_bytes)));
    print_line(format!(
        "  splits     {} of {} done, {} dead letters, {} attempts",
        job.splits_done, job.splits, job.dead_letters, job.attempts
    ));
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

async fn summarize(state: &JobState, manifest: &Manifest) -> Result<JobSummary> {
    let commit = state.commit().await?;
    Ok(JobSummary {
        job: manifest.job.clone(),
        status: if commit.is_some() { "committed" } else { "incomplete" },
        splits: manifest.receipt_names().len(),
        splits_done: state.receipt_names().await?.len(),
        objects: manifest.objects.len(),
        source_bytes: manifest.objects.iter().map(|object| object.size).sum(),
        attempts: state.attempts().await?,
        dead_letters: state.dead_letters().await?.len(),
        commit,
    })
}
