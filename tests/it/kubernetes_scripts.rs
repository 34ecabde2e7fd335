//! The scripts of `k8s/` against a real API server. Those which need Docker (setup-pipeline, teardown) are run as far as their first checks.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use baler_tests::authority::Authority;
use baler_tests::kubernetes::{Cluster, encode};
use baler_tests::servers::Scratch;

/// What a script said and how it ended.
pub(crate) struct Said {
    code: Option<i32>,
    text: String,
}

pub(crate) fn run(name: &str, arguments: &[&str], variables: &[(String, String)]) -> Said {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s").join(name);
    let output = Command::new(script).args(arguments).envs(variables.iter().cloned()).output();
    let Output { status, stdout, stderr } = output.unwrap_or_else(|e| panic!("cannot run {name}: {e}"));
    Said { code: status.code(), text: String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr) }
}

impl Said {
    #[track_caller]
    pub(crate) fn expect(self, code: i32, words: &[&str]) -> String {
        assert_eq!(self.code, Some(code), "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "`{word}` is not in:\n{}", self.text);
        }
        self.text
    }
}

fn overlay(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/overlays").join(name)
}

fn get(cluster: &Cluster, what: &str, path: &str) -> String {
    cluster.kubectl(&["--namespace=baler", "get", what, &format!("--output=jsonpath={path}")]).expect_silent()
}

