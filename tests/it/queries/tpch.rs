//! TPC-H: joins, aggregates, sorts and subqueries through Ballista's stages.

use std::fmt::{Display, Write};
use std::fs;
use std::path::{Path, PathBuf};

use baler_tests::fleet::Fleet;
use baler_tests::servers::Scratch;
use tpchgen::csv::{CustomerCsv, LineItemCsv, NationCsv, OrderCsv, PartCsv, PartSuppCsv, RegionCsv, SupplierCsv};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator, RegionGenerator,
    SupplierGenerator,
};

use super::expect_same_answers;

/// Small, but large enough that each query has rows (seen: with 0.01 three have none).
const SCALE: f64 = 0.01;
/// Files of a large table, so that several tasks read it.
const PARTS: i32 = 3;

fn write_file<R: Display>(table: &Path, part: i32, header: &str, rows: impl Iterator<Item = R>) {
    let mut text = format!("{header}\n");
    for row in rows {
        writeln!(text, "{row}").unwrap();
    }
    fs::create_dir_all(table).unwrap();
    fs::write(table.join(format!("{part}.csv")), text).unwrap();
}

/// The eight tables as CSV files.
fn generate(folder: &Path) {
    write_file(&folder.join("nation"), 1, NationCsv::header(), NationGenerator::default().iter().map(NationCsv::new));
    write_file(&folder.join("region"), 1, RegionCsv::header(), RegionGenerator::default().iter().map(RegionCsv::new));
    let suppliers = SupplierGenerator::new(SCALE, 1, 1);
    write_file(&folder.join("supplier"), 1, SupplierCsv::header(), suppliers.iter().map(SupplierCsv::new));
    for part in 1..=PARTS {
        let parts = PartGenerator::new(SCALE, part, PARTS);
        write_file(&folder.join("part"), part, PartCsv::header(), parts.iter().map(PartCsv::new));
        let stock = PartSuppGenerator::new(SCALE, part, PARTS);
        write_file(&folder.join("partsupp"), part, PartSuppCsv::header(), stock.iter().map(PartSuppCsv::new));
        let customers = CustomerGenerator::new(SCALE, part, PARTS);
        write_file(&folder.join("customer"), part, CustomerCsv::header(), customers.iter().map(CustomerCsv::new));
        let orders = OrderGenerator::new(SCALE, part, PARTS);
        write_file(&folder.join("orders"), part, OrderCsv::header(), orders.iter().map(OrderCsv::new));
        let items = LineItemGenerator::new(SCALE, part, PARTS);
        write_file(&folder.join("lineitem"), part, LineItemCsv::header(), items.iter().map(LineItemCsv::new));
    }
}

fn statements() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("it/tpch")
}

#[test]
fn the_22_queries_of_tpch_answer_on_a_fleet_as_in_one_process() {
    let (scratch, fleet) = (Scratch::new(), Fleet::start(2, &[]));
    generate(scratch.path());
    let tables = fs::read_to_string(statements().join("tables.sql")).unwrap();
    let tables = tables.replace("${TPCH}", &scratch.path().display().to_string());
    let read = |number| fs::read_to_string(statements().join(format!("q{number:02}.sql"))).unwrap();
    let queries: Vec<String> = (1..=22).map(|number| read(number).trim_end().trim_end_matches(';').to_string()).collect();
    let rows: Vec<usize> = expect_same_answers(&fleet, &tables, &queries).iter().map(Vec::len).collect();
    println!("{rows:?}");
    assert_eq!((rows[0], rows[3], rows[5]), (4, 5, 1), "rows of queries 1, 4 and 6, which do not depend on the scale: {rows:?}");
    let jobs = fleet.jobs();
    assert!(jobs.len() >= 22 && jobs.iter().all(|(_, status)| status == "Completed"), "{jobs:?}");
}
