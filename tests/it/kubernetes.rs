//! The manifests of `k8s/` against a real API server, with Kubernetes' own admission. No kubelet runs here: no image of a store is pulled and no
//! pod is started, so what the stores' containers do with their settings is not proved. Baler's own pods are: their commands, environment and
//! files are taken from the stored objects and run on this machine, against real servers (`kubernetes_pods`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use baler_tests::baler::Baler;
use baler_tests::kubernetes::pod::{find, pod, quantity, replicas, title};
use baler_tests::kubernetes::{Cluster, VERSION, binaries};
use baler_tests::servers::Scratch;
use baler_tests::{packages, prometheus};
use serde_json::{Value, json};

const CERT_MANAGER: &str = "github.com/cert-manager/cert-manager@v1.19.1";
const KEDA: &str = "github.com/kedacore/keda/v2@v2.18.0";

pub(crate) fn k8s() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s").canonicalize().unwrap()
}

/// The folders in a folder, sorted.
fn folders(of: &str) -> Vec<PathBuf> {
    let mut folders: Vec<_> = std::fs::read_dir(k8s().join(of)).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 3, "{folders:?}");
    folders
}

/// Files with that ending, below a folder.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// A cluster with the resource types of what an overlay expects to be installed.
pub(crate) fn cluster() -> Cluster {
    let cluster = Cluster::start();
    let (certificates, keda) = (packages::go_module(CERT_MANAGER).join("deploy/crds"), packages::go_module(KEDA).join("config/crd/bases"));
    for file in [
        certificates.join("cert-manager.io_certificates.yaml"),
        certificates.join("cert-manager.io_issuers.yaml"),
        keda.join("keda.sh_scaledobjects.yaml"),
    ] {
        cluster.kubectl(&["apply", "--server-side", "--filename", file.to_str().unwrap()]).expect_silent();
    }
    cluster.kubectl(&["wait", "--for=condition=Established", "--all", "--timeout=60s", "crd"]).expect_silent();
    cluster
}

