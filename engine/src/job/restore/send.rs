//! One Kafka partition, from its documents into the same partition of another topic. Before: [`RestoreObject`]; after: its records are
//! there once, in their order.
//!
//! The records of a split become visible together, when its documents are those of its receipt, and with them how far the restore is:
//! so a split with a hole leaves nothing behind, and whoever comes next goes on behind the last one that is whole.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::runtime_env::RuntimeEnv;

use super::content::{Piece, Taker, hand_over};
use super::{RestoreObject, Restored};
use crate::connector::SinkSpec;
use crate::connector::kafka::frame::Unframed;
use crate::connector::kafka::produce::PartitionProducer;
use crate::connector::kafka::spec::Framing;
use crate::connector::kafka::{KafkaSpec, parse_partition};
use crate::error::{Error, Result};
use crate::runtime;
use crate::telemetry::COUNTERS;

/// Bytes after which a transaction ends with the split: the splits of small micro-batches share one.
const COMMIT_BYTES: u64 = 8 << 20;

/// Sends what is not in the topic yet. `restore` names the restore: another one is not taken for this.
///
/// # Errors
/// Conflict, when the topic holds something else or the documents have a hole; Decode, when one of them is damaged; else as the stores'.
pub(super) async fn send_partition(
    sink: &SinkSpec,
    env: &Arc<RuntimeEnv>,
    object: &RestoreObject,
    topic: &KafkaSpec,
    restore: &str,
) -> Result<Restored> {
    let wrong = || Error::internal(format!("{} is no partition of a topic", object.object));
    let (_, partition) = parse_partition(&object.object).ok_or_else(wrong)?;
    let framing = object.records.map(|layout| layout.framing()).ok_or_else(wrong)?;
    let (source, topic) = (format!("{restore} {}", object.object), topic.clone());
    let first = object.splits.first().map_or(0, |split| split.first);
    let opened = runtime::spawn_blocking(move || PartitionProducer::open(&topic, partition, &source, first))?;
    let (producer, from) = opened.join().await??;
    let mut taker =
        TopicTaker { producer: Some(producer), framing, object: object.object.clone(), open_bytes: 0, open_until: None, records: 0 };
    let documents = hand_over(sink, env, object, from, &mut taker).await?;
    taker.commit().await?;
    if documents > 0 {
        COUNTERS.restored_objects.add(1);
    }
    Ok(Restored { documents, records: taker.records, is_new: documents > 0 })
}

/// Sends pieces as records.
struct TopicTaker {
    /// It is away while a thread works with it, and for good after an error.
    producer: Option<PartitionProducer>,
    framing: Framing,
    object: String,
    /// Bytes in the open transaction, and the offset behind its last whole split.
    open_bytes: u64,
    open_until: Option<u64>,
    records: u64,
}

impl TopicTaker {
    /// Does blocking `work` with the producer, away from the runtimes.
    async fn with_producer<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut PartitionProducer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let producer = self.producer.take();
        let mut producer = producer.ok_or_else(|| Error::internal("a topic was written to after it had failed"))?;
        let working = move || work(&mut producer).map(|done| (producer, done));
        let (producer, done) = runtime::spawn_blocking(working)?.join().await??;
        self.producer = Some(producer);
        Ok(done)
    }

    async fn commit(&mut self) -> Result<()> {
        let Some(next) = self.open_until.take() else { return Ok(()) };
        self.open_bytes = 0;
        self.with_producer(move |producer| producer.commit(next)).await
    }
}

#[async_trait]
impl Taker for TopicTaker {
    async fn take(&mut self, pieces: Vec<Piece>) -> Result<()> {
        let (framing, object) = (self.framing, self.object.clone());
        self.open_bytes += pieces.iter().map(|piece| piece.bytes.len() as u64).sum::<u64>();
        self.records += self.with_producer(move |producer| send_pieces(producer, framing, &object, &pieces)).await?;
        Ok(())
    }

    async fn end_split(&mut self, next: u64) -> Result<()> {
        self.open_until = Some(next);
        if self.open_bytes >= COMMIT_BYTES { self.commit().await } else { Ok(()) }
    }
}

/// Sends the records of these pieces; returns how many they are.
fn send_pieces(producer: &mut PartitionProducer, framing: Framing, object: &str, pieces: &[Piece]) -> Result<u64> {
    producer.begin()?;
    let mut sent = 0;
    for Piece { id, records, bytes } in pieces {
        let damaged = |reason: String| Error::decode(format!("{object}: document {id} {reason}"));
        let mut here = 0;
        for record in Unframed::new(framing, bytes) {
            producer.send(&record.map_err(damaged)?)?;
            here += 1;
        }
        if *records > 0 && *records != here {
            return Err(damaged(format!("holds {here} records, not {records}")));
        }
        sent += here.unsigned_abs();
    }
    Ok(sent)
}
