//! `baler operator` against a real API server and Kubernetes' own controllers, with the rights of its service account. Nothing but the kubelet is
//! stood in for: the commands of the pods which the controllers make are run on this machine.

use std::fs;
use std::time::Duration;

use baler_tests::baler::Baler;
use baler_tests::corpus::lines;
use baler_tests::job::Job as Work;
use baler_tests::kafka::Kafka;
use baler_tests::kubernetes::operator::Scene;
use baler_tests::mongo::Mongo;
use baler_tests::proxy::{Fault, Protocol, Proxy};
use baler_tests::topic::Record;
use baler_tests::wait_until;
use serde_json::{Value, json};

use crate::kubernetes::{cluster, k8s};

/// Objects of every scene: more than one split, and each of them compresses.
const OBJECTS: usize = 6;

fn scene() -> Scene {
    let files: Vec<_> = (0..OBJECTS).map(|number| (format!("{number}.log"), lines(number as u64, 200_000, "\n"))).collect();
    Scene::new(cluster(), &k8s().join("overlays/kind"), &files)
}

fn resource(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "baler.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "baler"}, "spec": spec})
}

/// A job over the scene's input.
fn job(scene: &Scene, name: &str, more: Value) -> Value {
    let place = |folder: &str| scene.scratch.join(folder).display().to_string();
    let mut spec = json!({"sql": {"file": "/usr/share/baler/sql/compress.sql"}, "set": {"INPUT": place("input/"), "OUTPUT": place(name)}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    resource("BalerJob", name, spec)
}

fn condition<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["conditions"].as_array().unwrap().iter().find(|one| one["type"] == name).unwrap_or(&Value::Null)
}

fn events(scene: &Scene, kind: &str, name: &str) -> Vec<(String, String)> {
    let of = |event: &Value| event["regarding"]["name"] == name && event["regarding"]["kind"] == kind;
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_string();
    let events = scene.list("events.events.k8s.io", &[]);
    events.iter().filter(|event| of(event)).map(|event| (text(event, "reason"), text(event, "note"))).collect()
}

/// The drivers' pods.
fn pods(scene: &Scene) -> Vec<Value> {
    scene.list("pods", &["--selector=app.kubernetes.io/managed-by=baler-operator"])
}

fn verify(scene: &Scene, name: &str) {
    let state = scene.state().display().to_string();
    let shown = Baler::new(["verify", "--deep", "--job", name, "--state", &state]).run().expect_code(0).stdout;
    assert!(shown.contains("0 missing, 0 duplicate, 0 mismatched, 0 dead letters"), "{shown}");
}

/// The files of a job's state, by their paths within it.
fn state_files(scene: &Scene, name: &str) -> Vec<String> {
    let folder = scene.state().join(name);
    let files = baler_tests::job::files(&folder);
    files.iter().map(|file| file.strip_prefix(&folder).unwrap().display().to_string()).collect()
}

/// Waits until the driver has begun. It waits for executors then.
fn wait_begun(scene: &Scene, name: &str) {
    wait_until("the manifest is stored", || scene.state().join(name).join("manifest.json").exists());
}

#[test]
fn a_job_is_driven_to_its_commit_and_says_how_far_it_is() {
    let mut scene = scene();
    let operator = scene.leading_operator();
    let sql = fs::read_to_string(k8s().join("../sql/compress.sql")).unwrap();
    scene.apply(&job(&scene, "load", json!({"sql": {"inline": sql}})));
    let status = scene.wait_phase("balerjob/load", "Running");
    assert_eq!(
        (&status["driver"], condition(&status, "Complete")["status"].as_str()),
        (&json!("balerjob-load"), Some("False")),
        "{status}"
    );
    // The driver has begun, and waits for executors.
    wait_begun(&scene, "load");
    let (made, owner) = (scene.get("job/balerjob-load").unwrap(), scene.get("balerjob/load").unwrap());
    let reference = &made["metadata"]["ownerReferences"][0];
    assert_eq!((&reference["uid"], &reference["controller"]), (&owner["metadata"]["uid"], &json!(true)), "{made}");
    assert_eq!(owner["metadata"]["finalizers"], json!(["baler.dev/driver"]));
    assert_eq!(scene.get("configmap/balerjob-load-sql").unwrap()["metadata"]["ownerReferences"][0]["name"], "load");

    scene.fleet.add_executor();
    let status = scene.wait_phase("balerjob/load", "Complete");
    let commit: Value = serde_json::from_slice(&fs::read(scene.state().join("load/commit.json")).unwrap()).unwrap();
    assert_eq!(status["progress"], format!("{OBJECTS}/{OBJECTS} (100 %)"), "{status}");
    for (ours, theirs) in
        [("documents", "documents"), ("records", "records"), ("rawBytes", "raw_bytes"), ("compressedBytes", "compressed_bytes")]
    {
        assert_eq!(status[ours], commit[theirs], "{ours}: {status} {commit}");
    }
    let ratio = commit["raw_bytes"].as_f64().unwrap() / commit["compressed_bytes"].as_f64().unwrap();
    assert!((status["ratio"].as_f64().unwrap() - ratio).abs() < 0.006 && status["mbPerSecond"].as_f64().unwrap() > 0.0, "{status}");
    assert_eq!(status["observedGeneration"], 1);
    for (name, wanted) in
        [("Accepted", "True"), ("Complete", "True"), ("Failed", "False"), ("Suspended", "False"), ("StateReadable", "True")]
    {
        assert_eq!(condition(&status, name)["status"], wanted, "{name}: {status}");
    }
    verify(&scene, "load");
    let table = scene.kubectl(&["get", "balerjobs"]);
    let (head, row) = table.split_once('\n').unwrap();
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["NAME", "STATUS", "PROGRESS", "MB/S", "RATIO", "AGE"], "{table}");
    assert!(row.starts_with("load") && row.contains("Complete") && row.contains("(100 %)"), "{table}");
    let reasons: Vec<_> = events(&scene, "BalerJob", "load").into_iter().map(|(reason, _)| reason).collect();
    assert!(["Pending", "Running", "Complete"].iter().all(|wanted| reasons.iter().any(|reason| reason == wanted)), "{reasons:?}");
    assert_eq!(operator.figure("baler_operator_resources{kind=\"BalerJob\",phase=\"Complete\"}"), Some(1.0));

    // A second resource over the same job finds it done, and a complete one makes no driver again.
    scene.apply(&job(&scene, "again", json!({"job": "load", "sql": {"inline": sql}, "set": owner["spec"]["set"]})));
    scene.wait_phase("balerjob/again", "Complete");
    scene.kubectl(&["delete", "job", "balerjob-load"]);
    scene.patch("balerjob/load", &json!({"spec": {"retries": 3}}));
    let seen = || scene.get("balerjob/load").unwrap()["status"]["observedGeneration"] == 2;
    wait_until("the change is seen", seen);
    assert!(scene.get("job/balerjob-load").is_none() && scene.get("balerjob/load").unwrap()["status"]["phase"] == "Complete");
}

