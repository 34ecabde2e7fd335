//! `zlib_compress` and its inverses. Before: a column of bytes; after: a column of zlib streams (RFC 1950), or back.
//!
//! The rows of a batch are compressed in parallel on a pool of its own, one thread a core, which all partitions share: so a
//! single partition keeps all cores busy, and many do not crowd them. Each thread keeps its compressors.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::OnceLock;

use datafusion::arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use libdeflater::{CompressionLvl, Compressor};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::argument::{Arguments, Kind, coerce, to_binary};
use super::codec::{Method, decompress_value_of};
pub use super::effort::choose_effort;
use crate::error::{Error, Result};
use crate::runtime::cpu_threads;

/// The level of a call which names none, as the seed takes it.
const LEVEL_DEFAULT: i64 = 9;
/// The most bytes that one value may inflate to, where a call names no limit. Sixteen times MongoDB's largest document: no
/// honest value of ours is larger, and a bomb stops before it hurts.
pub const DECOMPRESSED_BYTES_MAX: u64 = 256 << 20;

thread_local! {
    /// A compressor holds tables of some 100 KiB up to 9 MiB, which are costly to make for each value.
    static COMPRESSORS: RefCell<HashMap<u8, (Compressor, Vec<u8>)>> = RefCell::default();
}

static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();

/// The process's compression pool.
///
/// # Errors
/// Internal, when the operating system refuses the threads.
pub fn pool() -> Result<&'static ThreadPool> {
    let build = || ThreadPoolBuilder::new().num_threads(cpu_threads()).thread_name(|index| format!("baler-zlib-{index}")).build().ok();
    POOL.get_or_init(build)
        .as_ref()
        .ok_or_else(|| Error::internal("cannot start the compression pool: the operating system refused its threads"))
}

/// Compresses one value on the present thread. Effort 0 stores.
///
/// # Errors
/// Config, for an effort above 12.
pub fn compress_value(data: &[u8], effort: u8) -> Result<Vec<u8>> {
    COMPRESSORS.with_borrow_mut(|compressors| {
        let (compressor, out) = match compressors.entry(effort) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let level = CompressionLvl::new(i32::from(effort));
                let level = level.map_err(|_| Error::config(format!("zlib_compress: effort {effort} is out of range, take 0 to 12")))?;
                entry.insert((Compressor::new(level), Vec::new()))
            }
        };
        let bound = compressor.zlib_compress_bound(data.len());
        if out.len() < bound {
            out.resize(bound, 0);
        }
        let length = compressor.zlib_compress(data, out).map_err(|e| Error::internal(format!("zlib_compress: {e:?}")))?;
        Ok(out[..length].to_vec())
    })
}

/// Compresses values in parallel. `effort` None lets a sample choose.
///
/// # Errors
/// As [`compress_value`].
pub fn compress_all(values: &[Option<&[u8]>], level: u8, effort: Option<u8>) -> Result<Vec<Option<Vec<u8>>>> {
    pool()?.install(|| {
        let effort = effort.unwrap_or_else(|| choose_effort(&values.iter().flatten().copied().collect::<Vec<_>>(), level));
        // One value a task: a value is a chunk, and the last ones of a batch should spread over all threads.
        values.par_iter().with_max_len(1).map(|value| value.map(|data| compress_value(data, effort)).transpose()).collect()
    })
}

/// `zlib_compress(data[, level[, effort]])`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ZlibCompress {
    signature: Signature,
}

