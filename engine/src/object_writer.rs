//! Bytes → one object, in a file system or an object store. It appears under its name only when it is whole and durable.
//!
//! A file grows under a hidden name in its final folder, is synced and renamed; an object of a server is a multipart upload
//! which is completed or aborted. Whatever is killed, nobody ever sees a half of it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use object_store::Attributes;
use object_store::buffered::BufWriter;
use tokio::io::AsyncWriteExt;

use crate::connector::split::digest_id;
use crate::error::{Error, ErrorKind, Result, store_error};
use crate::runtime::{self, Spawned};
use crate::store::Location;
use crate::trust::reach;

/// Bytes of one part of an upload. S3's least is 5 MiB; a request of this size hides its round trip.
const PART_BYTES: u64 = 10 << 20;
/// Parts of one upload at most, a little below S3's 10,000. Larger parts make room for larger objects.
pub(crate) const PARTS_MAX: u64 = 9_000;
/// Parts on their way at once: one is sent while the next is filled, and one more hides the server's answer.
pub(crate) const PARTS_IN_FLIGHT: usize = 3;
/// How hidden names begin.
pub const HIDDEN_PREFIX: &str = ".baler-";

/// What is known of an object before its bytes come.
#[derive(Debug, Clone, Default)]
pub struct ObjectShape {
    /// How many bytes it will have, about; 0 if nobody knows. Only uploads of more than 90 GB need it.
    pub size_hint: u64,
    /// The modification time which a file gets; an object of a server has that of its upload.
    pub modified: Option<SystemTime>,
    /// Metadata which an object of a server gets; a file has none.
    pub attributes: Attributes,
}

/// Writes one object. One task uses it; one piece is on its way while the next is made.
#[derive(Debug)]
pub struct ObjectWriter {
    part: Turn,
    shape: ObjectShape,
}

impl ObjectWriter {
    /// Begins an object. What is there under its name stays until [`Self::finish`].
    ///
    /// # Errors
    /// Permanent, when the folder or file cannot be made.
    pub fn open(target: &Location, shape: ObjectShape) -> Result<Self> {
        if let Some(path) = local_path(target)? {
            return Ok(Self { part: Turn::Idle(Part::Local(LocalFile::create(path)?)), shape });
        }
        let capacity = usize::try_from((shape.size_hint / PARTS_MAX + 1).max(PART_BYTES)).unwrap_or(usize::MAX);
        let writer = BufWriter::with_capacity(Arc::clone(&target.store), target.path.clone(), capacity)
            .with_max_concurrency(PARTS_IN_FLIGHT)
            .with_attributes(shape.attributes.clone());
        Ok(Self { part: Turn::Idle(Part::Remote(Box::new(Upload { uri: target.uri.clone(), writer: Some(writer) }))), shape })
    }

    /// Adds bytes; returns as soon as there is room for the next. Not cancel-safe: a dropped call leaves the object unfinished.
    ///
    /// # Errors
    /// What file system or server answer, perhaps to an earlier piece.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.part = match self.part.take().await? {
            Part::Local(file) => Turn::UnderWay(runtime::spawn_blocking(move || file.append(&bytes).map(Part::Local))?),
            Part::Remote(upload) => Turn::UnderWay(runtime::spawn_io(async move { upload.append(bytes).await.map(Part::Remote) })?),
        };
        Ok(())
    }

    /// Returns when the object is whole and durable under its name.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn finish(mut self) -> Result<()> {
        match self.part.take().await? {
            Part::Local(file) => {
                let modified = self.shape.modified;
                runtime::spawn_blocking(move || file.finish(modified))?.join().await?
            }
            Part::Remote(upload) => runtime::spawn_io(upload.finish())?.join().await?,
        }
    }

    /// Gives the object up, and waits until the server has dropped what it got. (Dropping the writer does the same without waiting.)
    pub async fn abandon(mut self) {
        if let Ok(Part::Remote(mut upload)) = self.part.take().await
            && let Some(writer) = upload.writer.take()
        {
            match runtime::spawn_io(abort(upload.uri.clone(), writer)) {
                Ok(aborted) => drop(aborted.join().await),
                Err(error) => tracing::warn!(object = upload.uri, %error, "an upload was left behind"),
            }
        }
    }
}