#[test]
fn a_suspended_job_stops_and_goes_on_where_it_stopped() {
    let mut scene = scene();
    let _operator = scene.leading_operator();
    scene.apply(&job(&scene, "halted", json!({"suspend": true})));
    scene.wait_phase("balerjob/halted", "Suspended");
    assert!(scene.get("job/balerjob-halted").is_none(), "a suspended job has a driver");
    scene.patch("balerjob/halted", &json!({"spec": {"suspend": false}}));
    scene.wait_phase("balerjob/halted", "Running");
    wait_begun(&scene, "halted");

    scene.patch("balerjob/halted", &json!({"spec": {"suspend": true}}));
    let status = scene.wait_phase("balerjob/halted", "Suspended");
    assert_eq!(condition(&status, "Suspended")["status"], "True", "{status}");
    scene.wait_gone("job/balerjob-halted");
    // The driver was stopped, not killed.
    assert_eq!(scene.kubelet.ended().len(), 1, "{:?}", scene.kubelet.ended());

    scene.patch("balerjob/halted", &json!({"spec": {"suspend": false}}));
    scene.fleet.add_executor();
    let status = scene.wait_phase("balerjob/halted", "Complete");
    assert_eq!(status["attempts"], 2, "{status}");
    assert_eq!(status["observedGeneration"], 4);
    verify(&scene, "halted");
}

