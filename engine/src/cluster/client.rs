//! A fleet as a driver sees it.

use std::collections::HashMap;
use std::sync::Arc;

use ballista_core::execution_plans::DistributedQueryExec;
use ballista_core::extension::SessionConfigExt;
use datafusion::arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;
use datafusion_proto::protobuf::LogicalPlanNode;
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{FleetInfo, VERSION_HEADER};
use crate::codec::version_error;
use crate::credentials::read_secret;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::session::{Place, SessionParts};
use crate::statement;
use crate::trust::tls::{CALL_TIMEOUT, Tls};
use crate::web::board::is_part_of;

/// Port of a scheduler whose URL names none.
const PORT: u16 = 50050;

/// A scheduler and its executors. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    url: String,
    context: SessionContext,
    caller: Caller,
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

    /// Reaches the scheduler at `df://host[:port]`, or by TLS at `dfs://host[:port]`, says who calls (`BALER_TOKEN` or the file in
    /// `BALER_TOKEN_FILE`, and the certificate of `parts`), checks its version, and makes a session whose queries run there. The
    /// session knows the scheduler's shared tables.
    ///
    /// # Errors
    /// Unreachable, when nothing answers there, or refuses who calls; Config, for a URL which is none, does not fit the TLS of `parts`, or
    /// a scheduler of another version.
    pub async fn connect(url: &str, parts: &SessionParts) -> Result<Self> {
        let (url, is_secure) = http_url(url)?;
        let token = token()?;
        let tls = fitting_tls(is_secure, parts, token.is_some())?;
        let place = Place::Client(url.replacen("https://", "http://", 1));
        let config = parts.config(&place).with_ballista_grpc_metadata(grpc_metadata(token));
        let context = SessionContext::new_with_state(parts.state(&place, config)?);
        let fleet = Self { url, context, caller: Caller::client(tls)? };
        let info = fleet.info().await?;
        statement::define_tables(&fleet.context, &info.tables).await?;
        Ok(fleet)
    }

    /// The session whose queries run on the fleet.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// `http://host:port` or `https://host:port` of the scheduler.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Version, executors and tables.
    ///
    /// # Errors
    /// Unreachable, when the scheduler does not answer; Config, when it is of another version.
    pub async fn info(&self) -> Result<FleetInfo> {
        let (caller, url) = (self.caller.clone(), self.url.clone());
        runtime::spawn_io(async move { same_version(&url, &caller).await })?.join().await?
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
        let (caller, url, path) = (self.caller.clone(), self.url.clone(), format!("/api/job/{job_id}"));
        let answer = runtime::spawn_io(async move { caller.call(Method::PATCH, &url, &path).await })?.join().await??;
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
        let config = state.config().clone().with_ballista_job_name(name).with_ballista_grpc_metadata(grpc_metadata(token()?));
        let task = Arc::new(TaskContext::from(&state).with_session_config(config));
        Ok(Submission { plan, task })
    }

    async fn get<T: DeserializeOwned + Send + 'static>(&self, path: &str) -> Result<T> {
        let (caller, url, path) = (self.caller.clone(), self.url.clone(), path.to_string());
        runtime::spawn_io(async move { caller.get(&url, &path).await })?.join().await?
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

/// The token of this process, as it is now: tokens of a provider end, and whoever fetches new ones writes them into the same file.
fn token() -> Result<Option<String>> {
    read_secret("BALER", "TOKEN")
}

/// What each gRPC call says besides: version and token.
fn grpc_metadata(token: Option<String>) -> HashMap<String, String> {
    let mut metadata = HashMap::from([(VERSION_HEADER.to_string(), crate::VERSION.to_string())]);
    metadata.extend(token.map(|token| ("authorization".to_string(), format!("Bearer {token}"))));
    metadata
}

/// How REST calls to a scheduler say who they are from. Cheap to clone.
#[derive(Clone)]
pub(super) struct Caller {
    plain: reqwest::Client,
    tls: Option<Arc<Tls>>,
    says_token: bool,
}

impl Caller {
    /// A client: says the token of this process too, if it has one.
    fn client(tls: Option<Arc<Tls>>) -> Result<Self> {
        // A token goes out by TLS alone.
        Ok(Self { plain: http_client()?, says_token: tls.is_some(), tls })
    }

    /// A member of the fleet: is known by its certificate alone.
    pub(super) fn member(tls: Option<Arc<Tls>>) -> Result<Self> {
        Ok(Self { plain: http_client()?, says_token: false, tls })
    }

