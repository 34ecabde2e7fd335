//! The original objects of a finished job, written back byte for byte; and the records of a topic, into files or a topic.
//!
//! | place | holds |
//! | --- | --- |
//! | this file | the driver: what is planned → what came of each; [`RestoreTask`] is its node's work, in one process and on a fleet |
//! | `objects` | state of a job over objects → [`RestoreObject`]s |
//! | [`records`] | state of a job or query over a topic → the same: segments of a Kafka partition, or all of it |
//! | `names` | objects' names → names below the target |
//! | `content`, `cursor` | documents → what they hold: read, prove, inflate, hand over |
//! | `copy` | into an object |
//! | `send` | into a topic |
//! | `pack` | compressing again what was compressed at the source |
//! | `single` | a document of a single record → its record |
//!
//! The object is the unit of work and of resume: its name appears when it is whole, so a restore that was stopped is begun
//! again and finds what is there. In a topic that is told by an offset which is committed with the records. Receipts say which documents
//! an object is made of, and the documents prove themselves.

pub(crate) mod content;
mod copy;
mod cursor;
mod names;
mod objects;
mod pack;
pub mod records;
mod send;
mod single;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::context::SessionContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use serde::{Deserialize, Serialize};

use self::copy::copy_object;
use self::objects::plan_objects;
use self::records::{Layout, plan_records};
use self::send::send_partition;
use super::JobRef;
use super::dispatch::{perform_here, perform_on_fleet};
use super::item::Task;
use super::state::JobState;
use super::verify::Audited;
use crate::cluster::client::Fleet;
use crate::connector::SinkSpec;
use crate::connector::blob::Compression;
use crate::connector::kafka::KafkaSpec;
use crate::connector::source::SourceSpec;
use crate::connector::split::LeafRow;
use crate::connector::stored::StoredSplit;
use crate::error::{Error, ErrorKind, Result};
use crate::store::full_url;
use crate::telemetry::COUNTERS;

/// What opening an object and making it durable cost, in bytes of writing: keeps the tasks of many small objects small.
const OBJECT_OVERHEAD_BYTES: u64 = 4 << 20;

/// One object, or one run of a topic's records, to be written back; a row of the node's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreObject {
    /// URI of the source; `kafka:topic/3` for records.
    pub object: String,
    /// Its version, which each of its documents must have.
    pub version: String,
    /// When the source was last written, milliseconds since 1970 UTC; for records when the last of their documents was.
    pub last_modified: i64,
    /// URL of its new place.
    pub target: String,
    /// How its documents hold records, if it is made of such.
    pub records: Option<Layout>,
    /// How it is compressed there.
    pub packing: Compression,
    /// Bytes of its (decompressed) content.
    pub bytes: u64,
    /// Its documents, split by split without a gap; those splits which have any.
    pub splits: Vec<StoredSplit>,
}

/// How objects are restored; travels in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreTask {
    /// Where their documents are.
    pub source: SinkSpec,
    /// Whether what else is at an object's place is replaced.
    pub overwrite: bool,
    /// Whether an object which cannot be restored is named and left out, in place of an error.
    pub partial: bool,
    /// The topic which takes the records, if they go into one.
    pub topic: Option<TopicTarget>,
}

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicTarget {
    /// The topic.
    pub spec: KafkaSpec,
    /// Name of the job or query: records of another one are not taken for its own.
    pub name: String,
}

/// What was done for one object.
#[derive(Debug, Clone, Copy, Default)]
struct Restored {
    /// Documents which it was made of, or records were sent from; 0 if it was there.
    documents: u64,
    /// Records in them, as far as they say so.
    records: u64,
    /// Whether anything was written.
    is_new: bool,
}

/// What came of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredObject {
    /// URI of the source.
    pub object: String,
    /// URL of its new place.
    pub target: String,
    /// Bytes of its content.
    pub bytes: u64,
    /// Documents which were read; 0 if it was there.
    pub documents: u64,
    /// Records in them, as far as they say so.
    pub records: u64,
    /// Whether it was written just now.
    pub is_new: bool,
    /// Why it is not there, where that is no error.
    pub failure: Option<String>,
}

