//! The command line: one file for each command.
//!
//! Rows and results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed or a difference found,
//! 2 usage or configuration, 3 a server cannot be reached.

mod activity;
mod advise;
mod chaos;
mod check;
mod checkpoint;
mod convert;
mod dead_letters;
mod demo;
mod generate;
mod health;
mod jobs;
mod metrics;
mod operator;
mod progress;
mod prompt;
mod restore;
mod run;
mod servers;
mod shell;
mod sql;
mod stream;
mod tls;
mod verify;

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Command as ClapCommand, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::cluster::defaults::{EXECUTOR_FLAGS, FlagDefault, SCHEDULER_FLAGS};
use crate::error::{Error, Result};
use crate::migrate::submit;
use crate::runtime;
use crate::session::SessionParts;
use crate::telemetry::log::{self, LogFormat};
use crate::telemetry::trace;

/// Compresses objects into counted, verified documents: bulk ETL into MongoDB on DataFusion.
#[derive(Debug, Parser)]
#[command(name = "baler", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How results are written to stdout.
    #[arg(long, global = true, env = "BALER_OUTPUT", value_enum, default_value = "text")]
    output: Output,
    /// The form of log lines and progress on stderr: text, JSON, or by where it runs.
    #[arg(long, global = true, env = "BALER_LOG_FORMAT", value_enum, default_value = "auto")]
    log_format: LogFormat,
    /// Send spans to the OpenTelemetry collector at this address, http://host:4317 (OTLP over gRPC), or https://…, whose authority may be named
    /// by OTEL_EXPORTER_OTLP_CERTIFICATE; none without it.
    #[arg(long, global = true, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    #[command(flatten)]
    tls: tls::TlsArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes sample data, compresses it in this process, verifies it and prints the figures.
    Demo(demo::DemoArgs),
    /// Runs a batch job from a SQL file; the same command again resumes it.
    Run(run::RunArgs),
    /// Runs a streaming query from a SQL file; the same command again goes on where it stopped.
    Stream(stream::StreamArgs),
    /// Runs queries, or reads them from the terminal.
    Sql(sql::SqlArgs),
    /// Reconciles a job's manifest, receipts, stored documents and (with --deep) source bytes.
    Verify(verify::VerifyArgs),
    /// Writes the original objects of a finished job back, byte for byte; the same command again resumes it.
    Restore(restore::RestoreArgs),
    /// Makes sample data in files, S3 or a topic.
    Generate(generate::GenerateArgs),
    /// Asks everything that a job's file needs, and writes nothing.
    Check(run::JobArgs),
    /// Samples an input: what each method would store and cost.
    Advise(advise::AdviseArgs),
    /// Does a job again and again while things break, and verifies each round.
    Chaos(chaos::ChaosArgs),
    /// Lists jobs, shows one, or stops one on a fleet.
    Jobs(jobs::JobsArgs),
    /// Shows where a streaming query is, or makes it go back.
    Checkpoint(checkpoint::CheckpointArgs),
    /// Lists the pieces of input which a job or query could not write.
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Runs the scheduler of a fleet.
    Scheduler(Box<servers::SchedulerArgs>),
    /// Runs an executor of a fleet.
    Executor(Box<servers::ExecutorArgs>),
    /// Keeps BalerJob and BalerStream resources of a Kubernetes namespace: makes their drivers and says how far they are.
    Operator(operator::OperatorArgs),
    /// Asks a scheduler or executor whether it is well: what a container's health check runs.
    Health(health::HealthArgs),
    /// Prints the resource which does the work of a SparkApplication, and what becomes of each of its settings.
    ConvertConf(convert::ConvertArgs),
    /// Prints the completions of a shell.
    Completions(shell::CompletionsArgs),
    /// Writes the manual's pages.
    Man(shell::ManArgs),
    /// Prints docs/reference.md.
    #[command(hide = true)]
    Reference,
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
    main_with(SessionParts::default())
}

