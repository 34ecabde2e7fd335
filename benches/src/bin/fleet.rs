//! A job on a fleet against the same job in one process, and many tiny splits, side by side in one run.
//!
//! `cpu` is what the fleet takes in all its processes (scheduler, executors, driver) over what one process takes: the cost of
//! being a fleet, whatever else the machine does. `tiny` tells how long a job of very many splits of a few bytes takes, where
//! nothing but scheduling, receipts and files is left. `fixed` is what a job of one small split takes, which is in every job once;
//! `cpu` is given with it and without, as the cost of the work itself.
//!
//! The executors share the cores of this machine evenly, as pods with a CPU limit do: all of them together have as many as the
//! one process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baler_benches::{Result, cpu_seconds_of, median, peak_memory, spread};
use clap::Parser;

#[derive(Debug, Parser)]
struct Args {
    /// The `baler` binary to measure.
    #[arg(long)]
    baler: PathBuf,
    /// Raw bytes of the input, in splits of 128 MiB.
    #[arg(long, default_value = "2GiB")]
    size: String,
    /// Pairs to run; the first one is not counted.
    #[arg(long, default_value_t = 4)]
    pairs: usize,
    /// Executors, each with its share of the cores and, as is the default, one slot more.
    #[arg(long, default_value_t = 2)]
    executors: usize,
    /// Splits of a few bytes.
    #[arg(long, default_value_t = 16_000)]
    tiny: usize,
    /// Where the figures are kept as JSON.
    #[arg(long, default_value = "target/benches/fleet.json")]
    json: PathBuf,
}

/// Servers which are killed when this is dropped.
struct Fleet {
    url: String,
    servers: Vec<Child>,
}

