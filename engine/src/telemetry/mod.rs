//! What this process has done, in numbers: the one source of progress lines, `/metrics` and the dashboard.
//!
//! | place | holds |
//! | --- | --- |
//! | `number` | counters and histograms |
//! | [`text`] | Prometheus' text format |
//! | [`serve`] | `/metrics`, `/healthz`, `/readyz` |
//! | [`log`] | what is logged, and in which form |
//! | [`trace`] | spans to an OpenTelemetry collector |
//! | [`plan`] | what the nodes of a plan have done |
//! | [`host`] | free space of the folders and end of the certificates which a process depends on |
//!
//! Families without `read` in their names count what is done: a split with its receipt, a batch with its acknowledgement. So their sums
//! over all processes are the sums of the receipts, whatever was tried again. `baler_read_…` and `baler_sink_…` count what was
//! read and what a sink acknowledged, a repeated split as often as it was repeated.

pub mod host;
pub mod log;
mod number;
pub mod plan;
pub mod serve;
pub mod text;
pub mod trace;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use number::{BATCH_SECONDS, SINK_SECONDS};
pub use number::{Counter, CounterByLabel, Histogram};
use text::{Kind, Published, Text};

use crate::connector::receipt::Receipt;
use crate::job::dead_letter::DeadLetter;

/// What is tried again: label `kind` of `baler_retries_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryKind {
    /// Reading a range of an object.
    SourceRead,
    /// Writing a batch.
    SinkWrite,
    /// Reading what is stored.
    SinkRead,
    /// Reading a file of a job's or query's state.
    StateRead,
    /// Creating one.
    StateWrite,
    /// Sending the splits of a failed wave again.
    Wave,
    /// Sending splits which lag a second time.
    LateSplit,
    /// Going on after a micro-batch failed.
    MicroBatch,
}

const RETRY_KINDS: [&str; 8] = ["source_read", "sink_write", "sink_read", "state_read", "state_write", "wave", "late_split", "micro_batch"];

const DEAD_LETTER_REASONS: [&str; 3] = ["corrupt_object", "refused_document", "corrupt_record"];

/// All counters.
#[derive(Debug)]
pub struct Counters {
    /// `baler_read_bytes_total`: raw bytes handed to the plan.
    pub read_bytes: Counter,
    /// `baler_read_chunks_total`.
    pub read_chunks: Counter,
    /// `baler_read_records_total`: records of topics.
    pub read_records: Counter,
    /// `baler_sink_bytes_total`: bytes of documents which the sink acknowledged.
    pub sink_bytes: Counter,
    /// `baler_sink_docs_total`: documents which the sink acknowledged.
    pub sink_docs: Counter,
    /// `baler_sink_batches_total` and `baler_sink_batch_seconds`: batches which the sink acknowledged, from sending to acknowledgement.
    pub sink_batches: Histogram,
    /// `baler_source_wait_seconds_total`, in microseconds: time in which a plan waited for records of a topic.
    pub source_wait: Counter,
    /// `baler_row_wait_seconds_total`, in microseconds: time in which a writer waited for rows, and so for source and CPU.
    pub row_wait: Counter,
    /// `baler_sink_wait_seconds_total`, in microseconds: time in which a writer waited for the sink to take a batch.
    pub sink_wait: Counter,
    /// `baler_restored_bytes_total`: raw bytes on their way to a restored object.
    pub restored_bytes: Counter,
    /// `baler_restored_objects_total`: objects which were restored and are durable.
    pub restored_objects: Counter,
    /// `baler_tasks_failed_total`: on a scheduler, tasks which failed, those that were cancelled or lost with their executor left out.
    pub tasks_failed: Counter,
    /// `baler_stream_batches_total` and `baler_stream_batch_seconds`: micro-batches which were committed, from resolving their offsets on.
    pub stream_batches: Histogram,
    generated_records: Counter,
    generated_bytes: Counter,
    splits: Counter,
    source_bytes: Counter,
    source_records: Counter,
    source_chunks: Counter,
    compressed_bytes: Counter,
    documents: Counter,
    retries: CounterByLabel<8>,
    dead_letters: CounterByLabel<3>,
}

