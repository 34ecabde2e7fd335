//! What the next micro-batch takes. Before: where the last one ended, and what the topic holds; after: ranges under all caps.

use std::collections::BTreeMap;

use crate::connector::kafka::KafkaSpec;
use crate::connector::kafka::offsets::{Watermarks, data_loss};
use crate::connector::kafka::spec::OffsetRange;
use crate::error::{Error, Result};

/// Bounds of one micro-batch, in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Of one partition.
    pub partition_records_max: u64,
    /// Of all partitions.
    pub records_max: u64,
}

/// What a record is taken to hold until a micro-batch has told.
const RECORD_BYTES: u64 = 1 << 10;

impl Caps {
    /// The caps of a table for a trigger of `trigger_seconds`; `record_bytes` is the mean of the last micro-batch, if there was one.
    pub fn new(spec: &KafkaSpec, trigger_seconds: u64, record_bytes: Option<u64>) -> Self {
        let by_records = if spec.max_records_per_trigger == 0 { u64::MAX } else { spec.max_records_per_trigger };
        let record_bytes = record_bytes.unwrap_or(RECORD_BYTES).max(1);
        let by_bytes = if spec.max_bytes_per_trigger == 0 { u64::MAX } else { (spec.max_bytes_per_trigger / record_bytes).max(1) };
        Self {
            partition_records_max: spec.max_records_per_partition_per_second.saturating_mul(trigger_seconds.max(1)),
            records_max: by_records.min(by_bytes),
        }
    }
}

/// Where each partition goes on: behind `last`, and a new partition at its earliest record.
///
/// # Errors
/// Conflict, when records between `last` and what the topic holds are gone and `kafka.fail_on_data_loss` is 'true'.
pub fn go_on(spec: &KafkaSpec, last: &[OffsetRange], marks: &Watermarks) -> Result<BTreeMap<i32, i64>> {
    let mut starts: BTreeMap<i32, i64> = marks.iter().map(|(partition, (low, _))| (*partition, *low)).collect();
    for range in last {
        let Some(marks) = marks.get(&range.partition) else {
            if spec.fail_on_data_loss {
                return Err(Error::conflict(format!(
                    "{} has no partition {} any more, which was read up to offset {}: the topic was re-created; begin a new query under another \
                     name, or set kafka.fail_on_data_loss to 'false' to go on with what is there",
                    spec.target(),
                    range.partition,
                    range.end
                )));
            }
            continue;
        };
        let (low, high) = *marks;
        if (low..=high).contains(&range.end) {
            starts.insert(range.partition, range.end);
            continue;
        }
        if spec.fail_on_data_loss {
            return Err(data_loss(spec, range.partition, range.end, (low, high)));
        }
        tracing::warn!(
            topic = spec.topic,
            partition = range.partition,
            wanted = range.end,
            low,
            high,
            "records are gone; going on with what is left"
        );
    }
    Ok(starts)
}

