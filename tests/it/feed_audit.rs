//! `verify` of topics and of whole queries, and micro-batches whose files were folded.

use std::fs;

use baler_tests::baler::Baler;
use baler_tests::feed::Feed;
use baler_tests::fleet::Fleet;
use baler_tests::job::{Sink, files};
use baler_tests::kafka::Kafka;
use baler_tests::minio::Minio;
use baler_tests::mongo::Mongo;
use baler_tests::topic::{Record, Topic};
use baler_tests::wait_until;
use bson::doc;

fn send(topic: &Topic<'_>, numbers: std::ops::Range<usize>) {
    topic.send(numbers.map(|number| ((number % 2) as i32, Record::new(format!("event {number} {}", "x".repeat(number % 90))))));
}

/// A query of several micro-batches over two partitions, one with gaps in its offsets, into a collection.
fn caught_up<'a>(topic: &Topic<'a>) -> Feed<'a> {
    send(topic, 0..500);
    topic.send_transaction((0..50).map(|number| (0, Record::new(format!("aborted {number}")))), false);
    topic.send_transaction((0..50).map(|number| (0, Record::new(format!("committed {number}")))), true);
    send(topic, 500..900);
    let feed = Feed::new(topic).into_collection(Mongo::shared().collection());
    let feed = feed.with("kafka.max_records_per_trigger", 300).with("kafka.split_records", 60).with("kafka.chunk_size", "1KiB");
    feed.catch_up();
    feed
}

#[test]
fn a_sound_query_is_proven_against_its_topic() {
    let topic = Kafka::shared().topic(2, &[]);
    let feed = caught_up(&topic);
    feed.expect_all();
    let stored = feed.sink.read().documents;
    let raw: i64 = stored.iter().map(|document| document.get_i64("original_size").unwrap()).sum();
    for (more, compared) in [(&[][..], 0), (&["--deep"], raw)] {
        let report = feed.verify(more, 0);
        assert_eq!((report.counts(), report.count("documents")), ([0, 0, 0], stored.len() as u64));
        assert_eq!((report.count("raw_bytes"), report.count("compared_bytes")), (raw as u64, compared as u64));
    }
}

#[test]
fn what_was_done_behind_its_back_is_found() {
    let topic = Kafka::shared().topic(2, &[]);
    let feed = caught_up(&topic);
    let mut documents = feed.sink.read().documents;
    let (one, other, mut copy) = (documents.swap_remove(0), documents.swap_remove(0), documents.swap_remove(0));
    let id = |document: &bson::Document| document.get_str("_id").unwrap().to_string();
    feed.sink.collection().delete_one(doc! { "_id": id(&one) });
    assert_eq!(feed.verify(&[], 1).counts(), [1, 0, 0]);
    feed.sink.collection().insert(one);
    assert_eq!(feed.verify(&[], 0).counts(), [0, 0, 0]);
    feed.sink.collection().update_one(doc! { "_id": id(&other) }, doc! { "$set": { "data": copy.get("data").unwrap().clone() } });
    // The fields are those of the receipt: only who inflates the data sees it.
    assert_eq!((feed.verify(&[], 0).counts(), feed.verify(&["--deep"], 1).counts()), ([0, 0, 0], [0, 0, 1]));
    feed.sink.collection().delete_one(doc! { "_id": id(&other) });
    feed.sink.collection().insert(other);
    copy.insert("_id", "a-copy");
    feed.sink.collection().insert(copy);
    let [missing, duplicate, _] = feed.verify(&[], 1).counts();
    assert_eq!((missing, duplicate), (0, 1));
}

#[test]
fn records_which_the_topic_forgot_are_said_to_be_uncompared_and_a_lost_micro_batch_is_missing() {
    let topic = Kafka::shared().topic(2, &[]);
    let feed = caught_up(&topic);
    topic.trim(0, 100);
    let report = feed.verify(&["--deep"], 0);
    assert_eq!((report.counts(), report.count("expired")), ([0, 0, 0], 2), "two splits of 60 offsets begin before 100");
    assert!(report.count("compared_bytes") > 0);
    let lost = files(&feed.state().join("feed/offsets")).swap_remove(1);
    fs::remove_file(lost).unwrap();
    let report = feed.verify(&[], 1);
    assert!(report.count("missing") > 0 && report.0["findings"].to_string().contains("in no micro-batch"), "{}", report.0);
}

