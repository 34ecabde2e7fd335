//! The one error type, and the bridge to DataFusion's.
//!
//! The kind decides what happens next: whether a retry may help, and which exit code the command ends with.
//! DataFusion and Ballista carry our errors as `External`, except transient ones, which travel as `IoError`:
//! that is the only root which Ballista 55 retries.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use datafusion::error::DataFusionError;

use crate::hex::{from_hex, to_hex};

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is, and so what may be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The user's words are wrong: an option, a URL, a flag, a statement. Exit code 2.
    Config,
    /// A server could not be reached at all or refused the credentials. Exit code 3.
    Unreachable,
    /// Foreign bytes could not be read: a corrupt stream, a truncated file. Exit code 1.
    Decode,
    /// A later attempt may succeed: a lost connection, a server that is electing. Exit code 1.
    Transient,
    /// The same attempt will fail again: a refused document, a missing right. Exit code 1.
    Permanent,
    /// Something else is already there: another statement, a changed object, another document. Exit code 1.
    Conflict,
    /// A fault of ours. Exit code 1.
    Internal,
}

/// One failure: its kind, one line that names object, action, cause and remedy, and the error below it.
///
/// `Debug` writes it so that [`Error::from_wire`] reads it again: Ballista sends a task's error as its debug text.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error of `kind` whose `message` is lower case, without full stop, and names the remedy where there is one.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Shorthand for [`ErrorKind::Config`].
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// Shorthand for [`ErrorKind::Decode`].
    pub fn decode(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Decode, message)
    }

    /// Shorthand for [`ErrorKind::Permanent`].
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Permanent, message)
    }

    /// Shorthand for [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// Shorthand for [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Keeps the error which caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Puts `action` before the message, on the way up: `cannot read s3://b/k: connection reset`.
    #[must_use]
    pub fn context(mut self, action: impl fmt::Display) -> Self {
        self.message = format!("{action}: {}", self.message);
        self
    }

    /// The sort of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same attempt may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.kind == ErrorKind::Transient
    }

    /// The exit code which the command line ends with: 1, 2 or 3 (DESIGN: 0 is success).
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Config => 2,
            ErrorKind::Unreachable => 3,
            _ => 1,
        }
    }
}

/// Begins an error of ours within foreign text.
const WIRE_MARK: &str = "baler-error:";

impl ErrorKind {
    const NAMES: [(Self, &str); 7] = [
        (Self::Config, "config"),
        (Self::Unreachable, "unreachable"),
        (Self::Decode, "decode"),
        (Self::Transient, "transient"),
        (Self::Permanent, "permanent"),
        (Self::Conflict, "conflict"),
        (Self::Internal, "internal"),
    ];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("internal", |(_, name)| name)
    }
}

/// `baler-error:<kind>:<message in hex>;`, which no quoting or escaping around it can change.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} [{WIRE_MARK}{}:{};]", self.kind.name(), to_hex(self.to_string()))
    }
}

impl Error {
    /// Finds the error of ours whose debug text is somewhere in `text`: an executor's failure as a client receives it.
    pub fn from_wire(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once(WIRE_MARK)?;
        let (kind, rest) = rest.split_once(':')?;
        let (hex, _) = rest.split_once(';')?;
        let kind = ErrorKind::NAMES.iter().find(|(_, name)| *name == kind)?.0;
        Some(Self::new(kind, String::from_utf8(from_hex(hex)?).ok()?))
    }
}

/// One line: the message, then the causes below it that it does not already repeat.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&harmless(&self.message))?;
        let mut below = self.source.as_deref().map(|source| source as &dyn StdError);
        let mut last = self.message.clone();
        while let Some(cause) = below {
            let text = one_line(&cause.to_string());
            if !last.contains(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            below = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

fn one_line(text: &str) -> String {
    harmless(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

/// Text whose control characters are written out, but for the ends of lines: a name in it must not move a terminal's cursor.
fn harmless(text: &str) -> Cow<'_, str> {
    let is_harmful = |letter: char| letter.is_control() && letter != '\n';
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let written = |letter: char| if is_harmful(letter) { letter.escape_default().to_string() } else { letter.to_string() };
    Cow::Owned(text.chars().map(written).collect())
}

/// Ours → DataFusion's. Transient becomes `IoError` around ours; all else `External`.
impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        if error.is_retryable() { Self::IoError(std::io::Error::other(error)) } else { Self::External(Box::new(error)) }
    }
}

/// DataFusion's → ours: the error of ours which it carries, wherever it is wrapped; else by DataFusion's own kind.
impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        if let Some(ours) = find_ours(&error) {
            return ours.clone();
        }
        let whole = error.to_string();
        if let Some(ours) = Self::from_wire(&whole) {
            return ours;
        }
        let kind = match error.find_root() {
            DataFusionError::SQL(..)
            | DataFusionError::Plan(_)
            | DataFusionError::SchemaError(..)
            | DataFusionError::Configuration(_)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::Diagnostic(..) => ErrorKind::Config,
            DataFusionError::ObjectStore(source) => return store_error("reading", "an object", source),
            DataFusionError::IoError(_) => ErrorKind::Transient,
            _ => ErrorKind::Permanent,
        };
        // Kept below, because Ballista asks for it: a shuffle which cannot be fetched is told by its own error alone.
        Self::new(kind, one_line(&error.strip_backtrace())).with_source(error)
    }
}

