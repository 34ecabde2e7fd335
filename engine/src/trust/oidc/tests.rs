use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://login.example.org";

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of these parts, signed by `sign`.
fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", text(header.to_string()), text(claims.to_string()));
    let signed = text(sign(message.as_bytes()));
    format!("{message}.{signed}")
}

fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": ["other", "baler"], "exp": now() + 600, "sub": "ada", "groups": ["analysts"]})
}

/// A provider whose keys are known, without one that answers; and what signs with its two keys.
struct Provider {
    issuer: Issuer,
    curve: EcdsaKeyPair,
    edwards: Ed25519KeyPair,
}

impl Provider {
    fn new() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let curve = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap();
        let edwards = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
        let (x, y) = curve.public_key().as_ref()[1..].split_at(32);
        let keys = [
            json!({"kty": "EC", "crv": "P-256", "kid": "curve", "alg": "ES256", "x": text(x), "y": text(y)}),
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "edwards", "x": text(edwards.public_key())}),
            // A shared secret among public keys: nobody should publish one, and nothing is taken by it.
            json!({"kty": "oct", "kid": "shared", "k": text("hush")}),
        ];
        let issuer = Issuer::new(ISSUER, "baler").unwrap();
        let known = keys.into_iter().map(|key| serde_json::from_value(key).unwrap()).collect();
        // Whoever asked just now asks nobody again.
        *issuer.keys() = Keys { known, fetched: Some(Instant::now()), asked: Some(Instant::now()) };
        Self { issuer, curve, edwards }
    }

    fn by_curve(&self, claims: &Value) -> String {
        let sign = |message: &[u8]| self.curve.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        token(&json!({"alg": "ES256", "kid": "curve"}), claims, sign)
    }

    async fn refusal(&self, token: &str) -> &'static str {
        self.issuer.claims(token).await.unwrap_err()
    }
}

#[tokio::test]
async fn a_token_which_the_provider_has_signed_says_who_it_is_and_until_when() {
    let provider = Provider::new();
    let known = provider.issuer.claims(&provider.by_curve(&claims())).await.unwrap();
    assert_eq!(known.subject(), Some("ada"));
    assert!(known.hold("groups", "analysts") && !known.hold("groups", "analyst") && !known.hold("aud", "ada"));
    let left = known.until.duration_since(SystemTime::now()).unwrap();
    assert!(left > Duration::from_secs(590) && left < Duration::from_secs(600) + CLOCK_SKEW_MAX + Duration::from_secs(1), "{left:?}");
    let header = json!({"alg": "EdDSA", "kid": "edwards"});
    provider.issuer.claims(&token(&header, &claims(), |message| provider.edwards.sign(message).as_ref().to_vec())).await.unwrap();
}

#[tokio::test]
async fn what_the_provider_has_not_signed_is_not_taken() {
    let provider = Provider::new();
    let good = provider.by_curve(&claims());
    let [header, _, signed] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let mut more = claims();
    more["groups"] = json!(["admins"]);
    let changed = format!("{header}.{}.{signed}", text(more.to_string()));
    assert!(provider.refusal(&changed).await.contains("signature"));
    assert!(provider.refusal(&format!("{header}.{}.", text(claims().to_string()))).await.contains("signature"));
    let by_none = token(&json!({"alg": "none", "kid": "curve"}), &claims(), |_| Vec::new());
    assert!(provider.refusal(&by_none).await.contains("no JWT"));
    // The well-known confusion: a public key taken as a shared secret, and a secret which was published by mistake.
    let by_secret = |kid: &str, secret: &[u8]| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        token(&json!({"alg": "HS256", "kid": kid}), &claims(), |message| ring::hmac::sign(&key, message).as_ref().to_vec())
    };
    assert!(provider.refusal(&by_secret("edwards", provider.edwards.public_key().as_ref())).await.contains("not taken here"));
    assert!(provider.refusal(&by_secret("curve", provider.curve.public_key().as_ref())).await.contains("another algorithm"));
    assert!(provider.refusal(&by_secret("shared", b"hush")).await.contains("not taken here"));
    let unknown = |header: Value| token(&header, &claims(), |_| vec![0; 64]);
    assert!(provider.refusal(&unknown(json!({"alg": "ES256", "kid": "forged"}))).await.contains("no key"));
    assert!(provider.refusal(&unknown(json!({"alg": "ES256"}))).await.contains("no key"), "which key is meant is in doubt");
    for broken in ["", ".", "..", "a.b.c", "ey.ey.ey", &good[1..], &format!("{good}.{good}")] {
        provider.refusal(broken).await;
    }
}

#[tokio::test]
async fn a_token_counts_for_its_time_its_audience_and_its_issuer() {
    let provider = Provider::new();
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        provider.by_curve(&claims)
    };
    for (name, value, why) in [
        ("exp", json!(now() - CLOCK_SKEW_MAX.as_secs() - 5), "has ended"),
        ("exp", json!("soon"), "lacks"),
        ("exp", Value::Null, "lacks"),
        ("nbf", json!(now() + CLOCK_SKEW_MAX.as_secs() + 60), "not valid yet"),
        ("aud", json!("other"), "another audience"),
        ("aud", Value::Null, "lacks"),
        ("iss", json!("https://login.example.org.evil.example"), "another issuer"),
        ("iss", Value::Null, "lacks"),
    ] {
        let refused = provider.refusal(&with(name, value.clone())).await;
        assert!(refused.contains(why), "{name} {value}: {refused}");
    }
    // Clocks differ a little.
    provider.issuer.claims(&with("exp", json!(now() - 10))).await.unwrap();
    provider.issuer.claims(&with("nbf", json!(now() + 10))).await.unwrap();
}

#[tokio::test]
async fn keys_which_nobody_could_confirm_for_long_are_worth_nothing() {
    let provider = Provider::new();
    let fetched = |age: Duration| provider.issuer.keys().fetched = Some(Instant::now().checked_sub(age).unwrap());
    fetched(KEYS_AGE_MAX + Duration::from_secs(1));
    provider.issuer.claims(&provider.by_curve(&claims())).await.unwrap();
    fetched(KEYS_STALE_MAX + Duration::from_secs(1));
    assert!(provider.refusal(&provider.by_curve(&claims())).await.contains("no key"));
}

#[test]
fn claims_of_claims_are_found() {
    let claims = json!({"realm_access": {"roles": ["etl"]}, "a.b": "whole", "a": {"b": "nested"}, "admin": true});
    let Value::Object(claims) = claims else { panic!("an object") };
    let claims = Claims { claims, until: SystemTime::now() };
    assert!(claims.hold("realm_access.roles", "etl") && claims.hold("a.b", "whole"));
    for (name, value) in [("a.b", "nested"), ("realm_access", "roles"), ("realm_access.roles.etl", ""), ("admin", "true"), ("none", "")] {
        assert!(!claims.hold(name, value), "{name}");
    }
}
