//! Roles, and the file which gives them to tokens and certificates.
//!
//! A line of the file is `<role> <name> <credential>`; what follows a `#` is for people:
//!
//! ```text
//! member fleet   dns:fleet.example.org     # the certificate of scheduler and executors holds this name
//! submit nightly sha256:5e88…              # SHA-256 of a token, in hex
//! read   grafana sha256:9f86…
//! issuer https://login.example.org baler   # whose tokens (JWT) for the audience `baler` are taken
//! submit etl     jwt:sub=f3a1…             # by what such a token claims; the first line that fits counts
//! read   people  jwt:groups=analysts
//! ```
//!
//! A token with a hash is a random text (`openssl rand -hex 32`), so that a plain hash of it tells nobody the token. The file is read again when it
//! changes.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, ServerName};
use sha2::{Digest, Sha256};

use super::oidc::{Claims, Issuer};
use super::reload::Reloaded;
use crate::error::{Error, Result};
use crate::hex::{from_hex, to_hex};

/// What one may do. Each role may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks at jobs, metrics and the dashboard, and runs queries which change nothing.
    Read,
    /// Runs jobs, INSERTs and DDL, and cancels.
    Submit,
    /// Sees settings besides.
    Admin,
    /// Is a scheduler or executor: gives and takes tasks.
    Member,
}

impl Role {
    const NAMES: [(&'static str, Self); 4] =
        [("read", Self::Read), ("submit", Self::Submit), ("admin", Self::Admin), ("member", Self::Member)];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES.iter().find(|(_, role)| role == self).map_or("", |(name, _)| name))
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name in the file, or the beginning of the certificate's SHA-256.
    pub name: String,
    /// Whom the provider of tokens knows by it, where a line is for many.
    pub subject: Option<String>,
    /// What it may do.
    pub role: Role,
    /// When the token of a provider ends, and with it a session which it has opened.
    pub until: Option<SystemTime>,
}

impl Caller {
    /// One of a line, whose credential does not end by itself.
    fn of_line(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), subject: None, role, until: None }
    }
}

/// Who it is, one for each person.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(subject) => write!(f, "{}/{subject}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Who may do what on a server.
#[derive(Debug)]
pub enum Access {
    /// Nobody is asked: the server is plain.
    Everybody,
    /// Whoever has a certificate of the authority may do everything.
    Certificates,
    /// By a file.
    Roles(Roles),
}

/// What a caller shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown<'a> {
    /// Its certificate, which the handshake has proven.
    pub certificate: Option<&'a CertificateDer<'static>>,
    /// Its token, or that of a session.
    pub token: Option<&'a str>,
}

impl Access {
    /// Roles by the lines of `file`.
    ///
    /// # Errors
    /// Config, for a file that cannot be read, and a line that is none.
    pub fn from_file(file: &Path) -> Result<Self> {
        let name = file.display().to_string();
        let entries = Reloaded::new(vec![file.to_path_buf()], move |contents| Entries::read(&name, &contents[0]));
        entries.current()?;
        Ok(Self::Roles(Roles { entries, sessions: Mutex::default() }))
    }

    /// Who shows this; `None` where nobody is asked. A token counts before a certificate.
    ///
    /// Cancel-safe. It waits only for the keys of an issuer, when a token comes whose key is not known.
    ///
    /// # Errors
    /// Why it may not come in.
    pub async fn caller(&self, shown: Shown<'_>) -> Result<Option<Caller>, &'static str> {
        match (self, shown) {
            (Self::Roles(roles), Shown { token: Some(token), .. }) => roles.caller(token).await.map(Some),
            (_, Shown { certificate, .. }) => self.certified(certificate),
        }
    }

    /// Who shows this certificate and no token; `None` where nobody is asked.
    ///
    /// # Errors
    /// Why it may not come in.
    pub fn certified(&self, certificate: Option<&CertificateDer<'static>>) -> Result<Option<Caller>, &'static str> {
        match (self, certificate) {
            (Self::Everybody, _) => Ok(None),
            (Self::Certificates, Some(certificate)) => {
                let digest: [u8; 32] = Sha256::digest(certificate).into();
                Ok(Some(Caller::of_line(format!("certificate {}", to_hex(&digest[..8])), Role::Member)))
            }
            (Self::Certificates, None) => Err("a client certificate is needed here"),
            (Self::Roles(roles), Some(certificate)) => roles.certified(certificate).map(Some),
            (Self::Roles(_), None) => Err("a token or a client certificate is needed here"),
        }
    }

    /// Whether this certificate is a member's.
    pub fn is_member(&self, certificate: Option<&CertificateDer<'static>>) -> bool {
        self.certified(certificate).is_ok_and(|caller| caller.is_none_or(|caller| caller.role == Role::Member))
    }

    /// Lets whoever shows the session's token do what `caller` may, as long as the file says so.
    pub(super) fn remember(&self, session: &str, caller: &Caller) {
        let Self::Roles(roles) = self else { return };
        let mut sessions = roles.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.used.elapsed() < SESSION_IDLE_MAX);
        if sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = sessions.iter().min_by_key(|(_, session)| session.used).map(|(digest, _)| *digest)
        {
            sessions.remove(&oldest);
        }
        sessions.insert(digest_of(session), Session { caller: caller.clone(), used: Instant::now() });
    }
}

type TokenDigest = [u8; 32];

fn digest_of(token: &str) -> TokenDigest {
    Sha256::digest(token).into()
}

/// As long as Flight SQL keeps an idle session, and a little more.
pub(crate) const SESSION_IDLE_MAX: Duration = Duration::from_secs(31 * 60);

/// Sessions whose tokens are known; as many as Flight SQL keeps. Beyond them, the one is forgotten which was not used for the longest.
pub(crate) const SESSIONS_MAX: usize = 1000;

/// Roles by a file, and the sessions which its tokens have opened.
#[derive(Debug)]
pub struct Roles {
    entries: Reloaded<Entries>,
    sessions: Mutex<HashMap<TokenDigest, Session>>,
}

#[derive(Debug)]
struct Session {
    caller: Caller,
    used: Instant,
}

impl Roles {
    fn entries(&self) -> Result<Arc<Entries>, &'static str> {
        self.entries.current().map_err(|_| "the file of roles cannot be read")
    }

