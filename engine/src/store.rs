//! Object stores by URL, built on first use from the usual environment variables, one client per bucket and process.
//!
//! `s3://bucket/key` takes its credentials from `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`,
//! `AWS_ENDPOINT` (or `AWS_ENDPOINT_URL`), `AWS_REGION`, `AWS_ALLOW_HTTP`, a web identity token or the instance; a variable
//! `NAME_FILE` names a file which holds the value, as mounted secrets do. An own certificate authority is given by
//! `AWS_CA_BUNDLE` or `SSL_CERT_FILE`. Nothing secret is ever part of a URL or a plan.

use std::collections::HashMap;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::aws::AmazonS3Builder;
use object_store::client::SpawnedReqwestConnector;
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use crate::error::{Error, Result};
use crate::runtime;
use crate::trust::reach;
use crate::trust::reach::files::TableFiles;

/// A request without an answer for this long is given up and tried again. Bodies are read in ranges of some MiB, so a
/// healthy one is never cut.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one request is tried again before its split fails.
pub(crate) const RETRY_TIMEOUT: Duration = Duration::from_secs(120);
pub(crate) const RETRIES_MAX: usize = 8;

/// Buckets whose clients are kept.
pub(crate) const STORES_MAX: usize = 1000;

/// A place in an object store: the store and the path in it. `uri` is how people name it.
#[derive(Debug, Clone)]
pub struct Location {
    /// The store which holds it.
    pub store: Arc<dyn ObjectStore>,
    /// The path within the store, as it is named there.
    pub path: Path,
    /// The whole name, `s3://bucket/a/b` or `file:///a/b`, decoded.
    pub uri: String,
}

impl Location {
    /// The place `name` below this one; `name` may hold `/`.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let path = name.split('/').filter(|part| !part.is_empty()).fold(self.path.clone(), |path, part| path.join(part));
        Self { store: Arc::clone(&self.store), path, uri: format!("{}/{name}", self.uri.trim_end_matches('/')) }
    }
}

/// Splits a URL as users write it, which is not percent-encoded: `s3://bucket/a b#1?.log`, `file:///data`, `./data`.
/// Returns scheme, authority and decoded path without leading `/`.
///
/// # Errors
/// Config, when the scheme is unknown or the bucket is missing.
pub fn split_url(text: &str) -> Result<(String, String, String)> {
    match text.split_once("://") {
        Some(("s3" | "s3a", rest)) => {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(Error::config(format!("`{text}` names no bucket; write s3://bucket/prefix/")));
            }
            Ok(("s3".into(), bucket.into(), key.into()))
        }
        Some(("file", path)) => Ok(("file".into(), String::new(), absolute(path)?)),
        Some((scheme, _)) => Err(Error::config(format!("`{text}`: no object store for `{scheme}://`; take s3:// or file://"))),
        None => Ok(("file".into(), String::new(), absolute(text)?)),
    }
}

/// The same URL in full: a relative path becomes `file:///…`, so that it means the same in every process and folder.
///
/// # Errors
/// As [`split_url`].
pub fn full_url(text: &str) -> Result<String> {
    let (scheme, authority, key) = split_url(text)?;
    Ok(format!("{scheme}://{authority}/{key}"))
}

fn absolute(path: &str) -> Result<String> {
    let full = std::path::absolute(FilePath::new(path)).map_err(|e| Error::config(format!("`{path}` is not a path")).with_source(e))?;
    let mut text = full.to_str().ok_or_else(|| Error::config(format!("`{path}` is not UTF-8")))?.trim_start_matches('/').to_string();
    if path.ends_with('/') && !text.ends_with('/') {
        text.push('/');
    }
    Ok(text)
}

/// The store and path which a URL names, out of the stores of a session (plain DataFusion's or Ballista's).
///
/// # Errors
/// Config, for a URL of an unknown scheme, a bad path, or S3 settings which contradict each other.
pub fn locate(env: &RuntimeEnv, url: &str) -> Result<Location> {
    let (scheme, authority, key) = split_url(url)?;
    let path = Path::parse(key.trim_end_matches('/')).map_err(|e| Error::config(format!("`{url}` is not a valid path")).with_source(e))?;
    let base = Url::parse(&format!("{scheme}://{authority}/"))
        .map_err(|e| Error::config(format!("`{url}` has no valid bucket name")).with_source(e))?;
    let store = env.object_store_registry.get_store(&base).map_err(Error::from)?;
    let uri = if scheme == "file" { format!("file:///{path}") } else { format!("{scheme}://{authority}/{path}") };
    Ok(Location { store, path, uri })
}

