//! The board of `baler run | stream --dashboard`: this process does all the work, for one job.

use std::collections::HashSet;

use async_trait::async_trait;
use datafusion::prelude::SessionConfig;
use tokio::sync::watch;

use super::board::{Workers, is_part_of};
use super::plan::{StagePlan, graph};
use super::schema::{Cause, Part, Plan, Setting, Work};
use super::secret::environment_and_options;
use crate::cluster::ExecutorInfo;
use crate::error::Result;
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

#[async_trait]
impl Workers for OneProcess {
    fn mode(&self) -> &'static str {
        "process"
    }

    async fn executors(&self) -> Result<Vec<ExecutorInfo>> {
        Ok(Vec::new())
    }

    async fn parts(&self) -> Result<Vec<Part>> {
        Ok(Vec::new())
    }

    async fn is_running(&self, job: &str) -> Result<bool> {
        Ok(job == self.name && !*self.stop.borrow())
    }

    async fn running_splits(&self, job: &str) -> Result<HashSet<String>> {
        Ok(if job == self.name { open_splits() } else { HashSet::new() })
    }

    async fn cancel(&self, job: &str) -> Result<usize> {
        if job != self.name {
            return Ok(0);
        }
        self.stop.send_replace(true);
        Ok(1)
    }

    async fn work(&self, job: &str, _part: Option<&str>) -> Result<Work> {
        let plan = shown_plan().filter(|(name, _)| is_part_of(job, name)).map(|(name, plan)| {
            let metrics = plan_metrics(plan.as_ref());
            Plan { name, nodes: graph(&[StagePlan { stage: None, plan: plan.as_ref(), metrics: &metrics }]) }
        });
        Ok(Work { stages: Vec::new(), plan })
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
