//! The preflight of a job file: its statements, then its plan, then everything which it would reach. Nothing is written.
//!
//! Each question has one [`Finding`]. Where an early one fails, those which need its answer are not asked.

mod certificates;
mod documents;
mod source;
mod state;
mod target;

use std::collections::HashMap;
use std::fmt;

use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::DmlStatement;
use serde::Serialize;

use self::documents::Forecast;
use crate::cluster::client::Fleet;
use crate::connector::SinkSpec;
use crate::connector::source::SourceSpec;
use crate::error::{Error, Result};
use crate::job::JobRef;
use crate::job::run::{bind, find_sink, find_source, plan_shape};
use crate::options::format_bytes;
use crate::statement;

/// How a question was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It would work, and somebody should know.
    Warning,
    /// The job would fail.
    Bad,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "✓",
            Self::Warning => "!",
            Self::Bad => "✗",
        })
    }
}

/// One question and its answer.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What was asked about: `source`, `target`.
    pub about: &'static str,
    /// How it was answered.
    pub verdict: Verdict,
    /// What was found; of an error with its cause.
    pub found: String,
    /// What to do, where something must be done.
    pub remedy: Option<String>,
}

/// Everything that was asked.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// In the order in which they were asked.
    pub findings: Vec<Finding>,
    /// Exit code of the worst error, as the job itself would end.
    #[serde(skip)]
    worst: Option<u8>,
}

impl Report {
    /// Whether the job would begin.
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict != Verdict::Bad)
    }

    /// What the command ends with: 0, or the exit code of the most telling error (configuration before reach before the rest).
    pub fn exit_code(&self) -> u8 {
        match self.worst {
            Some(code) => code,
            None => u8::from(!self.is_good()),
        }
    }

    fn good(&mut self, about: &'static str, found: impl Into<String>) {
        self.findings.push(Finding { about, verdict: Verdict::Good, found: found.into(), remedy: None });
    }

    fn warn(&mut self, about: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding { about, verdict: Verdict::Warning, found: found.into(), remedy: Some(remedy.into()) });
    }

    fn bad(&mut self, about: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding { about, verdict: Verdict::Bad, found: found.into(), remedy: Some(remedy.into()) });
    }

    /// Notes an error, whose text ends with its remedy.
    fn fail(&mut self, about: &'static str, error: &Error) {
        let rank = |code: u8| match code {
            2 => 0,
            3 => 1,
            _ => 2,
        };
        let code = error.exit_code();
        self.worst = Some(self.worst.filter(|worst| rank(*worst) <= rank(code)).unwrap_or(code));
        let text = error.to_string();
        let (found, remedy) = match text.rsplit_once("; ") {
            Some((found, remedy)) => (found.to_string(), Some(remedy.to_string())),
            None => (text, None),
        };
        self.findings.push(Finding { about, verdict: Verdict::Bad, found, remedy });
    }
}

/// Asks everything about the job in `text`, which would be `job`.
pub async fn check(context: &SessionContext, text: &str, variables: &HashMap<String, String>, job: &JobRef) -> Report {
    let mut report = Report::default();
    let planned = async {
        let text = statement::substitute(text, variables)?;
        statement::plan_job(context, &text).await
    };
    let (whole, insert) = match planned.await {
        Ok(planned) => planned,
        Err(error) => {
            report.fail("statement", &error);
            return report;
        }
    };
    match plan(context, &insert, job).await {
        Ok(planned) => check_parts(context, &whole, &insert, planned, job, &mut report).await,
        Err(error) => report.fail("statement", &error),
    }
    report
}

/// What the plan of a job reads and writes.
struct Planned {
    source: Option<SourceSpec>,
    sink: SinkSpec,
    is_by_split: bool,
}

/// Plans the job as `baler run` does, over no splits.
async fn plan(context: &SessionContext, insert: &DmlStatement, job: &JobRef) -> Result<Planned> {
    let (source, sink) = (find_source(&insert.input)?, find_sink(insert)?);
    let shape = plan_shape(context, bind(insert, job, Some(&[Vec::new()]))?).await?;
    Ok(Planned { is_by_split: source.is_some() && shape.is_by_split, source, sink })
}

async fn check_parts(context: &SessionContext, whole: &str, insert: &DmlStatement, planned: Planned, job: &JobRef, report: &mut Report) {
    let Planned { source, sink, is_by_split } = planned;
    report.good("statement", format!("INSERT INTO {} is planned", insert.table_name));
    if !is_by_split {
        let remedy = "read one BLOB or KAFKA table, once, row by row, if it should resume, and be verified, split by split";
        report.warn("statement", "it does not run split by split: an interrupted job begins anew", remedy);
    }
    let input = match &source {
        Some(source) => source::check(context, source, report).await,
        None => None,
    };
    let forecast = match &input {
        Some(input) => documents::check(context, insert, &sink, input, report).await,
        None => None,
    };
    target::check(context, &sink, forecast.as_ref(), report).await;
    certificates::check(source.as_ref(), &sink, &job.state, report).await;
    state::check(context, whole, source, sink, job, report).await;
}

/// Asks a fleet who it is.
pub async fn check_fleet(fleet: &Result<Fleet>, report: &mut Report) {
    let fleet = match fleet {
        Ok(fleet) => fleet,
        Err(error) => return report.fail("fleet", error),
    };
    match fleet.info().await {
        Ok(info) if info.executors.is_empty() => {
            report.bad("fleet", format!("{} has no executors", fleet.url()), "start `baler executor` with --scheduler-host");
        }
        Ok(info) => report.good("fleet", format!("{} has {} executors with {} slots", fleet.url(), info.executors.len(), info.slots())),
        Err(error) => report.fail("fleet", &error),
    }
}

/// Room which a target must have, and has.
fn check_room(place: &str, free: u64, forecast: Option<&Forecast>, report: &mut Report) {
    let free_text = format_bytes(free);
    let Some(Forecast { stored_bytes }) = forecast else { return report.good("space", format!("{place} has {free_text} left")) };
    let found = format!("{place} has {free_text} left, the documents take about {}", format_bytes(*stored_bytes));
    if *stored_bytes > free {
        report.bad("space", found, "make room, or take another target");
    } else {
        report.good("space", found);
    }
}
