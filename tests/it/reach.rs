//! Where SQL may reach: files in open folders, listed hosts and buckets, no metadata service, nothing of a server's environment.

use std::fs;
use std::os::unix::fs::symlink;

use baler_tests::baler::{Baler, Finished};
use baler_tests::corpus::lines;
use baler_tests::fleet::Fleet;
use baler_tests::flight::adbc;
use baler_tests::job::{Job, Sink, files};
use baler_tests::kafka::Kafka;
use baler_tests::minio::Minio;
use baler_tests::mongo::Mongo;
use baler_tests::servers::{Scratch, random};

const CONFIGURATION: i32 = 2;
/// Of a query which the scheduler refuses while it plans: Ballista passes on the text of a failed job, and not its kind.
const FAILED: i32 = 1;

fn variable(name: &str, value: impl ToString) -> (String, String) {
    (name.to_string(), value.to_string())
}

/// `baler sql`, on a fleet or in its own process.
fn ask(fleet: Option<&Fleet>, sql: &str) -> Finished {
    let url = fleet.map(Fleet::url);
    let place = url.iter().flat_map(|url| ["--scheduler", url.as_str()]);
    Baler::new(["sql", "--format", "csv", "-c", sql].into_iter().chain(place)).run()
}

#[test]
fn a_fleet_reads_and_writes_only_files_in_open_folders() {
    // A job whose input, state and dump are in an open folder.
    let mut job = Job::new();
    let (open, closed) = (job.scratch.path().to_path_buf(), Scratch::new());
    let fleet = Fleet::start(1, &[variable("BALER_ALLOW_FILES", open.display())]);
    job.scheduler = Some(fleet.url());
    let expected = [("a.jsonl", 1), ("b.jsonl", 2)].map(|(name, seed)| {
        let bytes = lines(seed, 1_500_000, "\n");
        (job.add_file(name, &bytes), bytes)
    });
    job.run();
    job.expect_complete(&expected.into_iter().collect());
    assert_eq!(job.verify_on(&fleet, true, 0).counts(), [0, 0, 0]);

    // Each of the three elsewhere: the driver could reach it, and the fleet refuses.
    let line = ["is refused", "no folder which this server opens", "--allow-files"];
    let elsewhere = |change: &dyn Fn(&mut Job<'static>)| {
        let mut job = Job::new();
        job.scheduler = Some(fleet.url());
        job.input = format!("file://{}/input/", open.display());
        job.sink = Sink::Bson(open.join("other-dump"));
        job.state = format!("file://{}/state", open.display());
        job.name = format!("job-{:x}", random());
        change(&mut job);
        job.call().run().expect_one_line(CONFIGURATION, &line);
        assert!(!open.join("state").join(&job.name).join("commit.json").exists());
    };
    fs::create_dir(closed.join("in")).unwrap();
    fs::write(closed.join("in/secret.csv"), "word\nplanted-word\n").unwrap();
    elsewhere(&|job| job.input = format!("file://{}/", closed.join("in").display()));
    elsewhere(&|job| job.sink = Sink::Bson(closed.join("dump")));
    assert!(files(&closed.join("dump")).iter().all(|file| file.extension().is_some_and(|end| end == "json")), "documents were written");
    elsewhere(&|job| job.state = format!("file://{}", closed.join("state").display()));
    assert!(!files(&closed.join("state")).iter().any(|file| file.display().to_string().contains("receipts")), "receipts were written");
    // The same file in one process, which is its user's.
    let secret = format!("LOCATION '{}' OPTIONS ('format.has_header' 'true')", closed.join("in/secret.csv").display());
    let csv = format!("CREATE EXTERNAL TABLE t STORED AS CSV {secret}; SELECT word FROM t");
    assert!(ask(None, &csv).expect_code(0).stdout.contains("planted-word"));
    ask(Some(&fleet), &csv).expect_one_line(FAILED, &line).expect_no_secret("planted-word");
    // A restore would write.
    let outside = closed.join("restored");
    job.restore_call(&outside.display().to_string(), &[]).run().expect_one_line(CONFIGURATION, &line);
    assert!(!outside.exists());

    // By Flight SQL, which plans at the scheduler; links and `..` lead nowhere else.
    fs::create_dir(open.join("data")).unwrap();
    fs::write(open.join("data/words.csv"), "word\nopen-word\n").unwrap();
    symlink(closed.join("in"), open.join("link")).unwrap();
    symlink(closed.join("in/secret.csv"), open.join("data-link.csv")).unwrap();
    let table = |name: &str, place: String| {
        format!("CREATE EXTERNAL TABLE {name} STORED AS CSV LOCATION '{place}' OPTIONS ('format.has_header' 'true')")
    };
    let path = |name: &str| format!("{}/{name}", open.display());
    let closed_name = closed.path().file_name().unwrap().to_str().unwrap();
    let answers = adbc(fleet.port, "-").run(&[
        ("update", &table("words", path("data/words.csv"))),
        ("query", "SELECT word FROM words"),
        ("update", &table("a", closed.join("in/secret.csv").display().to_string())),
        ("update", &table("b", path("link/secret.csv"))),
        ("update", &table("c", path("data-link.csv"))),
        ("update", &table("d", path(&format!("../{closed_name}/in/secret.csv")))),
        ("update", &table("e", "/etc/passwd".to_string())),
        ("update", &table("f", "/proc/self/environ".to_string())),
        ("update", &format!("CREATE EXTERNAL TABLE g STORED AS BLOB LOCATION '{}'", closed.join("in/").display())),
        ("update", &format!("CREATE EXTERNAL TABLE h STORED AS BSON LOCATION '{}'", closed.join("dump").display())),
        ("update", "SET datafusion.runtime.temp_directory = '/tmp/of-sql'"),
    ]);
    assert_eq!(answers[1].rows()[0][0], "open-word");
    for answer in &answers[2..10] {
        let error = answer.error();
        assert!(error.contains("is refused") || error.contains("..") || error.contains("No such file"), "{error}");
        assert!(!error.contains("planted-word") && !error.contains("root:"), "{error}");
    }
    for answer in [2, 3, 4, 6, 8, 9].map(|n| &answers[n]) {
        assert!(answer.error().contains("--allow-files"), "{}", answer.error());
    }
    assert!(answers[10].error().contains("the server's own"));
    assert_eq!(fleet.executors_alive(), Some(1));
}

