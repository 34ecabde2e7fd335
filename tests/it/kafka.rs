//! Topics as tables and as the input of `baler run`: ranges, gaps, sizes, and what is gone.

use baler_tests::baler::Baler;
use baler_tests::feed::Feed;
use baler_tests::fleet::Fleet;
use baler_tests::kafka::{Kafka, Record, Topic};
use baler_tests::mongo::Mongo;

const CONFIGURATION: i32 = 2;
const UNREACHABLE: i32 = 3;

/// The record with this number, as JSON of about 150 bytes.
fn event(number: usize) -> Record {
    let value = format!(r#"{{"n":{number},"user":{{"id":"u-{}"}},"price":{}.5,"note":"{}"}}"#, number % 7, number % 100, "x".repeat(100));
    Record { key: Some(format!("u-{}", number % 7).into_bytes()), ..Record::new(value) }
}

/// Sends `count` events over all partitions in turn.
fn send_events(topic: &Topic<'_>, partitions: usize, count: usize) {
    topic.send((0..count).map(|number| ((number % partitions) as i32, event(number))));
}

/// The only number in the answer to `query`.
#[track_caller]
fn number(feed: &Feed<'_>, query: &str) -> i64 {
    let text = feed.ask(query);
    text.lines().last().unwrap().parse().unwrap_or_else(|_| panic!("no number: {text}"))
}

#[test]
fn a_topic_is_counted_and_its_json_is_read_by_sql() {
    let topic = Kafka::shared().topic(3, &[]);
    send_events(&topic, 3, 1000);
    let chunks = Feed::new(&topic);
    assert_eq!(number(&chunks, "SELECT sum(records) FROM feed"), 1000);
    let rows = Feed::new(&topic).with("kafka.chunk_records", 1);
    assert_eq!(number(&rows, "SELECT count(*) FROM feed"), 1000);
    assert_eq!(number(&rows, "SELECT count(DISTINCT id) FROM feed"), 1000);
    let users = rows.ask(
        "SELECT json_get_str(CAST(value AS VARCHAR), 'user', 'id') AS user, count(*) AS events, max(CAST(value AS VARCHAR)->>'n') IS NOT NULL AS has_n,
                sum(json_get_int(CAST(value AS VARCHAR), 'n')) AS n, sum(json_get_float(CAST(value AS VARCHAR), 'price')) > 0 AS paid
         FROM feed WHERE CAST(key AS VARCHAR) = 'u-3' GROUP BY 1",
    );
    let mine: Vec<usize> = (0..1000).filter(|number| number % 7 == 3).collect();
    assert_eq!(users.lines().last().unwrap(), format!("u-3,{},true,{},true", mine.len(), mine.iter().sum::<usize>()));
    // An empty topic is an empty table.
    let empty = Kafka::shared().topic(2, &[]);
    assert_eq!(number(&Feed::new(&empty), "SELECT count(*) FROM feed"), 0);
}

#[test]
fn a_job_brings_each_record_into_one_document_and_its_repetition_reads_no_more() {
    let topic = Kafka::shared().topic(4, &[]);
    send_events(&topic, 4, 5000);
    let feed = Feed::new(&topic).with("kafka.split_records", 300);
    feed.run_call().run().expect_code(0);
    let then = topic.read();
    feed.expect_records(&then);
    send_events(&topic, 4, 100);
    let again = feed.run_call().run().expect_code(0);
    assert!(again.stdout.contains("complete already"), "{}", again.stdout);
    feed.expect_records(&then);
    let collection = Feed::new(&topic).into_collection(Mongo::shared().collection());
    collection.run_call().run().expect_code(0);
    collection.expect_all();
}

#[test]
fn a_hot_partition_is_read_in_parallel_and_gives_the_same_records() {
    let topic = Kafka::shared().topic(20, &[]);
    topic.send((0..20).map(|partition| (partition, event(partition as usize))));
    topic.send((0..30_000).map(|number| (7, event(number))));
    let feed = Feed::new(&topic).with("kafka.split_records", 2000);
    let shown = feed.run_call().run().expect_code(0).stdout;
    assert!(shown.contains("30020 records") && shown.contains(" 35 splits"), "{shown}");
    feed.expect_all();
}

#[test]
fn records_of_aborted_transactions_and_markers_leave_gaps_and_nothing_else() {
    let topic = Kafka::shared().topic(2, &[]);
    for round in 0..6 {
        topic.send_transaction((0..40).map(|number| (number % 2, event(round * 100 + number as usize))), round % 2 == 0);
    }
    // The last offsets of both partitions are an aborted transaction and its marker: no record ends the range.
    let feed = Feed::new(&topic).with("kafka.split_records", 17);
    feed.run_call().run().expect_code(0);
    assert_eq!(topic.read().len(), 120);
    feed.expect_all();
    assert_eq!(number(&feed, "SELECT sum(records) FROM feed"), 120);
    let all = Feed::new(&topic).with("kafka.isolation_level", "read_uncommitted").with("kafka.chunk_records", 1);
    assert_eq!(number(&all, "SELECT count(*) FROM feed"), 240);
}

#[test]
fn records_of_any_size_compressed_batches_and_tombstones_arrive_as_they_are() {
    let topic = Kafka::shared().topic(1, &[]);
    let sizes = [0, 1, 1000, 1 << 20, 10 << 20, 1, 0];
    for method in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let producer = topic.producer(&[("compression.type", method)]);
        for size in sizes {
            let value: Vec<u8> = (0..size).map(|at: usize| b'a' + (at / 7 * 31 % 23) as u8).collect();
            producer.send(0, &Record::new(value));
        }
        producer.send(0, &Record { key: Some(b"gone".to_vec()), ..Record::default() });
        producer.flush();
    }
    let feed = Feed::new(&topic);
    feed.run_call().run().expect_code(0);
    feed.expect_all();
    let rows = Feed::new(&topic).with("kafka.chunk_records", 1);
    let counts = rows.ask("SELECT count(*) AS a, count(value) AS v, count(key) AS k, max(octet_length(value)) AS m FROM feed");
    assert_eq!(counts.lines().last().unwrap(), format!("40,35,5,{}", 10 << 20));
}

