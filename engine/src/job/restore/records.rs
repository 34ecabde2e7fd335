//! A job or query over a topic → what is to be written of its records: files of about a GiB, or partition by partition into a topic.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{LeftOut, RestoreObject, RestoreReport, RestoreRequest};
use crate::connector::blob::Compression;
use crate::connector::kafka::produce::count_partitions;
use crate::connector::kafka::spec::Framing;
use crate::connector::kafka::{KafkaSpec, parse_partition};
use crate::connector::receipt::Receipt;
use crate::connector::split::Split;
use crate::connector::stored::StoredSplit;
use crate::error::{Error, Result};
use crate::job::verify::Audited;

/// Bytes after which a file of records ends, with the split: many are written at once, and one that is there is not written again.
const SEGMENT_BYTES: u64 = 1 << 30;

/// How documents hold the records of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Several in each, as the table's framing has them.
    Packed(Framing),
    /// One in each, in fields of its own.
    Single {
        /// Whether a document without the field of a key, a time or headers is refused.
        must_be_whole: bool,
    },
}

impl Layout {
    fn of(spec: &KafkaSpec, must_be_whole: bool) -> Self {
        if spec.is_by_record() { Self::Single { must_be_whole } } else { Self::Packed(spec.framing) }
    }

    /// Whether a document holds records as one piece of content.
    pub fn is_packed(self) -> bool {
        matches!(self, Self::Packed(_))
    }

    /// How the content of a file, or of a piece on its way to a topic, is laid out.
    pub fn framing(self) -> Framing {
        match self {
            Self::Packed(framing) => framing,
            Self::Single { .. } => Framing::Complete,
        }
    }

    /// What the documents do not hold of a record, as far as the table tells.
    fn missing(self) -> Option<&'static str> {
        match self {
            Self::Packed(Framing::Line) => Some("keys, times and headers, and do not tell tombstones from empty values"),
            Self::Packed(Framing::LengthPrefixed) => Some("times and headers"),
            Self::Packed(Framing::Complete) | Self::Single { .. } => None,
        }
    }

    /// How names of files end.
    fn suffix(self) -> &'static str {
        match self.framing() {
            Framing::Line => "lines",
            Framing::LengthPrefixed => "pairs",
            Framing::Complete => "records",
        }
    }
}

/// A split with all that is known of its documents.
struct Stored {
    layout: Layout,
    bytes: u64,
    written: i64,
    documents: StoredSplit,
}

/// What is to be written below the report's target, or into `topic`. What is left out is noted in the report.
///
/// # Errors
/// As [`Restore::plan_query`](super::Restore::plan_query).
pub(super) async fn plan_records(
    audited: Audited,
    topic: Option<&KafkaSpec>,
    request: &RestoreRequest,
    report: &mut RestoreReport,
) -> Result<Vec<RestoreObject>> {
    check(&audited, request)?;
    let objects: BTreeSet<&str> = audited.splits.iter().map(|split| split.object.as_str()).collect();
    let mut planned = Vec::new();
    for object in objects {
        let stored = plan_partition(&audited, object, topic, request, report)?;
        match topic {
            None => planned.extend(segments(object, &report.target, stored)),
            Some(topic) => planned.extend(whole_partition(object, topic, stored, request)?),
        }
    }
    if let Some(topic) = topic {
        check_topic(&planned, topic).await?;
    }
    Ok(planned)
}

fn check(audited: &Audited, request: &RestoreRequest) -> Result<()> {
    let name = &audited.name;
    if audited.splits.iter().any(|split| split.kafka_partition().is_none() || !audited.topics.contains_key(&split.id)) {
        return Err(Error::config(format!("`{name}` does not read one topic alone, so there are no records to restore")));
    }
    if !audited.keeps_every_row {
        return Err(Error::config(format!("the statement of `{name}` filters rows, so its documents are not all records of its topic")));
    }
    if request.partial {
        return Ok(());
    }
    if !audited.committed {
        return Err(Error::conflict(format!(
            "the newest micro-batch of `{name}` is not committed; run it again to complete it, or restore what is whole with --partial"
        )));
    }
    match audited.gaps.first() {
        Some(gap) => Err(Error::conflict(format!("`{name}` has a gap, {gap}; restore what is there with --partial"))),
        None => Ok(()),
    }
}

