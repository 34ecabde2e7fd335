//! One job of a test: its input, sink, SQL file and state folder, and the calls of `baler` which work on it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::baler::{Baler, Finished};
use crate::corpus::Shape;
use crate::dump_reader::{self, Stored};
use crate::fleet::Fleet;
use crate::minio::Bucket;
use crate::mongo::Collection;
use crate::servers::Scratch;

/// What a test put in: URI → bytes after decompression.
pub type Objects = BTreeMap<String, Vec<u8>>;

/// Where a job's documents go.
#[derive(Debug)]
pub enum Sink<'a> {
    /// A folder in mongodump's layout.
    Bson(PathBuf),
    /// A prefix of a bucket in mongodump's layout.
    S3(&'a Bucket, String),
    /// A collection.
    Mongo(Collection<'a>),
}

impl Sink<'_> {
    /// The documents, read without the engine's code.
    pub fn read(&self) -> Stored {
        match self {
            Self::Bson(folder) => dump_reader::read_dump(folder),
            Self::S3(bucket, prefix) => {
                let copy = Scratch::new();
                bucket.download(prefix, copy.path());
                dump_reader::read_dump(copy.path())
            }
            Self::Mongo(collection) => Stored::new(collection.read()),
        }
    }

    pub(crate) fn table(&self, options: &[(&str, &str)]) -> String {
        match self {
            Self::Bson(_) | Self::S3(..) => table("documents", "BSON", "${OUTPUT}", options),
            Self::Mongo(_) => table("documents", "MONGODB", "${OUTPUT}", options),
        }
    }

    /// The collection.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn collection(&self) -> &Collection<'_> {
        match self {
            Self::Mongo(collection) => collection,
            other => panic!("{other:?} is no collection"),
        }
    }

    pub(crate) fn location(&self) -> String {
        match self {
            Self::Bson(folder) => format!("file://{}", folder.display()),
            Self::S3(bucket, prefix) => bucket.url(prefix),
            Self::Mongo(collection) => collection.url.clone(),
        }
    }
}

pub(crate) fn table(name: &str, format: &str, location: &str, options: &[(&str, &str)]) -> String {
    let options: Vec<_> = options.iter().map(|(key, value)| format!("'{key}' '{value}'")).collect();
    let options = if options.is_empty() { String::new() } else { format!("\nOPTIONS ({})", options.join(", ")) };
    format!("CREATE EXTERNAL TABLE {name} STORED AS {format} LOCATION '{location}'{options};\n")
}

/// The statement of `sql/compress.sql`, with a level to change.
pub fn insert_statement(level: u8) -> String {
    format!(
        "INSERT INTO documents
SELECT id AS _id, object, version, byte_offset, records,
       byte_length AS original_size, octet_length(data) AS compressed_size,
       compression_ratio(byte_length, octet_length(data)) AS compression_ratio,
       'zlib' AS codec, {level} AS level, crc32(content) AS crc32, last_modified AS timestamp, data
FROM (SELECT *, zlib_compress(content, {level}) AS data FROM objects);
"
    )
}

/// One job. Its fields may be changed between runs.
#[derive(Debug)]
pub struct Job<'a> {
    /// The name behind `--job`.
    pub name: String,
    /// What `${INPUT}` becomes.
    pub input: String,
    /// Where the documents go.
    pub sink: Sink<'a>,
    /// Options of the source, with the `blob.` prefix.
    pub source_options: Vec<(&'static str, &'static str)>,
    /// Options of the sink, with its prefix.
    pub sink_options: Vec<(&'static str, &'static str)>,
    /// The compression level in the statement.
    pub level: u8,
    /// The environment of `baler`.
    pub variables: Vec<(String, String)>,
    /// A SQL file of the repository in place of the one made here.
    pub file: Option<PathBuf>,
    /// What `--state` says.
    pub state: String,
    /// What `--scheduler` says; without one the run is in its own process.
    pub scheduler: Option<String>,
    /// A folder of the test's own: input files, SQL file, dump, state.
    pub scratch: Scratch,
}

