//! Roles, and the file which gives them to tokens and certificates.
//!
//! A line of the file is `<role> <name> <credential>`; what follows a `#` is for people:
//!
//! ```text
//! member fleet   dns:fleet.example.org     # the certificate of scheduler and executors holds this name
//! submit nightly sha256:5e88…              # SHA-256 of a token, in hex
//! read   grafana sha256:9f86…
//! ```
//!
//! A token is a random text (`openssl rand -hex 32`), so that a plain hash of it tells nobody the token. The file is read again when it changes.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, ServerName};
use sha2::{Digest, Sha256};

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
    /// What it may do.
    pub role: Role,
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
    /// # Errors
    /// Why it may not come in.
    pub fn caller(&self, shown: Shown<'_>) -> Result<Option<Caller>, &'static str> {
        match (self, shown) {
            (Self::Everybody, _) => Ok(None),
            (Self::Certificates, Shown { certificate: Some(certificate), .. }) => {
                let digest: [u8; 32] = Sha256::digest(certificate).into();
                Ok(Some(Caller { name: format!("certificate {}", to_hex(&digest[..8])), role: Role::Member }))
            }
            (Self::Certificates, _) => Err("a client certificate is needed here"),
            (Self::Roles(roles), shown) => roles.caller(shown).map(Some),
        }
    }

    /// Whether this certificate is a member's.
    pub fn is_member(&self, certificate: Option<&CertificateDer<'static>>) -> bool {
        self.caller(Shown { certificate, token: None }).is_ok_and(|caller| caller.is_none_or(|caller| caller.role == Role::Member))
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
        sessions.insert(digest_of(session), Session { name: caller.name.clone(), used: Instant::now() });
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
    name: String,
    used: Instant,
}

impl Roles {
    fn caller(&self, shown: Shown<'_>) -> Result<Caller, &'static str> {
        let entries = self.entries.current().map_err(|_| "the file of roles cannot be read")?;
        if let Some(token) = shown.token {
            let digest = digest_of(token);
            if let Some(caller) = entries.tokens.get(&digest) {
                return Ok(caller.clone());
            }
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            let session = sessions.get_mut(&digest).ok_or("the token is unknown")?;
            session.used = Instant::now();
            return entries.named(&session.name).ok_or("the token of this session is not valid any more");
        }
        let Some(certificate) = shown.certificate else { return Err("a token or a client certificate is needed here") };
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
}

impl Entries {
    fn read(file: &str, content: &[u8]) -> Result<Self> {
        let mut entries = Self { tokens: HashMap::new(), certificates: Vec::new() };
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
                    "{file}, line {}: {why}; write `<role> <name> sha256:<hash of a token>` or `… dns:<name>`",
                    number + 1
                ))
            })?;
        }
        Ok(entries)
    }

    fn add(&mut self, words: &[&str]) -> Result<(), &'static str> {
        let &[role, name, credential] = words else { return Err("there are not three words") };
        let (_, role) = Role::NAMES.iter().find(|(name, _)| *name == role).ok_or("the role is none of read, submit, admin, member")?;
        let caller = Caller { name: name.to_string(), role: *role };
        if self.named(name).is_some_and(|known| known.role != *role) {
            return Err("the name has another role already");
        }
        if let Some(hash) = credential.strip_prefix("sha256:") {
            if *role == Role::Member {
                return Err("a member is known by its certificate, not by a token");
            }
            let digest = from_hex(hash).and_then(|digest| TokenDigest::try_from(digest).ok()).ok_or("this is no SHA-256 in hex")?;
            self.tokens.insert(digest, caller);
        } else if let Some(name) = credential.strip_prefix("dns:") {
            let name = ServerName::try_from(name.to_string()).map_err(|_| "this is no DNS name")?;
            self.certificates.push((name, caller));
        } else {
            return Err("the credential is of no known sort");
        }
        Ok(())
    }

    fn named(&self, name: &str) -> Option<Caller> {
        let certified = self.certificates.iter().map(|(_, caller)| caller);
        self.tokens.values().chain(certified).find(|caller| caller.name == name).cloned()
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

    #[test]
    fn tokens_and_the_sessions_they_open_have_the_role_of_their_line() {
        let access = access(&format!("# people\n\nread grafana sha256:{}  # a dashboard\n", hash())).unwrap();
        let shown = |token| Shown { certificate: None, token };
        let grafana = access.caller(shown(Some("hush"))).unwrap().unwrap();
        assert_eq!(grafana, Caller { name: "grafana".to_string(), role: Role::Read });
        assert!(access.caller(shown(Some("Hush"))).unwrap_err().contains("unknown"));
        assert!(access.caller(shown(None)).unwrap_err().contains("needed"));
        access.remember("session", &grafana);
        assert_eq!(access.caller(shown(Some("session"))).unwrap(), Some(grafana));
        // Whoever is not in the file any more has no session either.
        access.remember("other", &Caller { name: "gone".to_string(), role: Role::Admin });
        assert!(access.caller(shown(Some("other"))).unwrap_err().contains("not valid"));
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
        ] {
            let error = access(line).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(", line ") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn roles_are_in_order_and_open_and_certified_servers_need_no_file() {
        assert!(Role::Read < Role::Submit && Role::Submit < Role::Admin && Role::Admin < Role::Member);
        assert_eq!(Access::Everybody.caller(Shown::default()), Ok(None));
        assert!(Access::Certificates.caller(Shown::default()).is_err());
        let certificate = CertificateDer::from(b"proven".to_vec());
        assert!(Access::Certificates.is_member(Some(&certificate)) && !Access::Certificates.is_member(None));
    }
}
