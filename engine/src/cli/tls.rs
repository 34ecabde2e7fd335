//! The flags by which every command is told its certificate and its authority, and whoever listens who may come in.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::error::{Error, Result};
use crate::session::SessionParts;
use crate::trust::tls::{Tls, TlsFiles};
use crate::trust::{Place, Trust};

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

/// Who may come in.
#[derive(Debug, Clone, Args)]
pub(super) struct TrustArgs {
    /// A file of roles: `<read|submit|admin|member> <name> <sha256:… of a token | dns:… of a certificate | jwt:<claim>=<value>>` a line, and
    /// `issuer <URL> <audience>` for the last sort. Without it every certificate of the authority may do everything. Read again when it changes.
    #[arg(long, env = "BALER_ACCESS", value_name = "FILE")]
    access: Option<PathBuf>,
    /// Listen without TLS on an address which other machines reach: whoever reaches the port may do everything.
    #[arg(long, env = "BALER_INSECURE")]
    insecure: bool,
}

impl TrustArgs {
    /// Of a server on `--bind-host`.
    ///
    /// # Errors
    /// As [`Trust::of_server`].
    pub(super) fn of_server(&self, parts: &SessionParts, host: &str) -> Result<Trust> {
        Trust::of_server(parts.tls().cloned(), self.access.as_deref(), Place { flag: "--bind-host", host }, self.insecure)
    }

    /// Of a command which shows its metrics on `--metrics-bind-host`.
    ///
    /// # Errors
    /// As [`Trust::of_client`].
    pub(super) fn of_client(&self, parts: &SessionParts, host: &str) -> Result<Trust> {
        Trust::of_client(parts.tls().cloned(), self.access.as_deref(), Place { flag: "--metrics-bind-host", host }, self.insecure)
    }
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
