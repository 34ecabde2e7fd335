//! `baler restore` of records: into a topic, key for key, and into files, byte for byte.

use std::collections::BTreeMap;
use std::path::Path;

use baler_tests::corpus::Random;
use baler_tests::feed::Feed;
use baler_tests::fleet::Fleet;
use baler_tests::job::{Sink, files};
use baler_tests::kafka::Kafka;
use baler_tests::minio::Minio;
use baler_tests::mongo::Mongo;
use baler_tests::proxy::{Fault, Protocol, Proxy};
use baler_tests::topic::{Record, Topic};
use bson::doc;
use serde_json::Value;

use super::{below, expect_same, in_bucket};

/// A record of any shape: with and without key, tombstones, empty and binary values, line feeds, headers of one name and without a value.
fn odd(number: usize) -> Record {
    let value = match number % 5 {
        0 => None,
        1 => Some(Vec::new()),
        2 => Some(format!("line\nfeed {number}").into_bytes()),
        3 => Some(Random::new(number as u64).bytes(number % 700)),
        _ => Some(format!("event {number} {}", "x".repeat(number % 90)).into_bytes()),
    };
    let headers = (0..number % 4).map(|header| (format!("h{}", header % 2), format!("{number}").into_bytes())).collect();
    Record { key: (!number.is_multiple_of(3)).then(|| format!("key {number}").into_bytes()), value, headers }
}

/// Sends records into two partitions; the offsets of the first have gaps.
fn send(topic: &Topic<'_>, numbers: std::ops::Range<usize>) {
    topic.send(numbers.clone().map(|number| ((number % 2) as i32, odd(number))));
    topic.send_transaction((0..30).map(|number| (0, odd(number))), false);
    topic.send_transaction(numbers.take(10).map(|number| (0, odd(number))), true);
}

/// A query of several micro-batches and splits.
fn caught_up<'a>(topic: &Topic<'a>, framing: &str) -> Feed<'a> {
    let feed = Feed::new(topic).with("kafka.framing", framing).with("kafka.max_records_per_trigger", 300);
    let feed = feed.with("kafka.split_records", 60).with("kafka.chunk_size", "1KiB");
    feed.catch_up();
    feed
}

fn count(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"))
}

/// Asserts that `back` has exactly the records of `topic`, by partition and in order, with their times.
#[track_caller]
fn expect_equal(topic: &Topic<'_>, back: &Topic<'_>) {
    let (expected, found) = (topic.in_order(), back.in_order());
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (partition, records) in expected {
        let found = &found[&partition];
        assert_eq!(found.len(), records.len(), "records of partition {partition}");
        for (place, (expected, found)) in records.iter().zip(found).enumerate() {
            assert_eq!(found, expected, "record {place} of partition {partition}");
        }
    }
}

/// Restores, restores again, lets the query go on, and restores what came.
fn comes_back(mut feed: Feed<'_>, topic: &Topic<'_>) {
    let back = Kafka::shared().topic(3, &[]);
    let report = feed.restore(&back.url(), &[]);
    expect_equal(topic, &back);
    let all = topic.read().len() as u64;
    assert_eq!((count(&report, "objects"), count(&report, "written"), count(&report, "records")), (2, 2, all));
    let report = feed.restore(&back.url(), &[]);
    assert_eq!((count(&report, "objects"), count(&report, "written"), count(&report, "documents")), (2, 0, 0));
    send(topic, 700..900);
    feed.scheduler = None;
    feed.catch_up();
    let report = feed.restore(&back.url(), &[]);
    assert_eq!(count(&report, "records"), topic.read().len() as u64 - all);
    expect_equal(topic, &back);
}

#[test]
fn records_come_back_into_a_topic_from_a_dump() {
    let topic = Kafka::shared().topic(2, &[]);
    send(&topic, 0..700);
    comes_back(caught_up(&topic, "complete"), &topic);
}

