//! The protocol's calls: who asks, what is asked, what goes back.

use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any,
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementQuery, CommandStatementUpdate,
    DoPutPreparedStatementResult, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{Action, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, Ticket};
use ballista_core::flight_proxy_service::BallistaFlightProxyService;
use ballista_flight_sql::{ANONYMOUS_SESSION, AnonymousAuthenticator, Authenticator, QueryBackend};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Schema, UInt64Type};
use datafusion::logical_expr::LogicalPlan;
use futures::{Stream, TryStreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::encode::{Handle, Rows, encode, fetch, fetch_batches, flight_info, schema_bytes};
use super::run::{Outcome, changes_something, is_change_of_session, is_write, plan, run};
use super::session::{IDLE_MAX, Lease, Prepared, Session, Store};
use crate::cluster::ballista_error;
use crate::cluster::scheduler::Scheduler;
use crate::trust::access::{Caller, Role};
use crate::trust::guard::audit;
use crate::web::secret::hide_secrets;

/// Header with a session's token.
const AUTHORIZATION: &str = "authorization";

/// The Flight SQL service of a scheduler. Statements run as jobs of its fleet; a client that cancels, or is gone, cancels the
/// job of the statement it waited for.
pub struct FlightSql {
    scheduler: Arc<Scheduler>,
    proxy: BallistaFlightProxyService,
    authenticator: Arc<dyn Authenticator>,
    sessions: Store<Session>,
}

impl std::fmt::Debug for FlightSql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlightSql").finish_non_exhaustive()
    }
}

impl FlightSql {
    /// A service which lets everybody in. `proxy` fetches results from executors.
    pub(crate) fn new(scheduler: Arc<Scheduler>, proxy: BallistaFlightProxyService) -> Self {
        Self { scheduler, proxy, authenticator: Arc::new(AnonymousAuthenticator), sessions: Store::new(IDLE_MAX) }
    }

    /// Asks `authenticator` about each client that introduces itself, and about whether the others may come in.
    #[must_use]
    pub fn with_authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticator = authenticator;
        self
    }

    /// The session of a request: that of its token, else the one which all requests of its caller share that did not introduce themselves.
    async fn session(&self, headers: &MetadataMap, extensions: &Extensions) -> Result<Lease<Session>, Status> {
        let caller = extensions.get::<Caller>();
        if let Some(token) = bearer_token(headers) {
            match (self.sessions.get(token), caller) {
                (Some(session), _) => return Ok(session),
                // The guard knows the token: it is the caller's own.
                (None, Some(_)) => {}
                (None, None) => return Err(Status::unauthenticated("the session is unknown or was idle for too long; connect again")),
            }
        }
        if !self.authenticator.allows_anonymous() {
            return Err(Status::unauthenticated("user and password are needed"));
        }
        let id = caller.map_or(ANONYMOUS_SESSION.to_string(), |caller| format!("{ANONYMOUS_SESSION} {}", caller.name));
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
    async fn query(&self, session: &Session, statement: Prepared, descriptor: FlightDescriptor) -> Result<Response<FlightInfo>, Status> {
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
    async fn update(&self, session: &Session, statement: Prepared) -> Result<i64, Status> {
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

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        let identity = self.authenticator.authenticate(request.metadata()).await?;
        let user = request.extensions().get::<Caller>().map(|caller| caller.name.clone());
        let token = random_handle();
        drop(self.open(token.clone()).await?);
        tracing::debug!(user = user.or(identity.user), "a Flight SQL session begins");
        let bearer = format!("Bearer {token}").parse().map_err(|_| Status::internal("a token is no header"))?;
        let answer = HandshakeResponse { protocol_version: 0, payload: token.into() };
        let answer: Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(futures::stream::iter([Ok(answer)]));
        let mut response = Response::new(answer);
        response.metadata_mut().insert(AUTHORIZATION, bearer);
        Ok(response)
    }

    /// Tickets of Ballista's own client, which fetches results of its jobs here and knows nothing of sessions. They name any host, so they are for
    /// those who may give the fleet work.
    async fn do_get_fallback(&self, request: Request<Ticket>, _message: Any) -> Result<Response<Rows>, Status> {
        if request.extensions().get::<Caller>().is_some_and(|caller| caller.role < Role::Submit) {
            return Err(Status::permission_denied("results of jobs take the role submit; run the query by Flight SQL"));
        }
        self.proxy.do_get(request).await
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let session = self.session(request.metadata(), request.extensions()).await?;
        let statement = self.planned(&session, request.extensions(), query.query).await?;
        audit_of(&request, &statement);
        self.query(&session, statement, request.into_inner()).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let session = self.session(request.metadata(), request.extensions()).await?;
        let statement = prepared(&session, &query.prepared_statement_handle)?;
        audit_of(&request, &statement);
        self.query(&session, statement.clone(), request.into_inner()).await
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        let session = self.session(request.metadata(), request.extensions()).await?;
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

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let session = self.session(request.metadata(), request.extensions()).await?;
        let statement = self.planned(&session, request.extensions(), command.query).await?;
        audit_of(&request, &statement);
        self.update(&session, statement).await
    }

    async fn do_put_prepared_statement_update(
        &self,
        command: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let session = self.session(request.metadata(), request.extensions()).await?;
        let statement = prepared(&session, &command.prepared_statement_handle)?;
        audit_of(&request, &statement);
        self.update(&session, statement.clone()).await
    }

    async fn do_put_prepared_statement_query(
        &self,
        _command: CommandPreparedStatementQuery,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        Err(Status::unimplemented("parameters of prepared statements are not supported; write the values into the statement"))
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let session = self.session(request.metadata(), request.extensions()).await?;
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

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        let session = self.session(request.metadata(), request.extensions()).await?;
        if let Ok(handle) = std::str::from_utf8(&query.prepared_statement_handle) {
            drop(session.prepared.take(handle));
        }
        Ok(())
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.session(request.metadata(), request.extensions()).await?.metadata.get_flight_info_catalogs(query, settled(request)).await
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.session(request.metadata(), request.extensions()).await?.metadata.get_flight_info_schemas(query, settled(request)).await
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.session(request.metadata(), request.extensions()).await?.metadata.get_flight_info_tables(query, settled(request)).await
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.session(request.metadata(), request.extensions()).await?.metadata.get_flight_info_table_types(query, settled(request)).await
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.session(request.metadata(), request.extensions()).await?.metadata.get_flight_info_sql_info(query, settled(request)).await
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.session(request.metadata(), request.extensions()).await?.metadata.get_flight_info_xdbc_type_info(query, settled(request)).await
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        self.session(request.metadata(), request.extensions()).await?.metadata.do_get_catalogs(query, settled(request)).await
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        self.session(request.metadata(), request.extensions()).await?.metadata.do_get_schemas(query, settled(request)).await
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        self.session(request.metadata(), request.extensions()).await?.metadata.do_get_tables(query, settled(request)).await
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        self.session(request.metadata(), request.extensions()).await?.metadata.do_get_table_types(query, settled(request)).await
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        self.session(request.metadata(), request.extensions()).await?.metadata.do_get_sql_info(query, settled(request)).await
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        self.session(request.metadata(), request.extensions()).await?.metadata.do_get_xdbc_type_info(query, settled(request)).await
    }

    /// What the server can do is fixed.
    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
