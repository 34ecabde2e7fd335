//! Calls of `baler`, as users make them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::process::run_watched;

/// Makes sample data of one shape in a folder.
///
/// # Errors
/// When it cannot.
pub fn generate(baler: &Path, size: &str, files: usize, shape: &str, folder: &Path) -> Result<()> {
    run(&mut generate_call(baler, size, files, shape, &folder.display().to_string()))
}

/// The call which makes sample data at a path or URL. Equal calls make equal bytes.
pub fn generate_call(baler: &Path, size: &str, files: usize, shape: &str, to: &str) -> Command {
    let mut call = Command::new(baler);
    call.args(["generate", "--size", size, "--files", &files.to_string(), "--shape", shape, "--to", to]);
    call
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    run_watched(command).map(|_| ())
}

/// The batch job from a folder or URL into a dump or, with a `mongodb://` URL, a collection.
pub fn compress(baler: &Path, input: &str, output: &str, state: &Path) -> Command {
    let file = if output.starts_with("mongodb://") { "compress-to-mongodb.sql" } else { "compress.sql" };
    let mut job = Command::new(baler);
    job.arg("run").arg(sql(file)).args(["--job", "bench", "--state"]).arg(state);
    job.args(["--set", &format!("INPUT={input}/"), "--set", &format!("OUTPUT={output}")]);
    job
}

fn sql(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql").join(file)
}

/// A streaming query with a state of its own.
#[derive(Debug)]
pub struct Query<'a> {
    baler: &'a Path,
    /// Holds its statement and its state.
    pub folder: PathBuf,
    input: String,
    output: String,
}

impl<'a> Query<'a> {
    /// A query from a topic's URL into a folder or, with a `mongodb://` URL, a collection. `folder` is made.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn new(baler: &'a Path, folder: PathBuf, input: &str, output: &str) -> Result<Self> {
        std::fs::create_dir(&folder)?;
        let statement = std::fs::read_to_string(sql("stream.sql"))?;
        let into_dump = |text: String| {
            text.replace("STORED AS MONGODB", "STORED AS BSON").replace("OPTIONS ('mongodb.indexes' 'compression_ratio, timestamp')", "")
        };
        std::fs::write(folder.join("stream.sql"), if output.starts_with("mongodb://") { statement } else { into_dump(statement) })?;
        Ok(Self { baler, folder, input: input.to_string(), output: output.to_string() })
    }

    /// Streams all that is new in the topic, and ends.
    pub fn command(&self) -> Command {
        let mut feed = Command::new(self.baler);
        feed.arg("stream").arg(self.folder.join("stream.sql")).args(["--name", "bench", "--available-now", "--state"]);
        feed.arg(self.folder.join("state"));
        feed.args(["--set", &format!("INPUT={}", self.input), "--set", &format!("OUTPUT={}", self.output)]);
        feed
    }
}
