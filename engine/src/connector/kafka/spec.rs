//! Location and options of a KAFKA table → [`KafkaSpec`].

use std::collections::{BTreeMap, HashMap};

use chrono::DateTime;
use serde::{Deserialize, Serialize};

use super::client;
use crate::error::{Error, Result};
use crate::job::dead_letter::OnError;
use crate::options::TableOptions;

/// Where a scan begins or ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The oldest record that is kept.
    Earliest,
    /// Behind the newest record.
    Latest,
    /// The first record at or after this time, milliseconds since 1970 UTC.
    Timestamp(i64),
    /// An offset for each partition; -2 is the earliest and -1 the latest, as Spark has it.
    Offsets(Vec<(i32, i64)>),
}

/// Offset of a JSON bound which means the earliest one.
pub const EARLIEST: i64 = -2;
/// Offset of a JSON bound which means the latest one.
pub const LATEST: i64 = -1;

/// What one partition contributes: the offsets `first..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRange {
    /// Kafka partition.
    pub partition: i32,
    /// First offset.
    pub first: i64,
    /// Offset after the last one.
    pub end: i64,
}

impl OffsetRange {
    /// Offsets in it; records, where there are no gaps.
    pub fn length(&self) -> u64 {
        self.end.saturating_sub(self.first).max(0) as u64
    }
}

/// How records are laid out in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// The value and a line feed. A tombstone is an empty line; keys are left out; a value which holds a line feed is an error.
    Line,
    /// Key, then value, each as a length (4 bytes, big endian, -1 for none) and its bytes. Holds any record.
    LengthPrefixed,
    /// All that a record has, so that `baler restore` can send it to a topic again: offset, time, key, value and headers, as
    /// [`frame`](super::frame) lays them out. Holds any record.
    Complete,
}

impl Framing {
    /// The words of the option.
    pub const WORDS: &[(&str, Self)] = &[("line", Self::Line), ("length_prefixed", Self::LengthPrefixed), ("complete", Self::Complete)];
}

/// Description of a KAFKA table; holds no client and no secret, so it may travel in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaSpec {
    /// `host:port,host:port`.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// Where to begin; 'earliest', because a bounded scan of what is to come is empty.
    pub starting: Bound,
    /// Where to end.
    pub ending: Bound,
    /// The exact ranges, where a driver has fixed them; `starting` and `ending` do not count then.
    pub pinned: Option<Vec<OffsetRange>>,
    /// Whether records which are gone fail the query; `true`, because going on would lose them silently.
    pub fail_on_data_loss: bool,
    /// `baler stream`: records of one partition for each second of the trigger; 100,000 as the seed has it.
    pub max_records_per_partition_per_second: u64,
    /// `baler stream`: records of one micro-batch; 0 means no limit but the one for each partition.
    pub max_records_per_trigger: u64,
    /// `baler stream`: bytes of one micro-batch, by the mean record size of the last one; 0 means no limit.
    pub max_bytes_per_trigger: u64,
    /// Whether single records have a column `headers`.
    pub include_headers: bool,
    /// Whether records of open and aborted transactions are read too.
    pub read_uncommitted: bool,
    /// Layout of a chunk.
    pub framing: Framing,
    /// What to do about a record which the framing cannot hold; 'fail', because with 'dead_letter' it is in no document.
    pub on_corrupt: OnError,
    /// Records of a chunk; 1 makes each row one record with its own columns, 0 leaves the size alone to count.
    pub chunk_records: u64,
    /// Bytes of a chunk; 1 MiB is where zlib's ratio stops growing. A larger record is a chunk by itself.
    pub chunk_bytes: u64,
    /// Offsets of one split: what one partition holds beyond that is read in parallel. 131,072 records of 1 KB are 128 MiB,
    /// the size of a BLOB split.
    pub split_records: u64,
    /// Name under which the environment holds the credentials: `<NAME>_USERNAME`, `<NAME>_PASSWORD` or `<NAME>_PASSWORD_FILE`.
    pub credentials: String,
    /// Settings for librdkafka.
    pub client: BTreeMap<String, String>,
}

