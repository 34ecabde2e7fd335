//! All micro-batches of a query, and how their files become fewer.
//!
//! A micro-batch leaves some five small files and one for each split. The oldest ones are folded, so many at a time, into one file
//! which says all that they say; verifying and going back read both. What has dead letters keeps its job's folder for a retry.

use datafusion::execution::runtime_env::RuntimeEnv;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::log::{BatchCommit, BatchOffsets, StreamLog, file};
use crate::connector::receipt::{Receipt, SCHEMA_VERSION};
use crate::error::{Error, ErrorKind, Result};
use crate::job::dead_letter::DeadLetter;
use crate::job::manifest::Manifest;
use crate::job::state::JobState;

/// Micro-batches whose files are read at once.
pub(crate) const READS_IN_FLIGHT: usize = 8;
/// How often a reader begins again, because a driver folded what it was about to read.
pub(crate) const READS_MAX: u32 = 3;

/// All that the state holds of one micro-batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// What it takes.
    pub offsets: BatchOffsets,
    /// What it brought, if it is done.
    pub commit: Option<BatchCommit>,
    /// Its job, if it has any records and was begun.
    pub job: Option<JobRecord>,
}

/// The job of a micro-batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its receipts, in no order.
    pub receipts: Vec<Receipt>,
    /// Its dead letters; none in a folded one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dead_letters: Vec<DeadLetter>,
}

impl JobRecord {
    /// Whether it was read while nobody wrote: every split has its receipt, and none of them speaks of dead letters that are not here.
    fn is_whole(&self) -> bool {
        let letters: u64 = self.receipts.iter().map(|receipt| receipt.dead_letters).sum();
        self.receipts.len() == self.manifest.receipt_names().count() && letters == self.dead_letters.len() as u64
    }
}

/// Consecutive micro-batches in one file, `folded/<last>.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Folded {
    schema_version: u32,
    pub(super) batches: Vec<BatchRecord>,
}

impl StreamLog {
    /// Every micro-batch of the query, from the first on. `state` is the URL that the log was opened with.
    ///
    /// # Errors
    /// As the store's; Decode for a file of a later version.
    pub async fn history(&self, env: &RuntimeEnv, state: &str) -> Result<Vec<BatchRecord>> {
        let mut reads = 1;
        loop {
            match self.read_history(env, state).await {
                Err(error) if error.kind() == ErrorKind::Conflict && reads < READS_MAX => reads += 1,
                history => return history,
            }
        }
    }

    async fn read_history(&self, env: &RuntimeEnv, state: &str) -> Result<Vec<BatchRecord>> {
        // Those which stand alone first: what is folded meanwhile is gone where it was looked for, or there twice, and never missing.
        let numbers = self.numbers("offsets").await?;
        let mut alone = self.read_batches(env, state, &numbers).await?;
        let mut batches = Vec::new();
        for last in self.numbers("folded").await? {
            for mut batch in self.folded(last).await?.map(|folded| folded.batches).unwrap_or_default() {
                if batch.job.is_none() && batch.offsets.length() > 0 {
                    batch.job = self.read_job(env, state, batch.offsets.batch).await?;
                }
                batches.push(batch);
            }
        }
        let next = batches.last().map_or(0, |batch| batch.offsets.batch + 1);
        batches.extend(alone.drain(..).filter(|batch| batch.offsets.batch >= next));
        Ok(batches)
    }

    async fn read_batches(&self, env: &RuntimeEnv, state: &str, numbers: &[u64]) -> Result<Vec<BatchRecord>> {
        let read = |number: u64| async move {
            let offsets = self.folder.read(&file("offsets", number)).await?;
            let offsets: BatchOffsets =
                offsets.ok_or_else(|| Error::conflict(format!("micro-batch {number} was folded while it was read")))?;
            let commit = self.folder.read(&file("commits", number)).await?;
            let job = if offsets.length() > 0 { self.read_job(env, state, number).await? } else { None };
            Ok::<_, Error>(BatchRecord { offsets, commit, job })
        };
        futures::stream::iter(numbers.to_vec()).map(read).buffered(READS_IN_FLIGHT).try_collect().await
    }

    async fn read_job(&self, env: &RuntimeEnv, state: &str, batch: u64) -> Result<Option<JobRecord>> {
        let job = JobState::open(env, &self.job(state, batch)?)?;
        let Some(manifest) = job.manifest().await? else { return Ok(None) };
        let receipts = job.receipts().await?.into_values().collect();
        Ok(Some(JobRecord { manifest, receipts, dead_letters: job.dead_letters().await? }))
    }

    /// Folds the oldest `keep` micro-batches into one file once there are twice as many; returns how many it folded. What a driver
    /// that was killed here left behind is removed first. Idempotent.
    ///
    /// # Errors
    /// As the store's.
    pub async fn fold(&self, env: &RuntimeEnv, state: &str, keep: usize) -> Result<usize> {
        let mut numbers = self.numbers("offsets").await?;
        if let Some(last) = self.numbers("folded").await?.pop()
            && numbers.first().is_some_and(|first| *first <= last)
        {
            self.remove_folded(env, state, last).await?;
            numbers.retain(|number| *number > last);
        }
        if keep == 0 || numbers.len() < 2 * keep {
            return Ok(0);
        }
        let oldest = &numbers[..keep];
        let mut batches = self.read_batches(env, state, oldest).await?;
        if batches.iter().any(|batch| batch.commit.is_none()) {
            return Err(Error::internal("a micro-batch before the newest one has no commit"));
        }
        for batch in &mut batches {
            batch.job.take_if(|job| !job.dead_letters.is_empty());
        }
        if !batches.iter().filter_map(|batch| batch.job.as_ref()).all(JobRecord::is_whole) {
            // A retry of dead letters is at work there; the next time will do.
            return Ok(0);
        }
        let last = oldest[keep - 1];
        self.folder.create(&file("folded", last), &Folded { schema_version: SCHEMA_VERSION, batches }).await?;
        self.remove_folded(env, state, last).await?;
        Ok(keep)
    }

    /// Removes the files of micro-batches for which a folded file speaks; the one by which they are found goes last.
    async fn remove_folded(&self, env: &RuntimeEnv, state: &str, last: u64) -> Result<()> {
        for batch in self.folded(last).await?.map(|folded| folded.batches).unwrap_or_default() {
            let number = batch.offsets.batch;
            if batch.job.is_some() {
                JobState::open(env, &self.job(state, number)?)?.remove().await?;
            }
            self.folder.remove(vec![file("commits", number)]).await?;
            self.folder.remove(vec![file("offsets", number)]).await?;
        }
        Ok(())
    }

    /// A micro-batch which was folded.
    pub(super) async fn folded_batch(&self, number: u64) -> Result<Option<BatchRecord>> {
        let Some(last) = self.numbers("folded").await?.into_iter().find(|last| *last >= number) else { return Ok(None) };
        let folded = self.folded(last).await?;
        Ok(folded.and_then(|folded| folded.batches.into_iter().find(|batch| batch.offsets.batch == number)))
    }

    async fn folded(&self, last: u64) -> Result<Option<Folded>> {
        self.folder.read(&file("folded", last)).await
    }
}
