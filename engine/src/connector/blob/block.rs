//! One block of an object, and how it is filled.

use std::ops::Range;

use super::buffer::BlockBuffer;

/// Bytes whose line feeds are counted together.
const CELL_BYTES: usize = 4096;
/// Bytes which are filled in one go: few enough to be in the core's own cache still when their line feeds are counted.
const PIECE_BYTES: usize = 256 << 10;

/// Consecutive bytes of an object.
#[derive(Debug)]
pub struct Block {
    /// Headroom, then the bytes.
    pub buffer: BlockBuffer,
    /// Where the bytes start in `buffer`.
    pub start: usize,
    /// Offset of the first byte in the (decompressed) object.
    pub offset: u64,
    /// Its line feeds, as far as they were counted.
    pub feeds: FeedCounts,
}

impl Block {
    /// The bytes without the headroom.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

/// How blocks are laid out.
#[derive(Debug, Clone, Copy)]
pub struct BlockShape {
    /// Free bytes before the content.
    pub headroom: usize,
    /// Content of a full block.
    pub block_bytes: usize,
    /// Whether line feeds are counted.
    pub counts_feeds: bool,
}

/// Line feeds of a buffer by cells of [`CELL_BYTES`]. They are counted by the core which brought the bytes, while it has them: who counts them later has to
/// fetch them from another core, which takes four times as long (1.2 % of a job's CPU time).
#[derive(Debug, Default)]
pub struct FeedCounts {
    /// Where the first cell begins in the buffer.
    start: usize,
    cells: Vec<u16>,
}

impl FeedCounts {
    /// Counts the cells which are full since the last call; `filled` is the buffer up to where it is filled.
    fn extend(&mut self, filled: &[u8]) {
        let cells = filled[self.start + self.cells.len() * CELL_BYTES..].chunks_exact(CELL_BYTES);
        self.cells.extend(cells.map(|cell| count_feeds(cell) as u16));
    }

    /// Line feeds in a range of the buffer. What is in no cell, or in a part of one, is counted now.
    pub fn count(&self, buffer: &[u8], range: Range<usize>) -> usize {
        let first = range.start.saturating_sub(self.start).div_ceil(CELL_BYTES);
        let last = (range.end.saturating_sub(self.start) / CELL_BYTES).min(self.cells.len());
        if first >= last {
            return count_feeds(&buffer[range]);
        }
        let place = |cell: usize| self.start + cell * CELL_BYTES;
        let within: usize = self.cells[first..last].iter().map(|count| usize::from(*count)).sum();
        count_feeds(&buffer[range.start..place(first)]) + within + count_feeds(&buffer[place(last)..range.end])
    }
}

fn count_feeds(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}

/// A block which is being filled, piece by piece.
#[derive(Debug)]
pub struct Filling {
    block: Block,
    filled: usize,
    counts_feeds: bool,
}

impl Filling {
    /// Room for `length` bytes, of which the first is at `offset`.
    pub fn new(shape: BlockShape, length: usize, offset: u64) -> Self {
        Self::with_buffer(shape, BlockBuffer::with_length(shape.headroom + length), shape.headroom, offset)
    }

    /// The same for bytes of a file ([`BlockBuffer::for_file`]).
    pub fn for_file(shape: BlockShape, length: usize, offset: u64) -> Self {
        let (buffer, start) = BlockBuffer::for_file(shape.headroom, length, offset);
        Self::with_buffer(shape, buffer, start, offset)
    }

    fn with_buffer(shape: BlockShape, buffer: BlockBuffer, start: usize, offset: u64) -> Self {
        let feeds = FeedCounts { start, cells: Vec::new() };
        Self { block: Block { buffer, start, offset, feeds }, filled: start, counts_feeds: shape.counts_feeds }
    }

    /// Where the next piece goes; empty when the block is full.
    pub fn free(&mut self) -> &mut [u8] {
        let end = self.block.buffer.len().min(self.filled + PIECE_BYTES);
        &mut self.block.buffer[self.filled..end]
    }

    /// Takes the first `count` bytes of [`Self::free`] as filled.
    pub fn advance(&mut self, count: usize) {
        self.filled += count;
        if self.counts_feeds {
            self.block.feeds.extend(&self.block.buffer[..self.filled]);
        }
    }

    /// Copies bytes to the end of what is filled; gives those back for which there is no room.
    pub fn put<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while !bytes.is_empty() {
            let free = self.free();
            let count = free.len().min(bytes.len());
            if count == 0 {
                break;
            }
            free[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            self.advance(count);
        }
        bytes
    }

    /// How many bytes are filled.
    pub fn length(&self) -> usize {
        self.filled - self.block.start
    }

    /// The block, as long as it is filled.
    pub fn finish(self) -> Block {
        let Self { mut block, filled, .. } = self;
        block.buffer.truncate(filled);
        block
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn feeds_of_any_range_are_those_which_are_there(
            headroom in 0usize..5000, length in 0usize..40_000, every in 1usize..90, pieces in prop::collection::vec(1usize..9000, 0..6),
            ends in (any::<prop::sample::Index>(), any::<prop::sample::Index>()), counts_feeds in any::<bool>(),
        ) {
            let mut filling = Filling::new(BlockShape { headroom, block_bytes: length, counts_feeds }, length, 7);
            let content: Vec<u8> = (0..length).map(|at| if at % every == 0 { b'\n' } else { b'x' }).collect();
            let mut rest = content.as_slice();
            for piece in pieces {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                prop_assert!(filling.put(now).is_empty());
                rest = later;
            }
            let filled = length - rest.len();
            prop_assert_eq!(filling.length(), filled);
            let mut block = filling.finish();
            prop_assert_eq!(block.bytes(), &content[..filled]);
            // What was carried over from the block before lies in the headroom.
            block.buffer[..headroom].fill(b'\n');
            let (a, b) = (ends.0.index(headroom + filled + 1), ends.1.index(headroom + filled + 1));
            let range = a.min(b)..a.max(b);
            prop_assert_eq!(block.feeds.count(&block.buffer, range.clone()), count_feeds(&block.buffer[range]));
        }
    }

    #[test]
    fn bytes_without_room_are_given_back() {
        let mut filling = Filling::new(BlockShape { headroom: 3, block_bytes: 4, counts_feeds: true }, 4, 0);
        assert_eq!(filling.put(b"abcdef"), b"ef");
        assert!(filling.free().is_empty());
        assert_eq!(filling.finish().bytes(), b"abcd");
    }
}