/// The counters of this process.
pub static COUNTERS: Counters = Counters {
    read_bytes: Counter::new(),
    read_chunks: Counter::new(),
    read_records: Counter::new(),
    sink_bytes: Counter::new(),
    sink_docs: Counter::new(),
    sink_batches: Histogram::new(SINK_SECONDS),
    source_wait: Counter::new(),
    row_wait: Counter::new(),
    sink_wait: Counter::new(),
    restored_bytes: Counter::new(),
    restored_objects: Counter::new(),
    tasks_failed: Counter::new(),
    stream_batches: Histogram::new(BATCH_SECONDS),
    generated_records: Counter::new(),
    generated_bytes: Counter::new(),
    splits: Counter::new(),
    source_bytes: Counter::new(),
    source_records: Counter::new(),
    source_chunks: Counter::new(),
    compressed_bytes: Counter::new(),
    documents: Counter::new(),
    retries: CounterByLabel::new("kind", RETRY_KINDS),
    dead_letters: CounterByLabel::new("reason", DEAD_LETTER_REASONS),
};

/// What a finished split, or a partition of a plan without splits, has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Rows which came from the source: chunks, where a row of the source is one.
    pub chunks: u64,
    /// Documents stored.
    pub documents: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes before compression.
    pub raw_bytes: u64,
    /// Bytes after it.
    pub compressed_bytes: u64,
}

impl Counters {
    /// Counts one acknowledged batch of the sink.
    pub fn add_sink_batch(&self, documents: u64, bytes: u64, took: Duration) {
        self.sink_docs.add(documents);
        self.sink_bytes.add(bytes);
        self.sink_batches.observe(took);
    }

    /// Counts sample data which is stored: an object when it is whole, a record of a topic when the brokers have it.
    pub fn add_generated(&self, records: u64, bytes: u64) {
        self.generated_records.add(records);
        self.generated_bytes.add(bytes);
    }

    /// Counts work that is done for good: call it once, after the receipt is stored.
    pub fn add_done(&self, done: &Done, splits: u64) {
        self.splits.add(splits);
        self.source_bytes.add(done.raw_bytes);
        self.source_records.add(done.records);
        self.source_chunks.add(done.chunks);
        self.compressed_bytes.add(done.compressed_bytes);
        self.documents.add(done.documents);
    }

    /// Counts the dead letters of a split, after its receipt is stored.
    pub fn add_dead_letters(&self, letters: &[DeadLetter]) {
        for letter in letters {
            // A refused document has an `_id`; a corrupt object and a corrupt record never became one.
            let reason = match letter {
                DeadLetter { id: Some(_), .. } => 1,
                DeadLetter { byte_length: Some(_), .. } => 2,
                _ => 0,
            };
            if let Some(counter) = self.dead_letters.at(reason) {
                counter.add(1);
            }
        }
    }

    /// Counts something that is tried again.
    pub fn add_retry(&self, kind: RetryKind) {
        if let Some(counter) = self.retries.at(kind as usize) {
            counter.add(1);
        }
    }

