//! `baler verify`: the auditor's report.

use std::process::ExitCode;

use clap::Args;

use super::{Output, print_json, print_line};
use crate::cluster::client::Fleet;
use crate::error::{Error, Result};
use crate::job::JobRef;
use crate::job::verify::{Audited, Report, verify, wave_name};
use crate::options::format_bytes;
use crate::runtime::stop_signal;
use crate::session::SessionParts;
use crate::stream::audit::audited_query;

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Name of the job or streaming query.
    #[arg(long, env = "BALER_JOB")]
    job: String,
    /// Folder or bucket with the state of all jobs.
    #[arg(long, env = "BALER_STATE", default_value = "./baler-state")]
    state: String,
    /// The scheduler of the fleet that does the work, df://host:50050 or dfs:// for TLS; without one this process does.
    #[arg(long, env = "BALER_SCHEDULER")]
    scheduler: Option<String>,
    /// Decompress every document and compare it with the source, byte for byte.
    #[arg(long)]
    deep: bool,
}

pub(super) async fn run(args: VerifyArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    let fleet = Fleet::connect_if_named(args.scheduler.as_deref(), parts).await?;
    let context = parts.local()?;
    let job = JobRef::try_new(&args.state, &args.job)?;
    let audited = match audited_query(&context.runtime_env(), &job.state, &job.name).await? {
        Some(query) => query,
        None => Audited::job(&context.runtime_env(), &job).await?,
    };
    let report = tokio::select! {
        report = verify(&context, fleet.as_ref(), audited, args.deep) => report?,
        signal = stop_signal() => {
            if let Some(fleet) = &fleet {
                fleet.cancel_parts(&wave_name(&args.job)).await?;
            }
            return Err(Error::permanent(format!("stopped by {}; nothing is proven", signal?)));
        }
    };
    match output {
        Output::Json => print_json(&report)?,
        Output::Text => print_report(&report),
    }
    Ok(ExitCode::from(u8::from(!report.is_sound())))
}

pub(super) fn print_report(report: &Report) {
    let Report { job, splits, splits_done, documents, raw_bytes, missing, duplicate, mismatched, dead_letters, foreign, .. } = report;
    print_line(format!("job {job}: {documents} documents hold {} of {splits_done}/{splits} splits", format_bytes(*raw_bytes)));
    print_line(format!("  {missing} missing, {duplicate} duplicate, {mismatched} mismatched, {dead_letters} dead letters"));
    if report.compared_bytes > 0 {
        print_line(format!("  {} compared with the source byte for byte", format_bytes(report.compared_bytes)));
    }
    if report.expired > 0 {
        print_line(format!("  {} splits were not compared: their topic does not hold all of their records any more", report.expired));
    }
    if *foreign > 0 {
        print_line(format!("  {foreign} documents there belong to no split of it"));
    }
    report.findings.iter().for_each(|finding| print_line(format!("  ! {finding}")));
    print_line(if report.is_sound() { "  ✓ nothing lost, nothing doubled" } else { "  ✗ the job is not sound" });
}
