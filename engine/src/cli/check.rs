//! `baler check`: the preflight of a job's file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::run::{job_name, parse_variables, read_file};
use super::{Output, print_json, print_line};
use crate::check::{Report, check, check_fleet};
use crate::cluster::client::Fleet;
use crate::error::Result;
use crate::job::JobRef;
use crate::session::SessionParts;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The statements of a job or streaming query.
    file: PathBuf,
    /// Name which the job would have; the file's name if not given.
    #[arg(long, env = "BALER_JOB")]
    job: Option<String>,
    /// Folder or bucket for the state of all jobs.
    #[arg(long, env = "BALER_STATE", default_value = "./baler-state")]
    state: String,
    /// The scheduler of the fleet that would do the work, df://host:50050.
    #[arg(long, env = "BALER_SCHEDULER")]
    scheduler: Option<String>,
    /// A value for `${KEY}` in the file.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub(super) async fn run(args: CheckArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    let (text, variables) = (read_file(&args.file)?, parse_variables(&args.set)?);
    let job = JobRef::try_new(&args.state, &job_name(args.job, &args.file))?;
    let mut report = check(&parts.local()?, &text, &variables, &job).await;
    if let Some(url) = &args.scheduler {
        check_fleet(&Fleet::connect(url, parts).await, &mut report).await;
    }
    match output {
        Output::Json => print_json(&report)?,
        Output::Text => print_report(&report),
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn print_report(report: &Report) {
    for finding in &report.findings {
        print_line(format!("{} {:<14} {}", finding.verdict, finding.about, finding.found));
        if let Some(remedy) = &finding.remedy {
            print_line(format!("  {:<14} → {remedy}", ""));
        }
    }
    print_line(if report.is_good() { "✓ the job can begin" } else { "✗ the job would fail" });
}
