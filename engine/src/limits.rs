//! All bounds of queues, caches, messages, requests and files, for the reference. Names and values are those of the constants themselves.

use std::time::Duration;

use crate::connector::{blob, bson, document, kafka, mongodb, queue, stored};
use crate::function::inflate;
use crate::job::{folder, restore, run, summary, verify, waves};
use crate::options::format_bytes;
use crate::stream::history;
use crate::trust::{access, guard, limit, listen, oidc, serve};
use crate::{advise, cluster, generate, object_writer, operator, retry, runtime, store, web};

/// One bound.
#[derive(Debug)]
pub(crate) struct Limit {
    /// The constant.
    pub(crate) name: String,
    /// Its value, for people.
    pub(crate) value: String,
    /// What it bounds, and what happens there.
    pub(crate) what: &'static str,
}

/// A number of bytes.
fn bytes(value: impl TryInto<u64>) -> String {
    format_bytes(value.try_into().unwrap_or(u64::MAX)).replace(".0 ", " ")
}

/// A number of things.
fn count(value: impl ToString) -> String {
    value.to_string()
}

/// A time.
fn time(value: Duration) -> String {
    let seconds = value.as_secs();
    if seconds >= 120 && seconds.is_multiple_of(60) { format!("{} min", seconds / 60) } else { format!("{seconds} s") }
}

macro_rules! limits {
    ($($show:ident($($part:ident)::+), $what:literal;)*) => {
        vec![$(Limit { name: stringify!($($part)::+).replace(' ', ""), value: $show($($part)::+), what: $what }),*]
    };
}

