//! Names of the parts of a statement which does not run split by split: a join, an aggregate, a sort.
//!
//! A partition which is written again must replace its part. So the name is a pure function of who writes (a job, or one run of a
//! statement) and of the partition's number in the whole plan. A task of the fleet knows neither from its plan: its partitions count
//! from 0, and its own number changes when it is run again. Its executor tells them: see [`crate::cluster::engine`].

use super::split::digest_id;
use crate::job::JobRef;

/// What a task of the fleet writes.
#[derive(Debug, Clone)]
pub struct TaskPartitions {
    /// Ballista's id of the job: one run of a statement.
    pub run: String,
    /// The number in the whole plan of each partition of the task's plan.
    pub partitions: Vec<usize>,
}

/// The part of a partition; `partition` counts within the plan at hand.
pub(super) fn part_name(job: Option<&JobRef>, task: Option<&TaskPartitions>, partition: usize) -> String {
    let number = match task {
        Some(task) => task.partitions.get(partition).copied(),
        None => Some(partition),
    };
    let stem = match (job, task) {
        (Some(job), _) => part_stem(job),
        (None, Some(task)) => stem(&["run", &task.run]),
        // Nothing runs it again in one process, and what another statement wrote must stay.
        (None, None) => stem(&["once", &rand::random::<u64>().to_string()]),
    };
    // A partition without a number cannot be told from another one; its part must at least not replace that one's.
    number.map_or_else(|| format!("{stem}x{:016x}", rand::random::<u64>()), |number| format!("{stem}{number:05}"))
}

/// How the parts of a job begin.
pub(super) fn part_stem(job: &JobRef) -> String {
    stem(&["job", &job.state, &job.name])
}

fn stem(owner: &[&str]) -> String {
    format!("part-{}-", digest_id(owner, 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_has_one_name_in_all_attempts_at_a_job_and_another_one_in_another_run() {
        let job = |name: &str, attempt| JobRef { attempt, ..JobRef::try_new("file:///state", name).unwrap() };
        let task = |run: &str, number| TaskPartitions { run: run.to_string(), partitions: vec![7, number] };
        let first = part_name(Some(&job("load", 1)), Some(&task("a", 3)), 1);
        assert_eq!(first, part_name(Some(&job("load", 2)), Some(&task("b", 3)), 1));
        assert_eq!(first, part_name(Some(&job("load", 3)), None, 3));
        assert!(first.starts_with(&part_stem(&job("load", 9))) && !first.starts_with(&part_stem(&job("loads", 9))));
        assert_ne!(first, part_name(Some(&job("load", 1)), Some(&task("a", 4)), 1));
        assert_eq!(part_name(None, Some(&task("a", 3)), 1), part_name(None, Some(&task("a", 3)), 1));
        assert_ne!(part_name(None, Some(&task("a", 3)), 1), part_name(None, Some(&task("b", 3)), 1));
        assert_ne!(part_name(None, None, 0), part_name(None, None, 0));
        assert_ne!(part_name(Some(&job("load", 1)), Some(&task("a", 3)), 2), part_name(Some(&job("load", 1)), Some(&task("a", 3)), 2));
    }
}