#[test]
fn a_job_over_a_topic_is_verified_in_a_dump_and_from_a_fleet() {
    let topic = Kafka::shared().topic(2, &[]);
    send(&topic, 0..700);
    let fleet = Fleet::start(1, &[]);
    let mut feed = Feed::new(&topic).with("kafka.split_records", 100).on(&fleet);
    feed.run_call().run().expect_code(0);
    for more in [&["--deep"][..], &["--deep", "--scheduler", &fleet.url()]] {
        let report = feed.verify(more, 0);
        assert_eq!((report.counts(), report.count("splits_done")), ([0, 0, 0], 8));
        assert!(report.count("compared_bytes") > 0);
    }
    // Rows of single records have their place, and no payload of which the topic holds the same.
    feed.name = "records".to_string();
    feed.sink = Sink::Bson(feed.scratch.join("records"));
    feed = feed.with("kafka.chunk_records", 1);
    feed.insert = "INSERT INTO documents SELECT id AS _id, topic, partition, \"offset\", value FROM feed;\n".to_string();
    feed.run_call().run().expect_code(0);
    let report = feed.verify(&["--deep"], 0);
    assert_eq!((report.counts(), report.count("documents")), ([0, 0, 0], 700));
}

#[test]
fn old_micro_batches_are_folded_and_nothing_of_them_is_lost() {
    let topic = Kafka::shared().topic(2, &[]);
    let feed = Feed::new(&topic).into_collection(Mongo::shared().collection()).with("kafka.max_records_per_trigger", 40);
    send(&topic, 0..400);
    let keep = ["--available-now", "--keep-batches", "3"];
    feed.stream_call(&keep).run().expect_code(0);
    // Ten micro-batches: 0–2 are folded with the sixth, 3–5 with the ninth.
    let left = |folder: &str| feed.batches(folder);
    assert_eq!((left("folded"), left("offsets"), left("commits")), (2, 4, 4));
    assert_eq!(fs::read_dir(feed.state().join("feed/batches")).unwrap().count(), 4);
    feed.expect_all();
    assert_eq!(feed.verify(&["--deep"], 0).counts(), [0, 0, 0]);
    // What a driver left behind that was killed while it removed what it had folded.
    let newest = files(&feed.state().join("feed/offsets")).pop().unwrap();
    fs::copy(&newest, feed.state().join("feed/offsets/000000004.json")).unwrap();
    send(&topic, 400..520);
    feed.stream_call(&keep).run().expect_code(0);
    assert_eq!((left("folded"), left("offsets")), (3, 4));
    feed.expect_all();
    assert_eq!(feed.verify(&["--deep"], 0).counts(), [0, 0, 0]);
    // Going back to one that is folded, and verifying what was read twice.
    let state = feed.state().display().to_string();
    Baler::new(["checkpoint", "rewind", "--to-batch", "1", "--name", "feed", "--state", &state]).run().expect_code(0);
    feed.stream_call(&keep).run().expect_code(0);
    feed.expect_all();
    assert_eq!(feed.verify(&["--deep"], 0).counts(), [0, 0, 0]);
}

#[test]
fn a_query_with_its_state_in_a_bucket_survives_kills_and_folds_there_too() {
    let (server, topic) = (Minio::plain(), Kafka::shared().topic(2, &[]));
    let bucket = server.make_bucket();
    send(&topic, 0..400);
    let mut feed = Feed::new(&topic).with("kafka.max_records_per_trigger", 40);
    (feed.state_url, feed.variables) = (Some(bucket.url("state")), server.environment());
    let keep = ["--available-now", "--keep-batches", "3"];
    for place in ["begun:0", "written:1", "committed:2", "resolved:3", "begun:4"] {
        let stop = ("BALER_TEST_STOP_AT".to_string(), place.to_string());
        let mut run = feed.stream_call(&keep).envs(&[stop]).start();
        wait_until("the driver stops", || run.stderr().contains(&format!("stopped at {place}")) || !run.is_running());
        assert_eq!(run.kill().signal, Some(9), "it ended before {place}");
    }
    feed.stream_call(&keep).run().expect_code(0);
    let count = |folder: &str| bucket.list(&format!("state/feed/{folder}/")).len();
    assert_eq!((count("folded"), count("offsets"), count("commits")), (2, 4, 4));
    assert!(count("batches") > 0 && bucket.list("state/feed/batches/feed.000000005/").is_empty());
    feed.expect_all();
    assert_eq!(feed.verify(&["--deep"], 0).counts(), [0, 0, 0]);
}
