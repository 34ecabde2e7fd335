//! Batch jobs: what is to be done, what is done, and the proof.
//!
//! | place | holds |
//! | --- | --- |
//! | [`manifest`] | the statement, every object and every split of a job |
//! | [`state`] | the files of a job: manifest, receipts, commit |
//! | [`folder`] | put-if-absent JSON files in any object store |
//! | [`dead_letter`] | pieces of input which could not be written |
//! | [`run`] | the driver: plan → manifest → write → commit; resumes |
//! | `waves` | how the driver writes on a fleet: waves of splits until each has its receipt |
//! | [`retry`] | what became a dead letter, once more |
//! | [`seen`] | what a watcher of a job has read of it |
//! | [`summary`] | a job or query in short, for lists and the dashboard |
//! | [`verify`] | the auditor: manifest, receipts and stored documents against each other and the source |
//! | [`settle`] | its work on one split, as the executors of a fleet do it |
//! | `compare`, `compare_records` | its deep part: one split's documents against the bytes, or the records, of the source |
//! | [`restore`] | the original objects, written back |
//! | `payload` | one stored document → its bytes, proven |
//! | [`item`] | the plan node of `restore` and `verify`: one answer an item |
//! | `dispatch` | all items of it, here or on a fleet |

mod compare;
mod compare_records;
pub mod dead_letter;
mod dispatch;
pub mod folder;
pub mod item;
pub mod manifest;
mod payload;
pub mod restore;
pub mod retry;
pub mod run;
pub mod seen;
pub mod settle;
pub mod state;
pub mod summary;
pub mod verify;
pub(crate) mod waves;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::full_url;
use crate::telemetry::trace;

/// A job by name and place; travels in a plan so that writers find where receipts go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRef {
    /// URL of the state folder which holds all jobs.
    pub state: String,
    /// Name of the job: its subfolder.
    pub name: String,
    /// How often `baler run` was begun for it, counting from 1.
    pub attempt: u32,
    /// W3C `traceparent` of the driver's span, where traces are exported: the executors' spans belong to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl JobRef {
    /// The first attempt at a job.
    ///
    /// # Errors
    /// Config, when the name cannot be a folder's.
    pub fn try_new(state: &str, name: &str) -> Result<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(is_plain) {
            return Err(Error::config(format!("`{name}` cannot name a job; take letters, digits, '-', '_' and '.', at most 100")));
        }
        Ok(Self { state: full_url(state)?, name: name.to_string(), attempt: 1, trace: None })
    }

    /// The same job within the present span, for a plan which is sent elsewhere.
    #[must_use]
    pub fn traced(&self) -> Self {
        Self { trace: trace::current(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests;
