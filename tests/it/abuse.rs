//! Callers who ask too much, crashes, and input which is meant to do harm: what is refused, and that all else goes on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use baler_tests::DEADLINE;
use baler_tests::authority::Authority;
use baler_tests::baler::{Baler, binary, example};
use baler_tests::corpus::lines;
use baler_tests::fleet::{Fleet, request};
use baler_tests::flight::{adbc, adbc_secure};
use baler_tests::job::Job;
use baler_tests::minio::Minio;
use baler_tests::mongo::Mongo;
use baler_tests::packages;
use baler_tests::servers::{Scratch, free_port, random};

use baler_tests::authority::sha256;

fn variable(name: &str, value: impl ToString) -> (String, String) {
    (name.to_string(), value.to_string())
}

#[test]
fn who_asks_too_often_is_refused_and_others_are_served() {
    let scratch = Scratch::new();
    let authority = Authority::make(&scratch.join("authority"));
    let member = authority.issue("member", &["fleet.test"], 30);
    let [greedy, modest] = ["greedy", "modest"].map(|name| format!("{name}-{:016x}{:016x}", random(), random()));
    let roles = scratch.join("roles");
    let text = format!("member fleet dns:fleet.test\nsubmit greedy sha256:{}\nsubmit modest sha256:{}\n", sha256(&greedy), sha256(&modest));
    fs::write(&roles, text).unwrap();
    // One request a second, and five at once.
    let limits = [variable("BALER_ACCESS", roles.display()), variable("BALER_REQUESTS_PER_SECOND", 1)];
    let fleet = Fleet::start_secure(1, &member, &limits);
    let ask = |port: u16, token: &str| {
        let header = format!("authorization: Bearer {token}\r\n");
        authority.stranger().request(port, "GET", "/metrics", &header).unwrap()
    };
    for port in [fleet.port, fleet.metrics_ports[0]] {
        let begun = std::time::Instant::now();
        let answers: Vec<_> = (0..30).map(|_| ask(port, &greedy)).collect();
        let served = answers.iter().filter(|(status, _)| *status == 200).count();
        // As many as the time allowed, however slow this machine is.
        assert!((5..=6 + begun.elapsed().as_secs() as usize).contains(&served), "{served} in {:?}", begun.elapsed());
        let (_, why) = answers.iter().find(|(status, _)| *status == 429).expect("30 requests at once are more than 5");
        assert!(why.contains("--requests-per-second") && why.lines().count() == 1, "{why}");
        assert!(answers.iter().all(|(status, _)| [200, 429].contains(status)), "{answers:?}");
        assert_eq!(ask(port, &modest).0, 200);
        // Guesses at tokens are counted too, and say the same in the end.
        let guesses: Vec<_> = (0..30).map(|n| ask(port, &format!("guess-{n}")).0).collect();
        assert!(guesses[0] == 401 && guesses.contains(&429), "{guesses:?}");
        // Probes are not.
        assert!((0..10).all(|_| authority.stranger().request(port, "GET", "/healthz", "").unwrap().0 == 200));
    }
    // gRPC says it in its own words. A driver makes several calls for one statement.
    let statements = ["SELECT 1"; 8].map(|sql| ("query", sql));
    let answers = adbc_secure(fleet.port, &greedy, &authority.certificate).start(&statements).wait();
    let text = answers.stdout + &answers.stderr;
    assert!(text.contains("requests a second of one caller"), "{text}");
    // Executors ask all the time and stay.
    assert_eq!(member.get(fleet.port, "/api/baler").map(|text| text.contains("heartbeat_age_seconds")), Some(true));
}

