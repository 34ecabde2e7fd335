//! Baler.
pub mod connector;
pub mod error;
pub mod generate;

pub use error::{Error, ErrorKind, Result};
