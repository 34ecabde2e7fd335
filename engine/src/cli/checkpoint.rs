//! `baler checkpoint`: where a streaming query is, and going back.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Output, print_json, print_line};
use crate::connector::kafka::spec::OffsetRange;
use crate::error::{Error, Result};
use crate::session::SessionParts;
use crate::stream::log::{BatchCommit, BatchOffsets, StreamLog};

#[derive(Debug, Args)]
pub(super) struct CheckpointArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Args)]
struct QueryArgs {
    /// Name of the query.
    #[arg(long, env = "BALER_NAME")]
    name: String,
    /// Folder or bucket with the state of all queries and jobs.
    #[arg(long, env = "BALER_STATE", default_value = "./baler-state")]
    state: String,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The newest micro-batches: their ranges and what they brought.
    Show {
        #[command(flatten)]
        query: QueryArgs,
        /// How many.
        #[arg(long, default_value_t = 10)]
        last: u64,
    },
    /// Makes the query go on from an earlier place. Rows of single records meet their own documents again by their ids; chunks may be
    /// cut elsewhere now, so remove the documents of what is read again first.
    Rewind {
        #[command(flatten)]
        query: QueryArgs,
        #[command(flatten)]
        to: RewindTo,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RewindTo {
    /// Where this micro-batch began.
    #[arg(long)]
    to_batch: Option<u64>,
    /// Where the micro-batch began that was the last one planned before this time (RFC 3339).
    #[arg(long)]
    to_time: Option<DateTime<Utc>>,
    /// The next offset of each partition to change: {"0": 23, "1": 7}.
    #[arg(long)]
    to_offsets: Option<String>,
}

#[derive(Debug, Serialize)]
struct Shown {
    offsets: BatchOffsets,
    commit: Option<BatchCommit>,
}

pub(super) async fn run(args: CheckpointArgs, parts: &SessionParts, output: Output) -> Result<ExitCode> {
    let env = parts.local()?.runtime_env();
    match args.action {
        Action::Show { query, last } => {
            let log = StreamLog::open(&env, &query.state, &query.name)?;
            show(&log, last, output).await?;
        }
        Action::Rewind { query, to } => {
            let mut log = StreamLog::open(&env, &query.state, &query.name)?;
            let newest = newest(&log).await?;
            let ranges = rewound(&log, &newest, &to).await?;
            // Whoever runs the query now is fenced off: it would go on from where it is.
            let epoch = log.claim().await?;
            let batch = log.rewind(&newest, epoch, ranges).await?;
            print_line(format!("query {} goes on as micro-batch {}, from:", query.name, batch.batch + 1));
            print_ranges(&batch.ranges);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn newest(log: &StreamLog) -> Result<BatchOffsets> {
    log.last_offsets().await?.ok_or_else(|| Error::config(format!("there is no streaming query at {}", log.uri())))
}

async fn show(log: &StreamLog, last: u64, output: Output) -> Result<()> {
    let newest = newest(log).await?;
    let mut shown = Vec::new();
    for batch in newest.batch.saturating_sub(last.saturating_sub(1))..=newest.batch {
        if let Some(offsets) = log.offsets(batch).await? {
            shown.push(Shown { offsets, commit: log.commit_of(batch).await? });
        }
    }
    if output == Output::Json {
        return print_json(&shown);
    }
    print_line(format!("topic {}", newest.topic));
    for Shown { offsets, commit } in &shown {
        let done = match commit {
            Some(commit) => format!("committed {}: {} records, {} documents", commit.committed, commit.records, commit.documents),
            None => "begun and not committed".to_string(),
        };
        print_line(format!("micro-batch {} of epoch {}: {} offsets, {done}", offsets.batch, offsets.epoch, offsets.length()));
    }
    print_ranges(&newest.ranges);
    Ok(())
}

fn print_ranges(ranges: &[OffsetRange]) {
    for OffsetRange { partition, first, end } in ranges {
        print_line(format!("  partition {partition:<4} {first} … {end}"));
    }
}

/// The empty ranges behind which the query is to go on.
async fn rewound(log: &StreamLog, newest: &BatchOffsets, to: &RewindTo) -> Result<Vec<OffsetRange>> {
    if let Some(text) = &to.to_offsets {
        return parse_offsets(newest, text);
    }
    let mut batch = to.to_batch.unwrap_or(newest.batch);
    let found = loop {
        let Some(found) = log.offsets(batch).await? else {
            return Err(Error::config(format!("micro-batch {batch} is not in {}; the newest is {}", log.uri(), newest.batch)));
        };
        match to.to_time {
            Some(time) if found.planned > time && batch > 0 => batch -= 1,
            Some(time) if found.planned > time => {
                return Err(Error::config(format!("the query began at {}, after {time}", found.planned)));
            }
            _ => break found,
        }
    };
    // Partitions which came later go on from their first record, as they did then.
    Ok(found.ranges.iter().map(|range| OffsetRange { end: range.first, ..*range }).collect())
}

fn parse_offsets(newest: &BatchOffsets, text: &str) -> Result<Vec<OffsetRange>> {
    let wrong = |e| Error::config(format!("--to-offsets {text}: write for example {{\"0\": 23, \"1\": 7}}")).with_source(e);
    let given: std::collections::BTreeMap<i32, u64> = serde_json::from_str(text).map_err(wrong)?;
    if let Some(partition) = given.keys().find(|partition| newest.ranges.iter().all(|range| range.partition != **partition)) {
        return Err(Error::config(format!("--to-offsets: the query knows no partition {partition} of {}", newest.topic)));
    }
    let rewind = |range: &OffsetRange| {
        let next = given.get(&range.partition).map_or(range.end, |offset| i64::try_from(*offset).unwrap_or(i64::MAX));
        OffsetRange { partition: range.partition, first: next, end: next }
    };
    Ok(newest.ranges.iter().map(rewind).collect())
}
