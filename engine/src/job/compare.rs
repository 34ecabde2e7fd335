//! `verify --deep`: the documents of one split against the bytes of its source.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ::bson::RawDocumentBuf;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::compare_records::compare_records;
use super::payload::raw_bytes;
use crate::connector::SinkSpec;
use crate::connector::blob::block::{Block, BlockShape};
use crate::connector::blob::read::BlockStream;
use crate::connector::blob::scan::open_split;
use crate::connector::kafka::KafkaSpec;
use crate::connector::receipt::DocumentFacts;
use crate::connector::split::Split;
use crate::error::Result;
use crate::runtime;
use crate::store::locate;

/// A split with those of its stored documents which have their place in it.
#[derive(Debug)]
pub(super) struct Sound {
    /// The split.
    pub split: Split,
    /// In order of offset.
    pub documents: Vec<DocumentFacts>,
    /// Whether they must hold all there is: every record of a range, or the bytes up to the end of an object that is one compressed
    /// stream.
    pub holds_all: bool,
    /// How the topic is read, if the split is a range of one.
    pub topic: Option<Arc<KafkaSpec>>,
}

/// What the comparison of one split found.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Compared {
    /// Source bytes which were compared.
    pub bytes: u64,
    /// Documents, or ends of objects, which are not stored.
    pub missing: u64,
    /// Documents whose content is not the source's.
    pub mismatched: u64,
    /// Splits which could not be compared, because their topic does not hold all of their records any more.
    pub expired: u64,
    /// All of them, in words.
    pub findings: Vec<String>,
}

/// Documents fetched from a server at once: 32 of at most 16 MiB.
const FETCH_DOCS: usize = 32;

/// Every document of a split, decompressed, against the source.
///
/// # Errors
/// What the stores answer.
pub(super) async fn compare_split(sink: &SinkSpec, env: &Arc<RuntimeEnv>, sound: Sound) -> Result<Compared> {
    if let Some(topic) = sound.topic.clone() {
        return compare_records(sink, env, sound, &topic).await;
    }
    let Sound { split, documents, holds_all, topic: _ } = sound;
    let mut compared = Compared::default();
    // Only a split which begins at 0 can be compressed, and a stream has to be decoded from its beginning.
    let from = if split.start == 0 { 0 } else { documents.first().map_or(split.size, |first| first.byte_offset as u64) };
    if from == split.size {
        return Ok(compared);
    }
    let location = locate(env, &split.object)?;
    let shape = BlockShape { headroom: 0, block_bytes: 4 << 20, counts_feeds: false };
    let (blocks, _) = open_split(location, &split, from, shape).await?;
    let mut source = SourceCursor { blocks, block: None, position: from, is_at_end: false };
    let mut stored = StoredDocuments::new(sink, env, &split, documents);
    while let Some((facts, document)) = stored.next().await? {
        let Some(document) = document else {
            compared.note_missing(format!("{}: document {} is not stored any more", split.object, facts.id));
            continue;
        };
        match compare_document(&split, &facts, &document, &mut source).await? {
            Some(finding) => compared.note_mismatched(finding),
            None => compared.bytes += facts.original_size as u64,
        }
    }
    // How long a compressed object is tells only its decoder, so only here can an end that is missing be seen.
    if holds_all && source.bytes_here().await?.is_some() {
        compared.note_missing(format!("{}: the bytes from {} on are in no document", split.object, source.position));
    }
    Ok(compared)
}

/// The documents of a split with their payload, in order of offset.
pub(super) struct StoredDocuments {
    sink: SinkSpec,
    env: Arc<RuntimeEnv>,
    part: String,
    wanted: VecDeque<DocumentFacts>,
    /// Of these, how many still come from `stored`.
    open: usize,
    stored: BoxStream<'static, Result<RawDocumentBuf>>,
    /// What came before it was asked for.
    early: HashMap<String, RawDocumentBuf>,
}

impl StoredDocuments {
    pub(super) fn new(sink: &SinkSpec, env: &Arc<RuntimeEnv>, split: &Split, documents: Vec<DocumentFacts>) -> Self {
        let (stored, early) = (futures::stream::empty().boxed(), HashMap::new());
        Self { sink: sink.clone(), env: Arc::clone(env), part: split.id.to_string(), wanted: documents.into(), open: 0, stored, early }
    }

    /// The next document, or `None` in its place if it is not stored any more; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<(DocumentFacts, Option<RawDocumentBuf>)>> {
        if self.open == 0 && !self.wanted.is_empty() {
            self.fetch().await?;
        }
        let Some(facts) = self.wanted.pop_front() else { return Ok(None) };
        self.open -= 1;
        while !self.early.contains_key(&facts.id) {
            let Some(document) = self.stored.try_next().await? else { break };
            self.early.insert(DocumentFacts::read(document.as_bytes())?.id, document);
        }
        let document = self.early.remove(&facts.id);
        Ok(Some((facts, document)))
    }

    async fn fetch(&mut self) -> Result<()> {
        // A dump is read as one stream in its own order; a server is asked for a few documents at a time.
        let group = if matches!(self.sink, SinkSpec::Bson(_)) { self.wanted.len() } else { FETCH_DOCS.min(self.wanted.len()) };
        let ids: Vec<String> = self.wanted.iter().take(group).map(|facts| facts.id.clone()).collect();
        let (sink, env, part) = (self.sink.clone(), Arc::clone(&self.env), self.part.clone());
        self.stored = runtime::spawn_io(async move { sink.fetch(&env, &part, &ids).await })?.join().await??;
        self.early.clear();
        self.open = group;
        Ok(())
    }
}

impl Compared {
    pub(super) fn note_missing(&mut self, finding: String) {
        self.missing += 1;
        self.findings.push(finding);
    }

    pub(super) fn note_mismatched(&mut self, finding: String) {
        self.mismatched += 1;
        self.findings.push(finding);
    }
}

/// What is wrong with one document, if anything.
async fn compare_document(
    split: &Split,
    facts: &DocumentFacts,
    document: &RawDocumentBuf,
    source: &mut SourceCursor,
) -> Result<Option<String>> {
    let name = format!("{} byte {}: document {}", split.object, facts.byte_offset, facts.id);
    if facts.id != split.document_id(facts.byte_offset as u64) {
        return Ok(Some(format!("{name} does not have the _id of its place")));
    }
    let raw = match raw_bytes(document, facts) {
        Ok(raw) => raw,
        Err(reason) => return Ok(Some(format!("{name} {reason}"))),
    };
    if !source.matches(facts.byte_offset as u64, &raw).await? {
        return Ok(Some(format!("{name} is not what the source holds there")));
    }
    Ok(None)
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
