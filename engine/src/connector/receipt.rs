//! What one finished split wrote. Before: acknowledged documents; after: one JSON file in the job's state.

use std::iter::Sum;
use std::ops::Add;

use ::bson::RawDocument;
use ::bson::raw::RawBsonRef;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use smol_str::SmolStr;

use super::kafka::partition_object;
use crate::error::{Error, Result};
use crate::hex::to_hex;

/// Version of every state file's layout; a reader refuses a later one.
pub const SCHEMA_VERSION: u32 = 1;

/// Proof that a split is done. Stored after the server acknowledged every document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Id of the split.
    pub split: SmolStr,
    /// Documents stored.
    pub documents: u64,
    /// Sum of the documents' `records`, where they have that field.
    pub records: u64,
    /// Sum of the documents' `original_size`, where they have that field.
    pub raw_bytes: u64,
    /// Sum of the documents' `compressed_size`, where they have that field.
    pub compressed_bytes: u64,
    /// Lowest `byte_offset` of its documents, or offset of a record, where they have such fields.
    pub first_byte: Option<u64>,
    /// What follows its last document: highest `byte_offset` + `original_size`, or `last_offset` + 1.
    pub next_byte: Option<u64>,
    /// Documents which an earlier attempt had stored.
    pub already_there: u64,
    /// Dead letters of this split.
    pub dead_letters: u64,
    /// [`DocumentDigest`] over the split's documents in order of offset.
    pub digest: String,
    /// Which attempt at the job wrote it.
    pub attempt: u32,
    /// Host and process which wrote it.
    pub executor: String,
    /// When the split was begun.
    pub started: DateTime<Utc>,
    /// When its last document was acknowledged.
    pub finished: DateTime<Utc>,
}

/// Sums of receipts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Documents stored.
    pub documents: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes before compression.
    pub raw_bytes: u64,
    /// Bytes after it.
    pub compressed_bytes: u64,
}

impl From<&Receipt> for Totals {
    fn from(receipt: &Receipt) -> Self {
        let Receipt { documents, records, raw_bytes, compressed_bytes, .. } = *receipt;
        Self { documents, records, raw_bytes, compressed_bytes }
    }
}

impl Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            documents: self.documents + other.documents,
            records: self.records + other.records,
            raw_bytes: self.raw_bytes + other.raw_bytes,
            compressed_bytes: self.compressed_bytes + other.compressed_bytes,
        }
    }
}

impl Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// The fields of a document which identify and count it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DocumentFacts {
    /// `_id` as text.
    pub id: String,
    /// `object`, else `kafka:<topic>/<partition>`, or empty.
    pub object: String,
    /// `version`, or empty.
    pub version: String,
    /// `byte_offset`, else `first_offset` or `offset` of a topic, or -1.
    pub byte_offset: i64,
    /// What follows the document in its object: `byte_offset` + `original_size`, or one more than `last_offset` or `offset`.
    pub next_offset: i64,
    /// `records`, or 0.
    pub records: i64,
    /// `original_size`, or 0.
    pub original_size: i64,
    /// `compressed_size`, or 0.
    pub compressed_size: i64,
    /// `crc32`, or -1.
    pub crc32: i64,
    /// CRC-32 over names and values of all fields but binary ones: so that a change in any of them shows, without the payload.
    pub fields: u32,
}

impl DocumentFacts {
    /// The field which is not needed: the payload.
    pub const PAYLOAD: &str = "data";

