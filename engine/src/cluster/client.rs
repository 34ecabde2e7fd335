//! A fleet as a driver sees it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::execution_plans::DistributedQueryExec;
use ballista_core::extension::SessionConfigExt;
use datafusion::arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;
use datafusion_proto::protobuf::LogicalPlanNode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{FleetInfo, VERSION_HEADER};
use crate::codec::version_error;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::session::{Place, SessionParts};
use crate::statement;
use crate::web::board::is_part_of;

/// Port of a scheduler whose URL names none.
const PORT: u16 = 50050;

/// A REST call without an answer for this long has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A scheduler and its executors. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    url: String,
    context: SessionContext,
    http: reqwest::Client,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A Ballista job as the scheduler lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetJob {
    /// Ballista's id.
    pub job_id: String,
    /// `<job> wave <n>` for the jobs of `baler run`.
    pub job_name: String,
    /// `Queued`, `Running`, `Completed`, `Failed` or `Invalid`.
    pub status: String,
    /// Status with its detail.
    pub job_status: String,
    /// Stages which are done, in percent.
    pub percent_complete: u8,
    /// Milliseconds since 1970.
    pub start_time: u64,
    /// Milliseconds since 1970; 0 while it runs.
    pub end_time: u64,
}

impl Fleet {
    /// The fleet at `url`, if one is named.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_if_named(url: Option<&str>, parts: &SessionParts) -> Result<Option<Self>> {
        match url {
            Some(url) => Self::connect(url, parts).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reaches the scheduler at `df://host[:port]`, checks its version, and makes a session whose queries run there. The
    /// session knows the scheduler's shared tables.
    ///
    /// # Errors
    /// Unreachable, when nothing answers there; Config, for a URL which is none or a scheduler of another version.
    pub async fn connect(url: &str, parts: &SessionParts) -> Result<Self> {
        let url = http_url(url)?;
        let place = Place::Client(url.clone());
        let config =
            parts.config(&place).with_ballista_grpc_metadata(HashMap::from([(VERSION_HEADER.to_string(), crate::VERSION.to_string())]));
        let context = SessionContext::new_with_state(parts.state(&place, config)?);
        let http = http_client()?;
        let fleet = Self { url, context, http };
        let info = fleet.info().await?;
        statement::define_tables(&fleet.context, &info.tables).await?;
        Ok(fleet)
    }

    /// The session whose queries run on the fleet.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// `http://host:port` of the scheduler.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Version, executors and tables.
    ///
    /// # Errors
    /// Unreachable, when the scheduler does not answer; Config, when it is of another version.
    pub async fn info(&self) -> Result<FleetInfo> {
        let (http, url) = (self.http.clone(), self.url.clone());
        runtime::spawn_io(async move { same_version(&url, &http).await })?.join().await?
    }

    /// The Ballista jobs which the scheduler remembers.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub async fn jobs(&self) -> Result<Vec<FleetJob>> {
        self.get("/api/jobs").await
    }

    /// Cancels a Ballista job; `false` if it had ended or is unknown.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub async fn cancel(&self, job_id: &str) -> Result<bool> {
        let (http, url) = (self.http.clone(), format!("{}/api/job/{job_id}", self.url));
        let answer = runtime::spawn_io(async move { http.patch(&url).send().await })?.join().await?;
        let answer = answer.map_err(|e| unreachable_error(&self.url, &e))?;
        Ok(answer.status().is_success())
    }

    /// Cancels all that runs for job, query or Ballista job `name`; returns how many Ballista jobs that were.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub async fn cancel_parts(&self, name: &str) -> Result<usize> {
        let is_meant = |job: &FleetJob| job.job_id == name || is_part_of(name, &job.job_name);
        let mut cancelled = 0;
        for job in self.jobs().await? {
            if is_meant(&job) && matches!(job.status.as_str(), "Queued" | "Running") && self.cancel(&job.job_id).await? {
                cancelled += 1;
            }
        }
        Ok(cancelled)
    }

    /// Makes a plan ready to run on the fleet as a job of this name.
    ///
    /// # Errors
    /// Config, when the plan cannot travel.
    pub async fn submission(&self, name: &str, plan: &LogicalPlan) -> Result<Submission> {
        let state = self.context.state();
        let plan = state.create_physical_plan(plan).await?;
        let config = state.config().clone().with_ballista_job_name(name);
        let task = Arc::new(TaskContext::from(&state).with_session_config(config));
        Ok(Submission { plan, task })
    }

    async fn get<T: DeserializeOwned + Send + 'static>(&self, path: &str) -> Result<T> {
        let (http, url) = (self.http.clone(), format!("{}{path}", self.url));
        let answer = runtime::spawn_io(async move { http.get(&url).send().await?.error_for_status()?.json().await })?.join().await?;
        answer.map_err(|e| unreachable_error(&self.url, &e))
    }
}

