//! Pods as the API server stored them, and their commands run as a kubelet would: same arguments, same environment, same files.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::decode;
use crate::servers::Scratch;

/// An object's kind and name.
pub fn title(object: &Value) -> String {
    format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The object of that kind and name.
///
/// # Panics
/// When there is none.
#[track_caller]
pub fn find<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    objects.iter().find(|object| title(object) == name).unwrap_or_else(|| panic!("there is no {name}"))
}

/// The pod which a Deployment, StatefulSet, Job or PodTemplate makes, as an object of its own; `None` for other kinds.
pub fn pod(object: &Value) -> Option<Value> {
    let template = object.pointer("/spec/template").or_else(|| object.get("template"))?;
    let mut spec = template["spec"].clone();
    // A StatefulSet's controller adds these volumes to the pod.
    for claim in object.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array).into_iter().flatten() {
        let name = &claim["metadata"]["name"];
        let volume = json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
        spec["volumes"].as_array_mut()?.push(volume);
    }
    if text(&object["kind"]) == "Job" {
        spec["restartPolicy"] = template["spec"]["restartPolicy"].clone();
    }
    let name = format!("{}-0", text(&object["metadata"]["name"]));
    let metadata = json!({"name": name, "namespace": object["metadata"]["namespace"], "labels": template["metadata"]["labels"]});
    Some(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}

/// How many pods the object asks for.
pub fn replicas(object: &Value) -> u64 {
    object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1)
}

/// A quantity such as `250m`, `2Gi` or `4`, in its base unit.
///
/// # Panics
/// When it has another suffix.
pub fn quantity(value: &Value) -> f64 {
    let text = value.as_str().unwrap_or("0");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1.0,
        "m" => 1e-3,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        other => panic!("the tests do not know the unit {other}"),
    };
    digits.parse::<f64>().unwrap_or_else(|e| panic!("`{text}` is no quantity: {e}")) * factor
}

/// One container's command on this machine.
#[derive(Debug)]
pub struct Local {
    /// The arguments after the image's entry point, with the places of mounted files replaced by the test's.
    pub arguments: Vec<String>,
    /// Its environment, with the same replacement.
    pub variables: Vec<(String, String)>,
}

/// Brings the only container of a pod to this machine. ConfigMaps and Secrets are looked up in `objects`; `files` stand for what is mounted and
/// not among them, by mount path; `values` replace variables' values, which must be there.
///
/// # Panics
/// When the pod names something that is nowhere.
pub fn localize(pod: &Value, objects: &[Value], scratch: &Scratch, files: &[(&str, String)], values: &[(&str, String)]) -> Local {
    let container = &pod["spec"]["containers"][0];
    let mut places: Vec<(String, String)> = files.iter().map(|(path, place)| ((*path).to_string(), place.clone())).collect();
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        let path = text(&mount["mountPath"]).to_string();
        if places.iter().any(|(other, _)| other.starts_with(&path)) {
            continue;
        }
        // Pods have other Secrets at the same path.
        let folder = scratch.join(&format!("mounts-{}{}", text(&pod["metadata"]["name"]), path.replace('/', "-")));
        fs::create_dir_all(&folder).expect("cannot make a folder");
        let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap_or_else(|| panic!("{path} has no volume"));
        if let Some(map) = volume["configMap"]["name"].as_str() {
            for (name, content) in find(objects, &format!("ConfigMap/{map}"))["data"].as_object().expect("data") {
                fs::write(folder.join(name), text(content)).expect("cannot write a file");
            }
        } else if let Some(secret) = volume["secret"]["secretName"].as_str() {
            for (name, content) in find(objects, &format!("Secret/{secret}"))["data"].as_object().expect("data") {
                fs::write(folder.join(name), decode(text(content))).expect("cannot write a file");
            }
        } else {
            assert!(volume.get("emptyDir").is_some(), "the test gives nothing for {path}");
        }
        places.push((path, folder.display().to_string()));
    }
    let local = |value: &str| match places.iter().find(|(path, _)| value.contains(path.as_str())) {
        Some((path, place)) => value.replace(path, place),
        None => value.to_string(),
    };
    let mut variables = BTreeMap::new();
    for source in container["envFrom"].as_array().into_iter().flatten() {
        if let Some(map) = source["configMapRef"]["name"].as_str() {
            for (name, value) in find(objects, &format!("ConfigMap/{map}"))["data"].as_object().expect("data") {
                variables.insert(name.clone(), local(text(value)));
            }
        }
        if let Some(secret) = source["secretRef"]["name"].as_str() {
            // Their values are the servers' of the test, under the same keys.
            for name in find(objects, &format!("Secret/{secret}"))["data"].as_object().expect("data").keys() {
                variables.insert(name.clone(), String::new());
            }
        }
    }
    for variable in container["env"].as_array().into_iter().flatten() {
        variables.insert(text(&variable["name"]).to_string(), local(text(&variable["value"])));
    }
    for (name, value) in values {
        assert!(variables.insert((*name).to_string(), value.clone()).is_some(), "the pod has no variable {name}");
    }
    let arguments = container["args"].as_array().into_iter().flatten().map(|argument| local(text(argument))).collect();
    Local { arguments, variables: variables.into_iter().collect() }
}
