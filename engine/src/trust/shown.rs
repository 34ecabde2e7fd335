//! The certificate which a server shows, whoever has signed it: for `baler check`, which tells when it ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::host::end_of;

/// A server without an answer for this long is left.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// When the certificate of the server at this place ends, in seconds since 1970. Nothing is sent but the handshake.
///
/// # Errors
/// Unreachable, when nobody answers there by TLS.
pub(crate) async fn shown_end(host: &str, port: u16) -> Result<i64> {
    let unreachable = |what: &str| Error::new(ErrorKind::Unreachable, format!("{host}:{port} {what}"));
    let provider = Arc::new(ring::default_provider());
    let seen = Arc::new(Seen { provider: Arc::clone(&provider), end: Mutex::new(None) });
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|e| Error::internal("no version of TLS is known").with_source(e))?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::clone(&seen) as _).with_no_client_auth();
    let name = ServerName::try_from(host.to_string()).map_err(|e| unreachable("has no name for TLS").with_source(e))?;
    let handshake = async {
        let stream = TcpStream::connect((host, port)).await?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let ended = timeout(LOOK_TIMEOUT, handshake).await;
    // A server which then wants a certificate of ours has shown its own.
    let end = *seen.end.lock().unwrap_or_else(PoisonError::into_inner);
    match (end, ended) {
        (Some(end), _) => Ok(end),
        (None, Ok(Err(error))) => Err(unreachable("shows no certificate").with_source(error)),
        (None, _) => Err(unreachable("shows no certificate that has an end")),
    }
}

/// Notes the end of the certificate which it is asked about, and lets every one pass.
#[derive(Debug)]
struct Seen {
    provider: Arc<CryptoProvider>,
    end: Mutex<Option<i64>>,
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = end_of(certificate);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
