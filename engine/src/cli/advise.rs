//! `baler advise`: what a job over an input would store and cost, by method and chunk size.

use std::collections::HashMap;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::run::parse_variables;
use super::{Output, print_json, print_line};
use crate::advise::{Forecast, Sample, Way, measure, sample};
use crate::error::Result;
use crate::function::codec::Method;
use crate::options::{format_bytes, parse_bytes};
use crate::runtime;
use crate::session::SessionParts;

/// What each method is measured at: the chunk of a BLOB table where nothing is said.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks which are tried with zlib(9).
const CHUNK_SIZES: [usize; 6] = [16 << 10, 64 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20];
/// A chunk size is good enough when its ratio is within this part of the best.
const GOOD_ENOUGH: f64 = 0.98;
/// Where a dictionary can help: chunks as small as single records.
const RECORD_CHUNK: usize = 16 << 10;

/// What is measured at [`CHUNK_BYTES`].
const METHODS: [(&str, Way); 11] = [
    ("zlib(9)", Way::ZlibCompress(9)),
    ("zlib(6)", Way::ZlibCompress(6)),
    ("zlib(1)", Way::ZlibCompress(1)),
    ("gzip(6)", Way::Compress(Method::Gzip(6))),
    ("zstd(1)", Way::Compress(Method::Zstd(1))),
    ("zstd(3)", Way::Compress(Method::Zstd(3))),
    ("zstd(9)", Way::Compress(Method::Zstd(9))),
    ("zstd(19)", Way::Compress(Method::Zstd(19))),
    ("lz4", Way::Compress(Method::Lz4)),
    ("none", Way::Compress(Method::None)),
    (DICTIONARY, Way::Dictionary(3)),
];
/// What is measured at [`RECORD_CHUNK`].
const RECORD_METHODS: [(&str, Way); 3] =
    [("zlib(9)", Way::ZlibCompress(9)), ("zstd(3)", Way::Compress(Method::Zstd(3))), (DICTIONARY, Way::Dictionary(3))];
const DICTIONARY: &str = "zstd(3) with a dictionary";
/// A sample below this may be too small for a dictionary.
const DICTIONARY_SAMPLE_MIN: usize = 8 << 20;

#[derive(Debug, Args)]
pub(super) struct AdviseArgs {
    /// Object, folder, prefix or glob: ./data/, s3://bucket/prefix/.
    url: String,
    /// Raw bytes to sample, at places all over the input.
    #[arg(long, default_value = "64MiB")]
    sample: String,
    /// Executors to reckon with.
    #[arg(long, default_value_t = 10)]
    executors: u64,
    /// Cores of each of them.
    #[arg(long, default_value_t = 4)]
    cores: u64,
    /// An option of the BLOB table, such as blob.boundary=none.
    #[arg(long = "option", value_name = "KEY=VALUE")]
    options: Vec<String>,
}

