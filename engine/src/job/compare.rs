//! `verify --deep`: the documents of one split against the bytes of its source.

use std::collections::HashMap;
use std::sync::Arc;

use ::bson::RawDocumentBuf;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::payload::raw_bytes;
use crate::connector::SinkSpec;
use crate::connector::blob::read::{Block, BlockShape, BlockStream};
use crate::connector::blob::scan::{document_id, open_split};
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
    /// Whether these documents must reach to the end of the object if it is one compressed stream.
    pub ends_object: bool,
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
    if facts.id != document_id(&split.object, &split.version, facts.byte_offset as u64) {
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