/// What to take from `starts` on: no partition beyond `limits`, where given, and all of them under the caps, in proportion to
/// what waits in each.
pub fn next_ranges(starts: &BTreeMap<i32, i64>, marks: &Watermarks, limits: Option<&Watermarks>, caps: Caps) -> Vec<OffsetRange> {
    let waiting = |partition: &i32, start: i64| -> u64 {
        let high = marks.get(partition).map_or(start, |(_, high)| *high);
        let high = limits.map_or(high, |limits| limits.get(partition).map_or(start, |(_, limit)| high.min(*limit)));
        (high.saturating_sub(start).max(0) as u64).min(caps.partition_records_max)
    };
    let wanted: Vec<(i32, i64, u64)> = starts.iter().map(|(partition, start)| (*partition, *start, waiting(partition, *start))).collect();
    let total: u128 = wanted.iter().map(|(_, _, count)| u128::from(*count)).sum();
    let mut left = caps.records_max;
    let mut ranges: Vec<OffsetRange> = wanted
        .iter()
        .map(|(partition, first, count)| {
            let share = if total <= u128::from(caps.records_max) {
                *count
            } else {
                (u128::from(*count) * u128::from(caps.records_max) / total) as u64
            };
            left -= share.min(left);
            OffsetRange { partition: *partition, first: *first, end: first + share as i64 }
        })
        .collect();
    // What rounding left over goes to the first partitions which have more, so that a batch is never empty while records wait.
    for (range, (_, _, count)) in ranges.iter_mut().zip(&wanted) {
        let more = (count - range.length()).min(left);
        range.end += more as i64;
        left -= more;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn spec(options: &[(&str, &str)]) -> KafkaSpec {
        let options: HashMap<_, _> = options.iter().map(|(key, value)| (format!("kafka.{key}"), (*value).to_string())).collect();
        KafkaSpec::try_new("kafka://a/t", &options).unwrap()
    }

    proptest! {
        #[test]
        fn batches_under_any_caps_take_every_offset_once_and_end(
            topic in prop::collection::vec((0i64..50, 0i64..300), 1..6), per_partition in 1u64..90, total in 1u64..200,
        ) {
            let marks: Watermarks = (0..).zip(&topic).map(|(partition, (low, length))| (partition, (*low, low + length))).collect();
            let caps = Caps { partition_records_max: per_partition, records_max: total };
            let mut starts = go_on(&spec(&[]), &[], &marks).unwrap();
            let all: u64 = topic.iter().map(|(_, length)| *length as u64).sum();
            let mut taken = 0;
            while taken < all {
                let ranges = next_ranges(&starts, &marks, None, caps);
                let here: u64 = ranges.iter().map(OffsetRange::length).sum();
                prop_assert!(here > 0 && here <= total);
                for range in &ranges {
                    prop_assert_eq!(range.first, starts[&range.partition]);
                    prop_assert!(range.length() <= per_partition && range.end <= marks[&range.partition].1);
                }
                taken += here;
                starts = go_on(&spec(&[]), &ranges, &marks).unwrap();
            }
            prop_assert_eq!(taken, all);
            prop_assert!(next_ranges(&starts, &marks, None, caps).iter().all(|range| range.length() == 0));
        }
    }

    #[test]
    fn caps_come_from_the_trigger_and_from_the_size_of_records() {
        let by_rate = Caps::new(&spec(&[]), 30, None);
        assert_eq!(by_rate, Caps { partition_records_max: 3_000_000, records_max: u64::MAX });
        let spec =
            spec(&[("max_records_per_partition_per_second", "10"), ("max_records_per_trigger", "500"), ("max_bytes_per_trigger", "1MiB")]);
        assert_eq!(Caps::new(&spec, 0, Some(4096)), Caps { partition_records_max: 10, records_max: 256 });
        assert_eq!(Caps::new(&spec, 30, None).records_max, 500);
        assert_eq!(Caps::new(&spec, 30, Some(1 << 30)).records_max, 1);
    }

    #[test]
    fn a_new_partition_begins_at_its_first_record_and_a_limit_holds_back_what_came_later() {
        let last = [OffsetRange { partition: 0, first: 0, end: 5 }];
        let marks = Watermarks::from([(0, (0, 9)), (1, (3, 7))]);
        let starts = go_on(&spec(&[]), &last, &marks).unwrap();
        assert_eq!(starts, BTreeMap::from([(0, 5), (1, 3)]));
        let caps = Caps { partition_records_max: 100, records_max: 100 };
        let limits = Watermarks::from([(0, (0, 6))]);
        let ends: Vec<i64> = next_ranges(&starts, &marks, Some(&limits), caps).iter().map(|range| range.end).collect();
        assert_eq!(ends, [6, 3]);
    }

    #[test]
    fn lost_records_and_a_topic_made_anew_fail_or_are_left_out() {
        let last = |partition| [OffsetRange { partition, first: 0, end: 50 }];
        for (partition, marks, words) in [(0, (60, 90), "earliest is 60"), (0, (0, 20), "re-created"), (7, (0, 20), "re-created")] {
            let marks = Watermarks::from([(0, marks)]);
            let error = go_on(&spec(&[]), &last(partition), &marks).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("offset 50"), "{error}");
            let lenient = spec(&[("fail_on_data_loss", "false")]);
            assert_eq!(go_on(&lenient, &last(partition), &marks).unwrap()[&0], marks[&0].0);
        }
    }
}
