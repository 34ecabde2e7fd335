//! Who may talk to whom: TLS with an authority of one's own, and what a certificate or a token entitles to.
//!
//! | place | holds |
//! | --- | --- |
//! | [`tls`] | this process's certificate, key and authority, as client and as server |
//! | [`listen`] | a port which speaks TLS, and the front of one which cannot |
//! | [`access`] | roles, and the file which gives them to tokens and certificates |
//! | [`guard`] | the one layer before every route of a server |
//! | [`limit`] | how much one caller may ask for |
//! | `oidc` | tokens of an OpenID Connect provider |
//! | [`reach`] | files and hosts which tables may name |
//! | [`serve`] | the connections of a server: how many, and how long one may be silent |
//! | `shown` | the certificate which another server shows |
//! | `reload` | files which are read again when they change |
//!
//! Without files nothing of this is there: servers listen on the loopback address and let everybody in, as on a laptop.

pub mod access;
pub mod guard;
pub mod limit;
pub mod listen;
pub(crate) mod oidc;
pub mod reach;
mod reload;
pub mod serve;
pub(crate) mod shown;
pub mod tls;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use access::Access;
use limit::REQUESTS_PER_SECOND;
use tls::Tls;

use crate::error::{Error, Result};

/// How a server receives callers.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Its certificate; plain without one.
    pub tls: Option<Arc<Tls>>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// How many requests of one caller are taken in a second, on average.
    pub requests_per_second: u32,
}

impl Trust {
    /// Of a server that is plain and lets everybody in.
    pub fn open() -> Self {
        Self { tls: None, access: Arc::new(Access::Everybody), requests_per_second: REQUESTS_PER_SECOND }
    }

    /// Of a server which listens where `place` says, with roles from the file `access`.
    ///
    /// # Errors
    /// Config, for a plain server which other machines reach and which is not explicitly `insecure`; for files that cannot be used; for roles
    /// without TLS, whose tokens everybody could read on the way.
    pub fn of_server(tls: Option<Arc<Tls>>, access: Option<&Path>, place: Place<'_>, insecure: bool) -> Result<Self> {
        let Place { flag, host } = place;
        let Some(tls) = tls else {
            if access.is_some() {
                return Err(Error::config(
                    "--access needs TLS, or tokens could be read on their way: give --tls-cert, --tls-key and --tls-ca",
                ));
            }
            if !insecure && !is_loopback(host) {
                return Err(Error::config(format!(
                    "{flag} {host} lets other machines in, without TLS: give --tls-cert, --tls-key and --tls-ca, or --insecure if everybody who \
                     reaches the port may do everything"
                )));
            }
            return Ok(Self::open());
        };
        if !tls.has_certificate()? {
            return Err(Error::config("a server with --tls-ca needs --tls-cert and --tls-key too"));
        }
        let access = match access {
            Some(file) => Access::from_file(file)?,
            None => Access::Certificates,
        };
        Ok(Self { tls: Some(tls), access: Arc::new(access), requests_per_second: REQUESTS_PER_SECOND })
    }

    /// Of a port which a client has besides its work. A client may have an authority alone, as one with a token has: that is no certificate to
    /// show, so such a port is a plain one.
    ///
    /// # Errors
    /// As [`Self::of_server`].
    pub fn of_client(tls: Option<Arc<Tls>>, access: Option<&Path>, place: Place<'_>, insecure: bool) -> Result<Self> {
        let tls = match tls {
            Some(tls) if tls.has_certificate()? => Some(tls),
            _ => None,
        };
        Self::of_server(tls, access, place, insecure)
    }
}

/// Where a server listens, and the flag which says so.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// For messages.
    pub flag: &'static str,
    /// An address, or a name of one.
    pub host: &'a str,
}

/// Whether only this machine reaches a server on `host`. A name that is no address is nobody's loopback.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_server_is_for_this_machine_unless_told_otherwise() {
        let of = |access, host, insecure| Trust::of_server(None, access, Place { flag: "--bind-host", host }, insecure);
        for host in ["127.0.0.1", "127.9.9.9", "::1", "[::1]"] {
            assert!(of(None, host, false).is_ok(), "{host}");
        }
        for host in ["0.0.0.0", "10.0.0.1", "::", "[::]", "example.org"] {
            let refused = of(None, host, false).unwrap_err().to_string();
            assert!(refused.contains("--insecure") && refused.contains(&format!("--bind-host {host}")), "{refused}");
            assert!(of(None, host, true).is_ok(), "{host}");
        }
        let file = Some(Path::new("roles"));
        assert!(of(file, "127.0.0.1", true).unwrap_err().to_string().contains("--access needs TLS"));
    }
}
