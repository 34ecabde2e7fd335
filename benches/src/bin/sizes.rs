//! Promise P5 over the files of a folder: size relative to zlib's own level 9, the efforts that were chosen, and what choosing takes
//! of the time of a batch. It is the source of the tables in `baler::function::effort`.
//!
//!     cargo run -p baler-benches --bin sizes -- FOLDER

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use baler::function::zlib::{SplitEffort, choose_effort, compress_next};
use baler_benches::{CHUNK_BYTES, Result};
use clap::Parser;

/// Batches as a scan makes them.
const BATCH_BYTES: usize = 4 << 20;
/// A shorter batch is not sampled.
const SAMPLED_BYTES_MIN: usize = 2 << 20;
const LEVEL: u8 = 9;

#[derive(Debug, Parser)]
struct Args {
    /// The files are read whole, one after the other.
    folder: PathBuf,
}

#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn main() -> Result<()> {
    let mut paths: Vec<_> = std::fs::read_dir(Args::parse().folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths.iter().filter(|path| path.is_file()) {
        println!("{}", measure_file(path)?);
    }
    Ok(())
}

fn measure_file(path: &Path) -> Result<String> {
    let corpus = std::fs::read(path)?;
    let (mut raw, mut ours, mut zlib, mut efforts) = (0, 0, 0, String::new());
    let (mut choosing, mut compressing, mut worst) = (0.0, 0.0, 0f64);
    // A file is one split.
    let split = SplitEffort::default();
    for batch in corpus.chunks(BATCH_BYTES).filter(|batch| batch.len() >= SAMPLED_BYTES_MIN) {
        let values: Vec<&[u8]> = batch.chunks(CHUNK_BYTES).collect();
        // The first batch of a process also makes the encoders of each thread.
        choose_effort(&values, LEVEL);
        let started = Instant::now();
        choose_effort(&values, LEVEL);
        choosing += started.elapsed().as_secs_f64();
        let values: Vec<Option<&[u8]>> = values.into_iter().map(Some).collect();
        let started = Instant::now();
        let packed = compress_next(&values, LEVEL, &split)?;
        compressing += started.elapsed().as_secs_f64();
        write!(efforts, "{}", split.effort().unwrap_or_default())?;
        let one: usize = packed.iter().flatten().map(Vec::len).sum();
        let other: usize = values.iter().flatten().map(|value| zlib_reference::compressed_size(value, i32::from(LEVEL))).sum();
        worst = worst.max(one as f64 / other as f64);
        (raw, ours, zlib) = (raw + batch.len(), ours + one, zlib + other);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if raw == 0 {
        return Ok(format!("{name:20} is smaller than {} MiB", SAMPLED_BYTES_MIN >> 20));
    }
    let (ratio, share) = (ours as f64 / zlib as f64, choosing / compressing * 100.0);
    let speed = raw as f64 / 1e6 / compressing;
    Ok(format!("{name:20} size {ratio:.4} of zlib 9, worst batch {worst:.4}, efforts {efforts:8} {speed:4.0} MB/s, choosing {share:.2} %"))
}
