//! The archive of a release: what is in it, that it runs alone, and that the same binary gives the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use baler_tests::baler::{self, Baler};
use baler_tests::job::files;
use baler_tests::servers::Scratch;

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

fn pack(binary: &Path, folder: &Path) -> PathBuf {
    let shown = succeeds(Command::new(checkout().join("packaging/archive")).arg(binary).arg(folder));
    PathBuf::from(shown.trim())
}

#[test]
fn an_archive_holds_all_that_is_needed_and_runs_alone() {
    let scratch = Scratch::new();
    // What is below takes as long as the program is large, and tables for debuggers are left out anyway.
    let binary = scratch.join("built/baler");
    fs::create_dir(scratch.join("built")).unwrap();
    succeeds(Command::new("strip").arg("--strip-debug").arg("-o").arg(&binary).arg(baler::binary()));
    let (first, again) = (pack(&binary, &scratch.join("one")), pack(&binary, &scratch.join("two")));
    let sum = |archive: &Path| fs::read_to_string(format!("{}.sha256", archive.display())).unwrap();
    assert_eq!(sum(&first), sum(&again), "the same binary gave two archives");
    assert_eq!(
        succeeds(
            Command::new("sha256sum").args(["-c", "--quiet"]).arg(format!("{}.sha256", first.display())).current_dir(scratch.join("one"))
        ),
        ""
    );

    let version = Baler::new(["--version"]).run().expect_code(0).stdout.trim().replace(' ', "-");
    let name = first.file_name().unwrap().to_str().unwrap().strip_suffix(".tar.gz").unwrap();
    assert!(name.starts_with(&format!("{version}-")) && name.contains("linux"), "{name}");
    // Elsewhere, with nothing of the checkout.
    let away = scratch.join("away");
    fs::create_dir(&away).unwrap();
    succeeds(Command::new("tar").arg("-xzf").arg(&first).current_dir(&away));
    let inside = away.join(name);
    assert_eq!(fs::read_dir(&away).unwrap().count(), 1, "all of it is in one folder");
    for file in ["LICENSE", "README.md", "CHANGELOG.md", "man/baler.1", "man/baler-run.1", "completions/_baler", "completions/baler.fish"] {
        assert!(inside.join(file).is_file(), "{file} is not in the archive: {:?}", files(&inside));
    }
    for file in fs::read_dir(checkout().join("sql")).unwrap().map(|entry| entry.unwrap()) {
        assert_eq!(fs::read(inside.join("sql").join(file.file_name())).unwrap(), fs::read(file.path()).unwrap());
    }
    let completes = format!("source {}; complete -p baler", inside.join("completions/baler.bash").display());
    assert!(succeeds(Command::new("bash").args(["-c", &completes])).contains("baler"));
    let demo = succeeds(Command::new(inside.join("baler")).args(["demo", "--size", "8MiB"]).current_dir(&away));
    assert!(demo.contains("0 missing, 0 duplicate, 0 mismatched, 0 dead letters"), "{demo}");
}

#[test]
fn every_place_which_names_the_version_names_the_same_one() {
    let version = Baler::new(["--version"]).run().expect_code(0).stdout.trim().replace("baler ", "");
    for (file, line) in [
        ("Cargo.toml", format!("version = \"{version}\"")),
        ("Dockerfile", format!("ARG VERSION={version}")),
        ("python/pyproject.toml", format!("version = \"{version}\"")),
        ("python/baler/__init__.py", format!("__version__ = \"{version}\"")),
        ("k8s/components/image/kustomization.yaml", format!("    newTag: {version}")),
    ] {
        let text = fs::read_to_string(checkout().join(file)).unwrap();
        assert!(text.lines().any(|found| found == line), "{file} does not say {line}");
    }
}
