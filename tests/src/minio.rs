//! MinIO: a real S3 server, over http and over https with a certificate authority of its own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::path::Path as Key;
use object_store::{Certificate, ClientOptions, ObjectStore, ObjectStoreExt};

use crate::servers::{Server, free_port, random, random_name, run_folder, say};
use crate::{block_on, cache, wait_until};

/// MinIO publishes no semantic versions: this is the commit of its last release.
const VERSION: &str = "v0.0.0-20260212201848-7aac2a2c5b7c";
const REGION: &str = "us-east-1";

/// Which MinIO the tests use.
pub fn description() -> String {
    match env::var("BALER_TEST_MINIO") {
        Ok(path) => format!("MinIO, the binary {path} (BALER_TEST_MINIO)"),
        Err(_) => format!("MinIO {VERSION}, built by `go install` on first use (some minutes)"),
    }
}

fn binary() -> PathBuf {
    if let Some(path) = env::var_os("BALER_TEST_MINIO") {
        return path.into();
    }
    let place = cache::tool(&format!("minio-{VERSION}"), "go install", |place| {
        let package = format!("github.com/minio/minio@{VERSION}");
        cache::step(Command::new("go").args(["install", &package]).env("GOBIN", place).env_remove("GOOS"), "Go 1.24 or newer (`go`)");
    });
    place.join("minio")
}

/// One running server.
#[derive(Debug)]
pub struct Minio {
    /// `http://127.0.0.1:port` or `https://127.0.0.1:port`.
    pub endpoint: String,
    /// The port alone, for a proxy.
    pub port: u16,
    /// The certificate of its authority, where it speaks https.
    pub authority: Option<PathBuf>,
    /// The random user.
    pub access_key: String,
    /// The random password.
    pub secret_key: String,
    _server: Mutex<Server>,
}

