//! The driver's way of writing on a fleet: waves of splits, each one Ballista job.
//!
//! The receipts are the truth. A wave is only a means: whatever becomes of it, of an executor or of the scheduler, what has no
//! receipt is sent again, and what has one is done. So this loop survives any of them, and two drivers of one job do no harm.
//!
//! A task takes several splits, so that the scheduler sees hundreds of tasks where a job has tens of thousands of splits
//! (its cost grows with the square of a stage's tasks); the next wave is there before the last one ends, so that no slot is
//! idle in between; near the end tasks are small, and splits that lag are sent a second time.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use smol_str::SmolStr;
use tracing::Instrument;

use super::run::{Job, Tally, bind};
use crate::cluster::client::{Failure, Fleet, Submission};
use crate::connector::blob::Compression;
use crate::connector::split::Split;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::telemetry::{COUNTERS, RetryKind};

/// Waves at the scheduler at once, at least: while one ends, the next fills the slots.
const WAVES_MIN: usize = 2;
/// Tasks of a wave for each slot of the fleet.
const TASKS_PER_SLOT: usize = 4;
/// Tasks of a wave at most: the scheduler's cost per task is still constant here (measured: 500 tasks in 0.67 s).
pub(crate) const TASKS_MAX: usize = 500;
/// A task's work is at most what is left ÷ slots ÷ this, so that the last tasks are small.
const ROUNDS_LEFT: u64 = 8;
/// Bytes which one task reads at most: some seconds of work, so that a lost executor costs little.
pub(crate) const TASK_BYTES_MAX: u64 = 1 << 30;
/// What opening a split and storing its receipt cost, in bytes of reading. Keeps tasks of tiny objects small, too.
const SPLIT_OVERHEAD_BYTES: u64 = 4 << 20;
/// How much more a compressed object holds than its size says.
const COMPRESSED_FACTOR: u64 = 8;
/// How often receipts are looked for.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looking takes at most this part of the time: listing 100,000 receipts is not for every half second. A listing goes on beside all else, and
/// a wave that has ended is settled by the names of its own splits, so that a million receipts in a bucket hold nothing up.
const LOOK_SHARE: u32 = 10;
/// Failures in a row, without a receipt in between, on a fleet that is alive.
pub(crate) const FAILURES_MAX: u32 = 4;
/// How long the fleet may be away, without a receipt in between. A restarted scheduler and re-scheduled pods fit in.
pub(crate) const FLEET_PATIENCE: Duration = Duration::from_secs(300);
/// A split is late when it took this long at least, and [`LATE_FACTOR`] times as long as the slowest finished one.
const LATE_MIN: Duration = Duration::from_secs(20);
const LATE_FACTOR: u32 = 4;

/// A split which was sent and has no receipt yet.
struct Sent {
    split: Split,
    at: Instant,
    wave: u32,
    is_repeated: bool,
}

/// The splits which have receipts, and how long it took to list them.
struct Listed {
    names: Vec<String>,
    took: Duration,
}

/// How a wave ended.
struct Ended {
    wave: u32,
    result: Result<(), Failure>,
}

/// All there is to know between two looks.
struct Waves<'a> {
    job: &'a Job,
    fleet: &'a Fleet,
    waiting: VecDeque<Split>,
    sent: HashMap<SmolStr, Sent>,
    tally: Tally,
    under_way: FuturesUnordered<BoxFuture<'static, Result<Ended>>>,
    submissions: HashMap<u32, Submission>,
    waves: u32,
    failures: u32,
    last_progress: Instant,
    slowest: Duration,
}

/// Writes these splits of `job`, which have no receipt. Returns their receipts, summed up.
///
/// # Errors
/// The first failure which no retry helps; Unreachable, when the fleet stays away. What has its receipt stays done.
pub(super) async fn write(job: &Job, fleet: &Fleet, splits: Vec<Split>) -> Result<Tally> {
    let mut waves = Waves {
        job,
        fleet,
        waiting: splits.into(),
        sent: HashMap::new(),
        tally: Tally::default(),
        under_way: FuturesUnordered::new(),
        submissions: HashMap::new(),
        waves: 0,
        failures: 0,
        last_progress: Instant::now(),
        slowest: Duration::ZERO,
    };
    let written = waves.run().await;
    // Nothing of this job is of use any more: all is done, or it failed.
    waves.cancel_all().await;
    written?;
    Ok(waves.tally)
}

