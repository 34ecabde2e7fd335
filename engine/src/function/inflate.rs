//! Values back from their compressed form, within a limit. Before: one compressed value; after: its bytes, or an error that says where.
//!
//! All of it is streamed into a buffer which grows with what was really decoded, so neither a forged length nor a bomb
//! decides how much memory is taken. For zlib that is zlib-rs rather than libdeflate, which needs the whole output buffer
//! beforehand, starts from the first byte again when it was too small, and tells neither where nor why it gave up.
//!
//! Every error counts bytes of the *input*, because that is what the reader of the message holds in hand. Corrupt input is of
//! kind Decode; a value over the limit is not corrupt, so it is of kind Permanent, and `try_` functions tell the two apart.

use std::cell::RefCell;
use std::io::{ErrorKind as IoErrorKind, Read};

use flate2::{Decompress, FlushDecompress, Status};
use lz4_flex::frame::FrameDecoder;

use super::codec::Method;
use crate::error::{Error, Result};
use crate::options::format_bytes;

/// The most bytes that one value may inflate to, where a call names no limit. Sixteen times MongoDB's largest document: no
/// honest value of ours is larger, and a bomb stops before it hurts.
pub const DECOMPRESSED_BYTES_MAX: u64 = 256 << 20;

/// What is reserved at first for each compressed byte: text packs 4 to 10 times, so most values need one enlargement or none.
const EXPECTED_RATIO: u64 = 6;
/// The most that is reserved before anything was decoded: the size of a large batch. More must be earned by real output.
pub(crate) const RESERVED_BYTES_MAX: u64 = 16 << 20;
/// The least room for one step, so that a tiny value does not creep.
const STEP_BYTES_MIN: usize = 512;

thread_local! {
    /// zlib's window and tables are some 40 KiB, more than most small values.
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(true));
}

/// Decompresses one value by its method's name, as a document's `codec` has it.
///
/// # Errors
/// Config for an unknown method; else as [`decompress_value_of`].
pub fn decompress_value(method: &str, data: &[u8], bytes_max: u64) -> Result<Vec<u8>> {
    decompress_value_of(method.parse()?, data, bytes_max)
}

/// Decompresses one value. The level in `method` does not matter.
///
/// # Errors
/// Decode, saying where, for corrupt or truncated input and for bytes after its end; Permanent for more than `bytes_max` bytes.
pub fn decompress_value_of(method: Method, data: &[u8], bytes_max: u64) -> Result<Vec<u8>> {
    if data.is_empty() && method != Method::None {
        // Some decoders take nothing for an empty stream; none of ours ever wrote one.
        return Err(Error::decode("the compressed stream is truncated: it has no bytes at all"));
    }
    let mut rest = data;
    match method {
        Method::Zlib(_) => INFLATER.with_borrow_mut(|inflater| inflate_zlib(inflater, data, bytes_max)),
        Method::Gzip(_) => read_stream(&mut flate2::bufread::MultiGzDecoder::new(&mut rest), bytes_max, data.len()),
        Method::Zstd(_) => {
            let decoder = zstd::stream::read::Decoder::with_buffer(&mut rest);
            let mut decoder = decoder.map_err(|cause| Error::internal("cannot start the zstd decoder").with_source(cause))?;
            read_stream(&mut decoder, bytes_max, data.len())
        }
        Method::Lz4 => read_lz4(data, bytes_max),
        Method::None if data.len() as u64 > bytes_max => Err(limit_error(bytes_max)),
        Method::None => Ok(data.to_vec()),
    }
}