    /// Calls the scheduler at `url`. Certificates are read anew when their files have changed, and so is the token.
    async fn call(&self, method: Method, url: &str, path: &str) -> Result<Response> {
        let http = match &self.tls {
            Some(tls) => tls.http()?,
            None => self.plain.clone(),
        };
        let mut call = http.request(method, format!("{url}{path}"));
        if self.says_token
            && let Some(token) = token()?
        {
            call = call.bearer_auth(token);
        }
        let answer = call.send().await.map_err(|e| unreachable_error(url, &e))?;
        if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let why = answer.text().await.unwrap_or_default();
            return Err(Error::new(ErrorKind::Unreachable, format!("the scheduler at {url} refuses: {}", why.trim())));
        }
        Ok(answer)
    }

    async fn get<T: DeserializeOwned>(&self, url: &str, path: &str) -> Result<T> {
        let answer = self.call(Method::GET, url, path).await?;
        let answer = async { answer.error_for_status()?.json().await };
        answer.await.map_err(|e| unreachable_error(url, &e))
    }
}

/// Asks the scheduler at `url` (`http://host:port`) who it is.
///
/// # Errors
/// Unreachable, when none answers, or refuses; Config, when it is of another version.
pub(super) async fn same_version(url: &str, caller: &Caller) -> Result<FleetInfo> {
    let info: FleetInfo = caller.get(url, "/api/baler").await?;
    if info.version == crate::VERSION { Ok(info) } else { Err(version_error(&info.version)) }
}

pub(crate) fn http_client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(CALL_TIMEOUT)
        .no_proxy()
        .build()
        .map_err(|e| Error::internal("cannot make an HTTP client").with_source(e))
}

/// `df://host:port` → `http://host:port`, `dfs://host:port` → `https://host:port`; and whether it is the latter.
fn http_url(text: &str) -> Result<(String, bool)> {
    let bad = || Error::config(format!("`{text}` is not a scheduler's URL; write df://host:{PORT}, or dfs://host:{PORT} for TLS"));
    let url = Url::parse(text).map_err(|e| bad().with_source(e))?;
    let scheme = match url.scheme() {
        "df" | "http" => "http",
        "dfs" | "https" => "https",
        _ => return Err(bad()),
    };
    let host = url.host_str().ok_or_else(bad)?;
    Ok((format!("{scheme}://{host}:{}", url.port().unwrap_or(PORT)), scheme == "https"))
}

/// The TLS by which a scheduler is called. What was meant to be secret never goes out in plain by a slip of the URL.
fn fitting_tls(is_secure: bool, parts: &SessionParts, has_token: bool) -> Result<Option<Arc<Tls>>> {
    match (is_secure, parts.tls()) {
        (true, Some(tls)) => {
            tls.current()?;
            Ok(Some(Arc::clone(tls)))
        }
        (true, None) => Err(Error::config("dfs:// needs --tls-ca, the certificate of the fleet's authority")),
        (false, Some(_)) => Err(Error::config("--tls-ca is given, but df:// is plain; write dfs://")),
        (false, None) if has_token => Err(Error::config("BALER_TOKEN is set, and goes out by TLS alone; write dfs:// and give --tls-ca")),
        (false, None) => Ok(None),
    }
}

/// What the texts of a failed handshake mean.
const TLS_HINTS: [(&str, &str); 10] = [
    ("UnknownIssuer", ": --tls-ca does not hold the authority which signed its certificate"),
    // An authority of the same name, but another one.
    ("BadSignature", ": --tls-ca does not hold the authority which signed its certificate"),
    ("NotValidForName", ": its certificate is for another host"),
    ("invalid peer certificate: Expired", ": its certificate has ended"),
    ("alert: CertificateExpired", ": the certificate of --tls-cert has ended"),
    ("alert: UnknownCA", ": it does not know the authority which signed --tls-cert"),
    ("alert: DecryptError", ": it does not know the authority which signed --tls-cert"),
    ("alert: CertificateRequired", ": it asks for a certificate, --tls-cert and --tls-key"),
    ("InvalidContentType", ": it does not speak TLS; write df://"),
    ("invalid HTTP version", ": perhaps it speaks TLS; write dfs://"),
];

fn unreachable_error(url: &str, cause: &reqwest::Error) -> Error {
    let mut deepest: &dyn std::error::Error = cause;
    while let Some(below) = deepest.source() {
        deepest = below;
    }
    let cause = deepest.to_string();
    let hint = TLS_HINTS.iter().find(|(text, _)| cause.contains(text)).map_or("", |(_, hint)| hint);
    Error::new(ErrorKind::Unreachable, format!("the scheduler at {url} does not answer as one of Baler: {cause}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheduler_urls_are_read() {
        assert_eq!(http_url("df://host").unwrap(), ("http://host:50050".to_string(), false));
        assert_eq!(http_url("df://127.0.0.1:7").unwrap(), ("http://127.0.0.1:7".to_string(), false));
        assert_eq!(http_url("dfs://host").unwrap(), ("https://host:50050".to_string(), true));
        assert!(http_url("host:50050").unwrap_err().to_string().contains("df://host:50050"));
    }
}
