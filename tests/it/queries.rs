//! SQL on a fleet: whatever one process answers, a fleet answers too.
//!
//! | module | holds |
//! | --- | --- |
//! | `tpch` | the 22 queries of TPC-H |
//! | `tables` | compressed CSV and JSON tables |
//! | `session` | functions and options in both modes, EXPLAIN |
//! | `inserts` | INSERT of joins, aggregates and sorts, also when an executor is killed |
//!
//! The other side of each comparison is the same binary without a fleet: a DataFusion session without Ballista.

mod inserts;
mod session;
mod tables;
mod tpch;

use baler_tests::baler::Baler;
use baler_tests::fleet::Fleet;
use serde_json::Value;

/// `baler sql`, on a fleet or in one process.
fn sql(fleet: Option<&Fleet>, text: &str, format: &str) -> Baler {
    let mut arguments = vec!["sql".to_string(), format!("--command={text}"), format!("--format={format}")];
    arguments.extend(fleet.into_iter().flat_map(|fleet| ["--scheduler".to_string(), fleet.url()]));
    Baler::new(arguments)
}

/// The rows which each of `queries` answers after `setup`.
#[track_caller]
fn answers(fleet: Option<&Fleet>, setup: &str, queries: &[String]) -> Vec<Vec<Value>> {
    const MARK: &str = "number of the test's query";
    let marked = queries.iter().enumerate().map(|(number, query)| format!("SELECT {number} AS \"{MARK}\";\n{query};\n"));
    let text = format!("{setup}\n{}", marked.collect::<String>());
    let lines = sql(fleet, &text, "json").run().expect_code(0).stdout;
    let mut answers: Vec<Vec<Value>> = Vec::new();
    for line in lines.lines() {
        let row: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON ({e}): {line}"));
        if row.get(MARK).is_some() {
            answers.push(Vec::new());
        } else {
            answers.last_mut().unwrap().push(row);
        }
    }
    assert_eq!(answers.len(), queries.len(), "{lines}");
    answers
}

/// Asserts that each query has the same rows on the fleet and in this process, in any order, and at least one; returns them.
#[track_caller]
fn expect_same_answers(fleet: &Fleet, setup: &str, queries: &[String]) -> Vec<Vec<Value>> {
    let (here, there) = (answers(None, setup, queries), answers(Some(fleet), setup, queries));
    for ((query, here), there) in queries.iter().zip(&here).zip(&there) {
        assert!(!here.is_empty(), "nothing is compared, for there is no row: {query}");
        expect_same_rows(query, here, there);
    }
    here
}

#[track_caller]
fn expect_same_rows(query: &str, left: &[Value], right: &[Value]) {
    let (left, right) = (sorted(left), sorted(right));
    let is_same = left.len() == right.len() && left.iter().zip(&right).all(|(left, right)| is_same(left, right));
    assert!(is_same, "{query}\nanswers\n{left:#?}\nand\n{right:#?}");
}

/// Rows in an order which does not depend on the last digits of a sum of floats.
fn sorted(rows: &[Value]) -> Vec<&Value> {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|row| {
        let text = |value: &Value| value.as_f64().map_or_else(|| value.to_string(), |number| format!("{number:.4e}"));
        row.as_object().unwrap().iter().map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>()
    });
    rows
}

/// Equal, or numbers that differ by the order in which floats were added.
fn is_same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len() && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| is_same(value, other)))
        }
        (Value::Number(left), Value::Number(right)) if left.is_f64() && right.is_f64() => {
            let (left, right) = (left.as_f64().unwrap(), right.as_f64().unwrap());
            (left - right).abs() <= 1e-9 * left.abs().max(right.abs())
        }
        (left, right) => left == right,
    }
}
