//! Connectors: one folder each, and what they share.
//!
//! | place | holds |
//! | --- | --- |
//! | [`split`] | splits and the leaf of every scan |
//! | [`source`] | the table of each source, and what a driver needs of it |
//! | [`blob`] | source: objects → chunks |
//! | [`kafka`] | source: topics → chunks or records |
//! | [`document`] | row → BSON document, and back; the one type table |
//! | [`batch`] | documents → batches under the limits of a sink |
//! | [`mod@write`] | the plan node which writes, split by split |
//! | [`documents`] | stored documents as a table: what SELECT reads of a sink |
//! | [`predicate`] | what such a reader may leave out |
//! | [`aggregate`] | what a server computes in place of such a reader |
//! | [`push_down`] | the rule which puts both into a plan |
//! | [`queue`] | the splits of a writing node, shared by its partitions |
//! | [`part`] | names of what a join, an aggregate or a sort writes |
//! | [`receipt`] | what a finished split wrote |
//! | [`stored`] | the documents of one split, read ahead in order of offset |
//! | [`mongodb`], [`bson`] | the two sinks |
//!
//! A further sink is a folder with a spec, a [`SinkWriter`] and a line in [`SinkSpec`].

pub mod aggregate;
pub mod batch;
pub mod blob;
pub mod bson;
pub mod document;
pub mod documents;
pub mod kafka;
pub mod mongodb;
pub mod part;
pub mod predicate;
pub mod push_down;
pub mod queue;
pub mod receipt;
pub mod sink;
pub mod source;
pub mod split;
pub mod stored;
pub mod write;

use std::collections::HashSet;
use std::sync::Arc;

use ::bson::RawDocumentBuf;
use async_trait::async_trait;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use tracing::Span;

use self::batch::BatchLimits;
use self::documents::{Part, Wanted};
use self::stored::StoredSplit;
use crate::error::Result;
use crate::job::JobRef;
use crate::job::dead_letter::OnError;
use crate::runtime;

/// Description of a sink; holds no client and no secret, so it may travel in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "lowercase")]
pub enum SinkSpec {
    /// A MongoDB collection.
    Mongodb(mongodb::MongodbSpec),
    /// A folder in mongodump's layout.
    Bson(bson::BsonSpec),
}

/// What a reader of stored documents needs of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fields {
    /// All fields but the payload: what [`receipt::DocumentFacts`] takes.
    Facts,
    /// All fields.
    All,
}

impl SinkSpec {
    /// How people name the target: `mongodb://host/db.collection`, `file:///dump (db.collection)`.
    pub fn target(&self) -> String {
        match self {
            Self::Mongodb(spec) => spec.target(),
            Self::Bson(spec) => spec.target(),
        }
    }

    /// Bounds of a batch.
    pub fn limits(&self) -> BatchLimits {
        match self {
            Self::Mongodb(spec) => spec.limits(),
            Self::Bson(spec) => spec.limits(),
        }
    }

    /// Whether a document which the sink refuses becomes a dead letter instead of an error.
    pub fn keeps_dead_letters(&self) -> bool {
        match self {
            Self::Mongodb(spec) => spec.on_error == OnError::DeadLetter,
            Self::Bson(spec) => spec.on_error == OnError::DeadLetter,
        }
    }

    /// Reaches the target and prepares it (collection, indexes, folder), on the I/O runtime. Idempotent.
    ///
    /// # Errors
    /// Unreachable when there is no server or no right; Config when the target cannot hold documents.
    pub async fn prepare(&self, env: &Arc<RuntimeEnv>) -> Result<()> {
        let (spec, env) = (self.clone(), Arc::clone(env));
        runtime::spawn_io(async move {
            match spec {
                Self::Mongodb(spec) => mongodb::prepare::prepare(&spec).await,
                Self::Bson(spec) => bson::prepare(&spec, &env).await,
            }
        })?
        .join()
        .await?
    }

