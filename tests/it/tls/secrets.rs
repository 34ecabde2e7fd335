//! Unique secrets are planted in every place that takes one, everything is run, and everything that comes out or stays is searched.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use baler_tests::authority::{Authority, Identity, sha256};
use baler_tests::baler::{Baler, Finished, is_root};
use baler_tests::corpus::lines;
use baler_tests::fleet::Fleet;
use baler_tests::flight::adbc_secure;
use baler_tests::job::{Job, files};
use baler_tests::minio::Minio;
use baler_tests::mongo::Mongo;
use baler_tests::packages;
use baler_tests::servers::{Scratch, Server, free_port, random, random_name, say};
use baler_tests::wait_until;
use serde_json::Value;

/// A text which is nowhere else.
fn unique(what: &str) -> String {
    format!("{what}{:016x}{:016x}", random(), random())
}

/// What came out, by where it came from.
#[derive(Default)]
struct Seen(BTreeMap<String, String>);

impl Seen {
    fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.entry(place.into()).or_default().push_str(&text.into());
    }

    /// Takes the output of a call which must end so; `None` leaves that open.
    fn call(&mut self, place: &str, call: &Baler, code: Option<i32>) -> Finished {
        let finished = call.run();
        self.add(place, format!("{}\n{}", finished.stdout, finished.stderr));
        match code {
            Some(code) => finished.expect_code(code),
            None => finished,
        }
    }

    fn folder(&mut self, place: &str, folder: &Path) {
        for file in files(folder) {
            let bytes = fs::read(&file).unwrap();
            self.add(format!("{place}: {}", file.display()), String::from_utf8_lossy(&bytes));
        }
    }

    /// Asserts that no secret is anywhere.
    #[track_caller]
    fn expect_none_of(&self, secrets: &BTreeMap<&str, String>) {
        for (name, secret) in secrets {
            let places: Vec<_> = self.0.iter().filter(|(_, text)| text.contains(secret)).map(|(place, _)| place).collect();
            assert!(places.is_empty(), "the secret `{name}` is in {places:?}");
        }
    }
}

/// Starts to write down what goes over the loopback interface by these ports, and to the addresses at which executors keep a plain port of their own. `None`
/// where the system does not let this user look.
fn capture(file: &Path, ports: &[u16]) -> Option<Server> {
    if !is_root() {
        say("NOT RUN: the capture of plain ports: only root may look at them");
        return None;
    }
    let place = packages::debian("tcpdump", &["tcpdump"]);
    let ports: String = ports.iter().map(|port| format!("tcp port {port} or ")).collect();
    let mut command = Command::new(place.join("usr/bin/tcpdump"));
    command.env("LD_LIBRARY_PATH", place.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH)));
    command.args(["-i", "lo", "-s", "0", "-U", "-B", "65536", "-Z", "root", "-w"]).arg(file).arg(ports + "host 127.0.0.2 or host ::1");
    let mut server = Server::start(&random_name("tcpdump"), &mut command);
    let log = |server: &Server| server.log().contains("listening on");
    wait_until("tcpdump listens", || log(&server) || !server.is_running());
    assert!(log(&server), "{}", server.log());
    Some(server)
}

/// The middle of a key file: what is between its first and its last line.
fn key_of(identity: &Identity) -> String {
    let text = fs::read_to_string(&identity.own.as_ref().unwrap().1).unwrap();
    text.lines().nth(1).unwrap().to_string()
}

