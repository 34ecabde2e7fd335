//! Connections cut, servers killed.

use baler_tests::corpus::lines;
use baler_tests::job::{Job, Objects};
use baler_tests::mongo::Mongo;
use baler_tests::proxy::{Fault, Protocol, Proxy};

/// 12 splits of 1 MiB in batches of 4 documents, so that there are many writes.
fn many_writes(job: &mut Job<'_>) -> Objects {
    job.sink_options.push(("mongodb.batch_docs", "4"));
    let bytes = lines(70, 12 << 20, "\n");
    Objects::from([(job.add_file("all.jsonl", &bytes), bytes)])
}

/// Runs a job through a proxy with a fault and returns how often it fired.
fn survives(fault: Fault) -> usize {
    let mongo = Mongo::shared();
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let mut job = Job::new().into_collection(mongo.collection_at(proxy.port));
    let expected = many_writes(&mut job);
    proxy.arm(fault);
    job.run();
    proxy.arm(Fault::None);
    job.expect_complete(&expected);
    proxy.fired()
}

#[test]
fn a_connection_cut_between_write_and_acknowledgement_doubles_nothing() {
    assert_eq!(survives(Fault::LoseReplies { writes: 3, times: 1 }), 1);
}

#[test]
fn many_lost_acknowledgements_double_nothing() {
    assert_eq!(survives(Fault::LoseReplies { writes: 1, times: 6 }), 6);
}

#[test]
fn a_lost_acknowledgement_of_the_first_write_doubles_nothing() {
    assert_eq!(survives(Fault::LoseReplies { writes: 0, times: 1 }), 1);
}

#[test]
fn writes_cut_in_their_middle_are_sent_again() {
    assert_eq!(survives(Fault::CutWrites { writes: 2, times: 4 }), 4);
}

#[test]
fn a_database_killed_and_restarted_during_the_job_loses_and_doubles_nothing() {
    let mongo = Mongo::start();
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    for writes in [2, 9] {
        let collection = mongo.collection_at(proxy.port);
        collection.settle();
        let mut job = Job::new().into_collection(collection);
        let expected = many_writes(&mut job);
        // The stall holds the job in the middle of its writes, until the server is dead.
        let stalls = proxy.fired();
        proxy.arm(Fault::Stall { writes });
        let mut run = job.call().start();
        assert!(run.runs_until("writes hang", || proxy.fired() > stalls), "the job ended before the stall");
        mongo.kill();
        proxy.cut();
        proxy.arm(Fault::None);
        assert!(run.is_running() && !job.is_committed(), "the database died after the job");
        mongo.restart();
        run.wait().expect_code(0);
        job.expect_complete(&expected);
    }
    assert_eq!(proxy.fired(), 2);
}

#[test]
fn a_database_which_refuses_for_a_while_is_waited_for() {
    let mongo = Mongo::shared();
    let proxy = Proxy::start(mongo.port, Protocol::Mongo);
    let mut job = Job::new().into_collection(mongo.collection_at(proxy.port));
    let expected = many_writes(&mut job);
    proxy.arm(Fault::Stall { writes: 4 });
    let mut run = job.call().start();
    assert!(run.runs_until("writes hang", || proxy.fired() > 0), "the job ended before the stall");
    proxy.arm(Fault::Refuse);
    // One firing for the cut, then one for each connection which the job tries and does not get.
    assert!(run.runs_until("the job tried again", || proxy.fired() > 5), "the job gave up");
    proxy.arm(Fault::None);
    run.wait().expect_code(0);
    job.expect_complete(&expected);
}
