//! Figures of a job or query from its state folder, as `baler jobs show` and the dashboard read it. Receipts are read once each.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::execution::runtime_env::RuntimeEnv;

use super::status::Figures;
use crate::connector::receipt::{Receipt, Totals};
use crate::error::Result;
use crate::job::JobRef;
use crate::job::manifest::Manifest;
use crate::job::seen::SeenJob;
use crate::job::state::{Commit, JobState};
use crate::job::summary::summarize;
use crate::stream::log::StreamLog;

/// What was read of one job.
pub(super) type Known = SeenJob<Splits, Fact>;

/// How many receipts a job will have.
#[derive(Debug)]
pub(super) struct Splits(usize);

impl From<Manifest> for Splits {
    fn from(manifest: Manifest) -> Self {
        Self(manifest.receipt_names().count())
    }
}

/// What is kept of a receipt.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fact {
    done: Totals,
    dead_letters: u64,
    attempt: u32,
    started: DateTime<Utc>,
    finished: DateTime<Utc>,
}

impl From<&Receipt> for Fact {
    fn from(receipt: &Receipt) -> Self {
        let Receipt { dead_letters, attempt, started, finished, .. } = *receipt;
        Self { done: receipt.into(), dead_letters, attempt, started, finished }
    }
}

/// A job's figures, and its commit if it has one; none before it was begun.
///
/// # Errors
/// As the store's; Decode for a file of a later version.
pub(super) async fn job_figures(env: &RuntimeEnv, state: &str, name: &str, known: &mut Known) -> Result<Option<(Figures, Option<Commit>)>> {
    let state = JobState::open(env, &JobRef::try_new(state, name)?)?;
    let Some(manifest) = known.manifest(&state).await? else { return Ok(None) };
    let splits = manifest.0;
    let attempts = signed(state.attempts().await? as u64);
    // The commit first: whoever finds it finds all receipts.
    let commit = state.commit().await?;
    known.read_receipts(&state).await?;
    let facts = || known.receipts();
    let all: Totals = facts().map(|fact| fact.done).sum();
    let done = facts().count();
    let figures = Figures {
        progress: Some(format!("{done}/{splits} ({} %)", done * 100 / splits.max(1))),
        mb_per_second: rate(facts()),
        splits: signed(splits as u64),
        splits_done: signed(done as u64),
        documents: signed(all.documents),
        records: signed(all.records),
        raw_bytes: signed(all.raw_bytes),
        compressed_bytes: signed(all.compressed_bytes),
        dead_letters: signed(facts().map(|fact| fact.dead_letters).sum()),
        attempts,
        ..Figures::default()
    };
    Ok(Some((with_ratio(figures), commit)))
}

/// Megabytes a second of the newest attempt that finished a split.
fn rate<'a>(facts: impl Iterator<Item = &'a Fact> + Clone) -> Option<f64> {
    let newest = facts.clone().map(|fact| fact.attempt).max()?;
    let facts = facts.filter(|fact| fact.attempt == newest);
    let (first, last) = (facts.clone().map(|fact| fact.started).min()?, facts.clone().map(|fact| fact.finished).max()?);
    megabytes_a_second(facts.map(|fact| fact.done).sum::<Totals>().raw_bytes, first, last)
}

fn megabytes_a_second(bytes: u64, first: DateTime<Utc>, last: DateTime<Utc>) -> Option<f64> {
    let seconds = (last - first).num_milliseconds().max(1) as f64 / 1e3;
    (bytes > 0).then(|| round(bytes as f64 / 1e6 / seconds, 10.0))
}

fn with_ratio(figures: Figures) -> Figures {
    let ratio = (figures.compressed_bytes > 0).then(|| round(figures.raw_bytes as f64 / figures.compressed_bytes as f64, 100.0));
    Figures { ratio, ..figures }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn round(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

/// A query's figures; none before its first micro-batch. A broker that is away leaves the lag out.
///
/// # Errors
/// As [`job_figures`].
pub(super) async fn stream_figures(env: &Arc<RuntimeEnv>, state: &str, name: &str) -> Result<Option<Figures>> {
    let Some(job) = summarize(env, state, name).await? else { return Ok(None) };
    let Some(query) = job.query else { return Ok(None) };
    let mut figures = Figures {
        progress: Some(format!("{} micro-batches", job.splits_done)),
        splits: signed(job.splits as u64),
        splits_done: signed(job.splits_done as u64),
        attempts: signed(job.attempts as u64),
        dead_letters: signed(job.dead_letters as u64),
        lag_records: query.lag_records.map(signed),
        lag_seconds: query.lag_seconds.map(|seconds| round(seconds, 1.0)),
        ..Figures::default()
    };
    figures.lag = match (figures.lag_records, figures.lag_seconds) {
        (Some(records), Some(seconds)) => Some(format!("{records} records, {seconds:.0} s")),
        _ => None,
    };
    if let Some(commit) = query.last_commit {
        (figures.documents, figures.records) = (signed(commit.documents), signed(commit.records));
        (figures.raw_bytes, figures.compressed_bytes) = (signed(commit.raw_bytes), signed(commit.compressed_bytes));
        let planned = StreamLog::open(env, state, name)?.offsets(commit.batch).await?.map(|offsets| offsets.planned);
        figures.mb_per_second = planned.and_then(|planned| megabytes_a_second(commit.raw_bytes, planned, commit.committed));
    }
    Ok(Some(with_ratio(figures)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_newest_attempt() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let fact = |attempt, started, finished| Fact {
            attempt,
            done: Totals { raw_bytes: 10_000_000, ..Totals::default() },
            started: at(started),
            finished: at(finished),
            ..Fact::default()
        };
        let facts = [fact(1, 0, 1), fact(2, 100, 102), fact(2, 101, 104)];
        assert_eq!(rate(facts.iter()), Some(5.0));
        assert_eq!(rate([].iter()), None);
        assert_eq!(with_ratio(Figures { raw_bytes: 1000, compressed_bytes: 300, ..Figures::default() }).ratio, Some(3.33));
    }
}
