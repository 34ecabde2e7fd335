//! A fleet: a scheduler and executors as real processes, and their faults.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::authority::Identity;
use crate::baler::binary;
use crate::servers::{Scratch, Server, free_port, random_name, run_folder};
use crate::wait_until;

/// Heartbeats and timeouts of the tests: as the defaults, but in a third of the time, because tests wait for a loss.
const QUICK_SCHEDULER: [&str; 4] = ["--executor-timeout-seconds", "7", "--expire-dead-executor-interval-seconds", "1"];
const QUICK_EXECUTOR: [&str; 2] = ["--executor-heartbeat-interval-seconds", "2"];

/// A scheduler and its executors. All end when it is dropped.
#[derive(Debug)]
pub struct Fleet {
    /// The scheduler's port.
    pub port: u16,
    program: PathBuf,
    variables: Vec<(String, String)>,
    flags: Vec<String>,
    executor_flags: Vec<String>,
    name: String,
    scheduler: Option<Server>,
    executors: Vec<Option<Server>>,
    /// Ports of the executors' `/metrics`, also of those which are gone.
    pub metrics_ports: Vec<u16>,
    /// By which its executors and clients know the scheduler.
    host: &'static str,
    /// The certificate of its processes, if they speak TLS; [`Self::get`] uses it too.
    member: Option<Identity>,
    scratch: Scratch,
}

impl Fleet {
    /// A fleet of `executors` with two slots each, whose processes see `variables`.
    pub fn start(executors: usize, variables: &[(String, String)]) -> Self {
        Self::start_with(executors, variables, &QUICK_SCHEDULER)
    }

    /// The same, with flags of the scheduler.
    pub fn start_with(executors: usize, variables: &[(String, String)], flags: &[&str]) -> Self {
        Self::start_program(binary(), executors, variables, flags)
    }

    /// The same, of another program with Baler's command line.
    pub fn start_program(program: &Path, executors: usize, variables: &[(String, String)], flags: &[&str]) -> Self {
        Self::launch(program, executors, variables, (flags, &QUICK_EXECUTOR), None)
    }

    /// A fleet whose processes speak TLS with the certificate of `member`, and see `variables` besides.
    pub fn start_secure(executors: usize, member: &Identity, variables: &[(String, String)]) -> Self {
        Self::start_secure_at("127.0.0.1", executors, member, variables)
    }

    /// The same, where executors and clients know the scheduler by another name of this machine.
    pub fn start_secure_at(host: &'static str, executors: usize, member: &Identity, variables: &[(String, String)]) -> Self {
        let variables = [member.variables(), variables.to_vec()].concat();
        let mut fleet = Self::launch(binary(), 0, &variables, (&QUICK_SCHEDULER, &QUICK_EXECUTOR), Some(member.clone()));
        fleet.host = host;
        for _ in 0..executors {
            fleet.add_executor();
        }
        fleet.wait_executors(executors);
        fleet
    }

    /// A fleet with the defaults of a user but for these flags; ports, folders and two slots are given as always.
    pub fn start_exactly(executors: usize, flags: &[&str], executor_flags: &[&str]) -> Self {
        Self::launch(binary(), executors, &[], (flags, executor_flags), None)
    }

    /// What is started from now on is another program, or sees other variables.
    pub fn change(&mut self, program: &Path, variables: &[(String, String)]) {
        (self.program, self.variables) = (program.to_path_buf(), variables.to_vec());
    }

    fn launch(
        program: &Path,
        executors: usize,
        variables: &[(String, String)],
        (flags, executor_flags): (&[&str], &[&str]),
        member: Option<Identity>,
    ) -> Self {
        let mut fleet = Self {
            program: program.to_path_buf(),
            port: free_port(),
            variables: variables.to_vec(),
            flags: flags.iter().map(ToString::to_string).chain(more_flags("BALER_TEST_SCHEDULER_FLAGS")).collect(),
            executor_flags: executor_flags.iter().map(ToString::to_string).chain(more_flags("BALER_TEST_EXECUTOR_FLAGS")).collect(),
            name: random_name("fleet"),
            scheduler: None,
            executors: Vec::new(),
            metrics_ports: Vec::new(),
            host: "127.0.0.1",
            member,
            scratch: Scratch::new(),
        };
        fleet.start_scheduler();
        for _ in 0..executors {
            fleet.add_executor();
        }
        fleet.wait_executors(executors);
        fleet
    }

    /// What `--scheduler` takes.
    pub fn url(&self) -> String {
        format!("{}://{}:{}", if self.member.is_some() { "dfs" } else { "df" }, self.host, self.port)
    }

    fn server(&self, name: &str, arguments: &[String], more: &[(String, String)]) -> Server {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().env("BALER_LOG", "info").envs(self.variables.iter().chain(more).cloned());
        for name in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        Server::start(&format!("{}-{name}", self.name), &mut command)
    }

    /// Starts the scheduler on its port, again if it was killed.
    pub fn start_scheduler(&mut self) {
        let mut arguments = vec!["scheduler".to_string(), "--bind-port".into(), self.port.to_string()];
        arguments.extend(self.flags.iter().cloned());
        let mut server = self.server("scheduler", &arguments, &[]);
        server.wait_ready(|| self.body("/healthz").is_some());
        self.scheduler = Some(server);
    }

