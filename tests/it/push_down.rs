//! Filters of a query on a collection which the server evaluates: fewer documents come, and the rows are the same.

use baler_tests::baler::Baler;
use baler_tests::fleet::Fleet;
use baler_tests::mongo::Mongo;
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
