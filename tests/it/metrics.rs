//! What a real Prometheus scrapes is what the receipts say; logs for machines.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use baler_tests::baler::Baler;
use baler_tests::corpus::{self, lines};
use baler_tests::feed::Feed;
use baler_tests::fleet::{Fleet, get};
use baler_tests::jaeger::Jaeger;
use baler_tests::job::{Job, files};
use baler_tests::kafka::Kafka;
use baler_tests::minio::Minio;
use baler_tests::mongo::Mongo;
use baler_tests::prometheus::{Prometheus, promtool};
use baler_tests::servers::{Scratch, free_port};
use baler_tests::topic::{Record, Topic};
use baler_tests::wait_until;
use serde_json::Value;

/// What each family adds up to, and the field of a receipt which it counts.
const SUMS: [(&str, &str); 5] = [
    ("baler_documents_total", "documents"),
    ("baler_source_records_total", "records"),
    ("baler_source_bytes_total", "raw_bytes"),
    ("baler_compressed_bytes_total", "compressed_bytes"),
    ("baler_dead_letters_total", "dead_letters"),
];

/// The labels which any of our families has.
const LABELS: [&str; 10] = ["job", "query", "topic", "partition", "kind", "reason", "place", "file", "le", "instance"];

/// The sum of a field over all receipts below a state folder.
fn receipts(state: &Path, field: &str) -> u64 {
    let receipts = files(state).into_iter().filter(|path| path.parent().is_some_and(|folder| folder.ends_with("receipts")));
    let number =
        |path: std::path::PathBuf| serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap()[field].as_u64().unwrap();
    receipts.map(number).sum()
}

/// Waits until the sums over all processes are those of the receipts.
fn expect_sums(prometheus: &Prometheus, state: &Path) {
    for (family, field) in SUMS {
        let wanted = receipts(state, field);
        assert!(wanted > 0, "the test has no {field}");
        prometheus.wait_for(&format!("sum(max_over_time({family}[10m]))"), wanted as f64);
    }
}

/// Families of ours pass Prometheus' own check, and have no label but those of the list.
fn expect_well_formed(text: &str) {
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("baler_")).collect();
    assert!(ours.len() > 50, "{text}");
    promtool(&["check", "metrics"], &(ours.join("\n") + "\n"));
    let labels = ours.iter().filter_map(|line| line.split_once('{')?.1.rsplit_once('}')).flat_map(|(labels, _)| labels.split("\","));
    let labels: BTreeSet<&str> = labels.filter_map(|label| label.split_once('=')).map(|(name, _)| name).collect();
    assert!(labels.iter().all(|label| LABELS.contains(label)), "{labels:?}");
}

/// The driver's environment: it serves metrics, and stays until the last ones were scraped.
fn with_metrics(port: u16) -> Vec<(String, String)> {
    [("BALER_METRICS_PORT", port.to_string()), ("BALER_METRICS_LINGER_SECONDS", "120".to_string())]
        .map(|(name, value)| (name.to_string(), value))
        .to_vec()
}

/// Some objects, one of them damaged and so a dead letter.
fn add_input(job: &mut Job<'_>) {
    job.source_options.push(("blob.on_corrupt", "dead_letter"));
    job.add_shapes(&corpus::texts());
    job.add_shapes(&corpus::damaged()[..1]);
    job.add_file("long.jsonl", &lines(3, 6 << 20, "\n"));
}

