//! The flags by which every command is told its certificate and its authority.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::error::{Error, Result};
use crate::session::SessionParts;
use crate::trust::tls::{Tls, TlsFiles};

#[derive(Debug, Args)]
pub(super) struct TlsArgs {
    /// Certificates of the fleet's authority (PEM). With it, servers speak TLS alone, and clients reach a scheduler as dfs://host.
    #[arg(long, global = true, env = "BALER_TLS_CA", value_name = "FILE", help_heading = "TLS")]
    tls_ca: Option<PathBuf>,
    /// This process's certificate, followed by those between it and the authority's (PEM). These files are read again when they change.
    #[arg(long, global = true, env = "BALER_TLS_CERT", value_name = "FILE", help_heading = "TLS")]
    tls_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    #[arg(long, global = true, env = "BALER_TLS_KEY", value_name = "FILE", help_heading = "TLS")]
    tls_key: Option<PathBuf>,
    /// A name which the certificates of all servers hold, for peers that are known by their IP address alone; without it their certificates
    /// have to hold the address.
    #[arg(long, global = true, env = "BALER_TLS_FLEET_NAME", value_name = "NAME", help_heading = "TLS")]
    tls_fleet_name: Option<String>,
}

impl TlsArgs {
    /// Sessions and servers with these files.
    ///
    /// # Errors
    /// Config, for files which are of no use without others.
    pub(super) fn apply(&self, parts: SessionParts) -> Result<SessionParts> {
        let identity = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(Error::config("--tls-cert and --tls-key belong together: give both")),
        };
        let Some(ca) = self.tls_ca.clone() else {
            return if identity.is_none() {
                Ok(parts)
            } else {
                Err(Error::config("--tls-cert needs --tls-ca, the authority of the others"))
            };
        };
        let tls = Tls::new(TlsFiles { ca, identity, fleet_name: self.tls_fleet_name.clone() });
        Ok(parts.with_tls(Arc::new(tls)))
    }
}