#[test]
fn a_server_which_others_reach_opens_no_file_unless_told() {
    let scratch = Scratch::new();
    fs::write(scratch.join("words.csv"), "word\nplanted-word\n").unwrap();
    let csv = format!(
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{}' OPTIONS ('format.has_header' 'true'); SELECT word FROM t",
        scratch.join("words.csv").display()
    );
    let beyond = ["--bind-host", "0.0.0.0", "--insecure"];
    let fleet = Fleet::start_exactly(1, &beyond, &[&beyond[..], &["--external-host", "127.0.0.1"]].concat());
    ask(Some(&fleet), &csv).expect_one_line(FAILED, &["is refused", "--allow-files"]);
    drop(fleet);
    let told = ["--allow-files", &scratch.path().display().to_string()];
    let beyond = [&beyond[..], &told].concat();
    let fleet = Fleet::start_exactly(1, &beyond, &[&beyond[..], &["--external-host", "127.0.0.1"]].concat());
    assert!(ask(Some(&fleet), &csv).expect_code(0).stdout.contains("planted-word"));
    drop(fleet);
    // Two commands on a laptop, without any flag.
    let fleet = Fleet::start(1, &[]);
    assert!(ask(Some(&fleet), &csv).expect_code(0).stdout.contains("planted-word"));
    let missing = Baler::new(["scheduler", "--allow-files", "/nowhere"]).run();
    missing.expect_one_line(CONFIGURATION, &["--allow-files /nowhere"]);
    Baler::new(["executor", "--allow-hosts", "a/b"]).run().expect_one_line(CONFIGURATION, &["--allow-hosts", "`a/b`", "*.domain"]);
}

