//! Tickets, schemas, rows and errors as clients can read them.
//!
//! Executors send what their shuffle files hold: compressed with LZ4, with views and dictionaries. The JDBC driver reads none of
//! these, so every batch is decoded and encoded anew on its way through the scheduler, one at a time and as fast as the client
//! reads.

use std::sync::Arc;

use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket};
use ballista_core::flight_proxy_service::BallistaFlightProxyService;
use ballista_core::serde::protobuf::{Action, PartitionLocation};
use ballista_core::serde::scheduler::{Action as BallistaAction, ShuffleFileKind};
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::arrow::ipc::writer::IpcWriteOptions;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use tonic::{Request, Status};

use crate::cluster::ballista_error;
use crate::error::{Error, ErrorKind};

/// Rows on their way to a client.
pub(super) type Rows = BoxStream<'static, Result<FlightData, Status>>;

/// Longest error text, in bytes. It travels in a header, percent-encoded, and Java's gRPC takes 8 KiB of headers.
pub(crate) const ERROR_BYTES_MAX: usize = 2000;

/// What a ticket of ours names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Handle {
    /// A partition at an executor, as Ballista's encoded action.
    Partition(Vec<u8>),
    /// A result in the session's memory.
    Here(String),
}

impl Handle {
    /// The partition at `location`.
    ///
    /// # Errors
    /// `INTERNAL`, when it does not say where it is.
    pub(super) fn of_partition(location: PartitionLocation) -> Result<Self, Status> {
        let layout = location.layout();
        let (Some(partition), Some(executor)) = (location.partition_id, location.executor_meta) else {
            return Err(Status::internal("a partition of the result does not say where it is"));
        };
        let action = BallistaAction::FetchPartition {
            job_id: partition.job_id.into(),
            stage_id: partition.stage_id as usize,
            partition_id: partition.partition_id as usize,
            host: executor.host,
            port: u16::try_from(executor.port).map_err(|_| Status::internal("an executor has a port beyond 65535"))?,
            file_id: location.file_id,
            layout,
            file_kind: ShuffleFileKind::Data,
            byte_ranges: vec![],
        };
        let action: Action = action.try_into().map_err(|e| Status::internal(ballista_error(e).to_string()))?;
        Ok(Self::Partition(action.encode_to_vec()))
    }

    /// Where a client finds these rows: with whoever told it, so that no executor need be reachable.
    pub(super) fn endpoint(self) -> FlightEndpoint {
        let (kind, bytes) = match self {
            Self::Partition(action) => (0, action),
            Self::Here(handle) => (1, handle.into_bytes()),
        };
        let statement_handle = std::iter::once(kind).chain(bytes).collect();
        let ticket = TicketStatementQuery { statement_handle };
        FlightEndpoint::new().with_ticket(Ticket { ticket: ticket.as_any().encode_to_vec().into() })
    }

    /// # Errors
    /// `INVALID_ARGUMENT`, for a ticket which this scheduler did not write.
    pub(super) fn read(ticket: &TicketStatementQuery) -> Result<Self, Status> {
        let foreign = || Status::invalid_argument("this ticket is none of this scheduler");
        match ticket.statement_handle.split_first() {
            Some((0, action)) => Ok(Self::Partition(action.to_vec())),
            Some((1, handle)) => Ok(Self::Here(String::from_utf8(handle.to_vec()).map_err(|_| foreign())?)),
            _ => Err(foreign()),
        }
    }
}

/// What a client is told about a result: its schema, which is the data's, and its parts.
///
/// # Errors
/// `INTERNAL`, when the schema cannot be encoded.
pub(super) fn flight_info(
    schema: &Schema,
    parts: impl Iterator<Item = Handle>,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let info = FlightInfo::new()
        .try_with_schema(&plain_schema(schema))
        .map_err(|e| Status::internal(format!("the result's schema cannot be encoded: {e}")))?;
    let endpoints = parts.map(Handle::endpoint).collect();
    // Partitions are in the order of the query's rows, where it has one.
    Ok(info.with_descriptor(descriptor).with_endpoints(endpoints).with_ordered(true))
}

/// A schema as a prepared statement announces it.
///
/// # Errors
/// `INTERNAL`, when it cannot be encoded.
pub(super) fn schema_bytes(schema: &Schema) -> Result<Vec<u8>, Status> {
    let message: IpcMessage = SchemaAsIpc::new(&plain_schema(schema), &IpcWriteOptions::default())
        .try_into()
        .map_err(|e| Status::internal(format!("the schema cannot be encoded: {e}")))?;
    Ok(message.0.to_vec())
}

