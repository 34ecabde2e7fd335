//! Counters of this process, named as DESIGN section 7 names them; the progress line reads them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::connector::receipt::Receipt;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds the microseconds since `started`.
    pub fn add_since(&self, started: Instant) {
        self.add(started.elapsed().as_micros() as u64);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters.
#[derive(Debug)]
pub struct Counters {
    /// `baler_source_bytes_total`: raw bytes handed to the plan.
    pub source_bytes: Counter,
    /// `baler_source_chunks_total`.
    pub source_chunks: Counter,
    /// `baler_source_records_total`: records of topics.
    pub source_records: Counter,
    /// `baler_sink_bytes_total`: bytes of documents which the sink acknowledged.
    pub sink_bytes: Counter,
    /// `baler_sink_docs_total`: documents which the sink acknowledged.
    pub sink_docs: Counter,
    /// `baler_source_wait_seconds_total`, in microseconds: time in which a plan waited for records of a topic.
    pub source_wait: Counter,
    /// `baler_row_seconds_total`, in microseconds: time in which a writer waited for rows, and so for source and CPU.
    pub row_wait: Counter,
    /// `baler_sink_wait_seconds_total`, in microseconds: time in which a writer waited for the sink to take a batch.
    pub sink_wait: Counter,
    /// `baler_splits_total`: splits with a receipt.
    pub splits: Counter,
    /// `baler_restored_bytes_total`: raw bytes on their way to a restored object.
    pub restored_bytes: Counter,
    /// `baler_restored_objects_total`: objects which were restored and are durable.
    pub restored_objects: Counter,
}

/// The counters of this process.
pub static COUNTERS: Counters = Counters {
    source_bytes: Counter::new(),
    source_chunks: Counter::new(),
    source_records: Counter::new(),
    sink_bytes: Counter::new(),
    sink_docs: Counter::new(),
    source_wait: Counter::new(),
    row_wait: Counter::new(),
    sink_wait: Counter::new(),
    splits: Counter::new(),
    restored_bytes: Counter::new(),
    restored_objects: Counter::new(),
};

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
}

impl Figures {
    /// Those of a run in this process, as they happen.
    pub fn of_process() -> Self {
        Self { raw_bytes: COUNTERS.source_bytes.get(), stored_bytes: COUNTERS.sink_bytes.get(), documents: COUNTERS.sink_docs.get() }
    }
}

impl Figures {
    /// Those of a restore: `documents` are the objects which are written.
    pub fn of_restore() -> Self {
        Self { raw_bytes: COUNTERS.restored_bytes.get(), stored_bytes: 0, documents: COUNTERS.restored_objects.get() }
    }
}

/// Sums of the receipts which a driver has seen: the figures of a run on a fleet.
#[derive(Debug, Default)]
pub struct ReceiptTotals {
    raw_bytes: Counter,
    compressed_bytes: Counter,
    documents: Counter,
}

impl ReceiptTotals {
    /// Adds one receipt.
    pub fn add(&self, receipt: &Receipt) {
        self.raw_bytes.add(receipt.raw_bytes);
        self.compressed_bytes.add(receipt.compressed_bytes);
        self.documents.add(receipt.documents);
    }

    /// The present sums.
    pub fn figures(&self) -> Figures {
        Figures { raw_bytes: self.raw_bytes.get(), stored_bytes: self.compressed_bytes.get(), documents: self.documents.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_party_is_who_was_waited_for_most() {
        let waits = |source, rows, sink| Waits { source, rows, sink }.since(&Waits { source: 1, rows: 1, sink: 1 }).slowest();
        assert_eq!([waits(9, 10, 2), waits(3, 10, 2), waits(3, 10, 12)], ["Kafka", "the CPU", "the sink"]);
    }
}
