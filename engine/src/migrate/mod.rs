//! From Spark: a SparkApplication → the resource of the same work, and every setting with its counterpart.
//!
//! | place | holds |
//! | --- | --- |
//! | this file | the resource, out of what is in the application |
//! | [`settings`] | the table of settings |
//! | [`submit`] | what `spark-submit`'s habits are here |
//!
//! A program in Python or Scala is not converted: the statement is that of the pipeline, `sql/compress-to-mongodb.sql` or `sql/stream.sql`, with the
//! options which the application sets.

pub mod settings;
pub mod submit;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kube::core::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

use self::settings::{Counterpart, Table, counterpart, is_secret};
use crate::error::{Error, Result};
use crate::operator::resource::{BalerJob, BalerJobSpec, BalerStream, BalerStreamSpec, DriverSpec, Sql};

/// What became of one setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its path in the application: `spec.executor.instances`.
    pub setting: String,
    /// Its value; that of a secret is hidden.
    pub value: String,
    /// `in the resource`, `to be set elsewhere`, `not needed` or `without counterpart`.
    pub fate: &'static str,
    /// Its counterpart, or what is instead.
    pub counterpart: String,
}

/// One converted application.
#[derive(Debug, Clone, Serialize)]
pub struct Converted {
    /// `BalerJob` or `BalerStream`.
    pub kind: &'static str,
    /// Name of the resource.
    pub name: String,
    /// Its statement.
    pub sql: String,
    /// Values of the statement's variables which the application tells.
    pub set: BTreeMap<String, String>,
    /// The resource, as YAML.
    pub resource: String,
    /// Every setting of the application, in its order.
    pub findings: Vec<Finding>,
}

/// Converts every SparkApplication of a YAML text; a text with `sparkConf` alone is one without a name.
///
/// # Errors
/// Config, when the text is no YAML or holds no application.
pub fn convert(text: &str) -> Result<Vec<Converted>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|e| Error::config(format!("the file is no YAML: {}", e.to_string().replace('\n', " "))))?;
    let mut converted = Vec::new();
    for document in &documents {
        let kind = document["kind"].as_str().unwrap_or_default();
        match kind {
            "SparkApplication" => converted.push(Application::read(document)?.convert()?),
            // The template of what is made at each time; when is another matter.
            "ScheduledSparkApplication" => {
                let mut whole = document.clone();
                let schedule = whole["spec"]["schedule"].take();
                whole["spec"] = whole["spec"]["template"].take();
                whole["spec"]["schedule"] = schedule;
                converted.push(Application::read(&whole)?.convert()?);
            }
            "" if document.get("sparkConf").is_some() => {
                converted.push(Application::read(&serde_json::json!({ "spec": document }))?.convert()?);
            }
            _ => {}
        }
    }
    if converted.is_empty() {
        let kinds: Vec<_> = documents.iter().filter_map(|document| document["kind"].as_str()).collect();
        let found = if kinds.is_empty() { "nothing with a kind".to_string() } else { kinds.join(", ") };
        return Err(Error::config(format!("the file holds no SparkApplication ({found}); only such are converted")));
    }
    Ok(converted)
}

/// An application as its settings.
struct Application {
    name: String,
    namespace: Option<String>,
    labels: BTreeMap<String, String>,
    settings: Vec<(String, String)>,
    arguments: Vec<String>,
}

impl Application {
    fn read(document: &Value) -> Result<Self> {
        let mut settings = Vec::new();
        flatten("", document, &mut settings);
        let (arguments, settings): (Vec<_>, Vec<_>) = settings.into_iter().partition(|(path, _)| path.starts_with("spec.arguments."));
        let arguments = arguments.into_iter().map(|(_, value)| value).collect();
        let get = |wanted: &str| settings.iter().find(|(path, _)| path == wanted).map(|(_, value)| value.clone());
        let name = get("metadata.name").or_else(|| get("spec.sparkConf.spark.app.name")).unwrap_or_else(|| "converted".to_string());
        let namespace = get("metadata.namespace").or_else(|| get("spec.sparkConf.spark.kubernetes.namespace"));
        let labels = settings.iter().filter_map(|(path, value)| Some((path.strip_prefix("metadata.labels.")?.to_string(), value.clone())));
        if settings.is_empty() {
            return Err(Error::config("the application has no settings"));
        }
        Ok(Self { name, namespace, labels: labels.collect(), arguments, settings })
    }