#[test]
fn a_connection_that_asks_nothing_in_time_is_closed() {
    let fleet = Fleet::start(1, &[]);
    let streams: Vec<_> = [fleet.port, fleet.metrics_ports[0]]
        .into_iter()
        .flat_map(|port| ["", "GET / HTTP/1.1\r\nhost: local", "PRI * HTTP/2.0\r\n"].map(|beginning| (port, beginning)))
        .map(|(port, beginning)| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(beginning.as_bytes()).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            (stream, port, beginning)
        })
        .collect();
    // They are open: others are served meanwhile.
    assert!(fleet.get("/api/baler").is_some());
    for (mut stream, port, beginning) in streams {
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        // Reset where something that was sent was never read.
        let is_end = ended.as_ref().map_or_else(|e| e.kind() == std::io::ErrorKind::ConnectionReset, |_| true);
        assert!(is_end, "port {port} keeps a connection which begins with {beginning:?}: {ended:?}");
        assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    }
    assert!(fleet.get("/api/baler").is_some());
}

#[test]
fn a_request_that_is_too_large_is_refused_and_others_are_served() {
    let fleet = Fleet::start_with(1, &[], &["--grpc-server-max-decoding-message-size", "65536"]);
    let post = |head: &str, body: &str| {
        request(
            fleet.port,
            &format!("POST /api/baler/jobs/none/cancel HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{head}\r\n\r\n{body}"),
        )
    };
    for port in [fleet.port, fleet.metrics_ports[0]] {
        let head = "POST /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 1000000000\r\n\r\n";
        let (status, why) = request(port, head).unwrap();
        assert!(status == 413 && why.contains("65536 bytes"), "{status} {why}");
    }
    let (status, _) = post("content-length: 3\r\nx-baler-action: cancel", "abc").unwrap();
    assert!(status != 413, "{status}");
    // Of gRPC, a statement: it is a literal of 100 kB.
    let large = format!("SELECT '{}' AS x", "y".repeat(100_000));
    let answers = adbc(fleet.port, "-").run(&[("query", &large), ("query", "SELECT 1 AS x")]);
    let error = answers[0].error();
    assert!(error.contains("too large") && error.contains("65536"), "{error}");
    assert_eq!(answers[1].rows(), [["1"]]);
    assert_eq!(fleet.executors_alive(), Some(1));
}

#[test]
fn a_crash_leaves_no_memory_behind() {
    let (scheduler, executor) = (free_port().to_string(), [free_port(), free_port(), free_port()].map(|port| port.to_string()));
    let scratch = Scratch::new();
    let work = scratch.join("work").display().to_string();
    let state = scratch.join("state").display().to_string();
    let servers = [
        vec!["scheduler", "--bind-port", &scheduler, "--state", &state],
        vec![
            "executor",
            "--scheduler-port",
            &scheduler,
            "--bind-port",
            &executor[0],
            "--bind-grpc-port",
            &executor[1],
            "--bind-health-port",
            &executor[2],
            "--work-dir",
            &work,
        ],
    ];
    for (arguments, port) in servers.into_iter().zip([&scheduler, &executor[2]]) {
        // As on a machine where everybody's crashes are kept. The folder is where a core file would be.
        let script = format!("ulimit -c unlimited && cd '{}' && echo $$ > pid && exec \"$@\"", scratch.path().display());
        let mut running = Baler::new(arguments.clone()).through(&["sh", "-c", &script, "sh"]).start();
        let port = port.parse().unwrap();
        let alive = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        assert!(running.runs_until("the server answers", || request(port, alive).is_some()), "{}", running.stderr());
        let pid = fs::read_to_string(scratch.join("pid")).unwrap().trim().to_string();
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        // Less than any core file, and the one value at which Linux starts no collector of crashes either.
        assert_eq!(line.split_whitespace().collect::<Vec<_>>()[4..6], ["1", "1"], "{line}");
        assert!(Command::new("kill").args(["-ABRT", &pid]).status().unwrap().success());
        let ended = running.wait();
        assert_eq!((ended.code, ended.signal, ended.dumped_core), (None, Some(6), false), "{}", arguments[0]);
        assert!(!fs::read_dir(scratch.path()).unwrap().any(|file| file.unwrap().file_name().to_string_lossy().starts_with("core")));
    }
    // The shell itself could have left one, else the test proves nothing.
    let control = format!("ulimit -c unlimited; ulimit -c; cd '{}'", scratch.path().display());
    let output = Command::new("sh").args(["-c", &control]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "unlimited");
}

