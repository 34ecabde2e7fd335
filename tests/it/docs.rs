//! The pages of docs/: what is made of the code is the code's, and what is quoted is what tests run.
//!
//! With the variable `BALER_UPDATE_DOCS` set, the pages are written anew in place of compared.

use std::fs;
use std::path::{Path, PathBuf};

use baler_tests::baler::Baler;
use baler_tests::servers::Scratch;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn printed(words: &[&str]) -> String {
    Baler::new(words).run().expect_code(0).stdout
}

#[track_caller]
fn expect_page(path: &str, wanted: &str) {
    if std::env::var_os("BALER_UPDATE_DOCS").is_some() {
        fs::write(root().join(path), wanted).unwrap();
        return;
    }
    let found = read(path);
    let differs = found.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
    assert!(found == wanted, "{path} is not what the code says; set BALER_UPDATE_DOCS=1 and run this test. First difference: {differs:?}");
}

#[test]
fn the_reference_is_that_of_the_code() {
    let page = printed(&["reference"]);
    // Whatever machine made it.
    for place in [root().canonicalize().unwrap().display().to_string(), std::env::temp_dir().display().to_string() + "/baler"] {
        assert!(!page.contains(&place), "{place} is in the reference");
    }
    expect_page("docs/reference.md", &page);
}

#[test]
fn the_reference_names_every_metric_of_the_source() {
    let reference = read("docs/reference.md");
    let mut names = 0;
    for file in sources(&root().join("engine/src")) {
        let text = fs::read_to_string(&file).unwrap();
        // Names in tests are nobody's.
        let text = text.split("#[cfg(test)]").next().unwrap();
        for name in text.split('"').filter(|word| word.starts_with("baler_") && word.len() > 6) {
            if name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                // A histogram is named by its stem.
                let is_told = reference.contains(&format!("`{name}`")) || reference.contains(&format!("`{name}_seconds`"));
                assert!(is_told, "{name} of {} is not in the reference", file.display());
                names += 1;
            }
        }
    }
    assert!(names > 40, "only {names} metrics were found");
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            files.extend(sources(&entry));
        } else if entry.extension().is_some_and(|end| end == "rs") {
            files.push(entry);
        }
    }
    files
}

#[test]
fn the_table_of_settings_is_that_of_the_code() {
    const PAGE: &str = "docs/migrating-from-spark.md";
    let page = read(PAGE);
    let (before, rest) = page.split_once("<!-- settings -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end of settings -->").unwrap();
    let table = printed(&["convert-conf", "--settings"]);
    expect_page(PAGE, &format!("{before}<!-- settings -->\n{table}<!-- end of settings -->{after}"));
}

#[test]
fn code_in_the_pages_is_code_which_is_run() {
    let page = read("docs/migrating-from-spark.md");
    let run = [
        ("python", vec!["benches/spark/compress.py", "benches/spark/stream.py", "benches/spark/documents.py"]),
        ("sql", vec!["sql/compress.sql", "sql/compress-to-mongodb.sql", "sql/stream.sql", "sql/stats.sql"]),
        ("rust", vec!["plans/src/lib.rs"]),
    ];
    let mut blocks = 0;
    let mut rest = page.as_str();
    while let Some((_, after)) = rest.split_once("\n```") {
        let (language, after) = after.split_once('\n').unwrap();
        let (block, after) = after.split_once("\n```").unwrap();
        rest = after;
        let (_, files) = run.iter().find(|(known, _)| *known == language).unwrap_or_else(|| panic!("a block of {language}"));
        assert!(files.iter().any(|file| read(file).contains(block)), "no file which is run has:\n{block}");
        blocks += 1;
    }
    assert_eq!(blocks, 5);
}

#[test]
fn completions_are_made_for_every_shell_and_the_manual_has_a_page_a_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = printed(&["completions", shell]);
        assert!(text.contains("dead-letters") && text.contains("recompress"), "{shell}: {} bytes", text.len());
    }
    let scratch = Scratch::new();
    let bash = scratch.join("completions.bash");
    fs::write(&bash, printed(&["completions", "bash"])).unwrap();
    // What bash itself would offer behind `baler restore --rec`.
    let script = format!(
        "source {}; COMP_WORDS=(baler restore --rec); COMP_CWORD=2; _baler baler --rec restore; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        bash.display()
    );
    let offered = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&offered.stdout).trim(), "--recompress", "{}", String::from_utf8_lossy(&offered.stderr));

    let pages = scratch.join("man");
    printed(&["man", pages.to_str().unwrap()]);
    let page = fs::read_to_string(pages.join("baler-restore.1")).unwrap();
    assert!(page.starts_with(".ie") || page.contains(".TH"), "{page}");
    let commands = printed(&["reference"]).lines().filter(|line| line.starts_with("### baler ")).count();
    assert!(fs::read_dir(&pages).unwrap().count() > commands, "a command has no page");
}
