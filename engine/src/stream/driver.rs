//! The driver of a streaming query. One micro-batch is: resolve offsets → put `offsets/n` → run the INSERT on these ranges as a
//! job → put `commits/n` → tell the group → wait for the trigger.
//!
//! A range is fixed before a record of it is read, and committed after all receipts of its job are there; the next one begins
//! where it ends. So a driver which is killed at any point goes on with the same range and equal documents.

use std::time::{Duration, Instant};

use chrono::Utc;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{DmlStatement, LogicalPlan};
use tracing::Instrument;

use super::group::{group_of, tell_group};
use super::lag::StreamFigures;
use super::log::{BatchCommit, BatchOffsets, StreamLog};
use super::plan::{Caps, go_on, next_ranges};
use crate::cluster::client::Fleet;
use crate::connector::kafka::KafkaSpec;
use crate::connector::kafka::offsets::{Watermarks, current, starting};
use crate::connector::kafka::origin::follow_origins;
use crate::connector::kafka::spec::OffsetRange;
use crate::connector::receipt::SCHEMA_VERSION;
use crate::connector::source::SourceSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::job::run::{Job, pin_topic};
use crate::job::state::Commit;
use crate::runtime::spawn_io;
use crate::telemetry::{COUNTERS, RetryKind, Waits};

/// How long servers may be away from a query that ran before, without a micro-batch in between: a restarted broker, an election
/// and a rescheduled pod fit in.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(1);

/// A streaming query which can be run.
pub struct Query {
    /// Where statements are planned.
    pub context: SessionContext,
    /// Where it runs, if not in this process.
    pub fleet: Option<Fleet>,
    /// Name of the query: its subfolder in the state.
    pub name: String,
    /// URL of the state folder.
    pub state: String,
    /// Its statements, variables replaced.
    pub statement: String,
    /// Its INSERT.
    pub insert: DmlStatement,
    /// Time from the beginning of one micro-batch to that of the next.
    pub trigger: Duration,
    /// Whether it ends when it has caught up with what the topic held at its start.
    pub available_now: bool,
    /// How many micro-batches keep their own files at least; older ones are folded, so many at a time. 0 folds none.
    pub keep_batches: u64,
    /// Where it shows how far it is; [`StreamFigures::watch`] runs beside it then.
    pub figures: Option<StreamFigures>,
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").field("name", &self.name).field("state", &self.state).finish_non_exhaustive()
    }
}

/// One micro-batch that is done.
#[derive(Debug, Clone)]
pub struct BatchReport {
    /// Its commit.
    pub commit: BatchCommit,
    /// Time from resolving its offsets to its commit.
    pub took: Duration,
    /// Records which waited behind it when it was planned; `None` for one that was found in the log.
    pub lag_records: Option<u64>,
    /// Who was waited for most: `Kafka`, `the sink` or `the CPU`; unknown on a fleet.
    pub slowest: Option<&'static str>,
}

/// What a run of a query did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Micro-batches committed.
    pub batches: u64,
    /// Documents in them.
    pub documents: u64,
    /// Records in them.
    pub records: u64,
}

