//! What a process depends on and nobody tells it about: room on the disks of its own folders, and the end of certificates.

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::text::{Kind, Published};
use crate::error::{Error, Result};

/// The variable which names the certificate authority of the object stores.
pub const AUTHORITY: &str = "AWS_CA_BUNDLE";

/// Shows `baler_disk_{free,size}_bytes{place}` of local folders: `scratch` (shuffles, spilled data) or `state`.
pub fn publish_disks(published: &Published, places: Vec<(&'static str, PathBuf)>) {
    published.add(Box::new(move |text| {
        let disks: Vec<_> = places.iter().filter_map(|(place, folder)| Some((*place, space(folder)?))).collect();
        if disks.is_empty() {
            return;
        }
        text.family("baler_disk_free_bytes", Kind::Gauge, "Room which this process may still use on the disk of a folder of its own.");
        disks.iter().for_each(|(place, (free, _))| text.sample("baler_disk_free_bytes", &[("place", place)], *free as f64));
        text.family("baler_disk_size_bytes", Kind::Gauge, "Size of that disk.");
        disks.iter().for_each(|(place, (_, size))| text.sample("baler_disk_size_bytes", &[("place", place)], *size as f64));
    }));
}

/// The local folder of a `file://` URL.
pub fn local_folder(url: &str) -> Option<PathBuf> {
    url::Url::parse(url).ok().filter(|url| url.scheme() == "file").and_then(|url| url.to_file_path().ok())
}

/// The folder itself, or the nearest one above it that is there.
pub fn nearest_there(folder: &Path) -> Option<&Path> {
    folder.ancestors().find(|folder| folder.exists())
}

/// Bytes free and in all on the disk of a folder, or of the nearest folder above it that is there.
pub fn space(folder: &Path) -> Option<(u64, u64)> {
    let disk = rustix::fs::statvfs(nearest_there(folder)?).ok()?;
    Some((disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize))
}

/// Shows `baler_certificate_expires_seconds{file}`, a Unix time: of each file of certificates which this process is told of by a variable, the
/// first end. Read at each scrape, because a mounted file may be replaced.
pub fn publish_certificates(published: &Published) {
    let named = |variable: &'static str| std::env::var_os(variable).map(|file| (variable, PathBuf::from(file)));
    let files: Vec<_> = [AUTHORITY, "BALER_TLS_CA", "BALER_TLS_CERT"].into_iter().filter_map(named).collect();
    published.add(Box::new(move |text| {
        let mut is_first = true;
        for (variable, file) in &files {
            match first_end(file) {
                Ok(end) => {
                    if std::mem::take(&mut is_first) {
                        let help = "When the first certificate of a file ends, in seconds since 1970.";
                        text.family("baler_certificate_expires_seconds", Kind::Gauge, help);
                    }
                    text.sample("baler_certificate_expires_seconds", &[("file", variable)], end as f64);
                }
                Err(error) => tracing::debug!(%error, "the end of a certificate is not known"),
            }
        }
    }));
}

/// The first end of the certificates in a PEM file, in seconds since 1970.
///
/// # Errors
/// Decode, when it cannot be read, or holds none.
pub fn first_end(file: &Path) -> Result<i64> {
    let bad = |what: &str| Error::decode(format!("{}: {what}", file.display()));
    let certificates = CertificateDer::pem_file_iter(file).map_err(|e| bad("no file of certificates").with_source(e))?;
    let mut first = None;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| bad("no PEM").with_source(e))?;
        let end = end_of(&certificate).ok_or_else(|| bad("a certificate without an end"))?;
        first = Some(first.map_or(end, |first: i64| first.min(end)));
    }
    first.ok_or_else(|| bad("holds no certificate"))
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` of a certificate (RFC 5280, 4.1), in seconds since 1970: it is the sixth field of its body at most, so no more of X.509 has to be read.
pub(crate) fn end_of(certificate: &[u8]) -> Option<i64> {
    let mut certificate = Der(certificate).content_of(SEQUENCE)?;
    let mut body = certificate.content_of(SEQUENCE)?;
    if body.0.first() == Some(&VERSION) {
        body.content_of(VERSION)?;
    }
    body.content_of(INTEGER)?;
    // The algorithm of the signature, and the issuer.
    body.content_of(SEQUENCE)?;
    body.content_of(SEQUENCE)?;
    let mut validity = body.content_of(SEQUENCE)?;
    validity.next()?;
    let (kind, time) = validity.next()?;
    let time = std::str::from_utf8(time).ok()?;
    let whole = match kind {
        // Two digits of a year: until 49 they are of this century.
        UTC_TIME => format!("{}{time}", if time.get(..2)? < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => time.to_string(),
        _ => return None,
    };
    Some(chrono::NaiveDateTime::parse_from_str(&whole, "%Y%m%d%H%M%SZ").ok()?.and_utc().timestamp())
}

/// Fields of DER, one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Kind and content of the next field.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[kind, first], mut rest) = self.0.split_first_chunk::<2>()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            // The length is in so many bytes; certificates are far below 16 MiB.
            let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(digits, _)| (1..=3).contains(&digits.len()))?;
            length = digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit));
            rest = after;
        }
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((kind, content))
    }

    /// The content of the next field, which must be of this kind.
    fn content_of(&mut self, wanted: u8) -> Option<Self> {
        self.next().filter(|(kind, _)| *kind == wanted).map(|(_, content)| Self(content))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_first_end_of_a_file_of_certificates_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        let mut all = String::new();
        // 2049 is the last year in two digits, and 40 years from now is beyond it: both ways to write a time.
        for (name, days) in [("far", "14600"), ("near", "825"), ("middle", "3650")] {
            let (key, one) = (folder.path().join(format!("{name}.key")), folder.path().join(format!("{name}.crt")));
            let mut openssl = Command::new("openssl");
            openssl.args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                "/CN=x",
                "-days",
                days,
            ]);
            assert!(openssl.arg("-keyout").arg(&key).arg("-out").arg(&one).output().unwrap().status.success());
            let text =
                Command::new("openssl").args(["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in"]).arg(&one).output().unwrap();
            let told = String::from_utf8(text.stdout).unwrap();
            let told = chrono::NaiveDateTime::parse_from_str(told.trim().trim_start_matches("notAfter="), "%Y-%m-%d %H:%M:%SZ").unwrap();
            assert_eq!(first_end(&one).unwrap(), told.and_utc().timestamp(), "{name}");
            all += &std::fs::read_to_string(&one).unwrap();
        }
        std::fs::write(&file, all).unwrap();
        assert_eq!(first_end(&file).unwrap(), first_end(&folder.path().join("near.crt")).unwrap());
    }

    #[test]
    fn what_is_no_certificate_is_an_error_and_never_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        std::fs::write(&file, "no certificate").unwrap();
        assert!(first_end(&file).unwrap_err().to_string().contains("holds no certificate"));
        for cut in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01\x02", b"\x30\x80\x00"] {
            assert_eq!(end_of(cut), None);
        }
    }

    #[test]
    fn space_is_that_of_the_nearest_folder_which_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (free, size) = space(&folder.path().join("not/yet")).unwrap();
        assert!(free > 0 && free <= size, "{free} of {size}");
        assert_eq!(local_folder("s3://bucket/x"), None);
        assert_eq!(local_folder("file:///x/y"), Some(PathBuf::from("/x/y")));
    }
}