/// The path of a place in this machine's file system, where it is one: how everything of ours gets to files which does not go through a store.
///
/// # Errors
/// Config, when tables may not name the file.
pub fn local_path(location: &Location) -> Result<Option<PathBuf>> {
    if !location.uri.starts_with("file://") {
        return Ok(None);
    }
    let path = PathBuf::from(format!("/{}", location.path));
    reach::folders().check(&path)?;
    Ok(Some(path))
}

#[derive(Debug)]
enum Part {
    Local(LocalFile),
    Remote(Box<Upload>),
}

/// An object which is idle or being written to.
#[derive(Debug)]
enum Turn {
    Idle(Part),
    UnderWay(Spawned<Result<Part>>),
    /// A write failed, or its call was dropped.
    Lost,
}

impl Turn {
    /// Waits for the write under way and takes the object.
    async fn take(&mut self) -> Result<Part> {
        match std::mem::replace(self, Self::Lost) {
            Self::Idle(part) => Ok(part),
            Self::UnderWay(task) => task.join().await?,
            Self::Lost => Err(Error::internal("an object was written to after it had failed")),
        }
    }
}

/// A file under a hidden name in its final folder; removed if it is dropped unfinished.
#[derive(Debug)]
struct LocalFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl LocalFile {
    fn create(path: PathBuf) -> Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).map_err(|e| file_error("cannot create the folder", folder, e))?;
        let stem = format!("{HIDDEN_PREFIX}{}", digest_id(&[&path.to_string_lossy()], 16));
        let mut number = 0;
        loop {
            let temporary = folder.join(format!("{stem}-{number}"));
            let claimed = claim(&temporary).map_err(|e| file_error("cannot create", &temporary, e))?;
            if let Some(file) = claimed {
                return Ok(Self { file, temporary, path, finished: false });
            }
            number += 1;
        }
    }

    fn append(mut self, bytes: &[u8]) -> Result<Self> {
        self.file.write_all(bytes).map_err(|e| file_error("cannot write", &self.path, e))?;
        Ok(self)
    }

    /// Durable in this order: content and time, name, folder.
    fn finish(mut self, modified: Option<SystemTime>) -> Result<()> {
        if let Some(modified) = modified {
            self.file.set_modified(modified).map_err(|e| file_error("cannot set the time of", &self.path, e))?;
        }
        self.file.sync_all().map_err(|e| file_error("cannot make durable", &self.path, e))?;
        std::fs::rename(&self.temporary, &self.path).map_err(|e| file_error("cannot rename to", &self.path, e))?;
        self.finished = true;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| file_error("cannot make durable", folder, e))
    }
}

/// Opens a temporary file, empty and locked; `None` if another attempt at the object is writing it. What a killed attempt left behind
/// is not locked any more, so the next attempt takes it over instead of leaving it there for ever.
fn claim(temporary: &Path) -> std::io::Result<Option<File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(temporary)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Between opening and locking the other attempt may have renamed it: then this is the finished object, which must stay.
    let is_same = std::fs::metadata(temporary).is_ok_and(|named| file.metadata().is_ok_and(|open| named.ino() == open.ino()));
    if !is_same {
        return Ok(None);
    }
    file.set_len(0)?;
    Ok(Some(file))
}

impl Drop for LocalFile {
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

/// An upload, which is aborted if it is dropped unfinished.
#[derive(Debug)]
struct Upload {
    uri: String,
    writer: Option<BufWriter>,
}

impl Upload {
    async fn append(mut self: Box<Self>, bytes: Bytes) -> Result<Box<Self>> {
        let writer = self.writer.as_mut().ok_or_else(|| Error::internal("an upload was written to after its end"))?;
        writer.put(bytes).await.map_err(|e| store_error("writing", &self.uri, &e))?;
        Ok(self)
    }

    async fn finish(mut self) -> Result<()> {
        // From here on the upload itself aborts what it cannot complete.
        let mut writer = self.writer.take().ok_or_else(|| Error::internal("an upload ended twice"))?;
        writer.shutdown().await.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<object_store::Error>()) {
            Some(store) => store_error("writing", &self.uri, store),
            None => Error::new(ErrorKind::Transient, format!("writing {}", self.uri)).with_source(error),
        })
    }
}

async fn abort(uri: String, mut writer: BufWriter) {
    if let Err(error) = writer.abort().await {
        tracing::warn!(object = uri, %error, "an upload was left behind");
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(writer), Ok(io)) = (self.writer.take(), runtime::io()) {
            drop(io.spawn(abort(self.uri.clone(), writer)));
        }
    }
}
