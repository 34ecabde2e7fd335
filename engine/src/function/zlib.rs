//! `zlib_compress` and its inverses. Before: a column of bytes; after: a column of zlib streams (RFC 1950), or back.
//!
//! The rows of a batch are compressed in parallel in the process's pool ([`super::pool`]).

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::argument::{Arguments, Kind, coerce, to_binary};
use super::codec::{Compress, Method};
pub use super::deflate::compress_value;
use super::deflate::compress_value_twice;
use super::effort::is_sampled;
pub use super::effort::{SplitEffort, choose_effort};
pub use super::inflate::DECOMPRESSED_BYTES_MAX;
use super::inflate::decompress_value_of;
use super::pool::in_pool;
use crate::error::{Error, ErrorKind, Result};

/// The level of a call which names none, as the seed takes it.
const LEVEL_DEFAULT: i64 = 9;
/// Small values are handed out in groups of about this many bytes: a task of one tiny value would cost as much as the value.
const TASK_BYTES: usize = 32 << 10;

/// Compresses one value as if it were a batch of its own, on the present thread.
pub(super) fn compress_alone(data: &[u8], level: u8) -> Result<Vec<u8>> {
    compress_by_level(data, level, choose_effort(&[data], level))
}

/// Compresses one value with the effort which [`choose_effort`] found for it and its neighbours at `level`, on the present thread.
///
/// # Errors
/// As [`compress_value`].
pub fn compress_by_level(data: &[u8], level: u8, chosen: u8) -> Result<Vec<u8>> {
    if is_sampled(level) { compress_value_twice(data, chosen) } else { compress_value(data, chosen) }
}

/// Compresses values in parallel, in the process's pool, and blocks until all are done. `effort` None lets a sample choose.
/// Each value is copied out of its thread's buffer and once more into the column: 0.3 % of the time, where a zeroed buffer for
/// each value would cost more. The result is a function of the arguments alone: equal values give equal bytes, on any machine and number of threads.
///
/// # Errors
/// As [`compress_value`].
pub fn compress_all(values: &[Option<&[u8]>], level: u8, effort: Option<u8>) -> Result<Vec<Option<Vec<u8>>>> {
    match effort {
        Some(effort) => compress_each(values, |data| compress_value(data, effort)),
        None => {
            let chosen = choose_effort(&values.iter().flatten().copied().collect::<Vec<_>>(), level);
            compress_each(values, |data| compress_by_level(data, level, chosen))
        }
    }
}

/// The same for the next batch of a split, whose effort the batches before may tell. The result is a function of the level and of all values of
/// the split up to here.
///
/// # Errors
/// As [`compress_value`].
pub fn compress_next(values: &[Option<&[u8]>], level: u8, split: &SplitEffort) -> Result<Vec<Option<Vec<u8>>>> {
    let present: Vec<&[u8]> = values.iter().flatten().copied().collect();
    split.compress_next(&present, level, |effort| compress_each(values, |data| compress_by_level(data, level, effort)))
}

fn compress_each(values: &[Option<&[u8]>], compress: impl Fn(&[u8]) -> Result<Vec<u8>> + Sync) -> Result<Vec<Option<Vec<u8>>>> {
    in_pool(values, task_rows(values), |_row, value| value.map(&compress).transpose())?.into_iter().collect()
}

/// Rows of one parallel task: one where a row is a chunk, so that the last ones of a batch spread over all threads.
pub(super) fn task_rows(values: &[Option<&[u8]>]) -> usize {
    let total: usize = values.iter().flatten().map(|value| value.len()).sum();
    let average = total / values.len().max(1);
    TASK_BYTES / average.clamp(1, TASK_BYTES)
}

/// Level and, where pinned, effort of a row.
type Setting = (i64, Option<i64>);

/// `zlib_compress(data[, level[, effort]])`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ZlibCompress {
    signature: Signature,
    split: OneSplit,
}

