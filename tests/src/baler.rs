//! The binary under test, as a child process with a deadline.
//!
//! `BALER_BIN` names it. Else it is `baler` in the target folder next to the test executable; it is built when it is missing or
//! older than a source file of the engine.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use crate::servers::{reap, run_folder, say, signal, signal_group, spawn};
use crate::{DEADLINE, cache, wait_until};

/// Which binary the tests run.
pub fn description() -> String {
    match env::var("BALER_BIN") {
        Ok(path) => format!("{path} (BALER_BIN)"),
        Err(_) => format!("{}, built when it is missing or stale", next_to_tests().display()),
    }
}

/// The binary, built at most once per run.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = env::var_os("BALER_BIN") {
            return path.into();
        }
        let path = next_to_tests();
        if is_stale(&path) {
            cargo_build(path.parent().expect("target/<profile>"), &["--package", "baler", "--bin", "baler"]);
        }
        path
    })
}

/// An example of the crate `plans`, built when it is missing or stale.
///
/// # Panics
/// When it cannot be built.
pub fn example(name: &str) -> PathBuf {
    static ONE_BUILD: Mutex<()> = Mutex::new(());
    let profile = next_to_tests().parent().expect("target/<profile>").to_path_buf();
    let path = profile.join("examples").join(name);
    let _guard = ONE_BUILD.lock().unwrap_or_else(PoisonError::into_inner);
    if is_stale(&path) {
        cargo_build(&profile, &["--package", "baler-plans", "--example", name]);
    }
    path
}

fn next_to_tests() -> PathBuf {
    let tests = env::current_exe().expect("a test knows its own path");
    let profile = tests.parent().and_then(Path::parent).expect("tests are built into target/<profile>/deps");
    profile.join("baler")
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_path_buf()
}

fn is_stale(binary: &Path) -> bool {
    let Ok(built) = fs::metadata(binary).and_then(|found| found.modified()) else { return true };
    newest(&workspace().join("engine")) > built
}

fn newest(folder: &Path) -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(folder).expect("cannot read the engine's sources").flatten() {
        let found = entry.metadata().expect("cannot read the engine's sources");
        let time = if found.is_dir() { self::newest(&entry.path()) } else { found.modified().expect("a file has a time") };
        newest = newest.max(time);
    }
    newest
}

fn cargo_build(profile: &Path, what: &[&str]) {
    say(&format!("builds {}, which is missing or older than its sources", what.last().expect("a name")));
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("build").args(what).arg("--target-dir").arg(profile.parent().expect("target"));
    // What cargo told about the crate of the tests: `ring` is built anew whenever that is another one, and all that stands on it.
    for (name, _) in env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            cargo.env_remove(name);
        }
    }
    if profile.file_name().is_some_and(|name| name == "release") {
        cargo.arg("--release");
    }
    // `cargo test` says by these which package it tests. The build script of ring (TLS) runs again when one of them is another,
    // and with it all that depends on ring: a whole build for the tests, and a whole one for the next call of cargo after them.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_MANIFEST_") || text.starts_with("CARGO_PKG_") {
            cargo.env_remove(&name);
        }
    }
    cache::step(cargo.current_dir(workspace()), "cargo");
}

/// One call of `baler`, before it is started. The environment is empty but for `PATH`, `HOME`, `TMPDIR` and what the test sets.
#[derive(Debug, Clone)]
pub struct Baler {
    before: Vec<OsString>,
    arguments: Vec<OsString>,
    variables: Vec<(String, String)>,
    program: PathBuf,
}

impl Baler {
    /// `baler <arguments>`.
    pub fn new<S: Into<OsString>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { before: Vec::new(), arguments, variables: Vec::new(), program: binary().to_path_buf() }
    }

    /// The same call with more arguments.
    #[must_use]
    pub fn with_arguments<S: Into<OsString>>(mut self, more: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(more.into_iter().map(Into::into));
        self
    }

    /// Takes another program than `baler`.
    #[must_use]
    pub fn with_program(mut self, program: &Path) -> Self {
        self.program = program.to_path_buf();
        self
    }

    /// Sets environment variables.
    #[must_use]
    pub fn envs(mut self, variables: &[(String, String)]) -> Self {
        self.variables.extend_from_slice(variables);
        self
    }

    /// No file may grow beyond `bytes` (`ulimit -f`, in blocks of 512): writing more fails as on a full disk.
    #[must_use]
    pub fn with_file_size_limit(mut self, bytes: u64) -> Self {
        // The signal which usually ends such a process is ignored, so that the write returns an error.
        let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", bytes / 512);
        self.before = ["sh", "-c", &script, "limited"].map(OsString::from).to_vec();
        self
    }

    /// Runs without root's rights: root may read and write whatever the modes of files say. Another user's run is as it is.
    ///
    /// # Panics
    /// When the binary cannot be copied to a place which everybody can read, or `setpriv` is missing.
    #[must_use]
    pub fn without_root(mut self, folder: &Path) -> Self {
        if !is_root() {
            return self;
        }
        let copy = folder.join("baler-for-everybody");
        if !copy.exists() && fs::hard_link(&self.program, &copy).is_err() {
            fs::copy(&self.program, &copy).expect("cannot copy the binary");
        }
        self.program = copy;
        self.before = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(OsString::from).to_vec();
        self
    }

    /// Runs it through a shell script, which gets the call as `"$@"`.
    #[must_use]
    pub fn through(mut self, before: &[&str]) -> Self {
        self.before = before.iter().map(OsString::from).collect();
        self
    }

    /// Starts it.
    pub fn start(&self) -> Running {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let stem = format!("run-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let place = |suffix: &str| run_folder().join(format!("{stem}.{suffix}"));
        let create = |path: &Path| File::create(path).expect("cannot make an output file");
        let (stdout, stderr) = (place("stdout"), place("stderr"));
        let mut line = self.before.clone();
        line.push(self.program.clone().into());
        line.extend(self.arguments.iter().cloned());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).env_clear().envs(self.variables.iter().cloned());
        for name in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).stdout(create(&stdout)).stderr(create(&stderr));
        Running { child: spawn(&mut command), stdout, stderr, is_reaped: false }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it does not end within [`DEADLINE`].
    pub fn run(&self) -> Finished {
        self.start().wait()
    }
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("cannot run `id`");
    output.stdout.trim_ascii() == b"0"
}

