//! The table of types, held against the `bson` crate as an independent reader and writer.

mod batches;
mod property;

use std::sync::Arc;

use bson::{Bson, Document, doc, oid::ObjectId};
use datafusion::arrow::array::*;
use datafusion::arrow::datatypes::*;

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn encode(batch: &RecordBatch) -> Documents {
    DocumentEncoder::try_new(&batch.schema()).unwrap().encode(batch).unwrap()
}

fn read(bytes: &[u8]) -> Document {
    Document::from_reader(bytes).unwrap()
}

fn bytes(document: &Document) -> Vec<u8> {
    bson::to_vec(document).unwrap()
}

fn plan_error(name: &str, data_type: DataType) -> String {
    let schema = Schema::new(vec![Field::new(name, data_type, true)]);
    let error = DocumentEncoder::try_new(&schema).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Config);
    error.to_string()
}

fn decode(schema: Vec<(&str, DataType)>, documents: &[Document]) -> crate::Result<RecordBatch> {
    let fields: Vec<Field> = schema.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect();
    let bytes: Vec<Vec<u8>> = documents.iter().map(bytes).collect();
    DocumentDecoder::try_new(Arc::new(Schema::new(fields)))?.decode(bytes.iter().map(Vec::as_slice))
}

#[test]
fn a_small_document_has_exactly_these_bytes() {
    let batch = batch(vec![
        ("n", Arc::new(Int32Array::from(vec![Some(7), None]))),
        ("_id", Arc::new(StringArray::from(vec!["a", "b"]))),
        ("data", Arc::new(BinaryArray::from(vec![&b"\x01\x02"[..], b""]))),
    ]);
    let encoder = DocumentEncoder::try_new(&batch.schema()).unwrap();
    assert_eq!(encoder.id_index(), Some(1));
    let documents = encoder.encode(&batch).unwrap();
    assert_eq!(documents.len(), 2);
    assert_eq!(documents.get(0), b"\x24\0\0\0\x02_id\0\x02\0\0\0a\0\x10n\0\x07\0\0\0\x05data\0\x02\0\0\0\0\x01\x02\0");
    assert_eq!(documents.get(1), b"\x1e\0\0\0\x02_id\0\x02\0\0\0b\0\x0an\0\x05data\0\0\0\0\0\0\0");
    assert_eq!(documents.get(2), b"");
    assert_eq!(documents.as_bytes().len(), 0x24 + 0x1e);
    assert_eq!(
        read(documents.get(1)),
        doc! { "_id": "b", "n": Bson::Null, "data": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![] } }
    );
}

#[test]
fn the_plan_refuses_names_which_mongodb_refuses() {
    for (name, fault) in [("", "is empty"), ("$set", "starts with `$`"), ("a.b", "contains a dot"), ("a\0b", "NUL")] {
        let error = plan_error(name, DataType::Int32);
        assert!(error.contains(fault), "{error}");
    }
    let inner = DataType::Struct(vec![Field::new("x.y", DataType::Int32, true)].into());
    assert!(plan_error("s", inner).contains("column `s.x.y`"));
    let twice = Schema::new(vec![Field::new("a", DataType::Int32, true), Field::new("a", DataType::Int64, true)]);
    assert!(DocumentEncoder::try_new(&twice).unwrap_err().to_string().contains("is there twice"));
}

#[test]
fn the_plan_refuses_types_without_bson_form() {
    assert!(plan_error("i", DataType::Interval(IntervalUnit::DayTime)).contains("no intervals"));
    assert!(plan_error("d", DataType::Decimal128(38, 10)).contains("DECIMAL(34, 10)"));
    assert!(plan_error("u", DataType::Union(UnionFields::empty(), UnionMode::Dense)).contains("several types"));
    let entries = vec![Field::new("keys", DataType::Int32, false), Field::new("values", DataType::Int32, true)];
    let entries = Field::new("entries", DataType::Struct(entries.into()), false);
    assert!(plan_error("m", DataType::Map(entries.into(), false)).contains("keys of a document are strings"));
    let list = DataType::new_list(DataType::Interval(IntervalUnit::DayTime), true);
    assert!(plan_error("l", list).contains("column `l[]`"));
    let deep = (0..120).fold(DataType::Int32, |item, _| DataType::new_list(item, true));
    assert!(plan_error("deep", deep).contains("nested deeper"));
}

