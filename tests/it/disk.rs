//! Full disks and missing rights.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use baler_tests::corpus::{self, Random, lines};
use baler_tests::job::{Job, Objects, Sink};
use baler_tests::servers::say;

/// Input which does not compress, so that its dump is as large.
fn add_noise(job: &Job<'_>) -> Objects {
    let mut bytes = Random::new(90).bytes(3 << 20);
    bytes.iter_mut().step_by(4000).for_each(|byte| *byte = b'\n');
    Objects::from([(job.add_file("noise.txt", &bytes), bytes)])
}

#[test]
fn a_dump_which_cannot_grow_fails_and_resumes_when_there_is_room() {
    let job = Job::new();
    let expected = add_noise(&job);
    job.call().with_file_size_limit(256 << 10).run().expect_one_line(1, &["dump", "large"]);
    assert!(!job.is_committed());
    job.run();
    job.expect_complete(&expected);
}

/// A real file system of 2 MiB, which only this process and its children see. It is enlarged before the second run.
const ON_A_SMALL_DISK: &str = r#"
mkdir -p "$SMALL" && mount -t tmpfs -o size=2m none "$SMALL" || exit 99
"$@"; first=$?
mount -o remount,size=64m "$SMALL" || exit 99
"$@"; second=$?
cp -a "$SMALL/." "$COPY" || exit 99
exit "$first$second"
"#;

/// The call which gives a script file systems of its own: root may ask for them, others take a user namespace.
pub(crate) fn own_file_systems() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [&["unshare", "--mount"], &["unshare", "--user", "--map-root-user", "--mount"]];
    let works = |way: &&&[&str]| {
        let probe = Command::new(way[0]).args(&way[1..]).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    ways.iter().find(works).copied()
}

#[test]
fn a_full_disk_fails_the_job_and_loses_nothing() {
    let job = Job::new();
    let expected = add_noise(&job);
    let (small, copy) = (job.scratch.join("small"), job.scratch.join("dump"));
    fs::create_dir(&copy).unwrap();
    let elsewhere = Job { sink: Sink::Bson(small.clone()), ..job };
    let places = [("SMALL", &small), ("COPY", &copy)].map(|(name, path)| (name.to_string(), path.display().to_string()));
    let Some(way) = own_file_systems() else {
        // Said to whoever watches, and the file size limit above tests the same path of the code.
        return say("NOT RUN: a_full_disk_fails_the_job_and_loses_nothing: this machine lets nobody mount a file system");
    };
    let line = [way, &["sh", "-c", ON_A_SMALL_DISK, "small-disk"]].concat();
    let finished = elsewhere.call().envs(&places).through(&line).run();
    // Exit code 10: the first run failed with 1, the second came to its end.
    let finished = finished.expect_code(10);
    assert!(finished.stderr.contains("No space left"), "{}", finished.stderr);
    let stored = baler_tests::dump_reader::read_dump(&copy);
    stored.expect_objects(&expected);
}

#[test]
fn an_output_which_cannot_be_made_is_one_clear_line() {
    let mut job = Job::new();
    job.add_shapes(&corpus::odd_names());
    fs::write(job.scratch.join("file"), b"").unwrap();
    let below = job.scratch.join("file/dump");
    job.sink = Sink::Bson(below.clone());
    job.call().run().expect_one_line(1, &[&below.display().to_string()]);
    assert!(!job.is_committed());
}

/// A folder of which a user without root's rights can use nothing that is not given to them.
fn open_to_everybody(job: &Job<'_>) -> PathBuf {
    let mut folder = job.scratch.path().to_path_buf();
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    folder.pop();
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    job.scratch.path().to_path_buf()
}

#[test]
fn an_output_without_the_right_to_write_is_one_clear_line() {
    let job = Job::new();
    job.add_shapes(&corpus::odd_names());
    let folder = open_to_everybody(&job);
    fs::create_dir(job.scratch.join("dump")).unwrap();
    fs::set_permissions(job.scratch.join("dump"), Permissions::from_mode(0o555)).unwrap();
    job.call().without_root(&folder).run().expect_one_line(1, &["dump", "ermission denied"]);
    assert!(!job.is_committed());
}

#[test]
fn an_input_without_the_right_to_read_is_one_clear_line() {
    let job = Job::new();
    let uri = job.add_file("secret.txt", &lines(91, 1000, "\n"));
    let folder = open_to_everybody(&job);
    fs::set_permissions(job.scratch.join("input/secret.txt"), Permissions::from_mode(0o000)).unwrap();
    job.call().without_root(&folder).run().expect_one_line(1, &[&uri, "ermission denied"]);
    assert!(!job.is_committed());
}

#[test]
fn a_state_folder_without_the_right_to_write_is_one_clear_line_and_writes_no_document() {
    let job = Job::new();
    job.add_shapes(&corpus::odd_names());
    let folder = open_to_everybody(&job);
    fs::create_dir(job.scratch.join("state")).unwrap();
    fs::set_permissions(job.scratch.join("state"), Permissions::from_mode(0o555)).unwrap();
    job.call().without_root(&folder).run().expect_one_line(1, &["state", "ermission denied"]);
    assert!(job.sink.read().documents.is_empty(), "a document was written before the manifest");
}
