//! One column of a batch, laid out for writing row by row.

use std::collections::HashSet;
use std::ops::Range;

use bson::spec::ElementType;
use datafusion::arrow::array::*;
use datafusion::arrow::buffer::{NullBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::*;

use super::decimal::pack_decimal;
use super::types::element_type;
use crate::{Error, Result};

type F16 = <Float16Type as ArrowPrimitiveType>::Native;

/// Why a row cannot be a document.
pub(super) type Refusal = String;

/// A column which is ready to be written: its arrays taken apart once, so that a row costs no look-up.
#[derive(Debug)]
pub(super) struct Column {
    element: ElementType,
    nulls: Option<NullBuffer>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Null,
    Boolean(BooleanArray),
    Int8(ScalarBuffer<i8>),
    Int16(ScalarBuffer<i16>),
    Int32(ScalarBuffer<i32>),
    Int64(ScalarBuffer<i64>),
    UInt8(ScalarBuffer<u8>),
    UInt16(ScalarBuffer<u16>),
    UInt32(ScalarBuffer<u32>),
    UInt64(ScalarBuffer<u64>),
    Float16(ScalarBuffer<F16>),
    Float32(ScalarBuffer<f32>),
    Float64(ScalarBuffer<f64>),
    Ticks32(ScalarBuffer<i32>, Rate),
    Ticks64(ScalarBuffer<i64>, Rate),
    Decimal32(ScalarBuffer<i32>, i8),
    Decimal64(ScalarBuffer<i64>, i8),
    Decimal128(ScalarBuffer<i128>, i8),
    Decimal256(ScalarBuffer<i256>, i8),
    Utf8(StringArray),
    LargeUtf8(LargeStringArray),
    Utf8View(StringViewArray),
    Binary(BinaryArray),
    LargeBinary(LargeBinaryArray),
    BinaryView(BinaryViewArray),
    FixedSizeBinary(FixedSizeBinaryArray),
    List { ranges: Vec<Range<usize>>, items: Box<Column> },
    Struct(Vec<Member>),
    Map { ranges: Vec<Range<usize>>, keys: Box<Column>, values: Box<Column> },
    Indexed { indices: Vec<usize>, values: Box<Column> },
}

/// A named column: a field of a document.
#[derive(Debug)]
pub(super) struct Member {
    /// The name with its NUL, as it stands in the bytes.
    key: Box<[u8]>,
    column: Column,
}

/// How a column's ticks become BSON's: milliseconds for dates, nanoseconds for times and durations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) multiply: i64,
    pub(super) divide: i64,
}

impl Rate {
    /// To milliseconds.
    pub(super) fn of_timestamp(unit: TimeUnit) -> Self {
        match unit {
            TimeUnit::Second => Self { multiply: 1_000, divide: 1 },
            TimeUnit::Millisecond => Self { multiply: 1, divide: 1 },
            TimeUnit::Microsecond => Self { multiply: 1, divide: 1_000 },
            TimeUnit::Nanosecond => Self { multiply: 1, divide: 1_000_000 },
        }
    }

    /// To nanoseconds.
    pub(super) fn of_span(unit: TimeUnit) -> Self {
        let multiply = match unit {
            TimeUnit::Second => 1_000_000_000,
            TimeUnit::Millisecond => 1_000_000,
            TimeUnit::Microsecond => 1_000,
            TimeUnit::Nanosecond => 1,
        };
        Self { multiply, divide: 1 }
    }

    /// Days to milliseconds.
    pub(super) const DAYS: Self = Self { multiply: 86_400_000, divide: 1 };

    /// To BSON, rounded down; nothing when it does not fit.
    fn convert(self, ticks: i64) -> Option<i64> {
        Some(ticks.checked_mul(self.multiply)?.div_euclid(self.divide))
    }

    /// From BSON; nothing when it does not fit or is finer than a tick.
    pub(super) fn revert(self, value: i64) -> Option<i64> {
        let ticks = value.checked_mul(self.divide)?;
        (ticks % self.multiply == 0).then_some(ticks / self.multiply)
    }
}

/// A typed view of an array whose type says that it has this form.
macro_rules! typed {
    ($array:expr, $method:ident $(::<$t:ty>)?) => {
        match $array.$method$(::<$t>)?() {
            Some(typed) => typed,
            None => return Err(Error::internal(format!("an array of type {} is laid out otherwise", $array.data_type()))),
        }
    };
}

