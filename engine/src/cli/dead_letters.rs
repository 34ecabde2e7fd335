//! `baler dead-letters`: pieces of input which could not be written.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use datafusion::execution::runtime_env::RuntimeEnv;

use super::{Output, print_json, print_line};
use crate::error::{Error, Result};
use crate::job::JobRef;
use crate::job::dead_letter::DeadLetter;
use crate::job::folder::job_names;
use crate::job::state::JobState;
use crate::session::SessionParts;
use crate::store::locate;
use crate::stream::log::StreamLog;

#[derive(Debug, Args)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// All dead letters of a job, or of all micro-batches of a streaming query.
    List {
        /// Name of the job or query.
        #[arg(long, env = "BALER_JOB")]
        job: String,
        /// Folder or bucket with the state of all queries and jobs.
        #[arg(long, env = "BALER_STATE", default_value = "./baler-state")]
        state: String,
    },
}

pub(super) async fn run(args: DeadLettersArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    let Action::List { job, state } = args.action;
    let letters = all_letters(&parts.local()?.runtime_env(), &state, &job).await?;
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

/// Those of a job, or of every micro-batch of a query, by object.
async fn all_letters(env: &RuntimeEnv, state: &str, name: &str) -> Result<Vec<DeadLetter>> {
    let job = JobRef::try_new(state, name)?;
    let log = StreamLog::open(env, state, name)?;
    let mut letters = if JobState::open(env, &job)?.manifest().await?.is_some() {
        JobState::open(env, &job)?.dead_letters().await?
    } else if log.last_offsets().await?.is_some() {
        let batches = log.batches_url(state);
        let mut letters = Vec::new();
        for batch in job_names(&locate(env, &batches)?).await? {
            letters.extend(JobState::open(env, &JobRef::try_new(&batches, &batch)?)?.dead_letters().await?);
        }
        letters
    } else {
        return Err(Error::config(format!("there is no job or query `{name}` at {}", log.uri())));
    };
    letters.sort_by(|a, b| (&a.object, &a.byte_offset, &a.id).cmp(&(&b.object, &b.byte_offset, &b.id)));
    Ok(letters)
}
