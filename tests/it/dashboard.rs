//! The dashboard in a real browser: the figures of `baler jobs`, cancel, history, nothing from elsewhere, and no fault of accessibility.

use std::path::Path;

use baler_tests::baler::{Baler, Running};
use baler_tests::browser::drive;
use baler_tests::corpus::{self, lines};
use baler_tests::feed::Feed;
use baler_tests::fleet::{Fleet, get, request};
use baler_tests::job::Job;
use baler_tests::kafka::Kafka;
use baler_tests::mongo::Mongo;
use baler_tests::proxy::{Fault, Protocol, Proxy};
use baler_tests::servers::{Scratch, free_port};
use baler_tests::topic::Record;
use baler_tests::wait_until;
use serde_json::{Value, json};

/// Looks at the page of a job, which must be without fault. `splits` are words which its picture must come to say.
#[track_caller]
fn look(name: &str, port: u16, job: &str, state: &str, splits: &str, cancel: bool) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/dashboard.mjs");
    let url = format!("http://127.0.0.1:{port}");
    let seen = drive(&script, &json!({ "name": name, "url": url, "job": job, "state": state, "splits": splits, "cancel": cancel }));
    for fault in ["console", "outside", "failed", "faults", "overflow"] {
        assert_eq!(seen[fault], json!([]), "{fault}");
    }
    seen
}

/// What `baler jobs show` says.
fn shown(job: &str, state: &str) -> Value {
    serde_json::from_str(&Baler::new(["jobs", "show", job, "--state", state, "--output", "json"]).run().expect_code(0).stdout).unwrap()
}

