//! Stored documents, as `verify` and SELECT read them.

use ::bson::{Document, RawDocumentBuf, doc};
use ::mongodb::Cursor;
use ::mongodb::action::Action;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::MongodbSpec;
use super::client::{collection, driver_error};
use super::filter::filter;
use crate::connector::Fields;
use crate::connector::documents::{Part, Wanted};
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

/// How many documents there are.
pub(crate) async fn count(spec: &MongodbSpec) -> Result<u64> {
    collection(spec).await?.count_documents(doc! {}).await.map_err(|e| unreachable(spec, &e))
}

/// The documents with these `_id`s.
pub(crate) async fn fetch(spec: &MongodbSpec, ids: &[String]) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
    let found = collection(spec).await?.find(doc! { "_id": { "$in": ids } }).await.map_err(|e| unreachable(spec, &e))?;
    Ok(documents(spec, found))
}

/// Documents below which a collection is read as one part: a cursor of its own costs more than it saves.
const PART_DOCS: u64 = 1_000;
/// Sampled `_id`s for each part, so that parts are of about one size.
const SAMPLES_PER_PART: usize = 20;

/// Ranges of text `_id`s cut at a sample of them, and one part for all other types: comparisons hold within a type only.
pub(crate) async fn parts(spec: &MongodbSpec, wanted: usize) -> Result<Vec<Part>> {
    let collection = collection(spec).await?;
    let count = collection.estimated_document_count().await.map_err(|e| unreachable(spec, &e))?;
    let wanted = wanted.min((count / PART_DOCS) as usize);
    if wanted < 2 {
        return Ok(vec![Part::Collection]);
    }
    let sample = doc! { "$sample": { "size": (wanted * SAMPLES_PER_PART) as i64 } };
    let sampled = collection.aggregate([sample, doc! { "$project": { "_id": 1 } }]).await.map_err(|e| unreachable(spec, &e))?;
    let sampled: Vec<Document> = sampled.try_collect().await.map_err(|e| driver_error(spec, "sampling", &e))?;
    let mut ids: Vec<String> = sampled.iter().filter_map(|found| Some(found.get_str("_id").ok()?.to_string())).collect();
    ids.sort();
    let mut cuts: Vec<String> = (1..wanted).filter_map(|place| ids.get(place * ids.len() / wanted).cloned()).collect();
    cuts.dedup();
    let mut parts = vec![Part::NoTexts];
    let mut from = None;
    for cut in cuts {
        parts.push(Part::Texts { from: from.replace(cut.clone()), until: Some(cut) });
    }
    parts.push(Part::Texts { from, until: None });
    Ok(parts)
}

/// The filter of one part.
pub(super) fn in_part(part: &Part) -> Result<Document> {
    Ok(match part {
        Part::Collection => doc! {},
        Part::NoTexts => doc! { "_id": { "$not": { "$type": "string" } } },
        Part::Texts { from, until } => {
            let mut range = doc! { "$type": "string" };
            if let Some(from) = from {
                range.insert("$gte", from);
            }
            if let Some(until) = until {
                range.insert("$lt", until);
            }
            doc! { "_id": range }
        }
        Part::File(_) => return Err(Error::internal("a collection has no files")),
    })
}

/// The documents of one part.
pub(crate) async fn read(spec: &MongodbSpec, part: &Part, wanted: &Wanted) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
    let in_part = in_part(part)?;
    let filter = match &wanted.predicate {
        Some(predicate) if in_part.is_empty() => filter(predicate),
        Some(predicate) => doc! { "$and": [in_part, filter(predicate)] },
        None => in_part,
    };
    let mut projection = Document::new();
    if let Some(columns) = &wanted.columns {
        // Without a column at all, `_id` alone keeps the count of rows.
        let has_id = columns.is_empty() || columns.iter().any(|name| name == "_id");
        projection.insert("_id", i32::from(has_id));
        projection.extend(columns.iter().filter(|name| *name != "_id").map(|name| (name.clone(), 1.into())));
    }
    let limit = wanted.limit.and_then(|limit| i64::try_from(limit).ok());
    let find = collection(spec).await?;
    let found = find.find(filter).projection(projection).optional(limit, |find, limit| find.limit(limit)).await;
    Ok(documents(spec, found.map_err(|e| unreachable(spec, &e))?))
}

fn documents(spec: &MongodbSpec, cursor: Cursor<RawDocumentBuf>) -> BoxStream<'static, Result<RawDocumentBuf>> {
    let spec = spec.clone();
    cursor.map_err(move |e| driver_error(&spec, "reading", &e)).boxed()
}

/// An error of the driver; what may be tried again is a server out of reach, as nobody tries a query again.
pub(super) fn unreachable(spec: &MongodbSpec, error: &::mongodb::error::Error) -> Error {
    let error = driver_error(spec, "reading", error);
    if error.is_retryable() { Error::new(ErrorKind::Unreachable, error.to_string()) } else { error }
}
