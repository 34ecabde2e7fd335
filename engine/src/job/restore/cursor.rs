//! The documents of one split, held against its receipt. Before: stored documents; after: groups of them which follow one another.
//!
//! Bytes of an object leave no gap. Offsets of a topic do (markers, aborted transactions, compaction), so of a range of records the
//! receipt's digest alone says that none is missing.

use ::bson::RawDocumentBuf;
use futures::TryStreamExt;
use futures::stream::BoxStream;

use super::RestoreObject;
use crate::connector::kafka::unit_of;
use crate::connector::receipt::{DocumentDigest, DocumentFacts};
use crate::connector::stored::StoredSplit;
use crate::error::{Error, Result};

/// Raw bytes which are inflated together: enough for all threads of the pool, and a single document may be larger.
const GROUP_BYTES: u64 = 8 << 20;

/// Documents which follow one another, with what they say of themselves.
pub(super) type Group = Vec<(DocumentFacts, RawDocumentBuf)>;

/// Walks the documents of one split and holds them against its receipt.
pub(super) struct SplitCursor<'a> {
    object: &'a RestoreObject,
    split: &'a StoredSplit,
    stored: BoxStream<'static, Result<RawDocumentBuf>>,
    position: u64,
    /// Documents so far.
    pub(super) documents: u64,
    digest: DocumentDigest,
}

impl<'a> SplitCursor<'a> {
    /// Before the first document of a split.
    pub(super) fn new(object: &'a RestoreObject, split: &'a StoredSplit, stored: BoxStream<'static, Result<RawDocumentBuf>>) -> Self {
        Self { object, split, stored, position: split.first, documents: 0, digest: DocumentDigest::default() }
    }

    /// The next documents, each where the one before ended; `None` after the last.
    pub(super) async fn next_group(&mut self) -> Result<Option<Group>> {
        let (mut group, mut bytes) = (Group::new(), 0);
        while bytes < GROUP_BYTES {
            let Some(document) = self.stored.try_next().await.map_err(|e| e.context(self.place()))? else { break };
            let facts = DocumentFacts::read(document.as_bytes()).map_err(|e| e.context(self.place()))?;
            self.position = self.check(&facts)?;
            self.digest.add(&facts);
            self.documents += 1;
            bytes += facts.original_size.unsigned_abs().max(document.as_bytes().len() as u64);
            group.push((facts, document));
        }
        Ok(if group.is_empty() { None } else { Some(group) })
    }

    /// What follows a document, if it is the one which belongs here.
    fn check(&self, facts: &DocumentFacts) -> Result<u64> {
        let RestoreObject { object, version, records, .. } = self.object;
        let (place, id) = (self.place(), &facts.id);
        let has_size = facts.original_size > 0 || records.is_some_and(|layout| !layout.is_packed());
        if !facts.has_place() || !has_size {
            let (fields, file) = match records {
                None => ("`object`, `byte_offset` or `original_size`", "sql/compress.sql"),
                Some(_) => ("its topic, partition, offsets or `original_size`", "sql/stream.sql"),
            };
            return Err(Error::config(format!("{place}: document {id} lacks {fields}; only what {file} writes can be restored")));
        }
        let (offset, next, position) = (facts.byte_offset as u64, facts.next_offset as u64, self.position);
        if facts.object != *object || facts.version != *version {
            return Err(Error::conflict(format!("{place}: document {id} is of {} version {}, not {version}", facts.object, facts.version)));
        }
        let unit = unit_of(object);
        if offset > position && records.is_none() {
            return Err(Error::conflict(format!("{place}: bytes {position}–{offset} are in no document; the next one is {id}")));
        }
        if offset < position || offset >= self.split.next || next <= offset {
            return Err(Error::conflict(format!("{place}: document {id} begins at {unit} {offset}, which another one holds")));
        }
        Ok(next)
    }

    /// Holds the whole split against its receipt.
    pub(super) fn expect_whole(self) -> Result<()> {
        let StoredSplit { id, first, next, documents, digest } = self.split;
        let (place, unit) = (self.place(), unit_of(&self.object.object));
        if self.position < *next {
            return Err(Error::conflict(format!("{place}: {unit}s {}–{next} are in no stored document", self.position)));
        }
        if self.position > *next || self.documents != *documents || self.digest.finish() != *digest {
            return Err(Error::conflict(format!(
                "{} {unit} {first}: the documents of {unit}s {first}–{next} are not those of receipt {id}; `baler verify` says more",
                self.object.object
            )));
        }
        Ok(())
    }

    fn place(&self) -> String {
        let object = &self.object.object;
        format!("{object} {} {}", unit_of(object), self.position)
    }
}
