//! Tokens of an OpenID Connect provider: JWTs ([RFC 7519]), signed by a key which the provider publishes ([OpenID Connect Discovery 1.0]).
//!
//! Keys are fetched when a token names one that is not known, and anew when they are an hour old; until then a token
//! whose key is known waits for nobody. Only signatures with public keys count: a token "signed" with nothing, or with a shared secret, is none.
//!
//! [RFC 7519]: https://www.rfc-editor.org/rfc/rfc7519
//! [OpenID Connect Discovery 1.0]: https://openid.net/specs/openid-connect-discovery-1_0.html

use std::fmt;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind as JwtError;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Header, Validation, decode, decode_header};
use reqwest::redirect::Policy;
use ring::signature as ring_signature;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::is_loopback;
use crate::error::{Error, Result};

/// Age at which keys are fetched anew, so that one which the provider has withdrawn is not valid for ever.
pub(crate) const KEYS_AGE_MAX: Duration = Duration::from_secs(60 * 60);

/// Age until which keys count while the provider cannot be asked.
pub(crate) const KEYS_STALE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Time between two questions for keys, whatever tokens come.
pub(crate) const KEYS_ASKED_EVERY: Duration = Duration::from_secs(10);

/// A question to the provider.
pub(crate) const PROVIDER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer of the provider.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Difference between the clocks of provider and server.
pub(crate) const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Who signs tokens, and for whom they have to be meant.
pub(super) struct Issuer {
    url: String,
    audience: String,
    http: reqwest::Client,
    keys: Mutex<Keys>,
    /// Held by whoever asks the provider.
    asking: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("url", &self.url).field("audience", &self.audience).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Keys {
    known: Vec<Jwk>,
    fetched: Option<Instant>,
    asked: Option<Instant>,
}

impl Keys {
    /// The key which has signed, if keys of at most this age hold it.
    fn find(&self, header: &Header, age: Duration) -> Option<Jwk> {
        if self.fetched.is_none_or(|fetched| fetched.elapsed() > age) {
            return None;
        }
        match &header.kid {
            Some(kid) => self.known.iter().find(|key| key.common.key_id.as_ref() == Some(kid)).cloned(),
            // Which one is meant has to be beyond doubt.
            None if self.known.len() == 1 => self.known.first().cloned(),
            None => None,
        }
    }
}

/// What a token says, and until when.
#[derive(Debug)]
pub(super) struct Claims {
    claims: serde_json::Map<String, Value>,
    /// When it ends.
    pub(super) until: SystemTime,
}

impl Claims {
    /// Whether the claim is this text, or a list that holds it. A dot leads into a claim of claims (`realm_access.roles`), unless a claim has
    /// the whole name.
    pub(super) fn hold(&self, name: &str, expected: &str) -> bool {
        let nested = || {
            let mut steps = name.split('.');
            let first = self.claims.get(steps.next()?)?;
            steps.try_fold(first, |value, step| value.get(step))
        };
        match self.claims.get(name).or_else(nested) {
            Some(Value::String(text)) => text == expected,
            Some(Value::Array(values)) => values.iter().any(|value| value.as_str() == Some(expected)),
            _ => false,
        }
    }

    /// Whom the provider knows by this token.
    pub(super) fn subject(&self) -> Option<&str> {
        self.claims.get("sub").and_then(Value::as_str)
    }
}

impl Issuer {
    /// Tokens of the provider at `url` (as it writes itself in them) for `audience`. Nothing is fetched yet.
    ///
    /// # Errors
    /// Why the URL cannot be trusted.
    pub(super) fn new(url: &str, audience: &str) -> Result<Self, &'static str> {
        let parsed = Url::parse(url).map_err(|_| "the issuer is no URL")?;
        let is_here = parsed.host_str().is_some_and(|host| host == "localhost" || is_loopback(host));
        if parsed.scheme() != "https" && !(parsed.scheme() == "http" && is_here) {
            return Err("the issuer has to be an https URL: its keys decide who comes in");
        }
        trust_ring();
        let http = reqwest::Client::builder().timeout(PROVIDER_TIMEOUT).redirect(Policy::none()).build();
        let http = http.map_err(|_| "an HTTP client for the issuer cannot be made")?;
        Ok(Self {
            url: url.to_string(),
            audience: audience.to_string(),
            http,
            keys: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        })
    }

