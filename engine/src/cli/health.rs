//! `baler health`: asks a server of this machine whether it is well, for images without a shell and a web client.

use std::process::ExitCode;

use clap::Args;

use super::print_line;
use crate::cluster::client::http_client;
use crate::error::{Error, ErrorKind, Result};
use crate::session::SessionParts;

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// What to ask: `/healthz` or `/readyz` on the scheduler's port (50050) or the executor's health port (50053).
    #[arg(long, env = "BALER_HEALTH_URL", default_value = "http://127.0.0.1:50050/healthz")]
    url: String,
}

pub(super) async fn run(args: HealthArgs, parts: &SessionParts) -> Result<ExitCode> {
    let url = reqwest::Url::parse(&args.url).map_err(|e| Error::config(format!("`{}` is not a URL", args.url)).with_source(e))?;
    let http = match parts.tls() {
        Some(tls) if url.scheme() == "https" => tls.http()?,
        _ => http_client()?,
    };
    let answer = http.get(url).send().await;
    let answer = answer.map_err(|e| Error::new(ErrorKind::Unreachable, format!("nothing answers at {}", args.url)).with_source(e))?;
    print_line(format_args!("{}: {}", args.url, answer.status()));
    Ok(if answer.status().is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
