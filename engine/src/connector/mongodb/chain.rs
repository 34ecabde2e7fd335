//! The documents of one split, in order of offset, by `_id` alone.
//!
//! An `_id` is a function of object, version and offset, and a document says how many bytes it holds: so each document names the next.
//! The chain is walked without payloads, which then come many at once if they are wanted. No other index than that of `_id` is used.

use std::collections::HashMap;

use ::bson::{RawDocument, RawDocumentBuf, doc};
use ::mongodb::Collection;
use futures::TryStreamExt;
use futures::stream::BoxStream;

use super::MongodbSpec;
use super::client::{collection, driver_error};
use crate::connector::Fields;
use crate::connector::blob::scan::document_id;
use crate::connector::receipt::DocumentFacts;
use crate::connector::stored::{DocumentSender, StoredSplit, in_background};
use crate::error::{Error, Result};
use crate::retry::Retry;
use crate::telemetry::RetryKind;

/// Payload bytes of one request: hides its round trip, and many splits may be read ahead.
const FETCH_BYTES: u64 = 4 << 20;
/// Documents of one request: their `_id`s must fit into one message.
const FETCH_DOCS: usize = 1_000;

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
        chain.walk(&split, &sender).await
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
        let in_order = links.iter().map(|link| {
            by_id.remove(&link.id).ok_or_else(|| {
                let Link { id, offset } = link;
                Error::conflict(format!("{} byte {offset}: document {id} was removed while it was read", self.object))
            })
        });
        in_order.collect()
    }
}

fn size(document: &RawDocument, name: &str) -> Option<u64> {
    let value = document.get(name).ok().flatten()?;
    u64::try_from(value.as_i64().or_else(|| value.as_i32().map(i64::from))?).ok()
}
