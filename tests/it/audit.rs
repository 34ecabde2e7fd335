//! `verify` finds what was done behind its back.

use std::fs;
use std::path::PathBuf;

use baler_tests::baler::Baler;
use baler_tests::corpus;
use baler_tests::fleet::Fleet;
use baler_tests::job::{Job, Report, files};
use baler_tests::mongo::Mongo;
use bson::doc;

/// A finished job over texts, in a collection.
fn finished() -> Job<'static> {
    let job = Job::new().into_collection(Mongo::shared().collection());
    job.add_shapes(&corpus::texts());
    job.run();
    job
}

#[test]
fn a_removed_document_is_missing() {
    let job = finished();
    let mut documents = job.sink.read().documents;
    documents.retain(|document| document.get_str("object").unwrap().ends_with("/lines.jsonl"));
    documents.sort_by_key(|document| document.get_i64("byte_offset").unwrap());
    let (last, middle) = (documents.len() - 1, documents.len() / 2);
    // The last one is missed twice: by its split, and because the object's end is in no document.
    for (place, missing) in [(middle, 1), (last, 2)] {
        job.sink.collection().delete_one(doc! { "_id": documents[place].get("_id").unwrap() });
        assert_eq!(job.verify(1).counts(), [missing, 0, 0]);
        job.sink.collection().insert(documents[place].clone());
    }
    assert_eq!(job.verify(0).counts(), [0, 0, 0]);
}

#[test]
fn a_copied_document_is_a_duplicate() {
    let job = finished();
    let mut copy = job.sink.read().documents.swap_remove(0);
    copy.insert("_id", "a-copy");
    job.sink.collection().insert(copy);
    let [missing, duplicate, _] = job.verify(1).counts();
    assert_eq!((missing, duplicate), (0, 1));
}

#[test]
fn a_document_with_other_data_is_mismatched() {
    let job = finished();
    let mut documents = job.sink.read().documents;
    let (one, other) = (documents.swap_remove(0), documents.swap_remove(0));
    job.sink
        .collection()
        .update_one(doc! { "_id": one.get("_id").unwrap() }, doc! { "$set": { "data": other.get("data").unwrap().clone() } });
    assert_eq!(job.verify(1).counts()[2], 1);
}

#[test]
fn a_document_with_a_wrong_offset_is_found() {
    let job = finished();
    let documents = job.sink.read().documents;
    let one = documents.iter().find(|document| document.get_i64("byte_offset").unwrap() > 0).unwrap();
    job.sink.collection().update_one(doc! { "_id": one.get("_id").unwrap() }, doc! { "$inc": { "byte_offset": 1_i64 } });
    assert_ne!(job.verify(1).counts(), [0, 0, 0]);
}

