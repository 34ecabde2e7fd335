//! The driver of a batch job: plan, manifest, write, commit. Running it again resumes.
//!
//! Order is what makes it safe: the manifest is stored before anything is read, a receipt after every document of its split
//! is acknowledged, the commit after every receipt is there. A crash between two steps only repeats work whose result is equal.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use chrono::Utc;
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::datatypes::UInt64Type;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{DmlStatement, LogicalPlan};
use datafusion::physical_plan::{ExecutionPlan, collect};
use smol_str::SmolStr;

use super::JobRef;
use super::manifest::{Manifest, ManifestObject, WHOLE};
use super::state::{Commit, JobState};
use super::waves;
use crate::cluster::client::Fleet;
use crate::connector::SinkSpec;
use crate::connector::kafka::KafkaSpec;
use crate::connector::receipt::{Receipt, SCHEMA_VERSION, Totals};
use crate::connector::sink::SinkTable;
use crate::connector::source::{SourceSpec, SourceTable};
use crate::connector::split::{Split, deal};
use crate::connector::write::WriteExec;
use crate::error::{Error, Result};
use crate::runtime;
use crate::telemetry::plan::show_plan;
use crate::telemetry::{COUNTERS, Done, Figures, JobSize, ReceiptTotals};

/// Splits which one plan of this process reads at most: more are read by several plans, one after the other, so that what a plan holds of each
/// split does not grow with the job.
pub(crate) const PLAN_SPLITS_MAX: usize = 10_000;
/// Receipts which are in memory at once when a job is committed.
pub(crate) const RECEIPTS_AT_ONCE_MAX: usize = 10_000;

/// A job that is planned and whose manifest is stored.
pub struct Job {
    context: SessionContext,
    job: JobRef,
    state: JobState,
    insert: DmlStatement,
    manifest: Manifest,
    /// Splits without a receipt; empty for a statement which cannot run split by split.
    pending: Vec<Split>,
    /// Where it runs, if not in this process.
    fleet: Option<Fleet>,
    /// Whether the target was reached and prepared in this run.
    is_prepared: bool,
    progress: Arc<ReceiptTotals>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("job", &self.job).field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The job's totals.
    pub commit: Commit,
    /// Documents which this run wrote; 0 when all was done before.
    pub written_now: u64,
}

impl Job {
    /// Plans `insert` as job `job`, to run on `fleet` or in this process, and stores its manifest, or finds the stored one again and checks that it is the same job.
    /// `statement` is the text that the hash is over.
    ///
    /// # Errors
    /// Config for a statement that cannot be a job; Conflict for another job under this name; Unreachable for a target
    /// which cannot be had.
    pub async fn prepare(
        context: &SessionContext,
        fleet: Option<Fleet>,
        mut job: JobRef,
        statement: &str,
        insert: DmlStatement,
    ) -> Result<Self> {
        let state = JobState::open(&context.runtime_env(), &job)?;
        let sink = find_sink(&insert)?;
        let source = find_source(&insert.input)?;
        let stored = state.manifest().await?;
        let objects = match (&source, &stored) {
            (Some(source), Some(stored)) if source.grows() => stored.objects.clone(),
            (Some(source), _) => source.list_input(&context.runtime_env()).await?,
            (None, _) => Vec::new(),
        };
        // One split tells as much of the plan as a million.
        let first: Vec<Split> = objects.iter().flat_map(ManifestObject::splits).take(1).collect();
        let shape = plan_shape(context, bind(&insert, &job, Some(&[first]))?).await?;
        let by_split = source.is_some() && shape.is_by_split;
        let recorded = if by_split { objects } else { Vec::new() };
        let mut manifest = Manifest::new(&job.name, statement, source, sink.clone(), recorded);
        (manifest.by_split, manifest.keeps_every_row) = (by_split, shape.keeps_every_row);
        let mut is_prepared = false;
        if let Some(stored) = stored {
            stored.check_same(&manifest)?;
            manifest = stored;
        } else {
            // Reaching the target first leaves no half-begun job behind when the password is wrong.
            sink.prepare(&context.runtime_env()).await?;
            is_prepared = true;
            if !state.put_manifest(&manifest).await? {
                let stored = state.manifest().await?.ok_or_else(|| Error::conflict("the manifest was removed while the job began"))?;
                stored.check_same(&manifest)?;
                manifest = stored;
            }
        }
        let done: HashSet<String> = state.receipt_names().await?.into_iter().collect();
        let pending = manifest.splits().filter(|split| !done.contains(split.id.as_str())).collect();
        if state.commit().await?.is_none() {
            job.attempt = state.begin_attempt().await?;
        }
        let progress = Arc::default();
        Ok(Self { context: context.clone(), job, state, insert, manifest, pending, fleet, is_prepared, progress })
    }

