//! The auditor: manifest, receipts and stored documents against each other and, if asked, the source bytes.
//!
//! Shallow: the identifying fields of every stored document are read and must match the receipts by digest, and the
//! receipts must cover every byte of every object once. Deep: every document is also decompressed and compared with the
//! source, byte for byte. A stored document without receipt, or the reverse, is always a finding.
//!
//! Stored documents are read once, in the order of the sink, and a split is settled as soon as it has as many as its receipt
//! says. So memory holds the facts of those splits only whose documents have begun to come and not all come: one for a dump,
//! about as many as were written at once for a collection, whatever the size of the job.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use ::bson::RawDocumentBuf;
use datafusion::execution::context::SessionContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use smol_str::SmolStr;

use super::JobRef;
use super::compare::{Compared, Sound, compare_split};
use super::dead_letter::DeadLetter;
use super::dispatch::perform_on_fleet;
use super::settle::{AuditedSplit, SettledSplit, VerifyTask};
use super::state::JobState;
use crate::cluster::client::Fleet;
use crate::connector::blob::Compression;
use crate::connector::kafka::KafkaSpec;
use crate::connector::receipt::{DocumentDigest, DocumentFacts, Receipt};
use crate::connector::source::SourceSpec;
use crate::connector::split::Split;
use crate::connector::stored::StoredSplit;
use crate::connector::{Fields, SinkSpec};
use crate::error::{Error, Result};
use crate::runtime::{self, Spawned};

/// Findings which are kept in words; the counts go on.
pub(crate) const FINDINGS_MAX: usize = 50;

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
    /// Splits which could not be compared, because their topic does not hold all of their records any more (deep).
    pub expired: u64,
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

    fn add(&mut self, compared: Compared) {
        self.compared_bytes += compared.bytes;
        self.missing += compared.missing;
        self.mismatched += compared.mismatched;
        self.expired += compared.expired;
        compared.findings.into_iter().for_each(|finding| self.note(finding));
    }
}

/// What is audited: the splits of a job, or of all micro-batches of a query, and what their receipts say.
#[derive(Debug)]
pub struct Audited {
    /// Name of the job or query.
    pub name: String,
    /// Whether all of it is committed.
    pub committed: bool,
    /// Its splits, by object and place.
    pub splits: Vec<Split>,
    /// Receipts by split.
    pub receipts: HashMap<SmolStr, Receipt>,
    /// Dead letters of all of them.
    pub letters: Vec<DeadLetter>,
    /// Where the documents are.
    pub sink: SinkSpec,
    /// Whether every byte or record of the input must be in a document.
    pub keeps_every_row: bool,
    /// How the topic was read, by split, where it was one.
    pub topics: HashMap<SmolStr, Arc<KafkaSpec>>,
    /// What is wrong with the whole, in words: each is something missing.
    pub gaps: Vec<String>,
}

impl Audited {
    /// A job, from its state.
    ///
    /// # Errors
    /// Config, when there is no such job or its documents do not carry their place; else what the store answers.
    pub async fn job(env: &RuntimeEnv, job: &JobRef) -> Result<Self> {
        let state = JobState::open(env, job)?;
        let manifest = state.manifest().await?;
        let manifest = manifest.ok_or_else(|| Error::config(format!("there is no job or query `{}` at {}", job.name, state.uri())))?;
        manifest.check_by_split()?;
        let splits: Vec<Split> = manifest.splits().collect();
        let topics = match &manifest.source {
            Some(SourceSpec::Kafka(spec)) => {
                let spec = Arc::new(spec.clone());
                splits.iter().map(|split| (split.id.clone(), Arc::clone(&spec))).collect()
            }
            _ => HashMap::new(),
        };
        Ok(Self {
            name: job.name.clone(),
            committed: state.commit().await?.is_some(),
            splits,
            receipts: state.receipts().await?,
            letters: state.dead_letters().await?,
            sink: manifest.sink,
            keeps_every_row: manifest.keeps_every_row,
            topics,
            gaps: Vec::new(),
        })
    }
}

