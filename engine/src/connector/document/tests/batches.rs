//! Random batches of random schemas.

use std::sync::Arc;

use datafusion::arrow::array::*;
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Any type which reads back as it was written.
pub(super) fn types() -> BoxedStrategy<DataType> {
    simple_types()
        .prop_recursive(3, 12, 3, |inner| {
            let item = (inner.clone(), any::<bool>()).prop_map(|(data_type, nullable)| {
                // What is NULL within its values is so whatever the field says.
                let always = matches!(data_type, DataType::Null | DataType::Dictionary(..) | DataType::RunEndEncoded(..));
                Arc::new(Field::new_list_field(data_type, nullable || always))
            });
            prop_oneof![
                3 => vec(inner.clone(), 0..3).prop_map(|types| DataType::Struct(named(types))),
                1 => item.clone().prop_map(DataType::List),
                1 => item.clone().prop_map(DataType::LargeList),
                1 => item.clone().prop_map(DataType::ListView),
                1 => item.clone().prop_map(DataType::LargeListView),
                1 => (item, 0..3_i32).prop_map(|(item, size)| DataType::FixedSizeList(item, size)),
                1 => inner.prop_map(|value| {
                    let fields = vec![Field::new("keys", DataType::Utf8, false), Field::new("values", value, true)];
                    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(fields.into()), false)), false)
                }),
            ]
        })
        .boxed()
}

fn named(types: Vec<DataType>) -> Fields {
    types.into_iter().enumerate().map(|(index, data_type)| Field::new(format!("f{index}"), data_type, true)).collect()
}

fn simple_types() -> BoxedStrategy<DataType> {
    use TimeUnit::*;
    let flat = prop::sample::select(vec![
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::LargeBinary,
        DataType::BinaryView,
        DataType::FixedSizeBinary(3),
        DataType::Date32,
        DataType::Date64,
        DataType::Timestamp(Second, None),
        DataType::Timestamp(Millisecond, Some("UTC".into())),
        DataType::Timestamp(Microsecond, Some("+02:00".into())),
        DataType::Timestamp(Nanosecond, None),
        DataType::Time32(Second),
        DataType::Time32(Millisecond),
        DataType::Time64(Microsecond),
        DataType::Time64(Nanosecond),
        DataType::Duration(Second),
        DataType::Duration(Millisecond),
        DataType::Duration(Microsecond),
        DataType::Duration(Nanosecond),
        DataType::Decimal32(9, 2),
        DataType::Decimal64(18, -3),
        DataType::Decimal128(34, 10),
        DataType::Decimal256(34, 34),
    ]);
    let values = prop::sample::select(vec![DataType::Utf8, DataType::Int64, DataType::Binary, DataType::Date32]);
    let ends = prop::sample::select(vec![DataType::Int16, DataType::Int32, DataType::Int64]);
    prop_oneof![
        8 => flat,
        1 => Just(DataType::Null),
        1 => values.clone().prop_map(|values| DataType::Dictionary(Box::new(DataType::Int16), Box::new(values))),
        1 => (ends, values).prop_map(|(ends, values)| {
            let ends = Arc::new(Field::new("run_ends", ends, false));
            DataType::RunEndEncoded(ends, Arc::new(Field::new("values", values, true)))
        }),
    ]
    .boxed()
}

/// A batch with some columns, cut out of a longer one.
pub(super) fn batches() -> impl Strategy<Value = RecordBatch> {
    (vec(types(), 0..5), 0..8_usize, any::<prop::sample::Index>(), any::<bool>())
        .prop_flat_map(|(types, rows, cut, id)| {
            let mut fields: Vec<Field> = named(types).iter().map(|field| field.as_ref().clone()).collect();
            if id {
                fields.push(Field::new("_id", DataType::Int64, false));
            }
            let schema = Arc::new(Schema::new(fields));
            let columns: Vec<_> = schema.fields().iter().map(|field| arrays(field.data_type(), rows, field.is_nullable())).collect();
            (Just(schema), columns, Just(rows), Just(cut))
        })
        .prop_map(|(schema, columns, rows, cut)| {
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            let batch = RecordBatch::try_new_with_options(schema, columns, &options).unwrap();
            let start = cut.index(rows + 1);
            batch.slice(start, (rows - start).div_ceil(2))
        })
}

