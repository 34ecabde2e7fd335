//! The protocol's calls, as Arrow's service for Flight SQL tells them apart.

use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any,
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementQuery, CommandStatementUpdate,
    DoPutPreparedStatementResult, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{Action, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, Ticket};
use ballista_core::flight_proxy_service::BallistaFlightProxyService;
use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::calls::{AUTHORIZATION, Calls, Service};
use super::encode::Rows;
use crate::cluster::scheduler::Scheduler;
use crate::trust::access::{Caller, Role};

/// The Flight SQL service of a scheduler. Statements run as jobs of its fleet; a client that cancels, or is gone, cancels the
/// job of the statement it waited for.
pub struct FlightSql(Arc<dyn Calls>);

impl std::fmt::Debug for FlightSql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlightSql").finish_non_exhaustive()
    }
}

impl FlightSql {
    /// `proxy` fetches results from executors.
    pub(crate) fn new(scheduler: Arc<Scheduler>, proxy: BallistaFlightProxyService) -> Self {
        Self(Arc::new(Service::new(scheduler, proxy)))
    }
}

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        let token = self.0.begin(request.extensions().get::<Caller>().cloned()).await?;
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
        self.0.partition(request).await
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.0.query(query, request).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.0.query_prepared(query, request).await
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        self.0.rows(ticket, request).await
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        self.0.update(command, request).await
    }

    async fn do_put_prepared_statement_update(
        &self,
        command: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        self.0.update_prepared(command, request).await
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
        self.0.prepare(query, request).await
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        self.0.close(query, request).await
    }

    async fn get_flight_info_catalogs(
        &self,
        _: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.0.metadata(request).await
    }

    async fn do_get_catalogs(&self, _: CommandGetCatalogs, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        self.0.metadata_rows(request).await
    }

    async fn get_flight_info_schemas(
        &self,
        _: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.0.metadata(request).await
    }

    async fn do_get_schemas(&self, _: CommandGetDbSchemas, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        self.0.metadata_rows(request).await
    }

    async fn get_flight_info_tables(
        &self,
        _: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.0.metadata(request).await
    }

    async fn do_get_tables(&self, _: CommandGetTables, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        self.0.metadata_rows(request).await
    }

    async fn get_flight_info_table_types(
        &self,
        _: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.0.metadata(request).await
    }

    async fn do_get_table_types(&self, _: CommandGetTableTypes, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        self.0.metadata_rows(request).await
    }

    async fn get_flight_info_sql_info(
        &self,
        _: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.0.metadata(request).await
    }

    async fn do_get_sql_info(&self, _: CommandGetSqlInfo, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        self.0.metadata_rows(request).await
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        _: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.0.metadata(request).await
    }

    async fn do_get_xdbc_type_info(&self, _: CommandGetXdbcTypeInfo, request: Request<Ticket>) -> Result<Response<Rows>, Status> {
        self.0.metadata_rows(request).await
    }

    /// What the server can do is fixed.
    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