/// Applies an overlay and, after it, every job.
pub(crate) fn apply_with_jobs(cluster: &Cluster, overlay: &Path) -> Vec<Value> {
    let mut objects = cluster.apply(overlay);
    for job in folders("jobs") {
        objects.extend(cluster.apply(&job));
    }
    objects
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Every overlay on a cluster of its own, because all of them use one namespace.
#[test]
fn the_kind_overlay_is_accepted_without_a_warning() {
    accepts("kind");
}

#[test]
fn the_minimal_overlay_is_accepted_without_a_warning() {
    accepts("minimal");
}

#[test]
fn the_production_overlay_is_accepted_without_a_warning() {
    accepts("production");
}

#[test]
fn the_autoscaled_overlay_is_accepted_and_leaves_the_number_of_executors_to_the_autoscaler() {
    accepts("production-autoscaled");
}

#[test]
fn the_overlay_with_keda_is_accepted_and_leaves_the_number_of_executors_to_it() {
    accepts("production-keda");
}

fn accepts(name: &str) {
    let (scratch, cluster) = (Scratch::new(), cluster());
    let overlay = k8s().join("overlays").join(name);
    let objects = apply_with_jobs(&cluster, &overlay);
    let pods: Vec<_> = objects.iter().filter_map(|object| Some((object, pod(object)?))).collect();
    assert!(pods.len() >= 10, "only {} kinds of pods", pods.len());
    for (_, pod) in &pods {
        // Pod Security (restricted), service accounts, priorities, LimitRange and ResourceQuota.
        cluster.admit(&scratch, pod).expect_silent();
    }
    expect_room(&objects, &pods);
    expect_references(name, &objects, &pods);
    expect_selectors(&objects, &pods);
    expect_secure(&objects, &pods);
    // The same again changes nothing.
    let versions = |objects: &[Value]| -> BTreeMap<String, String> {
        // The API server itself writes into the status of a type.
        let of = |object: &Value| match text(object, "/kind") {
            "CustomResourceDefinition" => object["metadata"]["generation"].to_string(),
            _ => text(object, "/metadata/resourceVersion").to_string(),
        };
        objects.iter().map(|object| (title(object), of(object))).collect()
    };
    assert_eq!(versions(&apply_with_jobs(&cluster, &overlay)), versions(&objects));
    if let Some(scaler) = objects.iter().find(|object| ["HorizontalPodAutoscaler", "ScaledObject"].contains(&text(object, "/kind"))) {
        expect_scaled(&cluster, scaler, &overlay);
    }
}

/// What the autoscaler sets is not set back by the next apply.
fn expect_scaled(cluster: &Cluster, scaler: &Value, overlay: &Path) {
    let target = format!("{}/{}", text(scaler, "/spec/scaleTargetRef/kind"), text(scaler, "/spec/scaleTargetRef/name"));
    cluster.kubectl(&["--namespace=baler", "scale", &target, "--replicas=7"]).expect_silent();
    cluster.apply(overlay);
    let replicas = ["--namespace=baler", "get", &target, "--output=jsonpath={.spec.replicas}"];
    assert_eq!(cluster.kubectl(&replicas).expect_silent(), "7");
}

/// The quota has room for everything at once, with each of the jobs.
fn expect_room(objects: &[Value], pods: &[(&Value, Value)]) {
    let hard = &find(objects, "ResourceQuota/baler")["spec"]["hard"];
    let sum = |path: &str| -> f64 {
        let of = |pod: &Value| -> f64 {
            pod["spec"]["containers"].as_array().unwrap().iter().map(|c| quantity(c.pointer(path).unwrap_or(&Value::Null))).sum()
        };
        pods.iter().map(|(object, pod)| of(pod) * replicas(object) as f64).sum()
    };
    for (limit, path) in [
        ("requests.cpu", "/resources/requests/cpu"),
        ("requests.memory", "/resources/requests/memory"),
        ("limits.memory", "/resources/limits/memory"),
    ] {
        let (wanted, hard) = (sum(path), quantity(&hard[limit]));
        assert!(wanted > 0.0 && wanted <= hard, "{limit}: all pods want {wanted}, the quota is {hard}");
    }
    let claims = |object: &Value| object.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array).cloned().unwrap_or_default();
    let storage: f64 = objects
        .iter()
        .map(|object| {
            claims(object).iter().map(|claim| quantity(&claim["spec"]["resources"]["requests"]["storage"])).sum::<f64>()
                * replicas(object) as f64
        })
        .sum();
    let count: u64 = objects.iter().map(|object| claims(object).len() as u64 * replicas(object)).sum();
    let pods: u64 = pods.iter().map(|(object, _)| replicas(object)).sum();
    assert!(storage > 0.0 && storage <= quantity(&hard["requests.storage"]), "{storage} bytes of storage");
    assert!(
        count as f64 <= quantity(&hard["persistentvolumeclaims"]) && pods as f64 <= quantity(&hard["pods"]),
        "{count} claims, {pods} pods"
    );
}

/// What is made outside of an overlay: by k8s/certificates.sh or cert-manager everywhere, by a person in production.
fn made_outside(overlay: &str) -> BTreeSet<String> {
    let mut names =
        vec!["stores-ca", "minio-tls", "mongodb-tls", "kafka-tls", "baler-member-tls", "baler-driver-tls", "baler-prometheus-tls"];
    if overlay.starts_with("production") {
        names.extend(["baler-store-logins", "minio-root", "grafana-admin", "airflow-secrets"]);
    }
    names.into_iter().map(|name| format!("Secret/{name}")).collect()
}

