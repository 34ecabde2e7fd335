//! `baler generate`: sample data.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::metrics::MetricsArgs;
use super::run::parse_variables;
use super::{Output, print_json, print_line};
use crate::connector::kafka::KafkaSpec;
use crate::error::{Error, Result};
use crate::generate::topic::{TopicOptions, generate_to_topic};
use crate::generate::{Compression, GenerateOptions, Generated, Shape, generate};
use crate::options::{format_bytes, parse_bytes};
use crate::runtime;
use crate::session::{SessionParts, local_session};
use crate::store::locate;
use crate::telemetry::text::Published;

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// Folder, prefix or topic to write to: ./data, s3://bucket/prefix/ or kafka://host:9092/topic.
    #[arg(long)]
    to: String,
    /// Raw bytes in all, before compression.
    #[arg(long, default_value = "1GiB")]
    size: String,
    /// Number of objects.
    #[arg(long, default_value_t = 8)]
    files: usize,
    /// Compress the objects.
    #[arg(long, value_enum)]
    compress: Option<Compression>,
    /// What the records look like.
    #[arg(long, value_enum, default_value = "json")]
    shape: Shape,
    /// Records for each second, into a topic, for example 20000/s; as fast as possible if not given.
    #[arg(long)]
    rate: Option<String>,
    /// Partitions of a topic that is not there yet.
    #[arg(long, default_value_t = 20)]
    partitions: u32,
    /// A setting of librdkafka, such as security.protocol=SASL_SSL; user and password come from KAFKA_USERNAME and KAFKA_PASSWORD.
    #[arg(long = "client", value_name = "KEY=VALUE")]
    client: Vec<String>,
    /// The same seed makes the same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    metrics: MetricsArgs,
}

#[derive(Debug, Serialize)]
struct GenerateResult<'a> {
    #[serde(flatten)]
    generated: &'a Generated,
    seconds: f64,
}

pub(super) async fn run(args: GenerateArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    let started = Instant::now();
    let served = args.metrics.serve(&Published::default(), None, parts).await?;
    let generated = if args.to.starts_with("kafka://") { generate_topic(&args).await? } else { generate_objects(&args).await? };
    let seconds = started.elapsed().as_secs_f64();
    args.metrics.finish(served).await;
    match output {
        Output::Json => print_json(&GenerateResult { generated: &generated, seconds })?,
        Output::Text => {
            let what = if args.to.starts_with("kafka://") { "topic" } else { "objects" };
            let Generated { objects, raw_bytes, stored_bytes, records } = generated;
            let (raw, stored) = (format_bytes(raw_bytes), format_bytes(stored_bytes));
            print_line(format!("{objects} {what}, {records} records, {raw} ({stored} stored) at {} in {seconds:.1} s", args.to));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn generate_topic(args: &GenerateArgs) -> Result<Generated> {
    let client = parse_variables(&args.client)?.into_iter().map(|(key, value)| (format!("kafka.client.{key}"), value)).collect();
    let spec = KafkaSpec::try_new(&args.to, &client)?;
    let wrong = |text: &str| Error::config(format!("--rate {text}: write a number of records for each second, for example 20000/s"));
    let rate = match &args.rate {
        Some(text) => Some(text.trim_end_matches("/s").parse().ok().filter(|rate: &u64| *rate > 0).ok_or_else(|| wrong(text))?),
        None => None,
    };
    let options = TopicOptions {
        total_bytes: parse_bytes(&args.size)?,
        shape: args.shape,
        seed: args.seed,
        partitions: args.partitions,
        rate,
        compress: args.compress,
    };
    runtime::spawn_blocking(move || generate_to_topic(&spec, &options))?.join().await?
}

async fn generate_objects(args: &GenerateArgs) -> Result<Generated> {
    if args.rate.is_some() || !args.client.is_empty() {
        return Err(Error::config("--rate and --client are for a topic: --to kafka://host:9092/topic"));
    }
    let options = GenerateOptions {
        total_bytes: parse_bytes(&args.size)?,
        files: args.files,
        shape: args.shape,
        compress: args.compress,
        seed: args.seed,
    };
    generate_to(&args.to, options).await
}

/// Makes sample data at a URL.
pub(super) async fn generate_to(url: &str, options: GenerateOptions) -> Result<Generated> {
    let place = locate(&local_session()?.runtime_env(), url)?;
    runtime::spawn_cpu(async move { generate(place.store, &place.path, &options, |_bytes| {}).await })?.join().await?
}
