//! What processes take: one, or a whole tree of them.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// Time between two looks at a process.
const LOOK: Duration = Duration::from_millis(20);

/// CPU seconds, in user and kernel.
#[derive(Debug, Clone, Copy)]
pub struct CpuSeconds {
    /// Of the process itself.
    pub own: f64,
    /// Of its children which have ended and were waited for.
    pub children: f64,
}

/// What the kernel's line about a process tells.
struct Stat {
    parent: u32,
    cpu: CpuSeconds,
    resident_bytes: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    /// A clock tick in /proc (`USER_HZ`), on every architecture that Rust's standard library runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    /// Of most machines; the sum is only compared with itself.
    const PAGE_BYTES: u64 = 4096;
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in brackets, which may hold spaces; what follows begins with field 3.
    let (_, fields) = line.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |place: usize| fields.get(place - 3)?.parse::<u64>().ok();
    let seconds = |place: usize| Some((number(place)? + number(place + 1)?) as f64 / TICKS_PER_SECOND);
    let cpu = CpuSeconds { own: seconds(14)?, children: seconds(16)? };
    Some(Stat { parent: u32::try_from(number(4)?).ok()?, cpu, resident_bytes: number(24)? * PAGE_BYTES })
}

/// What a process has taken so far, if it lives.
pub fn cpu_seconds_of(pid: u32) -> Option<CpuSeconds> {
    stat(pid).map(|stat| stat.cpu)
}

/// What this process has taken so far.
///
/// # Errors
/// Where there is no `/proc`.
pub fn own_cpu_seconds() -> Result<CpuSeconds> {
    cpu_seconds_of(std::process::id()).ok_or_else(|| "no /proc/self/stat".into())
}

/// Peak resident memory of a process so far, in bytes, if it lives.
pub fn peak_memory(pid: u32) -> Option<u64> {
    kib_of(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// The memory of a process, where pages which it shares with others count for its part only.
fn proportional_memory(pid: u32) -> Option<u64> {
    kib_of(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

fn kib_of(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// What a process took.
#[derive(Debug, Clone, Copy)]
pub struct JobFigures {
    /// From its start to its end.
    pub seconds: f64,
    /// Its peak resident memory.
    pub peak_bytes: u64,
}

/// Runs a command to its end, its output thrown away.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run_watched(command: &mut Command) -> Result<JobFigures> {
    let mut peak_bytes = 0;
    let seconds = watch(command, LOOK, |job| {
        // The peak so far is in the process's own books; the last look is at most 20 ms old.
        peak_bytes = peak_memory(job.id()).unwrap_or(peak_bytes).max(peak_bytes);
    })?;
    Ok(JobFigures { seconds, peak_bytes })
}

/// Starts a command, has `look` called until it ends, and returns the seconds it took.
fn watch(command: &mut Command, pause: Duration, mut look: impl FnMut(&Child)) -> Result<f64> {
    // The end of what it says is needed only where it fails.
    let log = tempfile::NamedTempFile::new()?;
    let output = log.reopen()?;
    let started = Instant::now();
    let mut job = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
    let status = loop {
        look(&job);
        match job.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(pause),
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    expect_success(command, status, &std::fs::read(log.path())?)?;
    Ok(seconds)
}

fn expect_success(command: &Command, status: ExitStatus, said: &[u8]) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(30)..].join("\n");
    Err(format!("{command:?} ended with {status}\n{end}").into())
}

/// What a process and all that it started took together.
#[derive(Debug, Clone, Copy)]
pub struct TreeFigures {
    /// From its start to its end.
    pub seconds: f64,
    /// User's and kernel's.
    pub cpu_seconds: f64,
    /// The highest sum of their memory, shared pages counted once.
    pub peak_bytes: u64,
}

/// Runs a command to its end, its output thrown away, and adds up its whole tree.
///
/// A process belongs to the tree as soon as it is seen below another member, and for good: Spark's processes outlive those
/// which started them. What a member takes in its last 20 ms is missed, unless it is waited for.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run_tree(command: &mut Command) -> Result<TreeFigures> {
    let before = own_cpu_seconds()?;
    let (mut tree, mut highest, mut peak_bytes) = (HashMap::new(), 0, 0);
    let seconds = watch(command, LOOK, |job| {
        let resident = look_at_tree(job.id(), &mut tree);
        // To weigh the shared pages takes the kernel some time: only where there is more than ever.
        if resident > highest + highest / 64 {
            highest = resident;
            peak_bytes = tree.keys().filter_map(|pid| proportional_memory(*pid)).sum::<u64>().max(peak_bytes);
        }
    })?;
    let waited_for = own_cpu_seconds()?.children - before.children;
    Ok(TreeFigures { seconds, cpu_seconds: tree.values().sum::<f64>().max(waited_for), peak_bytes })
}

/// Adds new members and what all of them took so far; returns the sum of their resident memory.
fn look_at_tree(root: u32, tree: &mut HashMap<u32, f64>) -> u64 {
    let Ok(folder) = std::fs::read_dir("/proc") else { return 0 };
    let pids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let all: Vec<(u32, Stat)> = pids.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let mut resident = 0;
    // A child is mostly listed after its parent; one which is not is found at the next look.
    for (pid, found) in all {
        if pid == root || tree.contains_key(&pid) || tree.contains_key(&found.parent) {
            tree.insert(pid, found.cpu.own);
            resident += found.resident_bytes;
        }
    }
    resident
}

/// Runs a command to its end, and returns the seconds until the first document was in a dump.
///
/// # Errors
/// When it cannot be started, fails, or writes none.
pub fn seconds_to_first_document(command: &mut Command, dump: &Path) -> Result<f64> {
    let (started, mut first) = (Instant::now(), None);
    watch(command, Duration::from_millis(2), |_| {
        if first.is_none() && holds_documents(dump) {
            first = Some(started.elapsed().as_secs_f64());
        }
    })?;
    first.ok_or_else(|| format!("{command:?} wrote no document").into())
}

fn holds_documents(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => holds_documents(&entry.path()),
        Ok(found) => found.len() > 0 && entry.path().extension().is_some_and(|end| end == "bson"),
        Err(_) => false,
    })
}
