//! `baler restore`: a job's original objects, or a query's records, written back.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::progress::show_progress;
use super::run::parse_variables;
use super::{Output, print_json, print_line};
use crate::cluster::client::Fleet;
use crate::error::Result;
use crate::job::JobRef;
use crate::job::restore::{Restore, RestoreReport, RestoreRequest, wave_name};
use crate::options::format_bytes;
use crate::runtime::stop_signal;
use crate::session::SessionParts;
use crate::stream::audit::audited_query;
use crate::telemetry::Figures;

/// Objects which are named on a terminal; the JSON report names all.
const NAMED_MAX: usize = 50;

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Name of the job or streaming query.
    #[arg(long, env = "BALER_JOB")]
    job: String,
    /// Folder or bucket with the state of all jobs.
    #[arg(long, env = "BALER_STATE", default_value = "./baler-state")]
    state: String,
    /// Folder or prefix to write to, a path, file:// or s3://: objects keep their names below the job's input, records become files by topic,
    /// partition and first offset. Or a topic for records, kafka://host:9092/topic, which must be empty.
    #[arg(long, env = "BALER_TO")]
    to: String,
    /// The scheduler of the fleet that does the work, df://host:50050 or dfs:// for TLS; without one this process does.
    #[arg(long, env = "BALER_SCHEDULER")]
    scheduler: Option<String>,
    /// Compress again what was compressed at the source (the same content, not the same bytes); else it is written plain, without that suffix.
    #[arg(long, env = "BALER_RECOMPRESS")]
    recompress: bool,
    /// Leave out and name what cannot be restored, and end with exit code 0 nevertheless.
    #[arg(long, env = "BALER_PARTIAL")]
    partial: bool,
    /// Replace what else is at the places of objects, instead of refusing to.
    #[arg(long, env = "BALER_OVERWRITE")]
    overwrite: bool,
    /// Send records into a topic although their documents do not hold all that they had (see kafka.framing).
    #[arg(long, env = "BALER_LOSSY")]
    lossy: bool,
    /// A setting of librdkafka for the topic, such as security.protocol=SASL_SSL; user and password come from KAFKA_USERNAME and KAFKA_PASSWORD.
    #[arg(long = "client", value_name = "KEY=VALUE")]
    client: Vec<String>,
}

pub(super) async fn run(args: RestoreArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    let started = Instant::now();
    let fleet = Fleet::connect_if_named(args.scheduler.as_deref(), parts).await?;
    let RestoreArgs { to, recompress, partial, overwrite, lossy, .. } = args;
    let client = parse_variables(&args.client)?;
    let request = RestoreRequest { to, client, lossy, recompress, partial, overwrite };
    let (context, job) = (parts.local()?, JobRef::try_new(&args.state, &args.job)?);
    let restore = match audited_query(&context.runtime_env(), &job.state, &job.name).await? {
        Some(query) => Restore::plan_query(&context, query, &request).await?,
        None => Restore::plan(&context, &job, &request).await?,
    };
    let progress = show_progress(&args.job, ["restored", "objects"], restore.bytes(), 0, Figures::of_restore)?;
    let report = tokio::select! {
        report = restore.run(fleet.as_ref()) => report?,
        signal = stop_signal() => {
            if let Some(fleet) = &fleet {
                fleet.cancel_parts(&wave_name(&args.job)).await?;
            }
            eprintln!("stopped by {}; run the same command again to go on where the restore of `{}` stopped", signal?, args.job);
            return Ok(ExitCode::from(1));
        }
    };
    drop(progress);
    match output {
        Output::Json => print_json(&report)?,
        Output::Text => print_report(&report, started.elapsed().as_secs_f64()),
    }
    Ok(ExitCode::from(u8::from(!report.left_out.is_empty() && !partial)))
}

fn print_report(report: &RestoreReport, seconds: f64) {
    let RestoreReport { job, target, objects, written, bytes, records, compressed, recompressed, left_out, .. } = report;
    let what = if target.starts_with("kafka://") { "partitions" } else { "objects" };
    print_line(format!("job {job}: {objects} {what}, {} at {target}", format_bytes(*bytes)));
    let records = if what == "partitions" { format!(" with {records} records") } else { String::new() };
    print_line(format!("  {written} written{records} in {seconds:.1} s, {} were there", objects - written));
    if *compressed > 0 {
        let how = if *recompressed { "were compressed anew: equal content, other bytes" } else { "are plain now, without that suffix" };
        print_line(format!("  {compressed} objects which were compressed at the source {how}"));
    }
    for left in left_out.iter().take(NAMED_MAX) {
        print_line(format!("  ! not restored: {}: {}", left.object, left.reason));
    }
    if left_out.len() > NAMED_MAX {
        print_line(format!("  ! and {} more; --output json names them", left_out.len() - NAMED_MAX));
    }
}
