//! `compress(data, method)` and `decompress(data, method[, max_bytes])`: one place for every method of whole values.

use std::io::Write;
use std::str::FromStr;

use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use lz4_flex::frame::{FrameEncoder, FrameInfo};

use super::argument::{Arguments, Kind, coerce, to_binary};
use super::deflate::{Wrapper, pack_value};
use super::effort::fixed_effort;
pub use super::inflate::{decompress_value, decompress_value_of};
use super::pool::in_pool;
use super::zlib::{OneSplit, compress_alone, decompress_all, task_rows};
use crate::error::{Error, Result};
use crate::options::nearest;

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
                Err(Error::config(format!("unknown compression method '{name}'{hint} (known: {})", NAMES.join(", "))))
            }
        }
    }
}

/// Compresses one value on the present thread.
///
/// # Errors
/// Internal, when the encoder fails.
pub fn compress_value_by(method: Method, data: &[u8]) -> Result<Vec<u8>> {
    let failed = |cause: std::io::Error| Error::internal(format!("cannot compress a value of {} bytes", data.len())).with_source(cause);
    match method {
        Method::Zlib(level) => compress_alone(data, level),
        Method::Gzip(level) => pack_value(data, fixed_effort(level), Wrapper::Gzip),
        Method::Zstd(level) => {
            let mut encoder = zstd::bulk::Compressor::new(level).map_err(failed)?;
            // Neither zstd nor LZ4 has a checksum unless asked; without one a flipped bit can pass for data.
            encoder.include_checksum(true).map_err(failed)?;
            encoder.compress(data).map_err(failed)
        }
        Method::Lz4 => {
            let frame = FrameInfo::new().content_checksum(true);
            let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
            encoder.write_all(data).map_err(failed)?;
            encoder.finish().map_err(|cause| failed(cause.into()))
        }
        Method::None => Ok(data.to_vec()),
    }
}

/// `compress(data, method)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Compress {
    pub(super) signature: Signature,
    pub(super) split: OneSplit,
}

impl Default for Compress {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable), split: OneSplit::default() }
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
            Some(Some(Method::Zlib(level))) if parsed.iter().all(|method| *method == parsed[0]) => self.split.compress(&values, *level)?,
            _ => {
                let compress = |row: usize, value: &Option<&[u8]>| match (value, parsed[row]) {
                    (Some(value), Some(method)) => compress_value_by(method, value).map(Some),
                    _ => Ok(None),
                };
                in_pool(&values, task_rows(&values), compress)?.into_iter().collect::<Result<Vec<_>>>()?
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