#[test]
fn values_that_do_not_fit_refuse_their_row_only() {
    let inner = Fields::from(vec![Field::new("n", DataType::UInt64, true)]);
    let numbers: ArrayRef = Arc::new(UInt64Array::from(vec![1, u64::MAX, 3, 4]));
    let batch = batch(vec![
        ("s", Arc::new(StructArray::new(inner, vec![numbers], None))),
        ("t", Arc::new(TimestampSecondArray::from(vec![1, 1, i64::MAX, 1]))),
        ("d", Arc::new(DurationSecondArray::from(vec![1, 1, 1, i64::MIN]))),
    ]);
    let documents = encode(&batch);
    assert_eq!(documents.len(), 1);
    assert_eq!(documents.row(0), Some(0));
    let refused = documents.refused();
    assert_eq!(refused.iter().map(|refused| refused.row).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(refused[0].reason, "`s.n`: 18446744073709551615 is above the largest int64");
    assert!(refused[1].reason.starts_with("`t`: ") && refused[2].reason.starts_with("`d`: "), "{refused:?}");
    assert_eq!(documents.as_bytes(), documents.get(0));
    assert_eq!(read(documents.get(0)).get_document("s").unwrap(), &doc! { "n": 1_i64 });
}

#[test]
fn a_decimal_beyond_its_precision_refuses_its_row() {
    let wide = Decimal128Array::from(vec![10_i128.pow(34), 5]).with_precision_and_scale(38, 0).unwrap();
    let data = wide.into_data().into_builder().data_type(DataType::Decimal128(34, 0)).build().unwrap();
    let documents = encode(&batch(vec![("d", Arc::new(Decimal128Array::from(data)))]));
    assert_eq!((documents.len(), documents.refused().len()), (1, 1));
}

#[test]
fn a_document_above_16_mib_refuses_its_row_and_the_largest_one_passes() {
    let overhead = encode(&batch(vec![("data", Arc::new(BinaryArray::from(vec![&b""[..]])))])).as_bytes().len();
    let large = vec![7; DOCUMENT_BYTES_MAX - overhead + 1];
    let column = BinaryArray::from(vec![&large[..], &large[1..]]);
    let documents = encode(&batch(vec![("data", Arc::new(column))]));
    assert_eq!(documents.get(0).len(), DOCUMENT_BYTES_MAX);
    assert_eq!(documents.refused()[0].row, 0);
    assert!(documents.refused()[0].reason.contains("16777217 bytes"));
}

#[test]
fn memory_is_reserved_once_and_exactly() {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("_id", Arc::new(Int64Array::from_iter_values(0..50))),
        ("data", Arc::new(BinaryArray::from_iter_values((0..50).map(|row| vec![7_u8; row * 1000])))),
        ("tags", Arc::new(ListArray::from_iter_primitive::<Int16Type, _, _>((0..50).map(|row| Some(vec![Some(1); row]))))),
    ];
    let bytes = encode(&batch(columns)).into_bytes();
    assert_eq!(bytes.capacity(), bytes.len());
}

#[test]
fn another_batch_than_planned_is_an_error() {
    let encoder = DocumentEncoder::try_new(&Schema::new(vec![Field::new("a", DataType::Int32, true)])).unwrap();
    assert!(encoder.encode(&batch(vec![("a", Arc::new(Int64Array::from(vec![1])))])).is_err());
}

