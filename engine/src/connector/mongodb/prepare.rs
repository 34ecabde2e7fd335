//! Reaching the server, and what a collection needs before the first document: limits, sharding, indexes. All idempotent.

use ::bson::{Document, doc};
use ::mongodb::{Client, IndexModel};

use super::{MESSAGE_BYTES_SPARE, MongodbSpec, client, shard};
use crate::error::{Error, ErrorKind, Result};

/// Oldest wire version which the driver speaks: MongoDB 4.2.
const WIRE_VERSION_MIN: i32 = 8;

/// Reaches the server and prepares the collection.
///
/// # Errors
/// Unreachable, when no server answers or it refuses the user; Config, when the batches are larger than it takes.
pub async fn prepare(spec: &MongodbSpec) -> Result<()> {
    let client = client::client(spec).await?;
    let hello = reach(spec, &client).await?;
    if shard::is_router(&hello) && spec.shard_key.starts_with("hashed") {
        shard::shard_collection(spec, &client).await?;
    }
    if !spec.indexes.is_empty() {
        let indexes = spec.indexes.iter().map(|field| IndexModel::builder().keys(doc! { field: 1 }).build());
        let collection = client.database(&spec.database).collection::<Document>(&spec.collection);
        collection.create_indexes(indexes).await.map_err(|e| client::driver_error(spec, "creating the indexes of", &e))?;
    }
    // A user who may connect but not read would fail at the first duplicate only.
    let probe = client.database(&spec.database).collection::<Document>(&spec.collection);
    probe.find_one(doc! { "_id": "" }).await.map_err(|e| client::driver_error(spec, "reading", &e))?;
    Ok(())
}

/// The server's hello, if it can be used with these options.
pub(super) async fn reach(spec: &MongodbSpec, client: &Client) -> Result<Document> {
    let hello = client.database("admin").run_command(doc! { "hello": 1 }).await.map_err(|e| {
        let error = client::driver_error(spec, "reaching", &e);
        if !error.is_retryable() {
            return error;
        }
        Error::new(ErrorKind::Unreachable, format!("{error}; check host, port and network"))
    })?;
    check_limits(spec, &hello)?;
    Ok(hello)
}

fn check_limits(spec: &MongodbSpec, hello: &Document) -> Result<()> {
    let number = |name: &str| hello.get_i32(name).map(i64::from).or_else(|_| hello.get_i64(name)).unwrap_or(i64::MAX);
    let message = number("maxMessageSizeBytes").saturating_sub(MESSAGE_BYTES_SPARE as i64);
    if spec.batch_bytes as i64 > message || spec.batch_docs as i64 > number("maxWriteBatchSize") {
        return Err(Error::config(format!(
            "{} takes messages of {} bytes and {} documents, so {} are too large; lower mongodb.batch_bytes or mongodb.batch_docs",
            spec.target(),
            number("maxMessageSizeBytes"),
            number("maxWriteBatchSize"),
            spec.describe_batch()
        )));
    }
    if number("maxWireVersion") < i64::from(WIRE_VERSION_MIN) {
        return Err(Error::config(format!("{} is older than MongoDB 4.2, the oldest that is supported", spec.target())));
    }
    Ok(())
}
