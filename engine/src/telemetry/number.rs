//! Numbers which many tasks add to without waiting for each other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::text::{Kind, Text};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(super) const fn new() -> Self {
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

/// Upper bounds of the buckets of a batch at the sink, in seconds: from a local write to one that waited for an election.
pub(super) const SINK_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 90.0];

/// Upper bounds of the buckets of a micro-batch, in seconds: around the default trigger of 30 s.
pub(super) const BATCH_SECONDS: &[f64] = &[0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 900.0, 3600.0];

/// Buckets which a histogram has room for, the one without bound included.
const BUCKETS: usize = 16;

/// How long something took, by buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is above them all.
    counts: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

impl Histogram {
    pub(super) const fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.len() < BUCKETS, "a histogram has at most 15 bounds");
        Self { bounds, counts: [const { AtomicU64::new(0) }; BUCKETS], sum_micros: AtomicU64::new(0) }
    }

    /// Adds one that took this long.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn write(&self, text: &mut Text, name: &str, help: &str) {
        text.family(name, Kind::Histogram, help);
        let mut below = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            below += count.load(Ordering::Relaxed);
            text.sample(&format!("{name}_bucket"), &[("le", &bound.to_string())], below as f64);
        }
        // Read once: a bucket which grows meanwhile must not be above the sum of all.
        let above: u64 = self.counts.iter().skip(self.bounds.len()).map(|count| count.load(Ordering::Relaxed)).sum();
        text.sample(&format!("{name}_bucket"), &[("le", "+Inf")], (below + above) as f64);
        text.sample(&format!("{name}_sum"), &[], self.sum_micros.load(Ordering::Relaxed) as f64 / 1e6);
        text.sample(&format!("{name}_count"), &[], (below + above) as f64);
    }
}

/// One counter for each value of a label; the values are those of a closed list, so a label is never a text from elsewhere.
#[derive(Debug)]
pub struct CounterByLabel<const N: usize> {
    label: &'static str,
    values: [&'static str; N],
    counters: [Counter; N],
}

impl<const N: usize> CounterByLabel<N> {
    pub(super) const fn new(label: &'static str, values: [&'static str; N]) -> Self {
        Self { label, values, counters: [const { Counter::new() }; N] }
    }

    pub(super) fn at(&self, index: usize) -> Option<&Counter> {
        self.counters.get(index)
    }

    pub(super) fn write(&self, text: &mut Text, name: &str, help: &str) {
        text.family(name, Kind::Counter, help);
        for (value, counter) in self.values.iter().zip(&self.counters) {
            text.sample(name, &[(self.label, value)], counter.get() as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_what_is_at_or_below_each_bound() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        for millis in [100, 101, 1000, 5000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut text = Text::default();
        histogram.write(&mut text, "x_seconds", "how long");
        let lines: Vec<_> = text.as_str().lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "x_seconds_bucket{le=\"0.1\"} 1",
            "x_seconds_bucket{le=\"1\"} 3",
            "x_seconds_bucket{le=\"+Inf\"} 4",
            "x_seconds_sum 6.201",
            "x_seconds_count 4",
        ];
        assert_eq!(lines, expected);
    }
}
