//! One object, from its documents to its place. Before: [`RestoreObject`]; after: a whole object under its name, or nothing there.
//!
//! Reading, inflating and writing overlap: documents of several splits are read ahead by tasks of their own, a group of them is
//! inflated on the compression pool, and the piece before is on its way to the target. Each of these holds a few MiB.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::bson::RawDocumentBuf;
use bytes::Bytes;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::{Attribute, Attributes, GetOptions, ObjectStore};
use rayon::prelude::*;

use super::RestoreObject;
use super::pack::Packer;
use crate::connector::blob::Compression;
use crate::connector::receipt::{DocumentDigest, DocumentFacts};
use crate::connector::split::digest_id;
use crate::connector::stored::StoredSplit;
use crate::connector::{Fields, SinkSpec};
use crate::error::{Error, Result, store_error};
use crate::function::zlib::pool;
use crate::job::payload::raw_bytes;
use crate::object_writer::{ObjectShape, ObjectWriter, local_path};
use crate::runtime::{self, Spawned};
use crate::store::{Location, locate};
use crate::telemetry::COUNTERS;

/// Raw bytes which are inflated together: enough for all threads of the pool, and a single document may be larger.
const GROUP_BYTES: u64 = 8 << 20;
/// Groups which are inflated while another is written.
const GROUPS_AHEAD: usize = 1;
/// Splits whose documents are read at once: hides the round trips of a chain of documents.
const SPLITS_AHEAD: usize = 4;
/// The metadata of an object in a store which says what it was restored from.
const MARK: &str = "baler-restored";

/// What came of one object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copied {
    /// Documents which it was made of; 0 if it was there.
    pub documents: u64,
    /// Whether it was written just now.
    pub is_new: bool,
}

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
pub(super) async fn copy_object(sink: &SinkSpec, env: &Arc<RuntimeEnv>, object: &RestoreObject, overwrite: bool) -> Result<Copied> {
    let target = locate(env, &object.target)?;
    match look(&target, object).await? {
        There::Same => return Ok(Copied { documents: 0, is_new: false }),
        There::Other if !overwrite => {
            return Err(Error::conflict(format!(
                "{}: something else is there, with another size, time or origin than {} would have; remove it, or pass --overwrite",
                object.target, object.object
            )));
        }
        There::Nothing | There::Other => {}
    }
    let mut writer = ObjectWriter::open(&target, shape(object))?;
    match write_content(sink, env, object, &mut writer).await {
        Ok(documents) => {
            writer.finish().await?;
            COUNTERS.restored_objects.add(1);
            Ok(Copied { documents, is_new: true })
        }
        Err(error) => {
            writer.abandon().await;
            Err(error)
        }
    }
}

fn shape(object: &RestoreObject) -> ObjectShape {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::Metadata(MARK.into()), mark(object).into());
    ObjectShape { size_hint: object.bytes, modified: modified(object), attributes }
}

/// What tells a restored object of a store from any other: a function of source object, version and form.
fn mark(object: &RestoreObject) -> String {
    digest_id(&[&object.object, &object.version, &format!("{:?}", object.packing)], 32)
}

/// A restored file has the time of its source, which also tells it from any other.
fn modified(object: &RestoreObject) -> Option<SystemTime> {
    let since = Duration::from_millis(object.last_modified.unsigned_abs());
    if object.last_modified < 0 { SystemTime::UNIX_EPOCH.checked_sub(since) } else { SystemTime::UNIX_EPOCH.checked_add(since) }
}

