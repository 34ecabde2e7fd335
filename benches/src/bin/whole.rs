//! The whole job against a bare compression loop, side by side in one run.
//!
//! The loop compresses the same bytes, in the same chunks, with the same effort, on as many threads as there are cores, from
//! memory: nothing that also reads, encodes and writes can be faster. The two alternate, and the ratio is taken pair by pair.
//!
//! `time` is the ratio of elapsed times, which is what users wait for; on a machine that others use too, it says as much about
//! them. `CPU` is the ratio of CPU seconds, kernel's included: it leaves out only the time in which cores are idle.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use baler::function::zlib::choose_effort;
use baler_benches::{Result, cpu_seconds_of, median, peak_memory, spread};
use clap::Parser;

/// Bytes of a chunk, as the job takes them by default.
const CHUNK_BYTES: usize = 1 << 20;

#[derive(Debug, Parser)]
struct Args {
    /// The `baler` binary to measure.
    #[arg(long)]
    baler: PathBuf,
    /// Raw bytes of each corpus. With little of it, what a job costs once (0.15 s, most of it until its state is on disk) counts.
    #[arg(long, default_value = "4GiB")]
    size: String,
    /// Shapes of `baler generate` to run.
    #[arg(long, value_delimiter = ',', default_value = "json,csv,logs,binary")]
    shapes: Vec<String>,
    /// Pairs to run for each shape; the first one is not counted.
    #[arg(long, default_value_t = 6)]
    pairs: usize,
    /// Where the figures are kept as JSON.
    #[arg(long, default_value = "target/benches/whole.json")]
    json: PathBuf,
}

#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn main() -> Result<()> {
    let args = Args::parse();
    let cores = std::thread::available_parallelism()?.get();
    let mut figures = Vec::new();
    println!("{cores} cores, {} of each shape, {} pairs", args.size, args.pairs - 1);
    println!(
        "{:<8} {:>12} {:>12} {:>7} {:>13} {:>7} {:>9} {:>8} {:>10}",
        "shape", "loop MB/s", "job MB/s", "time", "(min–max)", "CPU", "size", "effort", "peak MiB"
    );
    for shape in &args.shapes {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        run(Command::new(&args.baler).args(["generate", "--size", &args.size, "--files", "2", "--shape", shape, "--to"]).arg(&data))?;
        let corpus = read_corpus(&data)?;
        let sample: Vec<&[u8]> = corpus.chunks(CHUNK_BYTES).take(16).collect();
        let effort = choose_effort(&sample, 9);
        let (mut loops, mut jobs, mut ratios, mut cpu, mut peak, mut stored) = (vec![], vec![], vec![], vec![], 0, 0);
        for pair in 0..args.pairs {
            let before = cpu_seconds_of(std::process::id()).ok_or("no /proc/self/stat")?;
            let (loop_seconds, loop_bytes) = bare_loop(&corpus, effort, cores)?;
            let between = cpu_seconds_of(std::process::id()).ok_or("no /proc/self/stat")?;
            let job = whole_job(&args.baler, folder.path(), &data, pair)?;
            let after = cpu_seconds_of(std::process::id()).ok_or("no /proc/self/stat")?;
            let rate = |seconds: f64| corpus.len() as f64 / 1e6 / seconds;
            if pair > 0 {
                loops.push(rate(loop_seconds));
                jobs.push(rate(job.seconds));
                ratios.push(loop_seconds / job.seconds);
                cpu.push((between.own - before.own) / (after.children - between.children));
                peak = peak.max(job.peak_bytes);
                stored = loop_bytes;
            }
        }
        let (low, high) = spread(&ratios);
        println!(
            "{shape:<8} {:>12.1} {:>12.1} {:>7.3} {low:>6.3}–{high:<6.3} {:>7.3} {:>7.2}:1 {effort:>8} {:>10}",
            median(&loops),
            median(&jobs),
            median(&ratios),
            median(&cpu),
            corpus.len() as f64 / stored as f64,
            peak >> 20
        );
        figures.push(serde_json::json!({
            "shape": shape, "cores": cores, "raw_bytes": corpus.len(), "effort": effort, "loop_mb_per_s": loops, "job_mb_per_s": jobs,
            "ratio": ratios, "ratio_median": median(&ratios), "cpu_ratio": cpu, "cpu_ratio_median": median(&cpu), "loop_compressed_bytes": stored, "job_peak_bytes": peak,
        }));
    }
    if let Some(folder) = args.json.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&args.json, serde_json::to_vec_pretty(&figures)?)?;
    Ok(())
}

fn read_corpus(folder: &Path) -> Result<Vec<u8>> {
    let mut files: Vec<_> = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut corpus = Vec::new();
    for file in files {
        corpus.extend(std::fs::read(file)?);
    }
    Ok(corpus)
}

/// Compresses the corpus on all cores, one compressor and one buffer a thread; seconds and compressed bytes.
fn bare_loop(corpus: &[u8], effort: u8, cores: usize) -> Result<(f64, usize)> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let chunks: Vec<&[u8]> = corpus.chunks(CHUNK_BYTES).collect();
    let started = Instant::now();
    let level = libdeflater::CompressionLvl::new(i32::from(effort)).map_err(|e| format!("{e:?}"))?;
    let work = || -> std::result::Result<usize, String> {
        let mut compressor = libdeflater::Compressor::new(level);
        let mut out = vec![0; compressor.zlib_compress_bound(CHUNK_BYTES)];
        let mut bytes = 0;
        while let Some(chunk) = chunks.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            bytes += compressor.zlib_compress(chunk, &mut out).map_err(|e| format!("{e:?}"))?;
        }
        Ok(bytes)
    };
    let total = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread panicked".to_string())?)
            .sum::<std::result::Result<usize, String>>()
    })?;
    Ok((started.elapsed().as_secs_f64(), total))
}

struct JobFigures {
    seconds: f64,
    peak_bytes: u64,
}

/// Runs the job as a user does: a whole process, start-up included.
fn whole_job(baler: &Path, folder: &Path, data: &Path, pair: usize) -> Result<JobFigures> {
    let (dump, state) = (folder.join(format!("dump-{pair}")), folder.join(format!("state-{pair}")));
    let started = Instant::now();
    let mut job = Command::new(baler)
        .args(["run", concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/compress.sql"), "--job", "bench", "--state"])
        .arg(&state)
        .args(["--set", &format!("INPUT={}/", data.display()), "--set", &format!("OUTPUT={}", dump.display())])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut peak_bytes = 0;
    let status = loop {
        // The peak so far is in the process's own books; the last look is at most 20 ms old.
        peak_bytes = peak_memory(job.id()).unwrap_or(peak_bytes).max(peak_bytes);
        match job.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("the job ended with {status}").into());
    }
    std::fs::remove_dir_all(dump)?;
    std::fs::remove_dir_all(state)?;
    Ok(JobFigures { seconds, peak_bytes })
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned().into()) }
}
