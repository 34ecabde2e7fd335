//! Certificate authorities of a test's own, made with the `openssl` tool, and a plain look at what speaks TLS.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cache;
use crate::fleet::read_answer;

/// What makes a key of a kind that is quick to make.
const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -batch";

/// An authority.
#[derive(Debug, Clone)]
pub struct Authority {
    folder: PathBuf,
    /// Its own certificate.
    pub certificate: PathBuf,
}

/// Where a process finds its files: authority, certificate and key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The authority which it trusts.
    pub ca: PathBuf,
    /// Certificate and key, if it has any.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// SHA-256 in hex, by a tool which users have too.
///
/// # Panics
/// When `openssl` cannot be run.
pub fn sha256(text: &str) -> String {
    let script = "printf %s \"$1\" | openssl dgst -sha256 -r | cut -c1-64";
    let output = Command::new("sh").args(["-c", script, "hash", text]).output().expect("cannot run `openssl`");
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

impl Authority {
    /// Makes one in `folder`.
    ///
    /// # Panics
    /// When `openssl` is missing or fails.
    pub fn make(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("cannot make a folder");
        let authority = Self { folder: folder.to_path_buf(), certificate: folder.join("ca.crt") };
        authority.openssl(&format!(
            "req -x509 {KEY} -keyout ca.key -out ca.crt -days 3650 -subj /CN=baler-tests -addext basicConstraints=critical,CA:TRUE \
             -addext keyUsage=critical,keyCertSign,cRLSign"
        ));
        authority
    }

    fn openssl(&self, words: &str) {
        cache::step(Command::new("openssl").args(words.split_whitespace()).current_dir(&self.folder), "the `openssl` tool");
    }

    /// Signs a certificate of this name, for the loopback address and `names`, which ends in so many days; those of a negative number have
    /// ended already.
    ///
    /// # Panics
    /// As [`Self::make`].
    pub fn issue(&self, name: &str, names: &[&str], days: i32) -> Identity {
        let names: String = names.iter().map(|name| format!(",DNS:{name}")).collect();
        self.sign(name, &format!("IP:127.0.0.1{names}"), days)
    }

    /// The same, for `names` alone.
    ///
    /// # Panics
    /// As [`Self::make`].
    pub fn issue_for_names(&self, name: &str, names: &[&str], days: i32) -> Identity {
        let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        self.sign(name, &names.join(","), days)
    }

    fn sign(&self, name: &str, names: &str, days: i32) -> Identity {
        let extensions = format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n");
        fs::write(self.folder.join(format!("{name}.extensions")), extensions).expect("cannot write a file");
        self.openssl(&format!("req {KEY} -keyout {name}.key -out {name}.request -subj /CN={name}"));
        self.openssl(&format!(
            "x509 -req -in {name}.request -CA ca.crt -CAkey ca.key -CAcreateserial -days {days} -out {name}.crt -extfile {name}.extensions"
        ));
        let place = |end: &str| self.folder.join(format!("{name}.{end}"));
        Identity { ca: self.certificate.clone(), own: Some((place("crt"), place("key"))) }
    }

    /// Who trusts this authority and has no certificate.
    pub fn stranger(&self) -> Identity {
        Identity { ca: self.certificate.clone(), own: None }
    }
}

impl Identity {
    /// The variables by which `baler` is told.
    pub fn variables(&self) -> Vec<(String, String)> {
        let variable = |name: &str, path: &Path| (name.to_string(), path.display().to_string());
        let mut variables = vec![variable("BALER_TLS_CA", &self.ca)];
        if let Some((certificate, key)) = &self.own {
            variables.extend([variable("BALER_TLS_CERT", certificate), variable("BALER_TLS_KEY", key)]);
        }
        variables
    }

    /// The same certificate for who trusts another authority.
    #[must_use]
    pub fn trusting(&self, ca: &Path) -> Self {
        Self { ca: ca.to_path_buf(), own: self.own.clone() }
    }

    /// Copies its files to a folder, over what is there; returns it at its new place.
    ///
    /// # Panics
    /// When a file cannot be copied.
    pub fn copy_to(&self, folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("cannot make a folder");
        let place = |path: &Path, name: &str| {
            fs::copy(path, folder.join(name)).expect("cannot copy a file");
            folder.join(name)
        };
        let own = self.own.as_ref().map(|(certificate, key)| (place(certificate, "tls.crt"), place(key, "tls.key")));
        Self { ca: place(&self.ca, "ca.crt"), own }
    }

    /// What `openssl s_client` gets from a port, as who has these files: its output, and what it says about the connection.
    ///
    /// # Panics
    /// When `openssl` cannot be run.
    pub fn talk(&self, port: u16, text: &str) -> (String, String) {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-verify_return_error", "-connect", &format!("127.0.0.1:{port}"), "-CAfile"]).arg(&self.ca);
        if let Some((certificate, key)) = &self.own {
            command.arg("-cert").arg(certificate).arg("-key").arg(key);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cannot run `openssl`");
        // It may have ended already, refused.
        child.stdin.take().expect("an input").write_all(text.as_bytes()).ok();
        let output = child.wait_with_output().expect("openssl ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    }

    /// Sends one request; returns status and body.
    pub fn request(&self, port: u16, method: &str, path: &str, headers: &str) -> Option<(u16, String)> {
        let text = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n{headers}\r\n");
        read_answer(&self.talk(port, &text).0)
    }

    /// The body of a successful answer to a GET.
    pub fn get(&self, port: u16, path: &str) -> Option<String> {
        self.request(port, "GET", path, "").filter(|(status, _)| *status == 200).map(|(_, body)| body)
    }

    /// The certificate which a port shows, in PEM.
    ///
    /// # Panics
    /// When `openssl` cannot be run.
    pub fn shown_by(&self, port: u16) -> Option<String> {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-CAfile"]).arg(&self.ca).stdin(Stdio::null());
        if let Some((certificate, key)) = &self.own {
            command.arg("-cert").arg(certificate).arg("-key").arg(key);
        }
        let output = command.output().expect("cannot run `openssl`");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
        let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
        Some(body.split_whitespace().collect())
    }

    /// The body of its own certificate, as [`Self::shown_by`] returns it.
    ///
    /// # Panics
    /// When it has none.
    pub fn body(&self) -> String {
        let (certificate, _) = self.own.as_ref().expect("a certificate");
        let text = fs::read_to_string(certificate).expect("a certificate");
        let body = text.split("-----BEGIN CERTIFICATE-----").nth(1).and_then(|rest| rest.split("-----END").next());
        body.expect("PEM").split_whitespace().collect()
    }
}