    /// What the token says, if the provider has signed it, for this audience, and it is valid now.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) async fn claims(&self, token: &str) -> Result<Claims, &'static str> {
        let header = decode_header(token).map_err(|_| "the token is unknown, and no JWT that can be read")?;
        let key = self.key(&header).await?;
        if key.common.key_algorithm.is_some_and(|of_key| of_key != KeyAlgorithm::from(header.alg)) {
            return Err("the token names another algorithm than its key");
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = CLOCK_SKEW_MAX.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.url]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let key = DecodingKey::from_jwk(&key).map_err(|_| "the key which has signed the token cannot be used")?;
        let claims = decode::<serde_json::Map<String, Value>>(token, &key, &validation).map_err(|e| why(e.kind()))?.claims;
        let seconds = claims.get("exp").and_then(Value::as_f64).filter(|seconds| (0.0..1e11).contains(seconds));
        let seconds = seconds.ok_or("the token does not say when it ends")?;
        Ok(Claims { claims, until: SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds) + CLOCK_SKEW_MAX })
    }

    async fn key(&self, header: &Header) -> Result<Jwk, &'static str> {
        if let Some(key) = self.keys().find(header, KEYS_AGE_MAX) {
            return Ok(key);
        }
        let _turn = self.asking.lock().await;
        if let Some(key) = self.keys().find(header, KEYS_AGE_MAX) {
            return Ok(key);
        }
        if self.keys().asked.is_none_or(|asked| asked.elapsed() >= KEYS_ASKED_EVERY) {
            self.keys().asked = Some(Instant::now());
            match self.fetch().await {
                Ok(known) => {
                    let mut keys = self.keys();
                    (keys.known, keys.fetched) = (known, Some(Instant::now()));
                }
                Err(error) => tracing::warn!(issuer = %self.url, %error, "the keys of the issuer of tokens cannot be fetched"),
            }
        }
        self.keys().find(header, KEYS_STALE_MAX).ok_or("no key that the issuer publishes has signed the token")
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> Result<Vec<Jwk>> {
        #[derive(serde::Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        #[derive(serde::Deserialize)]
        struct Published {
            keys: Vec<Value>,
        }
        let discovery: Discovery = self.get(&format!("{}{DISCOVERY}", self.url.trim_end_matches('/'))).await?;
        if discovery.issuer != self.url {
            return Err(Error::config(format!("it calls itself `{}`: write that in the file of roles", discovery.issuer)));
        }
        let keys_url = Url::parse(&discovery.jwks_uri).map_err(|e| Error::config("its jwks_uri is no URL").with_source(e))?;
        if self.url.starts_with("https:") && keys_url.scheme() != "https" {
            return Err(Error::config("its jwks_uri is not https"));
        }
        let published: Published = self.get(keys_url.as_str()).await?;
        // One of a kind that nobody here knows does not spoil the others.
        let keys = published.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        Ok(keys.filter(|key| key.common.public_key_use != Some(PublicKeyUse::Encryption)).collect())
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T> {
        let failed = |e: reqwest::Error| Error::config(format!("{url} does not answer")).with_source(e);
        let mut answer = self.http.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
        let mut body = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&bytes);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(Error::config(format!("{url} answers with more than {ANSWER_BYTES_MAX} bytes")));
            }
        }
        serde_json::from_slice(&body).map_err(|e| Error::config(format!("{url} answers with something else")).with_source(e))
    }
}

/// Which of the reasons it was, without a word of the token.
fn why(error: &JwtError) -> &'static str {
    match error {
        JwtError::ExpiredSignature => "the token has ended",
        JwtError::ImmatureSignature => "the token is not valid yet",
        JwtError::InvalidIssuer => "the token is of another issuer",
        JwtError::InvalidAudience => "the token is meant for another audience",
        JwtError::MissingRequiredClaim(_) => "the token lacks one of the claims exp, iss, aud",
        JwtError::InvalidSignature => "the signature of the token is wrong",
        JwtError::InvalidAlgorithm | JwtError::UnsupportedAlgorithm => "the token is signed in a way which is not taken here",
        _ => "the token cannot be read",
    }
}

/// Signatures are checked by the library which checks those of certificates.
fn trust_ring() {
    static RING: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| Err(JwtError::UnsupportedAlgorithm.into()),
        verifier_factory: |algorithm, key| Ok(Box::new(RingVerifier::new(*algorithm, key)?)),
        key_utils: KeyUtils::new_unimplemented(),
    };
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if RING.install_default().is_err() {
            tracing::debug!("this program checks tokens by a library of its own choice");
        }
    });
}

struct RingVerifier {
    algorithm: Algorithm,
    check: Check,
    key: DecodingKey,
}

#[derive(Clone, Copy)]
enum Check {
    Rsa(&'static ring_signature::RsaParameters),
    Bytes(&'static dyn ring_signature::VerificationAlgorithm),
}

impl RingVerifier {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> jsonwebtoken::errors::Result<Self> {
        let check = match algorithm {
            Algorithm::RS256 => Check::Rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => Check::Rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => Check::Rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => Check::Rsa(&ring_signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => Check::Rsa(&ring_signature::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => Check::Rsa(&ring_signature::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => Check::Bytes(&ring_signature::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => Check::Bytes(&ring_signature::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => Check::Bytes(&ring_signature::ED25519),
            // Above all those of shared secrets: whoever knows a public key could sign with it.
            _ => return Err(JwtError::UnsupportedAlgorithm.into()),
        };
        if !key.family().algorithms().contains(&algorithm) {
            return Err(JwtError::InvalidAlgorithm.into());
        }
        Ok(Self { algorithm, check, key: key.clone() })
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), signature::Error> {
        let checked = match (self.check, self.key.kind()) {
            (Check::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                ring_signature::RsaPublicKeyComponents { n, e }.verify(parameters, message, signed)
            }
            (Check::Bytes(algorithm), DecodingKeyKind::SecretOrDer(key)) => {
                ring_signature::UnparsedPublicKey::new(algorithm, key).verify(message, signed)
            }
            _ => return Err(signature::Error::new()),
        };
        checked.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests;
