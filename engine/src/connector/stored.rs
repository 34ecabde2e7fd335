//! What a sink holds of one split, and how it is read ahead. Before: a split's receipt; after: its documents in order of offset.

use ::bson::RawDocumentBuf;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use tokio::sync::mpsc;

use super::receipt::Receipt;
use crate::error::Result;
use crate::runtime;

/// Documents which are read ahead of their reader; each is at most 16 MiB, so a queue of them holds little.
pub(crate) const DOCUMENTS_AHEAD: usize = 4;

/// The documents of a split as its receipt has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSplit {
    /// Id of the split, which also names its part of a dump.
    pub id: SmolStr,
    /// First byte of its first document.
    pub first: u64,
    /// Byte after its last document.
    pub next: u64,
    /// How many there are.
    pub documents: u64,
    /// [`super::receipt::DocumentDigest`] over them.
    pub digest: String,
}

impl StoredSplit {
    /// What a receipt says; `None` if the split has no document which carries its place.
    pub fn of_receipt(receipt: &Receipt) -> Option<Self> {
        let (first, next) = (receipt.first_byte?, receipt.next_byte?);
        Some(Self { id: receipt.split.clone(), first, next, documents: receipt.documents, digest: receipt.digest.clone() })
    }
}

/// Where [`in_background`] sends what it reads.
pub(crate) type DocumentSender = mpsc::Sender<Result<RawDocumentBuf>>;

/// Documents which `read` sends from a task of the I/O runtime, at most [`DOCUMENTS_AHEAD`] before they are asked for. A task which fails
/// ends the stream with its error, never as if all had been read.
///
/// # Errors
/// As [`runtime::io`].
pub(crate) fn in_background<F>(read: impl FnOnce(DocumentSender) -> F) -> Result<BoxStream<'static, Result<RawDocumentBuf>>>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(DOCUMENTS_AHEAD);
    let task = runtime::spawn_io(read(sender))?;
    let documents = futures::stream::unfold((receiver, Some(task)), |(mut receiver, mut task)| async move {
        if let Some(document) = receiver.recv().await {
            return Some((document, (receiver, task)));
        }
        let ended = task.take()?.join().await.and_then(|ended| ended);
        ended.err().map(|error| (Err(error), (receiver, None)))
    });
    // Readers ask again after the end.
    Ok(documents.fuse().boxed())
}