/// Audits a job or query, on `fleet` or in this process. Reads only.
///
/// # Errors
/// What the stores answer. Findings are no errors: they are in the report.
pub async fn verify(context: &SessionContext, fleet: Option<&Fleet>, mut audited: Audited, deep: bool) -> Result<Report> {
    let env = context.runtime_env();
    let mut report = Report { job: audited.name.clone(), committed: audited.committed, ..Report::default() };
    if !report.committed {
        report.note("it is not committed; run it again to complete it".to_string());
    }
    audited.gaps.iter().for_each(|gap| report.missing(1, gap.clone()));
    report.splits = audited.splits.len() as u64;
    report.dead_letters = audited.letters.len() as u64;
    let audits = audit_receipts(&mut report, &mut audited);
    let mut walk = Walk::new(&audited.splits, audits, audited.keeps_every_row);
    let sink = audited.sink;
    let seen = match fleet {
        Some(fleet) => Some(settle_on_fleet(fleet, &mut report, &mut walk, &sink, deep).await?),
        None => None,
    };
    // On the I/O runtime, because what is stored comes from a server.
    runtime::spawn_io(async move {
        let documents = match seen {
            Some(seen) => sink.unseen(&env, &seen, report.documents).await?,
            None => sink.stored(&env, Fields::Facts).await?,
        };
        audit_documents(report, walk, documents, sink, env, deep).await
    })?
    .join()
    .await?
}

/// How the Ballista jobs of an audit are named: `<job> verify wave <n>`.
pub fn wave_name(job: &str) -> String {
    format!("{job} verify")
}

/// Has the fleet audit split by split; returns those which are sound. All others, and what belongs to no split, is left to the walk.
async fn settle_on_fleet(fleet: &Fleet, report: &mut Report, walk: &mut Walk, sink: &SinkSpec, deep: bool) -> Result<HashSet<SmolStr>> {
    let splits = walk.to_settle();
    let by_id: HashMap<SmolStr, usize> = splits.iter().map(|(index, audited)| (audited.split.id.clone(), *index)).collect();
    let task = VerifyTask { source: sink.clone(), deep };
    let items = splits.into_iter().map(|(_, audited)| audited).collect();
    // Without --deep only metadata is read, but a dump has to be read to its end for it.
    let work_of = |audited: &AuditedSplit| audited.split.length();
    let mut seen = HashSet::new();
    walk.comes_again = matches!(sink, SinkSpec::Mongodb(_));
    perform_on_fleet(fleet, &wave_name(&report.job), &task, items, work_of, |settled: Vec<SettledSplit>| {
        for settled in settled.into_iter().filter(|settled| settled.is_sound) {
            if let Some(index) = by_id.get(&settled.split)
                && seen.insert(settled.split)
            {
                report.documents += walk.mark_sound(*index);
                report.raw_bytes += settled.raw_bytes;
                report.add(settled.compared);
            }
        }
        Ok(())
    })
    .await?;
    Ok(seen)
}

/// A split with its receipt.
struct Audit {
    split: Split,
    receipt: Receipt,
    /// How its topic is read, if it is a range of one.
    topic: Option<Arc<KafkaSpec>>,
}

/// Receipts against the splits: each has one, and together they cover each object.
fn audit_receipts(report: &mut Report, audited: &mut Audited) -> Vec<Audit> {
    // Moved, not copied: there is one for each split.
    let mut receipts = std::mem::take(&mut audited.receipts);
    let Audited { splits, letters, keeps_every_row, topics, .. } = &*audited;
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
            if split.kafka_partition().is_some() {
                // Not every offset has a record, so a receipt may cover less than its range, and never more.
                if first < split.start || end > split.end {
                    report.mismatched(format!("{}: receipt {} reaches over its range of offsets", split.object, split.id));
                }
            } else if *keeps_every_row && receipt.dead_letters == 0 {
                if first > *covered {
                    report.missing(1, format!("{}: bytes {covered}–{first} are in no document", split.object));
                } else if first < *covered {
                    report.duplicate(1, format!("{}: bytes {first}–{covered} are in two splits", split.object));
                }
            }
            *covered = end;
        }
        audits.push(Audit { split: split.clone(), receipt, topic: topics.get(&split.id).cloned() });
    }
    for split in splits {
        let is_last = split.end == split.size && split.compression == Compression::None && split.kafka_partition().is_none();
        let covered = next.get(split.object.as_str()).copied().unwrap_or_default();
        if is_last && *keeps_every_row && covered != split.size && !excused.contains(split.id.as_str()) {
            report.missing(1, format!("{}: bytes {covered}–{} are in no document", split.object, split.size));
        }
    }
    for receipt in receipts.values() {
        report.mismatched(format!("receipt {} belongs to no split of the manifest", receipt.split));
    }
    audits
}

