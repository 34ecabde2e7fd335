//! Records → rows. Before: [`Record`]s in order of offset; after: `RecordBatch`es of chunks or of single records.
//!
//! Where a chunk ends, and where a batch ends, depends on the records alone, never on how they arrived: a range that is read
//! again yields the same rows in the same batches, and so the same documents.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, Int32Array, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StringArray, StringBuilder,
    StructArray, TimestampMillisecondArray,
};
use datafusion::arrow::buffer::{Buffer, OffsetBuffer};
use datafusion::arrow::datatypes::{DataType, SchemaRef};

use super::frame::{framed_bytes, write_framed};
use super::spec::{Framing, KafkaSpec};
use super::{HEADER_FIELDS, row_id};
use crate::error::{Error, Result};

/// Bytes of one batch, as in a BLOB scan: choosing the encoder's effort from a sample of each batch then costs little.
const BATCH_BYTES: usize = 16 << 20;
/// Rows of one batch of single records, as DataFusion has it.
const BATCH_ROWS: usize = 8192;
/// A record of more bytes is refused: Arrow counts the bytes of a column with 31 bits.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 30;

/// One record of a partition.
#[derive(Debug, Clone, Default)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970 UTC, if it has a time.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values of its headers, where they are asked for.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// Makes rows of the records of one split.
#[derive(Debug)]
pub enum Packer {
    /// Several records a row.
    Chunks(ChunkPacker),
    /// One record a row.
    Records(Box<RecordPacker>),
}

impl Packer {
    /// A packer for one split; `schema` holds the columns that are wanted.
    pub fn new(spec: &KafkaSpec, partition: i32, schema: SchemaRef) -> Self {
        let place = Place { topic: spec.topic.clone(), partition, schema };
        if spec.is_by_record() { Self::Records(Box::new(RecordPacker::new(place))) } else { Self::Chunks(ChunkPacker::new(spec, place)) }
    }

    /// Whether a row can hold this record.
    ///
    /// # Errors
    /// Decode, for a record which the framing cannot hold.
    pub fn check(&self, record: &Record<'_>) -> Result<()> {
        let bytes = framed_bytes(Framing::Complete, record);
        if bytes > RECORD_BYTES_MAX {
            return Err(Error::decode(format!("the record has {bytes} bytes, which no document can hold")));
        }
        let is_by_line = matches!(self, Self::Chunks(packer) if packer.framing == Framing::Line);
        if is_by_line && memchr::memchr(b'\n', record.value.unwrap_or_default()).is_some() {
            return Err(Error::decode(
                "the value holds a line feed, so it would not be one line; set kafka.framing to 'length_prefixed' or 'complete', \
                 or kafka.on_corrupt to 'dead_letter' to keep such records aside",
            ));
        }
        Ok(())
    }

    /// Takes the next record, which was checked; gives the rows before it once they are enough.
    ///
    /// # Errors
    /// Internal, when a batch cannot be built.
    pub fn push(&mut self, record: &Record<'_>) -> Result<Option<RecordBatch>> {
        match self {
            Self::Chunks(packer) => packer.push(record),
            Self::Records(packer) => packer.push(record),
        }
    }

    /// Gives the rest.
    ///
    /// # Errors
    /// Internal, when a batch cannot be built.
    pub fn finish(self) -> Result<Option<RecordBatch>> {
        match self {
            Self::Chunks(mut packer) => {
                packer.rows.extend(packer.open.take());
                packer.take()
            }
            Self::Records(mut packer) => packer.take(),
        }
    }
}

/// Where the rows come from and which columns they have.
#[derive(Debug)]
struct Place {
    topic: String,
    partition: i32,
    schema: SchemaRef,
}

impl Place {
    fn wants(&self, column: &str) -> bool {
        self.schema.column_with_name(column).is_some()
    }

    /// A batch of `rows` rows; columns which both tables have are made of `first_offsets`, the others by `column`.
    fn batch(&self, first_offsets: &[i64], mut column: impl FnMut(&str) -> Result<ArrayRef>) -> Result<RecordBatch> {
        let rows = first_offsets.len();
        let columns = self.schema.fields().iter().map(|field| {
            Ok(match field.name().as_str() {
                "id" => {
                    let ids = first_offsets.iter().map(|offset| row_id(&self.topic, self.partition, *offset));
                    Arc::new(StringArray::from_iter_values(ids)) as ArrayRef
                }
                "topic" => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.topic, rows))),
                "partition" => Arc::new(Int32Array::from_value(self.partition, rows)),
                "first_offset" | "offset" => Arc::new(Int64Array::from(first_offsets.to_vec())),
                name => column(name)?,
            })
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(build_error)
    }
}

