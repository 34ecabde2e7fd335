//! The work of a node: splits, objects; taken one at a time by whichever of its partitions is free, or a few if they are small.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};
use crate::runtime;

/// Items which one partition has open at once. Small ones are mostly waiting for disks and servers.
pub(crate) const OPEN_ITEMS_MAX: usize = 8;
/// Bytes in the open items of a partition, if they are several: four blocks, about as many as one item needs anyway.
pub(crate) const OPEN_BYTES_MAX: u64 = 16 << 20;

/// Items not begun yet, shared by the partitions of a node.
#[derive(Debug)]
pub struct WorkQueue<T> {
    items: Mutex<VecDeque<T>>,
    bytes_of: fn(&T) -> u64,
}

/// The room of one item in the memory of a partition. Dropping it lets the next item begin, while the work on this one may go on with what
/// takes none: a split waits for disk or server at its end, which must not leave cores idle.
#[derive(Debug)]
pub struct Room {
    held: Arc<Held>,
    bytes: u64,
}

/// Rooms of a partition which are taken.
#[derive(Debug, Default)]
struct Held {
    /// How many, and their bytes.
    rooms: Mutex<(usize, u64)>,
    freed: Notify,
}

impl Held {
    fn rooms(&self) -> MutexGuard<'_, (usize, u64)> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut rooms = self.held.rooms();
        *rooms = (rooms.0 - 1, rooms.1 - self.bytes);
        self.held.freed.notify_one();
    }
}

impl<T> WorkQueue<T> {
    /// A queue of `items`, which are as large as `bytes_of` says.
    pub fn new(items: impl IntoIterator<Item = T>, bytes_of: fn(&T) -> u64) -> Self {
        Self { items: Mutex::new(items.into_iter().collect()), bytes_of }
    }

    /// Takes items until there are none, and has `work` done on each, which gets the item's [`Room`]; `done` gets what comes of it. Dropping
    /// the future drops the work under way.
    ///
    /// # Errors
    /// The first of `work`; Transient, when this process is told to leave and there are items left.
    pub async fn run<R, F: Future<Output = Result<R>>>(&self, work: impl Fn(T, Room) -> F, mut done: impl FnMut(R)) -> Result<()> {
        let mut open = FuturesUnordered::new();
        let held = Arc::<Held>::default();
        loop {
            while let Some((item, room)) = self.take(open.len(), &held)? {
                open.push(work(item, room));
            }
            tokio::select! {
                ended = open.next() => match ended {
                    Some(ended) => done(ended?),
                    None => return Ok(()),
                },
                () = held.freed.notified() => {}
            }
        }
    }

    /// The next item, if there is room for it beside what is held, and fewer than the most are `open`.
    ///
    /// # Errors
    /// As [`Self::run`], when none is open any more.
    fn take(&self, open: usize, held: &Arc<Held>) -> Result<Option<(T, Room)>> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rooms = held.rooms();
        let fits = |item: &T| rooms.0 == 0 || rooms.1 + (self.bytes_of)(item) <= OPEN_BYTES_MAX;
        if open >= OPEN_ITEMS_MAX || !items.front().is_some_and(fits) {
            return Ok(None);
        }
        if runtime::is_draining() {
            if open > 0 {
                // What is under way comes to its end first.
                return Ok(None);
            }
            return Err(Error::new(ErrorKind::Transient, "this executor is leaving; another one takes its remaining work"));
        }
        Ok(items.pop_front().map(|item| {
            let bytes = (self.bytes_of)(&item);
            *rooms = (rooms.0 + 1, rooms.1 + bytes);
            (item, Room { held: Arc::clone(held), bytes })
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The most items which are worked on at once, and the most which hold their room.
    async fn most_at_once(bytes: u64, items: usize, gives_back: bool) -> (usize, usize) {
        let (open, most) = (Mutex::new((0usize, 0usize)), Mutex::new((0, 0)));
        let count = |worked: usize, held: usize| {
            let mut open = open.lock().unwrap();
            *open = (open.0.wrapping_add(worked), open.1.wrapping_add(held));
            let mut most = most.lock().unwrap();
            *most = (open.0.max(most.0), open.1.max(most.1));
        };
        let queue = WorkQueue::new(vec![bytes; items], |bytes| *bytes);
        let mut ended = 0;
        let count = &count;
        let work = |_item, room| async move {
            count(1, 1);
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut room = Some(room);
            if gives_back {
                count(0, usize::MAX);
                room = None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            count(usize::MAX, if room.is_some() { usize::MAX } else { 0 });
            drop(room);
            Ok(())
        };
        queue.run(work, |()| ended += 1).await.unwrap();
        assert_eq!(ended, items);
        *most.lock().unwrap()
    }

    #[tokio::test]
    async fn small_items_are_worked_on_together_and_large_ones_alone() {
        assert_eq!(most_at_once(OPEN_BYTES_MAX / 4, 20, false).await, (4, 4));
        assert_eq!(most_at_once(1, 20, false).await, (OPEN_ITEMS_MAX, OPEN_ITEMS_MAX));
        assert_eq!(most_at_once(2 * OPEN_BYTES_MAX, 3, false).await, (1, 1));
    }

    #[tokio::test]
    async fn the_next_large_item_begins_when_the_last_one_gives_its_room_back_and_not_without_end() {
        assert_eq!(most_at_once(2 * OPEN_BYTES_MAX, 20, true).await, (OPEN_ITEMS_MAX, 1));
    }
}