#[test]
fn records_come_back_into_a_topic_from_a_collection() {
    let topic = Kafka::shared().topic(2, &[]);
    send(&topic, 0..700);
    let feed = Feed::new(&topic).into_collection(Mongo::shared().collection()).with("kafka.framing", "complete");
    let feed = feed.with("kafka.max_records_per_trigger", 300).with("kafka.split_records", 60).with("kafka.chunk_size", "1KiB");
    feed.catch_up();
    assert_eq!(feed.verify(&["--deep"], 0).counts(), [0, 0, 0]);
    comes_back(feed, &topic);
}

#[test]
fn a_fleet_restores_a_job_over_a_topic() {
    let (topic, fleet) = (Kafka::shared().topic(2, &[]), Fleet::start(2, &[]));
    send(&topic, 0..700);
    let feed = Feed::new(&topic).with("kafka.framing", "complete").with("kafka.split_records", 60).on(&fleet);
    feed.run_call().run().expect_code(0);
    let back = Kafka::shared().topic(2, &[]);
    let report = feed.restore(&back.url(), &[]);
    assert_eq!((count(&report, "written"), count(&report, "records")), (2, topic.read().len() as u64));
    expect_equal(&topic, &back);
    let waves: Vec<_> = fleet.jobs().into_iter().filter(|(name, _)| name.starts_with("feed restore wave")).collect();
    assert!(!waves.is_empty() && waves.iter().all(|(_, status)| status == "Completed"), "{waves:?}");
}

#[test]
fn documents_of_single_records_come_back_with_the_fields_they_have() {
    for collection in [None, Some(Mongo::shared().collection())] {
        let topic = Kafka::shared().topic(2, &[]);
        send(&topic, 0..400);
        let mut feed =
            Feed::new(&topic).with("kafka.chunk_records", 1).with("kafka.include_headers", true).with("kafka.split_records", 150);
        feed.insert =
            "INSERT INTO documents SELECT id AS _id, topic, partition, \"offset\", timestamp, key, value, headers FROM feed;\n".to_string();
        if let Some(collection) = collection {
            feed = feed.into_collection(collection);
        }
        feed.catch_up();
        let back = Kafka::shared().topic(2, &[]);
        feed.restore(&back.url(), &[]);
        expect_equal(&topic, &back);
    }
    // Without their headers they are not what they were.
    let topic = Kafka::shared().topic(1, &[]);
    topic.send((1..9).map(|number| (0, odd(number))));
    let mut feed = Feed::new(&topic).with("kafka.chunk_records", 1);
    feed.insert = "INSERT INTO documents SELECT id AS _id, topic, partition, \"offset\", timestamp, key, value FROM feed;\n".to_string();
    feed.catch_up();
    let back = Kafka::shared().topic(1, &[]);
    feed.restore_call(&back.url(), &[]).run().expect_one_line(1, &["`headers`", "--lossy"]);
    assert!(back.read().is_empty());
    feed.restore(&back.url(), &["--lossy"]);
    let bare = |topic: &Topic<'_>| topic.read().into_values().map(|record| Record { headers: Vec::new(), ..record }).collect::<Vec<_>>();
    assert_eq!(back.read().into_values().collect::<Vec<_>>(), bare(&topic));
}

/// The content of each partition's records as lines.
fn lines(topic: &Topic<'_>) -> BTreeMap<i32, Vec<u8>> {
    let mut all: BTreeMap<i32, Vec<u8>> = BTreeMap::new();
    for ((partition, _), record) in topic.read() {
        let content = all.entry(partition).or_default();
        content.extend_from_slice(record.value.as_deref().unwrap_or_default());
        content.push(b'\n');
    }
    all
}

fn send_lines(topic: &Topic<'_>, numbers: std::ops::Range<usize>) {
    topic.send(numbers.map(|number| ((number % 2) as i32, Record::new(format!("event {number} {}", "x".repeat(number % 90))))));
}