/// A number as the page writes it.
fn count(value: &Value) -> String {
    let digits = value.as_u64().unwrap().to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

/// A fleet whose dashboard shows the jobs of `state`.
fn fleet_over(state: &Scratch, variables: &[(String, String)]) -> Fleet {
    let folder = state.path().display().to_string();
    Fleet::start_with(
        2,
        variables,
        &["--executor-timeout-seconds", "7", "--expire-dead-executor-interval-seconds", "1", "--state", &folder],
    )
}

/// Starts the job and waits until its writes hang.
fn start_held(job: &Job<'_>, proxy: &Proxy) -> Running {
    proxy.arm(Fault::Stall { writes: 12 });
    let mut run = job.call().start();
    assert!(run.runs_until("writes hang", || proxy.fired() > 0), "it ended before the stall");
    run
}

#[test]
fn a_job_on_a_fleet_is_shown_cancelled_and_remembered() {
    let (mongo, state) = (Mongo::with_login(), Scratch::new());
    let login = mongo.login.clone().unwrap();
    let secrets =
        [("MONGODB_USERNAME", &login.user), ("MONGODB_PASSWORD", &login.password)].map(|(name, value)| (name.to_string(), value.clone()));
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let mut fleet = fleet_over(&state, &secrets);
    let mut job = Job::new().into_collection(mongo.collection_at(proxy.port)).on(&fleet);
    (job.state, job.variables) = (format!("file://{}", state.path().display()), secrets.to_vec());
    job.sink_options.push(("mongodb.batch_docs", "4"));
    job.source_options.push(("blob.on_corrupt", "dead_letter"));
    for number in 0..6 {
        job.add_file(&format!("part-{number}.jsonl"), &lines(80 + number, 8 << 20, "\n"));
    }
    job.add_shapes(&corpus::damaged()[..1]);

    let run = start_held(&job, &proxy);
    let seen = look("running", fleet.port, "load", "Running", "in a running task", true);
    let listed = shown("load", &job.state);
    assert_eq!(listed["status"], "incomplete");
    let progress = format!("{} of {} splits", count(&listed["splits_done"]), count(&listed["splits"]));
    assert_eq!(seen["figures"]["job"]["Progress"]["unit"], progress.as_str(), "{seen}");
    assert_eq!((&seen["chosen"], &seen["stillRunning"]), (&"Keep it running".into(), &true.into()));
    assert!(!seen["picture"].as_str().unwrap().contains(" 0 in a running task") && seen["drawn"].as_u64().unwrap() > 100, "{seen}");
    assert_eq!(seen["figures"]["overview"]["Executors"]["value"], "2");
    assert_eq!(seen["cancelled"], 200);
    run.wait().expect_last_line(1, &["load", "cancelled", "again"]);
    // Without the page's header nobody cancels, so no page of another origin can.
    let plain = "POST /api/baler/jobs/load/cancel HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(request(fleet.port, plain).unwrap().0, 403);

    proxy.arm(Fault::None);
    proxy.cut();
    job.run();
    // Another scheduler knows nothing of the job but what is in its folder.
    fleet.kill_scheduler();
    fleet.start_scheduler();
    fleet.wait_executors(2);
    let seen = look("done", fleet.port, "load", "Done", "done", false);
    let listed = shown("load", &job.state);
    let job_figures = &seen["figures"]["job"];
    assert_eq!(job_figures["Documents"]["value"], count(&listed["commit"]["documents"]).as_str());
    assert_eq!(job_figures["Documents"]["unit"], format!("{} records", count(&listed["commit"]["records"])).as_str());
    assert_eq!(seen["figures"]["overview"]["Documents"]["value"], count(&listed["commit"]["documents"]).as_str());
    assert!(seen["picture"].as_str().unwrap().contains("1 with dead letters"), "{}", seen["picture"]);
    let row = seen["rows"][0].as_str().unwrap();
    assert!(row.starts_with("load") && row.contains(&count(&listed["commit"]["documents"])), "{row}");
    // The API answers what the command line prints.
    let answered: Value = fleet.get("/api/baler/jobs").unwrap();
    assert_eq!(answered, json!([listed]));
    for path in ["/api/baler/overview", "/api/baler/jobs/load", "/"] {
        assert!(!get(fleet.port, path).unwrap().contains(&login.password), "{path}");
    }
}

#[test]
fn one_process_shows_its_job_and_is_stopped_from_the_page() {
    let mongo = Mongo::shared();
    let (proxy, port) = (Proxy::start(mongo.port, Protocol::Mongo), free_port());
    let mut job = Job::new().into_collection(mongo.collection_at(proxy.port));
    job.sink_options.push(("mongodb.batch_docs", "4"));
    job.add_file("long.jsonl", &lines(3, 12 << 20, "\n"));
    job.variables = vec![("BALER_DASHBOARD".to_string(), port.to_string())];
    let run = start_held(&job, &proxy);
    look("process", port, "load", "Running", "in a running task", true);
    let ended = run.wait().expect_code(1);
    assert!(ended.stderr.contains("was cancelled; run the same command again"), "{}", ended.stderr);
    proxy.arm(Fault::None);
    proxy.cut();
    job.variables.clear();
    job.run();
}

#[test]
fn sixteen_thousand_splits_are_one_picture() {
    let (state, job) = (Scratch::new(), Job::new());
    job.add_file("a.jsonl", &lines(3, 3 << 20, "\n"));
    job.run();
    // The same job with many more splits, of which only the first ones are done.
    let target = state.join("load");
    std::fs::create_dir_all(target.join("receipts")).unwrap();
    for (path, bytes) in job.receipt_files() {
        std::fs::write(target.join("receipts").join(path.file_name().unwrap()), bytes).unwrap();
    }
    let manifest = std::fs::read(job.state_folder().join("manifest.json")).unwrap();
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let splits = manifest["objects"][0]["splits"].as_array_mut().unwrap();
    let done = splits.len();
    splits.extend((done..16_000).map(|number| json!({ "id": format!("{number:016}"), "start": number << 20, "end": (number + 1) << 20 })));
    std::fs::write(target.join("manifest.json"), manifest.to_string()).unwrap();
    let fleet = fleet_over(&state, &[]);
    let seen = look("many", fleet.port, "load", "Incomplete", "15", false);
    assert_eq!(seen["picture"], format!("{done} done, 0 in a running task, {} waiting, 0 with dead letters", 16_000 - done).as_str());
    assert!(seen["drawn"].as_u64().unwrap() > 16_000 * 4, "{}", seen["drawn"]);
}

#[test]
fn a_query_is_shown_with_its_lag_and_micro_batches() {
    let topic = Kafka::shared().topic(3, &[("retention.ms", "3600000")]);
    let (feed, port) = (Feed::new(&topic), free_port());
    let send = |count: usize| topic.send((0..count).map(|number| ((number % 3) as i32, Record::new(format!("{{\"n\":{number}}}")))));
    send(90);
    let dashboard = [("BALER_DASHBOARD".to_string(), port.to_string())];
    let mut run = feed.stream_call(&["--trigger", "200ms"]).envs(&dashboard).start();
    for batches in 1..4 {
        wait_until("a batch is committed", || feed.batches("commits") >= batches || !run.is_running());
        send(300);
    }
    wait_until("all is committed", || feed.batches("commits") >= 4 || !run.is_running());
    let seen = look("query", port, "feed", "Running", "", false);
    let listed = shown("feed", &feed.state().display().to_string());
    assert_eq!(seen["figures"]["job"]["Micro-batches"]["value"], count(&listed["splits_done"]).as_str(), "{seen}");
    assert_eq!(seen["figures"]["job"]["Lag"]["value"], count(&listed["query"]["lag_records"]).as_str());
    assert!(seen["text"].as_str().unwrap().contains("Lag by partition"));
    run.terminate().expect_code(0);
}