fn build_error(error: datafusion::arrow::error::ArrowError) -> Error {
    Error::internal("building a batch of records").with_source(error)
}

fn times(times: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter(times).with_timezone("UTC"))
}

/// One chunk; its bytes end at `end` in the packer's content.
#[derive(Debug, Clone)]
struct Chunk {
    first_offset: i64,
    last_offset: i64,
    records: i64,
    first_timestamp: Option<i64>,
    last_timestamp: Option<i64>,
    start: usize,
    end: usize,
}

/// Packs consecutive records greedily: a chunk ends before the record that would make it too large.
#[derive(Debug)]
pub struct ChunkPacker {
    place: Place,
    framing: Framing,
    chunk_records: i64,
    chunk_bytes: usize,
    content: Vec<u8>,
    rows: Vec<Chunk>,
    open: Option<Chunk>,
}

impl ChunkPacker {
    fn new(spec: &KafkaSpec, place: Place) -> Self {
        Self {
            place,
            framing: spec.framing,
            chunk_records: if spec.chunk_records == 0 { i64::MAX } else { spec.chunk_records as i64 },
            chunk_bytes: spec.chunk_bytes as usize,
            content: Vec::new(),
            rows: Vec::new(),
            open: None,
        }
    }

    fn push(&mut self, record: &Record<'_>) -> Result<Option<RecordBatch>> {
        let bytes = framed_bytes(self.framing, record);
        let is_full = |open: &Chunk| open.end - open.start + bytes > self.chunk_bytes || open.records == self.chunk_records;
        let mut batch = None;
        if self.open.as_ref().is_some_and(is_full) {
            self.rows.extend(self.open.take());
            if self.content.len() >= BATCH_BYTES {
                batch = self.take()?;
            }
        }
        let start = self.content.len();
        if start > self.chunk_bytes && self.content.capacity() < BATCH_BYTES {
            // Once for the whole batch: growing by doubling copies it, and holds both copies.
            self.content.reserve_exact(BATCH_BYTES + self.chunk_bytes - start);
        }
        write_framed(self.framing, record, &mut self.content);
        let open = self.open.get_or_insert(Chunk {
            first_offset: record.offset,
            last_offset: record.offset,
            records: 0,
            first_timestamp: record.timestamp,
            last_timestamp: None,
            start,
            end: start,
        });
        open.last_offset = record.offset;
        open.last_timestamp = record.timestamp;
        open.records += 1;
        open.end = self.content.len();
        Ok(batch)
    }

    /// The closed chunks; there is no open one.
    fn take(&mut self) -> Result<Option<RecordBatch>> {
        let (rows, content) = (std::mem::take(&mut self.rows), Buffer::from_vec(std::mem::take(&mut self.content)));
        if rows.is_empty() {
            return Ok(None);
        }
        let first_offsets: Vec<i64> = rows.iter().map(|row| row.first_offset).collect();
        let numbers = |number: fn(&Chunk) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(number))) as ArrayRef;
        let batch = self.place.batch(&first_offsets, |name| {
            Ok(match name {
                "last_offset" => numbers(|row| row.last_offset),
                "records" => numbers(|row| row.records),
                "byte_length" => numbers(|row| (row.end - row.start) as i64),
                "first_timestamp" => times(rows.iter().map(|row| row.first_timestamp)),
                "last_timestamp" => times(rows.iter().map(|row| row.last_timestamp)),
                _ => {
                    let ends = OffsetBuffer::from_lengths(rows.iter().map(|row| row.end - row.start));
                    Arc::new(BinaryArray::try_new(ends, content.clone(), None).map_err(build_error)?)
                }
            })
        });
        batch.map(Some)
    }
}

