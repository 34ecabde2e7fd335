//! Reads what a job wrote and puts the objects together again. It shares no code with the engine: `bson` and `mongodb` read,
//! `flate2` inflates and counts the CRC.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use bson::spec::BinarySubtype;
use bson::{Bson, Document};
use flate2::Crc;
use flate2::read::ZlibDecoder;

use crate::job::files;

/// All documents of one job.
#[derive(Debug, Clone)]
pub struct Stored {
    /// As they were read.
    pub documents: Vec<Document>,
}

/// Reads a folder in mongodump's layout: `<database>/*.bson`, each a row of documents without anything between them, and
/// `<database>/<collection>.metadata.json`.
///
/// # Panics
/// When a file is neither, is cut short, or was left under a temporary name.
pub fn read_dump(folder: &Path) -> Stored {
    let mut documents = Vec::new();
    for path in files(folder) {
        let name = path.strip_prefix(folder).expect("a file of the folder").display().to_string();
        let levels = name.split('/').count();
        assert_eq!(levels, 2, "{name} is not <database>/<file>");
        if name.ends_with(".metadata.json") {
            let text = fs::read(&path).expect("cannot read a file");
            serde_json::from_slice::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{name} is no JSON: {e}"));
            continue;
        }
        assert!(name.ends_with(".bson"), "{name} is no part of a dump");
        let bytes = fs::read(&path).expect("cannot read a file");
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            documents.push(Document::from_reader(&mut rest).unwrap_or_else(|e| panic!("{name} holds no document at byte {at}: {e}")));
        }
    }
    Stored::new(documents)
}

/// A piece of an object, taken out of its document.
struct Piece {
    offset: u64,
    bytes: Vec<u8>,
    version: String,
}

impl Stored {
    /// Takes documents from wherever they were read.
    pub fn new(documents: Vec<Document>) -> Self {
        Self { documents }
    }

    /// The ids, sorted.
    ///
    /// # Panics
    /// When one is there twice or is no string.
    pub fn ids(&self) -> BTreeSet<String> {
        let ids: BTreeSet<_> = self.documents.iter().map(|document| text(document, "_id")).collect();
        assert_eq!(ids.len(), self.documents.len(), "an _id is there twice");
        ids
    }

    /// The sum of `compressed_size`.
    pub fn compressed_bytes(&self) -> u64 {
        self.documents.iter().map(|document| number(document, "compressed_size") as u64).sum()
    }

    /// URI → bytes.
    ///
    /// # Panics
    /// When a document contradicts itself, pieces overlap or leave a gap, or one object has pieces of two versions.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.ids();
        let mut pieces: BTreeMap<String, Vec<Piece>> = BTreeMap::new();
        for document in &self.documents {
            let (object, piece) = open(document);
            pieces.entry(object).or_default().push(piece);
        }
        pieces
            .into_iter()
            .map(|(object, pieces)| {
                let bytes = join(&object, pieces);
                (object, bytes)
            })
            .collect()
    }

    /// Asserts that exactly the objects of `expected` are stored, byte for byte. An empty object may have no document.
    ///
    /// # Panics
    /// When not; the text names the object and the first byte which differs.
    #[track_caller]
    pub fn expect_objects(&self, expected: &BTreeMap<String, Vec<u8>>) {
        let mut found = self.objects();
        for (object, bytes) in expected {
            let stored = found.remove(object).unwrap_or_default();
            if let Some(at) = first_difference(&stored, bytes) {
                panic!("{object} differs from its source at byte {at}: {} bytes stored, {} expected", stored.len(), bytes.len());
            }
        }
        assert!(found.is_empty(), "objects which nobody put in: {:?}", found.keys());
    }

    /// The sum of `records` over the documents of one object.
    pub fn records(&self, object: &str) -> i64 {
        self.documents.iter().filter(|document| text(document, "object") == object).map(|document| number(document, "records")).sum()
    }
}

fn first_difference(left: &[u8], right: &[u8]) -> Option<usize> {
    if left == right {
        return None;
    }
    Some(left.iter().zip(right).position(|(a, b)| a != b).unwrap_or(left.len().min(right.len())))
}

