//! Where Baler's cluster differs from Ballista's defaults, each with its reason. `tests/it/defaults.rs` holds a test for each which
//! fails without it.

use ballista_core::config::{BALLISTA_ADAPTIVE_PLANNER_ENABLED, BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK};
use ballista_core::extension::SessionConfigExt;
use datafusion::prelude::SessionConfig;

/// Largest gRPC message, in bytes. A document is at most 16 MiB, and a client may fetch a batch of some; Ballista's 16 MiB would
/// fail on the first large one.
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// Options of every session on a cluster.
pub fn session(config: SessionConfig) -> SessionConfig {
    config
        // Adaptive planning hangs a job for good when a finished shuffle is lost with its executor, and breaks Flight SQL on
        // queries of several stages (Ballista 55).
        .set_bool(BALLISTA_ADAPTIVE_PLANNER_ENABLED, false)
        // A task is what is repeated after a failure: one partition of splits, not all that fit an executor.
        .set_usize(BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK, 1)
        .with_ballista_grpc_client_max_message_size(MESSAGE_BYTES_MAX)
}

/// A flag of Ballista's with another default: its name without dashes in front, and the value.
pub type FlagDefault = (&'static str, &'static str);

/// Flags of `baler scheduler`.
pub const SCHEDULER_FLAGS: &[FlagDefault] = &[
    // Nothing listens beyond this machine unless asked to: the plain protocol has no password.
    ("bind-host", "127.0.0.1"),
    // Ballista lets two other origins read its API, and cancel jobs by it; no page has this one.
    ("cors-allowed-origins", "none"),
    // `/` is our dashboard.
    ("web-tui-route", "/ballista"),
    // Pull scheduling runs more tasks than an executor has slots, and cannot cancel one.
    ("scheduler-policy", "push-staged"),
    // Spreads a job's tasks over all executors; `bias` fills one and leaves the others idle.
    ("task-distribution", "round-robin"),
    // Four missed heartbeats of 5 s: a killed executor is noticed in seconds, where Ballista's 180 s would stall the job.
    ("executor-timeout-seconds", "20"),
    ("expire-dead-executor-interval-seconds", "2"),
    // How long a job waits while there is no executor at all: a rolling restart fits in.
    ("no-executors-grace-period-seconds", "60"),
    // A job comes as many small ones; their state is of no use once the receipts are there. An hour of it would fill the memory.
    ("finished-job-state-clean-up-interval-seconds", "300"),
    ("grpc-server-max-decoding-message-size", "134217728"),
    ("grpc-server-max-encoding-message-size", "134217728"),
];

/// Flags of `baler executor`.
pub const EXECUTOR_FLAGS: &[FlagDefault] = &[
    ("bind-host", "127.0.0.1"),
    ("task-scheduling-policy", "push-staged"),
    ("executor-heartbeat-interval-seconds", "5"),
    // An executor may be started before its scheduler.
    ("scheduler-connect-timeout-seconds", "60"),
    // Scratch of jobs whose scheduler died is not removed by anybody else.
    ("job-data-clean-up-interval-seconds", "600"),
    ("job-data-ttl-seconds", "3600"),
    ("grpc-server-max-decoding-message-size", "134217728"),
];
