//! Batches → one part file. It appears under its name only when it is whole and durable.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::runtime_env::RuntimeEnv;

use super::BsonSpec;
use crate::connector::batch::Batch;
use crate::connector::{SinkWriter, Written};
use crate::error::Result;
use crate::object_writer::{ObjectShape, ObjectWriter};
use crate::telemetry::COUNTERS;

/// Opens the part's file.
pub(crate) async fn open(spec: &BsonSpec, env: &Arc<RuntimeEnv>, part: &str) -> Result<Box<dyn SinkWriter>> {
    let file = spec.folder(env)?.join(&spec.file_name(part));
    Ok(Box::new(PartWriter { writer: ObjectWriter::open(&file, ObjectShape::default())?, documents: 0, bytes: 0 }))
}

struct PartWriter {
    writer: ObjectWriter,
    documents: u64,
    bytes: u64,
}

#[async_trait]
impl SinkWriter for PartWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.documents += batch.len() as u64;
        self.bytes += batch.bytes().len() as u64;
        self.writer.write(batch.into_bytes().into()).await
    }

    async fn finish(self: Box<Self>) -> Result<Written> {
        self.writer.finish().await?;
        COUNTERS.sink_docs.add(self.documents);
        COUNTERS.sink_bytes.add(self.bytes);
        Ok(Written::default())
    }
}
