//! The job's state: can it be read, and is it that of the same job?

use datafusion::execution::context::SessionContext;

use super::Report;
use crate::connector::SinkSpec;
use crate::connector::source::SourceSpec;
use crate::error::Result;
use crate::job::JobRef;
use crate::job::manifest::Manifest;
use crate::job::state::JobState;

/// Looks for a job of the same name.
pub(super) async fn check(
    context: &SessionContext,
    whole: &str,
    source: Option<SourceSpec>,
    sink: SinkSpec,
    job: &JobRef,
    report: &mut Report,
) {
    let planned = Manifest::new(&job.name, whole, source, sink, Vec::new());
    match find(context, job).await {
        Ok(Found::Nothing) => report.good("state", format!("{} holds no job `{}` yet", job.state, job.name)),
        Ok(Found::Job { stored, .. }) if !stored.has_same_statement(&planned) => {
            report.bad(
                "state",
                format!("{} holds a job `{}` with another statement", job.state, job.name),
                "take a new job name, or remove its state folder to begin it anew",
            );
        }
        Ok(Found::Job { is_complete: true, .. }) => report.warn(
            "state",
            format!("job `{}` is complete; running it again writes nothing", job.name),
            "take a new job name, if it should run again",
        ),
        Ok(Found::Job { stored, done, .. }) => {
            let all = stored.receipt_names().count();
            report.good("state", format!("job `{}` was begun: {done} of {all} splits are done, it will be resumed", job.name));
        }
        Err(error) => report.fail("state", &error),
    }
}

enum Found {
    Nothing,
    Job { stored: Box<Manifest>, done: usize, is_complete: bool },
}

async fn find(context: &SessionContext, job: &JobRef) -> Result<Found> {
    let state = JobState::open(&context.runtime_env(), job)?;
    let Some(stored) = state.manifest().await? else { return Ok(Found::Nothing) };
    let is_complete = state.commit().await?.is_some();
    Ok(Found::Job { stored: Box::new(stored), done: state.receipt_names().await?.len(), is_complete })
}
