//! What `/api/baler/…` answers. A job is a [`JobSummary`], as in `baler jobs list --output json`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::cluster::ExecutorInfo;
use crate::job::dead_letter::DeadLetter;
use crate::job::summary::JobSummary;

/// `GET /api/baler/overview`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Overview {
    /// Version of this process.
    pub version: String,
    /// `fleet`, or `process` for `--dashboard`.
    pub mode: String,
    /// URL of the state folder.
    pub state: String,
    /// When this was so.
    pub now: DateTime<Utc>,
    /// Executors whose heartbeat is fresh; none of one process.
    pub executors: Vec<ExecutorInfo>,
    /// What the scheduler has under way or remembers, newest first.
    pub parts: Vec<Part>,
    /// Jobs and queries, by name.
    pub jobs: Vec<JobSummary>,
    /// Names of those which are worked on now.
    pub running: Vec<String>,
    /// State folders which could not be read, and why.
    pub problems: Vec<String>,
    /// How this process is set up; secrets are not among it.
    pub settings: Vec<Setting>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name, as a flag has it.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A Ballista job: a wave of a job, a statement of Flight SQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Ballista's id.
    pub id: String,
    /// Its name: `<job> wave <n> of attempt <m>` for the jobs of `baler run`.
    pub name: String,
    /// `Queued`, `Running`, `Completed` or `Failed`.
    pub status: String,
    /// Milliseconds since 1970.
    pub started: u64,
    /// Milliseconds since 1970; 0 while it runs.
    pub ended: u64,
    /// Stages.
    pub stages: usize,
    /// Stages which are done.
    pub stages_done: usize,
    /// Why it failed.
    pub error: Option<String>,
}

/// `GET /api/baler/jobs/<name>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobDetail {
    /// In short.
    pub summary: JobSummary,
    /// Whether it is worked on now.
    pub is_running: bool,
    /// Where it writes.
    pub target: String,
    /// Its statements, values of secret options hidden.
    pub statement: String,
    /// One letter for each split, in order of object and offset: `.` waiting, `r` in a task which runs, `d` done, `x` done with dead letters.
    pub splits: String,
    /// Sums of the receipts so far.
    pub totals: Totals,
    /// What the receipts brought, over time.
    pub series: Vec<Point>,
    /// Who wrote how much.
    pub writers: Vec<Writer>,
    /// The splits which took longest.
    pub slowest: Vec<SlowSplit>,
    /// The first dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// Its Ballista jobs which the scheduler remembers.
    pub parts: Vec<Part>,
    /// The newest micro-batches of a query, oldest first.
    pub batches: Vec<Batch>,
}

/// Sums of receipts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Documents stored.
    pub documents: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes before compression.
    pub raw_bytes: u64,
    /// Bytes after it.
    pub compressed_bytes: u64,
}

/// What was done in an interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// End of the interval, in milliseconds since 1970.
    pub at: i64,
    /// Its length.
    pub seconds: f64,
    /// What was done in it.
    pub done: Totals,
}

/// A process which stored receipts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Writer {
    /// Host and process.
    pub name: String,
    /// Splits.
    pub splits: usize,
    /// Bytes before compression.
    pub raw_bytes: u64,
    /// Seconds of all its splits together.
    pub seconds: f64,
}

/// A split that took long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlowSplit {
    /// Its place in [`JobDetail::splits`].
    pub index: usize,
    /// Its object.
    pub object: String,
    /// First byte or offset.
    pub start: u64,
    /// Byte or offset after the last.
    pub end: u64,
    /// How long it took.
    pub seconds: f64,
    /// Who wrote it.
    pub executor: String,
}

/// A micro-batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Its number.
    pub batch: u64,
    /// When its offsets were fixed.
    pub planned: DateTime<Utc>,
    /// When it was committed.
    pub committed: Option<DateTime<Utc>>,
    /// Records; offsets of one that is not committed.
    pub records: u64,
    /// Documents.
    pub documents: u64,
}

/// `POST /api/baler/jobs/<name>/cancel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// How many running parts were told to stop.
    pub parts: usize,
}
