//! A small fleet, and the drivers which speak Flight SQL to it: ADBC from Python and JDBC from Java.
//!
//! The programs which use the drivers are in `tests/clients`. Each gets statements as arguments and prints one line of JSON for each.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::baler::{Baler, Running};
use crate::servers::{Server, free_port, random_name, run_folder};
use crate::{DEADLINE, baler, cache, wait_until};

const ADBC_VERSION: &str = "1.13.0";
const PYARROW_VERSION: &str = "26.0.1";
const JDBC_VERSION: &str = "18.3.0";

/// A scheduler with two executors.
#[derive(Debug)]
pub struct FlightFleet {
    /// Port of the scheduler: Flight SQL, REST and the rest.
    pub port: u16,
    _servers: Vec<Server>,
}

impl FlightFleet {
    /// Starts a scheduler whose sessions know the tables of these statements, and two executors of two slots.
    ///
    /// # Panics
    /// When they do not come up.
    pub fn start(tables: &str) -> Self {
        let (name, port) = (random_name("fleet"), free_port());
        let folder = run_folder().join(&name);
        std::fs::create_dir(&folder).expect("cannot make a folder for a fleet");
        let file = folder.join("tables.sql");
        std::fs::write(&file, tables).expect("cannot write the tables of a fleet");
        let port_text = port.to_string();
        let mut command = Command::new(baler::binary());
        command.args(["scheduler", "--bind-port", &port_text, "--external-host", "127.0.0.1", "--tables"]).arg(file);
        let mut servers = vec![Server::start(&format!("{name}-scheduler"), &mut command)];
        servers[0].wait_ready(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        for number in 1..=2 {
            let mut command = Command::new(baler::binary());
            command.args(["executor", "--scheduler-port", &port_text, "--external-host", "127.0.0.1", "--vcores", "2"]);
            for flag in ["--bind-port", "--bind-grpc-port", "--bind-health-port"] {
                command.args([flag, &free_port().to_string()]);
            }
            command.arg("--work-dir").arg(folder.join(format!("executor-{number}")));
            servers.push(Server::start(&format!("{name}-executor-{number}"), &mut command));
        }
        let fleet = Self { port, _servers: servers };
        wait_until("two executors have registered", || {
            fleet.rest("/api/baler")["executors"].as_array().is_some_and(|executors| executors.len() == 2)
        });
        fleet
    }

    /// What the scheduler's REST answers to GET.
    ///
    /// # Panics
    /// When it does not answer with JSON.
    pub fn rest(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("the scheduler takes connections");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("the scheduler takes requests");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the scheduler answers with text");
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        serde_json::from_str(body).unwrap_or_else(|e| panic!("{path} answered no JSON ({e}): {answer}"))
    }

    /// Status (`Running`, `Failed: Cancelled` …) of the jobs whose name starts with these words.
    pub fn jobs(&self, name: &str) -> Vec<String> {
        let jobs = self.rest("/api/jobs");
        let jobs = jobs.as_array().expect("a list of jobs").iter();
        let named = jobs.filter(|job| job["job_name"].as_str().is_some_and(|text| text.starts_with(name)));
        named.map(|job| job["job_status"].as_str().unwrap_or_default().trim().to_string()).collect()
    }

    /// A session of Python's ADBC driver; `user` `-` is nobody.
    pub fn adbc(&self, user: &str) -> Client {
        let script = clients().join("adbc.py").display().to_string();
        let python = python().display().to_string();
        Client { line: vec![python, script, format!("grpc://127.0.0.1:{}", self.port), user.to_string()] }
    }

    /// A session of the JDBC driver; `user` `-` is nobody.
    pub fn jdbc(&self, user: &str) -> Client {
        let program = clients().join("Jdbc.java").display().to_string();
        let driver = jdbc_driver().display().to_string();
        let url = format!("jdbc:arrow-flight-sql://127.0.0.1:{}/?useEncryption=false", self.port);
        let java = ["java", "--add-opens=java.base/java.nio=ALL-UNNAMED", "-cp", &driver, &program, &url, user];
        Client { line: java.map(str::to_string).to_vec() }
    }
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

/// A program which connects once and then runs statements, before it is started.
#[derive(Debug, Clone)]
pub struct Client {
    line: Vec<String>,
}

impl Client {
    /// Starts it with statements, each as the way to run it and its text.
    pub fn start(&self, statements: &[(&str, &str)]) -> Running {
        let mut line = self.line.clone();
        line.extend(statements.iter().flat_map(|(way, sql)| [(*way).to_string(), (*sql).to_string()]));
        let (program, arguments) = line.split_first().expect("a client has a program");
        Baler::of_program(program, arguments).start()
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
