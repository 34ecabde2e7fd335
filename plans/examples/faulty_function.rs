//! Baler's command line with a function which panics when it is told to: what a fault in a function of one's own does to a fleet.
//!
//! ```text
//! faulty_function sql -c "SELECT panic_if(name, 'Grace') FROM …"
//! ```

use std::process::ExitCode;
use std::sync::Arc;

use baler::session::SessionParts;
use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::cast::as_string_array;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

fn main() -> ExitCode {
    baler::cli::main_with(SessionParts::default().with_function(panic_if()))
}

/// `panic_if(text, unwanted)`: `text`, and a panic where it is `unwanted`.
fn panic_if() -> ScalarUDF {
    // Volatile, so that no planner runs it.
    create_udf("panic_if", vec![DataType::Utf8, DataType::Utf8], DataType::Utf8, Volatility::Volatile, Arc::new(panic_at))
}

fn panic_at(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let columns = ColumnarValue::values_to_arrays(arguments)?;
    let (texts, unwanted) = (as_string_array(&columns[0])?, as_string_array(&columns[1])?);
    for row in 0..texts.len() {
        assert!(texts.value(row) != unwanted.value(row), "this word was not to be: {}", texts.value(row));
    }
    Ok(ColumnarValue::Array(Arc::clone(&columns[0])))
}
