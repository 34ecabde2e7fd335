//! Objects in MinIO, over http and https.

use std::sync::Arc;

use baler_tests::corpus::{self, Shape, lines};
use baler_tests::fleet::Fleet;
use baler_tests::job::{Job, Objects, Sink};
use baler_tests::minio::{Bucket, Minio};
use baler_tests::mongo::Mongo;
use baler_tests::proxy::{Fault, Protocol, Proxy};

/// Puts the shapes below `in/` and returns what must come out.
fn put(bucket: &Bucket, shapes: &[Shape]) -> Objects {
    let objects: Vec<_> = shapes.iter().map(|shape| (format!("in/{}", shape.name), shape.stored.clone())).collect();
    bucket.put_all(&objects);
    shapes.iter().map(|shape| (bucket.url(&format!("in/{}", shape.name)), shape.content.clone())).collect()
}

fn job_from<'a>(server: &Minio, bucket: &Bucket) -> Job<'a> {
    Job { input: bucket.url("in/"), variables: server.environment(), ..Job::new() }
}

fn all_shapes() -> Vec<Shape> {
    [corpus::texts(), corpus::odd_names(), corpus::compressed()].concat()
}

#[test]
fn objects_of_every_shape_come_from_a_bucket_over_http() {
    let (server, mongo) = (Minio::plain(), Mongo::shared());
    let bucket = server.make_bucket();
    let expected = put(&bucket, &all_shapes());
    let job = job_from(server, &bucket).into_collection(mongo.collection());
    job.run();
    job.expect_complete(&expected);
}

#[test]
fn objects_come_from_a_bucket_over_https_with_an_own_authority() {
    let server = Minio::tls();
    let bucket = server.make_bucket();
    let expected = put(&bucket, &corpus::texts());
    let job = job_from(server, &bucket);
    job.run();
    job.expect_complete(&expected);
}

#[test]
fn a_server_of_an_unknown_authority_is_not_trusted() {
    let server = Minio::tls();
    let bucket = server.make_bucket();
    put(&bucket, &corpus::odd_names());
    let mut job = job_from(server, &bucket);
    job.variables.retain(|(name, _)| name != "AWS_CA_BUNDLE");
    job.call().run().expect_one_line(3, &["ertificate"]).expect_no_secret(&server.secret_key);
}

#[test]
fn the_endpoint_may_be_named_as_the_aws_tools_name_it() {
    let server = Minio::plain();
    let bucket = server.make_bucket();
    let expected = put(&bucket, &corpus::odd_names());
    let mut job = job_from(server, &bucket);
    for (name, _) in job.variables.iter_mut().filter(|(name, _)| name == "AWS_ENDPOINT") {
        *name = "AWS_ENDPOINT_URL".to_string();
    }
    job.run();
    job.expect_complete(&expected);
}

#[test]
fn dump_and_state_may_lie_in_a_bucket() {
    let server = Minio::plain();
    let bucket = server.make_bucket();
    let expected = put(&bucket, &corpus::texts());
    let job = Job { sink: Sink::S3(&bucket, "out".to_string()), state: bucket.url("state"), ..job_from(server, &bucket) };
    job.run();
    assert!(bucket.list("state/").contains(&"state/load/commit.json".to_string()));
    job.expect_verified(&expected);
}

#[test]
fn a_fleet_reads_writes_and_keeps_its_state_in_a_bucket() {
    let server = Minio::plain();
    let bucket = server.make_bucket();
    let expected = put(&bucket, &all_shapes());
    let fleet = Fleet::start(2, &server.environment());
    let job = Job { sink: Sink::S3(&bucket, "out".to_string()), state: bucket.url("state"), ..job_from(server, &bucket) }.on(&fleet);
    job.run().expect_no_secret(&server.secret_key);
    job.expect_verified(&expected);
    let jobs = fleet.get("/api/jobs").unwrap().to_string();
    assert!(jobs.contains("load wave 1") && !jobs.contains(&server.secret_key));
}

#[test]
fn a_listing_of_many_pages_is_read_to_its_end() {
    // A page holds 1000 keys.
    const OBJECTS: usize = 2_100;
    let server = Minio::plain();
    let bucket = server.make_bucket();
    let objects: Vec<_> = (0..OBJECTS).map(|n| (format!("in/{}/{n}.txt", n % 7), format!("object {n}\n").into_bytes())).collect();
    bucket.put_all(&objects);
    bucket.put("input-which-is-not-in/1.txt", b"no\n");
    let expected = objects.into_iter().map(|(key, bytes)| (bucket.url(&key), bytes)).collect();
    let job = job_from(server, &bucket);
    job.run();
    let stored = job.expect_complete(&expected);
    assert_eq!(stored.documents.len(), OBJECTS);
}

#[test]
fn a_read_which_is_cut_goes_on_without_loss() {
    let server = Minio::plain();
    let bucket = server.make_bucket();
    let texts = corpus::texts();
    let expected = put(&bucket, &texts);
    let proxy = Proxy::start(server.port, Protocol::Bytes);
    let mut job = job_from(server, &bucket);
    job.variables = server.environment_at(&format!("http://127.0.0.1:{}", proxy.port));
    proxy.arm(Fault::CutReplies { bytes: 700_000, times: 3 });
    job.run();
    assert_eq!(proxy.fired(), 3, "the connections were cut");
    job.expect_complete(&expected);
}

/// Runs a job over `in/a.txt`, which is overwritten after the listing, before its first byte is read.
fn overwritten_before_it_is_read(then: &[u8], now: &[u8]) -> Job<'static> {
    let server = Minio::plain();
    let bucket = Arc::new(server.make_bucket());
    bucket.put("in/a.txt", then);
    let proxy = Proxy::start(server.port, Protocol::Bytes);
    let (behind, bytes) = (Arc::clone(&bucket), now.to_vec());
    proxy.arm(Fault::Before {
        start: format!("GET /{}/in/a.txt", bucket.name),
        action: Some(Box::new(move || behind.put("in/a.txt", &bytes))),
    });
    let mut job = job_from(server, &bucket);
    job.variables = server.environment_at(&format!("http://127.0.0.1:{}", proxy.port));
    job.call().run().expect_one_line(1, &[&bucket.url("in/a.txt"), "changed"]);
    assert_eq!(proxy.fired(), 1, "the object was overwritten");
    assert!(!job.is_committed());
    job
}

#[test]
fn an_object_overwritten_after_the_listing_stops_its_split_and_mixes_nothing() {
    let job = overwritten_before_it_is_read(&lines(1, 500_000, "\n"), &lines(2, 500_000, "\n"));
    assert!(job.sink.read().documents.is_empty(), "something of the new object is stored");
}

#[test]
fn an_object_which_got_shorter_after_the_listing_stops_its_split() {
    overwritten_before_it_is_read(&lines(1, 2_500_000, "\n"), b"short\n");
}
