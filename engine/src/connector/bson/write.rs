//! Batches → one part file. It appears under its name only when it is whole and durable.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use datafusion::execution::runtime_env::RuntimeEnv;
use tracing::Instrument;

use super::BsonSpec;
use crate::connector::batch::Batch;
use crate::connector::{SinkWriter, Written, batch_span};
use crate::error::Result;
use crate::object_writer::{ObjectShape, ObjectWriter};
use crate::telemetry::COUNTERS;

/// Opens the part's file.
pub(crate) async fn open(spec: &BsonSpec, env: &Arc<RuntimeEnv>, part: &str) -> Result<Box<dyn SinkWriter>> {
    let file = spec.folder(env)?.join(&spec.file_name(part));
    Ok(Box::new(PartWriter { writer: ObjectWriter::open(&file, ObjectShape::default())?, batches: Vec::new() }))
}

struct PartWriter {
    writer: ObjectWriter,
    /// Documents, bytes and time of each batch: they count when the part is durable.
    batches: Vec<(u64, u64, Duration)>,
}

#[async_trait]
impl SinkWriter for PartWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        let (documents, bytes, sent) = (batch.len() as u64, batch.bytes().len() as u64, Instant::now());
        self.writer.write(batch.into_bytes().into()).instrument(batch_span(documents, bytes)).await?;
        self.batches.push((documents, bytes, sent.elapsed()));
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Written> {
        self.writer.finish().await?;
        for (documents, bytes, took) in self.batches {
            COUNTERS.add_sink_batch(documents, bytes, took);
        }
        Ok(Written::default())
    }
}
