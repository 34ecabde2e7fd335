//! A look at a collection and its server which changes nothing: what `baler check` asks.

use ::bson::{Bson, Document, doc};
use ::mongodb::Client;
use chrono::{DateTime, Utc};

use super::{MongodbSpec, WriteMode, client, prepare, shard};
use crate::error::Result;

/// What a server said of itself, its user and a collection.
#[derive(Debug)]
pub struct Inspection {
    /// Whether it is a router of a sharded cluster.
    pub is_router: bool,
    /// Members of the replica set which hold data, as far as they are told; 1 for a single server.
    pub members: usize,
    /// The user as whom it was reached; none where the server asks for none.
    pub user: Option<String>,
    /// Actions on the collection which a load needs and this user may not do; none where the server does not tell.
    pub missing_actions: Option<Vec<&'static str>>,
    /// Documents in the collection, estimated.
    pub documents: u64,
    /// The collection's shard key as JSON, where it is sharded and may be known.
    pub shard_key: Option<String>,
    /// Bytes left on the server's disk, where it tells.
    pub free_bytes: Option<u64>,
    /// Seconds by which the server's clock is ahead of ours.
    pub clock_seconds: Option<f64>,
}

/// Looks. Reads the collection as [`prepare`](super::prepare::prepare) does, and creates nothing.
///
/// # Errors
/// As [`prepare`](super::prepare::prepare).
pub async fn inspect(spec: &MongodbSpec) -> Result<Inspection> {
    let client = client::client(spec).await?;
    let hello = prepare::reach(spec, &client).await?;
    let database = client.database(&spec.database);
    let collection = database.collection::<Document>(&spec.collection);
    collection.find_one(doc! { "_id": "" }).await.map_err(|e| client::driver_error(spec, "reading", &e))?;
    let documents = collection.estimated_document_count().await.map_err(|e| client::driver_error(spec, "counting", &e))?;
    let status = client.database("admin").run_command(doc! { "connectionStatus": 1, "showPrivileges": true }).await.ok();
    let user = status.as_ref().and_then(user_of);
    let missing_actions = status
        .as_ref()
        .filter(|_| user.is_some())
        .and_then(|status| missing_by_privileges(spec, status).or_else(|| missing_by_roles(spec, status)));
    let free_bytes = database.run_command(doc! { "dbStats": 1 }).await.ok().and_then(|stats| free_bytes(&stats));
    let is_router = shard::is_router(&hello);
    let shard_key = if is_router { shard_key(spec, &client).await } else { None };
    let clock_seconds = hello.get_datetime("localTime").ok().map(|time| {
        let theirs = DateTime::from_timestamp_millis(time.timestamp_millis()).unwrap_or_default();
        (theirs - Utc::now()).num_milliseconds() as f64 / 1e3
    });
    let members = hello.get_array("hosts").map_or(1, Vec::len);
    Ok(Inspection { is_router, members, user, missing_actions, documents, shard_key, free_bytes, clock_seconds })
}

fn user_of(status: &Document) -> Option<String> {
    let users = status.get_document("authInfo").ok()?.get_array("authenticatedUsers").ok()?;
    users.first()?.as_document()?.get_str("user").ok().map(String::from)
}

/// What a load does to its collection: the actions of MongoDB's manual, "Privilege Actions".
fn needed_actions(spec: &MongodbSpec) -> Vec<&'static str> {
    let mut needed = vec!["find", "insert"];
    if spec.write_mode != WriteMode::Insert {
        needed.push("update");
    }
    if !spec.indexes.is_empty() {
        needed.push("createIndex");
    }
    needed
}

/// `None` where the server tells no privileges: that nobody has none is not to be believed of a user who is in.
fn missing_by_privileges(spec: &MongodbSpec, status: &Document) -> Option<Vec<&'static str>> {
    let privileges = status.get_document("authInfo").ok()?.get_array("authenticatedUserPrivileges").ok()?;
    if privileges.is_empty() {
        return None;
    }
    let covers = |resource: &Document| {
        let is_any = |field: &str, name: &str| resource.get_str(field).is_ok_and(|given| given.is_empty() || given == name);
        resource.get_bool("anyResource").unwrap_or(false) || (is_any("db", &spec.database) && is_any("collection", &spec.collection))
    };
    let privileges = privileges.iter().filter_map(Bson::as_document);
    let ours = privileges.filter(|privilege| privilege.get_document("resource").is_ok_and(covers));
    let allowed: Vec<&str> = ours.filter_map(|privilege| privilege.get_array("actions").ok()).flatten().filter_map(Bson::as_str).collect();
    Some(needed_actions(spec).into_iter().filter(|action| !allowed.contains(action) && !allowed.contains(&"anyAction")).collect())
}

