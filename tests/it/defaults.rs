//! The cluster's defaults which differ from Ballista's (`engine/src/cluster/defaults.rs`): what each is for, seen from outside.
//!
//! Each test was also run with another value in place of ours and failed as its comment says. To see it again, give the comment's flags
//! in `BALER_TEST_SCHEDULER_FLAGS` and `BALER_TEST_EXECUTOR_FLAGS`, its statement in `BALER_TEST_SET`.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use baler_tests::baler::Baler;
use baler_tests::fleet::{Fleet, request};
use baler_tests::job::{Job, files};
use baler_tests::mongo::{Collection, Mongo};
use baler_tests::proxy::{Fault, Protocol, Proxy};
use baler_tests::servers::Scratch;
use baler_tests::wait_until;
use serde_json::Value;

fn sql(fleet: &Fleet, text: &str) -> Baler {
    let set = std::env::var("BALER_TEST_SET").unwrap_or_default();
    Baler::new(["sql".to_string(), "--scheduler".into(), fleet.url(), "--format".into(), "json".into(), format!("--command={set}{text}")])
}

/// `files` files of one row each: `id`, and a `word`.
fn rows(folder: &Path, files: usize) -> String {
    let folder = folder.join("rows");
    fs::create_dir_all(&folder).unwrap();
    for id in 0..files {
        fs::write(folder.join(format!("{id:02}.json")), format!("{{\"id\": {id}, \"word\": \"w{id}\"}}\n")).unwrap();
    }
    format!("CREATE EXTERNAL TABLE rows (id BIGINT, word VARCHAR) STORED AS JSON LOCATION '{}/';\n", folder.display())
}

/// Objects of so many documents each, which are one split and one task each, into a collection: one write a document, one at a time.
fn inserts(folder: &Path, objects: usize, documents: usize, collection: &Collection<'_>) -> String {
    let folder = folder.join("objects");
    fs::create_dir_all(&folder).unwrap();
    for number in 0..objects {
        fs::write(folder.join(format!("{number:02}.txt")), format!("object{number:02}\n").repeat(documents)).unwrap();
    }
    format!(
        "CREATE EXTERNAL TABLE objects STORED AS BLOB LOCATION 'file://{}/' OPTIONS ('blob.chunk_size' '9');
         CREATE EXTERNAL TABLE documents STORED AS MONGODB LOCATION '{}' OPTIONS ('mongodb.batch_docs' '1', 'mongodb.in_flight' '1');
         INSERT INTO documents SELECT id AS _id, content FROM objects;",
        folder.display(),
        collection.url
    )
}

/// The only running job.
fn running_job(fleet: &Fleet) -> Option<String> {
    let jobs = fleet.get("/api/jobs")?;
    let job = jobs.as_array()?.iter().find(|job| job["status"] == "Running")?;
    Some(job["job_id"].as_str()?.to_string())
}

