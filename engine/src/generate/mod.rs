//! Sample data: what `baler generate` and `baler demo` write.
//!
//! - [`generate`]: writes objects of one [`Shape`] to any object store.
//! - [`topic`]: sends the same records to a topic, at a given rate.
//! - `shape`: which shapes there are, and how a record is written.
//! - `events`: the JSON events of a shop, the default.
//! - `tables`: CSV rows, log lines, text and binary records.
//! - `words`: the lists they draw from.
//! - `pack`: compression of the objects.

use std::sync::Arc;

use bytes::Bytes;
use clap::ValueEnum;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::error::store_error;
use crate::telemetry::COUNTERS;
use crate::{Error, Result};

mod events;
mod pack;
mod shape;
mod tables;
#[cfg(test)]
mod tests;
pub mod topic;
mod words;

use pack::Packer;
pub use shape::Shape;
use shape::{RecordWriter, new_record_writer};

/// How the objects are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// `.gz`, level 6.
    Gzip,
    /// `.zst`, level 3.
    Zstd,
    /// `.bz2`, level 6.
    Bzip2,
    /// `.xz`, preset 3: the higher ones take hundreds of megabytes per file.
    Xz,
}

impl Compression {
    fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
            Self::Bzip2 => ".bz2",
            Self::Xz => ".xz",
        }
    }
}

/// What to generate.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Bytes in all, before compression. Each object ends with the record that reaches its share.
    pub total_bytes: u64,
    /// How many objects share the bytes; at least 1.
    pub files: usize,
    /// What the records look like.
    pub shape: Shape,
    /// How the objects are compressed, if at all.
    pub compress: Option<Compression>,
    /// Equal seeds, sizes and shapes give equal bytes.
    pub seed: u64,
}

/// What was generated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Generated {
    /// Objects written.
    pub objects: usize,
    /// Bytes before compression.
    pub raw_bytes: u64,
    /// Bytes in the store.
    pub stored_bytes: u64,
    /// Records: lines, where the shape has lines.
    pub records: u64,
}

/// Bytes made before they are compressed and sent: enough to make the hand-over cheap.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks between the thread that makes them and the upload.
pub(crate) const BLOCKS_IN_FLIGHT: usize = 4;
/// Part size of an upload; S3's minimum is 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// Parts of one object in flight: one is on its way while the next one fills.
pub(crate) const PARTS_IN_FLIGHT: usize = 2;

/// Writes sample data below `prefix`, as `events-00000.json` and so on, as many objects at once as there are cores.
///
/// `progress` is told the raw bytes made since it was last called. Memory stays at some 40 MB per core (`Shape::LongLines`
/// and `Compression::Xz`: 100 MB). An existing object of the same name is replaced, so a repetition is idempotent. When
/// the future is dropped or fails, objects that are not complete do not appear in the store.
///
/// # Errors
/// `Config`: no files. Else whatever the store reports, naming the object.
pub async fn generate(
    store: Arc<dyn ObjectStore>,
    prefix: &Path,
    options: &GenerateOptions,
    progress: impl Fn(u64) + Send + Sync,
) -> Result<Generated> {
    let files = u64::try_from(options.files).unwrap_or(u64::MAX);
    if files == 0 {
        return Err(Error::config("cannot generate 0 files: ask for at least one"));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (store, progress) = (&store, &progress);
    futures::stream::iter(0..files)
        .map(|file| async move {
            let share = share_of(options.total_bytes, file, files);
            let source = FileSource { shape: options.shape, compress: options.compress, seed: options.seed, file, share };
            let path = prefix.clone().join(source.name());
            write_object(Arc::clone(store), path, source, progress).await
        })
        .buffer_unordered(cores)
        .try_fold(Generated::default(), |sum, one| async move {
            Ok(Generated {
                objects: sum.objects + one.objects,
                raw_bytes: sum.raw_bytes + one.raw_bytes,
                stored_bytes: sum.stored_bytes + one.stored_bytes,
                records: sum.records + one.records,
            })
        })
        .await
}

/// The bytes of one of `files`, such that all of them add up to `total`.
fn share_of(total: u64, file: u64, files: u64) -> u64 {
    total / files + u64::from(file < total % files)
}

/// What one object holds.
#[derive(Debug, Clone)]
struct FileSource {
    shape: Shape,
    compress: Option<Compression>,
    seed: u64,
    file: u64,
    share: u64,
}

/// A piece of an object on its way to the store.
struct Block {
    stored: Bytes,
    raw_bytes: u64,
    records: u64,
}

impl FileSource {
    fn name(&self) -> String {
        format!("events-{:05}.{}{}", self.file, self.shape.suffix(), self.compress.map_or("", Compression::suffix))
    }

    /// Makes the whole object, block by block, until `send` says that nobody wants more of it.
    fn make_blocks(&self, mut send: impl FnMut(Block) -> bool) -> Result<()> {
        let mut writer = new_record_writer(self.shape, self.seed, self.file, self.share);
        let mut packer = Packer::try_new(self.compress)?;
        let mut raw = Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 8);
        let mut made = 0;
        while made < self.share {
            let records = fill_block(&mut *writer, &mut raw, self.share - made);
            let raw_bytes = raw.len() as u64;
            made += raw_bytes;
            let stored = packer.pack(&mut raw)?.into();
            if !send(Block { stored, raw_bytes, records }) {
                return Ok(());
            }
        }
        send(Block { stored: packer.finish()?.into(), raw_bytes: 0, records: 0 });
        Ok(())
    }
}