    /// Splits of the job and how many of them are done.
    pub fn splits(&self) -> (usize, usize) {
        let all = self.manifest.receipt_names().count();
        (all, if self.manifest.by_split { all - self.pending.len() } else { 0 })
    }

    /// Stored bytes of all splits and of those that are still to be read.
    pub fn bytes(&self) -> (u64, u64) {
        let all = self.manifest.splits().map(|split| split.work_bytes()).sum();
        (all, self.pending.iter().map(Split::work_bytes).sum())
    }

    /// What there is to do, as [`publish_job`](crate::telemetry::publish_job) shows it.
    pub fn size(&self) -> JobSize {
        let ((splits, splits_before), (bytes, pending)) = (self.splits(), self.bytes());
        JobSize { splits: splits as u64, splits_before: splits_before as u64, bytes, bytes_before: bytes - pending }
    }

    /// Which attempt this is.
    pub fn attempt(&self) -> u32 {
        self.job.attempt
    }

    /// Figures of this run so far, for as long as it goes on.
    pub fn figures(&self) -> impl Fn() -> Figures + Send + Sync + 'static {
        let totals = self.fleet.is_some().then(|| Arc::clone(&self.progress));
        move || totals.as_ref().map_or_else(Figures::of_process, |totals| totals.figures())
    }

    pub(super) fn job(&self) -> &JobRef {
        &self.job
    }

    pub(super) fn insert(&self) -> &DmlStatement {
        &self.insert
    }

    pub(super) fn progress(&self) -> &ReceiptTotals {
        &self.progress
    }

    /// Where the job's state is.
    pub fn state(&self) -> &JobState {
        &self.state
    }

    /// Writes what has no receipt yet and commits. Dropping the future stops the job resumably.
    ///
    /// # Errors
    /// The first failure of a split; what other splits have finished stays.
    pub async fn run(mut self) -> Result<Outcome> {
        if let Some(commit) = self.state.commit().await? {
            return Ok(Outcome { commit, written_now: 0 });
        }
        let is_whole = !self.manifest.by_split;
        let is_done = if is_whole { self.state.receipt(WHOLE).await?.is_some() } else { self.pending.is_empty() };
        let (mut written_now, mut tally) = (0, Tally::default());
        if !is_done {
            if !self.is_prepared {
                self.manifest.sink.prepare(&self.context.runtime_env()).await?;
            }
            if is_whole {
                self.manifest.sink.discard_parts(&self.context.runtime_env(), &self.job).await?;
            }
            let started = Utc::now();
            let pending = std::mem::take(&mut self.pending);
            (written_now, tally) = self.write(pending).await?;
            if is_whole {
                self.check_alone().await?;
                if self.state.put_receipt(&whole_receipt(written_now, self.job.attempt, started)).await? {
                    COUNTERS.add_done(&Done { documents: written_now, ..Done::default() }, 1);
                }
            }
        }
        Ok(Outcome { commit: self.commit(tally).await?, written_now })
    }

    /// Refuses to go on when a later run of the job has begun: it has removed the parts of this one.
    async fn check_alone(&self) -> Result<()> {
        if self.state.attempts().await? as u64 > u64::from(self.job.attempt) {
            return Err(Error::conflict(format!(
                "another run of job `{}` began while this one wrote; let it end, or run it again",
                self.job.name
            )));
        }
        Ok(())
    }

    /// Writes these splits, or all of a statement which cannot run split by split; returns the documents that were written or found there, and
    /// the receipts that were seen meanwhile.
    async fn write(&self, pending: Vec<Split>) -> Result<(u64, Tally)> {
        if let Some(fleet) = &self.fleet
            && self.manifest.by_split
        {
            let tally = waves::write(self, fleet, pending).await?;
            return Ok((tally.totals().documents, tally));
        }
        let job = self.job.traced();
        if !self.manifest.by_split {
            return Ok((self.run_plan(bind(&self.insert, &job, None)?).await?, Tally::default()));
        }
        let (partitions, mut documents) = (self.context.copied_config().target_partitions(), 0);
        for splits in pending.chunks(PLAN_SPLITS_MAX) {
            documents += self.run_plan(bind(&self.insert, &job, Some(&deal(splits, partitions)))?).await?;
        }
        Ok((documents, Tally::default()))
    }

    /// Runs a bound INSERT on the fleet or in this process; returns its documents.
    async fn run_plan(&self, plan: LogicalPlan) -> Result<u64> {
        let counts = match &self.fleet {
            Some(fleet) => fleet.submission(&self.job.name, &plan).await?.run().await?,
            None => {
                let (plan, task) = (physical_plan(&self.context, plan).await?, self.context.task_ctx());
                show_plan(&self.job.name, &plan);
                runtime::spawn_cpu(async move { collect(plan, task).await })?.join().await??
            }
        };
        Ok(counts.iter().flat_map(|batch| batch.column(0).as_primitive::<UInt64Type>().iter().flatten()).sum())
    }

    /// Sums the receipts; refuses unless every split has one. Those in `tally` need not be read again.
    async fn commit(&self, mut tally: Tally) -> Result<Commit> {
        let unseen: Vec<&str> = self.manifest.receipt_names().filter(|name| !tally.has(name)).collect();
        for names in unseen.chunks(RECEIPTS_AT_ONCE_MAX) {
            let receipts = self.state.find_receipts(names).await?;
            if receipts.len() < names.len() {
                let found: HashSet<&str> = receipts.iter().map(|receipt| receipt.split.as_str()).collect();
                let name = names.iter().find(|name| !found.contains(**name)).unwrap_or(&WHOLE);
                return Err(Error::internal(format!(
                    "split {name} ended without a receipt, so job `{}` is not committed; run it again",
                    self.job.name
                )));
            }
            receipts.iter().for_each(|receipt| tally.sum(receipt));
        }
        let Totals { documents, records, raw_bytes, compressed_bytes } = tally.totals();
        let commit = Commit {
            schema_version: SCHEMA_VERSION,
            job: self.job.name.clone(),
            statement_hash: self.manifest.statement_hash.clone(),
            splits: self.manifest.receipt_names().count() as u64,
            documents,
            records,
            raw_bytes,
            compressed_bytes,
            dead_letters: tally.dead_letters(),
            committed: Utc::now(),
        };
        self.state.put_commit(&commit).await?;
        // Another driver may have been first; its totals are the job's.
        Ok(self.state.commit().await?.unwrap_or(commit))
    }
}

