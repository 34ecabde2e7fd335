//! What is asked before a job: `check` finds what would fail and writes nothing, `advise` foretells what a job stores.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use baler_tests::authority::Authority;
use baler_tests::baler::Baler;
use baler_tests::block_on;
use baler_tests::corpus::{Random, gzip, lines};
use baler_tests::fleet::Fleet;
use baler_tests::job::{Job, Sink, files};
use baler_tests::kafka::Kafka;
use baler_tests::minio::Minio;
use baler_tests::mongo::{Login, Mongo};
use baler_tests::servers::{Server, free_port, random_name};
use baler_tests::topic::Record;
use mongodb::bson::doc;
use serde_json::Value;

/// The findings of a kind, as `verdict: found`.
fn findings(report: &Value, about: &str) -> Vec<String> {
    let all = report["findings"].as_array().unwrap().iter().filter(|finding| finding["about"] == about);
    all.map(|finding| format!("{}: {}", finding["verdict"].as_str().unwrap(), finding["found"].as_str().unwrap())).collect()
}

/// Asserts that the one bad finding is `about` this, names all `words`, and says what to do.
#[track_caller]
fn expect_bad(report: &Value, about: &str, words: &[&str]) {
    let bad: Vec<&Value> = report["findings"].as_array().unwrap().iter().filter(|finding| finding["verdict"] == "bad").collect();
    assert!(bad.len() == 1 && bad[0]["about"] == about, "{report:#}");
    let text = format!("{} → {}", bad[0]["found"], bad[0]["remedy"]);
    assert!(words.iter().all(|word| text.contains(word)) && bad[0]["remedy"].is_string(), "{text}");
}

fn small_job() -> Job<'static> {
    let job = Job::new();
    job.add_file("a.log", &lines(1, 300_000, "\n"));
    job
}

fn in_database(login: &Login) -> Job<'static> {
    let mut job = small_job().into_collection(Mongo::with_login().collection());
    job.variables = [("MONGODB_USERNAME", &login.user), ("MONGODB_PASSWORD", &login.password)]
        .map(|(name, value)| (name.to_string(), value.clone()))
        .to_vec();
    job
}

#[test]
fn a_good_file_passes_and_nothing_is_written() {
    let mongo = Mongo::with_login();
    let mut job = in_database(mongo.login.as_ref().unwrap());
    job.sink_options = vec![("mongodb.indexes", "timestamp")];
    let report = job.check(0);
    assert!(report["findings"].as_array().unwrap().iter().all(|finding| finding["verdict"] != "bad"), "{report:#}");
    for about in ["statement", "source", "documents", "target", "rights", "write concern", "state"] {
        assert!(!findings(&report, about).is_empty(), "nothing about {about}: {report:#}");
    }
    assert!(!job.scratch.join("state").exists());
    let names = block_on(mongo.client().database(&job.sink.collection().database).list_collection_names()).unwrap();
    assert!(names.is_empty(), "{names:?}");
    // What it says in words comes from the same report.
    let words = job.call_of("check").run().expect_code(0);
    assert!(words.stdout.contains("✓ target") && words.stdout.ends_with("✓ the job can begin\n"), "{}", words.stdout);
    words.expect_no_secret(&mongo.login.as_ref().unwrap().password);
    // And the job which passed does run; after that the check says that it is complete.
    job.run();
    assert!(findings(&job.check(0), "state")[0].starts_with("warning: job `load` is complete"));
}

#[test]
fn mistakes_in_the_file_are_found_before_anything_is_reached() {
    let mut job = small_job();
    job.source_options = vec![("blob.chunk_sise", "64KiB")];
    expect_bad(&job.check(2), "statement", &["chunk_sise", "chunk_size"]);
    let mut job = small_job();
    job.file = Some(job.scratch.join("mine.sql"));
    fs::write(job.file.as_ref().unwrap(), job.sql().replace("${INPUT}", "${INPUTS}")).unwrap();
    expect_bad(&job.check(2), "statement", &["INPUTS", "INPUT"]);
    fs::write(job.file.as_ref().unwrap(), job.sql().replace("id AS _id", "id")).unwrap();
    let report = job.check(2);
    assert!(report["findings"].to_string().contains("`_id`"), "{report:#}");
}

#[test]
fn an_input_which_is_not_there_is_found() {
    let minio = Minio::plain();
    let mut job = Job::new();
    job.input = format!("s3://{}/nothing/", random_name("no-bucket"));
    job.variables = minio.environment();
    assert!(findings(&job.check(2), "source")[0].starts_with("bad: "));
    let bucket = minio.make_bucket();
    bucket.put("data/a.log", &lines(2, 10_000, "\n"));
    job.input = bucket.url("data/");
    let report = job.check(0);
    assert!(findings(&report, "source")[0].contains("1 objects"), "{report:#}");
}