impl Waves<'_> {
    async fn run(&mut self) -> Result<()> {
        let mut listing = self.list_after(LOOK_EVERY)?;
        loop {
            let slots = self.slots().await?;
            if slots > 0 {
                while self.under_way.len() < waves_max(slots) && !self.waiting.is_empty() {
                    self.start_wave(slots).await?;
                }
                self.repeat_late(slots).await?;
            }
            tokio::select! {
                Some(ended) = self.under_way.next(), if !self.under_way.is_empty() => self.settle(ended?).await?,
                listed = &mut listing => {
                    let Listed { names, took } = listed?;
                    let new: Vec<String> = names.into_iter().filter(|name| self.sent.contains_key(name.as_str())).collect();
                    self.take_receipts(&new).await?;
                    listing = self.list_after(LOOK_EVERY.max(took * LOOK_SHARE))?;
                }
            }
            if self.waiting.is_empty() && self.sent.is_empty() {
                return Ok(());
            }
        }
    }

    /// Lists the receipts after a pause, whatever else is done meanwhile.
    fn list_after(&self, pause: Duration) -> Result<BoxFuture<'static, Result<Listed>>> {
        let state = self.job.state().clone();
        let listing = runtime::spawn_io(async move {
            tokio::time::sleep(pause).await;
            let begun = Instant::now();
            let names = state.receipt_names().await?;
            Ok(Listed { names, took: begun.elapsed() })
        })?;
        Ok(async move { listing.join().await? }.boxed())
    }

    async fn slots(&self) -> Result<usize> {
        fleet_slots(self.fleet, self.last_progress).await
    }

    async fn start_wave(&mut self, slots: usize) -> Result<()> {
        let tasks = take_tasks(&mut self.waiting, slots, work_in);
        self.send(tasks).await
    }

    async fn send(&mut self, tasks: Vec<Vec<Split>>) -> Result<()> {
        self.waves += 1;
        let (wave, job) = (self.waves, self.job.job());
        let name = format!("{} wave {wave} of attempt {}", job.name, job.attempt);
        let splits = tasks.iter().map(Vec::len).sum::<usize>();
        let span = tracing::info_span!("wave", wave, tasks = tasks.len(), splits);
        let submission = async {
            let plan = bind(self.job.insert(), &job.traced(), Some(&tasks))?;
            self.fleet.submission(&name, &plan).await
        };
        let submission = submission.instrument(span.clone()).await?;
        tracing::info!(wave, tasks = tasks.len(), splits, "a wave begins");
        for split in tasks.into_iter().flatten() {
            let is_repeated = self.sent.contains_key(&split.id);
            self.sent.insert(split.id.clone(), Sent { split, at: Instant::now(), wave, is_repeated });
        }
        self.submissions.insert(wave, submission.clone());
        let running = async move { Ended { wave, result: submission.run().await.map(drop) } };
        let running = runtime::spawn_io(running.instrument(span))?;
        self.under_way.push(running.join().boxed());
        Ok(())
    }

    /// Reads the receipts of those of these splits which have one.
    async fn take_receipts(&mut self, splits: &[impl Display]) -> Result<()> {
        for receipt in self.job.state().find_receipts(splits).await? {
            let Some((split, _sent)) = self.sent.remove_entry(receipt.split.as_str()) else { continue };
            let took = (receipt.finished - receipt.started).to_std().unwrap_or_default();
            self.slowest = self.slowest.max(took);
            self.job.progress().add(&receipt);
            self.tally.add(split, &receipt);
            (self.failures, self.last_progress) = (0, Instant::now());
        }
        Ok(())
    }

    /// What is to be done about a wave which ended: nothing, send again, or give up.
    async fn settle(&mut self, ended: Ended) -> Result<()> {
        let Ended { wave, result } = ended;
        self.submissions.remove(&wave);
        self.take_receipts(&self.left_of(wave)).await?;
        let left = self.left_of(wave);
        let cause = match result {
            Ok(()) if left.is_empty() => return Ok(()),
            Ok(()) => Error::internal(format!("wave {wave} ended, and {} of its splits have no receipt", left.len())),
            Err(Failure::Cancelled) => {
                return Err(Error::permanent(format!(
                    "job `{}` was cancelled; run the same command again to go on where it stopped",
                    self.job.job().name
                )));
            }
            Err(Failure::Task(error)) if !error.is_retryable() => return Err(error),
            Err(Failure::Task(error) | Failure::Fleet(error)) => error,
        };
        tracing::warn!(wave, splits = left.len(), error = %cause, "a wave failed; what has no receipt is sent again");
        COUNTERS.add_retry(RetryKind::Wave);
        for id in left {
            if let Some(sent) = self.sent.remove(&id) {
                self.waiting.push_back(sent.split);
            }
        }
        if self.slots().await? > 0 {
            self.failures += 1;
        }
        if self.failures >= FAILURES_MAX {
            return Err(cause.context(format!("gave up after {FAILURES_MAX} failures in a row")));
        }
        tokio::time::sleep(LOOK_EVERY * 2_u32.pow(self.failures)).await;
        Ok(())
    }

    /// The splits of a wave which have no receipt that is known.
    fn left_of(&self, wave: u32) -> Vec<SmolStr> {
        self.sent.values().filter(|sent| sent.wave == wave).map(|sent| sent.split.id.clone()).collect()
    }

    /// Sends splits a second time which lag behind while slots are idle: their executor may be stalled. Ids make that harmless.
    async fn repeat_late(&mut self, slots: usize) -> Result<()> {
        if !self.waiting.is_empty() || self.sent.len() >= slots {
            return Ok(());
        }
        let patience = LATE_MIN.max(self.slowest * LATE_FACTOR);
        let is_late = |sent: &&Sent| !sent.is_repeated && sent.at.elapsed() > patience;
        let late: Vec<Vec<Split>> = self.sent.values().filter(is_late).map(|sent| vec![sent.split.clone()]).collect();
        if late.is_empty() {
            return Ok(());
        }
        tracing::warn!(splits = late.len(), "splits are late and are sent a second time");
        late.iter().for_each(|_| COUNTERS.add_retry(RetryKind::LateSplit));
        self.send(late).await
    }

    async fn cancel_all(&self) {
        for id in self.submissions.values().filter_map(Submission::job_id) {
            if let Err(error) = self.fleet.cancel(&id).await {
                tracing::warn!(job_id = id, %error, "a wave that is of no use any more cannot be cancelled");
            }
        }
    }
}

