//! The original objects of a finished job, written back byte for byte.
//!
//! | place | holds |
//! | --- | --- |
//! | this file | the driver: state → objects → what came of each; [`RestoreTask`] is its node's work, in one process and on a fleet |
//! | `names` | objects' names → names below the target |
//! | `copy` | one object: read, prove, inflate, write |
//! | `pack` | compressing again what was compressed at the source |
//!
//! The object is the unit of work and of resume: its name appears when it is whole, so a restore that was stopped is begun
//! again and finds what is there. Manifest and receipts say which documents an object is made of, and the documents prove themselves.

mod copy;
mod names;
mod pack;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::context::SessionContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use serde::{Deserialize, Serialize};

use self::copy::copy_object;
use self::names::{check_distinct, folders_of, plain_name, relative_name};
use super::JobRef;
use super::dead_letter::DeadLetter;
use super::dispatch::{perform_here, perform_on_fleet};
use super::item::Task;
use super::manifest::{Manifest, ManifestObject};
use super::state::JobState;
use crate::cluster::client::Fleet;
use crate::connector::SinkSpec;
use crate::connector::blob::Compression;
use crate::connector::receipt::Receipt;
use crate::connector::source::SourceSpec;
use crate::connector::split::LeafRow;
use crate::connector::stored::StoredSplit;
use crate::error::{Error, ErrorKind, Result};
use crate::store::full_url;
use crate::telemetry::COUNTERS;

/// What opening an object and making it durable cost, in bytes of writing: keeps the tasks of many small objects small.
const OBJECT_OVERHEAD_BYTES: u64 = 4 << 20;

/// One object to be written back; a row of the node's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreObject {
    /// URI of the source.
    pub object: String,
    /// Its version, which each of its documents must have.
    pub version: String,
    /// When the source was last written, milliseconds since 1970 UTC.
    pub last_modified: i64,
    /// URL of its new place.
    pub target: String,
    /// How it is compressed there.
    pub packing: Compression,
    /// Bytes of its (decompressed) content.
    pub bytes: u64,
    /// Its documents, split by split without a gap; those splits which have any.
    pub splits: Vec<StoredSplit>,
}

/// How objects are restored; travels in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreTask {
    /// Where their documents are.
    pub source: SinkSpec,
    /// Whether what else is at an object's place is replaced.
    pub overwrite: bool,
    /// Whether an object which cannot be restored is named and left out, in place of an error.
    pub partial: bool,
}

/// What came of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredObject {
    /// URI of the source.
    pub object: String,
    /// URL of its new place.
    pub target: String,
    /// Bytes of its content.
    pub bytes: u64,
    /// Documents which were read; 0 if it was there.
    pub documents: u64,
    /// Whether it was written just now.
    pub is_new: bool,
    /// Why it is not there, where that is no error.
    pub failure: Option<String>,
}

#[async_trait]
impl Task for RestoreTask {
    type Item = RestoreObject;
    type Answer = RestoredObject;
    const NODE: &str = "RestoreExec";

    fn bytes_of(object: &RestoreObject) -> u64 {
        object.bytes
    }

    fn describe(&self) -> String {
        format!("source={}, overwrite={}, partial={}", self.source.target(), self.overwrite, self.partial)
    }

    async fn perform(&self, object: RestoreObject, env: &Arc<RuntimeEnv>) -> Result<RestoredObject> {
        let copied = copy_object(&self.source, env, &object, self.overwrite).await;
        let RestoreObject { object, target, bytes, .. } = object;
        match copied {
            Ok(copied) => Ok(RestoredObject { object, target, bytes, documents: copied.documents, is_new: copied.is_new, failure: None }),
            Err(error) if self.partial && is_of_object(&error) => {
                let failure = Some(error.to_string());
                Ok(RestoredObject { object, target, bytes: 0, documents: 0, is_new: false, failure })
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether an error says something about one object, so that others may still be restored.
fn is_of_object(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Decode | ErrorKind::Conflict | ErrorKind::Permanent)
}

impl LeafRow for RestoreObject {
    const COLUMN: &str = "object";
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// Folder or prefix to write to: `file://` or `s3://`.
    pub to: String,
    /// Whether what was compressed at the source is compressed again, and keeps its name.
    pub recompress: bool,
    /// Whether objects which cannot be restored are left out, in place of an error.
    pub partial: bool,
    /// Whether other things at the places of objects are replaced.
    pub overwrite: bool,
}

/// An object which is not restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its URI.
    pub object: String,
    /// Why.
    pub reason: String,
}

/// What a restore did.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// Name of the job.
    pub job: String,
    /// Where the objects are.
    pub target: String,
    /// Objects which are there now.
    pub objects: u64,
    /// Those of them which this run wrote; the others were there.
    pub written: u64,
    /// Bytes of the content of all objects which are there.
    pub bytes: u64,
    /// Documents which were read.
    pub documents: u64,
    /// Objects which were compressed at the source.
    pub compressed: u64,
    /// Whether these are compressed again.
    pub recompressed: bool,
    /// What is not there.
    pub left_out: Vec<LeftOut>,
}

/// A restore which is planned; nothing is written yet.
pub struct Restore {
    context: SessionContext,
    task: RestoreTask,
    objects: Vec<RestoreObject>,
    report: RestoreReport,
}

impl fmt::Debug for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restore").field("task", &self.task).field("objects", &self.objects.len()).finish_non_exhaustive()
    }
}

