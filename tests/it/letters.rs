//! Dead letters: what becomes one, what is kept of it, and the second try.

use baler_tests::baler::Baler;
use baler_tests::corpus::{self, Random};
use baler_tests::feed::Feed;
use baler_tests::fleet::Fleet;
use baler_tests::job::{Job, Report};
use baler_tests::kafka::Kafka;
use baler_tests::mongo::Mongo;
use baler_tests::topic::Record;

fn event(number: usize) -> Record {
    Record { key: Some(vec![number as u8]), ..Record::new(format!("event {number}")) }
}

#[test]
fn a_record_which_no_document_can_hold_ends_the_query_or_becomes_a_dead_letter() {
    let topic = Kafka::shared().topic(1, &[]);
    let mut random = Random::new(3);
    let huge: Vec<u8> = (0..17 << 20).map(|_| random.below(256) as u8).collect();
    topic.send([(0, event(1)), (0, Record::new(huge)), (0, event(2))]);
    let mut feed = Feed::new(&topic).with("kafka.framing", "length_prefixed");
    feed.stream_call(&["--available-now"]).run().expect_last_line(1, &["cannot take document"]);
    feed.name = "lenient".to_string();
    feed.sink_options = vec![("bson.on_error", "dead_letter")];
    feed.catch_up();
    let state = feed.state().display().to_string();
    let text = Baler::new(["dead-letters", "list", "--job", "lenient", "--state", &state]).run().expect_code(0).stdout;
    assert!(text.contains(&format!("kafka:{}/0 document ", topic.name)) && text.contains("\n1 dead letters"), "{text}");
    let letters = feed.dead_letters("list", 0);
    let stored = feed.sink.read();
    assert_eq!((letters.as_array().unwrap().len(), stored.ids().len()), (1, 2));
    assert!(!stored.ids().contains(letters[0]["id"].as_str().unwrap()));
    let nowhere = ["dead-letters", "list", "--job", "nowhere", "--state", &state];
    Baler::new(nowhere).run().expect_one_line(2, &["nowhere"]);
}

#[test]
fn a_record_which_is_no_line_is_kept_whole_and_the_others_are_stored() {
    let topic = Kafka::shared().topic(2, &[]);
    topic.send((0..400).map(|number| ((number % 2) as i32, event(number))));
    let poison = Record { key: Some(b"k".to_vec()), ..Record::new("two\nlines") };
    topic.send([(1, poison)]);
    topic.send((400..800).map(|number| ((number % 2) as i32, event(number))));
    let mut feed = Feed::new(&topic).with("kafka.split_records", 150).with("kafka.chunk_size", "1KiB");
    feed.stream_call(&["--available-now"]).run().expect_last_line(1, &["partition 1 offset 200", "line feed", "length_prefixed"]);
    feed.name = "lenient".to_string();
    feed = feed.with("kafka.on_corrupt", "dead_letter");
    feed.catch_up();
    let mut expected = topic.read();
    expected.remove(&(1, 200));
    feed.expect_records(&expected);
    let letters = feed.dead_letters("list", 0);
    let [letter] = letters.as_array().unwrap().as_slice() else { panic!("{letters}") };
    assert_eq!((letter["object"].as_str(), letter["byte_offset"].as_u64()), (Some(format!("kafka:{}/1", topic.name).as_str()), Some(200)));
    assert_eq!((letter["key"].as_str(), letter["value"].as_str()), (Some("6b"), Some("74776f0a6c696e6573")), "in hexadecimal digits");
    let report = feed.verify(&["--deep"], 0);
    assert_eq!((report.counts(), report.count("dead_letters")), ([0, 0, 0], 1));
    // Without a job nothing would keep the letter.
    let ask = feed.source_table() + "SELECT count(*) FROM feed";
    Baler::new(["sql", "--command", &ask]).run().expect_last_line(2, &["kafka.on_corrupt", "baler stream"]);
}

#[test]
fn documents_which_the_target_refused_are_written_by_a_retry_once_it_takes_them() {
    retry_objects(Job::new().into_collection(Mongo::shared().collection()), None);
}

#[test]
fn a_retry_on_a_fleet_writes_them_too() {
    let fleet = Fleet::start(2, &[]);
    retry_objects(Job::new().into_collection(Mongo::shared().collection()).on(&fleet), Some(fleet.url()));
}

fn retry_objects(mut job: Job<'_>, scheduler: Option<String>) {
    let objects = job.add_shapes(&corpus::texts());
    job.sink_options.push(("mongodb.on_error", "dead_letter"));
    // All documents have the same codec, so only the first one is accepted.
    job.sink.collection().require_distinct("codec");
    job.run();
    let refused = job.dead_letters().len();
    assert!(refused > 1 && job.sink.collection().count() == 1, "{refused} were refused");
    let retry = || {
        let mut arguments = vec!["dead-letters", "retry", "--job", &job.name, "--state", &job.state, "--output", "json"];
        if let Some(scheduler) = &scheduler {
            arguments.extend(["--scheduler", scheduler]);
        }
        Baler::new(arguments).envs(&job.variables)
    };
    retry().run().expect_code(1);
    assert_eq!((job.dead_letters().len(), job.sink.collection().count()), (refused, 1), "the target has not changed");
    job.sink.collection().allow_equal();
    retry().run().expect_code(0);
    assert_eq!(job.dead_letters().len(), 0);
    job.expect_complete(&objects);
    assert!(retry().run().expect_code(0).stdout.contains(r#""jobs": 0"#), "there is nothing left to retry");
}

#[test]
fn refused_micro_batches_are_written_by_a_retry_while_the_query_goes_on() {
    let topic = Kafka::shared().topic(2, &[]);
    topic.send((0..600).map(|number| ((number % 2) as i32, event(number))));
    let mut feed = Feed::new(&topic).into_collection(Mongo::shared().collection());
    feed = feed.with("kafka.max_records_per_trigger", 200).with("kafka.chunk_size", "1KiB");
    feed.sink_options = vec![("mongodb.on_error", "dead_letter")];
    feed.sink.collection().require_distinct("codec");
    // All but the newest are folded, and keep what a retry needs.
    let catch_up = |feed: &Feed<'_>| feed.stream_call(&["--available-now", "--keep-batches", "1"]).run().expect_code(0);
    catch_up(&feed);
    let refused = feed.dead_letters("list", 0).as_array().unwrap().len();
    assert!(refused > 3, "{refused} were refused");
    feed.sink.collection().allow_equal();
    topic.send((600..700).map(|number| ((number % 2) as i32, event(number))));
    catch_up(&feed);
    assert_eq!((feed.batches("folded"), feed.batches("offsets")), (3, 1));
    let retried = feed.dead_letters("retry", 0);
    assert_eq!((retried["jobs"].as_u64(), retried["before"].as_u64(), retried["after"].as_u64()), (Some(3), Some(refused as u64), Some(0)));
    feed.expect_all();
    let report: Report = feed.verify(&["--deep"], 0);
    assert_eq!((report.counts(), report.count("dead_letters")), ([0, 0, 0], 0));
}
