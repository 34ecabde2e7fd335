//! Every input shape comes back from every sink, byte for byte.

use std::path::Path;

use baler_tests::corpus::{self, Shape};
use baler_tests::job::{Job, Objects};
use baler_tests::mongo::Mongo;

/// Runs the job over the shapes and compares bytes, line counts and the sinks' forms.
fn come_back(job: &Job<'_>, shapes: &[Shape]) {
    let expected = job.add_shapes(shapes);
    job.run();
    let stored = job.expect_complete(&expected);
    for shape in shapes {
        let uri = format!("{}{}", job.input, shape.name);
        if let Some(records) = shape.records {
            assert_eq!(stored.records(&uri), records, "records of {}", shape.name);
        }
    }
}

fn collection_job() -> Job<'static> {
    Job::new().into_collection(Mongo::shared().collection())
}

fn binary_job(mut job: Job<'static>) -> Job<'static> {
    job.source_options.push(("blob.boundary", "none"));
    job
}

#[test]
fn texts_of_every_shape_come_back_from_a_dump() {
    come_back(&Job::new(), &corpus::texts());
}

#[test]
fn texts_of_every_shape_come_back_from_a_collection() {
    come_back(&collection_job(), &corpus::texts());
}

#[test]
fn objects_with_odd_names_come_back_from_a_dump() {
    come_back(&Job::new(), &corpus::odd_names());
}

#[test]
fn objects_with_odd_names_come_back_from_a_collection() {
    come_back(&collection_job(), &corpus::odd_names());
}

#[test]
fn compressed_objects_come_back_from_a_dump() {
    come_back(&Job::new(), &corpus::compressed());
}

#[test]
fn compressed_objects_come_back_from_a_collection() {
    come_back(&collection_job(), &corpus::compressed());
}

#[test]
fn binary_data_comes_back_from_a_dump() {
    come_back(&binary_job(Job::new()), &[corpus::binary()]);
}

#[test]
fn binary_data_comes_back_from_a_collection() {
    come_back(&binary_job(collection_job()), &[corpus::binary()]);
}

#[test]
fn any_split_size_gives_the_same_records() {
    let shapes = corpus::texts();
    for split_size in ["64KiB", "300001", "1MiB", "64MiB"] {
        let mut job = Job::new();
        job.source_options[0].1 = split_size;
        come_back(&job, &shapes);
    }
}

#[test]
fn both_sinks_give_the_same_documents_the_same_ids() {
    let job = Job::new();
    let expected = job.add_shapes(&corpus::texts());
    job.run();
    let dump = job.expect_complete(&expected);

    let mut job = job.into_collection(Mongo::shared().collection());
    job.name = "load-again".to_string();
    job.run();
    let collection = job.expect_complete(&expected);

    assert_eq!(dump.ids(), collection.ids());
    let by_id = |mut stored: baler_tests::dump_reader::Stored| {
        stored.documents.sort_by_key(|document| document.get_str("_id").unwrap().to_string());
        stored.documents
    };
    assert_eq!(by_id(dump), by_id(collection));
}

#[test]
fn nothing_but_the_named_object_is_read() {
    let mut job = Job::new();
    let uri = job.add_file("a.txt", b"one\n");
    job.add_file("a.txt.old", b"two\n");
    job.input.clone_from(&uri);
    job.run();
    job.expect_complete(&Objects::from([(uri, b"one\n".to_vec())]));
}

#[test]
fn a_glob_reads_only_what_matches() {
    let mut job = Job::new();
    let first = job.add_file("a/1.log", b"one\n");
    let second = job.add_file("b/2.log", b"two\n");
    job.add_file("b/2.txt", b"no\n");
    job.input.push_str("*/*.log");
    job.run();
    job.expect_complete(&Objects::from([(first, b"one\n".to_vec()), (second, b"two\n".to_vec())]));
}

#[test]
fn an_input_without_bytes_is_a_complete_job_without_documents() {
    let job = Job::new();
    let uri = job.add_file("empty.txt", b"");
    job.run();
    let stored = job.expect_complete(&Objects::from([(uri, Vec::new())]));
    assert!(stored.documents.is_empty());
}

/// Runs a file of `sql/` as it is.
fn repository_file_runs(name: &str, mut job: Job<'_>) {
    job.file = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql").join(name));
    let expected = job.add_shapes(&corpus::texts());
    job.run();
    job.expect_complete(&expected);
}

#[test]
fn the_repository_s_compress_sql_runs() {
    repository_file_runs("compress.sql", Job::new());
}

#[test]
fn the_repository_s_compress_to_mongodb_sql_runs() {
    repository_file_runs("compress-to-mongodb.sql", collection_job());
}
