//! `docs/reference.md`: commands, options of tables and metrics, as the code has them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use clap::{Arg, Command};

use crate::connector::{blob, bson, kafka, mongodb};
use crate::error::{Error, Result};
use crate::limits::{self, Limit};
use crate::options::{KnownOption, TableOptions};
use crate::telemetry::COUNTERS;
use crate::telemetry::text::Text;

/// Families which not every process has from its beginning: name, kind, who has it, help.
const MORE_FAMILIES: &[(&str, &str, &str, &str)] = &[
    ("baler_ballista_jobs", "gauge", "scheduler", "Ballista's jobs which run or wait: a job of Baler is several, one a wave."),
    ("baler_certificate_expires_seconds", "gauge", "all", "When the first certificate of a file ends, in seconds since 1970."),
    ("baler_disk_free_bytes", "gauge", "executor, driver", "Room which this process may still use on the disk of a folder of its own."),
    ("baler_disk_size_bytes", "gauge", "executor, driver", "Size of that disk."),
    ("baler_executor_running_tasks", "gauge", "executor", "Tasks which this executor runs now."),
    ("baler_executor_slots", "gauge", "executor", "Tasks which this executor runs at once."),
    ("baler_executors", "gauge", "scheduler", "Executors whose heartbeat is fresh."),
    ("baler_job_documents", "gauge", "driver", "Documents which the job has stored."),
    ("baler_job_read_bytes", "gauge", "driver", "Raw bytes which were read."),
    ("baler_job_source_bytes", "gauge", "driver", "Bytes of the job's input, as stored."),
    ("baler_job_source_bytes_before", "gauge", "driver", "Those of them which earlier attempts had done."),
    ("baler_job_splits", "gauge", "driver", "Splits of the job."),
    ("baler_job_splits_done", "gauge", "driver", "Splits with their receipt."),
    ("baler_job_stored_bytes", "gauge", "driver", "Bytes stored."),
    ("baler_operator_failures_total", "counter", "operator", "Looks which failed and are repeated."),
    ("baler_operator_is_leader", "gauge", "operator", "Whether this operator acts; the others wait."),
    ("baler_operator_reconciliations_total", "counter", "operator", "Looks at a resource."),
    ("baler_operator_resources", "gauge", "operator", "Resources by kind and phase."),
    ("baler_slots", "gauge", "scheduler", "Slots of all executors."),
    ("baler_stream_commit_age_seconds", "gauge", "driver of a stream", "Time since the last micro-batch was committed."),
    (
        "baler_stream_expiry_minutes",
        "gauge",
        "driver of a stream",
        "Minutes until the oldest record which is still needed may be removed by the topic's retention; 0 where some are gone.",
    ),
    ("baler_stream_lag_records", "gauge", "driver of a stream", "Offsets which are not committed."),
    (
        "baler_stream_lag_seconds",
        "gauge",
        "driver of a stream",
        "Time since the oldest record was produced which is not committed; 0 where nothing waits.",
    ),
    ("baler_stream_retention_seconds", "gauge", "driver of a stream", "How long the topic keeps its records."),
    ("baler_tasks_pending", "gauge", "scheduler", "Tasks which wait for a slot."),
    ("baler_tasks_running", "gauge", "scheduler", "Tasks which run."),
];

/// The whole page; `command` is the command line.
///
/// # Errors
/// Internal, when the code and its descriptions do not fit together.
pub fn markdown(mut command: Command) -> Result<String> {
    command.build();
    let mut text = String::from(
        "# Reference\n\nMade by `baler reference` of the code itself; a test holds this page against it.\n\n## Commands\n\n\
         Every flag may also be set by its variable; the flag comes first. `--help` behind a command says the same.\n",
    );
    add_flags(&mut text, &command);
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set() && subcommand.get_name() != "help") {
        add_command(&mut text, "baler", subcommand);
    }
    text.push_str("\n## Options of tables\n\n`CREATE EXTERNAL TABLE name STORED AS FORMAT LOCATION '…' OPTIONS ('key' 'value', …)`. An unknown option is refused.\n");
    for (title, format, known, texts) in table_options()? {
        add_options(&mut text, title, format, &known, texts)?;
    }
    add_metrics(&mut text);
    add_limits(&mut text);
    Ok(text)
}

fn add(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    text.write_fmt(line).unwrap_or_default();
    text.push('\n');
}

/// As one cell of a table: nothing outside of code is taken for HTML.
fn cell(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let parts = text.split('`').enumerate();
    parts.map(|(at, part)| if at % 2 == 0 { part.replace('<', "\\<") } else { part.to_string() }).collect::<Vec<_>>().join("`")
}

fn add_command(text: &mut String, before: &str, command: &Command) {
    let name = format!("{before} {}", command.get_name());
    let positionals: Vec<String> = command.get_positionals().map(|argument| argument.get_id().as_str().to_uppercase()).collect();
    let words = if positionals.is_empty() { String::new() } else { format!(" {}", positionals.join(" ")) };
    add(text, format_args!("\n### {name}{words}\n"));
    if let Some(about) = command.get_about() {
        add(text, format_args!("{about}"));
    }
    add_flags(text, command);
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set() && subcommand.get_name() != "help") {
        add_command(text, &name, subcommand);
    }
}

