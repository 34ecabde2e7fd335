//! Fleets with TLS: who gets in, and how certificates are renewed. All is done by real processes and real handshakes.

mod drivers;
mod provider;
mod roles;
mod secrets;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use baler_tests::authority::{Authority, Identity};
use baler_tests::baler::{Baler, Finished};
use baler_tests::corpus::{self, lines};
use baler_tests::fleet::{Fleet, request};
use baler_tests::job::Job;
use baler_tests::servers::{Scratch, free_port};
use baler_tests::wait_until;

const CONFIGURATION: i32 = 2;
const UNREACHABLE: i32 = 3;

/// `baler sql` at a fleet, as who has these files.
fn ask(url: &str, who: &Identity, sql: &str) -> Finished {
    Baler::new(["sql", "--scheduler", url, "--format", "csv", "-c", sql]).envs(&who.variables()).run()
}

/// A job with several splits.
fn job_as(fleet: &Fleet, who: &Identity) -> Job<'static> {
    let mut job = Job::new().on(fleet);
    job.variables = who.variables();
    job
}

#[test]
fn a_fleet_with_mutual_tls_runs_verifies_and_restores_a_job() {
    let scratch = Scratch::new();
    let authority = Authority::make(&scratch.join("authority"));
    let (member, driver) = (authority.issue("member", &[], 30), authority.issue("driver", &[], 30));
    let fleet = Fleet::start_secure(2, &member, &[]);
    let job = job_as(&fleet, &driver);
    let mut expected = job.add_shapes(&corpus::texts());
    for n in 0..4 {
        let bytes = lines(n, 3 << 20, "\n");
        expected.insert(job.add_file(&format!("part-{n}.jsonl"), &bytes), bytes);
    }
    job.run();
    job.expect_complete(&expected);
    let report = job.verify_on(&fleet, true, 0);
    assert_eq!(report.counts(), [0, 0, 0]);
    let restored = job.scratch.join("restored");
    job.restore(&restored.display().to_string(), &[]);
    for n in 0..4 {
        assert!(fs::read(restored.join(format!("part-{n}.jsonl"))).unwrap() == lines(n, 3 << 20, "\n"), "part {n}");
    }

    // Shuffles go between executors: words are counted in as many partitions as the fleet has slots.
    let folder = scratch.join("rows");
    fs::create_dir(&folder).unwrap();
    for file in 0..8 {
        let rows: String = (0..500).map(|n| format!("{},{}\n", n % 7, n + file)).collect();
        fs::write(folder.join(format!("{file}.csv")), "word,n\n".to_string() + &rows).unwrap();
    }
    let sql = format!(
        "CREATE EXTERNAL TABLE rows STORED AS CSV LOCATION 'file://{}/' OPTIONS ('format.has_header' 'true'); \
         SELECT word, count(*) FROM rows GROUP BY word ORDER BY word",
        folder.display()
    );
    let counted = ask(&fleet.url(), &driver, &sql).expect_code(0).stdout;
    let expected = (0..7).map(|word| format!("{word},{}", (0..500).filter(|n| n % 7 == word).count() * 8));
    assert_eq!(counted.lines().skip(1).map(str::to_string).collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{counted}");

    // What a probe of a container asks.
    let health = |url: String| Baler::new(["health", "--url", &url]).envs(&authority.stranger().variables()).run();
    health(format!("https://127.0.0.1:{}/readyz", fleet.port)).expect_code(0);
    wait_until("the executor is ready", || health(format!("https://127.0.0.1:{}/readyz", fleet.metrics_ports[0])).code == Some(0));
}

#[test]
fn who_has_no_certificate_of_the_authority_is_refused_with_one_line() {
    let scratch = Scratch::new();
    let (authority, other) = (Authority::make(&scratch.join("authority")), Authority::make(&scratch.join("other")));
    let member = authority.issue("member", &[], 30);
    let fleet = Fleet::start_secure(1, &member, &[]);
    let refused = |who: &Identity, code: i32, words: &[&str]| {
        ask(&fleet.url(), who, "SELECT 1").expect_one_line(code, words);
        let job = job_as(&fleet, who);
        job.add_shapes(&corpus::odd_names());
        job.call().run().expect_one_line(code, words);
    };
    refused(&authority.stranger(), UNREACHABLE, &["refuses", "a client certificate is needed"]);
    // The client's authority is another one: it does not believe the server.
    refused(&other.issue("foreign", &[], 30), UNREACHABLE, &["--tls-ca does not hold the authority"]);
    // The client believes the server, but not the server the client.
    let foreign = other.issue("foreign", &[], 30).trusting(&authority.certificate);
    refused(&foreign, UNREACHABLE, &["does not know the authority which signed --tls-cert"]);
    let expired = authority.issue("late", &[], -1);
    refused(&expired, CONFIGURATION, &["late.crt", "this certificate ended at", "renew it"]);
    // And so says the server to a client which does not look at its own certificate.
    let (answer, text) = expired.talk(fleet.port, "GET /api/baler HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(answer.is_empty() && text.contains("certificate expired"), "{answer} {text}");

    let plain = format!("df://127.0.0.1:{}", fleet.port);
    let no_files = Identity { ca: authority.certificate.clone(), own: None };
    Baler::new(["sql", "--scheduler", &plain, "-c", "SELECT 1"]).run().expect_one_line(UNREACHABLE, &["write dfs://"]);
    ask(&plain, &no_files, "SELECT 1").expect_one_line(CONFIGURATION, &["df:// is plain", "write dfs://"]);
    Baler::new(["sql", "--scheduler", &fleet.url(), "-c", "SELECT 1"]).run().expect_one_line(CONFIGURATION, &["needs --tls-ca"]);
    let token = [("BALER_TOKEN".to_string(), "hush".to_string())];
    let with_token = Baler::new(["sql", "--scheduler", &plain, "-c", "SELECT 1"]).envs(&token).run();
    with_token.expect_one_line(CONFIGURATION, &["BALER_TOKEN", "by TLS alone"]).expect_no_secret("hush");
    // The one who may is let in still.
    ask(&fleet.url(), &member, "SELECT 1").expect_code(0);
}

/// Where a process listens.
fn listeners(process: u32) -> BTreeSet<SocketAddr> {
    let links = fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten().filter_map(|link| fs::read_link(link.path()).ok());
    let sockets: BTreeSet<String> =
        links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_string)).collect();
    let mut found = BTreeSet::new();
    for family in ["tcp", "tcp6"] {
        let table = fs::read_to_string(format!("/proc/{process}/net/{family}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            // 0A is LISTEN; the tenth column is the socket's number.
            if words[3] == "0A" && sockets.contains(words[9]) {
                let (address, port) = words[1].split_once(':').unwrap();
                // Each group of four bytes is a number in the machine's order.
                let groups = (0..address.len() / 8).map(|n| u32::from_str_radix(&address[8 * n..8 * n + 8], 16).unwrap().to_le_bytes());
                let bytes: Vec<u8> = groups.flatten().collect();
                let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
                    Ok(four) => IpAddr::from(four),
                    Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).unwrap()),
                };
                found.insert(SocketAddr::new(address, u16::from_str_radix(port, 16).unwrap()));
            }
        }
    }
    found
}

