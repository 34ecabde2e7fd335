//! One feed of a test: a topic, a sink, and the calls of `baler` which bring the one into the other.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use bson::Document;
use bson::spec::BinarySubtype;
use flate2::Crc;
use flate2::read::ZlibDecoder;
use serde_json::Value;

use crate::baler::{Baler, Finished};
use crate::dump_reader::Stored;
use crate::fleet::Fleet;
use crate::job::{Report, Sink, files, table};
use crate::mongo::Collection;
use crate::servers::Scratch;
use crate::topic::{Record, Records, Topic};

/// The INSERT of `sql/stream.sql`.
const INSERT: &str = "INSERT INTO documents
SELECT id AS _id, topic, partition, first_offset, last_offset, records, byte_length AS original_size, octet_length(data) AS compressed_size,
       compression_ratio(byte_length, octet_length(data)) AS compression_ratio, 'zlib' AS codec, 9 AS level, crc32(content) AS crc32,
       last_timestamp AS timestamp, data
FROM (SELECT *, zlib_compress(content, 9) AS data FROM feed);
";

/// A topic on its way into a sink. Its fields may be changed between runs.
#[derive(Debug)]
pub struct Feed<'a> {
    /// The topic.
    pub topic: Topic<'a>,
    /// Another port of the broker.
    pub port: Option<u16>,
    /// The name behind `--name` or `--job`.
    pub name: String,
    /// Where the documents go.
    pub sink: Sink<'a>,
    /// Options of the source, with the `kafka.` prefix.
    pub options: Vec<(&'static str, String)>,
    /// Options of the sink, with its prefix.
    pub sink_options: Vec<(&'static str, &'static str)>,
    /// The statement behind the two tables.
    pub insert: String,
    /// The environment of `baler`.
    pub variables: Vec<(String, String)>,
    /// What `--scheduler` says; without one the run is in its own process.
    pub scheduler: Option<String>,
    /// Another place for the state than the test's folder: a URL.
    pub state_url: Option<String>,
    /// A folder of the test's own: SQL file, dump, state.
    pub scratch: Scratch,
}

impl<'a> Feed<'a> {
    /// A feed into a local dump, with chunks of 16 KiB.
    pub fn new(topic: &Topic<'a>) -> Self {
        let scratch = Scratch::new();
        Self {
            topic: topic.clone(),
            port: None,
            name: "feed".to_string(),
            sink: Sink::Bson(scratch.join("dump")),
            options: vec![("kafka.chunk_size", "16KiB".to_string())],
            sink_options: Vec::new(),
            insert: INSERT.to_string(),
            variables: Vec::new(),
            scheduler: None,
            state_url: None,
            scratch,
        }
    }

    /// The same feed with its work on a fleet.
    #[must_use]
    pub fn on(mut self, fleet: &Fleet) -> Self {
        self.scheduler = Some(fleet.url());
        self
    }

    /// The same feed with its documents in a collection.
    #[must_use]
    pub fn into_collection(mut self, collection: Collection<'a>) -> Self {
        self.sink = Sink::Mongo(collection);
        self
    }

    /// The same feed with an option of the source.
    #[must_use]
    pub fn with(mut self, option: &'static str, value: impl ToString) -> Self {
        self.options.retain(|(known, _)| *known != option);
        self.options.push((option, value.to_string()));
        self
    }

    /// The statement which makes the table.
    pub fn source_table(&self) -> String {
        let options: Vec<_> = self.options.iter().map(|(key, value)| (*key, value.as_str())).collect();
        table("feed", "KAFKA", &self.topic.url_at(self.port), &options)
    }

    fn write_sql(&self) -> String {
        let file = self.scratch.join("feed.sql");
        fs::write(&file, self.source_table() + &self.sink.table(&self.sink_options) + &self.insert).expect("cannot write a SQL file");
        file.display().to_string()
    }

    fn call(&self, verb: &str, name_flag: &str, more: &[&str]) -> Baler {
        let (file, set) = (self.write_sql(), format!("OUTPUT={}", self.sink_location()));
        let state = self.state_location();
        let mut arguments = vec![verb, &file, name_flag, &self.name, "--state", &state, "--set", &set];
        arguments.extend(more);
        if let Some(scheduler) = &self.scheduler {
            arguments.extend(["--scheduler", scheduler]);
        }
        Baler::new(arguments).envs(&self.variables)
    }

    /// What `${OUTPUT}` becomes.
    pub fn sink_location(&self) -> String {
        self.sink.location()
    }

    /// The state folder, if it is the test's own.
    pub fn state(&self) -> PathBuf {
        self.scratch.join("state")
    }

    /// What `--state` says.
    pub fn state_location(&self) -> String {
        self.state_url.clone().unwrap_or_else(|| self.state().display().to_string())
    }

    /// `baler run`, ready to start: what the topic holds now.
    pub fn run_call(&self) -> Baler {
        self.call("run", "--job", &[])
    }

    /// `baler stream`, ready to start.
    pub fn stream_call(&self, more: &[&str]) -> Baler {
        self.call("stream", "--name", more)
    }

    /// `baler stream --available-now` to its end.
    #[track_caller]
    pub fn catch_up(&self) -> Finished {
        self.stream_call(&["--available-now"]).run().expect_code(0)
    }

