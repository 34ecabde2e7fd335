//! Batches → acknowledged documents. A few batches are under way at once.
//!
//! The duplicate rule: an `_id` that is already there counts as written if the stored document is equal, byte for byte;
//! any other document under that `_id` is a conflict. So a write whose reply was lost may simply be sent again.
//!
//! This is the only retry loop; the driver's own single retry of a broken connection comes before it.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use ::bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use ::mongodb::Collection;
use ::mongodb::error::{ErrorKind as DriverKind, IndexedWriteError};
use async_trait::async_trait;
use futures::TryStreamExt;
use tracing::Instrument;

use super::client::{collection, driver_error, is_transient_code};
use super::{MongodbSpec, WriteMode};
use crate::connector::batch::Batch;
use crate::connector::receipt::id_text;
use crate::connector::{Refused, SinkWriter, Written, batch_span};
use crate::error::{Error, ErrorKind, Result};
use crate::job::dead_letter::OnError;
use crate::retry::Retry;
use crate::runtime::{self, Spawned};
use crate::telemetry::{COUNTERS, RetryKind};

/// E11000.
const DUPLICATE_KEY: i32 = 11000;

/// Writes to one collection.
#[derive(Debug)]
pub struct MongodbWriter {
    spec: Arc<MongodbSpec>,
    collection: Collection<RawDocumentBuf>,
    under_way: VecDeque<Spawned<Result<Written>>>,
    written: Written,
}

impl MongodbWriter {
    /// A writer over the process's client for the spec's server.
    ///
    /// # Errors
    /// Config, for a bad connection string or missing credentials.
    pub async fn open(spec: &MongodbSpec) -> Result<Self> {
        Ok(Self {
            spec: Arc::new(spec.clone()),
            collection: collection(spec).await?,
            under_way: VecDeque::new(),
            written: Written::default(),
        })
    }