/// All of them.
pub(crate) fn all() -> Vec<Limit> {
    limits! {
        count(limit::REQUESTS_PER_SECOND), "Requests of one caller to a server in a second, on average; `--requests-per-second`. Else 429 or RESOURCE_EXHAUSTED.";
        count(limit::BURST_SECONDS), "Seconds whose requests may come at once.";
        count(limit::REQUESTS_IN_FLIGHT), "Requests of one caller under way at a server. Else 429 or RESOURCE_EXHAUSTED.";
        count(limit::CALLERS_MAX), "Callers whose requests a server counts. Beyond them, new ones wait.";
        bytes(guard::BODY_BYTES_MAX), "Body of a request which is none of gRPC. Else 413.";
        bytes(cluster::defaults::MESSAGE_BYTES_MAX), "Message of gRPC and Flight: a plan, a batch of a result; `--grpc-server-max-decoding-message-size`. Else OUT_OF_RANGE.";
        count(serve::CONNECTIONS_MAX), "Connections of a server at once. Others wait.";
        time(serve::HEAD_TIMEOUT), "From the beginning of a connection to its first request, and between two of HTTP/1.1. Then it is closed.";
        time(serve::IDLE_MAX), "Time of a connection of HTTP/2 without a new request. Then its client is asked to open another.";
        count(listen::HANDSHAKES_MAX), "TLS handshakes under way at a listener. Others wait.";
        time(listen::HANDSHAKE_TIMEOUT), "A TLS handshake. Then the connection is closed.";
        time(cluster::scheduler::SILENCE_MAX), "Silence of a connection to the scheduler, after which it is probed.";
        count(access::SESSIONS_MAX), "Sessions whose tokens a server knows. The oldest is forgotten.";
        time(access::SESSION_IDLE_MAX), "Idleness of such a session.";
        time(oidc::KEYS_AGE_MAX), "Age of the keys of an issuer of tokens. Then they are fetched anew.";
        time(oidc::KEYS_STALE_MAX), "Age of those keys while the issuer cannot be asked. Then no token of it is valid.";
        time(oidc::KEYS_ASKED_EVERY), "Time between two questions for them.";
        time(oidc::PROVIDER_TIMEOUT), "Such a question.";
        bytes(oidc::ANSWER_BYTES_MAX), "An answer of the issuer. A larger one is refused.";
        time(oidc::CLOCK_SKEW_MAX), "Difference between the clocks of issuer and server.";
        count(cluster::flight_sql::session::SESSIONS_MAX), "Sessions of Flight SQL. The one that was not used for the longest is dropped.";
        count(cluster::flight_sql::session::PREPARED_MAX), "Prepared statements of a session; as above.";
        count(cluster::flight_sql::session::RESULTS_MAX), "Results of the catalog in a session which wait to be fetched; as above.";
        time(cluster::flight_sql::session::IDLE_MAX), "Idleness of sessions, prepared statements and results.";
        count(cluster::flight_sql::run::STATUSES_WAITING_MAX), "Statuses of a job which wait for the statement that began it.";
        bytes(cluster::flight_sql::encode::ERROR_BYTES_MAX), "Text of an error to a driver. The rest is cut off.";
        count(cluster::scheduler::VERSIONS_MAX), "Executors whose versions a scheduler remembers.";
        count(cluster::workers::PARTS_MAX), "Ballista jobs which the dashboard shows of one job.";
        count(cluster::workers::ENDED_MAX), "Of those, ended ones which are kept as they were seen.";
        count(web::board::DETAILS_MAX), "Jobs whose receipts the dashboard keeps.";
        count(web::board::READS_IN_FLIGHT), "State folders which the dashboard reads at once.";
        bytes(runtime::STACK_BYTES), "Stack of a thread which plans or decodes a query.";
        bytes(runtime::CORE_BYTES), "Core file of a process: none is made.";
        count(waves::TASKS_MAX), "Tasks of one wave.";
        bytes(waves::TASK_BYTES_MAX), "Input of one task.";
        count(waves::FAILURES_MAX), "Failures of waves in a row without a receipt. Then the job fails.";
        time(waves::FLEET_PATIENCE), "Absence of the fleet without a receipt. Then the job fails.";
        count(run::PLAN_SPLITS_MAX), "Splits of one plan of a job in one process. More are read by one plan after the other.";
        count(run::RECEIPTS_AT_ONCE_MAX), "Receipts in memory while a job is committed.";
        count(folder::READS_IN_FLIGHT), "Files of a state folder which are read at once.";
        count(summary::READS_IN_FLIGHT), "State folders which `baler jobs list` reads at once.";
        time(summary::LAG_TIMEOUT), "Wait for brokers in that list. Then it has no lag.";
        count(verify::FINDINGS_MAX), "Findings of `baler verify` which are kept in words. The counts go on.";
        count(restore::content::GROUPS_AHEAD), "Groups of documents which `baler restore` inflates ahead.";
        count(restore::content::SPLITS_AHEAD), "Splits which it reads ahead.";
        count(history::READS_IN_FLIGHT), "Micro-batches whose files are read at once.";
        count(history::READS_MAX), "Beginnings of such a reading, which a driver folded away.";
        bytes(blob::CHUNK_BYTES_MAX), "Chunk of an object; `blob.chunk_size`. A longer line is cut.";
        count(blob::read::BLOCKS_AHEAD), "Blocks which wait between reader, decoder and chunks.";
        count(blob::read::RANGES_IN_FLIGHT), "Ranges of one split which are requested at once.";
        count(blob::list::PEEKS_IN_FLIGHT), "Objects whose first bytes are requested at once.";
        bytes(blob::buffer::IDLE_BYTES_MAX), "Blocks which wait to be used again. Others are freed.";
        bytes(kafka::spec::CHUNK_BYTES_MAX), "Chunk of a topic; `kafka.chunk_size`.";
        bytes(kafka::pack::RECORD_BYTES_MAX), "Record of a topic. A larger one fails its split, or is a dead letter.";
        count(kafka::read::BATCHES_AHEAD), "Batches between a topic's reader and the plan.";
        count(kafka::client::IDLE_MAX), "Idle consumers of one kind.";
        count(kafka::client::IDLE_KINDS_MAX), "Kinds of idle consumers.";
        count(kafka::client::COMPLAINTS_MAX), "Complaints of a client which are kept for its error.";
        count(kafka::client::EVENTS_MAX), "Events which are looked at for a refused login.";
        bytes(document::DOCUMENT_BYTES_MAX), "Document. A larger one fails its split, or is a dead letter.";
        count(document::types::NESTING_LEVELS_MAX), "Levels of a document. Deeper columns are refused when they are planned.";
        count(document::types::DECIMAL_DIGITS_MAX), "Digits of a decimal.";
        bytes(bson::read::DOCUMENT_BYTES_MAX), "Document in a dump which is read. A larger one means a corrupt file.";
        bytes(mongodb::MESSAGE_BYTES_MAX), "Message to MongoDB; `mongodb.batch_bytes` stays below.";
        count(mongodb::client::CLIENTS_MAX), "Clients of MongoDB which are kept.";
        count(queue::OPEN_ITEMS_MAX), "Splits which a partition has open at once.";
        bytes(queue::OPEN_BYTES_MAX), "Their bytes, if they are several.";
        count(stored::DOCUMENTS_AHEAD), "Documents which are read ahead of their reader.";
        bytes(inflate::DECOMPRESSED_BYTES_MAX), "What one value may inflate to in SQL, where a call names no limit. Then the query fails.";
        bytes(inflate::RESERVED_BYTES_MAX), "Memory which is reserved for a value before it has inflated to anything.";
        count(store::STORES_MAX), "Buckets whose clients are kept.";
        time(store::REQUEST_TIMEOUT), "A request to an object store. Then it is tried again.";
        count(store::RETRIES_MAX), "Repetitions of a request to an object store.";
        time(store::RETRY_TIMEOUT), "Time of all of them. Then the split fails.";
        count(object_writer::PARTS_MAX), "Parts of one upload. Larger objects have larger parts.";
        count(object_writer::PARTS_IN_FLIGHT), "Parts on their way at once.";
        time(retry::RETRY_TIMEOUT), "Time of all attempts at a write to a sink or a state folder. Then the split fails.";
        time(retry::PAUSE_MAX), "Pause between two attempts.";
        count(advise::sample::PLACES_MAX), "Places at which `baler advise` reads.";
        count(generate::BLOCKS_IN_FLIGHT), "Blocks of sample data between their maker and the upload.";
        count(generate::PARTS_IN_FLIGHT), "Parts of an object of sample data on their way.";
        count(operator::PAGE), "Resources in one answer of Kubernetes to the operator.";
        count(operator::LOOKS_WAITING_MAX), "Requests to look at all resources which wait.";
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Bounds of nothing that waits, is kept or comes from outside: what is shown on a screen, numbers of formats, one function's own steps.
    const OTHERS: [&str; 9] = [
        "NAMED_MAX",
        "DETAIL_MAX",
        "LENGTH_MAX",
        "NAME_CHARS_MAX",
        "CANCEL_LOOKS_MAX",
        "EXPONENT_MAX",
        "EXACT_SUM_MAX",
        "COEFFICIENT_MAX",
        "CLOCK_SECONDS_MAX",
    ];

    fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() && path.file_name().unwrap() != "tests" {
                sources(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") && path.file_stem().unwrap() != "tests" {
                found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }

    #[test]
    fn every_bound_in_the_code_is_in_the_table() {
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        let limits = all();
        let mut seen = 0;
        for (file, text) in &files {
            let module = Path::new(file).file_stem().unwrap().to_str().unwrap();
            let folder = Path::new(file).parent().unwrap().file_name().unwrap().to_str().unwrap();
            let module = if module == "mod" { folder } else { module };
            let code = text.split("#[cfg(test)]").next().unwrap();
            for line in code.lines() {
                let Some((_, rest)) = line.split_once("const ") else { continue };
                let Some((name, _)) = rest.split_once(':') else { continue };
                let is_bound = ["_MAX", "_IN_FLIGHT", "_AHEAD"].iter().any(|end| name.ends_with(end)) && !OTHERS.contains(&name);
                if !is_bound {
                    continue;
                }
                seen += 1;
                // A constant may be known by its module or, where that is private, by the one above.
                let is_told = limits.iter().any(|limit| {
                    let parts: Vec<&str> = limit.name.rsplit("::").collect();
                    parts[0] == name && (parts[1] == module || parts[1] == folder)
                });
                assert!(is_told, "{name} of {file} is in no line of engine/src/limits.rs");
            }
            let literal = |after: &str| after.starts_with(|c: char| c.is_ascii_digit());
            let unnamed = code.split("mpsc::channel(").skip(1).find(|after| literal(after));
            assert!(unnamed.is_none(), "a queue of {file} has a bound without a name");
        }
        assert!(seen > 40, "{seen} bounds were found: the test looks for the wrong words");
    }

    #[test]
    fn values_are_for_people() {
        assert_eq!([bytes(16_u64 << 20), bytes(48_000_000_u64)], ["16 MiB", "45.8 MiB"]);
        assert_eq!([time(Duration::from_secs(90)), time(Duration::from_secs(1800))], ["90 s", "30 min"]);
        assert!(all().iter().all(|limit| limit.what.ends_with('.') && !limit.name.contains(' ')));
    }
}