    async fn caller(&self, token: &str) -> Result<Caller, &'static str> {
        let entries = self.entries()?;
        let digest = digest_of(token);
        if let Some(caller) = entries.tokens.get(&digest) {
            return Ok(caller.clone());
        }
        if let Some(caller) = self.of_session(&digest) {
            let line = entries.named(&caller.name).ok_or("the token of this session is not valid any more")?;
            return match caller.until {
                Some(until) if until < SystemTime::now() => Err("the token which has opened this session has ended"),
                _ => Ok(Caller { role: line.role, ..caller }),
            };
        }
        match &entries.issuer {
            Some(issuer) if token.contains('.') => entries.claiming(&issuer.claims(token).await?),
            _ => Err("the token is unknown"),
        }
    }

    fn of_session(&self, digest: &TokenDigest) -> Option<Caller> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get_mut(digest)?;
        session.used = Instant::now();
        Some(session.caller.clone())
    }

    fn certified(&self, certificate: &CertificateDer<'static>) -> Result<Caller, &'static str> {
        let entries = self.entries()?;
        let parsed = ParsedCertificate::try_from(certificate).map_err(|_| "the client certificate cannot be read")?;
        let known = entries.certificates.iter().find(|(name, _)| verify_server_name(&parsed, name).is_ok());
        known.map(|(_, caller)| caller.clone()).ok_or("the client certificate holds no name which has a role here")
    }
}

/// The lines of the file.
#[derive(Debug)]
struct Entries {
    tokens: HashMap<TokenDigest, Caller>,
    certificates: Vec<(ServerName<'static>, Caller)>,
    issuer: Option<Issuer>,
    /// Name and value of a claim, and who has it.
    claims: Vec<(String, String, Caller)>,
}

impl Entries {
    fn read(file: &str, content: &[u8]) -> Result<Self> {
        let mut entries = Self { tokens: HashMap::new(), certificates: Vec::new(), issuer: None, claims: Vec::new() };
        let text = std::str::from_utf8(content).map_err(|e| Error::config(format!("{file} is no text")).with_source(e))?;
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<_> = line.split_whitespace().collect();
            if words.is_empty() {
                continue;
            }
            entries.add(&words).map_err(|why| {
                // Never the line itself: it may hold what somebody took for a hash.
                Error::config(format!(
                    "{file}, line {}: {why}; write `<role> <name> sha256:<hash of a token>`, `… dns:<name>` or `… jwt:<claim>=<value>`, or \
                     `issuer <URL> <audience>`",
                    number + 1
                ))
            })?;
        }
        if entries.issuer.is_none() && !entries.claims.is_empty() {
            return Err(Error::config(format!(
                "{file} gives roles to claims of tokens, but names nobody who makes them: add `issuer <URL> <audience>`"
            )));
        }
        Ok(entries)
    }