#[test]
fn the_sums_of_a_job_on_a_fleet_equal_its_receipts() {
    let (mongo, driver) = (Mongo::with_login(), free_port());
    let login = mongo.login.clone().unwrap();
    let secrets =
        [("MONGODB_USERNAME", &login.user), ("MONGODB_PASSWORD", &login.password)].map(|(name, value)| (name.to_string(), value.clone()));
    let fleet = Fleet::start(2, &secrets);
    let mut job = Job::new().into_collection(mongo.collection()).on(&fleet);
    add_input(&mut job);
    job.variables = [secrets.to_vec(), with_metrics(driver)].concat();
    let executors = fleet.metrics_ports.clone();
    let prometheus =
        Prometheus::start(&[("scheduler", fleet.port), ("executor", executors[0]), ("executor", executors[1]), ("driver", driver)]);
    prometheus.wait_for("sum(baler_slots)", 4.0);
    prometheus.wait_for("sum(baler_executors)", 2.0);
    prometheus.wait_for("sum(baler_documents_total{job=\"executor\"})", 0.0);
    let mut run = job.call().start();
    assert!(
        run.runs_until("the driver serves its metrics", || get(driver, "/metrics").is_some_and(|text| text.contains("baler_job_splits")))
    );
    let of_driver = get(driver, "/metrics");
    run.wait().expect_code(0).expect_no_secret(&login.password);

    expect_sums(&prometheus, &job.state_folder());
    prometheus.wait_for("sum(baler_splits_total{job=\"executor\"})", job.receipts() as f64);
    // No split was tried again here, so what was acknowledged is what was stored.
    prometheus.wait_for("sum(baler_sink_docs_total)", receipts(&job.state_folder(), "documents") as f64);
    prometheus.wait_for("sum(baler_sink_batches_total) - sum(baler_sink_batch_seconds_count)", 0.0);
    prometheus.wait_for("sum(baler_tasks_failed_total{job=\"scheduler\"})", 0.0);
    prometheus.wait_for("sum(baler_tasks_running{job=\"scheduler\"}) + sum(baler_tasks_pending) + sum(baler_executor_running_tasks)", 0.0);
    // The driver's own figures are those of its progress line; it is gone, and its last scrape was after the job's end.
    prometheus.wait_for("max(max_over_time(baler_job_splits_done[10m]))", job.receipts() as f64);
    prometheus.wait_for("max(max_over_time(baler_job_documents[10m]))", receipts(&job.state_folder(), "documents") as f64);
    prometheus.wait_for("sum(max_over_time(baler_documents_total{job=\"driver\"}[10m]))", 0.0);

    for text in [get(fleet.port, "/metrics"), get(executors[0], "/metrics"), of_driver] {
        let text = text.unwrap();
        expect_well_formed(&text);
        assert!(!text.contains(&login.password) && text.contains("process_resident_memory_bytes"));
    }
    assert!(get(fleet.port, "/metrics").unwrap().contains("job_submitted_total"), "Ballista's own families are there too");
    assert_eq!([executors[0], executors[1], fleet.port].map(|port| get(port, "/readyz").as_deref() == Some("ready\n")), [true; 3]);
}

#[test]
fn the_sums_of_a_job_in_one_process_equal_its_receipts() {
    let port = free_port();
    let mut job = Job::new();
    add_input(&mut job);
    job.variables = with_metrics(port);
    let prometheus = Prometheus::start(&[("driver", port)]);
    job.run();
    expect_sums(&prometheus, &job.state_folder());
    let state = job.state_folder();
    for (family, wanted) in [
        ("baler_splits_total", job.receipts() as u64),
        ("baler_read_bytes_total", receipts(&state, "raw_bytes")),
        ("baler_source_chunks_total", receipts(&state, "documents")),
        ("baler_sink_docs_total", receipts(&state, "documents")),
        ("baler_job_splits", job.receipts() as u64),
        ("baler_job_splits_done", job.receipts() as u64),
        ("baler_job_documents", receipts(&state, "documents")),
        ("baler_job_read_bytes", receipts(&state, "raw_bytes")),
    ] {
        prometheus.wait_for(&format!("max(max_over_time({family}[10m]))"), wanted as f64);
    }
    // The same job again: nothing is done, so nothing is counted.
    let again = free_port();
    job.variables = with_metrics(again);
    let prometheus = Prometheus::start(&[("driver", again)]);
    job.run();
    prometheus.wait_for("max(max_over_time(baler_job_splits_done[10m]))", job.receipts() as f64);
    prometheus.wait_for("max(max_over_time(baler_documents_total[10m]))", 0.0);
}

#[test]
fn what_is_generated_is_counted_when_it_is_stored() {
    let scratch = Scratch::new();
    let topic = Kafka::shared().topic(2, &[]);
    for (to, more) in [(scratch.join("data").display().to_string(), "--compress=gzip"), (topic.url(), "--rate=100000/s")] {
        let port = free_port();
        let prometheus = Prometheus::start(&[("generate", port)]);
        let call = Baler::new(["generate", "--to", &to, "--size", "3MiB", more, "--output", "json"]).envs(&with_metrics(port));
        let told: Value = serde_json::from_str(&call.run().expect_code(0).stdout).unwrap();
        for (family, field) in [("baler_generated_records_total", "records"), ("baler_generated_bytes_total", "raw_bytes")] {
            prometheus.wait_for(&format!("max(max_over_time({family}[10m]))"), told[field].as_f64().unwrap());
        }
    }
}

