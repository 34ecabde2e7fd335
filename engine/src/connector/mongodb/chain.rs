//! The documents of one split, in order of offset, by `_id` alone.
//!
//! An `_id` is a function of object, version and offset, and a document says how many bytes it holds: so each document names the next.
//! The chain is walked without payloads, which then come many at once if they are wanted. No other index than that of `_id` is used.
//!
//! Offsets of a topic have gaps. Where the next document is not at the next offset, the `_id`s of many further offsets are asked for at once.

use std::collections::HashMap;

use ::bson::{RawDocument, RawDocumentBuf, doc};
use ::mongodb::Collection;
use futures::TryStreamExt;
use futures::stream::BoxStream;

use super::MongodbSpec;
use super::client::{collection, driver_error};
use crate::connector::Fields;
use crate::connector::blob::scan::document_id;
use crate::connector::kafka::{parse_partition, row_id, unit_of};
use crate::connector::receipt::DocumentFacts;
use crate::connector::stored::{DocumentSender, StoredSplit, in_background};
use crate::error::{Error, Result};
use crate::retry::Retry;
use crate::telemetry::RetryKind;

/// Payload bytes of one request: hides its round trip, and many splits may be read ahead.
const FETCH_BYTES: u64 = 4 << 20;
/// Documents of one request: their `_id`s must fit into one message.
const FETCH_DOCS: usize = 1_000;

/// Offsets of a topic which are asked for at once, where documents of one record follow each other or there is a gap.
const LOOK_OFFSETS: u64 = 1_000;
/// What a document of a single record is taken to hold, where it does not say.
const RECORD_BYTES: u64 = 64 << 10;
/// Fields of a document from a topic which tell its place, and what it holds.
const PLACE_FIELDS: [&str; 6] = ["topic", "partition", "first_offset", "last_offset", "offset", "compressed_size"];

/// A document whose payload is still to come.
struct Link {
    id: String,
    offset: u64,
}

/// The documents of a split of an object. They end at the last one, or where one is missing.
pub(crate) fn split_documents(
    spec: &MongodbSpec,
    object: &str,
    version: &str,
    split: &StoredSplit,
    fields: Fields,
) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
    let (spec, object, version, split) = (spec.clone(), object.to_string(), version.to_string(), split.clone());
    in_background(|sender| async move {
        let chain = Chain { collection: collection(&spec).await?, spec, object, version, fields };
        match parse_partition(&chain.object) {
            Some((topic, partition)) => chain.walk_partition(topic, partition, &split, &sender).await,
            None => chain.walk(&split, &sender).await,
        }
    })
}

struct Chain {
    collection: Collection<RawDocumentBuf>,
    spec: MongodbSpec,
    object: String,
    version: String,
    fields: Fields,
}

impl Chain {
    async fn walk(&self, split: &StoredSplit, sender: &DocumentSender) -> Result<()> {
        let (mut links, mut bytes, mut offset) = (Vec::new(), 0, split.first);
        while offset < split.next {
            let id = document_id(&self.object, &self.version, offset);
            let Some(document) = self.look(&id).await? else { break };
            // Without a size the chain cannot go on; the reader of that document finds out what is wrong with it.
            let raw = size(&document, "original_size").filter(|raw| *raw > 0);
            if self.fields == Fields::Facts {
                if sender.send(Ok(document)).await.is_err() {
                    return Ok(());
                }
            } else {
                links.push(Link { id, offset });
                bytes += size(&document, "compressed_size").unwrap_or(FETCH_BYTES);
            }
            let Some(raw) = raw else { break };
            offset = offset.saturating_add(raw);
            if bytes >= FETCH_BYTES || links.len() >= FETCH_DOCS {
                if !self.send(std::mem::take(&mut links), sender).await? {
                    return Ok(());
                }
                bytes = 0;
            }
        }
        self.send(links, sender).await.map(drop)
    }

