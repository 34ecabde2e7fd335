//! `kill -9` and SIGTERM of `baler run`, and the resumed job.

use baler_tests::corpus::{Random, lines};
use baler_tests::job::{Job, Objects};
use baler_tests::mongo::Mongo;
use baler_tests::proxy::{Fault, Protocol, Proxy};
use baler_tests::servers::say;

const SIGKILL: i32 = 9;

/// 24 splits of 1 MiB in three objects.
fn add_input(job: &Job<'_>) -> Objects {
    let object = |n: u64| {
        let bytes = lines(60 + n, 8 << 20, "\n");
        (job.add_file(&format!("part-{n}.jsonl"), &bytes), bytes)
    };
    (0..3).map(object).collect()
}

/// Runs and kills the job until a run comes to its end; `more` says after how many new receipts each run is killed. Returns the kills.
fn kill_until_it_is_done(job: &Job<'_>, mut more: impl FnMut() -> usize) -> usize {
    for kills in 0.. {
        let target = job.receipts() + more();
        let kept = job.receipt_files();
        let mut run = job.call().start();
        let lives = run.runs_until("the next receipts exist", || job.receipts() >= target);
        if !lives {
            run.wait().expect_code(0);
            return kills;
        }
        let finished = run.kill();
        if finished.signal != Some(SIGKILL) {
            finished.expect_code(0);
            return kills;
        }
        let now = job.receipt_files();
        assert!(kept.iter().all(|(path, bytes)| now.get(path) == Some(bytes)), "a receipt was written again");
    }
    unreachable!("the loop ends by itself")
}

fn killed_after_receipts(job: &Job<'_>) {
    let expected = add_input(job);
    let mut step = [1, 2, 1, 3].into_iter().cycle();
    let kills = kill_until_it_is_done(job, || step.next().unwrap());
    assert!(kills >= 3, "the job was killed {kills} times only");
    job.expect_complete(&expected);
}

#[test]
fn a_job_killed_after_any_number_of_receipts_ends_complete_in_a_dump() {
    killed_after_receipts(&Job::new());
}

#[test]
fn a_job_killed_after_any_number_of_receipts_ends_complete_in_a_collection() {
    killed_after_receipts(&Job::new().into_collection(Mongo::shared().collection()));
}

/// Kills at random points: after a random number of looks at the process, counted from a random receipt on, and three receipts later
/// at the latest, so that a fast machine does not come to its end before it was killed a few times.
fn killed_at_random(job: &Job<'_>, seed: u64) {
    say(&format!("seed of the random kills: {seed} (set BALER_TEST_SEED to repeat another)"));
    let expected = add_input(job);
    let mut random = Random::new(seed);
    let mut kills = 0;
    while !job.is_committed() {
        // Some runs are killed before their first receipt and bring nothing on; after many of them, one is waited for.
        let (first, looks) = (job.receipts() + random.below(3) as usize + kills / 20, random.below(25));
        let mut run = job.call().start();
        let mut look = 0;
        run.runs_until("a random point is reached", || {
            let receipts = job.receipts();
            look += u64::from(receipts >= first);
            look > looks || receipts >= first + 3
        });
        let finished = run.kill();
        if finished.signal == Some(SIGKILL) {
            kills += 1;
        } else {
            finished.expect_code(0);
        }
    }
    assert!(kills >= 3, "the job was killed {kills} times only");
    job.run();
    job.expect_complete(&expected);
}

fn seed() -> u64 {
    std::env::var("BALER_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

#[test]
fn a_job_killed_at_random_points_ends_complete_in_a_dump() {
    killed_at_random(&Job::new(), seed());
}

#[test]
fn a_job_killed_at_random_points_ends_complete_in_a_collection() {
    killed_at_random(&Job::new().into_collection(Mongo::shared().collection()), seed() + 1);
}

#[test]
fn a_job_killed_between_write_and_receipt_ends_complete() {
    let mongo = Mongo::shared();
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let job = Job::new().into_collection(mongo.collection_at(proxy.port));
    let expected = add_input(&job);
    for writes in [0, 1, 2, 5] {
        let stalls = proxy.fired();
        proxy.arm(Fault::Stall { writes });
        let mut run = job.call().start();
        assert!(run.runs_until("writes hang", || proxy.fired() > stalls), "the job ended before the stall");
        assert_eq!(run.kill().signal, Some(SIGKILL));
        proxy.cut();
        proxy.arm(Fault::None);
        assert!(!job.is_committed());
    }
    assert_eq!(proxy.fired(), 4);
    job.run();
    job.expect_complete(&expected);
}

#[test]
fn a_terminated_job_stops_says_how_to_resume_and_resumes() {
    let mongo = Mongo::shared();
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let job = Job::new().into_collection(mongo.collection_at(proxy.port));
    let expected = add_input(&job);
    proxy.arm(Fault::Stall { writes: 3 });
    let mut run = job.call().start();
    assert!(run.runs_until("writes hang", || proxy.fired() > 0));
    let finished = run.terminate();
    proxy.arm(Fault::None);
    let text = finished.expect_code(1).stderr;
    assert!(text.contains("again") && text.contains(&job.name), "no word on how to resume: {text}");
    assert!(!job.is_committed());
    job.run();
    job.expect_complete(&expected);
}

#[test]
fn a_resumed_job_reads_no_split_again_which_has_a_receipt() {
    let mongo = Mongo::shared();
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let job = Job::new().into_collection(mongo.collection_at(proxy.port));
    let expected = add_input(&job);
    let mut run = job.call().start();
    run.runs_until("some receipts exist", || job.receipts() >= 5);
    let finished = run.kill();
    assert_eq!(finished.signal, Some(SIGKILL), "the job was not killed before its end: {finished:#?}");
    let kept = job.receipt_files();
    let writes = proxy.writes();
    job.run();
    let now = job.receipt_files();
    assert!(kept.iter().all(|(path, bytes)| now.get(path) == Some(bytes)), "a receipt was written again");
    assert!(proxy.writes() > writes, "the resumed run wrote the rest");
    job.expect_complete(&expected);
}

#[test]
fn two_runs_of_one_job_at_once_end_in_one_complete_result() {
    let job = Job::new().into_collection(Mongo::shared().collection());
    let expected = add_input(&job);
    let runs = [job.call().start(), job.call().start()];
    let codes = runs.map(|run| run.wait().code);
    // The second may be refused or may help; it must not double or lose anything.
    assert!(codes.contains(&Some(0)), "neither run came to its end: {codes:?}");
    job.expect_complete(&expected);
}
