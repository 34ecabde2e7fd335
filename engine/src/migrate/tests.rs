//! Applications as Spark's operator takes them.

use kube::ResourceExt;

use super::*;

const BATCH: &str = include_str!("../../../tests/spark/spark-batch-application.yaml");
const STREAM: &str = include_str!("../../../tests/spark/spark-streaming-application.yaml");

fn one(text: &str) -> Converted {
    let mut all = convert(text).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn fate<'a>(converted: &'a Converted, setting: &str) -> (&'static str, &'a str) {
    let found = converted.findings.iter().find(|finding| finding.setting.ends_with(setting));
    found.map(|finding| (finding.fate, finding.counterpart.as_str())).unwrap_or_else(|| panic!("{setting} is not told"))
}

#[test]
fn the_batch_application_becomes_a_job_and_each_setting_is_told_once() {
    let converted = one(BATCH);
    let job: BalerJob = serde_saphyr::from_str(&converted.resource).unwrap();
    assert_eq!((job.name_any().as_str(), job.namespace().as_deref()), ("spark-batch-processor-2tb", Some("default")));
    assert_eq!((job.spec.retries, job.spec.ttl_seconds_after_finished), (3, Some(86_400)));
    assert_eq!(job.spec.driver.set["INPUT"], "s3://raw-data/batch/");
    assert_eq!(job.spec.driver.set["OUTPUT"], "mongodb://mongodb-mongos:27017/compressed_data.documents?authSource=admin");
    let sql = job.spec.sql.inline.unwrap();
    for part in ["'blob.split_size' '134217728'", "'mongodb.batch_docs' '1000'", "'mongodb.ordered' 'false'", "zlib_compress(content, 9)"] {
        assert!(sql.contains(part), "no {part} in {sql}");
    }
    assert_eq!(
        fate(&converted, "spark.executor.instances"),
        ("to be set elsewhere", "kubectl -n baler scale statefulset/baler-executor --replicas 10")
    );
    assert_eq!(fate(&converted, "spark.serializer").0, "not needed");
    assert_eq!(fate(&converted, "spec.mainApplicationFile").0, "without counterpart");
    assert_eq!(fate(&converted, "spark.example.unheardOf"), ("without counterpart", "the table of settings does not know it"));
    let mut settings: Vec<_> =
        converted.findings.iter().filter(|finding| finding.setting != "spec.arguments").map(|f| &f.setting).collect();
    let before = settings.len();
    settings.dedup();
    assert_eq!(settings.len(), before);
}

#[test]
fn the_streaming_application_becomes_a_stream() {
    let converted = one(STREAM);
    let stream: BalerStream = serde_saphyr::from_str(&converted.resource).unwrap();
    assert_eq!(stream.spec.driver.set["INPUT"], "kafka://kafka-cp-kafka:9092/data-stream");
    assert_eq!(stream.spec.driver.state.as_deref(), Some("s3://checkpoints/stream"));
    assert!(stream.spec.sql.inline.unwrap().contains("'kafka.max_records_per_partition_per_second' '100000'"));
}

#[test]
fn no_secret_of_an_application_is_printed() {
    for text in [BATCH, STREAM] {
        let converted = one(text);
        let all = format!("{} {:?}", converted.resource, converted.findings);
        assert!(text.contains("hunter2") && !all.contains("hunter2"), "{all}");
    }
}

#[test]
fn a_fragment_and_a_scheduled_application_are_understood_and_anything_else_is_refused() {
    let fragment =
        one("sparkConf:\n  \"spark.executor.memory\": \"8g\"\n  \"spark.executor.cores\": \"4\"\n  \"spark.executor.instances\": \"10\"\n");
    assert_eq!(fragment.findings.len(), 3);
    let scheduled = "kind: ScheduledSparkApplication\nmetadata: {name: Nightly_Load}\nspec:\n  schedule: '@daily'\n  template: {sparkConf: {spark.ui.port: 4041}}\n";
    let scheduled = one(scheduled);
    assert!(scheduled.resource.contains("nightly-load") && fate(&scheduled, "spec.schedule").1.contains("@daily"));
    for (text, part) in [("kind: Pod\n", "Pod"), ("a: [", "no YAML"), ("", "no SparkApplication")] {
        let error = convert(text).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
    }
}
