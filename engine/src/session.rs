//! The one place which assembles a session: functions, table formats, object stores, options.

use std::sync::Arc;

use datafusion::error::Result as DataFusionResult;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::connector::blob::BlobTableFactory;
use crate::connector::sink::SinkTableFactory;
use crate::error::Result;
use crate::runtime::cpu_threads;
use crate::store::Stores;

/// Options which differ from DataFusion's defaults.
pub fn session_config() -> SessionConfig {
    SessionConfig::new()
        .with_information_schema(true)
        // One more than cores: while one partition hands its documents on, the others keep the compression pool full.
        .with_target_partitions(cpu_threads() + 1)
        // A repartition between scan and sink would tear splits apart and move payloads between threads for nothing:
        // partitions come from the scan.
        .with_round_robin_repartition(false)
}

/// The state of a session.
///
/// # Errors
/// DataFusion's, when the runtime cannot be built.
pub fn session_state(config: SessionConfig) -> DataFusionResult<SessionState> {
    let runtime = RuntimeEnvBuilder::new().with_object_store_registry(Arc::new(Stores::default())).build_arc()?;
    let sink = Arc::new(SinkTableFactory);
    let builder = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_table_factory("BLOB".to_string(), Arc::new(BlobTableFactory))
        .with_table_factory("MONGODB".to_string(), Arc::clone(&sink) as _)
        .with_table_factory("BSON".to_string(), sink);
    Ok(builder.build())
}

/// A plain DataFusion session which runs everything in this process.
///
/// # Errors
/// As [`session_state`].
pub fn local_session() -> Result<SessionContext> {
    let context = SessionContext::new_with_state(session_state(session_config())?);
    for function in crate::function::all() {
        context.register_udf(function.as_ref().clone());
    }
    Ok(context)
}