#[test]
fn values_come_back_as_lines_of_files_and_objects() {
    let (topic, server) = (Kafka::shared().topic(2, &[]), Minio::plain());
    send_lines(&topic, 0..700);
    let mut feed = caught_up(&topic, "line");
    let expected: BTreeMap<String, Vec<u8>> =
        lines(&topic).into_iter().map(|(partition, content)| (format!("{}/{partition}/{:020}.lines", topic.name, 0), content)).collect();
    let to = feed.scratch.join("back");
    let target = to.to_str().unwrap();
    assert_eq!(count(&feed.restore(target, &[]), "written"), 2);
    expect_same(&below(&to), &expected);
    assert_eq!(count(&feed.restore(target, &[]), "written"), 0);
    let bucket = server.make_bucket();
    feed.variables = server.environment();
    for written in [2, 0] {
        assert_eq!(count(&feed.restore(&bucket.url("back/"), &[]), "written"), written);
        expect_same(&in_bucket(&bucket, "back/"), &expected);
    }
    // A query that went on has other files, which are not replaced without a word.
    send_lines(&topic, 700..710);
    feed.catch_up();
    for target in [target, &bucket.url("back/")] {
        feed.restore_call(target, &[]).run().expect_one_line(1, &["something else is there", "--overwrite"]);
        assert_eq!(count(&feed.restore(target, &["--overwrite"]), "written"), 2);
    }
    assert_eq!(below(&to).into_values().collect::<Vec<_>>(), lines(&topic).into_values().collect::<Vec<_>>());
}

/// Reads the documented layout, by code of the tests' own.
struct Frames(std::vec::IntoIter<u8>);

impl Frames {
    fn number<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.0.next().unwrap())
    }

    fn part(&mut self) -> Option<Vec<u8>> {
        let length = i32::from_be_bytes(self.number());
        (length >= 0).then(|| self.0.by_ref().take(length as usize).collect())
    }

    /// A record with its offset and time.
    fn record(&mut self) -> (i64, (Record, Option<i64>)) {
        let (offset, time) = (i64::from_be_bytes(self.number()), i64::from_be_bytes(self.number()));
        let (key, value) = (self.part(), self.part());
        let count = i32::from_be_bytes(self.number());
        let name = |name: Option<Vec<u8>>| String::from_utf8(name.unwrap()).unwrap();
        let headers = (0..count).map(|_| (name(self.part()), self.part().unwrap())).collect();
        (offset, (Record { key, value, headers }, Some(time)))
    }
}

fn unframe(path: &Path) -> Vec<(i64, (Record, Option<i64>))> {
    let mut frames = Frames(std::fs::read(path).unwrap().into_iter());
    let mut records = Vec::new();
    while frames.0.len() > 0 {
        records.push(frames.record());
    }
    records
}

#[test]
fn complete_records_come_back_into_files_of_the_documented_layout() {
    let topic = Kafka::shared().topic(2, &[]);
    send(&topic, 0..700);
    let feed = caught_up(&topic, "complete");
    let to = feed.scratch.join("back");
    feed.restore(to.to_str().unwrap(), &[]);
    let found: Vec<_> = files(&to).iter().flat_map(|path| unframe(path)).collect();
    let offsets: Vec<i64> = topic.read().into_keys().map(|(_, offset)| offset).collect();
    assert_eq!(found.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), offsets);
    assert!(found.into_iter().map(|(_, record)| record).eq(topic.in_order().into_values().flatten()));
    assert!(files(&to).iter().all(|path| path.extension().is_some_and(|end| end == "records")));
}

#[test]
fn what_cannot_come_back_is_refused_with_its_remedy() {
    let topic = Kafka::shared().topic(2, &[]);
    send_lines(&topic, 0..100);
    let (feed, back) = (caught_up(&topic, "line"), Kafka::shared().topic(2, &[]));
    feed.restore_call(&back.url(), &[]).run().expect_one_line(2, &["keys, times and headers", "'complete'", "--lossy"]);
    let narrow = Kafka::shared().topic(1, &[]);
    feed.restore_call(&narrow.url(), &["--lossy"]).run().expect_one_line(2, &["has 1 partitions", "at least as many"]);
    let nowhere = back.url().replace("feed", "nowhere");
    feed.restore_call(&nowhere, &["--lossy"]).run().expect_one_line(2, &["does not exist"]);
    feed.restore_call(&topic.url(), &["--lossy"]).run().expect_one_line(1, &["take an empty topic"]);
    feed.restore_call("./x", &["--lossy"]).run().expect_one_line(2, &["--to kafka://"]);
    assert!(back.read().is_empty() && narrow.read().is_empty());
    // What they have is sent where that is asked for.
    feed.restore(&back.url(), &["--lossy"]);
    assert_eq!(lines(&back), lines(&topic));
}

