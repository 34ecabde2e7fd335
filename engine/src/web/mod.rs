//! The dashboard: one page, its API, and what both know.
//!
//! | place | holds |
//! | --- | --- |
//! | [`schema`] | what the API answers, in types shared with `baler jobs --output json` |
//! | [`board`] | jobs and queries of a state folder, read as little as possible, and whose work it is |
//! | [`plan`] | a plan as a graph, with the metrics of its nodes |
//! | [`secret`] | what is not shown |
//! | `process` | the board of one process, for `baler run \| stream --dashboard` |
//! | `routes` | `/`, its assets, `/api/baler/…` |
//! | `assets/` | the page: hand-kept HTML, CSS and ES modules; no build step, nothing from elsewhere |
//!
//! Nothing of a job is kept here: what the page shows of it comes from the state folder, so history outlives every process.

pub mod board;
pub mod plan;
mod process;
mod routes;
pub mod schema;
pub mod secret;

pub use process::OneProcess;
pub use routes::{is_cross_site, routes};
