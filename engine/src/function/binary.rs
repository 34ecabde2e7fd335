//! Small functions over bytes: `crc32`, `compression_ratio`, `octet_length`.

use std::sync::Arc;

use datafusion::arrow::array::{Float64Array, Int32Array, Int64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::argument::{Arguments, Kind, coerce, is_bytes};
use crate::error::{Error, Result};

/// `crc32(data)`: the checksum of zlib and gzip (ISO 3309) as a non-negative Int64, because BSON has no unsigned 32-bit type.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Crc32 {
    signature: Signature,
}

impl Default for Crc32 {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Crc32 {
    fn name(&self) -> &str {
        "crc32"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Int64)
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        coerce(self.name(), given, &[Kind::Bytes], 1)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let arguments = Arguments::try_new(args)?;
        let values = arguments.bytes(0)?;
        let sums = values.iter().map(|value| value.map(|data| i64::from(crc32fast::hash(data))));
        arguments.wrap(Arc::new(sums.collect::<Int64Array>()))
    }
}

/// `compression_ratio(raw, packed)`: raw ÷ packed, of two values or of two sizes; NULL where packed is 0.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CompressionRatio {
    signature: Signature,
}

impl Default for CompressionRatio {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for CompressionRatio {
    fn name(&self) -> &str {
        "compression_ratio"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Float64)
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        let [raw, packed] = given else { return Err(Error::config("compression_ratio takes 2 arguments: raw and packed").into()) };
        let kind = |given: &DataType| if is_bytes(given) { Kind::Bytes } else { Kind::Integer };
        coerce(self.name(), given, &[kind(raw), kind(packed)], 2)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let kinds: Vec<bool> = args.args.iter().map(|arg| is_bytes(&arg.data_type())).collect();
        let arguments = Arguments::try_new(args)?;
        let sizes = |index: usize| -> Result<Vec<Option<i64>>> {
            if kinds[index] {
                return Ok(arguments.bytes(index)?.iter().map(|value| value.map(|data| data.len() as i64)).collect());
            }
            Ok(arguments.integers(index)?.unwrap_or_default())
        };
        let ratio = |(raw, packed): (Option<i64>, Option<i64>)| match (raw, packed) {
            (Some(raw), Some(packed)) if packed != 0 => Some(raw as f64 / packed as f64),
            _ => None,
        };
        arguments.wrap(Arc::new(sizes(0)?.into_iter().zip(sizes(1)?).map(ratio).collect::<Float64Array>()))
    }
}

/// `octet_length(data)`: bytes of a text or, unlike DataFusion's own, of a binary value.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct OctetLength {
    signature: Signature,
}

impl Default for OctetLength {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for OctetLength {
    fn name(&self) -> &str {
        "octet_length"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Int64 for the Large types, else Int32, as DataFusion's own.
    fn return_type(&self, arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(match arguments {
            [DataType::LargeUtf8 | DataType::LargeBinary] => DataType::Int64,
            _ => DataType::Int32,
        })
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        // DataFusion's own takes numbers too, by their text.
        let given: Vec<DataType> = given.iter().map(|given| if given.is_numeric() { DataType::Utf8 } else { given.clone() }).collect();
        coerce(self.name(), &given, &[Kind::Bytes], 1)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let is_large = args.return_field.data_type() == &DataType::Int64;
        let arguments = Arguments::try_new(args)?;
        let values = arguments.bytes(0)?;
        let lengths = values.iter().map(|value| value.map(<[u8]>::len));
        if is_large {
            return arguments.wrap(Arc::new(lengths.map(|length| length.map(|length| length as i64)).collect::<Int64Array>()));
        }
        arguments.wrap(Arc::new(lengths.map(|length| length.map(|length| length as i32)).collect::<Int32Array>()))
    }
}