impl Column {
    /// Takes an array apart. Its type has passed [`super::types::check_fields`].
    pub(super) fn try_new(array: &dyn Array) -> Result<Self> {
        use DataType as T;
        macro_rules! primitive {
            ($t:ty) => {
                typed!(array, as_primitive_opt::<$t>).values().clone()
            };
        }
        let values = match array.data_type() {
            T::Null => Values::Null,
            T::Boolean => Values::Boolean(typed!(array, as_boolean_opt).clone()),
            T::Int8 => Values::Int8(primitive!(Int8Type)),
            T::Int16 => Values::Int16(primitive!(Int16Type)),
            T::Int32 => Values::Int32(primitive!(Int32Type)),
            T::Int64 => Values::Int64(primitive!(Int64Type)),
            T::UInt8 => Values::UInt8(primitive!(UInt8Type)),
            T::UInt16 => Values::UInt16(primitive!(UInt16Type)),
            T::UInt32 => Values::UInt32(primitive!(UInt32Type)),
            T::UInt64 => Values::UInt64(primitive!(UInt64Type)),
            T::Float16 => Values::Float16(primitive!(Float16Type)),
            T::Float32 => Values::Float32(primitive!(Float32Type)),
            T::Float64 => Values::Float64(primitive!(Float64Type)),
            T::Date32 => Values::Ticks32(primitive!(Date32Type), Rate::DAYS),
            T::Date64 => Values::Ticks64(primitive!(Date64Type), Rate::of_timestamp(TimeUnit::Millisecond)),
            T::Timestamp(unit, _) => {
                let ticks = match unit {
                    TimeUnit::Second => primitive!(TimestampSecondType),
                    TimeUnit::Millisecond => primitive!(TimestampMillisecondType),
                    TimeUnit::Microsecond => primitive!(TimestampMicrosecondType),
                    TimeUnit::Nanosecond => primitive!(TimestampNanosecondType),
                };
                Values::Ticks64(ticks, Rate::of_timestamp(*unit))
            }
            T::Time32(TimeUnit::Second) => Values::Ticks32(primitive!(Time32SecondType), Rate::of_span(TimeUnit::Second)),
            T::Time32(unit) => Values::Ticks32(primitive!(Time32MillisecondType), Rate::of_span(*unit)),
            T::Time64(TimeUnit::Microsecond) => Values::Ticks64(primitive!(Time64MicrosecondType), Rate::of_span(TimeUnit::Microsecond)),
            T::Time64(unit) => Values::Ticks64(primitive!(Time64NanosecondType), Rate::of_span(*unit)),
            T::Duration(unit) => {
                let ticks = match unit {
                    TimeUnit::Second => primitive!(DurationSecondType),
                    TimeUnit::Millisecond => primitive!(DurationMillisecondType),
                    TimeUnit::Microsecond => primitive!(DurationMicrosecondType),
                    TimeUnit::Nanosecond => primitive!(DurationNanosecondType),
                };
                Values::Ticks64(ticks, Rate::of_span(*unit))
            }
            T::Decimal32(_, scale) => Values::Decimal32(primitive!(Decimal32Type), *scale),
            T::Decimal64(_, scale) => Values::Decimal64(primitive!(Decimal64Type), *scale),
            T::Decimal128(_, scale) => Values::Decimal128(primitive!(Decimal128Type), *scale),
            T::Decimal256(_, scale) => Values::Decimal256(primitive!(Decimal256Type), *scale),
            T::Utf8 => Values::Utf8(typed!(array, as_string_opt::<i32>).clone()),
            T::LargeUtf8 => Values::LargeUtf8(typed!(array, as_string_opt::<i64>).clone()),
            T::Utf8View => Values::Utf8View(typed!(array, as_string_view_opt).clone()),
            T::Binary => Values::Binary(typed!(array, as_binary_opt::<i32>).clone()),
            T::LargeBinary => Values::LargeBinary(typed!(array, as_binary_opt::<i64>).clone()),
            T::BinaryView => Values::BinaryView(typed!(array, as_binary_view_opt).clone()),
            T::FixedSizeBinary(_) => Values::FixedSizeBinary(typed!(array, as_fixed_size_binary_opt).clone()),
            T::Struct(_) => {
                let array = typed!(array, as_struct_opt);
                let members = array.fields().iter().zip(array.columns());
                Values::Struct(members.map(|(field, column)| Member::try_new(field.name(), column)).collect::<Result<_>>()?)
            }
            T::List(_) | T::LargeList(_) | T::FixedSizeList(..) | T::ListView(_) | T::LargeListView(_) => lay_out_list(array)?,
            T::Map(..) => {
                let array = typed!(array, as_map_opt);
                let (ranges, used) = rebase(array.value_offsets());
                let column = |values: &ArrayRef| Ok::<_, Error>(Box::new(Self::try_new(&values.slice(used.start, used.len()))?));
                Values::Map { ranges, keys: column(array.keys())?, values: column(array.values())? }
            }
            T::Dictionary(..) => {
                let array = typed!(array, as_any_dictionary_opt);
                // A dictionary without values is all NULL, and `normalized_keys` wants some.
                let indices = if array.values().is_empty() { vec![0; array.len()] } else { array.normalized_keys() };
                Values::Indexed { indices, values: Box::new(Self::try_new(array.values())?) }
            }
            T::RunEndEncoded(ends, _) => lay_out_runs(array, ends.data_type())?,
            T::Union(..) | T::Interval(_) => {
                return Err(Error::internal(format!("a column of type {} has passed the plan", array.data_type())));
            }
        };
        Ok(Self { element: element_type(array.data_type()), nulls: array.nulls().cloned(), values })
    }

