//! The tables which a job reads split by split, BLOB and KAFKA, and what a driver needs of each of them.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{CreateExternalTable, Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use futures::FutureExt;
use futures::future::ready;
use serde::{Deserialize, Serialize};

use super::blob::{self, BLOB_SCHEMA, BlobScanExec, BlobSpec};
use super::kafka::{self, KafkaScanExec, KafkaSpec};
use super::sink::TableFuture;
use super::split::{Split, deal, leaf_table};
use crate::error::{Error, Result};
use crate::job::manifest::{ManifestObject, group_splits};
use crate::trust::reach;

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
        table.downcast_ref::<SourceTable>().map(|table| table.spec.clone())
    }

    /// The table of this source which reads exactly these splits, by partition.
    pub fn pinned_table(&self, tasks: &[Vec<Split>]) -> Arc<dyn TableProvider> {
        Arc::new(SourceTable { spec: self.clone(), tasks: Some(tasks.to_vec()) })
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

    /// The splits which there are now.
    async fn list_splits(&self, env: &Arc<RuntimeEnv>) -> Result<Vec<Split>> {
        match self {
            Self::Blob(spec) => Ok(blob::list::list_input(env, spec).await?.iter().flat_map(ManifestObject::splits).collect()),
            Self::Kafka(spec) => kafka::list_splits(spec).await,
        }
    }

    /// Whether the input grows while a job runs, so that a resumed one reads what it began with and no more.
    pub fn grows(&self) -> bool {
        matches!(self, Self::Kafka(_))
    }
}

/// Makes the tables of one format for `CREATE EXTERNAL TABLE`.
#[derive(Debug)]
pub struct SourceTableFactory {
    /// Name of the format.
    pub format: &'static str,
    /// What else to do where a table needs several locations, or what a location is.
    pub one_location: &'static str,
    /// Reads location and options.
    pub read: fn(&str, &HashMap<String, String>) -> Result<SourceSpec>,
}

/// Makes BLOB tables.
pub const BLOB_TABLES: SourceTableFactory = SourceTableFactory {
    format: "BLOB",
    one_location: "; use a glob to name several objects",
    read: |location, options| BlobSpec::try_new(location, options).map(SourceSpec::Blob),
};

/// Makes KAFKA tables.
pub const KAFKA_TABLES: SourceTableFactory = SourceTableFactory {
    format: "KAFKA",
    one_location: ", which names one topic",
    read: |location, options| KafkaSpec::try_new(location, options).map(SourceSpec::Kafka),
};

impl SourceTableFactory {
    fn parse_spec(&self, command: &CreateExternalTable) -> Result<SourceSpec> {
        let Self { format, one_location, read } = self;
        let [location] = command.locations.as_slice() else {
            return Err(Error::config(format!("a {format} table has one LOCATION{one_location}")));
        };
        if !command.schema.fields().is_empty() {
            return Err(Error::config(format!("a {format} table has fixed columns; leave the column list out")));
        }
        let spec = read(location, &command.options)?;
        reach::check_location(location)?;
        Ok(spec)
    }
}

impl TableProviderFactory for SourceTableFactory {
    // As in `SinkTableFactory`: no future holds the command.
    fn create<'a, 'b, 'c, 'f>(&'a self, _: &'b dyn Session, command: &'c CreateExternalTable) -> TableFuture<'f>
    where
        Self: 'f,
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        let table = |spec| Arc::new(SourceTable { spec, tasks: None }) as Arc<dyn TableProvider>;
        ready(self.parse_spec(command).map(table).map_err(Into::into)).boxed()
    }
}

/// A source as a table: objects, or a bounded scan of a topic's offsets between its starting and its ending ones. A job pins the splits
/// which are still to be done, by partition; otherwise each scan lists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceTable {
    /// What the table reads.
    pub spec: SourceSpec,
    /// The splits to read in each partition, where a job has fixed them.
    pub tasks: Option<Vec<Vec<Split>>>,
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        match &self.spec {
            SourceSpec::Blob(_) => Arc::clone(&BLOB_SCHEMA),
            SourceSpec::Kafka(spec) => kafka::table_schema(spec),
        }
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let leaf = match &self.tasks {
            Some(pinned) => leaf_table(pinned)?,
            None => leaf_table(&deal(&self.spec.list_splits(session.runtime_env()).await?, session.config().target_partitions()))?,
        };
        Ok(match self.spec.clone() {
            SourceSpec::Blob(spec) => Arc::new(BlobScanExec::try_new(leaf, spec, projection.cloned())?),
            SourceSpec::Kafka(spec) => Arc::new(KafkaScanExec::try_new(leaf, spec, projection.cloned())?),
        })
    }
}