/// Rows in memory → rows on their way.
pub(super) fn encode(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Rows {
    encode_stream(schema, futures::stream::iter(batches.into_iter().map(Ok)))
}

/// Fetches a partition from its executor, for a client.
///
/// # Errors
/// `INVALID_ARGUMENT`, for a ticket which names none; `INTERNAL` or `UNAVAILABLE`, when the executor does not give it.
pub(super) async fn fetch(proxy: &BallistaFlightProxyService, action: Vec<u8>) -> Result<Rows, Status> {
    let (schema, batches) = fetch_batches(proxy, action).await?;
    Ok(encode_stream(&schema, batches))
}

/// The same as batches, whose schema comes first.
///
/// # Errors
/// As [`fetch`].
pub(super) async fn fetch_batches(
    proxy: &BallistaFlightProxyService,
    action: Vec<u8>,
) -> Result<(SchemaRef, BoxStream<'static, Result<RecordBatch, FlightError>>), Status> {
    let answer = proxy.do_get(Request::new(Ticket { ticket: action.into() })).await.map_err(|e| readable(&e))?;
    let mut decoder = FlightDataDecoder::new(answer.into_inner().map_err(|status| FlightError::Tonic(Box::new(status))));
    let first = decoder.try_next().await.map_err(stream_status)?;
    let Some(DecodedPayload::Schema(schema)) = first.map(|first| first.payload) else {
        return Err(Status::internal("an executor sent rows without a schema"));
    };
    let batches = decoder.try_filter_map(async |message| {
        Ok(match message.payload {
            DecodedPayload::RecordBatch(batch) => Some(batch),
            DecodedPayload::None | DecodedPayload::Schema(_) => None,
        })
    });
    Ok((schema, batches.boxed()))
}

fn encode_stream(schema: &SchemaRef, batches: impl Stream<Item = Result<RecordBatch, FlightError>> + Send + 'static) -> Rows {
    let plain = Arc::new(plain_schema(schema));
    let target = Arc::clone(&plain);
    let batches = batches.map(move |batch| plain_batch(&batch?, &target));
    FlightDataEncoderBuilder::new().with_schema(plain).build(batches).map_err(stream_status).boxed()
}

/// A schema without views and dictionaries: the JDBC driver knows neither.
fn plain_schema(schema: &Schema) -> Schema {
    let fields: Vec<_> = schema.fields().iter().map(plain_field).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn plain_field(field: &FieldRef) -> FieldRef {
    match plain_type(field.data_type()) {
        same if same == *field.data_type() => Arc::clone(field),
        plain => Arc::new(Field::new(field.name(), plain, field.is_nullable()).with_metadata(field.metadata().clone())),
    }
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::List(field) => DataType::List(plain_field(field)),
        DataType::LargeList(field) => DataType::LargeList(plain_field(field)),
        DataType::FixedSizeList(field, length) => DataType::FixedSizeList(plain_field(field), *length),
        DataType::Map(field, is_sorted) => DataType::Map(plain_field(field), *is_sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        other => other.clone(),
    }
}

fn plain_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, FlightError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns =
        columns.map(
            |(column, field)| {
                if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { cast(column, field.data_type()) }
            },
        );
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<_, _>>()?, &options)?)
}

/// An error before a job was submitted: mostly the statement is at fault.
pub(super) fn planning_status(error: &Error) -> Status {
    let text = short(error.to_string());
    match error.kind() {
        ErrorKind::Unreachable | ErrorKind::Transient => Status::unavailable(text),
        ErrorKind::Internal => Status::internal(text),
        ErrorKind::Config | ErrorKind::Decode | ErrorKind::Permanent | ErrorKind::Conflict => Status::invalid_argument(text),
    }
}

/// The end of a failed job: the one line of an error of ours, wherever in the scheduler's text it is; else what is readable of it.
pub(super) fn failure_status(text: &str) -> Status {
    Status::internal(short(Error::from_wire(text).map_or_else(|| readable_failure(text), |error| error.to_string())))
}

/// What Ballista puts before a task's error, which it prints for debugging: `DataFusionError(Shared(ArrowError(CastError("…"))))`.
const TASK_ERROR: &str = "runtime execution error: ";

