//! The certificates which a job would trust or show: can they be read, and how long do they hold?

use std::path::PathBuf;

use chrono::Utc;
use url::Url;

use super::Report;
use crate::connector::SinkSpec;
use crate::connector::source::SourceSpec;
use crate::telemetry::host::{AUTHORITY, first_end};

/// A certificate which ends sooner is worth a word.
const DAYS_MIN: i64 = 14;
const DAY_SECONDS: i64 = 86_400;

/// Options of a MongoDB connection string and settings of librdkafka which name a file of certificates.
const MONGODB_FILES: [&str; 2] = ["tlsCAFile", "tlsCertificateKeyFile"];
const KAFKA_FILES: [&str; 2] = ["ssl.ca.location", "ssl.certificate.location"];

/// Looks at every file which source and sink name.
pub(super) fn check(source: Option<&SourceSpec>, sink: &SinkSpec, report: &mut Report) {
    for (name, file) in files(source, sink) {
        let days = match first_end(&file) {
            Ok(end) => (end - Utc::now().timestamp()).div_euclid(DAY_SECONDS),
            Err(error) => {
                report.fail("certificates", &error.context(name));
                continue;
            }
        };
        let text = |found: &str| format!("{name} {}: {found}", file.display());
        match days {
            ..0 => report.bad("certificates", text("a certificate has expired"), "renew it"),
            0..DAYS_MIN => {
                report.warn("certificates", text(&format!("a certificate ends in {days} days")), "renew it before the job needs it")
            }
            _ => report.good("certificates", text(&format!("they hold for {days} days"))),
        }
    }
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
