//! What a resource says of itself. Figures come from the job's state, the phase from what Kubernetes says of the driver.

use chrono::{SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// Where a resource is.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Phase {
    /// Its driver is not up yet.
    #[default]
    Pending,
    /// Its driver works.
    Running,
    /// It is stopped until `suspend` is false again.
    Suspended,
    /// The job is committed: every piece of its input is stored or named in the dead letters. It stays so.
    Complete,
    /// The driver has failed for good. A job stays so until it was suspended once; a stream is started again by Kubernetes.
    Failed,
    /// It cannot be done as it is written; the message says why.
    Invalid,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Pending, Self::Running, Self::Suspended, Self::Complete, Self::Failed, Self::Invalid];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Suspended => "Suspended",
            Self::Complete => "Complete",
            Self::Failed => "Failed",
            Self::Invalid => "Invalid",
        }
    }
}

/// The status of a `BalerJob` or `BalerStream`.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Where it is.
    pub phase: Phase,
    /// The generation of the resource which this status is about.
    pub observed_generation: i64,
    /// Why it is where it is, in one line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// `Accepted`, `StateReadable`, `Suspended`, and of a job `Complete` and `Failed`.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The driver's Job or Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// When the first driver was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub start_time: Option<String>,
    /// When the job was complete or had failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub completion_time: Option<String>,
    /// Figures of the job's state.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Figures of a job's or query's state, as `baler jobs show` has them. Signed, because the API knows no other format of whole numbers.
#[derive(JsonSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Figures {
    /// Splits which are done, and all of them; of a stream, micro-batches committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Megabytes of input a second, from the newest driver's first split to its last; of a stream, in the newest micro-batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mb_per_second: Option<f64>,
    /// Bytes of input for each byte stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// How far a stream is behind its topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// The same as a number of records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<i64>,
    /// The same as the age of the oldest record, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
    /// Splits; of a stream, micro-batches begun.
    pub splits: i64,
    /// Splits which are done; of a stream, micro-batches committed.
    pub splits_done: i64,
    /// Documents stored; of a stream, by the newest micro-batch, as the figures which follow.
    pub documents: i64,
    /// Records in them.
    pub records: i64,
    /// Bytes of input.
    pub raw_bytes: i64,
    /// Bytes stored.
    pub compressed_bytes: i64,
    /// Pieces of input which could not be written.
    pub dead_letters: i64,
    /// How often a driver began.
    pub attempts: i64,
}

/// One fact about a resource, in Kubernetes' own form.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which fact.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A line.
    pub message: String,
    /// Since when it is so.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// The generation of the resource which it is about.
    pub observed_generation: i64,
}

/// The present time in the form of the API.
pub(super) fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl Status {
    /// The same in another phase.
    #[must_use]
    pub(super) fn with(mut self, phase: Phase, message: impl Into<String>) -> Self {
        (self.phase, self.message) = (phase, message.into());
        self
    }

    /// Sets a condition; its time changes with its status alone.
    pub(super) fn set(&mut self, type_: &str, holds: bool, reason: &str, message: &str) {
        let status = if holds { "True" } else { "False" };
        let before = self.conditions.iter().position(|condition| condition.type_ == type_);
        let since = before.map(|index| &self.conditions[index]).filter(|condition| condition.status == status);
        let condition = Condition {
            type_: type_.to_string(),
            status: status.to_string(),
            reason: reason.to_string(),
            message: message.to_string(),
            last_transition_time: since.map_or_else(now, |condition| condition.last_transition_time.clone()),
            observed_generation: self.observed_generation,
        };
        match before {
            Some(index) => self.conditions[index] = condition,
            None => self.conditions.push(condition),
        }
    }

    /// Whether a condition holds.
    pub(super) fn holds(&self, type_: &str) -> bool {
        self.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
    }

    /// The same about this generation, with the conditions that follow from its phase. `ends` says whether it is a job, which can be complete.
    #[must_use]
    pub(super) fn settled(mut self, generation: i64, ends: bool) -> Self {
        self.observed_generation = generation;
        let (phase, message) = (self.phase, self.message.clone());
        if phase != Phase::Invalid {
            self.set("Accepted", true, "Sound", "");
        }
        self.set("Suspended", phase == Phase::Suspended, phase.name(), "");
        if ends {
            self.set("Complete", phase == Phase::Complete, phase.name(), if phase == Phase::Complete { &message } else { "" });
            self.set("Failed", phase == Phase::Failed, phase.name(), if phase == Phase::Failed { &message } else { "" });
        }
        self
    }

    /// The same, refused for `error`.
    #[must_use]
    pub(super) fn refused(mut self, error: &Error) -> Self {
        let reason = match error.kind() {
            ErrorKind::Config => "Wrong",
            ErrorKind::Conflict => "Conflict",
            _ => "Refused",
        };
        let message = error.to_string();
        self.set("Accepted", false, reason, &message);
        self.with(Phase::Invalid, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_while_it_stays() {
        let mut status = Status::default().with(Phase::Running, "").settled(1, true);
        let old = "2000-01-01T00:00:00Z";
        status.conditions.iter_mut().for_each(|condition| condition.last_transition_time = old.to_string());
        let after = status.with(Phase::Complete, "all is stored").settled(2, true);
        let time = |name: &str| after.conditions.iter().find(|one| one.type_ == name).unwrap().last_transition_time.clone();
        assert_eq!([time("Accepted"), time("Failed"), time("Suspended")], [old, old, old]);
        assert!(time("Complete") != old && after.holds("Complete") && !after.holds("Failed"));
        assert!(after.conditions.iter().all(|condition| condition.observed_generation == 2));
        let refused = after.refused(&Error::config("there is no ConfigMap `x`")).settled(3, true);
        assert!(!refused.holds("Accepted") && refused.phase == Phase::Invalid && refused.conditions.len() == 4, "{refused:?}");
    }
}
