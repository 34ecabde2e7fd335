//! The standing benchmarks against a saved baseline, by what does not depend on the machine's noise: instructions, counted by Valgrind,
//! and stored bytes.
//!
//! Each is a whole process of the batch job on two threads, `start` over one line, the others over some sample data. Equal builds differ
//! by 0.01 %, `start` by 1 % (threads wait in loops). Counts of another compiler, or of a processor with other instructions, are
//! other counts: then the baseline has to be saved anew from the older revision.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use baler_benches::{Result, jobs, keep};
use baler_tests::dump_reader::read_dump;
use clap::Parser;
use serde::{Deserialize, Serialize};

#[derive(Debug, Parser)]
struct Args {
    /// The `baler` binary to measure.
    #[arg(long)]
    baler: PathBuf,
    /// Saves the counts as the baseline in place of comparing with it.
    #[arg(long)]
    save: bool,
    /// The baseline.
    #[arg(long, default_value = "benches/baseline.json")]
    baseline: PathBuf,
    /// Bytes of each input.
    #[arg(long, default_value = "16MiB")]
    size: String,
    /// Percent by which a count may grow.
    #[arg(long, default_value_t = 2.0)]
    tolerance: f64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Counts {
    instructions: u64,
    stored_bytes: u64,
}

#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let cases = [("start", "json"), ("json", "json"), ("logs", "logs"), ("csv", "csv"), ("text", "text"), ("binary", "binary")];
    let mut found = BTreeMap::new();
    for (case, shape) in cases {
        let data = folder.path().join(case);
        jobs::generate(&args.baler, if case == "start" { "1KiB" } else { &args.size }, 1, shape, &data)?;
        found.insert(case.to_string(), count(&args.baler, &data, folder.path())?);
    }
    if args.save {
        keep(&args.baseline, &serde_json::to_value(&found)?)?;
        println!("saved as {}", args.baseline.display());
        return Ok(ExitCode::SUCCESS);
    }
    let saved = std::fs::read(&args.baseline).map_err(|e| format!("no baseline {}: {e}; make it with --save", args.baseline.display()))?;
    let saved: BTreeMap<String, Counts> = serde_json::from_slice(&saved)?;
    println!("{:<8} {:>16} {:>9} {:>14} {:>9}", "", "instructions", "change", "stored bytes", "change");
    let mut is_worse = false;
    for (case, counts) in &found {
        let before = saved.get(case).ok_or_else(|| format!("the baseline has no case {case}; save it anew"))?;
        let change = |now: u64, then: u64| (now as f64 / then as f64 - 1.0) * 100.0;
        let [instructions, bytes] = [change(counts.instructions, before.instructions), change(counts.stored_bytes, before.stored_bytes)];
        println!("{case:<8} {:>16} {instructions:>+8.2}% {:>14} {bytes:>+8.2}%", counts.instructions, counts.stored_bytes);
        is_worse |= instructions > args.tolerance || bytes > args.tolerance;
    }
    Ok(if is_worse { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Counts the instructions of a job in user space, and the bytes which it stores.
fn count(baler: &Path, data: &Path, folder: &Path) -> Result<Counts> {
    let [dump, state, log] = ["dump", "state", "counts"].map(|name| folder.join(name));
    let job = jobs::compress(baler, &data.display().to_string(), &dump.display().to_string(), &state);
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--fair-sched=yes", "--cachegrind-out-file=/dev/null"]);
    valgrind.arg(format!("--log-file={}", log.display())).arg(job.get_program()).args(job.get_args()).env("BALER_CPU_THREADS", "2");
    jobs::run(&mut valgrind).map_err(|e| format!("cannot count instructions, which needs Valgrind (`valgrind`): {e}"))?;
    let text = std::fs::read_to_string(&log)?;
    let line = text.lines().find(|line| line.contains("I   refs:") || line.contains("I refs:")).ok_or("Valgrind counted nothing")?;
    let digits: String = line.rsplit(':').next().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    let stored_bytes = read_dump(&dump).compressed_bytes();
    std::fs::remove_dir_all(dump)?;
    std::fs::remove_dir_all(state)?;
    Ok(Counts { instructions: digits.parse()?, stored_bytes })
}
