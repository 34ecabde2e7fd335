//! `baler completions` and `baler man`: what shells and `man` read, and the reference of the documentation; all made of the command line itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::print_line;
use crate::error::{Error, Result};
use crate::reference;

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell; source what is printed, or put it where the shell looks for completions.
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Folder for the pages, one for each command: read them by `man -l DIR/baler.1`, or set MANPATH.
    dir: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "baler", &mut text);
    print_line(String::from_utf8_lossy(&text).trim_end());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(args: &ManArgs, command: Command) -> Result<ExitCode> {
    let failed = |e: std::io::Error, path: &Path| Error::permanent(format!("cannot write {}: {e}; check the rights on it", path.display()));
    std::fs::create_dir_all(&args.dir).map_err(|e| failed(e, &args.dir))?;
    clap_mangen::generate_to(command, &args.dir).map_err(|e| failed(e, &args.dir))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn print_reference(command: Command) -> Result<ExitCode> {
    print_line(reference::markdown(command)?.trim_end());
    Ok(ExitCode::SUCCESS)
}
