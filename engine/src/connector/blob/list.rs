//! URL → objects → splits. Before: `s3://bucket/prefix/*.log`; after: objects with their splits, sorted by name and offset.

use std::sync::Arc;

use datafusion::execution::runtime_env::RuntimeEnv;
use futures::{StreamExt, TryStreamExt};
use glob::{MatchOptions, Pattern};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};

use super::{BlobSpec, Compression};
use crate::connector::split::digest_id;
use crate::error::{Error, ErrorKind, Result, store_error};
use crate::job::manifest::{ManifestObject, ManifestSplit};
use crate::runtime;
use crate::store::{Location, locate, split_url};

/// Requests for the first bytes of objects which run at once; enough to hide a store's latency.
pub(crate) const PEEKS_IN_FLIGHT: usize = 32;

/// Glob rules of a shell: `*` and `?` stay within a folder, `**` crosses folders.
const GLOB: MatchOptions = MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// Lists the objects of a BLOB table and cuts them into splits; an empty object has none.
///
/// # Errors
/// Unreachable when the store does not answer or refuses; Config when nothing is there, which is nearly always a misspelt
/// location.
pub async fn list_input(env: &Arc<RuntimeEnv>, spec: &BlobSpec) -> Result<Vec<ManifestObject>> {
    let (spec, env) = (spec.clone(), Arc::clone(env));
    runtime::spawn_io(async move {
        let (location, objects) = list_objects(&env, &spec.location).await?;
        let mut objects: Vec<ManifestObject> =
            futures::stream::iter(objects).map(|meta| cut_object(&location, &spec, meta)).buffered(PEEKS_IN_FLIGHT).try_collect().await?;
        objects.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(objects)
    })?
    .join()
    .await?
}

/// The objects which `url` names: itself, those below it (hidden ones left out), or those its glob matches.
async fn list_objects(env: &RuntimeEnv, url: &str) -> Result<(Location, Vec<ObjectMeta>)> {
    let (scheme, authority, key) = split_url(url)?;
    let root = |prefix: &str| locate(env, &format!("{scheme}://{authority}/{prefix}"));
    if key.contains(['*', '?', '[']) {
        // A name may hold these letters itself: an object of exactly that name goes first.
        let exact = root(&key)?;
        if !key.ends_with('/')
            && let Ok(meta) = exact.store.head(&exact.path).await
        {
            return Ok((exact, vec![meta]));
        }
        let pattern = Pattern::new(&key).map_err(|e| Error::config(format!("`{url}` is not a valid glob")).with_source(e))?;
        let fixed = key[..key.find(['*', '?', '[']).unwrap_or(0)].rsplit_once('/').map_or("", |(folder, _)| folder);
        let place = root(fixed)?;
        let mut found = list_below(&place, url).await?;
        found.retain(|meta| pattern.matches_with(meta.location.as_ref(), GLOB));
        return Ok((place, not_empty(found, url)?));
    }
    let place = root(&key)?;
    if !key.is_empty() && !key.ends_with('/') {
        match place.store.head(&place.path).await {
            Ok(meta) => return Ok((place, vec![meta])),
            // Not one object, so a folder written without its final slash.
            Err(object_store::Error::NotFound { .. }) => {}
            // A local folder answers `head` with "is a directory".
            Err(_) if scheme == "file" && std::path::Path::new(&format!("/{key}")).is_dir() => {}
            Err(e) => return Err(give_up(store_error("reading", &place.uri, &e))),
        }
    }
    let found = list_below(&place, url).await?.into_iter().filter(|meta| !is_hidden(&place.path, &meta.location)).collect();
    let found = not_empty(found, url)?;
    Ok((place, found))
}

async fn list_below(place: &Location, url: &str) -> Result<Vec<ObjectMeta>> {
    let listed = place.store.list(Some(&place.path)).try_collect().await;
    listed.map_err(|e| match &e {
        object_store::Error::NotFound { .. } => {
            Error::config(format!("listing {url}: the bucket or folder does not exist; check the LOCATION"))
        }
        // The store has been asked for as long as its retries last.
        _ => give_up(store_error("listing", url, &e)),
    })
}

/// A store which does not answer at the very beginning is one that cannot be reached.
fn give_up(error: Error) -> Error {
    if !error.is_retryable() {
        return error;
    }
    Error::new(ErrorKind::Unreachable, format!("{error}; check AWS_ENDPOINT, the network and, for https, AWS_CA_BUNDLE"))
}

/// Names that begin with `_` or `.` are other tools' markers (`_SUCCESS`, `.crc`), as in Hadoop and Spark.
fn is_hidden(below: &Path, path: &Path) -> bool {
    path.prefix_match(below).is_some_and(|mut parts| parts.any(|part| part.as_ref().starts_with(['_', '.'])))
}

fn not_empty(found: Vec<ObjectMeta>, url: &str) -> Result<Vec<ObjectMeta>> {
    if found.is_empty() {
        return Err(Error::config(format!("no object at {url}: check the LOCATION and, for a folder, its final slash")));
    }
    Ok(found)
}

/// One object → its splits. An empty one has none; a compressed one has one.
async fn cut_object(location: &Location, spec: &BlobSpec, meta: ObjectMeta) -> Result<ManifestObject> {
    let uri = object_uri(location, &meta.location);
    let version = meta.e_tag.clone().unwrap_or_else(|| format!("{}-{}", meta.size, meta.last_modified.timestamp_millis()));
    let mut compression = match spec.compression {
        Compression::Auto => Compression::from_suffix(meta.location.as_ref()),
        given => given,
    };
    // Cutting a compressed object would tear its stream: where the name does not tell, the first bytes must, before it is cut.
    if compression == Compression::Auto && meta.size > spec.split_bytes {
        compression =
            peek_compression(&Location { store: Arc::clone(&location.store), path: meta.location.clone(), uri: uri.clone() }).await?;
    }
    let step = if matches!(compression, Compression::None | Compression::Auto) { spec.split_bytes } else { meta.size.max(1) };
    // Exactly as many: most objects of a large job have one, and room for three more would be most of its memory.
    let mut splits = Vec::with_capacity(meta.size.div_ceil(step) as usize);
    let mut start = 0;
    while start < meta.size {
        let end = meta.size.min(start.saturating_add(step));
        splits.push(ManifestSplit { id: digest_id(&[&uri, &version, &start.to_string(), &end.to_string()], 16).into(), start, end });
        start = end;
    }
    let last_modified = meta.last_modified.timestamp_millis();
    Ok(ManifestObject { object: uri.into(), version: version.into(), size: meta.size, last_modified, compression, splits })
}

/// What the first bytes of an object say.
///
/// # Errors
/// The store's.
pub async fn peek_compression(object: &Location) -> Result<Compression> {
    let options = GetOptions { range: Some(GetRange::Bounded(0..Compression::MAGIC_BYTES as u64)), ..GetOptions::default() };
    let head = async { object.store.get_opts(&object.path, options).await?.bytes().await };
    Ok(Compression::from_magic(&head.await.map_err(|e| store_error("reading", &object.uri, &e))?))
}

fn object_uri(location: &Location, path: &Path) -> String {
    // `file:///a/b` and `s3://bucket/a/b` both end with the path itself.
    let base = location.uri.strip_suffix(location.path.as_ref()).unwrap_or(&location.uri);
    format!("{base}{path}")
}
