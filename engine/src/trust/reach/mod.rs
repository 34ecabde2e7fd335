//! Where SQL may reach: which files, buckets and hosts the tables of this process may name.
//!
//! | place | holds |
//! | --- | --- |
//! | here | the rules of this process, and the check of a LOCATION |
//! | [`files`] | folders, and the file system within them |
//! | [`hosts`] | hosts and buckets, and those which nobody may name |
//!
//! The rules are asked where a file or server is about to be used, in the few places through which all use goes: the file system of the
//! [stores](crate::store), [`local_path`](crate::object_writer::local_path), a client of S3, MongoDB or Kafka. So it does not matter whether a table
//! came by CREATE EXTERNAL TABLE, in the plan of a client or in a task. A LOCATION is looked at besides when its table is made, to refuse early.

pub mod files;
pub mod hosts;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use self::files::Folders;
use self::hosts::Hosts;
use crate::error::{Error, Result};
use crate::store::split_url;

/// The rules of this process. A process has one user's trust, so they are the process's and not a session's, which SQL may change.
static REACH: OnceLock<Reach> = OnceLock::new();

/// Those of a process which is told none: a client's, or one that does everything by itself.
static OPEN: Reach = Reach { folders: Folders::All, hosts: Hosts::All };

/// What tables may name.
#[derive(Debug, Clone)]
pub struct Reach {
    folders: Folders,
    hosts: Hosts,
}

impl Reach {
    /// Rules of a server. Without `folders`, tables may name all files of a server which `is_local`, that is, which only this machine reaches, and none
    /// of another. Without `hosts`, they may name all but metadata services.
    ///
    /// # Errors
    /// Config, for a folder which is not there, and a text which is no host.
    pub fn of_server(folders: &[PathBuf], hosts: &[String], is_local: bool) -> Result<Self> {
        let folders = match folders {
            [] if is_local => Folders::All,
            folders => Folders::these(folders)?,
        };
        Ok(Self { folders, hosts: Hosts::read(hosts)? })
    }

    /// The same rules, and what is in this folder of the server's own, which need not be there yet.
    #[must_use]
    pub fn with_own(mut self, folder: &Path) -> Self {
        self.folders.add(folder);
        self
    }

    /// Makes these the rules of this process, before any table is known.
    ///
    /// # Errors
    /// Internal, when it has some already.
    pub fn install(self) -> Result<()> {
        REACH.set(self).map_err(|_| Error::internal("a process takes its rules for tables once"))
    }
}

fn current() -> &'static Reach {
    REACH.get().unwrap_or(&OPEN)
}

/// The rules for files.
pub fn folders() -> &'static Folders {
    &current().folders
}

/// The rules for hosts.
pub fn hosts() -> &'static Hosts {
    &current().hosts
}

/// Refuses a LOCATION which a table may not name. Names are not resolved here, but where they are used.
///
/// # Errors
/// Config, with what to do about it. A LOCATION which is none is its reader's matter.
pub fn check_location(location: &str) -> Result<()> {
    match location.split_once("://") {
        Some(("kafka" | "mongodb" | "mongodb+srv", rest)) => {
            let servers = rest.split(['/', '?']).next().unwrap_or_default();
            servers.split(',').try_for_each(|server| hosts().check(server))
        }
        _ => match split_url(location) {
            Ok((scheme, _, path)) if scheme == "file" => folders().check(&Path::new("/").join(path)),
            Ok((_, bucket, _)) => hosts().check_bucket(&bucket),
            Err(_) => Ok(()),
        },
    }
}
