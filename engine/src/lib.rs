//! Baler: objects and records in, counted and verified compressed documents out.
//!
//! # The tour of one row
//!
//! 1. `sql/compress.sql`: the statement; [`statement`] plans it.
//! 2. [`connector::blob`]: DDL → `BlobSpec`; the provider lists objects once and cuts them into splits. [`connector::kafka`] does
//!    the same with a topic and its offsets, and takes the place of stops 4 and 5.
//! 3. [`connector::sink`]: INSERT → [`connector::write::WriteExec`] over the query; columns are checked. Planning ends.
//! 4. [`connector::blob::read`]: object bytes → blocks, read ahead on the I/O runtime.
//! 5. [`connector::blob::chunk`], [`connector::blob::scan`]: blocks → chunks → `RecordBatch` *(a row is a slice of columns)*.
//! 6. [`function::zlib`]: column in, column out, on the CPU pool.
//! 7. [`connector::document`]: one match on the Arrow type → BSON *(a row is a document)*.
//! 8. [`connector::batch`]: documents → batches under the sink's limits.
//! 9. [`connector::mongodb::write`] or [`connector::bson::write`]: send, wait for the acknowledgement.
//! 10. [`connector::receipt`]: one receipt a split, into the job's state; [`job::run`] commits when all are there.
//!
//! The way back, documents → object, is [`job::restore`].
//!
//! # Modules
//!
//! [`session`] assembles a session; [`codec`] makes its plans travel; [`cluster`] is the fleet; [`statement`] plans SQL; [`connector`] holds sources and sinks; [`function`] the SQL
//! functions; [`job`] state, driver and auditor; [`stream`] the driver of streaming queries; [`generate`] sample data; [`advise`] forecasts from a sample; [`check`] is the preflight; [`cli`] the command line; [`web`] the dashboard; [`trust`] TLS, roles and the guard of every server; [`operator`] resources of Kubernetes; [`migrate`] the way from Spark; [`mod@reference`] docs/reference.md, with `limits`; [`credentials`], [`error`], [`hex`], [`object_writer`], [`options`],
//! [`retry`], [`runtime`], [`store`] and [`telemetry`] serve them all.

pub mod advise;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod codec;
pub mod connector;
pub mod credentials;
pub mod error;
pub mod function;
pub mod generate;
pub mod hex;
pub mod job;
pub(crate) mod limits;
pub mod migrate;
pub mod object_writer;
pub mod operator;
pub mod options;
pub mod reference;
pub mod retry;
pub mod runtime;
pub mod session;
pub mod statement;
pub mod store;
pub mod stream;
pub mod telemetry;
pub mod trust;
pub mod web;

use datafusion::prelude::SessionContext;

pub use error::{Error, ErrorKind, Result};

/// Version of this crate. Client, scheduler and executors must be of one version, because they exchange plans.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where programs begin: a plain DataFusion [`SessionContext`] which knows Baler's tables and functions.
///
/// A program with functions of its own uses [`session::SessionParts`].
#[derive(Debug)]
pub struct Baler;

impl Baler {
    /// A session which runs everything in this process.
    ///
    /// # Errors
    /// DataFusion's, when the runtime cannot be built.
    pub fn local() -> Result<SessionContext> {
        session::local_session()
    }

    /// A session whose queries run on the fleet of the scheduler at `df://host[:port]`, without TLS; [`session::SessionParts::with_tls`] adds it.
    ///
    /// # Errors
    /// Unreachable, when nothing answers there; Config, when the scheduler is of another version.
    pub async fn connect(url: &str) -> Result<SessionContext> {
        session::SessionParts::default().connect(url).await
    }
}
