//! An OpenID provider (the package `oidc-provider`, certified by the OpenID Foundation), which gives out tokens.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::fleet::{get, request};
use crate::packages;
use crate::servers::{Server, free_port, random, random_name};

const VERSION: &str = "8.8.1";

/// Which provider the tests use.
pub fn description() -> String {
    format!("oidc-provider {VERSION} from npm, run by Node.js")
}

/// A running provider.
#[derive(Debug)]
pub struct Provider {
    port: u16,
    secret: String,
    server: Server,
}

impl Provider {
    /// Starts one of a test's own, with keys of its own.
    ///
    /// # Panics
    /// When it cannot be installed or started.
    pub fn start() -> Self {
        let (port, secret) = (free_port(), format!("{:016x}", random()));
        let server = launch(port, &secret);
        Self { port, secret, server }
    }

    /// Ends it. Nobody answers at its address then.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it at the same address with other keys.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with_new_keys(&mut self) {
        self.server.kill();
        self.server = launch(self.port, &self.secret);
    }

    /// What it calls itself.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A token for `who` (`etl`, of no group; `analyst`, of the groups `analysts` and `everybody`; `stranger`, of the latter), signed in this
    /// way, for this audience. Its subject is `<who>-<algorithm>`.
    ///
    /// # Panics
    /// When it gives none.
    pub fn token(&self, who: &str, algorithm: &str, audience: &str) -> String {
        let body = format!(
            "grant_type=client_credentials&client_id={who}-{algorithm}&client_secret={}&resource={}",
            self.secret,
            audience.replace(':', "%3A")
        );
        let text = format!(
            "POST /token HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        let (status, answer) = request(self.port, &text).expect("the provider answers");
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).expect("an answer in JSON");
        answer["access_token"].as_str().expect("a token").to_string()
    }
}

fn launch(port: u16, secret: &str) -> Server {
    let modules = packages::npm(&format!("oidc-provider-{VERSION}"), &[format!("oidc-provider@{VERSION}")]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/openid_provider.mjs");
    let mut command = Command::new("node");
    command.arg(script).arg(modules).args([&port.to_string(), secret]);
    let mut server = Server::start(&random_name("openid"), &mut command);
    server.wait_ready(|| get(port, "/.well-known/openid-configuration").is_some());
    server
}
