//! A `BalerStream` and its Deployment: one pod, or none while it is suspended.
//!
//! Kubernetes starts the driver again whenever it ends, so nothing of a stream is final: each look says how it is now.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};

use super::context::{Context, kube_error};
use super::driver::{Place, Words};
use super::parts::{MANAGER, apply_sql, template};
use super::progress::stream_figures;
use super::reconcile::{Driven, Look, Work, find, read_state, remove_child};
use super::resource::BalerStream;
use super::status::{Phase, Status, now};
use crate::error::Result;

impl Driven for BalerStream {
    const KIND: &'static str = "BalerStream";
    const ENDS: bool = false;
    const LABEL: &'static str = "baler.dev/stream";

    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn set_status(&mut self, status: Status) {
        self.status = Some(status);
    }

    fn work<'a>(&'a self, context: &'a Context) -> Work<'a> {
        Work {
            name: self.spec.query.as_deref().or(self.metadata.name.as_deref()).unwrap_or_default(),
            state: self.spec.driver.state.as_deref().unwrap_or(&context.options.state),
            scheduler: self.spec.driver.scheduler.as_deref().or(context.options.scheduler.as_deref()),
        }
    }

    async fn drive(&self, context: &Context, place: &Place, before: Status) -> Result<Look> {
        let spec = &self.spec;
        let work = self.work(context);
        let arguments = vec![format!("--name={}", work.name), format!("--trigger={}", spec.trigger)];
        let words =
            Words { command: "stream", sql: &spec.sql, arguments, state: work.state, scheduler: work.scheduler, set: &spec.driver.set };
        find::<Deployment>(context, place).await?;
        let pod = place.pod(template(context, &spec.driver.pod_template).await?, &words)?;
        apply_sql(context, place, &spec.sql).await?;
        // The whole of it each time: what somebody changed by hand is set back, what is as it should be is not touched.
        let wanted = place.deployment(pod, i32::from(!spec.suspend));
        let apply = PatchParams::apply(MANAGER).force();
        let stored = context.api::<Deployment>().patch(&place.name, &apply, &Patch::Apply(&wanted)).await;
        let stored = stored.map_err(|e| kube_error("storing the driver's Deployment", &e))?;

        let mut status = before;
        if let Some(found) = read_state(&mut status, work.state, stream_figures(&context.env, work.state, work.name)).await {
            status.figures = found.unwrap_or_default();
        }
        status.start_time.get_or_insert_with(now);
        status.driver = Some(place.name.clone());
        let again = Some(context.options.poll);
        if spec.suspend {
            return Ok(Look { status: status.with(Phase::Suspended, "`suspend` is set; the state stays"), again });
        }
        if stored.status.and_then(|status| status.available_replicas).unwrap_or_default() > 0 {
            return Ok(Look { status: status.with(Phase::Running, ""), again });
        }
        let why = context.why(&place.selector()).await?.unwrap_or_default();
        let phase = if why.starts_with("the driver ended") { Phase::Failed } else { Phase::Pending };
        Ok(Look { status: status.with(phase, why), again })
    }

    async fn remove_driver(context: &Context, place: &Place) -> Result<bool> {
        remove_child::<Deployment>(context, place).await
    }
}
