//! Documents → what they hold, piece by piece, into an object or a topic. Before: [`RestoreObject`]; after: its content, in order.
//!
//! Reading, inflating and writing overlap: documents of several splits are read ahead by tasks of their own, a group of them is
//! inflated on the compression pool, and the group before is on its way to the target. Each of these holds a few MiB.

use std::collections::VecDeque;
use std::sync::Arc;

use ::bson::RawDocumentBuf;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::{StreamExt, TryStreamExt};

use super::RestoreObject;
use super::cursor::{Group, SplitCursor};
use super::records::Layout;
use super::single::framed_record;
use crate::connector::kafka::unit_of;
use crate::connector::receipt::DocumentFacts;
use crate::connector::stored::StoredSplit;
use crate::connector::{Fields, SinkSpec};
use crate::error::{Error, Result};
use crate::function::pool::in_pool;
use crate::job::payload::raw_bytes;
use crate::runtime::{self, Spawned};
use crate::telemetry::COUNTERS;

/// Tasks of the pool for one group: enough for all cores, few where the documents are small.
const GROUP_TASKS: usize = 32;
/// Groups which are inflated while another is written.
pub(crate) const GROUPS_AHEAD: usize = 1;
/// Splits whose documents are read at once: hides the round trips of a chain of documents.
pub(crate) const SPLITS_AHEAD: usize = 4;

/// What one document holds.
#[derive(Debug)]
pub(super) struct Piece {
    /// Its `_id`, for errors.
    pub(super) id: String,
    /// How many records it says it holds; 0 if it does not say.
    pub(super) records: i64,
    /// Its raw bytes.
    pub(super) bytes: Bytes,
}

/// Takes the content of an object.
#[async_trait]
pub(super) trait Taker: Send {
    /// Takes the next pieces.
    ///
    /// # Errors
    /// As the target's.
    async fn take(&mut self, pieces: Vec<Piece>) -> Result<()>;

    /// All pieces of a split were taken, and are those of its receipt. `next` is the offset behind it.
    ///
    /// # Errors
    /// As the target's.
    async fn end_split(&mut self, next: u64) -> Result<()>;
}

/// What is to be written next.
enum Step {
    Pieces(Spawned<Result<Vec<Piece>>>),
    EndOfSplit(u64),
}

/// Hands the content of an object's splits to `taker`, from offset `from` on; returns how many documents it was.
///
/// # Errors
/// Conflict, when the documents have a hole; Decode, when one of them is damaged; else as the stores'.
pub(super) async fn hand_over(
    sink: &SinkSpec,
    env: &Arc<RuntimeEnv>,
    object: &RestoreObject,
    from: u64,
    taker: &mut impl Taker,
) -> Result<u64> {
    let open = |split: StoredSplit| {
        let (sink, env, name, version) = (sink.clone(), Arc::clone(env), object.object.clone(), object.version.clone());
        async move { Ok::<_, Error>((sink.split_documents(&env, &name, &version, &split, Fields::All)?, split)) }
    };
    let wanted: Vec<StoredSplit> = object.splits.iter().filter(|split| split.next > from).cloned().collect();
    let mut splits = futures::stream::iter(wanted).map(open).buffered(SPLITS_AHEAD);
    let mut steps: VecDeque<Step> = VecDeque::new();
    let (mut documents, mut inflating) = (0, 0);
    while let Some((stored, split)) = splits.try_next().await? {
        let mut cursor = SplitCursor::new(object, &split, stored);
        while let Some(group) = cursor.next_group().await? {
            let (name, layout) = (object.object.clone(), object.records);
            steps.push_back(Step::Pieces(runtime::spawn_blocking(move || inflate(&name, layout, &group))?));
            inflating += 1;
            while inflating > GROUPS_AHEAD {
                inflating -= usize::from(write_next(&mut steps, taker).await?);
            }
        }
        documents += cursor.documents;
        cursor.expect_whole()?;
        steps.push_back(Step::EndOfSplit(split.next));
    }
    while !steps.is_empty() {
        write_next(&mut steps, taker).await?;
    }
    Ok(documents)
}

/// Writes what comes first; returns whether it was a group.
async fn write_next(steps: &mut VecDeque<Step>, taker: &mut impl Taker) -> Result<bool> {
    match steps.pop_front() {
        None => Ok(false),
        Some(Step::EndOfSplit(next)) => taker.end_split(next).await.map(|()| false),
        Some(Step::Pieces(group)) => {
            let pieces = group.join().await??;
            let bytes = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
            taker.take(pieces).await?;
            COUNTERS.restored_bytes.add(bytes);
            Ok(true)
        }
    }
}

/// What documents hold, in parallel; each is proven by its sizes and checksum.
fn inflate(object: &str, layout: Option<Layout>, group: &Group) -> Result<Vec<Piece>> {
    let inflate_one = |_place: usize, (facts, document): &(DocumentFacts, RawDocumentBuf)| {
        let bytes = match layout {
            Some(Layout::Single { must_be_whole }) => framed_record(document, facts, must_be_whole),
            Some(Layout::Packed(_)) | None => raw_bytes(document, facts),
        };
        let bytes = bytes.map_err(|reason| {
            Error::decode(format!("{object} {} {}: document {} {reason}", unit_of(object), facts.byte_offset, facts.id))
        })?;
        Ok(Piece { id: facts.id.clone(), records: facts.records, bytes: bytes.into() })
    };
    // Not the first error that some thread meets but that of the lowest offset.
    in_pool(group, group.len().div_ceil(GROUP_TASKS), inflate_one)?.into_iter().collect()
}