/// One job on the fleet, begun by [`Self::run`].
#[derive(Debug, Clone)]
pub struct Submission {
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
}

impl Submission {
    /// Runs the job to its end. Dropping the future leaves the job running on the fleet.
    ///
    /// # Errors
    /// [`Failure`] says who failed.
    pub async fn run(&self) -> Result<Vec<RecordBatch>, Failure> {
        collect(Arc::clone(&self.plan), Arc::clone(&self.task)).await.map_err(|error| Failure::read(&error))
    }

    /// Ballista's id, once the scheduler has taken the job.
    pub fn job_id(&self) -> Option<String> {
        let query = self.plan.downcast_ref::<DistributedQueryExec<LogicalPlanNode>>()?;
        query.job_id().map(|id| id.to_string())
    }
}

/// Why a job on the fleet failed.
#[derive(Debug, Clone)]
pub enum Failure {
    /// A task, the planner or a codec failed with an error of ours, whose kind says whether a retry may help.
    Task(Error),
    /// Somebody cancelled it.
    Cancelled,
    /// Anything else: the scheduler went away, all executors were lost, an error of DataFusion's or Ballista's own.
    Fleet(Error),
}

impl Failure {
    fn read(error: &DataFusionError) -> Self {
        let text = error.strip_backtrace();
        match Error::from_wire(&text) {
            Some(ours) => Self::Task(ours),
            None if text.trim_end().ends_with("failed: Cancelled") => Self::Cancelled,
            None => Self::Fleet(Error::permanent(text.split_whitespace().collect::<Vec<_>>().join(" "))),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Task(error) | Failure::Fleet(error) => error,
            Failure::Cancelled => Self::permanent("the job was cancelled"),
        }
    }
}

/// Asks the scheduler at `url` (`http://host:port`) who it is.
///
/// # Errors
/// Unreachable, when none answers; Config, when it is of another version.
pub(super) async fn same_version(url: &str, http: &reqwest::Client) -> Result<FleetInfo> {
    let answer = async { http.get(format!("{url}/api/baler")).send().await?.error_for_status()?.json::<FleetInfo>().await };
    let info = answer.await.map_err(|e| unreachable_error(url, &e))?;
    if info.version == crate::VERSION { Ok(info) } else { Err(version_error(&info.version)) }
}

pub(crate) fn http_client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(CALL_TIMEOUT)
        .no_proxy()
        .build()
        .map_err(|e| Error::internal("cannot make an HTTP client").with_source(e))
}

/// `df://host:port` → `http://host:port`.
fn http_url(text: &str) -> Result<String> {
    let bad = || Error::config(format!("`{text}` is not a scheduler's URL; write df://host:{PORT}"));
    let url = Url::parse(text).map_err(|e| bad().with_source(e))?;
    if !matches!(url.scheme(), "df" | "http") {
        return Err(bad());
    }
    let host = url.host_str().ok_or_else(bad)?;
    Ok(format!("http://{host}:{}", url.port().unwrap_or(PORT)))
}

fn unreachable_error(url: &str, cause: &reqwest::Error) -> Error {
    let mut deepest: &dyn std::error::Error = cause;
    while let Some(below) = deepest.source() {
        deepest = below;
    }
    Error::new(ErrorKind::Unreachable, format!("the scheduler at {url} does not answer as one of Baler: {deepest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheduler_urls_are_read() {
        assert_eq!(http_url("df://host").unwrap(), "http://host:50050");
        assert_eq!(http_url("df://127.0.0.1:7").unwrap(), "http://127.0.0.1:7");
        assert!(http_url("host:50050").unwrap_err().to_string().contains("df://host:50050"));
    }
}
