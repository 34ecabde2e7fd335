//! A topic on a real broker into a dump, against a bare consumer loop and a bare compression loop over the same records, in one run.
//!
//! The consumer only reads; the compressor works from memory on all cores. `ratio` is the slower one's time over that of `baler stream
//! --available-now`, start-up included, which does both and writes (with `--mongodb` into a collection); `CPU` is the sum of their CPU seconds over its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use baler::function::zlib::choose_effort;
use baler_benches::{CHUNK_BYTES, JobFigures, Result, bare_loop, cpu_seconds_of, median, run_watched, spread};
use baler_tests::kafka::Kafka;
use baler_tests::mongo::{Collection, Mongo};
use baler_tests::topic::Topic;
use clap::Parser;

#[derive(Debug, Parser)]
struct Args {
    /// The `baler` binary to measure.
    #[arg(long)]
    baler: PathBuf,
    /// Bytes of all records.
    #[arg(long, default_value = "1GiB")]
    size: String,
    /// What the records look like: `json` ones have about 1 KB, `csv` ones about 120 B.
    #[arg(long, default_value = "json")]
    shape: String,
    /// One round without the bare loops, which hold all records in memory: how much a backlog of any size takes.
    #[arg(long)]
    backlog: bool,
    /// Kafka partitions.
    #[arg(long, default_value = "20")]
    partitions: String,
    /// Writes into a collection of the tests' MongoDB wire server in place of a dump; the server shares the cores too.
    #[arg(long)]
    mongodb: bool,
    /// Rounds; the first one is not counted.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Where the figures are kept as JSON.
    #[arg(long, default_value = "target/benches/feed.json")]
    json: PathBuf,
}

#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn main() -> Result<()> {
    let args = Args::parse();
    let (kafka, folder) = (Kafka::start(), tempfile::tempdir()?);
    let topic = kafka.find("bench");
    run_watched(Command::new(&args.baler).args([
        "generate",
        "--shape",
        &args.shape,
        "--size",
        &args.size,
        "--partitions",
        &args.partitions,
        "--to",
        &topic.url(),
    ]))?;
    if args.backlog {
        return take_backlog(&args, &topic, folder.path());
    }
    let cores = std::thread::available_parallelism()?.get();
    let own = || cpu_seconds_of(std::process::id()).ok_or("no /proc/self/stat");
    let (mut rates, mut ratios, mut cpu, mut empty, mut peak, mut records) = (vec![], vec![], vec![], vec![], 0, 0);
    for round in 0..args.rounds {
        let (before, started) = (own()?, Instant::now());
        let values = topic.read_values();
        let consumer_seconds = started.elapsed().as_secs_f64();
        let consumed = own()?;
        records = values.records;
        let sample: Vec<&[u8]> = values.bytes.chunks(CHUNK_BYTES).take(16).collect();
        let effort = choose_effort(&sample, 9);
        let chosen = own()?;
        let (loop_seconds, _) = bare_loop(&values.bytes, effort, cores)?;
        let compressed = own()?;
        drop(values);
        let collection = args.mongodb.then(|| Mongo::shared().collection());
        let query = Query::new(&args.baler, folder.path(), &topic, round, collection.as_ref())?;
        let feed = query.run()?;
        let after = own()?;
        empty.push(query.run()?.seconds);
        std::fs::remove_dir_all(query.folder)?;
        if round > 0 {
            rates.push(records as f64 / feed.seconds * 60.0 / 1e6);
            ratios.push(consumer_seconds.max(loop_seconds) / feed.seconds);
            let bare = consumed.own - before.own + compressed.own - chosen.own;
            cpu.push(bare / (after.children - compressed.children));
            peak = peak.max(feed.peak_bytes);
            println!("consumer {consumer_seconds:.2} s, compression {loop_seconds:.2} s, feed {:.2} s", feed.seconds);
        }
    }
    let (low, high) = spread(&ratios);
    println!("{} in {records} records over {} partitions, {cores} cores shared with the broker", args.size, args.partitions);
    println!("{:.1} M records a minute, {:.3} ({low:.3}–{high:.3}) of the slower bare loop", median(&rates), median(&ratios));
    println!("CPU, both bare loops ÷ feed: {:.3}; peak memory {} MiB", median(&cpu), peak >> 20);
    println!("nothing new, start-up included: {:.3} s", median(&empty));
    let figures = serde_json::json!({
        "size": args.size, "into": if args.mongodb { "mongodb" } else { "bson" }, "partitions": args.partitions, "records": records, "million_records_per_minute": rates, "ratio": ratios,
        "ratio_median": median(&ratios), "cpu_ratio": cpu, "cpu_ratio_median": median(&cpu), "peak_bytes": peak, "nothing_new_seconds": empty,
    });
    if let Some(folder) = args.json.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&args.json, serde_json::to_vec_pretty(&figures)?)?;
    kafka.kill();
    Ok(())
}

/// Catches up with the topic once, and prints its records, time and peak memory.
#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn take_backlog(args: &Args, topic: &Topic<'_>, folder: &Path) -> Result<()> {
    let collection = args.mongodb.then(|| Mongo::shared().collection());
    let query = Query::new(&args.baler, folder, topic, 0, collection.as_ref())?;
    let feed = query.run()?;
    println!("{} of {} records: {:.1} s, peak memory {} MiB", args.size, args.shape, feed.seconds, feed.peak_bytes >> 20);
    println!("{}", query.verify()?);
    Ok(())
}

/// A query with a state of its own.
struct Query<'a> {
    baler: &'a Path,
    folder: PathBuf,
    input: String,
    output: String,
}

impl<'a> Query<'a> {
    fn new(baler: &'a Path, folder: &Path, topic: &Topic<'_>, round: usize, collection: Option<&Collection<'_>>) -> Result<Self> {
        let folder = folder.join(format!("round-{round}"));
        std::fs::create_dir(&folder)?;
        let statement = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/stream.sql"))?;
        let into_dump = |text: String| {
            text.replace("STORED AS MONGODB", "STORED AS BSON").replace("OPTIONS ('mongodb.indexes' 'compression_ratio, timestamp')", "")
        };
        std::fs::write(folder.join("stream.sql"), if collection.is_some() { statement } else { into_dump(statement) })?;
        let output = collection.map_or_else(|| folder.join("dump").display().to_string(), |collection| collection.url.clone());
        Ok(Self { baler, folder, input: topic.url(), output })
    }

    /// Streams all that is new in the topic.
    fn run(&self) -> Result<JobFigures> {
        let mut feed = Command::new(self.baler);
        feed.arg("stream").arg(self.folder.join("stream.sql")).args(["--name", "bench", "--available-now", "--state"]);
        feed.arg(self.folder.join("state")).args(["--set", &format!("INPUT={}", self.input), "--set", &format!("OUTPUT={}", self.output)]);
        run_watched(&mut feed)
    }

    /// What `baler verify` says of it.
    fn verify(&self) -> Result<String> {
        let verified = Command::new(self.baler).args(["verify", "--job", "bench", "--state"]).arg(self.folder.join("state")).output()?;
        if !verified.status.success() {
            return Err(String::from_utf8_lossy(&verified.stderr).into_owned().into());
        }
        Ok(String::from_utf8_lossy(&verified.stdout).into_owned())
    }
}