#[test]
fn a_fleet_reaches_only_listed_hosts_and_buckets() {
    let (mongo, minio, kafka) = (Mongo::shared(), Minio::plain(), Kafka::shared());
    let (listed, other) = (minio.make_bucket(), minio.make_bucket());
    let topic = kafka.topic(1, &[]);
    let collection = mongo.collection();
    let server = collection.url.split('/').nth(2).unwrap().to_string();
    let bucket = listed.url("").trim_end_matches('/').to_string();
    let mut variables = minio.environment();
    variables.push(variable("BALER_ALLOW_HOSTS", format!("{server},{bucket}")));
    let fleet = Fleet::start(1, &variables);
    let job = |collection, input: String, state: String| {
        let mut job = Job::new().on(&fleet).into_collection(collection);
        (job.input, job.state) = (input, state);
        job.variables = minio.environment();
        job
    };
    for bucket in [&listed, &other] {
        bucket.put("in/a.jsonl", &lines(1, 300_000, "\n"));
    }
    let allowed = job(collection, listed.url("in/"), listed.url("state"));
    allowed.run();
    assert_eq!(allowed.verify_on(&fleet, true, 0).counts(), [0, 0, 0]);

    // The driver could reach each of these.
    let line = ["is refused", "may name here", "--allow-hosts"];
    let mut by_name = mongo.collection();
    by_name.url = by_name.url.replacen("127.0.0.1", "localhost", 1);
    let refused = job(by_name, listed.url("in/"), listed.url("state-1"));
    refused.call().run().expect_one_line(CONFIGURATION, &[&line[..], &["localhost"]].concat());
    let refused = job(mongo.collection(), other.url("in/"), listed.url("state-2"));
    refused.call().run().expect_one_line(CONFIGURATION, &[&line[..], &["s3://"]].concat());
    let refused = job(mongo.collection(), listed.url("in/"), other.url("state-3"));
    refused.call().run().expect_one_line(CONFIGURATION, &[&line[..], &["s3://"]].concat());
    assert!(!other.list("state-3/").iter().any(|key| key.contains("receipts")), "a receipt was written");
    let sql = format!("CREATE EXTERNAL TABLE t STORED AS KAFKA LOCATION '{}'; SELECT count(*) FROM t", topic.url());
    ask(Some(&fleet), &sql).expect_one_line(FAILED, &line);
    assert!(ask(None, &sql).expect_code(0).stdout.contains('0'));
    // By Flight SQL the table itself is refused.
    let answers = adbc(fleet.port, "-").run(&[
        ("update", &format!("CREATE EXTERNAL TABLE t STORED AS KAFKA LOCATION '{}'", topic.url())),
        ("update", "CREATE EXTERNAL TABLE u STORED AS MONGODB LOCATION 'mongodb://db.example:27017/a.b'"),
        ("update", &format!("CREATE EXTERNAL TABLE v STORED AS BLOB LOCATION '{}'", other.url("in/"))),
        ("update", &format!("CREATE EXTERNAL TABLE w STORED AS BLOB LOCATION '{}'", listed.url("in/"))),
        ("query", "SELECT count(*) > 0 AS some FROM w"),
    ]);
    for answer in &answers[..3] {
        assert!(answer.error().contains("--allow-hosts"), "{}", answer.error());
    }
    assert_eq!(answers[4].rows()[0][0].to_ascii_lowercase(), "true");
}

/// Statements each of which would talk to a machine's metadata service.
fn metadata_statements() -> Vec<String> {
    let mongodb = ["169.254.169.254:80", "[fd00:ec2::254]:80", "metadata.google.internal", "[::ffff:169.254.169.254]:80"];
    let kafka = ["169.254.169.254:80", "100.100.100.200:80", "metadata:80"];
    let mongodb = mongodb.map(|host| format!("STORED AS MONGODB LOCATION 'mongodb://{host}/a.b'"));
    let kafka = kafka.map(|host| format!("STORED AS KAFKA LOCATION 'kafka://{host}/t'"));
    mongodb.into_iter().chain(kafka).collect()
}

#[test]
fn no_table_reaches_a_metadata_service() {
    let fleet = Fleet::start(1, &[]);
    for table in metadata_statements() {
        let create = format!("CREATE EXTERNAL TABLE m {table}");
        ask(None, &create).expect_one_line(CONFIGURATION, &["is refused", "metadata service"]);
        ask(Some(&fleet), &create).expect_one_line(CONFIGURATION, &["is refused", "metadata service"]);
        let answer = adbc(fleet.port, "-").ask("update", &create);
        assert!(answer.error().contains("metadata service"), "{}", answer.error());
    }
    // A form of the address which is only known when the name is resolved.
    let hidden = "CREATE EXTERNAL TABLE m STORED AS KAFKA LOCATION 'kafka://2852039166:80/t'; SELECT count(*) FROM m";
    ask(None, hidden).expect_one_line(CONFIGURATION, &["2852039166", "metadata service"]);
    ask(Some(&fleet), hidden).expect_one_line(FAILED, &["2852039166", "metadata service"]);
    let endpoint =
        [variable("AWS_ENDPOINT", "http://169.254.169.254"), variable("AWS_ACCESS_KEY_ID", "a"), variable("AWS_SECRET_ACCESS_KEY", "b")];
    let blob = "CREATE EXTERNAL TABLE m STORED AS BLOB LOCATION 's3://latest/meta-data/'";
    Baler::new(["sql", "-c", blob]).envs(&endpoint).run().expect_one_line(CONFIGURATION, &["169.254.169.254", "metadata service"]);
    // There is no store of plain URLs at all.
    let http = "CREATE EXTERNAL TABLE m STORED AS CSV LOCATION 'http://169.254.169.254/latest/meta-data/'";
    ask(None, http).expect_one_line(CONFIGURATION, &["no object store for `http://`"]);
    let answer = adbc(fleet.port, "-").ask("update", http);
    assert!(answer.error().contains("no object store for `http://`"), "{}", answer.error());
}