    /// What was tried again, by kind, and how often; what was not is left out.
    pub fn retries(&self) -> Vec<(&'static str, u64)> {
        let counts = RETRY_KINDS.iter().enumerate().map(|(at, kind)| (*kind, self.retries.at(at).map_or(0, Counter::get)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Writes all of them.
    pub fn write(&self, text: &mut Text) {
        let counts = [
            ("baler_splits_total", "Splits which are done and have their receipt.", &self.splits),
            ("baler_source_bytes_total", "Bytes before compression, of splits which are done.", &self.source_bytes),
            ("baler_source_records_total", "Records (lines or messages), of splits which are done.", &self.source_records),
            ("baler_source_chunks_total", "Rows which came from the source, of splits which are done.", &self.source_chunks),
            ("baler_compressed_bytes_total", "Bytes after compression, of splits which are done.", &self.compressed_bytes),
            ("baler_documents_total", "Documents stored, of splits which are done.", &self.documents),
            ("baler_read_bytes_total", "Bytes read so far, those of repeated splits again.", &self.read_bytes),
            ("baler_read_chunks_total", "Chunks or messages read so far, those of repeated splits again.", &self.read_chunks),
            ("baler_read_records_total", "Records of topics read so far, those of repeated splits again.", &self.read_records),
            ("baler_sink_docs_total", "Documents which the sink acknowledged.", &self.sink_docs),
            ("baler_sink_bytes_total", "Bytes of documents which the sink acknowledged.", &self.sink_bytes),
            ("baler_restored_bytes_total", "Bytes written to restored objects.", &self.restored_bytes),
            ("baler_restored_objects_total", "Objects which were restored and are durable.", &self.restored_objects),
            ("baler_generated_records_total", "Records of sample data which are stored.", &self.generated_records),
            ("baler_generated_bytes_total", "Bytes of sample data which are stored, before compression.", &self.generated_bytes),
            ("baler_tasks_failed_total", "Tasks which failed, as the scheduler was told.", &self.tasks_failed),
        ];
        for (name, help, counter) in counts {
            text.family(name, Kind::Counter, help);
            text.sample(name, &[], counter.get() as f64);
        }
        let waits = [
            ("baler_source_wait_seconds_total", "Time in which plans waited for records of a topic.", &self.source_wait),
            ("baler_row_wait_seconds_total", "Time in which writers waited for rows: for the source and the CPU.", &self.row_wait),
            ("baler_sink_wait_seconds_total", "Time in which writers waited for the sink to take a batch.", &self.sink_wait),
        ];
        for (name, help, counter) in waits {
            text.family(name, Kind::Counter, help);
            text.sample(name, &[], counter.get() as f64 / 1e6);
        }
        self.retries.write(text, "baler_retries_total", "Things tried again, by kind.");
        self.dead_letters.write(text, "baler_dead_letters_total", "Dead letters of splits which are done, by reason.");
        let histograms = [
            (
                "baler_sink_batch",
                "at the sink, from sending to acknowledgement",
                "Batches which the sink acknowledged.",
                &self.sink_batches,
            ),
            ("baler_stream_batch", "from resolving its offsets to its commit", "Micro-batches which were committed.", &self.stream_batches),
        ];
        for (stem, what, help, histogram) in histograms {
            let name = format!("{stem}es_total");
            text.family(&name, Kind::Counter, help);
            text.sample(&name, &[], histogram.count() as f64);
            histogram.write(text, &format!("{stem}_seconds"), &format!("Time of a batch {what}."));
        }
    }
}

static OPEN_SPLITS: Mutex<Option<HashSet<String>>> = Mutex::new(None);

/// Splits of jobs which this process writes now.
pub fn open_splits() -> HashSet<String> {
    OPEN_SPLITS.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
}

/// A split which this process writes, for as long as it is kept.
#[derive(Debug)]
pub struct OpenSplit(String);

impl OpenSplit {
    /// Begins split `id`.
    pub fn begin(id: &str) -> Self {
        OPEN_SPLITS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(id.to_string());
        Self(id.to_string())
    }
}

impl Drop for OpenSplit {
    fn drop(&mut self) {
        if let Some(open) = OPEN_SPLITS.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            open.remove(&self.0);
        }
    }
}

/// What this process has waited for, in microseconds of all its partitions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    source: u64,
    rows: u64,
    sink: u64,
}

impl Waits {
    /// The sums up to now.
    pub fn of_process() -> Self {
        Self { source: COUNTERS.source_wait.get(), rows: COUNTERS.row_wait.get(), sink: COUNTERS.sink_wait.get() }
    }

    /// What came since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self { source: self.source - before.source, rows: self.rows - before.rows, sink: self.sink - before.sink }
    }

    /// Who was waited for most.
    pub fn slowest(&self) -> &'static str {
        let cpu = self.rows.saturating_sub(self.source);
        if self.source >= self.sink && self.source >= cpu {
            "Kafka"
        } else if self.sink >= cpu {
            "the sink"
        } else {
            "the CPU"
        }
    }
}

