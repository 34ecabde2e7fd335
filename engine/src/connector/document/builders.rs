//! Builders of arrays from BSON values, one for each form of array.

use std::fmt;
use std::sync::Arc;

use bson::RawBsonRef;
use datafusion::arrow::array::*;
use datafusion::arrow::datatypes::*;

use super::decimal::{Decimal, unpack_decimal};
use super::nested::{CastBuilder, ListBuilder, MapBuilder, StructBuilder};
use super::types::{map_fields, type_name};
use super::values::Rate;
use crate::{Error, Result};

/// Collects the values of one column.
pub(super) trait Builder: Send {
    /// Appends a value; nothing stands for NULL.
    fn append(&mut self, value: Option<RawBsonRef<'_>>) -> Result<(), Fault>;

    /// The column; the builder is spent.
    fn finish(&mut self) -> Result<ArrayRef>;
}

/// Why a document is no row.
#[derive(Debug)]
pub(super) struct Fault {
    path: String,
    reason: String,
}

impl Fault {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { path: String::new(), reason: reason.into() }
    }

    pub(super) fn unfit(found: RawBsonRef<'_>, wanted: &DataType) -> Self {
        Self::new(format!("holds {}, which is no {wanted}; declare the column with a type that holds it", describe(found)))
    }

    pub(super) fn within(mut self, name: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{dot}{}", self.path);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "field `{}` ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

impl From<bson::raw::Error> for Fault {
    fn from(error: bson::raw::Error) -> Self {
        Self::new(format!("the bytes are not BSON: {error}"))
    }
}

/// A value's type, and the value itself where it is short.
pub(super) fn describe(value: RawBsonRef<'_>) -> String {
    let name = type_name(value.element_type());
    match value {
        RawBsonRef::Int32(value) => format!("{name} {value}"),
        RawBsonRef::Int64(value) => format!("{name} {value}"),
        RawBsonRef::Double(value) => format!("{name} {value:?}"),
        RawBsonRef::Decimal128(value) => format!("{name} {value}"),
        RawBsonRef::Boolean(value) => format!("{name} {value}"),
        RawBsonRef::ObjectId(value) => format!("{name} {value}"),
        RawBsonRef::DateTime(value) => format!("{name} of {} ms", value.timestamp_millis()),
        RawBsonRef::String(value) => match value.char_indices().nth(64) {
            None => format!("{name} {value:?}"),
            Some((end, _)) => format!("{name} {:?}…", value.get(..end).unwrap_or_default()),
        },
        _ => name.to_owned(),
    }
}

pub(super) type Boxed = Box<dyn Builder>;
type F16 = <Float16Type as ArrowPrimitiveType>::Native;

/// A builder for a type which has passed `check_fields`.
pub(super) fn new_builder(data_type: &DataType, rows: usize) -> Result<Boxed> {
    use DataType as T;
    let wanted = data_type.clone();
    macro_rules! integer {
        ($t:ty) => {
            primitive::<$t>(wanted, rows, |value| integer(value)?.try_into().ok())
        };
    }
    macro_rules! ticks {
        ($t:ty, $read:ident, $rate:expr) => {{
            let rate = $rate;
            primitive::<$t>(wanted, rows, move |value| rate.revert($read(value)?)?.try_into().ok())
        }};
    }
    macro_rules! decimal {
        ($t:ty, $precision:expr, $scale:expr) => {{
            let (precision, scale) = (u32::from(*$precision), *$scale);
            primitive::<$t>(wanted, rows, move |value| {
                let coefficient = decimal(value)?.rescale(scale)?;
                (coefficient.unsigned_abs() < 10_u128.checked_pow(precision)?).then_some(coefficient)?.try_into().ok()
            })
        }};
    }
    Ok(match data_type {
        T::Null => Box::new(NullsBuilder { rows: 0 }),
        T::Boolean => Box::new(BooleansBuilder { builder: BooleanBuilder::with_capacity(rows) }),
        T::Int8 => integer!(Int8Type),
        T::Int16 => integer!(Int16Type),
        T::Int32 => integer!(Int32Type),
        T::Int64 => integer!(Int64Type),
        T::UInt8 => integer!(UInt8Type),
        T::UInt16 => integer!(UInt16Type),
        T::UInt32 => integer!(UInt32Type),
        T::UInt64 => integer!(UInt64Type),
        T::Float16 => primitive::<Float16Type>(wanted, rows, |value| narrow(double(value)?, F16::from_f64, F16::to_f64)),
        T::Float32 => primitive::<Float32Type>(wanted, rows, |value| narrow(double(value)?, |wide| wide as f32, f64::from)),
        T::Float64 => primitive::<Float64Type>(wanted, rows, double),
        T::Date32 => ticks!(Date32Type, millis, Rate::DAYS),
        T::Date64 => ticks!(Date64Type, millis, Rate::of_timestamp(TimeUnit::Millisecond)),
        T::Timestamp(unit, _) => match unit {
            TimeUnit::Second => ticks!(TimestampSecondType, millis, Rate::of_timestamp(*unit)),
            TimeUnit::Millisecond => ticks!(TimestampMillisecondType, millis, Rate::of_timestamp(*unit)),
            TimeUnit::Microsecond => ticks!(TimestampMicrosecondType, millis, Rate::of_timestamp(*unit)),
            TimeUnit::Nanosecond => ticks!(TimestampNanosecondType, millis, Rate::of_timestamp(*unit)),
        },
        T::Time32(TimeUnit::Second) => ticks!(Time32SecondType, integer, Rate::of_span(TimeUnit::Second)),
        T::Time32(unit) => ticks!(Time32MillisecondType, integer, Rate::of_span(*unit)),
        T::Time64(TimeUnit::Microsecond) => ticks!(Time64MicrosecondType, integer, Rate::of_span(TimeUnit::Microsecond)),
        T::Time64(unit) => ticks!(Time64NanosecondType, integer, Rate::of_span(*unit)),
        T::Duration(unit) => match unit {
            TimeUnit::Second => ticks!(DurationSecondType, integer, Rate::of_span(*unit)),
            TimeUnit::Millisecond => ticks!(DurationMillisecondType, integer, Rate::of_span(*unit)),
            TimeUnit::Microsecond => ticks!(DurationMicrosecondType, integer, Rate::of_span(*unit)),
            TimeUnit::Nanosecond => ticks!(DurationNanosecondType, integer, Rate::of_span(*unit)),
        },
        T::Decimal32(precision, scale) => decimal!(Decimal32Type, precision, scale),
        T::Decimal64(precision, scale) => decimal!(Decimal64Type, precision, scale),
        T::Decimal128(precision, scale) => decimal!(Decimal128Type, precision, scale),
        T::Decimal256(precision, scale) => {
            let (precision, scale) = (u32::from(*precision), *scale);
            primitive::<Decimal256Type>(wanted, rows, move |value| {
                let coefficient = decimal(value)?.rescale(scale)?;
                (coefficient.unsigned_abs() < 10_u128.checked_pow(precision)?).then(|| i256::from_i128(coefficient))
            })
        }
        T::Utf8 => Box::new(StringsBuilder::<i32>::default()),
        T::LargeUtf8 => Box::new(StringsBuilder::<i64>::default()),
        T::Binary => Box::new(BinariesBuilder::<i32>::default()),
        T::LargeBinary => Box::new(BinariesBuilder::<i64>::default()),
        T::FixedSizeBinary(size) => {
            let builder = FixedSizeBinaryBuilder::with_capacity(rows, (*size).max(0));
            Box::new(FixedBinariesBuilder { builder, wanted })
        }
        T::List(item) | T::LargeList(item) | T::FixedSizeList(item, _) | T::ListView(item) | T::LargeListView(item) => {
            Box::new(ListBuilder::new(wanted, item.clone(), new_builder(item.data_type(), rows)?))
        }
        T::Struct(fields) => Box::new(StructBuilder::try_new(fields, rows)?),
        T::Map(entries, sorted) => match map_fields(entries) {
            Some((key, value)) => {
                let (keys, values) = (new_builder(key.data_type(), rows)?, new_builder(value.data_type(), rows)?);
                Box::new(MapBuilder::new(entries.clone(), *sorted, keys, values))
            }
            None => return Err(Error::internal(format!("a map of type {data_type} has no key and value"))),
        },
        T::Utf8View => CastBuilder::boxed(&T::Utf8, wanted, rows)?,
        T::BinaryView => CastBuilder::boxed(&T::Binary, wanted, rows)?,
        T::Dictionary(_, values) => CastBuilder::boxed(values, wanted, rows)?,
        T::RunEndEncoded(_, values) => CastBuilder::boxed(values.data_type(), wanted, rows)?,
        T::Interval(_) | T::Union(..) => return Err(Error::internal(format!("a column of type {data_type} has passed the plan"))),
    })
}

/// An integer of either width.
fn integer(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int32(value) => Some(value.into()),
        RawBsonRef::Int64(value) => Some(value),
        _ => None,
    }
}

/// A double, or an integer which is one exactly.
fn double(value: RawBsonRef<'_>) -> Option<f64> {
    match value {
        RawBsonRef::Double(value) => Some(value),
        _ => {
            let whole = integer(value)?;
            let wide = whole as f64;
            (wide as i128 == i128::from(whole)).then_some(wide)
        }
    }
}

/// A double in a narrower form, if it comes back as it was.
fn narrow<N: Copy>(wide: f64, narrow: impl Fn(f64) -> N, widen: impl Fn(N) -> f64) -> Option<N> {
    let narrowed = narrow(wide);
    (wide.is_nan() || widen(narrowed) == wide).then_some(narrowed)
}

fn decimal(value: RawBsonRef<'_>) -> Option<Decimal> {
    match value {
        RawBsonRef::Decimal128(value) => unpack_decimal(value.bytes()),
        _ => Some(Decimal { coefficient: integer(value)?.into(), exponent: 0 }),
    }
}

fn millis(value: RawBsonRef<'_>) -> Option<i64> {
    value.as_datetime().map(|date| date.timestamp_millis())
}

/// Values of fixed width: `convert` gives nothing for what does not fit.
struct PrimitivesBuilder<T: ArrowPrimitiveType, C> {
    builder: PrimitiveBuilder<T>,
    convert: C,
    wanted: DataType,
}

fn primitive<T: ArrowPrimitiveType>(
    wanted: DataType,
    rows: usize,
    convert: impl Fn(RawBsonRef<'_>) -> Option<T::Native> + Send + 'static,
) -> Boxed {
    let builder = PrimitiveBuilder::<T>::with_capacity(rows).with_data_type(wanted.clone());
    Box::new(PrimitivesBuilder { builder, convert, wanted })
}

impl<T: ArrowPrimitiveType, C: Fn(RawBsonRef<'_>) -> Option<T::Native> + Send> Builder for PrimitivesBuilder<T, C> {
    fn append(&mut self, value: Option<RawBsonRef<'_>>) -> Result<(), Fault> {
        match value {
            None => self.builder.append_null(),
            Some(value) => self.builder.append_value((self.convert)(value).ok_or_else(|| Fault::unfit(value, &self.wanted))?),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(self.builder.finish()))
    }
}

/// Nothing but NULL.
struct NullsBuilder {
    rows: usize,
}

impl Builder for NullsBuilder {
    fn append(&mut self, value: Option<RawBsonRef<'_>>) -> Result<(), Fault> {
        self.rows += 1;
        value.map_or(Ok(()), |value| Err(Fault::unfit(value, &DataType::Null)))
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(NullArray::new(self.rows)))
    }
}

struct BooleansBuilder {
    builder: BooleanBuilder,
}

impl Builder for BooleansBuilder {
    fn append(&mut self, value: Option<RawBsonRef<'_>>) -> Result<(), Fault> {
        match value {
            None => self.builder.append_null(),
            Some(RawBsonRef::Boolean(value)) => self.builder.append_value(value),
            Some(value) => return Err(Fault::unfit(value, &DataType::Boolean)),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(self.builder.finish()))
    }
}

/// The builders of arrow panic when offsets run over.
fn check_offset<O: OffsetSizeTrait>(held: usize, more: usize) -> Result<(), Fault> {
    match held.checked_add(more).and_then(O::from_usize) {
        Some(_) => Ok(()),
        None => Err(Fault::new("makes the batch larger than 2 GiB: read fewer documents at once")),
    }
}

#[derive(Default)]
struct StringsBuilder<O: OffsetSizeTrait> {
    builder: GenericStringBuilder<O>,
}

impl<O: OffsetSizeTrait> Builder for StringsBuilder<O> {
    fn append(&mut self, value: Option<RawBsonRef<'_>>) -> Result<(), Fault> {
        let hex;
        let text = match value {
            None => {
                self.builder.append_null();
                return Ok(());
            }
            Some(RawBsonRef::String(text) | RawBsonRef::Symbol(text)) => text,
            Some(RawBsonRef::ObjectId(id)) => {
                hex = id.to_hex();
                &hex
            }
            Some(value) => return Err(Fault::unfit(value, &DataType::Utf8)),
        };
        check_offset::<O>(self.builder.values_slice().len(), text.len())?;
        self.builder.append_value(text);
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(self.builder.finish()))
    }
}

#[derive(Default)]
struct BinariesBuilder<O: OffsetSizeTrait> {
    builder: GenericBinaryBuilder<O>,
}

impl<O: OffsetSizeTrait> Builder for BinariesBuilder<O> {
    fn append(&mut self, value: Option<RawBsonRef<'_>>) -> Result<(), Fault> {
        match value {
            None => self.builder.append_null(),
            Some(RawBsonRef::Binary(binary)) => {
                check_offset::<O>(self.builder.values_slice().len(), binary.bytes.len())?;
                self.builder.append_value(binary.bytes);
            }
            Some(value) => return Err(Fault::unfit(value, &DataType::Binary)),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(self.builder.finish()))
    }
}

struct FixedBinariesBuilder {
    builder: FixedSizeBinaryBuilder,
    wanted: DataType,
}

impl Builder for FixedBinariesBuilder {
    fn append(&mut self, value: Option<RawBsonRef<'_>>) -> Result<(), Fault> {
        match value {
            None => self.builder.append_null(),
            Some(value) => {
                let fits = value.as_binary().is_some_and(|binary| self.builder.append_value(binary.bytes).is_ok());
                if !fits {
                    return Err(Fault::unfit(value, &self.wanted));
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(self.builder.finish()))
    }
}
