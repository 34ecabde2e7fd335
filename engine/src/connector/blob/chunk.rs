//! Blocks → chunks that end at record boundaries. Before: [`Block`]s; after: [`ChunkRun`]s, each one contiguous buffer.
//!
//! A line belongs to the split which holds its first byte (Hadoop's rule, said the other way round): a split that does not
//! start at 0 begins after the first line feed at or after the byte before it, and ends after the first line feed at or
//! after its last byte. So every byte of an object is in exactly one chunk, whatever the split size.
//!
//! Where a chunk ends depends on the bytes alone, never on how they arrived, so a split that is read again yields the same
//! chunks and so the same ids.

use bytes::Bytes;
use datafusion::arrow::buffer::Buffer;

use super::Boundary;
use super::block::{Block, FeedCounts};
use super::buffer::BlockBuffer;

/// Consecutive chunks in one buffer.
#[derive(Debug)]
pub struct ChunkRun {
    /// The bytes of all chunks.
    pub bytes: Buffer,
    /// Where each chunk ends in `bytes`.
    pub ends: Vec<usize>,
    /// Lines which end in each chunk; an unfinished last line of the object counts. 1 for boundary `none`.
    pub records: Vec<i64>,
    /// Offset of the first byte in the (decompressed) object.
    pub offset: u64,
}

/// The part of a split which a [`Chunker`] is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Looking for the first line which starts in this split.
    Skipping,
    /// Cutting chunks.
    Cutting,
    /// All lines of the split are cut.
    Done,
}

/// Cuts one split's blocks into chunks. Feed it blocks in order, then [`Chunker::finish`].
#[derive(Debug)]
pub struct Chunker {
    boundary: Boundary,
    chunk_bytes: usize,
    /// First byte that is not this split's; `u64::MAX` if the split is the whole stream.
    end: u64,
    phase: Phase,
    /// Bytes after the last cut, which wait for the next block.
    carry: Buffer,
    carry_offset: u64,
}

impl Chunker {
    /// A chunker for the split `start..end` of an object.
    pub fn new(boundary: Boundary, chunk_bytes: usize, start: u64, end: u64) -> Self {
        let phase = if start > 0 && boundary == Boundary::Line { Phase::Skipping } else { Phase::Cutting };
        Self { boundary, chunk_bytes: chunk_bytes.max(1), end, phase, carry: Buffer::from_vec(Vec::<u8>::new()), carry_offset: start }
    }

    /// Whether nothing that comes later belongs to this split.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Takes the next block, whose headroom must hold a chunk, and gives the chunks which are whole.
    pub fn push(&mut self, block: Block) -> Option<ChunkRun> {
        let Block { mut buffer, start, offset, feeds } = block;
        let mut from = start;
        let mut offset = offset;
        if self.phase == Phase::Skipping {
            // The last byte before the split's end is the last one after which a line of this split could start.
            let searched = buffer.len().min(start + (self.end - 1).saturating_sub(offset) as usize);
            match memchr::memchr(b'\n', &buffer[start..searched]) {
                Some(position) => {
                    from = start + position + 1;
                    offset += position as u64 + 1;
                    self.phase = Phase::Cutting;
                    self.carry_offset = offset;
                }
                None => {
                    if searched < buffer.len() || offset + (buffer.len() - start) as u64 >= self.end - 1 {
                        self.phase = Phase::Done;
                    }
                    return None;
                }
            }
        }
        if self.phase == Phase::Done {
            return None;
        }
        from -= self.carry.len();
        offset -= self.carry.len() as u64;
        buffer[from..from + self.carry.len()].copy_from_slice(&self.carry);
        let is_last = self.truncate_at_end(&mut buffer, from, offset, self.carry.len());
        if is_last {
            self.phase = Phase::Done;
        }
        self.cut(Buffer::from(Bytes::from_owner(buffer)), &feeds, from, offset, is_last)
    }

    /// Takes the end of the object and gives the rest.
    pub fn finish(&mut self) -> Option<ChunkRun> {
        if std::mem::replace(&mut self.phase, Phase::Done) != Phase::Cutting {
            return None;
        }
        let rest = std::mem::replace(&mut self.carry, Buffer::from_vec(Vec::<u8>::new()));
        self.cut(rest, &FeedCounts::default(), 0, self.carry_offset, true)
    }

    /// Drops what follows the split's last line from `buffer`; tells whether that line's end was there.
    fn truncate_at_end(&self, buffer: &mut BlockBuffer, from: usize, offset: u64, carried: usize) -> bool {
        let last_byte = self.end - 1;
        let available = (buffer.len() - from) as u64;
        if offset + available <= last_byte {
            return false;
        }
        if self.boundary == Boundary::None {
            buffer.truncate(from + (self.end - offset) as usize);
            return true;
        }
        // What was carried over has been searched before.
        let unseen = (last_byte.saturating_sub(offset) as usize).max(carried);
        match memchr::memchr(b'\n', &buffer[from + unseen..]) {
            Some(position) => {
                buffer.truncate(from + unseen + position + 1);
                true
            }
            None => false,
        }
    }