/// Every ConfigMap, Secret and key which a pod names is there, or known to be made outside.
fn expect_references(overlay: &str, objects: &[Value], pods: &[(&Value, Value)]) {
    let outside = made_outside(overlay);
    let (mut known, mut looked) = (BTreeSet::new(), 0);
    for object in objects {
        known.insert(title(object));
        for key in object["data"].as_object().into_iter().flat_map(|data| data.keys()) {
            known.insert(format!("{} {key}", title(object)));
        }
    }
    let has_kafka = known.contains("StatefulSet/kafka");
    for (_, pod) in pods {
        let mut references = BTreeSet::new();
        collect_references(pod, &mut references);
        for reference in references {
            looked += 1;
            let object = reference.split(' ').next().unwrap().to_string();
            assert!(
                outside.contains(&object) || known.contains(&reference),
                "{} of {} is nowhere; kafka: {has_kafka}",
                reference,
                title(pod)
            );
        }
        for container in pod["spec"]["containers"].as_array().unwrap() {
            let image = text(container, "/image");
            assert!(image.contains(':') && !image.ends_with(":latest"), "{image} is not pinned");
        }
    }
    assert!(looked > 20, "only {looked} references");
}

fn collect_references(value: &Value, found: &mut BTreeSet<String>) {
    let Value::Object(map) = value else {
        value.as_array().into_iter().flatten().for_each(|value| collect_references(value, found));
        return;
    };
    for (key, value) in map {
        let name = value.get("name").or_else(|| value.get("secretName")).and_then(Value::as_str);
        let kind = match key.as_str() {
            "configMapRef" | "configMapKeyRef" | "configMap" => "ConfigMap",
            "secretRef" | "secretKeyRef" | "secret" => "Secret",
            _ => {
                collect_references(value, found);
                continue;
            }
        };
        if value["optional"] == true {
            continue;
        }
        let title = format!("{kind}/{}", name.unwrap());
        let keys = value["key"].as_str().into_iter().chain(value["items"].as_array().into_iter().flatten().map(|item| text(item, "/key")));
        let with_keys: Vec<_> = keys.map(|key| format!("{title} {key}")).collect();
        found.extend(if with_keys.is_empty() { vec![title] } else { with_keys });
    }
}