/// The splits of one Kafka partition, in order, up to the first one that is not whole.
fn plan_partition(
    audited: &Audited,
    object: &str,
    topic: Option<&KafkaSpec>,
    request: &RestoreRequest,
    report: &mut RestoreReport,
) -> Result<Vec<Stored>> {
    let mut stored = Vec::new();
    for split in audited.splits.iter().filter(|split| split.object == object) {
        let Some(receipt) = audited.receipts.get(&split.id) else {
            let reason = format!("offsets {}–{} have no receipt, so their documents are not complete", split.start, split.end);
            if !request.partial {
                return Err(Error::conflict(format!("{object}: {reason}")));
            }
            report.left_out.push(LeftOut { object: format!("{object} from offset {} on", split.start), reason });
            break;
        };
        let is_known = note_letters(audited, split, receipt, report);
        if receipt.dead_letters > 0 && topic.is_some() && !request.partial {
            return Err(Error::conflict(format!(
                "{object} offsets {}–{}: {} dead letters would be missing in the topic for good; `baler dead-letters retry` writes what is \
                 accepted now, and --partial sends what there is",
                split.start, split.end, receipt.dead_letters
            )));
        }
        let Some(documents) = StoredSplit::of_receipt(receipt) else {
            if receipt.documents == 0 {
                continue;
            }
            return Err(Error::config(format!(
                "{object}: the documents of receipt {} do not carry their topic, partition and offsets; only what sql/stream.sql writes can be restored",
                split.id
            )));
        };
        if is_known {
            let spec: Option<&Arc<KafkaSpec>> = audited.topics.get(&split.id);
            let spec = spec.ok_or_else(|| Error::internal(format!("nothing says how {object} was read")))?;
            let layout = Layout::of(spec, topic.is_some() && !request.lossy);
            stored.push(Stored { layout, bytes: receipt.raw_bytes, written: receipt.finished.timestamp_millis(), documents });
        }
    }
    Ok(stored)
}

/// Notes the dead letters of a split; returns whether its documents can be held against its receipt: one that was refused is in its digest.
fn note_letters(audited: &Audited, split: &Split, receipt: &Receipt, report: &mut RestoreReport) -> bool {
    if receipt.dead_letters == 0 {
        return true;
    }
    let Split { object, start, end, .. } = split;
    let mut is_known = true;
    for letter in audited.letters.iter().filter(|letter| letter.split == split.id) {
        let place = match letter.byte_offset {
            Some(offset) => format!("{object} offset {offset}"),
            None => format!("{object} offsets {start}–{end}"),
        };
        is_known &= letter.byte_offset.is_some();
        report.left_out.push(LeftOut { object: place, reason: letter.reason.clone() });
    }
    is_known
}

/// Files of one partition: `<topic>/<partition>/<first offset>.<lines|pairs|records>`.
fn segments(object: &str, to: &str, stored: Vec<Stored>) -> Vec<RestoreObject> {
    let mut segments: Vec<RestoreObject> = Vec::new();
    for Stored { layout, bytes, written, documents } in stored {
        if let Some(last) = segments.last_mut()
            && last.bytes < SEGMENT_BYTES
            && last.records == Some(layout)
        {
            last.bytes += bytes;
            last.last_modified = last.last_modified.max(written);
            last.splits.push(documents);
            continue;
        }
        let place = object.split_once(':').map_or(object, |(_, place)| place);
        let target = format!("{}/{place}/{:020}.{}", to.trim_end_matches('/'), documents.first, layout.suffix());
        segments.push(run_of_records(object, target, layout, bytes, written, documents));
    }
    segments
}

fn run_of_records(object: &str, target: String, layout: Layout, bytes: u64, written: i64, documents: StoredSplit) -> RestoreObject {
    RestoreObject {
        object: object.to_string(),
        version: String::new(),
        last_modified: written,
        target,
        records: Some(layout),
        packing: Compression::None,
        bytes,
        splits: vec![documents],
    }
}

