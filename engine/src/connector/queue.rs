//! The work of a node: splits, objects; taken one at a time by whichever of its partitions is free, or a few if they are small.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

/// Items which one partition has begun at once. Small ones are mostly waiting for disks and servers.
const BEGUN_ITEMS_MAX: usize = 8;
/// Bytes in the begun items of a partition, if they are several: a block's worth, which one item needs anyway.
const BEGUN_BYTES_MAX: u64 = 16 << 20;
/// Large items which a partition has at their ends while it works on the next one: what an end waits for (a disk, a server) is then no idle core.
const ENDING_ITEMS_MAX: usize = 2;

/// Items not begun yet, shared by the partitions of a node.
#[derive(Debug)]
pub struct WorkQueue<T> {
    items: Mutex<VecDeque<T>>,
    bytes_of: fn(&T) -> u64,
}

impl<T> WorkQueue<T> {
    /// A queue of `items`, which are as large as `bytes_of` says.
    pub fn new(items: impl IntoIterator<Item = T>, bytes_of: fn(&T) -> u64) -> Self {
        Self { items: Mutex::new(items.into_iter().collect()), bytes_of }
    }

    /// Takes items until there are none, and has `work` done on each. What comes of that is the item's end, which is waited for beside the
    /// work on the next items; `done` gets what comes of the end. Dropping the future drops the work under way.
    ///
    /// # Errors
    /// The first of `work` or of an end; Transient, when this process is told to leave and there are items left. Those begun are ended first.
    pub async fn run<W, E, R>(&self, work: impl Fn(T) -> W, mut done: impl FnMut(R)) -> Result<()>
    where
        W: Future<Output = Result<E>>,
        E: Future<Output = Result<R>>,
    {
        let (mut working, mut ending) = (FuturesUnordered::new(), FuturesUnordered::new());
        let (mut bytes, mut leaving) = (0, None);
        loop {
            while leaving.is_none() {
                match self.take(working.len(), ending.len(), bytes) {
                    Ok(Some(item)) => {
                        let length = (self.bytes_of)(&item);
                        bytes += length;
                        let begun = work(item);
                        working.push(async move { begun.await.map(|end| (length, end)) });
                    }
                    Ok(None) => break,
                    Err(error) => leaving = Some(error),
                }
            }
            tokio::select! {
                Some(worked) = working.next() => {
                    let (length, end) = worked?;
                    ending.push(async move { end.await.map(|result| (length, result)) });
                }
                Some(ended) = ending.next() => {
                    let (length, result) = ended?;
                    bytes -= length;
                    done(result);
                }
                else => return leaving.map_or(Ok(()), Err),
            }
        }
    }

    /// The next item, if there is room for it beside those begun: `working` and `ending` ones, of `bytes` together.
    fn take(&self, working: usize, ending: usize, bytes: u64) -> Result<Option<T>> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = |item: &T| {
            let is_next_large = working == 0 && ending < ENDING_ITEMS_MAX;
            let is_small = working + ending < BEGUN_ITEMS_MAX && bytes + (self.bytes_of)(item) <= BEGUN_BYTES_MAX;
            is_next_large || is_small
        };
        if !items.front().is_some_and(has_room) {
            return Ok(None);
        }
        if runtime::is_draining() {
            return Err(Error::new(ErrorKind::Transient, "this executor is leaving; another one takes its remaining work"));
        }
        Ok(items.pop_front())
    }
}