    /// Has the query or job verified, and returns the report.
    #[track_caller]
    pub fn verify(&self, more: &[&str], code: i32) -> Report {
        let state = self.state_location();
        let mut arguments = vec!["verify", "--job", &self.name, "--state", &state, "--output", "json"];
        arguments.extend(more);
        Report::of(&Baler::new(arguments).envs(&self.variables).run().expect_code(code))
    }

    /// `baler restore --output json` of the query or job, ready to start, with `more` flags.
    pub fn restore_call(&self, to: &str, more: &[&str]) -> Baler {
        let state = self.state_location();
        let mut arguments = vec!["restore", "--job", &self.name, "--state", &state, "--to", to, "--output", "json"];
        arguments.extend(more);
        if let Some(scheduler) = &self.scheduler {
            arguments.extend(["--scheduler", scheduler]);
        }
        Baler::new(arguments).envs(&self.variables)
    }

    /// Restores the records, asserts success, and returns the report.
    #[track_caller]
    pub fn restore(&self, to: &str, more: &[&str]) -> Value {
        let finished = self.restore_call(to, more).run().expect_code(0);
        serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {}", finished.stdout))
    }

    /// `baler dead-letters <action> --output json` of the query or job.
    #[track_caller]
    pub fn dead_letters(&self, action: &str, code: i32) -> Value {
        let state = self.state_location();
        let arguments = ["dead-letters", action, "--job", &self.name, "--state", &state, "--output", "json"];
        let finished = Baler::new(arguments).envs(&self.variables).run().expect_code(code);
        serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {}", finished.stdout))
    }

    /// Batches with a file in this folder of the query's state: `offsets` or `commits`.
    pub fn batches(&self, folder: &str) -> usize {
        files(&self.state().join(&self.name).join(folder)).iter().filter(|path| path.extension().is_some_and(|e| e == "json")).count()
    }

    /// A query on the table alone, whose rows come as CSV with a header.
    #[track_caller]
    pub fn ask(&self, query: &str) -> String {
        let text = self.source_table() + query;
        let mut arguments = vec!["sql", "--format", "csv", "--command", &text];
        if let Some(scheduler) = &self.scheduler {
            arguments.extend(["--scheduler", scheduler]);
        }
        Baler::new(arguments).envs(&self.variables).run().expect_code(0).stdout
    }

    /// Asserts that exactly the values of the topic's committed records are stored, each once and in its place.
    #[track_caller]
    pub fn expect_all(&self) {
        self.expect_records(&self.topic.read());
    }

    /// Asserts that exactly the values of these records are stored, as [`expect_values`] does.
    #[track_caller]
    pub fn expect_records(&self, expected: &Records) {
        expect_values(&self.topic.name, expected, &self.sink.read());
    }
}

/// Asserts that exactly the values of these records of a topic are stored, each once and in its place, by code which shares nothing
/// with the engine.
///
/// # Panics
/// When not.
#[track_caller]
pub fn expect_values(topic: &str, expected: &Records, stored: &Stored) {
    let mut left: BTreeMap<(i32, i64), &Record> = expected.iter().map(|(place, record)| (*place, record)).collect();
    stored.ids();
    for document in &stored.documents {
        assert_eq!(document.get_str("topic"), Ok(topic));
        let partition = document.get_i32("partition").expect("a partition");
        let (first, last) = (number(document, "first_offset"), number(document, "last_offset"));
        let here: Vec<(i32, i64)> = left.range((partition, first)..=(partition, last)).map(|(place, _)| *place).collect();
        let lines = lines_of(&inflate(document));
        let place = format!("partition {partition} offsets {first}–{last}");
        assert!(here.first() == Some(&(partition, first)) && here.last() == Some(&(partition, last)), "{place}: not these records");
        assert_eq!((lines.len(), number(document, "records")), (here.len(), here.len() as i64), "{place}: another number of records");
        for (line, at) in lines.iter().zip(&here) {
            let record = left.remove(at).expect("it is there");
            assert!(record.value.as_deref().unwrap_or_default() == line, "{place}: another record at {at:?}");
        }
    }
    assert!(left.is_empty(), "{} of {} records are not stored, first {:?}", left.len(), expected.len(), left.keys().next());
}

fn number(document: &Document, field: &str) -> i64 {
    document.get_i64(field).or_else(|_| document.get_i32(field).map(i64::from)).unwrap_or_else(|e| panic!("{field}: {e}"))
}

/// The raw bytes of a document, whose sizes and checksum must be right.
fn inflate(document: &Document) -> Vec<u8> {
    let data = document.get_binary_generic("data").expect("data is binary");
    assert!(matches!(document.get("data"), Some(bson::Bson::Binary(binary)) if binary.subtype == BinarySubtype::Generic));
    let mut raw = Vec::new();
    ZlibDecoder::new(data.as_slice()).read_to_end(&mut raw).expect("data inflates");
    let mut crc = Crc::new();
    crc.update(&raw);
    assert_eq!(number(document, "crc32"), i64::from(crc.sum()));
    assert_eq!((number(document, "original_size"), number(document, "compressed_size")), (raw.len() as i64, data.len() as i64));
    raw
}

fn lines_of(content: &[u8]) -> Vec<Vec<u8>> {
    let text = content.strip_suffix(b"\n").expect("content ends with a line feed");
    text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}
