//! Leader election: of several operators one acts, the others wait for its Lease.
//!
//! A lease whose `renewTime` has not changed for its duration, by the clock of whoever looks, is free: clocks of other machines are never
//! compared. Two may try at once; the API server takes the first, because each names the version which it saw.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};

use super::context::{kube_error, status_code};
use crate::error::{Error, ErrorKind, Result};

/// Name of the Lease.
const NAME: &str = "baler-operator";

/// One candidate.
#[derive(Debug)]
pub(super) struct Election {
    leases: Api<Lease>,
    holder: String,
    duration: Duration,
    /// Whose lease was seen last, its `renewTime`, and when that was new.
    seen: Option<(String, Option<MicroTime>, Instant)>,
}

impl Election {
    /// A candidate for a lease which is lost when it was not renewed for `duration`.
    pub(super) fn new(leases: Api<Lease>, duration: Duration) -> Self {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_string());
        // A process that is started again in its pod is another candidate.
        Self { leases, holder: format!("{host}_{:016x}", rand::random::<u64>()), duration, seen: None }
    }

    /// Who this candidate is.
    pub(super) fn holder(&self) -> &str {
        &self.holder
    }

    fn pause(&self) -> Duration {
        self.duration / 5
    }

    /// Waits until the lease is ours. Failures are logged and tried again.
    pub(super) async fn acquire(&mut self) {
        let mut told = false;
        loop {
            match self.try_hold().await {
                Ok(true) => return,
                Ok(false) if !told => {
                    let holder = self.seen.as_ref().map_or("another one", |(holder, ..)| holder);
                    tracing::info!(holder, "another operator acts; waiting for its lease");
                    told = true;
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the lease cannot be had"),
            }
            tokio::time::sleep(self.pause()).await;
        }
    }

    /// Renews the lease until it is lost; returns why it is.
    pub(super) async fn hold(&mut self) -> Error {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.pause()).await;
            // Given up before others may take it: an answer that comes too late must not find two acting.
            let deadline = self.duration * 2 / 3;
            let left = deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.try_hold()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return Error::new(ErrorKind::Transient, "another operator has taken the lease; this one ends"),
                Ok(Err(error)) if renewed.elapsed() < deadline => tracing::warn!(%error, "the lease could not be renewed"),
                Ok(Err(error)) => return error.context("the lease could not be renewed in time; this operator ends"),
                Err(_elapsed) => return Error::new(ErrorKind::Transient, "the lease could not be renewed in time; this operator ends"),
            }
        }
    }

    /// Gives the lease back, so that the next one need not wait.
    pub(super) async fn release(&mut self) -> Result<()> {
        let failed = |e| kube_error("giving back the lease", &e);
        let Some(mut lease) = self.leases.get_opt(NAME).await.map_err(failed)? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(self.holder.as_str()) {
            spec.holder_identity = None;
            self.leases.replace(NAME, &PostParams::default(), &lease).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Takes or renews the lease; `false` if it is another's.
    async fn try_hold(&mut self) -> Result<bool> {
        let failed = |e| kube_error("asking for the lease", &e);
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.leases.get_opt(NAME).await.map_err(failed)? else {
            let metadata = ObjectMeta { name: Some(NAME.to_string()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(now, 0)) };
            return won(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.get_or_insert_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder == self.holder {
            spec.renew_time = Some(now);
        } else {
            if !holder.is_empty() && !self.is_over(&holder, spec) {
                return Ok(false);
            }
            *spec = self.spec(now, spec.lease_transitions.unwrap_or_default() + 1);
        }
        won(self.leases.replace(NAME, &PostParams::default(), &lease).await)
    }

    /// Whether the lease was not renewed for its duration, as far as this process has seen.
    fn is_over(&mut self, holder: &str, spec: &LeaseSpec) -> bool {
        if let Some((seen, renewed, since)) = &self.seen
            && seen == holder
            && *renewed == spec.renew_time
        {
            let duration =
                spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(self.duration, Duration::from_secs);
            return since.elapsed() > duration;
        }
        self.seen = Some((holder.to_string(), spec.renew_time.clone(), Instant::now()));
        false
    }

    fn spec(&self, now: MicroTime, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(self.duration.as_secs().max(1) as i32),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// Whether this one was first.
fn won(answer: kube::Result<Lease>) -> Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(error) if status_code(&error) == Some(409) => Ok(false),
        Err(error) => Err(kube_error("taking the lease", &error)),
    }
}
