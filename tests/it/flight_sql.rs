//! SQL from other programs: Python's ADBC driver and Java's JDBC driver on a fleet of processes.

use std::fmt::Write as _;
use std::io::Read;
use std::sync::OnceLock;

use baler_tests::baler::{Baler, Finished, Running};
use baler_tests::dump_reader::{Stored, read_dump};
use baler_tests::fleet::Fleet;
use baler_tests::flight::{Answer, Client, adbc, jdbc};
use baler_tests::mongo::{Collection, Mongo};
use baler_tests::proxy::{Fault, Protocol, Proxy};
use baler_tests::servers::{Scratch, random_name, run_folder};
use baler_tests::wait_until;

/// Rows of table `numbers`: some thousands make several batches.
const NUMBERS: i64 = 20_000;

/// The fleet which the tests share. Its scheduler knows `people` and `numbers` from its start.
fn fleet() -> &'static Fleet {
    static FLEET: OnceLock<Fleet> = OnceLock::new();
    FLEET.get_or_init(|| {
        let folder = run_folder().join("flight-input");
        std::fs::create_dir(&folder).unwrap();
        let mut numbers = "n,word\n".to_string();
        (0..NUMBERS).for_each(|n| writeln!(numbers, "{n},word number {n}").unwrap());
        let mut tables = String::new();
        for (name, content) in [("people", "id,name\n1,alice\n2,bob\n3,carol\n"), ("numbers", &numbers)] {
            let file = folder.join(format!("{name}.csv"));
            std::fs::write(&file, content).unwrap();
            let options = "OPTIONS ('format.has_header' 'true')";
            writeln!(tables, "CREATE EXTERNAL TABLE {name} STORED AS CSV LOCATION '{}' {options};", file.display()).unwrap();
        }
        let file = folder.join("tables.sql");
        std::fs::write(&file, tables).unwrap();
        Fleet::start_with(2, &[], &["--tables", &file.display().to_string(), "--enable-embedded-flight-proxy"])
    })
}

/// Both drivers, each as nobody.
fn drivers() -> [Client; 2] {
    [adbc(fleet().port, "-"), jdbc(fleet().port, "-")]
}

/// Status (`Running`, `Failed: Cancelled` …) of the jobs whose name starts with these words.
fn jobs(name: &str) -> Vec<String> {
    let jobs = fleet().get("/api/jobs").unwrap();
    let named = jobs.as_array().unwrap().iter().filter(|job| job["job_name"].as_str().is_some_and(|text| text.starts_with(name)));
    named.map(|job| job["job_status"].as_str().unwrap().to_string()).collect()
}

/// A name which is a table's and no other test's.
fn random_table() -> String {
    random_name("t").replace('-', "_")
}