impl<'a> Job<'a> {
    /// A job from local files to a local dump, in small splits (1 MiB) and chunks (64 KiB).
    pub fn new() -> Self {
        let scratch = Scratch::new();
        fs::create_dir(scratch.join("input")).expect("cannot make a folder");
        Self {
            name: "load".to_string(),
            input: format!("file://{}/", scratch.join("input").display()),
            sink: Sink::Bson(scratch.join("dump")),
            source_options: vec![("blob.split_size", "1MiB"), ("blob.chunk_size", "64KiB")],
            sink_options: Vec::new(),
            level: 9,
            variables: Vec::new(),
            file: None,
            state: format!("file://{}", scratch.join("state").display()),
            scheduler: None,
            scratch,
        }
    }

    /// The same job with its work on a fleet.
    #[must_use]
    pub fn on(mut self, fleet: &Fleet) -> Self {
        self.scheduler = Some(fleet.url());
        self
    }

    /// The same job with its documents in a collection.
    #[must_use]
    pub fn into_collection(mut self, collection: Collection<'a>) -> Self {
        self.sink = Sink::Mongo(collection);
        self
    }

    /// Writes an input file and returns the URI by which documents name it.
    pub fn add_file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.scratch.join("input").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("cannot make a folder");
        fs::write(&path, bytes).expect("cannot write an input file");
        format!("file://{}", path.display())
    }

    /// The state folder of this job, where it is local.
    pub fn state_folder(&self) -> PathBuf {
        self.scratch.join("state").join(&self.name)
    }

    /// Writes one input file per shape and returns what must come out.
    pub fn add_shapes(&self, shapes: &[Shape]) -> Objects {
        shapes.iter().map(|shape| (self.add_file(&shape.name, &shape.stored), shape.content.clone())).collect()
    }

    /// The receipts as they are now: path → bytes. A receipt never changes.
    pub fn receipt_files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let paths = files(&self.state_folder().join("receipts"));
        paths
            .into_iter()
            .map(|path| {
                let bytes = fs::read(&path).expect("a receipt");
                (path, bytes)
            })
            .collect()
    }

    /// How many splits have a receipt.
    pub fn receipts(&self) -> usize {
        files(&self.state_folder().join("receipts")).len()
    }

    /// Whether the job is committed.
    pub fn is_committed(&self) -> bool {
        self.state_folder().join("commit.json").exists()
    }

    /// The dead letters, as JSON.
    pub fn dead_letters(&self) -> Vec<Value> {
        let folder = self.state_folder().join("dead-letters");
        let json = files(&folder).into_iter().filter(|path| path.extension().is_some_and(|e| e == "json"));
        json.map(|path| serde_json::from_slice(&fs::read(&path).expect("a dead letter")).expect("a dead letter is JSON")).collect()
    }

    /// The whole SQL file.
    pub fn sql(&self) -> String {
        table("objects", "BLOB", "${INPUT}", &self.source_options) + &self.sink.table(&self.sink_options) + &insert_statement(self.level)
    }

    /// `baler run`, ready to start.
    pub fn call(&self) -> Baler {
        self.call_of("run")
    }

    /// Runs `baler check` on it and returns its report.
    ///
    /// # Panics
    /// When it ends with another code.
    #[track_caller]
    pub fn check(&self, code: i32) -> Value {
        let finished = self.call_of("check").with_arguments(["--output", "json"]).run().expect_code(code);
        serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("the report is no JSON ({e}): {}", finished.stdout))
    }

    /// `baler run` or `baler check` on its file, ready to start.
    pub fn call_of(&self, command: &str) -> Baler {
        let file = self.file.clone().unwrap_or_else(|| self.scratch.join("job.sql"));
        if self.file.is_none() {
            fs::write(&file, self.sql()).expect("cannot write a SQL file");
        }
        let set = [format!("INPUT={}", self.input), format!("OUTPUT={}", self.sink.location())];
        let file = file.display().to_string();
        let mut arguments = vec![command, &file, "--job", &self.name, "--state", &self.state, "--set", &set[0], "--set", &set[1]];
        if let Some(scheduler) = &self.scheduler {
            arguments.extend(["--scheduler", scheduler]);
        }
        Baler::new(arguments).envs(&self.variables)
    }

    /// Runs it and asserts success.
    #[track_caller]
    pub fn run(&self) -> Finished {
        self.call().run().expect_code(0)
    }

    /// `baler restore --output json`, ready to start, with `more` flags.
    pub fn restore_call(&self, to: &str, more: &[&str]) -> Baler {
        let mut arguments = vec!["restore", "--job", &self.name, "--state", &self.state, "--to", to, "--output", "json"];
        if let Some(scheduler) = &self.scheduler {
            arguments.extend(["--scheduler", scheduler]);
        }
        arguments.extend(more);
        Baler::new(arguments).envs(&self.variables)
    }

    /// Restores the objects, asserts success, and returns the report.
    #[track_caller]
    pub fn restore(&self, to: &str, more: &[&str]) -> Value {
        let finished = self.restore_call(to, more).run().expect_code(0);
        serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("the report is no JSON ({e}): {}", finished.stdout))
    }

    /// `baler verify --deep --output json`, ready to start.
    pub fn verify_call(&self) -> Baler {
        let arguments = ["verify", "--job", &self.name, "--state", &self.state, "--deep", "--output", "json"].map(String::from);
        Baler::new(arguments).envs(&self.variables)
    }

    /// Runs the deep verification and returns its report.
    #[track_caller]
    pub fn verify(&self, code: i32) -> Report {
        Report::of(&self.verify_call().run().expect_code(code))
    }

    /// Has a fleet do the verification, and returns the report.
    #[track_caller]
    pub fn verify_on(&self, fleet: &Fleet, deep: bool, code: i32) -> Report {
        let url = fleet.url();
        let mut arguments = vec!["verify", "--job", &self.name, "--state", &self.state, "--output", "json", "--scheduler", &url];
        arguments.extend(deep.then_some("--deep"));
        Report::of(&Baler::new(arguments).envs(&self.variables).run().expect_code(code))
    }

    /// Asserts that everything of `expected` (URI → bytes) is stored once and verified: by `baler verify` and by the reader of these tests.
    #[track_caller]
    pub fn expect_complete(&self, expected: &Objects) -> Stored {
        assert!(self.is_committed(), "the job has no commit.json");
        self.expect_verified(expected)
    }

    /// As [`Job::expect_complete`], where the state is not local.
    #[track_caller]
    pub fn expect_verified(&self, expected: &Objects) -> Stored {
        assert_eq!(self.verify(0).counts(), [0, 0, 0], "missing, duplicate, mismatched");
        let stored = self.sink.read();
        stored.expect_objects(expected);
        stored
    }
}

impl Default for Job<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// What `baler verify --output json` printed.
#[derive(Debug)]
pub struct Report(pub Value);

impl Report {
    /// What a finished `baler verify` printed.
    ///
    /// # Panics
    /// When that is no JSON.
    #[track_caller]
    pub fn of(finished: &Finished) -> Self {
        Self(serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("the report is no JSON ({e}): {}", finished.stdout)))
    }

    /// One of its counts.
    #[track_caller]
    pub fn count(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("no count `{name}` in {}", self.0))
    }

    /// Missing, duplicate and mismatched documents.
    pub fn counts(&self) -> [u64; 3] {
        ["missing", "duplicate", "mismatched"].map(|name| self.count(name))
    }
}

/// The files below a folder, sorted; none when there is no such folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            _ => found.push(entry.path()),
        }
    }
    found.sort();
    found
}
