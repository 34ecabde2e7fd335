//! `compress(data, method)` and `decompress(data, method[, max_bytes])`: one place for every method of whole values.

use std::io::{Read, Write};
use std::str::FromStr;

use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use rayon::prelude::*;

use super::argument::{Arguments, Kind, coerce, to_binary};
use super::zlib::{choose_effort, compress_all, compress_value, decompress_all, pool};
use crate::error::{Error, Result};
use crate::options::{format_bytes, nearest};

/// How a value is compressed, with its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// RFC 1950; level 0 to 9.
    Zlib(u8),
    /// RFC 1952; level 0 to 9.
    Gzip(u8),
    /// RFC 8878; level 1 to 22.
    Zstd(i32),
    /// LZ4 frames.
    Lz4,
    /// Stored as it is.
    None,
}

const NAMES: [&str; 5] = ["zlib", "gzip", "zstd", "lz4", "none"];

impl FromStr for Method {
    type Err = Error;

    /// Reads `zlib`, `zlib(9)`, `gzip(6)`, `zstd(3)`, `lz4` or `none`.
    fn from_str(text: &str) -> Result<Self> {
        let lower = text.trim().to_ascii_lowercase();
        let (name, level) = match lower.split_once('(') {
            None => (lower.as_str(), None),
            Some((name, rest)) => {
                let level = rest.strip_suffix(')').and_then(|level| level.trim().parse::<i32>().ok());
                (
                    name.trim(),
                    Some(level.ok_or_else(|| Error::config(format!("`{text}`: the level is no number; write for example 'zlib(9)'")))?),
                )
            }
        };
        let within = |low: i32, high: i32, default: i32| match level {
            Some(level) if !(low..=high).contains(&level) => {
                Err(Error::config(format!("`{text}`: the level is out of range, take {low} to {high}")))
            }
            level => Ok(level.unwrap_or(default)),
        };
        match name {
            "zlib" => Ok(Self::Zlib(within(0, 9, 9)? as u8)),
            "gzip" => Ok(Self::Gzip(within(0, 9, 6)? as u8)),
            "zstd" => Ok(Self::Zstd(within(1, 22, 3)?)),
            "lz4" | "none" if level.is_some() => Err(Error::config(format!("`{text}`: {name} has no levels"))),
            "lz4" => Ok(Self::Lz4),
            "none" => Ok(Self::None),
            _ => {
                let hint = nearest(name, NAMES).map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
                Err(Error::config(format!("unknown compression method '{name}'{hint}")))
            }
        }
    }
}

/// Compresses one value.
fn compress_value_by(method: Method, data: &[u8]) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::internal("compressing a value").with_source(e);
    match method {
        Method::Zlib(level) => compress_value(data, choose_effort(&[data], level)),
        Method::Gzip(level) => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(u32::from(level)));
            encoder.write_all(data).map_err(failed)?;
            encoder.finish().map_err(failed)
        }
        Method::Zstd(level) => zstd::bulk::compress(data, level).map_err(failed),
        Method::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(data).map_err(failed)?;
            encoder.finish().map_err(|e| Error::internal("compressing a value").with_source(e))
        }
        Method::None => Ok(data.to_vec()),
    }
}

/// Decompresses one value by its method's name, as a document's `codec` has it.
///
/// # Errors
/// Config for an unknown method; Decode for corrupt input or more than `bytes_max` bytes.
pub fn decompress_value(method: &str, data: &[u8], bytes_max: u64) -> Result<Vec<u8>> {
    decompress_value_of(method.parse()?, data, bytes_max)
}