fn strings(rows: &[&[&str]]) -> Vec<Vec<String>> {
    rows.iter().map(|row| row.iter().map(|value| (*value).to_string()).collect()).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn inflated(hex: &str) -> String {
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(unhex(hex).as_slice()).read_to_string(&mut text).unwrap();
    text
}

/// `grpc-server-max-encoding-message-size` of the scheduler. With 16777216 for it the answer was refused.
#[test]
fn a_value_of_20_mib_reaches_a_driver() {
    let rows = jdbc(fleet().port, "-").ask("query", "SELECT repeat(name, 4 * 1024 * 1024) AS long FROM people WHERE id = 1").rows();
    assert_eq!(rows[0][0].len(), 20 << 20);
}

#[test]
fn both_drivers_read_every_kind_of_column() {
    let words = "SELECT name, zlib_compress(CAST(name AS BYTEA)) AS z, crc32(CAST(name AS BYTEA)) AS c FROM people ORDER BY id";
    // Strings as views, in a dictionary and in a list: the JDBC driver has no reader for the first two.
    let kinds = "SELECT CAST(name AS VARCHAR) AS v, arrow_cast(name, 'Dictionary(Int32, Utf8)') AS d, \
                 arrow_cast(name, 'Utf8View') AS w, arrow_cast(name, 'BinaryView') AS b, [name] AS l, \
                 CASE WHEN id = 2 THEN NULL ELSE id END AS n FROM people ORDER BY id";
    let nothing = "SELECT name, id FROM people WHERE id > 99";
    for driver in drivers() {
        let answers = driver.run(&[("query", words), ("query", kinds), ("query", nothing)]);
        let rows = answers[0].rows();
        assert_eq!(rows.iter().map(|row| inflated(&row[1])).collect::<Vec<_>>(), ["alice", "bob", "carol"]);
        assert_eq!(rows.iter().map(|row| &row[0]).collect::<Vec<_>>(), ["alice", "bob", "carol"]);
        let mut crc = flate2::Crc::new();
        crc.update(b"alice");
        assert_eq!(rows[0][2], crc.sum().to_string());
        let rows = answers[1].rows();
        assert_eq!(rows[1][..4], ["bob", "bob", "bob", "626f62"]);
        assert!(rows[1][4].contains("bob") && rows[1][5] == "null" && rows[2][5] == "3", "{rows:?}");
        assert!(answers[2].rows().is_empty());
    }
}

#[test]
fn large_results_come_whole_and_in_order() {
    let ordered = "SELECT n, word FROM numbers ORDER BY n DESC";
    let grouped = "SELECT n % 1000 AS k, count(*) AS c FROM numbers GROUP BY n % 1000";
    for driver in drivers() {
        let answers = driver.run(&[("query", ordered), ("query", grouped)]);
        let rows = answers[0].rows();
        assert_eq!(rows.len() as i64, NUMBERS);
        for (row, n) in rows.iter().zip((0..NUMBERS).rev()) {
            assert_eq!(row, &[n.to_string(), format!("word number {n}")]);
        }
        let rows = answers[1].rows();
        assert!(rows.len() == 1000 && rows.iter().all(|row| row[1] == "20"), "{} groups", rows.len());
    }
}

#[test]
fn the_catalog_is_what_the_session_sees() {
    for driver in drivers() {
        let (view, schema) = (random_table(), random_table());
        let answers = driver.run(&[
            ("update", &format!("CREATE VIEW {view} AS SELECT id FROM people WHERE id < 3")),
            ("update", &format!("CREATE SCHEMA {schema}")),
            ("query", &format!("SELECT count(*) FROM {view}")),
            ("tables", "numbers"),
            ("tables", &view),
            ("query", "SHOW TABLES"),
            ("query", "DESCRIBE people"),
            ("update", "SET datafusion.execution.batch_size = 321"),
            ("query", "SHOW datafusion.execution.batch_size"),
            ("query", "SELECT count(*) FROM information_schema.schemata"),
            ("update", "SET datafusion.execution.batch_size = 8192"),
            ("update", &format!("DROP VIEW {view}")),
            ("tables", &view),
        ]);
        assert_eq!(answers[2].rows(), strings(&[&["2"]]));
        let has = |answer: &Answer, word: &str| answer.rows().iter().flatten().any(|value| value == word);
        assert!(has(&answers[3], "numbers") && has(&answers[3], "TABLE"));
        assert!(has(&answers[4], &view) && has(&answers[4], "VIEW"));
        assert!(has(&answers[5], "people") && has(&answers[5], &view));
        assert_eq!(answers[6].rows()[1][0], "name");
        assert!(has(&answers[8], "321"));
        assert!(answers[12].rows().is_empty());
    }
}

#[test]
fn explain_shows_the_stages_and_what_their_operators_did() {
    let query = "SELECT word, count(*) FROM numbers GROUP BY word";
    for driver in drivers() {
        let answers = driver.run(&[("query", &format!("EXPLAIN {query}")), ("query", &format!("EXPLAIN ANALYZE {query}"))]);
        let planned = answers[0].rows().concat().join(" ");
        assert!(planned.contains("logical_plan") && planned.contains("distributed_plan") && planned.contains("stage_id=2"), "{planned}");
        let measured = answers[1].rows().concat().join(" ");
        assert!(measured.contains("stage 2") && measured.contains("ShuffleReaderExec"), "{measured}");
        assert!(measured.matches("output_rows=20.00 K").count() > 2, "each stage saw all rows: {measured}");
    }
}

/// The ways in which a program may run an INSERT, with how it learns the count.
fn count_of(answer: &Answer, way: &str) -> i64 {
    if matches!(way, "query" | "direct") { answer.rows()[0][0].parse().unwrap() } else { answer.count() }
}

fn insert_ways() -> [(Client, &'static [&'static str]); 2] {
    let [adbc, jdbc] = drivers();
    [(adbc, &["query", "direct", "update", "prepared-update"]), (jdbc, &["execute", "update", "prepared-update"])]
}

