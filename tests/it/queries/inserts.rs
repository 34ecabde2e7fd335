//! INSERT of what does not run split by split: a join, an aggregate, a sort. It goes through Ballista's stages, whose tasks are run
//! again when an executor is lost, and must still leave each document once.

use std::collections::BTreeMap;
use std::fs;

use baler_tests::baler::Baler;
use baler_tests::dump_reader::read_dump;
use baler_tests::fleet::Fleet;
use baler_tests::job::files;
use baler_tests::mongo::{Collection, Mongo};
use baler_tests::proxy::{Fault, Protocol, Proxy};
use baler_tests::servers::Scratch;
use baler_tests::wait_until;

/// Rows of each table.
const ROWS: u64 = 3000;

/// Tables of teams and their players.
fn tables(scratch: &Scratch) -> String {
    let folder = scratch.join("tables");
    fs::create_dir_all(&folder).unwrap();
    let row = |id: u64| serde_json::json!({ "id": id, "team": id % 600, "word": format!("player {} of {}", id * 7 % 1000, id % 600) });
    for file in 0..3 {
        let rows: String = (0..ROWS).filter(|id| id % 3 == file).map(|id| format!("{}\n", row(id))).collect();
        fs::write(folder.join(format!("{file}.json")), rows).unwrap();
    }
    format!("CREATE EXTERNAL TABLE players (id BIGINT, team BIGINT, word VARCHAR) STORED AS JSON LOCATION '{}/';\n", folder.display())
}

/// A join under an aggregate: 600 documents; and a sort: 3,000.
const AGGREGATE: &str =
    "INSERT INTO documents SELECT CAST(a.team AS VARCHAR) AS _id, count(*) AS pairs, sum(b.id) AS ids, min(b.word) AS word,
       zlib_compress(max(a.word), 9) AS data FROM players a JOIN players b ON a.team = b.team GROUP BY a.team;\n";
const SORT: &str = "INSERT INTO documents SELECT CAST(id AS VARCHAR) AS _id, word, team FROM players ORDER BY word, id;\n";

fn bson(folder: &Scratch) -> String {
    format!("CREATE EXTERNAL TABLE documents STORED AS BSON LOCATION 'file://{}';\n", folder.path().display())
}

fn mongodb(collection: &Collection<'_>) -> String {
    format!("CREATE EXTERNAL TABLE documents STORED AS MONGODB LOCATION '{}' OPTIONS ('mongodb.batch_docs' '10');\n", collection.url)
}

/// `_id` → document, each once.
fn by_id(documents: Vec<bson::Document>) -> BTreeMap<String, String> {
    let count = documents.len();
    let found: BTreeMap<_, _> =
        documents.into_iter().map(|document| (document.get_str("_id").unwrap().to_string(), document.to_string())).collect();
    assert_eq!(found.len(), count, "an _id is there twice");
    found
}

/// What a statement writes in one process.
fn expected(tables: &str, insert: &str) -> BTreeMap<String, String> {
    let dump = Scratch::new();
    super::sql(None, &format!("{tables}{}{insert}", bson(&dump)), "json").run().expect_code(0);
    by_id(read_dump(dump.path()).documents)
}

#[test]
fn a_join_an_aggregate_and_a_sort_are_written_on_a_fleet_as_in_one_process() {
    let (scratch, fleet, mongo) = (Scratch::new(), Fleet::start(2, &[]), Mongo::shared());
    let tables = tables(&scratch);
    for (insert, rows) in [(AGGREGATE, 600), (SORT, ROWS)] {
        let expected = expected(&tables, insert);
        assert_eq!(expected.len() as u64, rows);
        let (dump, collection) = (Scratch::new(), mongo.collection());
        for sink in [bson(&dump), mongodb(&collection)] {
            let counted = super::sql(Some(&fleet), &format!("{tables}{sink}{insert}"), "json").run().expect_code(0).stdout;
            assert_eq!(counted.trim(), format!("{{\"count\":{rows}}}"));
        }
        assert_eq!(by_id(read_dump(dump.path()).documents), expected);
        assert_eq!(by_id(collection.read()), expected);
    }
}

#[test]
fn two_statements_into_one_dump_leave_each_others_documents() {
    let (scratch, fleet, dump) = (Scratch::new(), Fleet::start(1, &[]), Scratch::new());
    let text = format!("{}{}{AGGREGATE}", tables(&scratch), bson(&dump));
    for fleet in [None, Some(&fleet)] {
        for other in ["'a' || ", "'b' || "] {
            let owner = if fleet.is_some() { "'fleet' || " } else { "" };
            let insert = text.replace("CAST(a.team AS VARCHAR) AS _id", &format!("{owner}{other}CAST(a.team AS VARCHAR) AS _id"));
            super::sql(fleet, &insert, "json").run().expect_code(0);
        }
    }
    assert_eq!(by_id(read_dump(dump.path()).documents).len(), 2400);
}

