//! The cluster: Ballista's scheduler and executor with our session, and the client's end of it.
//!
//! | place | holds |
//! | --- | --- |
//! | [`defaults`] | where our defaults differ from Ballista's, and why |
//! | [`scheduler`] | `baler scheduler`: Ballista's services, REST, Flight and ours behind one port |
//! | `secure` | an executor's ports by TLS |
//! | `slots` | which slots are free, counted from what runs |
//! | `kept` | what a stage has delivered is delivered once, also when it is rolled back |
//! | [`executor`] | `baler executor`: Ballista's executor with drain, restart and health |
//! | [`client`] | a fleet as a driver sees it: sessions, slots, submissions, jobs |
//! | [`flight_sql`] | SQL for everybody who has an ADBC or JDBC driver |
//! | `engine` | how an executor makes a task ready |
//! | `stop` | a task that is cancelled ends |
//! | `transfer` | a shuffle whose transfer breaks off is fetched again |
//! | `workers`, `stages` | what the dashboard shows of a scheduler, and of a job's stages there |
//! | [`compressed`] | compressed CSV and JSON tables, which Ballista's plans lose |
//!
//! Distribution is Ballista's: stages, tasks, shuffles and retries are never ours.

pub mod client;
pub mod compressed;
pub mod defaults;
mod engine;
pub mod executor;
pub mod flight_sql;
mod kept;
pub mod scheduler;
mod secure;
mod slots;
mod stages;
mod stop;
mod transfer;
pub(crate) mod workers;

use ballista_core::error::BallistaError;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// Header with the version of a client of ours, on each call that brings a plan.
pub(crate) const VERSION_HEADER: &str = "baler-version";

/// What `GET /api/baler` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetInfo {
    /// Version of the scheduler.
    pub version: String,
    /// Executors whose heartbeat is fresh.
    pub executors: Vec<ExecutorInfo>,
    /// Statements which define the tables of every session (`--tables`).
    pub tables: String,
}

impl FleetInfo {
    /// Tasks which can run at once.
    pub fn slots(&self) -> usize {
        self.executors.iter().map(|executor| executor.slots).sum()
    }
}

/// One executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorInfo {
    /// Ballista's id of it.
    pub id: String,
    /// Where it is reached.
    pub host: String,
    /// Port of its Flight service.
    pub port: u16,
    /// Tasks which it runs at once.
    pub slots: usize,
    /// Seconds since its last heartbeat.
    pub heartbeat_age_seconds: u64,
    /// Slots in use, as the scheduler has given them out.
    #[serde(default)]
    pub slots_used: usize,
    /// Memory of its process at the last heartbeat, in bytes (resident).
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// The most that was.
    #[serde(default)]
    pub memory_peak_bytes: Option<u64>,
    /// Its version, once it has said it.
    #[serde(default)]
    pub version: Option<String>,
}

/// What an executor calls itself in each call: `baler/<version>+<id>`.
pub(crate) fn executor_agent(id: &str) -> String {
    format!("baler/{}+{id}", crate::VERSION)
}

/// Id and version of the executor which calls itself so.
pub(crate) fn read_agent(agent: &str) -> Option<(&str, &str)> {
    let (version, id) = agent.strip_prefix("baler/")?.split(' ').next()?.split_once('+')?;
    Some((id, version))
}

/// Ballista's error → ours.
pub(crate) fn ballista_error(error: BallistaError) -> Error {
    match error {
        BallistaError::Configuration(text) => Error::config(text),
        BallistaError::DataFusionError(error) => Error::from(*error),
        BallistaError::GrpcConnectionError(text) => Error::new(ErrorKind::Unreachable, text),
        error => Error::from_wire(&format!("{error:?}")).unwrap_or_else(|| Error::new(ErrorKind::Permanent, error.to_string())),
    }
}
