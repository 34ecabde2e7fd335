//! Consumers of this process, and what librdkafka's errors mean.
//!
//! A consumer is a few threads and connections of librdkafka, so idle ones are kept and used again. Every call here blocks
//! and belongs on a thread of the blocking pool; [`with_consumer`] takes it there.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use url::Url;

use super::KafkaSpec;
use crate::credentials::{read_credentials, read_secret};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime;
use crate::trust::reach;

/// What we rely on: no option may change it.
const OWN_SETTINGS: [(&str, &str); 5] = [
    // Offsets are kept in the state of a job or query; the group's offsets are only told to lag tools.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // An offset which is gone is an event of ours, never a silent jump.
    ("auto.offset.reset", "error"),
    // An end that consists of transaction markers is only seen by this event.
    ("enable.partition.eof", "true"),
    ("allow.auto.create.topics", "false"),
];

/// Further settings of ours under other options, by all of their names.
const RESERVED: [&str; 3] = ["bootstrap.servers", "metadata.broker.list", "isolation.level"];

/// Settings which run a program, load a library, or ask a machine's metadata service for credentials: no table needs them.
const REFUSED: [&str; 7] = [
    "plugin.library.paths",
    "ssl.engine.location",
    "ssl.engine.id",
    "ssl.providers",
    "sasl.kerberos.kinit.cmd",
    "sasl.kerberos.keytab",
    "sasl.oauthbearer.metadata.authentication.type",
];

/// The setting which names a server besides the brokers, by a URL.
const TOKEN_ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";

/// How settings end which name a file.
const FILE_ENDS: [&str; 2] = [".location", ".file"];

/// A file which librdkafka looks for by itself.
const PROBE: &str = "probe";

/// Defaults which differ from librdkafka's; options may change them.
const DEFAULTS: [(&str, &str); 9] = [
    ("client.id", "baler"),
    ("group.id", "baler"),
    // Bytes which wait in the consumer: with the batch in the making and the one at the sink they bound the memory of a split.
    ("queued.max.messages.kbytes", "16384"),
    // Each record in the queue takes some 300 B beside its own: of librdkafka's 100,000 of 120 B a consumer would hold 60 MB.
    ("queued.min.messages", "10000"),
    ("fetch.max.bytes", "16777216"),
    ("fetch.message.max.bytes", "4194304"),
    // A full queue is looked at again after this time. librdkafka's own second would hold a split at 16 MiB/s.
    ("fetch.queue.backoff.ms", "5"),
    // A fetch at the very end waits this long, and we only fetch there to see that it is the end.
    ("fetch.wait.max.ms", "50"),
    ("reconnect.backoff.max.ms", "2000"),
];

/// Settings which are secrets, and the end of the variable's name which holds them.
const SECRETS: [(&str, &str); 7] = [
    ("sasl.username", "USERNAME"),
    ("sasl.password", "PASSWORD"),
    ("ssl.key.password", "SSL_KEY_PASSWORD"),
    ("ssl.key.pem", "SSL_KEY_PEM"),
    ("ssl.keystore.password", "SSL_KEYSTORE_PASSWORD"),
    ("sasl.oauthbearer.client.secret", "SASL_OAUTHBEARER_CLIENT_SECRET"),
    ("sasl.oauthbearer.config", "SASL_OAUTHBEARER_CONFIG"),
];

/// Different complaints which are kept. A broker that closes a connection half-way may leave several for one cause.
pub(crate) const COMPLAINTS_MAX: usize = 3;

/// Keeps the last complaints of a client: the cause behind librdkafka's codes. A later one need not say more than an earlier one, so none hides another.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<Vec<String>>);

impl Complaints {
    fn note(&self, text: &str) {
        // librdkafka ends a complaint with how long it took and how often it was made; its log begins one with the thread.
        let text = text.split_once(" (after ").map_or(text, |(cause, _)| cause);
        let text = text.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")).map_or(text, |(_, cause)| cause);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|one| one != text);
        if kept.len() == COMPLAINTS_MAX {
            kept.remove(0);
        }
        kept.push(text.to_string());
    }

    /// All that are kept, the newest last.
    fn cause(&self) -> Option<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!kept.is_empty()).then(|| kept.join("; "))
    }
}

impl ClientContext for Complaints {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(target: "librdkafka", facility, "{text}");
        if (level as i32) <= RDKafkaLogLevel::Error as i32 {
            self.note(text);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // That all brokers are down says less than what was said before about each.
        if error.rdkafka_error_code() != Some(Code::AllBrokersDown) {
            self.note(reason);
        }
    }
}

impl ConsumerContext for Complaints {}

