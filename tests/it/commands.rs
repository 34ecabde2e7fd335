//! The commands around the job: `demo`, `generate`, `sql`, and every command line of the README.

use std::path::{Path, PathBuf};

use baler_tests::authority::Authority;
use baler_tests::baler::{Baler, Finished};
use baler_tests::dump_reader::read_dump;
use baler_tests::fleet::Fleet;
use baler_tests::kafka::Kafka;
use baler_tests::minio::Minio;
use baler_tests::mongo::Mongo;
use baler_tests::servers::Scratch;
use baler_tests::topic::Record;

/// Runs a command line of words in a folder.
fn run_in(folder: &Path, line: &str, variables: &[(String, String)]) -> Finished {
    let enter = format!("cd '{}' && exec \"$@\"", folder.display());
    Baler::new(line.split_whitespace()).envs(variables).through(&["sh", "-c", &enter, "sh"]).run().expect_code(0)
}

#[test]
fn the_demo_ends_verified_and_can_be_run_again() {
    let scratch = Scratch::new();
    for _ in 0..2 {
        let shown = run_in(scratch.path(), "demo --size 24MiB", &[]).stdout;
        assert!(shown.contains("0 missing, 0 duplicate, 0 mismatched, 0 dead letters") && shown.contains("nothing lost"), "{shown}");
    }
    // By code which shares nothing with the writer: the dump holds exactly the generated files.
    let stored = read_dump(&scratch.join("baler-demo/dump")).objects();
    let plain: usize = stored.iter().filter(|(uri, _)| uri.contains("/data/plain/")).map(|(uri, bytes)| same_as_file(uri, bytes)).sum();
    assert!(stored.len() == 4 && plain >= 12 << 20, "{} objects, {plain} plain bytes", stored.len());
    // A folder which is somebody else's is not touched.
    std::fs::write(scratch.join("mine.txt"), b"mine").unwrap();
    let refused = Baler::new(["demo", "--dir"].iter().map(|word| (*word).to_string()).chain([scratch.path().display().to_string()])).run();
    refused.expect_one_line(2, &["in use"]);
}

fn same_as_file(uri: &str, bytes: &[u8]) -> usize {
    let file = std::fs::read(uri.trim_start_matches("file://")).unwrap();
    assert!(file == bytes, "{uri} came back otherwise");
    file.len()
}

#[test]
fn generated_data_is_equal_for_an_equal_seed_wherever_it_goes() {
    let (scratch, server) = (Scratch::new(), Minio::plain());
    let bucket = server.make_bucket();
    let options = "--size 3MiB --files 3 --shape logs --seed 7 --output json";
    let local = run_in(scratch.path(), &format!("generate --to data {options}"), &[]).stdout;
    run_in(scratch.path(), &format!("generate --to {} {options}", bucket.url("data/")), &server.environment());
    let figures: serde_json::Value = serde_json::from_str(&local).unwrap();
    let mut lines = 0;
    for number in 0..3 {
        let name = format!("events-{number:05}.log");
        let file = std::fs::read(find(&scratch.join("data"), number)).unwrap_or_else(|e| panic!("{name}: {e}"));
        lines += file.iter().filter(|byte| **byte == b'\n').count();
        let key = bucket.list("data/").into_iter().nth(number).unwrap();
        assert!(bucket.get(&key) == file, "{key} differs from its local twin");
    }
    assert_eq!(figures["records"], lines);
    assert_eq!(figures["objects"], 3);
}

/// The file of that number in order of names.
fn find(folder: &Path, number: usize) -> PathBuf {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.swap_remove(number)
}

#[test]
fn queries_print_rows_in_every_format_and_errors_in_one_line() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.join("in")).unwrap();
    std::fs::write(scratch.join("in/a.txt"), b"one\ntwo\n").unwrap();
    std::fs::write(
        scratch.join("q.sql"),
        "CREATE EXTERNAL TABLE o STORED AS BLOB LOCATION 'in/'; SELECT records, byte_length, octet_length(zlib_compress(content, 9)) > 0 AS packed FROM o;",
    )
    .unwrap();
    let table = run_in(scratch.path(), "sql --file q.sql", &[]).stdout;
    assert!(table.contains("| 2       | 8           | true   |"), "{table}");
    assert_eq!(run_in(scratch.path(), "sql --file q.sql --format csv", &[]).stdout, "records,byte_length,packed\n2,8,true\n");
    let json = run_in(scratch.path(), "sql --file q.sql --format json", &[]).stdout;
    assert_eq!(json.trim(), r#"{"records":2,"byte_length":8,"packed":true}"#);
    Baler::new(["sql", "--command", "SELECT nothing FROM nowhere"]).run().expect_one_line(2, &["nowhere"]);
}

