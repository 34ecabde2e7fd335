//! `verify --deep` of a topic: the documents of one range of offsets against its records, read and packed once more.
//!
//! Offsets which no record has (markers and records of aborted transactions, what was compacted away) are in no chunk either, so
//! the chunks themselves are compared: where each begins and ends, and its bytes.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::array::cast::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::execution::runtime_env::RuntimeEnv;

use ::bson::RawDocumentBuf;

use super::compare::{Compared, Sound, StoredDocuments};
use super::dead_letter::{DeadLetterLog, OnError};
use super::payload::raw_bytes;
use crate::connector::SinkSpec;
use crate::connector::kafka::read::RowStream;
use crate::connector::kafka::{KafkaSpec, table_schema};
use crate::connector::receipt::DocumentFacts;
use crate::connector::split::Split;
use crate::error::{Error, ErrorKind, Result};

/// Every document of a range, decompressed, against the topic. Documents of single records which carry no payload (their `data`)
/// are compared by their place alone.
///
/// # Errors
/// What the stores answer.
pub(super) async fn compare_records(sink: &SinkSpec, env: &Arc<RuntimeEnv>, sound: Sound, topic: &KafkaSpec) -> Result<Compared> {
    let Sound { split, documents, holds_all, .. } = sound;
    // What is gone must be told from what never was, and what no chunk could hold is in the dead letters already.
    let spec = KafkaSpec { fail_on_data_loss: true, on_corrupt: OnError::DeadLetter, ..topic.clone() };
    let mut rows = RowStream::open(&spec, &split, table_schema(&spec), Some(DeadLetterLog::default()))?;
    let mut stored = StoredDocuments::new(sink, env, &split, documents);
    let (mut compared, mut next) = (Compared::default(), stored.next().await?);
    loop {
        let batch = match rows.next().await {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let findings = vec![format!("{}: offsets {}–{} were not compared: {error}", split.object, split.start, split.end)];
                return Ok(Compared { expired: 1, findings, ..Compared::default() });
            }
            Err(error) => return Err(error),
        };
        let chunks = SourceRows::try_new(&batch)?;
        for row in 0..chunks.len() {
            let (first, end) = chunks.offsets(row);
            while let Some((facts, _)) = next.take_if(|(facts, _)| facts.byte_offset < first) {
                compared.note_mismatched(format!(
                    "{}: no chunk begins at offset {}, but document {} does",
                    split.object, facts.byte_offset, facts.id
                ));
                next = stored.next().await?;
            }
            let Some((facts, document)) = next.take_if(|(facts, _)| facts.byte_offset == first) else {
                if holds_all {
                    compared.note_missing(format!("{}: offsets {first}–{end} are in no document", split.object));
                }
                continue;
            };
            match compare_row(&split, &facts, document, end, chunks.content(row), spec.is_by_record()) {
                Ok(bytes) => compared.bytes += bytes,
                Err(finding) => compared.note_mismatched(format!("{} offset {first}: document {} {finding}", split.object, facts.id)),
            }
            next = stored.next().await?;
        }
    }
    while let Some((facts, _)) = next {
        compared
            .note_mismatched(format!("{}: no chunk begins at offset {}, but document {} does", split.object, facts.byte_offset, facts.id));
        next = stored.next().await?;
    }
    Ok(compared)
}

/// The bytes that were compared, or what is wrong with the document, in words which follow its name.
fn compare_row(
    split: &Split,
    facts: &DocumentFacts,
    document: Option<RawDocumentBuf>,
    end: i64,
    content: &[u8],
    is_by_record: bool,
) -> Result<u64, String> {
    let document = document.ok_or("is not stored any more")?;
    if facts.id != split.document_id(facts.byte_offset as u64) {
        return Err("does not have the _id of its place".to_string());
    }
    if facts.next_offset != end {
        return Err(format!("ends before offset {}, its chunk before {end}", facts.next_offset));
    }
    if is_by_record && document.get(DocumentFacts::PAYLOAD).ok().flatten().is_none() {
        return Ok(0);
    }
    if raw_bytes(&document, facts)? != content {
        return Err("is not what the topic holds there".to_string());
    }
    Ok(content.len() as u64)
}

/// Where the rows of a KAFKA table begin and end, and their bytes.
struct SourceRows<'a> {
    first: &'a [i64],
    last: &'a [i64],
    content: &'a datafusion::arrow::array::BinaryArray,
}

impl<'a> SourceRows<'a> {
    fn try_new(batch: &'a RecordBatch) -> Result<Self> {
        let missing = |name: &str| Error::internal(format!("rows of a topic have no column {name}"));
        let numbers = |name: &str| batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (first, last) = match numbers("offset") {
            Some(offsets) => (offsets, offsets),
            None => (
                numbers("first_offset").ok_or_else(|| missing("first_offset"))?,
                numbers("last_offset").ok_or_else(|| missing("last_offset"))?,
            ),
        };
        let content = batch.column_by_name("content").or_else(|| batch.column_by_name("value"));
        let content = content.and_then(|column| column.as_binary_opt::<i32>()).ok_or_else(|| missing("content"))?;
        Ok(Self { first: first.values(), last: last.values(), content })
    }

    fn len(&self) -> usize {
        self.first.len()
    }

    /// The first offset of a row, and the one after its last.
    fn offsets(&self, row: usize) -> (i64, i64) {
        (self.first[row], self.last[row] + 1)
    }

    fn content(&self, row: usize) -> &'a [u8] {
        self.content.value(row)
    }
}
