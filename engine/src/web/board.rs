//! Jobs and queries of a state folder, as the page shows them. Files which never change are read once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::Mutex;

use super::schema::{Batch, Cause, JobDetail, Overview, Part, Point, Setting, SlowSplit, Totals, Work, Writer};
use super::secret::{hide_login, hide_secrets};
use crate::cluster::ExecutorInfo;
use crate::connector::receipt::Receipt;
use crate::connector::split::Split;
use crate::error::Result;
use crate::job::JobRef;
use crate::job::folder::job_names;
use crate::job::manifest::Manifest;
use crate::job::seen::SeenJob;
use crate::job::state::JobState;
use crate::job::summary::{JobSummary, Planned, summarize_again};
use crate::store::{full_url, locate};
use crate::stream::log::{BatchCommit, StreamLog};

/// How old a summary may be: a job under way, a query (whose lag costs its brokers a look), and a job that is done.
const FRESH_JOB: Duration = Duration::from_millis(1500);
const FRESH_QUERY: Duration = Duration::from_secs(10);
const FRESH_DONE: Duration = Duration::from_secs(60);
/// State folders which are read at once.
pub(crate) const READS_IN_FLIGHT: usize = 16;
/// Jobs whose receipts are kept in memory: 16,000 of them are some MB.
pub(crate) const DETAILS_MAX: usize = 8;
/// Points of a chart.
const POINTS: i64 = 120;
/// Rows of the lists of a job.
const SLOWEST: usize = 8;
const DEAD_LETTERS: usize = 100;
const BATCHES: u64 = 60;

/// What a [`Workers`] is asked for.
pub type Asked<'a, T> = BoxFuture<'a, Result<T>>;

/// Who does the work which the page shows. Without an `async fn`, for what holds a scheduler takes the compiler long to check in each of them.
pub trait Workers: Send + Sync {
    /// `fleet` or `process`.
    fn mode(&self) -> &'static str;

    /// Executors whose heartbeat is fresh.
    ///
    /// # Errors
    /// As the scheduler's state.
    fn executors(&self) -> Asked<'_, Vec<ExecutorInfo>>;

    /// What is under way or remembered, newest first.
    ///
    /// # Errors
    /// As [`Self::executors`].
    fn parts(&self) -> Asked<'_, Vec<Part>>;

    /// Whether something of job `job` runs.
    ///
    /// # Errors
    /// As [`Self::executors`].
    fn is_running<'a>(&'a self, job: &'a str) -> Asked<'a, bool>;

    /// Splits of job `job` in tasks which run, those which are done included.
    ///
    /// # Errors
    /// As [`Self::executors`].
    fn running_splits<'a>(&'a self, job: &'a str) -> Asked<'a, HashSet<String>>;

    /// Stages of job `job`, as far as they are remembered, and the plan of its part with the id `part`, else of all its waves together.
    ///
    /// # Errors
    /// As [`Self::executors`].
    fn work<'a>(&'a self, job: &'a str, part: Option<&'a str>) -> Asked<'a, Work>;

    /// What this process tried again, by kind; empty where others do the work.
    fn retries(&self) -> Vec<Cause>;

    /// Tasks or partitions which run at once in this process; `None` where others do the work.
    fn threads(&self) -> Option<usize>;

    /// Stops what runs of job `job`; returns how many parts that were.
    ///
    /// # Errors
    /// As [`Self::executors`].
    fn cancel<'a>(&'a self, job: &'a str) -> Asked<'a, usize>;

    /// How it is set up: flags, environment, options of sessions; no secrets.
    fn settings(&self) -> Vec<Setting>;
}

/// Whether Ballista job `part` belongs to job or query `job`: itself, one of its waves, or a wave of one of its micro-batches.
pub fn is_part_of(job: &str, part: &str) -> bool {
    // A micro-batch of a query is job `<query>.<number>`.
    let is_batch =
        |name: &str| name.strip_prefix(job).and_then(|rest| rest.strip_prefix('.')).is_some_and(|number| number.parse::<u64>().is_ok());
    let name = part.split_once(" wave ").map_or(part, |(name, _)| name);
    name == job || is_batch(name)
}

/// What is kept of a receipt.
struct Fact {
    finished: DateTime<Utc>,
    seconds: f64,
    executor: String,
    done: Totals,
    has_dead_letters: bool,
}

