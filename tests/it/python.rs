//! The Python client: installed by pip, on a real fleet and in a real notebook's kernel.

use std::path::{Path, PathBuf};
use std::process::Command;

use baler_tests::baler::{Baler, Finished, binary};
use baler_tests::corpus::lines;
use baler_tests::fleet::Fleet;
use baler_tests::packages::python;
use baler_tests::servers::Scratch;
use serde_json::Value;

const PACKAGES: [&str; 5] =
    ["adbc-driver-flightsql==1.13.0", "hatchling==1.33.0", "ipykernel==7.4.0", "nbclient==0.11.0", "pyarrow==26.0.1"];

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A fleet with a state folder, the client installed, and some input.
struct Scene {
    scratch: Scratch,
    fleet: Fleet,
    python: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let scratch = Scratch::new();
        let python = python(&PACKAGES).join("bin/python");
        // A copy, because the build leaves its traces beside what it builds.
        let source = scratch.join("python");
        let copied = Command::new("cp").arg("-r").arg(project("python")).arg(&source).status().unwrap();
        assert!(copied.success());
        let install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"];
        let installed = Command::new(&python).args(install).arg(scratch.join("site")).arg(&source).output().unwrap();
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        std::fs::create_dir(scratch.join("in")).unwrap();
        for (seed, name) in [(1, "a.log"), (2, "b.log")] {
            std::fs::write(scratch.join("in").join(name), lines(seed, 3_000_000, "\n")).unwrap();
        }
        let fleet = Fleet::start_with(2, &[], &["--state", &scratch.join("state").display().to_string()]);
        Self { scratch, fleet, python }
    }

    fn path(&self, name: &str) -> String {
        self.scratch.join(name).display().to_string()
    }

    fn run(&self, script: &str, arguments: Vec<String>) -> Finished {
        let script = project("tests/clients").join(script).display().to_string();
        let variables = [
            ("PYTHONPATH", self.path("site")),
            ("BALER_BIN", binary().display().to_string()),
            ("TMPDIR", self.path("")),
            ("BALER_STATE", String::new()),
        ];
        let variables: Vec<_> = variables.map(|(name, value)| (name.to_string(), value)).to_vec();
        Baler::new([vec![script], arguments].concat()).with_program(&self.python).envs(&variables).run()
    }
}

#[test]
fn a_program_submits_waits_verifies_and_queries() {
    let scene = Scene::new();
    let sql = project("sql/compress.sql").display().to_string();
    let finished = scene.run("python_client.py", vec![scene.fleet.url(), sql, scene.path("in/"), scene.path("out")]).expect_code(0);
    let said: Vec<Value> = finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| said.iter().find_map(|line| line.get(name)).unwrap_or_else(|| panic!("no {name}: {said:#?}")).clone();
    assert!(of("state").as_str().unwrap().ends_with("/state"), "{}", of("state"));
    assert_eq!(of("unknown")["state"], "unknown");
    let read = |name| std::fs::read(scene.scratch.join("in").join(name)).unwrap();
    let input = [read("a.log"), read("b.log")].concat();
    let (raw, records) = (input.len() as u64, input.iter().filter(|byte| **byte == b'\n').count() as u64);
    for name in ["done", "followed"] {
        let status = of(name);
        assert_eq!(
            (&status["state"], status["splits_done"].as_u64(), status["records"].as_u64()),
            (&"committed".into(), Some(2), Some(records))
        );
        assert_eq!(status["raw_bytes"].as_u64(), Some(raw), "{status}");
    }
    assert_eq!(of("jobs"), serde_json::json!(["nightly"]));
    assert_eq!(of("report")["compared_bytes"].as_u64(), Some(raw), "{}", of("report"));
    assert_eq!(of("rows"), serde_json::json!([{"answer": 42}]));
    assert_eq!(of("again"), true);
    let failed = of("failed");
    assert!(failed.as_str().unwrap().contains("the driver ended with 2: ") && failed.as_str().unwrap().contains("nothing"), "{failed}");
    let broken = of("broken");
    assert!(broken[1].as_str().unwrap().contains("nightly"), "{broken}");
    let nobody = of("nobody");
    assert!(nobody.as_str().unwrap().contains("127.0.0.1:1") && nobody.as_str().unwrap().contains("baler scheduler"), "{nobody}");
    assert!(finished.stderr.contains("nightly: 2/2 splits"), "the progress on stderr: {}", finished.stderr);
}

#[test]
fn a_notebook_shows_a_bar() {
    let scene = Scene::new();
    let code = format!(
        "import baler\nfrom pathlib import Path\njob = baler.connect('{}').submit(Path('{}'), job='cell', set={{'INPUT': '{}', 'OUTPUT': '{}'}})\n\
         job.wait(timeout=150, progress=True).splits_done",
        scene.fleet.url(),
        project("sql/compress.sql").display(),
        scene.path("in/"),
        scene.path("out")
    );
    let finished = scene.run("notebook.py", vec![code]).expect_code(0);
    let shown: Value = serde_json::from_str(finished.stdout.trim()).unwrap();
    let shown = shown.as_array().unwrap();
    // One bar, redrawn in its place, and the cell's value.
    assert_eq!(shown.len(), 2, "{shown:#?}");
    let bar = shown[0]["text/html"].as_str().unwrap();
    assert!(bar.contains("<progress value=\"2\" max=\"2\">") && bar.contains("cell: 2/2 splits"), "{bar}");
    assert_eq!(shown[1]["text/plain"], "2");
}
