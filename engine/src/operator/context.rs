//! What every reconciliation shares: the API, how the operator is set up, events, and what was read before.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::execution::runtime_env::RuntimeEnv;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{Api, ListParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::Mutex as AsyncMutex;

use super::progress::Known;
use super::status::Phase;
use crate::error::{Error, ErrorKind, Result};
use crate::session::SessionParts;
use crate::telemetry::text::{Kind, Published, Text};

/// How the operator is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state folder of resources which name none.
    pub state: String,
    /// The scheduler of resources which name none; without one their pods' own environment decides.
    pub scheduler: Option<String>,
    /// The namespace whose resources it keeps; its own if not given.
    pub namespace: Option<String>,
    /// How often the state of what runs is looked at.
    pub poll: Duration,
    /// How long the lease of an operator that is gone keeps others waiting.
    pub lease: Duration,
}

/// Shared by all reconciliations.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) options: Options,
    pub(super) parts: SessionParts,
    pub(super) env: Arc<RuntimeEnv>,
    recorder: Recorder,
    /// Receipts of jobs under way, by the resource's uid.
    known: Mutex<HashMap<String, Arc<AsyncMutex<Known>>>>,
    counts: Arc<Counts>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("namespace", &self.namespace).field("options", &self.options).finish_non_exhaustive()
    }
}

impl Context {
    pub(super) fn new(
        client: Client,
        namespace: String,
        options: Options,
        parts: SessionParts,
        holder: &str,
        counts: Arc<Counts>,
    ) -> Result<Self> {
        let reporter = Reporter { controller: "baler-operator".to_string(), instance: Some(holder.to_string()) };
        let recorder = Recorder::new(client.clone(), reporter);
        let env = parts.local()?.runtime_env();
        Ok(Self { client, namespace, options, parts, env, recorder, known: Mutex::default(), counts })
    }

    /// The objects of a kind in the operator's namespace.
    pub(super) fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// What was read of a job.
    pub(super) fn known(&self, uid: &str) -> Arc<AsyncMutex<Known>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(uid.to_string()).or_default())
    }

    /// Forgets what was read of a resource which ends.
    pub(super) fn forget(&self, uid: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Tells an event of a resource. One that cannot be stored stops nothing.
    pub(super) async fn tell(&self, about: &ObjectReference, type_: EventType, reason: &str, note: &str) {
        // The API takes 1 kB.
        let note = Some(note.chars().take(900).collect()).filter(|note: &String| !note.is_empty());
        let event = Event { type_, reason: reason.to_string(), note, action: reason.to_string(), secondary: None };
        if let Err(error) = self.recorder.publish(&event, about).await {
            let error = kube_error("storing an event", &error);
            tracing::warn!(%error, "an event is lost");
        }
    }

    /// Why the pods of a selector do not run, from the newest one which says so: what its driver wrote last, or why it waits.
    pub(super) async fn why(&self, selector: &str) -> Result<Option<String>> {
        let pods = self.api::<Pod>().list(&ListParams::default().labels(selector)).await;
        let mut pods = pods.map_err(|e| kube_error("listing the driver's pods", &e))?.items;
        pods.sort_by(|a, b| b.metadata.creation_timestamp.cmp(&a.metadata.creation_timestamp));
        Ok(pods.iter().find_map(why_pod))
    }
}

fn why_pod(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    for container in status.container_statuses.iter().flatten() {
        let states = [container.state.as_ref(), container.last_state.as_ref()];
        if let Some(ended) = states.iter().flatten().find_map(|state| state.terminated.as_ref()).filter(|ended| ended.exit_code != 0) {
            let text = ended.message.as_deref().and_then(last_line).or_else(|| ended.reason.clone()).unwrap_or_default();
            return Some(format!("the driver ended with {}: {text}", ended.exit_code));
        }
        if let Some(waiting) = container.state.as_ref().and_then(|state| state.waiting.as_ref()) {
            let reason = waiting.reason.as_deref().unwrap_or("waits");
            return Some(
                format!("the driver's container waits: {reason} {}", waiting.message.as_deref().unwrap_or_default()).trim_end().to_string(),
            );
        }
    }
    let unscheduled = status.conditions.iter().flatten().find(|one| one.type_ == "PodScheduled" && one.status == "False")?;
    Some(format!("the driver's pod has no node: {}", unscheduled.message.as_deref().unwrap_or_default()))
}

