//! A byte range of one object → blocks, read ahead of whoever uses them. Before: a URL and a range; after: [`Block`]s in order.
//!
//! Each block leaves room before its bytes (`headroom`), so that the rest of the block before, which ends in the middle of
//! a record, can be put there and every chunk is contiguous without copying whole blocks.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};

use futures::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, GetResultPayload};
use tokio::sync::mpsc;

use super::block::{Block, BlockShape, Filling};
use crate::error::{Error, Result, store_error};
use crate::retry::Retry;
use crate::runtime;
use crate::store::Location;
use crate::telemetry::RetryKind;

/// Blocks which wait between reader and decoder, and between decoder and chunks.
pub(crate) const BLOCKS_AHEAD: usize = 1;
/// Ranges of one split which are requested at once: some arrive while the next are on their way.
pub(crate) const RANGES_IN_FLIGHT: usize = 4;
/// First range past a split's end, where the last line goes on; doubled until it is found.
const OVERRUN_BYTES: u64 = 64 << 10;

/// What a block stream yields.
pub type BlockResult = Result<Block>;

/// Where a reader sends its blocks; `None` says that it came to the end. A channel which closes without that word means that
/// the reader died, which must never look like the end of an object.
pub type BlockSender = mpsc::Sender<Result<Option<Block>>>;

/// Blocks in order of offset, at most one waiting. Dropping it stops the reader.
#[derive(Debug)]
pub struct BlockStream {
    first: Option<Block>,
    receiver: mpsc::Receiver<Result<Option<Block>>>,
}

impl BlockStream {
    /// A stream and the end which a reader sends to.
    pub fn channel() -> (BlockSender, Self) {
        let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
        (sender, Self { first: None, receiver })
    }

    /// The next block; `None` at the end, after which it must not be called again. Cancel-safe.
    pub async fn next(&mut self) -> Option<BlockResult> {
        match self.first.take() {
            Some(block) => Some(Ok(block)),
            None => end_or_block(self.receiver.recv().await),
        }
    }

    /// The next block, for a thread outside the runtimes' workers.
    pub fn blocking_next(&mut self) -> Option<BlockResult> {
        match self.first.take() {
            Some(block) => Some(Ok(block)),
            None => end_or_block(self.receiver.blocking_recv()),
        }
    }

    /// Puts a block back which was only looked at.
    #[must_use]
    pub fn with_first(self, block: Block) -> Self {
        Self { first: Some(block), receiver: self.receiver }
    }
}

fn end_or_block(received: Option<Result<Option<Block>>>) -> Option<BlockResult> {
    received.unwrap_or_else(|| Err(Error::internal("the reader of an object ended before the object did"))).transpose()
}

/// Reads `range` of an object whose etag must still be `version`, and goes on after its end in small blocks for as long as
/// the stream is pulled, up to `size`.
///
/// # Errors
/// Internal, when no thread can be had. The stream itself yields Conflict when the object changed, Transient when
/// the store failed for longer than the retries last, Permanent when it is gone or denied.
pub fn read_range(location: Location, version: String, range: Range<u64>, size: u64, shape: BlockShape) -> Result<BlockStream> {
    let (sender, blocks) = BlockStream::channel();
    let reader = runtime::io()?.spawn(async move {
        let ended = read_blocks(&location, &version, plan_ranges(range, size, shape.block_bytes as u64), shape, &sender).await;
        // A receiver that is gone has no use for the end.
        drop(sender.send(ended.map(|()| None)).await);
    });
    drop(reader); // it goes on by itself, until the receiver is dropped
    Ok(blocks)
}

/// The ranges to request: full blocks up to the range's end, then growing ones up to the object's.
fn plan_ranges(range: Range<u64>, size: u64, block_bytes: u64) -> impl Iterator<Item = Range<u64>> + Send {
    let (mut position, mut overrun) = (range.start, OVERRUN_BYTES.min(block_bytes));
    std::iter::from_fn(move || {
        if position >= size {
            return None;
        }
        let step = if position < range.end {
            block_bytes.min(range.end - position)
        } else {
            let step = overrun;
            overrun = (overrun * 2).min(block_bytes);
            step
        };
        let next = position..size.min(position + step);
        position = next.end;
        Some(next)
    })
}

