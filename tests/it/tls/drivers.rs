//! The ports which a driver has of its own: the same certificates, the same roles, the same refusal as those of servers.

use std::fs;

use baler_tests::authority::{Authority, sha256};
use baler_tests::baler::Baler;
use baler_tests::corpus::lines;
use baler_tests::fleet::{get, request};
use baler_tests::job::Job;
use baler_tests::servers::{Scratch, free_port, random_name};

use super::CONFIGURATION;

/// A job in one process which, when it is done, stays until its figures are read.
fn job(variables: Vec<(String, String)>) -> (Job<'static>, [u16; 2]) {
    let (mut job, ports) = (Job::new(), [free_port(), free_port()]);
    job.add_file("part.jsonl", &lines(1, 200_000, "\n"));
    let own = [("BALER_METRICS_PORT", ports[0]), ("BALER_DASHBOARD", ports[1]), ("BALER_METRICS_LINGER_SECONDS", 600)];
    job.variables = own.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).chain(variables).collect();
    (job, ports)
}

#[test]
fn a_drivers_metrics_and_dashboard_take_a_certificate_or_a_token_of_the_right_role() {
    let scratch = Scratch::new();
    let authority = Authority::make(&scratch.join("authority"));
    let [driver, watcher, nobody] = ["driver", "watcher", "nobody"].map(|name| authority.issue(name, &[&format!("{name}.test")], 30));
    let (roles, token, stranger) = (scratch.join("roles"), random_name("token"), authority.stranger());
    fs::write(&roles, format!("read watcher dns:watcher.test\nsubmit airflow sha256:{}\n", sha256(&token))).unwrap();
    let access = ("BALER_ACCESS".to_string(), roles.display().to_string());
    let (job, ports) = job([driver.variables(), vec![access]].concat());
    let mut running = job.call().start();
    let [metrics, dashboard] = ports;
    let both = || ports.iter().all(|port| stranger.get(*port, "/healthz").is_some());
    assert!(running.runs_until("both ports answer", both), "{}", running.stderr());

    let with = format!("authorization: Bearer {token}\r\n");
    let cancel = "/api/baler/jobs/none/cancel";
    for port in ports {
        assert_eq!(request(port, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"), None, "{port} answers in plain");
        let (status, why) = stranger.request(port, "GET", "/metrics", "").unwrap();
        assert!(status == 401 && why.contains("a token or a client certificate is needed"), "{status} {why}");
        assert_eq!(nobody.request(port, "GET", "/metrics", "").unwrap().0, 401);
    }
    for path in ["/", "/api/baler/overview"] {
        assert_eq!(stranger.request(dashboard, "GET", path, "").unwrap().0, 401, "{path}");
        assert_eq!(watcher.request(dashboard, "GET", path, "").unwrap().0, 200, "{path}");
        assert_eq!(stranger.request(dashboard, "GET", path, &with).unwrap().0, 200, "{path}");
    }
    assert_eq!(watcher.request(dashboard, "GET", "/api/baler/settings", "").unwrap().0, 403);
    assert_eq!(watcher.request(dashboard, "POST", cancel, "x-baler-action: cancel\r\n").unwrap().0, 403);
    // Of no such job, but by who may.
    let (status, why) = stranger.request(dashboard, "POST", cancel, &(with + "x-baler-action: cancel\r\n")).unwrap();
    assert!(![401, 403].contains(&status), "{status} {why}");
    // What it waits for: refused ones before were no scrapes.
    assert!(watcher.get(metrics, "/metrics").unwrap().contains("baler_documents_total"));
    let ended = running.wait().expect_code(0).expect_no_secret(&token);
    assert!(ended.stderr.contains(&format!("dashboard: https://127.0.0.1:{dashboard}/")), "{}", ended.stderr);
}

#[test]
fn a_driver_listens_beyond_this_machine_with_tls_or_when_told() {
    let (to, scratch, port) = (Scratch::new(), Scratch::new(), free_port());
    let (target, number) = (format!("--to={}", to.path().display()), port.to_string());
    let call = |more: &[&'static str]| {
        Baler::new(["generate", &target, "--size", "64KiB", "--files", "1", "--metrics-port", &number, "--metrics-linger-seconds", "600"])
            .with_arguments(more.iter().copied())
    };
    call(&["--metrics-bind-host", "0.0.0.0"])
        .run()
        .expect_one_line(CONFIGURATION, &["--metrics-bind-host 0.0.0.0", "--tls-cert", "--insecure"]);
    call(&["--access", "roles"]).run().expect_one_line(CONFIGURATION, &["--access needs TLS"]);
    let is_served = || get(port, "/healthz").is_some();
    let mut told = call(&["--metrics-bind-host", "0.0.0.0", "--insecure"]).start();
    assert!(told.runs_until("it answers", is_served), "{}", told.stderr());
    assert!(get(port, "/metrics").is_some());
    told.kill();
    // An authority alone, which is all that a client with a token has, is nothing to show on a port.
    let authority = Authority::make(&scratch.join("authority"));
    let mut client = call(&[]).envs(&authority.stranger().variables()).start();
    assert!(client.runs_until("it answers", is_served), "{}", client.stderr());
    assert!(get(port, "/metrics").is_some());
    client.kill();
    // With a certificate it speaks TLS, on whatever address.
    let member = authority.issue("member", &[], 30);
    let mut secure = call(&["--metrics-bind-host", "0.0.0.0"]).envs(&member.variables()).start();
    assert!(secure.runs_until("it answers by TLS", || authority.stranger().get(port, "/healthz").is_some()), "{}", secure.stderr());
    assert_eq!(get(port, "/healthz"), None);
    assert!(member.get(port, "/metrics").is_some());
    secure.kill();
}
