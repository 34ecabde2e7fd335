//! Baler.
pub mod connector;
pub mod error;

pub use error::{Error, ErrorKind, Result};