#[test]
fn room_on_disks_and_the_end_of_certificates_are_told() {
    let authority = Minio::tls().authority.clone().unwrap();
    let variables = vec![("AWS_CA_BUNDLE".to_string(), authority.display().to_string())];
    let fleet = Fleet::start(1, &variables);
    let port = free_port();
    let topic = Kafka::shared().topic(1, &[]);
    let feed = Feed::new(&topic);
    let serve = [("BALER_METRICS_PORT".to_string(), port.to_string())];
    let mut driver = feed.stream_call(&["--trigger", "200ms"]).envs(&serve).start();
    assert!(driver.runs_until("the driver serves its metrics", || get(port, "/metrics").is_some()));
    let prometheus = Prometheus::start(&[("scheduler", fleet.port), ("executor", fleet.metrics_ports[0]), ("driver", port)]);
    prometheus.wait_for("sum(up)", 3.0);
    // An executor has scratch, the others a state folder; a driver without a fleet both.
    prometheus.wait_for("count(baler_disk_free_bytes > 0 and baler_disk_free_bytes <= baler_disk_size_bytes)", 4.0);
    prometheus.wait_for("count(baler_disk_free_bytes{place=\"scratch\", job=~\"executor|driver\"})", 2.0);
    prometheus.wait_for("count(baler_disk_free_bytes{place=\"state\", job=~\"scheduler|driver\"})", 2.0);
    let openssl = Command::new("openssl").args(["x509", "-noout", "-enddate", "-in"]).arg(&authority).output().unwrap();
    let told = String::from_utf8(openssl.stdout).unwrap();
    let date = Command::new("date").args(["-u", "+%s", "-d", told.trim().trim_start_matches("notAfter=")]).output().unwrap();
    let end: f64 = String::from_utf8(date.stdout).unwrap().trim().parse().unwrap();
    prometheus.wait_for("max(baler_certificate_expires_seconds{file=\"AWS_CA_BUNDLE\"})", end);
    prometheus.wait_for("count(baler_certificate_expires_seconds)", 2.0);
    driver.terminate().expect_code(0);
}

/// Sends `count` records of one partition.
fn send(topic: &Topic<'_>, count: usize) {
    topic.send((0..count).map(|number| ((number % 2) as i32, Record::new(format!("{{\"n\":{number}}}")))));
}

fn summary_of(feed: &Feed<'_>) -> Value {
    let state = feed.state().display().to_string();
    let listed = Baler::new(["jobs", "list", "--state", &state, "--output", "json"]).run().expect_code(0).stdout;
    serde_json::from_str::<Value>(&listed).unwrap()[0].clone()
}

#[test]
fn a_query_tells_its_lag_its_commits_and_what_expires() {
    let topic = Kafka::shared().topic(2, &[("retention.ms", "3600000")]);
    send(&topic, 120);
    let feed = Feed::new(&topic);
    let port = free_port();
    let prometheus = Prometheus::start(&[("driver", port)]);
    let serve = [("BALER_METRICS_PORT".to_string(), port.to_string())];
    // A driver which stands still in its first micro-batch: nothing is committed.
    let held = feed.stream_call(&[]).envs(&serve).envs(&[("BALER_TEST_STOP_AT".to_string(), "written:0".to_string())]).start();
    prometheus.wait_for("sum(baler_stream_lag_records)", 120.0);
    prometheus.wait_for("max(baler_stream_retention_seconds)", 3600.0);
    wait_until("the oldest record has an age", || prometheus.query("baler_stream_lag_seconds > 0").len() == 2);
    let minutes = prometheus.value("baler_stream_expiry_minutes").unwrap();
    assert!(minutes > 0.0 && minutes < 60.0, "{minutes}");
    assert_eq!(prometheus.value("baler_stream_commit_age_seconds"), None);
    let listed = summary_of(&feed);
    assert_eq!((&listed["status"], &listed["query"]["lag_records"]), (&"streaming".into(), &120.into()));
    assert!(listed["query"]["lag_seconds"].as_f64().unwrap() > 0.0 && listed["query"]["expiry_minutes"].as_f64().unwrap() < 60.0);
    held.kill();

    let run = feed.stream_call(&["--trigger", "200ms"]).envs(&serve).start();
    prometheus.wait_for("sum(baler_stream_lag_records)", 0.0);
    prometheus.wait_for("max(baler_stream_lag_seconds)", 0.0);
    wait_until("a commit has an age", || prometheus.value("baler_stream_commit_age_seconds").is_some_and(|age| age >= 0.0));
    wait_until("nothing expires where nothing waits", || prometheus.value("baler_stream_expiry_minutes").is_none());
    prometheus.wait_for("sum(baler_stream_batches_total)", 1.0);
    send(&topic, 30);
    prometheus.wait_for("sum(baler_stream_batches_total)", 2.0);
    prometheus.wait_for("sum(baler_stream_batch_seconds_count)", 2.0);
    // What the first driver wrote and did not commit was in its own figures; this one found the receipts.
    prometheus.wait_for("sum(baler_documents_total)", prometheus.value("sum(baler_sink_docs_total)").unwrap());
    let listed = summary_of(&feed);
    assert_eq!((&listed["query"]["lag_records"], &listed["splits_done"]), (&0.into(), &2.into()));
    let state = feed.state().display().to_string();
    let shown = Baler::new(["jobs", "show", "feed", "--state", &state]).run().expect_code(0).stdout;
    assert!(shown.contains("lag        0 records") && shown.contains("2 of 2 committed"), "{shown}");
    run.terminate().expect_code(0);
}

