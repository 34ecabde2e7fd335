//! The MongoDB sink.
//!
//! - [`client`]: one client a server and process; credentials; which error means what
//! - [`prepare`]: limits, indexes, and [`shard`]: hashed sharding while the collection is empty
//! - [`inspect`]: the same looked at without changing anything, for `baler check`
//! - [`mod@write`]: batches → acknowledged documents; the duplicate rule
//! - [`read`]: stored documents, for `verify` and SELECT, with `filter`; [`chain`]: those of one split, for `restore`
//! - `aggregate`: figures which the server computes

pub(crate) mod aggregate;
pub mod chain;
pub mod client;
mod filter;
pub mod inspect;
pub mod prepare;
pub mod read;
pub mod shard;
pub mod write;

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::batch::BatchLimits;
use crate::error::{Error, Result};
use crate::job::dead_letter::OnError;
use crate::options::{TableOptions, format_bytes};

/// What a write does with an `_id` that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// Equal content counts as written, other content is an error.
    Insert,
    /// The new document takes its place.
    Replace,
    /// The new document's fields are set in it.
    Update,
}

/// Description of a collection to write to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MongodbSpec {
    /// Connection string without credentials and namespace: `mongodb://host,host/?tls=true`.
    pub uri: String,
    /// Database.
    pub database: String,
    /// Collection.
    pub collection: String,
    /// Name under which the environment holds the credentials: `<NAME>_USERNAME`, `<NAME>_PASSWORD` or `<NAME>_PASSWORD_FILE`.
    pub credentials: String,
    /// What to do with an `_id` that is there.
    pub write_mode: WriteMode,
    /// Documents of a batch; 1000 as the seed and MongoDB's own tools take.
    pub batch_docs: u64,
    /// Bytes of a batch; 16 MiB keeps a command well below the 48 MB message limit.
    pub batch_bytes: u64,
    /// Batches under way for each writer: hides the round trip without holding much memory.
    pub in_flight: u64,
    /// Whether a refused document stops those after it in its batch; `false` is faster and loses nothing.
    pub ordered: bool,
    /// 'majority' survives a fail-over; a number or tag is passed on.
    pub write_concern: String,
    /// Whether an acknowledgement waits for the journal; `true` survives a power cut.
    pub journal: bool,
    /// Fields to index, each ascending.
    pub indexes: Vec<String>,
    /// `hashed(_id)`, or empty to leave the collection unsharded; used where the server is a mongos.
    pub shard_key: String,
    /// What to do about a document which the server refuses.
    pub on_error: OnError,
}

/// Bytes of the largest message which MongoDB takes; each server's own limit is asked for and observed too.
pub(crate) const MESSAGE_BYTES_MAX: u64 = 48_000_000;
/// Room for the command around the documents of a message.
const MESSAGE_BYTES_SPARE: u64 = 64 << 10;

/// What its options do, in the words of the reference.
pub(crate) const OPTION_TEXTS: &[(&str, &str)] = &[
    ("indexes", "Fields to index, each ascending, divided by commas; made before the load while the collection is empty, else after it."),
    ("credentials", "Variables with the login begin with this: `<NAME>_USERNAME`, `<NAME>_PASSWORD` or `<NAME>_PASSWORD_FILE`."),
    (
        "write_mode",
        "What to do with an `_id` that is there: equal content counts as written and other content is an error; replace it; or set the fields.",
    ),
    ("batch_docs", "Documents of a batch."),
    ("batch_bytes", "Bytes of a batch, below the server's message limit."),
    ("in_flight", "Batches under way for each writer."),
    ("ordered", "Whether a refused document stops those behind it in its batch."),
    ("write_concern", "Which members acknowledge: 'majority', a number or a tag."),
    ("journal", "Whether an acknowledgement waits for the journal."),
    ("shard_key", "'hashed(_id)', or 'none' to leave the collection unsharded; used where the server is a mongos."),
    ("on_error", "What to do about a document which the server refuses."),
];

impl MongodbSpec {
    /// Reads location and options of a `CREATE EXTERNAL TABLE … STORED AS MONGODB`.
    ///
    /// # Errors
    /// Config, for a location that is none or holds a password, an unknown option or a bad value.
    pub fn try_new(location: &str, options: &HashMap<String, String>) -> Result<Self> {
        let mut options = TableOptions::try_new("mongodb", options)?;
        let spec = Self::read(location, &mut options)?;
        options.finish()?;
        Ok(spec)
    }

