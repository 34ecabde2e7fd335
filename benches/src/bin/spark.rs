//! The seed's jobs on Spark and on Baler: the same input, cores and sink, alternating in one run.
//!
//! Every figure is of whole processes, from start to end, with all which they start; a server's part is not counted. A round runs
//! every system once. The first round is not counted: in it, what each system wrote is read by code of neither, and has to give the
//! input, byte for byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use baler_benches::jobs::{self, Query};
use baler_benches::process::{TreeFigures, run_tree, seconds_to_first_document};
use baler_benches::spark::Spark;
use baler_benches::{Result, keep, median};
use baler_tests::dump_reader::{Stored, read_dump};
use baler_tests::feed::expect_values;
use baler_tests::kafka::Kafka;
use baler_tests::mongo::{Collection, Mongo};
use baler_tests::topic::Topic;
use clap::Parser;
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Args {
    /// The `baler` binary to measure.
    #[arg(long)]
    baler: PathBuf,
    /// Bytes of each input.
    #[arg(long, default_value = "1GiB")]
    size: String,
    /// Objects which share them: Spark reads each as a whole, and Baler has several splits to share too.
    #[arg(long, default_value_t = 16)]
    files: usize,
    /// Shapes of `baler generate` to run the batch job on.
    #[arg(long, value_delimiter = ',', default_value = "json,logs,csv,text,binary")]
    shapes: Vec<String>,
    /// Runs the streaming job in place of the batch job, over a topic on a real broker which shares the cores.
    #[arg(long)]
    stream: bool,
    /// Kafka partitions.
    #[arg(long, default_value_t = 20)]
    partitions: i32,
    /// Writes into collections of the tests' MongoDB wire server in place of dumps, with majority and journal. The server shares the cores.
    #[arg(long)]
    mongodb: bool,
    /// Rounds; the first one is not counted.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Where the figures are kept as JSON.
    #[arg(long, default_value = "target/benches/spark.json")]
    json: PathBuf,
}

#[derive(Debug, Clone, Copy)]
enum System {
    Baler,
    Python,
    Jvm,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            Self::Baler => "baler",
            Self::Python => "spark, Python",
            Self::Jvm => "spark, JVM",
        }
    }
}

/// One run of one system: a folder of its own, and where it writes.
struct Run {
    folder: PathBuf,
    output: String,
    collection: Option<Collection<'static>>,
}

impl Run {
    fn new(number: usize, folder: &Path, into_mongodb: bool) -> Result<Self> {
        let folder = folder.join(format!("run-{number}"));
        std::fs::create_dir(&folder)?;
        let collection = into_mongodb.then(|| Mongo::shared().collection());
        let output = collection.as_ref().map_or_else(|| folder.join("dump").display().to_string(), |collection| collection.url.clone());
        Ok(Self { folder, output, collection })
    }

    fn read(&self) -> Stored {
        self.collection.as_ref().map_or_else(|| read_dump(Path::new(&self.output)), |collection| Stored::new(collection.read()))
    }
}

/// One input, the job over it, and what must be stored of it.
struct Task<'a> {
    name: String,
    raw_bytes: u64,
    systems: &'a [System],
    /// Makes the call of a system, over the input or over a tiny one.
    command: &'a dyn Fn(System, &Run, bool) -> Result<Command>,
    check: &'a dyn Fn(&Stored),
}

#[derive(Debug, Default)]
struct Measured {
    seconds: Vec<f64>,
    cpu_seconds: Vec<f64>,
    peak_bytes: Vec<f64>,
    first_document_seconds: Vec<f64>,
    compressed_bytes: u64,
}

#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn main() -> Result<()> {
    let args = Args::parse();
    let (folder, cores) = (tempfile::tempdir()?, std::thread::available_parallelism()?.get());
    let spark = Spark::prepare(cores, folder.path())?;
    let sink = if args.mongodb { "collections, majority and journal" } else { "dumps, synced to the disk" };
    println!("{}; {} of each input, {cores} cores, {} rounds, into {sink}", spark.description(), args.size, args.rounds - 1);
    let figures = if args.stream {
        vec![stream(&args, &spark, folder.path())?]
    } else {
        args.shapes.iter().map(|shape| batch(&args, &spark, folder.path(), shape)).collect::<Result<_>>()?
    };
    keep(&args.json, &figures.into())
}

fn batch(args: &Args, spark: &Spark, folder: &Path, shape: &str) -> Result<Value> {
    let folder = folder.join(shape);
    let [data, tiny] = ["data", "tiny"].map(|name| folder.join(name));
    std::fs::create_dir(&folder)?;
    jobs::generate(&args.baler, &args.size, args.files, shape, &data)?;
    jobs::generate(&args.baler, "1KiB", 1, shape, &tiny)?;
    let expected = read_objects(&data)?;
    let command = |system: System, run: &Run, is_tiny: bool| -> Result<Command> {
        let input = if is_tiny { &tiny } else { &data }.display().to_string();
        Ok(match system {
            System::Baler => jobs::compress(&args.baler, &input, &run.output, &run.folder.join("state")),
            System::Python => spark.compress_in_python(&input, &run.output),
            System::Jvm => spark.compress_in_jvm(&input, &run.output),
        })
    };
    let task = Task {
        name: format!("batch job, {shape}"),
        raw_bytes: expected.values().map(|bytes| bytes.len() as u64).sum(),
        systems: &[System::Baler, System::Python, System::Jvm],
        command: &command,
        check: &|stored: &Stored| stored.expect_objects(&expected),
    };
    let figures = compare(args, &folder, &task)?;
    std::fs::remove_dir_all(folder)?;
    Ok(figures)
}

