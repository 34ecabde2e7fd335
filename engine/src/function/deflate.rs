//! One value → its zlib or gzip form, on the present thread. Each thread keeps its encoders, whose tables of 100 KiB to 9 MiB
//! take longer to make than a small value takes to compress.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use flate2::{Compress, Compression, FlushCompress, Status};
use libdeflater::{CompressionLvl, Compressor};

use crate::error::{Error, Result};

/// Values of these lengths get a second opinion. From 512 bytes on libdeflate leaves short matches of text alone, which pays only
/// from some 3 KiB on: JSON of 1,000 bytes came out up to 1.3 % larger than zlib's, shorter and longer values at most 0.5 %.
const SMALL_BYTES: Range<usize> = 512..3 << 10;
/// So do values of these lengths that hardly shrink: 64 KiB of random floats came out 0.6 % larger.
const DENSE_BYTES: Range<usize> = 32 << 10..192 << 10;
/// So do values which shrink more than this: libdeflate splits endless repetition into blocks, which costs 3.6 % on zeros.
const ENDLESS_RATIO: usize = 256;

/// Which header and checksum surround the deflate stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapper {
    /// RFC 1950.
    Zlib,
    /// RFC 1952.
    Gzip,
}

/// An encoder and its output, which is zeroed once and not for each value.
struct Encoder {
    compressor: Compressor,
    out: Vec<u8>,
}

thread_local! {
    static ENCODERS: RefCell<HashMap<u8, Encoder>> = RefCell::default();
    static REFERENCE: RefCell<Compress> = RefCell::new(Compress::new(Compression::best(), true));
}

/// Compresses one value. Effort 0 stores, 12 is the most.
///
/// # Errors
/// Config, for an effort above 12.
pub fn compress_value(data: &[u8], effort: u8) -> Result<Vec<u8>> {
    pack_value(data, effort, Wrapper::Zlib)
}

/// Compresses one value, and once more with zlib-rs 9 where libdeflate is known to be the larger of the two (module constants).
/// The smaller is taken: so promise P5 holds for single small values and for endless repetition too.
///
/// # Errors
/// As [`compress_value`].
pub fn compress_value_twice(data: &[u8], effort: u8) -> Result<Vec<u8>> {
    let packed = compress_value(data, effort)?;
    let is_small = SMALL_BYTES.contains(&data.len());
    let is_dense = DENSE_BYTES.contains(&data.len()) && packed.len() > data.len() / 4 * 3;
    let is_endless = packed.len() < data.len() / ENDLESS_RATIO;
    if is_small || is_dense || is_endless {
        let other = compress_reference(data)?;
        return Ok(if other.len() < packed.len() { other } else { packed });
    }
    Ok(packed)
}

/// Compresses one value with libdeflate.
///
/// # Errors
/// As [`compress_value`].
pub fn pack_value(data: &[u8], effort: u8, wrapper: Wrapper) -> Result<Vec<u8>> {
    ENCODERS.with_borrow_mut(|encoders| {
        let Encoder { compressor, out } = match encoders.entry(effort) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let level = CompressionLvl::new(i32::from(effort));
                let level = level.map_err(|_| Error::config(format!("effort {effort} is out of range, take 0 to 12")))?;
                entry.insert(Encoder { compressor: Compressor::new(level), out: Vec::new() })
            }
        };
        let bound = match wrapper {
            Wrapper::Zlib => compressor.zlib_compress_bound(data.len()),
            Wrapper::Gzip => compressor.gzip_compress_bound(data.len()),
        };
        if out.len() < bound {
            out.resize(bound, 0);
        }
        let length = match wrapper {
            Wrapper::Zlib => compressor.zlib_compress(data, out),
            Wrapper::Gzip => compressor.gzip_compress(data, out),
        };
        let length = length.map_err(|cause| Error::internal(format!("libdeflate refuses a buffer of {bound} bytes: {cause:?}")))?;
        Ok(out[..length].to_vec())
    })
}

/// Compresses one value with zlib-rs at its level 9: a stand-in for zlib's own, two to four times as fast.
///
/// # Errors
/// Internal, when the encoder fails.
pub fn compress_reference(data: &[u8]) -> Result<Vec<u8>> {
    REFERENCE.with_borrow_mut(|reference| {
        reference.reset();
        // zlib's own bound for the standard window; what compresses needs less, and the loop makes up for a wrong guess.
        let mut out = Vec::with_capacity(data.len() + (data.len() >> 9) + 64);
        loop {
            let used = reference.total_in() as usize;
            let status = reference.compress_vec(&data[used..], &mut out, FlushCompress::Finish);
            match status.map_err(|cause| Error::internal("zlib-rs fails to compress").with_source(cause))? {
                Status::StreamEnd => return Ok(out),
                Status::Ok | Status::BufError => out.reserve(out.len().max(64)),
            }
        }
    })
}
