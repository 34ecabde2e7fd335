//! How hard the zlib encoder works: level → libdeflate's level, here called effort.
//!
//! Promise P5: what `zlib_compress(x, 9)` makes is at most 0.5 % larger than what zlib's own level 9 makes. Size relative to
//! zlib 1.3 level 9, two batches of 16 MiB of each corpus, in chunks of 1 MiB, and what the sample chooses for most positions
//! of its pieces:
//!
//! | corpus | effort 6 | effort 7 | effort 8 | chosen |
//! | --- | --- | --- | --- | --- |
//! | CSV | 0.943 | 0.941 | 0.936 | 6 |
//! | JSON events with unique ids | 0.950 | 0.934 | 0.903 | 6 |
//! | JSON logs | 0.961 | 0.951 | 0.932 | 6 |
//! | time series as JSON | 0.981 | 0.961 | 0.950 | 6 or 7 |
//! | JSON events without ids | 1.020 | 0.995 | 0.948 | 7 |
//! | access logs | 1.016 | 0.970 | 0.937 | 7 |
//! | TPC-H lineitem | 1.001 | 0.992 | 0.980 | 7 |
//! | base64, floats, random | 0.992–1.001 | 0.992–1.001 | 0.992–1.000 | 7 |
//! | ELF programs and libraries | 0.996–0.999 | 0.994–0.996 | 0.992–0.994 | 7 |
//! | HTML and documents | 0.996 | 0.995 | 0.993 | 7 or 8 |
//! | prose | 1.010–1.018 | 1.001–1.004 | 0.992–0.994 | 8 |
//! | C headers | 1.007–1.015 | 1.002–1.006 | 0.996–0.998 | 8 |
//! | Rust sources | 1.006–1.018 | 0.996–1.007 | 0.987–0.999 | 8 |
//! | Python sources | 1.010–1.015 | 1.002–1.007 | 0.993–0.998 | 8 |
//! | Go sources | 1.018–1.031 | 1.006–1.012 | 0.998–1.002 | 8 |
//! | UTF-16 text | 1.030–1.049 | 0.999–1.009 | 0.987–0.988 | 8 or 7 |
//!
//! `cargo run -p baler-benches --bin sizes -- FOLDER` prints such rows, of files as splits in batches of 4 MiB. Of up to 64 MiB each of 12 corpora and of one
//! which changes its sort every 6 MiB, all were at most 0.9997 of zlib 9, and of their batches at most 1.0057; UTF-16 of words in random order was 1.0071
//! with the highest effort. Speed, on one core: effort 6 some 60–260 MB/s, 7 some 40–180, 8 some 20–90, zlib 9 some 4–45.
//!
//! The sample is 64 KiB of a batch, as 2 pieces from different places; its reference is zlib-rs at level 9, two to four times
//! faster than zlib and up to 5 % larger than it on repetitive data. A lower effort is taken only where the sum of the pieces is
//! well below the reference *and* no single piece comes near it. On 28 corpora the whole was at most 1.0038 of zlib 9 (Go
//! sources, where one batch of 16 MiB was 1.012), mostly below 1; choosing took 0.9–2 % of the time of a batch of 16 MiB, 3 % where effort 6 runs
//! at 400 MB/s, and takes 4–8 % of one of 4 MiB. Other rules were measured and dropped:
//!
//! - One piece of 64 KiB: a stretch of embedded data in source code passes for the whole batch, a third of the positions in
//!   source code chose 7.
//! - 4 pieces of 16 KiB: half of zlib's window shows too little of what repetitive JSON gains from a whole one, so it chose 8
//!   where 7 keeps the promise by 1.5 %, at two thirds of the speed.
//! - A looser limit for effort 6: on events without ids 6 is 1.6 % below zlib-rs but 2 % above zlib. So 6 is taken only 4.5 %
//!   below, where even a reference that is 5 % too large keeps within the 0.5 %.
//!
//! The choice is a function of the values and the level alone, so a repeated batch gives equal bytes. Within a split one sample is enough
//! for as long as the data stays alike, which the size of what was compressed tells for nothing ([`SplitEffort`]): a sample of every batch
//! took 2 to 3 % of a job's time on data which compresses fast.

use std::sync::{Mutex, PoisonError};

use super::deflate::{compress_reference, compress_value};
use crate::error::Result;

/// Pieces of a sample, and the bytes of each.
const PIECES: usize = 2;
const PIECE_BYTES: usize = 32 << 10;
/// Below this, a sample would cost more than the higher effort does.
const SAMPLED_BYTES_MIN: usize = 2 << 20;

