//! A stand-in for the kubelet of one node: it runs the commands of the pods which the controllers make, and says in the pods' status how they
//! are. A pod that is to go gets SIGTERM and is removed when its command has ended, as on a node.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::pod::{Local, localize};
use super::{Cluster, Kubectl};
use crate::baler::{Baler, Finished, Running};
use crate::servers::{Scratch, free_port, random_name};

/// Time between two looks at the pods.
const LOOK: Duration = Duration::from_millis(250);
/// What is kept of a container's last words.
const MESSAGE_BYTES: usize = 2048;

/// A node of the namespace `baler`. It ends, with all that it runs, when it is dropped.
#[derive(Debug)]
pub struct Kubelet {
    is_over: Arc<AtomicBool>,
    ended: Arc<Mutex<Vec<(String, Finished)>>>,
    doomed: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

/// What the node gives its pods.
#[derive(Debug, Clone)]
pub struct Node {
    /// Which pods it runs.
    pub selector: String,
    /// Places of this machine, by the path which a container sees.
    pub files: Vec<(&'static str, String)>,
    /// Folders of this machine which a container sees under the same path.
    pub same: Vec<String>,
    /// Values of variables which must be others here.
    pub values: Vec<(&'static str, String)>,
}

impl Kubelet {
    /// Starts it.
    pub fn start(cluster: &Cluster, node: Node) -> Self {
        let (is_over, ended, doomed) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
        let mut work = Work {
            kubectl: cluster.client(),
            node,
            scratch: Scratch::new(),
            running: BTreeMap::new(),
            ended: Arc::clone(&ended),
            doomed: Arc::clone(&doomed),
        };
        let stop = Arc::clone(&is_over);
        let thread = std::thread::Builder::new().name("kubelet".to_string()).spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                work.look();
                std::thread::sleep(LOOK);
            }
        });
        Self { is_over, ended, doomed, thread: Some(thread.expect("cannot start a thread")) }
    }

    /// Kills (SIGKILL) the command of the running pod whose name begins like this, as a node does that runs out of memory.
    pub fn kill(&self, pod: &str) {
        self.doomed.lock().unwrap_or_else(PoisonError::into_inner).push(pod.to_string());
    }

    /// Leaves: nothing more is begun, and what runs is killed.
    pub fn stop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic is the test's failure already.
            thread.join().ok();
        }
    }

    /// What the containers which have ended left behind, oldest first, by the names of their pods.
    pub fn ended(&self) -> Vec<String> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.iter().map(|(pod, finished)| format!("{pod}: {:?} {:?}", finished.code, finished.signal)).collect()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Work {
    kubectl: Kubectl,
    node: Node,
    scratch: Scratch,
    running: BTreeMap<String, Running>,
    ended: Arc<Mutex<Vec<(String, Finished)>>>,
    doomed: Arc<Mutex<Vec<String>>>,
}

impl Work {
    fn look(&mut self) {
        let pods = self.get("pods", &[&format!("--selector={}", self.node.selector)]);
        for pod in &pods {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_string();
            let is_leaving = !pod["metadata"]["deletionTimestamp"].is_null();
            match self.running.remove(&name) {
                Some(running) if is_leaving => {
                    self.note(&name, running.terminate());
                    self.remove(&name);
                }
                Some(running) if self.is_doomed(&name) => {
                    let finished = running.kill();
                    self.report(pod, Some(&finished));
                    self.note(&name, finished);
                }
                Some(mut running) => {
                    if running.is_running() {
                        self.running.insert(name, running);
                    } else {
                        let finished = running.wait();
                        self.report(pod, Some(&finished));
                        self.note(&name, finished);
                    }
                }
                None if is_leaving => self.remove(&name),
                None if pod["status"]["phase"] == "Pending" || pod["spec"]["restartPolicy"] == "Always" => self.begin(pod, name),
                None => {}
            }
        }
    }

    /// Whether this pod is to be killed; each wish kills one.
    fn is_doomed(&self, pod: &str) -> bool {
        let mut doomed = self.doomed.lock().unwrap_or_else(PoisonError::into_inner);
        let place = doomed.iter().position(|start| pod.starts_with(start));
        place.map(|place| doomed.remove(place)).is_some()
    }