#[test]
fn a_hole_leaves_nothing_of_its_split_behind_and_once_filled_the_rest_follows() {
    let topic = Kafka::shared().topic(1, &[]);
    topic.send((0..600).map(|number| (0, odd(number))));
    let feed = Feed::new(&topic).into_collection(Mongo::shared().collection()).with("kafka.framing", "complete");
    let feed = feed.with("kafka.split_records", 100).with("kafka.chunk_size", "1KiB");
    feed.catch_up();
    let lost =
        feed.sink.read().documents.into_iter().find(|document| document.get_i64("first_offset").is_ok_and(|first| first > 250)).unwrap();
    feed.sink.collection().delete_one(doc! { "_id": lost.get_str("_id").unwrap() });
    let back = Kafka::shared().topic(1, &[]);
    feed.restore_call(&back.url(), &[]).run().expect_one_line(1, &["kafka:", "offset"]);
    assert!(back.read().is_empty(), "records of a transaction which was not committed are visible");
    feed.sink.collection().insert(lost);
    feed.restore(&back.url(), &[]);
    expect_equal(&topic, &back);
}

#[test]
fn a_restore_into_a_topic_killed_in_the_middle_goes_on_and_sends_nothing_twice() {
    let (topic, mongo) = (Kafka::shared().topic(1, &[]), Mongo::shared());
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    topic.send((0..4_000).map(|number| (0, Record { key: Some(vec![1]), ..Record::new(Random::new(number).bytes(10_000)) })));
    let feed = Feed::new(&topic).into_collection(mongo.collection_at(proxy.port)).with("kafka.framing", "complete");
    let feed = feed.with("kafka.split_records", 200).with("kafka.chunk_size", "64KiB");
    feed.catch_up();
    let back = Kafka::shared().topic(1, &[]);
    let mut before = 0;
    for _ in 0..2 {
        let stalls = proxy.fired();
        proxy.arm(Fault::StallReplies { bytes: 20_000_000 });
        let mut run = feed.restore_call(&back.url(), &[]).start();
        let is_stuck = || proxy.fired() > stalls && back.read().len() > before;
        assert!(run.runs_until("the database is silent, and something is committed", is_stuck), "the restore ended before the stall");
        assert_eq!(run.kill().signal, Some(9));
        proxy.arm(Fault::None);
        proxy.cut();
        let there = back.read().len();
        assert!(there > before && there < 4_000, "{there} records are there");
        before = there;
    }
    let report = feed.restore(&back.url(), &[]);
    assert_eq!(count(&report, "records"), 4_000 - before as u64, "only what was missing was sent");
    expect_equal(&topic, &back);
}

#[test]
fn dead_letters_are_named_and_keep_a_topic_from_being_restored_with_holes() {
    let topic = Kafka::shared().topic(1, &[]);
    topic.send((0..50).map(|number| (0, Record::new(if number == 20 { "two\nlines".to_string() } else { format!("{number}") }))));
    let feed = Feed::new(&topic).with("kafka.on_corrupt", "dead_letter");
    feed.catch_up();
    let to = feed.scratch.join("back");
    let finished = feed.restore_call(to.to_str().unwrap(), &[]).run().expect_code(1);
    assert!(finished.stdout.contains("/0 offset 20") && finished.stdout.contains("line feed"), "{}", finished.stdout);
    let expected: String = (0..50).filter(|number| *number != 20).map(|number| format!("{number}\n")).collect();
    assert_eq!(below(&to).into_values().collect::<Vec<_>>(), [expected.into_bytes()]);
    let back = Kafka::shared().topic(1, &[]);
    feed.restore_call(&back.url(), &["--lossy"]).run().expect_one_line(1, &["dead letters", "dead-letters retry", "--partial"]);
    assert!(back.read().is_empty());
    feed.restore(&back.url(), &["--lossy", "--partial"]);
    assert_eq!(back.read().len(), 49);
    assert!(matches!(feed.sink, Sink::Bson(_)));
}
