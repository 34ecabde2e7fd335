//! Dead letters: pieces of input which could not be written, kept with their reason.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::connector::receipt::SCHEMA_VERSION;
use crate::connector::split::Split;
use crate::hex::to_hex;

/// What to do about a piece of input which cannot be read, or a document which the sink refuses for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Fail the job with an error that names it.
    Fail,
    /// Keep it in the dead letters and go on.
    DeadLetter,
}

impl OnError {
    /// The words of the options `on_error` of sinks and `on_corrupt` of sources.
    pub const WORDS: &[(&str, Self)] = &[("fail", Self::Fail), ("dead_letter", Self::DeadLetter)];
}

/// One piece of input that is in no document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Id of the split.
    pub split: String,
    /// URI of the object; `kafka:topic/3` for a Kafka partition.
    pub object: String,
    /// Version of the object.
    pub version: String,
    /// First byte in the (decompressed) object, or offset of the record, where it is known.
    pub byte_offset: Option<u64>,
    /// Bytes, or records; `None` means all that follow.
    pub byte_length: Option<u64>,
    /// Key of a record in hexadecimal digits, if it has one: a topic forgets its records, so they are kept here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Value of a record in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// `_id` of the refused document, where there was one.
    pub id: Option<String>,
    /// What was wrong.
    pub reason: String,
}

impl DeadLetter {
    /// A whole object.
    pub fn whole_object(split: &Split, reason: String) -> Self {
        Self { byte_offset: Some(0), byte_length: None, id: None, ..Self::new(split, reason) }
    }

    /// A record of a topic.
    pub fn record(split: &Split, offset: u64, key: Option<&[u8]>, value: Option<&[u8]>, reason: String) -> Self {
        let (key, value) = (key.map(to_hex), value.map(to_hex));
        Self { byte_offset: Some(offset), byte_length: Some(1), key, value, ..Self::new(split, reason) }
    }

    /// A document which the sink refused.
    pub fn document(split: &Split, id: String, reason: String) -> Self {
        Self { id: Some(id), ..Self::new(split, reason) }
    }

    fn new(split: &Split, reason: String) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            split: split.id.to_string(),
            object: split.object.to_string(),
            version: split.version.to_string(),
            byte_offset: None,
            byte_length: None,
            key: None,
            value: None,
            id: None,
            reason,
        }
    }
}

/// Gathers the dead letters of one split until its receipt is written.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterLog(Arc<Mutex<Vec<DeadLetter>>>);

impl DeadLetterLog {
    /// Adds one.
    pub fn add(&self, letter: DeadLetter) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
    }

    /// Takes all.
    pub fn take(&self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