    /// The value of a setting of `sparkConf`, or of another path.
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.settings.iter().find(|(path, _)| path.strip_prefix("spec.sparkConf.").unwrap_or(path) == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether it reads a feed: its settings, arguments or name say so.
    fn is_stream(&self) -> bool {
        let says = |text: &str| text.to_ascii_lowercase().contains("stream") || text.contains("kafka");
        let is_setting = |path: &str| path.contains("spark.streaming.") || path.contains("spark.sql.streaming.");
        says(&self.name)
            || self.get("spec.mainApplicationFile").is_some_and(says)
            || self.get("spec.mainClass").is_some_and(says)
            || self.arguments.iter().any(|argument| says(argument))
            || self.settings.iter().any(|(path, _)| is_setting(path))
    }

    fn convert(&self) -> Result<Converted> {
        let is_stream = self.is_stream();
        let mut findings = Vec::new();
        let (mut source, mut sink) = (Vec::new(), Vec::new());
        for (path, value) in &self.settings {
            let mut found = counterpart(path);
            // A setting of the other kind of job sets nothing here.
            if let Some(Counterpart::Option(Table::Source, option)) = found
                && option.starts_with("kafka.") != is_stream
            {
                found = Some(Counterpart::Needless("it is for the other kind of source"));
            }
            if let Some(Counterpart::Option(table, option)) = found {
                let options = if table == Table::Source { &mut source } else { &mut sink };
                options.push((option, option_value(option, value)));
            }
            let found = found.unwrap_or(Counterpart::Nothing("the table of settings does not know it"));
            let value = if is_secret(path) { "…".to_string() } else { without_login(value) };
            findings.push(Finding { counterpart: found.text(&value), setting: path.clone(), value, fate: found.heading() });
        }
        let (set, unread) = self.places(is_stream);
        for argument in unread {
            let value = if is_secret(&argument) { "…".to_string() } else { without_login(&argument) };
            findings.push(Finding {
                setting: "spec.arguments".to_string(),
                value,
                fate: Counterpart::Nothing("").heading(),
                counterpart: "an argument of the program, which is not converted".to_string(),
            });
        }
        let sql = statement(is_stream, &source, &sink)?;
        let resource = self.resource(is_stream, Sql { inline: Some(sql.clone()), ..Sql::default() }, set.clone())?;
        let kind = if is_stream { "BalerStream" } else { "BalerJob" };
        Ok(Converted { kind, name: resource_name(&self.name), sql, set, resource, findings })
    }

    /// Values of `INPUT` and `OUTPUT`, as far as settings and arguments tell them; and the arguments which tell nothing.
    fn places(&self, is_stream: bool) -> (BTreeMap<String, String>, Vec<String>) {
        let (mut set, mut unread) = (BTreeMap::new(), Vec::new());
        let (mut brokers, mut topic) = (None, None);
        let mut words = self.arguments.iter().peekable();
        while let Some(word) = words.next() {
            let (flag, attached) = match word.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value.to_string())),
                _ => (word.as_str(), None),
            };
            let is_flag = flag.starts_with("--");
            let value =
                attached.or_else(|| if is_flag { words.next_if(|next| !next.starts_with("--")).cloned() } else { Some(word.clone()) });
            let Some(value) = value else {
                unread.push(word.clone());
                continue;
            };
            let flag = flag.to_ascii_lowercase();
            if value.starts_with("mongodb") {
                set.insert("OUTPUT".to_string(), without_login(&value));
            } else if let Some(path) = value.strip_prefix("s3a://").or_else(|| value.strip_prefix("s3://"))
                && !flag.contains("checkpoint")
            {
                set.insert("INPUT".to_string(), format!("s3://{path}"));
            } else if is_stream && is_flag && (flag.contains("bootstrap") || flag.contains("broker")) {
                brokers = Some(value);
            } else if is_stream && is_flag && flag.contains("topic") {
                topic = Some(value);
            } else {
                unread.push(if is_flag { format!("{flag} {value}") } else { value });
            }
        }
        let uri = self.get("spark.mongodb.write.connection.uri").or_else(|| self.get("spark.mongodb.output.uri"));
        if let Some(uri) = uri {
            set.insert("OUTPUT".to_string(), self.location(uri));
        }
        if let (Some(brokers), Some(topic)) = (brokers, topic) {
            set.insert("INPUT".to_string(), format!("kafka://{brokers}/{topic}"));
        }
        (set, unread)
    }

    /// A connection string with its namespace, without its login.
    fn location(&self, uri: &str) -> String {
        let uri = without_login(uri);
        let (before, options) =
            uri.split_once('?').map_or((uri.as_str(), String::new()), |(before, options)| (before, format!("?{options}")));
        let (scheme, rest) = before.split_once("://").unwrap_or(("mongodb", before));
        let (hosts, namespace) = rest.split_once('/').unwrap_or((rest, ""));
        let (database, collection) = namespace.split_once('.').unwrap_or((namespace, ""));
        let or = |given: &str, setting: &str, default: &str| {
            if given.is_empty() { self.get(setting).unwrap_or(default).to_string() } else { given.to_string() }
        };
        let database = or(database, "spark.mongodb.write.database", "compressed_data");
        let collection = or(collection, "spark.mongodb.write.collection", "documents");
        format!("{scheme}://{hosts}/{database}.{collection}{options}")
    }

    fn resource(&self, is_stream: bool, sql: Sql, set: BTreeMap<String, String>) -> Result<String> {
        let number = |setting: &str| self.get(setting).and_then(|value| value.parse().ok());
        let state = self.get("spark.sql.streaming.checkpointLocation").map(|place| place.replacen("s3a://", "s3://", 1));
        let scheduler = self.get("spark.master").filter(|master| master.starts_with("df://")).map(str::to_string);
        let metadata = |made: ObjectMeta| ObjectMeta {
            namespace: self.namespace.clone(),
            labels: (!self.labels.is_empty()).then(|| self.labels.clone()),
            ..made
        };
        let driver = DriverSpec { state, set, scheduler, pod_template: "baler-driver".to_string() };
        let failed = |e: serde_saphyr::ser::Error| Error::internal("a resource does not encode").with_source(e);
        if is_stream {
            let spec = BalerStreamSpec { sql, query: None, driver, suspend: false, trigger: "30s".to_string() };
            let mut stream = BalerStream::new(&resource_name(&self.name), spec);
            stream.metadata = metadata(std::mem::take(&mut stream.metadata));
            return serde_saphyr::to_string(&stream).map_err(failed);
        }
        let retries = number("spec.restartPolicy.onFailureRetries").or_else(|| number("spec.restartPolicy.onSubmissionFailureRetries"));
        let spec = BalerJobSpec {
            sql,
            job: None,
            driver,
            suspend: false,
            retries: retries.unwrap_or(6) as i32,
            active_deadline_seconds: None,
            ttl_seconds_after_finished: number("spec.timeToLiveSeconds"),
        };
        let mut job = BalerJob::new(&resource_name(&self.name), spec);
        job.metadata = metadata(std::mem::take(&mut job.metadata));
        serde_saphyr::to_string(&job).map_err(failed)
    }
}