    /// Cuts `bytes[from..]` greedily: to the last line feed within a chunk's size, or at that size inside a longer line.
    fn cut(&mut self, bytes: Buffer, feeds: &FeedCounts, from: usize, offset: u64, is_last: bool) -> Option<ChunkRun> {
        let all = &bytes.as_slice()[from..];
        let (mut ends, mut records) = (Vec::new(), Vec::new());
        let mut position = 0;
        while position < all.len() {
            let rest = &all[position..];
            if rest.len() <= self.chunk_bytes && !is_last {
                break;
            }
            let window = &rest[..rest.len().min(self.chunk_bytes)];
            let is_rest = is_last && window.len() == rest.len();
            let length = match self.boundary {
                Boundary::Line if !is_rest => memchr::memrchr(b'\n', window).map_or(window.len(), |feed| feed + 1),
                _ => window.len(),
            };
            let chunk = &rest[..length];
            records.push(match self.boundary {
                Boundary::None => 1,
                Boundary::Line => {
                    let unfinished = is_last && length == rest.len() && chunk.last() != Some(&b'\n');
                    feeds.count(&bytes, from + position..from + position + length) as i64 + i64::from(unfinished)
                }
            });
            position += length;
            ends.push(position);
        }
        // A copy of less than a chunk, so that the rest does not keep the whole block's memory until the next one is here.
        self.carry = Buffer::from(&all[position..]);
        self.carry_offset = offset + position as u64;
        (!ends.is_empty()).then(|| ChunkRun { bytes: bytes.slice_with_length(from, position), ends, records, offset })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::block::{BlockShape, Filling};
    use super::*;

    /// The chunks of one split as (offset, bytes, records), fed in blocks of `block` bytes.
    fn chunks(data: &[u8], boundary: Boundary, chunk: usize, split: std::ops::Range<u64>, block: usize) -> Vec<(u64, Vec<u8>, i64)> {
        let mut chunker = Chunker::new(boundary, chunk, split.start, split.end);
        let mut found = Vec::new();
        let mut keep = |run: Option<ChunkRun>| {
            let Some(run) = run else { return };
            let mut start = 0;
            for (end, records) in run.ends.iter().zip(&run.records) {
                found.push((run.offset + start as u64, run.bytes.as_slice()[start..*end].to_vec(), *records));
                start = *end;
            }
        };
        let mut position = if boundary == Boundary::Line { split.start.saturating_sub(1) } else { split.start } as usize;
        while position < data.len() && !chunker.is_done() {
            let next = data.len().min(position + block);
            let shape = BlockShape { headroom: chunk, block_bytes: block, counts_feeds: true };
            let mut filling = Filling::new(shape, next - position, position as u64);
            filling.put(&data[position..next]);
            keep(chunker.push(filling.finish()));
            position = next;
        }
        keep(chunker.finish());
        found
    }

    fn all_splits(data: &[u8], boundary: Boundary, chunk: usize, split: usize, block: usize) -> Vec<(u64, Vec<u8>, i64)> {
        let size = data.len() as u64;
        let starts = (0..size).step_by(split);
        starts.flat_map(|start| chunks(data, boundary, chunk, start..size.min(start + split as u64), block)).collect()
    }

    fn lines(data: &[u8]) -> i64 {
        let feeds = data.iter().filter(|byte| **byte == b'\n').count() as i64;
        feeds + i64::from(data.last().is_some_and(|byte| *byte != b'\n'))
    }

    proptest! {
        #[test]
        fn any_split_chunk_and_block_size_gives_every_byte_and_record_once(
            data in prop::collection::vec(prop_oneof![4 => Just(b'a'), 2 => Just(b'\r'), 2 => Just(b'\n'), 1 => any::<u8>()], 0..400),
            chunk in 1usize..70, split in 1usize..150, block in 1usize..90, line in any::<bool>(),
        ) {
            let boundary = if line { Boundary::Line } else { Boundary::None };
            let found = all_splits(&data, boundary, chunk, split, block);
            let mut next = 0;
            for (offset, bytes, _) in &found {
                prop_assert_eq!(*offset, next);
                prop_assert!(!bytes.is_empty() && bytes.len() <= chunk);
                next += bytes.len() as u64;
            }
            let joined: Vec<u8> = found.iter().flat_map(|(_, bytes, _)| bytes.clone()).collect();
            prop_assert_eq!(&joined, &data);
            if line {
                prop_assert_eq!(found.iter().map(|(_, _, records)| records).sum::<i64>(), lines(&data));
                // A chunk ends inside a line only if no line ends in it.
                let inside = found.iter().filter(|(offset, bytes, _)| *offset as usize + bytes.len() < data.len() && bytes.last() != Some(&b'\n'));
                prop_assert!(inside.clone().all(|(_, bytes, _)| !bytes.contains(&b'\n')));
            }
            // How the bytes arrive changes nothing.
            prop_assert_eq!(&found, &all_splits(&data, boundary, chunk, split, 1));
        }
    }

    #[test]
    fn lines_are_counted_the_same_in_large_blocks_and_in_small_ones() {
        let data: Vec<u8> = (0..200_000u32).map(|at| if at.wrapping_mul(2_654_435_761) >> 27 == 0 { b'\n' } else { b'x' }).collect();
        let small = all_splits(&data, Boundary::Line, 10_000, 70_000, 100);
        assert_eq!(all_splits(&data, Boundary::Line, 10_000, 70_000, 50_000), small);
        assert_eq!(small.iter().map(|(_, _, records)| records).sum::<i64>(), lines(&data));
    }

    #[test]
    fn a_line_longer_than_a_split_belongs_to_the_split_of_its_first_byte() {
        let data = [b"short\n".as_slice(), &[b'x'; 50], b"\nlast"].concat();
        let starts: Vec<_> =
            (0..data.len() as u64).step_by(10).map(|start| (start, chunks(&data, Boundary::Line, 1000, start..start + 10, 7))).collect();
        assert_eq!(starts[0].1.len(), 1);
        assert_eq!(starts[0].1[0].1.len(), 57);
        assert!(starts[1..5].iter().all(|(_, found)| found.is_empty()));
        assert_eq!(starts[5].1, vec![(57, b"last".to_vec(), 1)]);
    }
}
