//! The auditor: manifest, receipts and stored documents against each other and, if asked, the source bytes.
//!
//! Shallow: the identifying fields of every stored document are read and must match the receipts by digest, and the
//! receipts must cover every byte of every object once. Deep: every document is also decompressed and compared with the
//! source, byte for byte. A stored document without receipt, or the reverse, is always a finding.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::sync::Arc;

use ::bson::RawDocumentBuf;
use datafusion::execution::context::SessionContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::JobRef;
use super::dead_letter::DeadLetter;
use super::manifest::Manifest;
use super::state::JobState;
use crate::connector::blob::Compression;
use crate::connector::blob::read::{Block, BlockShape, BlockStream};
use crate::connector::blob::scan::{document_id, open_split};
use crate::connector::receipt::{DocumentDigest, DocumentFacts, Receipt};
use crate::connector::split::Split;
use crate::connector::{Fields, SinkSpec};
use crate::error::{Error, Result};
use crate::runtime;
use crate::store::locate;

/// Findings which are kept in words; the counts go on.
const FINDINGS_MAX: usize = 50;

/// What the audit found. The job is sound if `missing`, `duplicate` and `mismatched` are 0 and it is committed.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Report {
    /// Name of the job.
    pub job: String,
    /// Whether the job is committed.
    pub committed: bool,
    /// Splits of the job.
    pub splits: u64,
    /// Splits with a receipt.
    pub splits_done: u64,
    /// Documents of the job which are stored.
    pub documents: u64,
    /// Sum of their `original_size`.
    pub raw_bytes: u64,
    /// Documents, or byte ranges of the source, which should be stored and are not.
    pub missing: u64,
    /// Documents which are stored more than once, or overlap.
    pub duplicate: u64,
    /// Documents or splits whose content is not what the receipt or the source says.
    pub mismatched: u64,
    /// Dead letters: input which is knowingly in no document.
    pub dead_letters: u64,
    /// Documents at the target which are no part of this job.
    pub foreign: u64,
    /// Source bytes which were compared (deep).
    pub compared_bytes: u64,
    /// The first findings, in words.
    pub findings: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.committed && self.missing == 0 && self.duplicate == 0 && self.mismatched == 0
    }

    fn note(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    fn missing(&mut self, count: u64, finding: String) {
        self.missing += count;
        self.note(finding);
    }

    fn duplicate(&mut self, count: u64, finding: String) {
        self.duplicate += count;
        self.note(finding);
    }

    fn mismatched(&mut self, finding: String) {
        self.mismatched += 1;
        self.note(finding);
    }
}

/// Audits a job. Reads only.
///
/// # Errors
/// Config, when there is no such job or its documents do not carry their place; else what the stores answer. Findings are
/// no errors: they are in the report.
pub async fn verify(context: &SessionContext, job: &JobRef, deep: bool) -> Result<Report> {
    let env = context.runtime_env();
    let state = JobState::open(&env, job)?;
    let manifest = state.manifest().await?;
    let manifest = manifest.ok_or_else(|| Error::config(format!("there is no job `{}` at {}", job.name, state.uri())))?;
    if !manifest.by_split {
        return Err(Error::config(format!(
            "job `{}` did not run split by split, so its documents cannot be traced to their source",
            job.name
        )));
    }
    let receipts = state.receipts().await?;
    let letters = state.dead_letters().await?;
    let mut report = Report { job: job.name.clone(), committed: state.commit().await?.is_some(), ..Report::default() };
    if !report.committed {
        report.note("the job is not committed; run it again to complete it".to_string());
    }
    let splits = manifest.splits();
    report.splits = splits.len() as u64;
    report.dead_letters = letters.len() as u64;
    let audits = audit_receipts(&mut report, &manifest, &splits, receipts, &letters);
    let stored = collect_facts(&manifest.sink, &env, &splits).await?;
    report.foreign = stored.foreign;
    let sound = audit_documents(&mut report, &manifest, &audits, stored.by_object);
    if deep {
        compare_with_source(&mut report, &manifest, &env, sound).await?;
    }
    Ok(report)
}

/// A split with its receipt.
#[derive(Clone)]
struct Audit {
    split: Split,
    receipt: Receipt,
}

