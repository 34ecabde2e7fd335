//! A job over objects → what is to be written of each.

use std::collections::HashMap;

use smol_str::SmolStr;

use super::names::{check_distinct, folders_of, plain_name, relative_name};
use super::{LeftOut, RestoreObject, RestoreReport, RestoreRequest};
use crate::connector::blob::Compression;
use crate::connector::receipt::Receipt;
use crate::connector::source::SourceSpec;
use crate::connector::stored::StoredSplit;
use crate::error::{Error, Result};
use crate::job::dead_letter::DeadLetter;
use crate::job::manifest::{Manifest, ManifestObject};
use crate::job::state::JobState;

/// The objects of a job below the URL `to`. What is left out is noted in the report.
///
/// # Errors
/// Config, when its documents cannot be traced to their objects; Conflict, when it is not done, an object has a hole, or two would
/// have one name.
pub(super) async fn plan_objects(
    state: &JobState,
    manifest: &Manifest,
    to: &str,
    request: &RestoreRequest,
    report: &mut RestoreReport,
) -> Result<Vec<RestoreObject>> {
    let location = input_of(manifest)?;
    if state.commit().await?.is_none() && !request.partial {
        return Err(Error::conflict(format!(
            "job `{}` is not committed; run it again to complete it, or restore what is whole with --partial",
            manifest.job
        )));
    }
    let (receipts, letters) = (state.receipts().await?, state.dead_letters().await?);
    let mut planned = Vec::new();
    for object in &manifest.objects {
        match plan_object(object, &receipts, &letters)? {
            Planned::Whole { bytes, splits } => planned.push((object, relative_name(&location, &object.object)?, bytes, splits)),
            Planned::DeadLetter(reason) => report.left_out.push(LeftOut { object: object.object.to_string(), reason }),
            Planned::Incomplete(error) if request.partial => {
                report.left_out.push(LeftOut { object: object.object.to_string(), reason: error.to_string() });
            }
            Planned::Incomplete(error) => return Err(error),
        }
    }
    let is_local = to.starts_with("file://");
    let folders = folders_of(planned.iter().map(|(_, name, _, _)| name.as_str()));
    // An empty object whose name is a folder's is how some tools mark folders in a bucket; a file system has its own.
    let is_marker = |object: &ManifestObject, name: &str| is_local && object.size == 0 && folders.contains(name);
    let (mut objects, mut names) = (Vec::new(), Vec::new());
    for (object, name, bytes, splits) in &planned {
        if is_marker(object, name) {
            continue;
        }
        let was_compressed = is_compressed(object, *bytes);
        report.compressed += u64::from(was_compressed);
        let name = if request.recompress { name.as_str() } else { plain_name(name, object.compression) };
        names.push((name, object.object.as_str()));
        objects.push(RestoreObject {
            object: object.object.to_string(),
            version: object.version.to_string(),
            last_modified: object.last_modified,
            target: format!("{}/{name}", to.trim_end_matches('/')),
            records: None,
            packing: if request.recompress { packing_of(object) } else { Compression::None },
            bytes: *bytes,
            splits: splits.clone(),
        });
    }
    check_distinct(&names, is_local, "restore with --recompress, which keeps the names")?;
    Ok(objects)
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
fn plan_object(object: &ManifestObject, receipts: &HashMap<SmolStr, Receipt>, letters: &[DeadLetter]) -> Result<Planned> {
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
