//! Walks over documents in every order.

use chrono::Utc;

use super::*;
use crate::connector::receipt::SCHEMA_VERSION;

const DOCUMENT_BYTES: i64 = 10;

fn facts(object: &str, byte_offset: i64) -> DocumentFacts {
    DocumentFacts {
        id: format!("{object}-{byte_offset}"),
        object: object.to_string(),
        version: "1".to_string(),
        byte_offset,
        next_offset: byte_offset + DOCUMENT_BYTES,
        original_size: DOCUMENT_BYTES,
        ..DocumentFacts::default()
    }
}

/// A walk over objects a and b of three splits, each of four documents; and those documents.
fn walk() -> (Walk, Vec<DocumentFacts>) {
    let (mut splits, mut audits, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for object in ["a", "b"] {
        for first in [0u64, 40, 80] {
            let documents: Vec<_> = (0..4).map(|row| facts(object, first as i64 + row * DOCUMENT_BYTES)).collect();
            let mut digest = DocumentDigest::default();
            documents.iter().for_each(|facts| digest.add(facts));
            let split = Split {
                id: format!("{object}{first}").into(),
                object: object.into(),
                version: "1".into(),
                size: 120,
                last_modified: 0,
                compression: Compression::None,
                start: first,
                end: first + 40,
            };
            let receipt = Receipt {
                schema_version: SCHEMA_VERSION,
                split: split.id.clone(),
                documents: 4,
                records: 0,
                raw_bytes: 40,
                compressed_bytes: 0,
                first_byte: Some(first),
                next_byte: Some(first + 40),
                already_there: 0,
                dead_letters: 0,
                digest: digest.finish(),
                attempt: 1,
                executor: String::new(),
                started: Utc::now(),
                finished: Utc::now(),
            };
            audits.push(Audit { split: split.clone(), receipt, topic: None });
            splits.push(split);
            all.extend(documents);
        }
    }
    (Walk::new(&splits, audits, true), all)
}

/// Missing, duplicate, mismatched, foreign, and splits which were settled before the end and at it.
fn counts(documents: impl IntoIterator<Item = DocumentFacts>) -> ([u64; 4], usize, usize) {
    let (mut walk, _) = walk();
    let mut report = Report::default();
    let early = documents.into_iter().filter_map(|facts| walk.take(&mut report, facts)).count();
    let late = std::iter::from_fn(|| walk.settle_next(&mut report)).count();
    assert!(walk.open.is_empty());
    ([report.missing, report.duplicate, report.mismatched, report.foreign], early, late)
}

#[test]
fn a_split_is_settled_with_its_last_document_in_whatever_order_they_come() {
    let all = walk().1;
    assert_eq!(counts(all.clone()), ([0; 4], 6, 0));
    assert_eq!(counts(all.clone().into_iter().rev()), ([0; 4], 6, 0));
    // 7 and 24 have no common divisor, so this visits each once, with all splits open at the same time.
    assert_eq!(counts((0..24).map(|step| all[step * 7 % 24].clone())), ([0; 4], 6, 0));
}

#[test]
fn what_is_not_as_the_receipts_say_is_found_whenever_it_comes() {
    let all = walk().1;
    let with = |more: DocumentFacts, at: usize| {
        let mut documents = all.clone();
        documents.insert(at, more);
        counts(documents)
    };
    let renamed = |offset| DocumentFacts { id: "other".to_string(), ..facts("b", offset) };
    for at in [0, 13, 24] {
        assert_eq!(with(facts("c", 0), at), ([0, 0, 0, 1], 6, 0));
        assert_eq!(with(DocumentFacts { version: "2".to_string(), ..facts("a", 0) }, at), ([0, 0, 0, 1], 6, 0));
        assert_eq!(with(facts("b", 120), at), ([0, 0, 1, 0], 6, 0));
    }
    // A copy that comes first is taken for the document, so the split does not match its receipt either.
    assert_eq!(with(renamed(40), 24), ([0, 1, 0, 0], 6, 0));
    assert_eq!(with(renamed(40), 0), ([0, 1, 1, 0], 6, 0));
    // One that lies across two others, when all of the split is there.
    assert_eq!(with(renamed(45), 24), ([0, 1, 0, 0], 6, 0));
    let mut short = all.clone();
    short.remove(5);
    assert_eq!(counts(short), ([1, 0, 0, 0], 5, 1));
    assert_eq!(counts([]), ([24, 0, 0, 0], 0, 6));
}