impl Default for ZlibCompress {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ZlibCompress {
    fn name(&self) -> &str {
        "zlib_compress"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Binary)
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        coerce(self.name(), given, &[Kind::Bytes, Kind::Integer, Kind::Integer], 1)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let arguments = Arguments::try_new(args)?;
        let mut values = arguments.bytes(0)?;
        let levels = arguments.integers(1)?;
        let efforts = arguments.integers(2)?;
        for column in [&levels, &efforts].into_iter().flatten() {
            // NULL in, NULL out, for every argument.
            values.iter_mut().zip(column).filter(|(_, argument)| argument.is_none()).for_each(|(value, _)| *value = None);
        }
        let level_of = |row: usize| levels.as_ref().and_then(|levels| levels[row]).unwrap_or(LEVEL_DEFAULT);
        let effort_of = |row: usize| efforts.as_ref().and_then(|efforts| efforts[row]);
        let mut packed: Vec<Option<Vec<u8>>> = vec![None; values.len()];
        // Rows of one level and effort go together, so that the sample is theirs; nearly always that is all of them.
        let mut groups: HashMap<(i64, Option<i64>), Vec<usize>> = HashMap::new();
        for row in (0..values.len()).filter(|row| values[*row].is_some()) {
            groups.entry((level_of(row), effort_of(row))).or_default().push(row);
        }
        for ((level, effort), rows) in groups {
            let level = check_range("level", level, 0, 9)?;
            let effort = effort.map(|effort| check_range("effort", effort, 1, 12)).transpose()?;
            let group: Vec<_> = rows.iter().map(|row| values[*row]).collect();
            for (row, value) in rows.into_iter().zip(compress_all(&group, level, effort)?) {
                packed[row] = value;
            }
        }
        arguments.wrap(to_binary(&packed)?)
    }
}

fn check_range(what: &str, value: i64, low: u8, high: u8) -> Result<u8> {
    u8::try_from(value)
        .ok()
        .filter(|value| (low..=high).contains(value))
        .ok_or_else(|| Error::config(format!("zlib_compress: {what} {value} is out of range, take {low} to {high}")))
}

/// `zlib_decompress(data[, max_bytes])`, and `try_zlib_decompress`, which gives NULL for corrupt input.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ZlibDecompress {
    signature: Signature,
    is_lenient: bool,
}

impl ZlibDecompress {
    /// Corrupt input is an error.
    pub fn strict() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable), is_lenient: false }
    }

    /// Corrupt input is NULL.
    pub fn lenient() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable), is_lenient: true }
    }
}

impl ScalarUDFImpl for ZlibDecompress {
    fn name(&self) -> &str {
        if self.is_lenient { "try_zlib_decompress" } else { "zlib_decompress" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Binary)
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        coerce(self.name(), given, &[Kind::Bytes, Kind::Integer], 1)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let arguments = Arguments::try_new(args)?;
        let raw = decompress_all(self.name(), &arguments, 1, |_row| Ok(Some(Method::Zlib(9))), self.is_lenient)?;
        arguments.wrap(to_binary(&raw)?)
    }
}

/// Decompresses argument 0 in parallel, each row by its method; argument `limit` holds the most bytes of a row.
pub(super) fn decompress_all(
    function: &str,
    arguments: &Arguments,
    limit: usize,
    method_of: impl Fn(usize) -> Result<Option<Method>> + Sync,
    is_lenient: bool,
) -> Result<Vec<Option<Vec<u8>>>, DataFusionError> {
    let values = arguments.bytes(0)?;
    let limits = arguments.integers(limit)?;
    let decompress = |(row, value): (usize, &Option<&[u8]>)| -> Result<Option<Vec<u8>>> {
        let bytes_max = match limits.as_ref().map(|limits| limits[row]) {
            None => DECOMPRESSED_BYTES_MAX,
            Some(None) => return Ok(None),
            Some(Some(limit)) => u64::try_from(limit).map_err(|_| Error::config(format!("{function}: max_bytes {limit} is negative")))?,
        };
        let (Some(value), Some(method)) = (value, method_of(row)?) else { return Ok(None) };
        match decompress_value_of(method, value, bytes_max) {
            Ok(raw) => Ok(Some(raw)),
            Err(_) if is_lenient => Ok(None),
            Err(error) => Err(error.context(format!("{function}: row {row} of the batch"))),
        }
    };
    Ok(pool()?.install(|| values.par_iter().enumerate().map(decompress).collect::<Result<_>>())?)
}
