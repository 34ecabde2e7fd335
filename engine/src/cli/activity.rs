//! What the terminal shows while a statement of `baler sql` runs: a bar where the amount to read is known, else that it runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::connector::blob::Compression;
use crate::connector::split::{Split, leaf_rows};
use crate::error::Result;
use crate::options::format_bytes;
use crate::runtime::{Spawned, spawn_io};
use crate::telemetry::{COUNTERS, Figures};

/// How long a statement runs before anything is drawn.
const ACTIVITY_AFTER: Duration = Duration::from_secs(1);
const ACTIVITY_EVERY: Duration = Duration::from_millis(200);

/// What there is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amount {
    /// Bytes of objects.
    Bytes(u64),
    /// Records of topics.
    Records(u64),
}

impl Amount {
    /// That of a plan; `None` where it reads anything whose amount is not told before: compressed objects, other tables, both kinds
    /// of sources, or a fleet's.
    fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let (mut splits, mut is_known) = (Vec::new(), true);
        let looked = plan.apply(|node| {
            if node.children().is_empty() {
                match leaf_rows::<Split>(node.as_ref())? {
                    Some(rows) => splits.extend(rows.into_iter().flatten()),
                    None => is_known = false,
                }
            }
            Ok::<_, DataFusionError>(TreeNodeRecursion::Continue)
        });
        let total: u64 = splits.iter().map(Split::length).sum();
        // An object of `Auto` is most often plain; of a compressed one the bar would be at its end too early.
        let is_plain = |split: &Split| matches!(split.compression, Compression::None | Compression::Auto);
        match looked.is_ok() && is_known && total > 0 {
            false => None,
            true if splits.iter().all(|split| split.kafka_partition().is_some()) => Some(Self::Records(total)),
            true if splits.iter().all(|split| split.kafka_partition().is_none() && is_plain(split)) => Some(Self::Bytes(total)),
            true => None,
        }
    }
}

/// What runs now, and the bar of it.
#[derive(Debug, Clone)]
pub(super) struct Running {
    amount: Arc<Mutex<Option<(Amount, u64)>>>,
    bar: ProgressBar,
}

impl Running {
    /// Nothing yet, and nothing to be seen.
    pub(super) fn new() -> Self {
        Self { amount: Arc::default(), bar: ProgressBar::hidden() }
    }

    /// Prints in place of the bar, which comes back below.
    pub(super) fn print<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Another plan begins.
    pub(super) fn begin(&self, plan: &Arc<dyn ExecutionPlan>) {
        let amount = Amount::of(plan).map(|amount| (amount, read_of(amount)));
        *self.amount.lock().unwrap_or_else(PoisonError::into_inner) = amount;
    }

    /// How much of how much was read; at most all of it.
    fn progress(&self) -> Option<(u64, u64)> {
        let (amount, before) = (*self.amount.lock().unwrap_or_else(PoisonError::into_inner))?;
        let (Amount::Bytes(total) | Amount::Records(total)) = amount;
        Some(((read_of(amount) - before).min(total), total))
    }
}

fn read_of(amount: Amount) -> u64 {
    match amount {
        Amount::Bytes(_) => COUNTERS.read_bytes.get(),
        Amount::Records(_) => COUNTERS.read_records.get(),
    }
}

/// Shows on the terminal that a statement runs, how long, how far it is, and what this process has read meanwhile; until it is dropped.
pub(super) fn show_activity(started: Instant, running: Running) -> Result<Spawned<()>> {
    let before = Figures::of_process();
    let style = |template: &str| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    spawn_io(async move {
        tokio::time::sleep(ACTIVITY_AFTER).await;
        running.bar.set_draw_target(ProgressDrawTarget::stderr());
        // Cleared when the task is dropped.
        let bar = Cleared(running.bar.clone());
        loop {
            let (now, seconds) = (Figures::of_process(), started.elapsed().as_secs_f64());
            let read = now.raw_bytes - before.raw_bytes;
            let rate = format_bytes((read as f64 / seconds) as u64);
            let figures = if read > 0 { format!(", {} read, {rate}/s", format_bytes(read)) } else { String::new() };
            match running.progress() {
                Some((done, total)) => {
                    bar.0.set_style(style("{spinner} {wide_bar} {percent}% {msg}"));
                    bar.0.set_length(total);
                    bar.0.set_position(done);
                }
                None => bar.0.set_style(style("{spinner} {msg}")),
            }
            bar.0.set_message(format!("{seconds:.0} s{figures}; Ctrl-C stops it"));
            bar.0.tick();
            tokio::time::sleep(ACTIVITY_EVERY).await;
        }
    })
}

/// A bar which leaves nothing on the screen.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::local_session;

    #[test]
    fn the_amount_is_known_where_all_that_is_read_are_plain_objects() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [("plain/a.log", "one\n"), ("plain/b.log", "two\nthree\n"), ("packed/a.log.gz", "x")] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let context = local_session().unwrap();
            for name in ["plain", "packed"] {
                let at = folder.path().join(name);
                let create = format!("CREATE EXTERNAL TABLE {name} STORED AS BLOB LOCATION '{}/'", at.display());
                context.sql(&create).await.unwrap();
            }
            for (query, amount) in [
                ("SELECT count(content) FROM plain", Some(Amount::Bytes(14))),
                ("SELECT a.id FROM plain a JOIN plain b ON a.id = b.id", Some(Amount::Bytes(28))),
                ("SELECT content FROM packed", None),
                ("SELECT content FROM packed UNION ALL SELECT content FROM plain", None),
                ("SELECT id FROM plain JOIN (VALUES ('x')) AS other(x) ON id = x", None),
                ("SELECT 1", None),
            ] {
                let plan = context.sql(query).await.unwrap().create_physical_plan().await.unwrap();
                assert_eq!(Amount::of(&plan), amount, "{query}");
            }
        });
    }
}