/// Reads stored documents to their end; with `deep`, compares each split with its source when it is settled.
async fn audit_documents(
    mut report: Report,
    mut walk: Walk,
    documents: BoxStream<'static, Result<RawDocumentBuf>>,
    sink: SinkSpec,
    env: Arc<RuntimeEnv>,
    deep: bool,
) -> Result<Report> {
    let mut comparing: VecDeque<Spawned<Result<Compared>>> = VecDeque::new();
    let mut documents = documents.fuse();
    loop {
        let settled = match documents.try_next().await? {
            Some(document) => walk.take(&mut report, DocumentFacts::read(document.as_bytes())?),
            None => match walk.settle_next(&mut report) {
                Some(settled) => Some(settled),
                None => break,
            },
        };
        let Some(sound) = settled.filter(|_| deep) else { continue };
        if comparing.len() >= runtime::cpu_threads()
            && let Some(first) = comparing.pop_front()
        {
            report.add(first.join().await??);
        }
        let (sink, env) = (sink.clone(), Arc::clone(&env));
        comparing.push_back(runtime::spawn_cpu(async move { compare_split(&sink, &env, sound).await })?);
    }
    for split in comparing {
        report.add(split.join().await??);
    }
    Ok(report)
}

/// An object of the job, as stored documents are held against it.
struct WalkedObject {
    version: SmolStr,
    /// First byte, byte after the last and index of those splits which have documents with a place.
    ranges: Vec<(u64, u64, usize)>,
}

/// Stored documents against the receipts, in whatever order they come.
struct Walk {
    audits: Vec<Audit>,
    objects: HashMap<SmolStr, WalkedObject>,
    /// By split: its documents so far, by offset.
    open: HashMap<usize, BTreeMap<i64, DocumentFacts>>,
    is_settled: Vec<bool>,
    /// The split from which on [`Self::settle_next`] looks.
    next: usize,
    keeps_every_row: bool,
    /// Whether documents of splits which were settled before the walk come in it again.
    comes_again: bool,
    /// Which splits were settled before the walk.
    is_seen: Vec<bool>,
}

impl Walk {
    fn new(splits: &[Split], audits: Vec<Audit>, keeps_every_row: bool) -> Self {
        let objects = splits.iter().map(|split| {
            let object = WalkedObject { version: split.version.clone(), ranges: Vec::new() };
            (split.object.clone(), object)
        });
        let mut objects: HashMap<SmolStr, WalkedObject> = objects.collect();
        for (index, Audit { split, receipt, .. }) in audits.iter().enumerate() {
            if let (Some(first), Some(end), Some(object)) = (receipt.first_byte, receipt.next_byte, objects.get_mut(&split.object)) {
                object.ranges.push((first, end, index));
            }
        }
        objects.values_mut().for_each(|object| object.ranges.sort_unstable());
        let is_settled = vec![false; audits.len()];
        let is_seen = is_settled.clone();
        Self { audits, objects, open: HashMap::new(), is_settled, next: 0, keeps_every_row, comes_again: false, is_seen }
    }

    /// Splits which can be settled by themselves, with their index: those whose receipt has a digest of all their documents. Those
    /// of topics are left to the walk: their documents do not name each other, because offsets have gaps.
    fn to_settle(&self) -> Vec<(usize, AuditedSplit)> {
        let is_alone = |audit: &Audit| audit.receipt.dead_letters == 0 && audit.topic.is_none();
        let audits = self.audits.iter().enumerate().filter(|(_, audit)| is_alone(audit));
        let audited = audits.filter_map(|(index, audit)| {
            let stored = StoredSplit::of_receipt(&audit.receipt)?;
            Some((index, AuditedSplit { split: audit.split.clone(), stored, ends_object: self.holds_all(audit) }))
        });
        audited.collect()
    }

