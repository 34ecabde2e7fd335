//! What a job is to do: its statement, and every object and split as they were when it was begun.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::connector::SinkSpec;
use crate::connector::blob::Compression;
use crate::connector::receipt::SCHEMA_VERSION;
use crate::connector::source::SourceSpec;
use crate::connector::split::{Split, digest_id};
use crate::error::{Error, Result};

/// One object of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestObject {
    /// URI.
    pub object: SmolStr,
    /// Etag, else size and modification time.
    pub version: SmolStr,
    /// Bytes as stored.
    pub size: u64,
    /// Milliseconds since 1970 UTC.
    pub last_modified: i64,
    /// How it is compressed; `auto` is decided by its first bytes when it is read.
    pub compression: Compression,
    /// Its splits: id and range. An empty object has none.
    pub splits: Vec<ManifestSplit>,
}

impl ManifestObject {
    /// Its splits, in order of offset.
    pub fn splits(&self) -> impl Iterator<Item = Split> + '_ {
        self.splits.iter().map(|split| Split {
            id: split.id.clone(),
            object: self.object.clone(),
            version: self.version.clone(),
            size: self.size,
            last_modified: self.last_modified,
            compression: self.compression,
            start: split.start,
            end: split.end,
        })
    }
}

/// One split of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestSplit {
    /// Id, which also names its receipt.
    pub id: SmolStr,
    /// First byte.
    pub start: u64,
    /// Byte after the last.
    pub end: u64,
}

/// Objects out of their splits, which are sorted by object and offset.
pub fn group_splits(splits: &[Split]) -> Vec<ManifestObject> {
    let mut objects: Vec<ManifestObject> = Vec::new();
    for split in splits {
        let range = ManifestSplit { id: split.id.clone(), start: split.start, end: split.end };
        match objects.last_mut() {
            Some(last) if last.object == split.object => last.splits.push(range),
            _ => objects.push(ManifestObject {
                object: split.object.clone(),
                version: split.version.clone(),
                size: split.size,
                last_modified: split.last_modified,
                compression: split.compression,
                splits: vec![range],
            }),
        }
    }
    objects
}

/// The source of truth of a job; written once, before anything is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name of the job.
    pub job: String,
    /// The statements as they ran, variables replaced.
    pub statement: String,
    /// SHA-256 of the statement with its white space folded.
    pub statement_hash: String,
    /// What is read.
    pub source: Option<SourceSpec>,
    /// What is written.
    pub sink: SinkSpec,
    /// Whether the statement runs split by split. If not, the job has one receipt, [`WHOLE`], and no objects here.
    pub by_split: bool,
    /// Whether every byte of the input must be in a document: the statement filters nothing.
    pub keeps_every_row: bool,
    /// Every object with every split.
    pub objects: Vec<ManifestObject>,
}

/// Name of the only receipt of a job whose statement cannot run split by split.
pub const WHOLE: &str = "result";

/// SHA-256 of a statement, blind to white space.
pub fn hash_statement(statement: &str) -> String {
    digest_id(&[&statement.split_whitespace().collect::<Vec<_>>().join(" ")], 64)
}

impl Manifest {
    /// A manifest over `objects`, which are sorted by name.
    pub fn new(job: &str, statement: &str, source: Option<SourceSpec>, sink: SinkSpec, objects: Vec<ManifestObject>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            job: job.to_string(),
            statement: statement.to_string(),
            statement_hash: hash_statement(statement),
            source,
            sink,
            by_split: false,
            keeps_every_row: false,
            objects,
        }
    }

    /// All splits, sorted by object and offset.
    pub fn splits(&self) -> impl Iterator<Item = Split> + '_ {
        self.objects.iter().flat_map(ManifestObject::splits)
    }

    /// Names of the receipts which complete the job.
    pub fn receipt_names(&self) -> impl Iterator<Item = &str> {
        let whole = (!self.by_split).then_some(WHOLE);
        let splits = self.objects.iter().filter(|_| self.by_split).flat_map(|object| &object.splits);
        whole.into_iter().chain(splits.map(|split| split.id.as_str()))
    }

    /// Refuses a job whose documents cannot be traced to their source.
    ///
    /// # Errors
    /// Config, when it did not run split by split.
    pub fn check_by_split(&self) -> Result<()> {
        if self.by_split {
            return Ok(());
        }
        Err(Error::config(format!("job `{}` did not run split by split, so its documents cannot be traced to their source", self.job)))
    }

    /// Whether both read and write the same by the same statement, whatever the input holds.
    pub fn has_same_statement(&self, now: &Self) -> bool {
        self.statement_hash == now.statement_hash && self.sink == now.sink && self.source == now.source
    }

    /// Refuses to go on with a job that has become another one.
    ///
    /// # Errors
    /// Conflict, naming what differs and what to do.
    pub fn check_same(&self, now: &Self) -> Result<()> {
        let remedy = format!("take a new job name, or remove the state folder of `{}` to begin it anew", self.job);
        if !self.has_same_statement(now) {
            return Err(Error::conflict(format!(
                "job `{}` was begun with another statement ({} then, {} now); {remedy}",
                self.job,
                &self.statement_hash[..12],
                &now.statement_hash[..12]
            )));
        }
        let index = |manifest: &Self| -> BTreeMap<SmolStr, SmolStr> {
            manifest.objects.iter().map(|object| (object.object.clone(), object.version.clone())).collect()
        };
        let (then, current) = (index(self), index(now));
        let changed = then.iter().filter(|(object, version)| current.get(*object).is_some_and(|v| v != *version));
        let gone = then.keys().filter(|object| !current.contains_key(*object));
        let new = current.keys().filter(|object| !then.contains_key(*object));
        let mut differences = Vec::new();
        for (what, names) in
            [("changed", changed.map(|(object, _)| object).collect::<Vec<_>>()), ("gone", gone.collect()), ("new", new.collect())]
        {
            if let Some(first) = names.first() {
                differences.push(format!("{} {what} (first: {first})", names.len()));
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "the input of job `{}` is not what it was begun with: objects {}; {remedy}",
            self.job,
            differences.join(", ")
        )))
    }
}