#[test]
fn an_insert_outside_a_job_writes_documents_and_says_how_many() {
    let scratch = Scratch::new();
    let sql = "CREATE EXTERNAL TABLE d STORED AS BSON LOCATION 'dump'; INSERT INTO d SELECT column1 AS _id, column2 AS name FROM (VALUES (1, 'a'), (2, 'b'))";
    let enter = format!("cd '{}' && exec \"$@\"", scratch.path().display());
    let shown = Baler::new(["sql", "--format", "csv", "--command", sql]).through(&["sh", "-c", &enter, "sh"]).run().expect_code(0).stdout;
    assert_eq!(shown, "count\n2\n");
    let part = std::fs::read_dir(scratch.join("dump/compressed_data")).unwrap().map(|entry| entry.unwrap().path());
    let bytes: usize =
        part.filter(|path| path.extension().is_some_and(|end| end == "bson")).map(|path| std::fs::read(path).unwrap().len()).sum();
    assert!(bytes > 0);
}

/// Command lines of the README which are not run here, and why.
const NOT_RUN: [(&str, &str); 9] = [
    ("baler scheduler &", "the fleet below, on free ports"),
    ("baler executor &", "the fleet below, on free ports"),
    ("cargo run -- demo", "the_demo_ends_verified_and_can_be_run_again runs the same binary"),
    ("tests/run", "it is what runs this test"),
    ("cargo build --release", "the binary under test is used in its place"),
    (
        "export BALER_TLS_CA=ca.crt BALER_TLS_CERT=member.crt BALER_TLS_KEY=member.key   # or --tls-ca, --tls-cert, --tls-key",
        "set below, as variables",
    ),
    ("baler scheduler --bind-host 10.0.0.1 --access roles &", "the fleet with TLS below, on the loopback address; roles are in tls::roles"),
    (
        "baler executor --bind-host 10.0.0.2 --external-host 10.0.0.2 --scheduler-host 10.0.0.1 --access roles &",
        "the fleet with TLS below, on the loopback address; roles are in tls::roles",
    ),
    ("export MONGODB_USERNAME=loader MONGODB_PASSWORD_FILE=/run/secrets/mongodb", "set below, as variables"),
];

/// Pages whose indented lines are command lines, in the order in which a reader meets them.
const PAGES: [&str; 3] = ["README.md", "docs/restoring.md", "docs/migrating-from-spark.md"];

#[test]
fn every_command_of_the_readme_and_of_the_pages_runs_as_it_stands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (scratch, server, mongo) = (Scratch::new(), Minio::plain(), Mongo::with_login());
    std::fs::create_dir(scratch.join("sql")).unwrap();
    for file in ["compress.sql", "compress-to-mongodb.sql", "stream.sql"] {
        std::fs::copy(root.join("sql").join(file), scratch.join("sql").join(file)).unwrap();
    }
    for file in ["spark-batch-application.yaml", "spark-streaming-application.yaml"] {
        std::fs::copy(root.join("tests/spark").join(file), scratch.join(file)).unwrap();
    }
    run_in(scratch.path(), "generate --to data --size 2MiB --files 2", &[]);
    let bucket = server.make_bucket();
    bucket.put("prefix/a.json", b"{\"n\":1}\n");
    let login = mongo.login.as_ref().unwrap();
    std::fs::write(scratch.join("password"), format!("{}\n", login.password)).unwrap();
    let mut variables = server.environment();
    variables.push(("MONGODB_USERNAME".to_string(), login.user.clone()));
    variables.push(("MONGODB_PASSWORD_FILE".to_string(), scratch.join("password").display().to_string()));
    let fleet = Fleet::start(1, &variables);
    let member = Authority::make(&scratch.join("authority")).issue("member", &[], 30);
    let secure = Fleet::start_secure(1, &member, &variables);
    let by_tls = [variables.clone(), member.variables()].concat();
    let (topic, again) = (Kafka::shared().topic(1, &[]), Kafka::shared().topic(1, &[]));
    topic.send([(0, Record::new(r#"{"n":1}"#))]);
    for page in PAGES {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let mut ran = 0;
        for line in text.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.starts_with(' ')) {
            // Code in a block of another language is no command line.
            if NOT_RUN.iter().any(|(other, _)| *other == line) || page.starts_with("docs/") && !line.starts_with("baler ") {
                continue;
            }
            let words = line.strip_prefix("target/release/baler ").or_else(|| line.strip_prefix("baler "));
            let words = words.unwrap_or_else(|| panic!("{page} shows a command which no test knows: {line}"));
            // Only names of servers are replaced.
            let words = words
                .replace("s3://bucket/", &bucket.url(""))
                .replace("df://localhost:50050", &fleet.url())
                .replace("dfs://10.0.0.1:50050", &secure.url())
                .replace("kafka://broker:9092/events-again", &again.url())
                .replace("kafka://broker:9092/events", &topic.url())
                .replace("mongodb://host:27017/", &format!("mongodb://127.0.0.1:{}/", mongo.port));
            run_in(scratch.path(), &words, if words.contains("dfs://") { &by_tls } else { &variables });
            ran += 1;
        }
        assert!(ran >= 2, "only {ran} commands were found in {page}");
    }
    assert_eq!(again.read().into_values().map(|record| record.value).collect::<Vec<_>>(), [Some(br#"{"n":1}"#.to_vec())]);
}
