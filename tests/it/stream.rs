//! `baler stream`: micro-batches, caps, kills at each step of the driver, two drivers, topics which change, and servers which go away.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use baler_tests::baler::{Baler, Running};
use baler_tests::corpus::Random;
use baler_tests::feed::Feed;
use baler_tests::fleet::Fleet;
use baler_tests::kafka::Kafka;
use baler_tests::mongo::Mongo;
use baler_tests::servers::say;
use baler_tests::topic::{Record, Topic};
use baler_tests::{packages, wait_until};

const SIGKILL: i32 = 9;
/// The steps at which a driver can be stopped, in their order.
const STEPS: [&str; 5] = ["recovered", "resolved", "begun", "written", "committed"];

fn event(number: usize) -> Record {
    Record { key: Some(vec![number as u8]), ..Record::new(format!(r#"{{"n":{number},"note":"{}"}}"#, "y".repeat(number % 300))) }
}

/// Sends events `numbers` over all partitions in turn.
fn send(topic: &Topic<'_>, partitions: usize, numbers: std::ops::Range<usize>) {
    topic.send(numbers.map(|number| ((number % partitions) as i32, event(number))));
}

/// Starts the query so that it stops at a step, waits until it is there, and kills it.
#[track_caller]
fn kill_at(feed: &Feed<'_>, step: &str, batch: usize, more: &[&str]) {
    let place = format!("{step}:{batch}");
    let mut run = feed.stream_call(more).envs(&[("BALER_TEST_STOP_AT".to_string(), place.clone())]).start();
    wait_for(&mut run, &format!("stopped at {place}"));
    assert_eq!(run.kill().signal, Some(SIGKILL));
}

/// Waits until a run says these words.
#[track_caller]
fn wait_for(run: &mut Running, words: &str) {
    wait_until(words, || run.stderr().contains(words) || !run.is_running());
    assert!(run.stderr().contains(words), "it ended before it said `{words}`: {}", run.stderr());
}

#[test]
fn a_query_catches_up_in_capped_batches_and_goes_on_where_it_stopped() {
    let topic = Kafka::shared().topic(3, &[]);
    send(&topic, 3, 0..2000);
    // 100 records a second and partition, for a trigger of 2 seconds: at most 600 in a batch.
    let feed = Feed::new(&topic).with("kafka.max_records_per_partition_per_second", 100);
    let caught_up =
        |feed: &Feed<'_>| feed.stream_call(&["--available-now", "--trigger", "2s", "--output", "json"]).run().expect_code(0).stdout;
    let summary: serde_json::Value = serde_json::from_str(&caught_up(&feed)).unwrap();
    assert_eq!((&summary["batches"], &summary["records"]), (&4.into(), &2000.into()));
    assert_eq!((feed.batches("offsets"), feed.batches("commits")), (4, 4));
    feed.expect_all();
    // Nothing new: nothing is begun.
    caught_up(&feed);
    assert_eq!(feed.batches("offsets"), 4);
    send(&topic, 3, 2000..2100);
    caught_up(&feed);
    feed.expect_all();
    assert_eq!(feed.batches("commits"), 5);
    let committed = topic.committed("baler-feed", 3);
    assert_eq!(committed.values().sum::<i64>(), 2100, "the group's offsets are the next ones: {committed:?}");
}

#[test]
fn a_driver_killed_at_any_step_of_any_batch_loses_and_doubles_nothing() {
    for (round, in_collection) in [false, true].into_iter().enumerate() {
        let topic = Kafka::shared().topic(2, &[]);
        let mut feed = Feed::new(&topic).with("kafka.max_records_per_trigger", 150).with("kafka.split_records", 40);
        if in_collection {
            feed = feed.into_collection(Mongo::shared().collection());
        }
        send(&topic, 2, 0..400);
        for (number, step) in STEPS.into_iter().enumerate().chain(STEPS.into_iter().enumerate()) {
            // What is begun when the driver comes back: where it was `recovered` first is the newest batch, not the next one.
            let newest = feed.batches("offsets").saturating_sub(1);
            let next = feed.batches("commits");
            kill_at(&feed, step, if step == "recovered" { newest } else { next }, &["--available-now"]);
            // A producer goes on meanwhile, in part with transactions which come to nothing.
            let from = 400 + number * 60;
            topic.send_transaction((from..from + 30).map(|number| ((number % 2) as i32, event(number))), true);
            topic.send_transaction((from..from + 30).map(|number| ((number % 2) as i32, event(number))), false);
        }
        feed.catch_up();
        feed.expect_all();
        assert_eq!(feed.batches("offsets"), feed.batches("commits"), "round {round}");
    }
}

#[test]
fn drivers_killed_at_random_while_producers_run_lose_and_double_nothing() {
    let seed = std::env::var("BALER_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    say(&format!("seed of the random kills: {seed} (set BALER_TEST_SEED to repeat another)"));
    let topic = Kafka::shared().topic(4, &[]);
    let feed = Feed::new(&topic)
        .into_collection(Mongo::shared().collection())
        .with("kafka.max_records_per_trigger", 700)
        .with("kafka.split_records", 100);
    let (mut random, done) = (Random::new(seed), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let producer = topic.producer(&[]);
            for number in 0.. {
                producer.send((number % 4) as i32, &event(number));
                if number % 50 == 0 {
                    producer.flush();
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                if done.load(Ordering::Relaxed) && number > 4000 {
                    break;
                }
            }
            producer.flush();
        });
        let mut kills = 0;
        while kills < 6 {
            let (commits, looks) = (feed.batches("commits") + random.below(3) as usize, random.below(40));
            let mut run = feed.stream_call(&["--trigger", "50ms"]).start();
            let mut look = 0;
            assert!(run.runs_until("a random point is reached", || {
                look += u64::from(feed.batches("commits") >= commits);
                look > looks
            }));
            kills += usize::from(run.kill().signal == Some(SIGKILL));
        }
        done.store(true, Ordering::Relaxed);
    });
    feed.catch_up();
    feed.expect_all();
}

#[test]
fn an_older_driver_is_fenced_off_by_a_newer_one() {
    let topic = Kafka::shared().topic(1, &[]);
    send(&topic, 1, 0..100);
    let feed = Feed::new(&topic);
    let old = {
        let mut run = feed.stream_call(&["--trigger", "100ms"]).start();
        wait_until("the first driver has committed", || feed.batches("commits") == 1 || !run.is_running());
        run
    };
    feed.catch_up();
    send(&topic, 1, 100..200);
    old.wait().expect_last_line(1, &["feed", "taken over", "epoch 2"]);
    assert_eq!(feed.batches("offsets"), 1, "the older driver began a batch");
    feed.catch_up();
    feed.expect_all();
}

#[test]
fn a_query_runs_on_until_it_is_terminated_and_says_how_to_go_on() {
    let topic = Kafka::shared().topic(2, &[]);
    let feed = Feed::new(&topic).with("kafka.starting_offsets", "latest");
    send(&topic, 2, 0..50);
    let mut run = feed.stream_call(&["--trigger", "200ms"]).start();
    wait_until("it has begun at the latest offsets", || feed.batches("commits") == 1 || !run.is_running());
    let before = topic.read();
    send(&topic, 2, 50..90);
    wait_until("records are committed", || feed.batches("commits") >= 2 || !run.is_running());
    let text = run.terminate().expect_code(0).stderr;
    assert!(text.contains("again") && text.contains("query `feed`"), "{text}");
    feed.catch_up();
    let mut expected = topic.read();
    expected.retain(|place, _| !before.contains_key(place));
    feed.expect_records(&expected);
}

#[test]
fn new_partitions_are_found_and_read_from_their_first_record() {
    let topic = Kafka::shared().topic(1, &[]);
    send(&topic, 1, 0..60);
    let feed = Feed::new(&topic);
    feed.catch_up();
    topic.grow(3);
    send(&topic, 3, 60..200);
    feed.catch_up();
    feed.expect_all();
}

#[test]
fn lost_records_and_a_topic_made_anew_end_the_query_with_their_place() {
    let topic = Kafka::shared().topic(2, &[]);
    send(&topic, 2, 0..100);
    let feed = Feed::new(&topic);
    feed.catch_up();
    send(&topic, 2, 100..200);
    topic.trim(1, 80);
    let refused = |words: &[&str]| feed.stream_call(&["--available-now"]).run().expect_one_line(1, words);
    refused(&[&topic.name, "partition 1", "offset 50", "earliest is 80", "fail_on_data_loss"]);
    let lenient = Feed { name: feed.name.clone(), ..Feed::new(&topic).with("kafka.fail_on_data_loss", "false") };
    std::fs::create_dir_all(lenient.state()).unwrap();
    copy_folder(&feed.state(), &lenient.state());
    lenient.catch_up();
    assert_eq!(lenient.batches("commits"), 2);
    topic.delete();
    topic.create(2, &[]);
    send(&topic, 2, 0..10);
    refused(&[&topic.name, "partition 0", "re-created"]);
    // One that has grown past what was read, with offsets that seem to follow.
    send(&topic, 2, 0..900);
    refused(&[&topic.name, "re-created", "younger"]);
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    for path in baler_tests::job::files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(path, target).unwrap();
    }
}

#[test]
fn a_broker_and_a_database_which_are_killed_cost_time_and_no_record() {
    let (kafka, mongo) = (Kafka::start(), Mongo::start());
    let topic = kafka.topic(2, &[]);
    let collection = mongo.collection();
    collection.settle();
    let feed = Feed::new(&topic).into_collection(collection);
    send(&topic, 2, 0..100);
    let mut run = feed.stream_call(&["--trigger", "100ms"]).start();
    let mut wait_commits = |count: usize| {
        wait_until("batches are committed", || feed.batches("commits") >= count || !run.is_running());
        assert!(run.is_running(), "{}", run.stderr());
    };
    wait_commits(1);
    kafka.kill();
    kafka.restart();
    send(&topic, 2, 100..200);
    wait_commits(2);
    mongo.kill();
    send(&topic, 2, 200..300);
    mongo.restart();
    wait_commits(3);
    run.terminate().expect_code(0);
    feed.catch_up();
    feed.expect_all();
}

#[test]
fn a_fleet_runs_micro_batches_and_loses_an_executor_without_a_record() {
    let topic = Kafka::shared().topic(4, &[]);
    let mut fleet = Fleet::start(2, &[]);
    let feed = Feed::new(&topic).into_collection(Mongo::shared().collection()).on(&fleet).with("kafka.split_records", 100);
    send(&topic, 4, 0..3000);
    let mut run = feed.stream_call(&["--trigger", "200ms"]).start();
    wait_until("a first batch is committed", || feed.batches("commits") >= 1 || !run.is_running());
    send(&topic, 4, 3000..6000);
    fleet.kill_executor(0);
    wait_until("a second batch is committed", || feed.batches("commits") >= 2 || !run.is_running());
    run.terminate().expect_code(0);
    feed.catch_up();
    feed.expect_all();
}

#[test]
fn a_query_over_a_join_with_a_file_writes_each_record_once() {
    let topic = Kafka::shared().topic(2, &[]);
    send(&topic, 2, 0..300);
    let mut feed = Feed::new(&topic).with("kafka.chunk_records", 1).with("kafka.max_records_per_trigger", 100);
    std::fs::write(feed.scratch.join("names.csv"), "n,name\n0,zero\n1,one\n2,two\n").unwrap();
    feed.insert = format!(
        "CREATE EXTERNAL TABLE names STORED AS CSV LOCATION '{}' OPTIONS ('format.has_header' 'true');
         INSERT INTO documents SELECT feed.id AS _id, names.name, \"offset\" AS at FROM feed
         JOIN names ON json_get_int(CAST(value AS VARCHAR), 'n') % 3 = names.n",
        feed.scratch.join("names.csv").display()
    );
    feed.catch_up();
    let stored = feed.sink.read();
    assert_eq!((stored.ids().len(), feed.batches("commits")), (300, 3));
    assert_eq!(stored.documents.iter().filter(|document| document.get_str("name") == Ok("two")).count(), 100);
}

#[test]
fn the_seeds_statement_streams_twenty_partitions_into_a_collection() {
    let topic = Kafka::shared().topic(20, &[]);
    send(&topic, 20, 0..5000);
    let collection = Mongo::shared().collection();
    let feed = Feed::new(&topic).into_collection(collection);
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/stream.sql").display().to_string();
    let set = [format!("INPUT={}", topic.url()), format!("OUTPUT={}", feed.sink_location())];
    let state = feed.state().display().to_string();
    let arguments = ["stream", &file, "--name", "feed", "--state", &state, "--available-now", "--set", &set[0], "--set", &set[1]];
    Baler::new(arguments).run().expect_code(0);
    feed.expect_all();
}

#[test]
fn a_query_is_shown_and_goes_back_to_where_it_is_told() {
    let topic = Kafka::shared().topic(2, &[]);
    send(&topic, 2, 0..300);
    let mut feed = Feed::new(&topic).with("kafka.chunk_records", 1).with("kafka.max_records_per_trigger", 100);
    feed.insert = "INSERT INTO documents SELECT id AS _id, \"offset\" AS at FROM feed".to_string();
    feed.catch_up();
    let state = feed.state().display().to_string();
    let checkpoint = |words: &[&str]| {
        let place = ["--name", "feed", "--state", &state];
        Baler::new(["checkpoint"].iter().chain(words).chain(&place).map(ToString::to_string)).run()
    };
    let shown = checkpoint(&["show"]).expect_code(0).stdout;
    assert!(shown.contains("micro-batch 2 of epoch 1: 100 offsets, committed") && shown.contains("partition 1    100 … 150"), "{shown}");
    let shown = checkpoint(&["show", "--output", "json", "--last", "1"]).expect_code(0).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((shown.as_array().unwrap().len(), &shown[0]["commit"]["records"]), (1, &0.into()));

    let listed = Baler::new(["jobs", "--state", &state]).run().expect_code(0).stdout;
    let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["feed", "streaming", "3/3", "0", "B", "-", "1", "0", "records,", "0", "s"]);

    // Back to the beginning of the second micro-batch: 200 records are read again, and each is stored once.
    checkpoint(&["rewind", "--to-batch", "1"]).expect_code(0);
    feed.catch_up();
    assert_eq!((feed.batches("commits"), feed.sink.read().ids().len()), (6, 300));
    checkpoint(&["rewind", "--to-offsets", r#"{"0": 149}"#]).expect_code(0);
    let text = feed.catch_up().stdout;
    assert!(text.contains("1 micro-batches") && text.contains("1 documents"), "{text}");
    checkpoint(&["rewind", "--to-time", "2020-01-01T00:00:00Z"]).expect_one_line(2, &["began at"]);
    checkpoint(&["rewind", "--to-batch", "70"]).expect_one_line(2, &["micro-batch 70", "newest"]);
    checkpoint(&["rewind", "--to-offsets", r#"{"9": 1}"#]).expect_one_line(2, &["partition 9"]);
}

#[test]
fn a_driver_that_runs_while_its_query_is_rewound_is_fenced_off() {
    let topic = Kafka::shared().topic(1, &[]);
    send(&topic, 1, 0..50);
    let feed = Feed::new(&topic);
    let mut run = feed.stream_call(&["--trigger", "100ms"]).start();
    wait_until("a batch is committed", || feed.batches("commits") == 1 || !run.is_running());
    let state = feed.state().display().to_string();
    Baler::new(["checkpoint", "rewind", "--to-batch", "0", "--name", "feed", "--state", &state]).run().expect_code(0);
    send(&topic, 1, 50..60);
    run.wait().expect_last_line(1, &["taken over"]);
}

/// librdkafka waits by C11's `cnd_timedwait`, which glibc serves past libfaketime: a wait until a faked time would be over at once, or last for
/// days. This library hands such waits to `pthread_cond_timedwait`, which libfaketime knows.
fn c11_waits(feed: &Feed<'_>) -> PathBuf {
    const SOURCE: &str = r"
#include <errno.h>
#include <pthread.h>
#include <threads.h>
int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    int ended = pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until);
    return ended == 0 ? thrd_success : ended == ETIMEDOUT ? thrd_timedout : thrd_error;
}
";
    let (source, library) = (feed.scratch.join("waits.c"), feed.scratch.join("waits.so"));
    std::fs::write(&source, SOURCE).unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(compiled.is_ok_and(|status| status.success()), "the C compiler which Baler's build needs makes a small library");
    library
}

#[test]
fn a_clock_that_jumps_costs_no_record() {
    let preload = packages::faketime();
    let topic = Kafka::shared().topic(2, &[]);
    let feed = Feed::new(&topic);
    let shift = feed.scratch.join("shift");
    let set_clock = |by: &str| std::fs::write(&shift, by).unwrap();
    let shifts = ["+0", "-2h", "+3d", "-1d"];
    set_clock(shifts[0]);
    // Only the wall clock: the one which waits are measured with never jumps.
    let clock = [
        ("LD_PRELOAD", format!("{}:{}", c11_waits(&feed).display(), preload.display())),
        ("FAKETIME_TIMESTAMP_FILE", shift.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_string()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_string()),
    ];
    let mut run = feed.stream_call(&["--trigger", "100ms"]).envs(&clock.map(|(name, value)| (name.to_string(), value))).start();
    for (step, by) in shifts.into_iter().enumerate() {
        set_clock(by);
        send(&topic, 2, step * 100..(step + 1) * 100);
        wait_until("the records are committed", || feed.batches("commits") > step || !run.is_running());
        assert!(run.is_running(), "{}", run.stderr());
    }
    assert_eq!(run.kill().signal, Some(SIGKILL));
    feed.catch_up();
    feed.expect_all();
    assert_eq!(feed.verify(&["--deep"], 0).counts(), [0, 0, 0]);
    let planned = baler_tests::job::files(&feed.state().join("feed/offsets")).into_iter().map(|file| {
        let offsets: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        offsets["planned"].as_str().unwrap().to_string()
    });
    assert!(!planned.is_sorted(), "the clock of the driver did not jump");
}
