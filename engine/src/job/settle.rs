//! The audit of one split by itself, as executors do it: its documents against its receipt and, if asked, the source.
//!
//! What cannot be settled here (a document is missing, changed, or too many) is left to the driver, which reads what else is stored
//! and so tells a lost document from one that is only elsewhere.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::compare::{Compared, Sound, compare_split};
use super::item::Task;
use crate::connector::receipt::{DocumentDigest, DocumentFacts};
use crate::connector::split::{LeafRow, Split};
use crate::connector::stored::StoredSplit;
use crate::connector::{Fields, SinkSpec};
use crate::error::{ErrorKind, Result};

/// One split to be audited; a row of the node's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditedSplit {
    /// The split.
    pub split: Split,
    /// What its receipt says.
    pub stored: StoredSplit,
    /// Whether its documents must reach to the end of the object if it is one compressed stream.
    pub ends_object: bool,
}

impl LeafRow for AuditedSplit {
    const COLUMN: &str = "audit";
}

/// What came of one split.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SettledSplit {
    /// Id of the split.
    pub split: SmolStr,
    /// Whether its documents are those of its receipt; if not, all else is empty.
    pub is_sound: bool,
    /// Sum of their `original_size`.
    pub raw_bytes: u64,
    /// Their comparison with the source.
    pub compared: Compared,
}

/// How splits are audited; travels in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyTask {
    /// Where the documents are.
    pub source: SinkSpec,
    /// Whether each is decompressed and compared with the source.
    pub deep: bool,
}

#[async_trait]
impl Task for VerifyTask {
    type Item = AuditedSplit;
    type Answer = SettledSplit;
    const NODE: &str = "VerifyExec";

    fn bytes_of(audited: &AuditedSplit) -> u64 {
        audited.split.length()
    }

    fn describe(&self) -> String {
        format!("source={}, deep={}", self.source.target(), self.deep)
    }

    async fn perform(&self, audited: AuditedSplit, env: &Arc<RuntimeEnv>) -> Result<SettledSplit> {
        let AuditedSplit { split, stored, ends_object } = audited;
        let id = split.id.clone();
        let Some(documents) = self.documents(env, &split, &stored).await? else {
            return Ok(SettledSplit { split: id, is_sound: false, raw_bytes: 0, compared: Compared::default() });
        };
        let raw_bytes = documents.iter().map(|facts| facts.original_size as u64).sum();
        let compared = if self.deep {
            compare_split(&self.source, env, Sound { split, documents, holds_all: ends_object, topic: None }).await?
        } else {
            Compared::default()
        };
        Ok(SettledSplit { split: id, is_sound: true, raw_bytes, compared })
    }
}

impl VerifyTask {
    /// The documents of a split, if they are those of its receipt. The digest covers their number, order and every field.
    async fn documents(&self, env: &Arc<RuntimeEnv>, split: &Split, stored: &StoredSplit) -> Result<Option<Vec<DocumentFacts>>> {
        let mut reader = self.source.split_documents(env, &split.object, &split.version, stored, Fields::Facts)?;
        let (mut documents, mut digest) = (Vec::new(), DocumentDigest::default());
        while documents.len() as u64 <= stored.documents {
            let next = match reader.try_next().await {
                Ok(Some(document)) => DocumentFacts::read(document.as_bytes()),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            let mut facts = match next {
                Ok(facts) => facts,
                // A part which is gone or no dump any more: the driver says what that means.
                Err(error) if matches!(error.kind(), ErrorKind::Decode | ErrorKind::Permanent | ErrorKind::Conflict) => return Ok(None),
                Err(error) => return Err(error),
            };
            digest.add(&facts);
            // Both are the split's, and need not be kept with every document.
            (facts.object, facts.version) = (String::new(), String::new());
            documents.push(facts);
        }
        let is_sound = documents.len() as u64 == stored.documents && digest.finish() == stored.digest;
        Ok(is_sound.then_some(documents))
    }
}
