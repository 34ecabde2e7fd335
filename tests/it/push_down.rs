//! Filters and aggregates of a query on a collection which the server evaluates: fewer documents come, and the rows are the same.

use baler_tests::baler::Baler;
use baler_tests::fleet::Fleet;
use baler_tests::mongo::Mongo;
use baler_tests::proxy::{Fault, Protocol, Proxy};
use bson::{Bson, DateTime, Document, doc, oid::ObjectId};
use serde_json::Value;

/// Rows of a query, sorted.
fn ask(sql: &str, more: &[&str]) -> Vec<String> {
    let shown = Baler::new(["sql", "--format", "json", "-c", sql].iter().chain(more)).run().expect_code(0).stdout;
    let mut rows: Vec<String> = shown.lines().map(str::to_string).collect();
    rows.sort();
    rows
}

/// Documents with all that has its own place in one of both orders of values: NULL, missing, undefined, NaN, both zeros, widths of integers,
/// ObjectIds.
fn documents() -> Vec<Document> {
    let integers = [Some(Bson::Int32(-5)), Some(Bson::Int64(-5)), Some(Bson::Int32(0)), Some(Bson::Int64(1 << 40)), Some(Bson::Null), None];
    let doubles = [-1.5, -0.0, 0.0, 2.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(Bson::Double);
    let doubles: Vec<_> = doubles.into_iter().chain([Bson::Int32(2), Bson::Null]).map(Some).chain([None]).collect();
    let id = Bson::ObjectId(ObjectId::parse_str("65f000000000000000000001").unwrap());
    let texts =
        [Some("".into()), Some("a".into()), Some("Ab".into()), Some("b".into()), Some("ä".into()), Some(id), Some(Bson::Null), None];
    let times = [
        Some(Bson::DateTime(DateTime::from_millis(0))),
        Some(Bson::DateTime(DateTime::from_millis(1_767_225_600_000))),
        Some(Bson::Null),
        None,
    ];
    let flags = [Some(true.into()), Some(false.into()), Some(Bson::Null), None];
    let inner = |n: usize| match n % 4 {
        0 => Some(Bson::Document(doc! { "x": n as i64, "y": { "z": format!("z{}", n % 3) } })),
        1 => Some(Bson::Document(doc! { "x": Bson::Null })),
        2 => Some(Bson::Null),
        _ => None,
    };
    let make = |n: usize| {
        let mut document = doc! { "_id": format!("{n:04}"), "number": n as i64, "list": [n as i64, 7_i64] };
        let fields = [
            ("n", integers[n % integers.len()].clone()),
            ("ratio", doubles[n / 3 % doubles.len()].clone()),
            ("text", texts[n % texts.len()].clone()),
            ("time", times[n / 2 % times.len()].clone()),
            ("flag", flags[n / 5 % flags.len()].clone()),
            ("inner", inner(n)),
        ];
        document.extend(fields.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))));
        document
    };
    (0..2_500).map(make).collect()
}

const COLUMNS: &str = "(_id VARCHAR, number BIGINT, n BIGINT, ratio DOUBLE, text VARCHAR, time TIMESTAMP(3), flag BOOLEAN,
    inner STRUCT<x BIGINT, y STRUCT<z VARCHAR>>, list BIGINT[])";

/// Filters of which the server evaluates all, or a part.
const UNDERSTOOD: &[&str] = &[
    "n = -5",
    "n <> -5",
    "n < 0",
    "n <= 0",
    "0 < n",
    "n >= 0",
    "n IN (-5, 1099511627776)",
    "n BETWEEN -5 AND 0",
    "n IS NULL",
    "n IS NOT NULL",
    "ratio = 0.0",
    "ratio < 0.0",
    "ratio <= 0.0",
    "ratio > 0.0",
    "ratio >= 2.0",
    "ratio <> 2.5",
    "ratio IS NULL",
    "text = 'a'",
    "text <> 'a'",
    "text > 'A' AND text < 'b'",
    "text >= '65f000000000000000000000'",
    "text IN ('', 'ä', '65f000000000000000000001')",
    "text IS NULL",
    "text IS NOT NULL",
    "time = TIMESTAMP '2026-01-01T00:00:00'",
    "time > TIMESTAMP '1970-01-01T00:00:00'",
    "flag",
    "flag = false",
    "flag IS NULL",
    "d.inner['x'] > 100",
    "d.inner['x'] IS NULL",
    "d.inner['x'] IS NOT NULL",
    "d.inner['y']['z'] = 'z1'",
    "n = -5 OR text = 'b'",
    "n = -5 AND length(text) = 1",
    "number >= 1000 AND number < 1003",
    "_id = '0042'",
    "_id > '2000' AND n IS NOT NULL",
];

/// Filters of which it evaluates nothing.
const LEFT: &[&str] =
    &["length(text) = 1", "n = -5 OR length(text) = 1", "ratio <> 0.0", "NOT (n IN (-5, 0, 1, 2, 3))", "list[1] > 100", "n + 1 > 0"];

