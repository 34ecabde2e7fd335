//! A topic on a real broker into a dump, against a bare consumer loop and a bare compression loop over the same records, in one run.
//!
//! The consumer only reads; the compressor works from memory on all cores. `ratio` is the slower one's time over that of `baler stream
//! --available-now`, start-up included, which does both and writes (with `--mongodb` into a collection); `CPU` is the sum of their CPU seconds over its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use baler::function::zlib::choose_effort;
use baler_benches::jobs::Query;
use baler_benches::process::{own_cpu_seconds, run_watched};
use baler_benches::{CHUNK_BYTES, Result, bare_loop, keep, median, spread};
use baler_tests::kafka::Kafka;
use baler_tests::mongo::Mongo;
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
        return take_backlog(&args, &topic.url(), folder.path());
    }
    let cores = std::thread::available_parallelism()?.get();
    let (mut rates, mut ratios, mut cpu, mut empty, mut peak, mut records) = (vec![], vec![], vec![], vec![], 0, 0);
    for round in 0..args.rounds {
        let (before, started) = (own_cpu_seconds()?, Instant::now());
        let values = topic.read_values();
        let consumer_seconds = started.elapsed().as_secs_f64();
        let consumed = own_cpu_seconds()?;
        records = values.records;
        let sample: Vec<&[u8]> = values.bytes.chunks(CHUNK_BYTES).take(16).collect();
        let effort = choose_effort(&sample, 9);
        let chosen = own_cpu_seconds()?;
        let (loop_seconds, _) = bare_loop(&values.bytes, effort, cores)?;
        let compressed = own_cpu_seconds()?;
        drop(values);
        let collection = args.mongodb.then(|| Mongo::shared().collection());
        let place = folder.path().join(format!("round-{round}"));
        let output = collection.map_or_else(|| place.join("dump").display().to_string(), |collection| collection.url);
        let query = Query::new(&args.baler, place, &topic.url(), &output)?;
        let feed = run_watched(&mut query.command())?;
        let after = own_cpu_seconds()?;
        empty.push(run_watched(&mut query.command())?.seconds);
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
    keep(&args.json, &figures)?;
    kafka.kill();
    Ok(())
}

/// Catches up with the topic once, and prints its time and peak memory, and what `baler verify` counts.
#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn take_backlog(args: &Args, topic: &str, folder: &Path) -> Result<()> {
    let collection = args.mongodb.then(|| Mongo::shared().collection());
    let output = collection.as_ref().map_or_else(|| folder.join("dump").display().to_string(), |collection| collection.url.clone());
    let query = Query::new(&args.baler, folder.join("backlog"), topic, &output)?;
    let feed = run_watched(&mut query.command())?;
    println!("{} of {} records: {:.1} s, peak memory {} MiB", args.size, args.shape, feed.seconds, feed.peak_bytes >> 20);
    let verified = Command::new(&args.baler).args(["verify", "--job", "bench", "--state"]).arg(query.folder.join("state")).output()?;
    if !verified.status.success() {
        return Err(String::from_utf8_lossy(&verified.stderr).into_owned().into());
    }
    println!("{}", String::from_utf8_lossy(&verified.stdout));
    Ok(())
}
