//! Plans ↔ bytes. Ours by a mark in front, everything else by Ballista's codecs, to which every method delegates.
//!
//! A node or table of ours is its spec as JSON behind [`MARK`] and the version of this crate: plans of another version are
//! refused with words instead of being misread. Specs hold no client and no secret. Nothing here may panic: a panic while a
//! task is decoded costs the scheduler its executor.

use std::sync::Arc;

use ballista_core::serde::{BallistaLogicalExtensionCodec, BallistaPhysicalExtensionCodec};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::datasource::file_format::FileFormatFactory;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{AggregateUDF, Extension, HigherOrderUDF, LogicalPlan, ScalarUDF, WindowUDF};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr_common::physical_expr::proto_decode::PhysicalExprDecodeCtx;
use datafusion::physical_expr_common::physical_expr::proto_encode::PhysicalExprEncodeCtx;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::logical_plan::LogicalExtensionCodec;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use datafusion_proto::protobuf;
use prost::Message as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cluster::compressed::CompressedScanExec;
use crate::connector::SinkSpec;
use crate::connector::aggregate::DocumentAggregateExec;
use crate::connector::blob::{BlobScanExec, BlobSpec};
use crate::connector::documents::DocumentScanExec;
use crate::connector::kafka::{KafkaScanExec, KafkaSpec};
use crate::connector::predicate::Predicate;
use crate::connector::sink::SinkTable;
use crate::connector::source::SourceTable;
use crate::connector::write::WriteExec;
use crate::error::{Error, Result};
use crate::hex::{from_hex, to_hex};
use crate::job::JobRef;
use crate::job::item::{ItemExec, ItemTable};
use crate::job::restore::RestoreTask;
use crate::job::settle::VerifyTask;

/// In front of everything that is ours. No protobuf message begins like this: a zero is no valid tag.
const MARK: &[u8] = b"\0baler ";

/// A plan node of ours.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "node", rename_all = "snake_case")]
enum NodeSpec {
    BlobScan { spec: BlobSpec, projection: Option<Vec<usize>> },
    KafkaScan { spec: KafkaSpec, projection: Option<Vec<usize>> },
    Write { sink: SinkSpec, job: Option<JobRef> },
    CompressedScan { compression: String },
    DocumentScan { source: SinkSpec, schema: String, predicate: Option<Predicate>, limit: Option<usize> },
    DocumentAggregate {},
    Restore(RestoreTask),
    Verify(VerifyTask),
}

/// A table of ours.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "snake_case")]
enum TableSpec {
    Source(SourceTable),
    Sink { spec: SinkSpec, job: Option<JobRef> },
    Restore(ItemTable<RestoreTask>),
    Verify(ItemTable<VerifyTask>),
}

fn put(spec: &impl Serialize, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.extend_from_slice(MARK);
    buffer.extend_from_slice(crate::VERSION.as_bytes());
    buffer.push(0);
    serde_json::to_writer(buffer, spec).map_err(|e| Error::internal("a spec does not encode").with_source(e))
}

/// What is behind the mark; `None` if there is no mark.
fn take<T: DeserializeOwned>(buffer: &[u8]) -> Result<Option<T>> {
    let Some(rest) = buffer.strip_prefix(MARK) else { return Ok(None) };
    let end = rest.iter().position(|byte| *byte == 0).ok_or_else(|| Error::decode("a plan of Baler has no version"))?;
    let version = String::from_utf8_lossy(&rest[..end]);
    if version != crate::VERSION {
        return Err(version_error(&version));
    }
    serde_json::from_slice(&rest[end + 1..]).map(Some).map_err(|e| Error::decode("a spec in a plan cannot be read").with_source(e))
}

/// A schema as DataFusion's plans have it, as hexadecimal digits. Arrow's IPC format would do, but its reader panics on damaged bytes.
fn schema_to_text(schema: &Schema) -> DataFusionResult<String> {
    let message: protobuf::Schema = schema.try_into()?;
    Ok(to_hex(message.encode_to_vec()))
}

fn schema_from_text(text: &str) -> DataFusionResult<SchemaRef> {
    let unreadable = || Error::decode("a schema in a plan cannot be read");
    let bytes = from_hex(text).ok_or_else(unreadable)?;
    let message = protobuf::Schema::decode(bytes.as_slice()).map_err(|e| unreadable().with_source(e))?;
    let schema = Schema::try_from(&message).map_err(|e| unreadable().with_source(e))?;
    Ok(Arc::new(schema))
}

/// Another version's plan or client.
pub(crate) fn version_error(theirs: &str) -> Error {
    Error::config(format!(
        "a plan of Baler {theirs} came to Baler {}: client, scheduler and executors must be of one version; roll them together",
        crate::VERSION
    ))
}

/// Logical plans: tables.
#[derive(Debug, Default)]
pub struct LogicalCodec {
    ballista: BallistaLogicalExtensionCodec,
}

