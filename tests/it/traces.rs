//! Traces: a job is one trace, from the driver to each batch of the sink, in a real Jaeger.

use std::collections::HashMap;

use baler_tests::baler::Baler;
use baler_tests::corpus::lines;
use baler_tests::feed::Feed;
use baler_tests::fleet::Fleet;
use baler_tests::jaeger::{Jaeger, Span};
use baler_tests::job::{Job, files};
use baler_tests::kafka::Kafka;
use baler_tests::mongo::Mongo;
use baler_tests::topic::Record;
use baler_tests::wait_until;
use serde_json::Value;

fn exported_to(jaeger: &Jaeger) -> Vec<(String, String)> {
    vec![("OTEL_EXPORTER_OTLP_ENDPOINT".to_string(), jaeger.endpoint.clone())]
}

/// Names and services from a span up to its root.
fn way_up<'a>(spans: &'a HashMap<String, Span>, from: &'a Span) -> Vec<(&'a str, &'a str)> {
    let next = |span: &&'a Span| spans.get(span.parent.as_ref()?);
    std::iter::successors(Some(from), next).map(|span| (span.name.as_str(), span.service.as_str())).collect()
}

fn by_id(spans: Vec<Span>) -> HashMap<String, Span> {
    spans.into_iter().map(|span| (span.id.clone(), span)).collect()
}

fn named<'a>(spans: &'a HashMap<String, Span>, name: &str) -> Vec<&'a Span> {
    spans.values().filter(|span| span.name == name).collect()
}

#[test]
fn a_job_on_a_fleet_is_one_trace_from_the_driver_to_each_batch_of_the_sink() {
    let jaeger = Jaeger::start();
    let fleet = Fleet::start(2, &exported_to(&jaeger));
    let mut job = Job::new().into_collection(Mongo::shared().collection()).on(&fleet);
    job.add_file("a.jsonl", &lines(3, 4 << 20, "\n"));
    job.variables = exported_to(&jaeger);
    job.run();
    let splits = job.receipts();
    assert!(splits > 3, "{splits}");
    let listed = Baler::new(["jobs", "show", "load", "--state", &job.state, "--output", "json"]).run().expect_code(0).stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let documents_in =
        |spans: &HashMap<String, Span>| named(spans, "sink_batch").iter().filter_map(|span| span.tags["documents"].as_u64()).sum::<u64>();
    // Executors send their spans a few seconds later.
    wait_until("all spans have come", || {
        let spans = by_id(jaeger.spans("baler"));
        let documents = listed["commit"]["documents"].as_u64();
        named(&spans, "split").len() == splits && Some(documents_in(&spans)) == documents && !named(&spans, "job").is_empty()
    });
    let spans = by_id(jaeger.spans("baler"));
    let root = named(&spans, "job")[0];
    assert_eq!((root.tags["job"].as_str(), root.parent.as_ref()), (Some("load"), None));
    assert!(spans.values().all(|span| span.trace == root.trace), "{spans:#?}");
    let wanted =
        [("sink_batch", "baler-executor"), ("split", "baler-executor"), ("task", "baler-executor"), ("wave", "baler"), ("job", "baler")];
    for batch in named(&spans, "sink_batch") {
        assert_eq!(way_up(&spans, batch), wanted);
        assert!(batch.tags["documents"].as_u64().unwrap() > 0 && batch.tags["bytes"].as_u64().unwrap() > 0, "{batch:?}");
    }
    let ids: std::collections::BTreeSet<_> = named(&spans, "split").iter().map(|span| span.tags["split"].to_string()).collect();
    assert_eq!(ids.len(), splits);
}

#[test]
fn a_job_in_one_process_and_a_micro_batch_are_traces_and_nothing_is_sent_unasked() {
    let jaeger = Jaeger::start();
    let mut job = Job::new();
    job.add_file("a.jsonl", &lines(3, 2 << 20, "\n"));
    // Without the option nobody is told.
    job.name = "silent".to_string();
    job.run();
    job.name = "load".to_string();
    job.variables = exported_to(&jaeger);
    job.run();
    let topic = Kafka::shared().topic(2, &[]);
    topic.send((0..20).map(|number| (number % 2, Record::new(format!("{{\"n\":{number}}}")))));
    let feed = Feed::new(&topic);
    feed.stream_call(&["--available-now"]).envs(&exported_to(&jaeger)).run().expect_code(0);
    wait_until("both have come", || {
        let spans = by_id(jaeger.spans("baler"));
        !named(&spans, "job").is_empty() && !named(&spans, "batch").is_empty()
    });
    let spans = by_id(jaeger.spans("baler"));
    assert!(named(&spans, "job").iter().all(|span| span.tags["job"] != "silent"));
    let ways: Vec<_> = named(&spans, "sink_batch").into_iter().map(|span| way_up(&spans, span)).collect();
    let names: Vec<Vec<&str>> = ways.iter().map(|way| way.iter().map(|(name, _)| *name).collect()).collect();
    assert!(names.contains(&vec!["sink_batch", "split", "job"]), "{names:?}");
    assert!(names.iter().any(|way| way.first() == Some(&"sink_batch") && way.last() == Some(&"batch")), "{names:?}");
    assert!(!files(&job.scratch.join("dump")).is_empty());
}

#[test]
fn a_collector_which_is_away_holds_no_job_up() {
    let mut job = Job::new();
    let bytes = lines(3, 1 << 20, "\n");
    let expected = [(job.add_file("a.jsonl", &bytes), bytes)].into();
    job.variables = vec![("OTEL_EXPORTER_OTLP_ENDPOINT".to_string(), "http://127.0.0.1:9".to_string())];
    job.run();
    job.variables.clear();
    job.expect_complete(&expected);
    // An address which cannot be one is told before anything begins.
    job.name = "other".to_string();
    job.variables = vec![("OTEL_EXPORTER_OTLP_ENDPOINT".to_string(), "collector:4317".to_string())];
    job.call().run().expect_one_line(2, &["--otlp-endpoint", "http://host:4317"]);
}

#[test]
fn spans_go_by_tls_to_a_collector_whose_authority_is_known_and_to_no_other() {
    let jaeger = Jaeger::start_tls();
    let authority = jaeger.authority.as_ref().unwrap().display().to_string();
    let mut job = Job::new();
    job.add_file("a.jsonl", &lines(3, 2 << 20, "\n"));
    // No authority which this machine trusts has signed its certificate: the job is done, and nobody is told.
    job.name = "unknown".to_string();
    job.variables = exported_to(&jaeger);
    job.run();
    job.name = "load".to_string();
    job.variables.push(("OTEL_EXPORTER_OTLP_CERTIFICATE".to_string(), authority));
    job.run();
    wait_until("the spans have come", || {
        let spans = by_id(jaeger.spans("baler"));
        !named(&spans, "job").is_empty() && named(&spans, "split").len() == job.receipts()
    });
    let spans = by_id(jaeger.spans("baler"));
    assert!(named(&spans, "job").iter().all(|span| span.tags["job"] == "load"), "{spans:#?}");
    // A file without an authority is told before anything begins.
    job.variables.pop();
    job.variables.push(("OTEL_EXPORTER_OTLP_CERTIFICATE".to_string(), "/nowhere/ca.crt".to_string()));
    job.call().run().expect_one_line(2, &["OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.crt"]);
}