/// Receipts against the manifest: each split has one, and together they cover each object.
fn audit_receipts(
    report: &mut Report,
    manifest: &Manifest,
    splits: &[Split],
    mut receipts: HashMap<String, Receipt>,
    letters: &[DeadLetter],
) -> Vec<Audit> {
    let mut audits = Vec::new();
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    let mut excused: HashSet<&str> =
        letters.iter().filter(|letter| letter.byte_offset.is_some()).map(|letter| letter.split.as_str()).collect();
    for split in splits {
        let covered = next.entry(&split.object).or_default();
        let Some(receipt) = receipts.remove(&split.id) else {
            report.missing(1, format!("{} bytes {}–{}: no receipt", split.object, split.start, split.end));
            *covered = split.end;
            continue;
        };
        report.splits_done += 1;
        if receipt.dead_letters > 0 {
            excused.insert(&split.id);
        }
        if let (Some(first), Some(end)) = (receipt.first_byte, receipt.next_byte) {
            if manifest.keeps_every_row && receipt.dead_letters == 0 {
                if first > *covered {
                    report.missing(1, format!("{}: bytes {covered}–{first} are in no document", split.object));
                } else if first < *covered {
                    report.duplicate(1, format!("{}: bytes {first}–{covered} are in two splits", split.object));
                }
            }
            *covered = end;
        }
        audits.push(Audit { split: split.clone(), receipt });
    }
    for split in splits {
        let is_last = split.end == split.size && split.compression == Compression::None;
        let covered = next.get(split.object.as_str()).copied().unwrap_or_default();
        if is_last && manifest.keeps_every_row && covered != split.size && !excused.contains(split.id.as_str()) {
            report.missing(1, format!("{}: bytes {covered}–{} are in no document", split.object, split.size));
        }
    }
    for receipt in receipts.values() {
        report.mismatched(format!("receipt {} belongs to no split of the manifest", receipt.split));
    }
    audits
}

/// Stored documents by object, sorted by offset.
#[derive(Default)]
struct Stored {
    by_object: HashMap<String, Vec<DocumentFacts>>,
    foreign: u64,
}

async fn collect_facts(sink: &SinkSpec, env: &Arc<RuntimeEnv>, splits: &[Split]) -> Result<Stored> {
    let versions: HashMap<String, String> = splits.iter().map(|split| (split.object.clone(), split.version.clone())).collect();
    let (sink, env) = (sink.clone(), Arc::clone(env));
    runtime::spawn_io(async move {
        let mut documents = sink.stored(&env, Fields::Facts).await?;
        let mut stored = Stored::default();
        while let Some(document) = documents.try_next().await? {
            let facts = DocumentFacts::read(document.as_bytes())?;
            if facts.has_place() && versions.get(&facts.object) == Some(&facts.version) {
                stored.by_object.entry(facts.object.clone()).or_default().push(facts);
            } else {
                stored.foreign += 1;
            }
        }
        for documents in stored.by_object.values_mut() {
            documents.sort_by_key(|facts| facts.byte_offset);
        }
        Ok(stored)
    })?
    .join()
    .await?
}

/// A split whose stored documents match its receipt.
struct Sound {
    split: Split,
    /// In order of offset.
    documents: Vec<DocumentFacts>,
    /// Whether these documents must reach to the end of the object if it is one compressed stream.
    ends_object: bool,
}

