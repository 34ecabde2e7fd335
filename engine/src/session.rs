//! The one place which assembles a session: functions, table formats, object stores, codecs, options.
//!
//! Client, scheduler, executors and the one-process mode all come through [`SessionParts`], so what one of them knows all
//! know. What differs between them is [`Place`]: who plans, and whose defaults hold.

use std::sync::{Arc, LazyLock};

use ballista_core::config::BallistaConfig;
use ballista_core::extension::SessionConfigExt;
use ballista_core::optimizer::ballista_default_optimizer_rules;
use ballista_core::planner::BallistaQueryPlanner;
use ballista_core::registry::BallistaFunctionRegistry;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::protobuf::LogicalPlanNode;

use crate::cluster;
use crate::cluster::compressed::ClusterPlanner;
use crate::codec::{LogicalCodec, PhysicalCodec};
use crate::connector::push_down::PushDown;
use crate::connector::sink::SinkTableFactory;
use crate::connector::source::{BLOB_TABLES, KAFKA_TABLES};
use crate::error::Result;
use crate::runtime::cpu_threads;
use crate::store::Stores;
use crate::trust::tls::Tls;

/// The stores of this process: one client a bucket, whichever session asks.
static STORES: LazyLock<Arc<Stores>> = LazyLock::new(Arc::default);

/// Whose session it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Plans and runs here.
    OneProcess,
    /// Sends its plans to the scheduler at this URL (`http://host:port`, which also stands for TLS: Ballista knows no other scheme).
    Client(String),
    /// Plans or runs what a client sent: scheduler and executors.
    Server,
}

/// What a session is made of. A program with functions of its own adds them here, in its client, scheduler and executors alike.
#[derive(Debug, Clone)]
pub struct SessionParts {
    functions: Vec<Arc<ScalarUDF>>,
    tls: Option<Arc<Tls>>,
}

impl Default for SessionParts {
    /// Baler's own functions.
    fn default() -> Self {
        Self { functions: crate::function::all(), tls: None }
    }
}

impl SessionParts {
    /// Adds a function; one of the same name is replaced. Plans carry functions by name, so every process must know it.
    #[must_use]
    pub fn with_function(mut self, function: ScalarUDF) -> Self {
        self.functions.push(Arc::new(function));
        self
    }

    /// Reaches fleets by TLS, with these files.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<Tls>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How fleets are reached, if not in plain.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Options of a session which differ from DataFusion's and Ballista's defaults.
    pub fn config(&self, place: &Place) -> SessionConfig {
        if *place == Place::OneProcess {
            // The fleet's options can be set and shown here too, so that one file of statements runs in both modes.
            return cluster::defaults::session(SessionConfig::new().with_option_extension(BallistaConfig::default()))
                .with_information_schema(true)
                // One more than cores: while one partition hands its documents on, the others keep the compression pool full.
                .with_target_partitions(cpu_threads() + 1)
                // A repartition between scan and sink would tear splits apart and move payloads between threads for nothing:
                // partitions come from the scan.
                .with_round_robin_repartition(false);
        }
        let config = cluster::defaults::session(SessionConfig::new_with_ballista())
            .with_ballista_logical_extension_codec(Arc::new(LogicalCodec::default()))
            .with_ballista_physical_extension_codec(Arc::new(PhysicalCodec::default()));
        match &self.tls {
            Some(tls) => config.with_ballista_use_tls(true).with_ballista_override_create_grpc_client_endpoint(tls.endpoint_override()),
            None => config,
        }
    }

    /// The state of a session under `config`, which comes from [`Self::config`] for the same place.
    ///
    /// # Errors
    /// DataFusion's, when the runtime cannot be built.
    pub fn state(&self, place: &Place, config: SessionConfig) -> DataFusionResult<SessionState> {
        let planner: Option<Arc<dyn QueryPlanner + Send + Sync>> = match place {
            Place::OneProcess => None,
            Place::Server => Some(Arc::new(ClusterPlanner)),
            Place::Client(url) => Some(Arc::new(BallistaQueryPlanner::<LogicalPlanNode>::with_extension(
                url.clone(),
                config.ballista_config(),
                config.ballista_logical_extension_codec(),
            ))),
        };
        let sink = Arc::new(SinkTableFactory);
        let mut builder = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime_env(None)?)
            .with_default_features()
            .with_physical_optimizer_rule(Arc::new(PushDown))
            .with_table_factory("BLOB".to_string(), Arc::new(BLOB_TABLES))
            .with_table_factory("KAFKA".to_string(), Arc::new(KAFKA_TABLES))
            .with_table_factory("MONGODB".to_string(), Arc::clone(&sink) as _)
            .with_table_factory("BSON".to_string(), sink);
        if let Some(planner) = planner {
            builder = builder.with_optimizer_rules(ballista_default_optimizer_rules()).with_query_planner(planner);
        }
        let mut state = builder.build();
        // `json_get_str(value, 'user', 'id')`, and the operators `->` and `->>`.
        datafusion_functions_json::register_all(&mut state)?;
        for function in &self.functions {
            state.register_udf(Arc::clone(function))?;
        }
        Ok(state)
    }

    /// A plain DataFusion session which runs everything in this process.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub fn local(&self) -> Result<SessionContext> {
        let place = Place::OneProcess;
        Ok(SessionContext::new_with_state(self.state(&place, self.config(&place))?))
    }

    /// A session whose queries run on the fleet of the scheduler at `df://host[:port]`, or `dfs://host[:port]` by TLS.
    ///
    /// # Errors
    /// As [`Fleet::connect`](cluster::client::Fleet::connect).
    pub async fn connect(&self, url: &str) -> Result<SessionContext> {
        Ok(cluster::client::Fleet::connect(url, self).await?.context().clone())
    }

    /// All functions by name, as an executor looks them up.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub fn function_registry(&self) -> Result<BallistaFunctionRegistry> {
        let place = Place::Server;
        let state = self.state(&place, self.config(&place))?;
        Ok(BallistaFunctionRegistry {
            scalar_functions: state.scalar_functions().clone(),
            aggregate_functions: state.aggregate_functions().clone(),
            window_functions: state.window_functions().clone(),
            ..BallistaFunctionRegistry::default()
        })
    }
}

/// What plans run with: this process's stores, and a folder for spilled data where one is named.
///
/// # Errors
/// DataFusion's, when the folder cannot be used.
pub fn runtime_env(scratch: Option<&str>) -> DataFusionResult<Arc<RuntimeEnv>> {
    let builder = RuntimeEnvBuilder::new().with_object_store_registry(Arc::clone(&STORES) as _);
    match scratch {
        Some(folder) => builder.with_temp_file_path(folder).build_arc(),
        None => builder.build_arc(),
    }
}

/// A plain DataFusion session which runs everything in this process.
///
/// # Errors
/// As [`SessionParts::state`].
pub fn local_session() -> Result<SessionContext> {
    SessionParts::default().local()
}
