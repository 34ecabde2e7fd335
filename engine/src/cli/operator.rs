//! `baler operator`: keeps `BalerJob` and `BalerStream` resources of a Kubernetes namespace.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::metrics::MetricsArgs;
use super::print_line;
use crate::error::{Error, Result};
use crate::operator::context::{Counts, Options};
use crate::operator::resource::definitions_yaml;
use crate::operator::serve;
use crate::options::parse_duration;
use crate::session::SessionParts;
use crate::telemetry::text::Published;

#[derive(Debug, Args)]
pub(super) struct OperatorArgs {
    /// Write the types of both resources for `kubectl apply`, and end.
    #[arg(long)]
    print_types: bool,
    /// Folder or bucket with the state of resources which name none. Drivers and the operator must reach the same one.
    #[arg(long, env = "BALER_STATE", default_value = "./baler-state")]
    state: String,
    /// The scheduler of resources which name none, df://host:50050 or dfs:// for TLS; without one their pods' own environment decides.
    #[arg(long, env = "BALER_SCHEDULER")]
    scheduler: Option<String>,
    /// The namespace whose resources it keeps; that of its pod or of KUBECONFIG if not given.
    #[arg(long, env = "BALER_NAMESPACE")]
    namespace: Option<String>,
    /// How often the state of what runs is looked at. Each look lists the job's receipts.
    #[arg(long, env = "BALER_POLL", default_value = "10s")]
    poll: String,
    /// How long others wait for an operator that is gone without a word. Kubernetes' own components take 15 s.
    #[arg(long, env = "BALER_LEASE", default_value = "15s")]
    lease: String,
    #[command(flatten)]
    metrics: MetricsArgs,
}

pub(super) async fn run(args: OperatorArgs, parts: &SessionParts) -> Result<ExitCode> {
    if args.print_types {
        print_line(definitions_yaml()?.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let time = |flag: &str, text: &str, min: Duration| {
        let time = parse_duration(text).map_err(|e| e.context(flag))?;
        if time < min { Err(Error::config(format!("{flag}: take at least {} ms", min.as_millis()))) } else { Ok(time) }
    };
    let (published, counts) = (Published::default(), Arc::new(Counts::default()));
    counts.publish(&published);
    let served = args.metrics.serve(&published, Some(&args.state), parts).await?;
    let options = Options {
        poll: time("--poll", &args.poll, Duration::from_millis(100))?,
        lease: time("--lease", &args.lease, Duration::from_secs(1))?,
        state: args.state,
        scheduler: args.scheduler,
        namespace: args.namespace,
    };
    let signal = serve(options, parts.clone(), counts).await?;
    args.metrics.finish(served).await;
    eprintln!("stopped by {signal}; drivers go on, and the next operator finds them");
    Ok(ExitCode::SUCCESS)
}