/// A partition on its way into a topic; `None` if it has no records.
fn whole_partition(object: &str, topic: &KafkaSpec, stored: Vec<Stored>, request: &RestoreRequest) -> Result<Option<RestoreObject>> {
    let mut whole: Option<RestoreObject> = None;
    for Stored { layout, bytes, written, documents } in stored {
        if let Some(missing) = layout.missing()
            && !request.lossy
        {
            return Err(Error::config(format!(
                "{object}: the documents lack {missing} of their records, because kafka.framing was not 'complete'; \
                 restore into files, or pass --lossy to send what they have"
            )));
        }
        match &mut whole {
            None => whole = Some(run_of_records(object, topic.target(), layout, bytes, written, documents)),
            Some(whole) if whole.records == Some(layout) => {
                whole.bytes += bytes;
                whole.last_modified = whole.last_modified.max(written);
                whole.splits.push(documents);
            }
            Some(_) => {
                return Err(Error::config(format!(
                    "{object}: kafka.framing was changed between micro-batches, from offset {} on; restore into files, which tell them apart",
                    documents.first
                )));
            }
        }
    }
    Ok(whole)
}

/// Refuses a topic which has no place for these partitions.
async fn check_topic(planned: &[RestoreObject], topic: &KafkaSpec) -> Result<()> {
    let sources: Vec<(&str, i32)> = planned.iter().filter_map(|object| parse_partition(&object.object)).collect();
    let topics: BTreeSet<&str> = sources.iter().map(|(topic, _)| *topic).collect();
    if topics.len() > 1 {
        let names: Vec<_> = topics.into_iter().collect();
        return Err(Error::config(format!("the query read several topics, {}; restore into files", names.join(" and "))));
    }
    let wanted = sources.iter().map(|(_, partition)| partition + 1).max().unwrap_or_default();
    let there = count_partitions(topic).await.map_err(|e| e.context(format!("restoring needs a topic of at least {wanted} partitions")))?;
    if there < wanted {
        return Err(Error::config(format!(
            "{} has {there} partitions, and the records are of {wanted}: each goes back into its own; take a topic with at least as many",
            topic.target()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(first: u64, gib: u64, framing: Framing) -> Stored {
        let documents = StoredSplit { id: first.to_string().into(), first, next: first + 1, documents: 1, digest: String::new() };
        Stored { layout: Layout::Packed(framing), bytes: gib << 30, written: first as i64, documents }
    }

    #[test]
    fn files_end_at_their_size_and_where_the_framing_changes() {
        let splits =
            vec![stored(0, 0, Framing::Line), stored(7, 1, Framing::Line), stored(9, 0, Framing::Line), stored(12, 0, Framing::Complete)];
        let files = segments("kafka:shop.events/3", "file:///back/", splits);
        let names: Vec<_> = files.iter().map(|file| (file.target.as_str(), file.splits.len(), file.last_modified)).collect();
        let name = |offset: u64, suffix: &str| format!("file:///back/shop.events/3/{offset:020}.{suffix}");
        let expected = [(name(0, "lines"), 2, 7), (name(9, "lines"), 1, 9), (name(12, "records"), 1, 12)];
        assert!(names.iter().map(|(name, splits, at)| ((*name).to_string(), *splits, *at)).eq(expected), "{names:?}");
    }

    #[test]
    fn what_is_lost_on_the_way_is_refused_unless_that_is_asked_for() {
        let topic = KafkaSpec::try_new("kafka://a/back", &std::collections::HashMap::new()).unwrap();
        let request = |lossy| RestoreRequest {
            to: topic.target(),
            client: std::collections::HashMap::new(),
            lossy,
            recompress: false,
            partial: false,
            overwrite: false,
        };
        let plan = |framings: &[Framing], lossy| {
            let stored = framings.iter().enumerate().map(|(at, framing)| stored(at as u64, 0, *framing)).collect();
            whole_partition("kafka:t/0", &topic, stored, &request(lossy))
        };
        assert_eq!(plan(&[Framing::Complete; 3], false).unwrap().unwrap().splits.len(), 3);
        assert!(plan(&[Framing::Line], false).unwrap_err().to_string().contains("keys, times and headers"));
        assert!(plan(&[Framing::LengthPrefixed], false).unwrap_err().to_string().contains("lack times and headers"));
        assert!(plan(&[Framing::Line], true).unwrap().is_some());
        assert!(plan(&[Framing::Line, Framing::Complete], true).unwrap_err().to_string().contains("was changed"));
    }
}
