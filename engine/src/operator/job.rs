//! A `BalerJob` and its Job.
//!
//! | before | found | after |
//! | --- | --- | --- |
//! | any but Complete | `suspend` | Suspended; the Job is removed, so that the driver stops and the next one is made from the template as it is then |
//! | Complete, Failed | | the same, until the time to live is over |
//! | else | no Job | Pending; one is made |
//! | else | a Job under way | Pending, or Running when its pod is ready |
//! | else | a Job which succeeded, and a commit | Complete |
//! | else | a Job which succeeded, and no commit; a Job which failed | Failed |

use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::context::{Context, kube_error, status_code};
use super::driver::{Place, Words};
use super::parts::{apply_sql, template};
use super::progress::job_figures;
use super::reconcile::{Driven, Look, Work, find, read_state, remove_child};
use super::resource::BalerJob;
use super::status::{Phase, Status, now};
use crate::error::{Error, ErrorKind, Result};
use crate::job::state::Commit;

impl Driven for BalerJob {
    const KIND: &'static str = "BalerJob";
    const ENDS: bool = true;
    const LABEL: &'static str = "baler.dev/job";

    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn set_status(&mut self, status: Status) {
        self.status = Some(status);
    }

    fn work<'a>(&'a self, context: &'a Context) -> Work<'a> {
        Work {
            name: self.spec.job.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default(),
            state: self.spec.driver.state.as_deref().unwrap_or(&context.options.state),
            scheduler: self.spec.driver.scheduler.as_deref().or(context.options.scheduler.as_deref()),
        }
    }

    async fn drive(&self, context: &Context, place: &Place, before: Status) -> Result<Look> {
        if before.phase == Phase::Complete {
            return self.keep_until_over(context, before).await;
        }
        if self.spec.suspend {
            let is_gone = remove_child::<Job>(context, place).await?;
            let (mut status, _) = self.look_at_state(context, before).await;
            (status.driver, status.completion_time) = (None, None);
            let message = if is_gone { "`suspend` is set; the state stays" } else { "`suspend` is set; the driver stops" };
            return Ok(Look { status: status.with(Phase::Suspended, message), again: (!is_gone).then_some(context.options.poll) });
        }
        if before.phase == Phase::Failed {
            return self.keep_until_over(context, before).await;
        }
        match find::<Job>(context, place).await? {
            Some(job) if job.metadata.deletion_timestamp.is_some() => {
                let status = before.with(Phase::Pending, "the driver before this one stops");
                Ok(Look { status, again: Some(context.options.poll) })
            }
            Some(job) => self.follow(context, place, &job, before).await,
            None => self.begin(context, place, before).await,
        }
    }

    async fn remove_driver(context: &Context, place: &Place) -> Result<bool> {
        remove_child::<Job>(context, place).await
    }
}

impl BalerJob {
    /// Makes the Job.
    async fn begin(&self, context: &Context, place: &Place, mut before: Status) -> Result<Look> {
        let work = self.work(context);
        let arguments = vec![format!("--job={}", work.name)];
        let (sql, set) = (&self.spec.sql, &self.spec.driver.set);
        let words = Words { command: "run", sql, arguments, state: work.state, scheduler: work.scheduler, set };
        let pod = place.pod(template(context, &self.spec.driver.pod_template).await?, &words)?;
        apply_sql(context, place, sql).await?;
        let job = place.job(pod, &self.spec);
        match context.api::<Job>().create(&PostParams::default(), &job).await {
            Ok(_) => {}
            // It was made a moment ago; the next look finds it.
            Err(error) if status_code(&error) == Some(409) => {}
            Err(error) => return Err(kube_error("making the driver's Job", &error)),
        }
        before.start_time.get_or_insert_with(now);
        before.driver = Some(place.name.clone());
        let message = format!("Job {} is made", place.name);
        Ok(Look { status: before.with(Phase::Pending, message), again: Some(context.options.poll) })
    }

    /// Says how far the Job is.
    async fn follow(&self, context: &Context, place: &Place, job: &Job, before: Status) -> Result<Look> {
        // Kubernetes first: a job which it says has succeeded has its commit.
        let ended = finished(job);
        let (mut status, commit) = self.look_at_state(context, before).await;
        status.driver = Some(place.name.clone());
        if let Some(started) = job.status.as_ref().and_then(|status| status.start_time.as_ref()) {
            status.start_time.get_or_insert_with(|| started.0.to_string());
        }
        let Some(ended) = ended else {
            let is_ready = job.status.as_ref().and_then(|status| status.ready).unwrap_or_default() > 0;
            let why = context.why(&place.selector()).await?.unwrap_or_default();
            let phase = if is_ready { Phase::Running } else { Phase::Pending };
            return Ok(Look { status: status.with(phase, if is_ready { String::new() } else { why }), again: Some(context.options.poll) });
        };
        let work = self.work(context);
        let status = match (ended.type_.as_str(), commit) {
            ("Complete", Some(Commit { documents, records, .. })) => {
                status.with(Phase::Complete, format!("{documents} documents, {records} records"))
            }
            ("Complete", None) if !status.holds("StateReadable") => {
                return Err(Error::new(ErrorKind::Transient, "the driver has ended, and whether the job is committed cannot be read yet"));
            }
            ("Complete", None) => status.with(
                Phase::Failed,
                format!(
                    "the driver has ended, but the state at {} has no commit of `{}`: do both mean the same folder?",
                    work.state, work.name
                ),
            ),
            _ => {
                let why = context.why(&place.selector()).await?;
                let cause = format!("{}: {}", ended.reason.unwrap_or_default(), ended.message.unwrap_or_default());
                status.with(Phase::Failed, why.map_or(cause.clone(), |why| format!("{why} ({cause})")))
            }
        };
        let status = Status { completion_time: Some(now()), ..status };
        context.forget(place.owner.uid.as_str());
        self.keep_until_over(context, status).await
    }

    /// Adds what the job's state says.
    async fn look_at_state(&self, context: &Context, mut status: Status) -> (Status, Option<Commit>) {
        let work = self.work(context);
        let known = context.known(self.uid().as_deref().unwrap_or_default());
        let read = async {
            let mut known = known.lock().await;
            job_figures(&context.env, work.state, work.name, &mut known).await
        };
        let Some((figures, commit)) = read_state(&mut status, work.state, read).await.flatten() else { return (status, None) };
        status.figures = figures;
        (status, commit)
    }

    /// Removes the resource when it is over for long enough.
    async fn keep_until_over(&self, context: &Context, status: Status) -> Result<Look> {
        let Some(seconds) = self.spec.ttl_seconds_after_finished else { return Ok(Look { status, again: None }) };
        let ended = status.completion_time.as_deref().and_then(|time| DateTime::parse_from_rfc3339(time).ok());
        let left = ended.map_or(0, |ended| seconds.saturating_sub((Utc::now() - ended.to_utc()).num_seconds()));
        // The end is told first: a status which is not stored yet would never be seen.
        if left <= 0 && self.status.as_ref() == Some(&status) {
            let same = Preconditions { uid: self.uid(), resource_version: None };
            let how = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
            match context.api::<Self>().delete(&self.name_any(), &how).await {
                Ok(_) => {}
                Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
                Err(error) => return Err(kube_error("removing a resource whose time is over", &error)),
            }
        }
        Ok(Look { status, again: Some(Duration::from_secs(u64::try_from(left).unwrap_or_default().max(1))) })
    }
}

/// The condition by which a Job has ended.
fn finished(job: &Job) -> Option<JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|one| one.status == "True" && matches!(one.type_.as_str(), "Complete" | "Failed")).cloned()
}
