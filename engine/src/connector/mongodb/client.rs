//! One client a server and process, and what the driver's errors mean.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ::bson::RawDocumentBuf;
use ::mongodb::error::{Error as DriverError, ErrorKind as DriverKind, WriteFailure};
use ::mongodb::options::{Acknowledgment, AuthMechanism, ClientOptions, Credential, ServerAddress, Tls, WriteConcern};
use ::mongodb::{Client, Collection};

use super::MongodbSpec;
use crate::credentials::read_credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::trust::reach;

/// How long to look for a server before an attempt counts as failed.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// MongoDB's port.
const PORT: u16 = 27017;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients which are kept; each has connections and threads' work of its own.
pub(crate) const CLIENTS_MAX: usize = 64;

/// Clients by connection string and credentials' name. A client holds the pool of connections, so there is one for all writers.
static CLIENTS: OnceLock<Mutex<HashMap<(String, String), Client>>> = OnceLock::new();

/// The client for a spec, connected lazily. To be called on the I/O runtime, where its monitors then live.
pub(super) async fn client(spec: &MongodbSpec) -> Result<Client> {
    let clients = CLIENTS.get_or_init(Mutex::default);
    let key = (spec.uri.clone(), spec.credentials.clone());
    if let Some(client) = clients.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(client.clone());
    }
    let mut options = parse(spec).await?;
    check_reach(&options).await?;
    options.app_name = Some("baler".to_string());
    options.server_selection_timeout.get_or_insert(SELECTION_TIMEOUT);
    options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
    if let Some((username, password)) = read_credentials(&spec.credentials)? {
        let given = options.credential.take();
        let source = given.as_ref().and_then(|credential| credential.source.clone()).unwrap_or_else(|| "admin".to_string());
        let mechanism = given.and_then(|credential| credential.mechanism).or(None::<AuthMechanism>);
        options.credential = Some(Credential::builder().username(username).password(password).source(source).mechanism(mechanism).build());
    }
    let client =
        Client::with_options(options).map_err(|e| Error::config(format!("cannot set up a client for {}", spec.target())).with_source(e))?;
    let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
    if clients.len() >= CLIENTS_MAX {
        // What is in use lives on.
        clients.clear();
    }
    Ok(clients.entry(key).or_insert(client).clone())
}

async fn parse(spec: &MongodbSpec) -> Result<ClientOptions> {
    let parsed = ClientOptions::parse(&spec.uri).await;
    parsed.map_err(|e| Error::config(format!("`{}` is not a valid connection string", spec.uri)).with_source(e))
}

/// Hosts and ports of the servers which a spec names, if they are spoken to by TLS. To be called on the I/O runtime, as it may ask DNS.
pub(crate) async fn tls_servers(spec: &MongodbSpec) -> Result<Vec<(String, u16)>> {
    let options = parse(spec).await?;
    if !matches!(options.tls, Some(Tls::Enabled(_))) {
        return Ok(Vec::new());
    }
    let tcp = |server: ServerAddress| match server {
        ServerAddress::Tcp { host, port } => Some((host, port.unwrap_or(PORT))),
        _ => None,
    };
    Ok(options.hosts.into_iter().filter_map(tcp).collect())
}

/// Refuses servers and files which tables may not name. The servers are those which SRV records name, where the URL is of that kind.
async fn check_reach(options: &ClientOptions) -> Result<()> {
    let mut servers = Vec::new();
    for host in &options.hosts {
        match host {
            ServerAddress::Unix { path } => reach::folders().check(path)?,
            host => servers.push(host.to_string()),
        }
    }
    if let Some(Tls::Enabled(tls)) = &options.tls {
        let files = [&tls.ca_file_path, &tls.cert_key_file_path].into_iter().flatten();
        files.into_iter().try_for_each(|file| reach::folders().check_setting(file))?;
    }
    reach::hosts().check_all_resolved(servers).await
}

/// The collection of a spec with its write concern.
pub(super) async fn collection(spec: &MongodbSpec) -> Result<Collection<RawDocumentBuf>> {
    let acknowledgment = match spec.write_concern.as_str() {
        "majority" => Acknowledgment::Majority,
        other => other.parse::<u32>().map_or_else(|_| Acknowledgment::Custom(other.to_string()), Acknowledgment::Nodes),
    };
    let concern = WriteConcern::builder().w(acknowledgment).journal(spec.journal).build();
    let options = ::mongodb::options::CollectionOptions::builder().write_concern(concern).build();
    Ok(client(spec).await?.database(&spec.database).collection_with_options(&spec.collection, options))
}

/// Server codes after which the same command may succeed later: network, election, shutdown, and write concern waits
/// (MongoDB's error_codes.yml, category RetriableError, plus timeouts of the write concern, whose outcome is unknown).
const TRANSIENT_CODES: [i32; 22] =
    [6, 7, 50, 64, 79, 89, 91, 112, 134, 189, 234, 262, 317, 358, 384, 91331, 9001, 10107, 11600, 11602, 13435, 13436];

/// Codes which say that this user may not.
const DENIED_CODES: [i32; 3] = [13, 18, 8000];

pub(super) fn is_transient_code(code: i32) -> bool {
    TRANSIENT_CODES.contains(&code)
}

/// The driver's error as ours: `action` names what was done.
pub(super) fn driver_error(spec: &MongodbSpec, action: &str, error: &DriverError) -> Error {
    let target = spec.target();
    let text = first_sentence(error);
    match error.kind.as_ref() {
        DriverKind::Authentication { .. } => denied(spec, action, &text),
        DriverKind::Command(command) if DENIED_CODES.contains(&command.code) => denied(spec, action, &text),
        DriverKind::Command(command) if is_transient_code(command.code) => {
            Error::new(ErrorKind::Transient, format!("{action} {target}: {text}"))
        }
        DriverKind::Write(WriteFailure::WriteConcernError(concern)) if is_transient_code(concern.code) => {
            Error::new(ErrorKind::Transient, format!("{action} {target}: {text}"))
        }
        DriverKind::Io(_)
        | DriverKind::ConnectionPoolCleared { .. }
        | DriverKind::DnsResolve { .. }
        | DriverKind::InvalidResponse { .. } => Error::new(ErrorKind::Transient, format!("{action} {target}: {text}")),
        DriverKind::ServerSelection { .. } if text.contains("Authentication failed") || text.contains("SCRAM failure") => {
            denied(spec, action, &text)
        }
        DriverKind::ServerSelection { .. } => Error::new(ErrorKind::Transient, format!("{action} {target}: no server answers: {text}")),
        DriverKind::InvalidArgument { .. } | DriverKind::InvalidTlsConfig { .. } | DriverKind::IncompatibleServer { .. } => {
            Error::config(format!("{action} {target}: {text}"))
        }
        _ if error.contains_label("RetryableWriteError") || error.contains_label("TransientTransactionError") => {
            Error::new(ErrorKind::Transient, format!("{action} {target}: {text}"))
        }
        _ => Error::permanent(format!("{action} {target}: {text}")),
    }
}

fn denied(spec: &MongodbSpec, action: &str, text: &str) -> Error {
    Error::new(
        ErrorKind::Unreachable,
        format!(
            "{action} {}: the server refuses this user; check {name}_USERNAME, {name}_PASSWORD and the user's roles ({text})",
            spec.target(),
            name = spec.credentials
        ),
    )
}

/// The kind's own text in one line: the driver's Display appends labels and wire versions.
fn first_sentence(error: &DriverError) -> String {
    let text = match error.kind.as_ref() {
        DriverKind::Command(command) => format!("{} ({} {})", command.message, command.code, command.code_name),
        kind => kind.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