#[async_trait]
impl Task for RestoreTask {
    type Item = RestoreObject;
    type Answer = RestoredObject;
    const NODE: &str = "RestoreExec";

    fn bytes_of(object: &RestoreObject) -> u64 {
        object.bytes
    }

    fn describe(&self) -> String {
        format!("source={}, overwrite={}, partial={}", self.source.target(), self.overwrite, self.partial)
    }

    async fn perform(&self, object: RestoreObject, env: &Arc<RuntimeEnv>) -> Result<RestoredObject> {
        let restored = match &self.topic {
            None => copy_object(&self.source, env, &object, self.overwrite).await,
            Some(TopicTarget { spec, name }) => send_partition(&self.source, env, &object, spec, name).await,
        };
        let RestoreObject { object, target, bytes, .. } = object;
        match restored {
            Ok(Restored { documents, records, is_new }) => {
                Ok(RestoredObject { object, target, bytes, documents, records, is_new, failure: None })
            }
            Err(error) if self.partial && is_of_object(&error) => {
                let failure = Some(error.to_string());
                Ok(RestoredObject { object, target, bytes: 0, documents: 0, records: 0, is_new: false, failure })
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether an error says something about one object, so that others may still be restored.
fn is_of_object(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Decode | ErrorKind::Conflict | ErrorKind::Permanent)
}

impl LeafRow for RestoreObject {
    const COLUMN: &str = "object";
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// Folder or prefix to write to: `file://` or `s3://`; records also go into a topic, `kafka://host:9092/topic`.
    pub to: String,
    /// Settings of librdkafka for that topic.
    pub client: HashMap<String, String>,
    /// Whether records go into a topic although their documents do not hold all that they had.
    pub lossy: bool,
    /// Whether what was compressed at the source is compressed again, and keeps its name.
    pub recompress: bool,
    /// Whether objects which cannot be restored are left out, in place of an error.
    pub partial: bool,
    /// Whether other things at the places of objects are replaced.
    pub overwrite: bool,
}

/// An object which is not restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its URI.
    pub object: String,
    /// Why.
    pub reason: String,
}

/// What a restore did.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// Name of the job.
    pub job: String,
    /// Where the objects are.
    pub target: String,
    /// Objects which are there now.
    pub objects: u64,
    /// Those of them which this run wrote; the others were there.
    pub written: u64,
    /// Bytes of the content of all objects which are there.
    pub bytes: u64,
    /// Documents which were read.
    pub documents: u64,
    /// Records in them, as far as they say so: those which this run wrote.
    pub records: u64,
    /// Objects which were compressed at the source.
    pub compressed: u64,
    /// Whether these are compressed again.
    pub recompressed: bool,
    /// What is not there.
    pub left_out: Vec<LeftOut>,
}

impl RestoreReport {
    fn new(job: &str, target: &str, request: &RestoreRequest) -> Self {
        Self {
            job: job.to_string(),
            target: target.to_string(),
            objects: 0,
            written: 0,
            bytes: 0,
            documents: 0,
            records: 0,
            compressed: 0,
            recompressed: request.recompress,
            left_out: Vec::new(),
        }
    }
}

/// A restore which is planned; nothing is written yet.
pub struct Restore {
    context: SessionContext,
    task: RestoreTask,
    objects: Vec<RestoreObject>,
    report: RestoreReport,
}

impl fmt::Debug for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restore").field("task", &self.task).field("objects", &self.objects.len()).finish_non_exhaustive()
    }
}