#[test]
fn a_task_that_panics_or_cannot_be_decoded_fails_its_job_and_its_executor_lives_on() {
    let program = example("faulty_function");
    let fleet = Fleet::start_program(&program, 1, &[], &["--executor-timeout-seconds", "7"]);
    let processes = fleet.processes();
    let scratch = Scratch::new();
    let table = scratch.join("words.csv").display().to_string();
    fs::write(&table, "word\nfine\nfaulty\n").unwrap();
    let sql = |filter: &str| {
        format!(
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{table}' OPTIONS ('format.has_header' 'true'); \
             SELECT panic_if(word, '{filter}') AS word FROM t ORDER BY 1"
        )
    };
    let url = fleet.url();
    let ask = |sql: &str| Baler::new(["sql", "--scheduler", &url, "--format", "csv", "-c", sql]).with_program(&program).run();
    assert_eq!(ask(&sql("none")).expect_code(0).stdout, "word\nfaulty\nfine\n");
    let failed = ask(&sql("faulty"));
    assert!(failed.code == Some(1) && failed.stderr.contains("this word was not to be"), "{failed:#?}");
    assert_eq!(failed.stderr.trim().lines().count(), 1, "{failed:#?}");
    assert_eq!(ask(&sql("none")).expect_code(0).stdout, "word\nfaulty\nfine\n");
    assert_eq!((fleet.processes(), fleet.executors_alive()), (processes, Some(1)));
    drop(fleet);

    // Scheduler and client know a function which the executor does not: a rolling upgrade gone wrong.
    let mut mixed = Fleet::start_program(&program, 0, &[], &["--executor-timeout-seconds", "7"]);
    mixed.change(binary(), &[]);
    mixed.add_executor();
    mixed.wait_executors(1);
    let processes = mixed.processes();
    let url = mixed.url();
    let ask = |program: &std::path::Path, sql: &str| {
        Baler::new(["sql", "--scheduler", &url, "--format", "csv", "-c", sql]).with_program(program).run()
    };
    let failed = ask(&program, &sql("none"));
    assert!(failed.code.is_some_and(|code| code != 0) && failed.stderr.contains("could not be prepared"), "{failed:#?}");
    // Ballista keeps the cause where it arose.
    assert!(mixed.log("executor-0").contains("panic_if"), "{}", mixed.log("executor-0"));
    assert_eq!(failed.stderr.trim().lines().count(), 1, "{failed:#?}");
    assert!(ask(binary(), "SELECT 1 AS one").expect_code(0).stdout.contains("one\n1"));
    assert_eq!((mixed.processes(), mixed.executors_alive()), (processes, Some(1)));
}

/// A letter which could end a line of a log, or move a terminal's cursor.
const HARMFUL: [&str; 3] = ["two\nlines.jsonl", "tab\tand\rreturn.jsonl", "escape\u{1b}[2J.jsonl"];

#[test]
fn an_object_with_a_control_character_in_its_name_stops_its_job_before_it_writes() {
    for name in HARMFUL {
        let job = Job::new();
        job.add_file("good.jsonl", b"good\n");
        job.add_file(name, b"bad\n");
        let finished = job.call().run().expect_one_line(2, &["input/", "jsonl"]);
        assert!(!finished.stderr.contains('\u{1b}'), "a name reached the terminal: {:?}", finished.stderr);
        assert!(!job.scratch.join("dump").exists() && !job.is_committed());
    }
    // A NUL is in no name of a file, and a statement says so.
    let job = Job::new();
    let sql = "CREATE EXTERNAL TABLE t STORED AS BLOB LOCATION '/tmp/a\0b/'; SELECT count(*) FROM t";
    let file = job.scratch.join("nul.sql");
    fs::write(&file, sql).unwrap();
    Baler::new(["sql", "-f", &file.display().to_string()]).run().expect_one_line(2, &["/tmp/a"]);
}

