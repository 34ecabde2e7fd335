//! Folders whose files tables may name, and the file system within them.

use std::fmt;
use std::io::ErrorKind as Io;
use std::ops::Range;
use std::path::{Component, Path as FilePath, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, Result as StoreResult,
};

use super::folders;
use crate::error::{Error, Result};
use crate::telemetry::host::AUTHORITY;

/// Variables which name files of certificates that this process uses itself: a table may name these too, as an authority.
const CERTIFICATE_VARIABLES: [&str; 3] = [AUTHORITY, "SSL_CERT_FILE", "BALER_TLS_CA"];

/// Where the operating system shows processes, whose environment holds secrets.
const PROCESSES: &str = "/proc";

/// Where files may be.
#[derive(Debug, Clone)]
pub enum Folders {
    /// Anywhere.
    All,
    /// In these folders, which are named without links.
    These(Vec<PathBuf>),
}

impl Folders {
    /// Only in these; nowhere, where there are none.
    ///
    /// # Errors
    /// Config, for one which is not there.
    pub(super) fn these(folders: &[PathBuf]) -> Result<Self> {
        let real = |folder: &PathBuf| {
            let failed = |e| Error::config(format!("--allow-files {}: the folder cannot be opened", folder.display())).with_source(e);
            folder.canonicalize().map_err(failed)
        };
        Ok(Self::These(folders.iter().map(real).collect::<Result<_>>()?))
    }

    pub(super) fn add(&mut self, folder: &FilePath) {
        if let (Self::These(folders), Ok(folder)) = (self, real_path(folder)) {
            folders.push(folder);
        }
    }

    /// Whether a table may read or write the file `path`, or what is below it. Links are followed first.
    ///
    /// # Errors
    /// Config, when it may not.
    pub fn check(&self, path: &FilePath) -> Result<()> {
        let shown = path.display();
        if path.starts_with(PROCESSES) {
            return Err(Error::config(format!(
                "file://{shown} is refused: it tells of processes, their environment for one, and is no table"
            )));
        }
        let Self::These(allowed) = self else { return Ok(()) };
        let real = real_path(path).map_err(|e| Error::config(format!("file://{shown} is refused: {e}")))?;
        if !real.starts_with(PROCESSES) && allowed.iter().any(|folder| real.starts_with(folder)) {
            return Ok(());
        }
        let by_link = if real == path { String::new() } else { format!(", which is {},", real.display()) };
        Err(Error::config(format!(
            "file://{shown}{by_link} is refused: it is in no folder which this server opens to tables; start scheduler and executors with \
             --allow-files <FOLDER>"
        )))
    }

    /// Whether a client's setting may name this file of certificates or keys.
    ///
    /// # Errors
    /// Config, when it may not.
    pub fn check_setting(&self, path: &FilePath) -> Result<()> {
        let is_own = |variable: &&str| std::env::var_os(variable).is_some_and(|own| FilePath::new(&own) == path);
        if CERTIFICATE_VARIABLES.iter().any(is_own) { Ok(()) } else { self.check(path) }
    }
}

/// Where a path leads. Of what is not there, the part that is decides.
fn real_path(path: &FilePath) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for there in path.ancestors() {
        match there.canonicalize() {
            Ok(real) => {
                let rest = path.strip_prefix(there).map_err(std::io::Error::other)?;
                if rest.components().any(|part| part == Component::ParentDir) {
                    return Err(std::io::Error::other("it goes back by `..` from a folder which is not there"));
                }
                // Joining nothing would put a slash at the end of a file's name.
                return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
            }
            Err(error) if matches!(error.kind(), Io::NotFound | Io::NotADirectory) => {
                if there.is_symlink() {
                    return Err(std::io::Error::other("it leads over a link to what is not there"));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(path)
}

/// The file system as tables see it.
#[derive(Debug, Default)]
pub struct TableFiles {
    files: LocalFileSystem,
}

impl fmt::Display for TableFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

impl TableFiles {
    fn check(&self, path: &Path) -> StoreResult<()> {
        let checked = self.files.path_to_filesystem(path).map(|file| folders().check(&file))?;
        checked.map_err(|error| object_store::Error::PermissionDenied { path: path.to_string(), source: Box::new(error) })
    }

    fn check_prefix(&self, prefix: Option<&Path>) -> StoreResult<()> {
        self.check(prefix.unwrap_or(&Path::ROOT))
    }
}

// What a link within an open folder leads to can be listed, but neither read nor written: each file is looked at for itself.
#[async_trait]
impl ObjectStore for TableFiles {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.check(location)?;
        self.files.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        self.check(location)?;
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.check(location)?;
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.check(location)?;
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        let own = Self::default();
        let checked = move |path: Path| std::future::ready(own.check(&path).map(|()| path));
        self.files.delete_stream(locations.and_then(checked).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        match self.check_prefix(prefix) {
            Ok(()) => self.files.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        match self.check_prefix(prefix) {
            Ok(()) => self.files.list_with_offset(prefix, offset),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.check_prefix(prefix)?;
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.check(from)?;
        self.check(to)?;
        self.files.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> StoreResult<()> {
        self.check(from)?;
        self.check(to)?;
        self.files.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_is_really_in_an_open_folder_may_be_named() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        let (open, other) = (root.join("open"), root.join("other"));
        std::fs::create_dir_all(open.join("deep")).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("secret"), "x").unwrap();
        std::fs::create_dir(root.join("open-too")).unwrap();
        symlink(&other, open.join("out")).unwrap();
        symlink(other.join("new"), open.join("dangling")).unwrap();
        symlink(&open, root.join("alias")).unwrap();
        let folders = Folders::these(&[root.join("alias")]).unwrap();
        for path in ["open", "open/", "open/a", "open/new/b", "open/deep/../a", "alias/a", "open/*.log", "other/../open/a"] {
            folders.check(&root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        for path in [
            "",
            "other/secret",
            "open-too/a",
            "open/../other/secret",
            "open/new/../../other",
            "open/out/secret",
            "open/out/new",
            "open/dangling",
        ] {
            let error = folders.check(&root.join(path)).unwrap_err().to_string();
            assert!(error.contains("is refused") && !error.contains('\n'), "{path}: {error}");
        }
        assert!(folders.check(&open.join("out/secret")).unwrap_err().to_string().contains("other/secret, is refused"));
        let none = Folders::these(&[]).unwrap();
        assert!(none.check(&open).unwrap_err().to_string().contains("--allow-files"));
        Folders::All.check(&other).unwrap();
        assert!(Folders::these(&[root.join("missing")]).unwrap_err().to_string().contains("missing"));
        let mut own = none.clone();
        own.add(&open.join("state"));
        own.check(&open.join("state/job/manifest.json")).unwrap();
        own.check(&open.join("a")).unwrap_err();
    }
}
