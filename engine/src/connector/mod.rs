//! Sources and sinks, and what they share.
//!
//! - [`document`]: rows to BSON documents and back.

pub mod document;