#[test]
fn a_topic_is_looked_at_with_its_retention() {
    let kafka = Kafka::shared();
    let topic = kafka.topic(3, &[("retention.ms", "1800000")]);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/stream.sql");
    let mut job = Job::new().into_collection(Mongo::shared().collection());
    job.file = Some(file.into());
    job.input = topic.url();
    topic.send((0..300).map(|number| (number % 3, Record::new(format!("{{\"number\":{number}}}")))));
    let source = findings(&job.check(0), "source");
    assert!(source[0].contains("300 records in 3 partitions"), "{source:?}");
    assert!(source.iter().any(|found| found.starts_with("warning: ") && found.contains("may be removed in")), "{source:?}");
    job.input = kafka.find("not-there-at-all").url();
    expect_bad(&job.check(2), "source", &["not-there-at-all"]);
}

#[test]
fn a_user_who_may_only_read_is_found() {
    let mongo = Mongo::with_login();
    let reader = Login { user: random_name("reader"), password: random_name("word") };
    let job = in_database(&reader);
    let database = &job.sink.collection().database;
    let create = doc! { "createUser": &reader.user, "pwd": &reader.password, "roles": [{ "role": "read", "db": database }] };
    block_on(mongo.client().database("admin").run_command(create)).unwrap();
    expect_bad(&job.check(1), "rights", &["insert", "readWrite"]);
    // It is so: the job itself fails.
    assert_ne!(job.call().run().code, Some(0));
}

#[test]
fn a_wrong_password_and_a_server_which_is_not_there_are_found() {
    let wrong = Login { user: "loader".into(), password: "wr0ng-and-secret".into() };
    expect_bad(&in_database(&wrong).check(3), "target", &["MONGODB_PASSWORD"]);
    let mut job = small_job().into_collection(Mongo::shared().collection());
    if let Sink::Mongo(collection) = &mut job.sink {
        collection.url = "mongodb://nowhere.invalid:27017/db.documents?serverSelectionTimeoutMS=1500".into();
    }
    expect_bad(&job.check(3), "target", &["nowhere.invalid"]);
}

#[test]
fn a_write_concern_which_cannot_be_met_is_found() {
    let mut job = small_job().into_collection(Mongo::shared().collection());
    job.sink_options = vec![("mongodb.write_concern", "5")];
    expect_bad(&job.check(1), "write concern", &["'5'", "majority"]);
}

#[test]
fn certificates_are_looked_at() {
    let mut job = small_job();
    job.variables = Minio::tls().environment();
    assert!(findings(&job.check(0), "certificates")[0].starts_with("good: AWS_CA_BUNDLE"));
    let file = job.scratch.join("ca.crt");
    fs::write(&file, "no certificate").unwrap();
    job.variables = vec![("AWS_CA_BUNDLE".to_string(), file.display().to_string())];
    let report = job.check(1);
    assert!(findings(&report, "certificates")[0].contains("ca.crt: holds no certificate"), "{report:#}");
}

#[test]
fn certificates_which_servers_show_are_looked_at() {
    let minio = Minio::start_ending(5);
    let mut job = small_job();
    let bucket = minio.make_bucket();
    bucket.put("data/a.log", &lines(2, 10_000, "\n"));
    (job.input, job.variables) = (bucket.url("data/"), minio.environment());
    let shown = format!("the server 127.0.0.1:{}: a certificate ends in ", minio.port);
    let report = job.check(0);
    let found = findings(&report, "certificates");
    assert!(found[0].starts_with("good: AWS_CA_BUNDLE") && found[1].starts_with(&format!("warning: {shown}")), "{report:#}");

    let kafka = Kafka::start_secure();
    let secure = kafka.secure.as_ref().unwrap();
    let topic = kafka.topic(1, &[]);
    topic.send([(0, Record::new("{}"))]);
    let mut job = Job::new().into_collection(Mongo::shared().collection());
    let client = [
        ("kafka.client.security.protocol", "SASL_SSL".to_string()),
        ("kafka.client.sasl.mechanism", "PLAIN".to_string()),
        ("kafka.client.ssl.ca.location", secure.certificates.authority.display().to_string()),
    ];
    let options: Vec<String> = client.iter().map(|(name, value)| format!("'{name}' '{value}'")).collect();
    let stream = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/stream.sql")).unwrap();
    job.file = Some(job.scratch.join("stream.sql"));
    let (before, after) = stream.split_once("OPTIONS (").unwrap();
    fs::write(job.file.as_ref().unwrap(), format!("{before}OPTIONS ({}, {after}", options.join(", "))).unwrap();
    job.input = topic.url_at(Some(secure.port));
    job.variables = vec![("KAFKA_USERNAME".into(), secure.login.user.clone()), ("KAFKA_PASSWORD".into(), secure.login.password.clone())];
    let report = job.check(0);
    let shown = format!("good: the server 127.0.0.1:{}: certificates hold for ", secure.port);
    assert!(findings(&report, "certificates").iter().any(|found| found.starts_with(&shown)), "{report:#}");
}