/// `ballista.planner.adaptive.enabled` false. With `SET ballista.planner.adaptive.enabled = true` the job had not ended after
/// four minutes. (It needs `engine/src/cluster/slots.rs`, `kept.rs` and `transfer.rs` besides:
/// without them the aggregates of `queries::inserts` hung, counted too much, or failed at once.)
#[test]
fn a_job_whose_finished_shuffle_is_lost_with_its_executor_ends() {
    let (scratch, mongo) = (Scratch::new(), Mongo::shared());
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let mut fleet = Fleet::start(2, &[]);
    let collection = mongo.collection_at(proxy.port);
    let text = format!(
        "{} CREATE EXTERNAL TABLE documents STORED AS MONGODB LOCATION '{}' OPTIONS ('mongodb.batch_docs' '1', 'mongodb.in_flight' '1');
         INSERT INTO documents SELECT word AS _id, sum(id) AS ids FROM rows GROUP BY word;",
        rows(scratch.path(), 40),
        collection.url
    );
    proxy.arm(Fault::Stall { writes: 2 });
    let mut running = sql(&fleet, &text).start();
    // A document is to be written: so the shuffle under it is finished, on both executors.
    assert!(running.runs_until("writes hang", || proxy.fired() > 0), "the job ended before the stall: {:#?}", running.wait());
    fleet.kill_executor(0);
    proxy.arm(Fault::None);
    proxy.cut();
    // Each task counts what it wrote or found there, and no task is counted twice.
    assert_eq!(running.wait().expect_code(0).stdout.trim(), r#"{"count":40}"#);
    assert_eq!(collection.count(), 40);
}

/// `ballista.scheduler.max_partitions_per_task` 1. With `SET ballista.scheduler.max_partitions_per_task = 0` it was 8 tasks.
#[test]
fn each_partition_is_a_task_of_its_own() {
    let (scratch, fleet) = (Scratch::new(), Fleet::start(1, &[]));
    let text = rows(scratch.path(), 16) + "SELECT count(*) FROM rows WHERE id >= 0";
    sql(&fleet, &text).run().expect_code(0);
    let jobs = fleet.get("/api/jobs").unwrap();
    let id = jobs[0]["job_id"].as_str().unwrap().to_string();
    let stages = fleet.get(&format!("/api/job/{id}/stages")).unwrap();
    let tasks: Vec<usize> = stages["stages"].as_array().unwrap().iter().map(|stage| stage["tasks"].as_array().unwrap().len()).collect();
    assert!(tasks.contains(&16), "{tasks:?} tasks in the stages: {stages:#}");
}

/// The message sizes of client, scheduler and executor: 17 MiB of text travel in a plan to the scheduler and in a task to the
/// executor, and 20 MiB more come back. With 16777216 for `grpc-server-max-decoding-message-size` of the scheduler the plan
/// was refused; of the executor, the task was, until all executors counted as lost. The client's own limit cannot be overridden from outside.
/// The scheduler's encoding limit bounds what Flight SQL answers: `flight_sql::a_value_of_20_mib_reaches_a_driver`.
#[test]
fn a_value_of_20_mib_reaches_the_client_and_one_of_17_mib_the_executors() {
    let (scratch, fleet) = (Scratch::new(), Fleet::start(1, &[]));
    let literal = "y".repeat(17 << 20);
    let text =
        rows(scratch.path(), 1) + &format!("SELECT repeat(word, 10 * 1024 * 1024) AS long, '{literal}' AS literal FROM rows WHERE id = 0");
    let file = scratch.join("large.sql");
    fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let answer = Baler::new(["sql", "--scheduler", &fleet.url(), "--format", "json", "--file", &file]).run().expect_code(0).stdout;
    let row: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(row["long"].as_str().unwrap().len(), 20 << 20);
    assert!(row["literal"] == literal.as_str());
}

/// Seconds since the last heartbeat of the only executor.
fn heartbeat_age(fleet: &Fleet) -> Option<u64> {
    fleet.get("/api/baler")?["executors"][0]["heartbeat_age_seconds"].as_u64()
}

/// `scheduler-policy` and `task-scheduling-policy` push-staged. With `pull-staged` for both, the two tasks of the cancelled job went on to
/// their last document. That pull scheduling runs more tasks than there are slots was measured once, with many partitions a task; it does
/// not show here, where a task has one.
#[test]
fn an_executor_runs_as_many_tasks_as_it_has_slots_and_a_cancelled_job_stops() {
    let (scratch, mongo) = (Scratch::new(), Mongo::shared());
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let fleet = Fleet::start(1, &[]);
    let collection = mongo.collection_at(proxy.port);
    // Long enough for every task that may run to connect and to write.
    proxy.arm(Fault::Stall { writes: 400 });
    let mut running = sql(&fleet, &inserts(scratch.path(), 16, 2000, &collection)).start();
    assert!(running.runs_until("writes hang", || proxy.fired() > 0), "the job ended before the stall: {:#?}", running.wait());
    // Two more heartbeats: time in which any other task would have begun.
    for _ in 0..2 {
        wait_until("a heartbeat grows old", || heartbeat_age(&fleet).is_some_and(|age| age >= 1));
        wait_until("the next heartbeat comes", || heartbeat_age(&fleet) == Some(0));
    }
    let begun: BTreeSet<Vec<u8>> =
        collection.read().iter().map(|document| document.get_binary_generic("content").unwrap().clone()).collect();
    assert_eq!(begun.len(), 2, "tasks at once on an executor with two slots");

    let id = running_job(&fleet).unwrap();
    let call = format!("PATCH /api/job/{id} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(request(fleet.port, &call).unwrap().0, 200);
    running.wait().expect_code(1);
    proxy.arm(Fault::None);
    // The slots are free again when another job of as many tasks has come through.
    let (other, scratch) = (mongo.collection(), Scratch::new());
    sql(&fleet, &inserts(scratch.path(), 16, 1, &other)).run().expect_code(0);
    assert_eq!(other.count(), 16);
    assert!(collection.count() < 2000, "{} documents of a cancelled job which had begun two", collection.count());
}

/// `task-distribution` round-robin. With `bias` both splits went to one executor.
#[test]
fn a_job_of_two_tasks_uses_both_executors() {
    let fleet = Fleet::start(2, &[]);
    let job = Job::new().on(&fleet);
    for name in ["a.txt", "b.txt"] {
        job.add_file(name, b"one line\n");
    }
    job.run();
    let receipts = job.receipt_files();
    let executor = |text: &Vec<u8>| serde_json::from_slice::<Value>(text).unwrap()["executor"].as_str().unwrap().to_string();
    let executors: BTreeSet<String> = receipts.values().map(executor).collect();
    assert_eq!((receipts.len(), executors.len()), (2, 2), "{executors:?}");
}

/// `executor-timeout-seconds`, `expire-dead-executor-interval-seconds` and `executor-heartbeat-interval-seconds`, as a user has
/// them. With Ballista's 180, 15 and 60 s the executor was counted for 180 s.
#[test]
fn a_killed_executor_is_gone_in_seconds_and_its_job_ends() {
    let (scratch, mongo) = (Scratch::new(), Mongo::shared());
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let mut fleet = Fleet::start_exactly(2, &[], &[]);
    let collection = mongo.collection_at(proxy.port);
    proxy.arm(Fault::Stall { writes: 4 });
    let mut running = sql(&fleet, &inserts(scratch.path(), 16, 1, &collection)).start();
    assert!(running.runs_until("writes hang", || proxy.fired() > 0), "the job ended before the stall");
    fleet.kill_executor(0);
    let killed = Instant::now();
    proxy.arm(Fault::None);
    proxy.cut();
    fleet.wait_executors(1);
    assert!(killed.elapsed() < Duration::from_secs(40), "the executor was counted for {:?}", killed.elapsed());
    running.wait().expect_code(0);
    assert!(killed.elapsed() < Duration::from_secs(90), "the job waited {:?} for a dead executor", killed.elapsed());
    assert_eq!(collection.count(), 16);
}

/// `no-executors-grace-period-seconds`, as a user has it. With Ballista's 180 s the query waited 200 s.
#[test]
fn a_query_whose_executors_are_all_gone_ends_in_an_error_after_the_grace_period() {
    let (scratch, mongo) = (Scratch::new(), Mongo::shared());
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let mut fleet = Fleet::start_exactly(1, &[], &[]);
    let collection = mongo.collection_at(proxy.port);
    proxy.arm(Fault::Stall { writes: 0 });
    let mut running = sql(&fleet, &inserts(scratch.path(), 16, 1, &collection)).start();
    assert!(running.runs_until("writes hang", || proxy.fired() > 0), "the job ended before the stall");
    fleet.kill_executor(0);
    let killed = Instant::now();
    let text = running.wait().expect_code(1).stderr;
    let took = killed.elapsed();
    assert!(text.contains("executor"), "{text}");
    assert!(took > Duration::from_secs(50) && took < Duration::from_secs(150), "it ended after {took:?}: {text}");
    proxy.arm(Fault::None);
}

/// `bind-host` of both. With `0.0.0.0` by flag the other addresses answered.
#[test]
fn nothing_listens_beyond_this_machine_unless_asked_to() {
    let fleet = Fleet::start(1, &[]);
    let info = fleet.get("/api/baler").unwrap();
    let flight = info["executors"][0]["port"].as_u64().unwrap() as u16;
    for port in [fleet.port, flight] {
        wait_until("the port is open", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        // Another address of this machine: all of 127.0.0.0/8 is.
        assert!(TcpStream::connect(("127.0.0.2", port)).is_err(), "{port} listens on all addresses");
    }
}

/// `finished-job-state-clean-up-interval-seconds`, `job-data-clean-up-interval-seconds` and `job-data-ttl-seconds`: the mechanism, with
/// seconds in place of our minutes, which nobody would wait for. That the values of a user are ours is tested in `engine/src/cli/mod.rs`.
#[test]
fn what_a_finished_job_leaves_in_memory_and_on_disk_is_cleaned_up() {
    let scratch = Scratch::new();
    let clean_executor = ["--job-data-clean-up-interval-seconds", "1", "--job-data-ttl-seconds", "2"];
    let fleet = Fleet::start_exactly(1, &["--finished-job-state-clean-up-interval-seconds", "3"], &clean_executor);
    let text = rows(scratch.path(), 4) + "SELECT word, count(*) FROM rows GROUP BY word";
    sql(&fleet, &text).run().expect_code(0);
    wait_until("the scheduler has forgotten the job", || fleet.jobs().is_empty());
    let shuffles =
        || files(&fleet.work_folder(0)).into_iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "arrow")).count();
    wait_until("the shuffles are gone", || shuffles() == 0);
}

/// `scheduler-connect-timeout-seconds` is for the moment between our handshake, which waits for ever, and Ballista's own connection; no
/// test reaches that moment. What a user sees is that the order of starting does not matter.
#[test]
fn an_executor_may_be_started_before_its_scheduler() {
    let mut fleet = Fleet::start(0, &[]);
    fleet.kill_scheduler();
    fleet.add_executor();
    fleet.start_scheduler();
    fleet.wait_executors(1);
}

/// `--cors-allowed-origins` none. With `--cors-allowed-origins http://localhost:8080` (one of Ballista's two) that page may read and gets its PATCH
/// allowed, and with `--cors-allowed-origins ''` Ballista's both do.
#[test]
fn no_page_of_another_origin_reads_what_the_scheduler_says() {
    let fleet = Fleet::start(1, &[]);
    for path in ["/api/jobs", "/api/baler/overview", "/api/baler/settings"] {
        for origin in ["http://localhost:8080", "https://nightlies.apache.org", "null"] {
            for method in ["GET", "OPTIONS"] {
                let text = format!(
                    "{method} {path} HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\naccess-control-request-method: PATCH\r\nconnection: close\r\n\r\n"
                );
                let head = head_of(fleet.port, &text);
                assert!(!head.to_ascii_lowercase().contains("access-control-allow-origin"), "{method} {path} of {origin}: {head}");
            }
        }
    }
}

/// The head of the answer to a request.
fn head_of(port: u16, text: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    std::io::Write::write_all(&mut stream, text.as_bytes()).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
    String::from_utf8_lossy(&answer).split("\r\n\r\n").next().unwrap_or_default().to_string()
}
