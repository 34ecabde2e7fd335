//! Mistakes of a user: one clear line, the right exit code, no secret.

use std::fs;

use baler_tests::baler::Baler;
use baler_tests::corpus;
use baler_tests::job::{Job, Sink};
use baler_tests::minio::Minio;
use baler_tests::mongo::{Login, Mongo};
use baler_tests::servers::{free_port, random_name};

const CONFIGURATION: i32 = 2;
const UNREACHABLE: i32 = 3;

/// A name which no resolver knows (RFC 2606).
const NOWHERE: &str = "nowhere.invalid";

fn local_job() -> Job<'static> {
    let job = Job::new();
    job.add_shapes(&corpus::odd_names());
    job
}

fn login_job(user: &str, password: &str) -> Job<'static> {
    let mut job = local_job().into_collection(Mongo::with_login().collection());
    job.variables =
        [("MONGODB_USERNAME", user), ("MONGODB_PASSWORD", password)].map(|(name, value)| (name.to_string(), value.to_string())).to_vec();
    job
}

fn login() -> &'static Login {
    Mongo::with_login().login.as_ref().unwrap()
}

#[test]
fn the_right_password_of_the_database_gets_in() {
    let job = login_job(&login().user, &login().password);
    job.call().run().expect_code(0).expect_no_secret(&login().password);
    assert_eq!(job.verify(0).counts(), [0, 0, 0]);
    // Nothing of the state holds the password either.
    for path in baler_tests::job::files(&job.scratch.join("state")) {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains(&login().password), "{} holds the password", path.display());
    }
}

#[test]
fn the_right_password_in_a_mounted_file_gets_in() {
    let mut job = login_job(&login().user, "");
    let file = job.scratch.join("password");
    fs::write(&file, format!("{}\n", login().password)).unwrap();
    job.variables[1] = ("MONGODB_PASSWORD_FILE".to_string(), file.display().to_string());
    job.run();
}

#[test]
fn a_wrong_password_of_the_database_is_one_clear_line() {
    let wrong = "wr0ng-and-secret";
    let finished = login_job(&login().user, wrong).call().run().expect_one_line(UNREACHABLE, &["MONGODB_PASSWORD"]);
    finished.expect_no_secret(wrong);
}

#[test]
fn no_password_for_a_database_which_wants_one_is_one_clear_line() {
    let mut job = login_job("", "");
    job.variables.clear();
    job.call().run().expect_one_line(UNREACHABLE, &["MONGODB_USERNAME"]);
}

#[test]
fn a_password_in_a_url_is_refused_and_not_repeated() {
    let secret = "hidden-w0rd";
    let mut job = local_job();
    job.sink = Sink::Mongo(Mongo::shared().collection());
    if let Sink::Mongo(collection) = &mut job.sink {
        collection.url = collection.url.replacen("mongodb://", &format!("mongodb://loader:{secret}@"), 1);
    }
    job.call().run().expect_one_line(CONFIGURATION, &["MONGODB_PASSWORD"]).expect_no_secret(secret);
}

fn database_at(address: &str) -> Job<'static> {
    let mut job = local_job();
    let mut collection = Mongo::shared().collection();
    collection.url = format!("mongodb://{address}/{}.documents?serverSelectionTimeoutMS=2000", collection.database);
    job.sink = Sink::Mongo(collection);
    job
}

#[test]
fn an_unknown_host_of_the_database_is_one_clear_line() {
    database_at(&format!("{NOWHERE}:27017")).call().run().expect_one_line(UNREACHABLE, &[NOWHERE]);
}

#[test]
fn a_database_which_is_not_there_is_one_clear_line() {
    let address = format!("127.0.0.1:{}", free_port());
    database_at(&address).call().run().expect_one_line(UNREACHABLE, &[&address]);
}

fn bucket_job(change: impl Fn(&mut String, &mut String)) -> Job<'static> {
    let server = Minio::plain();
    let bucket = server.make_bucket();
    bucket.put("in/a.txt", b"a\n");
    let mut job = Job::new();
    job.input = bucket.url("in/");
    job.variables = server.environment();
    job.variables.iter_mut().for_each(|(name, value)| change(name, value));
    job
}