fn find_ours<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(ours) = current.downcast_ref::<Error>() {
            return Some(ours);
        }
        // An `io::Error` shows what it wraps only through `get_ref`.
        if let Some(DataFusionError::IoError(io)) = current.downcast_ref::<DataFusionError>()
            && let Some(inner) = io.get_ref()
            && let Some(ours) = find_ours(inner)
        {
            return Some(ours);
        }
        next = current.source();
    }
    None
}

/// An object store's error, named by what was done (`reading`) to which object or folder (`uri`).
pub fn store_error(action: &str, uri: &str, source: &object_store::Error) -> Error {
    use object_store::Error as Store;
    if let Some(ours) = find_ours(source) {
        return ours.clone().context(format!("{action} {uri}"));
    }
    const DENIED: [&str; 5] = ["403 Forbidden", "AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken"];
    let whole = one_line(&source.to_string());
    let says = |words: &[&str]| words.iter().any(|word| whole.contains(word));
    let text = store_cause(source, &whole);
    let (kind, message) = match source {
        Store::Precondition { .. } => {
            (ErrorKind::Conflict, "it changed after it was listed; run the job under a new name to take the new content".to_string())
        }
        Store::AlreadyExists { .. } => (ErrorKind::Conflict, "it exists already".to_string()),
        _ if says(&["NoSuchBucket"]) => (ErrorKind::Config, "the bucket does not exist; check its name and AWS_ENDPOINT".to_string()),
        Store::NotFound { .. } => (ErrorKind::Permanent, "it does not exist".to_string()),
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => (ErrorKind::Unreachable, denied_text(&text)),
        _ if says(&DENIED) => (ErrorKind::Unreachable, denied_text(&text)),
        Store::NotSupported { .. } | Store::NotImplemented { .. } | Store::UnknownConfigurationKey { .. } | Store::InvalidPath { .. } => {
            (ErrorKind::Config, text)
        }
        _ if source_is_denied(source) => (ErrorKind::Permanent, text),
        _ => (ErrorKind::Transient, text),
    };
    Error::new(kind, format!("{action} {uri}: {message}"))
}

fn denied_text(cause: &str) -> String {
    format!("access denied; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the rights of that user ({cause})")
}

/// What a person needs of a store's error: the server's own message, else the innermost cause.
fn store_cause(source: &(dyn StdError + 'static), whole: &str) -> String {
    if let Some((_, rest)) = whole.split_once("<Message>")
        && let Some((message, _)) = rest.split_once("</Message>")
    {
        return message.to_string();
    }
    let mut cause = source;
    while let Some(below) = cause.source() {
        cause = below;
    }
    one_line(&cause.to_string())
}

/// Whether the operating system refused for good: no right, no space, a read-only or wrong place.
fn source_is_denied(source: &(dyn StdError + 'static)) -> bool {
    use std::io::ErrorKind as Io;
    let mut next = Some(source);
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<std::io::Error>()
            && matches!(
                io.kind(),
                Io::PermissionDenied | Io::StorageFull | Io::ReadOnlyFilesystem | Io::NotADirectory | Io::IsADirectory | Io::QuotaExceeded
            )
        {
            return true;
        }
        next = current.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transient_error_survives_every_wrapper_and_stays_retryable() {
        let wrapped = DataFusionError::from(Error::new(ErrorKind::Transient, "connection reset")).context("outer");
        assert!(matches!(wrapped.find_root(), DataFusionError::IoError(_)));
        let shared = DataFusionError::Shared(Arc::new(wrapped));
        let back = Error::from(shared);
        assert!(back.is_retryable());
        assert_eq!(back.to_string(), "connection reset");
    }

    #[test]
    fn error_is_read_again_out_of_any_debug_text() {
        let error = Error::new(ErrorKind::Transient, "cannot read \"s3://b/ü\": reset\\");
        let text = format!("Task failed due to {:?}", DataFusionError::from(error.clone()));
        let nested = format!("{:?}", Some(format!("{text:?}")));
        let back = Error::from_wire(&nested).unwrap();
        assert_eq!((back.kind(), back.to_string()), (error.kind(), error.to_string()));
        assert!(Error::from_wire("Task failed due to a panic").is_none());
    }

    #[test]
    fn permanent_error_is_found_again() {
        let back = Error::from(DataFusionError::from(Error::config("unknown option")).context("planning"));
        assert_eq!((back.kind(), back.exit_code()), (ErrorKind::Config, 2));
    }
}
