//! What Baler is made of: the bill of materials names it, and `deny.toml` says what may be in it. Known vulnerabilities, whose list grows by itself, are asked for by
//! `supply-chain/check`, before a release.

use std::path::Path;
use std::process::Command;

use baler_tests::cache;
use baler_tests::servers::Scratch;
use serde_json::Value;

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
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

const CARGO_DENY: &str = "0.20.2";

#[test]
fn licences_sources_and_versions_of_dependencies_are_those_which_deny_toml_lets_in() {
    let tool = cache::tool(&format!("cargo-deny-{CARGO_DENY}"), "cargo install (some minutes)", |place| {
        let mut install = Command::new("cargo");
        install.args(["install", "--quiet", "--locked", "cargo-deny", "--version", CARGO_DENY, "--root"]).arg(place);
        cache::step(&mut install, "Rust's `cargo`");
    });
    let check = |rules: &Path| {
        let mut deny = Command::new(tool.join("bin/cargo-deny"));
        deny.args(["--locked", "--config"]).arg(rules).args(["check", "bans", "licenses", "sources"]).current_dir(root());
        let output = deny.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let rules = root().join("deny.toml").canonicalize().unwrap();
    let (is_good, told) = check(&rules);
    assert!(is_good, "{told}");
    // A rule which does not let in what is there is seen to refuse it.
    let strict = Scratch::new();
    let text = std::fs::read_to_string(&rules).unwrap().replace("    \"MIT\",\n", "");
    std::fs::write(strict.join("deny.toml"), text).unwrap();
    let (is_good, told) = check(&strict.join("deny.toml"));
    assert!(!is_good && told.contains("rejected"), "{told}");
}
