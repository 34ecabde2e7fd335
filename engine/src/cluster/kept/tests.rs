//! A query of three stages, whose tasks are played: what each stage delivered must be each of its partitions, once.

use ballista_core::serde::protobuf::{FetchPartitionError, ShuffleWritePartition};
use ballista_core::serde::scheduler::{ExecutorOperatingSystemSpecification, ExecutorSpecification};
use ballista_scheduler::planner::DefaultDistributedPlanner;
use ballista_scheduler::state::execution_graph::StaticExecutionGraph;
use ballista_scheduler::state::execution_stage::StageOutput;
use datafusion::arrow::array::{Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;

use super::*;

const PARTITIONS: usize = 4;

async fn ballistas() -> ExecutionGraphBox {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from_iter_values(0..100))]).unwrap();
    let config = SessionConfig::new().with_target_partitions(PARTITIONS);
    let context = SessionContext::new_with_config(config.clone());
    context.register_table("t", Arc::new(MemTable::try_new(schema, vec![vec![batch]; PARTITIONS]).unwrap())).unwrap();
    let query = "SELECT n, count(*) FROM (SELECT id, count(*) AS n FROM t GROUP BY id) GROUP BY n";
    let plan = context.sql(query).await.unwrap().create_physical_plan().await.unwrap();
    let (job, mut planner) = ("job".to_string().into(), DefaultDistributedPlanner::new());
    let graph = StaticExecutionGraph::new("scheduler", &job, "job", "session", plan, 0, Arc::new(config), &mut planner, None).unwrap();
    assert_eq!(graph.stage_count(), 3);
    Box::new(graph)
}

async fn ours() -> ExecutionGraphBox {
    Box::new(KeepingGraph::new(ballistas().await))
}

/// A task which was given to an executor.
#[derive(Debug, Clone)]
struct Task {
    stage: usize,
    attempt: usize,
    id: usize,
    partition: usize,
    is_last_stage: bool,
    executor: &'static str,
}

fn executor(id: &str) -> ExecutorMetadata {
    ExecutorMetadata {
        id: id.to_string(),
        host: "localhost".to_string(),
        port: 1,
        grpc_port: 2,
        specification: ExecutorSpecification::default(),
        os_info: ExecutorOperatingSystemSpecification::default(),
    }
}

/// Gives `executor` the next task, as Ballista's `bind_one` does.
fn bind(graph: &mut ExecutionGraphBox, executor: &'static str) -> Option<Task> {
    let stage = graph.fetch_running_stage(&[])?;
    let slice = stage.pending.next_slice(1);
    let id = stage.task_infos.len();
    stage.task_infos.push(TaskInfo {
        task_id: id,
        scheduled_time: 0,
        launch_time: 0,
        start_exec_time: 0,
        end_exec_time: 0,
        finish_time: 0,
        task_status: task_status::Status::Running(RunningTask { executor_id: executor.to_string() }),
        global_input_partition_ids: slice.clone(),
        vcores_consumed: 1,
    });
    let is_last_stage = stage.output_links.is_empty();
    Some(Task { stage: stage.stage_id, attempt: stage.stage_attempt_num, id, partition: slice[0], is_last_stage, executor })
}

fn report(graph: &mut ExecutionGraphBox, task: &Task, status: task_status::Status) {
    let status = TaskStatus {
        task_id: task.id as u32,
        job_id: "job".to_string(),
        stage_id: task.stage as u32,
        stage_attempt_num: task.attempt as u32,
        status: Some(status),
        ..TaskStatus::default()
    };
    graph.update_task_status(&executor(task.executor), vec![status], 4, 4).unwrap();
}

fn finish(graph: &mut ExecutionGraphBox, task: &Task) {
    let delivered = if task.is_last_stage { task.partition..task.partition + 1 } else { 0..PARTITIONS };
    let partitions = delivered.map(|partition| ShuffleWritePartition { partition_id: partition as u64, ..Default::default() }).collect();
    let done = SuccessfulTask { executor_id: task.executor.to_string(), partitions, ..SuccessfulTask::default() };
    report(graph, task, task_status::Status::Successful(done));
}

/// Runs the next stage on both executors, in turns, up to `left` tasks of it, which are given out but not finished.
fn run_stage(graph: &mut ExecutionGraphBox, left: usize) -> Vec<Task> {
    let tasks: Vec<Task> = (0..PARTITIONS).map(|n| bind(graph, if n % 2 == 0 { "lost" } else { "kept" }).unwrap()).collect();
    let (done, left) = tasks.split_at(PARTITIONS - left);
    done.iter().for_each(|task| finish(graph, task));
    left.to_vec()
}

fn run_to_the_end(graph: &mut ExecutionGraphBox) {
    while let Some(task) = bind(graph, "kept") {
        finish(graph, &task);
    }
    assert!(graph.is_successful(), "{graph:?}");
}

