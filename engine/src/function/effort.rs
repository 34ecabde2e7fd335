//! How hard the zlib encoder works: level → libdeflate's level, here called effort.
//!
//! Promise P5: what `zlib_compress(x, 9)` makes is at most 0.5 % larger than what zlib's own level 9 makes. Size relative to
//! zlib 1.3 level 9, and MB/s on one core, over 16 MiB of each in chunks of 1 MiB:
//!
//! | corpus | zlib 9 | effort 6 | effort 7 | effort 8 |
//! | --- | --- | --- | --- | --- |
//! | JSON events | 1 · 47 | 1.019 · 262 | 0.995 · 172 | 0.948 · 88 |
//! | access logs | 1 · 45 | 1.016 · 267 | 0.970 · 180 | 0.937 · 84 |
//! | TPC-H lineitem | 1 · 11 | 1.001 · 54 | 0.992 · 54 | 0.980 · 30 |
//! | ELF binaries | 1 · 8 | 0.999 · 84 | 0.994 · 58 | 0.992 · 38 |
//! | Rust sources | 1 · 16 | 1.010 · 137 | 1.003 · 107 | 0.996 · 66 |
//! | Python sources | 1 · 11 | 1.010 · 130 | 1.002 · 89 | 0.993 · 51 |
//! | prose, HTML | 1 · 33 | 1.010 · 159 | 1.001 · 100 | 0.992 · 74 |
//! | UTF-16 text | 1 · 9 | 1.030 · 144 | 0.999 · 70 | 0.987 · 42 |
//! | base64, floats, random | 1 · 20–60 | 0.992–1.001 | 0.992–1.001 | 0.992–1.000 |
//!
//! So effort 7 is right for nearly all, but source code can exceed the 0.5 % with it (0.7 % was seen on another set of Rust
//! sources), and then 8 is. Effort 6 is faster still and often good enough, but no sample small enough to be cheap tells where: over samples of
//! 64–256 KiB its size relative to zlib's varies by 1 to 2 %, more than the whole tolerance.
//!
//! Between 7 and 8 a sample of 64 KiB decides. Its reference is zlib-rs at 9, two to four times faster than zlib; that makes
//! up to 3 % larger output than zlib on repetitive data, but there effort 7 has as much to spare, and 0.3 % on source code.
//! One kind of data is outside the promise: a chunk of equal bytes, 1,076 bytes a MiB against zlib's 1,039 at any effort.
//!
//! 64 KiB of a batch of 16 MiB cost 1 %; the choice is a function of the values alone, so a repeated batch gives equal bytes.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use libdeflater::{CompressionLvl, Compressor};

/// Bytes to sample.
const SAMPLE_BYTES: usize = 64 << 10;
/// Below this, a sample would cost more than the higher effort does.
const SAMPLED_BYTES_MIN: usize = 4 << 20;
/// Effort 7 is taken where it is this much smaller than zlib-rs 9: the least that all corpora need where it holds P5.
const ENOUGH: f64 = 0.9965;
/// Effort 7 is also taken where 8 gains less than this: data without long matches.
const FUTILE: f64 = 0.9975;

/// Values shorter than this on average leave zlib's long chains nothing to find: effort 7 was within 0.1 % of 8 on all corpora.
const SHORT_BYTES: usize = 32 << 10;

/// Effort for each zlib level: the lowest whose output was at most 0.5 % larger than zlib's at that level on every corpus above.
/// Levels 8 and 9 are sampled; their entries are what small inputs get.
const EFFORT_BY_LEVEL: [u8; 10] = [0, 1, 2, 2, 4, 5, 6, 7, 8, 8];

/// The effort for these values at a zlib level: a pure function of both.
pub fn choose_effort(values: &[&[u8]], level: u8) -> u8 {
    let fixed = EFFORT_BY_LEVEL.get(usize::from(level)).copied().unwrap_or(8);
    let total: usize = values.iter().map(|value| value.len()).sum();
    if level < 8 {
        return fixed;
    }
    if total < SHORT_BYTES * values.len() {
        return 7;
    }
    if total < SAMPLED_BYTES_MIN {
        return fixed;
    }
    let sample = take_sample(values, total);
    match (packed_size(&sample, 7), packed_size(&sample, 8), reference_size(&sample)) {
        (Some(seven), Some(eight), Some(reference)) => {
            let is_enough = seven as f64 <= reference as f64 * ENOUGH;
            let is_futile = eight as f64 >= seven as f64 * FUTILE;
            if is_enough || is_futile { 7 } else { 8 }
        }
        _ => fixed,
    }
}

/// Consecutive values around the middle, cut to [`SAMPLE_BYTES`]: neighbours, because each value is compressed by itself.
fn take_sample<'a>(values: &[&'a [u8]], total: usize) -> Vec<&'a [u8]> {
    let mut before = 0;
    let middle = values.iter().position(|value| {
        before += value.len();
        before * 2 >= total
    });
    let mut sample = Vec::new();
    let mut wanted = SAMPLE_BYTES;
    for value in &values[middle.unwrap_or(0)..] {
        // The middle of a long value is more like the rest of it than its head.
        let start = value.len().saturating_sub(wanted) / 2;
        let piece = &value[start..value.len().min(start + wanted)];
        sample.push(piece);
        wanted -= piece.len();
        if wanted == 0 {
            break;
        }
    }
    sample
}

fn packed_size(sample: &[&[u8]], effort: i32) -> Option<usize> {
    let mut compressor = Compressor::new(CompressionLvl::new(effort).ok()?);
    let mut out = vec![0; compressor.zlib_compress_bound(SAMPLE_BYTES)];
    sample.iter().map(|piece| compressor.zlib_compress(piece, &mut out).ok()).sum()
}

fn reference_size(sample: &[&[u8]]) -> Option<usize> {
    let size = |piece: &&[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(piece).ok()?;
        Some(encoder.finish().ok()?.len())
    };
    sample.iter().map(size).sum()
}