#[test]
fn a_lost_part_of_a_dump_is_missing() {
    let job = Job::new();
    job.add_shapes(&corpus::texts());
    job.run();
    // An empty object has an empty part, of which nothing can be lost.
    let holds_documents = |path: &PathBuf| path.extension().is_some_and(|e| e == "bson") && path.metadata().unwrap().len() > 0;
    let part = files(&job.scratch.join("dump")).into_iter().find(holds_documents).unwrap();
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

/// Asserts that a fleet finds what one process finds, counts and words, and that its executors did the work.
#[track_caller]
fn same_on_a_fleet(fleet: &Fleet, job: &Job<'_>, code: i32) -> [u64; 3] {
    let alone = job.verify(code);
    let together = job.verify_on(fleet, true, code);
    let sorted = |report: &Report| {
        let mut report = report.0.clone();
        report["findings"].as_array_mut().unwrap().sort_by_key(ToString::to_string);
        report
    };
    assert_eq!(sorted(&alone), sorted(&together));
    let shallow = Baler::new(["verify", "--job", &job.name, "--state", &job.state, "--output", "json"]).run();
    let code = shallow.code.unwrap();
    let shallow = Report(serde_json::from_str(&shallow.stdout).unwrap());
    assert_eq!(sorted(&shallow), sorted(&job.verify_on(fleet, false, code)));
    let waves: Vec<_> = fleet.jobs().into_iter().filter(|(name, _)| name.starts_with("load verify wave")).collect();
    assert!(!waves.is_empty() && waves.iter().all(|(_, status)| status == "Completed"), "{waves:?}");
    together.counts()
}

#[test]
fn a_fleet_finds_a_healthy_job_sound_as_one_process_does() {
    let fleet = Fleet::start(2, &[]);
    for job in [Job::new(), Job::new().into_collection(Mongo::shared().collection())] {
        job.add_shapes(&[corpus::texts(), corpus::odd_names(), corpus::compressed()].concat());
        job.run();
        assert_eq!(same_on_a_fleet(&fleet, &job, 0), [0, 0, 0]);
    }
}

#[test]
fn a_fleet_finds_in_a_collection_what_one_process_finds() {
    let fleet = Fleet::start(2, &[]);
    let documents = |job: &Job<'_>| {
        let mut documents = job.sink.read().documents;
        documents.sort_by_key(|document| (document.get_str("object").unwrap().to_string(), document.get_i64("byte_offset").unwrap()));
        documents
    };
    let job = finished();
    job.sink.collection().delete_one(doc! { "_id": documents(&job)[20].get("_id").unwrap() });
    assert_eq!(same_on_a_fleet(&fleet, &job, 1), [1, 0, 0]);

    let job = finished();
    let mut copy = documents(&job)[20].clone();
    copy.insert("_id", "a-copy");
    job.sink.collection().insert(copy);
    assert_eq!(same_on_a_fleet(&fleet, &job, 1), [0, 1, 0]);

    let job = finished();
    let found = documents(&job);
    let other = found[21].get("data").unwrap().clone();
    job.sink.collection().update_one(doc! { "_id": found[20].get("_id").unwrap() }, doc! { "$set": { "data": other } });
    assert_eq!(same_on_a_fleet(&fleet, &job, 1), [0, 0, 1]);

    // Several at once, and strangers, which are no fault.
    let job = finished();
    let found = documents(&job);
    job.sink.collection().delete_one(doc! { "_id": found[2].get("_id").unwrap() });
    job.sink.collection().update_one(doc! { "_id": found[20].get("_id").unwrap() }, doc! { "$inc": { "byte_offset": 1_i64 } });
    job.sink.collection().update_one(doc! { "_id": found[40].get("_id").unwrap() }, doc! { "$inc": { "records": 1_i64 } });
    job.sink.collection().insert(doc! { "_id": "a stranger" });
    let [missing, duplicate, mismatched] = same_on_a_fleet(&fleet, &job, 1);
    assert!(missing >= 1 && duplicate + mismatched >= 2, "{missing} {duplicate} {mismatched}");
    assert_eq!(job.verify_on(&fleet, false, 1).0["foreign"].as_u64(), Some(1));
}

#[test]
fn a_fleet_finds_in_a_dump_what_one_process_finds() {
    let fleet = Fleet::start(2, &[]);
    let finished = || {
        let job = Job::new();
        job.add_shapes(&corpus::texts());
        job.run();
        let mut parts = files(&job.scratch.join("dump"));
        parts.retain(|path| path.extension().is_some_and(|e| e == "bson"));
        parts.sort_by_key(|path| fs::metadata(path).unwrap().len());
        (job, parts)
    };
    let (job, parts) = finished();
    fs::remove_file(&parts[parts.len() / 2]).unwrap();
    assert!(same_on_a_fleet(&fleet, &job, 1)[0] > 0);

    let (job, parts) = finished();
    let largest = parts.last().unwrap();
    let mut bytes = fs::read(largest).unwrap();
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    fs::write(largest, bytes).unwrap();
    assert_eq!(same_on_a_fleet(&fleet, &job, 1)[2], 1);

    // A part which is there twice, after the others in order of names.
    let (job, parts) = finished();
    let largest = parts.last().unwrap();
    fs::copy(largest, largest.with_file_name("documents.zzz.bson")).unwrap();
    let [missing, duplicate, mismatched] = same_on_a_fleet(&fleet, &job, 1);
    assert!(duplicate > 0 && (missing, mismatched) == (0, 0), "{missing} {duplicate} {mismatched}");
}
