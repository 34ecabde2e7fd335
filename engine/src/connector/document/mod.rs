//! Rows to BSON documents and back, by one table of types.
//!
//! - [`DocumentEncoder`]: a `RecordBatch` to raw BSON bytes, written once, without a tree in between.
//! - [`DocumentDecoder`]: raw BSON documents to a `RecordBatch` of a given schema.
//! - [`infer_schema`]: the schema of a sample of documents.
//!
//! # The table
//!
//! | Arrow | BSON | remarks |
//! | --- | --- | --- |
//! | Null | null | so is every NULL of any type |
//! | Boolean | bool | |
//! | Int8, Int16, Int32, UInt8, UInt16 | int32 | |
//! | Int64, UInt32, UInt64 | int64 | a UInt64 above 9223372036854775807 is a refused row, never wrapped |
//! | Float16, Float32, Float64 | double | |
//! | Decimal32, Decimal64, Decimal128, Decimal256 | decimal128 | precision up to 34; above that refused when the plan is made |
//! | Utf8, LargeUtf8, Utf8View | string | |
//! | Binary, LargeBinary, BinaryView, FixedSizeBinary | binary, subtype 0 | |
//! | Date32, Date64, Timestamp | date | milliseconds UTC, rounded down: finer digits are lost; a value beyond int64 milliseconds is a refused row |
//! | Time32, Time64, Duration | int64 | nanoseconds, whatever the column's unit: nothing is lost; beyond ±292 years a refused row |
//! | List, LargeList, FixedSizeList, ListView, LargeListView | array | |
//! | Struct | document | |
//! | Map | document | keys are strings, else refused when the plan is made; a repeated key or one with a NUL is a refused row |
//! | Dictionary, RunEndEncoded | as their values | |
//! | Union, Interval | none | refused when the plan is made |
//!
//! Reading is the table backwards. A missing field is NULL. An int32 or int64 fits every integer, float and decimal
//! column which holds its value exactly, a double every float column which does; a string column also takes a symbol
//! and an ObjectId (as 24 hex digits). A binary column takes every subtype and keeps the bytes only. All else is an
//! error which names the document, the field, what was found and what was wanted.

mod builders;
mod decimal;
mod decode;
mod encode;
mod infer;
mod nested;
pub(crate) mod types;
mod values;

#[cfg(test)]
mod tests;

pub use decode::DocumentDecoder;
pub use encode::{DOCUMENT_BYTES_MAX, DocumentEncoder, Documents, Refused};
pub use infer::infer_schema;