#[test]
fn a_server_whose_certificate_has_expired_is_found() {
    let mut job = small_job().into_collection(Mongo::shared().collection());
    let server = Authority::make(&job.scratch.join("authority")).issue("server", &["localhost"], -1);
    let (certificate, key) = server.own.as_ref().unwrap();
    // It shows that certificate, and speaks no MongoDB: nobody gets that far.
    let port = free_port();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-www", "-accept", &format!("127.0.0.1:{port}"), "-cert"]).arg(certificate).arg("-key").arg(key);
    let mut shower = Server::start("shower", &mut command);
    shower.wait_ready(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    if let Sink::Mongo(collection) = &mut job.sink {
        let ca = server.ca.display();
        collection.url = format!("mongodb://127.0.0.1:{port}/db.documents?tls=true&tlsCAFile={ca}&serverSelectionTimeoutMS=1500");
    }
    let report = job.check(3);
    let found = findings(&report, "certificates");
    assert!(found.contains(&format!("bad: the server 127.0.0.1:{port}: a certificate has expired")), "{report:#}");
    assert!(report.to_string().contains("renew it on that server"));
}

#[test]
fn documents_of_compressed_objects_are_measured_too() {
    let job = Job::new();
    let noise = Random::new(5).bytes(24 << 20);
    job.add_file("a.bin.gz", &gzip(&noise));
    let report = Job { source_options: vec![("blob.chunk_size", "1MiB"), ("blob.boundary", "none")], ..job }.check(0);
    let found = &findings(&report, "documents")[0];
    // Random bytes keep their size: each document has its chunk and some fields.
    assert!(found.contains("have 1.0 MiB on average and 1.0 MiB at most"), "{found}");
}

#[test]
fn a_statement_which_cannot_be_resumed_is_told() {
    let mut job = small_job();
    job.file = Some(job.scratch.join("mine.sql"));
    fs::write(job.file.as_ref().unwrap(), job.sql().replace("FROM (SELECT *", "FROM (SELECT DISTINCT *")).unwrap();
    let report = job.check(0);
    assert!(findings(&report, "statement").iter().any(|found| found.starts_with("warning: it does not run split by split")), "{report:#}");
}

#[test]
fn documents_which_are_too_large_are_found_on_a_sample() {
    let mut job = small_job();
    job.source_options = vec![("blob.chunk_size", "1MiB")];
    job.file = Some(job.scratch.join("mine.sql"));
    // Every chunk is stored some fifty times.
    fs::write(job.file.as_ref().unwrap(), job.sql().replace("timestamp, data", "timestamp, repeat(encode(content, 'hex'), 50) AS data"))
        .unwrap();
    expect_bad(&job.check(1), "documents", &["chunk_size"]);
}

#[test]
fn a_folder_which_cannot_be_written_and_another_job_of_that_name_are_found() {
    let job = small_job();
    fs::set_permissions(job.scratch.path(), Permissions::from_mode(0o755)).unwrap();
    let locked = job.scratch.join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, Permissions::from_mode(0o555)).unwrap();
    let (file, scratch) = (job.scratch.join("mine.sql"), job.scratch.path().to_path_buf());
    fs::write(&file, job.sql()).unwrap();
    let set = [format!("INPUT={}", job.input), format!("OUTPUT={}", locked.join("dump").display())];
    let check = ["check", &file.display().to_string(), "--state", &job.state, "--set", &set[0], "--set", &set[1], "--output", "json"];
    let finished = Baler::new(check).without_root(&scratch).run().expect_code(1);
    expect_bad(&serde_json::from_str(&finished.stdout).unwrap(), "target", &["locked", "rights"]);

    job.run();
    let other = Job { level: 6, ..job };
    expect_bad(&other.check(1), "state", &["another statement", "new job name"]);
}