impl Minio {
    /// The server of this run which speaks http.
    pub fn plain() -> &'static Self {
        static SERVER: OnceLock<Minio> = OnceLock::new();
        SERVER.get_or_init(|| Self::start(None, None))
    }

    /// The server of this run which speaks https.
    pub fn tls() -> &'static Self {
        static SERVER: OnceLock<Minio> = OnceLock::new();
        SERVER.get_or_init(|| Self::start(Some(Certificates::make(&run_folder().join("certificates"))), None))
    }

    /// A server of a test's own which speaks https with a certificate that ends in so many days.
    pub fn start_ending(days: u32) -> Self {
        Self::start(Some(Certificates::ending(&run_folder().join(random_name("certificates")), days)), None)
    }

    /// A server of a test's own which speaks https and encrypts every object with `key` (`name:base64`).
    pub fn start_encrypted(key: &str) -> Self {
        Self::start(Some(Certificates::make(&run_folder().join(random_name("certificates")))), Some(key))
    }

    fn start(certificates: Option<Certificates>, key: Option<&str>) -> Self {
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let (port, console) = (free_port(), free_port());
        let (access_key, secret_key) = (format!("user{:x}", random()), format!("key{:x}{:x}", random(), random()));
        let mut command = Command::new(binary());
        command.args([
            "server",
            "--quiet",
            "--address",
            &format!("127.0.0.1:{port}"),
            "--console-address",
            &format!("127.0.0.1:{console}"),
        ]);
        if let Some(certificates) = &certificates {
            command.arg("--certs-dir").arg(&certificates.folder);
        }
        let name = random_name(&format!("minio-{scheme}"));
        command.arg(run_folder().join(&name));
        command.envs([("MINIO_ROOT_USER", &access_key), ("MINIO_ROOT_PASSWORD", &secret_key)]);
        command.envs([("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off"), ("MINIO_CI_CD", "on")]);
        if let Some(key) = key {
            command.envs([("MINIO_KMS_AUTO_ENCRYPTION", "on"), ("MINIO_KMS_SECRET_KEY", key)]);
        }
        let mut server = Server::start(&name, &mut command);
        let endpoint = format!("{scheme}://127.0.0.1:{port}");
        let authority = certificates.map(|certificates| certificates.authority);
        let client = http_client(authority.as_deref());
        server.wait_ready(|| request(&client, "GET", &format!("{endpoint}/minio/health/ready"), None).is_ok_and(|status| status == 200));
        say(&format!("MinIO listens on {endpoint}"));
        Self { endpoint, port, authority, access_key, secret_key, _server: Mutex::new(server) }
    }

    /// Makes a bucket with a random name.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn make_bucket(&self) -> Bucket {
        self.make_bucket_named(&random_name("bucket"))
    }

    /// A bucket with a name which a test cannot choose, so one test of a run alone may ask for it.
    ///
    /// # Panics
    /// When MinIO refuses it.
    pub fn make_bucket_named(&self, name: &str) -> Bucket {
        let name = name.to_string();
        let credential = AwsCredential { key_id: self.access_key.clone(), secret_key: self.secret_key.clone(), token: None };
        let url = format!("{}/{name}", self.endpoint);
        let client = http_client(self.authority.as_deref());
        // A busy MinIO answers 503, which asks for another attempt.
        wait_until("MinIO makes a bucket", || match request(&client, "PUT", &url, Some(&credential)) {
            Ok(200) => true,
            Ok(503) => false,
            other => panic!("MinIO refused to make a bucket: {other:?}"),
        });
        let store = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_region(REGION)
            .with_bucket_name(&name)
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(&self.secret_key)
            .with_client_options(client_options(self.authority.as_deref()))
            .build()
            .expect("cannot make an S3 client");
        Bucket { name, store }
    }

    /// What `baler` finds in its environment to reach this server.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.environment_at(&self.endpoint)
    }

    /// As [`Minio::environment`], through a proxy.
    pub fn environment_at(&self, endpoint: &str) -> Vec<(String, String)> {
        let mut variables = vec![
            ("AWS_ENDPOINT".to_string(), endpoint.to_string()),
            ("AWS_ACCESS_KEY_ID".to_string(), self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY".to_string(), self.secret_key.clone()),
            ("AWS_REGION".to_string(), REGION.to_string()),
        ];
        match &self.authority {
            Some(authority) => variables.push(("AWS_CA_BUNDLE".to_string(), authority.display().to_string())),
            None => variables.push(("AWS_ALLOW_HTTP".to_string(), "true".to_string())),
        }
        variables
    }
}

/// A bucket of one test.
#[derive(Debug)]
pub struct Bucket {
    /// Its random name.
    pub name: String,
    store: AmazonS3,
}

impl Bucket {
    /// `s3://<bucket>/<key>`.
    pub fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }

    /// Writes an object. The key is taken as it is, with every `%`, `#` and space.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        block_on(self.store.put(&raw_key(key), bytes.to_vec().into())).expect("cannot write an object");
    }

    /// Writes many objects, some at a time.
    pub fn put_all(&self, objects: &[(String, Vec<u8>)]) {
        let puts = objects.iter().map(|(key, bytes)| async move { self.store.put(&raw_key(key), bytes.clone().into()).await });
        block_on(futures::stream::iter(puts).buffer_unordered(16).try_collect::<Vec<_>>()).expect("cannot write objects");
    }

    /// Copies all objects below a prefix into a folder, under their names without the prefix.
    pub fn download(&self, prefix: &str, folder: &Path) {
        for key in self.list(prefix) {
            let path = folder.join(key.trim_start_matches(prefix).trim_start_matches('/'));
            fs::create_dir_all(path.parent().expect("a parent")).expect("cannot make a folder");
            fs::write(path, self.get(&key)).expect("cannot write a file");
        }
    }

    /// Reads an object.
    pub fn get(&self, key: &str) -> Vec<u8> {
        block_on(async { self.store.get(&raw_key(key)).await?.bytes().await }).expect("cannot read an object").to_vec()
    }

    /// The keys below a prefix, sorted.
    pub fn list(&self, prefix: &str) -> Vec<String> {
        let found = block_on(self.store.list(Some(&raw_key(prefix))).map_ok(|object| object.location.to_string()).try_collect::<Vec<_>>());
        let mut keys = found.expect("cannot list a bucket");
        keys.sort();
        keys
    }
}

