//! Plans of every node, table and function of ours on their way from client to scheduler to executor, each with the session that
//! it really has; and bytes which are no such plan.

use std::fs;
use std::process::Command;

use ballista_core::extension::{SessionConfigExt, SessionConfigHelperExt};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;
use datafusion_proto::logical_plan::AsLogicalPlan;
use datafusion_proto::physical_plan::{AsExecutionPlan, DefaultPhysicalProtoConverter};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::connector::aggregate::tests::Unreached;
use crate::connector::split::Split;
use crate::connector::split::leaf_rows;
use crate::connector::stored::StoredSplit;
use crate::job::restore::RestoreObject;
use crate::job::run::bind;
use crate::job::settle::AuditedSplit;
use crate::session::{Place, SessionParts, runtime_env};
use crate::statement;

/// The three sessions of a query on a fleet, as their processes make them.
struct Fleet {
    client: SessionContext,
    scheduler: SessionContext,
    executor: TaskContext,
}

impl Fleet {
    fn new() -> Self {
        let parts = SessionParts::default();
        let session = |place: &Place| SessionContext::new_with_state(parts.state(place, parts.config(place)).unwrap());
        let functions = parts.function_registry().unwrap();
        let executor = TaskContext::new(
            Some("TID a/1.0/0.0".to_string()),
            "session".to_string(),
            parts.config(&Place::Server),
            functions.scalar_functions,
            functions.higher_order_functions,
            functions.aggregate_functions,
            functions.window_functions,
            runtime_env(None).unwrap(),
        );
        Self { client: session(&Place::Client("http://127.0.0.1:1".to_string())), scheduler: session(&Place::Server), executor }
    }
}

/// A statement on its way.
struct Sent {
    /// What came out of the client, and of the scheduler.
    logical: Vec<u8>,
    physical: Vec<u8>,
    planned: Arc<dyn ExecutionPlan>,
    received: Arc<dyn ExecutionPlan>,
}

impl Sent {
    /// Asserts that the executor got what the scheduler planned.
    #[track_caller]
    fn expect_same(&self) -> &Self {
        let tree = |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).indent(true).to_string();
        assert_eq!(tree(&self.planned), tree(&self.received));
        assert_eq!(self.planned.schema(), self.received.schema());
        assert_eq!(specs(&self.planned), specs(&self.received));
        self
    }

    #[track_caller]
    fn expect_nodes(&self, names: &[&str]) {
        let found = specs(&self.received);
        for name in names {
            assert!(found.iter().any(|spec| spec.contains(name)), "no {name} in {found:#?}");
        }
    }
}

