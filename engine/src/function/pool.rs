//! The process's compression pool: one thread a core, which all partitions share. So a single partition keeps all cores busy, and many do not
//! crowd them. Each thread keeps its compressors.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};
use crate::runtime::cpu_threads;

static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();

fn pool() -> Result<&'static ThreadPool> {
    let build = || ThreadPoolBuilder::new().num_threads(cpu_threads()).thread_name(|index| format!("baler-zlib-{index}")).build().ok();
    POOL.get_or_init(build)
        .as_ref()
        .ok_or_else(|| Error::internal("cannot start the compression pool: the operating system refused its threads"))
}

/// Does `work` to all items, which gets the index of each, `per_task` of them in one go; blocks until all are done, and gives what came of them,
/// in their order.
///
/// The caller waits outside of the pool, whose threads take one task after the other in the order of their batches. A thread of the pool which
/// waited for the rest of a batch itself, as in `par_iter`, would begin other batches meanwhile and hold the first one up until they are done;
/// then all partitions come to their ends at once, and the cores are idle until the next batches are there (2 % of a job's time).
///
/// # Errors
/// Internal, when the operating system refuses the threads.
pub(crate) fn in_pool<T: Sync, R: Send>(items: &[T], per_task: usize, work: impl Fn(usize, &T) -> R + Sync) -> Result<Vec<R>> {
    let per_task = per_task.max(1);
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    let work = &work;
    pool()?.in_place_scope(|scope| {
        for (task, (items, results)) in items.chunks(per_task).zip(results.chunks_mut(per_task)).enumerate() {
            scope.spawn(move |_| {
                for (place, (item, result)) in items.iter().zip(results).enumerate() {
                    *result = Some(work(task * per_task + place, item));
                }
            });
        }
    });
    Ok(results.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once_and_answers_in_its_place() {
        for (count, per_task) in [(0, 1), (1, 0), (7, 1), (7, 3), (1000, 64)] {
            let items: Vec<usize> = (0..count).collect();
            let answers = in_pool(&items, per_task, |index, item| (index, item * 2)).unwrap();
            assert_eq!(answers, (0..count).map(|item| (item, item * 2)).collect::<Vec<_>>());
        }
    }
}
