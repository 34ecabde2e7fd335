//! `verify` finds what was done behind its back.

use std::fs;

use baler_tests::corpus;
use baler_tests::job::{Job, Sink, files};
use baler_tests::mongo::{Collection, Mongo};
use bson::doc;

/// A finished job over texts, in a collection.
fn finished() -> Job<'static> {
    let job = Job::new().into_collection(Mongo::shared().collection());
    job.add_shapes(&corpus::texts());
    job.run();
    job
}

fn collection<'a>(job: &'a Job<'_>) -> &'a Collection<'a> {
    match &job.sink {
        Sink::Mongo(collection) => collection,
        other => panic!("{other:?} is no collection"),
    }
}

#[test]
fn a_removed_document_is_missing() {
    let job = finished();
    let id = job.sink.read().ids().pop_last().unwrap();
    collection(&job).delete_one(doc! { "_id": id });
    assert_eq!(job.verify(1).counts(), [1, 0, 0]);
}

#[test]
fn a_copied_document_is_a_duplicate() {
    let job = finished();
    let mut copy = job.sink.read().documents.swap_remove(0);
    copy.insert("_id", "a-copy");
    collection(&job).insert(copy);
    let [missing, duplicate, _] = job.verify(1).counts();
    assert_eq!((missing, duplicate), (0, 1));
}

#[test]
fn a_document_with_other_data_is_mismatched() {
    let job = finished();
    let mut documents = job.sink.read().documents;
    let (one, other) = (documents.swap_remove(0), documents.swap_remove(0));
    collection(&job).update_one(doc! { "_id": one.get("_id").unwrap() }, doc! { "$set": { "data": other.get("data").unwrap().clone() } });
    assert_eq!(job.verify(1).counts()[2], 1);
}

#[test]
fn a_document_with_a_wrong_offset_is_found() {
    let job = finished();
    let documents = job.sink.read().documents;
    let one = documents.iter().find(|document| document.get_i64("byte_offset").unwrap() > 0).unwrap();
    collection(&job).update_one(doc! { "_id": one.get("_id").unwrap() }, doc! { "$inc": { "byte_offset": 1_i64 } });
    assert_ne!(job.verify(1).counts(), [0, 0, 0]);
}

#[test]
fn a_lost_part_of_a_dump_is_missing() {
    let job = Job::new();
    job.add_shapes(&corpus::texts());
    job.run();
    let part = files(&job.scratch.join("dump")).into_iter().find(|path| path.extension().is_some_and(|e| e == "bson")).unwrap();
    fs::remove_file(part).unwrap();
    assert!(job.verify(1).counts()[0] > 0);
}

#[test]
fn changed_bytes_in_a_dump_are_found() {
    let job = Job::new();
    job.add_shapes(&corpus::texts());
    job.run();
    // The end of the largest part lies within compressed data.
    let part = files(&job.scratch.join("dump")).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&part).unwrap();
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    fs::write(&part, bytes).unwrap();
    assert!(job.verify(1).counts()[2] > 0);
}

#[test]
fn a_job_which_is_not_done_is_not_sound() {
    let job = Job::new();
    job.add_file("broken.gz", b"this is no gzip\n");
    job.add_file("whole.txt", b"whole\n");
    job.call().run().expect_code(1);
    let finished = job.verify_call().run();
    assert_eq!(finished.code, Some(1), "{finished:#?}");
}
