//! Tools out of Debian's, Python's and Maven's packages, unpacked into the cache: nothing is installed on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache;
use crate::job::files;

const PYTHON: &str = "Python 3.10 or newer with `venv` (`python3`)";

/// A folder with the content of Debian packages and of those which they depend on and this machine lacks; programs are below `usr/bin`.
///
/// # Panics
/// When there is no apt, or the packages cannot be had.
pub fn debian(name: &str, packages: &[&str]) -> PathBuf {
    cache::tool(&format!("debian-{name}"), &format!("apt-get download of {}", packages.join(", ")), |place| {
        let (lists, archives) = (place.join("lists"), place.join("archives"));
        for folder in [lists.join("partial"), archives.join("partial")] {
            std::fs::create_dir_all(folder).expect("cannot make a folder in the cache");
        }
        let folders = [format!("Dir::State::lists={}", lists.display()), format!("Dir::Cache::archives={}", archives.display())];
        let apt = || {
            let mut command = Command::new("apt-get");
            command.args(["-q", "-o", &folders[0], "-o", &folders[1], "-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"]);
            command
        };
        cache::step(apt().arg("update"), "Debian's `apt-get`");
        // What is installed already is fetched again, so that the folder does not depend on the machine's state.
        let install = ["install", "--yes", "--download-only", "--reinstall", "--no-install-recommends"];
        cache::step(apt().args(install).args(packages), "Debian's `apt-get`");
        for package in std::fs::read_dir(&archives).expect("a folder").flatten().map(|entry| entry.path()) {
            if package.extension().is_some_and(|end| end == "deb") {
                cache::step(Command::new("dpkg").arg("-x").arg(&package).arg(place), "Debian's `dpkg`");
            }
        }
        std::fs::remove_dir_all(lists).expect("cannot remove a folder of the cache");
        std::fs::remove_dir_all(archives).expect("cannot remove a folder of the cache");
    })
}

/// A library which gives a process that preloads it another clock.
///
/// # Panics
/// As [`debian`].
pub fn faketime() -> PathBuf {
    let files = files(&debian("faketime", &["libfaketime"]));
    files.into_iter().find(|file| file.ends_with("faketime/libfaketime.so.1")).expect("the package has its library")
}

/// What gives a process a wall clock which is wrong by so much, as `+3d`. The one which waits are measured with stays right.
///
/// # Panics
/// As [`debian`].
pub fn wrong_clock(by: &str) -> Vec<(String, String)> {
    let library = faketime().display().to_string();
    [("LD_PRELOAD", library.as_str()), ("FAKETIME", by), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .to_vec()
}

/// The `node_modules` folder with packages of exact versions (`name@1.2`), kept in the cache as `name`. Their scripts are not run.
///
/// # Panics
/// When they cannot be had.
pub fn npm(name: &str, packages: &[String]) -> PathBuf {
    let place = cache::tool(name, "npm install", |place| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(place).args(packages);
        cache::step(&mut npm, "Node.js with npm");
    });
    place.join("node_modules")
}

/// A virtual environment with Python packages of exact versions (`name==1.2`); programs are below `bin`.
///
/// # Panics
/// When they cannot be had.
pub fn python(packages: &[&str]) -> PathBuf {
    let name = format!("python-{}", packages.join("-").replace("==", "-"));
    cache::tool(&name, "python3 -m venv and pip", |place| {
        cache::step(Command::new("python3").args(["-m", "venv"]).arg(place), PYTHON);
        cache::step(Command::new(place.join("bin/pip")).args(["install", "--quiet", "--prefer-binary"]).args(packages), "pip");
    })
}

/// A folder with the jars of Maven's artifacts (`group:artifact:version`) and of all that they need.
///
/// # Panics
/// When they cannot be had.
pub fn maven(name: &str, artifacts: &[String]) -> PathBuf {
    let dependency = |artifact: &String| {
        let parts: Vec<_> = artifact.split(':').collect();
        let [group, artifact, version] = parts[..] else { panic!("{artifact} is not group:artifact:version") };
        format!("<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>")
    };
    let project = format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>baler</groupId><artifactId>jars</artifactId><version>1</version>\
         <dependencies>{}</dependencies></project>",
        artifacts.iter().map(dependency).collect::<String>()
    );
    let place = cache::tool(name, "mvn dependency:copy-dependencies", |place| {
        std::fs::write(place.join("pom.xml"), project).expect("cannot write to the cache");
        let folder = format!("-DoutputDirectory={}", place.join("lib").display());
        let mut maven = Command::new("mvn");
        maven.args(["--quiet", "--batch-mode", "--file"]).arg(place.join("pom.xml")).args(["dependency:copy-dependencies", &folder]);
        cache::step(&mut maven, "Maven (`mvn`)");
    });
    place.join("lib")
}

/// The folder of a Go module's source, such as `github.com/owner/name@v1.2.3`.
///
/// # Panics
/// When it cannot be had.
pub fn go_module(module: &str) -> PathBuf {
    let output = Command::new("go").args(["mod", "download", "-json", module]).output().expect("these tests need Go (`go`) on the PATH");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("an answer of go");
    PathBuf::from(answer["Dir"].as_str().unwrap_or_else(|| panic!("{module} cannot be had: {answer}")))
}

/// Runs a checker over files and returns its whole output; it has to end with success.
///
/// # Panics
/// When it is missing or finds something; the text holds its output.
pub fn check(program: &Path, arguments: &[&str], files: &[PathBuf]) -> String {
    assert!(!files.is_empty(), "nothing to check for {}", program.display());
    let output = Command::new(program).args(arguments).args(files).output();
    let output = output.unwrap_or_else(|e| panic!("cannot run {}: {e}", program.display()));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} {arguments:?} found faults:\n{text}", program.display());
    text
}
