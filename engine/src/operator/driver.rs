//! From a resource to the objects which run it: its SQL's ConfigMap, its driver's pod, and the Job or Deployment around that.
//!
//! The pod is that of a PodTemplate, an object of Kubernetes which whoever runs the cluster writes: image, rights, credentials, volumes, limits.
//! The operator adds arguments and the SQL. So a resource cannot mount anything that the template does not.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ConfigMap, ConfigMapVolumeSource, PodTemplate, PodTemplateSpec, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use sha2::{Digest, Sha256};

use super::resource::{BalerJobSpec, Sql};
use crate::error::{Error, Result};
use crate::hex::to_hex;

/// Where the pod finds its SQL.
const SQL_FOLDER: &str = "/etc/baler/sql";
/// The key of SQL which the operator keeps itself.
const SQL_KEY: &str = "statements.sql";
/// The container of a template to which arguments go; its only one may have another name.
const CONTAINER: &str = "driver";
/// The exit code of a command whose words are wrong: the same again would end the same.
const EXIT_CONFIG: i32 = 2;

/// What a driver is to do.
#[derive(Debug)]
pub(super) struct Words<'a> {
    /// `run` or `stream`.
    pub(super) command: &'static str,
    /// The SQL.
    pub(super) sql: &'a Sql,
    /// Arguments behind the SQL file but for state, scheduler and settings.
    pub(super) arguments: Vec<String>,
    /// The state folder.
    pub(super) state: &'a str,
    /// The scheduler, if it is not the pod's own choice.
    pub(super) scheduler: Option<&'a str>,
    /// Values for `${KEY}`.
    pub(super) set: &'a BTreeMap<String, String>,
}

/// The objects of one resource: all have its name behind that of its kind, and belong to it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// `balerjob-NAME` or `balerstream-NAME`.
    pub(super) name: String,
    /// The resource.
    pub(super) owner: OwnerReference,
    /// By which its pods are found: `baler.dev/job` or `baler.dev/stream`, and the resource's name.
    pub(super) label: (String, String),
}