    /// Takes a split for settled and sound; gives its documents.
    fn mark_sound(&mut self, index: usize) -> u64 {
        (self.is_settled[index], self.is_seen[index]) = (true, true);
        self.audits[index].receipt.documents
    }

    fn holds_all(&self, Audit { split, receipt, topic }: &Audit) -> bool {
        self.keeps_every_row && receipt.dead_letters == 0 && (topic.is_some() || split.end == split.size)
    }

    /// Takes a stored document; gives its split if it was the last one of it.
    fn take(&mut self, report: &mut Report, mut facts: DocumentFacts) -> Option<Sound> {
        let object = self.objects.get(facts.object.as_str()).filter(|object| facts.has_place() && object.version == facts.version);
        let Some(object) = object else {
            report.foreign += 1;
            return None;
        };
        let offset = facts.byte_offset as u64;
        let after = object.ranges.partition_point(|(first, _, _)| *first <= offset);
        let range = object.ranges[..after].last().filter(|(_, end, _)| offset < *end);
        let Some((_, _, index)) = range.copied() else {
            report.mismatched(format!("{}: document {} at byte {offset} has no receipt", facts.object, facts.id));
            return None;
        };
        if self.comes_again && self.is_seen[index] && facts.id == self.audits[index].split.document_id(offset) {
            return None;
        }
        if self.is_settled[index] || self.open.get(&index).is_some_and(|found| found.contains_key(&facts.byte_offset)) {
            report.duplicate(1, format!("{}: bytes from {offset} on are in two documents, one is {}", facts.object, facts.id));
            return None;
        }
        // Both are the split's, and need not be kept with every document.
        (facts.object, facts.version) = (String::new(), String::new());
        let found = self.open.entry(index).or_default();
        found.insert(facts.byte_offset, facts);
        let is_whole = found.len() as u64 == self.audits[index].receipt.documents;
        is_whole.then(|| self.settle(report, index))
    }

    /// After the last document: the next split which is not settled.
    fn settle_next(&mut self, report: &mut Report) -> Option<Sound> {
        self.next += self.is_settled[self.next..].iter().take_while(|is_settled| **is_settled).count();
        (self.next < self.audits.len()).then(|| self.settle(report, self.next))
    }

    /// Holds the documents of a split, which are all there or will not come any more, against its receipt.
    fn settle(&mut self, report: &mut Report, index: usize) -> Sound {
        self.is_settled[index] = true;
        let documents = self.open.remove(&index).unwrap_or_default();
        let Audit { split, receipt, topic } = &self.audits[index];
        let mut found: Vec<DocumentFacts> = Vec::with_capacity(documents.len());
        for facts in documents.into_values() {
            if found.last().is_some_and(|last| last.next_offset > facts.byte_offset) {
                let (object, offset) = (&split.object, facts.byte_offset);
                report.duplicate(1, format!("{object}: bytes from {offset} on are in two documents, one is {}", facts.id));
                continue;
            }
            found.push(facts);
        }
        report.documents += found.len() as u64;
        report.raw_bytes += found.iter().map(|facts| facts.original_size as u64).sum::<u64>();
        let (count, expected) = (found.len() as u64, receipt.documents);
        let mut digest = DocumentDigest::default();
        found.iter().for_each(|facts| digest.add(facts));
        let mut holds_all = self.holds_all(&self.audits[index]);
        if let (Some(first), Some(end)) = (receipt.first_byte, receipt.next_byte) {
            let place = format!("{} bytes {first}–{end}", split.object);
            if count < expected {
                report.missing(expected - count, format!("{place}: {} of {expected} documents are not stored", expected - count));
            } else if digest.finish() != receipt.digest && receipt.dead_letters == 0 {
                report.mismatched(format!("{place}: the stored documents are not those of receipt {}", split.id));
            }
        } else if expected > 0 {
            report.mismatched(format!("receipt {}: its documents do not carry their place", split.id));
            holds_all = false;
        }
        Sound { split: split.clone(), documents: found, holds_all, topic: topic.clone() }
    }
}

#[cfg(test)]
mod tests;