/// Makes a row of each record. Columns which nobody asked for are not filled.
#[derive(Debug)]
pub struct RecordPacker {
    place: Place,
    offsets: Vec<i64>,
    timestamps: Vec<Option<i64>>,
    keys: Option<BinaryBuilder>,
    values: Option<BinaryBuilder>,
    headers: Option<HeaderBuilder>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct HeaderBuilder {
    keys: StringBuilder,
    values: BinaryBuilder,
    counts: Vec<usize>,
}

impl RecordPacker {
    fn new(place: Place) -> Self {
        Self {
            keys: place.wants("key").then(BinaryBuilder::new),
            values: place.wants("value").then(BinaryBuilder::new),
            headers: place.wants("headers").then(HeaderBuilder::default),
            place,
            offsets: Vec::new(),
            timestamps: Vec::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, record: &Record<'_>) -> Result<Option<RecordBatch>> {
        let batch = if self.bytes >= BATCH_BYTES || self.offsets.len() >= BATCH_ROWS { self.take()? } else { None };
        self.offsets.push(record.offset);
        self.timestamps.push(record.timestamp);
        self.bytes += record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
        if let Some(keys) = &mut self.keys {
            keys.append_option(record.key);
        }
        if let Some(values) = &mut self.values {
            values.append_option(record.value);
        }
        if let Some(headers) = &mut self.headers {
            for (key, value) in &record.headers {
                headers.keys.append_value(key);
                headers.values.append_option(*value);
            }
            headers.counts.push(record.headers.len());
        }
        Ok(batch)
    }

    fn take(&mut self) -> Result<Option<RecordBatch>> {
        let (offsets, timestamps) = (std::mem::take(&mut self.offsets), std::mem::take(&mut self.timestamps));
        self.bytes = 0;
        if offsets.is_empty() {
            return Ok(None);
        }
        let (keys, values, headers) = (&mut self.keys, &mut self.values, &mut self.headers);
        let batch = self.place.batch(&offsets, |name| {
            let column: Option<ArrayRef> = match name {
                "timestamp" => Some(times(timestamps.iter().copied())),
                "key" => keys.as_mut().map(|keys| Arc::new(keys.finish()) as ArrayRef),
                "value" => values.as_mut().map(|values| Arc::new(values.finish()) as ArrayRef),
                _ => headers.as_mut().map(HeaderBuilder::finish).transpose()?,
            };
            column.ok_or_else(|| Error::internal(format!("column {name} was not filled")))
        });
        batch.map(Some)
    }
}

impl HeaderBuilder {
    fn finish(&mut self) -> Result<ArrayRef> {
        let columns: Vec<ArrayRef> = vec![Arc::new(self.keys.finish()), Arc::new(self.values.finish())];
        let all = StructArray::try_new(HEADER_FIELDS.clone(), columns, None).map_err(build_error)?;
        let ends = OffsetBuffer::from_lengths(std::mem::take(&mut self.counts));
        let item = datafusion::arrow::datatypes::Field::new("item", DataType::Struct(HEADER_FIELDS.clone()), false);
        Ok(Arc::new(ListArray::try_new(Arc::new(item), ends, Arc::new(all), None).map_err(build_error)?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use datafusion::arrow::array::cast::AsArray;
    use datafusion::arrow::datatypes::{Int64Type, TimestampMillisecondType};
    use proptest::prelude::*;

    use super::super::table_schema;
    use super::*;

    fn spec(options: &[(&str, &str)]) -> KafkaSpec {
        let options: HashMap<_, _> = options.iter().map(|(key, value)| (format!("kafka.{key}"), (*value).to_string())).collect();
        KafkaSpec::try_new("kafka://a/t", &options).unwrap()
    }

    fn pack(spec: &KafkaSpec, records: &[Record<'_>]) -> Result<Vec<RecordBatch>> {
        let mut packer = Packer::new(spec, 3, table_schema(spec));
        let mut batches = Vec::new();
        for record in records {
            packer.check(record)?;
            batches.extend(packer.push(record)?);
        }
        batches.extend(packer.finish()?);
        Ok(batches)
    }

    fn numbers(batch: &RecordBatch, name: &str) -> Vec<i64> {
        batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec()
    }

    /// Offset, key and value of a record.
    type Plain = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

    fn record(plain: &Plain) -> Record<'_> {
        Record { offset: plain.0, timestamp: Some(plain.0), key: plain.1.as_deref(), value: plain.2.as_deref(), headers: Vec::new() }
    }

    /// Key and value of a record.
    type KeyAndValue = (Option<Vec<u8>>, Option<Vec<u8>>);

    /// Reads length-prefixed content, by other code than that which wrote it.
    fn unframe(mut content: &[u8]) -> Vec<KeyAndValue> {
        let part = |content: &mut &[u8]| {
            let (length, rest) = content.split_first_chunk::<4>().unwrap();
            let length = i32::from_be_bytes(*length);
            let (value, rest) = rest.split_at(length.max(0) as usize);
            *content = rest;
            (length >= 0).then(|| value.to_vec())
        };
        let mut records = Vec::new();
        while !content.is_empty() {
            let key = part(&mut content);
            records.push((key, part(&mut content)));
        }
        records
    }

    proptest! {
        #[test]
        fn chunks_hold_every_record_once_in_order_whatever_the_gaps(
            records in prop::collection::vec((1i64..4, prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..50))), 0..60),
            bytes in 1usize..120, count in 2u64..12,
        ) {
            let spec = spec(&[("framing", "length_prefixed"), ("chunk_size", &bytes.to_string()), ("chunk_records", &count.to_string())]);
            let mut offset = 0;
            let records: Vec<Plain> = records.into_iter().map(|(gap, key, value)| { offset += gap; (offset, key, value) }).collect();
            let batches = pack(&spec, &records.iter().map(record).collect::<Vec<_>>()).unwrap();
            let mut next = records.iter();
            for batch in &batches {
                let content = batch.column_by_name("content").unwrap().as_binary::<i32>();
                for (row, bytes_here) in content.iter().enumerate() {
                    let held = unframe(bytes_here.unwrap());
                    let (first, last) = (numbers(batch, "first_offset")[row], numbers(batch, "last_offset")[row]);
                    prop_assert_eq!(held.len() as i64, numbers(batch, "records")[row]);
                    prop_assert!(held.len() as u64 <= count && (bytes_here.unwrap().len() <= bytes || held.len() == 1));
                    for (index, (key, value)) in held.iter().enumerate() {
                        let expected = next.next().unwrap();
                        prop_assert_eq!((key, value), (&expected.1, &expected.2));
                        prop_assert!(index > 0 || expected.0 == first);
                        prop_assert!(index + 1 < held.len() || expected.0 == last);
                    }
                }
            }
            prop_assert!(next.next().is_none());
        }
    }

    #[test]
    fn a_value_is_a_line_and_one_with_a_line_feed_is_refused() {
        let records = [(5, None, Some(b"one".to_vec())), (7, None, None), (8, Some(b"k".to_vec()), Some(b"two".to_vec()))];
        let batches = pack(&spec(&[]), &records.iter().map(record).collect::<Vec<_>>()).unwrap();
        assert_eq!(batches[0].column_by_name("content").unwrap().as_binary::<i32>().value(0), b"one\n\ntwo\n");
        let times = batches[0].column_by_name("last_timestamp").unwrap().as_primitive::<TimestampMillisecondType>();
        assert_eq!((numbers(&batches[0], "first_offset"), numbers(&batches[0], "last_offset"), times.value(0)), (vec![5], vec![8], 8));
        let broken = (9, None, Some(b"a\nb".to_vec()));
        assert!(pack(&spec(&[]), &[record(&broken)]).unwrap_err().to_string().contains("length_prefixed"));
    }

    #[test]
    fn batches_end_at_their_size_and_an_empty_split_has_none() {
        let value = vec![b'x'; (1 << 20) - 1];
        let records: Vec<Plain> = (0..40).map(|offset| (offset, None, Some(value.clone()))).collect();
        let batches = pack(&spec(&[]), &records.iter().map(record).collect::<Vec<_>>()).unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [16, 16, 8]);
        assert!(pack(&spec(&[]), &[]).unwrap().is_empty());
    }

    #[test]
    fn single_records_have_their_own_columns_and_headers() {
        let spec = spec(&[("chunk_records", "1"), ("include_headers", "true")]);
        let headers = vec![("trace", Some(b"7".as_slice())), ("empty", None)];
        let records = [Record { offset: 4, value: Some(b"v"), headers, ..Record::default() }, Record { offset: 6, ..Record::default() }];
        let batches = pack(&spec, &records).unwrap();
        assert_eq!(batches[0].schema(), table_schema(&spec));
        assert_eq!(numbers(&batches[0], "offset"), [4, 6]);
        let headers = batches[0].column_by_name("headers").unwrap().as_list::<i32>();
        assert_eq!((headers.value(0).len(), headers.value(1).len()), (2, 0));
        assert!(batches[0].column_by_name("value").unwrap().is_null(1));
    }
}
