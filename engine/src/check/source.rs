//! The input: is it there, may it be read, how much is it, how long does it stay?

use chrono::Utc;
use datafusion::execution::context::SessionContext;
use futures::StreamExt;

use super::Report;
use crate::connector::blob::Compression;
use crate::connector::kafka::KafkaSpec;
use crate::connector::kafka::offsets::resolve;
use crate::connector::source::SourceSpec;
use crate::connector::split::Split;
use crate::error::Result;
use crate::job::manifest::ManifestObject;
use crate::options::format_bytes;
use crate::stream::lag;

/// Records which expire sooner than this are worth a word.
const EXPIRY_MINUTES_MIN: f64 = 60.0;

/// What the input was found to be.
pub(super) struct Input {
    pub(super) source: SourceSpec,
    /// The first, a middle and the last split, as far as there are.
    pub(super) samples: Vec<Split>,
    /// Bytes, as stored, or offsets.
    pub(super) length: u64,
}

/// Lists the input and reads its first row.
pub(super) async fn check(context: &SessionContext, source: &SourceSpec, report: &mut Report) -> Option<Input> {
    let objects = match source.list_input(&context.runtime_env()).await {
        Ok(objects) => objects,
        Err(error) => {
            report.fail("source", &error);
            return None;
        }
    };
    let splits: Vec<Split> = objects.iter().flat_map(ManifestObject::splits).collect();
    let length = splits.iter().map(Split::length).sum();
    let found = match source {
        SourceSpec::Blob(spec) => {
            let packed = objects.iter().filter(|object| !matches!(object.compression, Compression::None | Compression::Auto)).count();
            let packed = if packed > 0 { format!(", {packed} of them compressed") } else { String::new() };
            format!("{}: {} objects, {}{packed}, in {} splits", spec.location, objects.len(), format_bytes(length), splits.len())
        }
        SourceSpec::Kafka(spec) => format!("{}: {length} records in {} partitions to read now", spec.target(), objects.len()),
    };
    report.good("source", found);
    if let SourceSpec::Kafka(spec) = source {
        check_retention(spec, report).await;
    }
    let Some(first) = splits.first() else {
        report.warn("source", "there is nothing to read", "check the LOCATION, if that is not what was meant");
        return None;
    };
    if let Err(error) = read_first(context, source, first).await {
        report.fail("source", &error);
        return None;
    }
    report.good("source", format!("{} can be read", first.object));
    let samples = [0, splits.len() / 2, splits.len() - 1].into_iter().filter_map(|index| splits.get(index).cloned());
    let mut samples: Vec<Split> = samples.collect();
    samples.dedup();
    Some(Input { source: source.clone(), samples, length })
}

async fn read_first(context: &SessionContext, source: &SourceSpec, split: &Split) -> Result<()> {
    let mut rows = context.read_table(source.pinned_table(&[vec![split.clone()]]))?.execute_stream().await?;
    if let Some(batch) = rows.next().await {
        batch?;
    }
    Ok(())
}

/// How long the topic keeps what is to be read.
async fn check_retention(spec: &KafkaSpec, report: &mut Report) {
    let Some(retention) = lag::retention_ms(spec).await else {
        return report.good("source", format!("{} keeps its records for ever, or does not say how long", spec.target()));
    };
    let next = match resolve(spec).await {
        Ok(ranges) => lag::next_offsets(&ranges, false),
        Err(error) => return report.fail("source", &error),
    };
    let minutes = retention as f64 / 60e3;
    match lag::look(spec, &next, Some(retention)).await.map(|lag| lag.expiry_minutes()) {
        Ok(Some(left)) if left < EXPIRY_MINUTES_MIN => report.warn(
            "source",
            format!("the oldest records of {} may be removed in {left:.0} minutes (at {})", spec.target(), Utc::now().format("%H:%M UTC")),
            "raise the topic's retention.ms until they are read",
        ),
        Ok(_) => report.good("source", format!("{} keeps its records for {minutes:.0} minutes", spec.target())),
        Err(error) => report.fail("source", &error),
    }
}