/// The partitions of `stage` whose output `input` would read, for each partition of the reader.
fn read(stage: &ExecutionStage, input: &StageOutput) -> Vec<Vec<usize>> {
    let tasks = stage.task_infos().unwrap();
    let partition_of = |location: &PartitionLocation| tasks[location.map_partition_id].global_input_partition_ids[0];
    let mut read = vec![Vec::new(); PARTITIONS];
    for (partition, locations) in &input.partition_locations {
        read[*partition] = locations.iter().map(partition_of).collect();
        read[*partition].sort_unstable();
    }
    read
}

/// The same of all stages of a query that has ended.
fn all_reads(graph: &ExecutionGraphBox) -> Vec<Vec<Vec<usize>>> {
    let stages = graph.stages().values().filter_map(|stage| match stage {
        ExecutionStage::Successful(stage) => Some(stage),
        _ => None,
    });
    stages.flat_map(|reader| &reader.inputs).map(|(id, input)| read(&graph.stages()[id], input)).collect()
}

fn once() -> Vec<Vec<Vec<usize>>> {
    vec![vec![(0..PARTITIONS).collect(); PARTITIONS]; 2]
}

/// Partition and executor of each part of the result.
fn result(graph: &ExecutionGraphBox) -> Vec<(usize, String)> {
    let Some(job_status::Status::Successful(job)) = &graph.status().status else { panic!("{graph:?}") };
    let place = |location: &ballista_core::serde::protobuf::PartitionLocation| {
        (location.partition_id.as_ref().unwrap().partition_id as usize, location.executor_meta.as_ref().unwrap().id.clone())
    };
    let mut places: Vec<_> = job.partition_location.iter().map(place).collect();
    places.sort_unstable();
    places
}

fn result_of_the_kept() -> Vec<(usize, String)> {
    (0..PARTITIONS).map(|partition| (partition, "kept".to_string())).collect()
}

/// An executor is lost while the second stage reads its shuffles, and half of that stage has been delivered.
fn lose_while_the_second_stage_runs(graph: &mut ExecutionGraphBox) {
    run_stage(graph, 0);
    run_stage(graph, 2);
    graph.reset_stages_on_lost_executor("lost").unwrap();
    run_to_the_end(graph);
}

#[tokio::test]
async fn what_a_rolled_back_stage_has_delivered_is_read_once() {
    let mut graph = ours().await;
    lose_while_the_second_stage_runs(&mut graph);
    assert_eq!(all_reads(&graph), once());
    assert_eq!(result(&graph), result_of_the_kept());
}

/// When this fails, Ballista is mended, and [`KeepingGraph`] can go.
#[tokio::test]
async fn ballistas_own_graph_reads_it_twice() {
    let mut graph = ballistas().await;
    lose_while_the_second_stage_runs(&mut graph);
    assert!(all_reads(&graph).iter().flatten().any(|read| read.len() > PARTITIONS));
}

#[tokio::test]
async fn a_shuffle_that_cannot_be_fetched_lets_nothing_be_read_twice() {
    let mut graph = ours().await;
    run_stage(&mut graph, 0);
    let left = run_stage(&mut graph, 2);
    let fetch = FetchPartitionError { executor_id: "lost".to_string(), map_stage_id: 1, map_partition_id: 0 };
    let failure = failed(FailedReason::FetchPartitionError(fetch));
    report(&mut graph, &left[1], failure.clone());
    assert!(matches!(graph.stages()[&2], ExecutionStage::UnResolved(_)));
    // What else the first attempt reports comes too late.
    report(&mut graph, &left[0], failure);
    graph.reset_stages_on_lost_executor("lost").unwrap();
    run_to_the_end(&mut graph);
    assert_eq!(all_reads(&graph), once());
    assert_eq!(result(&graph), result_of_the_kept());
}

#[tokio::test]
async fn an_executor_that_is_lost_with_results_has_none_in_the_end() {
    let mut graph = ours().await;
    run_stage(&mut graph, 0);
    run_stage(&mut graph, 0);
    run_stage(&mut graph, 1);
    graph.reset_stages_on_lost_executor("lost").unwrap();
    run_to_the_end(&mut graph);
    assert_eq!(all_reads(&graph), once());
    assert_eq!(result(&graph), result_of_the_kept());
    assert_eq!(graph.output_locations().len(), PARTITIONS);
}

#[tokio::test]
async fn a_second_loss_before_the_stage_began_again_is_survived_too() {
    let mut graph = ours().await;
    run_stage(&mut graph, 0);
    run_stage(&mut graph, 1);
    graph.reset_stages_on_lost_executor("lost").unwrap();
    // The first stage runs again on a third executor, which is lost as well.
    let task = bind(&mut graph, "third").unwrap();
    assert_eq!(task.stage, 1);
    finish(&mut graph, &task);
    graph.reset_stages_on_lost_executor("third").unwrap();
    run_to_the_end(&mut graph);
    assert_eq!(all_reads(&graph), once());
    assert_eq!(result(&graph), result_of_the_kept());
}
