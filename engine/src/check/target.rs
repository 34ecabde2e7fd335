//! The target: can it be reached, may it be written, does it hold what is wanted, is there room?

use std::path::Path;

use datafusion::execution::context::SessionContext;
use rustix::fs::{Access, access};

use super::documents::Forecast;
use super::{Report, check_room};
use crate::connector::SinkSpec;
use crate::connector::bson::BsonSpec;
use crate::connector::mongodb::MongodbSpec;
use crate::connector::mongodb::inspect::{Inspection, inspect};
use crate::error::{Error, Result, store_error};
use crate::runtime;
use crate::store::{locate, split_url};
use crate::telemetry::host::{nearest_there, space};

/// A clock which is further off than this makes `timestamp` and certificates doubtful.
const CLOCK_SECONDS_MAX: f64 = 30.0;

/// Looks at the sink's target.
pub(super) async fn check(context: &SessionContext, sink: &SinkSpec, forecast: Option<&Forecast>, report: &mut Report) {
    match sink {
        SinkSpec::Mongodb(spec) => {
            let asked = spec.clone();
            let inspected = async { runtime::spawn_io(async move { inspect(&asked).await })?.join().await? };
            match inspected.await {
                Ok(inspection) => check_collection(spec, &inspection, forecast, report),
                Err(error) => report.fail("target", &error),
            }
        }
        SinkSpec::Bson(spec) => {
            if let Err(error) = check_dump(context, spec, forecast, report).await {
                report.fail("target", &error);
            }
        }
    }
}

fn check_collection(spec: &MongodbSpec, inspection: &Inspection, forecast: Option<&Forecast>, report: &mut Report) {
    let Inspection { is_router, members, user, missing_actions, documents, shard_key, free_bytes, clock_seconds } = inspection;
    let target = format!("{}.{}", spec.database, spec.collection);
    let kind = if *is_router { "a sharded cluster".to_string() } else { format!("{members} member(s)") };
    report.good("target", format!("{} answers: {kind}, {documents} documents in {target}", spec.target()));
    match (user, missing_actions) {
        (None, _) => report.warn(
            "rights",
            "the server asks for no user",
            format!("switch on its authorization, and set {0}_USERNAME and {0}_PASSWORD_FILE", spec.credentials),
        ),
        (Some(user), None) => {
            report.warn("rights", format!("`{user}` may read {target}; what else is not told"), "grant it role readWrite")
        }
        (Some(user), Some(missing)) if missing.is_empty() => report.good("rights", format!("`{user}` may read and write {target}")),
        (Some(user), Some(missing)) => {
            report.bad("rights", format!("`{user}` may not {} {target}", missing.join(", ")), "grant it role readWrite on the database");
        }
    }
    match spec.write_concern.parse::<usize>() {
        Ok(0) => report.warn("write concern", "'0' acknowledges nothing", "take 'majority': a receipt must mean stored documents"),
        Ok(nodes) if nodes > *members && !is_router => {
            report.bad("write concern", format!("'{nodes}' is more than the {members} member(s)"), "take 'majority'");
        }
        _ => report.good("write concern", format!("'{}', journal {}", spec.write_concern, spec.journal)),
    }
    if *is_router {
        match (shard_key, spec.shard_key.as_str()) {
            (Some(key), "hashed(_id)") if key.replace(' ', "") == r#"{"_id":"hashed"}"# => {
                report.good("shard key", "hashed(_id), as it is")
            }
            (Some(key), _) => report.warn("shard key", format!("{target} is sharded by {key}"), "documents go where that key sends them"),
            (None, "hashed(_id)") if *documents > 0 => {
                report.bad(
                    "shard key",
                    format!("{target} holds documents and is not sharded"),
                    "shard it by hand, or set mongodb.shard_key to 'none'",
                );
            }
            (None, "hashed(_id)") => report.good("shard key", format!("{target} will be sharded by hashed(_id)")),
            (None, _) => report.warn(
                "shard key",
                "the collection is not sharded: one shard takes everything",
                "set mongodb.shard_key to 'hashed(_id)'",
            ),
        }
    }
    if let Some(seconds) = clock_seconds {
        if seconds.abs() > CLOCK_SECONDS_MAX {
            report.warn("clock", format!("the server's clock is {seconds:.0} s ahead of this one"), "synchronise both by NTP");
        } else {
            report.good("clock", "the server's clock agrees with this one");
        }
    }
    if let Some(free) = free_bytes {
        check_room("the server's disk", *free, forecast, report);
    }
}

async fn check_dump(context: &SessionContext, spec: &BsonSpec, forecast: Option<&Forecast>, report: &mut Report) -> Result<()> {
    let (scheme, _, key) = split_url(&spec.location)?;
    if scheme != "file" {
        let place = locate(&context.runtime_env(), &spec.location)?;
        let uri = place.uri.clone();
        let listed = runtime::spawn_io(async move { place.store.list_with_delimiter(Some(&place.path)).await })?.join().await?;
        listed.map_err(|e| store_error("listing", &uri, &e))?;
        report.warn(
            "target",
            format!("{uri} can be listed"),
            "whether it can be written is known when the job begins: a check writes nothing",
        );
        return Ok(());
    }
    let target = Path::new("/").join(key.trim_end_matches('/'));
    let folder = nearest_there(&target).unwrap_or(&target);
    let refused = |e: rustix::io::Errno| {
        Error::permanent(format!("{} cannot be written: {e}; choose another OUTPUT or change its rights", folder.display()))
    };
    if !folder.is_dir() {
        return Err(Error::config(format!("{} is no folder; choose another OUTPUT", folder.display())));
    }
    access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(refused)?;
    report.good("target", format!("{} can be written", spec.location));
    if let Some((free, _)) = space(folder) {
        check_room(&folder.display().to_string(), free, forecast, report);
    }
    Ok(())
}
