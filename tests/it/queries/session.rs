//! Functions and options reach the tasks of a fleet as they reach one process, and EXPLAIN tells about both.

use std::fs;

use baler_tests::fleet::Fleet;
use baler_tests::servers::Scratch;

use super::{answers, expect_same_answers, sql};

/// A table `texts (id, text)` of two files with empty, missing, long and non-ASCII texts.
fn texts(scratch: &Scratch) -> String {
    let folder = scratch.join("texts");
    fs::create_dir(&folder).unwrap();
    let line = |id: usize, text: &str| format!("{}\n", serde_json::json!({ "id": id, "text": text }));
    let long = "a line which comes again and again, ".repeat(2000);
    let first = line(1, "") + &line(2, "one") + "{\"id\": 3, \"text\": null}\n" + &line(4, "Grüße, 世界") + &line(5, &long);
    let second: String = (6..300).map(|id| line(id, &format!("text {id} {}", "x".repeat(id)))).collect();
    fs::write(folder.join("1.json"), first).unwrap();
    fs::write(folder.join("2.json"), second).unwrap();
    format!("CREATE EXTERNAL TABLE texts (id BIGINT, text VARCHAR) STORED AS JSON LOCATION '{}/';\n", folder.display())
}

/// The engine's own test over `function::all` holds that these are all of them.
#[test]
fn every_function_answers_on_a_fleet_as_in_one_process_for_every_type_of_text_and_bytes() {
    let (scratch, fleet) = (Scratch::new(), Fleet::start(2, &[]));
    let kinds = ["Utf8", "LargeUtf8", "Utf8View", "Binary", "LargeBinary", "BinaryView"];
    let over = |kind: &str| {
        format!(
            "SELECT id, crc32(x) AS crc, octet_length(x) AS bytes, zlib_compress(x, 9) AS zlib, zlib_compress(x, 6) AS fast,
                    crc32(zlib_decompress(zlib_compress(x, 9))) AS back, try_zlib_decompress(x) AS none,
                    octet_length(try_zlib_decompress(zlib_compress(x, 1))) AS some,
                    compress(x, 'zstd(3)') AS zstd, compress(x, 'gzip(6)') AS gzip, compress(x, 'lz4') AS lz4,
                    crc32(decompress(compress(x, 'zstd'), 'zstd')) AS again,
                    compression_ratio(octet_length(x), octet_length(compress(x, 'zlib(9)'))) AS ratio
             FROM (SELECT id, arrow_cast(CAST(text AS {}), '{kind}') AS x FROM texts)",
            if kind.contains("Utf8") { "VARCHAR" } else { "BYTEA" }
        )
    };
    let grouped =
        "SELECT octet_length(CAST(text AS BYTEA)) % 5 AS rest, count(*), sum(crc32(text)), max(octet_length(zlib_compress(text, 9)))
                   FROM texts WHERE octet_length(CAST(text AS BYTEA)) > 2 GROUP BY rest HAVING max(crc32(text)) > 0";
    let queries: Vec<_> = kinds.iter().map(|kind| over(kind)).chain([grouped.to_string()]).collect();
    let rows = expect_same_answers(&fleet, &texts(&scratch), &queries);
    for (kind, rows) in kinds.iter().zip(&rows) {
        assert_eq!(rows.len(), 299, "{kind}");
        for row in rows.iter().filter(|row| row["id"] != 3) {
            assert!(row["crc"] == row["back"] && row["crc"] == row["again"] && row["bytes"] == row["some"], "{kind}: {row}");
            assert!(row.get("none").is_none(), "{kind}: a text is no zlib stream: {row}");
        }
        let of = |id: u64| rows.iter().find(|row| row["id"] == id).unwrap();
        assert_eq!(of(4)["bytes"], "Grüße, 世界".len(), "{kind}");
        assert_eq!(of(3).as_object().unwrap().len(), 1, "{kind}: a function of NULL is NULL: {}", of(3));
    }
}

/// The figure `name` in the metrics of a node of an EXPLAIN ANALYZE.
#[track_caller]
fn metric(plan: &str, node: &str, name: &str) -> String {
    let line = plan.lines().find(|line| line.contains(&format!(" {node}"))).unwrap_or_else(|| panic!("no {node} in\n{plan}"));
    let (_, metrics) = line.split_once("metrics=[").unwrap_or_else(|| panic!("{node} has no metrics in\n{plan}"));
    let named = format!("{name}=");
    let found = metrics.split([',', ']']).find_map(|metric| metric.trim().strip_prefix(&named));
    found.unwrap_or_else(|| panic!("{node} has no {name}: {line}")).to_string()
}

