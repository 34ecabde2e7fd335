//! Executors by waiting work: the query of the ScaledObject, as the API server stored it, asked of a real Prometheus which scrapes a real
//! scheduler and driver under load, and the number of executors which KEDA and the HorizontalPodAutoscaler make of the answer.

use baler_tests::corpus::lines;
use baler_tests::fleet::Fleet;
use baler_tests::job::Job;
use baler_tests::kubernetes::pod::find;
use baler_tests::prometheus::Prometheus;
use baler_tests::servers::free_port;
use baler_tests::wait_until;
use serde_json::{Value, json};

use crate::kubernetes::{cluster, k8s};

/// What the ScaledObject says.
struct Scaler {
    query: String,
    threshold: f64,
    activation: f64,
    min: f64,
    max: f64,
}

impl Scaler {
    fn of(object: &Value) -> Self {
        let trigger = &object["spec"]["triggers"][0];
        assert_eq!((&trigger["type"], &trigger["metricType"]), (&json!("prometheus"), &json!("AverageValue")));
        let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap();
        let metadata = &trigger["metadata"];
        Self {
            query: metadata["query"].as_str().unwrap().to_string(),
            threshold: number(&metadata["threshold"]),
            activation: number(&metadata["activationThreshold"]),
            min: number(&object["spec"]["minReplicaCount"]),
            max: number(&object["spec"]["maxReplicaCount"]),
        }
    }

    /// How many executors there are to be: KEDA decides between none and some by the activation threshold, the HorizontalPodAutoscaler takes the
    /// value over the target, rounded up.
    fn executors(&self, value: f64) -> f64 {
        if value <= self.activation { self.min } else { (value / self.threshold).ceil().clamp(self.min.max(1.0), self.max) }
    }
}

#[test]
fn waiting_work_wakes_executors_and_scaling_in_loses_none_of_it() {
    let cluster = cluster();
    let objects = cluster.apply(&k8s().join("overlays/production-keda"));
    let scaler = Scaler::of(find(&objects, "ScaledObject/baler-executor"));
    // Nobody but the autoscaler sets the number, and drivers reach a scheduler which has no executors.
    let executor = find(&objects, "StatefulSet/baler-executor");
    let slots =
        executor.pointer("/spec/template/spec/containers/0/resources/limits/cpu").unwrap().as_str().unwrap().parse::<f64>().unwrap() + 1.0;
    assert_eq!(scaler.threshold, slots, "an executor has one slot more than cores");
    assert!(find(&objects, "ConfigMap/baler-config")["data"]["BALER_SCHEDULER"].as_str().unwrap().contains("-registration."));

    let mut fleet = Fleet::start_with(0, &[], &["--executor-timeout-seconds", "600"]);
    let driver_port = free_port();
    let prometheus = Prometheus::start(&[("scheduler", fleet.port), ("driver", driver_port)]);
    let wanted = || prometheus.value(&scaler.query).map(|value| (value, scaler.executors(value)));
    wait_until("nothing waits, and no executor is wanted", || wanted() == Some((0.0, 0.0)));

    let mut job = Job::new().on(&fleet);
    // One task for each object, so that there are more of them than an executor takes.
    (0..24).for_each(|number| drop(job.add_file(&format!("{number}.log"), &lines(number, 900_000, "\n"))));
    job.variables.push(("BALER_METRICS_PORT".to_string(), driver_port.to_string()));
    let mut run = job.call().start();
    assert!(run.runs_until("a driver wakes the first executor", || wanted() == Some((1.0, 1.0))), "{}", run.stderr());

    // Two that are there and take nothing: what waits is seen, and what follows from it.
    for number in 0..2 {
        assert_eq!(fleet.add_executor(), number);
    }
    fleet.wait_executors(2);
    (0..2).for_each(|number| fleet.stall_executor(number));
    assert!(run.runs_until("tasks wait", || wanted().is_some_and(|(value, _)| value > scaler.threshold)), "{}", run.stderr());
    let (value, executors) = wanted().unwrap();
    let tasks = ["baler_tasks_pending", "baler_tasks_running"].map(|name| prometheus.value(name).unwrap()).iter().sum::<f64>();
    assert_eq!(value, tasks + 1.0, "tasks, and one for the driver");
    assert!(executors == (value / slots).ceil() && executors >= 2.0, "{value} tasks want {executors} executors");

    // Scaling in is SIGTERM: the executor leaves by itself, and the job ends whole.
    (0..2).for_each(|number| fleet.resume_executor(number));
    fleet.drain_executor(1);
    run.wait().expect_code(0);
    let report = job.verify(0);
    assert_eq!(report.counts(), [0, 0, 0]);
    wait_until("nothing waits again, and no executor is wanted", || wanted() == Some((0.0, 0.0)));
}
