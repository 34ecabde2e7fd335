//! A method on a sample: how small and how fast, on one core.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::sample::Sample;
use crate::error::{Error, Result};
use crate::function::codec::{Method, compress_value_by};
use crate::function::zlib::{choose_effort, compress_by_level};

/// A slow method is measured on as much of the sample as it takes in this time; at least one chunk of every place is tried.
const MEASURE_TIME: Duration = Duration::from_secs(2);
/// Size of a dictionary that chunks share: what zstd takes where nothing is said.
const DICTIONARY_BYTES: usize = 112 << 10;

/// How a chunk is compressed in a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As `zlib_compress(data, level)` does it: the effort is chosen from the chunks.
    ZlibCompress(u8),
    /// As `compress(data, method)` does it.
    Compress(Method),
    /// zstd at this level with one dictionary for all chunks, which is made of a half of the sample and measured on the other.
    Dictionary(i32),
}

/// Sizes and time of one measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    /// Bytes of a chunk; the last of a place may be shorter.
    pub chunk_bytes: u64,
    /// Bytes that were compressed.
    pub raw_bytes: u64,
    /// Bytes they became.
    pub packed_bytes: u64,
    /// Seconds it took on one core.
    pub seconds: f64,
}

/// Compresses the sample in chunks of `chunk_bytes` on the present thread. Blocks.
///
/// # Errors
/// Internal, when a method fails.
pub fn measure(sample: &Sample, way: Way, chunk_bytes: usize) -> Result<Measured> {
    // The first chunk of every place, then the second ones: a part of them is a sample too.
    let longest = sample.places.iter().map(Vec::len).max().unwrap_or(0).div_ceil(chunk_bytes.max(1));
    let nth = |number: usize| sample.places.iter().filter_map(move |place| place.chunks(chunk_bytes.max(1)).nth(number));
    let chunks: Vec<&[u8]> = (0..longest).flat_map(nth).collect();
    let (chunks, mut packer) = match way {
        Way::Dictionary(level) => {
            let (learned, measured): (Vec<_>, Vec<_>) = chunks.iter().enumerate().partition(|(number, _)| number % 2 == 0);
            let learned: Vec<&[u8]> = learned.into_iter().map(|(_, chunk)| *chunk).collect();
            let dictionary = zstd::dict::from_samples(&learned, DICTIONARY_BYTES);
            let dictionary = dictionary.map_err(|e| Error::config("the sample is too small for a dictionary").with_source(e))?;
            let failed = |e| Error::internal("starting zstd with a dictionary").with_source(e);
            let packer = zstd::bulk::Compressor::with_dictionary(level, &dictionary).map_err(failed)?;
            (measured.into_iter().map(|(_, chunk)| *chunk).collect(), Some(packer))
        }
        Way::ZlibCompress(_) | Way::Compress(_) => (chunks, None),
    };
    let mut measured = Measured { chunk_bytes: chunk_bytes as u64, raw_bytes: 0, packed_bytes: 0, seconds: 0.0 };
    let started = Instant::now();
    let effort = match way {
        Way::ZlibCompress(level) => choose_effort(&chunks, level),
        Way::Compress(_) | Way::Dictionary(_) => 0,
    };
    for (done, chunk) in chunks.iter().enumerate() {
        if done >= sample.places.len() && started.elapsed() > MEASURE_TIME {
            break;
        }
        let packed = match (way, &mut packer) {
            (Way::ZlibCompress(level), _) => compress_by_level(chunk, level, effort)?.len(),
            (Way::Compress(method), _) => compress_value_by(method, chunk)?.len(),
            (Way::Dictionary(_), Some(packer)) => {
                packer.compress(chunk).map_err(|e| Error::internal("compressing with a dictionary").with_source(e))?.len()
            }
            (Way::Dictionary(_), None) => return Err(Error::internal("a dictionary has no compressor")),
        };
        measured.raw_bytes += chunk.len() as u64;
        measured.packed_bytes += packed as u64;
    }
    measured.seconds = started.elapsed().as_secs_f64();
    Ok(measured)
}