/// Runs the command line of this process with sessions made of `parts`: the whole of a program which brings functions of its
/// own, as client, scheduler and executor.
pub fn main_with(parts: SessionParts) -> ExitCode {
    let cli = match command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = !error.use_stderr();
            if !is_help && let Some(answer) = answer_habit(&error) {
                eprintln!("error: {answer}");
                return ExitCode::from(2);
            }
            // A closed stdout is no reason to fail.
            drop(error.print());
            return ExitCode::from(if is_help { 0 } else { 2 });
        }
    };
    let (service, is_server) = match cli.command {
        Command::Scheduler(_) => ("baler-scheduler", true),
        Command::Executor(_) => ("baler-executor", true),
        Command::Operator(_) => ("baler-operator", true),
        _ => ("baler", false),
    };
    let tracer = cli.otlp_endpoint.as_deref().map(|endpoint| {
        let _on_io = runtime::io()?.enter();
        trace::open(endpoint, service)
    });
    let tracer = tracer.transpose();
    let (tracer, opened) = match tracer {
        Ok(tracer) => (tracer, Ok(())),
        Err(error) => (None, Err(error)),
    };
    log::start(cli.log_format, is_server, tracer);
    if let Err(error) = runtime::forbid_core_dumps() {
        tracing::warn!(%error, "memory, which holds secrets, may be written to a disk in a crash");
    }
    let parts = cli.tls.apply(parts);
    let ended = opened.and(parts).and_then(|parts| runtime::io()?.block_on(dispatch(cli, &parts)));
    trace::finish();
    match ended {
        Ok(code) => code,
        Err(error) => {
            log::say_error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// What a habit of `spark-submit` is here, if it is such a one which the command line does not know.
fn answer_habit(error: &clap::Error) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand) {
        return None;
    }
    submit::answer(&std::env::args().skip(1).collect::<Vec<_>>())
}

/// The command line with Ballista's flags under our defaults, and a `BALER_…` variable for each of them.
fn command() -> ClapCommand {
    let with_defaults = |command: ClapCommand, defaults: &[FlagDefault]| {
        let command = command.mut_args(|argument| match argument.get_long() {
            Some(long) if argument.get_env().is_none() && long != "help" => {
                let variable = format!("BALER_{}", long.to_uppercase().replace('-', "_"));
                argument.env(variable)
            }
            _ => argument,
        });
        defaults.iter().fold(command, |command, (flag, value)| {
            command.mut_args(|argument| if argument.get_long() == Some(*flag) { argument.default_value(*value) } else { argument })
        })
    };
    Cli::command()
        .mut_subcommand("scheduler", |command| with_defaults(command, SCHEDULER_FLAGS))
        .mut_subcommand("executor", |command| with_defaults(command, EXECUTOR_FLAGS))
}

async fn dispatch(cli: Cli, parts: &SessionParts) -> Result<ExitCode> {
    let output = cli.output;
    match cli.command {
        Command::Demo(args) => demo::run(args, parts).await,
        Command::Run(args) => run::run(args, parts, output).await,
        Command::Stream(args) => stream::run(args, parts, output).await,
        Command::Sql(args) => sql::run(args, parts).await,
        Command::Verify(args) => verify::run(args, parts, output).await,
        Command::Restore(args) => restore::run(args, parts, output).await,
        Command::Generate(args) => generate::run(args, parts, output).await,
        Command::Check(args) => check::run(args, parts, output).await,
        Command::Advise(args) => advise::run(args, parts, output).await,
        Command::Chaos(args) => chaos::run(args, parts, output).await,
        Command::Jobs(args) => jobs::run(args, parts, output).await,
        Command::Checkpoint(args) => checkpoint::run(args, parts, output).await,
        Command::DeadLetters(args) => dead_letters::run(args, parts, output).await,
        Command::Scheduler(args) => servers::run_scheduler(*args, parts).await,
        Command::Executor(args) => servers::run_executor(*args, parts).await,
        Command::Operator(args) => operator::run(args, parts).await,
        Command::Health(args) => health::run(args, parts).await,
        Command::ConvertConf(args) => convert::run(&args, output),
        Command::Completions(args) => shell::completions(&args, command()),
        Command::Man(args) => shell::man(&args, command()),
        Command::Reference => shell::print_reference(command()),
    }
}

/// Writes one line of result. Whoever reads only the first lines (`| head`) is no failure.
fn print_line(line: impl std::fmt::Display) {
    if let Err(error) = writeln!(std::io::stdout().lock(), "{line}")
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        eprintln!("error: cannot write to stdout: {error}");
    }
}

/// Writes a result as JSON.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print_line(serde_json::to_string_pretty(value).map_err(|e| Error::internal("a result does not encode").with_source(e))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_of_ours_belongs_to_a_flag_of_ballista() {
        let command = command();
        for (name, defaults) in [("scheduler", SCHEDULER_FLAGS), ("executor", EXECUTOR_FLAGS)] {
            let subcommand = command.find_subcommand(name).unwrap();
            for (flag, value) in defaults {
                let argument = subcommand.get_arguments().find(|argument| argument.get_long() == Some(*flag)).unwrap();
                assert_eq!(argument.get_default_values(), [*value], "--{flag}");
            }
        }
        command.debug_assert();
    }
}
