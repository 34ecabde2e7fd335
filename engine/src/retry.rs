//! The one retry rule: transient errors are tried again with growing, jittered pauses up to a cap; others are not.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::telemetry::{COUNTERS, RetryKind};

/// First pause; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause: short enough to notice a server that is back.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Longest time in one step. An election of a replica set and a restarted pod both fit in; after it the split fails and the
/// job can be resumed.
pub(crate) const RETRY_TIMEOUT: Duration = Duration::from_secs(90);

/// Attempts at one step.
#[derive(Debug)]
pub struct Retry {
    kind: RetryKind,
    attempts: u32,
    started: Instant,
}

impl Retry {
    /// Starts the clock of one step, which is counted as `kind` when it is tried again.
    pub fn new(kind: RetryKind) -> Self {
        Self { kind, attempts: 0, started: Instant::now() }
    }

    /// Pauses if `error` may pass by itself and there is time left.
    ///
    /// # Errors
    /// Gives `error` back, with the attempts made, if it is not transient or the time is over.
    pub async fn wait_or(&mut self, error: Error) -> Result<()> {
        if !error.is_retryable() {
            return Err(error);
        }
        if self.started.elapsed() >= RETRY_TIMEOUT {
            let (attempts, seconds) = (self.attempts + 1, self.started.elapsed().as_secs());
            return Err(error.context(format!("gave up after {attempts} attempts in {seconds} s")));
        }
        tracing::warn!(attempt = self.attempts + 1, %error, "a step failed and is tried again");
        let pause = PAUSE_FIRST.saturating_mul(1 << self.attempts.min(10)).min(PAUSE_MAX);
        // Half to full pause: writers that failed together do not come back together.
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        self.attempts += 1;
        COUNTERS.add_retry(self.kind);
        Ok(())
    }
}