#[test]
fn settings_of_kafka_run_no_program_load_no_library_and_read_no_closed_file() {
    let scratch = Scratch::new();
    let fleet = Fleet::start(1, &[variable("BALER_ALLOW_FILES", scratch.path().display())]);
    let create = |setting: &str, value: &str| {
        format!("CREATE EXTERNAL TABLE k STORED AS KAFKA LOCATION 'kafka://127.0.0.1:1/t' OPTIONS ('kafka.client.{setting}' '{value}')")
    };
    for (setting, value, words) in [
        ("plugin.library.paths", "/tmp/evil.so", "not for tables"),
        ("ssl.engine.location", "/tmp/evil.so", "not for tables"),
        ("sasl.kerberos.kinit.cmd", "touch /tmp/evil", "not for tables"),
        ("sasl.oauthbearer.metadata.authentication.type", "azure_imds", "not for tables"),
        ("metadata.broker.list", "127.0.0.1:2", "is set by Baler"),
        ("sasl.oauthbearer.token.endpoint.url", "http://169.254.169.254/token", "metadata service"),
    ] {
        let sql = create(setting, value);
        ask(None, &sql).expect_one_line(CONFIGURATION, &[setting, words]);
        let answer = adbc(fleet.port, "-").ask("update", &sql);
        assert!(answer.error().contains(words), "{setting}: {}", answer.error());
    }
    for setting in ["ssl.key.location", "ssl.ca.location", "ssl.keystore.location", "sasl.oauthbearer.assertion.file"] {
        let answer = adbc(fleet.port, "-").ask("update", &create(setting, "/etc/hostname"));
        assert!(answer.error().contains("--allow-files"), "{setting}: {}", answer.error());
    }
}

#[test]
fn sql_cannot_read_a_servers_environment() {
    let planted = format!("planted-{:016x}{:016x}", random(), random());
    let secrets = Scratch::new();
    fs::write(secrets.join("password"), &planted).unwrap();
    // Where servers keep secrets: variables, and files which these name.
    let fleet = Fleet::start(1, &[variable("PLANTED", &planted), variable("PLANTED_PASSWORD_FILE", secrets.join("password").display())]);
    let answers = adbc(fleet.port, "-").run(&[
        ("query", "SELECT '${PLANTED}' AS a, '${PATH}' AS b"),
        ("update", "CREATE EXTERNAL TABLE a STORED AS BSON LOCATION '/tmp/${PLANTED}'"),
        ("query", "SELECT count(*) FROM a"),
        ("update", "CREATE EXTERNAL TABLE b STORED AS MONGODB LOCATION 'mongodb://127.0.0.1:1/a.b?serverSelectionTimeoutMS=1' OPTIONS ('mongodb.credentials' 'PLANTED')"),
        ("query", "SELECT count(*) FROM b"),
        ("update", "CREATE EXTERNAL TABLE c STORED AS CSV LOCATION '/proc/self/environ'"),
        ("query", "SELECT * FROM c"),
        ("update", "CREATE EXTERNAL TABLE d STORED AS BLOB LOCATION '/proc/self/'"),
        ("query", "SELECT * FROM d"),
        ("query", "SHOW ALL"),
        ("query", "SELECT * FROM information_schema.df_settings"),
        ("query", "SHOW PLANTED"),
        ("query", "SELECT @@PLANTED"),
    ]);
    assert_eq!(answers[0].rows(), [["${PLANTED}", "${PATH}"]]);
    assert!(answers[9].rows().len() > 100);
    for (n, answer) in answers.iter().enumerate() {
        let text = format!("{answer:?}");
        assert!(!text.contains(&planted) && !text.contains("/usr/bin:"), "answer {n}: {text}");
    }
    for n in [5, 7] {
        assert!(answers[n].error().contains("is refused"), "{}", answers[n].error());
    }
    // What replaces names is the client, from its own environment.
    let own = Baler::new(["sql", "--scheduler", &fleet.url(), "--format", "csv", "-c", "SELECT '${OWN}' AS a"]);
    assert!(own.clone().envs(&[variable("OWN", "mine")]).run().expect_code(0).stdout.contains("mine"));
    own.run().expect_one_line(CONFIGURATION, &["${OWN} has no value"]);
}