    fn is_null(&self, row: usize) -> bool {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return true;
        }
        match &self.values {
            Values::Null => true,
            Values::Indexed { indices, values } => values.is_null(indices[row]),
            _ => false,
        }
    }

    /// Bytes of the element in the document: type, name of `key_bytes` with its NUL, value.
    fn measure_element(&self, row: usize, key_bytes: usize) -> usize {
        1 + key_bytes + if self.is_null(row) { 0 } else { self.measure_value(row) }
    }

    fn measure_value(&self, row: usize) -> usize {
        match &self.values {
            Values::Null => 0,
            Values::Boolean(_) => 1,
            Values::Int8(_) | Values::Int16(_) | Values::Int32(_) | Values::UInt8(_) | Values::UInt16(_) => 4,
            Values::Int64(_) | Values::UInt32(_) | Values::UInt64(_) => 8,
            Values::Float16(_) | Values::Float32(_) | Values::Float64(_) => 8,
            Values::Ticks32(..) | Values::Ticks64(..) => 8,
            Values::Decimal32(..) | Values::Decimal64(..) | Values::Decimal128(..) | Values::Decimal256(..) => 16,
            Values::List { ranges, items } => {
                let range = ranges[row].clone();
                let keys = range.clone().enumerate();
                5 + keys.map(|(index, item)| items.measure_element(item, digits(index) + 1)).sum::<usize>()
            }
            Values::Struct(members) => measure_members(members, row),
            Values::Map { ranges, keys, values } => {
                5 + ranges[row].clone().map(|entry| values.measure_element(entry, keys.bytes(entry).len() + 1)).sum::<usize>()
            }
            Values::Indexed { indices, values } => values.measure_value(indices[row]),
            // Length and subtype of a binary are as long as length and NUL of a string.
            _ => 5 + self.bytes(row).len(),
        }
    }

    /// The bytes of a string or a binary; none of anything else.
    fn bytes(&self, row: usize) -> &[u8] {
        match &self.values {
            Values::Utf8(array) => array.value(row).as_bytes(),
            Values::LargeUtf8(array) => array.value(row).as_bytes(),
            Values::Utf8View(array) => array.value(row).as_bytes(),
            Values::Binary(array) => array.value(row),
            Values::LargeBinary(array) => array.value(row),
            Values::BinaryView(array) => array.value(row),
            Values::FixedSizeBinary(array) => array.value(row),
            _ => &[],
        }
    }

    /// Appends the element. After a refusal `out` ends somewhere within it.
    fn write_element(&self, row: usize, key: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        if self.is_null(row) {
            out.push(ElementType::Null as u8);
            out.extend_from_slice(key);
            return Ok(());
        }
        out.push(self.element as u8);
        out.extend_from_slice(key);
        self.write_value(row, out)
    }

    fn write_value(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
        match &self.values {
            Values::Null => {}
            Values::Boolean(values) => out.push(u8::from(values.value(row))),
            Values::Int8(values) => write_int32(out, values[row].into()),
            Values::Int16(values) => write_int32(out, values[row].into()),
            Values::Int32(values) => write_int32(out, values[row]),
            Values::UInt8(values) => write_int32(out, values[row].into()),
            Values::UInt16(values) => write_int32(out, values[row].into()),
            Values::UInt32(values) => write_int64(out, values[row].into()),
            Values::Int64(values) => write_int64(out, values[row]),
            Values::UInt64(values) => {
                let value = values[row];
                write_int64(out, value.try_into().map_err(|_| format!("{value} is above the largest int64"))?);
            }
            Values::Float16(values) => write_double(out, values[row].to_f64()),
            Values::Float32(values) => write_double(out, values[row].into()),
            Values::Float64(values) => write_double(out, values[row]),
            Values::Ticks32(ticks, rate) => self.write_ticks(i64::from(ticks[row]), *rate, out)?,
            Values::Ticks64(ticks, rate) => self.write_ticks(ticks[row], *rate, out)?,
            Values::Decimal32(values, scale) => write_decimal(out, values[row].into(), *scale)?,
            Values::Decimal64(values, scale) => write_decimal(out, values[row].into(), *scale)?,
            Values::Decimal128(values, scale) => write_decimal(out, values[row], *scale)?,
            Values::Decimal256(values, scale) => write_decimal(out, values[row].to_i128().unwrap_or(i128::MAX), *scale)?,
            Values::Utf8(_) | Values::LargeUtf8(_) | Values::Utf8View(_) => {
                let bytes = self.bytes(row);
                write_length(out, bytes.len() + 1);
                out.extend_from_slice(bytes);
                out.push(0);
            }
            Values::Binary(_) | Values::LargeBinary(_) | Values::BinaryView(_) | Values::FixedSizeBinary(_) => {
                let bytes = self.bytes(row);
                write_length(out, bytes.len());
                out.push(0);
                out.extend_from_slice(bytes);
            }
            Values::List { ranges, items } => write_document(out, |out| {
                let mut key = IndexKey::default();
                ranges[row].clone().enumerate().try_for_each(|(index, item)| items.write_element(item, key.set(index), out))
            })?,
            Values::Struct(members) => write_members(members, row, out)?,
            Values::Map { ranges, keys, values } => write_map(ranges[row].clone(), keys, values, out)?,
            Values::Indexed { indices, values } => values.write_value(indices[row], out)?,
        }
        Ok(())
    }

    fn write_ticks(&self, ticks: i64, rate: Rate, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let Some(value) = rate.convert(ticks) else {
            return Err(match self.element {
                ElementType::DateTime => format!("{ticks} seconds are beyond the dates of MongoDB"),
                _ => format!("{ticks} ticks are beyond ±292 years, what an int64 of nanoseconds holds"),
            });
        };
        write_int64(out, value);
        Ok(())
    }
}