/// What a copy of the function which sees one split alone, from its beginning, knows of it. Copies of one function are equal.
#[derive(Debug, Default)]
pub(super) struct OneSplit(Option<SplitEffort>);

impl OneSplit {
    /// Compresses a batch, or the split's next one, with the effort which a sample chooses.
    ///
    /// # Errors
    /// As [`compress_value`].
    pub(super) fn compress(&self, values: &[Option<&[u8]>], level: u8) -> Result<Vec<Option<Vec<u8>>>> {
        match &self.0 {
            Some(split) => compress_next(values, level, split),
            None => compress_all(values, level, None),
        }
    }
}

impl PartialEq for OneSplit {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for OneSplit {}

impl Hash for OneSplit {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

impl Default for ZlibCompress {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable), split: OneSplit::default() }
    }
}

/// The expression for one split alone: each `zlib_compress` or `compress` in it keeps its effort from batch to batch ([`SplitEffort`]).
///
/// # Errors
/// DataFusion's, when the expression cannot be put together again.
pub fn for_one_split(expression: &Arc<dyn PhysicalExpr>) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
    let narrowed = Arc::clone(expression).transform_up(|node| {
        let samples = |call: &&ScalarFunctionExpr| call.fun().inner().is::<ZlibCompress>() || call.fun().inner().is::<Compress>();
        let Some(call) = node.downcast_ref::<ScalarFunctionExpr>().filter(samples) else { return Ok(Transformed::no(node)) };
        let split = OneSplit(Some(SplitEffort::default()));
        let function = match call.fun().inner().is::<Compress>() {
            true => ScalarUDF::from(Compress { split, ..Compress::default() }),
            false => ScalarUDF::from(ZlibCompress { split, ..ZlibCompress::default() }),
        };
        let (arguments, options) = (call.args().to_vec(), Arc::new(call.config_options().clone()));
        let field = call.return_field(&Schema::empty())?;
        Ok(Transformed::yes(Arc::new(ScalarFunctionExpr::new(call.name(), Arc::new(function), arguments, field, options))))
    })?;
    Ok(narrowed.data)
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
        let mut groups: BTreeMap<Setting, Vec<usize>> = BTreeMap::new();
        for row in (0..values.len()).filter(|row| values[*row].is_some()) {
            groups.entry((level_of(row), effort_of(row))).or_default().push(row);
        }
        for ((level, effort), rows) in groups {
            let level = check_range("level", level, 0, 9)?;
            let effort = effort.map(|effort| check_range("effort", effort, 1, 12)).transpose()?;
            let group: Vec<_> = rows.iter().map(|row| values[*row]).collect();
            let compressed = match effort {
                Some(_) => compress_all(&group, level, effort)?,
                None => self.split.compress(&group, level)?,
            };
            for (row, value) in rows.into_iter().zip(compressed) {
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
    let decompress = |row: usize, value: &Option<&[u8]>| -> Result<Option<Vec<u8>>> {
        let bytes_max = match limits.as_ref().map(|limits| limits[row]) {
            None => DECOMPRESSED_BYTES_MAX,
            Some(None) => return Ok(None),
            Some(Some(limit)) => u64::try_from(limit).map_err(|_| Error::config(format!("{function}: max_bytes {limit} is negative")))?,
        };
        let (Some(value), Some(method)) = (value, method_of(row)?) else { return Ok(None) };
        match decompress_value_of(method, value, bytes_max) {
            Ok(raw) => Ok(Some(raw)),
            // Over the limit is no corruption: NULL would lose an honest value without a word.
            Err(error) if is_lenient && error.kind() == ErrorKind::Decode => Ok(None),
            Err(error) => Err(error.context(format!("{function}: row {row} of the batch"))),
        }
    };
    // Not the first error that some thread meets but that of the lowest row, so that a repeated batch fails with the same words.
    Ok(in_pool(&values, task_rows(&values), decompress)?.into_iter().collect::<Result<_>>()?)
}
