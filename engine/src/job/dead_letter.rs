//! Dead letters: pieces of input which could not be written, kept with their reason.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::connector::receipt::SCHEMA_VERSION;
use crate::connector::split::Split;

/// One piece of input that is in no document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Id of the split.
    pub split: String,
    /// URI of the object.
    pub object: String,
    /// Version of the object.
    pub version: String,
    /// First byte in the (decompressed) object, where it is known.
    pub byte_offset: Option<u64>,
    /// Bytes; `None` means all that follow.
    pub byte_length: Option<u64>,
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

    /// A document which the sink refused.
    pub fn document(split: &Split, id: String, reason: String) -> Self {
        Self { id: Some(id), ..Self::new(split, reason) }
    }

    fn new(split: &Split, reason: String) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            split: split.id.clone(),
            object: split.object.clone(),
            version: split.version.clone(),
            byte_offset: None,
            byte_length: None,
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
