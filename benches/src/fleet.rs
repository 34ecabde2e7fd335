//! A fleet on this machine, and what jobs take on it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{JobFigures, cpu_seconds_of, peak_memory, run_watched};
use crate::{Result, jobs};

/// A scheduler and executors, which are killed when this is dropped.
#[derive(Debug)]
pub struct Fleet {
    url: String,
    /// The scheduler, then the executors.
    servers: Vec<Child>,
}

impl Fleet {
    /// Starts them on free loopback ports; each executor has its share of the cores.
    ///
    /// # Errors
    /// When they do not answer within a minute.
    pub fn start(baler: &Path, executors: usize, folder: &Path) -> Result<Self> {
        let share = (std::thread::available_parallelism()?.get() / executors).max(1);
        let ports = free_ports(1 + 3 * executors)?;
        let mut fleet = Self { url: format!("df://127.0.0.1:{}", ports[0]), servers: Vec::new() };
        fleet.spawn(baler, share, &["scheduler", "--bind-port", &ports[0]])?;
        for number in 0..executors {
            let [flight, grpc, health] = [1, 2, 3].map(|place| ports[3 * number + place].as_str());
            let work = folder.join(format!("executor-{number}")).display().to_string();
            let mut arguments = vec!["executor", "--scheduler-host", "127.0.0.1", "--scheduler-port", &ports[0]];
            arguments.extend(["--bind-port", flight, "--bind-grpc-port", grpc, "--bind-health-port", health, "--work-dir", &work]);
            fleet.spawn(baler, share, &arguments)?;
        }
        let begun = Instant::now();
        while !fleet.answers(baler)? {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err("the fleet does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(fleet)
    }

    fn spawn(&mut self, baler: &Path, cores: usize, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(baler);
        command.env("BALER_CPU_THREADS", cores.to_string());
        self.servers.push(command.args(arguments).env("BALER_LOG", "error").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        Ok(())
    }

    fn answers(&self, baler: &Path) -> Result<bool> {
        let ask = ["sql", "--scheduler", &self.url, "-c", "SELECT 1"];
        Ok(Command::new(baler).args(ask).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
    }

    /// What each has taken so far: the scheduler, then the executors.
    fn cpu_seconds(&self) -> Vec<f64> {
        self.servers.iter().filter_map(|server| cpu_seconds_of(server.id())).map(|cpu| cpu.own).collect()
    }

    /// The peak memory of each so far, in the same order.
    pub fn peak_bytes(&self) -> Vec<u64> {
        self.servers.iter().filter_map(|server| peak_memory(server.id())).collect()
    }
}

/// Ports on which nothing listens; all are held until the last is found.
fn free_ports(count: usize) -> Result<Vec<String>> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
    held.iter().map(|port| Ok(port.local_addr()?.port().to_string())).collect()
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for server in &mut self.servers {
            drop(server.kill());
            drop(server.wait());
        }
    }
}

/// Objects of a few bytes, each a split of its own, in a new folder.
///
/// # Errors
/// When they cannot be written.
pub fn tiny_objects(folder: &Path, count: usize) -> Result<PathBuf> {
    let data = folder.join(format!("tiny-{count}"));
    std::fs::create_dir(&data)?;
    for number in 0..count {
        std::fs::write(data.join(format!("{number:07}.txt")), format!("row {number}\n"))?;
    }
    Ok(data)
}

/// What a job took.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// From its start to its end.
    pub seconds: f64,
    /// CPU seconds of the process which was called: the driver, or all there is.
    pub driver_cpu_seconds: f64,
    /// Of the scheduler meanwhile.
    pub scheduler_cpu_seconds: f64,
    /// Of all executors meanwhile.
    pub executors_cpu_seconds: f64,
    /// Of the process which was called.
    pub peak_bytes: u64,
}

impl Run {
    /// Of all processes together.
    pub fn cpu_seconds(&self) -> f64 {
        self.driver_cpu_seconds + self.scheduler_cpu_seconds + self.executors_cpu_seconds
    }
}

/// Runs the job from its start to its commit, in one process or on the fleet; `folder` gets its dump and state.
///
/// # Errors
/// When it fails.
pub fn run(baler: &Path, folder: &Path, data: &Path, fleet: Option<&Fleet>) -> Result<Run> {
    let own = tempfile::tempdir_in(folder)?.keep();
    let (dump, state) = (own.join("dump"), own.join("state"));
    let mut job = jobs::compress(baler, &data.display().to_string(), &dump.display().to_string(), &state);
    if let Some(fleet) = fleet {
        job.args(["--scheduler", &fleet.url]);
    }
    let driver = || cpu_seconds_of(std::process::id()).map_or(0.0, |cpu| cpu.children);
    let servers = || {
        let all = fleet.map(Fleet::cpu_seconds).unwrap_or_default();
        (all.first().copied().unwrap_or_default(), all.iter().skip(1).sum::<f64>())
    };
    let (driver_before, servers_before) = (driver(), servers());
    let JobFigures { seconds, peak_bytes } = run_watched(&mut job)?;
    let (driver_after, servers_after) = (driver(), servers());
    Ok(Run {
        seconds,
        driver_cpu_seconds: driver_after - driver_before,
        scheduler_cpu_seconds: servers_after.0 - servers_before.0,
        executors_cpu_seconds: servers_after.1 - servers_before.1,
        peak_bytes,
    })
}