#[test]
fn an_insert_into_a_collection_says_how_many_documents_it_wrote() {
    let mongo = Mongo::shared();
    for (driver, ways) in insert_ways() {
        let (table, collection) = (random_table(), mongo.collection());
        // No columns are declared: the sink takes those of the query.
        let mut statements = vec![("update", format!("CREATE EXTERNAL TABLE {table} STORED AS MONGODB LOCATION '{}'", collection.url))];
        for (number, way) in ways.iter().enumerate() {
            let first = number as i64 * NUMBERS;
            statements.push((way, format!("INSERT INTO {table} SELECT n + {first} AS _id, word FROM numbers WHERE n < 5000")));
        }
        let statements: Vec<_> = statements.iter().map(|(way, sql)| (*way, sql.as_str())).collect();
        let answers = driver.run(&statements);
        for (way, answer) in ways.iter().zip(&answers[1..]) {
            assert_eq!(count_of(answer, way), 5000, "{way}");
        }
        assert_eq!(collection.count(), 5000 * ways.len() as u64);
        let documents = collection.read();
        let one = documents.iter().find(|document| document.get_i64("_id") == Ok(NUMBERS + 17)).unwrap();
        assert_eq!(one.get_str("word").unwrap(), "word number 17");
    }
}

#[test]
fn an_insert_into_a_folder_says_how_many_documents_it_wrote() {
    for (driver, ways) in insert_ways() {
        let (scratch, table) = (Scratch::new(), random_table());
        let create = format!(
            "CREATE EXTERNAL TABLE {table} (_id BIGINT, word VARCHAR) STORED AS BSON LOCATION 'file://{}/'",
            scratch.path().display()
        );
        let mut statements = vec![("update", create)];
        for (number, way) in ways.iter().enumerate() {
            let first = number as i64 * NUMBERS;
            statements.push((way, format!("INSERT INTO {table} SELECT n + {first}, word FROM numbers WHERE n < 700")));
        }
        let statements: Vec<_> = statements.iter().map(|(way, sql)| (*way, sql.as_str())).collect();
        let answers = driver.run(&statements);
        for (way, answer) in ways.iter().zip(&answers[1..]) {
            assert_eq!(count_of(answer, way), 700, "{way}");
        }
        assert_eq!(read_dump(scratch.path()).documents.len(), 700 * ways.len());
    }
}

#[test]
fn objects_compressed_by_a_client_come_back_byte_for_byte() {
    let scratch = Scratch::new();
    let mongo = Mongo::shared();
    let mut expected = std::collections::BTreeMap::new();
    for number in 0..5 {
        let bytes = baler_tests::corpus::lines(number, 3 << 20, "\n");
        let file = scratch.join(&format!("part-{number}.jsonl"));
        std::fs::write(&file, &bytes).unwrap();
        expected.insert(format!("file://{}", file.display()), bytes);
    }
    for driver in drivers() {
        let (source, sink, collection) = (random_table(), random_table(), mongo.collection());
        let compress = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/compress-to-mongodb.sql")).unwrap();
        let query = &compress[compress.find("SELECT").unwrap()..compress.rfind(';').unwrap()];
        let query = query.replace("objects", &source);
        let answers = driver.run(&[
            ("update", &format!("CREATE EXTERNAL TABLE {source} STORED AS BLOB LOCATION 'file://{}/'", scratch.path().display())),
            ("update", &format!("CREATE EXTERNAL TABLE {sink} STORED AS MONGODB LOCATION '{}'", collection.url)),
            ("update", &format!("INSERT INTO {sink} {query}")),
        ]);
        assert_eq!(answers[2].count() as u64, collection.count());
        let stored = Stored::new(collection.read()).objects();
        assert!(stored == expected, "{:?} came back otherwise", stored.keys());
    }
}

#[test]
fn results_for_a_client_of_ballista_still_come_through_the_scheduler() {
    let call = ["sql", "--scheduler", &fleet().url(), "--format", "csv", "--command", "SELECT name FROM people ORDER BY id DESC"];
    let shown = Baler::new(call).run().expect_code(0).stdout;
    assert_eq!(shown.lines().skip(1).collect::<Vec<_>>(), ["carol", "bob", "alice"]);
}

