//! Who may do what: certificates and tokens with roles, both ways.

use std::fs;

use baler_tests::authority::{Authority, Identity, sha256};
use baler_tests::baler::{Baler, Finished};
use baler_tests::fleet::Fleet;
use baler_tests::flight::adbc_secure;
use baler_tests::servers::{Scratch, random};
use baler_tests::wait_until;

use super::{UNREACHABLE, ask, job_as};

/// A fleet with a file of roles, and who it knows.
struct Guarded {
    fleet: Fleet,
    authority: Authority,
    member: Identity,
    driver: Identity,
    /// Tokens of the roles read, submit and admin.
    tokens: [String; 3],
    roles: std::path::PathBuf,
    scratch: Scratch,
}

impl Guarded {
    fn start() -> Self {
        let scratch = Scratch::new();
        let authority = Authority::make(&scratch.join("authority"));
        let member = authority.issue("member", &["fleet.test"], 30);
        let driver = authority.issue("driver", &["driver.test"], 30);
        let tokens = ["read", "submit", "admin"].map(|role| format!("{role}-{:016x}{:016x}", random(), random()));
        let [read, submit, admin] = tokens.each_ref().map(|token| sha256(token));
        let roles = scratch.join("roles");
        let text = format!(
            "# who may do what\nmember fleet dns:fleet.test\nsubmit nightly dns:driver.test\nread grafana sha256:{read}\nsubmit airflow sha256:{submit}\nadmin ops sha256:{admin}\n"
        );
        fs::write(&roles, text).unwrap();
        let access = ("BALER_ACCESS".to_string(), roles.display().to_string());
        let fleet = Fleet::start_secure(1, &member, &[access]);
        Self { fleet, authority, member, driver, tokens, roles, scratch }
    }

    /// The status of a REST call with a token and without a certificate.
    fn status(&self, method: &str, path: &str, token: Option<&str>) -> u16 {
        let header = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        self.authority.stranger().request(self.fleet.port, method, path, &(header + "x-baler-action: cancel\r\n")).unwrap().0
    }

    /// `baler sql` with a certificate, and a token besides.
    fn sql(&self, who: &Identity, token: &str, sql: &str) -> Finished {
        let token = ("BALER_TOKEN".to_string(), token.to_string());
        let variables = [who.variables(), vec![token]].concat();
        Baler::new(["sql", "--scheduler", &self.fleet.url(), "--format", "csv", "-c", sql]).envs(&variables).run()
    }
}

#[test]
fn each_role_may_do_what_it_is_for_and_nothing_more() {
    let guarded = Guarded::start();
    let [read, submit, admin] = guarded.tokens.each_ref().map(|token| Some(token.as_str()));
    let unknown = Some("0123456789abcdef");
    let open = [("GET", "/healthz"), ("GET", "/readyz")];
    let looks = ["/", "/metrics", "/api/baler", "/api/baler/overview", "/api/baler/jobs", "/api/jobs", "/api/executors", "/api/state"];
    for (method, path) in open {
        for token in [None, unknown, read] {
            assert_eq!(guarded.status(method, path, token), 200, "{path} {token:?}");
        }
    }
    for path in looks {
        for (token, expected) in [(None, 401), (unknown, 401), (read, 200), (submit, 200), (admin, 200)] {
            assert_eq!(guarded.status("GET", path, token), expected, "{path} {token:?}");
        }
    }
    for path in ["/api/baler/settings", "/api/job/none/config"] {
        for (token, expected) in [(None, 401), (read, 403), (submit, 403)] {
            assert_eq!(guarded.status("GET", path, token), expected, "{path} {token:?}");
        }
        assert!(![401, 403].contains(&guarded.status("GET", path, admin)), "{path}");
    }
    for (method, path) in [("POST", "/api/baler/jobs/none/cancel"), ("PATCH", "/api/job/none")] {
        for (token, expected) in [(None, 401), (unknown, 401), (read, 403)] {
            assert_eq!(guarded.status(method, path, token), expected, "{path} {token:?}");
        }
        for token in [submit, admin] {
            assert!(![401, 403].contains(&guarded.status(method, path, token)), "{path}");
        }
    }
    assert_eq!(guarded.status("POST", "/ballista.protobuf.SchedulerGrpc/ExecuteQuery", read), 403);
    // A call of executors: not even an administrator makes them up.
    assert_eq!(guarded.status("POST", "/ballista.protobuf.SchedulerGrpc/RegisterExecutor", admin), 403);
    let member = guarded.member.request(guarded.fleet.port, "GET", "/api/baler/settings", "").unwrap();
    assert_eq!(member.0, 200);
    let nobody = guarded.authority.issue("nobody", &["nobody.test"], 30);
    let (status, why) = nobody.request(guarded.fleet.port, "GET", "/api/baler", "").unwrap();
    assert!(status == 401 && why.contains("no name which has a role"), "{status} {why}");

    // The executor's health port knows the same roles.
    let port = guarded.fleet.metrics_ports[0];
    for (token, expected) in [(None, 401), (unknown, 401), (read, 200)] {
        let header = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        assert_eq!(guarded.authority.stranger().request(port, "GET", "/metrics", &header).unwrap().0, expected, "{token:?}");
    }

    // Whoever leaves the file is out, and nothing was started anew.
    let text = fs::read_to_string(&guarded.roles).unwrap();
    fs::write(&guarded.roles, text.lines().filter(|line| !line.contains("grafana")).collect::<Vec<_>>().join("\n")).unwrap();
    wait_until("grafana is out", || guarded.status("GET", "/api/jobs", read) == 401);
    assert_eq!(guarded.status("GET", "/api/jobs", submit), 200);
}

