//! What the documents would be, on a sample: the query is run over a few pieces of the input, and its rows are encoded.

use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::DmlStatement;
use futures::StreamExt;

use super::Report;
use super::source::Input;
use crate::connector::SinkSpec;
use crate::connector::blob::Compression;
use crate::connector::document::{DOCUMENT_BYTES_MAX, DocumentEncoder};
use crate::connector::source::SourceSpec;
use crate::connector::split::Split;
use crate::error::Result;
use crate::job::run::pin_query;
use crate::options::format_bytes;

/// Bytes, or records, which are read of a piece.
const PIECE_BYTES: u64 = 4 << 20;
const PIECE_RECORDS: u64 = 4096;
/// A piece which cannot be read in part, because it is compressed, is left after so many bytes of documents.
const DOCUMENT_BYTES: usize = 4 << 20;

/// What was seen, and what follows of it for the whole input.
pub(super) struct Forecast {
    /// Bytes of all documents.
    pub(super) stored_bytes: u64,
}

#[derive(Default)]
struct Seen {
    documents: usize,
    bytes: usize,
    largest: usize,
    refused: Option<String>,
    /// Of the pieces which were read wholly: bytes of the documents, and of the input as stored, or offsets. How much of a compressed object was
    /// read is not known.
    whole_bytes: usize,
    whole_length: u64,
}

/// Runs the query over a sample and measures its documents.
pub(super) async fn check(
    context: &SessionContext,
    insert: &DmlStatement,
    sink: &SinkSpec,
    input: &Input,
    report: &mut Report,
) -> Option<Forecast> {
    let mut seen = Seen::default();
    for split in &input.samples {
        if let Err(error) = add_piece(context, insert, &input.source, split, &mut seen).await {
            report.fail("documents", &error);
            return None;
        }
    }
    let Seen { documents, bytes, largest, refused, whole_bytes, whole_length } = seen;
    if let Some(reason) = refused {
        let remedy = if sink.keeps_dead_letters() {
            "they become dead letters; take a smaller chunk size to store them"
        } else {
            "take a smaller blob.chunk_size or kafka.chunk_size, or on_error 'dead_letter'"
        };
        report.bad("documents", format!("some cannot be stored: {reason}"), remedy);
    }
    if documents == 0 {
        report.warn("documents", "the query yields no row of the sample", "check its filter, if that is not what was meant");
        return None;
    }
    let mean = bytes / documents;
    let size =
        format!("{documents} of a sample have {} on average and {} at most", format_bytes(mean as u64), format_bytes(largest as u64));
    if largest > DOCUMENT_BYTES_MAX / 2 {
        report.warn("documents", size, "MongoDB's limit is 16 MiB; take a smaller chunk size");
    } else {
        report.good("documents", size);
    }
    let share = input.length as f64 / whole_length.max(1) as f64;
    (whole_length > 0).then_some(Forecast { stored_bytes: (whole_bytes as f64 * share) as u64 })
}

async fn add_piece(context: &SessionContext, insert: &DmlStatement, source: &SourceSpec, split: &Split, seen: &mut Seen) -> Result<()> {
    let mut piece = split.clone();
    let is_partial = !matches!(split.compression, Compression::None | Compression::Auto);
    if !is_partial {
        let most = if matches!(source, SourceSpec::Kafka(_)) { PIECE_RECORDS } else { PIECE_BYTES };
        piece.end = piece.end.min(piece.start + most);
    }
    let length = piece.length();
    let query = pin_query(insert, &[vec![piece]])?;
    let mut rows = context.execute_logical_plan(query).await?.execute_stream().await?;
    let encoder = DocumentEncoder::try_new(&rows.schema())?;
    let before = seen.bytes;
    while let Some(batch) = rows.next().await {
        let documents = encoder.encode(&batch?)?;
        seen.documents += documents.len();
        seen.bytes += documents.as_bytes().len();
        seen.largest = documents.iter().map(<[u8]>::len).fold(seen.largest, usize::max);
        if let Some(refused) = documents.refused().first() {
            seen.refused.get_or_insert_with(|| refused.reason.clone());
        }
        if is_partial && seen.bytes - before > DOCUMENT_BYTES {
            return Ok(());
        }
    }
    seen.whole_bytes += seen.bytes - before;
    seen.whole_length += length;
    Ok(())
}
