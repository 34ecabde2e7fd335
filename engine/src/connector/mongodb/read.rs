//! Stored documents, as `verify` reads them.

use ::bson::{Document, RawDocumentBuf, doc};
use ::mongodb::Cursor;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::MongodbSpec;
use super::client::{collection, driver_error};
use crate::connector::Fields;
use crate::connector::receipt::DocumentFacts;
use crate::error::{Error, ErrorKind, Result};

/// All documents of the collection.
pub(crate) async fn stored(spec: &MongodbSpec, fields: Fields) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
    let mut projection = Document::new();
    if fields == Fields::Facts {
        projection.insert(DocumentFacts::PAYLOAD, 0);
    }
    let found = collection(spec).await?.find(doc! {}).projection(projection).await.map_err(|e| unreachable(spec, &e))?;
    Ok(documents(spec, found))
}

/// The documents with these `_id`s.
pub(crate) async fn fetch(spec: &MongodbSpec, ids: &[String]) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
    let found = collection(spec).await?.find(doc! { "_id": { "$in": ids } }).await.map_err(|e| unreachable(spec, &e))?;
    Ok(documents(spec, found))
}

fn documents(spec: &MongodbSpec, cursor: Cursor<RawDocumentBuf>) -> BoxStream<'static, Result<RawDocumentBuf>> {
    let spec = spec.clone();
    cursor.map_err(move |e| driver_error(&spec, "reading", &e)).boxed()
}

fn unreachable(spec: &MongodbSpec, error: &::mongodb::error::Error) -> Error {
    let error = driver_error(spec, "reading", error);
    if error.is_retryable() { Error::new(ErrorKind::Unreachable, error.to_string()) } else { error }
}