/// All that the codec carries of our nodes.
fn specs(plan: &Arc<dyn ExecutionPlan>) -> Vec<String> {
    let mut found = Vec::new();
    plan.apply(|node| {
        if let Some(scan) = node.downcast_ref::<BlobScanExec>() {
            found.push(format!("BlobScanExec {:?} {:?}", scan.spec(), scan.projection()));
        } else if let Some(scan) = node.downcast_ref::<KafkaScanExec>() {
            found.push(format!("KafkaScanExec {:?} {:?}", scan.spec(), scan.projection()));
        } else if let Some(write) = node.downcast_ref::<WriteExec>() {
            found.push(format!("WriteExec {:?} {:?} {}", write.sink(), write.job(), write.is_split_parallel()));
        } else if let Some(scan) = node.downcast_ref::<CompressedScanExec>() {
            found.push(format!("CompressedScanExec {}", scan.compression()));
        } else if let Some(scan) = node.downcast_ref::<DocumentScanExec>() {
            found.push(format!("DocumentScanExec {:?} {:?} {:?} {:?}", scan.spec(), scan.schema(), scan.predicate(), scan.limit()));
        } else if node.is::<DocumentAggregateExec>() {
            found.push(displayable(node.as_ref()).one_line().to_string());
        } else if let Some(restore) = node.downcast_ref::<ItemExec<RestoreTask>>() {
            let objects = leaf_rows::<RestoreObject>(node.children()[0].as_ref()).unwrap();
            found.push(format!("RestoreExec {:?} {objects:?}", restore.task()));
        } else if let Some(verify) = node.downcast_ref::<ItemExec<VerifyTask>>() {
            let splits = leaf_rows::<AuditedSplit>(node.children()[0].as_ref()).unwrap();
            found.push(format!("VerifyExec {:?} {splits:?}", verify.task()));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    found
}

/// Objects, a compressed table, a dump, and the tables over them.
fn tables() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in
        [("in/a.txt", "one\n"), ("in/b.txt", "two\n"), ("csv/a.csv.gz", "x"), ("dump/a/b.1.bson", ""), ("dump/a/b.2.bson", "")]
    {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let at = folder.path().display();
    let text = format!(
        "CREATE EXTERNAL TABLE objects STORED AS BLOB LOCATION 'file://{at}/in/' OPTIONS ('blob.split_size' '7MiB', 'blob.chunk_size' '3KiB',
             'blob.boundary' 'none', 'blob.compression' 'none', 'blob.on_corrupt' 'dead_letter');
         CREATE EXTERNAL TABLE feed STORED AS KAFKA LOCATION 'kafka://one:1,two:2/events' OPTIONS ('kafka.starting_offsets' '{{\"3\": 7, \"0\": -2}}',
             'kafka.chunk_records' '1', 'kafka.include_headers' 'true', 'kafka.isolation_level' 'read_uncommitted', 'kafka.credentials' 'FEED',
             'kafka.client.security.protocol' 'SASL_SSL', 'kafka.max_bytes_per_trigger' '1GiB', 'kafka.fail_on_data_loss' 'false');
         CREATE EXTERNAL TABLE dump STORED AS BSON LOCATION 'file://{at}/dump' OPTIONS ('bson.namespace' 'a.b', 'bson.on_error' 'dead_letter');
         CREATE EXTERNAL TABLE declared (_id VARCHAR NOT NULL, data BYTEA) STORED AS BSON LOCATION 'file://{at}/dump' OPTIONS ('bson.namespace' 'a.b');
         CREATE EXTERNAL TABLE collection STORED AS MONGODB LOCATION 'mongodb://one:1,two:2/db.docs?tls=true' OPTIONS ('mongodb.credentials' 'SHOP',
             'mongodb.write_mode' 'replace', 'mongodb.batch_docs' '7', 'mongodb.batch_bytes' '2MiB', 'mongodb.in_flight' '3', 'mongodb.ordered' 'true',
             'mongodb.write_concern' '2', 'mongodb.journal' 'false', 'mongodb.indexes' 'a, b', 'mongodb.shard_key' '', 'mongodb.on_error' 'dead_letter');
         CREATE EXTERNAL TABLE words (id BIGINT, word VARCHAR) STORED AS CSV LOCATION '{at}/csv/' OPTIONS ('format.compression' 'gzip');"
    );
    (folder, text)
}

/// Sends a statement all the way; with `job`, as that job's driver does, which has pinned the splits.
async fn send(fleet: &Fleet, tables: &str, text: &str, job: Option<&JobRef>) -> Sent {
    statement::define_tables(&fleet.client, &tables.replace("CREATE EXTERNAL TABLE", "CREATE EXTERNAL TABLE IF NOT EXISTS")).await.unwrap();
    let parsed = statement::parse(text).unwrap().remove(0);
    let mut plan = statement::plan(&fleet.client, parsed).await.unwrap();
    if let (Some(job), LogicalPlan::Dml(insert)) = (job, &plan) {
        plan = bind(insert, job, Some(&[vec![split("a"), split("b")], vec![split("c")]])).unwrap();
    }
    send_plan(fleet, &plan).await
}

async fn send_plan(fleet: &Fleet, plan: &LogicalPlan) -> Sent {
    let codec = fleet.client.state().config().ballista_logical_extension_codec();
    let mut logical = Vec::new();
    LogicalPlanNode::try_from_logical_plan(plan, codec.as_ref()).unwrap().try_encode(&mut logical).unwrap();

    let planned = fleet.scheduler.state().create_physical_plan(&receive(fleet, &logical).unwrap()).await.unwrap();
    send_planned(fleet, logical, planned)
}

/// Sends what the scheduler has planned on to an executor.
fn send_planned(fleet: &Fleet, logical: Vec<u8>, planned: Arc<dyn ExecutionPlan>) -> Sent {
    let codec = fleet.scheduler.state().config().ballista_physical_extension_codec();
    let mut physical = Vec::new();
    PhysicalPlanNode::try_from_physical_plan(Arc::clone(&planned), codec.as_ref()).unwrap().try_encode(&mut physical).unwrap();
    let received = start(fleet, &physical).unwrap();
    Sent { logical, physical, planned, received }
}

/// As the scheduler receives a client's plan.
fn receive(fleet: &Fleet, bytes: &[u8]) -> DataFusionResult<LogicalPlan> {
    let codec = fleet.scheduler.state().config().ballista_logical_extension_codec();
    <LogicalPlanNode as AsLogicalPlan>::try_decode(bytes)?.try_into_logical_plan(&fleet.scheduler.task_ctx(), codec.as_ref())
}

/// As an executor receives a task.
fn start(fleet: &Fleet, bytes: &[u8]) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let codec = fleet.executor.session_config().ballista_physical_extension_codec();
    <PhysicalPlanNode as AsExecutionPlan>::try_decode(bytes)?.try_into_physical_plan(&fleet.executor, codec.as_ref())
}

fn split(id: &str) -> Split {
    let compression = crate::connector::blob::Compression::Zstd;
    let (object, version) = ("s3://b/ä 'x'".into(), "\"etag\"".into());
    Split { id: id.into(), object, version, size: 9, last_modified: -1, compression, start: 0, end: 9 }
}

fn dump() -> SinkSpec {
    SinkSpec::Bson(crate::connector::bson::BsonSpec::try_new("s3://b/dump", &std::collections::HashMap::new()).unwrap())
}

fn stored(id: &str) -> StoredSplit {
    StoredSplit { id: id.into(), first: 0, next: 9, documents: 3, digest: "00".to_string() }
}

/// The plan of a restore: two tasks of an object each.
fn restore_plan(fleet: &Fleet) -> LogicalPlan {
    let object = |id: &str| RestoreObject {
        object: "s3://b/ä 'x'".to_string(),
        version: "\"etag\"".to_string(),
        last_modified: -1,
        target: "s3://b/new/ä 'x'".to_string(),
        records: Some(crate::job::restore::records::Layout::Single { must_be_whole: true }),
        packing: crate::connector::blob::Compression::Xz,
        bytes: 9,
        splits: vec![stored(id)],
    };
    let spec = KafkaSpec::try_new("kafka://one/again", &std::collections::HashMap::new()).unwrap();
    let topic = Some(crate::job::restore::TopicTarget { spec, name: "feed".to_string() });
    let task = RestoreTask { source: dump(), overwrite: true, partial: false, topic };
    let table = ItemTable { task, items: vec![vec![object("a")], vec![object("b")]] };
    fleet.client.read_table(Arc::new(table)).unwrap().into_unoptimized_plan()
}

/// The plan of an audit: two tasks, of two splits and of one.
fn verify_plan(fleet: &Fleet) -> LogicalPlan {
    let audited = |id: &str| AuditedSplit { split: split(id), stored: stored(id), ends_object: true };
    let task = VerifyTask { source: dump(), deep: true };
    let table = ItemTable { task, items: vec![vec![audited("a"), audited("b")], vec![audited("c")]] };
    fleet.client.read_table(Arc::new(table)).unwrap().into_unoptimized_plan()
}

fn job() -> JobRef {
    JobRef { attempt: 3, ..JobRef::try_new("file:///state", "load").unwrap() }
}

/// Runs a test's future on a runtime of its own.
fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

const INSERTS: [&str; 3] = ["dump", "declared", "collection"];

#[test]
fn every_node_and_table_arrives_as_it_was_sent() {
    let (_folder, tables) = tables();
    block_on(async {
        let fleet = Fleet::new();
        for target in INSERTS {
            let insert =
                format!("INSERT INTO {target} SELECT id AS _id, zlib_compress(content, 9) AS data FROM objects WHERE records >= 0");
            for job in [None, Some(&job())] {
                let sent = send(&fleet, &tables, &insert, job).await;
                sent.expect_same().expect_nodes(&["WriteExec", "BlobScanExec", "true"]);
                let words = format!("{:?}", specs(&sent.received));
                assert_eq!(words.contains("attempt: 3"), job.is_some(), "{words}");
                let splits = displayable(sent.received.as_ref()).indent(true).to_string();
                // Two files, or the two pinned tasks of three splits.
                assert!(splits.contains("partitions=2"), "{splits}");
            }
            let whole =
                format!("INSERT INTO {target} SELECT CAST(count(*) AS VARCHAR) AS _id, max(content) AS data FROM objects GROUP BY object");
            send(&fleet, &tables, &whole, Some(&job())).await.expect_same().expect_nodes(&["WriteExec", "BlobScanExec", "false"]);
        }
        let scan = send(&fleet, &tables, "SELECT * FROM objects", None).await;
        scan.expect_same()
            .expect_nodes(&["split_bytes: 7340032, chunk_bytes: 3072, boundary: None, compression: None, on_corrupt: DeadLetter"]);
        let insert =
            "INSERT INTO dump SELECT id AS _id, json_get_str(CAST(value AS VARCHAR), 'a') AS a, headers FROM feed WHERE \"offset\" > 3";
        let feed = send(&fleet, &tables, insert, Some(&job())).await;
        feed.expect_same().expect_nodes(&[
            "WriteExec",
            "true",
            "starting: Offsets([(0, -2), (3, 7)])",
            "read_uncommitted: true",
            r#"client: {"security.protocol": "SASL_SSL"}"#,
        ]);
        let read = send(&fleet, &tables, "SELECT data FROM declared WHERE _id > 'a' LIMIT 3", None).await;
        read.expect_same().expect_nodes(&["DocumentScanExec"]);
        fleet.scheduler.register_table("unreached", Arc::new(Unreached::new())).unwrap();
        let count = "SELECT count(*), max(n), avg(n) FROM unreached WHERE inner['x'] > 3 AND _id IN ('a', 'b', 'c', 'd')";
        let planned = fleet.scheduler.sql(count).await.unwrap().create_physical_plan().await.unwrap();
        send_planned(&fleet, Vec::new(), planned).expect_same().expect_nodes(&["DocumentAggregateExec", "DocumentScanExec"]);
        let words = send(&fleet, &tables, "SELECT a.word FROM words a JOIN words b ON a.id = b.id ORDER BY a.word", None).await;
        words.expect_same().expect_nodes(&["CompressedScanExec gz"]);
        for (plan, words) in [
            (restore_plan(&fleet), ["RestoreExec", "overwrite: true, partial: false", "s3://b/new/ä 'x'", "documents: 3"]),
            (verify_plan(&fleet), ["VerifyExec", "deep: true", "s3://b/ä 'x'", "ends_object: true"]),
        ] {
            let sent = send_plan(&fleet, &plan).await;
            sent.expect_same().expect_nodes(&words);
            let splits = displayable(sent.received.as_ref()).indent(true).to_string();
            assert!(splits.contains("partitions=2"), "{splits}");
        }
    });
}

/// A call of every function. One without a line here fails the test below.
fn call(function: &str) -> &'static str {
    match function {
        "zlib_compress" => "zlib_compress(content, 9, 7)",
        "zlib_decompress" => "zlib_decompress(content, 100)",
        "try_zlib_decompress" => "try_zlib_decompress(content)",
        "compress" => "compress(content, 'zstd(3)')",
        "decompress" => "decompress(content, 'gzip')",
        "crc32" => "crc32(content)",
        "compression_ratio" => "compression_ratio(byte_length, records)",
        "octet_length" => "octet_length(content)",
        other => panic!("{other} has no call in this test, nor in that of the fleet (tests/it/queries/session.rs)"),
    }
}