#[test]
fn a_map_becomes_a_document_unless_its_keys_cannot_be_names() {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for keys in [vec!["a", "b.c"], vec!["x", "x"], vec!["n\0"], vec![]] {
        for key in keys {
            builder.keys().append_value(key);
            builder.values().append_value(1);
        }
        builder.append(true).unwrap();
    }
    let documents = encode(&batch(vec![("m", Arc::new(builder.finish()))]));
    assert_eq!(read(documents.get(0)), doc! { "m": { "a": 1, "b.c": 1 } });
    assert_eq!(read(documents.get(1)), doc! { "m": {} });
    let reasons: Vec<&str> = documents.refused().iter().map(|refused| refused.reason.as_str()).collect();
    assert_eq!(reasons, ["`m`: the key x is there twice", "`m`: a key has a NUL byte"]);
}

#[test]
fn digits_finer_than_a_millisecond_are_rounded_down() {
    let batch = batch(vec![("t", Arc::new(TimestampNanosecondArray::from(vec![1_999_999, -1])))]);
    let documents = encode(&batch);
    let millis = |index| read(documents.get(index)).get_datetime("t").unwrap().timestamp_millis();
    assert_eq!((millis(0), millis(1)), (1, -1));
}

#[test]
fn reading_widens_numbers_and_takes_missing_fields_as_null() {
    let documents = [
        doc! { "_id": 1, "i": 5, "f": 5, "u": 255_i64, "s": ObjectId::from_bytes([0xab; 12]), "other": { "x": 1 } },
        doc! { "f": 2.5, "i": i64::MAX },
        doc! { "f": -7_i64, "d": "12.50".parse::<bson::Decimal128>().unwrap() },
        doc! { "d": 3, "i": Bson::Undefined },
    ];
    let schema = vec![
        ("i", DataType::Int64),
        ("f", DataType::Float64),
        ("u", DataType::UInt8),
        ("s", DataType::Utf8),
        ("d", DataType::Decimal128(10, 1)),
    ];
    let rows = decode(schema, &documents).unwrap();
    assert_eq!(rows.column(0).as_primitive::<Int64Type>(), &Int64Array::from(vec![Some(5), Some(i64::MAX), None, None]));
    assert_eq!(rows.column(1).as_primitive::<Float64Type>(), &Float64Array::from(vec![Some(5.0), Some(2.5), Some(-7.0), None]));
    assert_eq!(rows.column(2).as_primitive::<UInt8Type>(), &UInt8Array::from(vec![Some(255), None, None, None]));
    assert_eq!(rows.column(3).as_string::<i32>().value(0), "ab".repeat(12));
    let decimals: Vec<_> = rows.column(4).as_primitive::<Decimal128Type>().iter().collect();
    assert_eq!(decimals, [None, None, Some(125), Some(30)]);
}

#[test]
fn reading_names_document_and_field_of_a_value_which_does_not_fit() {
    let cases = [
        (DataType::Int32, Bson::Int64(1 << 40), "int64 1099511627776"),
        (DataType::Int32, Bson::Double(1.0), "double 1.0"),
        (DataType::Float64, Bson::Int64(i64::MAX), "int64"),
        (DataType::Float32, Bson::Double(0.1), "double 0.1"),
        (DataType::Utf8, Bson::Int32(1), "int32 1"),
        (DataType::Binary, Bson::String("x".into()), "string \"x\""),
        (DataType::UInt8, Bson::Int32(-1), "int32 -1"),
        (DataType::Decimal128(5, 1), Bson::Decimal128("1.25".parse().unwrap()), "decimal128 1.25"),
        (DataType::Decimal128(3, 1), Bson::Int32(100), "int32 100"),
        (DataType::Decimal128(5, 1), Bson::Decimal128("NaN".parse().unwrap()), "decimal128 NaN"),
        (DataType::Timestamp(TimeUnit::Second, None), Bson::DateTime(bson::DateTime::from_millis(1)), "date of 1 ms"),
        (
            DataType::FixedSizeBinary(3),
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![1] }),
            "binary",
        ),
        (DataType::Null, Bson::Boolean(true), "bool true"),
    ];
    for (data_type, value, found) in cases {
        let inner = DataType::Struct(vec![Field::new("x", data_type.clone(), true)].into());
        let documents = [doc! { "_id": 17, "a": [{ "x": value }] }];
        let error = decode(vec![("a", DataType::new_list(inner, true))], &documents).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Decode);
        let text = error.to_string();
        assert!(text.contains("document with _id int32 17: field `a[0].x` holds"), "{text}");
        assert!(text.contains(found) && text.contains(&data_type.to_string()), "{text}");
    }
}