impl Member {
    /// Names a column; the name has no NUL.
    pub(super) fn try_new(name: &str, array: &dyn Array) -> Result<Self> {
        let mut key = Vec::with_capacity(name.len() + 1);
        key.extend_from_slice(name.as_bytes());
        key.push(0);
        Ok(Self { key: key.into(), column: Column::try_new(array)? })
    }
}

/// Bytes of the document which has these fields.
pub(super) fn measure_members(members: &[Member], row: usize) -> usize {
    5 + members.iter().map(|member| member.column.measure_element(row, member.key.len())).sum::<usize>()
}

/// Appends the document which has these fields. After a refusal `out` ends somewhere within it.
pub(super) fn write_members(members: &[Member], row: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
    write_document(out, |out| {
        members.iter().try_for_each(|member| {
            member.column.write_element(row, &member.key, out).map_err(|reason| {
                let name = String::from_utf8_lossy(&member.key);
                let name = name.trim_end_matches('\0');
                match reason.strip_prefix('`') {
                    Some(within) => format!("`{name}.{within}"),
                    None => format!("`{name}`: {reason}"),
                }
            })
        })
    })
}

fn write_map(entries: Range<usize>, keys: &Column, values: &Column, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let mut seen = HashSet::with_capacity(entries.len());
    write_document(out, |out| {
        for entry in entries {
            let name = keys.bytes(entry);
            if memchr::memchr(0, name).is_some() {
                return Err("a key has a NUL byte".to_owned());
            }
            if !seen.insert(name) {
                return Err(format!("the key {} is there twice", String::from_utf8_lossy(name)));
            }
            out.push(if values.is_null(entry) { ElementType::Null } else { values.element } as u8);
            out.extend_from_slice(name);
            out.push(0);
            if !values.is_null(entry) {
                values.write_value(entry, out)?;
            }
        }
        Ok(())
    })
}