/// What a run has done so far: the one source of every progress display.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Raw bytes read.
    pub raw_bytes: u64,
    /// Bytes stored, of documents or payloads.
    pub stored_bytes: u64,
    /// Documents stored.
    pub documents: u64,
    /// Splits done.
    pub splits: u64,
}

impl Figures {
    /// Those of a run in this process, as they happen.
    pub fn of_process() -> Self {
        Self {
            raw_bytes: COUNTERS.read_bytes.get(),
            stored_bytes: COUNTERS.sink_bytes.get(),
            documents: COUNTERS.sink_docs.get(),
            splits: COUNTERS.splits.get(),
        }
    }
}

impl Figures {
    /// Those of a restore: `documents` are the objects which are written.
    pub fn of_restore() -> Self {
        Self { raw_bytes: COUNTERS.restored_bytes.get(), documents: COUNTERS.restored_objects.get(), ..Self::default() }
    }
}

/// Sums of the receipts which a driver has seen: the figures of a run on a fleet.
#[derive(Debug, Default)]
pub struct ReceiptTotals {
    raw_bytes: Counter,
    compressed_bytes: Counter,
    documents: Counter,
    splits: Counter,
}

impl ReceiptTotals {
    /// Adds one receipt.
    pub fn add(&self, receipt: &Receipt) {
        self.raw_bytes.add(receipt.raw_bytes);
        self.compressed_bytes.add(receipt.compressed_bytes);
        self.documents.add(receipt.documents);
        self.splits.add(1);
    }

    /// The present sums.
    pub fn figures(&self) -> Figures {
        Figures {
            raw_bytes: self.raw_bytes.get(),
            stored_bytes: self.compressed_bytes.get(),
            documents: self.documents.get(),
            splits: self.splits.get(),
        }
    }
}

/// What a job has to do in this run, beside [`Figures`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobSize {
    /// Splits of the job.
    pub splits: u64,
    /// Those which were done before.
    pub splits_before: u64,
    /// Stored bytes of all splits.
    pub bytes: u64,
    /// Those of splits which were done before.
    pub bytes_before: u64,
}

/// Shows the progress of job `name` as `baler_job_…{job}`: the figures of its progress line.
pub fn publish_job(published: &Published, name: &str, size: JobSize, figures: impl Fn() -> Figures + Send + Sync + 'static) {
    let (name, before) = (name.to_string(), figures());
    published.add(Box::new(move |text| {
        let (labels, now) = ([("job", name.as_str())], figures());
        let splits_done = size.splits_before + (now.splits - before.splits);
        let gauges = [
            ("baler_job_splits", "Splits of the job.", size.splits),
            ("baler_job_splits_done", "Splits of the job with a receipt.", splits_done),
            ("baler_job_source_bytes", "Bytes which the job has to read, as stored.", size.bytes),
            ("baler_job_source_bytes_before", "Those which earlier runs have read.", size.bytes_before),
            ("baler_job_read_bytes", "Bytes before compression which this run has read.", now.raw_bytes - before.raw_bytes),
            ("baler_job_stored_bytes", "Bytes which this run has stored.", now.stored_bytes - before.stored_bytes),
            ("baler_job_documents", "Documents which this run has stored.", now.documents - before.documents),
        ];
        for (metric, help, value) in gauges {
            text.gauge(metric, help, &labels, value as f64);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_a_name_of_the_scheme_and_appears_once() {
        let mut text = Text::default();
        COUNTERS.write(&mut text);
        let names: Vec<&str> = text.as_str().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), unique.len(), "{names:?}");
        assert!(
            names.iter().all(|name| name.starts_with("baler_") && (name.ends_with("_total") || name.ends_with("_seconds"))),
            "{names:?}"
        );
    }

    #[test]
    fn the_slowest_party_is_who_was_waited_for_most() {
        let waits = |source, rows, sink| Waits { source, rows, sink }.since(&Waits { source: 1, rows: 1, sink: 1 }).slowest();
        assert_eq!([waits(9, 10, 2), waits(3, 10, 2), waits(3, 10, 12)], ["Kafka", "the CPU", "the sink"]);
    }
}