impl LogicalExtensionCodec for LogicalCodec {
    fn try_decode(&self, buffer: &[u8], inputs: &[LogicalPlan], context: &TaskContext) -> DataFusionResult<Extension> {
        self.ballista.try_decode(buffer, inputs, context)
    }

    fn try_encode(&self, node: &Extension, buffer: &mut Vec<u8>) -> DataFusionResult<()> {
        self.ballista.try_encode(node, buffer)
    }

    fn try_decode_table_provider(
        &self,
        buffer: &[u8],
        name: &TableReference,
        schema: SchemaRef,
        context: &TaskContext,
    ) -> DataFusionResult<Arc<dyn TableProvider>> {
        Ok(match take(buffer)? {
            Some(TableSpec::Source(table)) => Arc::new(table),
            Some(TableSpec::Sink { spec, job }) => Arc::new(SinkTable { spec, schema, job }),
            Some(TableSpec::Restore(table)) => Arc::new(table),
            Some(TableSpec::Verify(table)) => Arc::new(table),
            None => return self.ballista.try_decode_table_provider(buffer, name, schema, context),
        })
    }

    fn try_encode_table_provider(
        &self,
        name: &TableReference,
        table: Arc<dyn TableProvider>,
        buffer: &mut Vec<u8>,
    ) -> DataFusionResult<()> {
        if let Some(source) = table.downcast_ref::<SourceTable>() {
            return Ok(put(&TableSpec::Source(source.clone()), buffer)?);
        }
        if let Some(sink) = table.downcast_ref::<SinkTable>() {
            return Ok(put(&TableSpec::Sink { spec: sink.spec.clone(), job: sink.job.clone() }, buffer)?);
        }
        if let Some(restore) = table.downcast_ref::<ItemTable<RestoreTask>>() {
            return Ok(put(&TableSpec::Restore(restore.clone()), buffer)?);
        }
        if let Some(verify) = table.downcast_ref::<ItemTable<VerifyTask>>() {
            return Ok(put(&TableSpec::Verify(verify.clone()), buffer)?);
        }
        self.ballista.try_encode_table_provider(name, table, buffer)
    }

    fn try_decode_file_format(&self, buffer: &[u8], context: &TaskContext) -> DataFusionResult<Arc<dyn FileFormatFactory>> {
        self.ballista.try_decode_file_format(buffer, context)
    }

    fn try_encode_file_format(&self, buffer: &mut Vec<u8>, format: Arc<dyn FileFormatFactory>) -> DataFusionResult<()> {
        self.ballista.try_encode_file_format(buffer, format)
    }

    fn try_decode_udf(&self, name: &str, buffer: &[u8]) -> DataFusionResult<Arc<ScalarUDF>> {
        self.ballista.try_decode_udf(name, buffer)
    }

    fn try_encode_udf(&self, function: &ScalarUDF, buffer: &mut Vec<u8>) -> DataFusionResult<()> {
        self.ballista.try_encode_udf(function, buffer)
    }

    fn try_decode_higher_order_function(&self, name: &str, buffer: &[u8]) -> DataFusionResult<Arc<HigherOrderUDF>> {
        self.ballista.try_decode_higher_order_function(name, buffer)
    }

    fn try_encode_higher_order_function(&self, function: &HigherOrderUDF, buffer: &mut Vec<u8>) -> DataFusionResult<()> {
        self.ballista.try_encode_higher_order_function(function, buffer)
    }

    fn try_decode_udaf(&self, name: &str, buffer: &[u8]) -> DataFusionResult<Arc<AggregateUDF>> {
        self.ballista.try_decode_udaf(name, buffer)
    }

    fn try_encode_udaf(&self, function: &AggregateUDF, buffer: &mut Vec<u8>) -> DataFusionResult<()> {
        self.ballista.try_encode_udaf(function, buffer)
    }

    fn try_decode_udwf(&self, name: &str, buffer: &[u8]) -> DataFusionResult<Arc<WindowUDF>> {
        self.ballista.try_decode_udwf(name, buffer)
    }

    fn try_encode_udwf(&self, function: &WindowUDF, buffer: &mut Vec<u8>) -> DataFusionResult<()> {
        self.ballista.try_encode_udwf(function, buffer)
    }
}

/// Physical plans: nodes.
#[derive(Debug, Default)]
pub struct PhysicalCodec {
    ballista: BallistaPhysicalExtensionCodec,
}

