//! `baler dead-letters`: pieces of input which could not be written.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use datafusion::execution::runtime_env::RuntimeEnv;
use serde::Serialize;

use super::{Output, print_json, print_line};
use crate::cluster::client::Fleet;
use crate::error::{Error, Result};
use crate::job::JobRef;
use crate::job::dead_letter::DeadLetter;
use crate::job::folder::job_names;
use crate::job::retry::retry_job;
use crate::job::state::JobState;
use crate::runtime::stop_signal;
use crate::session::SessionParts;
use crate::store::locate;
use crate::stream::log::StreamLog;

#[derive(Debug, Args)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Args)]
struct Place {
    /// Name of the job or query.
    #[arg(long, env = "BALER_JOB")]
    job: String,
    /// Folder or bucket with the state of all queries and jobs.
    #[arg(long, env = "BALER_STATE", default_value = "./baler-state")]
    state: String,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// All dead letters of a job, or of all micro-batches of a streaming query.
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Reads the splits which have dead letters once more and writes what is accepted now, for instance after a document rule of the
    /// target was changed. Exits with 1 if dead letters are left.
    Retry {
        #[command(flatten)]
        place: Place,
        /// The scheduler of the fleet that does the work, df://host:50050 or dfs:// for TLS; without one this process does.
        #[arg(long, env = "BALER_SCHEDULER")]
        scheduler: Option<String>,
    },
}

pub(super) async fn run(args: DeadLettersArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    match args.action {
        Action::List { place: Place { job, state } } => list(&job, &state, parts, output).await,
        Action::Retry { place: Place { job, state }, scheduler } => retry(&job, &state, scheduler.as_deref(), parts, output).await,
    }
}

/// What a retry brought, for machines.
#[derive(Debug, Default, Serialize)]
struct Retried {
    /// Jobs, or micro-batches, with dead letters.
    jobs: u64,
    /// Dead letters which they had.
    before: u64,
    /// Dead letters which they have now.
    after: u64,
}

async fn retry(name: &str, state: &str, scheduler: Option<&str>, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    let fleet = Fleet::connect_if_named(scheduler, parts).await?;
    let env = parts.local()?.runtime_env();
    let mut retried = Retried::default();
    let under_way = batch_under_way(&env, state, name).await?;
    for job in jobs_of(&env, state, name).await? {
        if under_way.as_ref() == Some(&job.name) {
            eprintln!("{} is under way and left out", job.name);
            continue;
        }
        let before = JobState::open(&env, &job)?.dead_letters().await?.len() as u64;
        let outcome = tokio::select! {
            outcome = async { retry_job(&parts.local()?, fleet.clone(), &job).await } => outcome.map_err(|e| e.context(format!("retrying {}", job.name)))?,
            signal = stop_signal() => {
                if let Some(fleet) = &fleet {
                    fleet.cancel_parts(&job.name).await?;
                }
                return Err(Error::permanent(format!("stopped by {}; run the same command again to go on", signal?)));
            }
        };
        if let Some(outcome) = outcome {
            retried =
                Retried { jobs: retried.jobs + 1, before: retried.before + before, after: retried.after + outcome.commit.dead_letters };
        }
    }
    match output {
        Output::Json => print_json(&retried)?,
        Output::Text if retried.jobs == 0 => print_line("no dead letters; nothing to do"),
        Output::Text => print_line(format!("{} dead letters were read again, {} are left", retried.before, retried.after)),
    }
    Ok(ExitCode::from(u8::from(retried.after > 0)))
}

async fn list(job: &str, state: &str, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    let letters = all_letters(&parts.local()?.runtime_env(), state, job).await?;
    if output == Output::Json {
        print_json(&letters)?;
        return Ok(ExitCode::SUCCESS);
    }
    for DeadLetter { object, id, byte_offset, reason, .. } in &letters {
        let offset = byte_offset.map(|offset| format!(" from byte {offset} on")).unwrap_or_default();
        let document = id.as_ref().map(|id| format!(" document {id}")).unwrap_or_default();
        print_line(format!("{object}{offset}{document}: {reason}"));
    }
    print_line(format!("{} dead letters", letters.len()));
    Ok(ExitCode::SUCCESS)
}

/// The job of the micro-batch which has no commit: the driver of the query may be writing it.
async fn batch_under_way(env: &RuntimeEnv, state: &str, name: &str) -> Result<Option<String>> {
    let log = StreamLog::open(env, state, name)?;
    let Some(last) = log.last_offsets().await? else { return Ok(None) };
    Ok(if log.commit_of(last.batch).await?.is_none() { Some(log.job(state, last.batch)?.name) } else { None })
}

/// A job, or those of the micro-batches of a query which have files of their own.
async fn jobs_of(env: &RuntimeEnv, state: &str, name: &str) -> Result<Vec<JobRef>> {
    let job = JobRef::try_new(state, name)?;
    let log = StreamLog::open(env, state, name)?;
    if JobState::open(env, &job)?.manifest().await?.is_some() {
        return Ok(vec![job]);
    }
    if log.last_offsets().await?.is_none() {
        return Err(Error::config(format!("there is no job or query `{name}` at {}", log.uri())));
    }
    let batches = log.batches_url(state);
    job_names(&locate(env, &batches)?).await?.iter().map(|batch| JobRef::try_new(&batches, batch)).collect()
}

/// Those of a job, or of every micro-batch of a query, by object.
async fn all_letters(env: &RuntimeEnv, state: &str, name: &str) -> Result<Vec<DeadLetter>> {
    let mut letters = Vec::new();
    for job in jobs_of(env, state, name).await? {
        letters.extend(JobState::open(env, &job)?.dead_letters().await?);
    }
    letters.sort_by(|a, b| (&a.object, &a.byte_offset, &a.id).cmp(&(&b.object, &b.byte_offset, &b.id)));
    Ok(letters)
}
