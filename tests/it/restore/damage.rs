//! Documents which were changed or lost, jobs which cannot be restored: clear errors, and no object which is not whole.

use std::fs;

use baler_tests::corpus;
use baler_tests::job::{Job, Sink};
use baler_tests::mongo::Collection;
use bson::{Document, doc};
use serde_json::Value;

use super::{Names, below, collection_job, expect_same};

/// A finished job in a collection, and a document from the middle of its largest object.
fn finished() -> (Job<'static>, Document) {
    let job = collection_job();
    job.add_shapes(&corpus::texts());
    job.run();
    let mut documents = job.sink.read().documents;
    documents.retain(|found| found.get_str("object").unwrap().ends_with("/lines.jsonl"));
    documents.sort_by_key(|found| found.get_i64("byte_offset").unwrap());
    let victim = documents.swap_remove(documents.len() / 2);
    (job, victim)
}

fn collection<'a>(job: &'a Job<'_>) -> &'a Collection<'a> {
    match &job.sink {
        Sink::Mongo(collection) => collection,
        other => panic!("{other:?} is no collection"),
    }
}

/// Asserts one clear error which names object and byte, that nothing of the object is there, and that the others can be had.
#[track_caller]
fn refuses(job: &Job<'_>, words: &[&str]) {
    let to = job.scratch.join("back");
    job.restore_call(to.to_str().unwrap(), &[]).run().expect_one_line(1, &[&["lines.jsonl", "byte "], words].concat());
    assert!(!to.join("lines.jsonl").exists(), "an object which is not whole has its name");
    let report = job.restore(to.to_str().unwrap(), &["--partial"]);
    let left = report["left_out"].as_array().unwrap();
    assert!(left.len() == 1 && left[0]["object"].as_str().unwrap().ends_with("/lines.jsonl"), "{left:?}");
    let mut expected = below(&job.scratch.join("input"));
    expected.remove("lines.jsonl");
    expect_same(&below(&to), &expected);
}

fn offset_of(document: &Document) -> String {
    format!("byte {}", document.get_i64("byte_offset").unwrap())
}

#[test]
fn a_missing_document_is_an_error_and_no_object() {
    let (job, victim) = finished();
    collection(&job).delete_one(doc! { "_id": victim.get("_id").unwrap() });
    refuses(&job, &[&offset_of(&victim), "in no stored document"]);
}

#[test]
fn a_document_with_changed_bytes_is_an_error_and_no_object() {
    let (job, victim) = finished();
    let mut data = victim.get_binary_generic("data").unwrap().clone();
    let middle = data.len() / 2;
    data[middle] ^= 1;
    let data = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: data };
    collection(&job).update_one(doc! { "_id": victim.get("_id").unwrap() }, doc! { "$set": { "data": data } });
    refuses(&job, &[&offset_of(&victim), victim.get_str("_id").unwrap()]);
}

#[test]
fn a_document_which_was_tampered_with_consistently_is_an_error_and_no_object() {
    let (job, victim) = finished();
    let bytes = vec![b'#'; victim.get_i64("original_size").unwrap() as usize];
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &bytes).unwrap();
    let packed = encoder.finish().unwrap();
    let mut crc = flate2::Crc::new();
    crc.update(&bytes);
    let (size, crc) = (packed.len() as i64, i64::from(crc.sum()));
    let data = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: packed };
    let change = doc! { "$set": { "data": data, "compressed_size": size, "crc32": crc } };
    collection(&job).update_one(doc! { "_id": victim.get("_id").unwrap() }, change);
    refuses(&job, &["not those of receipt"]);
}

#[test]
fn a_document_of_another_place_or_version_is_an_error_and_no_object() {
    for change in
        [doc! { "$inc": { "byte_offset": 1_i64 } }, doc! { "$set": { "version": "another" } }, doc! { "$inc": { "original_size": 1_i64 } }]
    {
        let (job, victim) = finished();
        collection(&job).update_one(doc! { "_id": victim.get("_id").unwrap() }, change);
        refuses(&job, &[]);
    }
}

