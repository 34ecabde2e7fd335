//! `baler stream`: a streaming query from a SQL file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::metrics::{DashboardArgs, MetricsArgs};
use super::run::{parse_variables, plan_insert, read_file};
use super::{Output, print_json, print_line};
use crate::cluster::client::Fleet;
use crate::error::{Error, Result};
use crate::job::JobRef;
use crate::options::{format_bytes, parse_duration};
use crate::runtime::stop_signal;
use crate::session::SessionParts;
use crate::stream::driver::{BatchReport, Query};
use crate::stream::lag::StreamFigures;
use crate::telemetry::log::{name_query, say};
use crate::telemetry::text::Published;

#[derive(Debug, Args)]
pub(super) struct StreamArgs {
    /// The statements; the last one is an INSERT from a KAFKA into a MONGODB or BSON table.
    file: PathBuf,
    /// Name of the query; the same name goes on where it stopped.
    #[arg(long, env = "BALER_NAME")]
    name: String,
    /// Folder or bucket for the state of all queries and jobs.
    #[arg(long, env = "BALER_STATE", default_value = "./baler-state")]
    state: String,
    /// Time from the beginning of one micro-batch to that of the next, for example 30s, 5m or 500ms.
    #[arg(long, env = "BALER_TRIGGER", default_value = "30s")]
    trigger: String,
    /// End when all is written which the topic holds now.
    #[arg(long)]
    available_now: bool,
    /// How many micro-batches keep their own state files at least; older ones are folded into one file for so many. 0 folds none.
    /// The default is some eight hours of triggers.
    #[arg(long, env = "BALER_KEEP_BATCHES", default_value_t = 1000)]
    keep_batches: u64,
    /// The scheduler of the fleet that does the work, df://host:50050 or dfs:// for TLS; without one this process does.
    #[arg(long, env = "BALER_SCHEDULER")]
    scheduler: Option<String>,
    /// A value for `${KEY}` in the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    metrics: MetricsArgs,
    #[command(flatten)]
    dashboard: DashboardArgs,
}

/// A run of a query, for machines.
#[derive(Debug, Serialize)]
struct StreamResult<'a> {
    query: &'a str,
    batches: u64,
    documents: u64,
    records: u64,
}

pub(super) async fn run(args: StreamArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    let (text, variables) = (read_file(&args.file)?, parse_variables(&args.set)?);
    let trigger = parse_duration(&args.trigger).map_err(|e| e.context("--trigger"))?;
    if trigger == Duration::ZERO {
        return Err(Error::config("--trigger: take more than 0, or use --available-now"));
    }
    let place = JobRef::try_new(&args.state, &args.name)?;
    name_query(&place.name);
    let fleet = Fleet::connect_if_named(args.scheduler.as_deref(), parts).await?;
    let context = parts.local()?;
    let (statement, insert) = plan_insert(&context, &text, &variables).await?;
    let published = Published::default();
    let served = args.metrics.serve(&published, Some(&args.state), parts).await?;
    let on_fleet = fleet.is_some();
    let mut dashboard = args.dashboard.serve(&args.metrics, &place, &context, &published, parts, on_fleet).await?;
    let figures = (served.is_some() || args.dashboard.is_wanted()).then(|| StreamFigures::new(&place.name));
    figures.iter().for_each(|figures| figures.publish(&published));
    let (name, state, available_now) = (place.name, place.state, args.available_now);
    let query = Query {
        context,
        fleet: fleet.clone(),
        name: name.clone(),
        state,
        statement,
        insert,
        trigger,
        available_now,
        keep_batches: args.keep_batches,
        figures,
    };
    let summary = tokio::select! {
        summary = query.run(|done| show_batch(&name, done)) => summary?,
        () = dashboard.cancelled() => {
            return Err(Error::permanent(format!("query `{name}` was cancelled; run the same command again to go on where it stopped")));
        }
        signal = stop_signal() => {
            if let Some(fleet) = fleet {
                fleet.cancel_parts(&name).await?;
            }
            say(&format!("stopped by {}; run the same command again to go on where query `{name}` stopped", signal?));
            return Ok(ExitCode::SUCCESS);
        }
    };
    args.metrics.finish(served).await;
    match output {
        Output::Json => {
            let (batches, documents, records) = (summary.batches, summary.documents, summary.records);
            print_json(&StreamResult { query: &name, batches, documents, records })?;
        }
        Output::Text => print_line(format!(
            "query {name}: {} micro-batches, {} records, {} documents; it has caught up",
            summary.batches, summary.records, summary.documents
        )),
    }
    Ok(ExitCode::SUCCESS)
}

fn show_batch(name: &str, done: &BatchReport) {
    let commit = &done.commit;
    let lag = done.lag_records.map(|lag| format!(", {lag} more wait")).unwrap_or_default();
    say(&format!(
        "{name} batch {}: {} records, {} → {} in {} documents, {:.1} s{lag}",
        commit.batch,
        commit.records,
        format_bytes(commit.raw_bytes),
        format_bytes(commit.compressed_bytes),
        commit.documents,
        done.took.as_secs_f64()
    ));
}