#[test]
fn a_wrong_key_of_the_object_store_is_one_clear_line() {
    let wrong = "wr0ng-and-secret-key";
    let job = bucket_job(|name, value| {
        if name == "AWS_SECRET_ACCESS_KEY" {
            *value = wrong.to_string();
        }
    });
    job.call().run().expect_one_line(UNREACHABLE, &[&job.input]).expect_no_secret(wrong);
}

#[test]
fn an_unknown_host_of_the_object_store_is_one_clear_line() {
    let job = bucket_job(|name, value| {
        if name == "AWS_ENDPOINT" {
            *value = format!("http://{NOWHERE}:9000");
        }
    });
    job.call().run().expect_one_line(UNREACHABLE, &[&job.input]).expect_no_secret(&Minio::plain().secret_key);
}

#[test]
fn a_missing_bucket_is_one_clear_line() {
    let mut job = bucket_job(|_, _| ());
    let name = random_name("missing");
    job.input = format!("s3://{name}/in/");
    job.call().run().expect_one_line(CONFIGURATION, &[&name, "bucket"]);
}

#[test]
fn an_input_folder_which_is_not_there_is_one_clear_line() {
    let mut job = Job::new();
    job.input = format!("file://{}/", job.scratch.join("nothing").display());
    job.call().run().expect_one_line(CONFIGURATION, &[&job.input]);
}

#[test]
fn an_unknown_option_is_one_clear_line_which_names_the_nearest() {
    let mut job = local_job();
    job.source_options.push(("blob.chunk_sise", "1MiB"));
    job.call().run().expect_one_line(CONFIGURATION, &["blob.chunk_sise", "blob.chunk_size"]);
    let mut job = local_job();
    job.sink_options.push(("bson.name_space", "a.b"));
    job.call().run().expect_one_line(CONFIGURATION, &["bson.name_space", "bson.namespace"]);
}

#[test]
fn an_option_with_a_senseless_value_is_one_clear_line() {
    for (key, value) in
        [("blob.split_size", "12 parsecs"), ("blob.boundary", "page"), ("blob.compression", "rar"), ("blob.on_corrupt", "ignore")]
    {
        let mut job = local_job();
        job.source_options.retain(|(name, _)| *name != key);
        job.source_options.push((key, value));
        job.call().run().expect_one_line(CONFIGURATION, &[key, value]);
    }
}

/// Runs a file with this text.
fn text_runs(text: &str) -> baler_tests::baler::Finished {
    let job = Job::new();
    let file = job.scratch.join("text.sql");
    fs::write(&file, text).unwrap();
    Baler::new(["run", &file.display().to_string(), "--job", "text", "--state", &job.state]).run()
}

#[test]
fn an_unset_variable_is_one_clear_line() {
    let text = "CREATE EXTERNAL TABLE objects STORED AS BLOB LOCATION '${NOT_SET_ANYWHERE}';";
    text_runs(text).expect_one_line(CONFIGURATION, &["NOT_SET_ANYWHERE"]);
}

#[test]
fn a_mistake_in_the_statement_is_one_clear_line() {
    text_runs("INSRT INTO documents SELECT 1;").expect_one_line(CONFIGURATION, &["INSRT"]);
}

#[test]
fn a_file_without_an_insert_is_one_clear_line() {
    text_runs("SELECT 1;").expect_one_line(CONFIGURATION, &["INSERT"]);
}

#[test]
fn a_missing_sql_file_is_one_clear_line() {
    Baler::new(["run", "/no/such/file.sql", "--job", "j", "--state", "/tmp"]).run().expect_one_line(CONFIGURATION, &["/no/such/file.sql"]);
}

#[test]
fn a_job_which_was_never_begun_cannot_be_verified() {
    let job = Job::new();
    job.verify_call().run().expect_one_line(CONFIGURATION, &[&job.name]);
}

#[test]
fn an_unknown_flag_is_a_usage_error() {
    let finished = Baler::new(["run", "--no-such-flag"]).run().expect_code(CONFIGURATION);
    assert!(finished.stderr.contains("--no-such-flag"), "{}", finished.stderr);
}
