//! INSERT of joins, aggregates and sorts.
