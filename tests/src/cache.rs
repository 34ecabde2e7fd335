//! Tools of the tests, installed once per machine into a folder outside the checkout.
//!
//! The folder is `BALER_TEST_CACHE`, else `$XDG_CACHE_HOME/baler-tests`, else `$HOME/.cache/baler-tests`. A tool's name carries
//! its version, so another version is another folder. Several test processes may race: a file lock lets one install and
//! the others wait.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::servers::say;

/// Written into a tool's folder when its installation is complete; a folder without it is installed again.
const COMPLETE: &str = ".complete";

/// The cache folder of this machine.
///
/// # Panics
/// When none of its three variables is set.
pub fn folder() -> PathBuf {
    let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("BALER_TEST_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|home| home.join("baler-tests")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/baler-tests")))
        .expect("no place for the test servers: set BALER_TEST_CACHE to a folder")
}

/// The folder of tool `name`, in which `install` put it now or in an earlier run.
///
/// # Panics
/// When the cache cannot be written; and when `install` panics, which leaves the tool to the next attempt.
pub fn tool(name: &str, how: &str, install: impl FnOnce(&Path)) -> PathBuf {
    let cache = folder();
    fs::create_dir_all(&cache).unwrap_or_else(|e| panic!("cannot make the cache folder {}: {e}", cache.display()));
    let lock = File::create(cache.join(format!("{name}.lock"))).expect("cannot make a lock file in the cache folder");
    lock.lock().expect("cannot lock the cache folder");
    let place = cache.join(name);
    if place.join(COMPLETE).exists() {
        return place;
    }
    say(&format!("installs {name} into {} with {how}; this happens once", cache.display()));
    if place.exists() {
        fs::remove_dir_all(&place).expect("cannot remove an incomplete tool");
    }
    fs::create_dir_all(&place).expect("cannot make a folder in the cache");
    install(&place);
    fs::write(place.join(COMPLETE), how).expect("cannot write to the cache");
    place
}

/// Runs one step of an installation.
///
/// # Panics
/// When `program` is missing (the text says what to install) or fails (the text ends with its output).
pub fn step(command: &mut Command, needs: &str) {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = match command.output() {
        Ok(output) => output,
        Err(cause) => panic!("cannot run `{program}` ({cause}): these tests need {needs} on the PATH"),
    };
    assert!(
        output.status.success(),
        "`{command:?}` failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