#[test]
fn a_removed_job_is_cancelled_and_its_state_stays() {
    let mut scene = scene();
    let _operator = scene.leading_operator();
    scene.apply(&job(&scene, "gone", json!({})));
    scene.wait_phase("balerjob/gone", "Running");
    wait_begun(&scene, "gone");
    scene.kubectl(&["delete", "balerjob", "gone", "--timeout=120s"]);
    // It went after its driver, whose pod was stopped and not killed.
    assert!(scene.get("job/balerjob-gone").is_none() && pods(&scene).is_empty());
    assert_eq!(scene.kubelet.ended().len(), 1, "{:?}", scene.kubelet.ended());
    let files = state_files(&scene, "gone");
    assert!(files.contains(&"manifest.json".to_string()) && !files.contains(&"commit.json".to_string()), "{files:?}");
    assert!(events(&scene, "BalerJob", "gone").iter().any(|(reason, note)| reason == "Cancelled" && note.contains("stays")));

    scene.fleet.add_executor();
    scene.apply(&job(&scene, "gone", json!({})));
    assert_eq!(scene.wait_phase("balerjob/gone", "Complete")["attempts"], 2);
    verify(&scene, "gone");
}

#[test]
fn what_a_killed_driver_left_on_the_fleet_is_cancelled_with_its_resource() {
    let mut scene = scene();
    let operator = scene.leading_operator();
    let mongo = Mongo::shared();
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let mut work = Work::new().into_collection(mongo.collection_at(proxy.port));
    work.sink_options.push(("mongodb.batch_docs", "4"));
    work.add_file("a.jsonl", &lines(3, 8 << 20, "\n"));
    scene.fleet.add_executor();
    scene.fleet.wait_executors(1);
    // Its tasks hang in their writes, so that nothing of it ends by itself.
    proxy.arm(Fault::Stall { writes: 2 });
    let set = json!({"INPUT": work.input, "OUTPUT": work.sink.collection().url});
    scene.apply(&resource("BalerJob", "left", json!({"sql": {"inline": work.sql()}, "set": set, "retries": 0})));
    wait_until("writes hang", || proxy.fired() > 0);
    let runs =
        |scene: &Scene| scene.fleet.jobs().iter().filter(|(name, status)| name.starts_with("left wave") && status == "Running").count();
    assert!(runs(&scene) > 0, "{:?}", scene.fleet.jobs());

    scene.kubelet.kill("balerjob-left-");
    let status = scene.wait_phase("balerjob/left", "Failed");
    assert!(status["message"].as_str().unwrap().contains("the driver ended with 137"), "{status}");
    let ended = scene.kubelet.ended();
    assert!(ended.len() == 1 && ended[0].ends_with("None Some(9)"), "{ended:?}");
    // Nobody told the fleet: what the driver began goes on without it.
    assert!(runs(&scene) > 0 && proxy.writes() > 0, "{:?}", scene.fleet.jobs());

    scene.kubectl(&["delete", "balerjob", "left", "--timeout=120s"]);
    // The resource went after the fleet was told.
    wait_until("the fleet has stopped it", || runs(&scene) == 0);
    let reasons: Vec<_> = events(&scene, "BalerJob", "left").into_iter().map(|(reason, _)| reason).collect();
    assert!(reasons.iter().any(|reason| reason == "Cancelled") && !reasons.iter().any(|reason| reason == "NotCancelled"), "{reasons:?}");
    // Its tasks have ended on the executor, too: the slots are free for the next job.
    proxy.arm(Fault::None);
    proxy.cut();
    let idle = |text: String| {
        let running = text.lines().find_map(|line| line.strip_prefix("baler_executor_running_tasks "));
        running.and_then(|running| running.trim().parse::<f64>().ok()) == Some(0.0)
    };
    wait_until("no task runs any more", || scene.watcher.get(scene.fleet.metrics_ports[0], "/metrics").is_some_and(idle));
    assert!(!scene.state().join("left/commit.json").exists());

    // A fleet which is away keeps no resource, and that is told.
    let before = proxy.fired();
    proxy.arm(Fault::Stall { writes: 2 });
    scene.apply(&resource("BalerJob", "lost", json!({"sql": {"inline": work.sql()}, "set": set, "retries": 0})));
    wait_until("writes hang again", || proxy.fired() > before);
    scene.fleet.kill_scheduler();
    scene.kubelet.kill("balerjob-lost-");
    scene.wait_phase("balerjob/lost", "Failed");
    scene.kubectl(&["delete", "balerjob", "lost", "--timeout=120s"]);
    assert!(events(&scene, "BalerJob", "lost").iter().any(|(reason, note)| reason == "NotCancelled" && note.contains("may still run")));
    assert!(operator.is_leader());
}