#[test]
fn an_object_with_quotes_and_backslashes_in_its_name_is_stored_verified_and_restored() {
    const NAME: &str = "quote'\"\\.jsonl";
    let bytes = lines(9, 200_000, "\n");
    let job = Job::new();
    let expected = [(job.add_file(NAME, &bytes), bytes.clone())].into_iter().collect();
    job.run();
    job.expect_complete(&expected);
    let restored = job.scratch.join("restored");
    job.restore(&restored.display().to_string(), &[]);
    assert!(fs::read(restored.join(NAME)).unwrap() == bytes);

    let minio = Minio::plain();
    let bucket = minio.make_bucket();
    let mut job = Job::new();
    (job.input, job.state) = (bucket.url("in/"), bucket.url("state"));
    job.variables = minio.environment();
    let key = format!("in/{NAME}");
    bucket.put(&key, &bytes);
    job.run();
    job.expect_verified(&[(bucket.url(&key), bytes)].into_iter().collect());
}

#[test]
fn documents_just_below_16_mib_are_stored() {
    let mongo = Mongo::shared();
    let mut job = Job::new().into_collection(mongo.collection());
    job.source_options = vec![("blob.split_size", "64MiB"), ("blob.chunk_size", "15MiB"), ("blob.boundary", "none")];
    // Noise does not shrink: each chunk of it is a document of 15 MiB and some bytes.
    let noise = baler_tests::corpus::Random::new(7).bytes(40 << 20);
    let expected = [(job.add_file("noise.bin", &noise), noise)].into_iter().collect();
    job.run();
    job.expect_complete(&expected);
    let largest = job.sink.collection().read().iter().map(|document| bson::to_vec(document).unwrap().len()).max().unwrap();
    assert!(((15 << 20)..(16 << 20)).contains(&largest), "{largest}");
}

#[test]
fn executors_whose_clocks_are_days_off_store_the_same_documents() {
    let mut fleet = Fleet::start(0, &[]);
    let right = Job::new();
    let inputs: Vec<_> = (0..3).map(|n| (format!("part-{n}.jsonl"), lines(n, 2 << 20, "\n"))).collect();
    inputs.iter().for_each(|(name, bytes)| drop(right.add_file(name, bytes)));
    right.run();
    for shift in ["+3d", "-2d"] {
        fleet.add_executor_with(&packages::wrong_clock(shift));
    }
    fleet.wait_executors(2);
    let mut job = Job::new().on(&fleet);
    // The same objects, so that ids and times are the same.
    job.input.clone_from(&right.input);
    job.run();
    assert_eq!(job.verify_on(&fleet, true, 0).counts(), [0, 0, 0]);
    // Parts of a dump are named by their splits.
    let dump = |job: &Job<'_>| -> std::collections::BTreeMap<_, _> {
        let folder = job.scratch.join("dump");
        let parts = baler_tests::job::files(&folder).into_iter();
        parts.map(|part| (part.strip_prefix(&folder).unwrap().to_path_buf(), fs::read(&part).unwrap())).collect()
    };
    assert!(dump(&job).len() > 3 && dump(&job) == dump(&right), "the documents differ");
    // The clocks were wrong: their logs say so.
    let today = String::from_utf8(Command::new("date").args(["-u", "+%F"]).output().unwrap().stdout).unwrap();
    for executor in ["executor-0", "executor-1"] {
        let log = fleet.log(executor);
        assert!(log.contains("20") && !log.contains(today.trim()), "{executor} knows the right day");
    }
}

#[test]
fn a_line_of_ten_gigabytes_is_cut_and_takes_no_memory_of_its_size() {
    let mut job = Job::new();
    job.source_options = Vec::new();
    // Zeros to the end, and none of them on the disk.
    let bytes: u64 = 10 << 30;
    let file = fs::File::create(job.scratch.join("input/line.txt")).unwrap();
    file.set_len(bytes).unwrap();
    let (mut running, mut peak) = (job.call().start(), 0);
    while running.is_running() {
        peak = peak.max(running.peak_bytes().unwrap_or_default());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    running.wait().expect_code(0);
    assert!((16 << 20..512 << 20).contains(&peak), "{peak} bytes");
    let report = job.verify(0);
    assert_eq!((report.counts(), report.count("raw_bytes")), ([0, 0, 0], bytes));
}
