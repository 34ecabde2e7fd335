//! Child processes of the tests: ports, logs, scratch folders, and a watchdog.
//!
//! The watchdog is a small shell which reads its input from the test process. However that process ends, the input ends too;
//! the shell then kills every process that is still registered and removes the run's temporary folder. So nothing is left
//! behind after a kill -9 either, and servers can live in statics, which Rust does not drop.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Write as _, stderr};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::wait_until;

/// Reads `start PID`, `end PID` and `keep`; at the end of its input kills the process groups which are left.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
pids=' ' keep=
while read -r verb pid; do
  case $verb in
    start) pids="$pids$pid " ;;
    end) pids="${pids%% $pid *} ${pids#* $pid }" ;;
    keep) keep=1 ;;
  esac
done
for pid in $pids; do kill -s KILL -- "-$pid" 2>/dev/null; done
[ -n "$keep" ] || rm -rf "$1"
"#;

/// What this process shares with its watchdog.
struct Supervisor {
    folder: PathBuf,
    words: Mutex<ChildStdin>,
}

static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();

#[expect(clippy::zombie_processes, reason = "the watchdog outlives this process, which is its purpose")]
fn supervisor() -> &'static Supervisor {
    SUPERVISOR.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("baler-tests-").tempdir().expect("cannot make a temporary folder").keep();
        let mut shell = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("cannot start the watchdog: these tests need a POSIX `sh`");
        say(&format!("temporary folder of this run: {}", folder.display()));
        Supervisor { folder, words: Mutex::new(shell.stdin.take().expect("the watchdog has an input")) }
    })
}

fn tell_watchdog(word: &str) {
    let mut words = supervisor().words.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(words, "{word}").expect("the watchdog is gone");
}

/// Prints one line for whoever watches the run. `eprintln!` would be captured by the test runner and lost.
pub fn say(text: &str) {
    stderr().write_all(format!("baler-tests: {text}\n").as_bytes()).ok();
}

/// The temporary folder of this run. It is removed at the end, unless a test failed or `BALER_TEST_KEEP` is set.
pub fn run_folder() -> &'static Path {
    &supervisor().folder
}

/// A number which no other caller, process or run is likely to get.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// A name for a database, bucket or file: `<stem>-<twelve hexadecimal digits>`.
pub fn random_name(stem: &str) -> String {
    format!("{stem}-{:012x}", random() >> 16)
}

/// Ports below those which the system gives to connections as their own end (Linux: 32768 and above): such a connection, of which tests make
/// thousands, could take a port before its server does. Nor is MongoDB's usual port among them.
const PORTS: Range<u16> = 16_384..27_000;

/// A loopback port on which nothing listens and which this process has not given out before.
///
/// # Panics
/// When the machine has no port left.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..10 * PORTS.len() {
        let port = PORTS.start + (random() % PORTS.len() as u64) as u16;
        let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free && GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return port;
        }
    }
    panic!("no free port among {PORTS:?}");
}

/// The ends of the logs of all servers of this run.
pub fn logs() -> String {
    logs_of("")
}

/// The ends of the logs of servers of this run whose names begin like this.
pub fn logs_of(start: &str) -> String {
    let mut text = String::new();
    let Ok(files) = fs::read_dir(run_folder()) else { return text };
    let is_wanted = |path: &PathBuf| {
        path.extension().is_some_and(|e| e == "log") && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
    };
    for path in files.flatten().map(|file| file.path()).filter(is_wanted) {
        write!(text, "--- {}\n{}\n", path.display(), tail(&path)).ok();
    }
    text
}