#[test]
fn every_function_arrives_in_projections_filters_and_aggregates() {
    let (_folder, tables) = tables();
    block_on(async {
        let fleet = Fleet::new();
        for function in crate::function::all() {
            let call = call(function.name());
            let query = format!("SELECT {call} AS x, max({call}) AS y FROM objects WHERE {call} IS NOT NULL GROUP BY x");
            let sent = send(&fleet, &tables, &query, None).await;
            let tree = displayable(sent.expect_same().received.as_ref()).indent(true).to_string();
            assert!(tree.contains(&format!("{}(content@", function.name())) || tree.contains("compression_ratio(byte_length@"), "{tree}");
        }
    });
}

#[test]
fn what_is_ours_begins_with_its_mark_and_version() {
    let sink = SinkSpec::Bson(crate::connector::bson::BsonSpec {
        location: "file:///dump".into(),
        database: "a".into(),
        collection: "b".into(),
        on_error: crate::job::dead_letter::OnError::Fail,
    });
    let mut bytes = Vec::new();
    put(&NodeSpec::Write { sink, job: Some(job()) }, &mut bytes).unwrap();
    let golden = format!(
        "\0baler {}\0{}",
        crate::VERSION,
        r#"{"node":"write","sink":{"format":"bson","location":"file:///dump","database":"a","collection":"b","on_error":"fail"},"job":{"state":"file:///state","name":"load","attempt":3}}"#
    );
    assert_eq!(String::from_utf8(bytes).unwrap(), golden);
    let mut bytes = Vec::new();
    put(&NodeSpec::CompressedScan { compression: "gz".into() }, &mut bytes).unwrap();
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        format!("\0baler {}\0{}", crate::VERSION, r#"{"node":"compressed_scan","compression":"gz"}"#)
    );
}

