//! Split → batches of rows. Before: a range of offsets; after: `RecordBatch`es, made ahead of the reader on a thread of its own.
//!
//! A range ends where the next record is beyond it, or where the partition ends: its last offsets may be markers of transactions,
//! records of aborted ones, or compacted away, so no particular offset is waited for.

use std::time::{Duration, Instant};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use rdkafka::Message;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::client::{Consumer, Lease, is_passing, kafka_error};
use super::offsets::data_loss;
use super::pack::{Packer, Record};
use super::{KafkaSpec, parse_partition};
use crate::connector::split::Split;
use crate::error::{Error, ErrorKind, Result};
use crate::job::dead_letter::{DeadLetter, DeadLetterLog, OnError};
use crate::runtime::{self, Spawned};

/// Batches between the thread which makes them and the plan: one is made while another one is compressed.
pub(crate) const BATCHES_AHEAD: usize = 1;
/// How long one look for a record takes; after each, the thread sees whether anybody still wants one.
const POLL: Duration = Duration::from_millis(100);
/// How long a partition may yield nothing before the split fails and is tried again: an election or a restarted broker fits in.
const PATIENCE: Duration = Duration::from_secs(90);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The rows of one split, as they are made.
#[derive(Debug)]
pub(crate) struct RowStream {
    /// `None` is the end; a channel that closes without it is an error.
    batches: mpsc::Receiver<Result<Option<RecordBatch>>>,
    _thread: Spawned<()>,
}

impl RowStream {
    /// Begins to read `split`; `schema` holds the columns that are wanted. Where `kafka.on_corrupt` is 'dead_letter', records which
    /// no row can hold go to `log`.
    ///
    /// # Errors
    /// Internal, when no thread can be had or the split is none of a partition; Config, for dead letters without a log.
    pub(crate) fn open(spec: &KafkaSpec, split: &Split, schema: SchemaRef, log: Option<DeadLetterLog>) -> Result<Self> {
        let (_, partition) =
            parse_partition(&split.object).ok_or_else(|| Error::internal(format!("{} is no partition of a topic", split.object)))?;
        let (spec, split) = (spec.clone(), split.clone());
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let thread = runtime::spawn_blocking(move || {
            let mut reader = RangeReader {
                spec: &spec,
                split: &split,
                partition,
                end: split.end as i64,
                position: split.start as i64,
                moved: Instant::now(),
                sender: &sender,
                log: log.as_ref(),
            };
            let ended = reader.run(schema);
            // Nobody is there any more to be told, if this fails.
            drop(sender.blocking_send(ended.map(|()| None)));
        })?;
        Ok(Self { batches, _thread: thread })
    }

    /// The next rows; `None` after the last ones.
    ///
    /// # Errors
    /// Conflict, when offsets of the range are gone; Decode, for a record that the framing cannot hold; Transient, when the
    /// brokers were away for too long.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let ended = || Error::internal("a reader of Kafka ended without a word");
        self.batches.recv().await.ok_or_else(ended)?
    }
}

/// What to do about what the consumer gave.
enum Step {
    Go,
    Done,
}

struct RangeReader<'a> {
    spec: &'a KafkaSpec,
    split: &'a Split,
    partition: i32,
    end: i64,
    /// The next offset which is wanted.
    position: i64,
    /// When something last came.
    moved: Instant,
    sender: &'a mpsc::Sender<Result<Option<RecordBatch>>>,
    log: Option<&'a DeadLetterLog>,
}