/// Checks a document of the standard form against itself and inflates it.
fn open(document: &Document) -> (String, Piece) {
    let id = text(document, "_id");
    let data = match document.get("data") {
        Some(Bson::Binary(binary)) if binary.subtype == BinarySubtype::Generic => &binary.bytes,
        other => panic!("{id}: data is {other:?}"),
    };
    let mut bytes = Vec::new();
    ZlibDecoder::new(data.as_slice()).read_to_end(&mut bytes).unwrap_or_else(|e| panic!("{id}: data does not inflate: {e}"));
    let mut crc = Crc::new();
    crc.update(&bytes);
    assert_eq!(number(document, "crc32"), i64::from(crc.sum()), "{id}: crc32");
    assert_eq!(number(document, "original_size"), bytes.len() as i64, "{id}: original_size");
    assert_eq!(number(document, "compressed_size"), data.len() as i64, "{id}: compressed_size");
    let ratio = document.get_f64("compression_ratio").unwrap_or_else(|e| panic!("{id}: compression_ratio: {e}"));
    let expected = bytes.len() as f64 / data.len() as f64;
    assert!((ratio - expected).abs() < 1e-9 * expected.max(1.0), "{id}: compression_ratio is {ratio}, not {expected}");
    assert_eq!(text(document, "codec"), "zlib", "{id}: codec");
    number(document, "level");
    assert!(matches!(document.get("timestamp"), Some(Bson::DateTime(_))), "{id}: timestamp is {:?}", document.get("timestamp"));
    let offset = u64::try_from(number(document, "byte_offset")).unwrap_or_else(|_| panic!("{id}: byte_offset is negative"));
    (text(document, "object"), Piece { offset, bytes, version: text(document, "version") })
}

fn join(object: &str, mut pieces: Vec<Piece>) -> Vec<u8> {
    pieces.sort_by_key(|piece| piece.offset);
    let mut whole = Vec::new();
    for piece in &pieces {
        assert_eq!(piece.version, pieces[0].version, "{object} has pieces of two versions");
        let end = whole.len() as u64;
        assert!(piece.offset <= end, "{object}: bytes {end} to {} are missing", piece.offset);
        assert!(piece.offset == end, "{object}: bytes {} to {end} are there twice", piece.offset);
        whole.extend_from_slice(&piece.bytes);
    }
    whole
}

fn text(document: &Document, name: &str) -> String {
    document.get_str(name).unwrap_or_else(|e| panic!("{name}: {e} in {:?}", document.keys().collect::<Vec<_>>())).to_string()
}

fn number(document: &Document, name: &str) -> i64 {
    match document.get(name) {
        Some(Bson::Int32(value)) => i64::from(*value),
        Some(Bson::Int64(value)) => *value,
        other => panic!("{name} is {other:?}, not a whole number"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use bson::{Binary, DateTime, doc};
    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn document(offset: i64, bytes: &[u8]) -> Document {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        let data = encoder.finish().unwrap();
        let mut crc = Crc::new();
        crc.update(bytes);
        doc! {
            "_id": format!("id-{offset}"), "object": "file:///a", "version": "1", "byte_offset": offset, "records": 1_i64,
            "original_size": bytes.len() as i64, "compressed_size": data.len() as i64,
            "compression_ratio": bytes.len() as f64 / data.len() as f64, "codec": "zlib", "level": 9_i64, "crc32": i64::from(crc.sum()),
            "timestamp": DateTime::from_millis(0), "data": Binary { subtype: BinarySubtype::Generic, bytes: data },
        }
    }

    fn reads(documents: Vec<Document>, expected: &[u8]) {
        Stored::new(documents).expect_objects(&BTreeMap::from([("file:///a".to_string(), expected.to_vec())]));
    }

    #[test]
    fn pieces_in_any_order_are_joined() {
        reads(vec![document(4, b"two"), document(0, b"one\n")], b"one\ntwo");
    }

    #[test]
    #[should_panic(expected = "bytes 4 to 5 are missing")]
    fn a_gap_is_found() {
        reads(vec![document(0, b"one\n"), document(5, b"two")], b"one\ntwo");
    }

    #[test]
    #[should_panic(expected = "bytes 3 to 4 are there twice")]
    fn an_overlap_is_found() {
        reads(vec![document(0, b"one\n"), document(3, b"two")], b"one\ntwo");
    }

    #[test]
    #[should_panic(expected = "an _id is there twice")]
    fn a_duplicate_is_found() {
        reads(vec![document(0, b"one\n"), document(0, b"one\n")], b"one\n");
    }

    #[test]
    #[should_panic(expected = "differs from its source at byte 4")]
    fn a_lost_end_is_found() {
        reads(vec![document(0, b"one\n")], b"one\ntwo");
    }

    #[test]
    #[should_panic(expected = "crc32")]
    fn a_wrong_checksum_is_found() {
        let mut wrong = document(0, b"one\n");
        wrong.insert("crc32", 1_i64);
        reads(vec![wrong], b"one\n");
    }
}