fn add_flags(text: &mut String, command: &Command) {
    // Flags of every command are told once, with the program itself.
    let is_elsewhere = |argument: &Arg| command.get_name() != "baler" && argument.is_global_set();
    let is_told = |argument: &&Arg| {
        let is_usual = matches!(argument.get_id().as_str(), "help" | "version");
        !argument.is_hide_set() && !is_usual && !is_elsewhere(argument)
    };
    let arguments: Vec<&Arg> = command.get_arguments().filter(is_told).collect();
    if arguments.is_empty() {
        return;
    }
    add(text, format_args!("\n| flag | default | variable | |\n| --- | --- | --- | --- |"));
    for argument in arguments {
        let flag = argument.get_long().map_or_else(|| argument.get_id().as_str().to_uppercase(), |long| format!("--{long}"));
        let code = |word: Option<String>| word.filter(|word| !word.is_empty()).map_or_else(String::new, |word| format!("`{word}`"));
        let defaults: Vec<String> = argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
        let is_switch = !argument.get_action().takes_values();
        let default = if is_switch { None } else { Some(defaults.join(" ")) };
        let variable = argument.get_env().map(|variable| variable.to_string_lossy().into_owned());
        let values: Vec<String> = match is_switch {
            true => Vec::new(),
            false => argument
                .get_possible_values()
                .iter()
                .filter(|value| !value.is_hide_set())
                .map(|value| format!("`{}`", value.get_name()))
                .collect(),
        };
        let values = if values.is_empty() { String::new() } else { format!(" One of {}.", values.join(", ")) };
        let help = argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string).unwrap_or_default();
        let help = help.trim_end().trim_end_matches('.').to_string() + ".";
        add(text, format_args!("| `{flag}` | {} | {} | {}{values} |", code(default), code(variable), cell(&help)));
    }
}

fn add_limits(text: &mut String) {
    text.push_str(
        "\n## Limits\n\nEvery queue, cache, message, request and file which has a bound, by the name of that bound in the code. Those which can be set are options \
         and flags above; here are their defaults.\n\n| limit | value | of what |\n| --- | --- | --- |\n",
    );
    for Limit { name, value, what } in limits::all() {
        add(text, format_args!("| `{name}` | {value} | {} |", cell(what)));
    }
}

/// Title, prefix, what is known, and its words.
pub(crate) type FormatOptions = (&'static str, &'static str, Vec<KnownOption>, &'static [(&'static str, &'static str)]);

/// The options of every format of ours.
///
/// # Errors
/// Internal, when a format does not take its own defaults.
pub(crate) fn table_options() -> Result<Vec<FormatOptions>> {
    let ask = |format: &'static str, read: &dyn Fn(&mut TableOptions) -> Result<()>| {
        let mut options = TableOptions::try_new(format, &HashMap::new())?;
        read(&mut options)?;
        Ok::<_, Error>(options.known().to_vec())
    };
    Ok(vec![
        ("BLOB", "blob", ask("blob", &|options| blob::BlobSpec::read("s3://bucket/", options).map(drop))?, blob::OPTION_TEXTS),
        (
            "KAFKA",
            "kafka",
            ask("kafka", &|options| kafka::KafkaSpec::read("kafka://host/topic", options).map(drop))?,
            kafka::spec::OPTION_TEXTS,
        ),
        (
            "MONGODB",
            "mongodb",
            ask("mongodb", &|options| mongodb::MongodbSpec::read("mongodb://host/a.b", options).map(drop))?,
            mongodb::OPTION_TEXTS,
        ),
        ("BSON", "bson", ask("bson", &|options| bson::BsonSpec::read("s3://bucket/", options).map(drop))?, bson::OPTION_TEXTS),
    ])
}

fn add_options(text: &mut String, title: &str, format: &str, known: &[KnownOption], texts: &[(&str, &str)]) -> Result<()> {
    add(text, format_args!("\n### {title}\n\n| option | default | values | |\n| --- | --- | --- | --- |"));
    for KnownOption { name, default, values } in known {
        let (_, what) = texts
            .iter()
            .find(|(known, _)| known == name)
            .ok_or_else(|| Error::internal(format!("option {format}.{name} has no description")))?;
        let default = if default.is_empty() { String::new() } else { format!("'{default}'") };
        add(text, format_args!("| `{format}.{name}` | {default} | {values} | {} |", cell(what)));
    }
    match texts.iter().find(|(name, _)| !known.iter().any(|option| option.name == *name)) {
        Some((name, _)) => Err(Error::internal(format!("{format}.{name} is described and is no option"))),
        None => Ok(()),
    }
}

fn add_metrics(text: &mut String) {
    let mut shown = Text::default();
    COUNTERS.write(&mut shown);
    let mut families: BTreeMap<String, (String, String, String)> = BTreeMap::new();
    for line in shown.as_str().lines() {
        let mut words = line.splitn(4, ' ').skip(1);
        let (Some(word), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else { continue };
        let family = families.entry(name.to_string()).or_default();
        match word {
            "HELP" => family.2 = rest.to_string(),
            "TYPE" => family.0 = rest.to_string(),
            _ => {}
        }
        family.1 = "all".to_string();
    }
    families.retain(|_, (kind, ..)| !kind.is_empty());
    let more = |(name, kind, place, help): &(&str, &str, &str, &str)| {
        ((*name).to_string(), ((*kind).to_string(), (*place).to_string(), (*help).to_string()))
    };
    families.extend(MORE_FAMILIES.iter().map(more));
    add(text, format_args!("\n## Metrics\n\nIn Prometheus' text, at `/metrics`.\n\n| family | kind | at | |\n| --- | --- | --- | --- |"));
    for (name, (kind, place, help)) in families {
        add(text, format_args!("| `{name}` | {kind} | {place} | {} |", cell(&help)));
    }
}