/// The message within a task's error, or the name of the innermost error where it has none.
fn readable_failure(text: &str) -> String {
    let Some((_, dump)) = text.split_once(TASK_ERROR) else {
        return text.split_whitespace().collect::<Vec<_>>().join(" ");
    };
    let message = match dump.split_once('"') {
        Some((_, quoted)) => unquoted(quoted),
        None => dump.trim_end().trim_end_matches(')').rsplit('(').next().unwrap_or_default().to_string(),
    };
    format!("a task failed: {}", message.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A string as Rust prints it for debugging, up to its closing quote, without the escapes.
fn unquoted(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => break,
            '\\' => match letters.next() {
                Some('n' | 't' | 'r') | None => out.push(' '),
                Some(escaped) => out.push(escaped),
            },
            other => out.push(other),
        }
    }
    out
}

fn stream_status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => readable(&status),
        other => failure_status(&other.to_string()),
    }
}

/// A status of an executor, with its text made readable.
fn readable(status: &Status) -> Status {
    Status::new(status.code(), failure_status(status.message()).message())
}

fn short(mut text: String) -> String {
    if text.len() > ERROR_BYTES_MAX {
        text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, DictionaryArray, ListArray, StringViewArray};
    use datafusion::arrow::buffer::OffsetBuffer;
    use datafusion::arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn views_and_dictionaries_become_plain_at_any_depth() {
        let views = StringViewArray::from(vec!["a", "longer than twelve bytes", "c"]);
        let item = Arc::new(Field::new_list_field(DataType::Utf8View, false));
        let lists = ListArray::new(item, OffsetBuffer::from_lengths([2, 0, 1]), Arc::new(views.clone()), None);
        let words: DictionaryArray<Int32Type> = vec!["x", "y", "x"].into_iter().collect();
        let columns: Vec<(&str, ArrayRef)> = vec![("views", Arc::new(views)), ("lists", Arc::new(lists)), ("words", Arc::new(words))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let schema = Arc::new(plain_schema(&batch.schema()));
        let plain = plain_batch(&batch, &schema).unwrap();
        assert_eq!(plain.column(0).data_type(), &DataType::Utf8);
        assert_eq!(plain.column(1).data_type(), &DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, false))));
        assert_eq!(plain.column(2).data_type(), &DataType::Utf8);
        assert_eq!(plain_schema(&schema), *schema);
    }

    #[test]
    fn a_failed_task_is_told_by_our_own_line() {
        let ours = Error::permanent("cannot write to `a.b`: refused");
        let status = failure_status(&format!("Task failed: DataFusionError(External({ours:?}))"));
        assert_eq!((status.code(), status.message()), (tonic::Code::Internal, "cannot write to `a.b`: refused"));
    }

    #[test]
    fn a_failed_task_of_others_is_told_without_its_wrapping() {
        let failed = |dump: &str| {
            let text = format!("Job failed due to stage 1 failed: Task failed due to runtime execution error: {dump}\n");
            failure_status(&text).message().to_string()
        };
        assert_eq!(failed("DataFusionError(Shared(External(ArrowError(DivideByZero))))"), "a task failed: DivideByZero");
        let cast = r#"DataFusionError(ArrowError(CastError("Cannot cast string \"x\" to\nInt32"), Some("")))"#;
        assert_eq!(failed(cast), r#"a task failed: Cannot cast string "x" to Int32"#);
        assert_eq!(failure_status("no\nexecutors").message(), "no executors");
    }

    #[test]
    fn long_errors_fit_into_a_header() {
        let text = planning_status(&Error::config("ü".repeat(5000))).message().to_string();
        assert!(text.len() < ERROR_BYTES_MAX + 4 && text.ends_with('…'));
    }

    #[test]
    fn tickets_are_read_again() {
        for handle in [Handle::Partition(vec![1, 2]), Handle::Here("a".to_string())] {
            let endpoint = match &handle {
                Handle::Partition(bytes) => Handle::Partition(bytes.clone()).endpoint(),
                Handle::Here(name) => Handle::Here(name.clone()).endpoint(),
            };
            let any = arrow_flight::sql::Any::decode(endpoint.ticket.unwrap().ticket).unwrap();
            let ticket: TicketStatementQuery = any.unpack().unwrap().unwrap();
            assert_eq!(Handle::read(&ticket).unwrap(), handle);
        }
        assert!(Handle::read(&TicketStatementQuery::default()).is_err());
    }
}