impl Restore {
    /// Reads the state of a job and plans what is to be written.
    ///
    /// # Errors
    /// Config, when there is no such job, or its documents cannot be traced to their objects; Conflict, when it is not done, an
    /// object has a hole, or two would have one name.
    pub async fn plan(context: &SessionContext, job: &JobRef, request: &RestoreRequest) -> Result<Self> {
        let state = JobState::open(&context.runtime_env(), job)?;
        let manifest = state.manifest().await?;
        let manifest = manifest.ok_or_else(|| Error::config(format!("there is no job `{}` at {}", job.name, state.uri())))?;
        let location = input_of(&manifest)?;
        if state.commit().await?.is_none() && !request.partial {
            return Err(Error::conflict(format!(
                "job `{}` is not committed; run it again to complete it, or restore what is whole with --partial",
                job.name
            )));
        }
        let (receipts, letters) = (state.receipts().await?, state.dead_letters().await?);
        let to = full_url(&request.to)?;
        let mut report = RestoreReport {
            job: job.name.clone(),
            target: to.clone(),
            objects: 0,
            written: 0,
            bytes: 0,
            documents: 0,
            compressed: 0,
            recompressed: request.recompress,
            left_out: Vec::new(),
        };
        let mut planned = Vec::new();
        for object in &manifest.objects {
            match plan_object(object, &receipts, &letters)? {
                Planned::Whole { bytes, splits } => planned.push((object, relative_name(&location, &object.object)?, bytes, splits)),
                Planned::DeadLetter(reason) => report.left_out.push(LeftOut { object: object.object.clone(), reason }),
                Planned::Incomplete(error) if request.partial => {
                    report.left_out.push(LeftOut { object: object.object.clone(), reason: error.to_string() });
                }
                Planned::Incomplete(error) => return Err(error),
            }
        }
        let is_local = to.starts_with("file://");
        let folders = folders_of(planned.iter().map(|(_, name, _, _)| name.as_str()));
        // An empty object whose name is a folder's is how some tools mark folders in a bucket; a file system has its own.
        let is_marker = |object: &ManifestObject, name: &str| is_local && object.size == 0 && folders.contains(name);
        let mut objects = Vec::new();
        let mut names = Vec::new();
        for (object, name, bytes, splits) in &planned {
            if is_marker(object, name) {
                continue;
            }
            let was_compressed = is_compressed(object, *bytes);
            report.compressed += u64::from(was_compressed);
            let name = if request.recompress { name.as_str() } else { plain_name(name, object.compression) };
            names.push((name, object.object.as_str()));
            objects.push(RestoreObject {
                object: object.object.clone(),
                version: object.version.clone(),
                last_modified: object.last_modified,
                target: format!("{}/{name}", to.trim_end_matches('/')),
                packing: if request.recompress { packing_of(object) } else { Compression::None },
                bytes: *bytes,
                splits: splits.clone(),
            });
        }
        check_distinct(&names, is_local, "restore with --recompress, which keeps the names")?;
        let task = RestoreTask { source: manifest.sink.clone(), overwrite: request.overwrite, partial: request.partial };
        Ok(Self { context: context.clone(), task, objects, report })
    }

