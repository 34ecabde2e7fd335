//! The drivers which speak Flight SQL to a fleet: ADBC from Python and JDBC from Java.
//!
//! The programs which use the drivers are in `tests/clients`. Each gets statements as arguments and prints one line of JSON for each.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::baler::{Baler, Running};
use crate::cache;

const ADBC_VERSION: &str = "1.13.0";
const PYARROW_VERSION: &str = "26.0.1";
const JDBC_VERSION: &str = "18.3.0";

/// A program which connects once and then runs statements, before it is started.
#[derive(Debug, Clone)]
pub struct Client {
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

/// Python's ADBC driver at a scheduler's port; `user` `-` does not log in.
pub fn adbc(port: u16, user: &str) -> Client {
    let script = clients().join("adbc.py").display().to_string();
    Client { program: python(), arguments: vec![script, format!("grpc://127.0.0.1:{port}"), user.to_string()], variables: Vec::new() }
}

/// The same by TLS, logged in with a token as password.
pub fn adbc_secure(port: u16, token: &str, authority: &Path) -> Client {
    let script = clients().join("adbc.py").display().to_string();
    let variables = [("CLIENT_PASSWORD", token.to_string()), ("CLIENT_CA", authority.display().to_string())];
    let arguments = vec![script, format!("grpc+tls://127.0.0.1:{port}"), "user".to_string()];
    Client { program: python(), arguments, variables: variables.map(|(name, value)| (name.to_string(), value)).to_vec() }
}

/// The JDBC driver at a scheduler's port; `user` `-` does not log in.
pub fn jdbc(port: u16, user: &str) -> Client {
    let program = clients().join("Jdbc.java").display().to_string();
    let driver = jdbc_driver().display().to_string();
    let url = format!("jdbc:arrow-flight-sql://127.0.0.1:{port}/?useEncryption=false");
    let arguments = ["--add-opens=java.base/java.nio=ALL-UNNAMED", "-cp", &driver, &program, &url, user];
    Client { program: "java".into(), arguments: arguments.map(str::to_string).to_vec(), variables: Vec::new() }
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn python() -> PathBuf {
    let place = cache::tool(&format!("adbc-{ADBC_VERSION}"), "python3 -m venv and pip", |place| {
        cache::step(Command::new("python3").args(["-m", "venv"]).arg(place), "Python 3.10 or newer with `venv` (`python3`)");
        let packages = [format!("adbc-driver-flightsql=={ADBC_VERSION}"), format!("pyarrow=={PYARROW_VERSION}")];
        cache::step(Command::new(place.join("bin/pip")).args(["install", "--quiet", "--prefer-binary"]).args(packages), "pip");
    });
    place.join("bin/python")
}

fn jdbc_driver() -> PathBuf {
    let place = cache::tool(&format!("flight-sql-jdbc-{JDBC_VERSION}"), "mvn dependency:copy", |place| {
        let artifact = format!("-Dartifact=org.apache.arrow:flight-sql-jdbc-driver:{JDBC_VERSION}");
        let folder = format!("-DoutputDirectory={}", place.display());
        cache::step(Command::new("mvn").args(["--quiet", "--batch-mode", "dependency:copy", &artifact, &folder]), "Maven (`mvn`)");
    });
    place.join(format!("flight-sql-jdbc-driver-{JDBC_VERSION}.jar"))
}

impl Client {
    /// Starts it with statements, each as the way to run it and its text.
    pub fn start(&self, statements: &[(&str, &str)]) -> Running {
        let statements = statements.iter().flat_map(|(way, sql)| [(*way).to_string(), (*sql).to_string()]);
        Baler::new(self.arguments.iter().cloned().chain(statements)).with_program(&self.program).envs(&self.variables).start()
    }

    /// Runs statements in one session and returns what each answered.
    ///
    /// # Panics
    /// When the program fails, or answers to fewer.
    pub fn run(&self, statements: &[(&str, &str)]) -> Vec<Answer> {
        let finished = self.start(statements).wait().expect_code(0);
        let answers: Vec<_> = finished.stdout.lines().map(Answer::read).collect();
        assert_eq!(answers.len(), statements.len(), "{finished:#?}");
        answers
    }

    /// Runs one statement.
    ///
    /// # Panics
    /// As [`Self::run`].
    pub fn ask(&self, way: &str, sql: &str) -> Answer {
        self.run(&[(way, sql)]).remove(0)
    }
}

/// What a client got for one statement.
#[derive(Debug, Clone)]
pub struct Answer(Value);

impl Answer {
    /// Reads a line of a client's output.
    ///
    /// # Panics
    /// When it is no JSON.
    pub fn read(line: &str) -> Self {
        Self(serde_json::from_str(line).unwrap_or_else(|e| panic!("a client printed no JSON ({e}): {line}")))
    }

    /// The rows, values as text.
    ///
    /// # Panics
    /// When it returned none.
    #[track_caller]
    pub fn rows(&self) -> Vec<Vec<String>> {
        let rows = self.0["rows"].as_array().unwrap_or_else(|| panic!("no rows: {}", self.0)).iter();
        let text = |value: &Value| value.as_str().unwrap_or("null").to_string();
        rows.map(|row| row.as_array().map(|row| row.iter().map(text).collect()).unwrap_or_default()).collect()
    }

    /// The number of rows it wrote.
    ///
    /// # Panics
    /// When it did not say.
    #[track_caller]
    pub fn count(&self) -> i64 {
        self.0["count"].as_i64().unwrap_or_else(|| panic!("no count: {}", self.0))
    }

    /// The error.
    ///
    /// # Panics
    /// When there is none, or it is no single line for people.
    #[track_caller]
    pub fn error(&self) -> String {
        let text = self.0["error"].as_str().unwrap_or_else(|| panic!("no error: {}", self.0));
        assert!(!text.contains('\n'), "the error has several lines: {text}");
        for noise in ["DataFusionError(", "External(", "Error {", "baler-error:", "panicked"] {
            assert!(!text.contains(noise), "the error is no text for people: {text}");
        }
        text.to_string()
    }
}