/// Length prefix, elements, NUL. The length is known only at the end and patched in.
fn write_document(out: &mut Vec<u8>, elements: impl FnOnce(&mut Vec<u8>) -> Result<(), Refusal>) -> Result<(), Refusal> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    elements(out)?;
    out.push(0);
    let length = length_bytes(out.len() - start);
    if let Some(prefix) = out.get_mut(start..start + length.len()) {
        prefix.copy_from_slice(&length);
    }
    Ok(())
}

/// A length as BSON has it. Documents are measured first, so none is above 16 MiB.
fn length_bytes(length: usize) -> [u8; 4] {
    i32::try_from(length).unwrap_or(i32::MAX).to_le_bytes()
}

fn write_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&length_bytes(length));
}

fn write_int32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn write_int64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn write_double(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn write_decimal(out: &mut Vec<u8>, coefficient: i128, scale: i8) -> Result<(), Refusal> {
    let packed = pack_decimal(coefficient, scale).ok_or("the number has more than the 34 digits of a decimal128")?;
    out.extend_from_slice(&packed);
    Ok(())
}

/// Decimal digits of an array index.
fn digits(index: usize) -> usize {
    index.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// The name of an array's element, with its NUL.
#[derive(Debug, Default)]
struct IndexKey {
    bytes: [u8; 21],
}

impl IndexKey {
    fn set(&mut self, mut index: usize) -> &[u8] {
        let length = digits(index);
        for digit in self.bytes[..length].iter_mut().rev() {
            *digit = b'0' + (index % 10) as u8;
            index /= 10;
        }
        self.bytes[length] = 0;
        &self.bytes[..=length]
    }
}

/// Ranges of each row from offsets, counted from the first one, and the range of the values which they use.
///
/// The values of a slice are cut out before they are laid out: else each slice of a large batch would lay out all of it.
fn rebase<O: OffsetSizeTrait>(offsets: &[O]) -> (Vec<Range<usize>>, Range<usize>) {
    let first = offsets.first().map_or(0, |offset| offset.as_usize());
    let last = offsets.last().map_or(0, |offset| offset.as_usize());
    (offsets.windows(2).map(|ends| ends[0].as_usize() - first..ends[1].as_usize() - first).collect(), first..last)
}

fn lay_out_list(array: &dyn Array) -> Result<Values> {
    fn of_offsets<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> Result<(Vec<Range<usize>>, Column)> {
        let (ranges, used) = rebase(list.value_offsets());
        Ok((ranges, Column::try_new(&list.values().slice(used.start, used.len()))?))
    }
    fn of_views<O: OffsetSizeTrait>(list: &GenericListViewArray<O>) -> Result<(Vec<Range<usize>>, Column)> {
        let views = list.offsets().iter().zip(list.sizes().iter());
        let ranges = views.map(|(start, size)| start.as_usize()..start.as_usize() + size.as_usize());
        Ok((ranges.collect(), Column::try_new(list.values())?))
    }
    let (ranges, items) = match array.data_type() {
        DataType::List(_) => of_offsets(typed!(array, as_list_opt::<i32>))?,
        DataType::LargeList(_) => of_offsets(typed!(array, as_list_opt::<i64>))?,
        DataType::ListView(_) => of_views(typed!(array, as_list_view_opt::<i32>))?,
        DataType::LargeListView(_) => of_views(typed!(array, as_list_view_opt::<i64>))?,
        _ => {
            let list = typed!(array, as_fixed_size_list_opt);
            let size = usize::try_from(list.value_length()).unwrap_or(0);
            ((0..list.len()).map(|row| row * size..(row + 1) * size).collect(), Column::try_new(list.values())?)
        }
    };
    Ok(Values::List { ranges, items: Box::new(items) })
}

fn lay_out_runs(array: &dyn Array, ends: &DataType) -> Result<Values> {
    fn of_runs<R: RunEndIndexType>(runs: &RunArray<R>) -> Result<Values> {
        let indices = (0..runs.len()).map(|row| runs.get_physical_index(row)).collect();
        Ok(Values::Indexed { indices, values: Box::new(Column::try_new(runs.values())?) })
    }
    match ends {
        DataType::Int16 => of_runs(typed!(array, as_run_opt::<Int16Type>)),
        DataType::Int32 => of_runs(typed!(array, as_run_opt::<Int32Type>)),
        _ => of_runs(typed!(array, as_run_opt::<Int64Type>)),
    }
}