/// A chunk must fit into one document (16 MiB) with its metadata even where it does not compress.
pub(crate) const CHUNK_BYTES_MAX: u64 = 15 << 20;
/// Kafka's port.
const PORT: u16 = 9092;

/// What its options do, in the words of the reference.
pub(crate) const OPTION_TEXTS: &[(&str, &str)] = &[
    ("starting_offsets", "Where to begin: 'earliest', 'latest', a time, or JSON by partition."),
    ("ending_offsets", "Where to end, in the same words."),
    ("fail_on_data_loss", "Whether records which are gone fail the query."),
    ("max_records_per_partition_per_second", "`baler stream`: records of one partition for each second of the trigger."),
    ("max_records_per_trigger", "`baler stream`: records of one micro-batch; 0 for no limit."),
    ("max_bytes_per_trigger", "`baler stream`: bytes of one micro-batch, by the mean record of the last one; 0 for no limit."),
    ("include_headers", "Whether single records have a column `headers`."),
    ("isolation_level", "Whether records of open and aborted transactions are read too."),
    (
        "framing",
        "How records lie in a chunk: values as lines; keys and values; or all that a record has, which `baler restore` sends to a topic again.",
    ),
    ("on_corrupt", "What to do about a record which the framing cannot hold."),
    ("chunk_records", "Records of a chunk; 1 makes each row one record with its own columns, 0 leaves the size alone to count."),
    ("chunk_size", "Bytes of a chunk; a larger record is a chunk by itself. At most 15 MiB."),
    ("split_records", "Offsets of one split: what one partition holds beyond that is read in parallel."),
    ("credentials", "Variables with the login begin with this: `<NAME>_USERNAME`, `<NAME>_PASSWORD` or `<NAME>_PASSWORD_FILE`."),
    ("client.…", "A setting of librdkafka."),
];

impl KafkaSpec {
    /// Reads location and options of a `CREATE EXTERNAL TABLE … STORED AS KAFKA`.
    ///
    /// # Errors
    /// Config, for a location that is none or holds a password, an unknown option or a bad value.
    pub fn try_new(location: &str, options: &HashMap<String, String>) -> Result<Self> {
        let mut options = TableOptions::try_new("kafka", options)?;
        let spec = Self::read(location, &mut options)?;
        options.finish()?;
        Ok(spec)
    }

    /// Reads them one by one.
    pub(crate) fn read(location: &str, options: &mut TableOptions) -> Result<Self> {
        let (brokers, topic) = split_location(location)?;
        let isolation = [("read_committed", false), ("read_uncommitted", true)];
        let bound = |name: &str, text: String| parse_bound(&text, &topic).map_err(|e| e.context(format!("option kafka.{name}")));
        let spec = Self {
            starting: bound("starting_offsets", options.take_text("starting_offsets", "earliest"))?,
            ending: bound("ending_offsets", options.take_text("ending_offsets", "latest"))?,
            pinned: None,
            fail_on_data_loss: options.take_parsed("fail_on_data_loss", true)?,
            max_records_per_partition_per_second: options.take_parsed("max_records_per_partition_per_second", 100_000)?,
            max_records_per_trigger: options.take_parsed("max_records_per_trigger", 0)?,
            max_bytes_per_trigger: options.take_bytes("max_bytes_per_trigger", 0, 0, 1 << 50)?,
            include_headers: options.take_parsed("include_headers", false)?,
            read_uncommitted: options.take_choice("isolation_level", false, &isolation)?,
            framing: options.take_choice("framing", Framing::Line, Framing::WORDS)?,
            on_corrupt: options.take_choice("on_corrupt", OnError::Fail, OnError::WORDS)?,
            chunk_records: options.take_parsed("chunk_records", 0)?,
            chunk_bytes: options.take_bytes("chunk_size", 1 << 20, 1, CHUNK_BYTES_MAX)?,
            split_records: options.take_parsed("split_records", 131_072)?,
            credentials: options.take_text("credentials", "KAFKA"),
            client: options.take_prefixed("client."),
            brokers,
            topic,
        };
        if spec.split_records == 0 || spec.max_records_per_partition_per_second == 0 {
            return Err(Error::config("kafka.split_records and kafka.max_records_per_partition_per_second take 1 and more"));
        }
        if spec.include_headers && !spec.is_by_record() {
            return Err(Error::config(
                "kafka.include_headers needs kafka.chunk_records = '1': a chunk of several records has no column for headers; \
                 with kafka.framing = 'complete' its content holds them",
            ));
        }
        client::check_settings(&spec)?;
        Ok(spec)
    }