/// Slots of the fleet; 0 while it is away.
///
/// # Errors
/// Unreachable, when it has been away for too long since `last_progress`.
pub(super) async fn fleet_slots(fleet: &Fleet, last_progress: Instant) -> Result<usize> {
    let slots = match fleet.info().await {
        Ok(info) => info.slots(),
        Err(error) if error.kind() == ErrorKind::Unreachable => 0,
        Err(error) => return Err(error),
    };
    if slots == 0 && last_progress.elapsed() > FLEET_PATIENCE {
        return Err(Error::new(
            ErrorKind::Unreachable,
            format!(
                "the fleet of {} has had no executor for {} s; run the same command again when it is back",
                fleet.url(),
                FLEET_PATIENCE.as_secs()
            ),
        ));
    }
    Ok(slots)
}

/// The work in a split, in bytes.
fn work_in(split: &Split) -> u64 {
    let factor = if split.compression == Compression::None { 1 } else { COMPRESSED_FACTOR };
    split.work_bytes() * factor + SPLIT_OVERHEAD_BYTES
}

/// Waves at the scheduler at once: their tasks are twice the fleet's slots or more.
pub(super) fn waves_max(slots: usize) -> usize {
    (2 * slots).div_ceil(TASKS_MAX).max(WAVES_MIN)
}

/// Takes one wave's tasks from the front of `waiting`: tasks of equal work, neighbours together.
pub(super) fn take_tasks<T>(waiting: &mut VecDeque<T>, slots: usize, work_of: fn(&T) -> u64) -> Vec<Vec<T>> {
    let left: u64 = waiting.iter().map(work_of).sum();
    let work_max = (left / (slots as u64 * ROUNDS_LEFT).max(1)).min(TASK_BYTES_MAX);
    let tasks_max = (slots * TASKS_PER_SLOT).clamp(1, TASKS_MAX);
    let mut tasks: Vec<Vec<T>> = Vec::new();
    let mut work = 0;
    while let Some(item) = waiting.pop_front() {
        let more = work_of(&item);
        let is_full = tasks.len() == tasks_max;
        match tasks.last_mut() {
            Some(task) if work + more <= work_max => {
                work += more;
                task.push(item);
            }
            _ if is_full => {
                waiting.push_front(item);
                break;
            }
            _ => {
                work = more;
                tasks.push(vec![item]);
            }
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splits(count: u64, bytes: u64) -> VecDeque<Split> {
        (0..count)
            .map(|number| Split {
                id: format!("{number:016}").into(),
                object: format!("file:///{number}").into(),
                version: "1".into(),
                size: bytes,
                last_modified: 0,
                compression: Compression::None,
                start: 0,
                end: bytes,
            })
            .collect()
    }

    #[test]
    fn every_split_is_taken_once_in_order_and_the_last_tasks_are_small() {
        let mut waiting = splits(16_000, 128 << 20);
        let mut taken = Vec::new();
        let mut sizes = Vec::new();
        while !waiting.is_empty() {
            let tasks = take_tasks(&mut waiting, 40, work_in);
            assert!(tasks.len() <= 160);
            sizes.push(tasks.iter().map(Vec::len).max().unwrap());
            taken.extend(tasks.into_iter().flatten().map(|split| split.id));
        }
        assert_eq!(taken, (0..16_000).map(|number| format!("{number:016}")).collect::<Vec<_>>());
        assert_eq!((sizes[0], *sizes.last().unwrap()), (7, 1));
        assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    }

    #[test]
    fn a_large_fleet_has_more_waves_than_a_small_one() {
        assert_eq!([1, 40, 500, 4_000].map(waves_max), [2, 2, 2, 16]);
    }

    #[test]
    fn tiny_splits_share_tasks_and_few_splits_use_all_slots() {
        let tasks = take_tasks(&mut splits(16_000, 10), 4, work_in);
        assert_eq!((tasks.len(), tasks[0].len()), (16, 255));
        let tasks = take_tasks(&mut splits(3, 10), 4, work_in);
        assert_eq!(tasks.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