/// What is at the object's place. Names appear only when their content is whole, so origin and size are proof enough.
async fn look(target: &Location, object: &RestoreObject) -> Result<There> {
    let is_plain = object.packing == Compression::None;
    let as_found = |is_ours: bool, size: u64| if is_ours && (!is_plain || size == object.bytes) { There::Same } else { There::Other };
    if let Some(path) = local_path(target) {
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

/// Documents which follow one another, with what they say of themselves.
type Group = Vec<(DocumentFacts, RawDocumentBuf)>;

/// Writes the content of an object; returns its documents.
async fn write_content(sink: &SinkSpec, env: &Arc<RuntimeEnv>, object: &RestoreObject, writer: &mut ObjectWriter) -> Result<u64> {
    let open = |split: StoredSplit| {
        let (sink, env, name, version) = (sink.clone(), Arc::clone(env), object.object.clone(), object.version.clone());
        async move { Ok::<_, Error>((sink.split_documents(&env, &name, &version, &split, Fields::All)?, split)) }
    };
    let mut splits = futures::stream::iter(object.splits.clone()).map(open).buffered(SPLITS_AHEAD);
    let mut inflating: VecDeque<Spawned<Result<Vec<Bytes>>>> = VecDeque::new();
    let mut packer = Packer::new(object.packing)?;
    let mut documents = 0;
    while let Some((stored, split)) = splits.try_next().await? {
        let mut cursor = SplitCursor::new(object, &split, stored);
        while let Some(group) = cursor.next_group().await? {
            let name = object.object.clone();
            inflating.push_back(runtime::spawn_blocking(move || inflate(&name, &group))?);
            if inflating.len() > GROUPS_AHEAD {
                packer = write_next(&mut inflating, packer, writer).await?;
            }
        }
        documents += cursor.documents;
        cursor.expect_whole()?;
    }
    while !inflating.is_empty() {
        packer = write_next(&mut inflating, packer, writer).await?;
    }
    let end = runtime::spawn_blocking(move || packer.finish())?.join().await??;
    if !end.is_empty() {
        writer.write(end.into()).await?;
    }
    Ok(documents)
}

/// Writes the group which is inflated first.
async fn write_next(
    inflating: &mut VecDeque<Spawned<Result<Vec<Bytes>>>>,
    mut packer: Packer,
    writer: &mut ObjectWriter,
) -> Result<Packer> {
    let Some(group) = inflating.pop_front() else { return Ok(packer) };
    for raw in group.join().await?? {
        let length = raw.len() as u64;
        let bytes = if packer.is_plain() {
            raw
        } else {
            let packing = move || packer.push(&raw).map(|bytes| (packer, bytes));
            let (again, bytes) = runtime::spawn_blocking(packing)?.join().await??;
            packer = again;
            bytes.into()
        };
        if !bytes.is_empty() {
            writer.write(bytes).await?;
        }
        COUNTERS.restored_bytes.add(length);
    }
    Ok(packer)
}

/// The raw bytes of documents, in parallel; each is proven by its sizes and checksum.
fn inflate(object: &str, group: &Group) -> Result<Vec<Bytes>> {
    let inflate_one = |(facts, document): &(DocumentFacts, RawDocumentBuf)| {
        raw_bytes(document, facts)
            .map(Bytes::from)
            .map_err(|reason| Error::decode(format!("{object} byte {}: document {} {reason}", facts.byte_offset, facts.id)))
    };
    // Not the first error that some thread meets but that of the lowest offset.
    let outcomes: Vec<Result<Bytes>> = pool()?.install(|| group.par_iter().map(inflate_one).collect());
    outcomes.into_iter().collect()
}

/// Walks the documents of one split and holds them against its receipt.
struct SplitCursor<'a> {
    object: &'a RestoreObject,
    split: &'a StoredSplit,
    stored: BoxStream<'static, Result<RawDocumentBuf>>,
    position: u64,
    documents: u64,
    digest: DocumentDigest,
}

impl<'a> SplitCursor<'a> {
    fn new(object: &'a RestoreObject, split: &'a StoredSplit, stored: BoxStream<'static, Result<RawDocumentBuf>>) -> Self {
        Self { object, split, stored, position: split.first, documents: 0, digest: DocumentDigest::default() }
    }

    /// The next documents, each at the byte where the one before ended; `None` after the last.
    async fn next_group(&mut self) -> Result<Option<Group>> {
        let (mut group, mut bytes) = (Group::new(), 0);
        while bytes < GROUP_BYTES {
            let Some(document) = self.stored.try_next().await.map_err(|e| e.context(self.place()))? else { break };
            let facts = DocumentFacts::read(document.as_bytes()).map_err(|e| e.context(self.place()))?;
            let length = self.check(&facts)?;
            self.digest.add(&facts);
            (self.position, self.documents, bytes) = (self.position + length, self.documents + 1, bytes + length);
            group.push((facts, document));
        }
        Ok(if group.is_empty() { None } else { Some(group) })
    }

    /// The length of a document, if it is the one which belongs here.
    fn check(&self, facts: &DocumentFacts) -> Result<u64> {
        let RestoreObject { object, version, .. } = self.object;
        let (place, id) = (self.place(), &facts.id);
        if !facts.has_place() || facts.original_size <= 0 {
            return Err(Error::config(format!(
                "{place}: document {id} lacks `object`, `byte_offset` or `original_size`; only what sql/compress.sql writes can be restored"
            )));
        }
        let (offset, position) = (facts.byte_offset as u64, self.position);
        if facts.object != *object || facts.version != *version {
            return Err(Error::conflict(format!("{place}: document {id} is of {} version {}, not {version}", facts.object, facts.version)));
        }
        if offset > position {
            return Err(Error::conflict(format!("{place}: bytes {position}–{offset} are in no document; the next one is {id}")));
        }
        if offset < position || offset >= self.split.next {
            return Err(Error::conflict(format!("{place}: document {id} begins at byte {offset}, which another one holds")));
        }
        Ok(facts.original_size as u64)
    }

    /// Holds the whole split against its receipt.
    fn expect_whole(self) -> Result<()> {
        let StoredSplit { id, next, documents, digest, .. } = self.split;
        let place = self.place();
        if self.position < *next {
            return Err(Error::conflict(format!("{place}: bytes {}–{next} are in no stored document", self.position)));
        }
        if self.position > *next || self.documents != *documents || self.digest.finish() != *digest {
            let first = self.split.first;
            return Err(Error::conflict(format!(
                "{} byte {first}: the documents of bytes {first}–{next} are not those of receipt {id}; `baler verify` says more",
                self.object.object
            )));
        }
        Ok(())
    }

    fn place(&self) -> String {
        format!("{} byte {}", self.object.object, self.position)
    }
}