#[test]
fn no_port_of_a_fleet_answers_in_plain_and_those_of_executors_demand_certificates() {
    let scratch = Scratch::new();
    let authority = Authority::make(&scratch.join("authority"));
    let (member, stranger) = (authority.issue("member", &[], 30), authority.stranger());
    let fleet = Fleet::start_secure(1, &member, &[]);
    let [scheduler, executor] = fleet.processes()[..] else { panic!("a scheduler and an executor") };
    let here: IpAddr = [127, 0, 0, 1].into();
    let ports = |process| -> Vec<u16> { listeners(process).into_iter().filter(|at| at.ip() == here).map(|at| at.port()).collect() };
    assert_eq!(listeners(scheduler), BTreeSet::from([SocketAddr::new(here, fleet.port)]));
    // Flight, the front of gRPC and health; and behind the front Ballista's own gRPC, which others than this machine do not reach.
    assert_eq!(ports(executor).len(), 3, "{:?}", listeners(executor));
    let inner: Vec<_> = listeners(executor).into_iter().filter(|at| at.ip() != here).collect();
    assert!(inner.len() == 1 && inner[0].ip().is_loopback() && ports(executor).contains(&inner[0].port()), "{inner:?}");

    let plain = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let flight = fleet.get("/api/baler").unwrap()["executors"][0]["port"].as_u64().unwrap() as u16;
    for port in ports(scheduler).into_iter().chain(ports(executor)) {
        assert_eq!(request(port, plain), None, "port {port} answered in plain");
        if port == fleet.port || port == fleet.metrics_ports[0] {
            // A probe may know whether it lives; nobody without a certificate may know more.
            assert_eq!(stranger.get(port, "/healthz").as_deref(), Some("ok\n"), "{port}");
            let (status, why) = stranger.request(port, "GET", "/metrics", "").unwrap();
            assert!(status == 401 && why.contains("certificate is needed"), "{status} {why}");
            assert!(member.get(port, "/metrics").unwrap().contains("baler_"), "{port}");
        } else {
            let (answer, text) = stranger.talk(port, plain);
            assert!(answer.is_empty() && text.contains("certificate required"), "{port} ({flight} is Flight): {answer} {text}");
        }
    }
    let paths = ["/", "/assets/app.js", "/api/baler", "/api/baler/overview", "/api/baler/settings", "/api/jobs", "/api/state"];
    for path in paths {
        assert_eq!(stranger.request(fleet.port, "GET", path, "").unwrap().0, 401, "{path}");
        assert_eq!(member.request(fleet.port, "GET", path, "").unwrap().0, 200, "{path}");
    }
}