#[test]
fn reading_refuses_null_where_the_column_has_none_and_a_field_which_is_there_twice() {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, false)]));
    let decoder = DocumentDecoder::try_new(schema).unwrap();
    for document in [doc! { "b": 1 }, doc! { "a": Bson::Null }] {
        let error = decoder.decode([bytes(&document).as_slice()]).unwrap_err().to_string();
        assert!(error.contains("field `a`") && error.contains("NOT NULL"), "{error}");
    }
    let twice = b"\x13\0\0\0\x10a\0\x01\0\0\0\x10a\0\x02\0\0\0\0";
    assert!(decoder.decode([&twice[..]]).unwrap_err().to_string().contains("field `a` is there twice"));
}

#[test]
fn documents_without_wanted_columns_still_count_as_rows() {
    assert_eq!(decode(vec![], &[doc! { "a": 1 }, doc! {}]).unwrap().num_rows(), 2);
}

#[test]
fn a_sample_gives_the_schema_which_holds_all_of_it() {
    let documents = [
        doc! { "_id": ObjectId::new(), "n": 1, "f": 1, "tags": ["a"], "at": bson::DateTime::now(), "in": { "x": 1 }, "never": Bson::Null },
        doc! { "_id": ObjectId::new(), "n": 2_i64, "f": 0.5, "tags": [], "in": { "y": true }, "d": "1.250".parse::<bson::Decimal128>().unwrap() },
        doc! { "n": Bson::Null, "d": 4, "raw": bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![0; 16] } },
    ];
    let bytes: Vec<Vec<u8>> = documents.iter().map(bytes).collect();
    let schema = infer_schema(bytes.iter().map(Vec::as_slice)).unwrap();
    let types: Vec<(String, String)> = schema.fields().iter().map(|field| (field.name().clone(), field.data_type().to_string())).collect();
    let inner = DataType::Struct(vec![Field::new("x", DataType::Int32, true), Field::new("y", DataType::Boolean, true)].into());
    let expected = [
        ("_id", DataType::Utf8),
        ("n", DataType::Int64),
        ("f", DataType::Float64),
        ("tags", DataType::new_list(DataType::Utf8, true)),
        ("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))),
        ("in", inner),
        ("never", DataType::Null),
        ("d", DataType::Decimal128(34, 2)),
        ("raw", DataType::Binary),
    ];
    assert_eq!(types, expected.map(|(name, data_type)| (name.to_owned(), data_type.to_string())));
    let rows = DocumentDecoder::try_new(Arc::new(schema)).unwrap().decode(bytes.iter().map(Vec::as_slice)).unwrap();
    assert_eq!(rows.num_rows(), 3);
}

#[test]
fn a_sample_of_conflicting_types_names_the_field() {
    let conflict = |one: Document, other: Document| {
        let (one, other) = (bytes(&one), bytes(&other));
        infer_schema([one.as_slice(), other.as_slice()]).unwrap_err().to_string()
    };
    assert!(
        conflict(doc! { "a": { "b": 1 } }, doc! { "a": { "b": "x" } })
            .contains("field `a.b` is int32 in one document and string in another")
    );
    assert!(conflict(doc! { "a": [1] }, doc! { "a": 1 }).contains("field `a` is array"));
    assert!(conflict(doc! {}, doc! { "a": Bson::MinKey }).contains("minKey, which no column can hold"));
}