/// Stored documents against the receipts.
fn audit_documents(
    report: &mut Report,
    manifest: &Manifest,
    audits: &[Audit],
    mut stored: HashMap<String, Vec<DocumentFacts>>,
) -> Vec<Sound> {
    let is_complete = |audit: &Audit| manifest.keeps_every_row && audit.receipt.dead_letters == 0 && audit.split.end == audit.split.size;
    let mut sound = Vec::new();
    let mut by_object: BTreeMap<&str, Vec<&Audit>> = BTreeMap::new();
    for audit in audits {
        by_object.entry(&audit.split.object).or_default().push(audit);
    }
    for (object, audits) in by_object {
        let mut documents = stored.remove(object).unwrap_or_default().into_iter().peekable();
        for audit in audits {
            let (Some(first), Some(end)) = (audit.receipt.first_byte, audit.receipt.next_byte) else {
                if audit.receipt.documents > 0 {
                    report.mismatched(format!("receipt {}: its documents do not carry their place", audit.split.id));
                } else {
                    sound.push(Sound { split: audit.split.clone(), documents: Vec::new(), ends_object: is_complete(audit) });
                }
                continue;
            };
            while let Some(stray) = documents.next_if(|facts| (facts.byte_offset as u64) < first) {
                report.mismatched(format!("{object}: document {} at byte {} has no receipt", stray.id, stray.byte_offset));
            }
            let mut found: Vec<DocumentFacts> = Vec::new();
            while let Some(facts) = documents.next_if(|facts| (facts.byte_offset as u64) < end) {
                if found.last().is_some_and(|last| last.byte_offset + last.original_size > facts.byte_offset) {
                    report.duplicate(1, format!("{object}: bytes from {} on are in two documents, one is {}", facts.byte_offset, facts.id));
                    continue;
                }
                found.push(facts);
            }
            report.documents += found.len() as u64;
            report.raw_bytes += found.iter().map(|facts| facts.original_size as u64).sum::<u64>();
            let expected = audit.receipt.documents;
            let mut digest = DocumentDigest::default();
            found.iter().for_each(|facts| digest.add(facts));
            if (found.len() as u64) < expected {
                let count = expected - found.len() as u64;
                report.missing(count, format!("{object} bytes {first}–{end}: {count} of {expected} documents are not stored"));
            } else if digest.finish() != audit.receipt.digest && audit.receipt.dead_letters == 0 {
                report
                    .mismatched(format!("{object} bytes {first}–{end}: the stored documents are not those of receipt {}", audit.split.id));
            }
            sound.push(Sound { split: audit.split.clone(), documents: found, ends_object: is_complete(audit) });
        }
        for stray in documents {
            report.mismatched(format!("{object}: document {} at byte {} has no receipt", stray.id, stray.byte_offset));
        }
    }
    sound
}

/// Every document, decompressed, against the source; splits in parallel.
async fn compare_with_source(report: &mut Report, manifest: &Manifest, env: &Arc<RuntimeEnv>, sound: Vec<Sound>) -> Result<()> {
    let compared = futures::stream::iter(sound)
        .map(|split| {
            let (sink, env) = (manifest.sink.clone(), Arc::clone(env));
            async move { runtime::spawn_cpu(async move { compare_split(&sink, &env, split).await })?.join().await? }
        })
        .buffer_unordered(runtime::cpu_threads());
    let compared: Vec<Compared> = compared.try_collect().await?;
    for split in compared {
        report.compared_bytes += split.bytes;
        report.missing += split.missing;
        report.mismatched += split.mismatched;
        split.findings.into_iter().for_each(|finding| report.note(finding));
    }
    Ok(())
}

#[derive(Default)]
struct Compared {
    bytes: u64,
    missing: u64,
    mismatched: u64,
    findings: Vec<String>,
}

/// Documents fetched from a server at once: 32 of at most 16 MiB.
const FETCH_DOCS: usize = 32;

async fn compare_split(sink: &SinkSpec, env: &Arc<RuntimeEnv>, sound: Sound) -> Result<Compared> {
    let Sound { split, documents, ends_object } = sound;
    let mut compared = Compared::default();
    // Only a split which begins at 0 can be compressed, and a stream has to be decoded from its beginning.
    let from = if split.start == 0 { 0 } else { documents.first().map_or(split.size, |first| first.byte_offset as u64) };
    if from == split.size {
        return Ok(compared);
    }
    let location = locate(env, &split.object)?;
    let shape = BlockShape { headroom: 0, block_bytes: 4 << 20 };
    let (blocks, _) = open_split(location, &split, from, shape).await?;
    let mut source = SourceCursor { blocks, block: None, position: from, is_at_end: false };
    // A dump is read as one stream in its own order; a server is asked for a few documents at a time.
    let group = if matches!(sink, SinkSpec::Bson(_)) { documents.len().max(1) } else { FETCH_DOCS };
    for wanted in documents.chunks(group) {
        let ids: Vec<String> = wanted.iter().map(|facts| facts.id.clone()).collect();
        let (sink, env_io, part) = (sink.clone(), Arc::clone(env), split.id.clone());
        let mut stored = runtime::spawn_io(async move { sink.fetch(&env_io, &part, &ids).await })?.join().await??;
        let mut early: HashMap<String, RawDocumentBuf> = HashMap::new();
        for facts in wanted {
            while !early.contains_key(&facts.id) {
                let Some(document) = stored.try_next().await? else { break };
                early.insert(DocumentFacts::read(document.as_bytes())?.id, document);
            }
            let Some(document) = early.remove(&facts.id) else {
                compared.missing += 1;
                compared.findings.push(format!("{}: document {} is not stored any more", split.object, facts.id));
                continue;
            };
            match compare_document(&split, facts, &document, &mut source).await? {
                Some(finding) => {
                    compared.mismatched += 1;
                    compared.findings.push(finding);
                }
                None => compared.bytes += facts.original_size as u64,
            }
        }
    }
    // How long a compressed object is tells only its decoder, so only here can an end that is missing be seen.
    if ends_object && source.bytes_here().await?.is_some() {
        compared.missing += 1;
        compared.findings.push(format!("{}: the bytes from {} on are in no document", split.object, source.position));
    }
    Ok(compared)
}