    /// Removes what earlier attempts at a job left behind that does not run split by split: they may have had other partitions, whose
    /// parts would not be replaced. A collection needs nothing: ids replace or repeat each other.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub async fn discard_parts(&self, env: &Arc<RuntimeEnv>, job: &JobRef) -> Result<()> {
        match self {
            Self::Mongodb(_) => Ok(()),
            Self::Bson(spec) => {
                let (spec, env, stem) = (spec.clone(), Arc::clone(env), part::part_stem(job));
                runtime::spawn_io(async move { bson::discard(&spec, &env, &stem).await })?.join().await?
            }
        }
    }

    /// A writer for one part of the load. Parts of one name replace or repeat each other; parts of different names do not touch.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub async fn open(&self, env: &Arc<RuntimeEnv>, part: &str) -> Result<Box<dyn SinkWriter>> {
        match self {
            Self::Mongodb(spec) => Ok(Box::new(mongodb::write::MongodbWriter::open(spec).await?)),
            Self::Bson(spec) => bson::write::open(spec, env, part).await,
        }
    }

    /// All stored documents, in no order.
    ///
    /// # Errors
    /// As [`Self::prepare`]; the stream yields Decode where stored bytes are no documents.
    pub async fn stored(&self, env: &Arc<RuntimeEnv>, fields: Fields) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
        match self {
            Self::Mongodb(spec) => mongodb::read::stored(spec, fields).await,
            Self::Bson(spec) => bson::read::stored_beside(spec, env, &HashSet::new()).await,
        }
    }

    /// Stored documents without their payload which a reader of these splits has not seen: of a dump the other parts; of a collection
    /// all, or none if it has no more than the `documents` which were seen.
    ///
    /// # Errors
    /// As [`Self::stored`].
    pub async fn unseen(
        &self,
        env: &Arc<RuntimeEnv>,
        splits: &HashSet<SmolStr>,
        documents: u64,
    ) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
        match self {
            Self::Mongodb(spec) if mongodb::read::count(spec).await? == documents => Ok(futures::stream::empty().boxed()),
            Self::Mongodb(spec) => mongodb::read::stored(spec, Fields::Facts).await,
            Self::Bson(spec) => bson::read::stored_beside(spec, env, splits).await,
        }
    }

    /// The documents with these `_id`s, in no order; `part` is where one of them was written.
    ///
    /// # Errors
    /// As [`Self::stored`].
    pub async fn fetch(&self, env: &Arc<RuntimeEnv>, part: &str, ids: &[String]) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
        match self {
            Self::Mongodb(spec) => mongodb::read::fetch(spec, ids).await,
            Self::Bson(spec) => bson::read::split_documents(spec, env, part),
        }
    }
}

impl SinkSpec {
    /// The documents of one split of an object, in order of offset as they were written, read ahead; of a server only these `fields`.
    ///
    /// # Errors
    /// As [`Self::stored`].
    pub fn split_documents(
        &self,
        env: &Arc<RuntimeEnv>,
        object: &str,
        version: &str,
        split: &StoredSplit,
        fields: Fields,
    ) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
        match self {
            Self::Mongodb(spec) => mongodb::chain::split_documents(spec, object, version, split, fields),
            Self::Bson(spec) => bson::read::split_documents(spec, env, &split.id),
        }
    }

    /// What there is to read, in about `wanted` parts.
    ///
    /// # Errors
    /// As [`Self::stored`].
    pub async fn parts(&self, env: &Arc<RuntimeEnv>, wanted: usize) -> Result<Vec<Part>> {
        match self {
            Self::Mongodb(spec) => mongodb::read::parts(spec, wanted).await,
            Self::Bson(spec) => bson::read::parts(spec, env).await,
        }
    }

    /// The documents of one part, in no order. Only a server leaves out what is not wanted, but for the limit.
    ///
    /// # Errors
    /// As [`Self::stored`].
    pub async fn read(&self, env: &Arc<RuntimeEnv>, part: &Part, wanted: &Wanted) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
        let documents = match self {
            Self::Mongodb(spec) => mongodb::read::read(spec, part, wanted).await?,
            Self::Bson(spec) => bson::read::read(spec, env, part)?,
        };
        Ok(documents.take(wanted.limit.unwrap_or(usize::MAX)).boxed())
    }
}

/// The span of one batch on its way to a sink. Traces know signed numbers only, and would take others for text.
fn batch_span(documents: u64, bytes: u64) -> Span {
    tracing::info_span!("sink_batch", documents = documents as i64, bytes = bytes as i64)
}

/// A document which the sink will never take, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its `_id`, as text.
    pub id: String,
    /// The server's or encoder's reason.
    pub reason: String,
}

/// What a writer did.
#[derive(Debug, Default)]
pub struct Written {
    /// Documents which were there already, with equal content: an earlier attempt wrote them.
    pub already_there: u64,
    /// Documents which were refused; only where the sink keeps dead letters.
    pub refused: Vec<Refused>,
}

/// Writes the documents of one part. One task uses it; it keeps a bounded number of batches under way.
#[async_trait]
pub trait SinkWriter: Send {
    /// Takes one batch; returns as soon as there is room for the next. Not cancel-safe: a dropped call leaves the part
    /// unfinished, to be written again.
    ///
    /// # Errors
    /// Transient after the retries are used up, Permanent or Conflict at once; perhaps for an earlier batch.
    async fn write(&mut self, batch: batch::Batch) -> Result<()>;

    /// Returns when every document is acknowledged and durable.
    ///
    /// # Errors
    /// As [`Self::write`].
    async fn finish(self: Box<Self>) -> Result<Written>;
}

#[cfg(test)]
mod tests;
