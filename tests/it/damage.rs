//! Compressed objects which are cut short or corrupt.

use baler_tests::corpus;
use baler_tests::fleet::Fleet;
use baler_tests::job::{Job, Objects};
use baler_tests::mongo::Mongo;

#[test]
fn a_damaged_object_fails_the_job_with_its_name_and_offset() {
    for shape in corpus::damaged() {
        let job = Job::new();
        let uri = job.add_file(&shape.name, &shape.stored);
        job.call().run().expect_one_line(1, &[&uri, "at byte "]);
        assert!(!job.is_committed(), "{}", shape.name);
    }
}

#[test]
fn a_damaged_object_becomes_a_dead_letter_where_that_is_asked_for() {
    become_dead_letters(Job::new().into_collection(Mongo::shared().collection()));
}

#[test]
fn a_damaged_object_becomes_a_dead_letter_on_a_fleet_too() {
    let fleet = Fleet::start(2, &[]);
    become_dead_letters(Job::new().on(&fleet));
}

fn become_dead_letters(mut job: Job<'_>) {
    job.source_options.push(("blob.on_corrupt", "dead_letter"));
    let whole = corpus::lines(50, 300_000, "\n");
    let whole_uri = job.add_file("whole.gz", &corpus::gzip(&whole));
    let damaged = corpus::damaged();
    let expected: Objects = job.add_shapes(&damaged);
    job.run();
    assert!(job.is_committed());

    // What could be read of an object which was cut short is the beginning of its content, and the rest is named. In a corrupt one, bytes
    // after the damage may pass for good ones: gzip has its checksum at the very end.
    let mut stored = job.sink.read().objects();
    assert!(stored.remove(&whole_uri).is_some_and(|bytes| bytes == whole), "the neighbour is not as it was");
    let letters = job.dead_letters();
    for (uri, content) in &expected {
        let beginning = stored.remove(uri).unwrap_or_default();
        assert!(uri.contains("corrupt") || content.starts_with(&beginning), "{uri} holds bytes which were never in it");
        let letter = letters.iter().find(|letter| letter["object"] == uri.as_str());
        let reason = letter.unwrap_or_else(|| panic!("no dead letter names {uri}"))["reason"].as_str().unwrap_or_default();
        assert!(!reason.is_empty(), "the dead letter of {uri} gives no reason");
    }
    assert!(stored.is_empty());
    job.verify(0);
}

#[test]
fn a_suffix_which_promises_too_much_is_an_error_not_garbage() {
    let job = Job::new();
    let uri = job.add_file("text.gz", b"this is no gzip\n");
    job.call().run().expect_one_line(1, &[&uri]);
}