    /// The same for a range of a topic's offsets: a document says behind which offset it ends, and where none begins is asked.
    async fn walk_partition(&self, topic: &str, partition: i32, split: &StoredSplit, sender: &DocumentSender) -> Result<()> {
        let (mut links, mut bytes) = (Vec::new(), 0);
        let (mut offset, mut window) = (split.first, 1);
        while offset < split.next {
            let until = split.next.min(offset.saturating_add(window));
            let ids: Vec<String> = (offset..until).map(|offset| row_id(topic, partition, offset as i64)).collect();
            let mut found = Vec::new();
            for document in self.look_at(&ids).await? {
                let facts = DocumentFacts::read(document.as_bytes())?;
                let size = size(&document, "compressed_size").unwrap_or(RECORD_BYTES);
                found.push((facts, size, document));
            }
            found.sort_by_key(|(facts, ..)| facts.byte_offset);
            let last = found.last().map(|(facts, ..)| (facts.byte_offset, facts.next_offset));
            for (facts, size, document) in found {
                if self.fields == Fields::Facts {
                    if sender.send(Ok(document)).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                links.push(Link { id: facts.id, offset: facts.byte_offset.unsigned_abs() });
                bytes += size;
                if bytes >= FETCH_BYTES || links.len() >= FETCH_DOCS {
                    if !self.send(std::mem::take(&mut links), sender).await? {
                        return Ok(());
                    }
                    bytes = 0;
                }
            }
            window = if last.is_none_or(|(first, next)| next == first + 1) { LOOK_OFFSETS } else { 1 };
            // A document without its place is for its reader to judge, and the walk still ends.
            offset = last.and_then(|(_, next)| u64::try_from(next).ok()).filter(|next| *next > offset).unwrap_or(until);
        }
        self.send(links, sender).await.map(drop)
    }

    /// Those of these documents which are stored, in no order, without their payload.
    async fn look_at(&self, ids: &[String]) -> Result<Vec<RawDocumentBuf>> {
        let mut retry = Retry::new(RetryKind::SinkRead);
        let projection = match self.fields {
            Fields::Facts => doc! { DocumentFacts::PAYLOAD: 0 },
            Fields::All => PLACE_FIELDS.iter().map(|field| ((*field).to_string(), 1.into())).collect(),
        };
        loop {
            let read =
                async { self.collection.find(doc! { "_id": { "$in": ids } }).projection(projection.clone()).await?.try_collect().await };
            match read.await {
                Ok(found) => return Ok(found),
                Err(error) => retry.wait_or(driver_error(&self.spec, "reading", &error)).await?,
            }
        }
    }

    /// Fetches and sends these documents; `false` if nobody wants them any more.
    async fn send(&self, links: Vec<Link>, sender: &DocumentSender) -> Result<bool> {
        for document in self.fetch(links).await? {
            if sender.send(Ok(document)).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One document without its payload; `None` if it is not stored.
    async fn look(&self, id: &str) -> Result<Option<RawDocumentBuf>> {
        let mut retry = Retry::new(RetryKind::SinkRead);
        let projection = match self.fields {
            Fields::Facts => doc! { DocumentFacts::PAYLOAD: 0 },
            Fields::All => doc! { "original_size": 1, "compressed_size": 1 },
        };
        loop {
            match self.collection.find_one(doc! { "_id": id }).projection(projection.clone()).await {
                Ok(found) => return Ok(found),
                Err(error) => retry.wait_or(driver_error(&self.spec, "reading", &error)).await?,
            }
        }
    }

    /// These documents, in this order.
    async fn fetch(&self, links: Vec<Link>) -> Result<Vec<RawDocumentBuf>> {
        if links.is_empty() {
            return Ok(Vec::new());
        }
        let mut retry = Retry::new(RetryKind::SinkRead);
        let ids: Vec<&str> = links.iter().map(|link| link.id.as_str()).collect();
        let found: Vec<RawDocumentBuf> = loop {
            let read = async { self.collection.find(doc! { "_id": { "$in": &ids } }).await?.try_collect().await };
            match read.await {
                Ok(found) => break found,
                Err(error) => retry.wait_or(driver_error(&self.spec, "reading", &error)).await?,
            }
        };
        let mut by_id: HashMap<String, RawDocumentBuf> = HashMap::with_capacity(found.len());
        for document in found {
            let id = document.get_str("_id").map_err(|e| Error::decode("a stored document has no text _id").with_source(e))?.to_string();
            by_id.insert(id, document);
        }
        let unit = unit_of(&self.object);
        let in_order = links.iter().map(|link| {
            by_id.remove(&link.id).ok_or_else(|| {
                let Link { id, offset } = link;
                Error::conflict(format!("{} {unit} {offset}: document {id} was removed while it was read", self.object))
            })
        });
        in_order.collect()
    }
}

fn size(document: &RawDocument, name: &str) -> Option<u64> {
    let value = document.get(name).ok().flatten()?;
    u64::try_from(value.as_i64().or_else(|| value.as_i32().map(i64::from))?).ok()
}