impl From<&Receipt> for Fact {
    fn from(receipt: &Receipt) -> Self {
        Self {
            finished: receipt.finished,
            seconds: (receipt.finished - receipt.started).num_milliseconds() as f64 / 1e3,
            executor: receipt.executor.clone(),
            done: receipt.into(),
            has_dead_letters: receipt.dead_letters > 0,
        }
    }
}

/// A manifest with its splits laid out.
struct Listed {
    manifest: Manifest,
    splits: Vec<Split>,
}

impl From<Manifest> for Listed {
    fn from(manifest: Manifest) -> Self {
        Self { splits: manifest.splits().collect(), manifest }
    }
}

/// A job or query in short, as it was a moment ago.
struct Summarized {
    read: Instant,
    summary: JobSummary,
    seen: SeenJob<Planned, ()>,
}

/// What was read of one job or query.
#[derive(Default)]
struct Known {
    job: SeenJob<Listed, Fact>,
    batches: HashMap<u64, (Batch, Totals)>,
}

/// A job or query whose page is looked at. Its lock is its own: a first look at very many receipts holds up no other page.
struct Detailed {
    used: Instant,
    known: Arc<Mutex<Known>>,
}

/// All there is to show.
pub struct Board {
    env: Arc<RuntimeEnv>,
    state: String,
    workers: Arc<dyn Workers>,
    summaries: Mutex<HashMap<String, Summarized>>,
    known: Mutex<HashMap<String, Detailed>>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Board {
    /// The jobs below the URL `state`, which `workers` work on.
    ///
    /// # Errors
    /// Config, when the URL is not valid.
    pub fn new(env: Arc<RuntimeEnv>, state: &str, workers: Arc<dyn Workers>) -> Result<Self> {
        Ok(Self { env, state: full_url(state)?, workers, summaries: Mutex::default(), known: Mutex::default() })
    }

    /// URL of the folder with the state of all jobs.
    pub fn state(&self) -> &str {
        &self.state
    }

    /// Who does the work.
    pub fn workers(&self) -> &dyn Workers {
        self.workers.as_ref()
    }

    /// Everything in short.
    ///
    /// # Errors
    /// As the workers'.
    pub async fn overview(&self) -> Result<Overview> {
        let mut problems = Vec::new();
        let jobs = self.jobs(&mut problems).await;
        let mut running = Vec::new();
        for job in &jobs {
            if self.workers.is_running(&job.job).await? {
                running.push(job.job.clone());
            }
        }
        Ok(Overview {
            version: crate::VERSION.to_string(),
            mode: self.workers.mode().to_string(),
            state: hide_login(&self.state),
            now: Utc::now(),
            executors: self.workers.executors().await?,
            parts: self.workers.parts().await?,
            jobs,
            running,
            problems,
            threads: self.workers.threads(),
            retries: self.workers.retries(),
        })
    }

    /// Jobs and queries by name; what cannot be read is told in `problems`.
    pub async fn jobs(&self, problems: &mut Vec<String>) -> Vec<JobSummary> {
        let names = match locate(&self.env, &self.state) {
            Ok(folder) => job_names(&folder).await,
            Err(error) => Err(error),
        };
        let names = names.unwrap_or_else(|error| {
            problems.push(error.to_string());
            Vec::new()
        });
        let read = futures::stream::iter(names)
            .map(|name| async move { (self.summary(&name).await, name) })
            .buffered(READS_IN_FLIGHT)
            .collect::<Vec<_>>()
            .await;
        let mut jobs = Vec::new();
        for (summary, name) in read {
            match summary {
                Ok(summary) => jobs.extend(summary),
                Err(error) => problems.push(format!("{name}: {error}")),
            }
        }
        jobs
    }

    /// One of them, as it was a moment ago at most.
    async fn summary(&self, name: &str) -> Result<Option<JobSummary>> {
        let mut seen = SeenJob::default();
        if let Entry::Occupied(known) = self.summaries.lock().await.entry(name.to_string()) {
            let Summarized { read, summary, .. } = known.get();
            let fresh = match summary.status.as_str() {
                "committed" => FRESH_DONE,
                "streaming" => FRESH_QUERY,
                _ => FRESH_JOB,
            };
            if read.elapsed() < fresh {
                return Ok(Some(summary.clone()));
            }
            seen = known.remove().seen;
        }
        let summary = summarize_again(&self.env, &self.state, name, &mut seen).await?;
        if let Some(summary) = summary.clone() {
            self.summaries.lock().await.insert(name.to_string(), Summarized { read: Instant::now(), summary, seen });
        }
        Ok(summary)
    }

    /// One job or query in full, with the plan of its part with the id `part`, else of all its waves together; `None` if there is none of this name.
    ///
    /// # Errors
    /// As the state folder's and the workers'.
    pub async fn detail(&self, name: &str, part: Option<&str>) -> Result<Option<JobDetail>> {
        let Some(summary) = self.summary(name).await? else { return Ok(None) };
        let parts = self.workers.parts().await?.into_iter().filter(|part| is_part_of(name, &part.name)).collect();
        let is_running = self.workers.is_running(name).await?;
        let Work { stages, plan } = self.workers.work(name, part).await?;
        let known = self.known(name).await;
        let mut known = known.lock().await;
        let mut detail = JobDetail {
            summary,
            is_running,
            target: String::new(),
            statement: String::new(),
            splits: String::new(),
            totals: Totals::default(),
            series: Vec::new(),
            writers: Vec::new(),
            slowest: Vec::new(),
            dead_letters: Vec::new(),
            parts,
            stages,
            plan,
            retries: if is_running { self.workers.retries() } else { Vec::new() },
            batches: Vec::new(),
        };
        if detail.summary.query.is_some() {
            self.read_batches(name, &mut known, &mut detail).await?;
        } else {
            let state = JobState::open(&self.env, &JobRef::try_new(&self.state, name)?)?;
            self.read_job(&state, name, &mut known.job, &mut detail).await?;
        }
        Ok(Some(detail))
    }

    /// What was read of job or query `name`; those which nobody asked for longest make room.
    async fn known(&self, name: &str) -> Arc<Mutex<Known>> {
        let mut all = self.known.lock().await;
        if all.len() >= DETAILS_MAX
            && !all.contains_key(name)
            && let Some(oldest) = all.iter().min_by_key(|(_, detailed)| detailed.used).map(|(name, _)| name.clone())
        {
            all.remove(&oldest);
        }
        let detailed = all.entry(name.to_string()).or_insert_with(|| Detailed { used: Instant::now(), known: Arc::default() });
        detailed.used = Instant::now();
        Arc::clone(&detailed.known)
    }

    async fn read_job(&self, state: &JobState, name: &str, known: &mut SeenJob<Listed, Fact>, detail: &mut JobDetail) -> Result<()> {
        let Some(listed) = known.manifest(state).await? else { return Ok(()) };
        let Listed { manifest, splits } = listed.as_ref();
        known.read_receipts(state).await?;
        let running = if detail.is_running { self.workers.running_splits(name).await? } else { HashSet::new() };
        detail.target = manifest.sink.target();
        detail.statement = hide_secrets(&manifest.statement);
        detail.splits = splits.iter().map(|split| split_letter(split, known, &running)).collect();
        if !manifest.by_split {
            let letter = if known.receipts().next().is_some() {
                'd'
            } else if detail.is_running {
                'r'
            } else {
                '.'
            };
            detail.splits = letter.to_string();
        }
        let facts: Vec<&Fact> = known.receipts().collect();
        detail.totals = facts.iter().map(|fact| fact.done).sum();
        detail.series = series(&facts);
        detail.writers = writers(&facts);
        detail.slowest = slowest(splits, known);
        detail.dead_letters = state.some_dead_letters(DEAD_LETTERS).await?.0;
        Ok(())
    }

    async fn read_batches(&self, name: &str, known: &mut Known, detail: &mut JobDetail) -> Result<()> {
        let log = StreamLog::open(&self.env, &self.state, name)?;
        let Some(last) = log.last_offsets().await? else { return Ok(()) };
        for number in last.batch.saturating_sub(BATCHES - 1)..=last.batch {
            if let Some((batch, done)) = known.batches.get(&number) {
                detail.batches.push(batch.clone());
                detail.totals = detail.totals + *done;
                continue;
            }
            let Some(offsets) = log.offsets(number).await? else { continue };
            let commit = log.commit_of(number).await?;
            let batch = Batch {
                batch: number,
                planned: offsets.planned,
                committed: commit.as_ref().map(|commit| commit.committed),
                records: commit.as_ref().map_or(offsets.length(), |commit| commit.records),
                documents: commit.as_ref().map_or(0, |commit| commit.documents),
            };
            if let Some(commit) = commit {
                let BatchCommit { documents, records, raw_bytes, compressed_bytes, .. } = commit;
                let done = Totals { documents, records, raw_bytes, compressed_bytes };
                detail.totals = detail.totals + done;
                known.batches.insert(number, (batch.clone(), done));
            }
            detail.batches.push(batch);
        }
        let newest = log.job(&self.state, last.batch)?;
        if let Some(manifest) = JobState::open(&self.env, &newest)?.manifest().await? {
            (detail.target, detail.statement) = (manifest.sink.target(), hide_secrets(&manifest.statement));
        }
        Ok(())
    }
}

fn split_letter(split: &Split, known: &SeenJob<Listed, Fact>, running: &HashSet<String>) -> char {
    match known.receipt(&split.id) {
        Some(fact) if fact.has_dead_letters => 'x',
        Some(_) => 'd',
        None if running.contains(split.id.as_str()) => 'r',
        None => '.',
    }
}

/// What came in each of at most [`POINTS`] equal intervals between the first and the last receipt.
fn series(facts: &[&Fact]) -> Vec<Point> {
    let times = || facts.iter().map(|fact| fact.finished.timestamp_millis());
    let begins = facts.iter().map(|fact| fact.finished.timestamp_millis() - (fact.seconds * 1e3) as i64).min();
    let (Some(first), Some(last)) = (begins, times().max()) else { return Vec::new() };
    let step = ((last - first) / POINTS).max(1000);
    let count = ((last - first) / step + 1) as usize;
    let mut points: Vec<Point> = (0..count as i64)
        .map(|number| Point { at: first + (number + 1) * step, seconds: step as f64 / 1e3, done: Totals::default() })
        .collect();
    for fact in facts {
        let index = ((fact.finished.timestamp_millis() - first) / step) as usize;
        if let Some(point) = points.get_mut(index.min(count - 1)) {
            point.done = point.done + fact.done;
        }
    }
    points
}

fn writers(facts: &[&Fact]) -> Vec<Writer> {
    let mut by_name: HashMap<&str, Writer> = HashMap::new();
    for fact in facts {
        let writer =
            by_name.entry(&fact.executor).or_insert_with(|| Writer { name: fact.executor.clone(), splits: 0, raw_bytes: 0, seconds: 0.0 });
        writer.splits += 1;
        writer.raw_bytes += fact.done.raw_bytes;
        writer.seconds += fact.seconds;
    }
    let mut writers: Vec<Writer> = by_name.into_values().collect();
    writers.sort_by(|a, b| b.raw_bytes.cmp(&a.raw_bytes).then_with(|| a.name.cmp(&b.name)));
    writers
}

fn slowest(splits: &[Split], known: &SeenJob<Listed, Fact>) -> Vec<SlowSplit> {
    let mut slow: Vec<SlowSplit> = splits
        .iter()
        .enumerate()
        .filter_map(|(index, split)| {
            let fact = known.receipt(&split.id)?;
            let (object, executor) = (split.object.to_string(), fact.executor.clone());
            Some(SlowSplit { index, object, start: split.start, end: split.end, seconds: fact.seconds, executor })
        })
        .collect();
    slow.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    slow.truncate(SLOWEST);
    slow
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_belong_to_their_job_and_to_no_other() {
        for (part, wanted) in
            [("load wave 3 of attempt 1", true), ("load.000000007 wave 1 of attempt 1", true), ("load", true), ("load.7", true)]
        {
            assert_eq!(is_part_of("load", part), wanted, "{part}");
        }
        assert!(!is_part_of("load", "loader wave 1 of attempt 1") && !is_part_of("load", "load.x wave 1 of attempt 1"));
    }

    #[test]
    fn a_chart_holds_every_receipt_in_at_most_121_points() {
        let start = DateTime::from_timestamp_millis(1_000_000).unwrap();
        let facts: Vec<Fact> = (0..5000)
            .map(|number| Fact {
                finished: start + chrono::Duration::milliseconds(number * 777),
                seconds: 2.0,
                executor: format!("e{}", number % 3),
                done: Totals { raw_bytes: 10, ..Totals::default() },
                has_dead_letters: false,
            })
            .collect();
        let facts: Vec<&Fact> = facts.iter().collect();
        let points = series(&facts);
        assert!(points.len() <= 121 && points.iter().map(|point| point.done.raw_bytes).sum::<u64>() == 50_000, "{}", points.len());
        assert_eq!(writers(&facts).iter().map(|writer| writer.splits).sum::<usize>(), 5000);
    }
}
