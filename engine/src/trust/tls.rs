//! This process's certificate, key and authority, as client and as server, as their files are now.
//!
//! A new connection uses the files as they are when it is made; one that is open keeps what it was made with. tonic keeps a connection's
//! settings for when it has to be made again, so a channel that is cut after its certificate ended stays cut: an executor then starts anew, and a
//! driver connects for each wave.

use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ballista_core::extension::EndpointOverrideFn;
use ballista_core::utils::{GrpcClientConfig, create_grpc_client_endpoint};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::reload::Reloaded;
use crate::error::{Error, Result};
use crate::telemetry::host::end_of;

/// A REST call without an answer for this long has failed.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities which signed the others' certificates (PEM).
    pub ca: PathBuf,
    /// This process's certificate with its chain, and its private key (PEM). Servers need both, clients do where servers ask for them.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name which a server's certificate has to hold where it is known by its IP address alone, as executors are; without one, the address.
    pub fleet_name: Option<String>,
}

/// Certificate, key and authority of this process.
#[derive(Debug)]
pub struct Tls {
    fleet_name: Option<String>,
    files: Reloaded<Loaded>,
}

/// What the files hold now.
pub struct Loaded {
    client: ClientTlsConfig,
    http: reqwest::Client,
    server: Option<ServerSides>,
}

/// A server's two ways to ask for a client's certificate.
#[derive(Clone)]
pub struct ServerSides {
    /// Whoever has none may come in, and is asked who it is by the [guard](super::guard).
    pub(super) asks: Arc<ServerConfig>,
    /// Whoever has none stays outside.
    pub(super) demands: Arc<ServerConfig>,
}

impl fmt::Debug for ServerSides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSides").finish_non_exhaustive()
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").finish_non_exhaustive()
    }
}

impl Loaded {
    /// The server's side, if there is a certificate.
    pub(super) fn server(&self) -> Option<&ServerSides> {
        self.server.as_ref()
    }
}

impl Tls {
    /// Takes files, which are read when they are first needed.
    pub fn new(files: TlsFiles) -> Self {
        let TlsFiles { ca, identity, fleet_name } = files;
        let mut paths = vec![ca];
        paths.extend(identity.into_iter().flat_map(|(cert, key)| [cert, key]));
        let named = paths.clone();
        Self { fleet_name, files: Reloaded::new(paths, move |contents| load(&named, contents)) }
    }

    /// What the files hold now.
    ///
    /// # Errors
    /// Config, when they cannot be read, do not belong together, or this process's certificate has ended.
    pub fn current(&self) -> Result<Arc<Loaded>> {
        self.files.current()
    }

    /// Whether this process has a certificate of its own, and not only an authority.
    ///
    /// # Errors
    /// As [`Self::current`].
    pub fn has_certificate(&self) -> Result<bool> {
        Ok(self.current()?.server().is_some())
    }

    /// A client for REST calls to servers of the authority.
    ///
    /// # Errors
    /// As [`Self::current`].
    pub fn http(&self) -> Result<reqwest::Client> {
        Ok(self.current()?.http.clone())
    }

    /// A connection as Ballista would make it, but by TLS. Its addresses say `http:` for schedulers and executors alike, and an
    /// endpoint's scheme decides in tonic, so such a one is made anew.
    fn secure(&self, plain: Endpoint) -> Result<Endpoint, Box<dyn StdError + Send + Sync>> {
        let uri = plain.uri().clone();
        let endpoint = if uri.scheme_str() == Some("https") {
            plain
        } else {
            let secure = uri.to_string().replacen("http://", "https://", 1);
            let endpoint = create_grpc_client_endpoint(secure, Some(&GrpcClientConfig::default()))?;
            match plain.get_connect_timeout() {
                Some(timeout) => endpoint.connect_timeout(timeout),
                None => endpoint,
            }
        };
        let mut config = self.current()?.client.clone();
        let is_address = uri.host().is_some_and(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok());
        if let Some(name) = self.fleet_name.as_ref().filter(|_| is_address) {
            config = config.domain_name(name);
        }
        Ok(endpoint.tls_config(config)?)
    }

    /// What Ballista passes each new connection through: that of a client to the scheduler, of the scheduler to executors, of
    /// executors to each other.
    pub fn endpoint_override(self: &Arc<Self>) -> EndpointOverrideFn {
        let tls = Arc::clone(self);
        Arc::new(move |endpoint| tls.secure(endpoint))
    }
}

/// Makes both sides of the contents of `files`: authority, and certificate and key if there are any.
fn load(files: &[PathBuf], contents: &[Vec<u8>]) -> Result<Loaded> {
    let bad = |index: usize, what: &str| Error::config(format!("{}: {what}", files[index].display()));
    let certificates = |index: usize| -> Result<Vec<CertificateDer<'static>>> {
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents[index]).collect();
        let parsed = parsed.map_err(|e| bad(index, "no file of certificates (PEM)").with_source(e))?;
        if parsed.is_empty() { Err(bad(index, "holds no certificate")) } else { Ok(parsed) }
    };
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(0)? {
        roots.add(certificate).map_err(|e| bad(0, "holds a certificate which is no authority's").with_source(e))?;
    }
    let mut client = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&contents[0]));
    let mut server = None;
    let mut identity = None;
    if let [_, cert, key] = contents {
        let chain = certificates(1)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Some(end) = chain.first().and_then(|certificate| end_of(certificate)).filter(|end| *end <= now.cast_signed()) {
            let end = chrono::DateTime::from_timestamp(end, 0).map(|end| end.to_rfc3339()).unwrap_or_default();
            return Err(bad(1, &format!("this certificate ended at {end}; renew it")));
        }
        let private = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad(2, "holds no private key (PEM)").with_source(e))?;
        server = Some(server_sides(&provider, roots.clone(), &chain, &private).map_err(|e| {
            let name = |index: usize| files[index].display();
            Error::config(format!("{} and {} cannot be used together: {e}", name(1), name(2)))
        })?);
        client = client.identity(Identity::from_pem(cert, key));
        identity = Some((chain, private));
    }
    let http = client_side(provider, roots, identity).map_err(|e| bad(0, &format!("cannot be used: {e}")))?;
    let http = reqwest::Client::builder().timeout(CALL_TIMEOUT).no_proxy().https_only(true).use_preconfigured_tls(http).build();
    let http = http.map_err(|e| Error::internal("cannot make an HTTP client").with_source(e))?;
    Ok(Loaded { client, http, server })
}

fn server_sides(
    provider: &Arc<CryptoProvider>,
    roots: RootCertStore,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<ServerSides, Box<dyn StdError + Send + Sync>> {
    let roots = Arc::new(roots);
    let verifier = || WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
    let side = |verifier| -> Result<_, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()?;
        let mut config = builder.with_client_cert_verifier(verifier).with_single_cert(chain.to_vec(), key.clone_key())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    };
    Ok(ServerSides { asks: side(verifier().allow_unauthenticated().build()?)?, demands: side(verifier().build()?)? })
}

type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_side(provider: Arc<CryptoProvider>, roots: RootCertStore, identity: Option<Chain>) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_root_certificates(roots);
    Ok(match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    })
}