/// A watch that is begun anew starts with a list, in pages. What is new in the first page comes to the controller before the list is whole, and
/// so before the controller has the resource: that look finds nothing, and must be made again.
#[test]
fn a_resource_made_while_the_api_server_is_away_is_looked_at() {
    const OTHERS: usize = 60;
    let mut scene = scene();
    scene.kubelet.stop();
    // A lease longer than the API server is away: else another operator would begin, with a list of its own.
    let (operator, proxy, _gateway) = scene.operator_through_proxy("--lease=300s");
    let operator = operator.leading();
    let others: Vec<Value> = (0..OTHERS).map(|number| job(&scene, &format!("other-{number:02}"), json!({"suspend": true}))).collect();
    scene.apply(&json!({"apiVersion": "v1", "kind": "List", "items": others}));
    let suspended = |scene: &Scene| scene.list("balerjobs", &[]).iter().filter(|one| one["status"]["phase"] == "Suspended").count();
    wait_until("all are looked at", || suspended(&scene) == OTHERS);
    // It sees nothing of what comes until the API server is another one.
    operator.server.signal("STOP");
    scene.cluster.restart_api();
    scene.apply(&job(&scene, "early", json!({"suspend": true})));
    // The second page keeps it waiting, for longer than it takes to look at what the first one names.
    let second_page = "GET /apis/baler.dev/v1alpha1/namespaces/baler/balerjobs?&limit=50&continue=".to_string();
    let action = Some(Box::new(|| std::thread::sleep(Duration::from_secs(3))) as Box<dyn FnOnce() + Send>);
    proxy.arm(Fault::Before { start: second_page, action });
    operator.server.signal("CONT");
    scene.wait_phase("balerjob/early", "Suspended");
    assert_eq!(proxy.fired(), 1, "the second page was not asked for");
    assert!(
        operator.server.log().contains("a resource of a new list is looked at again"),
        "the fault did not fire:\n{}",
        operator.server.log()
    );
}

#[test]
fn of_two_operators_one_acts_and_the_other_goes_on_where_it_was_killed() {
    let mut scene = scene();
    let (mut first, mut second) = (scene.leading_operator(), scene.operator());
    second.wait_up();
    scene.apply(&job(&scene, "long", json!({})));
    scene.wait_phase("balerjob/long", "Running");
    let uid = |scene: &Scene, object: &str| scene.get(object).unwrap()["metadata"]["uid"].clone();
    let driver = uid(&scene, "job/balerjob-long");
    let holder = |scene: &Scene| scene.get("lease/baler-operator").unwrap()["spec"]["holderIdentity"].clone();
    let before = holder(&scene);
    assert!(first.is_leader() && !second.is_leader() && second.figure("baler_operator_reconciliations_total") == Some(0.0));

    first.server.kill();
    scene.fleet.add_executor();
    wait_until("the other operator acts", || second.is_leader());
    assert!(holder(&scene) != before);
    let status = scene.wait_phase("balerjob/long", "Complete");
    // The driver did not notice: it is the same Job, and one attempt did it all.
    assert_eq!((uid(&scene, "job/balerjob-long"), &status["attempts"]), (driver, &json!(1)));
    verify(&scene, "long");

    // One that is stopped gives the lease back.
    second.server.stop();
    assert_eq!(holder(&scene), Value::Null);
    let third = scene.leading_operator();
    scene.apply(&job(&scene, "next", json!({})));
    scene.wait_phase("balerjob/next", "Complete");
    assert!(third.is_leader());
}

