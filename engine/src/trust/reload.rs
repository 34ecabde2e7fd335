//! Files which are read again when they change.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// How often files are looked at, at most, and only when somebody asks. They are a few KiB, so they are compared by content: a mounted Secret
/// is replaced through links, which times do not show.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Make<T> = dyn Fn(&[Vec<u8>]) -> Result<T> + Send + Sync;

/// A value made of files, as they are now.
pub(super) struct Reloaded<T> {
    files: Vec<PathBuf>,
    make: Box<Make<T>>,
    state: Mutex<Option<State<T>>>,
}

struct State<T> {
    looked: Instant,
    digest: [u8; 32],
    /// Content which could not be used, so that it is complained of once.
    refused: Option<[u8; 32]>,
    value: Arc<T>,
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("files", &self.files).finish_non_exhaustive()
    }
}

impl<T> Reloaded<T> {
    /// A value which `make` makes of the contents of `files`, in their order. Nothing is read yet.
    pub(super) fn new(files: Vec<PathBuf>, make: impl Fn(&[Vec<u8>]) -> Result<T> + Send + Sync + 'static) -> Self {
        Self { files, make: Box::new(make), state: Mutex::new(None) }
    }

    /// The value of the files as they are. When they have changed and cannot be used (a key may be replaced a moment before its certificate),
    /// the one before stays, with a warning.
    ///
    /// # Errors
    /// Config, when they could not be used the first time.
    pub(super) fn current(&self) -> Result<Arc<T>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = state.as_mut() else {
            let (digest, contents) = self.read()?;
            let value = Arc::new((self.make)(&contents)?);
            *state = Some(State { looked: Instant::now(), digest, refused: None, value: Arc::clone(&value) });
            return Ok(value);
        };
        if known.looked.elapsed() >= LOOK_EVERY {
            known.looked = Instant::now();
            match self.read() {
                Ok((digest, _)) if digest == known.digest || Some(digest) == known.refused => {}
                Ok((digest, contents)) => match (self.make)(&contents) {
                    Ok(value) => {
                        tracing::info!(files = ?self.files, "files of keys or roles have changed and were read again");
                        (known.digest, known.refused, known.value) = (digest, None, Arc::new(value));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "files of keys or roles have changed and cannot be used; the ones before stay");
                        known.refused = Some(digest);
                    }
                },
                Err(error) => tracing::warn!(%error, "files of keys or roles cannot be read; the ones before stay"),
            }
        }
        Ok(Arc::clone(&known.value))
    }

    fn read(&self) -> Result<([u8; 32], Vec<Vec<u8>>)> {
        let mut digest = Sha256::new();
        let mut contents = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let content = std::fs::read(file).map_err(|e| Error::config(format!("cannot read {}: {e}", file.display())))?;
            digest.update((content.len() as u64).to_le_bytes());
            digest.update(&content);
            contents.push(content);
        }
        Ok((digest.finalize().into(), contents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_read_again_and_what_cannot_be_used_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        let number = Reloaded::new(vec![file.clone()], |contents| {
            let text = String::from_utf8(contents[0].clone()).unwrap_or_default();
            text.parse::<u32>().map_err(|e| Error::config(e.to_string()))
        });
        assert!(number.current().unwrap_err().to_string().contains("number"), "there is no file yet");
        let is = |text: Option<&str>, expected: u32| {
            match text {
                Some(text) => std::fs::write(&file, text).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            if let Some(state) = number.state.lock().unwrap().as_mut() {
                state.looked = Instant::now().checked_sub(LOOK_EVERY).unwrap();
            }
            assert_eq!(*number.current().unwrap(), expected, "{text:?}");
        };
        is(Some("1"), 1);
        is(Some("2"), 2);
        is(Some("no number"), 2);
        is(None, 2);
        is(Some("3"), 3);
    }
}