/// Appends records until a block is full or the rest of the object is made; returns how many.
fn fill_block(writer: &mut dyn RecordWriter, raw: &mut Vec<u8>, rest: u64) -> u64 {
    raw.clear();
    let mut records = 0;
    while raw.len() < BLOCK_BYTES && (raw.len() as u64) < rest {
        writer.write_record(raw);
        records += 1;
    }
    records
}

async fn write_object(
    store: Arc<dyn ObjectStore>,
    path: Path,
    source: FileSource,
    progress: &(impl Fn(u64) + Send + Sync),
) -> Result<Generated> {
    let mut upload = BufWriter::with_capacity(store, path.clone(), PART_BYTES).with_max_concurrency(PARTS_IN_FLIGHT);
    match send_blocks(&mut upload, &path, source, progress).await {
        Ok(generated) => {
            upload.shutdown().await.map_err(|error| store_error("writing", path.as_ref(), &as_store_error(error)))?;
            COUNTERS.add_generated(generated.records, generated.raw_bytes);
            Ok(generated)
        }
        Err(error) => {
            // The first error is the one to tell; an upload which cannot be aborted expires in the store.
            if let Err(second) = upload.abort().await {
                tracing::debug!(object = %path, error = %second, "cannot abort an upload");
            }
            Err(error)
        }
    }
}

/// Making and packing keep a thread busy, so they have one of their own; this side only sends.
async fn send_blocks(
    upload: &mut BufWriter,
    path: &Path,
    source: FileSource,
    progress: &(impl Fn(u64) + Send + Sync),
) -> Result<Generated> {
    let (sender, mut blocks) = mpsc::channel(BLOCKS_IN_FLIGHT);
    let maker = tokio::task::spawn_blocking(move || source.make_blocks(|block| sender.blocking_send(block).is_ok()));
    let mut generated = Generated { objects: 1, ..Generated::default() };
    while let Some(block) = blocks.recv().await {
        generated.raw_bytes += block.raw_bytes;
        generated.stored_bytes += block.stored.len() as u64;
        generated.records += block.records;
        upload.put(block.stored).await.map_err(|error| store_error("writing", path.as_ref(), &error))?;
        if block.raw_bytes > 0 {
            progress(block.raw_bytes);
        }
    }
    match maker.await {
        Ok(result) => result.map(|()| generated),
        Err(error) => Err(Error::internal(format!("the thread that makes {path} died")).with_source(error)),
    }
}

/// `BufWriter` hands the store's error through as an `io::Error`.
fn as_store_error(error: std::io::Error) -> object_store::Error {
    match error.downcast::<object_store::Error>() {
        Ok(error) => error,
        Err(error) => object_store::Error::Generic { store: "object store", source: Box::new(error) },
    }
}