impl PhysicalExtensionCodec for PhysicalCodec {
    fn try_decode(
        &self,
        buffer: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let Some(node) = take(buffer)? else { return self.ballista.try_decode(buffer, inputs, context, converter) };
        let [input] = inputs else { return Err(Error::decode(format!("a node of Baler has one input, not {}", inputs.len())).into()) };
        let input = Arc::clone(input);
        Ok(match node {
            NodeSpec::BlobScan { spec, projection } => Arc::new(BlobScanExec::try_new(input, spec, projection)?),
            NodeSpec::KafkaScan { spec, projection } => Arc::new(KafkaScanExec::try_new(input, spec, projection)?),
            NodeSpec::Write { sink, job } => Arc::new(WriteExec::try_new(input, sink, job)?),
            NodeSpec::DocumentScan { source, schema, predicate, limit } => {
                Arc::new(DocumentScanExec::with_predicate(input, source, schema_from_text(&schema)?, predicate, limit)?)
            }
            NodeSpec::DocumentAggregate {} => {
                let asking = DocumentAggregateExec::over(&input);
                Arc::new(asking.ok_or_else(|| Error::decode("a DocumentAggregateExec stands over no aggregate which a server can answer"))?)
            }
            NodeSpec::Restore(task) => Arc::new(ItemExec::try_new(input, task)?),
            NodeSpec::Verify(task) => Arc::new(ItemExec::try_new(input, task)?),
            NodeSpec::CompressedScan { compression } => Arc::new(CompressedScanExec::restore(&input, &compression)?),
        })
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buffer: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> DataFusionResult<()> {
        let spec = if let Some(scan) = node.downcast_ref::<BlobScanExec>() {
            NodeSpec::BlobScan { spec: scan.spec().clone(), projection: scan.projection().map(<[usize]>::to_vec) }
        } else if let Some(scan) = node.downcast_ref::<KafkaScanExec>() {
            NodeSpec::KafkaScan { spec: scan.spec().clone(), projection: scan.projection().map(<[usize]>::to_vec) }
        } else if let Some(write) = node.downcast_ref::<WriteExec>() {
            NodeSpec::Write { sink: write.sink().clone(), job: write.job().cloned() }
        } else if let Some(scan) = node.downcast_ref::<CompressedScanExec>() {
            NodeSpec::CompressedScan { compression: scan.compression().to_string() }
        } else if let Some(scan) = node.downcast_ref::<DocumentScanExec>() {
            let (source, predicate) = (scan.spec().clone(), scan.predicate().cloned());
            NodeSpec::DocumentScan { source, schema: schema_to_text(&scan.schema())?, predicate, limit: scan.limit() }
        } else if node.is::<DocumentAggregateExec>() {
            NodeSpec::DocumentAggregate {}
        } else if let Some(restore) = node.downcast_ref::<ItemExec<RestoreTask>>() {
            NodeSpec::Restore(restore.task().clone())
        } else if let Some(verify) = node.downcast_ref::<ItemExec<VerifyTask>>() {
            NodeSpec::Verify(verify.task().clone())
        } else {
            return self.ballista.try_encode(node, buffer, converter);
        };
        Ok(put(&spec, buffer)?)
    }

    fn try_decode_udf(&self, name: &str, buffer: &[u8]) -> DataFusionResult<Arc<ScalarUDF>> {
        self.ballista.try_decode_udf(name, buffer)
    }

    fn try_encode_udf(&self, function: &ScalarUDF, buffer: &mut Vec<u8>) -> DataFusionResult<()> {
        self.ballista.try_encode_udf(function, buffer)
    }

    fn try_decode_higher_order_function(&self, name: &str, buffer: &[u8]) -> DataFusionResult<Arc<HigherOrderUDF>> {
        self.ballista.try_decode_higher_order_function(name, buffer)
    }

    fn try_encode_higher_order_function(&self, function: &HigherOrderUDF, buffer: &mut Vec<u8>) -> DataFusionResult<()> {
        self.ballista.try_encode_higher_order_function(function, buffer)
    }

    fn try_decode_expr(
        &self,
        buffer: &[u8],
        inputs: &[Arc<dyn PhysicalExpr>],
        context: &PhysicalExprDecodeCtx<'_>,
    ) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
        self.ballista.try_decode_expr(buffer, inputs, context)
    }

    fn try_encode_expr(
        &self,
        expression: &Arc<dyn PhysicalExpr>,
        buffer: &mut Vec<u8>,
        context: &PhysicalExprEncodeCtx<'_>,
    ) -> DataFusionResult<()> {
        self.ballista.try_encode_expr(expression, buffer, context)
    }

    fn try_decode_udaf(&self, name: &str, buffer: &[u8]) -> DataFusionResult<Arc<AggregateUDF>> {
        self.ballista.try_decode_udaf(name, buffer)
    }

    fn try_encode_udaf(&self, function: &AggregateUDF, buffer: &mut Vec<u8>) -> DataFusionResult<()> {
        self.ballista.try_encode_udaf(function, buffer)
    }

    fn try_decode_udwf(&self, name: &str, buffer: &[u8]) -> DataFusionResult<Arc<WindowUDF>> {
        self.ballista.try_decode_udwf(name, buffer)
    }

    fn try_encode_udwf(&self, function: &WindowUDF, buffer: &mut Vec<u8>) -> DataFusionResult<()> {
        self.ballista.try_encode_udwf(function, buffer)
    }
}

#[cfg(test)]
mod tests;