async fn read_blocks(
    location: &Location,
    version: &str,
    ranges: impl Iterator<Item = Range<u64>> + Send + 'static,
    shape: BlockShape,
    sender: &BlockSender,
) -> Result<()> {
    let open = GetOptions { range: Some(GetRange::Bounded(0..1)), ..condition(version) };
    if location.uri.starts_with("file://") {
        let opened = location.store.get_opts(&location.path, open).await.map_err(|e| store_error("reading", &location.uri, &e))?;
        if let GetResultPayload::File(file, _) = opened.payload {
            let (uri, sender) = (location.uri.clone(), sender.clone());
            return runtime::spawn_blocking(move || read_file(&uri, &file, ranges, shape, &sender))?.join().await?;
        }
        return Err(Error::internal(format!("{} is not a local file", location.uri)));
    }
    let mut blocks = futures::stream::iter(ranges).map(|range| fetch_block(location, version, range, shape)).buffered(RANGES_IN_FLIGHT);
    while let Some(block) = blocks.next().await {
        if sender.send(Ok(Some(block?))).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// A version that is an etag is demanded with each request, so that an object which changed is never mixed into the old one.
fn condition(version: &str) -> GetOptions {
    GetOptions { if_match: Some(version.to_string()), ..GetOptions::default() }
}

async fn fetch_block(location: &Location, version: &str, range: Range<u64>, shape: BlockShape) -> BlockResult {
    let mut retry = Retry::new(RetryKind::SourceRead);
    loop {
        match fetch_once(location, version, range.clone(), shape).await {
            Ok(block) => return Ok(block),
            Err(error) => retry.wait_or(error).await?,
        }
    }
}

async fn fetch_once(location: &Location, version: &str, range: Range<u64>, shape: BlockShape) -> BlockResult {
    let failed = |e: object_store::Error| store_error(&format!("reading bytes {}–{} of", range.start, range.end), &location.uri, &e);
    let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..condition(version) };
    let mut body = location.store.get_opts(&location.path, options).await.map_err(failed)?.into_stream();
    let length = (range.end - range.start) as usize;
    let mut filling = Filling::new(shape, length, range.start);
    let mut excess = 0;
    while let Some(part) = body.try_next().await.map_err(failed)? {
        excess = filling.put(&part).len();
        if excess > 0 {
            break;
        }
    }
    let got = filling.length() + excess;
    if got != length {
        return Err(Error::new(crate::ErrorKind::Transient, format!("{}: {got} bytes came instead of {length}", location.uri)));
    }
    Ok(filling.finish())
}

/// Reads blocks of an open file; each is handed on only if the file is still the one that was listed.
fn read_file(uri: &str, file: &File, ranges: impl Iterator<Item = Range<u64>>, shape: BlockShape, sender: &BlockSender) -> Result<()> {
    let state = |file: &File| -> std::io::Result<_> {
        let meta = file.metadata()?;
        Ok((meta.size(), meta.mtime(), meta.mtime_nsec()))
    };
    let failed = |e: std::io::Error| Error::permanent(format!("cannot read {uri}")).with_source(e);
    let changed = || Error::conflict(format!("{uri} changed while it was read; run the job under a new name to take the new content"));
    let opened = state(file).map_err(failed)?;
    let io = runtime::io()?;
    for range in ranges {
        // Room first: files are read much faster than their blocks are compressed, and a block which waits for room is only
        // memory that the kernel has to clear.
        let Ok(room) = io.block_on(sender.reserve()) else { break };
        let mut filling = Filling::for_file(shape, (range.end - range.start) as usize, range.start);
        while !filling.free().is_empty() {
            let position = range.start + filling.length() as u64;
            match file.read_at(filling.free(), position) {
                Ok(0) => return Err(changed()),
                Ok(count) => filling.advance(count),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
        if state(file).map_err(failed)? != opened {
            return Err(changed());
        }
        room.send(Ok(Some(filling.finish())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_the_split_then_grow_past_its_end() {
        let ranges: Vec<_> = plan_ranges(100..1_000_100, 2_000_000, 400_000).collect();
        assert_eq!(&ranges[..5], &[100..400_100, 400_100..800_100, 800_100..1_000_100, 1_000_100..1_065_636, 1_065_636..1_196_708]);
        assert_eq!(ranges.last().unwrap().end, 2_000_000);
        assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
    }
}
