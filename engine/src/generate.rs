//! stub
#![allow(missing_docs, reason = "stub")]
use clap::ValueEnum;
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Compression {
    Gzip,
}
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Shape {
    Json,
}
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    pub total_bytes: u64,
    pub files: usize,
    pub shape: Shape,
    pub compress: Option<Compression>,
    pub seed: u64,
}
#[derive(Debug, serde::Serialize)]
pub struct Generated {
    pub objects: usize,
    pub records: u64,
    pub raw_bytes: u64,
    pub stored_bytes: u64,
}
pub async fn generate(
    _s: std::sync::Arc<dyn object_store::ObjectStore>,
    _p: &object_store::path::Path,
    _o: &GenerateOptions,
    _f: impl Fn(u64) + Send + Sync,
) -> crate::Result<Generated> {
    Err(crate::Error::internal(""))
}