impl Place {
    fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_string()),
            labels: Some(self.labels()),
            owner_references: Some(vec![self.owner.clone()]),
            ..ObjectMeta::default()
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("app.kubernetes.io/name".to_string(), "baler".to_string()),
            ("app.kubernetes.io/managed-by".to_string(), "baler-operator".to_string()),
            self.label.clone(),
        ])
    }

    /// The selector of its pods.
    pub(super) fn selector(&self) -> String {
        format!("{}={}", self.label.0, self.label.1)
    }

    fn sql_name(&self) -> String {
        format!("{}-sql", self.name)
    }

    /// The ConfigMap of SQL which stands in the resource itself.
    pub(super) fn config_map(&self, sql: &Sql) -> Option<ConfigMap> {
        let text = sql.inline.clone()?;
        let data = BTreeMap::from([(SQL_KEY.to_string(), text)]);
        Some(ConfigMap { metadata: self.metadata(&self.sql_name()), data: Some(data), ..ConfigMap::default() })
    }

    /// The driver's pod: the template's, with arguments and SQL.
    ///
    /// # Errors
    /// Config, for a template without a container.
    pub(super) fn pod(&self, template: PodTemplate, words: &Words<'_>) -> Result<PodTemplateSpec> {
        let template_name = template.metadata.name.unwrap_or_default();
        let empty = || Error::config(format!("the PodTemplate `{template_name}` has no container; name one of them `{CONTAINER}`"));
        let mut pod = template.template.ok_or_else(empty)?;
        let metadata = pod.metadata.get_or_insert_default();
        metadata.labels.get_or_insert_default().extend(self.labels());
        let spec = pod.spec.as_mut().ok_or_else(empty)?;
        let index = spec.containers.iter().position(|container| container.name == CONTAINER).unwrap_or(0);
        let container = spec.containers.get_mut(index).ok_or_else(empty)?;
        let (file, volume) = self.file(words.sql)?;
        if let Some(volume) = volume {
            let mount = VolumeMount {
                name: volume.name.clone(),
                mount_path: SQL_FOLDER.to_string(),
                read_only: Some(true),
                ..VolumeMount::default()
            };
            container.volume_mounts.get_or_insert_default().push(mount);
            spec.volumes.get_or_insert_default().push(volume);
        }
        let mut arguments = vec![words.command.to_string(), file];
        arguments.extend(words.arguments.iter().cloned());
        arguments.push(format!("--state={}", words.state));
        arguments.extend(words.scheduler.map(|scheduler| format!("--scheduler={scheduler}")));
        arguments.extend(words.set.iter().map(|(key, value)| format!("--set={key}={value}")));
        container.args = Some(arguments);
        if let Some(text) = &words.sql.inline {
            // A Deployment begins a new pod when the statements are others.
            let hash = to_hex(Sha256::digest(text.as_bytes()));
            metadata.annotations.get_or_insert_default().insert("baler.dev/sql-hash".to_string(), hash);
        }
        Ok(pod)
    }

    /// The path of the SQL in the pod, and the volume by which it gets there.
    fn file(&self, sql: &Sql) -> Result<(String, Option<Volume>)> {
        let (map, key) = match (&sql.inline, &sql.config_map, &sql.file) {
            (Some(_), None, None) => (self.sql_name(), SQL_KEY.to_string()),
            (None, Some(map), None) => (map.name.clone(), map.key.clone()),
            (None, None, Some(file)) => return Ok((file.clone(), None)),
            _ => return Err(Error::config("`sql` takes exactly one of `inline`, `configMap` and `file`")),
        };
        let source = ConfigMapVolumeSource { name: map, ..ConfigMapVolumeSource::default() };
        let volume = Volume { name: "baler-sql".to_string(), config_map: Some(source), ..Volume::default() };
        Ok((format!("{SQL_FOLDER}/{key}"), Some(volume)))
    }

    /// The Job of a batch job. Its pods are never restarted in place, so that each attempt's exit code is seen.
    pub(super) fn job(&self, mut pod: PodTemplateSpec, resource: &BalerJobSpec) -> Job {
        let container = pod.spec.as_ref().map(|spec| spec.containers.iter()).and_then(|mut all| {
            let first = all.next()?;
            Some(if first.name == CONTAINER { first } else { all.find(|one| one.name == CONTAINER).unwrap_or(first) }.name.clone())
        });
        if let Some(spec) = &mut pod.spec {
            spec.restart_policy = Some("Never".to_string());
        }
        let wrong = PodFailurePolicyRule {
            action: "FailJob".to_string(),
            on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                container_name: container,
                operator: "In".to_string(),
                values: vec![EXIT_CONFIG],
            }),
            on_pod_conditions: None,
        };
        let drained = PodFailurePolicyRule {
            action: "Ignore".to_string(),
            on_exit_codes: None,
            on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                type_: "DisruptionTarget".to_string(),
                status: "True".to_string(),
            }]),
        };
        let spec = JobSpec {
            template: pod,
            backoff_limit: Some(resource.retries),
            active_deadline_seconds: resource.active_deadline_seconds,
            pod_failure_policy: Some(PodFailurePolicy { rules: vec![wrong, drained] }),
            ..JobSpec::default()
        };
        Job { metadata: self.metadata(&self.name), spec: Some(spec), status: None }
    }

    /// The Deployment of a streaming query: one pod at a time, because a second driver fences off the first.
    pub(super) fn deployment(&self, mut pod: PodTemplateSpec, replicas: i32) -> Deployment {
        if let Some(spec) = &mut pod.spec {
            spec.restart_policy = Some("Always".to_string());
        }
        let spec = DeploymentSpec {
            replicas: Some(replicas),
            strategy: Some(DeploymentStrategy { type_: Some("Recreate".to_string()), rolling_update: None }),
            selector: LabelSelector { match_labels: Some(BTreeMap::from([self.label.clone()])), match_expressions: None },
            template: pod,
            ..DeploymentSpec::default()
        };
        Deployment { metadata: self.metadata(&self.name), spec: Some(spec), status: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::resource::SqlKey;

    fn place() -> Place {
        let owner = OwnerReference { name: "load".to_string(), ..OwnerReference::default() };
        Place { name: "balerjob-load".to_string(), owner, label: ("baler.dev/job".to_string(), "load".to_string()) }
    }

    fn template(names: &[&str]) -> PodTemplate {
        let containers: Vec<_> = names.iter().map(|name| serde_json::json!({"name": name})).collect();
        let value =
            serde_json::json!({"metadata": {"name": "t"}, "template": {"spec": {"containers": containers, "restartPolicy": "OnFailure"}}});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn arguments_go_to_the_driver_and_nothing_else_is_changed() {
        let sql = Sql { config_map: Some(SqlKey { name: "mine".to_string(), key: "a.sql".to_string() }), ..Sql::default() };
        let set = BTreeMap::from([("INPUT".to_string(), "s3://b/in put/".to_string())]);
        let arguments = vec!["--job=x".to_string()];
        let words = Words { command: "run", sql: &sql, arguments, state: "s3://b/state", scheduler: None, set: &set };
        let pod = place().pod(template(&["sidecar", "driver"]), &words).unwrap();
        let spec = pod.spec.clone().unwrap();
        assert_eq!(spec.containers[0].args, None);
        let wanted = ["run", "/etc/baler/sql/a.sql", "--job=x", "--state=s3://b/state", "--set=INPUT=s3://b/in put/"];
        assert_eq!(spec.containers[1].args.as_deref().unwrap(), wanted);
        assert_eq!(spec.volumes.as_ref().unwrap()[0].config_map.as_ref().unwrap().name, "mine");
        let job = place().job(pod, &serde_json::from_value(serde_json::json!({"sql": {"file": "/x"}})).unwrap()).spec.unwrap();
        assert_eq!(job.template.spec.unwrap().restart_policy.as_deref(), Some("Never"));
        let rules = job.pod_failure_policy.unwrap().rules;
        assert_eq!(rules[0].on_exit_codes.as_ref().unwrap().container_name.as_deref(), Some("driver"));
        assert_eq!(job.backoff_limit, Some(6));
    }

    #[test]
    fn a_template_without_containers_is_refused() {
        let sql = Sql { file: Some("/x.sql".to_string()), ..Sql::default() };
        let words = Words { command: "run", sql: &sql, arguments: Vec::new(), state: "s", scheduler: None, set: &BTreeMap::new() };
        let refused = place().pod(template(&[]), &words).unwrap_err();
        assert!(refused.to_string().contains("PodTemplate `t` has no container"), "{refused}");
    }
}
