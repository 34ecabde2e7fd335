//! What holds of every batch and of any bytes.

use std::sync::Arc;

use bson::spec::BinarySubtype;
use bson::{Bson, DateTime, Document};
use datafusion::arrow::array::*;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::*;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::*;
use super::batches::{batches, types};

/// The value as the table has it, found by another way: cast to the few types that BSON has, one value at a time.
fn expected_value(array: &ArrayRef, row: usize) -> Bson {
    use DataType as T;
    match array.data_type() {
        T::Dictionary(_, values) => return expected_value(&cast(array, values).unwrap(), row),
        T::RunEndEncoded(_, values) => return expected_value(&cast(array, values.data_type()).unwrap(), row),
        _ => {}
    }
    if *array.data_type() == T::Null || array.is_null(row) {
        return Bson::Null;
    }
    let one = array.slice(row, 1);
    let to = |data_type: &DataType| cast(&one, data_type).unwrap();
    let int64 = || to(&T::Int64).as_primitive::<Int64Type>().value(0);
    let list = |items: ArrayRef| Bson::Array((0..items.len()).map(|item| expected_value(&items, item)).collect());
    match array.data_type() {
        T::Boolean => Bson::Boolean(array.as_boolean().value(row)),
        T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16 => Bson::Int32(int64() as i32),
        T::Int64 | T::UInt32 | T::UInt64 => Bson::Int64(int64()),
        T::Float16 | T::Float32 | T::Float64 => Bson::Double(to(&T::Float64).as_primitive::<Float64Type>().value(0)),
        T::Utf8 | T::LargeUtf8 | T::Utf8View => Bson::String(to(&T::Utf8).as_string::<i32>().value(0).to_owned()),
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => {
            let bytes = to(&T::Binary).as_binary::<i32>().value(0).to_vec();
            Bson::Binary(bson::Binary { subtype: BinarySubtype::Generic, bytes })
        }
        T::Date32 | T::Date64 => {
            Bson::DateTime(DateTime::from_millis(int64() * if *array.data_type() == T::Date32 { 86_400_000 } else { 1 }))
        }
        T::Timestamp(unit, _) => Bson::DateTime(DateTime::from_millis(match unit {
            TimeUnit::Second => int64() * 1000,
            TimeUnit::Millisecond => int64(),
            TimeUnit::Microsecond => int64() / 1000,
            TimeUnit::Nanosecond => int64() / 1_000_000,
        })),
        T::Time32(unit) | T::Time64(unit) | T::Duration(unit) => Bson::Int64(match unit {
            TimeUnit::Second => int64() * 1_000_000_000,
            TimeUnit::Millisecond => int64() * 1_000_000,
            TimeUnit::Microsecond => int64() * 1000,
            TimeUnit::Nanosecond => int64(),
        }),
        T::Decimal32(_, scale) | T::Decimal64(_, scale) | T::Decimal128(_, scale) | T::Decimal256(_, scale) => {
            let coefficient = match array.data_type() {
                T::Decimal32(..) => array.as_primitive::<Decimal32Type>().value(row).to_string(),
                T::Decimal64(..) => array.as_primitive::<Decimal64Type>().value(row).to_string(),
                T::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(row).to_string(),
                _ => array.as_primitive::<Decimal256Type>().value(row).to_string(),
            };
            Bson::Decimal128(format!("{coefficient}E{}", -i32::from(*scale)).parse().unwrap())
        }
        T::List(_) => list(array.as_list::<i32>().value(row)),
        T::LargeList(_) => list(array.as_list::<i64>().value(row)),
        T::ListView(_) => list(array.as_list_view::<i32>().value(row)),
        T::LargeListView(_) => list(array.as_list_view::<i64>().value(row)),
        T::FixedSizeList(..) => list(array.as_fixed_size_list().value(row)),
        T::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            Bson::Document(columns.map(|(field, column)| (field.name().clone(), expected_value(column, row))).collect())
        }
        T::Map(..) => {
            let entries = array.as_map().value(row);
            let pairs = (0..entries.len())
                .map(|entry| (entries.column(0).as_string::<i32>().value(entry).to_owned(), expected_value(entries.column(1), entry)));
            Bson::Document(pairs.collect())
        }
        other => panic!("no value of type {other}"),
    }
}