impl Fleet {
    fn start(args: &Args, folder: &Path) -> Result<Self> {
        let ports = free_ports(1 + 3 * args.executors)?;
        let mut fleet = Self { url: format!("df://127.0.0.1:{}", ports[0]), servers: Vec::new() };
        fleet.spawn(args, &["scheduler", "--bind-port", &ports[0]])?;
        for number in 0..args.executors {
            let [flight, grpc, health] = [1, 2, 3].map(|place| ports[3 * number + place].as_str());
            let work = folder.join(format!("executor-{number}")).display().to_string();
            let mut arguments = vec!["executor", "--scheduler-host", "127.0.0.1", "--scheduler-port", &ports[0]];
            arguments.extend(["--bind-port", flight, "--bind-grpc-port", grpc, "--bind-health-port", health, "--work-dir", &work]);
            fleet.spawn(args, &arguments)?;
        }
        let begun = Instant::now();
        while !fleet.answers(args)? {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err("the fleet does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(fleet)
    }

    fn spawn(&mut self, args: &Args, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(&args.baler);
        let share = std::thread::available_parallelism()?.get() / args.executors;
        command.env("BALER_CPU_THREADS", share.max(1).to_string());
        self.servers.push(command.args(arguments).env("BALER_LOG", "error").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        Ok(())
    }

    fn answers(&self, args: &Args) -> Result<bool> {
        let ask = ["sql", "--scheduler", &self.url, "-c", "SELECT 1"];
        Ok(Command::new(&args.baler).args(ask).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
    }

    fn cpu_seconds(&self) -> f64 {
        self.servers.iter().filter_map(|server| cpu_seconds_of(server.id())).map(|cpu| cpu.own).sum()
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

#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn main() -> Result<()> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let made = Command::new(&args.baler).args(["generate", "--size", &args.size, "--files", "2", "--to"]).arg(&data).output()?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned().into());
    }
    let fleet = Fleet::start(&args, folder.path())?;
    // First, and with nothing deleted before: ext4 looks through recently deleted inodes whenever it makes a file.
    let tiny = folder.path().join("tiny");
    std::fs::create_dir(&tiny)?;
    for number in 0..args.tiny {
        std::fs::write(tiny.join(format!("{number:06}.txt")), format!("row {number}\n"))?;
    }
    let all = run(&args, folder.path(), &tiny, Some(&fleet))?;
    let one = run(&args, folder.path(), &tiny, None)?;
    println!(
        "{} tiny splits: one process {:.1} s, {:.1} CPU s; fleet {:.1} s, {:.1} CPU s",
        args.tiny, one.seconds, one.cpu_seconds, all.seconds, all.cpu_seconds
    );

    let small = folder.path().join("small");
    std::fs::create_dir(&small)?;
    std::fs::write(small.join("one.txt"), "one row\n")?;
    let fixed = [run(&args, folder.path(), &small, None)?.cpu_seconds, run(&args, folder.path(), &small, Some(&fleet))?.cpu_seconds];

    let (mut alone, mut together, mut ratios, mut work_ratios) = (vec![], vec![], vec![], vec![]);
    for pair in 0..args.pairs {
        let alone_run = run(&args, folder.path(), &data, None)?;
        let fleet_run = run(&args, folder.path(), &data, Some(&fleet))?;
        if pair > 0 {
            alone.push(alone_run.seconds);
            together.push(fleet_run.seconds);
            ratios.push(fleet_run.cpu_seconds / alone_run.cpu_seconds);
            work_ratios.push((fleet_run.cpu_seconds - fixed[1]) / (alone_run.cpu_seconds - fixed[0]));
        }
    }
    let (low, high) = spread(&ratios);
    println!("{} of JSON events, {} executors, {} pairs", args.size, args.executors, ratios.len());
    println!("one process {:.2} s, fleet {:.2} s", median(&alone), median(&together));
    println!("fixed: one process {:.2} CPU s, fleet {:.2} CPU s", fixed[0], fixed[1]);
    println!("cpu, fleet ÷ one process: {:.3} ({low:.3}–{high:.3}); without what is fixed {:.3}", median(&ratios), median(&work_ratios));

    let peaks: Vec<u64> = fleet.servers.iter().filter_map(|server| peak_memory(server.id())).map(|bytes| bytes >> 20).collect();
    println!("peak memory, MiB: scheduler {}, executors {:?}", peaks[0], &peaks[1..]);
    let figures = serde_json::json!({
        "size": args.size, "executors": args.executors, "one_process_seconds": alone, "fleet_seconds": together, "cpu_ratio": ratios,
        "cpu_ratio_median": median(&ratios), "fixed_cpu_seconds": fixed, "cpu_ratio_without_fixed": work_ratios, "tiny_splits": args.tiny, "tiny_one_process_seconds": one.seconds,
        "tiny_fleet_seconds": all.seconds, "peak_mib": peaks,
    });
    if let Some(folder) = args.json.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&args.json, serde_json::to_vec_pretty(&figures)?)?;
    Ok(())
}

struct Run {
    seconds: f64,
    cpu_seconds: f64,
}

/// Runs the job from its start to its commit, in one process or on the fleet.
fn run(args: &Args, folder: &Path, data: &Path, fleet: Option<&Fleet>) -> Result<Run> {
    let own = tempfile::tempdir_in(folder)?.keep();
    let (dump, state) = (own.join("dump"), own.join("state"));
    let mut job = Command::new(&args.baler);
    job.args(["run", concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/compress.sql"), "--job", "bench", "--state"]).arg(&state);
    job.args(["--set", &format!("INPUT={}/", data.display()), "--set", &format!("OUTPUT={}", dump.display())]);
    if let Some(fleet) = fleet {
        job.args(["--scheduler", &fleet.url]);
    }
    let cpu = || cpu_seconds_of(std::process::id()).map_or(0.0, |cpu| cpu.children) + fleet.map_or(0.0, Fleet::cpu_seconds);
    let (started, before) = (Instant::now(), cpu());
    let output = job.output()?;
    let run = Run { seconds: started.elapsed().as_secs_f64(), cpu_seconds: cpu() - before };
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(run)
}
