//! A `RecordBatch` to raw BSON documents.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Schema};

use super::types::{Use, check_fields};
use super::values::{Member, measure_members, write_members};
use crate::{Error, Result};

/// The largest document which MongoDB stores, in bytes: 16 MiB.
pub const DOCUMENT_BYTES_MAX: usize = 16_777_216;

/// Writes the rows of batches of one schema as BSON documents, straight from the columns.
///
/// `_id` comes first whatever its position among the columns, as MongoDB stores it; the others keep their order.
#[derive(Debug, Clone)]
pub struct DocumentEncoder {
    /// The type of each column, to hold batches against.
    types: Vec<DataType>,
    names: Vec<String>,
    /// Columns in the order of the document's fields.
    order: Vec<usize>,
    id_index: Option<usize>,
}

impl DocumentEncoder {
    /// Plans the documents of a schema.
    ///
    /// # Errors
    /// `Config`, naming the column: a type without BSON form, two columns of one name, or a name which is empty, starts
    /// with `$`, or contains a dot or a NUL. The same holds for fields of structs.
    pub fn try_new(schema: &Schema) -> Result<Self> {
        check_fields(schema.fields(), Use::Write)?;
        let id_index = schema.index_of("_id").ok();
        let others = (0..schema.fields().len()).filter(|index| Some(*index) != id_index);
        Ok(Self {
            types: schema.fields().iter().map(|field| field.data_type().clone()).collect(),
            names: schema.fields().iter().map(|field| field.name().clone()).collect(),
            order: id_index.into_iter().chain(others).collect(),
            id_index,
        })
    }

    /// The column which holds `_id`, if there is one.
    #[must_use]
    pub fn id_index(&self) -> Option<usize> {
        self.id_index
    }

    /// Writes each row of a batch as one document; rows which cannot be one are listed beside the documents.
    ///
    /// Every value is copied once, into memory that is reserved for exactly these documents: about the size of the
    /// batch. `RecordBatch::slice` cuts a batch into pieces without copying, where that is too much at once.
    ///
    /// # Errors
    /// `Internal`: the batch has other columns than the schema.
    pub fn encode(&self, batch: &RecordBatch) -> Result<Documents> {
        let columns = batch.columns();
        if !columns.iter().map(|column| column.data_type()).eq(&self.types) {
            return Err(Error::internal(format!("a batch of {} columns does not have the planned schema", columns.len())));
        }
        let planned = self.order.iter().filter_map(|index| Some((self.names.get(*index)?, columns.get(*index)?)));
        let members = planned.map(|(name, column)| Member::try_new(name, column)).collect::<Result<Vec<_>>>()?;

        let sizes: Vec<usize> = (0..batch.num_rows()).map(|row| measure_members(&members, row)).collect();
        let total = sizes.iter().filter(|size| **size <= DOCUMENT_BYTES_MAX).sum();
        let mut documents = Documents {
            bytes: Vec::with_capacity(total),
            ends: Vec::with_capacity(sizes.len()),
            rows: Vec::with_capacity(sizes.len()),
            refused: Vec::new(),
        };
        for (row, size) in sizes.into_iter().enumerate() {
            if size > DOCUMENT_BYTES_MAX {
                let reason = format!(
                    "the document has {size} bytes, more than MongoDB's {DOCUMENT_BYTES_MAX}; split or compress its largest column"
                );
                documents.refused.push(Refused { row, reason });
                continue;
            }
            let start = documents.bytes.len();
            if let Err(reason) = write_members(&members, row, &mut documents.bytes) {
                documents.bytes.truncate(start);
                documents.refused.push(Refused { row, reason });
                continue;
            }
            debug_assert_eq!(documents.bytes.len() - start, size, "row {row}");
            documents.ends.push(documents.bytes.len());
            documents.rows.push(row);
        }
        Ok(documents)
    }
}

/// A row which cannot be a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The row in its batch, from 0.
    pub row: usize,
    /// Names the column and what is wrong with its value.
    pub reason: String,
}

/// The documents of one batch, one after the other in one buffer.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    rows: Vec<usize>,
    refused: Vec<Refused>,
}

impl Documents {
    /// How many documents there are; refused rows are not among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no document.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of document `index`; nothing beyond the last one.
    #[must_use]
    pub fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(index).and_then(|end| self.bytes.get(start..*end)).unwrap_or_default()
    }

    /// The row of the batch from which document `index` was written.
    #[must_use]
    pub fn row(&self, index: usize) -> Option<usize> {
        self.rows.get(index).copied()
    }

    /// Each document's bytes in turn.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// All documents, one after the other: what a `.bson` file and a MongoDB bulk message hold.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As [`Self::as_bytes`], to keep.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Where each document ends in [`Self::as_bytes`].
    #[must_use]
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// The rows which are not among the documents, in their order.
    #[must_use]
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }
}
