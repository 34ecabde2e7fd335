//! Offsets of a consumer group, for tools which show its lag. The query itself never reads them.

use std::collections::BTreeMap;

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::connector::kafka::KafkaSpec;
use crate::connector::kafka::client::{kafka_error, with_consumer};
use crate::connector::kafka::spec::OffsetRange;
use crate::error::Result;

/// The group of a query: `kafka.client.group.id`, else `baler-<query>`.
pub fn group_of(spec: &KafkaSpec, query: &str) -> String {
    spec.client.get("group.id").cloned().unwrap_or_else(|| format!("baler-{query}"))
}

/// Tells the brokers the next offset of each partition.
///
/// # Errors
/// As the brokers'; they only matter to who watches the lag.
pub async fn tell_group(spec: &KafkaSpec, group: &str, ranges: &[OffsetRange]) -> Result<()> {
    let mut client = BTreeMap::clone(&spec.client);
    client.insert("group.id".to_string(), group.to_string());
    let spec = KafkaSpec { client, ..spec.clone() };
    let (table, ranges) = (spec.clone(), ranges.to_vec());
    with_consumer(&spec, move |consumer| {
        let failed = |e| kafka_error(&table, &format!("telling the offsets of group `{}` to", table.client["group.id"]), &e, None);
        let mut list = TopicPartitionList::new();
        for range in &ranges {
            list.add_partition_offset(&table.topic, range.partition, Offset::Offset(range.end)).map_err(failed)?;
        }
        consumer.commit(&list, CommitMode::Sync).map_err(failed)
    })
    .await
}
