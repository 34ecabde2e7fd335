//! Stored documents read by SQL: from dumps and collections, in one process and on a fleet.

use baler_tests::baler::Baler;
use baler_tests::corpus::lines;
use baler_tests::fleet::Fleet;
use baler_tests::job::{Job, Sink};
use baler_tests::mongo::Mongo;
use bson::{Document, doc};
use serde_json::Value;

/// Runs SQL and returns its rows.
fn ask(sql: &str, more: &[&str]) -> Vec<Value> {
    let shown = Baler::new(["sql", "--format", "json", "-c", sql].iter().chain(more)).run().expect_code(0).stdout;
    shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a file of `sql/` and returns its rows.
fn ask_file(file: &str, variables: &[(&str, &str)], scheduler: Option<String>) -> Vec<Value> {
    let file = format!("{}/../sql/{file}", env!("CARGO_MANIFEST_DIR"));
    let mut call = ["sql", "--format", "json", "--file", &file].map(String::from).to_vec();
    if let Some(scheduler) = scheduler {
        call.extend(["--scheduler".to_string(), scheduler]);
    }
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let shown = Baler::new(call).envs(&variables).run().expect_code(0).stdout;
    shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The LOCATION of a job's collection.
fn url_of(job: &Job<'_>) -> String {
    match &job.sink {
        Sink::Mongo(collection) => collection.url.clone(),
        other => panic!("{other:?} is no collection"),
    }
}

fn table(url: &str) -> String {
    format!("CREATE EXTERNAL TABLE d STORED AS MONGODB LOCATION '{url}'; ")
}

#[test]
fn statistics_of_a_collection_are_those_of_its_documents() {
    let fleet = Fleet::start(2, &[]);
    let mut job = Job::new().into_collection(Mongo::shared().collection());
    job.source_options = vec![("blob.chunk_size", "16KiB")];
    job.add_file("a.jsonl", &lines(90, 3 << 20, "\n"));
    job.add_file("b.jsonl", &lines(91, 1 << 20, "\n"));
    job.run();
    let documents = job.sink.read().documents;
    let number = |document: &Document, name: &str| {
        document.get_i64(name).map_or_else(|_| f64::from(document.get_i32(name).unwrap()), |number| number as f64)
    };
    let sum = |name: &str| documents.iter().map(|document| number(document, name)).sum::<f64>();
    let average = documents.iter().map(|document| document.get_f64("compression_ratio").unwrap()).sum::<f64>() / documents.len() as f64;
    for scheduler in [None, Some(fleet.url())] {
        let row = ask_file("stats.sql", &[("INPUT", &url_of(&job))], scheduler).remove(0);
        assert_eq!(row["documents"].as_u64(), Some(documents.len() as u64));
        for name in ["records", "original_size", "compressed_size"] {
            assert_eq!(row[name].as_f64(), Some(sum(name)), "{name}");
        }
        assert!((row["average_ratio"].as_f64().unwrap() - average).abs() < 1e-9);
        assert!((row["overall_ratio"].as_f64().unwrap() - sum("original_size") / sum("compressed_size")).abs() < 1e-9);
    }
}

#[test]
fn a_large_collection_is_read_in_parts_which_are_all_of_it_whatever_its_ids() {
    const TEXTS: usize = 6_000;
    let collection = Mongo::shared().collection();
    let texts = (0..TEXTS).map(|n| doc! { "_id": format!("{:08x}", (n as u32).wrapping_mul(0x9e37_79b9)), "n": n as i64, "kind": "text" });
    let others = (0..50).map(|n| doc! { "_id": n, "n": -1_i64, "kind": "other" });
    let documents: Vec<Document> = texts.chain(others).collect();
    collection.insert_all(&documents);
    let fleet = Fleet::start(2, &[]);
    for more in [vec![], vec!["--scheduler".to_string(), fleet.url()]] {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let sql =
            table(&collection.url) + "SELECT kind, count(*) AS c, count(DISTINCT n) AS d, sum(n) AS s FROM d GROUP BY kind ORDER BY kind";
        let rows = ask(&sql.replace("TABLE d STORED", "TABLE d (kind VARCHAR, n BIGINT) STORED"), &more);
        let sum = (TEXTS * (TEXTS - 1) / 2) as i64;
        assert_eq!(
            rows,
            [
                serde_json::json!({"kind": "other", "c": 50, "d": 1, "s": -50}),
                serde_json::json!({"kind": "text", "c": TEXTS, "d": TEXTS, "s": sum}),
            ]
        );
        let plan =
            ask(&(table(&collection.url).replace("TABLE d STORED", "TABLE d (kind VARCHAR) STORED") + "EXPLAIN SELECT kind FROM d"), &more);
        let plan = plan.iter().map(ToString::to_string).collect::<String>();
        assert!(plan.contains("DocumentScanExec") && !plan.contains("DataSourceExec: partitions=1,"), "one part only: {plan}");
        assert_eq!(
            ask(
                &(sql.split_once(';').unwrap().0.replace("TABLE d STORED", "TABLE d (n BIGINT) STORED") + "; SELECT n FROM d LIMIT 3"),
                &more
            )
            .len(),
            3
        );
    }
}

#[test]
fn a_table_without_columns_takes_those_of_a_sample_and_an_empty_one_says_so() {
    let collection = Mongo::shared().collection();
    let missing = Baler::new(["sql", "-c", &(table(&collection.url) + "SELECT * FROM d")]).run();
    missing.expect_one_line(2, &["nothing is stored", "declare"]);
    collection.insert(doc! { "_id": "a", "n": 1, "inner": { "x": 2.5 }, "list": ["p", "q"] });
    collection.insert(doc! { "_id": "b", "n": 3_000_000_000_i64 });
    let rows = ask(&(table(&collection.url) + "SELECT _id, n, d.inner['x'] AS x, list[1] AS first FROM d ORDER BY _id"), &[]);
    assert_eq!(rows[0], serde_json::json!({"_id": "a", "n": 1, "x": 2.5, "first": "p"}));
    assert_eq!((rows[1]["n"].as_i64(), rows.len()), (Some(3_000_000_000), 2));
}

#[test]
fn a_dump_is_read_by_the_same_sql() {
    let job = Job::new();
    let bytes = lines(92, 3 << 20, "\n");
    let records = bytes.iter().filter(|byte| **byte == b'\n').count();
    job.add_file("a.jsonl", &bytes);
    job.run();
    let sql = format!(
        "CREATE EXTERNAL TABLE d STORED AS BSON LOCATION '{}';
         SELECT sum(records) AS records, sum(octet_length(zlib_decompress(data))) AS bytes FROM d",
        job.scratch.join("dump").display()
    );
    assert_eq!(ask(&sql, &[]), [serde_json::json!({"records": records, "bytes": bytes.len()})]);
}

#[test]
fn an_object_is_read_back_and_all_are_checked_by_plain_sql() {
    let fleet = Fleet::start(2, &[]);
    let mut job = Job::new().into_collection(Mongo::shared().collection());
    job.source_options = vec![("blob.chunk_size", "16KiB")];
    let bytes = lines(93, 400_000, "\n");
    let object = job.add_file("it's a.jsonl", &bytes);
    job.add_file("b.jsonl", &lines(94, 100_000, "\n"));
    job.run();
    let url = url_of(&job);
    let check = |scheduler| {
        let rows = ask_file("verification.sql", &[("INPUT", &url)], scheduler);
        let of = |name: &str| rows.iter().map(|row| row[name].as_i64().unwrap()).collect::<Vec<_>>();
        [of("gaps"), of("overlaps"), of("damaged")]
    };
    let modes = || [None, Some(fleet.url())];
    for scheduler in modes() {
        let rows = ask_file("restore.sql", &[("INPUT", &url), ("OBJECT", &object)], scheduler.clone());
        assert!(rows.len() > 20);
        let digits: String = rows.iter().map(|row| row["content"].as_str().unwrap()).collect();
        let content: Vec<u8> = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
        assert!(content == bytes, "{} bytes came back, not {}", content.len(), bytes.len());
        assert_eq!(check(scheduler), [[0, 0], [0, 0], [0, 0]]);
    }
    let Sink::Mongo(collection) = &job.sink else { panic!("the documents are in a collection") };
    let mut documents = job.sink.read().documents;
    documents.retain(|document| document.get_str("object").unwrap() == object);
    documents.sort_by_key(|document| document.get_i64("byte_offset").unwrap());
    collection.delete_one(doc! { "_id": documents[3].get("_id").unwrap() });
    collection.update_one(doc! { "_id": documents[6].get("_id").unwrap() }, doc! { "$set": { "data": documents[7].get("data").unwrap() } });
    documents[9].insert("_id", "a copy");
    collection.insert(documents[9].clone());
    for scheduler in modes() {
        // In order of names: b.jsonl comes first.
        assert_eq!(check(scheduler), [[0, 1], [0, 1], [0, 1]]);
    }
}
