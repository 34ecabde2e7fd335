//! The command line: one file for each command.
//!
//! Rows and results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed or a difference found,
//! 2 usage or configuration, 3 a server cannot be reached.

mod demo;
mod generate;
mod progress;
mod run;
mod sql;
mod verify;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::error::{Error, Result};
use crate::runtime;

/// Compresses objects into counted, verified documents: bulk ETL into MongoDB on DataFusion.
#[derive(Debug, Parser)]
#[command(name = "baler", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How results are written to stdout.
    #[arg(long, global = true, env = "BALER_OUTPUT", value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes sample data, compresses it in this process, verifies it and prints the figures.
    Demo(demo::DemoArgs),
    /// Runs a batch job from a SQL file; the same command again resumes it.
    Run(run::RunArgs),
    /// Runs queries, or reads them from the terminal.
    Sql(sql::SqlArgs),
    /// Reconciles a job's manifest, receipts, stored documents and (with --deep) source bytes.
    Verify(verify::VerifyArgs),
    /// Makes sample data in files or S3.
    Generate(generate::GenerateArgs),
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = !error.use_stderr();
            // A closed stdout is no reason to fail.
            drop(error.print());
            return ExitCode::from(if is_help { 0 } else { 2 });
        }
    };
    start_log();
    let ended = runtime::io().and_then(|io| io.block_on(dispatch(cli)));
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn dispatch(cli: Cli) -> Result<ExitCode> {
    let output = cli.output;
    match cli.command {
        Command::Demo(args) => demo::run(args).await,
        Command::Run(args) => run::run(args, output).await,
        Command::Sql(args) => sql::run(args).await,
        Command::Verify(args) => verify::run(args, output).await,
        Command::Generate(args) => generate::run(args, output).await,
    }
}

/// Warnings of ours go to stderr; `BALER_LOG` takes tracing's filter language.
fn start_log() {
    let filter = std::env::var("BALER_LOG").unwrap_or_else(|_| "error,baler=warn".to_string());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter).unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("baler=warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    if let Err(error) = log.try_init() {
        eprintln!("warning: no log: {error}");
    }
}

/// Writes one line of result.
#[expect(clippy::print_stdout, reason = "results of commands belong on stdout")]
fn print_line(line: impl std::fmt::Display) {
    println!("{line}");
}

/// Writes a result as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print_line(serde_json::to_string_pretty(value).map_err(|e| Error::internal("a result does not encode").with_source(e))?);
    Ok(())
}

/// Resolves when the process is asked to stop.
async fn stop_signal() -> Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: std::io::Error| Error::internal("cannot listen for signals").with_source(e);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| "SIGINT").map_err(failed),
    }
}
