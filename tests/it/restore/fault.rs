//! A restore which is killed, stopped or cut off in the middle, and begun again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use baler_tests::baler::Running;
use baler_tests::corpus::lines;
use baler_tests::fleet::Fleet;
use baler_tests::job::{Job, files};
use baler_tests::mongo::Mongo;
use baler_tests::proxy::{Fault, Protocol, Proxy};

use super::{below, expect_same};

/// More than are open at once, so that some are whole when others have not begun.
const OBJECTS: usize = 100;

/// A job of many objects whose documents come through a proxy.
fn behind_a_proxy() -> (Job<'static>, Proxy) {
    let mongo = Mongo::shared();
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let job = Job::new().into_collection(mongo.collection_at(proxy.port));
    for number in 0..OBJECTS as u64 {
        job.add_file(&format!("{}/{number}.jsonl", number % 3), &lines(200 + number, 200_000, "\n"));
    }
    job.run();
    (job, proxy)
}

/// Starts the restore and waits until it hangs, in the middle of the documents.
fn start_and_hold(job: &Job<'_>, proxy: &Proxy, to: &Path) -> Running {
    proxy.arm(Fault::StallReplies { bytes: 500_000 });
    let mut run = job.restore_call(to.to_str().unwrap(), &[]).start();
    assert!(run.runs_until("the database is silent", || proxy.fired() > 0), "the restore ended before the stall");
    run
}

/// Lets documents come again.
fn release(proxy: &Proxy) {
    proxy.arm(Fault::None);
    proxy.cut();
}

#[test]
fn a_restore_killed_in_the_middle_goes_on_and_writes_nothing_twice() {
    let (job, proxy) = behind_a_proxy();
    let to = job.scratch.join("back");
    let whole = || {
        let found = files(&to).into_iter().filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'));
        found.map(|path| (fs::metadata(&path).unwrap().ino(), path)).collect::<Vec<_>>()
    };
    let mut kills = 0;
    for bytes in [800_000, 800_000] {
        let stalls = proxy.fired();
        proxy.arm(Fault::StallReplies { bytes });
        let before = whole();
        let mut run = job.restore_call(to.to_str().unwrap(), &[]).start();
        let is_stuck = || proxy.fired() > stalls && whole().len() > before.len();
        assert!(run.runs_until("the database is silent, and something is whole", is_stuck), "the restore ended before the stall");
        assert_eq!(run.kill().signal, Some(9));
        kills += 1;
        proxy.cut();
        proxy.arm(Fault::None);
        let after = whole();
        assert!(after.len() > before.len() && after.len() < OBJECTS, "{} of {OBJECTS} objects are there", after.len());
        assert!(before.iter().all(|file| after.contains(file)), "a whole object was written again");
        // What has its name is whole.
        let input = below(&job.scratch.join("input"));
        for (_, path) in &after {
            assert!(fs::read(path).unwrap() == input[path.strip_prefix(&to).unwrap().to_str().unwrap()]);
        }
    }
    let before = whole();
    let report = job.restore(to.to_str().unwrap(), &[]);
    assert_eq!((kills, report["written"].as_u64()), (2, Some((OBJECTS - before.len()) as u64)));
    assert!(before.iter().all(|file| whole().contains(file)), "a whole object was written again");
    expect_same(&below(&to), &below(&job.scratch.join("input")));
}

#[test]
fn a_restore_which_is_told_to_stop_says_how_to_go_on() {
    let (job, proxy) = behind_a_proxy();
    let to = job.scratch.join("back");
    let run = start_and_hold(&job, &proxy, &to);
    let text = run.terminate().expect_code(1).stderr;
    assert!(text.contains("again") && text.contains(&job.name), "{text}");
    release(&proxy);
    job.restore(to.to_str().unwrap(), &[]);
    expect_same(&below(&to), &below(&job.scratch.join("input")));
}

#[test]
fn a_connection_which_is_cut_while_documents_are_read_is_made_again() {
    let (job, proxy) = behind_a_proxy();
    let to = job.scratch.join("back");
    proxy.arm(Fault::CutReplies { bytes: 300_000, times: 4 });
    job.restore(to.to_str().unwrap(), &[]);
    assert_eq!(proxy.fired(), 4, "the connections were cut");
    expect_same(&below(&to), &below(&job.scratch.join("input")));
}

#[test]
fn a_restore_whose_executor_is_killed_ends_complete() {
    let (job, proxy) = behind_a_proxy();
    let mut fleet = Fleet::start(2, &[]);
    let job = job.on(&fleet);
    let to = job.scratch.join("back");
    let run = start_and_hold(&job, &proxy, &to);
    fleet.kill_executor(0);
    release(&proxy);
    run.wait().expect_code(0);
    fleet.wait_executors(1);
    // What the killed one left behind under a hidden name was taken over.
    expect_same(&below(&to), &below(&job.scratch.join("input")));
}

#[test]
fn a_restore_whose_scheduler_is_killed_ends_complete_on_the_next_one() {
    let (job, proxy) = behind_a_proxy();
    let mut fleet = Fleet::start(2, &[]);
    let job = job.on(&fleet);
    let to = job.scratch.join("back");
    let run = start_and_hold(&job, &proxy, &to);
    fleet.kill_scheduler();
    release(&proxy);
    fleet.start_scheduler();
    run.wait().expect_code(0);
    expect_same(&below(&to), &below(&job.scratch.join("input")));
}
