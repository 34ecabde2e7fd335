//! Jobs on a fleet: the same result as in one process, whatever is killed.
//!
//! Each fault test holds the job in the middle of its writes by a proxy before the database, does its damage while the job
//! is certainly under way, and lets it go on. So a fault cannot miss.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use baler_tests::baler::{Baler, Running, binary, example};
use baler_tests::corpus::{self, Random, lines};
use baler_tests::fleet::{Fleet, request};
use baler_tests::job::{Job, Objects};
use baler_tests::mongo::Mongo;
use baler_tests::proxy::{Fault, Protocol, Proxy};
use baler_tests::servers::say;
use baler_tests::wait_until;
use serde_json::Value;

/// 24 splits of 1 MiB in three objects, in many small writes.
fn add_input(job: &mut Job<'_>) -> Objects {
    job.sink_options.push(("mongodb.batch_docs", "4"));
    let object = |n: u64| {
        let bytes = lines(80 + n, 8 << 20, "\n");
        (job.add_file(&format!("part-{n}.jsonl"), &bytes), bytes)
    };
    (0..3).map(object).collect()
}

/// A job on a fleet whose writes a proxy can hold.
struct Held {
    fleet: Fleet,
    proxy: Proxy,
    job: Job<'static>,
    expected: Objects,
}

impl Held {
    fn new(executors: usize) -> Self {
        let mongo = Mongo::shared();
        let proxy = Proxy::start(mongo.port, Protocol::Mongo);
        let fleet = Fleet::start(executors, &[]);
        let mut job = Job::new().into_collection(mongo.collection_at(proxy.port)).on(&fleet);
        let expected = add_input(&mut job);
        Self { fleet, proxy, job, expected }
    }

    /// Starts the job and waits until its writes hang, after `writes` that went through.
    fn start(&self, writes: usize) -> Running {
        let stalls = self.proxy.fired();
        self.proxy.arm(Fault::Stall { writes });
        let mut run = self.job.call().start();
        let hangs = run.runs_until("writes hang", || self.proxy.fired() > stalls);
        assert!(hangs, "the job ended before the stall: {:#?}", run.wait());
        assert!(!self.job.is_committed());
        run
    }

    /// Lets the writes go on.
    fn release(&self) {
        self.proxy.arm(Fault::None);
        self.proxy.cut();
    }

    fn expect_complete(&self) {
        self.job.expect_complete(&self.expected);
    }
}