    /// Whether each row is one record.
    pub fn is_by_record(&self) -> bool {
        self.chunk_records == 1
    }

    /// Whether headers of records are read.
    pub fn wants_headers(&self) -> bool {
        self.include_headers || (self.framing == Framing::Complete && !self.is_by_record())
    }

    /// How people name it: `kafka://host:9092/topic`.
    pub fn target(&self) -> String {
        format!("kafka://{}/{}", self.brokers, self.topic)
    }
}

/// Splits `kafka://host[:port][,host[:port]]/topic`.
///
/// # Errors
/// Config, when it is no such location or holds credentials.
pub fn split_location(location: &str) -> Result<(String, String)> {
    let wrong = || Error::config(format!("`{location}` is no Kafka location; write kafka://host:9092[,host:9092]/topic"));
    let rest = location.strip_prefix("kafka://").ok_or_else(wrong)?;
    let (hosts, topic) = rest.split_once('/').ok_or_else(wrong)?;
    if hosts.contains('@') {
        return Err(Error::config(
            "credentials do not belong in a LOCATION, where plans and logs would show them; \
             set KAFKA_USERNAME and KAFKA_PASSWORD (or KAFKA_PASSWORD_FILE), or name others by option kafka.credentials",
        ));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if topic.is_empty() || topic.len() > 249 || !topic.chars().all(is_plain) || matches!(topic, "." | "..") {
        return Err(Error::config(format!("`{topic}` is no name of a topic; a LOCATION is kafka://host:9092[,host:9092]/topic")));
    }
    let with_port = |host: &str| {
        // An IPv6 address in brackets holds colons itself.
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if has_port { host.to_string() } else { format!("{host}:{PORT}") }
    };
    let hosts: Vec<String> = hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).map(with_port).collect();
    if hosts.is_empty() {
        return Err(wrong());
    }
    Ok((hosts.join(","), topic.to_string()))
}

