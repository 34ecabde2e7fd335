//! `baler dead-letters retry`: what became a dead letter is read and written once more.
//!
//! The splits with dead letters lose their receipts, and then the job is run again: it finds them undone. The commit goes first and
//! the dead letters last, so a retry which is killed leaves a job that is not committed, whose letters are still there.

use datafusion::execution::context::SessionContext;

use super::JobRef;
use super::run::{Job, Outcome, pin_topic};
use super::state::JobState;
use crate::cluster::client::Fleet;
use crate::connector::source::SourceSpec;
use crate::error::{Error, Result};
use crate::statement::plan_job;

/// Writes the splits of a job again which have dead letters; `None` if it has none. `context` must be new: the job's own statements
/// are run in it. Splits are read whole, so documents of theirs which are stored are met again by their `_id`.
///
/// # Errors
/// Config, when there is no such job; Conflict, when its input changed since; else as a job's.
pub async fn retry_job(context: &SessionContext, fleet: Option<Fleet>, job: &JobRef) -> Result<Option<Outcome>> {
    let state = JobState::open(&context.runtime_env(), job)?;
    let manifest = state.manifest().await?.ok_or_else(|| Error::config(format!("there is no job `{}` at {}", job.name, state.uri())))?;
    let letters = state.dead_letters().await?;
    if letters.is_empty() {
        return Ok(None);
    }
    let (statement, mut insert) = plan_job(context, &manifest.statement).await?;
    if let Some(SourceSpec::Kafka(spec)) = &manifest.source {
        insert = pin_topic(&insert, spec)?;
    }
    let prepare = || Job::prepare(context, fleet.clone(), job.clone(), &statement, insert.clone());
    // Whether the job can still be run must be known before anything of it is forgotten.
    drop(prepare().await?);
    let mut splits: Vec<String> = letters.into_iter().map(|letter| letter.split).collect();
    splits.sort();
    splits.dedup();
    state.forget(&splits).await?;
    prepare().await?.run().await.map(Some)
}