#[test]
fn a_job_on_a_fleet_stores_what_one_process_stores() {
    let fleet = Fleet::start(2, &[]);
    let alone = Job::new();
    let mut together = Job::new().on(&fleet);
    together.input.clone_from(&alone.input);
    let mut shapes = corpus::texts();
    shapes.extend(corpus::compressed());
    shapes.extend(corpus::odd_names());
    let expected = alone.add_shapes(&shapes);
    alone.run();
    let text = together.run().stdout;
    assert!(text.contains("documents written"), "{text}");
    let (here, there) = (alone.expect_complete(&expected), together.expect_complete(&expected));
    assert_eq!(here.ids(), there.ids());
    let executors: std::collections::BTreeSet<String> = together
        .receipt_files()
        .values()
        .map(|text| serde_json::from_slice::<Value>(text).unwrap()["executor"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(executors.len(), 2, "both executors wrote, and the driver did not: {executors:?}");
    assert!(together.run().stdout.contains("complete already"));
}

#[test]
fn a_job_whose_executor_is_killed_between_writes_ends_complete() {
    let mut held = Held::new(2);
    let run = held.start(12);
    held.fleet.kill_executor(0);
    held.release();
    run.wait().expect_code(0);
    held.expect_complete();
    held.fleet.wait_executors(1);
}

#[test]
fn a_job_whose_executors_are_all_killed_ends_complete_on_new_ones() {
    let mut held = Held::new(2);
    let run = held.start(12);
    held.fleet.kill_executor(0);
    held.fleet.kill_executor(1);
    held.release();
    held.fleet.add_executor();
    run.wait().expect_code(0);
    held.expect_complete();
}

#[test]
fn a_job_whose_scheduler_is_killed_ends_complete_on_the_next_one() {
    let mut held = Held::new(2);
    let run = held.start(12);
    held.fleet.kill_scheduler();
    held.release();
    held.fleet.start_scheduler();
    run.wait().expect_code(0);
    held.expect_complete();
    held.fleet.wait_executors(2);
}

#[test]
fn a_job_whose_driver_is_killed_ends_complete_when_it_is_run_again() {
    let held = Held::new(2);
    let run = held.start(12);
    assert_eq!(run.kill().signal, Some(9));
    held.release();
    assert!(!held.job.is_committed());
    held.job.run();
    held.expect_complete();
}

#[test]
fn a_job_whose_database_is_killed_ends_complete_when_it_is_back() {
    let mongo = Mongo::start();
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let fleet = Fleet::start(2, &[]);
    let mut job = Job::new().into_collection(mongo.collection_at(proxy.port)).on(&fleet);
    let expected = add_input(&mut job);
    proxy.arm(Fault::Stall { writes: 12 });
    let mut run = job.call().start();
    assert!(run.runs_until("writes hang", || proxy.fired() > 0), "the job ended before the stall");
    mongo.kill();
    proxy.arm(Fault::None);
    proxy.cut();
    mongo.restart();
    run.wait().expect_code(0);
    job.expect_complete(&expected);
}

#[test]
fn a_job_whose_executor_is_stalled_ends_complete_without_it_and_survives_its_return() {
    let mut held = Held::new(2);
    let run = held.start(12);
    held.fleet.stall_executor(0);
    held.release();
    run.wait().expect_code(0);
    held.expect_complete();
    held.fleet.resume_executor(0);
    // It goes on with tasks that nobody waits for, and registers again.
    held.fleet.wait_executors(2);
    held.expect_complete();
}

#[test]
fn splits_which_are_late_on_a_stalled_executor_are_sent_a_second_time() {
    // The scheduler's own timeout cannot help here: it would notice the stalled executor in an hour.
    let mongo = Mongo::shared();
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let mut fleet = Fleet::start_with(2, &[], &["--executor-timeout-seconds", "3600"]);
    let mut job = Job::new().into_collection(mongo.collection_at(proxy.port)).on(&fleet);
    let expected = add_input(&mut job);
    proxy.arm(Fault::Stall { writes: 12 });
    let mut run = job.call().start();
    assert!(run.runs_until("writes hang", || proxy.fired() > 0), "the job ended before the stall");
    fleet.stall_executor(0);
    proxy.arm(Fault::None);
    proxy.cut();
    let text = run.wait().expect_code(0).stderr;
    assert!(text.contains("sent a second time"), "no split was late: {text}");
    job.expect_complete(&expected);
}

#[test]
fn a_job_started_on_an_empty_fleet_waits_for_an_executor() {
    let mut held = Held::new(0);
    let mut run = held.job.call().start();
    assert!(run.runs_until("the job has its manifest", || held.job.state_folder().join("attempts").exists()));
    held.fleet.add_executor();
    run.wait().expect_code(0);
    held.expect_complete();
}

#[test]
fn an_executor_which_joins_late_takes_part() {
    let mut held = Held::new(1);
    let run = held.start(4);
    held.fleet.add_executor();
    held.fleet.wait_executors(2);
    held.release();
    run.wait().expect_code(0);
    held.expect_complete();
}

#[test]
fn two_drivers_of_one_job_end_in_one_complete_result() {
    let held = Held::new(2);
    let first = held.start(12);
    let stalls = held.proxy.fired();
    let second = held.job.call().start();
    held.proxy.arm(Fault::Stall { writes: 0 });
    wait_until("both drivers' writes hang", || held.proxy.fired() > stalls);
    held.release();
    let codes = [first, second].map(|run| run.wait().code);
    assert!(codes.contains(&Some(0)), "neither driver came to its end: {codes:?}");
    held.expect_complete();
}

#[test]
fn an_executor_which_is_told_to_stop_finishes_its_splits_and_leaves() {
    let mut held = Held::new(2);
    let run = held.start(12);
    held.release();
    held.fleet.drain_executor(0);
    held.fleet.wait_executors(1);
    run.wait().expect_code(0);
    held.expect_complete();
}

#[test]
fn a_driver_which_is_told_to_stop_stops_the_fleets_work_and_resumes() {
    let held = Held::new(2);
    let run = held.start(12);
    let text = run.terminate().expect_code(1).stderr;
    assert!(text.contains("again") && text.contains("load"), "no word on how to resume: {text}");
    wait_until("nothing of the job runs on the fleet", || held.fleet.jobs().iter().all(|(_, status)| status != "Running"));
    held.release();
    assert!(!held.job.is_committed());
    held.job.run();
    held.expect_complete();
}

#[test]
fn the_tasks_of_a_cancelled_job_write_nothing_more() {
    let held = Held::new(2);
    let run = held.start(6);
    let splits = 3 * 9;
    Baler::new(["jobs", "cancel", "load", "--scheduler", &held.fleet.url()]).run().expect_code(0);
    run.wait().expect_code(1);
    wait_until("the job's waves are cancelled", || held.fleet.jobs().iter().all(|(_, status)| status == "Failed"));
    held.release();
    // A task that went on would write: its connections are new, and nothing holds them. Another query needs its slots.
    for _ in 0..4 {
        Baler::new(["sql", "-c", "SELECT 1", "--scheduler", &held.fleet.url()]).run().expect_code(0);
    }
    let (writes, receipts) = (held.proxy.writes(), held.job.receipts());
    for _ in 0..4 {
        Baler::new(["sql", "-c", "SELECT 1", "--scheduler", &held.fleet.url()]).run().expect_code(0);
    }
    assert_eq!((held.proxy.writes(), held.job.receipts()), (writes, receipts), "tasks of the cancelled job still write");
    assert!(receipts < splits, "they had all been written");
}

#[test]
fn jobs_are_listed_shown_and_cancelled_by_name() {
    let held = Held::new(2);
    let run = held.start(12);
    assert!(held.fleet.jobs().iter().any(|(name, _)| name.starts_with("load wave 1")), "{:?}", held.fleet.jobs());
    let jobs = |arguments: &[&str]| {
        let state = ["--state", &held.job.state, "--output", "json"];
        Baler::new(["jobs"].iter().chain(arguments).chain(&state)).run()
    };
    jobs(&["cancel", "load", "--scheduler", &held.fleet.url()]).expect_code(0);
    run.wait().expect_one_line(1, &["load", "cancelled", "again"]);
    jobs(&["cancel", "load", "--scheduler", &held.fleet.url()]).expect_one_line(2, &["nothing of job `load` runs"]);
    let listed: Value = serde_json::from_str(&jobs(&["list"]).expect_code(0).stdout).unwrap();
    assert_eq!((listed[0]["job"].as_str(), listed[0]["status"].as_str()), (Some("load"), Some("incomplete")));
    held.release();
    held.job.run();
    let shown: Value = serde_json::from_str(&jobs(&["show", "load"]).expect_code(0).stdout).unwrap();
    assert_eq!((shown["status"].as_str(), shown["splits_done"].as_u64()), (Some("committed"), shown["splits"].as_u64()));
    assert_eq!(shown["attempts"].as_u64(), Some(2));
    held.expect_complete();
}

#[test]
fn a_split_which_cannot_be_read_fails_its_job_at_once_and_names_the_object() {
    let fleet = Fleet::start(2, &[]);
    let job = Job::new().on(&fleet);
    let damaged = corpus::damaged().into_iter().next().unwrap();
    job.add_shapes(&corpus::texts());
    job.add_file(&damaged.name, &damaged.stored);
    job.call().run().expect_one_line(1, &[&damaged.name]);
    assert!(!job.is_committed());
    let failed = fleet.jobs().into_iter().filter(|(_, status)| status == "Failed").count();
    assert_eq!(failed, 1, "a permanent error was tried again: {:?}", fleet.jobs());
}

#[test]
fn a_program_with_its_own_function_runs_it_on_a_fleet_of_itself() {
    let program = example("own_function");
    let fleet = Fleet::start_program(&program, 1, &[], &[]);
    let table = fleet.file("names.csv", "name\nAda\nGrace\n");
    let ask = |program: &std::path::Path, more: &[&str]| {
        let sql = format!(
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{table}' OPTIONS ('format.has_header' 'true');
            SELECT name, mask(name) FROM t ORDER BY 1"
        );
        Baler::new(["sql", "--format", "csv", "-c", &sql].iter().chain(more)).with_program(program).run()
    };
    let expected = "name,mask(t.name)\nAda,A**\nGrace,G****\n";
    assert_eq!(ask(&program, &[]).expect_code(0).stdout, expected);
    assert_eq!(ask(&program, &["--scheduler", &fleet.url()]).expect_code(0).stdout, expected);
    ask(binary(), &["--scheduler", &fleet.url()]).expect_one_line(2, &["mask"]);
}

#[test]
fn a_client_of_another_version_is_refused_in_words() {
    let fleet = Fleet::start(0, &[]);
    let call = "POST /ballista.protobuf.SchedulerGrpc/ExecuteQuery HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                content-type: application/grpc\r\nbaler-version: 0.0.7\r\ncontent-length: 0\r\n\r\n";
    let refused = raw_answer(fleet.port, call);
    assert!(refused.contains("grpc-status: 9") && refused.contains("0.0.7"), "{refused}");
}

/// The whole answer, head and all.
fn raw_answer(port: u16, call: &str) -> String {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(call.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_scheduler_of_another_version_is_refused_by_client_and_executor() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let serve = move || {
        for mut stream in other.incoming().flatten() {
            let mut asked = [0; 1024];
            assert!(stream.read(&mut asked).is_ok_and(|length| length > 0));
            let body = r#"{"version":"9.9.9","executors":[],"tables":""}"#;
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).ok();
        }
    };
    std::thread::Builder::new().spawn(serve).unwrap();
    assert!(request(port, "GET /api/baler HTTP/1.1\r\n\r\n").is_some_and(|(status, _)| status == 200));
    let url = format!("df://127.0.0.1:{port}");
    Baler::new(["sql", "-c", "SELECT 1", "--scheduler", &url]).run().expect_one_line(2, &["9.9.9", "one version"]);
    let flags = ["executor", "--scheduler-host", "127.0.0.1", "--scheduler-port", &port.to_string()].map(String::from);
    let ports = ["--bind-port", "0", "--bind-grpc-port", "0", "--bind-health-port", "0"].map(String::from);
    let ended = Baler::new(flags.into_iter().chain(ports)).run().expect_code(2);
    assert!(ended.stderr.contains("9.9.9"), "{}", ended.stderr);
}

#[test]
fn a_scheduler_which_is_not_there_is_one_clear_line() {
    let port = baler_tests::servers::free_port();
    let mut job = Job::new();
    job.add_file("a.txt", b"one\n");
    job.scheduler = Some(format!("df://127.0.0.1:{port}"));
    job.call().run().expect_one_line(3, &["scheduler", &port.to_string()]);
    job.scheduler = Some("127.0.0.1".to_string());
    job.call().run().expect_one_line(2, &["df://host:50050"]);
}

#[test]
fn sixteen_thousand_tiny_splits_pass_through_two_executors() {
    let fleet = Fleet::start(2, &[]);
    let job = Job::new().on(&fleet);
    let add = |number: u32| {
        let bytes = format!("row {number}\n").into_bytes();
        (job.add_file(&format!("{:02}/{number:05}.txt", number % 100), &bytes), bytes)
    };
    let expected: Objects = (0..16_000).map(add).collect();
    job.run();
    job.expect_complete(&expected);
    let waves = fleet.jobs();
    assert!(waves.len() < 100 && waves.iter().all(|(_, status)| status == "Completed"), "{waves:?}");
}

/// A budget of faults, chosen by a seed, against one job after the other; a longer soak by `BALER_TEST_SOAK` (faults).
#[test]
fn a_fleet_under_random_faults_loses_and_doubles_nothing() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seed, budget) = (number("BALER_TEST_SEED", 4), number("BALER_TEST_SOAK", 4));
    say(&format!("seed of the random faults: {seed}, {budget} of them (BALER_TEST_SEED, BALER_TEST_SOAK)"));
    let mut random = Random::new(seed);
    let mut held = Held::new(2);
    let mut executors = vec![0, 1];
    let mut spent = 0;
    let mut run = held.start(random.below(20) as usize);
    while spent < budget {
        match random.below(4) {
            0 | 1 => {
                let gone = executors.remove(random.below(executors.len() as u64) as usize);
                held.fleet.kill_executor(gone);
                executors.push(held.fleet.add_executor());
            }
            2 => {
                held.fleet.kill_scheduler();
                held.fleet.start_scheduler();
            }
            _ => {
                assert_eq!(run.kill().signal, Some(9));
                run = held.job.call().start();
            }
        }
        spent += 1;
        held.release();
        let stalls = held.proxy.fired();
        held.proxy.arm(Fault::Stall { writes: random.below(20) as usize });
        if !run.runs_until("writes hang again", || held.proxy.fired() > stalls) {
            break;
        }
    }
    assert!(spent > 0, "no fault fired");
    held.release();
    say(&format!("{spent} faults fired"));
    let finished = run.wait();
    if finished.code == Some(3) {
        // A driver that was begun in the moment without a scheduler says so, and is begun again.
        finished.expect_one_line(3, &["scheduler", "does not answer"]);
        held.job.run();
    } else {
        finished.expect_code(0);
    }
    held.expect_complete();
}
