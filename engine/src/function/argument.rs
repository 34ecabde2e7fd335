//! Arguments of any text or binary type as byte slices, and small integers, whether columns or constants.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BinaryArray, BinaryBuilder, cast::AsArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use crate::error::{Error, Result};

/// Whether a type holds bytes or text.
pub fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
    )
}

/// Types to which a call's arguments are cast: bytes as they are (NULL as Binary), integers as Int64, text as text.
///
/// # Errors
/// Config, naming the function, when an argument is neither, or there are too few or too many.
pub fn coerce(name: &str, given: &[DataType], wanted: &[Kind], required: usize) -> DataFusionResult<Vec<DataType>> {
    if given.len() < required || given.len() > wanted.len() {
        return Err(Error::config(format!("{name} takes {required} to {} arguments, not {}", wanted.len(), given.len())).into());
    }
    let coerced = given.iter().zip(wanted).enumerate().map(|(index, (given, wanted))| match (wanted, given) {
        (Kind::Bytes, DataType::Null) => Ok(DataType::Binary),
        (Kind::Bytes, given) if is_bytes(given) => Ok(given.clone()),
        // As Parquet readers and string casts make them; DataFusion unpacks the values.
        (Kind::Bytes, DataType::Dictionary(_, values)) if is_bytes(values) => Ok(values.as_ref().clone()),
        (Kind::Integer, given) if given.is_integer() || given.is_null() => Ok(DataType::Int64),
        (Kind::Text, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null) => Ok(DataType::Utf8),
        _ => Err(Error::config(format!("{name}: argument {} is {given}, but {} is wanted", index + 1, wanted.name()))),
    });
    Ok(coerced.collect::<Result<Vec<_>>>()?)
}

/// What an argument must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text or binary of any form.
    Bytes,
    /// Any integer.
    Integer,
    /// Text.
    Text,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Bytes => "text or binary",
            Self::Integer => "an integer",
            Self::Text => "text",
        }
    }
}

/// The arguments of one call as arrays of one length; a call on constants alone has length 1.
#[derive(Debug)]
pub struct Arguments {
    arrays: Vec<ArrayRef>,
    is_scalar: bool,
}

impl Arguments {
    /// Takes a call's arguments.
    ///
    /// # Errors
    /// DataFusion's, when a constant cannot be repeated.
    pub fn try_new(args: ScalarFunctionArgs) -> DataFusionResult<Self> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let arrays = args.args.into_iter().map(|arg| arg.into_array(rows)).collect::<DataFusionResult<_>>()?;
        Ok(Self { arrays, is_scalar })
    }

    /// Rows of the call.
    pub fn rows(&self) -> usize {
        self.arrays.first().map_or(0, |array| array.len())
    }

    /// Argument `index` as byte slices.
    ///
    /// # Errors
    /// Internal, when the argument is of another type than was planned.
    pub fn bytes(&self, index: usize) -> Result<Vec<Option<&[u8]>>> {
        let array = self.arrays.get(index).ok_or_else(|| Error::internal("a function was called with too few arguments"))?;
        Ok(match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().iter().map(|value| value.map(str::as_bytes)).collect(),
            DataType::LargeUtf8 => array.as_string::<i64>().iter().map(|value| value.map(str::as_bytes)).collect(),
            DataType::Utf8View => array.as_string_view().iter().map(|value| value.map(str::as_bytes)).collect(),
            DataType::Binary => array.as_binary::<i32>().iter().collect(),
            DataType::LargeBinary => array.as_binary::<i64>().iter().collect(),
            DataType::BinaryView => array.as_binary_view().iter().collect(),
            DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().iter().collect(),
            DataType::Null => vec![None; array.len()],
            other => return Err(Error::internal(format!("a function was called with {other}"))),
        })
    }

    /// Argument `index` as integers; `None` where the call has no such argument.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn integers(&self, index: usize) -> Result<Option<Vec<Option<i64>>>> {
        let Some(array) = self.arrays.get(index) else { return Ok(None) };
        let integers = array.as_primitive_opt::<Int64Type>().ok_or_else(|| Error::internal("a function was called with another type"))?;
        Ok(Some(integers.iter().collect()))
    }

    /// Argument `index` as text.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn text(&self, index: usize) -> Result<Vec<Option<&str>>> {
        let array = self.arrays.get(index).and_then(|array| array.as_string_opt::<i32>());
        Ok(array.ok_or_else(|| Error::internal("a function was called with another type"))?.iter().collect())
    }

    /// The result in the form of the call: constants give a constant.
    ///
    /// # Errors
    /// DataFusion's, for a type without constants.
    pub fn wrap(&self, array: ArrayRef) -> DataFusionResult<ColumnarValue> {
        if self.is_scalar { Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)) } else { Ok(ColumnarValue::Array(array)) }
    }
}

/// Values → one BinaryArray, each copied once.
///
/// # Errors
/// Permanent, when the values of one batch are more than the 2 GiB which a Binary column holds.
pub fn to_binary(values: &[Option<Vec<u8>>]) -> Result<ArrayRef> {
    let bytes: usize = values.iter().flatten().map(Vec::len).sum();
    if i32::try_from(bytes).is_err() {
        return Err(Error::permanent(format!(
            "a batch of {} values holds {bytes} bytes, more than a column can; set datafusion.execution.batch_size lower",
            values.len()
        )));
    }
    let mut builder = BinaryBuilder::with_capacity(values.len(), bytes);
    values.iter().for_each(|value| builder.append_option(value.as_deref()));
    let array: BinaryArray = builder.finish();
    Ok(Arc::new(array))
}
