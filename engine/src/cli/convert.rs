//! `baler convert-conf`: a SparkApplication as a resource of Baler.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::run::read_file;
use super::{Output, print_json, print_line};
use crate::error::{Error, Result};
use crate::migrate::settings::markdown;
use crate::migrate::{Converted, Finding, convert};

#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// YAML with one SparkApplication or more, or `sparkConf` alone; the resources are printed.
    #[arg(required_unless_present = "settings")]
    file: Option<PathBuf>,
    /// Print the table of all settings that are known, as Markdown, and end.
    #[arg(long)]
    settings: bool,
}

pub(super) fn run(args: &ConvertArgs, output: Output) -> Result<ExitCode> {
    if args.settings {
        print_line(markdown().trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let file = args.file.as_deref().ok_or_else(|| Error::config("name a file"))?;
    let converted = convert(&read_file(file)?).map_err(|e| e.context(file.display()))?;
    match output {
        Output::Json => print_json(&converted)?,
        Output::Text => converted.iter().for_each(print_converted),
    }
    Ok(ExitCode::SUCCESS)
}

/// The resource for `kubectl apply`, and as comments below it what each setting became.
fn print_converted(converted: &Converted) {
    print_line("---");
    print_line(converted.resource.trim_end());
    for heading in ["without counterpart", "to be set elsewhere", "in the resource", "not needed"] {
        let found: Vec<&Finding> = converted.findings.iter().filter(|finding| finding.fate == heading).collect();
        if !found.is_empty() {
            print_line(format!("# {heading}:"));
        }
        for Finding { setting, value, counterpart, .. } in found {
            print_line(format!("#   {setting}: {value} → {counterpart}"));
        }
    }
}