#[test]
fn what_is_wrong_with_one_resource_stops_no_other() {
    let mut scene = scene();
    // Longer than it is stopped below.
    let operator = scene.operator_with("--lease=300s").leading();
    scene.fleet.add_executor();
    // Some that this program cannot read, as of another version of their type: the API server takes them when it knows no schema.
    let whole = k8s().join("components/operator/types.yaml").display().to_string();
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let loose = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": anything}]).to_string();
    scene.cluster.kubectl(&["patch", "crd", "balerjobs.baler.dev", "--type=json", "--patch", &loose]).expect_silent();
    let create = |name: &str, more: &[&str]| {
        let file = scene.scratch.join(name).display().to_string();
        fs::write(&file, resource("BalerJob", name, json!({"sql": 17})).to_string()).unwrap();
        scene.cluster.kubectl(&[&["create", "--filename", &file], more].concat()).is_ok
    };
    wait_until("the schema is gone", || create("unreadable", &[]));
    let status = scene.wait_phase("balerjob/unreadable", "Invalid");
    assert!(condition(&status, "Accepted")["message"].as_str().unwrap().contains("cannot read the resource"), "{status}");
    // This one is not seen before the schema is back. The API server takes no change of it then, not even of its status.
    operator.server.signal("STOP");
    assert!(create("unwritable", &[]));
    scene.cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "--filename", &whole]).expect_silent();
    wait_until("the schema is back", || !create("probe", &["--dry-run=server"]));
    let patch = [
        "--namespace=baler",
        "patch",
        "balerjob",
        "unwritable",
        "--subresource=status",
        "--type=merge",
        "--patch",
        "{\"status\": {\"phase\": \"Invalid\"}}",
    ];
    let refused = scene.cluster.kubectl(&patch);
    assert!(!refused.is_ok && refused.errors.contains("is invalid"), "the API server takes a status: {refused:?}");
    operator.server.signal("CONT");
    wait_until("an event says it", || {
        let told = events(&scene, "BalerJob", "unwritable");
        told.iter()
            .any(|(reason, note)| reason == "Invalid" && note.contains("cannot read the resource") && note.contains("cannot be stored"))
    });

    scene.apply(&job(&scene, "nowhere", json!({"sql": {"configMap": {"name": "mine", "key": "a.sql"}}})));
    scene.apply(&job(&scene, "templateless", json!({"podTemplate": "other"})));
    scene.apply(&job(&scene, "wrong", json!({"sql": {"inline": "SELECT nothing"}})));
    scene.apply(&job(&scene, "sound", json!({})));

    scene.wait_phase("balerjob/sound", "Complete");
    let status = scene.wait_phase("balerjob/nowhere", "Invalid");
    assert!(status["message"].as_str().unwrap().contains("key `a.sql` of ConfigMap `mine`, which is not there"), "{status}");
    let status = scene.wait_phase("balerjob/templateless", "Invalid");
    assert!(status["message"].as_str().unwrap().contains("there is no PodTemplate `other`"), "{status}");
    // A wrong statement is not tried again, and its own words say what is wrong.
    let status = scene.wait_phase("balerjob/wrong", "Failed");
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("the driver ended with 2") && message.contains("PodFailurePolicy"), "{status}");
    assert_eq!(scene.list("pods", &["--selector=baler.dev/job=wrong"]).len(), 1);
    assert!(events(&scene, "BalerJob", "nowhere").iter().any(|(reason, _)| reason == "Invalid"));

    // What was missing comes, and the job goes on by itself.
    let sql = k8s().join("../sql/compress.sql").display().to_string();
    scene.kubectl(&["create", "configmap", "mine", &format!("--from-file=a.sql={sql}")]);
    scene.wait_phase("balerjob/nowhere", "Complete");
    // All of them can be removed.
    scene.kubectl(&["delete", "balerjobs", "--all", "--timeout=120s"]);
    assert!(scene.list("jobs", &["--selector=app.kubernetes.io/managed-by=baler-operator"]).is_empty());
}

