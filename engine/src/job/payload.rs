//! One stored document → the bytes it holds, proven by its own sizes and checksum.

use ::bson::RawDocument;

use crate::connector::receipt::DocumentFacts;
use crate::function::codec::decompress_value;

/// The raw bytes of a standard document. Never inflates more than its `original_size`.
///
/// # Errors
/// What is wrong with it, in words which follow its name.
pub(super) fn raw_bytes(document: &RawDocument, facts: &DocumentFacts) -> Result<Vec<u8>, String> {
    let data = document.get(DocumentFacts::PAYLOAD).ok().flatten().and_then(|value| value.as_binary());
    let data = data.ok_or("has no binary field `data`")?;
    let codec = document.get_str("codec").map_err(|_| "has no field `codec`")?;
    let original_size = u64::try_from(facts.original_size).map_err(|_| "has a negative original_size")?;
    let raw = decompress_value(codec, data.bytes, original_size).map_err(|error| format!("cannot be inflated: {error}"))?;
    if raw.len() as u64 != original_size {
        return Err(format!("holds {} bytes, not {original_size}", raw.len()));
    }
    if data.bytes.len() as i64 != facts.compressed_size || i64::from(crc32fast::hash(&raw)) != facts.crc32 {
        return Err("has a compressed_size or crc32 which is not that of its data".to_string());
    }
    Ok(raw)
}
