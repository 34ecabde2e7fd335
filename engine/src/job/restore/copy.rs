//! One object, from its documents to its place. Before: [`RestoreObject`]; after: a whole object under its name, or nothing there.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::{Attribute, Attributes, GetOptions, ObjectStore};

use super::content::{Piece, Taker, hand_over};
use super::pack::Packer;
use super::records::Layout;
use super::{RestoreObject, Restored};
use crate::connector::SinkSpec;
use crate::connector::blob::Compression;
use crate::connector::split::digest_id;
use crate::error::{Error, Result, store_error};
use crate::object_writer::{ObjectShape, ObjectWriter, local_path};
use crate::runtime;
use crate::store::{Location, locate};
use crate::telemetry::COUNTERS;

/// The metadata of an object in a store which says what it was restored from.
const MARK: &str = "baler-restored";

/// What is at an object's place.
enum There {
    Nothing,
    /// What this would write.
    Same,
    Other,
}

/// Writes an object, unless it is there.
///
/// # Errors
/// Conflict, when something else is there or the documents have a hole; Decode, when one of them is damaged; else as the stores'.
pub(super) async fn copy_object(sink: &SinkSpec, env: &Arc<RuntimeEnv>, object: &RestoreObject, overwrite: bool) -> Result<Restored> {
    let target = locate(env, &object.target)?;
    match look(&target, object).await? {
        There::Same => return Ok(Restored::default()),
        There::Other if !overwrite => {
            return Err(Error::conflict(format!(
                "{}: something else is there, with another size, time or origin than {} would have; remove it, or pass --overwrite",
                object.target, object.object
            )));
        }
        There::Nothing | There::Other => {}
    }
    let mut taker = ObjectTaker { writer: ObjectWriter::open(&target, shape(object))?, packer: Packer::new(object.packing)?, records: 0 };
    match taker.write(sink, env, object).await {
        Ok(documents) => {
            taker.writer.finish().await?;
            COUNTERS.restored_objects.add(1);
            Ok(Restored { documents, records: taker.records, is_new: true })
        }
        Err(error) => {
            taker.writer.abandon().await;
            Err(error)
        }
    }
}

/// Writes pieces into an object.
struct ObjectTaker {
    writer: ObjectWriter,
    packer: Packer,
    records: u64,
}

impl ObjectTaker {
    /// Writes all of it, but for its end; returns how many documents it was.
    async fn write(&mut self, sink: &SinkSpec, env: &Arc<RuntimeEnv>, object: &RestoreObject) -> Result<u64> {
        let documents = hand_over(sink, env, object, 0, self).await?;
        let packer = std::mem::replace(&mut self.packer, Packer::Plain);
        let end = runtime::spawn_blocking(move || packer.finish())?.join().await??;
        if !end.is_empty() {
            self.writer.write(end.into()).await?;
        }
        Ok(documents)
    }
}

#[async_trait]
impl Taker for ObjectTaker {
    async fn take(&mut self, pieces: Vec<Piece>) -> Result<()> {
        for Piece { records, bytes: raw, .. } in pieces {
            self.records += records.unsigned_abs();
            let bytes = if self.packer.is_plain() {
                raw
            } else {
                let mut packer = std::mem::replace(&mut self.packer, Packer::Plain);
                let packing = move || packer.push(&raw).map(|bytes| (packer, bytes));
                let (again, bytes) = runtime::spawn_blocking(packing)?.join().await??;
                self.packer = again;
                bytes.into()
            };
            if !bytes.is_empty() {
                self.writer.write(bytes).await?;
            }
        }
        Ok(())
    }

    async fn end_split(&mut self, _next: u64) -> Result<()> {
        Ok(())
    }
}

fn shape(object: &RestoreObject) -> ObjectShape {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::Metadata(MARK.into()), mark(object).into());
    ObjectShape { size_hint: object.bytes, modified: modified(object), attributes }
}

/// What tells a restored object of a store from any other: a function of source object, version and form; of records that of their documents.
fn mark(object: &RestoreObject) -> String {
    let form = format!("{:?}", object.packing);
    let mut parts = vec![object.object.as_str(), &object.version, &form];
    if object.records.is_some() {
        parts.extend(object.splits.iter().map(|split| split.digest.as_str()));
    }
    digest_id(&parts, 32)
}

/// A restored file has the time of its source, which also tells it from any other.
fn modified(object: &RestoreObject) -> Option<SystemTime> {
    let since = Duration::from_millis(object.last_modified.unsigned_abs());
    if object.last_modified < 0 { SystemTime::UNIX_EPOCH.checked_sub(since) } else { SystemTime::UNIX_EPOCH.checked_add(since) }
}

/// What is at the object's place. Names appear only when their content is whole, so origin and size are proof enough.
async fn look(target: &Location, object: &RestoreObject) -> Result<There> {
    // How long the frames of single records are is not known before they are made.
    let is_plain = object.packing == Compression::None && !matches!(object.records, Some(Layout::Single { .. }));
    let as_found = |is_ours: bool, size: u64| if is_ours && (!is_plain || size == object.bytes) { There::Same } else { There::Other };
    if let Some(path) = local_path(target)? {
        let modified = modified(object);
        let looked = move || match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::permanent(format!("cannot look at {}: {error}", path.display()))),
            Ok(found) if found.is_dir() => Err(Error::conflict(format!("{} is a folder", path.display()))),
            Ok(found) => Ok(Some((found.modified().ok(), found.len()))),
        };
        let found = runtime::spawn_blocking(looked)?.join().await??;
        return Ok(found.map_or(There::Nothing, |(time, size)| as_found(time.is_some() && time == modified, size)));
    }
    let (place, mark) = (target.clone(), mark(object));
    let looked = async move {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match place.store.get_opts(&place.path, options).await {
            Ok(found) => {
                let is_ours = found.attributes.get(&Attribute::Metadata(MARK.into())).is_some_and(|value| value.as_ref() == mark);
                Ok(Some((is_ours, found.meta.size)))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(store_error("looking at", &place.uri, &error)),
        }
    };
    let found = runtime::spawn_io(looked)?.join().await??;
    Ok(found.map_or(There::Nothing, |(is_ours, size)| as_found(is_ours, size)))
}