/// A consumer of one partition at a time.
pub(crate) type Consumer = BaseConsumer<Complaints>;

/// Checks the settings of a table without using any.
///
/// # Errors
/// Config, for a setting which does not exist, is ours, is a secret, or is not for tables.
pub(super) fn check_settings(spec: &KafkaSpec) -> Result<()> {
    check_names(spec)?;
    settings(spec).create_native_config().map(drop).map_err(|e| kafka_error(spec, "setting up a client for", &e, None))
}

/// Looks at the settings themselves, before librdkafka sees one: it loads a library as soon as it is told its name. They may come in a plan, too.
fn check_names(spec: &KafkaSpec) -> Result<()> {
    for (key, value) in &spec.client {
        if let Some((_, suffix)) = SECRETS.iter().find(|(secret, _)| secret == key) {
            let name = &spec.credentials;
            return Err(Error::config(format!(
                "kafka.client.{key} does not belong in a statement, where plans and logs would show it; set {name}_{suffix} or {name}_{suffix}_FILE"
            )));
        }
        if OWN_SETTINGS.iter().any(|(own, _)| own == key) || RESERVED.contains(&key.as_str()) {
            return Err(Error::config(format!("kafka.client.{key} is set by Baler and cannot be changed")));
        }
        if REFUSED.contains(&key.as_str()) {
            return Err(Error::config(format!("kafka.client.{key} is not for tables; leave it out")));
        }
        let named = |error: Error| error.context(format!("kafka.client.{key}"));
        if FILE_ENDS.iter().any(|end| key.ends_with(end)) && value != PROBE {
            reach::folders().check_setting(Path::new(value)).map_err(named)?;
        }
        if key == TOKEN_ENDPOINT {
            let url = Url::parse(value).map_err(|e| Error::config(format!("kafka.client.{key} is no URL")).with_source(e))?;
            reach::hosts().check_resolved(url.host_str().unwrap_or_default()).map_err(named)?;
        }
    }
    Ok(())
}

/// The settings of a table, without its secrets.
fn settings(spec: &KafkaSpec) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &spec.brokers);
    for (key, value) in DEFAULTS {
        config.set(key, value);
    }
    for (key, value) in &spec.client {
        config.set(key, value);
    }
    for (key, value) in OWN_SETTINGS {
        config.set(key, value);
    }
    config.set("isolation.level", if spec.read_uncommitted { "read_uncommitted" } else { "read_committed" });
    config.set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// The same with its secrets, for a client.
///
/// # Errors
/// Config, when a file which holds a secret cannot be read, or when tables may not name a broker.
pub(crate) fn settings_with_secrets(spec: &KafkaSpec) -> Result<ClientConfig> {
    check_names(spec)?;
    spec.brokers.split(',').try_for_each(|broker| reach::hosts().check_resolved(broker))?;
    let mut config = settings(spec);
    if let Some((username, password)) = read_credentials(&spec.credentials)? {
        config.set("sasl.username", username).set("sasl.password", password);
    }
    for (key, suffix) in SECRETS.iter().skip(2) {
        if let Some(secret) = read_secret(&spec.credentials, suffix)? {
            config.set(*key, secret);
        }
    }
    Ok(config)
}

/// Consumers which wait for use, by brokers and settings.
static IDLE: Mutex<Option<HashMap<String, Vec<Consumer>>>> = Mutex::new(None);
/// Idle consumers of one kind which are kept: as many as a process of some cores reads with at once.
pub(crate) const IDLE_MAX: usize = 32;
/// Kinds of consumers, by brokers and settings, of which idle ones are kept.
pub(crate) const IDLE_KINDS_MAX: usize = 16;

fn idle_key(spec: &KafkaSpec) -> String {
    format!("{} {} {} {:?}", spec.brokers, spec.read_uncommitted, spec.credentials, spec.client)
}

/// A consumer in use.
pub(super) struct Lease {
    key: String,
    consumer: Consumer,
}

impl Lease {
    /// A consumer for a table; connects when it is first asked for something.
    ///
    /// # Errors
    /// Config, when a secret cannot be read or a setting contradicts another.
    pub(super) fn take(spec: &KafkaSpec) -> Result<Self> {
        let key = idle_key(spec);
        let found = IDLE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().get_mut(&key).and_then(Vec::pop);
        let consumer = match found {
            Some(consumer) => consumer,
            None => {
                let created = settings_with_secrets(spec)?.create_with_context(Complaints::default());
                created.map_err(|e| kafka_error(spec, "setting up a client for", &e, None))?
            }
        };
        Ok(Self { key, consumer })
    }