    async fn settle_oldest(&mut self) -> Result<()> {
        if let Some(oldest) = self.under_way.pop_front() {
            let written = oldest.join().await??;
            self.written.already_there += written.already_there;
            self.written.refused.extend(written.refused);
        }
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for MongodbWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        while self.under_way.len() >= self.spec.in_flight as usize {
            self.settle_oldest().await?;
        }
        let (spec, collection) = (Arc::clone(&self.spec), self.collection.clone());
        let (documents, bytes) = (batch.len() as u64, batch.bytes().len() as u64);
        let writing = async move {
            let sent = Instant::now();
            let written = write_batch(&spec, &collection, &batch).await?;
            COUNTERS.add_sink_batch(documents - written.refused.len() as u64, bytes, sent.elapsed());
            Ok(written)
        };
        let span = batch_span(documents, bytes);
        self.under_way.push_back(runtime::spawn_io(writing.instrument(span))?);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Written> {
        while !self.under_way.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(self.written)
    }
}

/// What one attempt left over.
struct Attempt {
    /// Documents to send again.
    again: Vec<RawDocumentBuf>,
    /// Why, if there are any.
    cause: Option<Error>,
}

/// Sends a batch until each document is stored, refused, or the retries are used up.
async fn write_batch(spec: &MongodbSpec, collection: &Collection<RawDocumentBuf>, batch: &Batch) -> Result<Written> {
    let mut pending = batch.iter().map(to_raw).collect::<Result<Vec<_>>>()?;
    let mut written = Written::default();
    let mut retry = Retry::new(RetryKind::SinkWrite);
    while !pending.is_empty() {
        let attempt = match spec.write_mode {
            WriteMode::Insert => insert(spec, collection, pending, &mut written).await?,
            WriteMode::Replace | WriteMode::Update => upsert(spec, collection, pending, &mut written).await?,
        };
        pending = attempt.again;
        if let Some(cause) = attempt.cause {
            retry.wait_or(cause).await?;
        }
    }
    Ok(written)
}

fn to_raw(document: &[u8]) -> Result<RawDocumentBuf> {
    RawDocumentBuf::from_bytes(document.to_vec()).map_err(|e| Error::internal("an encoded document is not BSON").with_source(e))
}

async fn insert(
    spec: &MongodbSpec,
    collection: &Collection<RawDocumentBuf>,
    pending: Vec<RawDocumentBuf>,
    written: &mut Written,
) -> Result<Attempt> {
    let Err(error) = collection.insert_many(&pending).ordered(spec.ordered).await else {
        return Ok(Attempt { again: Vec::new(), cause: None });
    };
    let DriverKind::InsertMany(failure) = error.kind.as_ref() else {
        return attempt_again(pending, driver_error(spec, "writing to", &error));
    };
    let concern = failure.write_concern_error.as_ref().map(|concern| {
        let text = format!("writing to {}: the write concern was not met: {} ({})", spec.target(), concern.message, concern.code);
        Error::new(if is_transient_code(concern.code) { ErrorKind::Transient } else { ErrorKind::Permanent }, text)
    });
    if let Some(cause) = concern {
        // Which documents are durable is unknown, so all are sent again; those which are there count as duplicates.
        return attempt_again(pending, cause);
    }
    let errors = failure.write_errors.as_deref().unwrap_or_default();
    settle_errors(spec, collection, pending, errors, written).await
}

fn attempt_again(pending: Vec<RawDocumentBuf>, cause: Error) -> Result<Attempt> {
    if cause.is_retryable() { Ok(Attempt { again: pending, cause: Some(cause) }) } else { Err(cause) }
}

/// Deals with the documents which the server named one by one.
async fn settle_errors(
    spec: &MongodbSpec,
    collection: &Collection<RawDocumentBuf>,
    pending: Vec<RawDocumentBuf>,
    errors: &[IndexedWriteError],
    written: &mut Written,
) -> Result<Attempt> {
    let (mut duplicates, mut again, mut cause) = (Vec::new(), Vec::new(), None);
    for error in errors {
        let document = pending.get(error.index).ok_or_else(|| Error::internal("the server named a document which was not sent"))?;
        if error.code == DUPLICATE_KEY && spec.write_mode == WriteMode::Insert {
            duplicates.push(document);
        } else if is_transient_code(error.code) {
            again.push(document.clone());
            cause = Some(Error::new(ErrorKind::Transient, format!("writing to {}: {} ({})", spec.target(), error.message, error.code)));
        } else {
            refuse(spec, document, format!("{} ({})", error.message, error.code), written)?;
        }
    }
    if spec.ordered
        && let Some(first) = errors.iter().map(|error| error.index).min()
    {
        // An ordered write stops at its first error: what follows was not tried.
        again.extend(pending.iter().skip(first + 1).cloned());
    }
    check_duplicates(spec, collection, &duplicates, written).await?;
    Ok(Attempt { again, cause })
}

fn refuse(spec: &MongodbSpec, document: &RawDocument, reason: String, written: &mut Written) -> Result<()> {
    let id = document_id(document)?;
    if spec.on_error == OnError::Fail {
        return Err(Error::permanent(format!(
            "{} refuses document {id}: {reason}; set mongodb.on_error to 'dead_letter' to go on without such documents",
            spec.target()
        )));
    }
    written.refused.push(Refused { id, reason });
    Ok(())
}

fn document_id(document: &RawDocument) -> Result<String> {
    let id = document.get("_id").map_err(|e| Error::internal("an encoded document is not BSON").with_source(e))?;
    Ok(id.map(id_text).unwrap_or_default())
}

/// Compares documents whose `_id` was taken with what is stored there.
async fn check_duplicates(
    spec: &MongodbSpec,
    collection: &Collection<RawDocumentBuf>,
    duplicates: &[&RawDocumentBuf],
    written: &mut Written,
) -> Result<()> {
    if duplicates.is_empty() {
        return Ok(());
    }
    let mut ids = RawArrayBuf::new();
    for document in duplicates {
        let id = document.get("_id").map_err(|e| Error::internal("an encoded document is not BSON").with_source(e))?;
        ids.push(id.ok_or_else(|| Error::internal("an encoded document has no _id"))?.to_raw_bson());
    }
    let mut stored: HashMap<String, RawDocumentBuf> = HashMap::new();
    let filter = rawdoc! { "_id": { "$in": ids } };
    let filter = filter.to_document().map_err(|e| Error::internal("a filter does not encode").with_source(e))?;
    let mut retry = Retry::new(RetryKind::SinkRead);
    loop {
        let found = async { collection.find(filter.clone()).await?.try_collect::<Vec<_>>().await };
        match found.await {
            Ok(found) => {
                for document in found {
                    stored.insert(document_id(&document)?, document);
                }
                break;
            }
            Err(error) => retry.wait_or(driver_error(spec, "reading", &error)).await?,
        }
    }
    for document in duplicates {
        let id = document_id(document)?;
        match stored.get(&id) {
            Some(found) if found.as_bytes() == document.as_bytes() => written.already_there += 1,
            Some(_) => {
                return Err(Error::conflict(format!(
                    "{} holds another document under _id {id}; write to an empty collection, or set mongodb.write_mode to 'replace' to overwrite",
                    spec.target()
                )));
            }
            // E11000 without a document of that _id: another unique index refuses it.
            None => refuse(spec, document, format!("a unique index other than _id holds its value already ({DUPLICATE_KEY})"), written)?,
        }
    }
    Ok(())
}

/// Replaces or updates by `_id`; the filter holds the whole shard key, as a sharded collection demands.
async fn upsert(
    spec: &MongodbSpec,
    collection: &Collection<RawDocumentBuf>,
    pending: Vec<RawDocumentBuf>,
    written: &mut Written,
) -> Result<Attempt> {
    let broken = |e| Error::internal("an encoded document is not BSON").with_source(e);
    let mut updates = RawArrayBuf::new();
    for document in &pending {
        let id = document.get("_id").map_err(broken)?.ok_or_else(|| Error::internal("an encoded document has no _id"))?.to_raw_bson();
        let change = match spec.write_mode {
            WriteMode::Update => {
                let mut fields = RawDocumentBuf::new();
                for element in document.iter() {
                    let (name, value) = element.map_err(broken)?;
                    if name != "_id" {
                        fields.append(name, value.to_raw_bson());
                    }
                }
                rawdoc! { "$set": fields }
            }
            _ => document.clone(),
        };
        updates.push(rawdoc! { "q": { "_id": id }, "u": change, "upsert": true });
    }
    let concern = match spec.write_concern.parse::<i32>() {
        Ok(nodes) => rawdoc! { "w": nodes, "j": spec.journal },
        Err(_) => rawdoc! { "w": spec.write_concern.as_str(), "j": spec.journal },
    };
    let command = rawdoc! { "update": spec.collection.as_str(), "updates": updates, "ordered": spec.ordered, "writeConcern": concern };
    let database = collection.client().database(&spec.database);
    let answer = match database.run_raw_command(command).await {
        Ok(answer) => answer,
        Err(error) => return attempt_again(pending, driver_error(spec, "writing to", &error)),
    };
    if let Ok(concern) = answer.get_document("writeConcernError") {
        let (code, message) = (concern.get_i32("code").unwrap_or_default(), concern.get_str("errmsg").unwrap_or_default().to_string());
        let kind = if is_transient_code(code) { ErrorKind::Transient } else { ErrorKind::Permanent };
        return attempt_again(
            pending,
            Error::new(kind, format!("writing to {}: the write concern was not met: {message} ({code})", spec.target())),
        );
    }
    let errors: Vec<IndexedWriteError> = match answer.get_array("writeErrors") {
        Err(_) => Vec::new(),
        Ok(errors) => ::bson::from_bson(errors.clone().into())
            .map_err(|e| Error::internal(format!("{} answered in an unknown form", spec.target())).with_source(e))?,
    };
    // A duplicate key here is a race of two upserts of one _id: the next attempt finds the document.
    let races: Vec<_> =
        errors.iter().filter(|error| error.code == DUPLICATE_KEY).filter_map(|error| pending.get(error.index).cloned()).collect();
    let others: Vec<_> = errors.into_iter().filter(|error| error.code != DUPLICATE_KEY).collect();
    let mut attempt = settle_errors(spec, collection, pending, &others, written).await?;
    if !races.is_empty() {
        attempt.again.extend(races);
        attempt
            .cause
            .get_or_insert_with(|| Error::new(ErrorKind::Transient, format!("writing to {}: two writers met at one _id", spec.target())));
    }
    Ok(attempt)
}