/// The advice, for machines.
#[derive(Debug, Serialize)]
struct Advice {
    #[serde(flatten)]
    sample: Sample,
    /// Each method on chunks of 1 MiB.
    methods: Vec<Named>,
    /// zlib(9) on chunks of each size.
    chunk_sizes: Vec<Forecast>,
    /// On chunks of 16 KiB, near to single records: without and with a dictionary which they share.
    small_chunks: Vec<Named>,
    /// The smallest chunk whose ratio is within 2 % of the best.
    best_chunk_bytes: u64,
    executors: u64,
    cores_each: u64,
    /// Seconds of zlib(9) on all of those cores, if store and server keep up.
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Named {
    method: &'static str,
    #[serde(flatten)]
    forecast: Forecast,
}

pub(super) async fn run(args: AdviseArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    let context = parts.local()?;
    let options: HashMap<String, String> = parse_variables(&args.options)?;
    let sample = sample(&context, &args.url, &options, parse_bytes(&args.sample)?).await?;
    let (executors, cores_each) = (args.executors, args.cores);
    let advice = runtime::spawn_blocking(move || advise(sample, executors, cores_each))?.join().await??;
    match output {
        Output::Json => print_json(&advice)?,
        Output::Text => print_advice(&advice, &args.url),
    }
    Ok(ExitCode::SUCCESS)
}

fn advise(sample: Sample, executors: u64, cores_each: u64) -> Result<Advice> {
    let is_small = sample.places.iter().map(Vec::len).sum::<usize>() < DICTIONARY_SAMPLE_MIN;
    let forecast = |way, chunk| Ok(Forecast::new(measure(&sample, way, chunk)?, sample.raw_bytes));
    let measured = |ways: &[(&'static str, Way)], chunk| {
        let named = ways.iter().map(|(method, way)| (way, forecast(*way, chunk).map(|forecast| Named { method, forecast })));
        // Too little data to learn a dictionary from is no reason to give no advice.
        let possible = named.filter(|(way, named)| !(is_small && named.is_err() && matches!(way, Way::Dictionary(_))));
        possible.map(|(_, named)| named).collect::<Result<Vec<_>>>()
    };
    let methods = measured(&METHODS, CHUNK_BYTES)?;
    let chunk_sizes = CHUNK_SIZES.iter().map(|chunk| forecast(Way::ZlibCompress(9), *chunk)).collect::<Result<Vec<_>>>()?;
    let small_chunks = measured(&RECORD_METHODS, RECORD_CHUNK)?;
    let best = chunk_sizes.iter().map(|size| size.ratio).fold(0.0, f64::max);
    let best_chunk_bytes = chunk_sizes.iter().find(|size| size.ratio >= best * GOOD_ENOUGH).map_or(0, |size| size.measured.chunk_bytes);
    let seconds = methods.first().map_or(0.0, |zlib| zlib.forecast.seconds_on(executors * cores_each));
    Ok(Advice { methods, chunk_sizes, small_chunks, best_chunk_bytes, executors, cores_each, seconds, sample })
}

fn print_advice(advice: &Advice, url: &str) {
    let Advice { sample, methods, chunk_sizes, small_chunks, best_chunk_bytes, executors, cores_each, seconds } = advice;
    let about = if sample.is_guess { "about " } else { "" };
    let raw = format_bytes(sample.raw_bytes);
    print_line(format!("{url}: {} objects, {} stored, {about}{raw} raw", sample.objects, format_bytes(sample.stored_bytes)));
    print_line(format!("\n{:<26} {:>8} {:>14} {:>11} {:>10}", "method, chunks of 1 MiB", "ratio", "MB/s per core", "core-hours", "stored"));
    methods.iter().for_each(|named| print_line(row(named.method, &named.forecast)));
    print_line("\nzlib(9) by chunk size (blob.chunk_size)");
    for size in chunk_sizes {
        let mark = if size.measured.chunk_bytes == *best_chunk_bytes { "  ← the smallest within 2 % of the best" } else { "" };
        print_line(format!("{}{mark}", row(&format_bytes(size.measured.chunk_bytes), size)));
    }
    print_line("\nchunks of 16 KiB, near to single records");
    small_chunks.iter().for_each(|named| print_line(row(named.method, &named.forecast)));
    print_line("(a dictionary must be kept beside the documents for ever; no function of Baler's writes with one)");
    if !sample.hardly_compress.is_empty() {
        print_line("\nhardly compress; they may be better off as they are");
        sample.hardly_compress.iter().for_each(|found| print_line(format!("  {} ({:.2}:1)", found.object, found.ratio)));
    }
    let read = sample.read_bytes_per_second / 1e6;
    print_line(format!(
        "\nzlib(9) on {executors} executors of {cores_each} cores like this one: {}; for that the store must read {:.0} MB/s (one stream read the sample at {read:.0}) \
         and the server take {:.0} MB/s",
        format_seconds(*seconds),
        sample.stored_bytes as f64 / seconds / 1e6,
        methods.first().map_or(0.0, |zlib| zlib.forecast.stored_bytes as f64 / seconds / 1e6),
    ));
}

fn row(name: &str, forecast: &Forecast) -> String {
    let Forecast { ratio, bytes_per_second, core_hours, stored_bytes, .. } = forecast;
    format!("{name:<26} {ratio:>8.2} {:>14.0} {core_hours:>11.2} {:>10}", bytes_per_second / 1e6, format_bytes(*stored_bytes))
}

fn format_seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 120.0 => format!("{seconds:.1} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}
