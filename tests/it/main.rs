//! Integration tests: the `baler` binary against real servers. Each name is the property which the test proves.
//!
//! | module | holds |
//! | --- | --- |
//! | `round_trip` | every input shape comes back from every sink, byte for byte |
//! | `s3` | objects in MinIO, over http and https |
//! | `damage` | compressed objects which are cut short or corrupt |
//! | `kill` | `kill -9` and SIGTERM of `baler run`, and the resumed job |
//! | `connection` | connections cut, servers killed |
//! | `change` | the same job again: unchanged, and with another statement or input |
//! | `audit` | `verify` finds what was done behind its back |
//! | `disk` | full disks and missing rights |
//! | `commands` | `demo`, `generate`, `sql`, and the command lines of the README |
//! | `fleet` | jobs on a fleet, whatever is killed |
//! | `kafka` | topics as tables and as the input of jobs |
//! | `metrics` | what Prometheus scrapes is what the receipts say; logs |
//! | `monitoring` | alerting rules, and Grafana dashboards on the data of a real run |
//! | `queries` | SQL on a fleet: the answers of one process; plans, options, functions; INSERT of joins and aggregates |
//! | `dashboard` | the page in a real browser |
//! | `defaults` | each default of the cluster which differs from Ballista's: what would go wrong without it |
//! | `stream` | `baler stream`, whatever is killed |
//! | `read_back` | stored documents read by SQL |
//! | `flight_sql` | SQL from other programs: a Python and a Java client on a fleet |
//! | `restore` | the original objects come back, whatever is killed; what is damaged does not |
//! | `refusal` | mistakes of a user: one clear line, the right exit code, no secret |
#![expect(clippy::unwrap_used, clippy::panic, reason = "this is a test")]

mod audit;
mod change;
mod commands;
mod connection;
mod damage;
mod dashboard;
mod defaults;
mod disk;
mod fleet;
mod flight_sql;
mod kafka;
mod kill;
mod metrics;
mod monitoring;
mod queries;
mod read_back;
mod refusal;
mod restore;
mod round_trip;
mod s3;
mod stream;