    /// The consumer.
    pub(super) fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// Keeps the consumer for the next use. One after which an error came is dropped instead.
    pub(super) fn give_back(self) {
        if self.consumer.unassign().is_err() {
            return;
        }
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = idle.get_or_insert_default();
        if idle.len() >= IDLE_KINDS_MAX && !idle.contains_key(&self.key) {
            idle.clear();
        }
        let waiting = idle.entry(self.key).or_default();
        if waiting.len() < IDLE_MAX {
            waiting.push(self.consumer);
        }
    }
}

/// Events which are looked at in one call of [`refusal`].
pub(crate) const EVENTS_MAX: u32 = 32;

/// Whether the brokers refuse this user, which a call that failed does not say: it only waited in vain. Takes the consumer's events, and
/// so its complaints; it must have no partition.
pub(super) fn refusal(consumer: &Consumer) -> Option<KafkaError> {
    let mut refused = None;
    for _ in 0..EVENTS_MAX {
        if let Some(Err(event)) = consumer.poll(Duration::ZERO)
            && matches!(event.rdkafka_error_code(), Some(Code::Authentication | Code::SaslAuthenticationFailed))
        {
            refused = Some(event);
        }
    }
    refused
}

/// Does blocking `work` with a consumer, away from runtimes which must not wait.
///
/// # Errors
/// As [`Lease::take`] and `work`.
pub(crate) async fn with_consumer<T: Send + 'static>(
    spec: &KafkaSpec,
    work: impl FnOnce(&Consumer) -> Result<T> + Send + 'static,
) -> Result<T> {
    let spec = spec.clone();
    runtime::spawn_blocking(move || {
        let lease = Lease::take(&spec)?;
        let done = work(lease.consumer())?;
        lease.give_back();
        Ok(done)
    })?
    .join()
    .await?
}

/// librdkafka's error as ours: `action` names what was done to what.
pub(crate) fn kafka_error(spec: &KafkaSpec, action: &str, error: &KafkaError, complaints: Option<&Complaints>) -> Error {
    let target = spec.target();
    if let KafkaError::ClientConfig(_, reason, key, _) = error {
        return Error::config(format!("option kafka.client.{key}: {}", reason.trim_end_matches('.')));
    }
    let cause = complaints.and_then(Complaints::cause).map(|cause| format!(" ({cause})")).unwrap_or_default();
    let Some(code) = error.rdkafka_error_code() else {
        return Error::config(format!("{action} {target}: {error}{cause}"));
    };
    let name = &spec.credentials;
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed => Error::new(
            ErrorKind::Unreachable,
            format!(
                "{action} {target}: the brokers refuse this user; check {name}_USERNAME, {name}_PASSWORD and kafka.client.sasl.mechanism{cause}"
            ),
        ),
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            Error::new(ErrorKind::Unreachable, format!("{action} {target}: the user has no right to read it; ask for an ACL ({code})"))
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            Error::config(format!("{action} {target}: the topic or partition does not exist; check the LOCATION"))
        }
        Code::BadMessage | Code::InvalidMessage | Code::InvalidMessageSize => {
            Error::decode(format!("{action} {target}: a batch is corrupt: {code}{cause}"))
        }
        code if is_passing(code) => Error::new(ErrorKind::Transient, format!("{action} {target}: {code}{cause}")),
        code => Error::permanent(format!("{action} {target}: {code}{cause}")),
    }
}

/// Codes after which librdkafka goes on by itself: a broker that is away, an election, a request that took too long.
pub(super) fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::SSL
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
            | Code::WaitingForCoordinator
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::OffsetNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::KafkaStorageError
            | Code::Outdated
            | Code::NoEnt
            | Code::Retry
            | Code::InProgress
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_complaint_hides_an_earlier_cause() {
        let complaints = Complaints::default();
        assert_eq!(complaints.cause(), None);
        complaints.note("[thrd:ssl://b:1/bootstrap]: ssl://b:1/bootstrap: certificate verify failed (after 5ms in state SSL_HANDSHAKE)");
        complaints
            .note("ssl://b:1/bootstrap: certificate verify failed (after 9ms in state SSL_HANDSHAKE, 1 identical error(s) suppressed)");
        complaints.note("ssl://b:1/bootstrap: Disconnected (after 1ms in state CONNECT)");
        let both = "ssl://b:1/bootstrap: certificate verify failed; ssl://b:1/bootstrap: Disconnected";
        assert_eq!(complaints.cause().as_deref(), Some(both));
        for text in ["c", "d", "e", "f"] {
            complaints.note(text);
        }
        assert_eq!(complaints.cause().as_deref(), Some("d; e; f"), "only some are kept");
    }
}