impl Restore {
    /// Reads the state of a job and plans what is to be written.
    ///
    /// # Errors
    /// Config, when there is no such job, or its documents cannot be traced to their source; Conflict, when it is not done, an
    /// object has a hole, or two would have one name.
    pub async fn plan(context: &SessionContext, job: &JobRef, request: &RestoreRequest) -> Result<Self> {
        let env = context.runtime_env();
        let state = JobState::open(&env, job)?;
        let manifest = state.manifest().await?;
        let manifest = manifest.ok_or_else(|| Error::config(format!("there is no job or query `{}` at {}", job.name, state.uri())))?;
        if matches!(manifest.source, Some(SourceSpec::Kafka(_))) {
            return Self::plan_query(context, Audited::job(&env, job).await?, request).await;
        }
        if request.to.starts_with("kafka://") || request.lossy || !request.client.is_empty() {
            return Err(Error::config(format!(
                "job `{}` does not read a topic: --to takes a folder or s3://, and --lossy and --client are for records",
                job.name
            )));
        }
        let to = full_url(&request.to)?;
        let mut report = RestoreReport::new(&job.name, &to, request);
        let objects = plan_objects(&state, &manifest, &to, request, &mut report).await?;
        let task = RestoreTask { source: manifest.sink, overwrite: request.overwrite, partial: request.partial, topic: None };
        Ok(Self { context: context.clone(), task, objects, report })
    }

    /// Plans what is to be written of a topic's records, which a job or the micro-batches of a query have stored.
    ///
    /// # Errors
    /// Config, when its documents do not hold what is asked for, or the topic to write to is none for them; Conflict, when a part is missing.
    pub async fn plan_query(context: &SessionContext, audited: Audited, request: &RestoreRequest) -> Result<Self> {
        if request.recompress {
            return Err(Error::config("--recompress is for objects which were compressed at the source; records of a topic were not"));
        }
        let topic = match request.to.starts_with("kafka://") {
            true => {
                let client = request.client.iter().map(|(key, value)| (format!("kafka.client.{key}"), value.clone())).collect();
                Some(KafkaSpec::try_new(&request.to, &client)?)
            }
            false if request.lossy || !request.client.is_empty() => {
                return Err(Error::config("--lossy and --client are for a topic: --to kafka://host:9092/topic"));
            }
            false => None,
        };
        let to = topic.as_ref().map_or_else(|| full_url(&request.to), |topic| Ok(topic.target()))?;
        let mut report = RestoreReport::new(&audited.name, &to, request);
        let (source, name) = (audited.sink.clone(), audited.name.clone());
        let objects = plan_records(audited, topic.as_ref(), request, &mut report).await?;
        let topic = topic.map(|spec| TopicTarget { spec, name });
        let task = RestoreTask { source, overwrite: request.overwrite, partial: request.partial, topic };
        Ok(Self { context: context.clone(), task, objects, report })
    }

    /// Bytes of all objects which are to be there.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.bytes).sum()
    }

    /// Writes what is not there yet, on `fleet` or in this process. Dropping the future stops it; the same again goes on.
    ///
    /// # Errors
    /// The first object which cannot be restored, unless such are to be left out; what is there already stays.
    pub async fn run(mut self, fleet: Option<&Fleet>) -> Result<RestoreReport> {
        let objects = std::mem::take(&mut self.objects);
        let rows = match fleet {
            None => perform_here(&self.context, self.task, &objects).await?,
            Some(fleet) => {
                let mut rows = Vec::new();
                let work_of = |object: &RestoreObject| object.bytes + OBJECT_OVERHEAD_BYTES;
                perform_on_fleet(fleet, &wave_name(&self.report.job), &self.task, objects, work_of, |restored: Vec<RestoredObject>| {
                    // Its own process counts what an executor wrote; this one is told.
                    COUNTERS.restored_bytes.add(restored.iter().map(|row| row.bytes).sum());
                    COUNTERS.restored_objects.add(restored.len() as u64);
                    rows.extend(restored);
                    Ok(())
                })
                .await?;
                rows
            }
        };
        for row in rows {
            if let Some(reason) = row.failure {
                self.report.left_out.push(LeftOut { object: row.object, reason });
                continue;
            }
            self.report.objects += 1;
            self.report.written += u64::from(row.is_new);
            self.report.bytes += row.bytes;
            self.report.documents += row.documents;
            self.report.records += row.records;
        }
        self.report.left_out.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(self.report)
    }
}

/// How the Ballista jobs of a restore are named: `<job> restore wave <n>`.
pub fn wave_name(job: &str) -> String {
    format!("{job} restore")
}
