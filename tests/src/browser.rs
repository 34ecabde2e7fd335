//! A headless Chromium which a script of a test drives.
//!
//! A `chromium` on the PATH is taken; else Debian's package, with what it needs and this machine does not have, is unpacked into the
//! cache of the tests. `playwright-core` speaks to it, and `axe-core` judges the pages; both come from npm.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::job::files;
use crate::servers::Scratch;
use crate::{cache, packages};

const PLAYWRIGHT: &str = "1.65.1";
const AXE: &str = "4.14.1";

/// Which browser the tests use.
pub fn description() -> String {
    match on_path() {
        Some(path) => format!("{} (on the PATH), playwright-core {PLAYWRIGHT} and axe-core {AXE} from npm", path.display()),
        None => format!("Debian's package of chromium, playwright-core {PLAYWRIGHT} and axe-core {AXE} from npm"),
    }
}

fn on_path() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join("chromium")).find(|program| program.is_file())
}

/// The program and the environment which it needs.
fn chromium() -> (PathBuf, Vec<(&'static str, String)>) {
    if let Some(program) = on_path() {
        return (program, Vec::new());
    }
    let place = packages::debian("chromium", &["chromium", "fonts-dejavu-core"]);
    let settings = cache::tool("chromium-fonts", "a configuration of fonts", |folder| {
        let fonts = format!(
            "<?xml version=\"1.0\"?><!DOCTYPE fontconfig SYSTEM \"fonts.dtd\"><fontconfig><dir>{}</dir><dir>/usr/share/fonts</dir>\
             <alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>\
             <alias><family>system-ui</family><prefer><family>DejaVu Sans</family></prefer></alias>\
             <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias></fontconfig>",
            place.join("usr/share/fonts").display()
        );
        std::fs::write(folder.join("fonts.conf"), fonts).expect("cannot write to the cache");
    });
    let libraries: BTreeSet<String> = files(&place)
        .iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so")))
        .filter_map(|path| Some(path.parent()?.display().to_string()))
        .collect();
    let libraries = libraries.into_iter().collect::<Vec<_>>().join(":");
    let environment = vec![("LD_LIBRARY_PATH", libraries), ("FONTCONFIG_FILE", settings.join("fonts.conf").display().to_string())];
    (place.join("usr/lib/chromium/chromium"), environment)
}

/// Where screenshots are kept: `target/screenshots`.
pub fn screenshots() -> PathBuf {
    let tests = std::env::current_exe().expect("a test knows its own path");
    let target = tests.ancestors().nth(3).expect("tests are built into target/<profile>/deps");
    let folder = target.join("screenshots");
    std::fs::create_dir_all(&folder).expect("cannot make a folder");
    folder
}

/// Has the browser ready, for a test whose page has to open while something is under way.
///
/// # Panics
/// When it cannot be had.
pub fn install() {
    modules();
    chromium();
}

fn modules() -> PathBuf {
    packages::npm(&format!("playwright-{PLAYWRIGHT}"), &[format!("playwright-core@{PLAYWRIGHT}"), format!("axe-core@{AXE}")])
}

/// Runs a script of Node with a browser; `input` is what it reads, and its answer is what it prints last.
///
/// # Panics
/// When the script fails; with all that it said.
#[track_caller]
pub fn drive(script: &Path, input: &Value) -> Value {
    let (modules, (program, environment)) = (modules(), chromium());
    let scratch = Scratch::new();
    let mut input = input.clone();
    input["chromium"] = program.display().to_string().into();
    input["environment"] = environment.iter().map(|(name, value)| (name.to_string(), Value::from(value.clone()))).collect();
    input["modules"] = modules.display().to_string().into();
    input["screenshots"] = screenshots().display().to_string().into();
    let file = scratch.join("input.json");
    std::fs::write(&file, input.to_string()).expect("cannot write a file");
    let output = Command::new("node").arg(script).arg(&file).output().expect("these tests need Node.js (`node`) on the PATH");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the browser's script failed:\n{told}\n{errors}");
    told.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("no answer:\n{told}\n{errors}"))
}