/// One zlib stream (RFC 1950) that fills `data` to its last byte.
fn inflate_zlib(inflater: &mut Decompress, data: &[u8], bytes_max: u64) -> Result<Vec<u8>> {
    inflater.reset(true);
    let mut raw = Vec::new();
    // One byte above the limit tells a value that fits exactly from one that goes on.
    let room_max = usize::try_from(bytes_max.saturating_add(1)).unwrap_or(usize::MAX);
    let expected = reserve_for(data.len(), bytes_max);
    raw.reserve(expected.max(STEP_BYTES_MIN).min(room_max));
    loop {
        let used = inflater.total_in() as usize;
        let before = raw.len();
        let outcome = inflater.decompress_vec(&data[used..], &mut raw, FlushDecompress::None);
        let used = inflater.total_in() as usize;
        if raw.len() as u64 > bytes_max {
            return Err(limit_error(bytes_max));
        }
        match outcome {
            Ok(Status::StreamEnd) => {
                refuse_trailing(data.len(), used)?;
                return Ok(raw);
            }
            // Room is left but no input: the end is missing.
            Ok(_) if raw.len() < raw.capacity() && used == data.len() => return Err(truncation_error(data.len(), raw.len())),
            Ok(_) if raw.len() < raw.capacity() && raw.len() == before => {
                return Err(Error::internal(format!("the zlib decoder stands still at byte {used} of {}", data.len())));
            }
            Ok(_) => raw.reserve(raw.len().max(STEP_BYTES_MIN).min(room_max - raw.len())),
            Err(cause) => {
                let why = match (cause.needs_dictionary(), cause.message()) {
                    (Some(_), _) => "it needs a preset dictionary, which is not supported",
                    (None, Some(message)) => message,
                    (None, None) => "invalid data",
                };
                return Err(Error::decode(format!("the compressed stream is corrupt near byte {used} of {}: {why}", data.len())));
            }
        }
    }
}

/// LZ4 frames by lz4_flex, which takes a stream that was cut between two blocks for a whole one. So it is given some bytes more:
/// it touches them only where the real ones ended too soon.
fn read_lz4(data: &[u8], bytes_max: u64) -> Result<Vec<u8>> {
    const BEYOND: [u8; 16] = [0; 16];
    let (mut rest, mut beyond) = (data, BEYOND.as_slice());
    let outcome = read_stream(&mut FrameDecoder::new((&mut rest).chain(&mut beyond)), bytes_max, data.len());
    if beyond.len() < BEYOND.len() {
        let given = outcome.map_or(0, |raw| raw.len());
        return Err(truncation_error(data.len(), given));
    }
    let raw = outcome?;
    refuse_trailing(data.len(), data.len() - rest.len())?;
    Ok(raw)
}

/// Reads a decoder to its end, at most `bytes_max` bytes. `packed` is the length of its input.
fn read_stream(decoder: &mut impl Read, bytes_max: u64, packed: usize) -> Result<Vec<u8>> {
    let mut raw = Vec::with_capacity(reserve_for(packed, bytes_max));
    let outcome = decoder.take(bytes_max.saturating_add(1)).read_to_end(&mut raw);
    if raw.len() as u64 > bytes_max {
        return Err(limit_error(bytes_max));
    }
    match outcome {
        Ok(_) => Ok(raw),
        Err(cause) if cause.kind() == IoErrorKind::UnexpectedEof => Err(truncation_error(packed, raw.len())),
        Err(cause) => {
            let message = format!("the compressed stream of {packed} bytes is corrupt after it gave {} bytes", raw.len());
            Err(Error::decode(message).with_source(cause))
        }
    }
}

fn reserve_for(packed: usize, bytes_max: u64) -> usize {
    (packed as u64).saturating_mul(EXPECTED_RATIO).min(bytes_max).min(RESERVED_BYTES_MAX) as usize
}

fn limit_error(bytes_max: u64) -> Error {
    let limit = format!("{bytes_max} bytes ({})", format_bytes(bytes_max));
    Error::permanent(format!("it holds more than the limit of {limit}; raise max_bytes if a value of that size is right"))
}

fn truncation_error(packed: usize, raw: usize) -> Error {
    let given = if raw == 0 { String::new() } else { format!(", after it gave {raw} bytes") };
    Error::decode(format!("the compressed stream is truncated: it ends at byte {packed}{given}"))
}

fn refuse_trailing(length: usize, used: usize) -> Result<()> {
    if used == length {
        return Ok(());
    }
    let extra = length - used;
    let noun = if extra == 1 { "byte follows" } else { "bytes follow" };
    Err(Error::decode(format!("{extra} {noun} the end of the compressed stream at byte {used}; cut the value there if they do not matter")))
}
