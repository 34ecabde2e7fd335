//! The whole job against a bare compression loop, side by side in one run.
//!
//! The loop compresses the same bytes, in the same chunks, with the same effort, on as many threads as there are cores, from
//! memory: nothing that also reads, encodes and writes can be faster. The two alternate, and the ratio is taken pair by pair.
//!
//! `time` is the ratio of elapsed times, which is what users wait for; on a machine that others use too, it says as much about
//! them. `CPU` is the ratio of CPU seconds, kernel's included: it leaves out only the time in which cores are idle.
//!
//! With `--servers` the job reads from MinIO and writes into MongoDB. Then a second bare loop sends the same documents by `insert_many`, as
//! many batches at once as the job: the server's own ceiling. `time` is the slower loop's time over the job's, and `CPU` is of both loops.
//! Servers on the same cores have them for themselves in one loop and not at all in the other; a job shares them with its servers. So `both`
//! holds both loops, one after the other, against the job: at 1 it does all in the time in which they do theirs, and MinIO's part too.
//!
//! With `--apart` as well, the servers have the last core for themselves, and both loops and the job the others, as where servers are other
//! machines: then `time` compares like with like.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use baler::function::zlib::choose_effort;
use baler_benches::process::{JobFigures, own_cpu_seconds, run_watched};
use baler_benches::{CHUNK_BYTES, Result, bare_loop, jobs, keep, median, spread};
use baler_tests::minio::{Bucket, Minio};
use baler_tests::mongo::{Collection, Mongo};
use bson::RawDocumentBuf;
use clap::Parser;

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
    /// Reads from the tests' MinIO and writes into their MongoDB wire server, with majority and journal.
    #[arg(long)]
    servers: bool,
    /// Gives the servers the last core, and the loops and the job all others (Linux' `taskset`).
    #[arg(long, requires = "servers")]
    apart: bool,
    /// Where the figures are kept as JSON.
    #[arg(long, default_value = "target/benches/whole.json")]
    json: PathBuf,
}

#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn main() -> Result<()> {
    let args = Args::parse();
    if args.apart {
        start_servers_apart()?;
    }
    let cores = std::thread::available_parallelism()?.get();
    let mut figures = Vec::new();
    println!("{cores} cores, {} of each shape, {} pairs", args.size, args.pairs - 1);
    println!(
        "{:<8} {:>10} {:>12} {:>12} {:>7} {:>13} {:>7} {:>7} {:>9} {:>8} {:>10}",
        "shape", "loop MB/s", "server MB/s", "job MB/s", "time", "(min–max)", "both", "CPU", "size", "effort", "peak MiB"
    );
    for shape in &args.shapes {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        jobs::generate(&args.baler, &args.size, 2, shape, &data)?;
        let mut place = if args.servers { Place::servers(&args, shape)? } else { Place::Files(data.display().to_string()) };
        let corpus = read_corpus(&data)?;
        let sample: Vec<&[u8]> = corpus.chunks(CHUNK_BYTES).take(16).collect();
        let effort = choose_effort(&sample, 9);
        let (mut loops, mut servers, mut wholes, mut ratios, mut both) = (vec![], vec![], vec![], vec![], vec![]);
        let (mut cpu, mut peak, mut stored) = (vec![], 0, 0);
        for pair in 0..args.pairs {
            let before = own_cpu_seconds()?;
            let (loop_seconds, loop_bytes) = bare_loop(&corpus, effort, cores)?;
            let server_seconds = place.insert_loop(2 * (cores + 1));
            let between = own_cpu_seconds()?;
            let job = place.whole_job(&args.baler, folder.path(), pair)?;
            let after = own_cpu_seconds()?;
            let rate = |seconds: f64| corpus.len() as f64 / 1e6 / seconds;
            if pair > 0 {
                loops.push(rate(loop_seconds));
                servers.push(if args.servers { rate(server_seconds) } else { 0.0 });
                wholes.push(rate(job.seconds));
                ratios.push(loop_seconds.max(server_seconds) / job.seconds);
                both.push((loop_seconds + server_seconds) / job.seconds);
                cpu.push((between.own - before.own) / (after.children - between.children));
                peak = peak.max(job.peak_bytes);
                stored = loop_bytes;
            }
        }
        let (low, high) = spread(&ratios);
        println!(
            "{shape:<8} {:>10.1} {:>12.1} {:>12.1} {:>7.3} {low:>6.3}–{high:<6.3} {:>7.3} {:>7.3} {:>7.2}:1 {effort:>8} {:>10}",
            median(&loops),
            median(&servers),
            median(&wholes),
            median(&ratios),
            median(&both),
            median(&cpu),
            corpus.len() as f64 / stored as f64,
            peak >> 20
        );
        figures.push(serde_json::json!({
            "shape": shape, "cores": cores, "raw_bytes": corpus.len(), "effort": effort, "loop_mb_per_s": loops, "job_mb_per_s": wholes,
            "server_mb_per_s": servers, "ratio": ratios, "ratio_median": median(&ratios), "both_loops_ratio": both, "cpu_ratio": cpu,
            "cpu_ratio_median": median(&cpu), "loop_compressed_bytes": stored, "job_peak_bytes": peak,
        }));
    }
    keep(&args.json, &figures.into())
}