#[test]
fn certificates_are_renewed_without_a_restart() {
    let scratch = Scratch::new();
    let (old, new) = (Authority::make(&scratch.join("old")), Authority::make(&scratch.join("new")));
    let first = old.issue("first", &[], 30);
    let mounted = scratch.join("mounted");
    let member = first.copy_to(&mounted);
    let fleet = Fleet::start_secure(2, &member, &[]);
    let processes = fleet.processes();
    let ports: Vec<u16> = processes.iter().flat_map(|process| listeners(*process)).filter(|at| at.is_ipv4()).map(|at| at.port()).collect();
    let all_show = |who: &Identity, expected: &Identity| {
        wait_until("all ports show the certificate", || ports.iter().all(|port| who.shown_by(*port) == Some(expected.body())));
    };
    all_show(&first, &first);
    ask(&fleet.url(), &first, "SELECT 1").expect_code(0);

    // The same authority: what cert-manager does every few weeks.
    let second = old.issue("second", &[], 30);
    second.copy_to(&mounted);
    all_show(&first, &second);

    // Another authority, step by step: both are believed, then certificates of the new one are shown, then the old one is forgotten.
    let both = scratch.join("both.crt");
    fs::write(&both, [&old.certificate, &new.certificate].map(|file| fs::read_to_string(file).unwrap()).concat()).unwrap();
    fs::copy(&both, mounted.join("ca.crt")).unwrap();
    let third = new.issue("third", &[], 30);
    wait_until("both authorities are believed", || third.trusting(&both).get(fleet.port, "/api/baler").is_some());
    third.trusting(&both).copy_to(&mounted);
    all_show(&third, &third);
    fs::copy(&new.certificate, mounted.join("ca.crt")).unwrap();
    wait_until("the old authority is forgotten", || first.trusting(&both).get(fleet.port, "/api/baler").is_none());

    // Files that cannot be used change nothing: a key without its certificate, and a certificate which has ended.
    let (_, key) = new.issue("other", &[], 30).own.unwrap();
    fs::copy(key, mounted.join("tls.key")).unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    all_show(&third, &third);
    new.issue("ended", &[], -1).copy_to(&mounted);
    std::thread::sleep(Duration::from_millis(1200));
    all_show(&third, &third);
    assert!(fleet.log("scheduler").contains("cannot be used; the ones before stay"));
    third.copy_to(&mounted);

    // All of it was seen by the same processes, and they work together: with shuffles, which are fetched by new connections.
    let job = job_as(&fleet, &third);
    let expected = job.add_shapes(&corpus::texts());
    job.run();
    job.expect_complete(&expected);
    assert_eq!(job.verify_on(&fleet, true, 0).counts(), [0, 0, 0]);
    assert_eq!(fleet.processes(), processes);
    assert_eq!(fleet.executors_alive(), Some(2));
}

#[test]
fn a_server_without_tls_listens_beyond_this_machine_only_when_told() {
    let port = free_port().to_string();
    for command in ["scheduler", "executor"] {
        let call = |more: &[&'static str]| {
            Baler::new([command, "--bind-host", "0.0.0.0", "--bind-port", &port]).with_arguments(more.iter().copied())
        };
        call(&[]).run().expect_one_line(CONFIGURATION, &["--bind-host 0.0.0.0", "--tls-cert", "--insecure"]);
        call(&["--access", "roles"]).run().expect_one_line(CONFIGURATION, &["--access needs TLS"]);
        call(&["--tls-ca", "ca.crt"]).run().expect_one_line(CONFIGURATION, &["cannot read ca.crt"]);
        call(&["--tls-cert", "x"]).run().expect_one_line(CONFIGURATION, &["--tls-cert and --tls-key belong together"]);
    }
    let mut told = Baler::new(["scheduler", "--bind-host", "0.0.0.0", "--bind-port", &port, "--insecure"]).start();
    let number = port.parse().unwrap();
    let plain = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert!(told.runs_until("the scheduler answers", || request(number, plain).is_some()), "{}", told.stderr());
}

#[test]
fn executors_known_by_their_address_are_believed_by_the_name_of_the_fleet() {
    let scratch = Scratch::new();
    let authority = Authority::make(&scratch.join("authority"));
    // Certificates as cert-manager makes them: names alone, no addresses.
    let member = authority.issue_for_names("member", &["fleet.test", "localhost"], 30);
    let name = ("BALER_TLS_FLEET_NAME".to_string(), "fleet.test".to_string());
    let fleet = Fleet::start_secure_at("localhost", 2, &member, std::slice::from_ref(&name));
    let as_member =
        |variables: Vec<(String, String)>| Baler::new(["sql", "--scheduler", &fleet.url(), "-c", "SELECT 1"]).envs(&variables).run();
    as_member([member.variables(), vec![name]].concat()).expect_code(0);
    // Without the name, the scheduler is believed and an executor is not.
    let refused = as_member(member.variables());
    assert!(refused.code != Some(0) && refused.stderr.contains("NotValidForName"), "{refused:#?}");
}