/// Decompresses one value.
///
/// # Errors
/// Decode, saying where, for corrupt or truncated input, bytes after its end, or more than `bytes_max` bytes.
pub fn decompress_value_of(method: Method, data: &[u8], bytes_max: u64) -> Result<Vec<u8>> {
    let mut rest = data;
    match method {
        Method::Zlib(_) => {
            let mut decoder = flate2::bufread::ZlibDecoder::new(&mut rest);
            let raw = read_limited(&mut decoder, bytes_max, data.len())?;
            let used = decoder.total_in() as usize;
            refuse_trailing(data.len(), used)?;
            Ok(raw)
        }
        Method::Gzip(_) => read_limited(&mut flate2::bufread::MultiGzDecoder::new(&mut rest), bytes_max, data.len()),
        Method::Zstd(_) => {
            let decoder = zstd::stream::read::Decoder::with_buffer(&mut rest);
            read_limited(&mut decoder.map_err(|e| Error::internal("starting zstd").with_source(e))?, bytes_max, data.len())
        }
        Method::Lz4 => read_limited(&mut lz4_flex::frame::FrameDecoder::new(&mut rest), bytes_max, data.len()),
        Method::None => read_limited(&mut rest, bytes_max, data.len()),
    }
}

fn refuse_trailing(length: usize, used: usize) -> Result<()> {
    if used == length {
        return Ok(());
    }
    Err(Error::decode(format!("{} bytes follow the end of the compressed stream at byte {used}", length - used)))
}

/// Reads a decoder to its end, at most `bytes_max` bytes: memory is bounded however small the input is.
fn read_limited(decoder: &mut impl Read, bytes_max: u64, packed: usize) -> Result<Vec<u8>> {
    // Most data of ours is below 16:1; a bomb must not decide how much is reserved.
    let mut raw = Vec::with_capacity((packed as u64 * 16).min(bytes_max).min(16 << 20) as usize);
    let outcome = decoder.take(bytes_max.saturating_add(1)).read_to_end(&mut raw);
    if raw.len() as u64 > bytes_max {
        return Err(Error::decode(format!(
            "it holds more than {} ({bytes_max} bytes); raise max_bytes if that is right",
            format_bytes(bytes_max)
        )));
    }
    match outcome {
        Ok(_) => Ok(raw),
        Err(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(Error::decode(format!("the compressed stream is truncated: it ends after byte {} of its content", raw.len())))
        }
        Err(cause) => {
            Err(Error::decode(format!("the compressed stream is corrupt after byte {} of its content", raw.len())).with_source(cause))
        }
    }
}

/// `compress(data, method)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Compress {
    signature: Signature,
}

impl Default for Compress {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Compress {
    fn name(&self) -> &str {
        "compress"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Binary)
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        coerce(self.name(), given, &[Kind::Bytes, Kind::Text], 2)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let arguments = Arguments::try_new(args)?;
        let (values, methods) = (arguments.bytes(0)?, arguments.text(1)?);
        let parsed = methods.iter().map(|method| method.map(str::parse).transpose()).collect::<Result<Vec<Option<Method>>>>()?;
        // One zlib level for all rows, the usual case, shares the sample of `zlib_compress` and so its result.
        let packed = match parsed.first() {
            Some(Some(Method::Zlib(level))) if parsed.iter().all(|method| *method == parsed[0]) => compress_all(&values, *level, None)?,
            _ => {
                let compress = |(value, method): (&Option<&[u8]>, &Option<Method>)| match (value, method) {
                    (Some(value), Some(method)) => compress_value_by(*method, value).map(Some),
                    _ => Ok(None),
                };
                pool()?.install(|| values.par_iter().zip(&parsed).map(compress).collect::<Result<Vec<_>>>())?
            }
        };
        arguments.wrap(to_binary(&packed)?)
    }
}

/// `decompress(data, method[, max_bytes])`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Decompress {
    signature: Signature,
}

impl Default for Decompress {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Decompress {
    fn name(&self) -> &str {
        "decompress"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Binary)
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        coerce(self.name(), given, &[Kind::Bytes, Kind::Text, Kind::Integer], 2)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let arguments = Arguments::try_new(args)?;
        let methods = arguments.text(1)?;
        let raw = decompress_all(self.name(), &arguments, 2, |row| methods[row].map(str::parse).transpose(), false)?;
        arguments.wrap(to_binary(&raw)?)
    }
}
