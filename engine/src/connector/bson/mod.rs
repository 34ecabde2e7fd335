//! The BSON sink: a folder in mongodump's layout, the embedded stand-in for a database.
//!
//! ```text
//! <location>/<database>/<collection>.<part>.bson      documents, one after the other
//! <location>/<database>/<collection>.metadata.json    options and indexes
//! ```
//!
//! A dump is just documents one after the other, so parts may be joined in any order:
//! `cat <collection>.*.bson | mongorestore --db=… --collection=… -`. A part is named after its split, or after its job and
//! partition where a statement has no splits: writing it again replaces it by an equal one, atomically.

pub mod read;
pub mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::runtime_env::RuntimeEnv;
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use super::batch::BatchLimits;
use crate::error::{Result, store_error};
use crate::job::dead_letter::OnError;
use crate::options::TableOptions;
use crate::store::{Location, full_url, locate};

/// Description of a dump folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BsonSpec {
    /// The dump folder; a full URL.
    pub location: String,
    /// Database: the folder's subfolder.
    pub database: String,
    /// Collection: the first part of each file's name.
    pub collection: String,
    /// What to do about a document that is too large.
    pub on_error: OnError,
}

/// The seed's names, so that a dump restores to where the pipeline writes.
const NAMESPACE_DEFAULT: &str = "compressed_data.documents";

/// What its options do, in the words of the reference.
pub(crate) const OPTION_TEXTS: &[(&str, &str)] = &[
    ("namespace", "Database and collection: the subfolder, and the first part of each file's name."),
    ("on_error", "What to do about a document that is too large."),
];

impl BsonSpec {
    /// Reads location and options of a `CREATE EXTERNAL TABLE … STORED AS BSON`.
    ///
    /// # Errors
    /// Config, for an unknown option or a bad value.
    pub fn try_new(location: &str, options: &HashMap<String, String>) -> Result<Self> {
        let mut options = TableOptions::try_new("bson", options)?;
        let spec = Self::read(location, &mut options)?;
        options.finish()?;
        Ok(spec)
    }

    /// Reads them one by one.
    pub(crate) fn read(location: &str, options: &mut TableOptions) -> Result<Self> {
        let namespace = options.take_text("namespace", NAMESPACE_DEFAULT);
        let (database, collection) = super::mongodb::split_namespace(&namespace)?;
        let on_error = options.take_choice("on_error", OnError::Fail, OnError::WORDS)?;
        Ok(Self { location: full_url(location)?, database, collection, on_error })
    }

    pub(super) fn target(&self) -> String {
        format!("{} ({}.{})", self.location, self.database, self.collection)
    }

    /// Batches as large as a multipart part; files have no limit on documents.
    pub(super) fn limits(&self) -> BatchLimits {
        BatchLimits { bytes_max: 8 << 20, docs_max: 100_000, age_max: Duration::from_secs(5) }
    }

    fn folder(&self, env: &RuntimeEnv) -> Result<Location> {
        Ok(locate(env, &self.location)?.join(&self.database))
    }

    fn file_name(&self, part: &str) -> String {
        format!("{}.{part}.bson", self.collection)
    }

    fn is_part(&self, name: &str) -> bool {
        name.strip_prefix(&self.collection).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".bson"))
    }
}

/// Removes the parts whose names begin with `stem`.
pub(super) async fn discard(spec: &BsonSpec, env: &Arc<RuntimeEnv>, stem: &str) -> Result<()> {
    let folder = spec.folder(env)?;
    let start = format!("{}.{stem}", spec.collection);
    let listed = folder.store.list(Some(&folder.path)).try_collect::<Vec<_>>().await;
    let listed = listed.map_err(|e| store_error("listing", &folder.uri, &e))?;
    let parts = listed.into_iter().filter(|meta| meta.location.filename().is_some_and(|name| name.starts_with(&start)));
    for part in parts {
        match folder.store.delete(&part.location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(store_error("deleting", part.location.as_ref(), &error)),
        }
    }
    Ok(())
}

/// Writes the metadata file, which also proves that the folder can be written.
pub(super) async fn prepare(spec: &BsonSpec, env: &Arc<RuntimeEnv>) -> Result<()> {
    let file = spec.folder(env)?.join(&format!("{}.metadata.json", spec.collection));
    let metadata = serde_json::json!({
        "options": {},
        "indexes": [{ "v": 2, "key": { "_id": 1 }, "name": "_id_" }],
        "collectionName": spec.collection,
        "type": "collection",
    });
    file.store.put(&file.path, PutPayload::from(metadata.to_string())).await.map_err(|e| store_error("writing", &file.uri, &e))?;
    Ok(())
}
