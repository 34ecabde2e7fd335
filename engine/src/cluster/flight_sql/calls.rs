//! What is done for each call.

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementQuery, CommandStatementUpdate, TicketStatementQuery,
};
use arrow_flight::{Action, FlightDescriptor, FlightInfo, Ticket};
use ballista_core::flight_proxy_service::BallistaFlightProxyService;
use ballista_flight_sql::{ANONYMOUS_SESSION, QueryBackend};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Schema, UInt64Type};
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use futures::future::{BoxFuture, FutureExt};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status};

use super::encode::{Handle, Rows, encode, fetch, fetch_batches, flight_info, schema_bytes};
use super::run::{Outcome, changes_something, is_change_of_session, is_write, plan, run};
use super::session::{IDLE_MAX, Lease, Prepared, SESSIONS_MAX, Session, Store};
use crate::cluster::ballista_error;
use crate::cluster::scheduler::Scheduler;
use crate::trust::access::{Caller, Role};
use crate::trust::guard::audit;
use crate::web::secret::hide_secrets;

/// Header with a session's token.
pub(super) const AUTHORIZATION: &str = "authorization";

/// What a call comes to.
pub(super) type Answer<'a, T> = BoxFuture<'a, Result<T, Status>>;

/// The calls, as [`FlightSql`](super::FlightSql) hands them on. A trait without a single `async fn`, because each of the service's is checked by
/// the compiler, with all types that it holds, for whether it may move between threads: plans and schedulers are thousands of types,
/// which took a third of the time in which this crate is built.
pub(super) trait Calls: Send + Sync {
    /// Begins a session; its token.
    fn begin(&self, caller: Option<Caller>) -> Answer<'_, String>;
    fn query(&self, query: CommandStatementQuery, request: Request<FlightDescriptor>) -> Answer<'_, Response<FlightInfo>>;
    fn query_prepared(&self, query: CommandPreparedStatementQuery, request: Request<FlightDescriptor>) -> Answer<'_, Response<FlightInfo>>;
    fn rows(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Answer<'_, Response<Rows>>;
    /// Rows of a partition at an executor, for Ballista's own client.
    fn partition(&self, request: Request<Ticket>) -> Answer<'_, Response<Rows>>;
    fn update(&self, command: CommandStatementUpdate, request: Request<PeekableFlightDataStream>) -> Answer<'_, i64>;
    fn update_prepared(&self, command: CommandPreparedStatementUpdate, request: Request<PeekableFlightDataStream>) -> Answer<'_, i64>;
    fn prepare(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Answer<'_, ActionCreatePreparedStatementResult>;
    fn close(&self, query: ActionClosePreparedStatementRequest, request: Request<Action>) -> Answer<'_, ()>;
    /// Catalogs, schemas, tables and what the server can do, as the request names them.
    fn metadata(&self, request: Request<FlightDescriptor>) -> Answer<'_, Response<FlightInfo>>;
    /// The rows of [`Self::metadata`].
    fn metadata_rows(&self, request: Request<Ticket>) -> Answer<'_, Response<Rows>>;
}

/// A scheduler, and the sessions of its clients.
pub(super) struct Service {
    scheduler: Arc<Scheduler>,
    proxy: BallistaFlightProxyService,
    sessions: Store<Session>,
}

impl Service {
    /// `proxy` fetches results from executors.
    pub(super) fn new(scheduler: Arc<Scheduler>, proxy: BallistaFlightProxyService) -> Self {
        Self { scheduler, proxy, sessions: Store::new(IDLE_MAX, SESSIONS_MAX) }
    }

    /// The session of a request: that of its token, else the one which all requests of its caller share that did not introduce themselves.
    async fn session<T>(&self, request: &Request<T>) -> Result<Lease<Session>, Status> {
        let (headers, extensions) = (request.metadata(), request.extensions());
        let caller = extensions.get::<Caller>();
        if let Some(token) = bearer_token(headers) {
            match (self.sessions.get(token), caller) {
                (Some(session), _) => return Ok(session),
                // The guard knows the token: it is the caller's own.
                (None, Some(_)) => {}
                (None, None) => return Err(Status::unauthenticated("the session is unknown or was idle for too long; connect again")),
            }
        }
        let id = caller.map_or(ANONYMOUS_SESSION.to_string(), |caller| format!("{ANONYMOUS_SESSION} {caller}"));
        match self.sessions.get(&id) {
            Some(session) => Ok(session),
            None => self.open(id).await,
        }
    }

    async fn open(&self, id: String) -> Result<Lease<Session>, Status> {
        let context = self.scheduler.session(&id).await.map_err(|e| Status::internal(ballista_error(e).to_string()))?;
        Ok(self.sessions.put(id, Session::new(context, self.proxy.clone())))
    }

    /// Runs a statement and says where its rows are.
    async fn run_query(
        &self,
        session: &Session,
        statement: Prepared,
        descriptor: FlightDescriptor,
    ) -> Result<Response<FlightInfo>, Status> {
        let info = match run(&self.scheduler, &session.context, statement.plan, &statement.sql).await? {
            Outcome::Here(result) => {
                let (handle, schema) = (random_handle(), Arc::clone(&result.schema));
                drop(session.results.put(handle.clone(), result));
                flight_info(&schema, std::iter::once(Handle::Here(handle)), descriptor)?
            }
            Outcome::AtExecutors { schema, partitions } => {
                let parts = partitions.into_iter().map(Handle::of_partition).collect::<Result<Vec<_>, _>>()?;
                flight_info(&schema, parts.into_iter(), descriptor)?
            }
        };
        Ok(Response::new(info))
    }

    /// Runs a statement which returns no rows, and says how many it wrote.
    async fn run_update(&self, session: &Session, statement: Prepared) -> Result<i64, Status> {
        // A query without columns looks to drivers like a statement without rows.
        let returns_rows = !statement.plan.schema().fields().is_empty();
        if returns_rows && !is_write(&statement.plan) && !is_change_of_session(&statement.plan) {
            return Err(Status::invalid_argument("this statement returns rows; run it as a query"));
        }
        let mut count = 0;
        match run(&self.scheduler, &session.context, statement.plan, &statement.sql).await? {
            Outcome::Here(result) => count += result.batches.iter().map(counted).sum::<u64>(),
            Outcome::AtExecutors { partitions, .. } => {
                for location in partitions {
                    let Handle::Partition(action) = Handle::of_partition(location)? else { continue };
                    let (_, batches) = fetch_batches(&self.proxy, action).await?;
                    let batches: Vec<_> = batches.try_collect().await.map_err(|e| Status::internal(e.to_string()))?;
                    count += batches.iter().map(counted).sum::<u64>();
                }
            }
        }
        i64::try_from(count).map_err(|_| Status::internal("more rows were written than the protocol can count"))
    }

    /// Plans a statement which the caller may run.
    async fn planned(&self, session: &Session, extensions: &Extensions, sql: String) -> Result<Prepared, Status> {
        let plan = plan(&session.context, &sql).await?;
        let may_change = extensions.get::<Caller>().is_none_or(|caller| caller.role >= Role::Submit);
        if !may_change && changes_something(&plan) {
            return Err(Status::permission_denied("the role read runs queries alone; this statement takes the role submit"));
        }
        Ok(Prepared { sql, plan })
    }
}

/// Leaves a line about what is begun, and by whom.
fn audit_of<T>(request: &Request<T>, statement: &Prepared) {
    let action = match &statement.plan {
        LogicalPlan::Ddl(_) => "ddl",
        plan if changes_something(plan) => "write",
        _ => "query",
    };
    audit(request.extensions().get::<Caller>(), action, &hide_secrets(&statement.sql));
}

/// What a write counted.
fn counted(batch: &RecordBatch) -> u64 {
    let counts = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt64Type>());
    counts.map_or(0, |counts| counts.iter().flatten().sum())
}

fn random_handle() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn bearer_token(headers: &MetadataMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn prepared(session: &Session, handle: &[u8]) -> Result<Lease<Prepared>, Status> {
    let handle = std::str::from_utf8(handle).map_err(|_| Status::invalid_argument("this is no handle of a prepared statement"))?;
    session.prepared.get(handle).ok_or_else(|| Status::not_found("the prepared statement is unknown or was idle for too long"))
}

/// The request as Ballista's service over one session gets it: who asks is settled.
fn settled<T>(mut request: Request<T>) -> Request<T> {
    request.metadata_mut().remove(AUTHORIZATION);
    request
}

impl Calls for Service {
    fn begin(&self, caller: Option<Caller>) -> Answer<'_, String> {
        async move {
            let token = random_handle();
            drop(self.open(token.clone()).await?);
            tracing::debug!(user = caller.map(|caller| caller.name), "a Flight SQL session begins");
            Ok(token)
        }
        .boxed()
    }

    fn query(&self, query: CommandStatementQuery, request: Request<FlightDescriptor>) -> Answer<'_, Response<FlightInfo>> {
        async move {
            let session = self.session(&request).await?;
            let statement = self.planned(&session, request.extensions(), query.query).await?;
            audit_of(&request, &statement);
            self.run_query(&session, statement, request.into_inner()).await
        }
        .boxed()
    }