    /// Starts another executor; returns its number. It may not have registered yet.
    pub fn add_executor(&mut self) -> usize {
        self.add_executor_with(&[])
    }

    /// The same, of one which sees other variables besides.
    pub fn add_executor_with(&mut self, variables: &[(String, String)]) -> usize {
        let number = self.executors.len();
        let ports = [free_port(), free_port(), free_port()];
        self.metrics_ports.push(ports[2]);
        let ports = ports.map(|port| port.to_string());
        let work = self.work_folder(number).display().to_string();
        let scheduler = self.port.to_string();
        let mut arguments = vec!["executor", "--scheduler-host", self.host, "--scheduler-port", &scheduler, "--vcores", "2"];
        arguments.extend(["--bind-port", &ports[0], "--bind-grpc-port", &ports[1], "--bind-health-port", &ports[2]]);
        arguments.extend(["--work-dir", &work, "--drain-seconds", "20"]);
        arguments.extend(self.executor_flags.iter().map(String::as_str));
        let arguments: Vec<String> = arguments.into_iter().map(String::from).collect();
        self.executors.push(Some(self.server(&format!("executor-{number}"), &arguments, variables)));
        number
    }

    /// Where an executor keeps shuffles and spilled data.
    pub fn work_folder(&self, number: usize) -> PathBuf {
        self.scratch.join(&format!("executor-{number}"))
    }

    /// Waits until the scheduler counts exactly this many executors.
    pub fn wait_executors(&self, count: usize) {
        wait_until(&format!("{count} executors are registered"), || self.executors_alive() == Some(count));
    }

    /// How many executors the scheduler counts, if it answers.
    pub fn executors_alive(&self) -> Option<usize> {
        self.get("/api/baler")?["executors"].as_array().map(Vec::len)
    }

    /// Kills an executor and everything it does.
    pub fn kill_executor(&mut self, number: usize) {
        self.executor(number).kill();
        self.executors[number] = None;
    }

    /// Sends SIGTERM to an executor and waits for its end.
    pub fn drain_executor(&mut self, number: usize) {
        self.executor(number).stop();
        self.executors[number] = None;
    }

    /// Stops an executor's threads where they are (SIGSTOP).
    pub fn stall_executor(&mut self, number: usize) {
        self.executor(number).signal("STOP");
    }

    /// Lets a stalled executor go on (SIGCONT).
    pub fn resume_executor(&mut self, number: usize) {
        self.executor(number).signal("CONT");
    }

    fn executor(&mut self, number: usize) -> &mut Server {
        self.executors[number].as_mut().expect("this executor is gone already")
    }

    /// Kills the scheduler; all that it knew is lost.
    pub fn kill_scheduler(&mut self) {
        self.scheduler.take().expect("the scheduler is gone already").kill();
    }

    /// Makes a file in the fleet's folder and returns its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.scratch.join(name);
        std::fs::write(&path, text).expect("cannot write a file");
        path.display().to_string()
    }

    /// What the scheduler answers to a GET, as JSON.
    pub fn get(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&self.body(path)?).ok()
    }

    fn body(&self, path: &str) -> Option<String> {
        match &self.member {
            Some(member) => member.get(self.port, path),
            None => get(self.port, path),
        }
    }

    /// The process ids of what runs: scheduler and executors.
    pub fn processes(&self) -> Vec<u32> {
        self.scheduler.iter().chain(self.executors.iter().flatten()).map(Server::id).collect()
    }

    /// What one of its processes has logged so far: `scheduler`, `executor-0` …
    pub fn log(&self, process: &str) -> String {
        let path = run_folder().join(format!("{}-{process}.log", self.name));
        String::from_utf8_lossy(&std::fs::read(path).expect("a process has a log")).into_owned()
    }

    /// The Ballista jobs which the scheduler knows: name and status.
    pub fn jobs(&self) -> Vec<(String, String)> {
        let jobs = self.get("/api/jobs").expect("the scheduler answers");
        let text = |job: &Value, key: &str| job[key].as_str().unwrap_or_default().to_string();
        jobs.as_array().expect("a list").iter().map(|job| (text(job, "job_name"), text(job, "status"))).collect()
    }
}

/// Flags by which somebody who runs the tests takes another default, to see a test fail.
fn more_flags(variable: &str) -> Vec<String> {
    std::env::var(variable).unwrap_or_default().split_whitespace().map(String::from).collect()
}

/// The body of a successful answer to a GET of this port.
pub fn get(port: u16, path: &str) -> Option<String> {
    let (status, body) = request(port, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))?;
    (status == 200).then_some(body)
}

/// Sends one request; returns status and body.
pub fn request(port: u16, text: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    read_answer(&String::from_utf8_lossy(&answer))
}

/// Status and body of an answer to one HTTP/1.1 request.
pub fn read_answer(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((status, if is_chunked { join_chunks(body)? } else { body.to_string() }))
}

fn join_chunks(mut text: &str) -> Option<String> {
    let mut joined = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(joined);
        }
        joined.push_str(rest.get(..size)?);
        text = rest.get(size + 2..)?;
    }
}
