//! A folder of plain JSON files, each created once and atomically (`put-if-absent`), in any object store: the state of a job or of
//! a streaming query.

use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::connector::receipt::SCHEMA_VERSION;
use crate::error::{Error, Result, store_error};
use crate::object_writer::local_path;
use crate::retry::Retry;
use crate::runtime;
use crate::store::{Location, locate};
use crate::telemetry::RetryKind;

/// Files which are read at once.
pub(crate) const READS_IN_FLIGHT: usize = 64;

/// Tells a file from another one that took its name later: its time and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileVersion {
    last_modified: DateTime<Utc>,
    size: u64,
}

impl FileVersion {
    fn of(meta: &ObjectMeta) -> Self {
        Self { last_modified: meta.last_modified, size: meta.size }
    }
}

/// A folder of state files.
#[derive(Debug, Clone)]
pub struct StateFolder {
    place: Location,
}

impl StateFolder {
    /// The folder `name` below the URL `state`; touches nothing yet.
    ///
    /// # Errors
    /// Config, when the URL is not valid.
    pub fn open(env: &RuntimeEnv, state: &str, name: &str) -> Result<Self> {
        Ok(Self { place: locate(env, state)?.join(name) })
    }

    /// How people name it.
    pub fn uri(&self) -> &str {
        &self.place.uri
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, name: &str) -> object_store::path::Path {
        self.place.join(name).path
    }

    /// Creates a file unless it is there; `false` if it was.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) async fn create<T: Serialize + Sync>(&self, name: &str, content: &T) -> Result<bool> {
        let file = self.place.join(name);
        let text = serde_json::to_vec_pretty(content).map_err(|e| Error::internal(format!("{name} does not encode")).with_source(e))?;
        // Shared, since a manifest of a million splits has hundreds of megabytes.
        let text = Bytes::from(text);
        runtime::spawn_io(async move {
            let mut retry = Retry::new(RetryKind::StateWrite);
            let mut is_repeat = false;
            loop {
                match create_once(&file, &text).await {
                    // A lost reply may have created it: then what is there is what was sent.
                    Ok(false) if is_repeat => return holds(&file, &text).await,
                    Ok(created) => return Ok(created),
                    Err(error) => retry.wait_or(error).await?,
                }
                is_repeat = true;
            }
        })?
        .join()
        .await?
    }

    /// Reads a file, if it is there.
    ///
    /// # Errors
    /// As the store's; Decode for a file of a later version.
    pub(crate) async fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let file = self.place.join(name);
        runtime::spawn_io(async move { read_file(&file).await })?
            .join()
            .await??
            .map(|text| parse(&self.place.join(name).uri, &text))
            .transpose()
    }

    /// Which version of a file is there now, if any; reads none of it.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) async fn version(&self, name: &str) -> Result<Option<FileVersion>> {
        let file = self.place.join(name);
        runtime::spawn_io(async move {
            match file.store.head(&file.path).await {
                Ok(meta) => Ok(Some(FileVersion::of(&meta))),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(store_error("looking at", &file.uri, &error)),
            }
        })?
        .join()
        .await?
    }

    /// Paths of the files in a folder, in no order.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) async fn list(&self, name: &str) -> Result<Vec<object_store::path::Path>> {
        Ok(self.list_versions(name).await?.into_iter().map(|(path, _version)| path).collect())
    }

    /// As [`Self::list`], each with its version.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) async fn list_versions(&self, name: &str) -> Result<Vec<(object_store::path::Path, FileVersion)>> {
        let folder = self.place.join(name);
        let listed = runtime::spawn_io(async move {
            let listed: object_store::Result<Vec<_>> = folder.store.list(Some(&folder.path)).try_collect().await;
            listed.map_err(|e| store_error("listing", &folder.uri, &e))
        })?;
        let files = listed.join().await??;
        let versions = files.into_iter().map(|meta| (FileVersion::of(&meta), meta.location));
        Ok(versions.map(|(version, path)| (path, version)).filter(|(path, _)| path.extension() == Some("json")).collect())
    }

    /// Removes files; those which are not there are no error.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) async fn remove(&self, names: Vec<String>) -> Result<()> {
        let files = names.iter().map(|name| self.place.join(name).path).collect();
        self.remove_paths(files).await
    }

    /// Removes the folder with all that is in it.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) async fn remove_all(&self) -> Result<()> {
        if let Some(folder) = local_path(&self.place)? {
            // An object store has no folders, a file system would keep empty ones.
            let removed = runtime::spawn_blocking(move || match std::fs::remove_dir_all(&folder) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
                removed => removed.map_err(|e| Error::permanent(format!("cannot remove {}: {e}", folder.display()))),
            })?;
            return removed.join().await?;
        }
        let folder = self.place.clone();
        let listed = runtime::spawn_io(async move {
            let listed: object_store::Result<Vec<_>> = folder.store.list(Some(&folder.path)).try_collect().await;
            listed.map_err(|e| store_error("listing", &folder.uri, &e))
        })?;
        let files = listed.join().await??;
        self.remove_paths(files.into_iter().map(|meta| meta.location).collect()).await
    }

    async fn remove_paths(&self, files: Vec<object_store::path::Path>) -> Result<()> {
        let folder = self.place.clone();
        runtime::spawn_io(async move {
            let files = futures::stream::iter(files.into_iter().map(Ok)).boxed();
            let removed = folder.store.delete_stream(files).try_for_each(|_path| async { Ok(()) });
            match removed.await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                removed => removed.map_err(|e| store_error("removing files of", &folder.uri, &e)),
            }
        })?
        .join()
        .await?
    }

    /// All files of a folder, in no order.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) async fn read_all<T: DeserializeOwned + Send + 'static>(&self, name: &str) -> Result<Vec<T>> {
        self.read_files(self.list(name).await?).await
    }

    /// Files by their paths, in no order.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) async fn read_files<T: DeserializeOwned + Send + 'static>(&self, files: Vec<object_store::path::Path>) -> Result<Vec<T>> {
        let found = self.find_files(files).await?.into_iter();
        found.map(|(path, content)| content.ok_or_else(|| Error::conflict(format!("{path} was removed while it was read")))).collect()
    }

    /// Files by their paths, in no order; of those which are not there, the path alone.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) async fn find_files<T: DeserializeOwned + Send + 'static>(
        &self,
        files: Vec<object_store::path::Path>,
    ) -> Result<Vec<(object_store::path::Path, Option<T>)>> {
        let folder = self.place.clone();
        runtime::spawn_io(async move {
            futures::stream::iter(files)
                .map(|path| {
                    let file = Location { store: folder.store.clone(), uri: path.to_string(), path };
                    async move {
                        let content = read_file(&file).await?.map(|text| parse(&file.uri, &text)).transpose()?;
                        Ok((file.path, content))
                    }
                })
                .buffer_unordered(READS_IN_FLIGHT)
                .try_collect()
                .await
        })?
        .join()
        .await?
    }
}

