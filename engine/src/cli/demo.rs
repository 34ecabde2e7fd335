//! `baler demo`: the whole batch job on this machine, from nothing to a verified dump.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::generate::generate_to;
use super::print_line;
use super::run::{prepare_job, print_outcome, run_job};
use super::verify::print_report;
use crate::error::{Error, Result};
use crate::generate::{Compression, GenerateOptions, Shape};
use crate::job::JobRef;
use crate::job::verify::{Audited, verify};
use crate::options::{format_bytes, parse_bytes};
use crate::runtime::stop_signal;
use crate::session::SessionParts;

/// The job which the demo runs; users start from the same file.
const COMPRESS_SQL: &str = include_str!("../../../sql/compress.sql");

/// Marks a folder as the demo's own, so that nothing else is ever replaced.
const MARKER: &str = ".baler-demo";

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Where data, dump and state are left.
    #[arg(long, default_value = "./baler-demo")]
    dir: PathBuf,
    /// Raw bytes of sample data.
    #[arg(long, default_value = "512MiB")]
    size: String,
}

pub(super) async fn run(args: DemoArgs, parts: &SessionParts) -> Result<ExitCode> {
    tokio::select! {
        code = run_demo(&args, parts) => code,
        signal = stop_signal() => {
            eprintln!("stopped by {}", signal?);
            Ok(ExitCode::from(1))
        }
    }
}

async fn run_demo(args: &DemoArgs, parts: &SessionParts) -> Result<ExitCode> {
    prepare_folder(&args.dir)?;
    let folder = |name: &str| args.dir.join(name).to_string_lossy().into_owned();
    let bytes = parse_bytes(&args.size)?;
    let started = Instant::now();
    // Half as plain files, which are split, and half as gzip, which are streams.
    let plain = GenerateOptions { total_bytes: bytes / 2, files: 2, shape: Shape::Json, compress: None, seed: 1 };
    let gzip = GenerateOptions { compress: Some(Compression::Gzip), seed: 2, ..plain.clone() };
    let mut records = 0;
    for (name, options) in [("data/plain", plain), ("data/gzip", gzip)] {
        records += generate_to(&folder(name), options).await?.records;
    }
    print_line(format!("1. made {} of JSON events, {records} records, in {:.1} s", format_bytes(bytes), started.elapsed().as_secs_f64()));

    let context = parts.local()?;
    let variables = HashMap::from([("INPUT".to_string(), folder("data/")), ("OUTPUT".to_string(), folder("dump"))]);
    let job = JobRef::try_new(&folder("state"), "demo")?;
    let started = Instant::now();
    let prepared = prepare_job(&context, None, COMPRESS_SQL, &variables, job.clone()).await?;
    let outcome = run_job("demo", prepared).await?;
    let seconds = started.elapsed().as_secs_f64();
    print_line(format!("2. compressed it: {}/s", format_bytes((outcome.commit.raw_bytes as f64 / seconds) as u64)));
    print_outcome(&outcome, seconds);

    let started = Instant::now();
    let report = verify(&context, None, Audited::job(&context.runtime_env(), &job).await?, true).await?;
    print_line(format!("3. verified it in {:.1} s", started.elapsed().as_secs_f64()));
    print_report(&report);
    if outcome.commit.records != records {
        return Err(Error::internal(format!("{records} records were made, {} were stored", outcome.commit.records)));
    }
    print_next(&args.dir);
    Ok(ExitCode::from(u8::from(!report.is_sound())))
}

fn prepare_folder(dir: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::permanent(format!("cannot prepare {}: {e}", dir.display()));
    let is_empty = !dir.exists() || std::fs::read_dir(dir).map_err(failed)?.next().is_none();
    if !is_empty && !dir.join(MARKER).exists() {
        return Err(Error::config(format!("{} is in use; name a new folder by --dir", dir.display())));
    }
    for name in ["data", "dump", "state"] {
        match std::fs::remove_dir_all(dir.join(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
    }
    std::fs::create_dir_all(dir).map_err(failed)?;
    std::fs::write(dir.join(MARKER), "Made by `baler demo`, which replaces data, dump and state here when it runs again.\n").map_err(failed)
}

fn print_next(dir: &Path) {
    let dir = dir.display();
    print_line("What next:");
    print_line(format!("  see the documents      ls -l {dir}/dump/compressed_data"));
    print_line(format!("  see the job's state    ls {dir}/state/demo"));
    print_line(format!("  verify it again        baler verify --job demo --state {dir}/state --deep"));
    print_line(format!("  get the data back      baler restore --job demo --state {dir}/state --to {dir}/back"));
    print_line(format!(
        "  your own data          baler run sql/compress.sql --job mine --state ./baler-state --set INPUT=s3://bucket/prefix/ --set OUTPUT={dir}/mine"
    ));
}