#[test]
fn a_filter_which_the_server_evaluates_gives_the_rows_of_one_which_it_does_not() {
    let collection = Mongo::shared().collection();
    collection.insert_all(&documents());
    let fleet = Fleet::start(1, &[]);
    let table = format!("CREATE EXTERNAL TABLE d {COLUMNS} STORED AS MONGODB LOCATION '{}'; ", collection.url);
    let all: Vec<&&str> = UNDERSTOOD.iter().chain(LEFT).collect();
    let each = |from: &str| {
        let queries = all.iter().enumerate().map(|(at, filter)| format!("SELECT {at} AS q, _id FROM {from} WHERE {filter}"));
        table.clone() + &queries.collect::<Vec<_>>().join(" UNION ALL ")
    };
    // Nothing is pushed below a LIMIT.
    let expected = ask(&each("(SELECT * FROM d LIMIT 100000) AS d"), &[]);
    let url = fleet.url();
    for more in [&[][..], &["--scheduler", &url]] {
        let found = ask(&each("d"), more);
        for (at, filter) in all.iter().enumerate() {
            let of = |rows: &[String]| rows.iter().filter(|row| row.contains(&format!("\"q\":{at},"))).cloned().collect::<Vec<_>>();
            let (found, expected) = (of(&found), of(&expected));
            assert!(found == expected, "{filter}: {} rows, not {}", found.len(), expected.len());
            assert!(!expected.is_empty() && expected.len() < 2_500, "{filter} tells nothing: {} rows", expected.len());
        }
    }
    for (filters, is_pushed) in [(UNDERSTOOD, true), (LEFT, false)] {
        for filter in filters {
            let plan = ask(&format!("{table}EXPLAIN SELECT _id FROM d WHERE {filter}"), &[]).concat();
            assert_eq!(plan.contains("predicate="), is_pushed, "{filter}: {plan}");
        }
    }
}

