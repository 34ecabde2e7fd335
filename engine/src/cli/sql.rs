//! `baler sql`: queries from an argument, a file or the terminal.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::csv::WriterBuilder;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::execution::context::SessionContext;
use datafusion::physical_plan::collect;

use super::activity::{Running, show_activity};
use super::print_line;
use super::prompt::repl;
use crate::cluster::client::Fleet;
use crate::error::{Error, Result};
use crate::runtime::{self, stop_signal};
use crate::session::SessionParts;
use crate::statement;

#[derive(Debug, Args)]
pub(super) struct SqlArgs {
    /// Statements to run.
    #[arg(short, long)]
    command: Option<String>,
    /// A file of statements to run.
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// The scheduler of the fleet that answers, df://host:50050 or dfs:// for TLS; without one this process does.
    #[arg(long, env = "BALER_SCHEDULER")]
    scheduler: Option<String>,
    /// How rows are written.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
    Csv,
}

pub(super) async fn run(args: SqlArgs, parts: &SessionParts) -> Result<ExitCode> {
    let context = match &args.scheduler {
        Some(url) => Fleet::connect(url, parts).await?.context().clone(),
        None => parts.local()?,
    };
    let text = match (&args.command, &args.file) {
        (Some(text), None) => text.clone(),
        (None, Some(file)) => std::fs::read_to_string(file).map_err(|e| Error::config(format!("cannot read {}: {e}", file.display())))?,
        (Some(_), Some(_)) => return Err(Error::config("give --command or --file, not both")),
        (None, None) if std::io::stdin().is_terminal() => return repl(&context, args.format).await,
        (None, None) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| Error::config(format!("cannot read the statements from stdin: {e}")))?;
            text
        }
    };
    let running = Running::new();
    // On a terminal alone; where rows go into a file or a pipe, the terminal still shows how far they are.
    let _progress = if std::io::stderr().is_terminal() { Some(show_activity(Instant::now(), running.clone())?) } else { None };
    tokio::select! {
        ended = run_statements(&context, &text, args.format, &running) => ended.map(|()| ExitCode::SUCCESS),
        signal = stop_signal() => {
            eprintln!("stopped by {}", signal?);
            Ok(ExitCode::from(1))
        }
    }
}

/// Runs statements, and prints the rows of each. `running` is told what runs.
pub(super) async fn run_statements(context: &SessionContext, text: &str, format: Format, running: &Running) -> Result<()> {
    let text = statement::substitute(text, &std::collections::HashMap::new())?;
    for parsed in statement::parse(&text)? {
        let plan = statement::plan(context, parsed).await?;
        let frame = context.execute_logical_plan(plan).await?;
        let schema = frame.schema().as_arrow().clone();
        let (plan, task) = (frame.create_physical_plan().await?, context.task_ctx());
        running.begin(&plan);
        let rows = runtime::spawn_cpu(async move { collect(plan, task).await })?.join().await??;
        if !schema.fields().is_empty() {
            running.print(|| print_rows(&rows, format))?;
        }
    }
    Ok(())
}

fn print_rows(rows: &[RecordBatch], format: Format) -> Result<()> {
    let failed = |e: datafusion::arrow::error::ArrowError| Error::internal("rows cannot be shown").with_source(e);
    let mut text = Vec::new();
    match format {
        Format::Table => {
            print_line(pretty_format_batches(rows).map_err(failed)?);
            return Ok(());
        }
        Format::Json => {
            let mut writer = LineDelimitedWriter::new(&mut text);
            rows.iter().try_for_each(|batch| writer.write(batch)).and_then(|()| writer.finish()).map_err(failed)?;
        }
        Format::Csv => {
            let mut writer = WriterBuilder::new().with_header(true).build(&mut text);
            rows.iter().try_for_each(|batch| writer.write(batch)).map_err(failed)?;
        }
    }
    let text = String::from_utf8_lossy(&text);
    if !text.is_empty() {
        print_line(text.trim_end_matches('\n'));
    }
    Ok(())
}
