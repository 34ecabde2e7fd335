//! The work of a node: splits, objects; taken one at a time by whichever of its partitions is free, or a few if they are small.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

/// Items which one partition has open at once. Small ones are mostly waiting for disks and servers.
pub(crate) const OPEN_ITEMS_MAX: usize = 8;
/// Bytes in the open items of a partition, if they are several: a block's worth, which one item needs anyway.
pub(crate) const OPEN_BYTES_MAX: u64 = 16 << 20;

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

    /// Takes items until there are none, and has `work` done on each; `done` gets what comes of it. Dropping the future drops the
    /// work under way.
    ///
    /// # Errors
    /// The first of `work`; Transient, when this process is told to leave and there are items left.
    pub async fn run<R, F: Future<Output = Result<R>>>(&self, work: impl Fn(T) -> F, mut done: impl FnMut(R)) -> Result<()> {
        let mut open = FuturesUnordered::new();
        let mut bytes = 0;
        loop {
            while let Some(item) = self.take(open.len(), bytes)? {
                let length = (self.bytes_of)(&item);
                bytes += length;
                let working = work(item);
                open.push(async move { working.await.map(|result| (length, result)) });
            }
            let Some(ended) = open.next().await else { return Ok(()) };
            let (length, result) = ended?;
            bytes -= length;
            done(result);
        }
    }

    /// The next item, if there is room for it beside `open` items of `bytes`.
    fn take(&self, open: usize, bytes: u64) -> Result<Option<T>> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = |item: &T| open == 0 || (open < OPEN_ITEMS_MAX && bytes + (self.bytes_of)(item) <= OPEN_BYTES_MAX);
        if !items.front().is_some_and(has_room) {
            return Ok(None);
        }
        if runtime::is_draining() {
            return Err(Error::new(ErrorKind::Transient, "this executor is leaving; another one takes its remaining work"));
        }
        Ok(items.pop_front())
    }
}