/// The stores of this process, by scheme and bucket.
#[derive(Debug, Default)]
pub struct Stores {
    by_authority: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl Stores {
    fn store(&self, scheme: &str, authority: &str) -> Result<Arc<dyn ObjectStore>> {
        let key = format!("{scheme}://{authority}");
        let mut stores = self.by_authority.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&key) {
            return Ok(Arc::clone(store));
        }
        let store: Arc<dyn ObjectStore> = match scheme {
            "file" => Arc::new(TableFiles::default()),
            "s3" => Arc::new(build_s3(authority)?),
            _ => return Err(Error::config(format!("no object store for `{scheme}://`; take s3:// or file://"))),
        };
        if stores.len() >= STORES_MAX {
            // What is in use lives on.
            stores.clear();
        }
        stores.insert(key, Arc::clone(&store));
        Ok(store)
    }
}

impl ObjectStoreRegistry for Stores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        let key = format!("{}://{}", url.scheme(), url.authority());
        self.by_authority.lock().unwrap_or_else(PoisonError::into_inner).insert(key, store)
    }

    fn get_store(&self, url: &Url) -> datafusion::error::Result<Arc<dyn ObjectStore>> {
        self.store(url.scheme(), url.authority()).map_err(DataFusionError::from)
    }
}

fn build_s3(bucket: &str) -> Result<impl ObjectStore> {
    reach::hosts().check_bucket(bucket)?;
    let mut client = ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(Duration::from_secs(10));
    if let Some(bundle) = variable("AWS_CA_BUNDLE").or_else(|| variable("SSL_CERT_FILE")) {
        let pem = std::fs::read(&bundle).map_err(|e| Error::config(format!("cannot read the certificate file {bundle}")).with_source(e))?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .map_err(|e| Error::config(format!("{bundle} is not a bundle of PEM certificates")).with_source(e))?;
        client = certificates.into_iter().fold(client, ClientOptions::with_root_certificate);
    }
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    for (name, key) in
        [("AWS_ACCESS_KEY_ID", "access_key_id"), ("AWS_SECRET_ACCESS_KEY", "secret_access_key"), ("AWS_SESSION_TOKEN", "session_token")]
    {
        if let Some(value) = secret_file(name)? {
            let key = key.parse().map_err(|e| Error::internal("unknown S3 setting").with_source(e))?;
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = endpoint() {
        // Plain HTTP is taken only where the endpoint's own scheme asks for it: a URL that says http is explicit enough.
        client = client.with_allow_http(endpoint.starts_with("http://"));
        builder = builder.with_endpoint(endpoint);
    }
    builder
        .with_client_options(client)
        .with_retry(RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() })
        .with_http_connector(SpawnedReqwestConnector::new(runtime::io()?.clone()))
        .build()
        .map_err(|e| Error::config(format!("cannot set up access to s3://{bucket}")).with_source(e))
}

/// The address of S3, where it is not Amazon's.
pub(crate) fn endpoint() -> Option<String> {
    ["AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter().find_map(variable)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The content of the file which `<name>_FILE` names, without its final newline.
fn secret_file(name: &str) -> Result<Option<String>> {
    let Some(file) = variable(&format!("{name}_FILE")) else { return Ok(None) };
    let text =
        std::fs::read_to_string(&file).map_err(|e| Error::config(format!("cannot read {file}, which {name}_FILE names")).with_source(e))?;
    Ok(Some(text.trim_end().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_as_written() {
        let (scheme, bucket, key) = split_url("s3://b/a b/100% #1?.log").unwrap();
        assert_eq!((scheme.as_str(), bucket.as_str(), key.as_str()), ("s3", "b", "a b/100% #1?.log"));
        assert_eq!(split_url("file:///x/ü").unwrap().2, "x/ü");
        assert!(split_url("ftp://x/y").unwrap_err().to_string().contains("s3:// or file://"));
        assert!(split_url("s3:///y").is_err());
    }
}
