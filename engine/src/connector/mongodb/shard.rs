//! Hashed sharding on `_id`, while the collection is still empty.
//!
//! Written from MongoDB's manual (`enableSharding`, `shardCollection`, `collStats`) and tested for the commands it sends and
//! how it takes each answer. It has not been run against a real sharded cluster: none can be had where the tests run.

use ::bson::{Document, doc};
use ::mongodb::Client;

use super::MongodbSpec;
use super::client::driver_error;
use crate::error::{Error, Result};

/// Chunks to begin with for each shard, so that all shards take writes from the first document on.
const CHUNKS_PER_SHARD: i32 = 8;

/// Server code 20, `IllegalOperation`, and 23, `AlreadyInitialized`: what a repeated command answers.
const ALREADY_SHARDED: [i32; 2] = [20, 23];

/// Whether the server is a mongos: its hello says `msg: "isdbgrid"`.
pub(super) fn is_router(hello: &Document) -> bool {
    hello.get_str("msg") == Ok("isdbgrid")
}

/// Shards the collection unless it is sharded already.
pub(super) async fn shard_collection(spec: &MongodbSpec, client: &Client) -> Result<()> {
    let admin = client.database("admin");
    let shards = admin.run_command(doc! { "listShards": 1 }).await.map_err(|e| driver_error(spec, "listing the shards for", &e))?;
    let count = shards.get_array("shards").map_or(1, Vec::len) as i32;
    for command in sharding_commands(spec, count) {
        if let Err(error) = admin.run_command(command).await {
            match error.kind.as_ref() {
                ::mongodb::error::ErrorKind::Command(answer) if is_done_already(answer.code) => {}
                ::mongodb::error::ErrorKind::Command(answer)
                    if answer.message.contains("not empty") || answer.message.contains("index") =>
                {
                    return Err(Error::config(format!(
                        "{} holds documents and is not sharded; shard it by hand, or set mongodb.shard_key to 'none' to load it as it is: {}",
                        spec.target(),
                        answer.message
                    )));
                }
                _ => return Err(driver_error(spec, "sharding", &error)),
            }
        }
    }
    Ok(())
}

fn is_done_already(code: i32) -> bool {
    ALREADY_SHARDED.contains(&code)
}

/// What is sent, in order.
fn sharding_commands(spec: &MongodbSpec, shards: i32) -> [Document; 2] {
    let namespace = format!("{}.{}", spec.database, spec.collection);
    [
        doc! { "enableSharding": &spec.database },
        doc! { "shardCollection": namespace, "key": { "_id": "hashed" }, "numInitialChunks": shards.max(1) * CHUNKS_PER_SHARD },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_router_is_told_from_a_replica_set() {
        assert!(is_router(&doc! { "msg": "isdbgrid", "ok": 1 }));
        assert!(!is_router(&doc! { "setName": "rs0", "ok": 1 }));
    }

    #[test]
    fn commands_are_those_of_the_manual() {
        let spec = MongodbSpec::try_new("mongodb://h/compressed_data.documents", &HashMap::new()).unwrap();
        let [enable, shard] = sharding_commands(&spec, 3);
        assert_eq!(enable, doc! { "enableSharding": "compressed_data" });
        assert_eq!(shard, doc! { "shardCollection": "compressed_data.documents", "key": { "_id": "hashed" }, "numInitialChunks": 24 });
        assert!(is_done_already(23) && !is_done_already(13));
    }
}