#[test]
fn drivers_run_jobs_and_readers_do_not_and_each_leaves_its_line() {
    let guarded = Guarded::start();
    let [read, submit, _] = &guarded.tokens;
    let job = job_as(&guarded.fleet, &guarded.driver);
    let bytes = baler_tests::corpus::lines(1, 2 << 20, "\n");
    let expected = [(job.add_file("part.jsonl", &bytes), bytes)].into();
    job.run();
    job.expect_complete(&expected);
    // A token counts before the certificate: it may say less, and more.
    guarded
        .sql(&guarded.driver, read, "SELECT 1 + 1")
        .expect_one_line(UNREACHABLE, &["`grafana` has the role read", "takes the role submit"]);
    assert_eq!(guarded.sql(&guarded.driver, submit, "SELECT 1 + 1 AS two").expect_code(0).stdout.trim(), "two\n2");
    let nobody = guarded.authority.issue("nobody", &["nobody.test"], 30);
    ask(&guarded.fleet.url(), &nobody, "SELECT 1").expect_one_line(UNREACHABLE, &["no name which has a role"]);
    guarded.sql(&guarded.driver, "made-up", "SELECT 1").expect_one_line(UNREACHABLE, &["the token is unknown"]).expect_no_secret("made-up");

    // A driver may fetch results from an executor, and not give it tasks.
    let flight = guarded.fleet.get("/api/baler").unwrap()["executors"][0]["port"].as_u64().unwrap() as u16;
    let [_, executor] = guarded.fleet.processes()[..] else { panic!("a scheduler and an executor") };
    let inner = super::listeners(executor).into_iter().find(|at| at.ip().to_string() != "127.0.0.1").unwrap();
    assert_ne!(inner.port(), flight);
    let (answer, _) = guarded.driver.talk(inner.port(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(answer.is_empty(), "{answer}");
    wait_until("the executor says so", || guarded.fleet.log("executor-0").contains("only members of the fleet may give an executor tasks"));

    let scheduler = guarded.fleet.log("scheduler");
    let lines: Vec<_> = scheduler.lines().filter(|line| line.contains("baler::audit")).collect();
    for words in [["nightly", "submit", "ExecuteQuery"], ["grafana", "refused", "ExecuteQuery"], ["airflow", "submit", "ExecuteQuery"]] {
        assert!(lines.iter().any(|line| words.iter().all(|word| line.contains(word))), "no line with {words:?}: {lines:#?}");
    }
    assert!(guarded.tokens.iter().all(|token| !scheduler.contains(token)));
}

#[test]
fn flight_sql_logs_in_with_tokens_and_readers_change_nothing() {
    let guarded = Guarded::start();
    let [read, submit, _] = &guarded.tokens;
    let client = |token: &str| adbc_secure(guarded.fleet.port, token, &guarded.authority.certificate);
    let rows = guarded.scratch.join("rows.csv");
    fs::write(&rows, "n\n1\n2\n3\n").unwrap();
    let source =
        format!("CREATE EXTERNAL TABLE rows STORED AS CSV LOCATION 'file://{}' OPTIONS ('format.has_header' 'true')", rows.display());
    let sink = format!("CREATE EXTERNAL TABLE copies STORED AS BSON LOCATION 'file://{}'", guarded.scratch.join("dump").display());

    let answers = client(submit).run(&[
        ("update", source.as_str()),
        ("update", sink.as_str()),
        ("update", "INSERT INTO copies SELECT concat('row ', n) AS _id, n FROM rows"),
        ("query", "SELECT sum(n) FROM rows"),
    ]);
    assert_eq!(answers[2].count(), 3);
    assert_eq!(answers[3].rows(), [["6"]]);

    let answers = client(read).run(&[
        ("query", "SELECT 1 + 1"),
        ("update", source.as_str()),
        ("query", source.as_str()),
        ("query", "CREATE VIEW v AS SELECT 1"),
        ("query", "EXPLAIN ANALYZE CREATE VIEW v AS SELECT 1"),
        ("query", "SHOW TABLES"),
    ]);
    assert_eq!(answers[0].rows(), [["2"]]);
    for answer in &answers[1..4] {
        assert!(answer.error().contains("takes the role submit"), "{answer:?}");
    }
    answers[4].error();
    // The tables of another's session are not a reader's.
    assert!(!answers[5].rows().iter().flatten().any(|cell| cell == "rows" || cell == "v"), "{answers:?}");

    let finished = client("made-up").start(&[("query", "SELECT 1")]).wait();
    let text = finished.stdout.clone() + &finished.stderr;
    assert!(text.contains("token is unknown"), "{finished:#?}");

    let log = guarded.fleet.log("scheduler");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("baler::audit")).collect();
    for words in [
        ["airflow", "ddl", "CREATE EXTERNAL TABLE copies"],
        ["airflow", "write", "INSERT INTO copies"],
        ["grafana", "query", "SELECT 1 + 1"],
    ] {
        assert!(lines.iter().any(|line| words.iter().all(|word| line.contains(word))), "no line with {words:?}: {lines:#?}");
    }
    assert!(!log.contains(read.as_str()) && !log.contains(submit.as_str()));
}