    /// Bytes of all objects which are to be there.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.bytes).sum()
    }

    /// Writes what is not there yet, on `fleet` or in this process. Dropping the future stops it; the same again goes on.
    ///
    /// # Errors
    /// The first object which cannot be restored, unless such are to be left out; what is there already stays.
    pub async fn run(mut self, fleet: Option<&Fleet>) -> Result<RestoreReport> {
        let objects = std::mem::take(&mut self.objects);
        let rows = match fleet {
            None => perform_here(&self.context, self.task, &objects).await?,
            Some(fleet) => {
                let mut rows = Vec::new();
                let work_of = |object: &RestoreObject| object.bytes + OBJECT_OVERHEAD_BYTES;
                perform_on_fleet(fleet, &wave_name(&self.report.job), &self.task, objects, work_of, |restored: Vec<RestoredObject>| {
                    // Its own process counts what an executor wrote; this one is told.
                    COUNTERS.restored_bytes.add(restored.iter().map(|row| row.bytes).sum());
                    COUNTERS.restored_objects.add(restored.len() as u64);
                    rows.extend(restored);
                    Ok(())
                })
                .await?;
                rows
            }
        };
        for row in rows {
            if let Some(reason) = row.failure {
                self.report.left_out.push(LeftOut { object: row.object, reason });
                continue;
            }
            self.report.objects += 1;
            self.report.written += u64::from(row.is_new);
            self.report.bytes += row.bytes;
            self.report.documents += row.documents;
        }
        self.report.left_out.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(self.report)
    }
}

/// How the Ballista jobs of a restore are named: `<job> restore wave <n>`.
pub fn wave_name(job: &str) -> String {
    format!("{job} restore")
}

/// Where a job's objects are; refuses jobs whose documents are not the bytes of their objects.
fn input_of(manifest: &Manifest) -> Result<String> {
    let job = &manifest.job;
    let Some(SourceSpec::Blob(source)) = &manifest.source else {
        return Err(Error::config(format!("job `{job}` does not read one BLOB table, so there are no objects to restore")));
    };
    if !manifest.by_split {
        return Err(Error::config(format!(
            "job `{job}` did not run split by split (it joins, sorts or aggregates), so its documents are not the bytes of its objects"
        )));
    }
    if !manifest.keeps_every_row {
        return Err(Error::config(format!("the statement of job `{job}` filters rows, so its documents are not all bytes of its objects")));
    }
    Ok(source.location.clone())
}

/// What is to become of an object.
enum Planned {
    Whole { bytes: u64, splits: Vec<StoredSplit> },
    DeadLetter(String),
    Incomplete(Error),
}

/// Holds the receipts of an object against it: together they must cover every byte once.
fn plan_object(object: &ManifestObject, receipts: &HashMap<String, Receipt>, letters: &[DeadLetter]) -> Result<Planned> {
    let name = &object.object;
    let (mut position, mut splits) = (0, Vec::new());
    for split in &object.splits {
        let Some(receipt) = receipts.get(&split.id) else {
            let text = format!("{name} bytes {}–{}: no receipt, so its documents are not complete", split.start, split.end);
            return Ok(Planned::Incomplete(Error::conflict(text)));
        };
        if receipt.dead_letters > 0 {
            let reason = letters.iter().find(|letter| letter.split == split.id).map(|letter| letter.reason.clone());
            return Ok(Planned::DeadLetter(reason.unwrap_or_else(|| "a part of it is a dead letter".to_string())));
        }
        let Some(stored) = StoredSplit::of_receipt(receipt) else {
            if receipt.documents == 0 {
                continue;
            }
            return Err(Error::config(format!(
                "{name}: the documents of receipt {} do not carry their place; only what sql/compress.sql writes can be restored",
                split.id
            )));
        };
        if stored.first != position {
            let text = format!("{name} byte {position}: the receipts leave or repeat the bytes {position}–{}", stored.first);
            return Ok(Planned::Incomplete(Error::conflict(text)));
        }
        position = stored.next;
        splits.push(stored);
    }
    if object.compression == Compression::None && position != object.size {
        let text = format!("{name} byte {position}: no receipt has the bytes {position}–{}", object.size);
        return Ok(Planned::Incomplete(Error::conflict(text)));
    }
    Ok(Planned::Whole { bytes: position, splits })
}

/// How an object is compressed again. A name which says nothing promises nothing: such an object stays plain.
fn packing_of(object: &ManifestObject) -> Compression {
    if object.compression == Compression::Auto { Compression::None } else { object.compression }
}

/// Whether an object was compressed. Where its name did not say, its length tells: the first bytes decided when it was read.
fn is_compressed(object: &ManifestObject, bytes: u64) -> bool {
    match object.compression {
        Compression::None => false,
        Compression::Auto => bytes != object.size,
        _ => true,
    }
}