/// Receipts summed up, and whose they were: of a million of them, no more than that is kept.
#[derive(Debug, Default)]
pub(super) struct Tally {
    splits: HashSet<SmolStr>,
    totals: Totals,
    dead_letters: u64,
}

impl Tally {
    /// Adds the receipt of a split unless it was there.
    pub(super) fn add(&mut self, split: SmolStr, receipt: &Receipt) {
        if self.splits.insert(split) {
            self.sum(receipt);
        }
    }

    fn sum(&mut self, receipt: &Receipt) {
        self.totals = self.totals + receipt.into();
        self.dead_letters += receipt.dead_letters;
    }

    fn has(&self, split: &str) -> bool {
        self.splits.contains(split)
    }

    fn totals(&self) -> Totals {
        self.totals
    }

    fn dead_letters(&self) -> u64 {
        self.dead_letters
    }
}

fn whole_receipt(documents: u64, attempt: u32, started: chrono::DateTime<Utc>) -> Receipt {
    Receipt {
        schema_version: SCHEMA_VERSION,
        split: SmolStr::new_static(WHOLE),
        documents,
        records: 0,
        raw_bytes: 0,
        compressed_bytes: 0,
        first_byte: None,
        next_byte: None,
        already_there: 0,
        dead_letters: 0,
        digest: String::new(),
        attempt,
        executor: format!("driver/{}", std::process::id()),
        started,
        finished: Utc::now(),
    }
}