/// What the codec says to bytes for a node over a table of splits.
fn decode(fleet: &Fleet, bytes: &[u8]) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let input = crate::connector::split::leaf_table(&[vec![split("a")]]).unwrap();
    PhysicalCodec::default().try_decode(bytes, &[input], &fleet.executor, &DefaultPhysicalProtoConverter {})
}

fn decode_table(fleet: &Fleet, bytes: &[u8]) -> DataFusionResult<Arc<dyn TableProvider>> {
    let schema = Arc::new(Schema::new(vec![Field::new("_id", DataType::Utf8, false)]));
    LogicalCodec::default().try_decode_table_provider(bytes, &TableReference::bare("t"), schema, &fleet.executor)
}

/// Our nodes and tables as bytes.
fn samples() -> Vec<Vec<u8>> {
    let (_folder, tables) = tables();
    block_on(async {
        let fleet = Fleet::new();
        let mut samples = Vec::new();
        let insert = "INSERT INTO collection SELECT id AS _id, content AS data FROM objects";
        let texts = [insert, "SELECT _id FROM declared LIMIT 3", "SELECT * FROM words"];
        for text in texts {
            let planned = send(&fleet, &tables, text, Some(&job())).await.planned;
            planned
                .apply(|node| {
                    let mut bytes = Vec::new();
                    let encoded = PhysicalCodec::default().try_encode(Arc::clone(node), &mut bytes, &DefaultPhysicalProtoConverter {});
                    if encoded.is_ok() && bytes.starts_with(MARK) {
                        samples.push(bytes);
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
                .unwrap();
        }
        for plan in [restore_plan(&fleet), verify_plan(&fleet)] {
            let (mut node, mut table) = (Vec::new(), Vec::new());
            let planned = send_plan(&fleet, &plan).await.planned;
            PhysicalCodec::default().try_encode(planned, &mut node, &DefaultPhysicalProtoConverter {}).unwrap();
            let LogicalPlan::TableScan(scan) = &plan else { panic!("it is the scan of a table") };
            let provider = datafusion::datasource::source_as_provider(&scan.source).unwrap();
            LogicalCodec::default().try_encode_table_provider(&scan.table_name, provider, &mut table).unwrap();
            samples.extend([node, table]);
        }
        for table in ["objects", "collection", "dump"] {
            let provider = fleet.client.table_provider(table).await.unwrap();
            let mut bytes = Vec::new();
            LogicalCodec::default().try_encode_table_provider(&TableReference::bare(table), provider, &mut bytes).unwrap();
            samples.push(bytes);
        }
        assert_eq!(samples.len(), 11, "write, blob scan, document scan, compressed scan, restore, verify, and five tables");
        samples
    })
}

#[test]
fn a_plan_of_another_version_is_refused_in_words() {
    let fleet = Fleet::new();
    for sample in samples() {
        let rest = &sample[MARK.len() + crate::VERSION.len()..];
        let other = [MARK, b"0.0.7", rest].concat();
        for error in [decode(&fleet, &other).unwrap_err(), decode_table(&fleet, &other).unwrap_err()] {
            let text = error.to_string();
            assert!(text.contains("0.0.7") && text.contains(crate::VERSION) && text.contains("one version"), "{text}");
        }
    }
}

#[test]
fn a_plan_which_is_cut_short_is_an_error() {
    let (_folder, tables) = tables();
    let fleet = Fleet::new();
    for sample in samples() {
        for length in 0..sample.len() {
            assert!(decode(&fleet, &sample[..length]).is_err(), "{length} of {} bytes", sample.len());
            assert!(decode_table(&fleet, &sample[..length]).is_err(), "{length} of {} bytes", sample.len());
        }
    }
    // Whole plans may lose an optional field at their end and still be plans; they must only not panic.
    let insert = "INSERT INTO dump SELECT id AS _id, crc32(content) AS data FROM objects";
    let sent = block_on(send(&fleet, &tables, insert, None));
    for length in 0..sent.logical.len() {
        drop(receive(&fleet, &sent.logical[..length]));
    }
    for length in 0..sent.physical.len() {
        drop(start(&fleet, &sent.physical[..length]));
    }
}

#[test]
fn a_node_without_its_one_input_is_an_error() {
    let fleet = Fleet::new();
    let mut bytes = Vec::new();
    put(&NodeSpec::CompressedScan { compression: "gz".into() }, &mut bytes).unwrap();
    let error = PhysicalCodec::default().try_decode(&bytes, &[], &fleet.executor, &DefaultPhysicalProtoConverter {}).unwrap_err();
    assert!(error.to_string().contains("one input, not 0"), "{error}");
    let unknown = [MARK, crate::VERSION.as_bytes(), b"\0", br#"{"node":"time_travel"}"#].concat();
    assert!(decode(&fleet, &unknown).is_err() && decode_table(&fleet, &unknown).is_err());
}

proptest! {
    #[test]
    fn foreign_bytes_are_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let fleet = fleet();
        let marked = [MARK, crate::VERSION.as_bytes(), b"\0", bytes.as_slice()].concat();
        prop_assert!(decode(fleet, &marked).is_err());
        prop_assert!(decode_table(fleet, &marked).is_err());
        drop(decode(fleet, &bytes));
        drop(decode_table(fleet, &bytes));
        drop(start(fleet, &bytes));
        drop(receive(fleet, &bytes));
    }

    #[test]
    fn a_damaged_spec_never_panics(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let samples = sample_bytes();
        let mut bytes = samples[which.index(samples.len())].clone();
        let at = at.index(bytes.len());
        bytes[at] = to;
        drop(decode(fleet(), &bytes));
        drop(decode_table(fleet(), &bytes));
    }
}

fn fleet() -> &'static Fleet {
    static FLEET: std::sync::OnceLock<Fleet> = std::sync::OnceLock::new();
    FLEET.get_or_init(Fleet::new)
}

fn sample_bytes() -> &'static [Vec<u8>] {
    static SAMPLES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    SAMPLES.get_or_init(samples)
}

const SECRET: &str = "planted-5f2b9c";
const SECRETS: [&str; 6] =
    ["MONGODB_PASSWORD", "MONGODB_USERNAME", "SHOP_PASSWORD", "SHOP_USERNAME", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// The test runs itself again in a process whose environment holds the secrets.
#[test]
fn no_secret_of_the_environment_is_in_a_plan_or_its_settings() {
    if std::env::var("MONGODB_PASSWORD").as_deref() != Ok(SECRET) {
        let name = "codec::tests::no_secret_of_the_environment_is_in_a_plan_or_its_settings";
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args([name, "--exact", "--nocapture"]).envs(SECRETS.map(|name| (name, SECRET)));
        let output = again.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let (_folder, tables) = tables();
    block_on(async {
        let fleet = Fleet::new();
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(SECRET);
        for target in INSERTS {
            let insert = format!("INSERT INTO {target} SELECT id AS _id, zlib_compress(content, 9) AS data FROM objects");
            let sent = send(&fleet, &tables, &insert, Some(&job())).await;
            assert!(!shown(&sent.logical) && !shown(&sent.physical));
            assert!(sent.logical.len() > 100 && sent.physical.len() > 100);
        }
        for session in [&fleet.client, &fleet.scheduler] {
            let settings = session.state().config().to_key_value_pairs();
            assert!(settings.len() > 50 && !format!("{settings:?}").contains(SECRET), "{settings:?}");
        }
    });
}