#[test]
fn no_secret_is_in_an_output_a_file_a_plan_a_metric_or_an_answer() {
    let scratch = Scratch::new();
    let authority = Authority::make(&scratch.join("authority"));
    let (member, driver) = (authority.issue("member", &["fleet.test"], 30), authority.issue("driver", &["driver.test"], 30));
    let (minio, mongo) = (Minio::tls(), Mongo::with_login());
    let login = mongo.login.as_ref().unwrap();
    let (token, admin, wrong) = (unique("token"), unique("admin"), unique("wrong"));
    let (kafka, collector, option, in_url) = (unique("kafka"), unique("collector"), unique("option"), unique("url"));

    // Where a user keeps them: variables, files which they name, and (a mistake) words of a statement.
    let roles = scratch.join("roles");
    let text = "member fleet dns:fleet.test\nsubmit nightly dns:driver.test\n".to_string();
    fs::write(&roles, text + &format!("submit airflow sha256:{}\nadmin ops sha256:{}\n", sha256(&token), sha256(&admin))).unwrap();
    let secret_files = Scratch::new();
    fs::write(secret_files.join("mongo"), &login.password).unwrap();
    fs::write(secret_files.join("token"), &token).unwrap();
    let mut variables = minio.environment();
    let more = [
        ("MONGODB_USERNAME", login.user.clone()),
        ("MONGODB_PASSWORD_FILE", secret_files.join("mongo").display().to_string()),
        ("KAFKA_USERNAME", "loader".to_string()),
        ("KAFKA_PASSWORD", kafka.clone()),
        ("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization={collector}")),
        ("BALER_LOG", "debug".to_string()),
    ];
    variables.extend(more.map(|(name, value)| (name.to_string(), value)));
    let of_servers = [variables.clone(), vec![("BALER_ACCESS".to_string(), roles.display().to_string())]].concat();
    let token_file = ("BALER_TOKEN_FILE".to_string(), secret_files.join("token").display().to_string());
    let of_client = [driver.variables(), variables.clone(), vec![token_file]].concat();
    // Before executors are there: what they are told of the fleet goes over the wire as well.
    let wire = scratch.join("wire.pcap");
    let mut fleet = Fleet::start_secure(0, &member, &of_servers);
    let captured = capture(&wire, &[fleet.port, minio.port, mongo.port]);
    fleet.add_executor();
    fleet.add_executor();
    fleet.wait_executors(2);
    let url = fleet.url();
    let mut seen = Seen::default();

    // A job from S3 to MongoDB, and all that can be done with it.
    let bucket = minio.make_bucket();
    for n in 0..3 {
        bucket.put(&format!("in/part-{n}.jsonl"), &lines(n, 2 << 20, "\n"));
    }
    let mut job = Job::new().on(&fleet).into_collection(mongo.collection());
    job.input = bucket.url("in/");
    job.state = bucket.url("state");
    job.variables.clone_from(&of_client);
    seen.call("check", &job.call_of("check"), None);
    seen.call("run", &job.call(), Some(0));
    seen.call("run again", &job.call(), Some(0));
    seen.call("verify", &job.verify_call(), Some(0));
    let deep = ["verify", "--deep", "--job", job.name.as_str(), "--state", job.state.as_str(), "--scheduler", url.as_str()];
    seen.call("verify --deep", &Baler::new(deep).envs(&of_client), Some(0));
    let restored = job.restore_call(&job.scratch.join("restored").display().to_string(), &[]);
    seen.call("restore", &restored, Some(0));
    let name = job.name.as_str();
    for words in [&["jobs", "list"][..], &["jobs", "show", name], &["dead-letters", "list", "--job", name]] {
        for form in ["text", "json"] {
            let words: Vec<&str> = words.iter().copied().chain(["--state", job.state.as_str(), "--output", form]).collect();
            seen.call(&words.join(" "), &Baler::new(words).envs(&of_client), None);
        }
    }

    // The same with a password which is wrong, and in a URL.
    let mut failing = Job::new().on(&fleet).into_collection(mongo.collection());
    failing.name = "failing".to_string();
    failing.input = bucket.url("in/");
    failing.variables = of_client.iter().filter(|(name, _)| name != "MONGODB_PASSWORD_FILE").cloned().collect();
    failing.variables.push(("MONGODB_PASSWORD".to_string(), wrong.clone()));
    assert_ne!(seen.call("a wrong password", &failing.call(), None).code, Some(0));
    let sql = |sql: &str| Baler::new(["sql", "--scheduler", &url, "-c", sql]).envs(&of_client);
    let in_location = format!(
        "CREATE EXTERNAL TABLE t (a INT) STORED AS MONGODB LOCATION 'mongodb://u:{in_url}@127.0.0.1:{}/d.c'; SELECT * FROM t",
        mongo.port
    );
    assert_ne!(seen.call("a password in a URL", &sql(&in_location), None).code, Some(0));
    let topic = format!("CREATE EXTERNAL TABLE t STORED AS KAFKA LOCATION 'kafka://127.0.0.1:{}/t'; SELECT * FROM t", free_port());
    assert_ne!(seen.call("a topic that is not there", &sql(&topic), None).code, Some(0));
    seen.call("settings", &sql("SHOW ALL"), Some(0));
    let objects = format!("CREATE EXTERNAL TABLE objects STORED AS BLOB LOCATION '{}'", bucket.url("in/"));
    seen.call(
        "explain",
        &sql(&format!("{objects}; EXPLAIN VERBOSE SELECT count(*) FROM objects; EXPLAIN ANALYZE SELECT count(*) FROM objects")),
        None,
    );

    // Flight SQL, with an option that should not be in a statement.
    let with_option = format!("{objects} OPTIONS ('aws.secret_access_key' '{option}')");
    let client = adbc_secure(fleet.port, &token, &authority.certificate);
    let statements = [("update", with_option.as_str()), ("query", "SHOW ALL"), ("query", "EXPLAIN SELECT 1"), ("query", "SELECT 1")];
    let finished = client.start(&statements).wait();
    // The error of the first may show the statement to who wrote it, and to nobody else.
    seen.add("Flight SQL", finished.stdout.lines().skip(1).collect::<String>() + &finished.stderr);
    let finished = adbc_secure(fleet.port, &wrong, &authority.certificate).start(&[("query", "SELECT 1")]).wait();
    seen.add("a wrong token", finished.stdout + &finished.stderr);

    // What the servers answer an administrator, who may see everything but these.
    let header = format!("authorization: Bearer {admin}\r\n");
    let ask = |seen: &mut Seen, port: u16, path: &str| {
        let (status, body) = authority.stranger().request(port, "GET", path, &header).unwrap();
        seen.add(format!("GET {port}{path}"), &body);
        (status, body)
    };
    let paths = [
        "/",
        "/metrics",
        "/api/baler",
        "/api/baler/overview",
        "/api/baler/settings",
        "/api/baler/jobs",
        "/api/baler/jobs/load",
        "/api/state",
        "/api/executors",
        "/api/metrics",
        "/api/jobs",
    ];
    for path in paths {
        ask(&mut seen, fleet.port, path);
    }
    let (status, settings) = ask(&mut seen, fleet.port, "/api/baler/settings");
    assert!(status == 200 && settings.contains("KAFKA_PASSWORD") && settings.contains("hidden"), "{settings}");
    let (_, jobs) = ask(&mut seen, fleet.port, "/api/jobs");
    let jobs: Value = serde_json::from_str(&jobs).unwrap();
    let ids: Vec<_> = jobs.as_array().unwrap().iter().filter_map(|job| job["job_id"].as_str()).collect();
    assert!(ids.len() > 3, "{jobs}");
    for id in ids {
        for part in ["", "/config", "/stages", "/dot"] {
            ask(&mut seen, fleet.port, &format!("/api/job/{id}{part}"));
        }
    }
    for port in &fleet.metrics_ports {
        assert_eq!(ask(&mut seen, *port, "/metrics").0, 200);
    }

    if let Some(mut captured) = captured {
        captured.stop();
        let bytes = fs::read(&wire).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        // MongoDB is spoken in plain here, but for the password.
        assert!(text.contains("saslStart") && text.contains(&job.sink.collection().database), "nothing was captured");
        seen.add("the wire", text);
    }

    // What stays: state, dump, work folders, logs.
    let state = scratch.join("state");
    bucket.download("state", &state);
    assert!(!files(&state).is_empty());
    seen.folder("state", &state);
    seen.folder("scratch", job.scratch.path());
    seen.folder("scratch", failing.scratch.path());
    for executor in 0..2 {
        seen.folder("work folder", &fleet.work_folder(executor));
        seen.add("log", fleet.log(&format!("executor-{executor}")));
    }
    seen.add("log", fleet.log("scheduler"));
    seen.add("log of the audit", fleet.log("scheduler").lines().filter(|line| line.contains("baler::audit")).collect::<String>());
    assert!(seen.0["log of the audit"].contains("airflow"), "the token came in: {}", seen.0["log of the audit"]);

    let secrets = BTreeMap::from([
        ("S3 key", minio.environment().into_iter().find(|(name, _)| name == "AWS_SECRET_ACCESS_KEY").unwrap().1),
        ("MongoDB password", login.password.clone()),
        ("wrong password", wrong),
        ("Kafka password", kafka),
        ("collector's header", collector),
        ("token", token),
        ("administrator's token", admin),
        ("option of a statement", option),
        ("password in a URL", in_url),
        ("key of the members", key_of(&member)),
        ("key of the driver", key_of(&driver)),
    ]);
    seen.expect_none_of(&secrets);
}