#[test]
fn damage_in_a_dump_is_an_error_and_no_object() {
    let job = Job::new();
    job.add_shapes(&corpus::texts());
    job.run();
    // The part of the first split of lines.jsonl.
    let manifest: Value = serde_json::from_slice(&fs::read(job.state_folder().join("manifest.json")).unwrap()).unwrap();
    let objects = manifest["objects"].as_array().unwrap();
    let object = objects.iter().find(|object| object["object"].as_str().unwrap().ends_with("/lines.jsonl")).unwrap();
    let split = object["splits"][1]["id"].as_str().unwrap();
    let part = job.scratch.join(&format!("dump/compressed_data/documents.{split}.bson"));
    let whole = fs::read(&part).unwrap();
    let mut changed = whole.clone();
    let at = changed.len() - 40;
    changed[at] ^= 1;
    fs::write(&part, &changed).unwrap();
    refuses(&job, &[]);
    fs::write(&part, &whole[..whole.len() - 10]).unwrap();
    refuses(&job, &["cut off"]);
    fs::remove_file(&part).unwrap();
    refuses(&job, &["does not exist"]);
}

#[test]
fn a_name_which_would_leave_the_target_folder_is_refused() {
    let job = Job::new();
    job.add_file("a.txt", b"one\n");
    job.run();
    let path = job.state_folder().join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("/input/a.txt", "/input/../../a.txt")).unwrap();
    let to = job.scratch.join("deep/back");
    job.restore_call(to.to_str().unwrap(), &[]).run().expect_one_line(1, &["../a.txt", "target folder"]);
    assert!(!job.scratch.join("a.txt").exists() && !job.scratch.join("deep").exists());
}

#[test]
fn dead_letters_are_named_and_not_restored() {
    let mut job = Job::new();
    job.source_options.push(("blob.on_corrupt", "dead_letter"));
    let damaged = corpus::damaged();
    job.add_shapes(&damaged);
    job.add_file("whole.txt", b"whole\n");
    job.run();
    let to = job.scratch.join("back");
    let target = to.to_str().unwrap();
    let report = |finished: baler_tests::baler::Finished| serde_json::from_str::<Value>(&finished.stdout).unwrap();
    for (flags, code) in [(vec![], 1), (vec!["--partial"], 0)] {
        let report = report(job.restore_call(target, &flags).run().expect_code(code));
        let left = report["left_out"].as_array().unwrap();
        assert_eq!(left.len(), damaged.len());
        for shape in &damaged {
            let named = left.iter().find(|left| left["object"].as_str().unwrap().ends_with(&shape.name)).unwrap();
            assert!(!named["reason"].as_str().unwrap().is_empty());
        }
        expect_same(&below(&to), &Names::from([("whole.txt".to_string(), b"whole\n".to_vec())]));
    }
}

#[test]
fn jobs_which_are_not_done_or_not_by_object_are_refused() {
    let job = Job::new();
    job.add_file("a.txt", b"one\n");
    job.add_file("broken.gz", b"this is no gzip\n");
    job.call().run().expect_code(1);
    let to = job.scratch.join("back");
    let target = to.to_str().unwrap();
    job.restore_call(target, &[]).run().expect_one_line(1, &["load", "not committed", "--partial"]);
    let report = job.restore(target, &["--partial"]);
    let left = report["left_out"].as_array().unwrap();
    assert!(left.iter().any(|left| left["object"].as_str().unwrap().ends_with("/broken.gz")), "{left:?}");
    job.restore_call("ftp://host/x", &["--partial"]).run().expect_one_line(2, &["ftp"]);

    let mut job = Job::new();
    job.add_file("a.txt", b"one\n");
    let refused = |job: &mut Job<'_>, name: &str, query: &str, words: &[&str]| {
        let sql = job.sql();
        let (tables, _) = sql.split_once("INSERT").unwrap();
        let file = job.scratch.join(&format!("{name}.sql"));
        fs::write(&file, format!("{tables}INSERT INTO documents {query}")).unwrap();
        (job.file, job.name) = (Some(file), name.to_string());
        job.run();
        job.restore_call(target, &[]).run().expect_one_line(2, words);
        job.file = None;
    };
    refused(&mut job, "aggregated", "SELECT object AS _id, count(*) AS n FROM objects GROUP BY object", &["split by split"]);
    refused(&mut job, "filtered", "SELECT id AS _id, object, content AS data FROM objects WHERE records > 5", &["filters rows"]);
    refused(&mut job, "foreign", "SELECT id AS _id, content AS data FROM objects", &["sql/compress.sql"]);
    job.name = "unknown".to_string();
    job.restore_call(target, &[]).run().expect_one_line(2, &["no job or query `unknown`"]);
}