/// What is wrong with one document, if anything.
async fn compare_document(
    split: &Split,
    facts: &DocumentFacts,
    document: &RawDocumentBuf,
    source: &mut SourceCursor,
) -> Result<Option<String>> {
    let name = format!("{} byte {}: document {}", split.object, facts.byte_offset, facts.id);
    if facts.id != document_id(split, facts.byte_offset as u64) {
        return Ok(Some(format!("{name} does not have the _id of its place")));
    }
    let data = document.get("data").ok().flatten().and_then(|value| value.as_binary());
    let Some(data) = data else { return Ok(Some(format!("{name} has no binary field `data`"))) };
    let raw = match inflate(document, data.bytes, facts.original_size as u64) {
        Ok(raw) => raw,
        Err(error) => return Ok(Some(format!("{name}: {error}"))),
    };
    if raw.len() as i64 != facts.original_size {
        return Ok(Some(format!("{name} holds {} bytes, not {}", raw.len(), facts.original_size)));
    }
    if data.bytes.len() as i64 != facts.compressed_size || i64::from(crc32fast::hash(&raw)) != facts.crc32 {
        return Ok(Some(format!("{name}: its compressed_size or crc32 is not that of its data")));
    }
    if !source.matches(facts.byte_offset as u64, &raw).await? {
        return Ok(Some(format!("{name} is not what the source holds there")));
    }
    Ok(None)
}

fn inflate(document: &RawDocumentBuf, data: &[u8], original_size: u64) -> std::result::Result<Vec<u8>, String> {
    match document.get_str("codec") {
        Ok("zlib") => {
            let mut raw = Vec::with_capacity(original_size.min(64 << 20) as usize);
            // One byte more than expected, so that a longer stream is noticed and a bomb is not inflated.
            let mut decoder = flate2::read::ZlibDecoder::new(data).take(original_size + 1);
            decoder.read_to_end(&mut raw).map_err(|e| format!("its data does not inflate: {e}"))?;
            Ok(raw)
        }
        Ok(method) => crate::function::codec::decompress_value(method, data, original_size).map_err(|e| e.to_string()),
        Err(_) => Err("it has no field `codec`".to_string()),
    }
}

/// Reads a source forward and compares.
struct SourceCursor {
    blocks: BlockStream,
    block: Option<Block>,
    position: u64,
    is_at_end: bool,
}

impl SourceCursor {
    /// Whether the source holds exactly `expected` at `offset`, which must not lie behind what was read.
    async fn matches(&mut self, offset: u64, expected: &[u8]) -> Result<bool> {
        if offset < self.position {
            return Ok(false);
        }
        self.position = offset;
        let mut rest = expected;
        while !rest.is_empty() {
            let Some(here) = self.bytes_here().await? else { return Ok(false) };
            let count = here.len().min(rest.len());
            if here[..count] != rest[..count] {
                return Ok(false);
            }
            rest = &rest[count..];
            self.position += count as u64;
        }
        Ok(true)
    }

    /// The bytes from the present position to the end of its block.
    async fn bytes_here(&mut self) -> Result<Option<&[u8]>> {
        while !self.is_at_end && self.block.as_ref().is_none_or(|block| block.offset + block.bytes().len() as u64 <= self.position) {
            match self.blocks.next().await {
                Some(block) => self.block = Some(block?),
                None => self.is_at_end = true,
            }
        }
        let position = self.position;
        let here = self.block.as_ref().filter(|block| block.offset + block.bytes().len() as u64 > position);
        Ok(here.map(|block| &block.bytes()[(position - block.offset) as usize..]))
    }
}