fn expected_documents(batch: &RecordBatch) -> Vec<Document> {
    let schema = batch.schema();
    let id = schema.index_of("_id").ok();
    let order: Vec<usize> = id.into_iter().chain((0..batch.num_columns()).filter(|index| Some(*index) != id)).collect();
    let field = |row, index: &usize| (schema.field(*index).name().clone(), expected_value(batch.column(*index), row));
    (0..batch.num_rows()).map(|row| order.iter().map(|index| field(row, index)).collect()).collect()
}

/// Whether arrays of equal values may be laid out in several ways.
fn has_layouts(data_type: &DataType) -> bool {
    match data_type {
        DataType::RunEndEncoded(..) | DataType::Dictionary(..) => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            has_layouts(item.data_type())
        }
        DataType::FixedSizeList(item, _) | DataType::Map(item, _) => has_layouts(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_layouts(field.data_type())),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_batch_reads_the_same_in_the_bson_crate_and_comes_back_as_it_was(batch in batches()) {
        let documents = DocumentEncoder::try_new(&batch.schema()).unwrap().encode(&batch).unwrap();
        prop_assert_eq!(documents.refused(), &[]);
        prop_assert_eq!(documents.len(), batch.num_rows());
        let expected = expected_documents(&batch);
        for (bytes, expected) in documents.iter().zip(&expected) {
            prop_assert_eq!(&Document::from_reader(bytes).unwrap(), expected);
            // Field order too, which comparing documents leaves out; and every byte, by another writer.
            prop_assert_eq!(bytes, &bson::to_vec(expected).unwrap()[..]);
        }
        let back = DocumentDecoder::try_new(batch.schema()).unwrap().decode(documents.iter()).unwrap();
        for column in back.columns() {
            column.to_data().validate_full().unwrap();
        }
        prop_assert_eq!(back.schema(), batch.schema());
        prop_assert_eq!(expected_documents(&back), expected);
        for (back, column) in back.columns().iter().zip(batch.columns()) {
            if !has_layouts(column.data_type()) {
                prop_assert_eq!(back, column);
            }
        }
    }

    #[test]
    fn the_inferred_schema_reads_what_was_written(batch in batches()) {
        let documents = DocumentEncoder::try_new(&batch.schema()).unwrap().encode(&batch).unwrap();
        // Struct fields and map values of one name may conflict; what is inferred must do.
        if let Ok(schema) = infer_schema(documents.iter()) {
            let decoder = DocumentDecoder::try_new(Arc::new(schema)).unwrap();
            prop_assert_eq!(decoder.decode(documents.iter()).unwrap().num_rows(), batch.num_rows());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), data_type in types()) {
        let schema = Arc::new(Schema::new(vec![Field::new("a", data_type, true)]));
        let decoder = DocumentDecoder::try_new(schema).unwrap();
        drop(decoder.decode([bytes.as_slice()]));
        drop(infer_schema([bytes.as_slice()]));
    }

    #[test]
    fn damaged_documents_never_panic(batch in batches(), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let documents = DocumentEncoder::try_new(&batch.schema()).unwrap().encode(&batch).unwrap();
        let decoder = DocumentDecoder::try_new(batch.schema()).unwrap();
        for document in documents.iter() {
            let mut bytes = document.to_vec();
            for (index, byte) in &damage {
                // Whoever damages the length is found out at once.
                let index = 4 + index.index(bytes.len() - 4);
                bytes[index] = *byte;
            }
            drop(decoder.decode([bytes.as_slice()]));
            drop(infer_schema([bytes.as_slice()]));
        }
    }
}
