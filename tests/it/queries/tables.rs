//! Compressed CSV and JSON tables, whose compression Ballista's plan format loses.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use baler_tests::corpus::{Random, bzip2_stream, gzip, xz, zstd_frame};
use baler_tests::fleet::Fleet;
use baler_tests::servers::Scratch;

use super::{answers, expect_same_rows, sql};

/// A compression: the word of the table option, the suffix, the function.
type Compression = (&'static str, &'static str, fn(&[u8]) -> Vec<u8>);

const COMPRESSIONS: [Compression; 4] =
    [("gzip", "gz", gzip), ("bzip2", "bz2", bzip2_stream), ("xz", "xz", xz), ("zstd", "zst", zstd_frame)];

/// Three files of 2,000 rows, as CSV with a header and as JSON lines.
fn rows(file: u64) -> (String, String) {
    let (mut csv, mut json) = ("id,team,score,word\n".to_string(), String::new());
    let mut random = Random::new(file);
    for id in file * 2000..(file + 1) * 2000 {
        let (team, score, word) = (random.below(7), random.below(1_000_000) as f64 / 8.0, random.below(500));
        writeln!(csv, "{id},{team},{score},\"word, {word}\"").unwrap();
        writeln!(json, r#"{{"id": {id}, "team": {team}, "score": {score}, "word": "word, {word}"}}"#).unwrap();
    }
    (csv, json)
}

fn table(folder: &Path, name: &str, format: &str, compression: Option<Compression>) -> String {
    let suffix = compression.map(|(_, suffix, _)| format!(".{suffix}")).unwrap_or_default();
    let folder = folder.join(name);
    fs::create_dir(&folder).unwrap();
    for file in 0..3 {
        let (csv, json) = rows(file);
        let text = if format == "CSV" { csv } else { json };
        let stored = compression.map_or_else(|| text.as_bytes().to_vec(), |(_, _, compress)| compress(text.as_bytes()));
        fs::write(folder.join(format!("{file}.{}{suffix}", format.to_lowercase())), stored).unwrap();
    }
    let header = if format == "CSV" { vec!["'format.has_header' 'true'".to_string()] } else { Vec::new() };
    let option = compression.map(|(word, _, _)| format!("'format.compression' '{word}'"));
    let options: Vec<_> = header.into_iter().chain(option).collect();
    let options = if options.is_empty() { String::new() } else { format!(" OPTIONS ({})", options.join(", ")) };
    format!(
        "CREATE EXTERNAL TABLE {name} (id BIGINT, team BIGINT, score DOUBLE, word VARCHAR) STORED AS {format} LOCATION '{}/'{options};\n",
        folder.display()
    )
}

fn queries(table: &str) -> Vec<String> {
    vec![
        format!("SELECT * FROM {table} ORDER BY score DESC, id LIMIT 40"),
        format!(
            "SELECT team, count(*), sum(score) AS sum, min(word) AS min, max(id) AS max FROM {table} WHERE id % 3 = 1 GROUP BY team ORDER BY team"
        ),
        format!("SELECT a.team, count(*), sum(b.score) AS sum FROM {table} a JOIN {table} b ON a.id = b.id + 1 GROUP BY a.team"),
        format!("SELECT count(*), count(DISTINCT id) AS ids, count(DISTINCT word) AS words FROM {table}"),
    ]
}

#[test]
fn compressed_csv_and_json_tables_answer_on_a_fleet_as_plain_ones_in_one_process() {
    let (scratch, fleet) = (Scratch::new(), Fleet::start(2, &[]));
    let plain = table(scratch.path(), "plain", "CSV", None);
    let expected = answers(None, &plain, &queries("plain"));
    assert_eq!(expected.iter().map(Vec::len).collect::<Vec<_>>(), [40, 7, 7, 1]);

    let (mut tables, mut names) = (String::new(), Vec::new());
    for compression in COMPRESSIONS {
        for format in ["CSV", "JSON"] {
            let name = format!("{}_{}", compression.0, format.to_lowercase());
            tables += &table(scratch.path(), &name, format, Some(compression));
            names.push(name);
        }
    }
    let asked: Vec<_> = names.iter().flat_map(|name| queries(name)).collect();
    let given = answers(Some(&fleet), &tables, &asked);
    for ((query, expected), given) in asked.iter().zip(expected.iter().cycle()).zip(&given) {
        expect_same_rows(query, expected, given);
    }
    let across = "SELECT count(*), sum(a.score + b.score) FROM gzip_csv a JOIN zstd_json b ON a.id = b.id".to_string();
    let here = answers(None, &tables, std::slice::from_ref(&across));
    assert_eq!(here[0][0]["count(*)"], 6000);
    expect_same_rows(&across, &here[0], &answers(Some(&fleet), &tables, std::slice::from_ref(&across))[0]);

    // Each compressed scan stands under its node, and only such a scan.
    for (name, (_, suffix, _)) in names.iter().zip(COMPRESSIONS.iter().flat_map(|compression| [compression, compression])) {
        let explain = format!("{tables}EXPLAIN SELECT team, count(*) FROM {name} GROUP BY team;");
        let plan = sql(Some(&fleet), &explain, "table").run().expect_code(0).stdout;
        assert!(plan.contains(&format!("CompressedScanExec: compression={suffix}")), "{plan}");
    }
    let plan = sql(Some(&fleet), &format!("{plain}EXPLAIN SELECT * FROM plain;"), "table").run().expect_code(0).stdout;
    assert!(plan.contains("DataSourceExec") && !plan.contains("CompressedScanExec"), "{plan}");
}
