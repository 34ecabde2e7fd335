//! A whole query for the auditor: the splits of all its micro-batches, whose ranges must follow each other without a gap.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::execution::runtime_env::RuntimeEnv;
use smol_str::SmolStr;

use super::history::{BatchRecord, JobRecord};
use super::log::StreamLog;
use crate::connector::SinkSpec;
use crate::connector::kafka::KafkaSpec;
use crate::connector::kafka::spec::OffsetRange;
use crate::connector::receipt::Receipt;
use crate::connector::source::SourceSpec;
use crate::connector::split::Split;
use crate::error::{Error, Result};
use crate::job::dead_letter::DeadLetter;
use crate::job::verify::Audited;

/// The query `name` below the URL `state`, if there is one. It holds some 600 bytes for each split.
///
/// # Errors
/// Config, when its micro-batches do not run split by split or went to several targets; else what the store answers.
pub async fn audited_query(env: &RuntimeEnv, state: &str, name: &str) -> Result<Option<Audited>> {
    let history = StreamLog::open(env, state, name)?.history(env, state).await?;
    if history.is_empty() {
        return Ok(None);
    }
    let mut gathered = Gathered { keeps_every_row: true, ..Gathered::default() };
    let mut committed = true;
    for batch in history {
        committed &= batch.commit.is_some();
        gathered.add(batch)?;
    }
    let Gathered { mut splits, receipts, letters, sink, keeps_every_row, topics, gaps, .. } = gathered;
    let sink = sink.ok_or_else(|| Error::config(format!("query `{name}` has read no record yet")))?;
    splits.sort_by(|a, b| (&a.object, a.start).cmp(&(&b.object, b.start)));
    Ok(Some(Audited { name: name.to_string(), committed, splits, receipts, letters, sink, keeps_every_row, topics, gaps }))
}

#[derive(Default)]
struct Gathered {
    /// Where each partition goes on.
    position: BTreeMap<i32, i64>,
    splits: Vec<Split>,
    receipts: HashMap<SmolStr, Receipt>,
    letters: Vec<DeadLetter>,
    sink: Option<SinkSpec>,
    keeps_every_row: bool,
    topics: HashMap<SmolStr, Arc<KafkaSpec>>,
    last_topic: Option<Arc<KafkaSpec>>,
    gaps: Vec<String>,
}

impl Gathered {
    fn add(&mut self, BatchRecord { offsets, commit, job }: BatchRecord) -> Result<()> {
        // A micro-batch without records is where the query begins or was rewound to: it may leave a gap, and go back.
        let is_place = commit.is_some() && job.is_none();
        for range in &offsets.ranges {
            self.follow(range, offsets.batch, is_place, job.as_ref());
        }
        match job {
            Some(job) => self.add_job(job),
            None => Ok(()),
        }
    }

    fn follow(&mut self, range: &OffsetRange, batch: u64, is_place: bool, job: Option<&JobRecord>) {
        let before = self.position.insert(range.partition, range.end).unwrap_or(range.first);
        if range.first < before {
            // What was read from there on is read again, and the later receipts count.
            let is_again = |split: &Split| split.kafka_partition() == Some(range.partition) && split.start >= range.first as u64;
            let again: Vec<SmolStr> = self.splits.extract_if(.., |split| is_again(split)).map(|split| split.id).collect();
            again.iter().for_each(|id| drop(self.receipts.remove(id)));
        }
        let may_lose = job.and_then(topic_of).is_some_and(|topic| !topic.fail_on_data_loss);
        if range.first > before && !is_place && !may_lose {
            let OffsetRange { partition, first, .. } = range;
            self.gaps.push(format!("partition {partition}: offsets {before}–{first} are in no micro-batch before {batch}"));
        }
    }

    fn add_job(&mut self, job: JobRecord) -> Result<()> {
        job.manifest.check_by_split()?;
        let topic = topic_of(&job).map(|spec| KafkaSpec { pinned: None, ..spec.clone() });
        if let Some(topic) = topic
            && self.last_topic.as_deref() != Some(&topic)
        {
            self.last_topic = Some(Arc::new(topic));
        }
        if self.sink.as_ref().is_some_and(|sink| *sink != job.manifest.sink) {
            return Err(Error::config(format!(
                "micro-batches up to {} wrote to another target, or with other options of it, than those before; only a query with one target can be verified",
                job.manifest.job
            )));
        }
        self.keeps_every_row &= job.manifest.keeps_every_row;
        for split in job.manifest.splits() {
            self.topics.extend(self.last_topic.clone().map(|topic| (split.id.clone(), topic)));
            self.splits.push(split);
        }
        self.sink = Some(job.manifest.sink);
        self.receipts.extend(job.receipts.into_iter().map(|receipt| (receipt.split.clone(), receipt)));
        self.letters.extend(job.dead_letters);
        Ok(())
    }
}

fn topic_of(job: &JobRecord) -> Option<&KafkaSpec> {
    match &job.manifest.source {
        Some(SourceSpec::Kafka(spec)) => Some(spec),
        _ => None,
    }
}