/// The same by the names of roles, as far as these are MongoDB's own ("Built-In Roles" of its manual); `None` where one is not.
fn missing_by_roles(spec: &MongodbSpec, status: &Document) -> Option<Vec<&'static str>> {
    let roles = status.get_document("authInfo").ok()?.get_array("authenticatedUserRoles").ok()?;
    let mut may_read = false;
    for role in roles.iter().filter_map(Bson::as_document) {
        let is_here = role.get_str("db") == Ok(spec.database.as_str());
        match role.get_str("role").ok()? {
            "root" | "readWriteAnyDatabase" => return Some(Vec::new()),
            "readWrite" | "dbOwner" if is_here => return Some(Vec::new()),
            "readAnyDatabase" => may_read = true,
            "read" => may_read |= is_here,
            "readWrite" | "dbOwner" => {}
            _ => return None,
        }
    }
    Some(needed_actions(spec).into_iter().filter(|action| !may_read || *action != "find").collect())
}

/// `fsTotalSize` and `fsUsedSize`, which a mongod's dbStats has.
fn free_bytes(stats: &Document) -> Option<u64> {
    let number = |name: &str| match stats.get(name)? {
        Bson::Double(value) => Some(*value as u64),
        Bson::Int64(value) => u64::try_from(*value).ok(),
        Bson::Int32(value) => u64::try_from(*value).ok(),
        _ => None,
    };
    number("fsTotalSize")?.checked_sub(number("fsUsedSize")?)
}

/// The key under which the cluster's configuration lists the collection.
async fn shard_key(spec: &MongodbSpec, client: &Client) -> Option<String> {
    let namespace = format!("{}.{}", spec.database, spec.collection);
    let found = client.database("config").collection::<Document>("collections").find_one(doc! { "_id": namespace }).await.ok()??;
    found.get_document("key").ok().map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn status(db: &str, collection: &str, actions: &[&str]) -> Document {
        let privilege = doc! { "resource": { "db": db, "collection": collection }, "actions": actions };
        doc! { "authInfo": { "authenticatedUsers": [{ "user": "loader", "db": "admin" }], "authenticatedUserPrivileges": [privilege] } }
    }

    #[test]
    fn actions_which_a_user_lacks_are_named() {
        let options = HashMap::from([("mongodb.indexes".to_string(), "timestamp".to_string())]);
        let spec = MongodbSpec::try_new("mongodb://h/db.documents", &options).unwrap();
        let missing = |status: &Document| missing_by_privileges(&spec, status).unwrap();
        assert!(missing(&status("db", "", &["find", "insert", "createIndex"])).is_empty());
        assert_eq!(missing(&status("db", "documents", &["find"])), ["insert", "createIndex"]);
        assert_eq!(missing(&status("other", "", &["find", "insert", "createIndex"])), ["find", "insert", "createIndex"]);
        assert!(missing(&status("", "", &["anyAction"])).is_empty());
        assert_eq!(user_of(&status("", "", &[])).as_deref(), Some("loader"));
        assert_eq!(missing_by_privileges(&spec, &doc! { "authInfo": { "authenticatedUserPrivileges": [] } }), None);
    }

    #[test]
    fn roles_of_mongodb_say_what_a_user_may_where_privileges_are_not_told() {
        let spec = MongodbSpec::try_new("mongodb://h/db.documents", &HashMap::new()).unwrap();
        let missing = |roles: &[(&str, &str)]| {
            let roles: Vec<Document> = roles.iter().map(|(role, db)| doc! { "role": *role, "db": *db }).collect();
            missing_by_roles(&spec, &doc! { "authInfo": { "authenticatedUserRoles": roles } })
        };
        assert_eq!(missing(&[("root", "admin")]), Some(vec![]));
        assert_eq!(missing(&[("read", "db"), ("readWrite", "db")]), Some(vec![]));
        assert_eq!(missing(&[("read", "db")]), Some(vec!["insert"]));
        assert_eq!(missing(&[("readWrite", "other")]), Some(vec!["find", "insert"]));
        assert_eq!(missing(&[("ours", "db")]), None);
    }

    #[test]
    fn free_space_is_what_is_not_used() {
        assert_eq!(free_bytes(&doc! { "fsTotalSize": 100.0, "fsUsedSize": 30.0 }), Some(70));
        assert_eq!(free_bytes(&doc! { "dataSize": 1 }), None);
    }
}