#[test]
fn keys_headers_times_and_offsets_are_columns_of_single_records() {
    let topic = Kafka::shared().topic(1, &[]);
    let headers = vec![("trace".to_string(), b"7f".to_vec()), ("trace".to_string(), b"80".to_vec())];
    topic.send([(0, Record { headers, ..event(1) }), (0, event(2))]);
    let feed = Feed::new(&topic).with("kafka.chunk_records", 1).with("kafka.include_headers", "true");
    let rows = feed.ask(
        "SELECT \"offset\", topic, partition, CAST(key AS VARCHAR) AS key, cardinality(headers) AS h, CAST(headers[2]['value'] AS VARCHAR) AS trace,
                timestamp > TIMESTAMP '2020-01-01T00:00:00Z' AS recent FROM feed ORDER BY \"offset\"",
    );
    let expected = format!("0,{0},0,u-1,2,80,true\n1,{0},0,u-2,0,,true\n", topic.name);
    assert!(rows.ends_with(&expected), "{rows}");
}

#[test]
fn bounds_by_offset_and_time_are_kept_and_wrong_ones_are_refused() {
    let topic = Kafka::shared().topic(2, &[]);
    send_events(&topic, 2, 100);
    let count = |from: &str, to: &str| {
        let feed = Feed::new(&topic).with("kafka.starting_offsets", from).with("kafka.ending_offsets", to);
        number(&feed, "SELECT coalesce(sum(records), 0) FROM feed")
    };
    assert_eq!(count("earliest", "latest"), 100);
    assert_eq!(count(r#"{"0": 10, "1": -2}"#, r#"{"0": 20, "1": -1}"#), 60);
    assert_eq!(count("2020-01-01T00:00:00Z", "latest"), 100);
    assert_eq!(count("2099-01-01T00:00:00Z", "latest"), 0);
    assert_eq!(count("latest", "latest"), 0);
    let refused = |option: &'static str, value: &str, code, words: &[&str]| {
        let feed = Feed::new(&topic).with(option, value);
        let text = feed.source_table() + "SELECT count(*) FROM feed";
        Baler::new(["sql", "--command", &text]).run().expect_one_line(code, words);
    };
    refused("kafka.starting_offsets", r#"{"0": 1}"#, CONFIGURATION, &["partition 1"]);
    refused("kafka.starting_offsets", r#"{"0": 1, "1": 1, "9": 1}"#, CONFIGURATION, &["no partition 9"]);
    refused("kafka.starting_offsets", r#"{"0": 7000, "1": 1}"#, 1, &["partition 0", "7000", "the latest is 50", "fail_on_data_loss"]);
    refused("kafka.starting_ofsets", "latest", CONFIGURATION, &["kafka.starting_offsets"]);
}

#[test]
fn records_which_retention_removed_fail_the_job_or_are_left_out() {
    let topic = Kafka::shared().topic(1, &[]);
    topic.send((0..100).map(|number| (0, event(number))));
    topic.trim(0, 60);
    let pinned = || Feed::new(&topic).with("kafka.starting_offsets", r#"{"0": 5}"#);
    pinned().run_call().run().expect_one_line(1, &[&topic.name, "partition 0", "offset 5", "earliest is 60", "fail_on_data_loss"]);
    let feed = pinned().with("kafka.fail_on_data_loss", "false");
    feed.run_call().run().expect_code(0);
    assert_eq!(topic.read().len(), 40);
    feed.expect_all();
}

#[test]
fn a_compacted_topic_is_read_over_its_gaps() {
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "100"),
    ];
    let topic = Kafka::shared().topic(1, &settings);
    let before = 40_000;
    topic.send((0..before).map(|number| (0, event(number))));
    baler_tests::wait_until("the topic is compacted", || topic.read().len() < before / 2);
    // Compaction may go on while the job runs, but what is left of old segments is stable now.
    let feed = Feed::new(&topic).with("kafka.split_records", 5000);
    feed.run_call().run().expect_code(0);
    feed.expect_all();
}

#[test]
fn a_fleet_reads_a_topic_as_one_process_does() {
    let topic = Kafka::shared().topic(5, &[]);
    send_events(&topic, 5, 6000);
    let fleet = Fleet::start(2, &[]);
    let feed = Feed::new(&topic).into_collection(Mongo::shared().collection()).on(&fleet).with("kafka.split_records", 200);
    feed.run_call().run().expect_code(0);
    feed.expect_all();
    let rows = Feed::new(&topic).with("kafka.chunk_records", 1).on(&fleet);
    assert_eq!(number(&rows, "SELECT count(*) FROM feed"), 6000);
    assert_eq!(number(&rows, "SELECT sum(json_get_int(CAST(value AS VARCHAR), 'n')) FROM feed"), 5999 * 3000);
}

#[test]
fn a_broker_that_goes_away_and_comes_back_costs_time_and_no_record() {
    let kafka = Kafka::start();
    let topic = kafka.topic(2, &[]);
    let wide = |number: usize| Record::new(vec![b'a' + (number % 26) as u8; 20_000]);
    topic.send((0..4000).map(|number| ((number % 2) as i32, wide(number))));
    let feed = Feed::new(&topic).into_collection(Mongo::shared().collection()).with("kafka.split_records", 100);
    let mut run = feed.run_call().start();
    let receipts = feed.state().join(&feed.name).join("receipts");
    assert!(
        run.runs_until("some splits are done", || baler_tests::job::files(&receipts).len() >= 3),
        "the job ended before the broker did"
    );
    kafka.kill();
    kafka.restart();
    run.wait().expect_code(0);
    feed.expect_all();
}

#[test]
fn mistakes_about_a_topic_are_one_clear_line() {
    let kafka = Kafka::shared();
    let count = |location: &str, options: &str| {
        let text = format!("CREATE EXTERNAL TABLE feed STORED AS KAFKA LOCATION '{location}' {options}; SELECT count(*) FROM feed");
        Baler::new(["sql", "--command", &text]).run()
    };
    let missing = format!("kafka://127.0.0.1:{}/no-such-topic", kafka.port);
    count(&missing, "").expect_one_line(CONFIGURATION, &["no-such-topic", "does not exist"]);
    count("kafka://127.0.0.1:1/t", "").expect_one_line(UNREACHABLE, &["127.0.0.1:1", "brokers"]);
    count("kafka://user:hunter2@h/t", "").expect_one_line(CONFIGURATION, &["KAFKA_PASSWORD"]).expect_no_secret("hunter2");
    count(&missing, "OPTIONS ('kafka.client.sasl.password' 'hunter2')")
        .expect_one_line(CONFIGURATION, &["KAFKA_PASSWORD"])
        .expect_no_secret("hunter2");
    count(&missing, "OPTIONS ('kafka.client.fetch.wait.ms' '7')").expect_one_line(CONFIGURATION, &["fetch.wait.ms"]);
    let topic = kafka.topic(1, &[]);
    topic.send([(0, event(0)), (0, Record::new("two\nlines"))]);
    Feed::new(&topic).run_call().run().expect_one_line(1, &[&topic.name, "partition 0", "offset 1", "length_prefixed"]);
    let feed = Feed::new(&topic).with("kafka.framing", "length_prefixed");
    assert_eq!(number(&feed, "SELECT sum(records) FROM feed"), 2);
}