    fn add(&mut self, words: &[&str]) -> Result<(), &'static str> {
        let &[role, name, credential] = words else { return Err("there are not three words") };
        if role == "issuer" {
            // Of two, each could give a token the claims of the other's people.
            return match self.issuer.replace(Issuer::new(name, credential)?) {
                Some(_) => Err("there is an issuer already"),
                None => Ok(()),
            };
        }
        let (_, role) = Role::NAMES.iter().find(|(name, _)| *name == role).ok_or("the role is none of read, submit, admin, member")?;
        let caller = Caller::of_line(name, *role);
        if self.named(name).is_some_and(|known| known.role != *role) {
            return Err("the name has another role already");
        }
        if *role == Role::Member && ["sha256:", "jwt:"].iter().any(|token| credential.starts_with(token)) {
            return Err("a member is known by its certificate, not by a token");
        }
        if let Some(hash) = credential.strip_prefix("sha256:") {
            let digest = from_hex(hash).and_then(|digest| TokenDigest::try_from(digest).ok()).ok_or("this is no SHA-256 in hex")?;
            self.tokens.insert(digest, caller);
        } else if let Some(name) = credential.strip_prefix("dns:") {
            let name = ServerName::try_from(name.to_string()).map_err(|_| "this is no DNS name")?;
            self.certificates.push((name, caller));
        } else if let Some(claim) = credential.strip_prefix("jwt:") {
            let (claim, value) = claim.split_once('=').filter(|(claim, _)| !claim.is_empty()).ok_or("this is no `<claim>=<value>`")?;
            self.claims.push((claim.to_string(), value.to_string(), caller));
        } else {
            return Err("the credential is of no known sort");
        }
        Ok(())
    }

    fn named(&self, name: &str) -> Option<Caller> {
        let certified = self.certificates.iter().map(|(_, caller)| caller);
        let claiming = self.claims.iter().map(|(.., caller)| caller);
        self.tokens.values().chain(certified).chain(claiming).find(|caller| caller.name == name).cloned()
    }

    /// Who has these claims.
    fn claiming(&self, claims: &Claims) -> Result<Caller, &'static str> {
        let line = self.claims.iter().find(|(claim, value, _)| claims.hold(claim, value));
        let (_, _, caller) = line.ok_or("nothing that the token claims has a role here")?;
        Ok(Caller { subject: claims.subject().map(str::to_string), until: Some(claims.until), ..caller.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of `hush`.
    fn hash() -> String {
        to_hex(digest_of("hush"))
    }

    fn access(text: &str) -> Result<Access> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("roles");
        std::fs::write(&file, text).unwrap();
        Access::from_file(&file)
    }

    #[tokio::test]
    async fn tokens_and_the_sessions_they_open_have_the_role_of_their_line() {
        let access = access(&format!("# people\n\nread grafana sha256:{}  # a dashboard\n", hash())).unwrap();
        let shown = |token| Shown { certificate: None, token };
        let grafana = access.caller(shown(Some("hush"))).await.unwrap().unwrap();
        assert_eq!(grafana, Caller::of_line("grafana", Role::Read));
        assert!(access.caller(shown(Some("Hush"))).await.unwrap_err().contains("unknown"));
        assert!(access.caller(shown(None)).await.unwrap_err().contains("needed"));
        access.remember("session", &grafana);
        assert_eq!(access.caller(shown(Some("session"))).await.unwrap(), Some(grafana.clone()));
        // Whoever is not in the file any more has no session either, nor whose token has ended.
        access.remember("other", &Caller::of_line("gone", Role::Admin));
        assert!(access.caller(shown(Some("other"))).await.unwrap_err().contains("not valid"));
        access.remember("late", &Caller { until: Some(SystemTime::now() - Duration::from_secs(1)), ..grafana });
        assert!(access.caller(shown(Some("late"))).await.unwrap_err().contains("has ended"));
        assert!(!access.is_member(None));
    }

    #[test]
    fn a_line_that_is_none_is_named_and_not_shown() {
        for (line, why) in [
            ("read grafana hunter2", "no known sort"),
            ("reader grafana sha256:hunter2", "role is none"),
            ("read grafana sha256:hunter2", "no SHA-256"),
            ("read grafana dns:hunter2..", "no DNS name"),
            ("grafana sha256:hunter2", "three words"),
            (&format!("member hunter2 sha256:{}", hash()), "certificate, not by a token"),
            (&format!("read hunter2 dns:a.b\nadmin hunter2 sha256:{}", hash()), "another role"),
            ("read hunter2 jwt:sub", "<claim>=<value>"),
            ("member fleet jwt:sub=hunter2", "certificate, not by a token"),
            ("issuer http://hunter2.example baler", "https URL"),
            ("issuer hunter2 baler", "no URL"),
            ("issuer https://a.example baler\nissuer https://b.example hunter2", "an issuer already"),
        ] {
            let error = access(line).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(", line ") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn roles_are_in_order_and_open_and_certified_servers_need_no_file() {
        assert!(Role::Read < Role::Submit && Role::Submit < Role::Admin && Role::Admin < Role::Member);
        assert_eq!(Access::Everybody.certified(None), Ok(None));
        assert!(Access::Certificates.certified(None).is_err());
        let error = access("read people jwt:groups=hunter2").unwrap_err().to_string();
        assert!(error.contains("issuer <URL> <audience>") && !error.contains("hunter2"), "{error}");
        let certificate = CertificateDer::from(b"proven".to_vec());
        assert!(Access::Certificates.is_member(Some(&certificate)) && !Access::Certificates.is_member(None));
    }
}
