//! Hosts and buckets which tables may name, and hosts which they may never name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

use crate::error::{Error, Result};
use crate::runtime;

/// Names of services which give a machine's credentials to whoever asks from it.
const METADATA_NAMES: [&str; 5] = ["metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"];

/// Addresses of such services besides 169.254.0.0/16 and fd00:ec2::/32: Alibaba, Oracle, Azure; Google and OpenStack.
const METADATA_ADDRESSES: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
];

/// Which hosts may be named.
#[derive(Debug, Clone)]
pub enum Hosts {
    /// All but metadata services.
    All,
    /// Of those, these.
    These(Vec<Rule>),
}

/// One word of `--allow-hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// `s3://bucket`.
    Bucket(String),
    /// `host` or `*.domain`, with a port or for all of them.
    Host {
        /// In small letters; what follows the `*` where it begins with one.
        name: String,
        /// Whether `name` is the end of a name.
        is_end: bool,
        /// The port, if one was given.
        port: Option<u16>,
    },
}

impl Rule {
    fn read(text: &str) -> Result<Self> {
        let wrong = || Error::config(format!("--allow-hosts: `{text}` is none of host, host:port, *.domain, s3://bucket"));
        if let Some(bucket) = text.strip_prefix("s3://") {
            return if is_bucket(bucket) { Ok(Self::Bucket(bucket.to_string())) } else { Err(wrong()) };
        }
        let (name, port) = split_port(text);
        // What follows a colon and is no port is no rule for all ports.
        let port = port.map(str::parse).transpose().map_err(|_| wrong())?;
        let (name, is_end) = name.strip_prefix('*').map_or((name.as_str(), false), |end| (end, true));
        if name.is_empty() || name.contains(['/', '*', '@', ' ']) || (is_end && !name.starts_with('.')) {
            return Err(wrong());
        }
        Ok(Self::Host { name: name.to_string(), is_end, port })
    }

    fn allows(&self, host: &str, port: Option<&str>) -> bool {
        match self {
            Self::Bucket(_) => false,
            Self::Host { name, is_end, port: wanted } => {
                let is_host = if *is_end { host.ends_with(name.as_str()) } else { host == name };
                is_host && wanted.is_none_or(|wanted| port.and_then(|port| port.parse().ok()) == Some(wanted))
            }
        }
    }
}

/// `host[:port]` as a comparable name: in small letters, without brackets and final point.
fn split_port(server: &str) -> (String, Option<&str>) {
    let is_bare_v6 = server.parse::<Ipv6Addr>().is_ok();
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !is_bare_v6 && !port.contains(']') => (host, Some(port)),
        _ => (server, None),
    };
    (host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase(), port)
}

/// Letters which a bucket's name may hold: no other can turn it into an address.
fn is_bucket(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'))
}

/// Whether an address is a metadata service's, in whichever form.
fn is_metadata(address: IpAddr) -> bool {
    let address = match address.to_canonical() {
        // The end of an address of NAT64 (RFC 6052) is one of IPv4.
        IpAddr::V6(v6) if v6.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        address => address,
    };
    let is_range = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[..2] == [0xfd00, 0xec2],
    };
    is_range || METADATA_ADDRESSES.contains(&address)
}

fn metadata_error(server: &str) -> Error {
    Error::config(format!(
        "`{server}` is refused: it is a machine's metadata service, which no table may reach; name the server's own host"
    ))
}

impl Hosts {
    pub(super) fn read(words: &[String]) -> Result<Self> {
        if words.is_empty() {
            return Ok(Self::All);
        }
        Ok(Self::These(words.iter().map(|word| Rule::read(word.trim())).collect::<Result<_>>()?))
    }

    /// Whether a table may name `host[:port]`. The name is not resolved.
    ///
    /// # Errors
    /// Config, when it may not.
    pub fn check(&self, server: &str) -> Result<()> {
        let (host, port) = split_port(server);
        if METADATA_NAMES.contains(&host.as_str()) || host.parse().is_ok_and(is_metadata) {
            return Err(metadata_error(server));
        }
        match self {
            Self::These(rules) if !rules.iter().any(|rule| rule.allows(&host, port)) => Err(Error::config(format!(
                "`{server}` is refused: it is no host which tables may name here; add it to --allow-hosts of scheduler and executors"
            ))),
            _ => Ok(()),
        }
    }