    fn query_prepared(&self, query: CommandPreparedStatementQuery, request: Request<FlightDescriptor>) -> Answer<'_, Response<FlightInfo>> {
        async move {
            let session = self.session(&request).await?;
            let statement = prepared(&session, &query.prepared_statement_handle)?;
            audit_of(&request, &statement);
            self.run_query(&session, statement.clone(), request.into_inner()).await
        }
        .boxed()
    }

    fn rows(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Answer<'_, Response<Rows>> {
        async move {
            let session = self.session(&request).await?;
            let rows = match Handle::read(&ticket)? {
                Handle::Partition(action) => fetch(&self.proxy, action).await?,
                Handle::Here(handle) => {
                    let gone = || Status::not_found("the result was fetched already, or was idle for too long");
                    let result = session.results.take(&handle).ok_or_else(gone)?;
                    encode(&result.schema, result.batches.clone())
                }
            };
            Ok(Response::new(rows))
        }
        .boxed()
    }

    fn partition(&self, request: Request<Ticket>) -> Answer<'_, Response<Rows>> {
        async move { self.proxy.do_get(request).await }.boxed()
    }

    fn update(&self, command: CommandStatementUpdate, request: Request<PeekableFlightDataStream>) -> Answer<'_, i64> {
        async move {
            let session = self.session(&request).await?;
            let statement = self.planned(&session, request.extensions(), command.query).await?;
            audit_of(&request, &statement);
            self.run_update(&session, statement).await
        }
        .boxed()
    }

    fn update_prepared(&self, command: CommandPreparedStatementUpdate, request: Request<PeekableFlightDataStream>) -> Answer<'_, i64> {
        async move {
            let session = self.session(&request).await?;
            let statement = prepared(&session, &command.prepared_statement_handle)?;
            audit_of(&request, &statement);
            self.run_update(&session, statement.clone()).await
        }
        .boxed()
    }

    fn prepare(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Answer<'_, ActionCreatePreparedStatementResult> {
        async move {
            let session = self.session(&request).await?;
            let statement = self.planned(&session, request.extensions(), query.query).await?;
            // Drivers take a statement without columns for one which returns a count instead of rows.
            let schema = if is_write(&statement.plan) { Schema::empty() } else { statement.plan.schema().as_arrow().clone() };
            let handle = random_handle();
            drop(session.prepared.put(handle.clone(), statement));
            Ok(ActionCreatePreparedStatementResult {
                prepared_statement_handle: handle.into(),
                dataset_schema: schema_bytes(&schema)?.into(),
                parameter_schema: schema_bytes(&Schema::empty())?.into(),
            })
        }
        .boxed()
    }

    fn close(&self, query: ActionClosePreparedStatementRequest, request: Request<Action>) -> Answer<'_, ()> {
        async move {
            let session = self.session(&request).await?;
            if let Ok(handle) = std::str::from_utf8(&query.prepared_statement_handle) {
                drop(session.prepared.take(handle));
            }
            Ok(())
        }
        .boxed()
    }

    fn metadata(&self, request: Request<FlightDescriptor>) -> Answer<'_, Response<FlightInfo>> {
        async move { self.session(&request).await?.metadata.get_flight_info(settled(request)).await }.boxed()
    }

    fn metadata_rows(&self, request: Request<Ticket>) -> Answer<'_, Response<Rows>> {
        async move { self.session(&request).await?.metadata.do_get(settled(request)).await }.boxed()
    }
}
