//! `baler chaos`: a job again and again while things break, and the auditor after each round.
//!
//! What breaks is the user's to say, for only they know how to kill a pod of theirs, cut its network or fill its disk: each fault is a name and
//! a shell command. One is built in: the driver, a process of its own, gets SIGKILL. Moments and faults are drawn from a seed.

use std::collections::BTreeMap;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use datafusion::execution::context::SessionContext;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio::process::{Child, Command};

use super::run::JobArgs;
use super::{Output, print_json, print_line};
use crate::error::{Error, Result};
use crate::job::JobRef;
use crate::job::state::JobState;
use crate::job::verify::{Audited, Report, verify};
use crate::options::format_bytes;
use crate::runtime::stop_signal;
use crate::session::SessionParts;
use crate::telemetry::log::say;

/// The fault that needs no command.
const DRIVER: &str = "driver";
/// How often the state is looked at. A fault comes this much late at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Drivers which may end with an error one after the other before the round is given up: faults make them fail, and so does a wrong statement.
const HOPELESS_AFTER: u32 = 5;

#[derive(Debug, Args)]
pub(super) struct ChaosArgs {
    /// A --set has `{round}` in its value, mostly the target's, so that no round finds what another has stored.
    #[command(flatten)]
    job: JobArgs,
    /// How often the job is done anew, under a name of its own each time.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Faults in each round, at random moments.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    faults: u32,
    /// What may break beside the driver, as `executor=kubectl delete pod …`: a shell command which breaks it and, where that does not come back by itself, mends
    /// it.
    #[arg(long = "fault", value_name = "NAME=COMMAND")]
    commands: Vec<String>,
    /// Draws the same faults and moments again.
    #[arg(long)]
    seed: Option<u64>,
}

/// What broke, and what was found.
#[derive(Debug, Default, Serialize)]
struct ChaosReport {
    seed: u64,
    rounds: u32,
    /// By kind, those which were fired while a job was under way.
    faults: BTreeMap<String, u64>,
    /// Faults whose moment did not come: their job was done before.
    late: u64,
    /// Drivers which ended with an error, as a fault may make them, and were begun again.
    failures: u64,
    input_bytes: u64,
    documents: u64,
    missing: u64,
    duplicate: u64,
    mismatched: u64,
    /// The first findings of each round.
    findings: Vec<String>,
}

impl ChaosReport {
    fn is_sound(&self) -> bool {
        self.findings.is_empty() && self.missing + self.duplicate + self.mismatched == 0
    }

    fn take(&mut self, report: &Report) {
        self.input_bytes += report.raw_bytes;
        self.documents += report.documents;
        self.missing += report.missing;
        self.duplicate += report.duplicate;
        self.mismatched += report.mismatched;
        self.findings.extend(report.findings.iter().map(|finding| format!("{}: {finding}", report.job)));
        if !report.is_sound() && report.findings.is_empty() {
            self.findings.push(format!("{}: it is not committed", report.job));
        }
    }
}

/// A name, and the command; the driver has none.
type Fault = (String, Option<String>);

pub(super) async fn run(args: ChaosArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    if !args.job.has_rounds() {
        return Err(Error::config(
            "no --set has `{round}` in its value; put it into the target, as in --set OUTPUT=mongodb://host/chaos.round_{round}, or a round would find \
             the documents of the one before",
        ));
    }
    let mut faults: Vec<Fault> = vec![(DRIVER.to_string(), None)];
    for text in &args.commands {
        let (name, command) = text.split_once('=').ok_or_else(|| Error::config(format!("--fault {text}: write NAME=COMMAND")))?;
        faults.push((name.to_string(), Some(command.to_string())));
    }
    let seed = args.seed.unwrap_or_else(rand::random);
    let mut chaos = Chaos {
        context: parts.local()?,
        faults,
        random: StdRng::seed_from_u64(seed),
        report: ChaosReport { seed, rounds: args.rounds, ..ChaosReport::default() },
    };
    say(&format!("chaos with seed {seed}: {} rounds, {} faults in each", args.rounds, args.faults));
    tokio::select! {
        ended = chaos.all_rounds(&args) => ended?,
        signal = stop_signal() => return Err(Error::permanent(format!("stopped by {}; nothing is proven", signal?))),
    }
    let report = chaos.report;
    if report.faults.is_empty() {
        return Err(Error::permanent("no fault was fired: the jobs were done too soon; take a larger input or more --faults"));
    }
    match output {
        Output::Json => print_json(&report)?,
        Output::Text => print_report(&report),
    }
    Ok(ExitCode::from(u8::from(!report.is_sound())))
}

struct Chaos {
    context: SessionContext,
    faults: Vec<Fault>,
    random: StdRng,
    report: ChaosReport,
}

