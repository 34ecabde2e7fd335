//! The custom resources `BalerJob` and `BalerStream`, and what their types look like to the API server.
//!
//! What a job or query is (its SQL, its name, its state) cannot be changed: another one is another resource. The API server checks that, so a
//! mistake is told to whoever makes it.

#![expect(unreachable_pub, reason = "the derive of a schema repeats the type within a function")]

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::error::{Error, Result};

/// A batch job: `baler run`, as a Job of Kubernetes.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "baler.dev",
    version = "v1alpha1",
    kind = "BalerJob",
    doc = "A batch job of Baler: `baler run` as a Job, which goes on where it stopped.",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "bj",
    category = "baler",
    validation = Rule::new("self.metadata.name.size() <= 50").message("the name is too long; take at most 50 characters"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "MB/s", type_ = "number", json_path = ".status.mbPerSecond"),
    printcolumn(name = "Ratio", type_ = "number", json_path = ".status.ratio"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.sql == oldSelf.sql").message("`sql` cannot be changed; another statement is another job"),
    validation = Rule::new("has(self.job) == has(oldSelf.job) && (!has(self.job) || self.job == oldSelf.job)").message("`job` cannot be changed"),
    validation = Rule::new("has(self.state) == has(oldSelf.state) && (!has(self.state) || self.state == oldSelf.state)").message("`state` cannot be changed"),
    validation = Rule::new("has(self.set) == has(oldSelf.set) && (!has(self.set) || self.set == oldSelf.set)").message("`set` cannot be changed; another input is another job")
)]
#[serde(rename_all = "camelCase")]
pub struct BalerJobSpec {
    /// The statements; the last one is an INSERT into a MONGODB or BSON table.
    pub sql: Sql,
    /// Name of the job in the state folder; the resource's name if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}$"))]
    pub job: Option<String>,
    /// Where and by what its driver works.
    #[serde(flatten)]
    pub driver: DriverSpec,
    /// Stops the driver. `false` again goes on where it stopped, and begins a failed job anew.
    #[serde(default)]
    pub suspend: bool,
    /// How often a driver that failed is started again. One that ends with code 2 (a wrong statement or option) never is, and a drained node
    /// counts as no failure. A change counts from the next time on that the driver's Job is made.
    #[serde(default = "retries")]
    #[schemars(range(min = 0, max = 1000))]
    pub retries: i32,
    /// Seconds after which a driver that still runs is stopped and the job has failed; no limit if not given. A change counts as that of `retries`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,
    /// Seconds after which a complete or failed resource is removed, its driver's Job with it. The job's state stays. Kept if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// A streaming query: `baler stream`, as a Deployment of one pod.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "baler.dev",
    version = "v1alpha1",
    kind = "BalerStream",
    doc = "A streaming query of Baler: `baler stream` as a Deployment, which goes on where it stopped.",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "bs",
    category = "baler",
    validation = Rule::new("self.metadata.name.size() <= 50").message("the name is too long; take at most 50 characters"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "MB/s", type_ = "number", json_path = ".status.mbPerSecond"),
    printcolumn(name = "Ratio", type_ = "number", json_path = ".status.ratio"),
    printcolumn(name = "Lag", type_ = "string", json_path = ".status.lag"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("has(self.query) == has(oldSelf.query) && (!has(self.query) || self.query == oldSelf.query)").message("`query` cannot be changed"),
    validation = Rule::new("has(self.state) == has(oldSelf.state) && (!has(self.state) || self.state == oldSelf.state)").message("`state` cannot be changed")
)]
#[serde(rename_all = "camelCase")]
pub struct BalerStreamSpec {
    /// The statements; the last one is an INSERT from a KAFKA into a MONGODB or BSON table.
    pub sql: Sql,
    /// Name of the query in the state folder; the resource's name if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}$"))]
    pub query: Option<String>,
    /// Where and by what its driver works.
    #[serde(flatten)]
    pub driver: DriverSpec,
    /// Stops the driver. `false` again goes on where it stopped.
    #[serde(default)]
    pub suspend: bool,
    /// Time from the beginning of one micro-batch to that of the next.
    #[serde(default = "trigger")]
    #[schemars(regex(pattern = r"^[1-9][0-9]*(ms|s|m|h)$"))]
    pub trigger: String,
}

/// What drivers of jobs and of queries have in common.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriverSpec {
    /// Folder or bucket with the state of all jobs and queries; the operator's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub state: Option<String>,
    /// Values for `${KEY}` in the statements. No secrets: those come from the environment of the pod template.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub set: BTreeMap<String, String>,
    /// The scheduler of the fleet that does the work, df://host:50050 or dfs:// for TLS; the operator's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub scheduler: Option<String>,
    /// The PodTemplate of this namespace from which the driver's pod is made.
    #[serde(default = "pod_template")]
    #[schemars(length(min = 1, max = 253))]
    pub pod_template: String,
}

fn pod_template() -> String {
    "baler-driver".to_string()
}

/// As Kubernetes' own Jobs.
fn retries() -> i32 {
    6
}

fn trigger() -> String {
    "30s".to_string()
}

/// Where the statements are.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("[has(self.inline), has(self.configMap), has(self.file)].filter(given, given).size() == 1").message("give exactly one of `inline`, `configMap` and `file`")
)]
#[serde(rename_all = "camelCase")]
pub struct Sql {
    /// The statements themselves; the operator keeps them in a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 262_144))]
    pub inline: Option<String>,
    /// A ConfigMap of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<SqlKey>,
    /// A file of the image, such as /usr/share/baler/sql/compress.sql.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^/.{1,999}$"))]
    pub file: Option<String>,
}

/// One key of a ConfigMap.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SqlKey {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// The types of both resources, for the API server.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [BalerJob::crd(), BalerStream::crd()]
}

/// The same as YAML: what is applied to a cluster before the operator starts.
///
/// # Errors
/// Internal, when they do not encode.
pub fn definitions_yaml() -> Result<String> {
    let mut text = String::from("# The types of BalerJob and BalerStream, as `baler operator --print-types` writes them.\n");
    for definition in definitions() {
        let yaml = serde_saphyr::to_string(&definition).map_err(|e| Error::internal("a resource type does not encode").with_source(e))?;
        text.push_str("---\n");
        text.push_str(&yaml);
    }
    Ok(text)
}
