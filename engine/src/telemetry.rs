//! Counters of this process, named as DESIGN section 7 names them; the progress line reads them.

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// `baler_sink_bytes_total`: bytes of documents which the sink acknowledged.
    pub sink_bytes: Counter,
    /// `baler_sink_docs_total`: documents which the sink acknowledged.
    pub sink_docs: Counter,
    /// `baler_splits_total`: splits with a receipt.
    pub splits: Counter,
}

/// The counters of this process.
pub static COUNTERS: Counters = Counters {
    source_bytes: Counter::new(),
    source_chunks: Counter::new(),
    sink_bytes: Counter::new(),
    sink_docs: Counter::new(),
    splits: Counter::new(),
};