    /// The same, when a connection is about to be made: what the name stands for counts too, so that no other name or form of an address hides a
    /// metadata service. Blocks. A name which stands for nothing is its client's matter.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_resolved(&self, server: &str) -> Result<()> {
        self.check(server)?;
        let (host, _) = split_port(server);
        let addresses = (host.as_str(), 0).to_socket_addrs();
        if addresses.is_ok_and(|mut addresses| addresses.any(|address| is_metadata(address.ip()))) {
            return Err(metadata_error(server));
        }
        Ok(())
    }

    /// [`Self::check_resolved`] for some servers, away from a runtime which must not wait.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub async fn check_all_resolved(&'static self, servers: Vec<String>) -> Result<()> {
        runtime::spawn_blocking(move || servers.iter().try_for_each(|server| self.check_resolved(server)))?.join().await?
    }

    /// Whether a table may name this bucket of S3, for itself.
    ///
    /// # Errors
    /// Config, when it may not, or when this is no name of a bucket.
    pub fn check_bucket(&self, bucket: &str) -> Result<()> {
        if !is_bucket(bucket) {
            return Err(Error::config(format!("`{bucket}` is no name of a bucket; write s3://bucket/prefix/")));
        }
        let endpoint = endpoint_host();
        // The endpoint is this process's own setting; only that it is no metadata service is looked at.
        Self::All.check(&endpoint)?;
        let Self::These(rules) = self else { return Ok(()) };
        let by_name = rules.iter().any(|rule| matches!(rule, Rule::Bucket(name) if name == bucket));
        if by_name || self.check(&endpoint).is_ok() {
            return Ok(());
        }
        Err(Error::config(format!(
            "s3://{bucket} is refused: it is no bucket which tables may name here; add it to --allow-hosts of scheduler and executors"
        )))
    }
}

/// Host and port of S3 as this process reaches it.
fn endpoint_host() -> String {
    match crate::store::endpoint() {
        Some(endpoint) => {
            let server = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, rest)| rest);
            server.split('/').next().unwrap_or_default().to_string()
        }
        None => "s3.amazonaws.com".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_services_are_refused_in_every_form_of_their_address() {
        for server in [
            "169.254.169.254",
            "169.254.169.254:80",
            "169.254.170.2",
            "[::ffff:169.254.169.254]:27017",
            "[::ffff:a9fe:a9fe]",
            "[64:ff9b::a9fe:a9fe]:9092",
            "[fd00:ec2::254]:80",
            "fd00:ec2::254",
            "[fd20:ce::254]",
            "100.100.100.200",
            "metadata.google.internal:80",
            "Metadata.Google.Internal.",
            "metadata",
        ] {
            assert!(Hosts::All.check(server).unwrap_err().to_string().contains("metadata service"), "{server}");
        }
        // Forms of the same address which only a resolver understands.
        for server in ["2852039166:80", "0xa9fea9fe:9092", "0251.0376.0251.0376", "169.254.43518"] {
            assert!(Hosts::All.check_resolved(server).unwrap_err().to_string().contains("metadata service"), "{server}");
        }
        for server in ["127.0.0.1:27017", "localhost", "10.0.0.1", "[::1]:9092", "metadata.example.org", "fe80::1", "nowhere.invalid:1"] {
            Hosts::All.check_resolved(server).unwrap();
        }
    }

    #[test]
    fn only_listed_hosts_and_buckets_may_be_named() {
        let words = ["db.example", "*.kafka.example:9093", "[::1]:27017", "s3://lake", "10.0.0.7:1"].map(String::from);
        let hosts = Hosts::read(&words).unwrap();
        for server in ["db.example", "DB.example:27017", "a.kafka.example:9093", "a.b.kafka.example:9093", "[::1]:27017", "10.0.0.7:1"] {
            hosts.check(server).unwrap_or_else(|error| panic!("{server}: {error}"));
        }
        for server in [
            "db.example.org",
            "xdb.example",
            "kafka.example:9093",
            "a.kafka.example:9092",
            "a.kafka.example",
            "[::1]",
            "10.0.0.7",
            "lake",
            "",
        ] {
            assert!(hosts.check(server).unwrap_err().to_string().contains("--allow-hosts"), "{server}");
        }
        hosts.check_bucket("lake").unwrap();
        assert!(hosts.check_bucket("pond").unwrap_err().to_string().contains("s3://pond is refused"));
        for bucket in ["a@b", "169.254.169.254#", "a/b", ""] {
            assert!(Hosts::All.check_bucket(bucket).unwrap_err().to_string().contains("no name of a bucket"), "{bucket}");
        }
        for word in ["", "*", "*db", "a/b", "s3://", "s3://a/b", "http://a", "a:mongodb", "a:70000", "u@h"] {
            assert!(Hosts::read(&[word.to_string()]).is_err(), "{word}");
        }
        // Being listed opens no metadata service.
        let listed = Hosts::read(&["169.254.169.254".to_string()]).unwrap();
        assert!(listed.check("169.254.169.254").unwrap_err().to_string().contains("metadata service"));
    }
}
