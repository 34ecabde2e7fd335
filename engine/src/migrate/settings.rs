//! Spark's settings and their counterparts: the one table behind `baler convert-conf`, the answers to `spark-submit`'s flags, and
//! `docs/migrating-from-spark.md`.

use std::fmt::Write as _;

/// A table of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// Where records or objects come from: BLOB or KAFKA.
    Source,
    /// Where documents go.
    Sink,
}

/// What becomes of a setting. In a text `{}` is the setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counterpart {
    /// An option of a table in the statement, with the same value.
    Option(Table, &'static str),
    /// A field of the resource.
    Field(&'static str),
    /// Something to be set elsewhere.
    Elsewhere(&'static str),
    /// Nothing to do, and why.
    Needless(&'static str),
    /// Nothing does the same, and what is instead.
    Nothing(&'static str),
}

use Counterpart::{Elsewhere, Field, Needless, Nothing, Option as TableOption};

/// A setting by its path in a SparkApplication, or by its name alone where it is one of `sparkConf`; `*` at the end stands for any rest.
pub(super) type Rule = (&'static str, Counterpart);

const SCALE: Counterpart = Elsewhere("kubectl -n baler scale statefulset/baler-executor --replicas {}");
const AUTOSCALE: Counterpart = Elsewhere("k8s/components/autoscaling-keda: minReplicaCount and maxReplicaCount of its ScaledObject ({})");
const EXECUTOR_CORES: Counterpart =
    Elsewhere("the StatefulSet baler-executor (k8s/base/executors.yaml): limits.cpu {}; on bare machines `baler executor --vcores {}`");
const EXECUTOR_MEMORY: Counterpart = Elsewhere(
    "the StatefulSet baler-executor: limits.memory; {} is a JVM's heap, and there is none to size here: memory is bounded for each partition (ARCHITECTURE.md, I7)",
);
const DRIVER_SIZE: Counterpart = Elsewhere(
    "the PodTemplate baler-driver (k8s/components/operator/driver.yaml): resources ({} in Spark; here the driver only plans and reads receipts)",
);
const POD: Counterpart = Elsewhere("the PodTemplate baler-driver for the driver, the StatefulSet baler-executor for executors");
const IMAGE: Counterpart = Elsewhere("k8s/components/image: one image for scheduler, executors and driver");
const NO_JVM: Counterpart = Needless("there is no JVM");
const NO_JARS: Counterpart = Needless("connectors for S3, Kafka, MongoDB, zlib are in the one binary");
const ARROW: Counterpart = Needless("rows are Arrow columns in memory and on the wire");
const SECRET: Counterpart = Elsewhere("the Secret baler-store-logins");

/// All rules; the first that fits counts.
pub(super) const RULES: &[Rule] = &[
    // Who it is.
    ("apiVersion", Needless("apiVersion is baler.dev/v1alpha1")),
    ("kind", Needless("kind is BalerJob or BalerStream")),
    ("metadata.name", Field("metadata.name")),
    ("metadata.namespace", Field("metadata.namespace")),
    ("metadata.labels.*", Field("metadata.labels")),
    ("metadata.*", Nothing("annotations of the Spark operator")),
    // The program.
    ("spec.type", Needless("a program is SQL, or a binary with the DataFrame API (plans/)")),
    ("spec.pythonVersion", Needless("there is no Python on the row's way")),
    ("spec.sparkVersion", Needless("scheduler, executors and driver are one image")),
    ("spec.mode", Needless("the driver always runs in the cluster, as a Job or a Deployment")),
    ("spec.mainClass", Nothing("the program itself is not converted; its statement is SQL here")),
    ("spec.mainApplicationFile", Nothing("the program itself is not converted; its statement is SQL here")),
    ("spec.image", IMAGE),
    ("spec.imagePullPolicy", IMAGE),
    ("spec.imagePullSecrets.*", POD),
    ("spec.deps.*", NO_JARS),
    ("spec.timeToLiveSeconds", Field("spec.ttlSecondsAfterFinished")),
    ("spec.restartPolicy.type", Needless("the driver of a job is tried again up to spec.retries times, that of a stream always")),
    ("spec.restartPolicy.onFailureRetries", Field("spec.retries")),
    ("spec.restartPolicy.onSubmissionFailureRetries", Field("spec.retries")),
    ("spec.restartPolicy.*", Needless("Kubernetes waits between two tries, longer each time")),
    ("spec.schedule", Elsewhere("a CronJob which applies the resource, or Airflow (k8s/components/airflow): schedule {}")),
    ("spec.monitoring.*", Needless("every process has /metrics; k8s/components/monitoring reads them")),
    ("spec.batchScheduler*", Nothing("gang scheduling; executors serve many jobs, and a job takes those which are there")),
    // Executors and driver.
    ("spec.executor.instances", SCALE),
    ("spec.executor.cores", EXECUTOR_CORES),
    ("spec.executor.coreRequest", EXECUTOR_CORES),
    ("spec.executor.coreLimit", EXECUTOR_CORES),
    ("spec.executor.memory", EXECUTOR_MEMORY),
    ("spec.executor.memoryOverhead", EXECUTOR_MEMORY),
    ("spec.executor.javaOptions", NO_JVM),
    ("spec.executor.*", POD),
    ("spec.driver.cores", DRIVER_SIZE),
    ("spec.driver.coreRequest", DRIVER_SIZE),
    ("spec.driver.coreLimit", DRIVER_SIZE),
    ("spec.driver.memory", DRIVER_SIZE),
    ("spec.driver.memoryOverhead", DRIVER_SIZE),
    ("spec.driver.javaOptions", NO_JVM),
    ("spec.driver.*", POD),
    ("spec.dynamicAllocation.*", AUTOSCALE),
    ("spec.volumes.*", POD),
    ("spark.executor.instances", SCALE),
    ("spark.executor.cores", EXECUTOR_CORES),
    ("spark.executor.memory", EXECUTOR_MEMORY),
    ("spark.executor.memoryOverhead*", EXECUTOR_MEMORY),
    ("spark.executor.pyspark.memory", NO_JVM),
    ("spark.executor.extraJavaOptions", NO_JVM),
    ("spark.executor.heartbeatInterval", Elsewhere("`baler executor --executor-heartbeat-interval-seconds` (5)")),
    ("spark.driver.cores", DRIVER_SIZE),
    ("spark.driver.memory*", DRIVER_SIZE),
    ("spark.driver.maxResultSize", Needless("a job's results are receipts of some hundred bytes a split")),
    ("spark.driver.extraJavaOptions", NO_JVM),
    ("spark.dynamicAllocation.*", AUTOSCALE),
    ("spark.memory.*", Needless("memory is bounded for each partition (ARCHITECTURE, I7), not shared out of a heap")),
    ("spark.task.cpus", Needless("a task takes one slot, and compression uses all cores by itself")),
    ("spark.task.maxFailures", Needless("a task is tried 4 times by Ballista, and its splits again by the driver")),
    ("spark.speculation*", Needless("splits which are late at the end of a job are sent a second time")),
    ("spark.network.timeout", Elsewhere("`baler scheduler --executor-timeout-seconds` (20; Spark had {})")),
    ("spark.local.dir", Elsewhere("`baler executor --work-dir {}`")),
    ("spark.kubernetes.namespace", Field("metadata.namespace")),
    ("spark.kubernetes.container.image*", IMAGE),
    ("spark.kubernetes.*", POD),
    // How rows are cut, held and sent.
    ("spark.sql.files.maxPartitionBytes", TableOption(Table::Source, "blob.split_size")),
    ("spark.sql.files.openCostInBytes", Needless("small splits share a task")),
    (
        "spark.sql.shuffle.partitions",
        Nothing("the pipeline has no shuffle; a query that has one takes `SET datafusion.execution.target_partitions = {}`"),
    ),
    ("spark.default.parallelism", Needless("a job has a split for each 128 MiB (blob.split_size), and as many run as there are slots")),
    ("spark.sql.adaptive.*", Needless("splits are of one size, so there is no skew to adapt to")),
    ("spark.sql.execution.arrow.*", ARROW),
    ("spark.serializer", ARROW),
    ("spark.kryo*", ARROW),
    ("spark.rdd.compress", ARROW),
    ("spark.io.compression.*", Needless("shuffles are LZ4")),
    ("spark.shuffle.*", Needless("the pipeline has no shuffle, and a lost one is made again")),
    ("spark.sql.parquet.*", Elsewhere("`SET datafusion.execution.parquet.…` for Parquet tables")),
    // Stores.
    ("spark.hadoop.fs.s3a.endpoint", Elsewhere("the ConfigMap baler-config: AWS_ENDPOINT: {}")),
    ("spark.hadoop.fs.s3a.endpoint.region", Elsewhere("the ConfigMap baler-config: AWS_REGION: {}")),
    ("spark.hadoop.fs.s3a.access.key", SECRET),
    ("spark.hadoop.fs.s3a.secret.key", SECRET),
    ("spark.hadoop.fs.s3a.path.style.access", Needless("paths are used with an AWS_ENDPOINT, as MinIO wants them")),
    (
        "spark.hadoop.fs.s3a.connection.ssl.enabled",
        Elsewhere("the scheme of AWS_ENDPOINT, http or https (ssl {}); AWS_CA_BUNDLE for an own authority"),
    ),
    ("spark.hadoop.fs.s3a.*", Needless("reading ahead, parts of uploads and connections are set for this work")),
    ("spark.hadoop.*", Nothing("a setting of Hadoop, which is not there")),
    ("spark.mongodb.write.connection.uri", Field("spec.set.OUTPUT")),
    ("spark.mongodb.output.uri", Field("spec.set.OUTPUT")),
    ("spark.mongodb.write.database", Field("spec.set.OUTPUT")),
    ("spark.mongodb.write.collection", Field("spec.set.OUTPUT")),
    ("spark.mongodb.write.maxBatchSize", TableOption(Table::Sink, "mongodb.batch_docs")),
    ("spark.mongodb.output.maxBatchSize", TableOption(Table::Sink, "mongodb.batch_docs")),
    ("spark.mongodb.write.ordered", TableOption(Table::Sink, "mongodb.ordered")),
    ("spark.mongodb.output.ordered", TableOption(Table::Sink, "mongodb.ordered")),
    ("spark.mongodb.write.operationType", TableOption(Table::Sink, "mongodb.write_mode")),
    ("spark.mongodb.write.writeConcern.w", TableOption(Table::Sink, "mongodb.write_concern")),
    ("spark.mongodb.output.writeConcern.w", TableOption(Table::Sink, "mongodb.write_concern")),
    ("spark.mongodb.write.writeConcern.journal", TableOption(Table::Sink, "mongodb.journal")),
    ("spark.mongodb.write.idFieldList", Needless("a document's _id is the query's column `_id`, a function of its source")),
    ("spark.mongodb.read.*", Elsewhere("a table STORED AS MONGODB: projection, filter and limit are pushed down")),
    ("spark.mongodb.input.*", Elsewhere("a table STORED AS MONGODB: projection, filter and limit are pushed down")),
    // Streams.
    ("spark.streaming.kafka.maxRatePerPartition", TableOption(Table::Source, "kafka.max_records_per_partition_per_second")),
    ("spark.streaming.kafka.*", Needless("the consumer's settings are options of the table, kafka.client.…")),
    ("spark.streaming.backpressure.*", Needless("a micro-batch reads no more than its sink takes: a few chunks wait for each partition")),
    ("spark.streaming.stopGracefullyOnShutdown", Needless("SIGTERM ends a driver between two micro-batches, and any other end is safe")),
    ("spark.streaming.*", Nothing("a setting of Spark's DStreams")),
    ("spark.sql.streaming.checkpointLocation", Field("spec.state")),
    ("spark.sql.streaming.minBatchesToRetain", Elsewhere("`baler stream --keep-batches {}`: more are folded, none is lost")),
    ("spark.sql.streaming.*", Nothing("streaming state; a query of Baler keeps offsets and receipts")),
    // What is told.
    ("spark.eventLog.*", Needless("history is the state folder: `baler jobs show NAME`, and the dashboard")),
    ("spark.ui.*", Needless("the dashboard is on the scheduler's port, 50050")),
    ("spark.history.*", Needless("history is the state folder: `baler jobs show NAME`, and the dashboard")),
    ("spark.metrics.*", Needless("every process has /metrics")),
    ("spark.app.name", Field("metadata.name")),
    // Who may.
    ("spark.authenticate*", Nothing("passwords between the processes of a fleet; k8s/base/network-policies.yaml closes the ways instead")),
    ("spark.ssl.*", Nothing("TLS between the processes of a fleet; k8s/base/network-policies.yaml closes the ways instead")),
    ("spark.network.crypto.*", Nothing("TLS between the processes of a fleet; k8s/base/network-policies.yaml closes the ways instead")),
    ("spark.jars*", NO_JARS),
    ("spark.submit.*", NO_JARS),
    ("spark.pyspark.*", NO_JVM),
    ("spark.master", Field("spec.scheduler")),
];

/// The counterpart of a setting; `None` for one that the table does not know.
pub(super) fn counterpart(path: &str) -> Option<Counterpart> {
    let key = path.strip_prefix("spec.sparkConf.").unwrap_or(path);
    let hadoop = path.strip_prefix("spec.hadoopConf.").map(|key| format!("spark.hadoop.{key}"));
    let key = hadoop.as_deref().unwrap_or(key);
    let fits = |pattern: &str| pattern.strip_suffix('*').map_or(pattern == key, |prefix| key.starts_with(prefix));
    RULES.iter().find(|(pattern, _)| fits(pattern)).map(|(_, counterpart)| *counterpart)
}

/// Whether a setting's value is nobody's business.
pub(super) fn is_secret(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    ["password", "secret", "access.key", "token", "credential"].iter().any(|word| path.contains(word))
}

impl Counterpart {
    /// What to do, in words; `value` is the setting's.
    pub(super) fn text(self, value: &str) -> String {
        match self {
            Self::Option(_, option) => format!("'{option}' '{value}'"),
            Self::Field(field) => field.to_string(),
            Self::Elsewhere(text) | Self::Needless(text) | Self::Nothing(text) => text.replace("{}", value),
        }
    }

    /// The heading below which it is told.
    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Option(..) | Self::Field(_) => "in the resource",
            Self::Elsewhere(_) => "to be set elsewhere",
            Self::Needless(_) => "not needed",
            Self::Nothing(_) => "without counterpart",
        }
    }
}

/// The whole table as Markdown.
pub fn markdown() -> String {
    let mut text = String::from("| Spark | | Baler |\n| --- | --- | --- |\n");
    for (pattern, counterpart) in RULES {
        let shown = match counterpart {
            TableOption(_, option) => format!("option `{option}` of the table"),
            Field(field) => format!("`{field}`"),
            other => other.text("N").replace('|', "\\|"),
        };
        // Writing to a `String` cannot fail.
        writeln!(text, "| `{pattern}` | {} | {shown} |", counterpart.heading()).unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_counts_and_none_is_behind_another() {
        let text = |path: &str, value: &str| counterpart(path).map(|counterpart| counterpart.text(value));
        assert!(text("spec.sparkConf.spark.executor.instances", "10").unwrap().ends_with("--replicas 10"));
        assert_eq!(text("spark.sql.files.maxPartitionBytes", "128m").unwrap(), "'blob.split_size' '128m'");
        assert_eq!(counterpart("spec.hadoopConf.fs.s3a.secret.key"), Some(SECRET));
        assert_eq!(counterpart("spark.nobody.knows"), None);
        for (at, (pattern, counterpart_here)) in RULES.iter().enumerate() {
            let found = RULES.iter().position(|(other, _)| {
                let key = pattern.trim_end_matches('*');
                other.strip_suffix('*').map_or(other == pattern, |prefix| key.starts_with(prefix))
            });
            assert_eq!(found, Some(at), "{pattern} is never reached");
            assert!(!counterpart_here.text("").is_empty());
        }
    }
}