#[test]
fn a_watched_job_is_told_to_its_end() {
    let job = Job::new();
    job.add_shapes(&corpus::texts());
    let state = job.state.clone();
    Baler::new(["jobs", "show", "load", "--watch", "--state", &state]).run().expect_one_line(2, &["no job or query `load`"]);
    job.run();
    let told = Baler::new(["jobs", "show", "load", "--watch", "--state", &state, "--output", "json"]).run().expect_code(0).stdout;
    let last: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!((&last["status"], &last["splits_done"]), (&"committed".into(), &last["splits"]));
}

/// The lines of a log, each of which is an object.
fn objects(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON ({e}): {line}"))).collect()
}

/// Each of so many lines about a split names it and its job.
#[track_caller]
fn expect_ids(told: &[Value], wanted: usize) {
    let splits: Vec<&Value> = told.iter().filter(|line| line["message"] == "a split is done").collect();
    assert_eq!(splits.len(), wanted, "{told:#?}");
    for split in splits {
        let spans = split["spans"].as_array().unwrap_or_else(|| panic!("{split}"));
        assert!(spans.iter().any(|span| span["name"] == "job" && span["job"].is_string() && span["attempt"] == 1), "{split}");
        assert!(spans.iter().any(|span| span["name"] == "split" && span["split"].is_string()), "{split}");
    }
}

#[test]
fn logs_for_machines_name_job_and_split_and_no_value_of_a_row() {
    let mut job = Job::new();
    let word = "zanzibar-of-a-row";
    // Several partitions, whose tasks are DataFusion's.
    for name in ["a", "b", "c", "d"] {
        job.add_file(&format!("{name}.jsonl"), format!("{{\"word\":\"{word}\"}}\n").repeat(50).as_bytes());
    }
    let logged = |filter: &str| {
        [("BALER_LOG_FORMAT", "json"), ("BALER_LOG", filter)].map(|(name, value)| (name.to_string(), value.to_string())).to_vec()
    };
    job.variables = logged("baler=debug");
    let run = job.run();
    expect_ids(&objects(&run.stderr), 4);
    assert!(!run.stderr.contains(word));
    // A line has its ids where the spans they are from are below what is logged, and where the same spans go to a collector.
    let jaeger = Jaeger::start();
    let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT".to_string(), jaeger.endpoint.clone());
    for (name, filter, collectors) in
        [("few", "error,baler::connector=debug", 0), ("spans", "baler=debug", 1), ("few-spans", "error,baler::connector=debug", 1)]
    {
        job.name = name.to_string();
        job.variables = logged(filter);
        job.variables.extend(vec![collector.clone(); collectors]);
        expect_ids(&objects(&job.run().stderr), 4);
    }
    job.name = "load".to_string();
    job.variables = logged("");
    job.variables.pop();
    let told = objects(&job.run().stderr);
    let line = told.iter().find(|line| line["message"] == "load: 4 of 4 splits are done already").unwrap_or_else(|| panic!("{told:#?}"));
    assert_eq!((&line["span"]["job"], &line["span"]["attempt"]), (&"load".into(), &1.into()), "{line}");
    // The error which a command ends with is a line like the others.
    job.level = 8;
    let failed = job.call().run().expect_code(1);
    let last = objects(&failed.stderr).pop().unwrap();
    assert!(
        last["level"] == "ERROR"
            && last["exit_code"] == 1
            && last["job"] == "load"
            && last["message"].as_str().unwrap().contains("another statement"),
        "{last}"
    );
}

#[test]
fn servers_log_objects_with_the_ids_of_job_stage_and_task() {
    let jaeger = Jaeger::start();
    let log = ("BALER_LOG".to_string(), "warn,baler=debug".to_string());
    expect_ids_of_tasks(std::slice::from_ref(&log));
    expect_ids_of_tasks(&[log, ("OTEL_EXPORTER_OTLP_ENDPOINT".to_string(), jaeger.endpoint.clone())]);
}

fn expect_ids_of_tasks(variables: &[(String, String)]) {
    let fleet = Fleet::start(1, variables);
    let job = Job::new().on(&fleet);
    job.add_shapes(&corpus::texts());
    job.run();
    let log = objects(&fleet.log("executor-0"));
    let split = log.iter().find(|line| line["message"] == "a split is done").unwrap_or_else(|| panic!("{log:#?}"));
    let spans = split["spans"].as_array().unwrap();
    let task = spans.iter().find(|span| span["name"] == "task").unwrap_or_else(|| panic!("{split}"));
    assert!(task["ballista_job"].is_string() && task["stage"].is_u64() && task["task"].is_u64(), "{task}");
    assert!(spans.iter().any(|span| span["name"] == "split" && span["job"] == "load"), "{split}");
    objects(&fleet.log("scheduler"));
}