/// Starts the servers on the last core, which they keep, and leaves it to them.
fn start_servers_apart() -> Result<()> {
    let last = std::thread::available_parallelism()?.get() - 1;
    if last == 0 {
        return Err("one core cannot be shared out".into());
    }
    stay_on(&last.to_string())?;
    Minio::plain();
    Mongo::shared();
    stay_on(&format!("0-{}", last - 1))
}

/// Keeps this process' threads, and what they start from now on, on these cores.
fn stay_on(cores: &str) -> Result<()> {
    let pid = std::process::id().to_string();
    jobs::run(Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", cores, &pid]))
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

/// Where a job reads and writes.
enum Place {
    /// From a folder into a dump.
    Files(String),
    /// From a bucket into collections; and what the first job stored, in batches as it sends them.
    Servers { bucket: Bucket, batches: Vec<Vec<RawDocumentBuf>> },
}

impl Place {
    fn servers(args: &Args, shape: &str) -> Result<Self> {
        let bucket = Minio::plain().make_bucket();
        let mut generate = jobs::generate_call(&args.baler, &args.size, 2, shape, &bucket.url("data"));
        jobs::run(generate.envs(Minio::plain().environment()))?;
        Ok(Self::Servers { bucket, batches: Vec::new() })
    }

    /// Runs the job as a user does: a whole process, start-up included.
    fn whole_job(&mut self, baler: &Path, folder: &Path, pair: usize) -> Result<JobFigures> {
        let (dump, state) = (folder.join(format!("dump-{pair}")), folder.join(format!("state-{pair}")));
        let figures = match self {
            Self::Files(data) => {
                let figures = run_watched(&mut jobs::compress(baler, data, &dump.display().to_string(), &state))?;
                std::fs::remove_dir_all(dump)?;
                figures
            }
            Self::Servers { bucket, batches } => {
                let collection = Mongo::shared().collection();
                let mut job = jobs::compress(baler, &bucket.url("data"), &collection.url, &state);
                let figures = run_watched(job.envs(Minio::plain().environment()))?;
                if batches.is_empty() {
                    *batches = in_batches(&collection)?;
                }
                figures
            }
        };
        std::fs::remove_dir_all(state)?;
        Ok(figures)
    }

    /// Seconds in which the server takes the same documents from a loop that does nothing else; 0 without a server.
    fn insert_loop(&self, at_once: usize) -> f64 {
        let Self::Servers { batches, .. } = self else { return 0.0 };
        let collection = Mongo::shared().collection();
        let started = Instant::now();
        // As `sql/compress-to-mongodb.sql` does.
        for field in ["compression_ratio", "timestamp"] {
            collection.index(field);
        }
        collection.insert_batches(batches, at_once);
        started.elapsed().as_secs_f64()
    }
}

/// What a collection holds, in batches of 16 MiB, the job's default.
fn in_batches(collection: &Collection<'_>) -> Result<Vec<Vec<RawDocumentBuf>>> {
    let (mut batches, mut bytes) = (vec![Vec::new()], 0);
    for document in collection.read() {
        let document = RawDocumentBuf::from_document(&document)?;
        bytes += document.as_bytes().len();
        if bytes > 16 << 20 {
            bytes = document.as_bytes().len();
            batches.push(Vec::new());
        }
        batches.last_mut().ok_or("no batch")?.push(document);
    }
    Ok(batches)
}