#[test]
fn a_failed_job_is_begun_anew_when_it_was_suspended_once_and_goes_when_its_time_is_over() {
    let mut scene = scene();
    let _operator = scene.leading_operator();
    scene.fleet.add_executor();
    let input = scene.scratch.join("later/").display().to_string();
    let output = scene.scratch.join("out").display().to_string();
    let brief = json!({"retries": 0, "set": {"INPUT": input, "OUTPUT": output}, "ttlSecondsAfterFinished": 3600});
    scene.apply(&job(&scene, "brief", brief));
    let status = scene.wait_phase("balerjob/brief", "Failed");
    assert!(status["completionTime"].is_string() && condition(&status, "Failed")["status"] == "True", "{status}");
    fs::create_dir(&input).unwrap();
    fs::write(scene.scratch.join("later/a.log"), lines(1, 10_000, "\n")).unwrap();
    scene.patch("balerjob/brief", &json!({"spec": {"suspend": true}}));
    scene.wait_phase("balerjob/brief", "Suspended");
    scene.patch("balerjob/brief", &json!({"spec": {"suspend": false}}));
    scene.wait_phase("balerjob/brief", "Complete");
    scene.patch("balerjob/brief", &json!({"spec": {"ttlSecondsAfterFinished": 1}}));
    scene.wait_gone("balerjob/brief");
    scene.wait_gone("job/balerjob-brief");
    assert!(state_files(&scene, "brief").contains(&"commit.json".to_string()), "the state is gone with the resource");
}

#[test]
fn a_stream_runs_until_it_is_suspended_and_says_its_lag() {
    let mut scene = scene();
    let _operator = scene.leading_operator();
    scene.fleet.add_executor();
    let topic = Kafka::shared().topic(3, &[]);
    let send = |count: usize| topic.send((0..count).map(|number| ((number % 3) as i32, Record::new(format!("{{\"number\": {number}}}")))));
    send(3000);
    let sql = fs::read_to_string(k8s().join("../sql/stream.sql")).unwrap();
    let sink = "STORED AS BSON LOCATION '${OUTPUT}' OPTIONS ('bson.namespace' 'db.documents')";
    let begin = sql.find("STORED AS MONGODB").unwrap();
    let sql = format!("{}{sink}{}", &sql[..begin], &sql[begin + sql[begin..].find(';').unwrap()..]);
    let set = json!({"INPUT": topic.url(), "OUTPUT": scene.scratch.join("feed").display().to_string()});
    scene.apply(&resource("BalerStream", "feed", json!({"sql": {"inline": sql}, "set": set, "trigger": "500ms"})));
    let caught_up = |scene: &Scene, batches: u64| {
        let status = scene.get("balerstream/feed").unwrap()["status"].clone();
        status["lagRecords"] == 0 && status["splitsDone"].as_u64() >= Some(batches) && status["phase"] == "Running"
    };
    wait_until("it has caught up", || caught_up(&scene, 1));
    let row = scene.kubectl(&["get", "balerstreams", "--no-headers"]);
    assert!(row.contains("micro-batches") && row.contains("0 records, 0 s"), "{row}");
    assert_eq!(scene.get("deployment/balerstream-feed").unwrap()["spec"]["strategy"]["type"], "Recreate");

    scene.patch("balerstream/feed", &json!({"spec": {"suspend": true}}));
    scene.wait_phase("balerstream/feed", "Suspended");
    wait_until("its pod is gone", || scene.list("pods", &["--selector=baler.dev/stream=feed"]).is_empty());
    send(1500);
    wait_until("the lag is seen while it is suspended", || scene.get("balerstream/feed").unwrap()["status"]["lagRecords"] == 1500);
    scene.patch("balerstream/feed", &json!({"spec": {"suspend": false}}));
    wait_until("it has caught up again", || caught_up(&scene, 2));
    scene.kubectl(&["delete", "balerstream", "feed", "--timeout=120s"]);
    assert!(scene.get("deployment/balerstream-feed").is_none() && pods(&scene).is_empty());
    let state = scene.state().display().to_string();
    let shown = Baler::new(["verify", "--deep", "--job", "feed", "--state", &state]).run().expect_code(0).stdout;
    assert!(shown.contains("0 missing, 0 duplicate, 0 mismatched"), "{shown}");
}