fn nulls(rows: usize, nullable: bool) -> BoxedStrategy<Option<NullBuffer>> {
    if !nullable {
        return Just(None).boxed();
    }
    option::weighted(0.7, vec(prop::bool::weighted(0.8), rows)).prop_map(|valid| valid.map(NullBuffer::from)).boxed()
}

fn primitives<T: ArrowPrimitiveType>(
    data_type: &DataType,
    rows: usize,
    nullable: bool,
    value: impl Strategy<Value = T::Native> + 'static,
) -> BoxedStrategy<ArrayRef> {
    let data_type = data_type.clone();
    let array = move |(values, nulls): (Vec<T::Native>, _)| {
        Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(data_type.clone())) as ArrayRef
    };
    (vec(value, rows), nulls(rows, nullable)).prop_map(array).boxed()
}

/// Some of them, or all where there must not be NULL.
fn present<S: Strategy + 'static>(nullable: bool, values: S) -> BoxedStrategy<Option<S::Value>>
where
    S::Value: Clone,
{
    if nullable { option::weighted(0.8, values).boxed() } else { values.prop_map(Some).boxed() }
}

fn decimals(digits: u32) -> impl Strategy<Value = i128> {
    let limit = 10_i128.pow(digits);
    prop_oneof![-limit + 1..limit, -1000..1000_i128, Just(limit - 1), Just(0_i128)]
}

/// Lengths of rows with what fills them.
fn items(item: &Field, rows: usize) -> BoxedStrategy<(Vec<usize>, ArrayRef)> {
    let item = item.clone();
    vec(0..4_usize, rows)
        .prop_flat_map(move |lengths| {
            let total = lengths.iter().sum();
            (Just(lengths), arrays(item.data_type(), total, item.is_nullable()))
        })
        .boxed()
}

fn lists<O: OffsetSizeTrait>(item: &FieldRef, rows: usize, nullable: bool) -> BoxedStrategy<ArrayRef> {
    let field = item.clone();
    let array = move |((lengths, items), nulls): ((Vec<usize>, _), _)| {
        Arc::new(GenericListArray::<O>::new(field.clone(), OffsetBuffer::from_lengths(lengths), items, nulls)) as ArrayRef
    };
    (items(item, rows), nulls(rows, nullable)).prop_map(array).boxed()
}

/// Views in reverse order, so that they are not what a list would be.
fn list_views<O: OffsetSizeTrait>(item: &FieldRef, rows: usize, nullable: bool) -> BoxedStrategy<ArrayRef> {
    let field = item.clone();
    let array = move |((lengths, items), nulls): ((Vec<usize>, ArrayRef), _)| {
        let mut start = items.len();
        let starts: ScalarBuffer<O> = lengths
            .iter()
            .map(|length| {
                start -= length;
                O::usize_as(start)
            })
            .collect();
        let sizes: ScalarBuffer<O> = lengths.iter().map(|length| O::usize_as(*length)).collect();
        Arc::new(GenericListViewArray::<O>::new(field.clone(), starts, sizes, items, nulls)) as ArrayRef
    };
    (items(item, rows), nulls(rows, nullable)).prop_map(array).boxed()
}

fn runs<R: RunEndIndexType>(values: &DataType, rows: usize) -> BoxedStrategy<ArrayRef> {
    // Every run is one or two rows long; the last one ends with the rows.
    let count = rows.div_ceil(2);
    let ends: PrimitiveArray<R> = (1..=count).map(|run| R::Native::usize_as((run * 2).min(rows))).map(Some).collect();
    arrays(values, count, true).prop_map(move |values| Arc::new(RunArray::<R>::try_new(&ends, &values).unwrap()) as ArrayRef).boxed()
}

