//! Airflow's parts under a real Airflow: the DAG loads, its pods are admitted by the API server under Airflow's own account, and their commands do
//! the pipeline; its operator submits jobs which `baler operator` keeps, attaches to them again, and cancels them.

use std::path::{Path, PathBuf};
use std::process::Command;

use baler_tests::corpus::lines;
use baler_tests::kubernetes::operator::Scene;
use baler_tests::mongo::Mongo;
use baler_tests::packages;
use serde_json::{Value, json};

use crate::kubernetes::{cluster, k8s};
use crate::kubernetes_pods::{Stage, encrypted};

const AIRFLOW: [&str; 2] = ["apache-airflow==3.3.2", "apache-airflow-providers-cncf-kubernetes==10.25.0"];

/// A Python script of the tests in Airflow's environment; returns what it says behind `mark`.
#[track_caller]
fn python(home: &Path, script: &str, arguments: &[&str], variables: &[(&str, &str)], mark: &str) -> Value {
    let mut python = Command::new(packages::python(&AIRFLOW).join("bin/python"));
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script)).args(arguments);
    python.env("AIRFLOW_HOME", home).env("PYTHONDONTWRITEBYTECODE", "1").envs(variables.iter().copied());
    let output = python.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let line = shown.lines().find_map(|line| line.strip_prefix(mark));
    let line = line.unwrap_or_else(|| panic!("{script} fails:\n{shown}\n{}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_str(line).unwrap()
}

fn dags() -> PathBuf {
    k8s().join("components/airflow/dags")
}

#[test]
fn the_dags_pods_are_admitted_and_do_the_pipeline() {
    let minio = encrypted();
    let mut stage = Stage::new(&minio, None);
    let environment = stage.cluster.environment();
    let kubeconfig = &environment.iter().find(|(name, _)| name == "KUBECONFIG").unwrap().1;
    let file = dags().join("batch_2tb_processing.py").display().to_string();
    let image = stage.variable("Deployment/airflow", "BALER_IMAGE");
    let loaded = python(&stage.scratch.join("airflow"), "dag.py", &[&file, kubeconfig], &[("BALER_IMAGE", &image)], "dag: ");
    assert_eq!(loaded["dag"], "batch_2tb_processing");
    let after = |task: &str| loaded["tasks"].as_array().unwrap().iter().find(|one| one["id"] == task).unwrap()["after"].clone();
    for (task, wanted) in [
        ("check", json!([])),
        ("choose", json!(["check"])),
        ("generate", json!(["choose"])),
        ("wait_for_data", json!(["choose"])),
        ("run", json!(["generate", "wait_for_data"])),
        ("verify", json!(["run"])),
        ("statistics", json!(["verify"])),
        ("notify", json!(["statistics"])),
    ] {
        assert_eq!(after(task), wanted, "{task}");
    }
    let pods = loaded["pods"].as_object().unwrap();
    assert_eq!(pods.len(), 5);
    for pod in pods.values() {
        stage.cluster.admit_as("airflow", &stage.scratch, pod).expect_silent();
        assert!(!stage.cluster.admit_as("baler-driver", &stage.scratch, pod).is_ok, "a driver may start pods");
        assert_eq!(pod["spec"]["enableServiceLinks"], false, "{pod}");
        assert_eq!(pod["spec"]["containers"][0]["image"], "baler:0.1.0");
    }
    let job = json!({"apiVersion": "baler.dev/v1alpha1", "kind": "BalerJob", "metadata": {"name": loaded["job"]["name"], "namespace": "baler"},
        "spec": loaded["job"]["spec"]});
    stage.cluster.admit_as("airflow", &stage.scratch, &job).expect_silent();

    let (_fleet, _) = stage.start_fleet();
    let waits = stage.call(&pods["wait_for_data"], &[]);
    assert_ne!(waits.run().code, Some(0), "there is no data yet");
    let mut generate = pods["generate"].clone();
    let arguments = generate.pointer_mut("/spec/containers/0/args").unwrap().as_array_mut().unwrap();
    *arguments.iter_mut().find(|one| *one == "--size={{ params.size }}").unwrap() = json!("--size=4MiB");
    stage.run(&generate);
    waits.run().expect_code(0);
    // What the operator's Job does with this statement under this name; the operator has tests of its own.
    assert_eq!(loaded["job"], json!({"name": "batch-2tb", "spec": {"sql": {"file": "/usr/share/baler/sql/compress-to-mongodb.sql"}}}));
    stage.run(&stage.pod_with("Job/baler-batch", &[]));
    let shown = stage.run(&pods["verify"]).stdout;
    assert!(shown.contains("16/16 splits") && shown.contains("0 missing, 0 duplicate, 0 mismatched, 0 dead letters"), "{shown}");
    let input = ("INPUT", stage.collection.url.clone());
    let shown = stage.call(&pods["statistics"], &[input]).run().expect_code(0).stdout;
    assert!(shown.contains("average_ratio") && shown.contains(&format!(" {} ", stage.collection.count())), "{shown}");
}

/// The real DAG in a real Airflow, from its first task to its last: `airflow dags test` runs tasks, and the triggers of those which are deferred, one
/// after the other. Stand-ins are the kubelet, and folders of this machine for the bucket.
#[test]
fn the_dag_runs_to_its_end() {
    let collection = Mongo::shared().collection();
    let of_mongos = |database: &str| {
        format!("mongodb://mongodb-mongos.baler.svc:27017/{database}?tls=true&tlsCAFile=/etc/baler/ca/ca.crt&authSource=admin")
    };
    let place = of_mongos("compressed_data.documents");
    let mut scene = Scene::with_node(cluster(), &k8s().join("overlays/kind"), &[], |node, fleet, scratch| {
        node.selector = "app.kubernetes.io/component in (airflow-task, driver)".to_string();
        let folder = |name: &str| format!("file://{}", scratch.join(name).display());
        let mut files = vec![
            (place.clone().leak() as &str, collection.url.clone()),
            ("s3://baler/input/", folder("input/")),
            ("s3://baler/state", folder("state")),
            ("https://baler-scheduler-registration.baler.svc:50050", format!("https://localhost:{}", fleet.port)),
            ("dfs://baler-scheduler.baler.svc:50050", fleet.url()),
        ];
        files.append(&mut node.files);
        node.files = files;
    });
    let operator = scene.leading_operator();
    scene.fleet.add_executor();
    scene.fleet.wait_executors(1);
    let (account, mut variables) = scene.cluster.account_files("airflow");
    let overlay: Vec<Value> = scene.list("deployments", &["--field-selector=metadata.name=airflow"]);
    let image = overlay[0].pointer("/spec/template/spec/containers/0/env").unwrap().as_array().unwrap();
    let image = image.iter().find(|one| one["name"] == "BALER_IMAGE").unwrap()["value"].as_str().unwrap().to_string();
    variables.push(("BALER_IMAGE", image));
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (folder, account) = (dags().display().to_string(), account.display().to_string());
    let arguments = [folder.as_str(), &account, "batch_2tb_processing", "{\"generate\": true, \"size\": \"4MiB\"}"];
    let ended = python(&scene.scratch.join("airflow"), "dag_test.py", &arguments, &variables, "result: ");
    let states = ended["states"].as_object().unwrap();
    for (task, state) in states {
        assert_eq!(state, if task == "wait_for_data" { "skipped" } else { "success" }, "{task}: {ended}\n{:?}", scene.kubelet.ended());
    }
    assert_eq!(states.len(), 8, "{ended}");
    // It did what it says.
    let commit: Value = serde_json::from_slice(&std::fs::read(scene.state().join("batch-2tb/commit.json")).unwrap()).unwrap();
    let told = ended["told"].as_str().unwrap();
    assert!(told.contains(&format!("job batch-2tb is committed, {} documents", commit["documents"])), "{told}");
    assert_eq!(collection.count(), commit["documents"].as_u64().unwrap());
    assert_eq!(scene.wait_phase("balerjob/batch-2tb", "Complete")["attempts"], 1);
    assert!(operator.is_leader());
    // Each task's pod has run once, and those which succeeded are gone.
    assert!(scene.list("pods", &["--selector=app.kubernetes.io/component=airflow-task"]).is_empty());
    let ended = scene.kubelet.ended();
    assert_eq!(ended.len(), 5, "{ended:?}");
}

#[test]
fn airflows_operator_submits_attaches_again_cancels_and_succeeds_by_the_commit_alone() {
    let mut scene = Scene::new(cluster(), &k8s().join("overlays/kind"), &[("a.log".to_string(), lines(1, 200_000, "\n"))]);
    let _operator = scene.leading_operator();
    let account = scene.cluster.kubeconfig_of("airflow").display().to_string();
    let (home, folder) = (scene.scratch.join("airflow"), dags().display().to_string());
    let place = |name: &str| scene.scratch.join(name).display().to_string();
    let spec = |input: &str, output: &str| {
        json!({"sql": {"file": "/usr/share/baler/sql/compress.sql"}, "set": {"INPUT": input, "OUTPUT": output}, "retries": 0}).to_string()
    };
    let sound = spec(&place("input/"), &place("out"));
    let play =
        |what: &str, name: &str, spec: &str| python(&home, "airflow_job.py", &[&folder, &account, what, name, spec], &[], "result: ");

    // A worker submits and is free; one that comes again finds the same resource.
    assert_eq!(play("poke", "load", &sound), json!({"poked": false}));
    assert_eq!(play("submit", "load", &sound), json!({"deferred": "finish"}));
    let uid = || scene.get("balerjob/load").unwrap()["metadata"]["uid"].clone();
    let first = uid();
    scene.wait_phase("balerjob/load", "Running");
    assert_eq!(play("submit", "load", &sound), json!({"deferred": "finish"}));
    assert_eq!(uid(), first);
    assert_eq!(play("poke", "load", &sound), json!({"poked": false}));
    let other = play("submit", "load", &spec(&place("elsewhere/"), &place("out")));
    assert!(other["failed"].as_str().unwrap().contains("there is another BalerJob load"), "{other}");

    // Somebody ends the task: the job is cancelled, and its driver is gone.
    assert_eq!(play("kill", "load", &sound), json!({"killed": true}));
    scene.wait_gone("balerjob/load");
    assert!(scene.get("job/balerjob-load").is_none());

    // The next one goes on with the state, and ends with the figures of the commit.
    scene.fleet.add_executor();
    let done = play("wait", "load", &sound);
    let commit: Value = serde_json::from_slice(&std::fs::read(scene.state().join("load/commit.json")).unwrap()).unwrap();
    assert_eq!((&done["done"]["documents"], &done["done"]["attempts"]), (&commit["documents"], &json!(2)), "{done}");
    assert_eq!(play("poke", "load", &sound), json!({"poked": true}));
    assert_eq!(play("submit", "load", &sound)["done"], done["done"], "a complete one is done");

    // One that fails is a failed task, with the driver's own words; the next attempt begins it anew.
    let missing = spec(&place("missing/"), &place("out2"));
    let failed = play("wait", "late", &missing);
    assert!(failed["failed"].as_str().unwrap().contains("no object at"), "{failed}");
    assert!(play("poke", "late", &missing)["failed"].is_string());
    std::fs::create_dir(place("missing/")).unwrap();
    std::fs::write(scene.scratch.join("missing/a.log"), lines(2, 50_000, "\n")).unwrap();
    assert!(play("wait", "late", &missing)["done"]["documents"].as_u64().unwrap() > 0);
}