#[test]
fn wrong_resources_are_refused_by_the_api_server() {
    let cluster = cluster();
    let types = k8s().join("components/operator/types.yaml").display().to_string();
    cluster.kubectl(&["create", "namespace", "baler"]).expect_silent();
    cluster.kubectl(&["apply", "--server-side", "--validate=strict", "--filename", &types]).expect_silent();
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]).expect_silent();
    let scratch = baler_tests::servers::Scratch::new();
    let apply = |resource: &Value| {
        let file = scratch.join("resource.json").display().to_string();
        fs::write(&file, resource.to_string()).unwrap();
        cluster.kubectl(&["apply", "--validate=strict", "--filename", &file])
    };
    let refused = |resource: &Value, words: &str| {
        let answer = apply(resource);
        assert!(!answer.is_ok && answer.errors.contains(words), "{words}: {answer:?}");
    };
    let file = json!({"file": "/usr/share/baler/sql/compress.sql"});
    let sound = resource("BalerJob", "sound", json!({"sql": file, "set": {"INPUT": "a"}}));
    apply(&sound).expect_silent();
    for sample in ["job.yaml", "stream.yaml"] {
        let sample = k8s().join("samples").join(sample).display().to_string();
        cluster.kubectl(&["apply", "--validate=strict", "--filename", &sample]).expect_silent();
    }
    refused(&resource("BalerJob", "a", json!({})), "spec.sql: Required value");
    refused(&resource("BalerJob", "a", json!({"sql": {}})), "exactly one of");
    refused(&resource("BalerJob", "a", json!({"sql": {"inline": "SELECT 1", "file": "/x"}})), "exactly one of");
    refused(&resource("BalerJob", "a", json!({"sql": file, "retires": 1})), "unknown field");
    refused(&resource("BalerJob", "a", json!({"sql": file, "retries": -1})), "retries");
    refused(&resource("BalerJob", "a", json!({"sql": file, "job": "../b"})), "spec.job");
    refused(&resource("BalerJob", &"a".repeat(51), json!({"sql": file})), "at most 50 characters");
    refused(&resource("BalerStream", "a", json!({"sql": file, "trigger": "soon"})), "spec.trigger");
    for (key, value) in
        [("sql", json!({"file": "/y"})), ("set", json!({"INPUT": "b"})), ("job", json!("other")), ("state", json!("s3://b/c"))]
    {
        let mut changed = sound.clone();
        changed["spec"][key] = value;
        refused(&changed, "cannot be changed");
    }
    let mut changed = sound;
    changed["spec"]["suspend"] = json!(true);
    apply(&changed).expect_silent();
}

#[test]
fn the_types_in_the_manifests_are_those_of_the_program() {
    let printed = Baler::new(["operator", "--print-types"]).run().expect_code(0).stdout;
    let kept = fs::read_to_string(k8s().join("components/operator/types.yaml")).unwrap();
    assert!(printed == kept, "renew it: baler operator --print-types > k8s/components/operator/types.yaml");
}

#[test]
fn an_operator_without_its_types_or_an_api_says_so() {
    let cluster = cluster();
    let environment = cluster.environment();
    Baler::new(["operator"]).envs(&environment).run().expect_one_line(2, &["does not know the kind BalerJob", "--print-types"]);
    Baler::new(["operator", "--lease", "10ms"]).envs(&environment).run().expect_one_line(2, &["--lease", "1000 ms"]);
    drop(cluster);
    Baler::new(["operator"]).envs(&environment).run().expect_one_line(3, &["the Kubernetes API", "does not answer"]);
}