#[test]
fn an_insert_names_the_fields_of_a_target_that_declares_none() {
    let dump = Scratch::new();
    let insert = format!("{}INSERT INTO documents (_id, \"Word\", N) SELECT 'x', 'y', 1;", bson(&dump));
    super::sql(None, &insert, "json").run().expect_code(0);
    assert_eq!(read_dump(dump.path()).documents, [bson::doc! { "_id": "x", "Word": "y", "n": 1_i64 }]);
    let short = format!("{}INSERT INTO documents (_id, word) SELECT 'x';", bson(&dump));
    let refused = super::sql(None, &short, "json").run().expect_code(2);
    assert!(refused.stderr.contains("names 2 columns and its query has 1"), "{}", refused.stderr);
}

/// Starts `baler run` of a job over `sink`.
fn run(fleet: Option<&Fleet>, scratch: &Scratch, sink: &str, insert: &str) -> Baler {
    let file = scratch.join("job.sql");
    fs::write(&file, format!("{}{sink}{insert}", tables(scratch))).unwrap();
    let state = format!("file://{}", scratch.join("state").display());
    let arguments = ["run".to_string(), file.display().to_string(), "--job".into(), "whole".into(), "--state".into(), state];
    Baler::new(arguments.into_iter().chain(fleet.into_iter().flat_map(|fleet| ["--scheduler".to_string(), fleet.url()])))
}

/// Documents which the job says to have written: the sum of its tasks' counts.
fn committed(scratch: &Scratch) -> u64 {
    let commit = fs::read(scratch.join("state/whole/commit.json")).unwrap();
    serde_json::from_slice::<serde_json::Value>(&commit).unwrap()["documents"].as_u64().unwrap()
}

/// The writes of the job hang, an executor is killed which holds finished writes and shuffles, and the writes go on.
#[test]
fn an_aggregate_into_a_collection_survives_the_loss_of_an_executor_with_its_shuffles() {
    let (scratch, mongo) = (Scratch::new(), Mongo::shared());
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let mut fleet = Fleet::start(2, &[]);
    let collection = mongo.collection_at(proxy.port);
    let expected = expected(&tables(&scratch), AGGREGATE);
    proxy.arm(Fault::Stall { writes: 20 });
    let job = run(Some(&fleet), &scratch, &mongodb(&collection), AGGREGATE);
    let mut running = job.start();
    assert!(running.runs_until("writes hang", || proxy.fired() > 0), "the job ended before the stall: {:#?}", running.wait());
    assert!(collection.count() < 600);
    fleet.kill_executor(0);
    proxy.arm(Fault::None);
    proxy.cut();
    running.wait().expect_code(0);
    fleet.wait_executors(1);
    assert_eq!(by_id(collection.read()), expected);
    assert_eq!(committed(&scratch), 600);
}

/// A dump has no server which a proxy could hold. So the executor is killed as soon as it has written its first parts: the count
/// of a finished part is lost with its executor, and the part must be written again.
#[test]
fn an_aggregate_into_a_dump_leaves_each_document_once_when_an_executor_with_finished_parts_is_killed() {
    let scratch = Scratch::new();
    let mut fleet = Fleet::start(2, &[]);
    let expected = expected(&tables(&scratch), AGGREGATE);
    let dump = Scratch::new();
    let sink = bson(&dump);
    let parts =
        || files(dump.path()).into_iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "bson")).collect::<Vec<_>>();
    let mut running = run(Some(&fleet), &scratch, &sink, AGGREGATE).start();
    assert!(running.runs_until("three parts are there", || parts().len() >= 3), "the job ended too early: {:#?}", running.wait());
    fleet.kill_executor(0);
    let before = parts();
    running.wait().expect_code(0);
    assert_eq!(committed(&scratch), 600);
    let again = |path: &std::path::PathBuf| !before.contains(path);
    assert!(parts().iter().any(again), "the executor was killed after the last part: the fault missed");
    fleet.wait_executors(1);
    // Tasks which Ballista has given up may still wait for the dead executor.
    wait_until("nobody writes any more", || files(dump.path()).iter().all(|path| !path.to_string_lossy().contains(".baler-")));
    // The reader refuses files under temporary names, and an `_id` that is there twice.
    assert_eq!(by_id(read_dump(dump.path()).documents), expected);
}

#[test]
fn a_job_begun_with_other_partitions_leaves_none_of_its_parts_behind() {
    let (scratch, fleet, dump) = (Scratch::new(), Fleet::start(2, &[]), Scratch::new());
    let sink = bson(&dump);
    let expected = expected(&tables(&scratch), AGGREGATE);
    run(None, &scratch, &sink, AGGREGATE).run().expect_code(0);
    let parts =
        |dump: &Scratch| files(dump.path()).into_iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "bson")).count();
    let in_one_process = parts(&dump);
    // As if the process had died before it stored its receipt.
    let state = scratch.join("state/whole");
    fs::remove_file(state.join("commit.json")).unwrap();
    fs::remove_dir_all(state.join("receipts")).unwrap();
    run(Some(&fleet), &scratch, &sink, AGGREGATE).run().expect_code(0);
    assert_ne!(parts(&dump), in_one_process, "the fleet has as many partitions as one process: nothing is shown");
    assert_eq!(by_id(read_dump(dump.path()).documents), expected);
}
