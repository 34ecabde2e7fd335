//! How much one caller may ask of a server, so that others are still served: requests in a second, and requests under way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests of one caller in a second, on average, unless told otherwise: some hundred pages and drivers, each of which asks a few times a second.
pub const REQUESTS_PER_SECOND: u32 = 1000;

/// Seconds whose requests may come at once.
pub(crate) const BURST_SECONDS: f64 = 5.0;

/// Requests of one caller which may be under way at once. A statement of Flight SQL is one until it is done.
pub(crate) const REQUESTS_IN_FLIGHT: usize = 512;

/// Callers whose requests are counted. Beyond them, those are forgotten who have asked for nothing lately.
pub(crate) const CALLERS_MAX: usize = 10_000;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Asks<'a> {
    /// Somebody whose token or certificate has this name.
    Name(&'a str),
    /// Somebody at this address, where it is known.
    Address(Option<IpAddr>),
}

/// A bucket of tokens for each caller.
#[derive(Debug)]
pub struct Limiter {
    per_second: f64,
    callers: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
    turns: Arc<Semaphore>,
}

impl Bucket {
    fn is_idle(&self, full: f64, per_second: f64) -> bool {
        self.tokens + self.at.elapsed().as_secs_f64() * per_second >= full && self.turns.available_permits() == REQUESTS_IN_FLIGHT
    }
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Limiter {
    /// Takes so many requests of each caller in a second.
    pub fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), callers: Mutex::default() }
    }

    /// Takes one request.
    ///
    /// # Errors
    /// Why it has to wait.
    pub fn take(&self, who: Asks<'_>) -> Result<Turn, String> {
        let name = match who {
            Asks::Name(name) => format!("caller {name}"),
            Asks::Address(Some(address)) => format!("address {}", address.to_canonical()),
            Asks::Address(None) => "address".to_string(),
        };
        let full = self.per_second * BURST_SECONDS;
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS_MAX && !callers.contains_key(&name) {
            callers.retain(|_, bucket| !bucket.is_idle(full, self.per_second));
            if callers.len() >= CALLERS_MAX {
                return Err("this server has too many callers; try again in a second".to_string());
            }
        }
        let new = || Bucket { tokens: full, at: Instant::now(), turns: Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT)) };
        let bucket = callers.entry(name).or_insert_with(new);
        bucket.tokens = full.min(bucket.tokens + bucket.at.elapsed().as_secs_f64() * self.per_second);
        bucket.at = Instant::now();
        if bucket.tokens < 1.0 {
            return Err(format!(
                "this server takes {} requests a second of one caller (--requests-per-second); try again in a second",
                self.per_second
            ));
        }
        let Ok(permit) = Arc::clone(&bucket.turns).try_acquire_owned() else {
            return Err(format!("{REQUESTS_IN_FLIGHT} requests of this caller are under way; try again when some are done"));
        };
        bucket.tokens -= 1.0;
        Ok(Turn { _permit: permit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_much_waits_and_others_do_not() {
        let limiter = Limiter::new(1);
        let taken = (0..100).take_while(|_| limiter.take(Asks::Name("greedy")).is_ok()).count();
        // A second may pass meanwhile.
        assert!((5..50).contains(&taken), "{taken}");
        assert!(limiter.take(Asks::Name("greedy")).unwrap_err().contains("--requests-per-second"));
        limiter.take(Asks::Name("modest")).unwrap();
        limiter.take(Asks::Address(Some([10, 0, 0, 1].into()))).unwrap();
    }

    #[test]
    fn requests_under_way_are_bounded_until_they_end() {
        let limiter = Limiter::new(1_000_000);
        let mut turns: Vec<_> = (0..REQUESTS_IN_FLIGHT).map(|_| limiter.take(Asks::Name("a")).unwrap()).collect();
        assert!(limiter.take(Asks::Name("a")).unwrap_err().contains("under way"));
        limiter.take(Asks::Name("b")).unwrap();
        turns.pop();
        limiter.take(Asks::Name("a")).unwrap();
    }

    #[test]
    fn callers_who_ask_for_nothing_are_forgotten() {
        let limiter = Limiter::new(1_000_000_000);
        for n in 0..CALLERS_MAX + 10 {
            limiter.take(Asks::Name(&n.to_string())).unwrap();
        }
        assert!(limiter.callers.lock().unwrap().len() <= CALLERS_MAX);
    }
}
