//! A document of a single record → its record. Before: what a statement over a table with `kafka.chunk_records` '1' wrote; after: the
//! record in the framing `complete`.

use ::bson::RawDocument;
use ::bson::raw::RawBsonRef;

use crate::connector::kafka::frame::write_framed;
use crate::connector::kafka::pack::Record;
use crate::connector::kafka::spec::Framing;
use crate::connector::receipt::DocumentFacts;
use crate::job::payload::raw_bytes;

/// Fields of such a document by the columns of the table, but for its value, which may be compressed.
const RECORD_FIELDS: [&str; 3] = ["key", "timestamp", "headers"];

/// The record of a document: `value`, or `data` as the standard document has it; `key`, `timestamp` and `headers` as far as it has them, or
/// all of them if it `must_be_whole`.
///
/// # Errors
/// What is wrong with it, in words which follow its name.
pub(super) fn framed_record(document: &RawDocument, facts: &DocumentFacts, must_be_whole: bool) -> Result<Vec<u8>, String> {
    let has = |name: &str| document.get(name).is_ok_and(|value| value.is_some());
    if !has("value") && !has(DocumentFacts::PAYLOAD) {
        return Err("has neither `value` nor `data`, so nothing of its record is left".to_string());
    }
    if let Some(name) = RECORD_FIELDS.iter().find(|name| must_be_whole && !has(name)) {
        return Err(format!("has no field `{name}`, so its record would not be what it was; --lossy takes it as it is"));
    }
    let field = |name: &str| document.get(name).ok().flatten().filter(|value| !matches!(value, RawBsonRef::Null));
    let unpacked = match field(DocumentFacts::PAYLOAD) {
        Some(_) => Some(raw_bytes(document, facts)?),
        None => None,
    };
    let value = match &unpacked {
        Some(raw) => Some(raw.as_slice()),
        None => field("value").map(|value| bytes_of(value, "value")).transpose()?,
    };
    let key = field("key").map(|key| bytes_of(key, "key")).transpose()?;
    let timestamp = match field("timestamp") {
        Some(RawBsonRef::DateTime(time)) => Some(time.timestamp_millis()),
        Some(_) => return Err("has a `timestamp` which is no date".to_string()),
        None => None,
    };
    let mut headers = Vec::new();
    if let Some(all) = field("headers") {
        for header in all.as_array().ok_or("has `headers` which are no array")? {
            let header = header.ok().and_then(|header| header.as_document()).ok_or("has a header which is no document")?;
            let name = header.get_str("key").map_err(|_| "has a header without `key`")?;
            let value = header.get("value").ok().flatten().filter(|value| !matches!(value, RawBsonRef::Null));
            headers.push((name, value.map(|value| bytes_of(value, "headers.value")).transpose()?));
        }
    }
    let mut framed = Vec::new();
    write_framed(Framing::Complete, &Record { offset: facts.byte_offset, timestamp, key, value, headers }, &mut framed);
    Ok(framed)
}

fn bytes_of<'a>(value: RawBsonRef<'a>, name: &str) -> Result<&'a [u8], String> {
    match value {
        RawBsonRef::Binary(binary) => Ok(binary.bytes),
        RawBsonRef::String(text) => Ok(text.as_bytes()),
        _ => Err(format!("has a `{name}` which is neither binary nor text, so its bytes are not known")),
    }
}

#[cfg(test)]
mod tests {
    use ::bson::spec::BinarySubtype;
    use ::bson::{Binary, Bson, DateTime, Document, RawDocumentBuf, doc};

    use super::*;
    use crate::connector::kafka::frame::Unframed;

    fn binary(bytes: &[u8]) -> Bson {
        Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() })
    }

    fn framed(document: &Document, must_be_whole: bool) -> Result<Vec<u8>, String> {
        let document = RawDocumentBuf::try_from(document).unwrap();
        framed_record(&document, &DocumentFacts::read(document.as_bytes()).unwrap(), must_be_whole)
    }

    #[test]
    fn a_record_comes_with_what_its_document_has() {
        let place = doc! { "_id": "x", "topic": "t", "partition": 3, "offset": 17_i64 };
        let mut full = place.clone();
        let headers = vec![doc! { "key": "h", "value": binary(b"\0") }, doc! { "key": "none", "value": Bson::Null }];
        full.extend(doc! { "key": binary(b"k"), "value": "text", "timestamp": DateTime::from_millis(9), "headers": headers });
        let bytes = framed(&full, true).unwrap();
        let record = Unframed::new(Framing::Complete, &bytes).next().unwrap().unwrap();
        assert_eq!((record.offset, record.timestamp, record.key, record.value), (17, Some(9), Some(&b"k"[..]), Some(&b"text"[..])));
        assert_eq!(record.headers, [("h", Some(&b"\0"[..])), ("none", None)]);
        full.insert("value", 5);
        assert!(framed(&full, true).unwrap_err().contains("`value`"));
        let mut tombstone = place.clone();
        tombstone.insert("value", Bson::Null);
        let bytes = framed(&tombstone, false).unwrap();
        let record = Unframed::new(Framing::Complete, &bytes).next().unwrap().unwrap();
        assert_eq!((record.timestamp, record.key, record.value, record.headers.len()), (None, None, None, 0));
        assert!(framed(&tombstone, true).unwrap_err().contains("`key`"));
        assert!(framed(&place, false).unwrap_err().contains("neither"));
    }
}