#[test]
fn a_fleet_without_executors_is_found() {
    let fleet = Fleet::start(0, &[]);
    let job = small_job().on(&fleet);
    expect_bad(&job.check(1), "fleet", &["no executors", "baler executor"]);
}

fn advise(url: &str, variables: &[(String, String)], more: &[&str]) -> Value {
    let arguments = [&["advise", url, "--output", "json"], more].concat();
    let finished = Baler::new(arguments).envs(variables).run().expect_code(0);
    serde_json::from_str(&finished.stdout).unwrap()
}

fn method<'a>(advice: &'a Value, name: &str) -> &'a Value {
    advice["methods"].as_array().unwrap().iter().find(|method| method["method"] == name).unwrap()
}

#[test]
fn advice_foretells_what_a_job_stores() {
    let (minio, bucket) = (Minio::plain(), Minio::plain().make_bucket());
    let generate = ["generate", "--size", "36MiB", "--files", "6", "--to"].map(String::from).into_iter().chain([bucket.url("in/")]);
    Baler::new(generate).envs(&minio.environment()).run().expect_code(0);
    let mut job = Job::new();
    (job.input, job.variables) = (bucket.url("in/"), minio.environment());
    job.source_options = vec![("blob.chunk_size", "1MiB")];
    let advice = advise(&job.input, &job.variables, &["--sample", "32MiB"]);
    assert_eq!((&advice["objects"], &advice["is_guess"], &advice["hardly_compress"]), (&6.into(), &false.into(), &Value::Array(vec![])));
    job.run();
    let commit: Value = serde_json::from_slice(&fs::read(job.state_folder().join("commit.json")).unwrap()).unwrap();
    assert_eq!(advice["raw_bytes"], commit["raw_bytes"]);
    let (foretold, stored) = (method(&advice, "zlib(9)")["stored_bytes"].as_f64().unwrap(), commit["compressed_bytes"].as_f64().unwrap());
    assert!((foretold / stored - 1.0).abs() < 0.03, "foretold {foretold}, stored {stored}");
    assert_eq!(method(&advice, "none")["stored_bytes"], advice["raw_bytes"]);
    // A stronger method is never larger, a dictionary helps small chunks of one kind, and larger chunks compress better.
    let ratio = |forecast: &Value| forecast["ratio"].as_f64().unwrap();
    assert!(ratio(method(&advice, "zstd(19)")) > ratio(method(&advice, "zstd(1)")));
    assert!(ratio(method(&advice, "zlib(9)")) > ratio(method(&advice, "zlib(1)")));
    let small = advice["small_chunks"].as_array().unwrap();
    assert!(ratio(&small[2]) > ratio(&small[1]), "{small:#?}");
    let sizes = advice["chunk_sizes"].as_array().unwrap();
    assert!(ratio(&sizes[0]) < ratio(sizes.last().unwrap()), "{sizes:#?}");
}

#[test]
fn advice_tells_compressed_and_incompressible_objects_from_others() {
    let job = Job::new();
    job.add_file("plain.log", &lines(1, 2 << 20, "\n"));
    job.add_file("packed.log.gz", &gzip(&lines(2, 2 << 20, "\n")));
    job.add_file("noise.bin", &Random::new(3).bytes(2 << 20));
    let advice = advise(&job.input, &[], &["--sample", "16MiB", "--option", "blob.boundary=none", "--executors", "1", "--cores", "1"]);
    assert_eq!(advice["is_guess"], true);
    let named = advice["hardly_compress"].as_array().unwrap();
    assert!(named.len() == 1 && named[0]["object"].as_str().unwrap().ends_with("noise.bin"), "{named:?}");
    assert!(advice["raw_bytes"].as_u64().unwrap() > advice["stored_bytes"].as_u64().unwrap());
    let zlib = method(&advice, "zlib(9)");
    let (seconds, hours) = (advice["seconds"].as_f64().unwrap(), zlib["core_hours"].as_f64().unwrap());
    assert!((seconds - hours * 3600.0).abs() < 1e-6);
    // In words, and nothing is written anywhere.
    let words = Baler::new(["advise", &job.input, "--sample", "8MiB"]).run().expect_code(0).stdout;
    assert!(["zlib(9)", "zstd(3)", "lz4", "core-hours", "noise.bin"].iter().all(|word| words.contains(word)), "{words}");
    assert_eq!(files(&job.scratch.join("input")).len(), 3);
    Baler::new(["advise", &format!("{}nothing-here/", job.input)]).run().expect_one_line(2, &["nothing-here"]);
}