/// Names of the jobs whose state is in `folder`, sorted.
///
/// # Errors
/// As the store's.
pub async fn job_names(folder: &Location) -> Result<Vec<String>> {
    let folder = folder.clone();
    let listed = runtime::spawn_io(async move {
        let listed = folder.store.list_with_delimiter(Some(&folder.path)).await;
        listed.map_err(|e| store_error("listing", &folder.uri, &e))
    })?;
    let folders = listed.join().await??.common_prefixes;
    let mut names: Vec<String> = folders.iter().filter_map(|path| path.filename().map(ToString::to_string)).collect();
    names.sort();
    Ok(names)
}

async fn read_file(file: &Location) -> Result<Option<Bytes>> {
    let mut retry = Retry::new(RetryKind::StateRead);
    loop {
        let read = async { file.store.get(&file.path).await?.bytes().await };
        match read.await {
            Ok(text) => return Ok(Some(text)),
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => retry.wait_or(store_error("reading", &file.uri, &error)).await?,
        }
    }
}

async fn holds(file: &Location, text: &[u8]) -> Result<bool> {
    Ok(read_file(file).await?.is_some_and(|stored| stored == text))
}

pub(super) fn parse<T: DeserializeOwned>(uri: &str, text: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Versioned {
        schema_version: u32,
    }
    let broken = |e| Error::decode(format!("{uri} is not a state file of Baler")).with_source(e);
    let versioned: Versioned = serde_json::from_slice(text).map_err(broken)?;
    if versioned.schema_version > SCHEMA_VERSION {
        return Err(Error::decode(format!("{uri} was written by a later Baler (schema version {})", versioned.schema_version)));
    }
    serde_json::from_slice(text).map_err(broken)
}

async fn create_once(file: &Location, text: &Bytes) -> Result<bool> {
    if let Some(path) = local_path(file)? {
        let text = text.clone();
        return runtime::spawn_blocking(move || create_local(&path, &text))?.join().await?;
    }
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match file.store.put_opts(&file.path, PutPayload::from(text.clone()), options).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
        Err(error) => Err(store_error("writing", &file.uri, &error)),
    }
}

/// Put-if-absent on a file system: a durable temporary file, linked to its name, which fails if the name is taken.
fn create_local(path: &Path, text: &[u8]) -> Result<bool> {
    let failed = |e: std::io::Error| Error::permanent(format!("cannot write {}: {e}", path.display()));
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let temporary = folder.join(format!(".tmp-{}-{:016x}", std::process::id(), rand::random::<u64>()));
    let write = || {
        let mut file = std::fs::File::create_new(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        match std::fs::hard_link(&temporary, path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
            linked => linked?,
        }
        std::fs::File::open(folder)?.sync_all()?;
        Ok(true)
    };
    let created = write();
    if let Err(error) = std::fs::remove_file(&temporary) {
        tracing::debug!(file = %temporary.display(), %error, "no temporary file to remove");
    }
    created.map_err(failed)
}