#[test]
fn certificates_are_made_once_hold_for_their_servers_and_can_be_renewed() {
    let (scratch, cluster) = (Scratch::new(), Cluster::start());
    let environment = cluster.environment();
    run("certificates.sh", &[], &environment).expect(1, &["namespaces \"baler\" not found"]);
    cluster.kubectl(&["create", "namespace", "baler"]).expect_silent();
    let fleet = ["baler-ca", "baler-member-tls", "baler-driver-tls", "baler-prometheus-tls", "baler-admin-tls"];
    let all = [&["stores-ca", "minio-tls", "mongodb-tls", "kafka-tls"][..], &fleet].concat();
    let text = run("certificates.sh", &[], &environment).expect(0, &[]);
    all.iter().for_each(|name| assert!(text.contains(&format!("made Secret {name}\n")), "{name}: {text}"));
    let versions = || get(&cluster, "secrets", "{range .items[*]}{.metadata.name}={.metadata.resourceVersion} {end}");
    let made = versions();
    run("certificates.sh", &[], &environment).expect(0, &["Secret minio-tls is there"]);
    assert_eq!(versions(), made, "the second run changed something");

    let decode = |secret: &str, key: &str| {
        let file = scratch.join(&format!("{secret}-{key}"));
        std::fs::write(&file, cluster.secret(secret, key)).unwrap();
        file
    };
    for (secret, host, purpose) in [
        ("minio-tls", "minio.baler.svc", "sslserver"),
        ("mongodb-tls", "mongodb-shard-2-0.mongodb-shard-2.baler.svc", "sslserver"),
        ("mongodb-tls", "mongodb-mongos.baler.svc", "sslclient"),
        ("kafka-tls", "kafka-2.kafka.baler.svc", "sslserver"),
        ("kafka-tls", "kafka.baler.svc", "sslclient"),
        ("baler-member-tls", "fleet.baler.svc", "sslserver"),
        ("baler-member-tls", "metrics.baler.svc", "sslclient"),
        ("baler-driver-tls", "driver.baler.svc", "sslclient"),
        ("baler-driver-tls", "metrics.baler.svc", "sslserver"),
        ("baler-prometheus-tls", "prometheus.baler.svc", "sslclient"),
        ("baler-admin-tls", "admin.baler.svc", "sslclient"),
    ] {
        let mut verify = Command::new("openssl");
        verify.args(["verify", "-x509_strict", "-purpose", purpose, "-verify_hostname", host, "-CAfile"]);
        let authority = if secret.starts_with("baler-") { "baler-ca" } else { "stores-ca" };
        let output = verify.arg(decode(authority, "ca.crt")).arg(decode(secret, "tls.crt")).output().unwrap();
        assert!(output.status.success(), "{secret} for {host}: {}", String::from_utf8_lossy(&output.stderr));
    }
    run("certificates.sh", &["--renew"], &environment).expect(0, &["made Secret kafka-tls"]);
    let renewed = versions();
    let of = |text: &str, name: &str| text.split(' ').find(|one| one.starts_with(name)).unwrap().to_string();
    assert_eq!(of(&renewed, "stores-ca="), of(&made, "stores-ca="), "the authority stays");
    assert_ne!(of(&renewed, "minio-tls="), of(&made, "minio-tls="));

    // Of another authority, what it has signed is made anew, and nothing else.
    cluster.kubectl(&["--namespace=baler", "delete", "secret", "baler-ca"]).expect_silent();
    let text = run("certificates.sh", &[], &environment).expect(0, &["Secret kafka-tls is there", "Secret mongodb-tls is there"]);
    fleet.iter().for_each(|name| assert!(text.contains(&format!("made Secret {name}\n")), "{name}: {text}"));

    let folder = scratch.join("client").display().to_string();
    run("certificates.sh", &["--client"], &environment).expect(2, &["--client wants a folder"]);
    run("certificates.sh", &["--cleint", &folder], &environment).expect(2, &["`--cleint` is not known", "usage:"]);
    run("certificates.sh", &["--client", &folder], &environment).expect(0, &["BALER_TLS_CERT=", "browser.p12"]);
    assert_eq!(std::fs::read(scratch.join("client/tls.crt")).unwrap(), cluster.secret("baler-admin-tls", "tls.crt"));
    let mut read = Command::new("openssl");
    read.args(["pkcs12", "-nokeys", "-passin", "pass:baler", "-in"]).arg(scratch.join("client/browser.p12"));
    assert!(String::from_utf8(read.output().unwrap().stdout).unwrap().contains("CN = admin"), "a browser's file");
    let mode = std::fs::metadata(scratch.join("client/tls.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "others may read the key");
}

#[test]
fn check_status_names_what_is_missing_and_says_when_all_is_well() {
    let (scratch, cluster) = (Scratch::new(), Cluster::start());
    let environment = cluster.environment();
    run("check-status.sh", &[], &environment).expect(3, &["no namespace `baler`"]);
    cluster.apply(&overlay("minimal"));
    let words = [
        "✗ Secret stores-ca is missing",
        "certificates.sh makes it",
        "✗ Deployment/baler-scheduler: 0 of 1 ready",
        "kubectl -n baler describe statefulset/baler-executor",
        "… mongodb-init: under way",
        "things are not as they should be",
    ];
    let text = run("check-status.sh", &[], &environment).expect(1, &words);
    assert!(!text.contains("kafka") && !text.contains("grafana"), "the overlay has neither:\n{text}");
    run("certificates.sh", &[], &environment).expect(0, &[]);
    run("check-status.sh", &[], &environment).expect(1, &["✓ all 8 are there", "✓ 4 are sound"]);

    // Whom nobody believes any more, and why.
    let value =
        |secret: &str| cluster.kubectl(&["--namespace=baler", "get", "secret", secret, "--output=jsonpath={.data}"]).expect_silent();
    let put = |secret: &str, data: &str| {
        let patch = format!("--patch={{\"data\":{data}}}");
        cluster.kubectl(&["--namespace=baler", "patch", "secret", secret, "--type=merge", &patch]).expect_silent();
    };
    let (authority, driver) = (value("baler-ca"), value("baler-driver-tls"));
    put("baler-ca", &value("stores-ca"));
    run("check-status.sh", &[], &environment).expect(
        1,
        &["✗ the certificate in Secret baler-member-tls is of another authority than Secret baler-ca", "certificates.sh makes it anew"],
    );
    put("baler-ca", &authority);
    let late = Authority::make(&scratch.join("late")).issue("late", &[], -1);
    let late = encode(&std::fs::read(late.own.unwrap().0).unwrap());
    put("baler-driver-tls", &format!("{{\"tls.crt\":\"{late}\"}}"));
    run("check-status.sh", &[], &environment).expect(1, &["✗ the certificate in Secret baler-driver-tls has ended"]);
    put("baler-driver-tls", &driver);

    // What the controllers of a cluster would write.
    let patch = |object: &str, status: &str| {
        let patch = format!("--patch={{\"status\":{status}}}");
        cluster.kubectl(&["--namespace=baler", "patch", object, "--subresource=status", "--type=merge", &patch]).expect_silent();
    };
    let workloads = cluster.kubectl(&["--namespace=baler", "get", "deployments,statefulsets", "--output=name"]).expect_silent();
    for workload in workloads.lines() {
        let replicas = get(&cluster, workload, "{.spec.replicas}");
        patch(workload, &format!("{{\"replicas\":{replicas},\"readyReplicas\":{replicas}}}"));
    }
    let (begun, ended) = ("\"startTime\":\"2026-01-01T00:00:00Z\"", "\"completionTime\":\"2026-01-01T00:01:00Z\"");
    let condition = |kind: &str, more: &str| format!("{{\"type\":\"{kind}\",\"status\":\"True\"{more}}}");
    let complete = [condition("SuccessCriteriaMet", ""), condition("Complete", "")].join(",");
    for job in ["job/mongodb-init", "job/minio-init"] {
        patch(job, &format!("{{{begun},{ended},\"succeeded\":1,\"conditions\":[{complete}]}}"));
    }
    run("check-status.sh", &[], &environment)
        .expect(0, &["✓ mongodb-init: done", "✓ StatefulSet/mongodb-shard-2: 1 of 1 ready", "All is well."]);

    run("generate-sample-data.sh", &["--no-wait"], &environment).expect(0, &[]);
    let failed =
        [condition("FailureTarget", ",\"message\":\"too many\""), condition("Failed", ",\"message\":\"too many attempts\"")].join(",");
    patch("job/baler-generate", &format!("{{{begun},\"failed\":3,\"conditions\":[{failed}]}}"));
    run("check-status.sh", &[], &environment).expect(1, &["✗ baler-generate: too many attempts", "1 things are not"]);
}

#[test]
fn sample_data_is_asked_for_anew_each_time() {
    let (_scratch, cluster) = (Scratch::new(), Cluster::start());
    let environment = cluster.environment();
    run("generate-sample-data.sh", &[], &environment).expect(3, &["apply an overlay first"]);
    run("generate-sample-data.sh", &["--size", "much"], &environment).expect(2, &["`much` is no size"]);
    run("generate-sample-data.sh", &["--sise", "1GiB"], &environment).expect(2, &["`--sise` is not known", "usage:"]);
    cluster.apply(&overlay("minimal"));
    let mut jobs = Vec::new();
    for size in ["24MiB", "2TiB"] {
        run("generate-sample-data.sh", &["--size", size, "--no-wait"], &environment).expect(0, &["baler-generate"]);
        let arguments = get(&cluster, "job/baler-generate", "{.spec.template.spec.containers[0].args}");
        assert!(arguments.contains(&format!("\"--size={size}\"")), "{arguments}");
        jobs.push(get(&cluster, "job/baler-generate", "{.metadata.uid}"));
    }
    assert_ne!(jobs[0], jobs[1], "the second run made no new Job");
    run("generate-sample-data.sh", &["--feed", "--no-wait"], &environment).expect(0, &["baler-generate-feed"]);
}

#[test]
fn scripts_say_what_they_need() {
    let scratch = Scratch::new();
    // A path with a shell's own tools and nothing else.
    std::fs::create_dir(scratch.join("bin")).unwrap();
    for tool in ["bash", "env", "dirname", "grep"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap();
        std::os::unix::fs::symlink(String::from_utf8(found.stdout).unwrap().trim(), scratch.join("bin").join(tool)).unwrap();
    }
    let bare = [("PATH".to_string(), scratch.join("bin").display().to_string())];
    run("setup-pipeline.sh", &[], &bare).expect(2, &["needs docker kind kubectl openssl on the PATH", "https://kind.sigs.k8s.io/"]);
    run("setup-pipeline.sh", &["production"], &bare).expect(2, &["no overlay `production` for a laptop"]);
    for (script, tool) in
        [("teardown.sh", "kind"), ("port-forward.sh", "kubectl"), ("check-status.sh", "kubectl"), ("generate-sample-data.sh", "kubectl")]
    {
        run(script, &[], &bare).expect(2, &[&format!("needs {tool} on the PATH")]);
    }
}

#[test]
fn port_forward_tells_a_cluster_without_services_from_none() {
    let (scratch, cluster) = (Scratch::new(), Cluster::start());
    run("port-forward.sh", &[], &cluster.environment()).expect(1, &["apply an overlay first"]);
    let mut environment = cluster.environment();
    environment.push(("KUBECONFIG".to_string(), scratch.join("nothing").display().to_string()));
    run("port-forward.sh", &[], &environment).expect(3, &["the cluster does not answer"]);
}
