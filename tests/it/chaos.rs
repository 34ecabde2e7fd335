//! `baler chaos`: a fleet, its store and its database under faults drawn from a seed; what is stored is proven after each round.
//!
//! `BALER_TEST_SEED` draws others, `BALER_TEST_ROUNDS` more of them.

use std::cell::RefCell;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use baler_tests::baler::Baler;
use baler_tests::corpus::{Random, lines};
use baler_tests::fleet::Fleet;
use baler_tests::job::{Job, Sink};
use baler_tests::minio::Minio;
use baler_tests::mongo::Mongo;
use baler_tests::packages;
use baler_tests::proxy::{Fault, Protocol, Proxy};
use baler_tests::servers::{Scratch, say};
use baler_tests::wait_until;
use serde_json::Value;

use crate::disk::own_file_systems;

/// How long a fault lasts which is not over at once. Shorter than what clients wait for a server.
const LASTS: Duration = Duration::from_secs(2);

/// How far a wrong clock is ahead. Amazon, and MinIO, refuse requests which are a quarter of an hour off.
const AHEAD: Duration = Duration::from_secs(600);

/// A fleet with all that may break.
struct Scene {
    fleet: RefCell<Fleet>,
    store: Proxy,
    database: Proxy,
    server: Mongo,
}

/// A fault: what it is called, and what the test does when it is asked for.
type Kind = (&'static str, fn(&Scene));

const KINDS: [Kind; 12] = [
    ("executor", |scene| {
        let mut fleet = scene.fleet.borrow_mut();
        let newest = fleet.metrics_ports.len() - 1;
        fleet.kill_executor(newest);
        fleet.add_executor();
    }),
    ("stopped-executor", |scene| {
        scene.fleet.borrow_mut().stall_executor(0);
        std::thread::sleep(LASTS);
        scene.fleet.borrow_mut().resume_executor(0);
    }),
    ("scheduler", |scene| {
        let mut fleet = scene.fleet.borrow_mut();
        fleet.kill_scheduler();
        fleet.start_scheduler();
    }),
    ("wrong-clock", |scene| {
        let mut fleet = scene.fleet.borrow_mut();
        let newest = fleet.metrics_ports.len() - 1;
        fleet.kill_executor(newest);
        let wrong = fleet.add_executor_with(&packages::wrong_clock(&format!("+{}", AHEAD.as_secs())));
        let name = format!("executor-{wrong}");
        wait_until("the executor with a wrong clock writes its log", || fleet.log(&name).contains('\n'));
        assert!(seconds_ahead(&fleet.log(&name)) > 0.9 * AHEAD.as_secs_f64(), "its clock is right");
    }),
    ("database", |scene| {
        scene.server.stop();
        scene.server.restart();
    }),
    ("lost-replies", |scene| scene.database.arm(Fault::LoseReplies { writes: 0, times: 2 })),
    ("cut-writes", |scene| scene.database.arm(Fault::CutWrites { writes: 0, times: 2 })),
    ("slow-database", |scene| passing(&scene.database, Fault::Late(Duration::from_millis(100)))),
    ("busy-store", |scene| scene.store.arm(Fault::Busy { times: 3 })),
    ("slow-store", |scene| passing(&scene.store, Fault::Late(Duration::from_millis(100)))),
    ("cut-reads", |scene| scene.store.arm(Fault::CutReplies { bytes: 10_000, times: 2 })),
    ("store-away", |scene| passing(&scene.store, Fault::Refuse)),
];

/// How far the first line of a log is ahead of this process's clock.
fn seconds_ahead(log: &str) -> f64 {
    let line = log.lines().next().and_then(|line| serde_json::from_str::<Value>(line).ok()).unwrap_or_default();
    let written = line["timestamp"].as_str().unwrap_or_default();
    let output = Command::new("date").args(["--date", written, "+%s.%N"]).output().unwrap();
    let written: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or_else(|_| panic!("no time in {log}"));
    written - SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

fn passing(proxy: &Proxy, fault: Fault) {
    proxy.arm(fault);
    std::thread::sleep(LASTS);
    proxy.arm(Fault::None);
}

/// The command of a fault: it asks the test, and waits until the test has done it.
fn command(folder: &Path, name: &str) -> String {
    let sign = folder.join(name).display().to_string();
    format!("{name}=touch '{sign}' && while [ -e '{sign}' ]; do sleep 0.05; done")
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn whatever_breaks_a_fleet_stores_each_byte_once() {
    let (seed, rounds) = (setting("BALER_TEST_SEED", 20), setting("BALER_TEST_ROUNDS", 3));
    say(&format!("seed of the chaos: {seed}"));
    let (minio, mongo) = (Minio::plain(), Mongo::start());
    let (bucket, signs) = (minio.make_bucket(), Scratch::new());
    let scene = Scene {
        store: Proxy::start(minio.port, Protocol::Bytes),
        database: Proxy::start(mongo.port, Protocol::Mongo),
        fleet: RefCell::new(Fleet::start(0, &[])),
        server: mongo,
    };
    let variables = minio.environment_at(&format!("http://127.0.0.1:{}", scene.store.port));
    scene.fleet.replace(Fleet::start(2, &variables));
    let objects: Vec<_> = (0..3).map(|n| (format!("in/part-{n}.jsonl"), lines(90 + n, 8 << 20, "\n"))).collect();
    bucket.put_all(&objects);
    let size: usize = objects.iter().map(|(_, bytes)| bytes.len()).sum();

    let mut job = Job { input: bucket.url("in/"), variables, ..Job::new() };
    job.source_options[0] = ("blob.split_size", "256KiB");
    job.sink_options.push(("mongodb.batch_docs", "4"));
    let mut collection = scene.server.collection_at(scene.database.port);
    collection.url = collection.url.replace(&collection.database, &format!("{}_{{round}}", collection.database));
    let job = job.into_collection(collection).on(&scene.fleet.borrow());
    let mut more =
        vec!["--output".to_string(), "json".to_string(), format!("--seed={seed}"), format!("--rounds={rounds}"), "--faults=4".to_string()];
    more.extend(KINDS.iter().map(|(name, _)| format!("--fault={}", command(signs.path(), name))));

    let mut chaos = job.call_of("chaos").with_arguments(more).start();
    while chaos.is_running() {
        for (name, act) in KINDS {
            if signs.join(name).exists() {
                act(&scene);
                std::fs::remove_file(signs.join(name)).unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let finished = chaos.wait().expect_code(0);
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    say(&format!("chaos: {report}; {} messages overtook others", scene.store.overtaken() + scene.database.overtaken()));
    let fired: u64 = report["faults"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert!(fired > rounds, "most faults came too late: {report}");
    assert_eq!(report["input_bytes"].as_u64().unwrap(), rounds * size as u64);
    assert_eq!([&report["missing"], &report["duplicate"], &report["mismatched"]], [0, 0, 0], "{report}");
    assert!(report["findings"].as_array().unwrap().is_empty(), "{report}");
}

#[test]
fn chaos_finds_what_a_fault_has_destroyed_and_says_how_rounds_are_kept_apart() {
    let mut job = Job::new();
    // Many splits, so that some are done and some are not whenever one looks.
    job.source_options[0] = ("blob.split_size", "64KiB");
    job.add_file("a.jsonl", &lines(5, 16 << 20, "\n"));
    job.call_of("chaos").run().expect_one_line(2, &["{round}", "--set OUTPUT="]);

    // A fault which removes a stored part: the auditor has to see it.
    let state = job.state.clone();
    let dump = job.scratch.join("dump-{round}").display().to_string();
    let sql = job.scratch.join("job.sql").display().to_string();
    let destroy = format!("rm -r '{}'", job.scratch.join("dump-1").display());
    let call = |fault: &str| {
        let set = [format!("INPUT={}", job.input), format!("OUTPUT={dump}")];
        let fault = format!("loss={fault}");
        let flags = ["--rounds", "1", "--faults", "12", "--seed", "7"];
        let words = ["chaos", &sql, "--job", "load", "--state", &state, "--set", &set[0], "--set", &set[1], "--fault", &fault];
        Baler::new(words.into_iter().chain(flags)).run()
    };
    let finished = call(&format!("{destroy} || true")).expect_code(1);
    assert!(
        finished.stdout.contains("missing") && finished.stdout.contains('✗') && finished.stdout.contains("loss"),
        "{}",
        finished.stdout
    );
}

/// A disk of 96 MiB, which only this process and its children see, as place of dump and state.
const ON_A_DISK: &str = r#"mkdir -p "$DISK" && mount -t tmpfs -o size=96m none "$DISK" && exec "$@""#;

/// Nothing is left on it for two seconds; `dd` ends because of that.
const FILL: &str = "dd if=/dev/zero of=\"$DISK/filler\" bs=16k 2>&1 | grep -q 'No space left' && sleep 2 && rm \"$DISK/filler\"";

#[test]
fn a_disk_that_fills_again_and_again_costs_time_and_no_row() {
    let mut job = Job::new();
    job.source_options[0] = ("blob.split_size", "64KiB");
    let mut noise = Random::new(31).bytes(12 << 20);
    noise.iter_mut().step_by(4000).for_each(|byte| *byte = b'\n');
    job.add_file("noise.txt", &noise);
    let Some(way) = own_file_systems() else {
        return say("NOT RUN: a_disk_that_fills_again_and_again_costs_time_and_no_row: this machine lets nobody mount a file system");
    };
    let disk = job.scratch.join("disk");
    let place = |name: &str| disk.join(name).display().to_string();
    job.state = format!("file://{}", place("state"));
    job.sink = Sink::Bson(disk.join("dump-{round}"));
    let flags = ["--output", "json", "--seed", "3", "--rounds", "2", "--faults", "4"].map(String::from);
    let fault = format!("--fault=full-disk={FILL}");
    let line = [way, &["sh", "-c", ON_A_DISK, "disk"]].concat();
    let variables = [("DISK".to_string(), disk.display().to_string())];
    let finished = job.call_of("chaos").with_arguments(flags.into_iter().chain([fault])).envs(&variables).through(&line).run();
    let report: Value = serde_json::from_str(&finished.expect_code(0).stdout).unwrap();
    say(&format!("chaos: {report}"));
    // Both sorts of fault: the disk, and the driver's death.
    assert!(report["faults"]["full-disk"].as_u64() > Some(0), "{report}");
    assert!(report["failures"].as_u64() > Some(0), "no driver noticed that the disk was full: {report}");
    assert_eq!(report["input_bytes"].as_u64().unwrap(), 2 * noise.len() as u64);
    assert_eq!([&report["missing"], &report["duplicate"], &report["mismatched"]], [0, 0, 0], "{report}");
}
