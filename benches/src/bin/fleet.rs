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

use std::path::{Path, PathBuf};

use baler_benches::fleet::{Fleet, run, tiny_objects};
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

#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn main() -> Result<()> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    jobs::generate(&args.baler, &args.size, 2, "json", &data)?;
    let fleet = Fleet::start(&args.baler, args.executors, folder.path())?;
    // First, and with nothing deleted before: ext4 looks through recently deleted inodes whenever it makes a file.
    let mut tiny = Vec::new();
    for splits in &args.tiny {
        tiny.push(tiny_job(&args, folder.path(), *splits, &fleet)?);
    }

    let small = folder.path().join("small");
    std::fs::create_dir(&small)?;
    std::fs::write(small.join("one.txt"), "one row\n")?;
    let fixed = [
        run(&args.baler, folder.path(), &small, None)?.cpu_seconds(),
        run(&args.baler, folder.path(), &small, Some(&fleet))?.cpu_seconds(),
    ];

    let (mut alone, mut together, mut ratios, mut work_ratios) = (vec![], vec![], vec![], vec![]);
    for pair in 0..args.pairs {
        let alone_run = run(&args.baler, folder.path(), &data, None)?;
        let fleet_run = run(&args.baler, folder.path(), &data, Some(&fleet))?;
        if pair > 0 {
            alone.push(alone_run.seconds);
            together.push(fleet_run.seconds);
            ratios.push(fleet_run.cpu_seconds() / alone_run.cpu_seconds());
            work_ratios.push((fleet_run.cpu_seconds() - fixed[1]) / (alone_run.cpu_seconds() - fixed[0]));
        }
    }
    let (low, high) = spread(&ratios);
    println!("{} of JSON events, {} executors, {} pairs", args.size, args.executors, ratios.len());
    println!("one process {:.2} s, fleet {:.2} s", median(&alone), median(&together));
    println!("fixed: one process {:.2} CPU s, fleet {:.2} CPU s", fixed[0], fixed[1]);
    println!("cpu, fleet ÷ one process: {:.3} ({low:.3}–{high:.3}); without what is fixed {:.3}", median(&ratios), median(&work_ratios));

    let peaks: Vec<u64> = fleet.peak_bytes().iter().map(|bytes| bytes >> 20).collect();
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
    let data = tiny_objects(folder, splits)?;
    let all = run(&args.baler, folder, &data, Some(fleet))?;
    let one = run(&args.baler, folder, &data, None)?;
    let scheduler = fleet.peak_bytes().first().copied().unwrap_or_default();
    println!(
        "{splits} tiny splits: one process {:.2} s, {:.2} CPU s, {} MiB; fleet {:.2} s, {:.2} CPU s, driver {} MiB, scheduler {} MiB",
        one.seconds,
        one.cpu_seconds(),
        one.peak_bytes >> 20,
        all.seconds,
        all.cpu_seconds(),
        all.peak_bytes >> 20,
        scheduler >> 20
    );
    Ok(serde_json::json!({
        "splits": splits, "one_process_seconds": one.seconds, "one_process_cpu_seconds": one.cpu_seconds(), "one_process_peak_bytes": one.peak_bytes,
        "fleet_seconds": all.seconds, "fleet_cpu_seconds": all.cpu_seconds(), "driver_peak_bytes": all.peak_bytes, "scheduler_peak_bytes": scheduler,
    }))
}