#[test]
fn mistakes_are_told_in_one_line() {
    let refusing = Mongo::shared().collection();
    refusing.insert(bson::doc! { "_id": 1_i64, "name": "somebody else" });
    for driver in drivers() {
        let table = random_table();
        let answers = driver.run(&[
            ("query", "SELECT * FROM nowhere"),
            ("query", "SELEC 1"),
            ("query", "SELECT 1; SELECT 2"),
            ("query", "COPY people TO 'people.csv'"),
            ("query", "CREATE TABLE copied AS SELECT * FROM people"),
            ("query", "SELECT CAST(name AS INT) FROM people"),
            ("query", "SELECT 10 / (id - 1) FROM people"),
            ("query", &format!("CREATE EXTERNAL TABLE {table} STORED AS MONGODB LOCATION '{}'", refusing.url)),
            ("query", &format!("INSERT INTO {table} SELECT id, name FROM people")),
            ("query", &format!("INSERT INTO {table} SELECT id AS _id, name FROM people")),
            ("query", "SELECT count(*) FROM people"),
        ]);
        let expected = [
            "nowhere' not found",
            "SELEC",
            "2 statements in the request; send them one by one",
            "COPY is not supported here; make a target with CREATE EXTERNAL TABLE",
            "use CREATE VIEW",
            "a task failed: Cannot cast string 'alice'",
            "a task failed: DivideByZero",
        ];
        for (answer, words) in answers.iter().zip(expected) {
            assert!(answer.error().contains(words), "{}", answer.error());
        }
        assert!(answers[8].error().contains("has no column `_id`"), "{}", answers[8].error());
        assert!(answers[9].error().contains(&refusing.database), "{}", answers[9].error());
        assert_eq!(answers[10].rows(), strings(&[&["3"]]), "the session goes on after errors");
    }
}

#[test]
fn who_logs_in_has_a_session_of_their_own() {
    let (port, table) = (fleet().port, random_table());
    let view = format!("CREATE VIEW {table} AS SELECT 42 AS answer");
    let question = format!("SELECT answer FROM {table}");
    for (driver, other) in [(adbc(port, "ann"), jdbc(port, "bob")), (jdbc(port, "bob"), adbc(port, "ann"))] {
        let answers = driver.run(&[("update", &view), ("query", &question), ("query", "SELECT count(*) FROM people")]);
        assert_eq!(answers[1].rows(), strings(&[&["42"]]));
        assert_eq!(answers[2].rows(), strings(&[&["3"]]), "the scheduler's tables are there for everybody");
        assert!(other.ask("query", &question).error().contains("not found"));
        assert!(driver.ask("query", &question).error().contains("not found"), "a connection is a session");
    }
}

/// A client whose INSERT hangs in its first write; then it leaves.
fn leaves(driver: &Client, way: &str, leave: impl FnOnce(Running) -> Finished) -> Finished {
    let (mongo, table) = (Mongo::shared(), random_table());
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let collection: Collection<'_> = mongo.collection_at(proxy.port);
    proxy.arm(Fault::Stall { writes: 0 });
    let create = format!("CREATE EXTERNAL TABLE {table} STORED AS MONGODB LOCATION '{}'", collection.url);
    let insert = format!("INSERT INTO {table} SELECT n AS _id, word FROM numbers");
    let mut running = driver.start(&[("update", &create), (way, &insert)]);
    assert!(running.runs_until("a write hangs", || proxy.fired() > 0), "the client ended before its write");
    let name = format!("INSERT INTO {table} SELECT n AS _id");
    let running_jobs = jobs(&name);
    assert!(running_jobs.len() == 1 && running_jobs[0].starts_with("Running"), "{running_jobs:?}");
    let finished = leave(running);
    wait_until("the job of a client that left is cancelled", || jobs(&name).iter().all(|status| status.contains("Cancelled")));
    assert_eq!(jobs(&name).len(), 1, "it was not started again");
    // What still hangs may end.
    proxy.arm(Fault::None);
    finished
}

#[test]
fn a_statement_which_is_cancelled_takes_its_job_along() {
    let finished = leaves(&adbc(fleet().port, "-"), "query", Running::terminate).expect_code(0);
    let answer = Answer::read(finished.stdout.lines().last().unwrap());
    assert!(answer.error().to_lowercase().contains("cancel"), "{}", answer.error());
}

#[test]
fn a_client_which_dies_takes_its_job_along() {
    for driver in drivers() {
        leaves(&driver, "update", Running::kill);
    }
    assert_eq!(adbc(fleet().port, "-").ask("query", "SELECT count(*) FROM numbers").rows(), strings(&[&["20000"]]));
}