/// An array of this type, which has these rows.
fn arrays(data_type: &DataType, rows: usize, nullable: bool) -> BoxedStrategy<ArrayRef> {
    use DataType as T;
    use TimeUnit::*;
    let text = || vec(present(nullable, "[a-zé\\x00]{0,20}"), rows);
    let binary = || vec(present(nullable, vec(any::<u8>(), 0..20)), rows);
    macro_rules! number {
        ($t:ty, $value:expr) => {
            primitives::<$t>(data_type, rows, nullable, $value)
        };
    }
    // Whole milliseconds, or spans whose nanoseconds fit an int64.
    let ticks = |per_milli: i64| (i64::MIN / 1_000_000..i64::MAX / 1_000_000).prop_map(move |value| value * per_milli);
    let spans = |nanos: i64| i64::MIN / nanos + 1..i64::MAX / nanos;
    match data_type {
        T::Null => Just(Arc::new(NullArray::new(rows)) as ArrayRef).boxed(),
        T::Boolean => (vec(any::<bool>(), rows), nulls(rows, nullable))
            .prop_map(|(values, nulls)| Arc::new(BooleanArray::new(values.into(), nulls)) as ArrayRef)
            .boxed(),
        T::Int8 => number!(Int8Type, any::<i8>()),
        T::Int16 => number!(Int16Type, any::<i16>()),
        T::Int32 => number!(Int32Type, any::<i32>()),
        T::Int64 => number!(Int64Type, any::<i64>()),
        T::UInt8 => number!(UInt8Type, any::<u8>()),
        T::UInt16 => number!(UInt16Type, any::<u16>()),
        T::UInt32 => number!(UInt32Type, any::<u32>()),
        T::UInt64 => number!(UInt64Type, 0..=i64::MAX as u64),
        T::Float16 => number!(Float16Type, any::<i16>().prop_map(|n| <Float16Type as ArrowPrimitiveType>::Native::from_f32(n.into()))),
        T::Float32 => number!(Float32Type, any::<f32>()),
        T::Float64 => number!(Float64Type, any::<f64>()),
        T::Date32 => number!(Date32Type, any::<i32>()),
        T::Date64 => number!(Date64Type, any::<i64>()),
        T::Timestamp(Second, _) => number!(TimestampSecondType, ticks(1)),
        T::Timestamp(Millisecond, _) => number!(TimestampMillisecondType, any::<i64>()),
        T::Timestamp(Microsecond, _) => number!(TimestampMicrosecondType, ticks(1_000)),
        T::Timestamp(Nanosecond, _) => number!(TimestampNanosecondType, ticks(1_000_000)),
        T::Time32(Second) => number!(Time32SecondType, 0..86_400),
        T::Time32(_) => number!(Time32MillisecondType, 0..86_400_000),
        T::Time64(Microsecond) => number!(Time64MicrosecondType, 0..86_400_000_000_i64),
        T::Time64(_) => number!(Time64NanosecondType, 0..86_400_000_000_000_i64),
        T::Duration(Second) => number!(DurationSecondType, spans(1_000_000_000)),
        T::Duration(Millisecond) => number!(DurationMillisecondType, spans(1_000_000)),
        T::Duration(Microsecond) => number!(DurationMicrosecondType, spans(1_000)),
        T::Duration(Nanosecond) => number!(DurationNanosecondType, any::<i64>()),
        T::Decimal32(digits, _) => number!(Decimal32Type, decimals(u32::from(*digits)).prop_map(|n| n as i32)),
        T::Decimal64(digits, _) => number!(Decimal64Type, decimals(u32::from(*digits)).prop_map(|n| n as i64)),
        T::Decimal128(digits, _) => number!(Decimal128Type, decimals(u32::from(*digits))),
        T::Decimal256(digits, _) => number!(Decimal256Type, decimals(u32::from(*digits)).prop_map(i256::from_i128)),
        T::Utf8 => text().prop_map(|values| Arc::new(StringArray::from(values)) as ArrayRef).boxed(),
        T::LargeUtf8 => text().prop_map(|values| Arc::new(LargeStringArray::from(values)) as ArrayRef).boxed(),
        T::Utf8View => text().prop_map(|values| Arc::new(StringViewArray::from_iter(values)) as ArrayRef).boxed(),
        T::Binary => binary().prop_map(|values| Arc::new(BinaryArray::from_iter(values)) as ArrayRef).boxed(),
        T::LargeBinary => binary().prop_map(|values| Arc::new(LargeBinaryArray::from_iter(values)) as ArrayRef).boxed(),
        T::BinaryView => binary().prop_map(|values| Arc::new(BinaryViewArray::from_iter(values)) as ArrayRef).boxed(),
        T::FixedSizeBinary(size) => {
            let size = *size;
            (vec(any::<u8>(), rows * size as usize), nulls(rows, nullable))
                .prop_map(move |(bytes, nulls)| Arc::new(FixedSizeBinaryArray::new(size, bytes.into(), nulls)) as ArrayRef)
                .boxed()
        }
        T::List(item) => lists::<i32>(item, rows, nullable),
        T::LargeList(item) => lists::<i64>(item, rows, nullable),
        T::ListView(item) => list_views::<i32>(item, rows, nullable),
        T::LargeListView(item) => list_views::<i64>(item, rows, nullable),
        T::FixedSizeList(item, size) => {
            let (field, size) = (item.clone(), *size);
            (arrays(item.data_type(), rows * size as usize, item.is_nullable()), nulls(rows, nullable))
                .prop_map(move |(items, nulls)| {
                    Arc::new(FixedSizeListArray::try_new_with_length(field.clone(), size, items, nulls, rows).unwrap()) as ArrayRef
                })
                .boxed()
        }
        T::Struct(fields) => {
            let columns: Vec<_> = fields.iter().map(|field| arrays(field.data_type(), rows, true)).collect();
            let fields = fields.clone();
            (columns, nulls(rows, nullable))
                .prop_map(move |(columns, nulls)| {
                    Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, rows).unwrap()) as ArrayRef
                })
                .boxed()
        }
        T::Map(entries, sorted) => maps(entries, *sorted, rows, nullable),
        T::Dictionary(_, values) => (arrays(values, 3, true), vec(present(nullable, 0..3_i16), rows))
            .prop_map(|(values, keys)| Arc::new(DictionaryArray::<Int16Type>::new(keys.into(), values)) as ArrayRef)
            .boxed(),
        T::RunEndEncoded(ends, values) => match ends.data_type() {
            T::Int16 => runs::<Int16Type>(values.data_type(), rows),
            T::Int32 => runs::<Int32Type>(values.data_type(), rows),
            _ => runs::<Int64Type>(values.data_type(), rows),
        },
        other => panic!("no arrays of type {other}"),
    }
}

fn maps(entries: &FieldRef, sorted: bool, rows: usize, nullable: bool) -> BoxedStrategy<ArrayRef> {
    let T::Struct(fields) = entries.data_type() else { panic!("a map's entries are a struct") };
    let (entries, fields, value) = (entries.clone(), fields.clone(), fields[1].clone());
    (items(&value, rows), nulls(rows, nullable))
        .prop_map(move |((lengths, values), nulls)| {
            let names = lengths.iter().flat_map(|length| (0..*length).map(|index| Some(format!("key.{index}"))));
            let names: ArrayRef = Arc::new(names.collect::<StringArray>());
            let pairs = StructArray::try_new(fields.clone(), vec![names, values], None).unwrap();
            Arc::new(MapArray::new(entries.clone(), OffsetBuffer::from_lengths(lengths), pairs, nulls, sorted)) as ArrayRef
        })
        .boxed()
}

use DataType as T;
