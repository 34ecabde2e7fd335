//! Integration tests: the `baler` binary against real servers. Each name is the property which the test proves.
//!
//! | module | holds |
//! | --- | --- |
//! | `round_trip` | every input shape comes back from every sink, byte for byte |
//! | `s3` | objects in MinIO, over http and https |
//! | `damage` | compressed objects which are cut short or corrupt |
//! | `kill` | `kill -9` and SIGTERM of `baler run`, and the resumed job |
//! | `connection` | connections cut, servers killed |
//! | `chaos` | `baler chaos`: faults drawn from a seed, and an audit after each round |
//! | `change` | the same job again: unchanged, and with another statement or input |
//! | `abuse` | callers who ask too much, crashes, and input which is meant to do harm |
//! | `audit` | `verify` finds what was done behind its back |
//! | `disk` | full disks and missing rights |
//! | `docs` | the pages of docs/ are those of the code; completions and manual |
//! | `migrating` | a SparkApplication becomes a job which runs; habits of spark-submit |
//! | `commands` | `demo`, `generate`, `sql`, and the command lines of the README |
//! | `fleet` | jobs on a fleet, whatever is killed |
//! | `kafka` | topics as tables and as the input of jobs |
//! | `metrics` | what Prometheus scrapes is what the receipts say; logs |
//! | `monitoring` | alerting rules, and Grafana dashboards on the data of a real run |
//! | `preflight` | `check` finds what would fail and writes nothing; `advise` foretells what a job stores |
//! | `traces` | a job is one trace, in a real Jaeger |
//! | `queries` | SQL on a fleet: the answers of one process; plans, options, functions; INSERT of joins and aggregates |
//! | `dashboard` | the page in a real browser |
//! | `defaults` | each default of the cluster which differs from Ballista's: what would go wrong without it |
//! | `stream` | `baler stream`, whatever is killed |
//! | `feed_audit` | `verify` of topics and of whole queries; old micro-batches folded |
//! | `letters` | dead letters: kept, and tried again |
//! | `prompt` | `baler sql` on a terminal |
//! | `packaging` | the archive of a release, unpacked elsewhere |
//! | `push_down` | filters and aggregates which the server of a collection evaluates give the same rows |
//! | `reach` | which files, hosts and buckets SQL may name, and that it reads no environment |
//! | `read_back` | stored documents read by SQL |
//! | `flight_sql` | SQL from other programs: a Python and a Java client on a fleet |
//! | `restore` | the original objects come back, whatever is killed; what is damaged does not |
//! | `image` | the container image: what it runs, as whom, and what it may write |
//! | `kubernetes` | the manifests, against a real API server |
//! | `kubernetes_airflow` | the DAG under a real Airflow, and what its pods do |
//! | `kubernetes_kafka` | three brokers with the manifests' own scripts, settings and certificates |
//! | `kubernetes_pods` | what their pods do: commands, environment and files taken from the API server and run here |
//! | `kubernetes_scripts` | the scripts of k8s/, against a real API server |
//! | `supply_chain` | licences, sources and versions of dependencies; the bill of materials |
//! | `tls` | fleets with TLS: who gets in, what each role may do, certificates that are renewed, and secrets that nobody sees |
//! | `refusal` | mistakes of a user: one clear line, the right exit code, no secret |
#![expect(clippy::unwrap_used, clippy::panic, reason = "this is a test")]

mod abuse;
mod audit;
mod change;
mod chaos;
mod commands;
mod connection;
mod damage;
mod dashboard;
mod defaults;
mod disk;
mod docs;
mod feed_audit;
mod fleet;
mod flight_sql;
mod image;
mod kafka;
mod kill;
mod kubernetes;
mod kubernetes_airflow;
mod kubernetes_autoscaling;
mod kubernetes_kafka;
mod kubernetes_operator;
mod kubernetes_pods;
mod kubernetes_scripts;
mod kubernetes_tls;
mod letters;
mod metrics;
mod migrating;
mod monitoring;
mod packaging;
mod preflight;
mod prompt;
mod push_down;
mod python;
mod queries;
mod reach;
mod read_back;
mod refusal;
mod restore;
mod round_trip;
mod s3;
mod stream;
mod supply_chain;
mod tls;
mod traces;