/// A call which runs now. It is killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    is_reaped: bool,
}

impl Running {
    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Waits until `condition` holds or the process has ended; says whether it still runs.
    pub fn runs_until(&mut self, what: &str, mut condition: impl FnMut() -> bool) -> bool {
        wait_until(what, || condition() || !self.is_running());
        self.is_running()
    }

    /// The most memory that it has had in use so far, as long as it runs.
    pub fn peak_bytes(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        fs::read(&self.stderr).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(self) -> Finished {
        signal_group(self.child.id(), "KILL");
        self.wait()
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(self) -> Finished {
        signal(self.child.id(), "TERM");
        self.wait()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it does not come within [`DEADLINE`]: the process is killed, and the text holds its output and the servers' logs.
    pub fn wait(mut self) -> Finished {
        let start = Instant::now();
        let mut late = false;
        while self.is_running() {
            if start.elapsed() > DEADLINE {
                late = true;
                signal_group(self.child.id(), "KILL");
                break;
            }
            std::thread::sleep(crate::LOOK);
        }
        let status = reap(&mut self.child);
        self.is_reaped = true;
        let read = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let finished = Finished {
            code: status.code(),
            signal: status.signal(),
            dumped_core: status.core_dumped(),
            stdout: read(&self.stdout),
            stderr: read(&self.stderr),
        };
        assert!(!late, "baler did not end within {DEADLINE:?}\n{finished:#?}\n{}", crate::servers::logs());
        finished
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_reaped {
            signal_group(self.child.id(), "KILL");
            reap(&mut self.child);
        }
    }
}

/// What a call left behind.
#[derive(Debug)]
pub struct Finished {
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal which ended it.
    pub signal: Option<i32>,
    /// Whether the operating system kept its memory.
    pub dumped_core: bool,
    /// Rows and reports.
    pub stdout: String,
    /// Progress and errors.
    pub stderr: String,
}

impl Finished {
    /// Asserts the exit code.
    ///
    /// # Panics
    /// When it is another one; the text holds the output.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "unexpected end of baler (signal {:?})\nstdout:\n{}\nstderr:\n{}",
            self.signal,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Asserts that it failed with `code` and said why in exactly one line on stderr, which holds each of `words`.
    ///
    /// # Panics
    /// When it did otherwise; the text holds the output.
    #[track_caller]
    pub fn expect_one_line(self, code: i32, words: &[&str]) -> Self {
        let finished = self.expect_code(code);
        let text = finished.stderr.trim_end();
        assert!(!text.is_empty() && !text.contains('\n'), "not one line on stderr:\n{text}");
        for word in words {
            assert!(text.contains(word), "the line does not name `{word}`: {text}");
        }
        for noise in ["panicked", "Err(", "Error {", "RUST_BACKTRACE"] {
            assert!(!text.contains(noise), "the line is no text for people: {text}");
        }
        finished
    }

    /// Asserts that it failed with `code` and that its last line on stderr holds each of `words`.
    ///
    /// # Panics
    /// When it did otherwise; the text holds the output.
    #[track_caller]
    pub fn expect_last_line(self, code: i32, words: &[&str]) -> Self {
        let finished = self.expect_code(code);
        let line = finished.stderr.trim_end().lines().last().unwrap_or_default();
        for word in words {
            assert!(line.contains(word), "the last line does not name `{word}`: {}", finished.stderr);
        }
        finished
    }

    /// Asserts that a secret is in no output.
    ///
    /// # Panics
    /// When it is.
    #[track_caller]
    pub fn expect_no_secret(self, secret: &str) -> Self {
        assert!(!self.stderr.contains(secret) && !self.stdout.contains(secret), "the output holds a secret:\n{}", self.stderr);
        self
    }
}
