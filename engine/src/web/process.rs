//! The board of `baler run | stream --dashboard`: this process does all the work, for one job.

use std::collections::HashSet;

use datafusion::prelude::SessionConfig;
use futures::FutureExt;
use futures::future::ready;
use tokio::sync::watch;

use super::board::{Asked, Workers, is_part_of};
use super::plan::{StagePlan, graph};
use super::schema::{Cause, Part, Plan, Setting, Work};
use super::secret::environment_and_options;
use crate::cluster::ExecutorInfo;
use crate::runtime::cpu_threads;
use crate::telemetry::plan::{plan_metrics, shown_plan};
use crate::telemetry::{COUNTERS, open_splits};

/// One process and the job which it runs.
#[derive(Debug)]
pub struct OneProcess {
    name: String,
    config: SessionConfig,
    stop: watch::Sender<bool>,
}

impl OneProcess {
    /// Runs job or query `name` in a session under `config`; what is returned with it becomes `true` when somebody cancels it.
    pub fn new(name: &str, config: SessionConfig) -> (Self, watch::Receiver<bool>) {
        let (stop, stopped) = watch::channel(false);
        (Self { name: name.to_string(), config, stop }, stopped)
    }
}

impl Workers for OneProcess {
    fn mode(&self) -> &'static str {
        "process"
    }

    fn executors(&self) -> Asked<'_, Vec<ExecutorInfo>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn parts(&self) -> Asked<'_, Vec<Part>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn is_running<'a>(&'a self, job: &'a str) -> Asked<'a, bool> {
        ready(Ok(job == self.name && !*self.stop.borrow())).boxed()
    }

    fn running_splits<'a>(&'a self, job: &'a str) -> Asked<'a, HashSet<String>> {
        ready(Ok(if job == self.name { open_splits() } else { HashSet::new() })).boxed()
    }

    fn cancel<'a>(&'a self, job: &'a str) -> Asked<'a, usize> {
        let is_ours = job == self.name;
        if is_ours {
            self.stop.send_replace(true);
        }
        ready(Ok(usize::from(is_ours))).boxed()
    }

    fn work<'a>(&'a self, job: &'a str, _part: Option<&'a str>) -> Asked<'a, Work> {
        let plan = shown_plan().filter(|(name, _)| is_part_of(job, name)).map(|(name, plan)| {
            let metrics = plan_metrics(plan.as_ref());
            Plan { name, nodes: graph(&[StagePlan { stage: None, plan: plan.as_ref(), metrics: &metrics }]) }
        });
        ready(Ok(Work { stages: Vec::new(), plan })).boxed()
    }

    fn retries(&self) -> Vec<Cause> {
        COUNTERS.retries().into_iter().map(|(kind, count)| Cause { kind: kind.to_string(), count }).collect()
    }

    fn threads(&self) -> Option<usize> {
        Some(cpu_threads())
    }

    fn settings(&self) -> Vec<Setting> {
        let mut settings = vec![Setting { name: "cpu-threads".to_string(), value: cpu_threads().to_string() }];
        settings.extend(environment_and_options(&self.config));
        settings
    }
}
