//! The one binary: parse, dispatch, exit code.

use std::process::ExitCode;

/// Blocks of some MiB are allocated and freed all the time; mimalloc keeps them instead of giving their pages back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    baler::cli::main()
}