/// The last lines of a file.
pub fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A folder of one test, below the run's folder. It stays, and its name is printed, when the test fails.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes the folder. The first call of a run prints which servers its tests use and how they are had.
    ///
    /// # Panics
    /// When the folder cannot be made.
    #[expect(clippy::new_without_default, reason = "it makes a folder, which a default does not")]
    pub fn new() -> Self {
        announce();
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let path = run_folder().join(format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).expect("cannot make a scratch folder");
        Self { path }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("BALER_TEST_KEEP").is_some() {
            say(&format!("kept {} and the logs in {}", self.path.display(), run_folder().display()));
            tell_watchdog("keep");
        } else {
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

fn announce() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        say(&format!(
            "servers are kept in {} and started on free loopback ports when a test first needs them",
            crate::cache::folder().display()
        ));
        say(&format!("S3:           {}", crate::minio::description()));
        say(&format!("MongoDB wire: {}", crate::mongo::description()));
        say(&format!("Kafka:        {}", crate::kafka::description()));
        say(&format!("Prometheus:   {}", crate::prometheus::description()));
        say(&format!("Traces:       {}", crate::jaeger::description()));
        say(&format!("OpenID:       {}", crate::provider::description()));
        say(&format!("Browser:      {}", crate::browser::description()));
        say(&format!("baler:        {}", crate::baler::description()));
    });
}

/// A child process in a process group of its own, known to the watchdog, with its output in a log file.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

/// Time after which a server which goes on is asked again to stop.
const ASK_AGAIN: Duration = Duration::from_secs(3);

impl Server {
    /// Starts `command`. Output is appended to `<name>.log` in the run's folder.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let log = run_folder().join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("cannot open a log file");
        let output = file.try_clone().expect("cannot share a log file");
        let child = spawn(command.stdin(Stdio::null()).stdout(output).stderr(file));
        Self { name: name.to_string(), child, log, ended: None }
    }

    /// Waits until `ready` holds.
    ///
    /// # Panics
    /// When the process ends first, or the deadline passes; with the end of its log.
    pub fn wait_ready(&mut self, mut ready: impl FnMut() -> bool) {
        let what = format!("{} is ready", self.name);
        wait_until(&what, || {
            if let Some(status) = self.child.try_wait().expect("cannot wait for a child") {
                panic!("{} ended while it started ({status}):\n{}", self.name, tail(&self.log));
            }
            ready()
        });
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("a process has a log")).into_owned()
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(&mut self) {
        if self.ended.is_none() {
            // A server which has only just said that it is ready may not hear the first one.
            let mut asked: Option<Instant> = None;
            wait_until("a server stops after SIGTERM", || {
                if asked.is_none_or(|asked| asked.elapsed() > ASK_AGAIN) {
                    signal(self.child.id(), "TERM");
                    asked = Some(Instant::now());
                }
                self.child.try_wait().is_ok_and(|status| status.is_some())
            });
            self.reap();
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, as `STOP` or `CONT`, to the process and its children.
    pub fn signal(&self, name: &str) {
        signal_group(self.child.id(), name);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Sends SIGKILL to the process and all of its children, and waits for the end.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            signal_group(self.child.id(), "KILL");
            self.reap();
        }
    }

    fn reap(&mut self) {
        self.ended = reap(&mut self.child).into();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a process in its own group and tells the watchdog.
///
/// # Panics
/// When it cannot be started.
pub(crate) fn spawn(command: &mut Command) -> Child {
    supervisor();
    let child = command.process_group(0).spawn().unwrap_or_else(|e| panic!("cannot start `{command:?}`: {e}"));
    tell_watchdog(&format!("start {}", child.id()));
    child
}

/// Waits for the end of a process and tells the watchdog.
pub(crate) fn reap(child: &mut Child) -> ExitStatus {
    let status = child.wait().expect("cannot wait for a child");
    tell_watchdog(&format!("end {}", child.id()));
    status
}

/// Sends a signal to one process, as `TERM`, `INT` or `KILL`.
pub(crate) fn signal(pid: u32, name: &str) {
    Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\" 2>/dev/null", "kill", name, &pid.to_string()]).status().ok();
}

/// Sends a signal to a process group.
pub(crate) fn signal_group(pid: u32, name: &str) {
    Command::new("sh").args(["-c", "kill -s \"$1\" -- \"-$2\" 2>/dev/null", "kill", name, &pid.to_string()]).status().ok();
}