/// The last line of a log that says something; of one in JSON, its message.
fn last_line(text: &str) -> Option<String> {
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?.trim();
    let message = serde_json::from_str::<serde_json::Value>(line).ok().and_then(|line| line["message"].as_str().map(ToString::to_string));
    Some(message.unwrap_or_else(|| line.strip_prefix("error: ").unwrap_or(line).to_string()))
}

/// The HTTP status of an answer of the API server.
pub(super) fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// What an answer of the API server means to us.
pub(super) fn kube_error(action: &str, error: &kube::Error) -> Error {
    let kube::Error::Api(status) = error else {
        return Error::new(ErrorKind::Transient, format!("{action}: the Kubernetes API: {}", causes(error)));
    };
    let kind = match status.code {
        400 | 404 | 422 => ErrorKind::Config,
        401 | 403 => ErrorKind::Permanent,
        _ => ErrorKind::Transient,
    };
    Error::new(kind, format!("{action}: {}", status.message))
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        below = cause.source();
    }
    text
}

/// The operator's own figures.
#[derive(Debug, Default)]
pub struct Counts {
    is_leader: AtomicBool,
    reconciled: AtomicU64,
    failed: AtomicU64,
    phases: Mutex<BTreeMap<(&'static str, String), Phase>>,
}

impl Counts {
    pub(super) fn lead(&self, is_leader: bool) {
        self.is_leader.store(is_leader, Ordering::Relaxed);
    }

    pub(super) fn reconciled(&self) {
        self.reconciled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes the phase of a resource; none when it is gone.
    pub(super) fn note(&self, kind: &'static str, name: &str, phase: Option<Phase>) {
        let mut phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        match phase {
            Some(phase) => phases.insert((kind, name.to_string()), phase),
            None => phases.remove(&(kind, name.to_string())),
        };
    }

    /// Shows them as `baler_operator_…`.
    pub fn publish(self: &Arc<Self>, published: &Published) {
        let counts = Arc::clone(self);
        published.add(Box::new(move |text| counts.write(text)));
    }

    fn write(&self, text: &mut Text) {
        let is_leader = f64::from(u8::from(self.is_leader.load(Ordering::Relaxed)));
        text.gauge("baler_operator_is_leader", "Whether this operator acts; the others wait.", &[], is_leader);
        for (name, help, count) in [
            ("baler_operator_reconciliations_total", "Looks at a resource.", &self.reconciled),
            ("baler_operator_failures_total", "Looks which failed and are repeated.", &self.failed),
        ] {
            text.family(name, Kind::Counter, help);
            text.sample(name, &[], count.load(Ordering::Relaxed) as f64);
        }
        text.family("baler_operator_resources", Kind::Gauge, "Resources by kind and phase.");
        let phases = self.phases.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in ["BalerJob", "BalerStream"] {
            for phase in Phase::ALL {
                let count = phases.iter().filter(|((of, _), in_phase)| *of == kind && **in_phase == phase).count();
                text.sample("baler_operator_resources", &[("kind", kind), ("phase", phase.name())], count as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_says_why_it_failed_in_the_words_of_its_last_line() {
        let pod = |states: serde_json::Value| -> Pod {
            let mut status = serde_json::json!({"containerStatuses": [{"name": "driver", "image": "i", "imageID": "", "ready": false, "restartCount": 0}]});
            for (key, state) in states.as_object().unwrap() {
                status["containerStatuses"][0][key] = state.clone();
            }
            serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "status": status})).unwrap()
        };
        let ended = |message: &str| serde_json::json!({"state": {"terminated": {"exitCode": 2, "message": message}}});
        let json = "{\"message\":\"begins\"}\n{\"level\":\"ERROR\",\"message\":\"there is no table `x`\"}\n\n";
        assert_eq!(why_pod(&pod(ended(json))).unwrap(), "the driver ended with 2: there is no table `x`");
        assert_eq!(why_pod(&pod(ended("a\nerror: no such file\n"))).unwrap(), "the driver ended with 2: no such file");
        let waits = serde_json::json!({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}});
        assert_eq!(why_pod(&pod(waits)).unwrap(), "the driver's container waits: ImagePullBackOff no such image");
        let sound = serde_json::json!({"state": {"running": {}}});
        assert_eq!(why_pod(&pod(sound)), None);
    }
}
