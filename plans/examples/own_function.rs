//! A program with a function of its own, on a laptop and on a fleet.
//!
//! It is the whole of Baler's command line, whose sessions know one function more. Started as scheduler, executor and client
//! it is a fleet on which SQL may call that function:
//!
//! ```text
//! own_function scheduler
//! own_function executor
//! own_function sql --scheduler df://localhost -c "SELECT mask(name) FROM …"
//! ```
//!
//! Plans carry functions by name, so all three must be this program.

use std::process::ExitCode;
use std::sync::Arc;

use baler::session::SessionParts;
use datafusion::arrow::array::{Array, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::cast::as_string_array;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

fn main() -> ExitCode {
    baler::cli::main_with(SessionParts::default().with_function(mask()))
}

/// `mask(text)`: the first letter stays, every other becomes `*`.
fn mask() -> ScalarUDF {
    create_udf("mask", vec![DataType::Utf8], DataType::Utf8, Volatility::Immutable, Arc::new(mask_column))
}

fn mask_column(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let columns = ColumnarValue::values_to_arrays(arguments)?;
    let names = as_string_array(&columns[0])?;
    let masked: StringArray = names.iter().map(|name| name.map(mask_name)).collect();
    debug_assert_eq!(masked.len(), names.len());
    Ok(ColumnarValue::Array(Arc::new(masked)))
}

fn mask_name(name: &str) -> String {
    name.chars().enumerate().map(|(place, letter)| if place == 0 { letter } else { '*' }).collect()
}
