//! The same job again: unchanged, and with another statement or input.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use baler_tests::corpus::{self, lines};
use baler_tests::job::{Job, files};
use baler_tests::mongo::Mongo;
use baler_tests::proxy::{Protocol, Proxy};
use bson::{Bson, doc};

fn snapshot(folder: &std::path::Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let read = |path: PathBuf| {
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let bytes = fs::read(&path).unwrap();
        (path, (time, bytes))
    };
    files(folder).into_iter().map(read).collect()
}

#[test]
fn the_same_job_twice_writes_nothing_new_to_a_dump() {
    let job = Job::new();
    let expected = job.add_shapes(&corpus::texts());
    job.run();
    let before = (snapshot(&job.scratch.join("dump")), snapshot(&job.scratch.join("state")));
    job.run();
    let after = (snapshot(&job.scratch.join("dump")), snapshot(&job.scratch.join("state")));
    assert!(before == after, "a file of the dump or the state was touched");
    job.expect_complete(&expected);
}

#[test]
fn the_same_job_twice_writes_nothing_new_to_a_collection() {
    let mongo = Mongo::shared();
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let job = Job::new().into_collection(mongo.collection_at(proxy.port));
    let expected = job.add_shapes(&corpus::texts());
    job.run();
    let writes = proxy.writes();
    assert!(writes > 0, "the first run wrote through the proxy");
    job.run();
    assert_eq!(proxy.writes(), writes, "the second run wrote");
    job.expect_complete(&expected);
}

#[test]
fn another_job_over_the_same_input_finds_its_documents_written() {
    let mut job = Job::new().into_collection(Mongo::shared().collection());
    let expected = job.add_shapes(&corpus::texts());
    job.run();
    let ids = job.sink.read().ids();
    job.name = "another".to_string();
    job.run();
    assert_eq!(job.expect_complete(&expected).ids(), ids);
}

/// Runs a job, changes something by `change`, and asserts that the old name is refused and nothing was touched.
fn refused_after(change: impl FnOnce(&mut Job<'_>), words: &[&str]) {
    let mut job = Job::new();
    job.add_shapes(&corpus::texts());
    job.add_file("changing.txt", &lines(80, 200_000, "\n"));
    job.run();
    let before = snapshot(&job.scratch.join("dump"));
    change(&mut job);
    job.call().run().expect_one_line(1, &[&[job.name.as_str()], words].concat());
    assert!(before == snapshot(&job.scratch.join("dump")), "a refused run wrote");
}

#[test]
fn a_changed_statement_under_an_old_name_is_refused() {
    refused_after(|job| job.level = 6, &["statement"]);
}

#[test]
fn changed_options_of_the_source_under_an_old_name_are_refused() {
    refused_after(|job| job.source_options[1].1 = "128KiB", &["statement"]);
}

#[test]
fn a_changed_object_under_an_old_name_is_refused() {
    refused_after(|job| drop(job.add_file("changing.txt", &lines(81, 200_100, "\n"))), &["changing.txt", "changed"]);
}

#[test]
fn a_new_object_under_an_old_name_is_refused() {
    refused_after(|job| drop(job.add_file("new.txt", b"new\n")), &["new.txt"]);
}

#[test]
fn a_missing_object_under_an_old_name_is_refused() {
    refused_after(|job| fs::remove_file(job.scratch.join("input/changing.txt")).unwrap(), &["changing.txt"]);
}

/// A collection which holds another document under the id of one of the job's documents.
fn with_a_stranger() -> (Job<'static>, String, baler_tests::job::Objects) {
    let job = Job::new();
    let expected = job.add_shapes(&corpus::odd_names());
    job.run();
    let id = job.sink.read().ids().pop_first().unwrap();
    let collection = Mongo::shared().collection();
    collection.insert(doc! { "_id": &id, "stranger": true });
    let mut job = job.into_collection(collection);
    job.name = "second".to_string();
    (job, id, expected)
}

#[test]
fn another_document_under_the_same_id_is_an_error() {
    let (job, id, _) = with_a_stranger();
    job.call().run().expect_one_line(1, &[&id, "_id"]);
    let stranger = job.sink.read().documents.into_iter().find(|document| document.get("_id") == Some(&Bson::String(id.clone())));
    assert!(stranger.unwrap().get_bool("stranger").unwrap(), "the other document was overwritten");
    assert!(!job.is_committed());
}

#[test]
fn another_document_under_the_same_id_is_replaced_where_that_is_asked_for() {
    let (mut job, _, expected) = with_a_stranger();
    job.sink_options.push(("mongodb.write_mode", "replace"));
    job.run();
    job.expect_complete(&expected);
}
