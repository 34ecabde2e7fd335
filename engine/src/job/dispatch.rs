//! A [`Task`] done to all its items: in this process by one plan, on a fleet by waves of tasks, each a Ballista job, until every
//! item has answered.
//!
//! For work which may be done twice: what a wave did before it failed is done again. (Jobs which write documents have receipts, and
//! waves of their own.)

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::RecordBatch;
use datafusion::execution::context::SessionContext;
use datafusion::physical_plan::collect;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::item::{ItemTable, Task, read_answers};
use super::waves::{FAILURES_MAX, LOOK_EVERY, fleet_slots, take_tasks, waves_max};
use crate::cluster::client::{Failure, Fleet, Submission};
use crate::connector::split::deal;
use crate::error::{Error, Result};
use crate::runtime;

/// One wave on its way.
struct Wave<I> {
    number: u32,
    items: Vec<Vec<I>>,
    result: Result<Vec<RecordBatch>, Failure>,
}

/// Does it here; returns all answers, in no order.
///
/// # Errors
/// The first of the task's.
pub(super) async fn perform_here<T: Task>(context: &SessionContext, task: T, items: &[T::Item]) -> Result<Vec<T::Answer>> {
    let table = ItemTable { task, items: deal(items, context.copied_config().target_partitions()) };
    let (plan, task) = (table.plan()?, context.task_ctx());
    let batches = runtime::spawn_cpu(async move { collect(plan, task).await })?.join().await??;
    Ok(batches.iter().map(read_answers).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Has the fleet do it: the Ballista jobs are `<name> wave <n>`, an item is as much work as `work_of` says, and `take` gets the answers
/// of each wave once.
///
/// # Errors
/// The first failure which no retry helps; Unreachable, when the fleet stays away.
pub(super) async fn perform_on_fleet<T: Task>(
    fleet: &Fleet,
    name: &str,
    task: &T,
    items: Vec<T::Item>,
    work_of: fn(&T::Item) -> u64,
    mut take: impl FnMut(Vec<T::Answer>) -> Result<()>,
) -> Result<()> {
    let mut waiting = VecDeque::from(items);
    let (mut waves, mut failures, mut last_progress) = (0, 0, Instant::now());
    let mut under_way = FuturesUnordered::new();
    let mut submissions: VecDeque<(u32, Submission)> = VecDeque::new();
    let ended = loop {
        let slots = match fleet_slots(fleet, last_progress).await {
            Ok(slots) => slots,
            Err(error) => break Err(error),
        };
        while slots > 0 && !waiting.is_empty() && under_way.len() < waves_max(slots) {
            waves += 1;
            let (number, items) = (waves, take_tasks(&mut waiting, slots, work_of));
            let table = ItemTable { task: task.clone(), items: items.clone() };
            let plan = fleet.context().read_table(Arc::new(table))?.into_unoptimized_plan();
            let submission = fleet.submission(&format!("{name} wave {number}"), &plan).await?;
            submissions.push_back((number, submission.clone()));
            under_way.push(async move { Wave { number, items, result: submission.run().await } });
        }
        if under_way.is_empty() {
            if waiting.is_empty() {
                break Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        let Some(Wave { number, items, result }) = under_way.next().await else { continue };
        submissions.retain(|(other, _)| *other != number);
        let cause = match result {
            Ok(batches) => {
                take(batches.iter().map(read_answers).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())?;
                (failures, last_progress) = (0, Instant::now());
                continue;
            }
            Err(Failure::Cancelled) => {
                break Err(Error::permanent(format!("{name} was cancelled; run the same command again to go on where it stopped")));
            }
            Err(Failure::Task(error)) if !error.is_retryable() => break Err(error),
            Err(Failure::Task(error) | Failure::Fleet(error)) => error,
        };
        tracing::warn!(wave = number, error = %cause, "a wave failed and is sent again");
        waiting.extend(items.into_iter().flatten());
        failures += 1;
        if failures >= FAILURES_MAX {
            break Err(cause.context(format!("gave up after {FAILURES_MAX} failures in a row")));
        }
        tokio::time::sleep(LOOK_EVERY * 2_u32.pow(failures)).await;
    };
    // Nothing of it is of use any more: all is done, or it failed.
    for id in submissions.iter().filter_map(|(_, submission)| submission.job_id()) {
        if let Err(error) = fleet.cancel(&id).await {
            tracing::warn!(job_id = id, %error, "a wave that is of no use any more cannot be cancelled");
        }
    }
    ended
}
