//! A job on a fleet against the same job in one process, and many tiny splits, side by side in one run.
//!
//! `cpu` is what the fleet takes in all its processes (scheduler, executors, driver) over what one process takes: the cost of
//! being a fleet, whatever else the machine does. `tiny` tells how long jobs of very many splits of a few bytes take, where
//! nothing but scheduling, receipts and files is left, and how much memory.
//! `fixed` is what a job of one small split takes, which is in every job once; `cpu` is given with it and without, as the cost
//! of the work itself.
//!
//! The executors share the cores of this machine evenly, as pods with a CPU limit do: all of them together have as many as the
//! one process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baler_benches::process::{JobFigures, cpu_seconds_of, peak_memory, run_watched};
use baler_benches::{Result, jobs, keep, median, spread};
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
    /// Splits of a few bytes, an object each; a job for each number.
    #[arg(long, value_delimiter = ',', default_value = "16000")]
    tiny: Vec<usize>,
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
    jobs::generate(&args.baler, &args.size, 2, "json", &data)?;
    let fleet = Fleet::start(&args, folder.path())?;
    // First, and with nothing deleted before: ext4 looks through recently deleted inodes whenever it makes a file.
    let mut tiny = Vec::new();
    for splits in &args.tiny {
        tiny.push(tiny_job(&args, folder.path(), *splits, &fleet)?);
    }

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
        "cpu_ratio_median": median(&ratios), "fixed_cpu_seconds": fixed, "cpu_ratio_without_fixed": work_ratios, "tiny": tiny, "peak_mib": peaks,
    });
    keep(&args.json, &figures)
}

/// A job of very many splits of a few bytes, on the fleet and in one process.
#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn tiny_job(args: &Args, folder: &Path, splits: usize, fleet: &Fleet) -> Result<serde_json::Value> {
    let data = folder.join(format!("tiny-{splits}"));
    std::fs::create_dir(&data)?;
    for number in 0..splits {
        std::fs::write(data.join(format!("{number:07}.txt")), format!("row {number}\n"))?;
    }
    let all = run(args, folder, &data, Some(fleet))?;
    let one = run(args, folder, &data, None)?;
    let scheduler = fleet.servers.first().and_then(|server| peak_memory(server.id())).unwrap_or_default();
    println!(
        "{splits} tiny splits: one process {:.2} s, {:.2} CPU s, {} MiB; fleet {:.2} s, {:.2} CPU s, driver {} MiB, scheduler {} MiB",
        one.seconds,
        one.cpu_seconds,
        one.peak_bytes >> 20,
        all.seconds,
        all.cpu_seconds,
        all.peak_bytes >> 20,
        scheduler >> 20
    );
    Ok(serde_json::json!({
        "splits": splits, "one_process_seconds": one.seconds, "one_process_cpu_seconds": one.cpu_seconds, "one_process_peak_bytes": one.peak_bytes,
        "fleet_seconds": all.seconds, "fleet_cpu_seconds": all.cpu_seconds, "driver_peak_bytes": all.peak_bytes, "scheduler_peak_bytes": scheduler,
    }))
}

struct Run {
    seconds: f64,
    cpu_seconds: f64,
    /// Of the process which was called: the driver, or all there is.
    peak_bytes: u64,
}

/// Runs the job from its start to its commit, in one process or on the fleet.
fn run(args: &Args, folder: &Path, data: &Path, fleet: Option<&Fleet>) -> Result<Run> {
    let own = tempfile::tempdir_in(folder)?.keep();
    let (dump, state) = (own.join("dump"), own.join("state"));
    let mut job = jobs::compress(&args.baler, &data.display().to_string(), &dump.display().to_string(), &state);
    if let Some(fleet) = fleet {
        job.args(["--scheduler", &fleet.url]);
    }
    let cpu = || cpu_seconds_of(std::process::id()).map_or(0.0, |cpu| cpu.children) + fleet.map_or(0.0, Fleet::cpu_seconds);
    let before = cpu();
    let JobFigures { seconds, peak_bytes } = run_watched(&mut job)?;
    Ok(Run { seconds, cpu_seconds: cpu() - before, peak_bytes })
}
