//! `baler generate`: sample data.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::{Output, print_json, print_line};
use crate::error::Result;
use crate::generate::{Compression, GenerateOptions, Generated, Shape, generate};
use crate::options::{format_bytes, parse_bytes};
use crate::runtime;
use crate::session::local_session;
use crate::store::locate;

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// Folder or prefix to write to: ./data or s3://bucket/prefix/.
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
    /// The same seed makes the same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Serialize)]
struct GenerateResult<'a> {
    #[serde(flatten)]
    generated: &'a Generated,
    seconds: f64,
}

pub(super) async fn run(args: GenerateArgs, output: Output) -> Result<ExitCode> {
    let options = GenerateOptions {
        total_bytes: parse_bytes(&args.size)?,
        files: args.files,
        shape: args.shape,
        compress: args.compress,
        seed: args.seed,
    };
    let started = Instant::now();
    let generated = generate_to(&args.to, options).await?;
    let seconds = started.elapsed().as_secs_f64();
    match output {
        Output::Json => print_json(&GenerateResult { generated: &generated, seconds })?,
        Output::Text => print_line(format!(
            "{} objects, {} records, {} ({} stored) at {} in {seconds:.1} s",
            generated.objects,
            generated.records,
            format_bytes(generated.raw_bytes),
            format_bytes(generated.stored_bytes),
            args.to
        )),
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes sample data at a URL.
pub(super) async fn generate_to(url: &str, options: GenerateOptions) -> Result<Generated> {
    let place = locate(&local_session()?.runtime_env(), url)?;
    runtime::spawn_cpu(async move { generate(place.store, &place.path, &options, |_bytes| {}).await })?.join().await?
}
