//! The files of a streaming query: what each micro-batch takes, what it brought, and who may go on.
//!
//! ```text
//! <state>/<query>/offsets/<n>.json   ranges of micro-batch n, before any record of it is read
//! <state>/<query>/batches/<query>.<n>/…   the job of micro-batch n: manifest, receipts, commit
//! <state>/<query>/commits/<n>.json   after all its receipts
//! <state>/<query>/folded/<n>.json    older micro-batches up to n: all that their files said
//! <state>/<query>/epochs/<e>.json    the e-th driver; an older one can neither begin nor commit
//! ```
//!
//! Every file is created once (put-if-absent), so of two drivers only one fixes a range, and the other one sees it.

use chrono::{DateTime, Utc};
use datafusion::execution::runtime_env::RuntimeEnv;
use serde::{Deserialize, Serialize};

use crate::connector::kafka::origin::Origin;
use crate::connector::kafka::spec::OffsetRange;
use crate::connector::receipt::SCHEMA_VERSION;
use crate::error::{Error, Result};
use crate::job::JobRef;
use crate::job::folder::StateFolder;
use crate::job::state::Commit;

/// What a micro-batch takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOffsets {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Number of the micro-batch, from 0.
    pub batch: u64,
    /// The driver which fixed it.
    pub epoch: u64,
    /// The topic.
    pub topic: String,
    /// Every partition that was known, those without new records too: the next micro-batch begins where these end.
    pub ranges: Vec<OffsetRange>,
    /// The first records of the partitions, by which a topic that was re-created is told from the one that was read.
    #[serde(default)]
    pub origins: Vec<Origin>,
    /// When it was fixed.
    pub planned: DateTime<Utc>,
}

impl BatchOffsets {
    /// Offsets in all ranges.
    pub fn length(&self) -> u64 {
        self.ranges.iter().map(OffsetRange::length).sum()
    }
}

/// What a micro-batch brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchCommit {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Number of the micro-batch.
    pub batch: u64,
    /// The driver which committed it.
    pub epoch: u64,
    /// Documents stored.
    pub documents: u64,
    /// Records in them, where they count any.
    pub records: u64,
    /// Bytes before compression, where they count them.
    pub raw_bytes: u64,
    /// Bytes after it, where they count them.
    pub compressed_bytes: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// When all its receipts were there.
    pub committed: DateTime<Utc>,
}