/// Effort 6 and 7 are taken where the sample is smaller than this part of the reference, and each piece than that.
const LIGHT: Limits = Limits { sum: 0.955, piece: 0.965 };
const MEDIUM: Limits = Limits { sum: 0.99, piece: 0.995 };
/// Effort 7 is also taken where 8 gains less than this: data without long matches. 8 itself is never above zlib by more than 0.25 %.
const FUTILE: Limits = Limits { sum: 0.9985, piece: 0.995 };

/// Values shorter than this on average leave zlib's long chains little to find: with the second opinion of
/// [`compress_value_twice`](super::deflate::compress_value_twice), effort 7 stayed within 0.42 % of zlib 9 on every corpus, from
/// 100 bytes on. Outside the promise are values of 30 to 60 bytes of UTF-16 text: 0.6 to 1.1 %, a third of a byte each.
const SHORT_BYTES: usize = 16 << 10;

/// Effort for each zlib level: the lowest that stayed within 0.5 % of zlib at that level on every corpus above and on those of
/// the tests. UTF-16 text and debug symbols ask for one more than the rest at levels 1 to 6; all are faster than zlib still. Levels 8 and 9 are sampled; their entries are what small inputs get.
const EFFORT_BY_LEVEL: [u8; 10] = [0, 2, 4, 4, 5, 6, 7, 7, 8, 8];

/// The level from which on the effort is sampled and single values get a second opinion.
const SAMPLED_LEVEL_MIN: u8 = 8;

/// How far the ratio of a batch may be from that of the sampled one for its effort to hold. An effort which might break the promise on other
/// data is doubted soon. Text and sources differ more than that from batch to batch; but theirs is the highest, which keeps the promise on
/// any data, and so is only worth another sample where the data has become another sort.
const ALIKE: f64 = 0.05;
const ALIKE_HIGHEST: f64 = 0.25;

/// Bounds on a ratio of sizes: over all pieces, and for each.
struct Limits {
    sum: f64,
    piece: f64,
}

/// Whether the level promises the size of zlib 9, and not only its speed.
pub fn is_sampled(level: u8) -> bool {
    level >= SAMPLED_LEVEL_MIN
}

/// The effort for a zlib level where nothing is known of the values.
pub fn fixed_effort(level: u8) -> u8 {
    EFFORT_BY_LEVEL.get(usize::from(level)).copied().unwrap_or(8)
}

/// The effort for these values at a zlib level: a pure function of both. Blocks for about 2 ms where it samples.
pub fn choose_effort(values: &[&[u8]], level: u8) -> u8 {
    let fixed = fixed_effort(level);
    let total = total_bytes(values);
    if let Some(effort) = unsampled_effort(values, level) {
        return effort;
    }
    if total < SAMPLED_BYTES_MIN {
        return fixed;
    }
    let pieces = take_pieces(values, total);
    judge_pieces(&pieces).unwrap_or(fixed)
}

/// The effort where no sample would say more.
fn unsampled_effort(values: &[&[u8]], level: u8) -> Option<u8> {
    if !is_sampled(level) {
        return Some(fixed_effort(level));
    }
    (total_bytes(values) < SHORT_BYTES * values.len()).then_some(7)
}

fn total_bytes(values: &[&[u8]]) -> usize {
    values.iter().map(|value| value.len()).sum()
}

/// The effort of a split's batches, one after the other: that of the last sample for as long as batches compress like the sampled one.
///
/// A split is read from its beginning in the same batches whoever reads it, so a repeated split gives equal bytes.
#[derive(Debug, Default)]
pub struct SplitEffort(Mutex<Option<Sampled>>);

/// What the last sample chose, and how its batch compressed.
#[derive(Debug, Clone, Copy)]
struct Sampled {
    level: u8,
    effort: u8,
    /// Bytes after compression for each byte before.
    ratio: f64,
}

impl Sampled {
    fn holds_for(&self, ratio: f64) -> bool {
        let alike = if self.effort == fixed_effort(self.level) { ALIKE_HIGHEST } else { ALIKE };
        (ratio / self.ratio - 1.0).abs() <= alike
    }
}