fn raw_key(key: &str) -> Key {
    Key::parse(key.trim_end_matches('/')).unwrap_or_else(|e| panic!("`{key}` is no key: {e}"))
}

fn client_options(authority: Option<&Path>) -> ClientOptions {
    match authority {
        None => ClientOptions::new().with_allow_http(true),
        Some(path) => {
            let pem = fs::read(path).expect("cannot read the test authority's certificate");
            ClientOptions::new().with_root_certificate(Certificate::from_pem(&pem).expect("the test authority's certificate is PEM"))
        }
    }
}

fn http_client(authority: Option<&Path>) -> HttpClient {
    ReqwestConnector::default().connect(&client_options(authority)).expect("cannot make an HTTP client")
}

/// Sends one request without a body, signed where a credential is given, and returns the status of the answer.
fn request(client: &HttpClient, method: &str, url: &str, credential: Option<&AwsCredential>) -> Result<u16, String> {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.method_mut() = method.parse().expect("a method");
    *request.uri_mut() = url.parse().expect("a URL");
    if let Some(credential) = credential {
        AwsAuthorizer::new(credential, "s3", REGION).authorize(&mut request, None);
    }
    block_on(client.execute(request)).map(|response| response.status().as_u16()).map_err(|e| e.to_string())
}

/// A certificate authority and a server certificate for the loopback address, made with the `openssl` tool.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// Holds `public.crt` and `private.key`, the names MinIO expects.
    pub folder: PathBuf,
    /// The authority's certificate, which clients trust.
    pub authority: PathBuf,
}

impl Certificates {
    /// Makes both in `folder`. TLS libraries refuse an authority's certificate as a server's, hence two.
    ///
    /// # Panics
    /// When `openssl` is missing or fails.
    pub fn make(folder: &Path) -> Self {
        Self::ending(folder, 3650)
    }

    /// The same, whose server's certificate ends in so many days.
    ///
    /// # Panics
    /// As [`Self::make`].
    pub fn ending(folder: &Path, days: u32) -> Self {
        fs::create_dir_all(folder.join("authority")).expect("cannot make a folder");
        fs::write(folder.join("authority/extensions"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
            .expect("cannot write a file");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -batch";
        let steps = [
            format!(
                "req -x509 {key} -keyout authority/ca.key -out authority/ca.crt -days 3650 -subj /CN=baler-tests \
                 -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign"
            ),
            format!("req {key} -keyout private.key -out authority/server.csr -subj /CN=localhost"),
            format!(
                "x509 -req -in authority/server.csr -CA authority/ca.crt -CAkey authority/ca.key -set_serial 1 -out public.crt -days {days} \
                 -extfile authority/extensions"
            ),
        ];
        for step in steps {
            cache::step(Command::new("openssl").args(step.split_whitespace()).current_dir(folder), "the `openssl` tool");
        }
        Self { folder: folder.to_path_buf(), authority: folder.join("authority/ca.crt") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::Scratch;

    #[test]
    fn objects_with_odd_keys_are_kept_over_http_and_https() {
        let _scratch = Scratch::new();
        for server in [Minio::plain(), Minio::tls()] {
            let bucket = server.make_bucket();
            let keys = ["in/100%.txt", "in/a b#c?.txt", "in/grün-名前.txt"];
            for key in keys {
                bucket.put(key, key.as_bytes());
            }
            assert_eq!(bucket.list("in/"), keys);
            assert!(keys.iter().all(|key| bucket.get(key) == key.as_bytes()));
        }
    }
}