    /// Reads them from a document's bytes.
    ///
    /// # Errors
    /// Decode, when the bytes are no BSON document or it has no `_id`.
    pub fn read(document: &[u8]) -> Result<Self> {
        let broken = |e| Error::decode("stored bytes are not a BSON document").with_source(e);
        let document = RawDocument::from_bytes(document).map_err(broken)?;
        let mut facts = Self { byte_offset: -1, crc32: -1, ..Self::default() };
        let (mut topic, mut partition, mut first, mut last) = (None, None, None, None);
        let mut fields = crc32fast::Hasher::new();
        for element in document {
            let (name, value) = element.map_err(broken)?;
            hash_field(&mut fields, name, value);
            match name {
                "_id" => facts.id = id_text(value),
                "object" => facts.object = value.as_str().unwrap_or_default().to_string(),
                "version" => facts.version = value.as_str().unwrap_or_default().to_string(),
                "byte_offset" => facts.byte_offset = whole(value).unwrap_or(-1),
                "records" => facts.records = whole(value).unwrap_or_default(),
                "original_size" => facts.original_size = whole(value).unwrap_or_default(),
                "compressed_size" => facts.compressed_size = whole(value).unwrap_or_default(),
                "crc32" => facts.crc32 = whole(value).unwrap_or(-1),
                "topic" => topic = value.as_str(),
                "partition" => partition = whole(value).and_then(|partition| i32::try_from(partition).ok()),
                "first_offset" => first = whole(value),
                "last_offset" => last = whole(value),
                "offset" => (first, last) = (first.or(whole(value)), last.or(whole(value))),
                _ => {}
            }
        }
        facts.fields = fields.finalize();
        facts.next_offset = facts.byte_offset.saturating_add(facts.original_size);
        if facts.object.is_empty()
            && let (Some(topic), Some(partition), Some(first), Some(last)) = (topic, partition, first, last)
        {
            facts.object = partition_object(topic, partition);
            (facts.byte_offset, facts.next_offset) = (first, last.saturating_add(1));
        }
        if facts.id.is_empty() {
            return Err(Error::decode("a document has no _id"));
        }
        Ok(facts)
    }

    /// Whether it carries its place in an object or a topic, as the standard documents do.
    pub fn has_place(&self) -> bool {
        !self.object.is_empty() && self.byte_offset >= 0
    }
}

fn hash_field(hash: &mut crc32fast::Hasher, name: &str, value: RawBsonRef<'_>) {
    if matches!(value, RawBsonRef::Binary(_)) {
        return;
    }
    hash.update(name.as_bytes());
    match value {
        RawBsonRef::Int32(number) => hash.update(&number.to_le_bytes()),
        RawBsonRef::Int64(number) => hash.update(&number.to_le_bytes()),
        RawBsonRef::Double(number) => hash.update(&number.to_bits().to_le_bytes()),
        RawBsonRef::DateTime(date) => hash.update(&date.timestamp_millis().to_le_bytes()),
        RawBsonRef::String(text) => hash.update(text.as_bytes()),
        RawBsonRef::Document(document) => hash.update(document.as_bytes()),
        RawBsonRef::Array(array) => hash.update(array.as_bytes()),
        // Rare types: their debug form tells any two values apart.
        other => hash.update(format!("{other:?}").as_bytes()),
    }
}

fn whole(value: RawBsonRef<'_>) -> Option<i64> {
    value.as_i64().or_else(|| value.as_i32().map(i64::from))
}

/// A text `_id` as it is; any other as extended JSON.
pub fn id_text(value: RawBsonRef<'_>) -> String {
    match value {
        RawBsonRef::String(text) => text.to_string(),
        other => ::bson::Bson::try_from(other.to_raw_bson()).map(|bson| bson.into_canonical_extjson().to_string()).unwrap_or_default(),
    }
}

/// SHA-256 over one line `<_id> <fields>` a document, in order of offset; `fields` is [`DocumentFacts::fields`] as a number, and
/// covers sizes and checksum of the payload.
#[derive(Debug, Default)]
pub struct DocumentDigest(Sha256);

impl DocumentDigest {
    /// Adds the next document.
    pub fn add(&mut self, facts: &DocumentFacts) {
        let line = format!("{} {}\n", facts.id, facts.fields);
        self.0.update(line.as_bytes());
    }

    /// 64 hex digits.
    pub fn finish(self) -> String {
        to_hex(self.0.finalize())
    }
}