fn matches(selector: &Value, labels: &Value) -> bool {
    selector.as_object().is_some_and(|selector| selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

/// Services, disruption budgets and network policies select pods, and a Service's target ports are theirs.
fn expect_selectors(objects: &[Value], pods: &[(&Value, Value)]) {
    let mut looked = 0;
    for object in objects {
        let selector = match text(object, "/kind") {
            "Service" => &object["spec"]["selector"],
            "PodDisruptionBudget" => &object["spec"]["selector"]["matchLabels"],
            "NetworkPolicy" if object.pointer("/spec/podSelector/matchLabels").is_some() => &object["spec"]["podSelector"]["matchLabels"],
            _ => continue,
        };
        looked += 1;
        let selected: Vec<_> = pods.iter().filter(|(_, pod)| matches(selector, &pod["metadata"]["labels"])).collect();
        assert!(!selected.is_empty(), "{} selects nothing", title(object));
        for port in object["spec"]["ports"].as_array().into_iter().flatten().filter(|_| text(object, "/kind") == "Service") {
            let has = |pod: &Value| {
                pod["spec"]["containers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|container| container["ports"].as_array().into_iter().flatten().any(|own| own["name"] == port["targetPort"]))
            };
            assert!(selected.iter().all(|(_, pod)| has(pod)), "{}: port {port} is not its pods'", title(object));
        }
    }
    assert!(looked > 10);
}

/// No pod of Baler's listens in plain, and whoever asks them knows it.
fn expect_secure(objects: &[Value], pods: &[(&Value, Value)]) {
    let config = &find(objects, "ConfigMap/baler-config")["data"];
    assert!(text(config, "/BALER_SCHEDULER").starts_with("dfs://"), "{config}");
    let everything = serde_json::to_string(objects).unwrap();
    assert!(!everything.contains("INSECURE") && !everything.contains("--insecure"), "something is plain");
    let own = pods.iter().filter(|(_, pod)| text(pod, "/spec/containers/0/image").starts_with("baler:"));
    let (mut looked, mut probes) = (0, 0);
    for (_, pod) in own {
        looked += 1;
        let container = &pod["spec"]["containers"][0];
        let mounts = container["volumeMounts"].as_array().unwrap();
        for file in ["BALER_TLS_CA", "BALER_TLS_CERT", "BALER_TLS_KEY", "BALER_ACCESS"] {
            let path = Path::new(text(config, &format!("/{file}"))).parent().unwrap().to_str().unwrap();
            assert!(mounts.iter().any(|mount| mount["mountPath"] == path), "{} has nothing at {path}", title(pod));
        }
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            if let Some(asked) = container.pointer(&format!("/{probe}/httpGet")) {
                probes += 1;
                assert_eq!(asked["scheme"], "HTTPS", "{probe} of {}", title(pod));
            }
        }
    }
    assert!(looked >= 6 && probes >= 6, "{looked} pods, {probes} probes");
}

#[test]
fn accounts_may_do_what_they_need_and_nothing_else() {
    let (_scratch, cluster) = (Scratch::new(), cluster());
    let objects = cluster.apply(&k8s().join("overlays/kind"));
    for verb in ["create", "get", "list", "watch", "patch", "delete"] {
        assert!(cluster.may("airflow", &[verb, "pods"]), "airflow may not {verb} pods");
    }
    // kubectl takes `pods/log` for a pod of the name `log`.
    assert!(
        cluster.may("airflow", &["get", "pods", "--subresource=log"]) && !cluster.may("prometheus", &["get", "pods", "--subresource=log"])
    );
    for what in [["list", "pods"], ["watch", "pods"]] {
        assert!(cluster.may("prometheus", &what), "prometheus may not {what:?}");
    }
    for account in ["airflow", "prometheus", "baler-operator"] {
        for what in [
            ["get", "secrets"],
            ["list", "secrets"],
            ["update", "configmaps"],
            ["create", "rolebindings.rbac.authorization.k8s.io"],
            ["impersonate", "serviceaccounts"],
        ] {
            assert!(!cluster.may(account, &what), "{account} may {what:?}");
        }
        assert!(!cluster.may(account, &["create", "pods", "--subresource=exec"]), "{account} may run commands in pods");
        assert!(!cluster.may(account, &["list", "pods", "--namespace=kube-system"]) && !cluster.may(account, &["list", "nodes"]));
    }
    for account in ["airflow", "prometheus"] {
        assert!(!cluster.may(account, &["create", "deployments.apps"]) && !cluster.may(account, &["create", "jobs.batch"]));
    }
    for verb in ["create", "get", "delete"] {
        assert!(cluster.may("airflow", &[verb, "balerjobs.baler.dev"]) && !cluster.may("airflow", &[verb, "balerstreams.baler.dev"]));
    }
    assert!(!cluster.may("airflow", &["patch", "balerjobs.baler.dev"]) && !cluster.may("prometheus", &["get", "balerjobs.baler.dev"]));
    for what in [
        ["watch", "balerjobs.baler.dev"],
        ["patch", "balerstreams.baler.dev"],
        ["create", "jobs.batch"],
        ["patch", "deployments.apps"],
        ["create", "leases.coordination.k8s.io"],
        ["update", "leases.coordination.k8s.io/baler-operator"],
        ["get", "podtemplates"],
    ] {
        assert!(cluster.may("baler-operator", &what), "the operator may not {what:?}");
    }
    for what in [
        ["create", "balerjobs.baler.dev"],
        ["create", "pods"],
        ["delete", "pods"],
        ["update", "podtemplates"],
        ["delete", "configmaps"],
        ["update", "leases.coordination.k8s.io/other"],
        ["patch", "statefulsets.apps"],
    ] {
        assert!(!cluster.may("baler-operator", &what), "the operator may {what:?}");
    }
    assert!(!cluster.may("prometheus", &["delete", "pods"]) && !cluster.may("prometheus", &["create", "pods"]));
    let mut without = 0;
    for object in objects.iter().filter(|object| text(object, "/kind") == "ServiceAccount") {
        let name = text(object, "/metadata/name");
        assert_eq!(object["automountServiceAccountToken"], false, "{name} gives its token to every pod");
        if !["airflow", "prometheus", "baler-operator"].contains(&name) {
            assert!(["get", "list", "create", "delete"].iter().all(|verb| !cluster.may(name, &[verb, "pods"])), "{name} has rights");
            without += 1;
        }
    }
    assert!(without >= 6, "{without} accounts");
}

#[test]
fn pods_which_are_not_restricted_are_refused() {
    let (scratch, cluster) = (Scratch::new(), cluster());
    let objects = cluster.apply(&k8s().join("overlays/minimal"));
    let sound = pod(find(&objects, "Deployment/baler-scheduler")).unwrap();
    cluster.admit(&scratch, &sound).expect_silent();
    for (path, value) in [
        ("/spec/securityContext/runAsNonRoot", json!(false)),
        ("/spec/securityContext/seccompProfile", json!({"type": "Unconfined"})),
        ("/spec/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
        ("/spec/containers/0/securityContext/capabilities", json!({"add": ["NET_ADMIN"]})),
    ] {
        let mut changed = sound.clone();
        *changed.pointer_mut(path).unwrap() = value;
        let refused = cluster.admit(&scratch, &changed);
        assert!(!refused.is_ok && refused.errors.contains("violates PodSecurity"), "{path}: {refused:?}");
    }
    let mut greedy = sound;
    *greedy.pointer_mut("/spec/containers/0/resources").unwrap() = json!({"requests": {"memory": "64Gi"}, "limits": {"memory": "64Gi"}});
    assert!(!cluster.admit(&scratch, &greedy).is_ok);
}

#[test]
fn executors_drain_in_the_time_which_kubernetes_and_the_scheduler_grant() {
    let (_scratch, cluster) = (Scratch::new(), cluster());
    let objects = cluster.apply(&k8s().join("overlays/production"));
    let (executor, scheduler) = (find(&objects, "StatefulSet/baler-executor"), find(&objects, "Deployment/baler-scheduler"));
    let flag = |object: &Value, name: &str| -> u64 {
        let arguments = object.pointer("/spec/template/spec/containers/0/args").unwrap().as_array().unwrap();
        arguments.iter().find_map(|argument| argument.as_str()?.strip_prefix(name)?.parse().ok()).unwrap()
    };
    let drain = flag(executor, "--drain-seconds=");
    assert!(drain < executor.pointer("/spec/template/spec/terminationGracePeriodSeconds").unwrap().as_u64().unwrap());
    assert!(drain < flag(scheduler, "--executor-termination-grace-period="), "the scheduler takes a draining executor for lost");
    // The sizes which the 2 TB pipeline is made for.
    assert_eq!(replicas(executor), 10);
    let resources = executor.pointer("/spec/template/spec/containers/0/resources/limits").unwrap();
    assert_eq!((&resources["cpu"], &resources["memory"]), (&json!("4"), &json!("8Gi")));
    for shard in ["shard-0", "shard-1", "shard-2", "config"] {
        assert_eq!(replicas(find(&objects, &format!("StatefulSet/mongodb-{shard}"))), 3);
    }
    assert_eq!(replicas(find(&objects, "StatefulSet/kafka")), 3);
    // Kubernetes makes BALER_SCHEDULER_PORT and the like of the Services, which are flags of Baler's.
    for pod in objects.iter().filter_map(pod) {
        assert_eq!(pod["spec"]["enableServiceLinks"], false, "{}", title(&pod));
    }
}

/// Every variable which the manifests set for Baler is one that the binary knows.
#[test]
fn variables_of_balers_pods_are_those_of_its_flags() {
    let (_scratch, cluster) = (Scratch::new(), cluster());
    let objects = apply_with_jobs(&cluster, &k8s().join("overlays/kind"));
    let mut known = String::new();
    for command in ["scheduler", "executor", "run", "stream", "verify", "generate", "operator", "health"] {
        known += &Baler::new([command, "--help"]).run().expect_code(0).stdout;
    }
    let mut looked = 0;
    let config = find(&objects, "ConfigMap/baler-config")["data"].as_object().unwrap();
    let pods: Vec<_> = objects.iter().filter_map(pod).filter(|pod| text(pod, "/spec/containers/0/image").starts_with("baler:")).collect();
    let own = pods
        .iter()
        .flat_map(|pod| pod["spec"]["containers"][0]["env"].as_array().into_iter().flatten())
        .map(|variable| text(variable, "/name"));
    for name in own.chain(config.keys().map(String::as_str)).filter(|name| name.starts_with("BALER_")) {
        assert!(known.contains(&format!("[env: {name}=")), "no flag of Baler's has the variable {name}");
        looked += 1;
    }
    assert!(pods.len() >= 6 && looked >= 5, "{} pods, {looked} variables", pods.len());
    for pod in pods {
        // A wrong flag or command is refused before the help is shown.
        let arguments =
            pod["spec"]["containers"][0]["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap().to_string());
        Baler::new(arguments.chain(["--help".to_string()])).run().expect_code(0);
    }
}

#[test]
fn the_streaming_query_is_that_of_sql_but_for_the_login() {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let sink = |text: String| text[text.find("CREATE EXTERNAL TABLE documents").unwrap()..].to_string();
    let ours = read(k8s().join("components/streaming/stream.sql"));
    assert!(ours.contains("'kafka.client.security.protocol' 'SASL_SSL'"));
    assert_eq!(sink(ours), sink(read(k8s().join("../sql/stream.sql"))));
}

#[test]
fn schemas_and_scripts_have_no_faults() {
    let scratch = Scratch::new();
    let mut rendered = Vec::new();
    for folder in folders("overlays").into_iter().chain(folders("jobs")) {
        let output = Command::new(binaries().join("kubectl")).arg("kustomize").arg(&folder).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        // The validator knows Kubernetes' own kinds; those of others are checked by the API server.
        let text = String::from_utf8(output.stdout).unwrap();
        let is_foreign = |part: &str| ["cert-manager.io", "keda.sh"].iter().any(|group| part.starts_with(&format!("apiVersion: {group}/")));
        let own: Vec<_> = text.split("\n---\n").filter(|part| !is_foreign(part)).collect();
        let file = scratch.join(&format!("{}.yaml", folder.file_name().unwrap().display()));
        std::fs::write(&file, own.join("\n---\n")).unwrap();
        rendered.push(file);
    }
    let tools = packages::python(&["kubernetes-validate==1.37.0"]).join("bin");
    let (version, _) = VERSION.rsplit_once('.').unwrap();
    packages::check(&tools.join("kubernetes-validate"), &["--strict", "--kubernetes-version", version], &rendered);

    let shellcheck = packages::debian("shellcheck", &["shellcheck"]).join("usr/bin/shellcheck");
    let mut scripts = files(&k8s(), ".sh");
    assert!(scripts.len() >= 8, "{scripts:?}");
    scripts.push(k8s().join("../packaging/archive"));
    packages::check(&shellcheck, &["--enable=all", "--exclude=SC2250,SC2292,SC2310,SC2311,SC2312"], &scripts);

    let promtool = prometheus::program("promtool");
    // Debian's Prometheus is built without Kubernetes' discovery: another one stands in its place, the rest is checked as it stands.
    let config = std::fs::read_to_string(k8s().join("components/monitoring/prometheus.yml")).unwrap();
    let discovery = "    kubernetes_sd_configs:\n      - role: pod\n        namespaces: {own_namespace: true}\n";
    assert!(config.contains(discovery), "{config}");
    let file = scratch.join("prometheus.yml");
    std::fs::write(&file, config.replace(discovery, "    static_configs: [{targets: [\"127.0.0.1:1\"]}]\n")).unwrap();
    packages::check(&promtool, &["check", "config", "--syntax-only"], &[file]);
}
