//! Block buffers which are used again. A fresh block of 16 MiB costs the kernel thousands of page faults, each of which also
//! clears a page: more time than the read itself. So a block's memory goes back to a pool when the last chunk in it is dropped.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Most bytes which wait for use again: a few blocks for each of some cores, well inside an executor's memory.
pub(crate) const IDLE_BYTES_MAX: usize = 256 << 20;

/// Bytes of a page of memory.
const PAGE_BYTES: usize = 4096;

static IDLE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Memory of a block. Its bytes are those of an earlier block until they are written.
#[derive(Debug)]
pub struct BlockBuffer {
    memory: Vec<u8>,
    length: usize,
}

impl BlockBuffer {
    /// A buffer of `length` bytes of arbitrary content.
    pub fn with_length(length: usize) -> Self {
        // Memory far larger than is asked for would be held by a small block.
        let fits = |memory: &Vec<u8>| memory.len() >= length && memory.len() / 2 <= length;
        let found = {
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            // The one used last, so that no more of them are touched than are in use at once.
            idle.iter().rposition(fits).map(|index| idle.remove(index))
        };
        Self { memory: found.unwrap_or_else(|| vec![0; length]), length }
    }

    /// A buffer for `length` bytes which lie at `offset` of a file, with at least `headroom` before them, and where they start in it.
    ///
    /// That is as far behind the beginning of a page as it is in the file, and so in the page cache. Copying to a place that is one byte
    /// further on, which reading from the byte before a split would be, takes three to four times as long: each store looks to the
    /// processor like the source of a later load (4K aliasing; Intel's and AMD's optimization manuals).
    pub fn for_file(headroom: usize, length: usize, offset: u64) -> (Self, usize) {
        let mut buffer = Self::with_length(headroom + PAGE_BYTES + length);
        let behind_page = (buffer.as_ptr() as usize + headroom) % PAGE_BYTES;
        let start = headroom + ((offset % PAGE_BYTES as u64) as usize + PAGE_BYTES - behind_page) % PAGE_BYTES;
        buffer.truncate(start + length);
        (buffer, start)
    }

    /// Keeps the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

impl Deref for BlockBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl DerefMut for BlockBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length]
    }
}

impl AsRef<[u8]> for BlockBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for BlockBuffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.iter().map(Vec::len).sum::<usize>() + memory.len() <= IDLE_BYTES_MAX {
            idle.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_file_lie_in_their_page_as_in_the_file_behind_enough_room() {
        for (headroom, length, offset) in [(0, 1, 0), (1 << 20, 16 << 20, (128 << 20) - 1), (65_536, 100, 4095), (10, 5000, 12_345_678_901)]
        {
            let (buffer, start) = BlockBuffer::for_file(headroom, length, offset);
            assert_eq!(buffer.len(), start + length);
            assert!(start >= headroom && start < headroom + PAGE_BYTES);
            assert_eq!(buffer[start..].as_ptr() as usize % PAGE_BYTES, (offset % PAGE_BYTES as u64) as usize);
        }
    }
}