/// Reads `earliest`, `latest`, a time (RFC 3339, or milliseconds since 1970), or JSON: `{"0": 23, "1": -2}`, or the same below
/// the topic's name, as Spark writes it.
fn parse_bound(text: &str, topic: &str) -> Result<Bound> {
    let text = text.trim();
    match text.to_ascii_lowercase().as_str() {
        "earliest" => return Ok(Bound::Earliest),
        "latest" => return Ok(Bound::Latest),
        _ => {}
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(Bound::Timestamp(time.timestamp_millis()));
    }
    if let Ok(millis) = text.parse() {
        return Ok(Bound::Timestamp(millis));
    }
    let wrong = || {
        Error::config(format!(
            "`{text}` is neither 'earliest', 'latest', a time such as '2026-01-31T00:00:00Z', nor JSON such as '{{\"0\": 23, \"1\": -2}}'"
        ))
    };
    let json: serde_json::Value = serde_json::from_str(text).map_err(|_| wrong())?;
    let mut partitions = json.as_object().ok_or_else(wrong)?;
    if let Some(nested) = partitions.get(topic).and_then(|value| value.as_object()) {
        partitions = nested;
    }
    let mut offsets = Vec::new();
    for (partition, offset) in partitions {
        let partition = partition.parse().map_err(|_| wrong())?;
        let offset = offset.as_i64().filter(|offset| *offset >= EARLIEST).ok_or_else(wrong)?;
        offsets.push((partition, offset));
    }
    offsets.sort_unstable();
    Ok(Bound::Offsets(offsets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(location: &str, options: &[(&str, &str)]) -> Result<KafkaSpec> {
        let options = options.iter().map(|(key, value)| (format!("kafka.{key}"), (*value).to_string())).collect();
        KafkaSpec::try_new(location, &options)
    }

    #[test]
    fn locations_are_read_and_named_again() {
        let spec = spec("kafka://a,b:1,[::1]:2/shop.events", &[]).unwrap();
        assert_eq!(spec.target(), "kafka://a:9092,b:1,[::1]:2/shop.events");
        for wrong in ["kafka://a", "kafka:///t", "kafka://a/", "kafka://a/b/c", "http://a/t", "kafka://a/.."] {
            assert!(split_location(wrong).is_err(), "{wrong}");
        }
        let error = split_location("kafka://root:hunter2@a/t").unwrap_err().to_string();
        assert!(error.contains("KAFKA_PASSWORD") && !error.contains("hunter2"));
    }

    #[test]
    fn bounds_are_read_in_each_of_their_forms() {
        let starting = |text| spec("kafka://a/t", &[("starting_offsets", text)]).map(|spec| spec.starting);
        assert_eq!(starting("Latest").unwrap(), Bound::Latest);
        assert_eq!(starting("2026-01-01T00:00:00Z").unwrap(), Bound::Timestamp(1_767_225_600_000));
        assert_eq!(starting("1767225600000").unwrap(), Bound::Timestamp(1_767_225_600_000));
        let offsets = Bound::Offsets(vec![(0, 23), (1, EARLIEST), (10, LATEST)]);
        assert_eq!(starting(r#"{"10": -1, "1": -2, "0": 23}"#).unwrap(), offsets);
        assert_eq!(starting(r#"{"t": {"0": 23, "1": -2, "10": -1}}"#).unwrap(), offsets);
        for wrong in ["newest", r#"{"0": -3}"#, r#"{"x": 1}"#, "[1]"] {
            let error = starting(wrong).unwrap_err().to_string();
            assert!(error.contains("kafka.starting_offsets") && error.contains("latest"), "{error}");
        }
    }

    #[test]
    fn unknown_options_and_secrets_are_refused_with_a_remedy() {
        let refused = |key, value, words: &[&str]| {
            let error = spec("kafka://a/t", &[(key, value)]).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)) && !error.contains("hunter2"), "{error}");
        };
        refused("starting_ofsets", "latest", &["did you mean 'kafka.starting_offsets'"]);
        refused("client.sasl.mechanisn", "PLAIN", &["kafka.client.sasl.mechanisn"]);
        refused("client.sasl.password", "hunter2", &["KAFKA_PASSWORD"]);
        refused("client.ssl.key.password", "hunter2", &["KAFKA_SSL_KEY_PASSWORD"]);
        refused("client.enable.auto.commit", "true", &["is set by Baler"]);
        refused("include_headers", "true", &["chunk_records"]);
        refused("split_records", "0", &["split_records"]);
        refused("chunk_size", "16MiB", &["out of range"]);
    }

    #[test]
    fn a_spec_survives_its_way_through_a_plan() {
        let mut spec = spec("kafka://a/t", &[("starting_offsets", r#"{"0": 5}"#), ("client.client.id", "x")]).unwrap();
        spec.pinned = Some(vec![OffsetRange { partition: 3, first: 1, end: 9 }]);
        #[derive(Serialize, Deserialize)]
        #[serde(tag = "node")]
        enum Node {
            Scan { spec: KafkaSpec },
        }
        let text = serde_json::to_string(&Node::Scan { spec: spec.clone() }).unwrap();
        let Node::Scan { spec: back } = serde_json::from_str(&text).unwrap();
        assert_eq!(back, spec);
    }
}