    fn get(&self, what: &str, more: &[&str]) -> Vec<Value> {
        let answer = self.kubectl.run(&[&["--namespace=baler", "get", what, "--output=json"], more].concat()).expect_json();
        answer["items"].as_array().expect("a list").clone()
    }

    fn begin(&mut self, pod: &Value, name: String) {
        if pod["spec"]["nodeName"].is_null() {
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": "baler"},
                "target": {"apiVersion": "v1", "kind": "Node", "name": "here"}});
            let file = self.scratch.join(&random_name("binding")).display().to_string();
            std::fs::write(&file, binding.to_string()).expect("cannot write a file");
            // One that was removed meanwhile is not there to be bound.
            self.kubectl.run(&["create", "--raw", &format!("/api/v1/namespaces/baler/pods/{name}/binding"), "--filename", &file]);
        }
        let objects = self.get("configmaps,secrets", &[]);
        let same = self.node.same.iter().map(|folder| (folder.as_str(), folder.clone()));
        let files: Vec<(&str, String)> = same.chain(self.node.files.iter().cloned()).collect();
        let Local { arguments, variables } = localize(pod, &objects, &self.scratch, &files, &self.node.values);
        let of_this_machine = |(name, value): (String, String)| match name.as_str() {
            "BALER_METRICS_PORT" => (name, free_port().to_string()),
            // Nobody scrapes it.
            "BALER_METRICS_LINGER_SECONDS" => (name, "0".to_string()),
            _ => (name, value),
        };
        let mut variables: Vec<(String, String)> = variables.into_iter().map(of_this_machine).collect();
        variables.push(("KUBERNETES_SERVICE_HOST".to_string(), "127.0.0.1".to_string()));
        self.running.insert(name, Baler::new(arguments).envs(&variables).start());
        self.report(pod, None);
    }

    /// Stores how a pod is: its command runs, or has ended.
    fn report(&self, pod: &Value, ended: Option<&Finished>) {
        let container = &pod["spec"]["containers"][0];
        let now = "2026-01-01T00:00:00Z";
        let is_restarted = pod["spec"]["restartPolicy"] == "Always";
        let (phase, state) = match ended {
            None => ("Running", json!({"running": {"startedAt": now}})),
            Some(finished) => {
                let is_ok = finished.code == Some(0);
                let text = if is_ok { String::new() } else { format!("{}{}", finished.stdout, finished.stderr) };
                let begins = (text.len().saturating_sub(MESSAGE_BYTES)..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                // 128 and the signal's number, as shells say it.
                let code = finished.code.unwrap_or(128 + finished.signal.unwrap_or(0));
                let ended = json!({"exitCode": code, "message": text[begins..], "reason": if is_ok { "Completed" } else { "Error" }, "finishedAt": now});
                (
                    if is_restarted {
                        "Running"
                    } else if is_ok {
                        "Succeeded"
                    } else {
                        "Failed"
                    },
                    json!({"terminated": ended}),
                )
            }
        };
        let ready = if ended.is_none() { "True" } else { "False" };
        let of = |type_: &str| json!({"type": type_, "status": ready, "lastTransitionTime": now});
        let status = json!({"status": {"phase": phase, "startTime": now, "conditions": [of("Ready"), of("ContainersReady")],
            "containerStatuses": [{"name": container["name"], "image": container["image"], "imageID": "", "ready": ended.is_none(),
                "restartCount": 0, "state": state}]}});
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        // A pod may be gone by now.
        self.kubectl.run(&[
            "--namespace=baler",
            "patch",
            "pod",
            name,
            "--subresource=status",
            "--type=merge",
            "--patch",
            &status.to_string(),
        ]);
    }

    fn remove(&self, name: &str) {
        self.kubectl.run(&["--namespace=baler", "delete", "pod", name, "--grace-period=0", "--force", "--wait=false"]);
    }

    fn note(&self, pod: &str, finished: Finished) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push((pod.to_string(), finished));
    }
}