    /// Reads them one by one.
    pub(crate) fn read(location: &str, options: &mut TableOptions) -> Result<Self> {
        let (uri, database, collection) = split_location(location)?;
        let modes = [("insert", WriteMode::Insert), ("replace", WriteMode::Replace), ("update", WriteMode::Update)];
        let indexes = options.take("indexes").unwrap_or_default();
        let spec = Self {
            uri,
            database,
            collection,
            credentials: options.take_text("credentials", "MONGODB"),
            write_mode: options.take_choice("write_mode", WriteMode::Insert, &modes)?,
            batch_docs: options.take_parsed("batch_docs", 1000)?,
            batch_bytes: options.take_bytes("batch_bytes", 16 << 20, 1, MESSAGE_BYTES_MAX - MESSAGE_BYTES_SPARE)?,
            in_flight: options.take_parsed("in_flight", 2)?,
            ordered: options.take_parsed("ordered", false)?,
            write_concern: options.take_text("write_concern", "majority"),
            journal: options.take_parsed("journal", true)?,
            indexes: indexes.split(',').map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect(),
            shard_key: options.take_text("shard_key", "hashed(_id)"),
            on_error: options.take_choice("on_error", OnError::Fail, OnError::WORDS)?,
        };
        if spec.batch_docs == 0 || spec.batch_docs > 100_000 || spec.in_flight == 0 || spec.in_flight > 64 {
            return Err(Error::config("mongodb.batch_docs takes 1 to 100000 and mongodb.in_flight 1 to 64"));
        }
        if !matches!(spec.shard_key.as_str(), "" | "none" | "hashed(_id)") {
            return Err(Error::config(format!("mongodb.shard_key: `{}` is not one of 'hashed(_id)', 'none'", spec.shard_key)));
        }
        Ok(spec)
    }

    pub(crate) fn target(&self) -> String {
        let (before, after) = self.uri.split_once("/?").unwrap_or((self.uri.trim_end_matches('/'), ""));
        let options = if after.is_empty() { String::new() } else { format!("?{after}") };
        format!("{before}/{}.{}{options}", self.database, self.collection)
    }

    pub(super) fn limits(&self) -> BatchLimits {
        BatchLimits { bytes_max: self.batch_bytes as usize, docs_max: self.batch_docs as usize, age_max: Duration::from_secs(1) }
    }

    fn describe_batch(&self) -> String {
        format!("batches of {} documents and {}", self.batch_docs, format_bytes(self.batch_bytes))
    }
}

/// Splits `database.collection` at its first point, as MongoDB does.
pub(super) fn split_namespace(namespace: &str) -> Result<(String, String)> {
    match namespace.split_once('.') {
        Some((database, collection)) if is_name(database) && is_name(collection) => Ok((database.to_string(), collection.to_string())),
        _ => Err(Error::config(format!("`{namespace}` is no namespace; write database.collection"))),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 200 && !name.contains(['/', '\\', '"', '$', ' ', '\0'])
}

/// Splits `mongodb://hosts/database.collection?options`.
fn split_location(location: &str) -> Result<(String, String, String)> {
    let (scheme, rest) = match location.split_once("://") {
        Some((scheme @ ("mongodb" | "mongodb+srv"), rest)) => (scheme, rest),
        _ => return Err(Error::config(format!("`{location}` is no MongoDB location; write mongodb://host[,host]/database.collection"))),
    };
    let (address, options) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, namespace) = address.split_once('/').unwrap_or((address, ""));
    if hosts.contains('@') {
        return Err(Error::config(
            "credentials do not belong in a LOCATION, where plans and logs would show them; \
             set MONGODB_USERNAME and MONGODB_PASSWORD (or MONGODB_PASSWORD_FILE), or name others by option mongodb.credentials",
        ));
    }
    if hosts.is_empty() {
        return Err(Error::config(format!("`{location}` names no host; write mongodb://host[,host]/database.collection")));
    }
    let (database, collection) = split_namespace(namespace)?;
    let uri = if options.is_empty() { format!("{scheme}://{hosts}/") } else { format!("{scheme}://{hosts}/?{options}") };
    Ok((uri, database, collection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_is_split_and_named_again() {
        let spec = MongodbSpec::try_new("mongodb://a:1,b:2/db.c.d?tls=true", &HashMap::new()).unwrap();
        assert_eq!((spec.database.as_str(), spec.collection.as_str()), ("db", "c.d"));
        assert_eq!(spec.uri, "mongodb://a:1,b:2/?tls=true");
        assert_eq!(spec.target(), "mongodb://a:1,b:2/db.c.d?tls=true");
    }

    #[test]
    fn location_with_a_password_is_refused_without_showing_it() {
        let error = MongodbSpec::try_new("mongodb://root:hunter2@h/db.c", &HashMap::new()).unwrap_err().to_string();
        assert!(error.contains("MONGODB_PASSWORD") && !error.contains("hunter2"));
    }
}