#[test]
fn only_what_a_filter_lets_through_comes_from_the_server() {
    let collection = Mongo::shared().collection();
    collection.insert_all(&documents());
    let table = format!("CREATE EXTERNAL TABLE d {COLUMNS} STORED AS MONGODB LOCATION '{}'; ", collection.url);
    for (filter, rows) in
        [("number >= 1000 AND number < 1003", 3), ("_id = '0042'", 1), ("d.inner['x'] = 400", 1), ("number IN (5, 6, 7, 8)", 4)]
    {
        let plan = ask(&format!("{table}EXPLAIN ANALYZE SELECT _id, list FROM d WHERE {filter}"), &[]);
        let plan: String =
            plan.iter().filter_map(|row| serde_json::from_str::<Value>(row).ok()).map(|row| row["plan"].to_string()).collect();
        let (_, scan) = plan.split_once("DocumentScanExec").unwrap_or_else(|| panic!("no scan: {plan}"));
        assert!(scan.contains(&format!("output_rows={rows},")) || scan.contains(&format!("output_rows={rows}]")), "{filter}: {scan}");
    }
    assert_eq!(ask(&format!("{table}SELECT count(*) AS c FROM d WHERE number < 10"), &[]), [r#"{"c":10}"#]);
}

/// What a server does about a query with aggregates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Help {
    /// It answers for all parts.
    Answers,
    /// It is asked, and says that its answer does not hold; the documents are read.
    IsAsked,
    /// It is not asked.
    No,
}

/// Selected columns, what follows the table, and what the server does.
const FIGURES: &[(&str, &str, Help)] = &[
    ("count(*)", "", Help::Answers),
    ("count(*) + 1", "WHERE number < 0", Help::Answers),
    ("count(*)", "WHERE n = -5 OR flag", Help::Answers),
    ("count(*)", "WHERE n <> -5", Help::Answers),
    ("count(*)", "WHERE n IS NULL AND time IS NOT NULL", Help::Answers),
    ("count(*)", "WHERE n IN (0, -5)", Help::Answers),
    ("count(*)", "WHERE time > TIMESTAMP '1970-01-01T00:00:00'", Help::Answers),
    ("count(*)", "WHERE d.inner['x'] > 100", Help::Answers),
    ("count(*)", "WHERE d.inner['y']['z'] = 'z1'", Help::Answers),
    ("count(n), min(n), max(n), sum(n), avg(n)", "", Help::Answers),
    ("min(n), max(n), count(n), sum(n), avg(n)", "WHERE number < 0", Help::Answers),
    ("sum(number), avg(number), count(ratio)", "WHERE number > 3", Help::Answers),
    ("min(time), max(time), min(flag), max(flag), count(text)", "", Help::Answers),
    ("min(_id), max(_id)", "WHERE _id > '0042'", Help::Answers),
    // Some texts are ObjectIds there.
    ("count(*)", "WHERE text > 'a'", Help::IsAsked),
    ("min(text), max(text)", "", Help::IsAsked),
    // The sum would be a double in between.
    ("sum(big)", "", Help::IsAsked),
    ("min(ratio), max(ratio)", "", Help::No),
    ("avg(ratio)", "", Help::No),
    ("count(*)", "WHERE ratio > 1.0", Help::No),
    ("count(*)", "WHERE length(text) = 1", Help::No),
    ("count(*)", "WHERE n = -5 AND length(text) = 1", Help::No),
    ("count(DISTINCT n)", "", Help::No),
    ("count(*) FILTER (WHERE number > 3)", "", Help::No),
    ("count(*)", "WHERE random() >= 0.0", Help::No),
];

#[test]
fn figures_which_the_server_computes_are_those_of_the_rows() {
    let collection = Mongo::shared().collection();
    let mut documents = documents();
    documents.iter_mut().enumerate().for_each(|(at, document)| drop(document.insert("big", (1_i64 << 50) + at as i64)));
    collection.insert_all(&documents);
    let fleet = Fleet::start(1, &[]);
    let columns = COLUMNS.replace("number BIGINT", "number BIGINT, big BIGINT");
    let table = format!("CREATE EXTERNAL TABLE d {columns} STORED AS MONGODB LOCATION '{}'; ", collection.url);
    let url = fleet.url();
    let each = |begin: &str, from: &str| {
        let queries = FIGURES.iter().map(|(figures, filter, _)| format!("{begin}SELECT {figures} FROM {from} {filter}; "));
        table.clone() + &queries.collect::<String>()
    };
    // Each query has one row.
    let rows = |sql: &str, more: &[&str]| {
        let shown = Baler::new(["sql", "--format", "json", "-c", sql].iter().chain(more)).run().expect_code(0).stdout;
        let rows: Vec<String> = shown.lines().map(str::to_string).collect();
        assert_eq!(rows.len(), FIGURES.len(), "{shown}");
        rows
    };
    // Nothing is pushed below a LIMIT.
    let expected = rows(&each("", "(SELECT * FROM d LIMIT 100000) AS d"), &[]);
    let (here, there) = (rows(&each("", "d"), &[]), rows(&each("", "d"), &["--scheduler", &url]));
    let plans = rows(&each("EXPLAIN ANALYZE ", "d"), &[]);
    for (at, (figures, filter, help)) in FIGURES.iter().enumerate() {
        assert_eq!((&here[at], &there[at]), (&expected[at], &expected[at]), "{figures} {filter}");
        let plan = serde_json::from_str::<Value>(&plans[at]).unwrap()["plan"].to_string();
        let found = match plan.split_once("DocumentAggregateExec") {
            Some((_, asked)) => {
                let (asked, scan) = asked.split_once("DocumentScanExec").unwrap_or_else(|| panic!("no scan: {plan}"));
                let scan = scan.split("\\n").next().unwrap();
                let reads = scan.contains("output_rows=") && !scan.contains("output_rows=0,") && !scan.contains("output_rows=0]");
                let answers = asked.contains("answered_by_server=") && !asked.contains("answered_by_server=0");
                assert!(reads || answers, "{figures} {filter}: {plan}");
                // Where one part is answered and another is not, documents are read.
                if reads { Help::IsAsked } else { Help::Answers }
            }
            None => Help::No,
        };
        assert_eq!(found, *help, "{figures} {filter}: {plan}");
    }
}

#[test]
fn a_value_of_another_type_is_found_whether_the_server_is_asked_or_not() {
    let collection = Mongo::shared().collection();
    collection.insert_all(&[doc! { "_id": "1", "n": 1_i64 }, doc! { "_id": "2", "n": "two" }]);
    let table = format!("CREATE EXTERNAL TABLE d (_id VARCHAR, n BIGINT) STORED AS MONGODB LOCATION '{}'; ", collection.url);
    for query in ["SELECT count(n) FROM d", "SELECT max(n) FROM d", "SELECT sum(n) FROM d"] {
        let refused = Baler::new(["sql", "-c", &format!("{table}{query}")]).run();
        refused.expect_last_line(1, &["field `n` holds"]);
    }
    // What is not looked at is nobody's fault.
    assert_eq!(ask(&format!("{table}SELECT count(*) AS c FROM d"), &[]), [r#"{"c":2}"#]);
}

#[test]
fn a_count_on_a_fleet_and_in_one_process_brings_no_documents() {
    let mongo = Mongo::shared();
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let collection = mongo.collection_at(proxy.port);
    collection.insert_all(&documents());
    let fleet = Fleet::start(1, &[]);
    let table = format!("CREATE EXTERNAL TABLE d {COLUMNS} STORED AS MONGODB LOCATION '{}'; ", collection.url);
    let url = fleet.url();
    for more in [&[][..], &["--scheduler", &url]] {
        // Answers are some hundred bytes, documents more than this.
        proxy.arm(Fault::CutReplies { bytes: 40 << 10, times: 1 });
        let before = proxy.fired();
        let found = ask(&format!("{table}SELECT count(*) AS c, max(number) AS m FROM d WHERE n IS NOT NULL"), more);
        assert_eq!((found.concat().as_str(), proxy.fired()), (r#"{"c":1668,"m":2499}"#, before));
        Baler::new(["sql", "-c", &format!("{table}SELECT avg(ratio), max(text) FROM d")].iter().chain(more)).run();
        assert_eq!(proxy.fired(), before + 1, "reading brings more");
    }
}
