//! The harness of the integration tests: real servers, the `baler` binary, faults, inputs, and an independent reader.
//!
//! | file | holds |
//! | --- | --- |
//! | [`cache`] | tools which are installed once per machine, outside the checkout |
//! | [`servers`] | child processes: free ports, logs, scratch folders, a watchdog which stops them with the test process |
//! | [`minio`] | MinIO over http and https, buckets |
//! | [`mongo`] | the MongoDB wire server: start, stop, kill, restart, authentication |
//! | [`kafka`] | an Apache Kafka broker: start, stop, kill, restart, TLS and logins |
//! | [`topic`] | its topics: producers, and a consumer which checks |
//! | [`feed`] | one feed of a test: a topic, a sink, `run` and `stream`, and what must be stored |
//! | [`jaeger`] | a Jaeger which takes the spans of what a test runs |
//! | [`prometheus`] | a Prometheus server which scrapes what a test runs |
//! | [`provider`] | an OpenID provider which gives out tokens |
//! | [`proxy`] | a TCP proxy whose faults are counted, so that a test can prove that its fault fired |
//! | [`baler`] | the binary under test as a child process with a deadline |
//! | [`browser`] | a headless Chromium which a script drives |
//! | [`job`] | one job of a test: its SQL file, sink, state, `run` and `verify` |
//! | [`fleet`] | a scheduler and executors as real processes, and their faults |
//! | [`flight`] | the ADBC and JDBC drivers which speak Flight SQL to a fleet |
//! | [`packages`] | tools of Debian, PyPI and Go modules, unpacked into the cache |
//! | [`image`] | the container image, built without a daemon |
//! | [`kubernetes`] | etcd, kube-apiserver and its controllers, `kubectl`, manifests as values, and a stand-in for the kubelet |
//! | [`corpus`] | input shapes |
//! | [`dump_reader`] | reads what was written, without any code of the engine |
//!
//! `cargo test -p baler-tests` runs everything. Its environment:
//!
//! | variable | names |
//! | --- | --- |
//! | `BALER_BIN` | the binary to test; else the one in the target folder, built when it is missing or stale |
//! | `BALER_TEST_CACHE` | the folder of the servers' installations; else `~/.cache/baler-tests` |
//! | `BALER_TEST_MONGOD` | another MongoDB wire server with SecantusDB's flags |
//! | `BALER_TEST_MINIO` | another MinIO binary |
//! | `BALER_TEST_SCHEDULER_FLAGS`, `BALER_TEST_EXECUTOR_FLAGS`, `BALER_TEST_SET` | further flags and SET statements, by which a test of a default is seen to fail without it |
//! | `BALER_TEST_SEED` | the seed of the random kills |
//! | `BALER_TEST_KEEP` | set: the temporary folders stay; after a failure they stay anyway |
//!
//! Needed on the first run: Go, Maven, Python 3 with `venv`, `openssl`, apt, dpkg, Node.js with npm, and root (for the image's base); on each run: Java 17, bash, a POSIX `sh`,
//! binutils, and for root `setpriv` and `unshare`.
//!
//! Nothing here waits for a time to pass: [`wait_until`] waits for a condition and has a deadline.
#![expect(clippy::expect_used, clippy::panic, reason = "a harness ends the test which uses it")]

pub mod authority;
pub mod baler;
pub mod browser;
pub mod cache;
pub mod corpus;
pub mod dump_reader;
pub mod feed;
pub mod fleet;
pub mod flight;
pub mod image;
pub mod jaeger;
pub mod job;
pub mod kafka;
pub mod kubernetes;
pub mod minio;
pub mod mongo;
pub mod packages;
pub mod prometheus;
pub mod provider;
pub mod proxy;
pub mod servers;
pub mod topic;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long one run of the binary or one condition may take before a test gives up. It is generous, because machines which
/// run tests are shared: it ends a hang and measures nothing.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// Time between two looks at a condition.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not hold within [`DEADLINE`]; the text names `what` and ends with the logs of all servers.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain until {what}\n{}", servers::logs());
        std::thread::sleep(LOOK);
    }
}

/// Runs a future of a driver to its end on the harness' own runtime.
///
/// # Panics
/// When the runtime cannot be started, or the future is not ready within [`DEADLINE`].
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("cannot start the harness' runtime")
    });
    runtime.block_on(async {
        match tokio::time::timeout(DEADLINE, Box::pin(future.into_future())).await {
            Ok(output) => output,
            Err(_) => panic!("a server did not answer within {DEADLINE:?}\n{}", servers::logs()),
        }
    })
}
