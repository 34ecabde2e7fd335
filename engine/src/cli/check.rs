//! `baler check`: the preflight of a job's file.

use std::process::ExitCode;

use super::run::JobArgs;
use super::{Output, print_json, print_line};
use crate::check::{Report, check, check_fleet};
use crate::cluster::client::Fleet;
use crate::error::Result;
use crate::session::SessionParts;

pub(super) async fn run(args: JobArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    let (text, variables) = args.statements()?;
    let mut report = check(&parts.local()?, &text, &variables, &args.place()?).await;
    if let Some(url) = args.scheduler() {
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