impl BatchCommit {
    /// The commit of a micro-batch whose job ended with `totals`; none for one without records.
    pub fn new(batch: u64, epoch: u64, totals: Option<&Commit>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            batch,
            epoch,
            documents: totals.map_or(0, |totals| totals.documents),
            records: totals.map_or(0, |totals| totals.records),
            raw_bytes: totals.map_or(0, |totals| totals.raw_bytes),
            compressed_bytes: totals.map_or(0, |totals| totals.compressed_bytes),
            dead_letters: totals.map_or(0, |totals| totals.dead_letters),
            committed: Utc::now(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Epoch {
    schema_version: u32,
    epoch: u64,
    driver: String,
    started: DateTime<Utc>,
}

/// The log of a query, as its present driver writes it.
#[derive(Debug)]
pub struct StreamLog {
    query: String,
    pub(super) folder: StateFolder,
    epoch: u64,
}

impl StreamLog {
    /// Opens the log of `query` below the URL `state` without claiming it: for reading.
    ///
    /// # Errors
    /// Config, when the name or URL is not valid.
    pub fn open(env: &RuntimeEnv, state: &str, query: &str) -> Result<Self> {
        let job = JobRef::try_new(state, query)?;
        Ok(Self { query: job.name.clone(), folder: StateFolder::open(env, &job.state, &job.name)?, epoch: 0 })
    }

    /// Makes this process the query's driver: all earlier ones are fenced off from now on.
    ///
    /// # Errors
    /// As the store's.
    pub async fn claim(&mut self) -> Result<u64> {
        let mut epoch = self.newest("epochs").await?.map_or(1, |newest| newest + 1);
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_string());
        loop {
            let claim =
                Epoch { schema_version: SCHEMA_VERSION, epoch, driver: format!("{host}/{}", std::process::id()), started: Utc::now() };
            if self.folder.create(&file("epochs", epoch), &claim).await? {
                self.epoch = epoch;
                return Ok(epoch);
            }
            epoch += 1;
        }
    }

    /// How many drivers the query has had.
    ///
    /// # Errors
    /// As the store's.
    pub async fn drivers(&self) -> Result<u64> {
        Ok(self.newest("epochs").await?.unwrap_or_default())
    }

    /// Refuses to go on when a later driver has claimed the query.
    ///
    /// # Errors
    /// Conflict, naming the later driver.
    pub async fn check_alone(&self) -> Result<()> {
        let Some(newest) = self.newest("epochs").await?.filter(|newest| *newest > self.epoch) else { return Ok(()) };
        let newer: Option<Epoch> = self.folder.read(&file("epochs", newest)).await?;
        let driver = newer.map_or_else(|| "another process".to_string(), |newer| newer.driver);
        Err(Error::conflict(format!(
            "query `{}` was taken over by {driver} (epoch {newest}, this driver has {}); only one may run it, so this one ends",
            self.query, self.epoch
        )))
    }

    /// The newest micro-batch that was begun.
    ///
    /// # Errors
    /// As the store's; Decode for a file of a later version.
    pub async fn last_offsets(&self) -> Result<Option<BatchOffsets>> {
        let Some(batch) = self.newest("offsets").await? else { return Ok(None) };
        self.offsets(batch).await
    }

    /// A micro-batch, if it was begun.
    ///
    /// # Errors
    /// As [`Self::last_offsets`].
    pub async fn offsets(&self, batch: u64) -> Result<Option<BatchOffsets>> {
        match self.folder.read(&file("offsets", batch)).await? {
            None => Ok(self.folded_batch(batch).await?.map(|folded| folded.offsets)),
            offsets => Ok(offsets),
        }
    }

    /// The commit of a micro-batch, if it is done.
    ///
    /// # Errors
    /// As [`Self::last_offsets`].
    pub async fn commit_of(&self, batch: u64) -> Result<Option<BatchCommit>> {
        match self.folder.read(&file("commits", batch)).await? {
            None => Ok(self.folded_batch(batch).await?.and_then(|folded| folded.commit)),
            commit => Ok(commit),
        }
    }

    /// Fixes what a micro-batch takes; returns what holds, which another driver may have fixed first.
    ///
    /// # Errors
    /// Conflict, when this driver is fenced off.
    pub async fn begin(&self, batch: BatchOffsets) -> Result<BatchOffsets> {
        self.check_alone().await?;
        let name = file("offsets", batch.batch);
        if self.folder.create(&name, &batch).await? {
            return Ok(batch);
        }
        let fixed = self.folder.read(&name).await?;
        fixed.ok_or_else(|| Error::conflict(format!("{}/{name} was removed while the query ran", self.folder.uri())))
    }

    /// Notes that a micro-batch is done.
    ///
    /// # Errors
    /// Conflict, when this driver is fenced off.
    pub async fn commit(&self, commit: &BatchCommit) -> Result<()> {
        self.check_alone().await?;
        // One that is there already says the same of the same documents.
        self.folder.create(&file("commits", commit.batch), commit).await.map(|_was_first| ())
    }

    /// Notes as the micro-batch after `newest` that the query goes on behind `ranges`, which are empty.
    ///
    /// # Errors
    /// Conflict, when this driver is fenced off or another one began this micro-batch.
    pub async fn rewind(&self, newest: &BatchOffsets, epoch: u64, ranges: Vec<OffsetRange>) -> Result<BatchOffsets> {
        let batch = newest.batch + 1;
        let planned = BatchOffsets { batch, epoch, ranges, planned: Utc::now(), ..newest.clone() };
        let fixed = self.begin(planned.clone()).await?;
        if fixed != planned {
            return Err(Error::conflict(format!("query `{}` went on meanwhile; stop it and rewind again", self.query)));
        }
        self.commit(&BatchCommit::new(batch, epoch, None)).await?;
        Ok(fixed)
    }

    /// The job of a micro-batch.
    ///
    /// # Errors
    /// Config, when the URL is not valid.
    pub fn job(&self, state: &str, batch: u64) -> Result<JobRef> {
        JobRef::try_new(&self.batches_url(state), &format!("{}.{batch:09}", self.query))
    }

    /// The state folder of the jobs of all micro-batches.
    pub fn batches_url(&self, state: &str) -> String {
        format!("{}/{}/batches", state.trim_end_matches('/'), self.query)
    }

    /// How people name the log.
    pub fn uri(&self) -> &str {
        self.folder.uri()
    }

    async fn newest(&self, folder: &str) -> Result<Option<u64>> {
        Ok(self.numbers(folder).await?.pop())
    }

    /// Numbers of the files in a folder, in order.
    pub(super) async fn numbers(&self, folder: &str) -> Result<Vec<u64>> {
        let files = self.folder.list(folder).await?;
        let mut numbers: Vec<u64> = files.iter().filter_map(|path| path.filename()?.strip_suffix(".json")?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

pub(super) fn file(folder: &str, number: u64) -> String {
    format!("{folder}/{number:09}.json")
}

#[cfg(test)]
mod tests {
    use crate::error::ErrorKind;
    use crate::session::runtime_env;

    use super::*;

    fn batch(number: u64, epoch: u64, end: i64) -> BatchOffsets {
        let ranges = vec![OffsetRange { partition: 0, first: 0, end }];
        BatchOffsets {
            schema_version: SCHEMA_VERSION,
            batch: number,
            epoch,
            topic: "t".to_string(),
            ranges,
            origins: Vec::new(),
            planned: Utc::now(),
        }
    }

    #[test]
    fn an_older_driver_can_neither_begin_nor_commit_and_one_range_holds() {
        let folder = tempfile::tempdir().unwrap();
        let env = runtime_env(None).unwrap();
        crate::runtime::io().unwrap().block_on(async {
            let open = || StreamLog::open(&env, folder.path().to_str().unwrap(), "feed").unwrap();
            let (mut old, mut new) = (open(), open());
            assert_eq!(old.claim().await.unwrap(), 1);
            let first = old.begin(batch(0, 1, 10)).await.unwrap();
            assert_eq!(new.claim().await.unwrap(), 2);
            assert_eq!(new.last_offsets().await.unwrap(), Some(first.clone()));
            for error in [old.begin(batch(1, 1, 20)).await.unwrap_err(), old.commit(&BatchCommit::new(0, 1, None)).await.unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::Conflict);
                assert!(error.to_string().contains("epoch 2"), "{error}");
            }
            assert_eq!((old.offsets(1).await.unwrap(), old.commit_of(0).await.unwrap()), (None, None));
            assert_eq!(new.begin(batch(0, 2, 99)).await.unwrap(), first);
            new.commit(&BatchCommit::new(0, 2, None)).await.unwrap();
            assert_eq!(open().commit_of(0).await.unwrap().map(|commit| commit.epoch), Some(2));
        });
    }
}
