//! The DAG under a real Airflow: it loads, its pods are admitted by the API server under Airflow's own account, and their commands do the pipeline.

use std::path::Path;
use std::process::Command;

use baler_tests::packages;
use serde_json::Value;

use crate::kubernetes::k8s;
use crate::kubernetes_pods::{Stage, encrypted};

const AIRFLOW: [&str; 2] = ["apache-airflow==3.3.2", "apache-airflow-providers-cncf-kubernetes==10.25.0"];

/// The pods of the DAG's tasks in their order, with the image which the manifests give them.
fn pods(stage: &Stage) -> Vec<Value> {
    let environment = stage.cluster.environment();
    let kubeconfig = &environment.iter().find(|(name, _)| name == "KUBECONFIG").unwrap().1;
    let mut python = Command::new(packages::python(&AIRFLOW).join("bin/python"));
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/dag.py"));
    python.arg(k8s().join("components/airflow/dags/batch_2tb_processing.py")).arg(kubeconfig);
    python.env("AIRFLOW_HOME", stage.scratch.join("airflow")).env("BALER_IMAGE", stage.variable("Deployment/airflow", "BALER_IMAGE"));
    let output = python.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let line = shown.lines().find_map(|line| line.strip_prefix("pods: "));
    let line = line.unwrap_or_else(|| panic!("the DAG does not load:\n{shown}\n{}", String::from_utf8_lossy(&output.stderr)));
    let answer: Value = serde_json::from_str(line).unwrap();
    assert_eq!(answer["dag"], "batch_2tb_processing");
    answer["pods"].as_array().unwrap().clone()
}

#[test]
fn the_dags_pods_are_admitted_and_do_the_pipeline() {
    let minio = encrypted();
    let mut stage = Stage::new(&minio, None);
    let pods = pods(&stage);
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        stage.cluster.admit_as("airflow", &stage.scratch, pod).expect_silent();
        assert!(!stage.cluster.admit_as("baler-driver", &stage.scratch, pod).is_ok, "a driver may start pods");
        assert_eq!(pod["spec"]["enableServiceLinks"], false, "{pod}");
        assert_eq!(pod["spec"]["containers"][0]["image"], "baler:0.1.0");
    }
    let _fleet = stage.start_fleet();
    stage.run(&stage.pod_with("Job/baler-generate", &[("--size=1GiB", "--size=4MiB")]));
    stage.run(&pods[0]);
    let shown = stage.run(&pods[1]).stdout;
    assert!(shown.contains("16/16 splits") && shown.contains("0 missing, 0 duplicate, 0 mismatched, 0 dead letters"), "{shown}");
    let input = ("INPUT", stage.collection.url.clone());
    let shown = stage.call(&pods[2], &[input]).run().expect_code(0).stdout;
    assert!(shown.contains("average_ratio") && shown.contains(&format!(" {} ", stage.collection.count())), "{shown}");
}
