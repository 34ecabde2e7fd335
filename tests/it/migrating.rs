//! From Spark: the job which a SparkApplication is converted to runs, its resource is accepted by an API server, and `spark-submit`'s
//! habits are answered.

use std::fs;
use std::path::{Path, PathBuf};

use baler_tests::baler::Baler;
use baler_tests::corpus::lines;
use baler_tests::kafka::Kafka;
use baler_tests::kubernetes::Cluster;
use baler_tests::minio::Minio;
use baler_tests::mongo::Mongo;
use baler_tests::servers::Scratch;
use baler_tests::topic::Record;
use serde_json::Value;

fn application(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("spark").join(name)
}

fn converted(name: &str) -> Value {
    let file = application(name).display().to_string();
    let printed = Baler::new(["convert-conf", &file, "--output", "json"]).run().expect_code(0).stdout;
    let mut all: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 1);
    all[0].take()
}

#[test]
fn a_batch_application_of_spark_becomes_a_job_which_runs() {
    let (scratch, server, mongo) = (Scratch::new(), Minio::plain(), Mongo::shared());
    let (bucket, collection) = (server.make_bucket(), mongo.collection());
    bucket.put("batch/a.jsonl", &lines(1, 300_000, "\n"));
    let job = converted("spark-batch-application.yaml");
    assert_eq!((job["kind"].as_str(), job["name"].as_str()), (Some("BalerJob"), Some("spark-batch-processor-2tb")));
    assert_eq!(job["set"]["INPUT"], "s3://raw-data/batch/");
    let file = scratch.join("job.sql");
    fs::write(&file, job["sql"].as_str().unwrap()).unwrap();
    let (state, input, output) = (scratch.join("state"), format!("INPUT={}", bucket.url("batch/")), format!("OUTPUT={}", collection.url));
    let words = ["run", file.to_str().unwrap(), "--job", "spark", "--state", state.to_str().unwrap(), "--set", &input, "--set", &output];
    Baler::new(words).envs(&server.environment()).run().expect_code(0);
    let verify = ["verify", "--deep", "--job", "spark", "--state", state.to_str().unwrap()];
    let shown = Baler::new(verify).envs(&server.environment()).run().expect_code(0).stdout;
    assert!(shown.contains("0 missing, 0 duplicate, 0 mismatched") && shown.contains("1 documents hold"), "{shown}");
    // What was set in Spark is set in the job.
    let manifest: Value = serde_json::from_slice(&fs::read(state.join("spark/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["source"]["split_bytes"].as_u64().or(manifest["source"]["blob"]["split_bytes"].as_u64()), Some(134_217_728));
    assert_eq!((manifest["sink"]["batch_docs"].as_u64(), manifest["sink"]["ordered"].as_bool()), (Some(1000), Some(false)));
}

#[test]
fn a_streaming_application_of_spark_becomes_a_query_which_runs() {
    let (scratch, topic, collection) = (Scratch::new(), Kafka::shared().topic(2, &[]), Mongo::shared().collection());
    topic.send((0..100).map(|number| (number % 2, Record::new(format!("event {number}")))));
    let query = converted("spark-streaming-application.yaml");
    assert_eq!(
        (query["kind"].as_str(), query["set"]["INPUT"].as_str()),
        (Some("BalerStream"), Some("kafka://kafka-cp-kafka:9092/data-stream"))
    );
    let file = scratch.join("query.sql");
    fs::write(&file, query["sql"].as_str().unwrap()).unwrap();
    let (state, input, output) = (scratch.join("state"), format!("INPUT={}", topic.url()), format!("OUTPUT={}", collection.url));
    let state = state.to_str().unwrap();
    let words =
        ["stream", file.to_str().unwrap(), "--name", "spark", "--available-now", "--state", state, "--set", &input, "--set", &output];
    Baler::new(words).run().expect_code(0);
    let shown = Baler::new(["verify", "--deep", "--job", "spark", "--state", state]).run().expect_code(0).stdout;
    assert!(shown.contains("0 missing, 0 duplicate, 0 mismatched"), "{shown}");
}

#[test]
fn what_is_printed_is_accepted_by_an_api_server_and_names_every_setting() {
    let (cluster, scratch) = (Cluster::start(), Scratch::new());
    let types = Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/components/operator/types.yaml");
    cluster.kubectl(&["apply", "--server-side", "--filename", types.to_str().unwrap()]).expect_silent();
    for crd in ["balerjobs.baler.dev", "balerstreams.baler.dev"] {
        cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{crd}")]).expect_silent();
    }
    for (name, kind) in [("spark-batch-application.yaml", "balerjob"), ("spark-streaming-application.yaml", "balerstream")] {
        let application = application(name);
        let printed = Baler::new(["convert-conf", application.to_str().unwrap()]).run().expect_code(0).stdout;
        let file = scratch.join(name);
        fs::write(&file, &printed).unwrap();
        // With the comments, as it would be piped.
        let applied = ["apply", "--server-side", "--validate=strict", "--output=name", "--filename", file.to_str().unwrap()];
        let stored = cluster.kubectl(&applied).expect_silent();
        assert!(stored.trim().starts_with(&format!("{kind}.baler.dev/spark-")), "{stored}");
        for line in fs::read_to_string(&application).unwrap().lines().filter(|line| line.trim_start().starts_with("\"spark.")) {
            let key = line.trim().trim_start_matches('"').split('"').next().unwrap();
            assert_eq!(printed.matches(&format!("spec.sparkConf.{key}: ")).count(), 1, "{key} in {printed}");
        }
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}

#[test]
fn habits_of_spark_submit_are_answered_in_one_line() {
    for (line, parts) in [
        ("run job.sql --master k8s://https://a:443", &["--master", "--scheduler df://"][..]),
        ("run job.sql --conf spark.executor.instances=10", &["kubectl", "--replicas 10"]),
        ("--status batch-2tb", &["baler jobs show batch-2tb"]),
        ("--kill batch-2tb", &["baler jobs cancel batch-2tb"]),
        ("run job.sql --class org.example.Main", &["baler run FILE.sql"]),
        ("run job.sql --deploy-mode cluster", &["BalerJob"]),
        ("spark-submit main.py", &["baler run FILE.sql"]),
    ] {
        Baler::new(line.split(' ')).run().expect_one_line(2, parts);
    }
    // Anything else is told as ever.
    let refused = Baler::new(["run", "job.sql", "--jobb", "x"]).run().expect_code(2);
    assert!(refused.stderr.contains("--job"), "{}", refused.stderr);
    Baler::new(["convert-conf", "nowhere.yaml"]).run().expect_one_line(2, &["nowhere.yaml"]);
}