impl Chaos {
    async fn all_rounds(&mut self, args: &ChaosArgs) -> Result<()> {
        for round in 1..=args.rounds {
            let (place, command) = args.job.round(round)?;
            self.one_round(&place, &command, args.faults).await?;
            let audited = Audited::job(&self.context.runtime_env(), &place).await?;
            let report = verify(&self.context, None, audited, true).await?;
            say(&format!(
                "{}: {} missing, {} duplicate, {} mismatched in {}",
                place.name,
                report.missing,
                report.duplicate,
                report.mismatched,
                format_bytes(report.raw_bytes)
            ));
            self.report.take(&report);
        }
        Ok(())
    }

    /// Does the job, whatever it takes; fires the round's faults meanwhile.
    async fn one_round(&mut self, place: &JobRef, arguments: &[String], faults: u32) -> Result<()> {
        let state = JobState::open(&self.context.runtime_env(), place)?;
        let mut moments: Vec<f64> = (0..faults).map(|_| self.random.random_range(0.0..1.0)).collect();
        moments.sort_by(|a, b| b.total_cmp(a));
        let (mut driver, mut failures, mut splits) = (start(arguments)?, 0, None);
        loop {
            let ended = tokio::select! {
                ended = driver.wait() => Some(ended.map_err(lost)?),
                () = tokio::time::sleep(LOOK_EVERY) => None,
            };
            if let Some(status) = ended {
                if status.success() {
                    self.report.late += moments.len() as u64;
                    return Ok(());
                }
                failures += 1;
                self.report.failures += 1;
                refuse_hopeless(place, status, failures)?;
                driver = start(arguments)?;
            }
            let done = share_done(&state, &mut splits).await?;
            while moments.last().is_some_and(|moment| done.is_some_and(|done| done >= *moment && done < 1.0)) {
                moments.pop();
                failures = 0;
                let (name, command) = self.faults[self.random.random_range(0..self.faults.len())].clone();
                say(&format!("{}: fault `{name}`", place.name));
                match command {
                    Some(command) => break_by(&name, &command).await?,
                    None => {
                        driver.kill().await.map_err(lost)?;
                        driver = start(arguments)?;
                    }
                }
                *self.report.faults.entry(name).or_default() += 1;
            }
        }
    }
}

/// The share of its splits which have their receipts; `None` before it is begun. `splits` remembers how many there are.
async fn share_done(state: &JobState, splits: &mut Option<usize>) -> Result<Option<f64>> {
    if splits.is_none() {
        *splits = state.manifest().await?.map(|manifest| manifest.receipt_names().count());
    }
    let Some(splits) = *splits else { return Ok(None) };
    Ok(Some(state.receipt_names().await?.len() as f64 / splits.max(1) as f64))
}

/// Starts a driver, which does not outlive this process.
fn start(arguments: &[String]) -> Result<Child> {
    let program = std::env::current_exe().map_err(lost)?;
    Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().map_err(lost)
}

fn lost(error: std::io::Error) -> Error {
    Error::permanent("a driver cannot be run").with_source(error)
}

/// A driver which fails for another reason than faults is not begun for ever.
fn refuse_hopeless(place: &JobRef, status: ExitStatus, failures: u32) -> Result<()> {
    if status.code() == Some(2) {
        return Err(Error::config(format!("`{}` cannot be run as it is written; its driver says why, above", place.name)));
    }
    if failures > HOPELESS_AFTER {
        return Err(Error::permanent(format!(
            "`{}` failed {failures} times without a fault between; its driver says why, above",
            place.name
        )));
    }
    Ok(())
}

async fn break_by(name: &str, command: &str) -> Result<()> {
    let failed = |cause: String| Error::config(format!("fault `{name}` could not be fired: {cause}"));
    let status = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null()).status().await;
    let status = status.map_err(|error| failed(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(format!("its command ended with {status}"))) }
}

fn print_report(report: &ChaosReport) {
    let ChaosReport { seed, rounds, faults, late, failures, input_bytes, documents, missing, duplicate, mismatched, findings } = report;
    let fired: Vec<String> = faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
    print_line(format!("chaos, seed {seed}: {rounds} rounds, {documents} documents of {}", format_bytes(*input_bytes)));
    print_line(format!("  faults fired: {}; {late} came too late", fired.join(", ")));
    print_line(format!("  drivers which failed and were begun again: {failures}"));
    print_line(format!("  {missing} missing, {duplicate} duplicate, {mismatched} mismatched"));
    findings.iter().for_each(|finding| print_line(format!("  ! {finding}")));
    print_line(if report.is_sound() { "  ✓ nothing lost, nothing doubled" } else { "  ✗ something was lost or doubled" });
}
