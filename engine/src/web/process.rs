//! The board of `baler run | stream --dashboard`: this process does all the work, for one job.

use std::collections::HashSet;

use async_trait::async_trait;
use tokio::sync::watch;

use super::board::Workers;
use super::schema::{Part, Setting};
use crate::cluster::ExecutorInfo;
use crate::error::Result;
use crate::runtime::cpu_threads;
use crate::telemetry::open_splits;

/// One process and the job which it runs.
#[derive(Debug)]
pub struct OneProcess {
    name: String,
    stop: watch::Sender<bool>,
}

impl OneProcess {
    /// Runs job or query `name`; what is returned with it becomes `true` when somebody cancels it.
    pub fn new(name: &str) -> (Self, watch::Receiver<bool>) {
        let (stop, stopped) = watch::channel(false);
        (Self { name: name.to_string(), stop }, stopped)
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

    fn settings(&self) -> Vec<Setting> {
        vec![Setting { name: "cpu-threads".to_string(), value: cpu_threads().to_string() }]
    }
}
