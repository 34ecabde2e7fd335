//! What to expect of an input before a job is begun: sizes, speeds and costs of each method, measured on a sample of it.
//!
//! [`sample`] reads the sample through the BLOB table, so that chunks are those of a job; [`measure`] compresses it on one core.

pub mod measure;
pub mod sample;

use serde::Serialize;

pub use self::measure::{Measured, Way, measure};
pub use self::sample::{Sample, sample};

/// What one method or chunk size would do to the whole input.
#[derive(Debug, Clone, Serialize)]
pub struct Forecast {
    /// Sizes and time of the sample.
    #[serde(flatten)]
    pub measured: Measured,
    /// Raw bytes through their compressed ones.
    pub ratio: f64,
    /// Raw bytes a second on one core of this machine.
    pub bytes_per_second: f64,
    /// Hours of one core for the whole input.
    pub core_hours: f64,
    /// Bytes of the whole input when compressed.
    pub stored_bytes: u64,
}

impl Forecast {
    /// Extends what was measured on a sample to `raw_bytes` of the same kind.
    pub fn new(measured: Measured, raw_bytes: u64) -> Self {
        let ratio = measured.raw_bytes as f64 / measured.packed_bytes.max(1) as f64;
        let bytes_per_second = measured.raw_bytes as f64 / measured.seconds.max(f64::EPSILON);
        Self {
            ratio,
            bytes_per_second,
            core_hours: raw_bytes as f64 / bytes_per_second.max(f64::EPSILON) / 3600.0,
            stored_bytes: (raw_bytes as f64 / ratio.max(f64::EPSILON)) as u64,
            measured,
        }
    }

    /// Seconds for the whole input on `cores` cores like this one, which do nothing else.
    pub fn seconds_on(&self, cores: u64) -> f64 {
        self.core_hours * 3600.0 / cores.max(1) as f64
    }
}
