//! Whom the fleet of the manifests lets in: its pods run with the certificates of `certificates.sh` and the roles of the overlay, and others knock.

use std::collections::BTreeSet;
use std::process::Command;

use baler_tests::authority::Identity;
use baler_tests::baler::Baler;
use baler_tests::kubernetes::decode;
use baler_tests::kubernetes::pod::find;
use baler_tests::prometheus::Prometheus;
use baler_tests::servers::{Scratch, free_port};
use baler_tests::{fleet, wait_until};

use crate::kubernetes::{cluster, k8s};
use crate::kubernetes_pods::{Stage, encrypted, probe};

const UNREACHABLE: i32 = 3;
const CONFIGURATION: i32 = 2;

/// Whether a certificate is the fleet's for a server of this name.
fn is_for(who: &Identity, name: &str) -> bool {
    let (certificate, _) = who.own.as_ref().unwrap();
    let mut verify = Command::new("openssl");
    verify.args(["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", name, "-CAfile"]).arg(&who.ca).arg(certificate);
    verify.output().unwrap().status.success()
}

#[test]
fn who_has_no_certificate_of_the_fleet_or_not_the_role_is_refused() {
    let minio = encrypted();
    let mut stage = Stage::new(&minio, None);
    let (_servers, ports) = stage.start_fleet();
    let [member, driver, prometheus, admin] =
        ["member", "driver", "prometheus", "admin"].map(|name| stage.identity(&format!("baler-{name}-tls")));
    let anybody = stage.anybody();

    // Servers are believed under the names by which the manifests reach them, and a driver is no server of these names.
    let executor = stage.variable("StatefulSet/baler-executor", "BALER_SCHEDULER_HOST");
    let url = stage.config("BALER_SCHEDULER");
    let host = url.strip_prefix("dfs://").and_then(|rest| rest.strip_suffix(":50050")).unwrap_or_else(|| panic!("{url}"));
    let fleet_name = stage.config("BALER_TLS_FLEET_NAME");
    for name in [executor.as_str(), host, &fleet_name, "localhost"] {
        assert!(is_for(&member, name), "{name}");
        assert_eq!(is_for(&driver, name), name == "localhost", "{name}");
    }

    // The batch Job's pod, with other files or addresses than its own.
    let batch = stage.pod("Job/baler-batch");
    let (certificate, key) = stage.identity("kafka-tls").own.unwrap();
    let foreign = [("BALER_TLS_CERT", certificate.display().to_string()), ("BALER_TLS_KEY", key.display().to_string())];
    let mut without = stage.local(&batch, &[]);
    without.variables.retain(|(name, _)| !["BALER_TLS_CERT", "BALER_TLS_KEY", "BALER_METRICS_PORT"].contains(&name.as_str()));
    let without = Baler::new(without.arguments).envs(&without.variables).run();
    without.expect_one_line(UNREACHABLE, &["a token or a client certificate is needed"]);
    stage.call(&batch, &foreign).run().expect_one_line(UNREACHABLE, &["does not know the authority which signed --tls-cert"]);
    let at = |scheme: &str, host: &str| stage.call(&batch, &[("BALER_SCHEDULER", format!("{scheme}://{host}:{}", ports.scheduler))]).run();
    at("df", "localhost").expect_one_line(CONFIGURATION, &["df:// is plain", "write dfs://"]);
    at("dfs", "127.0.0.2").expect_one_line(UNREACHABLE, &["certificate not valid for name"]);
    let sql = |variables: &[(String, String)]| {
        Baler::new(["sql", "--scheduler", &format!("dfs://localhost:{}", ports.scheduler), "-c", "SELECT 1"]).envs(variables).run()
    };
    sql(&prometheus.variables()).expect_one_line(UNREACHABLE, &["`prometheus` has the role read", "takes the role submit"]);

    // Without a certificate: how the servers are, and no more; executors' other ports not even that.
    let plain = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    for port in [ports.scheduler, ports.health] {
        assert_eq!(anybody.get(port, "/healthz").as_deref(), Some("ok\n"));
        assert_eq!(anybody.request(port, "GET", "/metrics", "").unwrap().0, 401);
        assert!(prometheus.get(port, "/metrics").unwrap().contains("baler_"));
        assert_eq!(prometheus.request(port, "POST", "/api/baler/jobs/x/cancel", "x-baler-action: cancel\r\n").unwrap().0, 403);
        assert_eq!(fleet::request(port, plain), None, "port {port} answers in plain");
    }
    for port in [ports.flight, ports.tasks] {
        let (answer, text) = anybody.talk(port, plain);
        assert!(answer.is_empty() && text.contains("certificate required"), "{answer} {text}");
    }
    let (answer, _) = driver.talk(ports.tasks, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(answer.is_empty(), "a driver gives tasks: {answer}");
    for (who, status) in [(&prometheus, 403), (&driver, 403), (&admin, 200)] {
        assert_eq!(who.request(ports.scheduler, "GET", "/api/baler/settings", "").unwrap().0, status);
    }
    // The laptop's token, by the Secret which a client's pod would name.
    let token = find(&stage.objects, "Secret/baler-token")["data"]["token"].as_str().unwrap().to_string();
    let token = String::from_utf8(decode(&token)).unwrap();
    let header = |token: &str| format!("authorization: Bearer {token}\r\n");
    for (token, status) in [(token.as_str(), 200), ("another", 401)] {
        assert_eq!(anybody.request(ports.scheduler, "GET", "/api/baler/overview", &header(token)).unwrap().0, status);
    }
    let with_token = [anybody.variables(), vec![("BALER_TOKEN".to_string(), token.clone())]].concat();
    sql(&with_token).expect_one_line(UNREACHABLE, &["`laptop` has the role read"]).expect_no_secret(&token);

    // New certificates are taken up by what runs, and the Job's pod does its work with them.
    stage.run(&stage.pod_with("Job/baler-generate", &[("--size=1GiB", "--size=4MiB")]));
    stage.cluster.make_certificates(&["--renew"]);
    stage.renew_mounts();
    let renewed = stage.identity("baler-member-tls");
    assert_ne!(renewed.body(), member.body());
    wait_until("both servers show the new certificate", || {
        [ports.scheduler, ports.health].iter().all(|port| renewed.shown_by(*port) == Some(renewed.body()))
    });
    stage.run(&stage.pod("Job/baler-batch"));
}

/// What `openssl x509` says of an extension, sorted.
fn extension(certificate: &[u8], name: &str) -> BTreeSet<String> {
    let scratch = Scratch::new();
    let file = scratch.join("tls.crt");
    std::fs::write(&file, certificate).unwrap();
    let output = Command::new("openssl").args(["x509", "-noout", "-ext", name, "-in"]).arg(&file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().skip(1).flat_map(|line| line.split(',')).map(|word| word.trim().to_string()).filter(|word| !word.is_empty()).collect()
}

#[test]
fn cert_manager_is_asked_for_what_the_script_makes() {
    let cluster = cluster();
    let objects = cluster.apply(&k8s().join("overlays/production"));
    cluster.make_certificates(&[]);
    let mut made: BTreeSet<String> =
        cluster.secrets().iter().map(|secret| secret["metadata"]["name"].as_str().unwrap().to_string()).collect();
    for wanted in objects.iter().filter(|object| object["kind"] == "Certificate") {
        let (name, spec) = (wanted["spec"]["secretName"].as_str().unwrap(), &wanted["spec"]);
        assert!(made.remove(name), "the script makes no {name}");
        let words = |key: &str| spec[key].as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_string());
        let certificate = cluster.secret(name, "tls.crt");
        if spec["isCA"] == true {
            assert!(extension(&certificate, "basicConstraints").contains("CA:TRUE"), "{name}");
            continue;
        }
        let names: BTreeSet<_> = words("dnsNames").map(|name| format!("DNS:{name}")).collect();
        assert_eq!(extension(&certificate, "subjectAltName"), names, "{name}");
        let uses = [("server auth", "TLS Web Server Authentication"), ("client auth", "TLS Web Client Authentication")];
        let uses = uses.into_iter().filter(|(usage, _)| words("usages").any(|word| word == *usage)).map(|(_, text)| text.to_string());
        assert_eq!(extension(&certificate, "extendedKeyUsage"), uses.collect::<BTreeSet<_>>(), "{name}");
        let authority = if name.starts_with("baler-") { "baler" } else { "stores" };
        assert_eq!(spec["issuerRef"]["name"], authority, "{name}");
    }
    assert!(made.is_empty(), "cert-manager is not asked for {made:?}");
}

#[test]
fn a_laptop_has_the_roles_of_the_base_and_one_token_besides() {
    let lines = |file: &str| -> Vec<String> {
        let text = std::fs::read_to_string(k8s().join(file)).unwrap();
        let (_, roles) = text.split_once("  roles: |\n").unwrap();
        roles.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let (base, laptop) = (lines("base/access.yaml"), lines("components/laptop/access.yaml"));
    let (token, same) = laptop.split_last().unwrap();
    assert_eq!((base.len(), same), (4, &base[..]));
    assert!(token.starts_with("read laptop sha256:"), "{token}");
    let known: Vec<_> = base.iter().filter_map(|line| line.split_once(" dns:").map(|(_, name)| name)).collect();
    assert_eq!(known, ["fleet.baler.svc", "driver.baler.svc", "prometheus.baler.svc", "admin.baler.svc"]);
}

/// The configuration of the manifests with this machine's pods in place of what the API server would tell.
fn local_scrapes(pods: &[(&str, u16)], files: &Identity, with_certificate: bool) -> String {
    let mut text = std::fs::read_to_string(k8s().join("components/monitoring/prometheus.yml")).unwrap();
    let mut replace = |from: &str, to: &str| {
        assert!(text.contains(from), "`{from}` is not in {text}");
        text = text.replace(from, to);
    };
    let mut targets = String::from("    static_configs:\n");
    for (component, port) in pods {
        targets += &format!(
            "      - targets: [\"{component}\"]\n        labels:\n          __meta_kubernetes_pod_label_baler_dev_scrape: \"true\"\n          \
             __meta_kubernetes_pod_container_port_number: \"{port}\"\n          __meta_kubernetes_pod_annotation_baler_dev_metrics_port: \"{port}\"\n          \
             __meta_kubernetes_pod_ip: 127.0.0.1\n          __meta_kubernetes_pod_name: {component}\n          \
             __meta_kubernetes_pod_label_app_kubernetes_io_component: {component}\n"
        );
    }
    replace("    kubernetes_sd_configs:\n      - role: pod\n        namespaces: {own_namespace: true}\n", &targets);
    replace("scrape_interval: 15s", "scrape_interval: 200ms\n  scrape_timeout: 200ms");
    replace("rule_files:\n  - /etc/prometheus-rules/*.yaml\n", "");
    let (certificate, key) = files.own.as_ref().unwrap();
    for (name, place) in [("ca.crt", &files.ca), ("tls.crt", certificate), ("tls.key", key)] {
        replace(&format!("/etc/prometheus-tls/{name}"), &place.display().to_string());
    }
    let is_kept = |line: &&str| with_certificate || !(line.contains("cert_file:") || line.contains("key_file:"));
    text.lines().filter(is_kept).map(|line| line.to_string() + "\n").collect()
}

#[test]
fn prometheus_scrapes_servers_and_the_operator_by_its_certificate_and_nobody_without_one() {
    let minio = encrypted();
    let mut stage = Stage::new(&minio, None);
    let (_servers, ports) = stage.start_fleet();
    // The operator's port is one of a driver's: the same flags, the same Secret.
    let (pod, port) = (stage.pod("Deployment/baler-operator"), free_port());
    let mut local = stage.local(&pod, &[("BALER_METRICS_PORT", port.to_string())]);
    local.variables.push(("KUBECONFIG".to_string(), stage.cluster.kubeconfig_of("baler-operator").display().to_string()));
    let mut operator = Baler::new(local.arguments).envs(&local.variables).start();
    let (files, anybody) = (stage.identity("baler-prometheus-tls"), stage.anybody());
    let is_well = || ["livenessProbe", "readinessProbe"].iter().all(|name| probe(&anybody, &pod, name, port));
    assert!(operator.runs_until("the operator is well", is_well), "{}", operator.stderr());
    assert_eq!(anybody.request(port, "GET", "/metrics", "").unwrap().0, 401);
    for name in ["Deployment/baler-scheduler", "StatefulSet/baler-executor", "Deployment/baler-operator"] {
        let labels = find(&stage.objects, name).pointer("/spec/template/metadata/labels").unwrap();
        assert_eq!(labels["baler.dev/scrape"], "true", "{name}");
    }
    let pods = [("scheduler", ports.scheduler), ("executor", ports.health), ("operator", port)];
    let with = Prometheus::start_with(&local_scrapes(&pods, &files, true));
    let without = Prometheus::start_with(&local_scrapes(&pods, &files, false));
    for (component, _) in pods {
        let up = format!("up{{job=\"baler\",pod=\"{component}\",component=\"{component}\"}}");
        with.wait_for(&up, 1.0);
        without.wait_for(&up, 0.0);
        // When certificates end is among the figures, for the alert.
        for file in ["BALER_TLS_CA", "BALER_TLS_CERT"] {
            let ends = format!("baler_certificate_expires_seconds{{component=\"{component}\",file=\"{file}\"}} - time() > bool 86400");
            with.wait_for(&ends, 1.0);
        }
    }
    with.wait_for("baler_executors", 1.0);
    with.wait_for("baler_operator_is_leader", 1.0);
    assert!(without.query("baler_executors").is_empty());
    operator.terminate().expect_code(0);
}
