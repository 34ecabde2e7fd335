//! A job or a streaming query in short: what `baler jobs` prints and the dashboard shows.

use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::runtime_env::RuntimeEnv;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::JobRef;
use super::folder::job_names;
use super::manifest::Manifest;
use super::seen::SeenJob;
use super::state::{Commit, JobState};
use crate::connector::kafka::KafkaSpec;
use crate::connector::source::SourceSpec;
use crate::error::{Error, Result};
use crate::store::locate;
use crate::stream::lag::{TopicLag, look, next_offsets, retention_ms};
use crate::stream::log::{BatchCommit, BatchOffsets, StreamLog};

/// How long a broker may take to answer for a list. One that is away costs this once, and its queries are listed without their lag.
pub(crate) const LAG_TIMEOUT: Duration = Duration::from_secs(6);
/// State folders which are read at once.
pub(crate) const READS_IN_FLIGHT: usize = 16;
/// Micro-batches which are looked at for one that read something, and so says where the topic is.
const BATCHES_BACK: u64 = 20;

/// A job or a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSummary {
    /// Its name.
    pub job: String,
    /// `incomplete`, `committed`, or `streaming` for a query.
    pub status: String,
    /// Splits; micro-batches begun, of a query.
    pub splits: usize,
    /// Those with a receipt; micro-batches committed, of a query.
    pub splits_done: usize,
    /// Objects; partitions, of a query.
    pub objects: usize,
    /// Bytes of the objects as stored; 0 of a query.
    pub source_bytes: u64,
    /// How often a driver was begun.
    pub attempts: usize,
    /// Pieces of input which could not be written; of a query, in its newest micro-batch.
    pub dead_letters: usize,
    /// Totals, of a finished job.
    pub commit: Option<Commit>,
    /// A query's state.
    pub query: Option<QuerySummary>,
}

/// What a query adds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuerySummary {
    /// Its topic.
    pub topic: String,
    /// The newest commit.
    pub last_commit: Option<BatchCommit>,
    /// Records of all partitions which are not committed; unknown where the brokers cannot be reached.
    pub lag_records: Option<u64>,
    /// Seconds since the oldest of them was produced.
    pub lag_seconds: Option<f64>,
    /// Minutes until the oldest of them may be removed by the topic's retention.
    pub expiry_minutes: Option<f64>,
    /// The same by partition.
    pub lag: Option<TopicLag>,
}

/// All jobs and queries of a state folder, by name.
///
/// # Errors
/// As the store's; Decode for a file of a later version.
pub async fn list_jobs(env: &Arc<RuntimeEnv>, folder: &str) -> Result<Vec<JobSummary>> {
    let names = job_names(&locate(env, folder)?).await?;
    let found: Vec<Option<JobSummary>> = futures::stream::iter(names)
        .map(|name| async move { summarize(env, folder, &name).await })
        .buffered(READS_IN_FLIGHT)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// What a manifest adds to a summary.
#[derive(Debug)]
pub struct Planned {
    splits: usize,
    objects: usize,
    source_bytes: u64,
}

impl From<Manifest> for Planned {
    fn from(manifest: Manifest) -> Self {
        let objects = &manifest.objects;
        let source_bytes = objects.iter().map(|object| object.size).sum();
        Self { splits: manifest.receipt_names().count(), objects: objects.len(), source_bytes }
    }
}

/// One job or query; `None` if there is none of this name.
///
/// # Errors
/// As [`list_jobs`].
pub async fn summarize(env: &Arc<RuntimeEnv>, folder: &str, name: &str) -> Result<Option<JobSummary>> {
    summarize_again(env, folder, name, &mut SeenJob::default()).await
}

/// As [`summarize`], for who looks again and again: reads the manifest, which may have a line for each of a million splits, once.
///
/// # Errors
/// As [`list_jobs`].
pub async fn summarize_again(
    env: &Arc<RuntimeEnv>,
    folder: &str,
    name: &str,
    seen: &mut SeenJob<Planned, ()>,
) -> Result<Option<JobSummary>> {
    let state = JobState::open(env, &JobRef::try_new(folder, name)?)?;
    let Some(planned) = seen.manifest(&state).await? else { return summarize_query(env, folder, name).await };
    let Planned { splits, objects, source_bytes } = *planned;
    let commit = state.commit().await?;
    Ok(Some(JobSummary {
        job: name.to_string(),
        status: if commit.is_some() { "committed" } else { "incomplete" }.to_string(),
        splits,
        splits_done: state.receipt_names().await?.len(),
        objects,
        source_bytes,
        attempts: state.attempts().await?,
        dead_letters: state.some_dead_letters(0).await?.1,
        commit,
        query: None,
    }))
}

async fn summarize_query(env: &Arc<RuntimeEnv>, folder: &str, name: &str) -> Result<Option<JobSummary>> {
    let log = StreamLog::open(env, folder, name)?;
    let Some(last) = log.last_offsets().await? else { return Ok(None) };
    let newest = log.commit_of(last.batch).await?;
    let is_committed = newest.is_some();
    let last_commit = match (newest, last.batch.checked_sub(1)) {
        (None, Some(before)) => log.commit_of(before).await?,
        (newest, _) => newest,
    };
    let lag = match tokio::time::timeout(LAG_TIMEOUT, query_lag(env, folder, &log, &last, is_committed)).await {
        Ok(Ok(lag)) => lag,
        Ok(Err(error)) => {
            tracing::debug!(query = name, %error, "the lag is not known");
            None
        }
        Err(_elapsed) => None,
    };
    Ok(Some(JobSummary {
        job: name.to_string(),
        status: "streaming".to_string(),
        splits: last.batch as usize + 1,
        splits_done: last.batch as usize + usize::from(is_committed),
        objects: last.ranges.len(),
        source_bytes: 0,
        attempts: log.drivers().await? as usize,
        dead_letters: last_commit.as_ref().map_or(0, |commit| commit.dead_letters as usize),
        commit: None,
        query: Some(QuerySummary {
            topic: last.topic,
            last_commit,
            lag_records: lag.as_ref().map(TopicLag::records),
            lag_seconds: lag.as_ref().map(TopicLag::seconds),
            expiry_minutes: lag.as_ref().and_then(TopicLag::expiry_minutes),
            lag,
        }),
    }))
}

/// The lag of a query, whose brokers are known from the manifest of a micro-batch.
async fn query_lag(
    env: &Arc<RuntimeEnv>,
    folder: &str,
    log: &StreamLog,
    last: &BatchOffsets,
    is_committed: bool,
) -> Result<Option<TopicLag>> {
    let Some(spec) = find_topic(env, folder, log, last.batch).await? else { return Ok(None) };
    let retention = retention_ms(&spec).await;
    look(&spec, &next_offsets(&last.ranges, is_committed), retention).await.map(Some)
}

async fn find_topic(env: &Arc<RuntimeEnv>, folder: &str, log: &StreamLog, newest: u64) -> Result<Option<KafkaSpec>> {
    for batch in (newest.saturating_sub(BATCHES_BACK)..=newest).rev() {
        // A micro-batch without records has no job.
        if let Some(manifest) = JobState::open(env, &log.job(folder, batch)?)?.manifest().await?
            && let Some(SourceSpec::Kafka(spec)) = manifest.source
        {
            return Ok(Some(KafkaSpec { pinned: None, ..spec }));
        }
    }
    Ok(None)
}

/// The error for a name under which there is nothing.
pub fn unknown_job(folder: &str, name: &str) -> Error {
    Error::config(format!("there is no job or query `{name}` at {folder}"))
}