impl Query {
    /// Runs the query: until it has caught up with `available_now`, else until it fails or is dropped, both resumably. `report` is
    /// told of each micro-batch.
    ///
    /// # Errors
    /// Config, when it reads no topic; Conflict, when another driver took over, records are lost, or the log is another
    /// topic's; else as a job's.
    pub async fn run(&self, report: impl Fn(&BatchReport)) -> Result<Summary> {
        let spec = self.find_topic()?;
        let mut log = StreamLog::open(&self.context.runtime_env(), &self.state, &self.name)?;
        let epoch = log.claim().await?;
        let limits = if self.available_now { Some(current(&spec).await?) } else { None };
        // Kept until the run ends.
        let _watched = self.figures.clone().map(|figures| spawn_io(figures.watch(spec.clone()))).transpose()?;
        let mut run = Run { query: self, spec, log, epoch, limits, summary: Summary::default(), last_success: Instant::now() };
        loop {
            let Err(error) = run.run_batches(&report).await else { return Ok(run.summary) };
            // At its start a query says at once what is wrong; later it waits for servers that went away.
            if run.summary.batches == 0 || !matches!(error.kind(), ErrorKind::Transient | ErrorKind::Unreachable) {
                return Err(error);
            }
            if run.last_success.elapsed() > PATIENCE {
                return Err(error.context(format!("gave up after {} s", PATIENCE.as_secs())));
            }
            tracing::warn!(query = self.name, %error, "a micro-batch failed and is tried again");
            COUNTERS.add_retry(RetryKind::MicroBatch);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The one topic which the query reads.
    fn find_topic(&self) -> Result<KafkaSpec> {
        let mut found: Vec<KafkaSpec> = Vec::new();
        self.insert.input.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Some(SourceSpec::Kafka(spec)) = SourceSpec::of_table(source_as_provider(&scan.source)?.as_ref())
                && !found.contains(&spec)
            {
                found.push(spec);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        match (found.pop(), found.is_empty()) {
            (Some(spec), true) => Ok(spec),
            (None, _) => Err(Error::config("a streaming query reads a KAFKA table; use `baler run` for a batch job")),
            _ => Err(Error::config("a streaming query reads one KAFKA table; write one query for each topic")),
        }
    }
}

/// A query while it runs.
struct Run<'a> {
    query: &'a Query,
    spec: KafkaSpec,
    log: StreamLog,
    epoch: u64,
    /// Where it has caught up.
    limits: Option<Watermarks>,
    summary: Summary,
    last_success: Instant,
}

impl Run<'_> {
    /// Goes on from what the log says, until there is nothing left or something fails.
    async fn run_batches(&mut self, report: &impl Fn(&BatchReport)) -> Result<()> {
        let (mut last, mut last_commit) = self.recover().await?;
        if let Some(last) = &last {
            self.note(last, last_commit.as_ref());
        }
        stop_at("recovered", last.as_ref().map_or(0, |last| last.batch)).await;
        loop {
            let (started, waits) = (Instant::now(), Waits::of_process());
            let begun = last.take_if(|last| last_commit.as_ref().is_none_or(|commit| commit.batch < last.batch));
            let (batch, lag_records) = match begun {
                Some(begun) => (begun, None),
                None => {
                    let (planned, lag) = self.plan_batch(last.as_ref(), last_commit.as_ref()).await?;
                    self.last_success = Instant::now();
                    // The first one is fixed even if it is empty: where the query began must hold for its next driver, too.
                    if planned.length() == 0 && last.is_some() {
                        if self.query.available_now {
                            return Ok(());
                        }
                        tokio::time::sleep_until((started + self.query.trigger).into()).await;
                        continue;
                    }
                    stop_at("resolved", planned.batch).await;
                    (self.log.begin(planned).await?, Some(lag))
                }
            };
            self.note(&batch, None);
            stop_at("begun", batch.batch).await;
            let span = tracing::info_span!("batch", query = self.query.name, batch = batch.batch);
            let totals = self.run_batch(&batch).instrument(span.clone()).await?;
            stop_at("written", batch.batch).await;
            let commit = BatchCommit::new(batch.batch, self.epoch, totals.as_ref());
            self.log.commit(&commit).await?;
            self.note(&batch, Some(&commit));
            stop_at("committed", batch.batch).await;
            if let Err(error) = tell_group(&self.spec, &group_of(&self.spec, &self.query.name), &batch.ranges).await {
                tracing::warn!(query = self.query.name, %error, "lag tools do not see this micro-batch");
            }
            self.fold_old(batch.batch).await;
            self.summary.batches += 1;
            self.summary.documents += commit.documents;
            self.summary.records += commit.records;
            self.last_success = Instant::now();
            let slowest = self.query.fleet.is_none().then(|| Waits::of_process().since(&waits).slowest());
            let done = BatchReport { commit: commit.clone(), took: started.elapsed(), lag_records, slowest };
            COUNTERS.stream_batches.observe(done.took);
            span.in_scope(|| report(&done));
            (last, last_commit) = (Some(batch), Some(commit));
            self.wait(&done, started).await;
        }
    }

    /// Folds old micro-batches from time to time. What fails here is tried again later: nothing depends on it.
    async fn fold_old(&self, batch: u64) {
        let keep = self.query.keep_batches;
        if keep == 0 || !(batch + 1).is_multiple_of(keep) {
            return;
        }
        match self.log.fold(&self.query.context.runtime_env(), &self.query.state, keep as usize).await {
            Ok(folded) => tracing::debug!(query = self.query.name, folded, "old micro-batches are folded"),
            Err(error) => tracing::warn!(query = self.query.name, %error, "old micro-batches are not folded"),
        }
    }

    /// Shows where the query is: at `batch`, which is done if it has a commit.
    fn note(&self, batch: &BatchOffsets, commit: Option<&BatchCommit>) {
        if let Some(figures) = &self.query.figures {
            figures.note(&batch.ranges, commit.filter(|commit| commit.batch == batch.batch).map(|commit| commit.committed));
        }
    }

    /// The newest micro-batch, and its commit if it is done.
    async fn recover(&self) -> Result<(Option<BatchOffsets>, Option<BatchCommit>)> {
        let Some(last) = self.log.last_offsets().await? else { return Ok((None, None)) };
        if last.topic != self.spec.topic {
            return Err(Error::conflict(format!(
                "query `{}` reads topic {}, not {}; take another name for another topic",
                self.query.name, last.topic, self.spec.topic
            )));
        }
        let commit = self.log.commit_of(last.batch).await?;
        Ok((Some(last), commit))
    }

    /// What the next micro-batch takes, and how many records wait behind it.
    async fn plan_batch(&self, last: Option<&BatchOffsets>, last_commit: Option<&BatchCommit>) -> Result<(BatchOffsets, u64)> {
        let (starts, marks) = match last {
            Some(last) => {
                let marks = current(&self.spec).await?;
                (go_on(&self.spec, &last.ranges, &marks)?, marks)
            }
            None => starting(&self.spec).await?,
        };
        let origins = follow_origins(&self.spec, last.map(|last| last.origins.clone()).unwrap_or_default(), &marks).await?;
        let record_bytes = last_commit.filter(|commit| commit.records > 0).map(|commit| commit.raw_bytes / commit.records);
        let caps = Caps::new(&self.spec, self.query.trigger.as_secs(), record_bytes);
        let ranges = next_ranges(&starts, &marks, self.limits.as_ref(), caps);
        let behind = |range: &OffsetRange| marks.get(&range.partition).map_or(0, |(_, high)| high.saturating_sub(range.end).max(0) as u64);
        let lag = ranges.iter().map(behind).sum();
        let (batch, topic) = (last.map_or(0, |last| last.batch + 1), self.spec.topic.clone());
        Ok((BatchOffsets { schema_version: SCHEMA_VERSION, batch, epoch: self.epoch, topic, ranges, origins, planned: Utc::now() }, lag))
    }

    /// Runs a micro-batch as a job over exactly its ranges; `None` if they hold nothing.
    async fn run_batch(&self, batch: &BatchOffsets) -> Result<Option<Commit>> {
        if batch.length() == 0 {
            return Ok(None);
        }
        let query = self.query;
        let insert = pin_topic(&query.insert, &KafkaSpec { pinned: Some(batch.ranges.clone()), ..self.spec.clone() })?;
        let job = self.log.job(&query.state, batch.batch)?;
        let job = Job::prepare(&query.context, query.fleet.clone(), job, &query.statement, insert).await?;
        Ok(Some(job.run().await?.commit))
    }

    /// Waits for the next trigger; after a micro-batch that took longer, says so and does not wait.
    async fn wait(&self, done: &BatchReport, started: Instant) {
        if self.query.available_now {
            return;
        }
        if done.took > self.query.trigger {
            tracing::warn!(
                query = self.query.name,
                batch = done.commit.batch,
                took_seconds = done.took.as_secs_f64(),
                trigger_seconds = self.query.trigger.as_secs_f64(),
                lag_records = done.lag_records,
                waited_for = done.slowest.unwrap_or("unknown"),
                "a micro-batch took longer than the trigger; the next one begins at once"
            );
        }
        tokio::time::sleep_until((started + self.query.trigger).into()).await;
    }
}

/// For tests: `BALER_TEST_STOP_AT=<step>:<batch>` stops the driver there for good, to be killed.
async fn stop_at(step: &str, batch: u64) {
    if std::env::var("BALER_TEST_STOP_AT").is_ok_and(|wanted| wanted == format!("{step}:{batch}")) {
        tracing::warn!("stopped at {step}:{batch}");
        std::future::pending::<()>().await;
    }
}