#[test]
fn options_of_datafusion_and_ballista_are_set_and_shown_alike_and_reach_the_tasks() {
    let (scratch, fleet) = (Scratch::new(), Fleet::start(2, &[]));
    let tables = texts(&scratch);
    for fleet in [None, Some(&fleet)] {
        let set = "SET datafusion.execution.batch_size = 30; SET ballista.shuffle.force_remote_read = true;";
        let shown = ["SHOW datafusion.execution.batch_size", "SHOW ballista.shuffle.force_remote_read"].map(String::from);
        let rows = answers(fleet, &format!("{tables}{set}"), &shown);
        assert_eq!((&rows[0][0]["value"], &rows[1][0]["value"]), (&"30".into(), &"true".into()));
        let analyze = "EXPLAIN ANALYZE SELECT id % 3 AS rest, count(*) FROM texts GROUP BY rest;";
        let plan = |set: &str| sql(fleet, &format!("{tables}{set}{analyze}"), "table").run().expect_code(0).stdout;
        let (before, after) = (plan(""), plan(set));
        // 5 and 294 rows in one batch each; in batches of 30 rows, 1 and 10.
        assert_eq!(metric(&before, "DataSourceExec", "output_batches"), "2", "{before}");
        assert_eq!(metric(&after, "DataSourceExec", "output_batches"), "11", "{after}");
        if fleet.is_some() {
            // 16 partitions are read from both executors: what lies at the reader's own is read from its disk, unless that is forbidden.
            assert_ne!(metric(&before, "ShuffleReaderExec", "local_partitions"), "0", "{before}");
            assert_eq!(metric(&after, "ShuffleReaderExec", "local_partitions"), "0", "{after}");
        }
    }
}

/// An INSERT of chunks in ten splits.
fn insert(scratch: &Scratch, columns: &str) -> String {
    let folder = scratch.join("objects");
    if fs::create_dir(&folder).is_ok() {
        for file in 0..5 {
            fs::write(folder.join(format!("{file}.txt")), "0123456\n".repeat(256)).unwrap();
        }
    }
    format!(
        "CREATE EXTERNAL TABLE objects STORED AS BLOB LOCATION 'file://{}/' OPTIONS ('blob.split_size' '1KiB', 'blob.chunk_size' '512');
         CREATE EXTERNAL TABLE documents {columns} STORED AS BSON LOCATION 'file://{}' OPTIONS ('bson.namespace' 'a.b');
         EXPLAIN ANALYZE INSERT INTO documents
         SELECT id AS _id, zlib_compress(content, 9) AS data FROM objects WHERE byte_offset >= 0;",
        folder.display(),
        scratch.join("dump").display()
    )
}

#[test]
fn explain_shows_our_nodes_with_their_options_on_a_fleet_and_in_one_process() {
    let (scratch, fleet) = (Scratch::new(), Fleet::start(2, &[]));
    for fleet in [None, Some(&fleet)] {
        for columns in ["", "(_id VARCHAR, data BYTEA)"] {
            let text = insert(&scratch, columns).replace("EXPLAIN ANALYZE", "EXPLAIN");
            let plan = sql(fleet, &text, "table").run().expect_code(0).stdout;
            let dump = scratch.join("dump").display().to_string();
            for words in [
                &format!("WriteExec: target=file://{dump}"),
                "(a.b), by_split=true",
                "BlobScanExec: location=file://",
                "split_size=1024, chunk_size=512, boundary=Line, compression=Auto, on_corrupt=Fail",
                "zlib_compress(content@",
            ] {
                assert!(plan.contains(words), "no `{words}` in\n{plan}");
            }
            assert!(fleet.is_none() || plan.contains("distributed_plan"), "{plan}");
            assert!(!scratch.join("dump").exists(), "EXPLAIN wrote");
        }
    }
}

#[test]
fn explain_analyze_shows_the_metrics_of_our_nodes_on_a_fleet_and_in_one_process() {
    let fleet = Fleet::start(2, &[]);
    for fleet in [None, Some(&fleet)] {
        for columns in ["", "(_id VARCHAR, data BYTEA)"] {
            let scratch = Scratch::new();
            let plan = sql(fleet, &insert(&scratch, columns), "table").run().expect_code(0).stdout;
            assert_eq!(metric(&plan, "WriteExec", "documents"), "20", "{plan}");
            assert_eq!(metric(&plan, "WriteExec", "splits"), "10", "{plan}");
            let stored: u64 = files(&scratch).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
            assert_eq!(rounded(&metric(&plan, "WriteExec", "document_bytes")), format!("{:.2}", stored as f64 / 1000.0), "{plan}");
            assert_eq!(rounded(&metric(&plan, "BlobScanExec", "source_bytes")), "10.24", "{plan}");
            assert_eq!(metric(&plan, "BlobScanExec", "output_rows"), "20", "{plan}");
        }
    }
}

fn files(scratch: &Scratch) -> Vec<std::path::PathBuf> {
    let all = baler_tests::job::files(&scratch.join("dump"));
    all.into_iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "bson")).collect()
}

/// Thousands, of a figure as `10.24 K`.
fn rounded(figure: &str) -> String {
    figure.strip_suffix(" K").unwrap_or(figure).to_string()
}