impl SplitEffort {
    /// Compresses the next batch of the split at `level`: `compress` does all of it with the effort which it is given, and is called a second
    /// time where it turns out that another one was due.
    ///
    /// # Errors
    /// Those of `compress`.
    pub fn compress_next(
        &self,
        values: &[&[u8]],
        level: u8,
        compress: impl Fn(u8) -> Result<Vec<Option<Vec<u8>>>>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        if let Some(effort) = unsampled_effort(values, level) {
            return compress(effort);
        }
        let total = total_bytes(values);
        let ratio_of = |packed: &[Option<Vec<u8>>]| packed.iter().flatten().map(Vec::len).sum::<usize>() as f64 / total as f64;
        let last = self.last().filter(|last| last.level == level);
        let begun = match last {
            Some(last) => {
                let packed = compress(last.effort)?;
                // A short batch is the split's last one, and too little to judge by.
                if total < SAMPLED_BYTES_MIN || last.holds_for(ratio_of(&packed)) {
                    return Ok(packed);
                }
                Some((last.effort, packed))
            }
            None => None,
        };
        let effort = choose_effort(values, level);
        let packed = match begun {
            Some((begun_with, packed)) if begun_with == effort => packed,
            _ => compress(effort)?,
        };
        if total >= SAMPLED_BYTES_MIN {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Sampled { level, effort, ratio: ratio_of(&packed) });
        }
        Ok(packed)
    }

    fn last(&self) -> Option<Sampled> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the last sample chose.
    pub fn effort(&self) -> Option<u8> {
        self.last().map(|last| last.effort)
    }
}

/// Effort 7 is the middle from which one step either way is tried, so that most data costs two or three passes of the sample.
fn judge_pieces(pieces: &[&[u8]]) -> Result<u8> {
    let reference = measure_pieces(pieces, compress_reference)?;
    let medium = measure_pieces(pieces, |piece| compress_value(piece, 7))?;
    if !are_all_below(&medium, &reference, &MEDIUM) {
        let heavy = measure_pieces(pieces, |piece| compress_value(piece, 8))?;
        return Ok(if are_all_above(&heavy, &medium, &FUTILE) { 7 } else { 8 });
    }
    // What 7 does not reach, 6 does not either.
    if !are_all_below(&medium, &reference, &LIGHT) {
        return Ok(7);
    }
    let light = measure_pieces(pieces, |piece| compress_value(piece, 6))?;
    Ok(if are_all_below(&light, &reference, &LIGHT) { 6 } else { 7 })
}

fn measure_pieces(pieces: &[&[u8]], compress: impl Fn(&[u8]) -> Result<Vec<u8>>) -> Result<Vec<usize>> {
    pieces.iter().map(|piece| Ok(compress(piece)?.len())).collect()
}

fn are_all_below(sizes: &[usize], others: &[usize], limits: &Limits) -> bool {
    ratio_of_sums(sizes, others) <= limits.sum && ratios(sizes, others).all(|ratio| ratio <= limits.piece)
}

fn are_all_above(sizes: &[usize], others: &[usize], limits: &Limits) -> bool {
    ratio_of_sums(sizes, others) >= limits.sum && ratios(sizes, others).all(|ratio| ratio >= limits.piece)
}

fn ratio_of_sums(sizes: &[usize], others: &[usize]) -> f64 {
    sizes.iter().sum::<usize>() as f64 / others.iter().sum::<usize>() as f64
}

fn ratios(sizes: &[usize], others: &[usize]) -> impl Iterator<Item = f64> {
    sizes.iter().zip(others).map(|(size, other)| *size as f64 / *other as f64)
}

/// Pieces around the middle of each quarter of all bytes. A piece never spans two values, because each is compressed by itself.
fn take_pieces<'a>(values: &[&'a [u8]], total: usize) -> Vec<&'a [u8]> {
    let mut pieces = Vec::with_capacity(PIECES);
    let mut before = 0;
    for value in values {
        while pieces.len() < PIECES && (2 * pieces.len() + 1) * total / (2 * PIECES) < before + value.len() {
            let middle = (2 * pieces.len() + 1) * total / (2 * PIECES) - before;
            let start = middle.saturating_sub(PIECE_BYTES / 2).min(value.len().saturating_sub(PIECE_BYTES));
            pieces.push(&value[start..value.len().min(start + PIECE_BYTES)]);
        }
        before += value.len();
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_spread_and_stay_within_values() {
        let data: Vec<u8> = (0..16u32 << 20).map(|byte| (byte >> 12) as u8).collect();
        for lengths in [vec![16 << 20], vec![1 << 20; 16], vec![100, 16 << 20, 0, 7], vec![20_000; 500]] {
            let mut rest = data.as_slice();
            let mut values = Vec::new();
            for length in lengths {
                let (value, after) = rest.split_at(length.min(rest.len()));
                values.push(value);
                rest = after;
            }
            let pieces = take_pieces(&values, values.iter().map(|value| value.len()).sum());
            assert_eq!(pieces.len(), PIECES);
            for piece in &pieces {
                assert_eq!(piece.len(), PIECE_BYTES.min(values.iter().map(|value| value.len()).max().unwrap_or(0)));
                assert!(values.iter().any(|value| value.as_ptr_range().contains(&piece.as_ptr()) && piece.as_ptr_range().end <= value.as_ptr_range().end));
            }
        }
    }
}