/// Names of resources are those of a host, at most 50 letters.
fn resource_name(name: &str) -> String {
    let plain: String = name.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let short: String = plain.trim_matches('-').chars().take(50).collect();
    short.trim_end_matches('-').to_string()
}

/// Every scalar by its path. Keys of `sparkConf` keep their dots: no other key has any.
fn flatten(path: &str, value: &Value, out: &mut Vec<(String, String)>) {
    let below = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| flatten(&below(key), value, out)),
        Value::Array(items) => items.iter().enumerate().for_each(|(at, value)| flatten(&below(&at.to_string()), value, out)),
        Value::Null => {}
        Value::String(text) => out.push((path.to_string(), text.clone())),
        other => out.push((path.to_string(), other.to_string())),
    }
}

/// A connection string without user and password.
fn without_login(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_string() };
    let hosts_end = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest[..hosts_end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => text.to_string(),
    }
}

/// Spark's value of an option as ours: sizes of Spark without a unit are bytes, and `128m` reads the same in both.
fn option_value(option: &str, value: &str) -> String {
    if option == "mongodb.write_concern" { value.trim_matches('"').to_string() } else { value.to_string() }
}

/// The statement of the pipeline with these options of its tables.
fn statement(is_stream: bool, source: &[(&'static str, String)], sink: &[(&'static str, String)]) -> Result<String> {
    let (file, source_table) = match is_stream {
        true => (include_str!("../../../sql/stream.sql"), "feed STORED AS KAFKA"),
        false => (include_str!("../../../sql/compress-to-mongodb.sql"), "objects STORED AS BLOB"),
    };
    let (_, insert) = file.split_once("INSERT INTO").ok_or_else(|| Error::internal("a statement of the pipeline has no INSERT"))?;
    let options = |defaults: &[(&'static str, &str)], given: &[(&'static str, String)]| {
        let mut all: BTreeMap<&str, String> = defaults.iter().map(|(option, value)| (*option, (*value).to_string())).collect();
        all.extend(given.iter().map(|(option, value)| (*option, value.clone())));
        let words: Vec<_> = all.into_iter().map(|(option, value)| format!("'{option}' '{}'", value.replace('\'', "''"))).collect();
        if words.is_empty() { String::new() } else { format!("\nOPTIONS ({})", words.join(", ")) }
    };
    let mut text = String::new();
    let written = writeln!(
        text,
        "CREATE EXTERNAL TABLE {source_table} LOCATION '${{INPUT}}'{};\n\nCREATE EXTERNAL TABLE documents STORED AS MONGODB LOCATION '${{OUTPUT}}'{};\n\nINSERT INTO{}",
        options(&[], source),
        options(&[("mongodb.indexes", "compression_ratio, timestamp")], sink),
        insert.trim_end()
    );
    written.map_err(|e| Error::internal("a statement cannot be written").with_source(e))?;
    Ok(text)
}

#[cfg(test)]
mod tests;
