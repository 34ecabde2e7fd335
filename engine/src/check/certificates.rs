//! The certificates which a job would trust or show, and those which its servers show: can they be read, and how long do they hold?

use std::path::PathBuf;

use chrono::Utc;
use futures::future::join_all;
use url::Url;

use super::Report;
use crate::connector::SinkSpec;
use crate::connector::mongodb::client::tls_servers;
use crate::connector::source::SourceSpec;
use crate::error::Result;
use crate::runtime;
use crate::store::{endpoint, split_url};
use crate::telemetry::host::{AUTHORITY, first_end};
use crate::trust::shown::shown_end;

/// A certificate which ends sooner is worth a word.
const DAYS_MIN: i64 = 14;
const DAY_SECONDS: i64 = 86_400;

/// Options of a MongoDB connection string and settings of librdkafka which name a file of certificates.
const MONGODB_FILES: [&str; 2] = ["tlsCAFile", "tlsCertificateKeyFile"];
const KAFKA_FILES: [&str; 2] = ["ssl.ca.location", "ssl.certificate.location"];

/// Looks at every file which source and sink name, and at every server which a job with this state would reach by TLS.
pub(super) async fn check(source: Option<&SourceSpec>, sink: &SinkSpec, state: &str, report: &mut Report) {
    for (name, file) in files(source, sink) {
        let end = first_end(&file).map_err(|error| error.context(name));
        judge(&format!("{name} {}", file.display()), "renew it", end, report);
    }
    let servers = match servers(source, sink, state).await {
        Ok(servers) => servers,
        Err(error) => return report.fail("certificates", &error),
    };
    let looks = servers.into_iter().map(|(host, port)| async move {
        let asked = host.clone();
        let end = async { runtime::spawn_io(async move { shown_end(&asked, port).await })?.join().await? };
        (format!("the server {host}:{port}"), end.await)
    });
    for (server, end) in join_all(looks).await {
        judge(&server, "renew it on that server", end, report);
    }
}

/// Says how long a certificate holds which ends then.
fn judge(whose: &str, remedy: &str, end: Result<i64>, report: &mut Report) {
    let days = match end {
        Ok(end) => (end - Utc::now().timestamp()).div_euclid(DAY_SECONDS),
        Err(error) => return report.fail("certificates", &error),
    };
    match days {
        ..0 => report.bad("certificates", format!("{whose}: a certificate has expired"), remedy),
        0..DAYS_MIN => {
            report.warn("certificates", format!("{whose}: a certificate ends in {days} days"), format!("{remedy} before the job needs it"));
        }
        _ => report.good("certificates", format!("{whose}: certificates hold for {days} days")),
    }
}

/// The servers which are named, and spoken to by TLS. Amazon's own renew their certificates without us.
async fn servers(source: Option<&SourceSpec>, sink: &SinkSpec, state: &str) -> Result<Vec<(String, u16)>> {
    let mut servers = Vec::new();
    let mut stores = vec![state];
    match source {
        Some(SourceSpec::Blob(spec)) => stores.push(&spec.location),
        Some(SourceSpec::Kafka(spec)) => {
            let protocol = spec.client.get("security.protocol").map(String::as_str).unwrap_or_default();
            if protocol.to_ascii_uppercase().ends_with("SSL") {
                let place = |broker: &str| broker.rsplit_once(':').and_then(|(host, port)| Some((host.to_string(), port.parse().ok()?)));
                servers.extend(spec.brokers.split(',').filter_map(place));
            }
        }
        None => {}
    }
    match sink {
        SinkSpec::Mongodb(spec) => {
            let spec = spec.clone();
            servers.extend(runtime::spawn_io(async move { tls_servers(&spec).await })?.join().await??);
        }
        SinkSpec::Bson(spec) => stores.push(&spec.location),
    }
    let is_s3 = stores.iter().any(|location| split_url(location).is_ok_and(|(scheme, ..)| scheme == "s3"));
    if let Some(url) = endpoint().filter(|_| is_s3).and_then(|url| Url::parse(&url).ok()).filter(|url| url.scheme() == "https")
        && let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default())
    {
        servers.push((host.trim_matches(['[', ']']).to_string(), port));
    }
    Ok(servers)
}

fn files(source: Option<&SourceSpec>, sink: &SinkSpec) -> Vec<(&'static str, PathBuf)> {
    let mut files: Vec<_> = std::env::var_os(AUTHORITY).map(|file| (AUTHORITY, PathBuf::from(file))).into_iter().collect();
    if let Some(SourceSpec::Kafka(spec)) = source {
        files.extend(KAFKA_FILES.iter().filter_map(|name| Some((*name, spec.client.get(*name)?.into()))));
    }
    if let SinkSpec::Mongodb(spec) = sink {
        let options: Vec<_> = Url::parse(&spec.uri).map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default();
        let named = |name: &&'static str| {
            let (_, file) = options.iter().find(|(option, _): &&(String, String)| option.eq_ignore_ascii_case(name))?;
            Some((*name, file.into()))
        };
        files.extend(MONGODB_FILES.iter().filter_map(named));
    }
    files
}
