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

/// Command lines of the README and of the pages which are not run here, and why.
const NOT_RUN: [(&str, &str); 21] = [
    ("baler scheduler &", "the fleet below, on free ports"),
    ("baler scheduler --state ./baler-state &", "the fleet below, on free ports"),
    ("baler executor &", "the fleet below, on free ports"),
    ("baler executor --bind-port 50061 --bind-grpc-port 50062 --bind-health-port 50063 &", "the fleet below, on free ports"),
    ("cargo run -- demo", "the_demo_ends_verified_and_can_be_run_again runs the same binary"),
    ("tests/run", "it is what runs this test"),
    ("cargo build --release", "the binary under test is used in its place"),
    ("cargo build --release --locked", "the binary under test is used in its place"),
    ("cargo install --path engine --locked", "the same build into another folder"),
    ("packaging/archive", "packaging runs it, with the binary under test"),
    ("sha256sum -c baler-0.1.0-x86_64-unknown-linux-gnu.tar.gz.sha256", "packaging checks and unpacks an archive"),
    ("tar -xzf baler-0.1.0-x86_64-unknown-linux-gnu.tar.gz", "packaging checks and unpacks an archive"),
    ("k8s/setup-pipeline.sh minimal", "kubernetes_scripts, as far as there is no kind"),
    ("k8s/generate-sample-data.sh", "kubernetes_scripts"),
    ("kubectl apply -k k8s/jobs/batch", "kubernetes applies every job, kubernetes_pods runs its command"),
    ("kubectl -n baler logs --follow job/baler-batch", "there is no kubelet"),
    ("kubectl apply -k k8s/jobs/verify", "kubernetes applies every job, kubernetes_pods runs its command"),
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

/// The command lines of a page, in the order in which a reader meets them: indented lines outside of blocks of code.
fn command_lines(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page)).unwrap();
    let outside = text.split("```").step_by(2).flat_map(str::lines);
    outside.filter_map(|line| line.strip_prefix("    ")).map(str::to_string).collect()
}

/// Runs all commands of these pages as they stand, each page after the other in one folder, against real servers.
fn run_pages(pages: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (scratch, server, mongo) = (Scratch::new(), Minio::plain(), Mongo::with_login());
    std::fs::create_dir(scratch.join("sql")).unwrap();
    for file in std::fs::read_dir(root.join("sql")).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(file.path(), scratch.join("sql").join(file.file_name())).unwrap();
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
    let fleet = Fleet::start(2, &variables);
    let member = Authority::make(&scratch.join("authority")).issue("member", &[], 30);
    let secure = Fleet::start_secure(1, &member, &variables);
    let (topic, again) = (Kafka::shared().topic(1, &[]), Kafka::shared().topic(1, &[]));
    topic.send([(0, Record::new(r#"{"n":1}"#))]);
    // Only names of servers are replaced.
    let placed = |line: &str| {
        line.replace("s3://bucket/", &bucket.url(""))
            .replace("df://localhost:50050", &fleet.url())
            .replace("dfs://10.0.0.1:50050", &secure.url())
            .replace("kafka://broker:9092/events-again", &again.url())
            .replace("kafka://broker:9092/events", &topic.url())
            .replace("mongodb://host:27017/", &format!("mongodb://127.0.0.1:{}/", mongo.port))
    };
    for page in pages {
        let mut variables = variables.clone();
        let mut known = 0;
        for line in command_lines(page) {
            known += 1;
            if NOT_RUN.iter().any(|(other, _)| *other == line) {
                continue;
            }
            if let Some(words) = line.strip_prefix("export ") {
                let set = words.split_whitespace().filter_map(|word| word.split_once('='));
                variables.extend(set.map(|(name, value)| (name.to_string(), placed(value))));
                continue;
            }
            let words = line.strip_prefix("target/release/baler ").or_else(|| line.strip_prefix("baler "));
            let words = placed(words.unwrap_or_else(|| panic!("{page} shows a command which no test knows: {line}")));
            let by_tls = if words.contains("dfs://") { member.variables() } else { Vec::new() };
            run_in(scratch.path(), &words, &[variables.clone(), by_tls].concat());
        }
        assert!(known >= 2, "only {known} commands were found in {page}");
    }
    if pages.contains(&"docs/restoring.md") {
        assert_eq!(again.read().into_values().map(|record| record.value).collect::<Vec<_>>(), [Some(br#"{"n":1}"#.to_vec())]);
    }
}

#[test]
fn every_command_of_the_readme_and_of_the_pages_runs_as_it_stands() {
    run_pages(&["README.md", "docs/restoring.md", "docs/migrating-from-spark.md"]);
}

#[test]
fn every_command_of_the_tutorial_runs_as_it_stands() {
    run_pages(&["docs/tutorial.md"]);
}

#[test]
fn every_command_of_the_how_to_pages_runs_as_it_stands() {
    run_pages(&["docs/streaming.md", "docs/checking.md", "docs/recovering.md", "docs/releases.md"]);
}

#[test]
fn every_page_with_commands_is_run() {
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("it/commands.rs")).unwrap();
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")).unwrap().map(|entry| entry.unwrap()) {
        let page = format!("docs/{}", file.file_name().into_string().unwrap());
        if !page.ends_with(".md") {
            continue;
        }
        assert!(command_lines(&page).is_empty() || source.contains(&format!("\"{page}\"")), "no test runs the commands of {page}");
    }
}
