//! Sample data into a topic: the records of a [`Shape`], with keys, at a given rate.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::shape::new_record_writer;
use super::{Compression, Generated, Shape};
use crate::connector::kafka::KafkaSpec;
use crate::connector::kafka::client::{kafka_error, settings_with_secrets};
use crate::connector::kafka::produce::{Deliveries, enqueue};
use crate::telemetry::COUNTERS;
use crate::{Error, Result};

/// What to send.
#[derive(Debug, Clone)]
pub struct TopicOptions {
    /// Bytes of all values; the record which reaches them is the last one.
    pub total_bytes: u64,
    /// What the records look like.
    pub shape: Shape,
    /// Equal seeds, sizes and shapes give equal records.
    pub seed: u64,
    /// Partitions of a topic that is not there yet.
    pub partitions: u32,
    /// Records for each second; as fast as the brokers take them, if `None`.
    pub rate: Option<u64>,
    /// How the producer compresses its batches, if at all.
    pub compress: Option<Compression>,
}

/// Records which are sent between two looks at the clock.
const PACE_RECORDS: u64 = 16;
const PACE_PAUSE: Duration = Duration::from_millis(2);
/// How long the brokers may take for one answer about the topic, and how long they may be without a controller.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the brokers may take for the last records.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);

/// Sends sample data to the topic of `spec`, which is made if it is not there; returns when all brokers have it. A key is the
/// event's user, or the record's number where the shape has no users; records of one key go to one partition, as Kafka's own
/// producers place them. Blocks.
///
/// # Errors
/// Unreachable, when no broker answers; Permanent, when the topic cannot be made or a record is refused.
pub fn generate_to_topic(spec: &KafkaSpec, options: &TopicOptions) -> Result<Generated> {
    create_topic(spec, options.partitions)?;
    let failed = |e: KafkaError| kafka_error(spec, "writing to", &e, None);
    let mut config = settings_with_secrets(spec)?;
    config.set("enable.idempotence", "true").set("partitioner", "murmur2_random").set("linger.ms", "20");
    match options.compress {
        None => {}
        Some(Compression::Gzip) => drop(config.set("compression.type", "gzip")),
        Some(Compression::Zstd) => drop(config.set("compression.type", "zstd")),
        Some(_) => return Err(Error::config("--compress: a topic takes gzip or zstd")),
    }
    let producer: BaseProducer<Deliveries> =
        config.create_with_context(Deliveries::telling(|bytes| COUNTERS.add_generated(1, bytes))).map_err(failed)?;
    let mut writer = new_record_writer(options.shape, options.seed, 0, options.total_bytes);
    let mut generated = Generated { objects: 1, ..Generated::default() };
    let (started, mut record) = (Instant::now(), Vec::new());
    while generated.raw_bytes < options.total_bytes {
        record.clear();
        writer.write_record(&mut record);
        let value = record.strip_suffix(b"\n").unwrap_or(&record);
        let number = generated.records.to_string();
        let key = user_of(value).unwrap_or(number.as_bytes());
        enqueue(&producer, BaseRecord::to(&spec.topic).key(key).payload(value)).map_err(failed)?;
        generated.raw_bytes += value.len() as u64;
        generated.records += 1;
        if generated.records.is_multiple_of(PACE_RECORDS) {
            producer.poll(Duration::ZERO);
            while options.rate.is_some_and(|rate| generated.records as f64 > started.elapsed().as_secs_f64() * rate as f64) {
                producer.poll(PACE_PAUSE);
            }
        }
        if producer.context().failed() > 0 {
            break;
        }
    }
    producer.flush(FLUSH_TIMEOUT).map_err(failed)?;
    if let Some(error) = producer.context().take_failure() {
        let count = producer.context().failed();
        return Err(failed(error).context(format!("{count} records were not taken")));
    }
    generated.stored_bytes = generated.raw_bytes;
    Ok(generated)
}

/// The user of a JSON event.
fn user_of(value: &[u8]) -> Option<&[u8]> {
    const FIELD: &[u8] = b"\"user_id\":\"";
    let rest = &value[memchr::memmem::find(value, FIELD)? + FIELD.len()..];
    Some(&rest[..memchr::memchr(b'"', rest)?])
}

fn create_topic(spec: &KafkaSpec, partitions: u32) -> Result<()> {
    let failed = |e: KafkaError| kafka_error(spec, "creating", &e, None);
    let admin: AdminClient<DefaultClientContext> = settings_with_secrets(spec)?.create().map_err(failed)?;
    // -1: as many replicas as the brokers have it by default.
    let topic = NewTopic::new(&spec.topic, i32::try_from(partitions).unwrap_or(i32::MAX), TopicReplication::Fixed(-1));
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let started = Instant::now();
    loop {
        let known = admin.inner().fetch_metadata(None, REQUEST_TIMEOUT).map_err(failed)?;
        if known.topics().iter().any(|known| known.name() == spec.topic) {
            return Ok(());
        }
        let created = futures::executor::block_on(admin.create_topics([&topic], &options));
        let error = match created.map(|created| created.into_iter().next()) {
            Ok(Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists)))) | Ok(Some(Ok(_)) | None) => return Ok(()),
            Ok(Some(Err((_, code)))) => KafkaError::AdminOp(code),
            Err(error) => error,
        };
        // The brokers which answer may still be choosing a controller, or have one that is just gone.
        let is_passing = matches!(
            error,
            KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut | RDKafkaErrorCode::NotController)
        );
        if !is_passing || started.elapsed() > PATIENCE {
            return Err(failed(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_an_event_is_its_user() {
        let mut writer = new_record_writer(Shape::Json, 1, 0, 1 << 20);
        let mut record = Vec::new();
        writer.write_record(&mut record);
        let event: serde_json::Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(user_of(&record), event["user_id"].as_str().map(str::as_bytes));
        assert!(event["user_id"].is_string());
        assert_eq!(user_of(b"no event"), None);
    }
}
