//! Raw BSON documents to a `RecordBatch`.

use bson::{RawBsonRef, RawDocument};
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;

use super::builders::{Builder, describe};
use super::nested::StructBuilder;
use super::types::{Use, check_fields};
use crate::{Error, Result};

/// Reads documents as rows of one schema: its columns by name, whatever else the documents have.
#[derive(Debug, Clone)]
pub struct DocumentDecoder {
    schema: SchemaRef,
}

impl DocumentDecoder {
    /// Plans the reading of these columns.
    ///
    /// # Errors
    /// `Config`, naming the column: no BSON type becomes this type, or two columns have one name.
    pub fn try_new(schema: SchemaRef) -> Result<Self> {
        check_fields(schema.fields(), Use::Read)?;
        StructBuilder::try_new(schema.fields(), 0)?;
        Ok(Self { schema })
    }

    /// The schema of the batches.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Reads documents, one row each.
    ///
    /// # Errors
    /// `Decode`, naming document and field: the bytes are not BSON, a value does not fit its column without loss, or a
    /// NOT NULL column has none.
    pub fn decode<'a>(&self, documents: impl IntoIterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let documents = documents.into_iter();
        let mut rows = StructBuilder::try_new(self.schema.fields(), documents.size_hint().0)?;
        for (index, bytes) in documents.enumerate() {
            let document = RawDocument::from_bytes(bytes)
                .map_err(|error| Error::decode(format!("cannot read document {} of a batch", index + 1)).with_source(error))?;
            rows.append(Some(RawBsonRef::Document(document))).map_err(|fault| {
                let id = name_document(document, index);
                Error::decode(format!("cannot read {id}: {fault}"))
            })?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns = rows.finish_columns()?;
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| Error::decode("cannot make rows of documents").with_source(error))
    }
}

fn name_document(document: &RawDocument, index: usize) -> String {
    match document.get("_id") {
        Ok(Some(id)) => format!("document with _id {}", describe(id)),
        _ => format!("document {} of a batch, which has no _id", index + 1),
    }
}
