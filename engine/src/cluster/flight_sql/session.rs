//! What a client left with the scheduler, each piece until it was idle for [`IDLE_MAX`].

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ballista_core::error::BallistaError;
use ballista_core::flight_proxy_service::BallistaFlightProxyService;
use ballista_flight_sql::{BallistaFlightSqlService, QueryBackend, QueryResult};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};

/// Drivers do not always say goodbye; half an hour outlasts a coffee and not a night.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(30 * 60);

/// Clients whose sessions are kept, and of each the statements and results. Beyond them, those are dropped which nobody has used for the longest.
pub(crate) const SESSIONS_MAX: usize = 1000;
/// Prepared statements of a session.
pub(crate) const PREPARED_MAX: usize = 1000;
/// Results in a session: the catalog's answers, which wait to be fetched.
pub(crate) const RESULTS_MAX: usize = 100;

/// One client's tables, settings, prepared statements and results.
pub(super) struct Session {
    pub(super) context: Arc<SessionContext>,
    /// Ballista's service over this session alone: it answers about catalogs, schemas, tables and the server.
    pub(super) metadata: BallistaFlightSqlService<Catalog>,
    pub(super) prepared: Store<Prepared>,
    pub(super) results: Store<LocalResult>,
}

impl Session {
    pub(super) fn new(context: Arc<SessionContext>, proxy: BallistaFlightProxyService) -> Self {
        let metadata = BallistaFlightSqlService::new(Arc::new(Catalog(Arc::clone(&context))), proxy);
        Self { context, metadata, prepared: Store::new(IDLE_MAX, PREPARED_MAX), results: Store::new(IDLE_MAX, RESULTS_MAX) }
    }
}

/// A statement which was planned and not run yet.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) sql: String,
    pub(super) plan: LogicalPlan,
}

/// What a statement which ran on the scheduler itself returned.
#[derive(Clone)]
pub(super) struct LocalResult {
    pub(super) schema: SchemaRef,
    pub(super) batches: Vec<RecordBatch>,
}

/// The one session which Ballista's service over it ever sees.
pub(super) struct Catalog(Arc<SessionContext>);

#[async_trait]
impl QueryBackend for Catalog {
    async fn session(&self, _session_id: &str) -> Result<Arc<SessionContext>, BallistaError> {
        Ok(Arc::clone(&self.0))
    }

    async fn close_session(&self, _session_id: &str) -> Result<(), BallistaError> {
        Ok(())
    }

    // What `async fn` would come to, but that no future holds the plan, which the compiler would check here once more.
    fn execute<'a, 'b, 'f>(
        &'a self,
        job_name: &'b str,
        _: Arc<SessionContext>,
        _: LogicalPlan,
    ) -> BoxFuture<'f, Result<QueryResult, BallistaError>>
    where
        Self: 'f,
        'a: 'f,
        'b: 'f,
    {
        ready(Err(BallistaError::NotImplemented(format!("a catalog does not run `{job_name}`")))).boxed()
    }
}

/// Values by handle. One which nobody uses and nobody used for `idle_max` is dropped when the store is next asked for anything; so is the one which was
/// not used for the longest, where there are more than `entries_max`.
pub(super) struct Store<T> {
    entries: Mutex<HashMap<String, Arc<Entry<T>>>>,
    idle_max: Duration,
    entries_max: usize,
}

struct Entry<T> {
    value: T,
    last_used: Mutex<Instant>,
}

/// A value in use; its idle time begins when this is dropped.
pub(super) struct Lease<T>(Arc<Entry<T>>);

impl<T> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        *lock(&self.0.last_used) = Instant::now();
    }
}

impl<T> Store<T> {
    pub(super) fn new(idle_max: Duration, entries_max: usize) -> Self {
        Self { entries: Mutex::default(), idle_max, entries_max }
    }

    /// Keeps a value. If the handle has one already, that one stays and is returned: two calls which open the same session at
    /// once see the same tables.
    pub(super) fn put(&self, handle: String, value: T) -> Lease<T> {
        let mut entries = lock(&self.entries);
        let entry = entries.entry(handle).or_insert_with(|| Arc::new(Entry { value, last_used: Mutex::new(Instant::now()) }));
        let lease = Lease(Arc::clone(entry));
        self.sweep(&mut entries);
        lease
    }

    pub(super) fn get(&self, handle: &str) -> Option<Lease<T>> {
        let mut entries = lock(&self.entries);
        let lease = entries.get(handle).map(|entry| Lease(Arc::clone(entry)));
        self.sweep(&mut entries);
        lease
    }

    /// Removes a value; the lease is the last use of it.
    pub(super) fn take(&self, handle: &str) -> Option<Lease<T>> {
        let mut entries = lock(&self.entries);
        let lease = entries.remove(handle).map(Lease);
        self.sweep(&mut entries);
        lease
    }

    fn sweep(&self, entries: &mut HashMap<String, Arc<Entry<T>>>) {
        entries.retain(|_, entry| Arc::strong_count(entry) > 1 || lock(&entry.last_used).elapsed() < self.idle_max);
        while entries.len() > self.entries_max {
            let idle = entries.iter().filter(|(_, entry)| Arc::strong_count(entry) == 1);
            let Some(oldest) = idle.min_by_key(|(_, entry)| *lock(&entry.last_used)).map(|(handle, _)| handle.clone()) else { return };
            entries.remove(&oldest);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_use_outlives_its_idle_time() {
        let store = Store::new(Duration::ZERO, 10);
        let lease = store.put("a".to_string(), 1);
        drop(store.put("b".to_string(), 2));
        assert!(store.get("a").is_some_and(|value| *value == 1));
        drop(lease);
        assert!(store.get("b").is_none(), "nobody used it");
        assert!(store.get("a").is_none(), "nobody uses it any more");
    }

    #[test]
    fn beyond_the_limit_the_value_goes_which_was_not_used_for_the_longest() {
        let store = Store::new(IDLE_MAX, 2);
        let used = store.put("used".to_string(), 0);
        for (handle, value) in [("a", 1), ("b", 2), ("c", 3)] {
            drop(store.put(handle.to_string(), value));
        }
        assert!(store.get("a").is_none() && store.get("b").is_none());
        assert!(store.get("c").is_some() && store.get("used").is_some());
        drop(used);
    }

    #[test]
    fn the_first_value_of_a_handle_stays_and_is_taken_once() {
        let store = Store::new(IDLE_MAX, 10);
        drop(store.put("a".to_string(), 1));
        assert_eq!(*store.put("a".to_string(), 2), 1);
        assert!(store.take("a").is_some());
        assert!(store.take("a").is_none());
    }
}
