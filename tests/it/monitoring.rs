//! Rules and Grafana dashboards: promtool's tests, and each query of each panel on the data of a real run.

use std::path::{Path, PathBuf};
use std::process::Command;

use baler_tests::corpus::{self, lines};
use baler_tests::feed::Feed;
use baler_tests::fleet::Fleet;
use baler_tests::job::Job;
use baler_tests::kafka::Kafka;
use baler_tests::mongo::Mongo;
use baler_tests::prometheus::{Prometheus, program};
use baler_tests::servers::free_port;
use baler_tests::topic::Record;
use baler_tests::wait_until;
use serde_json::Value;

fn monitoring(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/components/monitoring").join(folder)
}

#[test]
fn rules_fire_when_they_should_and_not_before() {
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "rules-test.yaml"]] {
        let output = Command::new(program("promtool")).args(arguments).current_dir(monitoring("prometheus")).output().unwrap();
        assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    // Each alert has a test and a word for whoever is woken by it.
    let read = |name: &str| std::fs::read_to_string(monitoring("prometheus").join(name)).unwrap();
    let (rules, tests) = (read("rules.yaml"), read("rules-test.yaml"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 9 && rules.matches("runbook: ").count() == alerts.len(), "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(alert), "no test of {alert}");
    }
}

/// Title and query of each target of each panel.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for file in std::fs::read_dir(monitoring("grafana")).unwrap().flatten() {
        let dashboard: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
        assert!(dashboard["uid"].as_str().unwrap().starts_with("baler-"));
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let title = format!("{} › {}", dashboard["title"].as_str().unwrap(), panel["title"].as_str().unwrap());
                queries.push((title, target["expr"].as_str().unwrap().replace("$__rate_interval", "1m")));
            }
        }
    }
    queries
}

#[test]
fn every_query_of_every_panel_returns_data_of_a_real_run() {
    let queries = queries();
    assert!(queries.len() > 40, "{}", queries.len());
    let (fleet, ports) = (Fleet::start(2, &[]), [free_port(), free_port()]);
    let executors = fleet.metrics_ports.clone();
    let prometheus = Prometheus::start(&[
        ("baler", fleet.port),
        ("baler", executors[0]),
        ("baler", executors[1]),
        ("driver", ports[0]),
        ("driver", ports[1]),
    ]);
    prometheus.wait_for("sum(up)", 3.0);
    let metrics = |port: u16| [("BALER_METRICS_PORT".to_string(), port.to_string())];
    let topic = Kafka::shared().topic(2, &[("retention.ms", "3600000")]);
    topic.send((0..200).map(|number| (number % 2, Record::new(format!("{{\"n\":{number}}}")))));
    let feed = Feed::new(&topic);
    let mut stream = feed.stream_call(&["--trigger", "200ms"]).envs(&metrics(ports[1])).start();
    wait_until("a micro-batch is committed", || feed.batches("commits") > 0 || !stream.is_running());
    let mut job = Job::new().into_collection(Mongo::shared().collection()).on(&fleet);
    job.source_options.push(("blob.on_corrupt", "dead_letter"));
    job.add_shapes(&corpus::damaged()[..1]);
    job.add_file("long.jsonl", &lines(3, 6 << 20, "\n"));
    // The driver stays until it was scraped after its end.
    job.variables = [metrics(ports[0]).to_vec(), vec![("BALER_METRICS_LINGER_SECONDS".to_string(), "100".to_string())]].concat();
    job.run();
    wait_until("the query has told its lag", || !prometheus.query("baler_stream_lag_seconds").is_empty() || !stream.is_running());
    for (title, query) in queries {
        // The job's driver has ended meanwhile.
        let query = if query.contains("baler_job_") { of_last_minutes(&query) } else { query };
        wait_until(&format!("{title} has data: {query}"), || !prometheus.query(&query).is_empty());
    }
    stream.terminate().expect_code(0);
}

/// The same query on what was there in the last minutes.
fn of_last_minutes(query: &str) -> String {
    let mut changed = String::new();
    let mut rest = query;
    while let Some(at) = rest.find("baler_job_") {
        let end = rest[at..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(rest.len(), |length| at + length);
        changed += &format!("{}last_over_time({}[5m])", &rest[..at], &rest[at..end]);
        rest = &rest[end..];
    }
    changed + rest
}