/// The source which a query reads, if it reads exactly one and that once.
pub(crate) fn find_source(input: &LogicalPlan) -> Result<Option<SourceSpec>> {
    let mut found = Vec::new();
    input.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(source) = SourceSpec::of_table(source_as_provider(&scan.source)?.as_ref())
        {
            found.push(source);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(if found.len() == 1 { found.pop() } else { None })
}

/// The sink which an INSERT writes to.
///
/// # Errors
/// Config, when its table is none.
pub(crate) fn find_sink(insert: &DmlStatement) -> Result<SinkSpec> {
    let provider = source_as_provider(&insert.target)?;
    let sink = provider.downcast_ref::<SinkTable>().map(|sink| sink.spec.clone());
    sink.ok_or_else(|| Error::config(format!("a job ends in a MONGODB or BSON table; `{}` is none", insert.table_name)))
}

/// The same INSERT with the job in its sink and, where it runs split by split, the splits of each partition in its source.
pub(crate) fn bind(insert: &DmlStatement, job: &JobRef, tasks: Option<&[Vec<Split>]>) -> Result<LogicalPlan> {
    let mut insert = insert.clone();
    let provider = source_as_provider(&insert.target)?;
    if let Some(sink) = provider.downcast_ref::<SinkTable>() {
        insert.target = provider_as_source(Arc::new(sink.bind(insert.input.schema().as_arrow(), Some(job.clone()))));
    }
    if let Some(tasks) = tasks {
        insert.input = Arc::new(pin_query(&insert, tasks)?);
    }
    Ok(LogicalPlan::Dml(insert))
}

/// The query of an INSERT with the splits of each partition in its source.
pub(crate) fn pin_query(insert: &DmlStatement, tasks: &[Vec<Split>]) -> Result<LogicalPlan> {
    Ok(insert.input.as_ref().clone().transform_up(|node| pin_splits(node, tasks))?.data)
}

/// The same INSERT whose topic is read as `spec` says.
///
/// # Errors
/// Internal, when the plan cannot be rewritten.
pub(crate) fn pin_topic(insert: &DmlStatement, spec: &KafkaSpec) -> Result<DmlStatement> {
    let mut insert = insert.clone();
    let pinned = insert.input.as_ref().clone().transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
        if !matches!(SourceSpec::of_table(source_as_provider(&scan.source)?.as_ref()), Some(SourceSpec::Kafka(_))) {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        }
        scan.source = provider_as_source(Arc::new(SourceTable { spec: SourceSpec::Kafka(spec.clone()), tasks: None }));
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    })?;
    insert.input = Arc::new(pinned.data);
    Ok(insert)
}

fn pin_splits(node: LogicalPlan, tasks: &[Vec<Split>]) -> DataFusionResult<Transformed<LogicalPlan>> {
    if let LogicalPlan::TableScan(mut scan) = node {
        let provider = source_as_provider(&scan.source)?;
        if let Some(source) = SourceSpec::of_table(provider.as_ref()) {
            scan.source = provider_as_source(source.pinned_table(tasks));
            return Ok(Transformed::yes(LogicalPlan::TableScan(scan)));
        }
        return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
    }
    Ok(Transformed::no(node))
}

pub(super) async fn physical_plan(context: &SessionContext, plan: LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    Ok(context.state().create_physical_plan(&plan).await?)
}

/// What the planner made of a statement.
#[derive(Default)]
pub(crate) struct PlanShape {
    /// Whether it runs split by split.
    pub(crate) is_by_split: bool,
    keeps_every_row: bool,
}

/// Plans a bound INSERT.
///
/// # Errors
/// Config, when its rows cannot be documents.
pub(crate) async fn plan_shape(context: &SessionContext, plan: LogicalPlan) -> Result<PlanShape> {
    let plan = physical_plan(context, plan).await?;
    let mut shape = PlanShape::default();
    plan.apply(|node| {
        if let Some(write) = node.downcast_ref::<WriteExec>() {
            shape = PlanShape { is_by_split: write.is_split_parallel(), keeps_every_row: write.keeps_every_row() };
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(shape)
}
