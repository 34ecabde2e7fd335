//! Flight SQL: SQL for everybody who has an ADBC or JDBC driver, on the scheduler's port.
//!
//! | file | holds |
//! | --- | --- |
//! | `service` | the protocol's calls, as Arrow's service tells them apart |
//! | `calls` | what is done for each: who asks, what is asked, what goes back |
//! | `session` | sessions, prepared statements and small results, each until it was idle for long |
//! | `run` | a statement's way: SQL → plan → job → result; a client that leaves takes its job along |
//! | `analyze` | what the operators of a job did |
//! | `encode` | tickets, schemas, rows and errors as clients can read them |
//!
//! Ballista has a service of its own (`ballista-flight-sql`), which refuses INSERT, keeps the job of a client that is gone, and
//! sends what the JDBC driver cannot read. Its answers about catalogs, schemas, tables and the server are used as they are.

mod analyze;
mod calls;
pub(crate) mod encode;
pub(crate) mod run;
mod service;
pub(crate) mod session;

pub use service::FlightSql;
