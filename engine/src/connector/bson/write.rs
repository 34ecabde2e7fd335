//! Batches → one part file. It appears under its name only when it is whole and durable.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::buffered::BufWriter;
use tokio::io::AsyncWriteExt;

use super::BsonSpec;
use crate::connector::batch::Batch;
use crate::connector::{SinkWriter, Written};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{self, Spawned};
use crate::telemetry::COUNTERS;

/// Opens the part's file.
pub(crate) async fn open(spec: &BsonSpec, env: &Arc<RuntimeEnv>, part: &str) -> Result<Box<dyn SinkWriter>> {
    let file = spec.folder(env)?.join(&spec.file_name(part));
    if file.uri.starts_with("file://") {
        let path = PathBuf::from(format!("/{}", file.path));
        return Ok(Box::new(LocalWriter { part: Turn::Idle(LocalPart::create(path)?) }));
    }
    let writer = BufWriter::new(Arc::clone(&file.store), file.path.clone());
    Ok(Box::new(RemoteWriter { uri: file.uri, writer: Turn::Idle(writer) }))
}

/// A file under a temporary name in its final folder; removed if it is dropped unfinished.
struct LocalPart {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    finished: bool,
    documents: u64,
    bytes: u64,
}

impl LocalPart {
    fn create(path: PathBuf) -> Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|e| file_error("cannot create the folder", folder, e))?;
        let mut number = 0;
        loop {
            let temporary = path.with_extension(format!("tmp-{number}"));
            let claimed = claim(&temporary).map_err(|e| file_error("cannot create", &temporary, e))?;
            if let Some(file) = claimed {
                return Ok(Self { file, temporary, path, finished: false, documents: 0, bytes: 0 });
            }
            number += 1;
        }
    }

    fn append(mut self, batch: &Batch) -> Result<Self> {
        self.file.write_all(batch.bytes()).map_err(|e| file_error("cannot write", &self.temporary, e))?;
        self.documents += batch.len() as u64;
        self.bytes += batch.bytes().len() as u64;
        Ok(self)
    }

    /// Durable in this order: content, name, folder.
    fn finish(mut self) -> Result<()> {
        self.file.sync_all().map_err(|e| file_error("cannot make durable", &self.temporary, e))?;
        std::fs::rename(&self.temporary, &self.path).map_err(|e| file_error("cannot rename to", &self.path, e))?;
        self.finished = true;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| file_error("cannot make durable", folder, e))?;
        COUNTERS.sink_docs.add(self.documents);
        COUNTERS.sink_bytes.add(self.bytes);
        Ok(())
    }
}

/// Opens a temporary file, empty and locked; `None` if another attempt at the part is writing it. What a killed attempt left behind
/// is not locked any more, so the next attempt takes it over instead of leaving it there for ever.
fn claim(temporary: &Path) -> std::io::Result<Option<File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(temporary)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Between opening and locking the other attempt may have renamed it: then this is the finished part, which must stay.
    let is_same = std::fs::metadata(temporary).is_ok_and(|named| file.metadata().is_ok_and(|open| named.ino() == open.ino()));
    if !is_same {
        return Ok(None);
    }
    file.set_len(0)?;
    Ok(Some(file))
}

impl Drop for LocalPart {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = std::fs::remove_file(&self.temporary)
        {
            tracing::warn!(file = %self.temporary.display(), %error, "an unfinished file was left behind");
        }
    }
}

fn file_error(action: &str, path: &Path, error: std::io::Error) -> Error {
    let remedy = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => {
            "; free some space and run the same command again, it resumes"
        }
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => "; check the rights on that folder",
        _ => "",
    };
    Error::permanent(format!("{action} {}: {error}{remedy}", path.display()))
}

/// A part which is idle or being written to: one batch is written while the next is compressed.
enum Turn<P> {
    Idle(P),
    UnderWay(Spawned<Result<P>>),
    /// A write failed, or its call was dropped.
    Lost,
}

impl<P> Turn<P> {
    /// Waits for the write under way and takes the part.
    async fn take(&mut self) -> Result<P> {
        match std::mem::replace(self, Self::Lost) {
            Self::Idle(part) => Ok(part),
            Self::UnderWay(task) => task.join().await?,
            Self::Lost => Err(Error::internal("a part was written to after it had failed")),
        }
    }
}

/// Writes to a local file.
struct LocalWriter {
    part: Turn<LocalPart>,
}

#[async_trait]
impl SinkWriter for LocalWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        let part = self.part.take().await?;
        self.part = Turn::UnderWay(runtime::spawn_blocking(move || part.append(&batch))?);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Written> {
        let part = self.part.take().await?;
        runtime::spawn_blocking(move || part.finish())?.join().await??;
        Ok(Written::default())
    }
}

/// Writes to an object; it exists only after the upload is completed.
struct RemoteWriter {
    uri: String,
    writer: Turn<BufWriter>,
}

fn upload_error(uri: &str, error: std::io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<object_store::Error>()) {
        Some(store) => crate::error::store_error("writing", uri, store),
        None => Error::new(ErrorKind::Transient, format!("writing {uri}")).with_source(error),
    }
}

#[async_trait]
impl SinkWriter for RemoteWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        let (mut writer, uri) = (self.writer.take().await?, self.uri.clone());
        self.writer = Turn::UnderWay(runtime::spawn_io(async move {
            writer.write_all(batch.bytes()).await.map_err(|e| upload_error(&uri, e))?;
            COUNTERS.sink_docs.add(batch.len() as u64);
            COUNTERS.sink_bytes.add(batch.bytes().len() as u64);
            Ok(writer)
        })?);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Written> {
        let (mut writer, uri) = (self.writer.take().await?, self.uri.clone());
        runtime::spawn_io(async move { writer.shutdown().await.map_err(|e| upload_error(&uri, e)) })?.join().await??;
        Ok(Written::default())
    }
}
