//! The tables which a job reads split by split: what a driver needs of each of them.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::runtime_env::RuntimeEnv;
use serde::{Deserialize, Serialize};

use super::blob::{self, BlobSpec, BlobTable};
use super::kafka::{self, KafkaSpec, KafkaTable};
use super::split::Split;
use crate::error::Result;
use crate::job::manifest::{ManifestObject, group_splits};

/// Description of a source; holds no client and no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SourceSpec {
    /// Objects.
    Blob(BlobSpec),
    /// A topic.
    Kafka(KafkaSpec),
}

impl SourceSpec {
    /// What `table` reads, if it is a source.
    pub fn of_table(table: &dyn TableProvider) -> Option<Self> {
        let blob = table.downcast_ref::<BlobTable>().map(|table| Self::Blob(table.spec.clone()));
        blob.or_else(|| table.downcast_ref::<KafkaTable>().map(|table| Self::Kafka(table.spec.clone())))
    }

    /// The table of this source which reads exactly these splits, by partition.
    pub fn pinned_table(&self, tasks: &[Vec<Split>]) -> Arc<dyn TableProvider> {
        let tasks = Some(tasks.to_vec());
        match self.clone() {
            Self::Blob(spec) => Arc::new(BlobTable { spec, tasks }),
            Self::Kafka(spec) => Arc::new(KafkaTable { spec, tasks }),
        }
    }

    /// What there is to read now, sorted by object and place.
    ///
    /// # Errors
    /// Unreachable, when the source does not answer; Config, when there is none.
    pub async fn list_input(&self, env: &Arc<RuntimeEnv>) -> Result<Vec<ManifestObject>> {
        match self {
            Self::Blob(spec) => blob::list::list_input(env, spec).await,
            Self::Kafka(spec) => Ok(group_splits(&kafka::list_splits(spec).await?)),
        }
    }

    /// Whether the input grows while a job runs, so that a resumed one reads what it began with and no more.
    pub fn grows(&self) -> bool {
        matches!(self, Self::Kafka(_))
    }
}