/// URI → bytes.
fn read_objects(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut objects = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        objects.insert(format!("file://{}", path.display()), std::fs::read(path)?);
    }
    Ok(objects)
}

fn stream(args: &Args, spark: &Spark, folder: &Path) -> Result<Value> {
    let kafka = Kafka::start();
    let fill = |name: &str, size: &str| -> Result<Topic<'_>> {
        let topic = kafka.find(name);
        let partitions = args.partitions.to_string();
        jobs::run(Command::new(&args.baler).args(["generate", "--size", size, "--partitions", &partitions, "--to", &topic.url()]))?;
        Ok(topic)
    };
    let (full, tiny) = (fill("full", &args.size)?, fill("tiny", "1KiB")?);
    let expected = full.read();
    let command = |system: System, run: &Run, is_tiny: bool| -> Result<Command> {
        let topic = if is_tiny { &tiny } else { &full };
        Ok(match system {
            System::Baler => Query::new(&args.baler, run.folder.join("query"), &topic.url(), &run.output)?.command(),
            System::Python | System::Jvm => {
                spark.stream(&format!("127.0.0.1:{}", kafka.port), &topic.name, &run.output, &run.folder.join("checkpoint"))
            }
        })
    };
    let task = Task {
        name: format!("streaming job, {} records", expected.len()),
        raw_bytes: expected.values().map(|record| record.value.as_ref().map_or(0, Vec::len) as u64 + 1).sum(),
        systems: &[System::Baler, System::Python],
        command: &command,
        check: &|stored: &Stored| expect_values(&full.name, &expected, stored),
    };
    let figures = compare(args, folder, &task)?;
    kafka.kill();
    Ok(figures)
}

/// Runs all systems in turn and prints what each took.
#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn compare(args: &Args, folder: &Path, task: &Task<'_>) -> Result<Value> {
    let mut all: Vec<_> = task.systems.iter().map(|system| (*system, Measured::default())).collect();
    for round in 0..args.rounds {
        for (place, (system, measured)) in all.iter_mut().enumerate() {
            let run = Run::new(2 * (round * task.systems.len() + place), folder, args.mongodb)?;
            let TreeFigures { seconds, cpu_seconds, peak_bytes } = run_tree(&mut (task.command)(*system, &run, false)?)?;
            if round == 0 {
                let stored = run.read();
                measured.compressed_bytes = stored.compressed_bytes();
                (task.check)(&stored);
            }
            std::fs::remove_dir_all(&run.folder)?;
            let start = Run::new(2 * (round * task.systems.len() + place) + 1, folder, false)?;
            let first = seconds_to_first_document(&mut (task.command)(*system, &start, true)?, Path::new(&start.output))?;
            std::fs::remove_dir_all(&start.folder)?;
            if round > 0 {
                measured.seconds.push(seconds);
                measured.cpu_seconds.push(cpu_seconds);
                measured.peak_bytes.push(peak_bytes as f64);
                measured.first_document_seconds.push(first);
            }
        }
    }
    println!("\n{} ({:.0} MB)", task.name, task.raw_bytes as f64 / 1e6);
    println!("{:<15} {:>8} {:>12} {:>9} {:>8} {:>18}", "", "MB/s", "CPU s per GB", "peak MiB", "ratio", "first document, s");
    let figures: Vec<Value> = all.iter().map(|(system, measured)| measured.show(*system, task.raw_bytes)).collect();
    let baler = &all[0].1;
    for (system, other) in &all[1..] {
        let [time, cpu, memory, start] = other.quotients(baler);
        let size = other.compressed_bytes as f64 / baler.compressed_bytes as f64;
        println!(
            "{} ÷ baler: time {time:.1}, CPU time {cpu:.1}, memory {memory:.1}, first document {start:.1}, stored bytes {size:.3}",
            system.name()
        );
    }
    Ok(json!({ "task": task.name, "raw_bytes": task.raw_bytes, "systems": figures }))
}

impl Measured {
    /// The medians of time, CPU time, memory and start over another system's.
    fn quotients(&self, other: &Self) -> [f64; 4] {
        let all = |one: &Self| [&one.seconds, &one.cpu_seconds, &one.peak_bytes, &one.first_document_seconds].map(|values| median(values));
        let (ours, theirs) = (all(self), all(other));
        std::array::from_fn(|place| ours[place] / theirs[place])
    }

    #[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
    fn show(&self, system: System, raw_bytes: u64) -> Value {
        let raw = raw_bytes as f64;
        println!(
            "{:<15} {:>8.1} {:>12.1} {:>9.0} {:>6.2}:1 {:>18.3}",
            system.name(),
            raw / 1e6 / median(&self.seconds),
            median(&self.cpu_seconds) / (raw / 1e9),
            median(&self.peak_bytes) / f64::from(1 << 20),
            raw / self.compressed_bytes as f64,
            median(&self.first_document_seconds)
        );
        json!({
            "system": system.name(), "seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "peak_bytes": self.peak_bytes,
            "first_document_seconds": self.first_document_seconds, "compressed_bytes": self.compressed_bytes,
        })
    }
}
