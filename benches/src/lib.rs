//! What the benchmarks share.
//!
//! - [`fleet`]: a fleet on this machine.
//! - [`process`]: what processes take.
//! - [`jobs`]: calls of `baler`.
//! - [`spark`]: the same jobs on Spark.

use std::path::Path;
use std::time::Instant;

pub mod fleet;
pub mod jobs;
pub mod process;
pub mod spark;

/// Any failure of a benchmark.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The middle value; 0 for none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Lowest and highest value.
pub fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, 0.0), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// Bytes of a chunk, as a job takes them by default.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Compresses the corpus on all cores, one compressor and one buffer a thread; seconds and compressed bytes.
///
/// # Errors
/// When the encoder refuses a chunk.
pub fn bare_loop(corpus: &[u8], effort: u8, cores: usize) -> Result<(f64, usize)> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let chunks: Vec<&[u8]> = corpus.chunks(CHUNK_BYTES).collect();
    let started = Instant::now();
    let level = libdeflater::CompressionLvl::new(i32::from(effort)).map_err(|e| format!("{e:?}"))?;
    let work = || -> std::result::Result<usize, String> {
        let mut compressor = libdeflater::Compressor::new(level);
        let mut out = vec![0; compressor.zlib_compress_bound(CHUNK_BYTES)];
        let mut bytes = 0;
        while let Some(chunk) = chunks.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            bytes += compressor.zlib_compress(chunk, &mut out).map_err(|e| format!("{e:?}"))?;
        }
        Ok(bytes)
    };
    let total = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread panicked".to_string())?)
            .sum::<std::result::Result<usize, String>>()
    })?;
    Ok((started.elapsed().as_secs_f64(), total))
}

/// Keeps figures as JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn keep(file: &Path, figures: &serde_json::Value) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(file, serde_json::to_vec_pretty(figures)?)?)
}