impl RangeReader<'_> {
    fn run(&mut self, schema: SchemaRef) -> Result<()> {
        let lease = Lease::take(self.spec)?;
        let mut packer = Packer::new(self.spec, self.partition, schema);
        self.assign(lease.consumer())?;
        let mut end_is_known = false;
        loop {
            let step = match lease.consumer().poll(POLL) {
                Some(Ok(message)) => self.take(&message, &mut packer)?,
                Some(Err(KafkaError::PartitionEOF(_))) if end_is_known => Step::Done,
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    end_is_known = self.ask_for_end(lease.consumer())?;
                    Step::Go
                }
                Some(Err(error)) => self.consider(lease.consumer(), &error)?,
                None => Step::Go,
            };
            if matches!(step, Step::Done) {
                break;
            }
            if self.sender.is_closed() {
                lease.give_back();
                return Ok(());
            }
            if self.moved.elapsed() > PATIENCE {
                let text = format!("{}: nothing came for {} s", self.place(), PATIENCE.as_secs());
                return Err(kafka_error(
                    self.spec,
                    &text,
                    &KafkaError::MessageConsumption(Code::OperationTimedOut),
                    Some(lease.consumer().context()),
                ));
            }
        }
        lease.give_back();
        if let Some(rest) = packer.finish()? {
            self.send(rest);
        }
        Ok(())
    }

    fn place(&self) -> String {
        format!("partition {} at offset {} of", self.partition, self.position)
    }

    fn send(&mut self, batch: RecordBatch) {
        // The loop sees it when nobody listens any more.
        drop(self.sender.blocking_send(Ok(Some(batch))));
        self.moved = Instant::now();
    }

    /// Begins to fetch at the present position.
    fn assign(&self, consumer: &Consumer) -> Result<()> {
        let failed = |e| kafka_error(self.spec, &format!("reading {}", self.place()), &e, Some(consumer.context()));
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.spec.topic, self.partition, Offset::Offset(self.position)).map_err(failed)?;
        // The same assignment again would change nothing.
        consumer.unassign().map_err(failed)?;
        consumer.assign(&list).map_err(failed)
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, packer: &mut Packer) -> Result<Step> {
        if message.offset() >= self.end {
            return Ok(Step::Done);
        }
        self.moved = Instant::now();
        let headers = match message.headers() {
            Some(headers) if self.spec.wants_headers() => headers.iter().map(|header| (header.key, header.value)).collect(),
            _ => Vec::new(),
        };
        let record = Record {
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            headers,
        };
        self.position = message.offset();
        match packer.check(&record) {
            Ok(()) => {
                if let Some(batch) = packer.push(&record)? {
                    self.send(batch);
                }
            }
            Err(error) => self.put_aside(&record, error)?,
        }
        self.position += 1;
        Ok(if self.position >= self.end { Step::Done } else { Step::Go })
    }

    /// Keeps a record which no row can hold, or fails.
    fn put_aside(&self, record: &Record<'_>, error: Error) -> Result<()> {
        if self.spec.on_corrupt == OnError::Fail {
            return Err(error.context(format!("{} partition {} offset {}", self.spec.target(), self.partition, record.offset)));
        }
        let log = self.log.ok_or_else(|| {
            Error::config(
                "kafka.on_corrupt = 'dead_letter' needs a job: use `baler run` or `baler stream`, which keep dead letters in their state",
            )
        })?;
        log.add(DeadLetter::record(self.split, record.offset as u64, record.key, record.value, error.to_string()));
        Ok(())
    }

    /// The partition seems to end before the range does. That is believed once the leader says that it holds the whole range, and
    /// a fetch that begins after it says so ends here too: a leader just elected may not know yet how far it may be read.
    fn ask_for_end(&mut self, consumer: &Consumer) -> Result<bool> {
        let high = match consumer.fetch_watermarks(&self.spec.topic, self.partition, REQUEST_TIMEOUT) {
            Ok((low, high)) if high < self.end && self.moved.elapsed() > PATIENCE / 2 => {
                return Err(data_loss(self.spec, self.partition, self.end, (low, high)));
            }
            Ok((_, high)) => high,
            Err(error) => {
                self.consider(consumer, &error)?;
                self.position
            }
        };
        if high < self.end {
            std::thread::sleep(POLL);
        }
        self.assign(consumer)?;
        Ok(high >= self.end)
    }

    /// An error: librdkafka goes on by itself, or the offset is gone, or the split fails.
    fn consider(&mut self, consumer: &Consumer, error: &KafkaError) -> Result<Step> {
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation) => self.skip_lost(consumer),
            Some(code) if is_passing(code) => {
                tracing::debug!(topic = self.spec.topic, partition = self.partition, %code, "Kafka goes on by itself");
                Ok(Step::Go)
            }
            _ => Err(kafka_error(self.spec, &format!("reading {}", self.place()), error, Some(consumer.context()))),
        }
    }

    /// The position is not there any more.
    fn skip_lost(&mut self, consumer: &Consumer) -> Result<Step> {
        let failed = |e| {
            let error = kafka_error(self.spec, &format!("reading {}", self.place()), &e, Some(consumer.context()));
            Error::new(ErrorKind::Transient, error.to_string())
        };
        let marks = consumer.fetch_watermarks(&self.spec.topic, self.partition, REQUEST_TIMEOUT).map_err(failed)?;
        if self.spec.fail_on_data_loss {
            return Err(data_loss(self.spec, self.partition, self.position, marks));
        }
        let left = self.position.clamp(marks.0, marks.1);
        tracing::warn!(
            topic = self.spec.topic,
            partition = self.partition,
            wanted = self.position,
            left,
            "offsets are gone; going on with what is left"
        );
        self.position = left;
        if left >= self.end || left == marks.1 {
            return Ok(Step::Done);
        }
        self.assign(consumer)?;
        Ok(Step::Go)
    }
}
