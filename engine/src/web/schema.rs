//! What `/api/baler/…` answers. A job is a [`JobSummary`], as in `baler jobs list --output json`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::cluster::ExecutorInfo;
pub use crate::connector::receipt::Totals;
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
    /// Partitions which this process runs at once; `None` of a scheduler.
    pub threads: Option<usize>,
    /// What this process tried again; a scheduler's executors tell it by `/metrics`, and tasks by [`Stage::failed`].
    pub retries: Vec<Cause>,
}

/// How often something happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// What: a label of `baler_retries_total`.
    pub kind: String,
    /// How often.
    pub count: u64,
}

/// One setting of `GET /api/baler/settings`; values of secrets are `hidden`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name: a flag, a variable of the environment, an option of sessions.
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

/// `GET /api/baler/jobs/<name>`, or `…?part=<id>` for the plan of that part.
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
    /// Stages of the newest of them.
    pub stages: Vec<Stage>,
    /// The plan of the part which was asked for, else that of all waves of the newest attempt, with what they did together.
    pub plan: Option<Plan>,
    /// What this process tried again while the job runs in it.
    pub retries: Vec<Cause>,
    /// The newest micro-batches of a query, oldest first.
    pub batches: Vec<Batch>,
}

/// What is remembered of a job's work.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Stages of its newest parts.
    pub stages: Vec<Stage>,
    /// The plan of one of them, or of all waves together.
    pub plan: Option<Plan>,
}

/// A stage of a [`Part`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Name of the part.
    pub part: String,
    /// Its number there.
    pub stage: usize,
    /// How often it began; 1 unless it was rolled back.
    pub attempt: usize,
    /// `Unresolved`, `Resolved`, `Running`, `Successful` or `Failed`.
    pub status: String,
    /// Partitions which it has to do; a task does one or several.
    pub partitions: usize,
    /// Tasks which ended well.
    pub done: usize,
    /// Tasks which run.
    pub running: usize,
    /// Tasks which failed; each was begun again, unless the stage failed.
    pub failed: usize,
    /// Half of the finished tasks took no longer.
    pub median_seconds: Option<f64>,
    /// The longest of them.
    pub longest_seconds: Option<f64>,
    /// Host and port of the executor which took longest.
    pub slowest_executor: Option<String>,
    /// Why the first failed task failed.
    pub error: Option<String>,
}

/// A plan as a graph, with what its nodes did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Whose plan it is: a part, so many waves, or the job in this process.
    pub name: String,
    /// Its nodes; the first one is the root, and inputs come after the node which reads them.
    pub nodes: Vec<PlanNode>,
}

/// A node of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanNode {
    /// Its kind, `ProjectionExec`.
    pub name: String,
    /// What it does, in one line; values of secret options hidden.
    pub detail: String,
    /// Its stage, on a fleet.
    pub stage: Option<usize>,
    /// The nodes which it reads, by place in [`Plan::nodes`].
    pub inputs: Vec<usize>,
    /// What it did: finished tasks on a fleet, of all its waves, and all up to now in one process.
    pub metrics: Vec<Metric>,
}

/// A figure of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// DataFusion's name of it.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// `count`, `bytes` or `seconds`.
    pub unit: String,
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
