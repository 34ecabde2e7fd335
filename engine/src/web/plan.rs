//! A plan as a graph: each node with its inputs and what it did.

use ballista_core::execution_plans::{ShuffleReaderExec, UnresolvedShuffleExec};
use datafusion::physical_plan::metrics::{MetricValue, MetricsSet};
use datafusion::physical_plan::{ExecutionPlan, displayable};

use super::schema::{Metric, PlanNode};
use super::secret::hide_secrets;

/// Characters of a node's description. A projection of a wide table would be pages.
const DETAIL_MAX: usize = 300;

/// A plan, or the part of one that is a stage.
#[derive(Debug)]
pub struct StagePlan<'a> {
    /// Number of the stage; `None` in one process.
    pub stage: Option<usize>,
    /// Its nodes.
    pub plan: &'a dyn ExecutionPlan,
    /// What each of those nodes did which has metrics, a node before its inputs; none where nothing is known yet.
    pub metrics: &'a [MetricsSet],
}

/// The graph of all stages: the one which no other reads comes first. Readers of a stage are joined to its root.
pub fn graph(stages: &[StagePlan<'_>]) -> Vec<PlanNode> {
    let mut graph = Graph::default();
    for stage in stages {
        let root = graph.nodes.len();
        graph.add(stage.plan, stage, &mut 0);
        graph.roots.extend(stage.stage.map(|number| (number, root)));
    }
    let Graph { mut nodes, roots, reads } = graph;
    for (reader, stage) in reads {
        let root = roots.iter().find(|(number, _)| *number == stage).map(|(_, root)| *root);
        if let Some(node) = nodes.get_mut(reader) {
            node.inputs.extend(root);
        }
    }
    nodes
}

/// Adds what the same plan did in another wave; `false`, and nothing is added, where it is another plan.
pub fn add_wave(nodes: &mut [PlanNode], other: &[PlanNode]) -> bool {
    // A stage which has not begun waits for its input under another name.
    let kind = |node: &PlanNode| if node.name == "UnresolvedShuffleExec" { "ShuffleReaderExec".to_string() } else { node.name.clone() };
    let is_same = |a: &PlanNode, b: &PlanNode| kind(a) == kind(b) && a.stage == b.stage && a.inputs == b.inputs;
    if nodes.len() != other.len() || !nodes.iter().zip(other).all(|(a, b)| is_same(a, b)) {
        return false;
    }
    for (node, other) in nodes.iter_mut().zip(other) {
        for metric in &other.metrics {
            match node.metrics.iter_mut().find(|known| known.name == metric.name) {
                // The highest of several peaks is one; their sum never was.
                Some(known) if known.name.starts_with("peak") => known.value = known.value.max(metric.value),
                Some(known) => known.value += metric.value,
                None => node.metrics.push(metric.clone()),
            }
        }
    }
    true
}

#[derive(Default)]
struct Graph {
    nodes: Vec<PlanNode>,
    /// Stage and its first node.
    roots: Vec<(usize, usize)>,
    /// Node and the stage which it reads.
    reads: Vec<(usize, usize)>,
}

impl Graph {
    /// Adds a node and those below it; `slot` counts the nodes with metrics. Returns its place.
    fn add(&mut self, plan: &dyn ExecutionPlan, stage: &StagePlan<'_>, slot: &mut usize) -> usize {
        let mut metrics = Vec::new();
        if plan.metrics().is_some() {
            metrics = stage.metrics.get(*slot).map(figures).unwrap_or_default();
            *slot += 1;
        }
        let read = plan.downcast_ref::<ShuffleReaderExec>().map(|reader| reader.stage_id);
        let read = read.or_else(|| plan.downcast_ref::<UnresolvedShuffleExec>().map(|reader| reader.stage_id));
        let place = self.nodes.len();
        self.reads.extend(read.map(|read| (place, read)));
        self.nodes.push(PlanNode { name: plan.name().to_string(), detail: detail(plan), stage: stage.stage, inputs: Vec::new(), metrics });
        for input in plan.children() {
            let input = self.add(input.as_ref(), stage, slot);
            if let Some(node) = self.nodes.get_mut(place) {
                node.inputs.push(input);
            }
        }
        place
    }
}

/// What EXPLAIN says of a node behind its name.
fn detail(plan: &dyn ExecutionPlan) -> String {
    let line = displayable(plan).one_line().to_string();
    let line = line.trim();
    let said = line.strip_prefix(plan.name()).map_or(line, |said| said.trim_start_matches([':', ' ']));
    let mut detail: String = hide_secrets(said).chars().take(DETAIL_MAX + 1).collect();
    if detail.chars().count() > DETAIL_MAX {
        detail.pop();
        detail.push('…');
    }
    detail
}

/// The figures of a node, over all of its partitions; those which say nothing are left out.
fn figures(metrics: &MetricsSet) -> Vec<Metric> {
    // DataFusion's order: rows and time first, then what a node counts itself.
    metrics.aggregate_by_name().sorted_for_display().iter().filter_map(|metric| figure(metric.value())).collect()
}

fn figure(value: &MetricValue) -> Option<Metric> {
    let (number, unit) = match value {
        MetricValue::ElapsedCompute(time) | MetricValue::Time { time, .. } => (time.value() as f64 / 1e9, "seconds"),
        MetricValue::SpilledBytes(count) | MetricValue::OutputBytes(count) => (count.value() as f64, "bytes"),
        MetricValue::OutputRows(count) | MetricValue::SpillCount(count) | MetricValue::SpilledRows(count) => {
            (count.value() as f64, "count")
        }
        MetricValue::Count { name, count } => (count.value() as f64, if name.ends_with("bytes") { "bytes" } else { "count" }),
        MetricValue::PeakMemoryUsage { gauge, .. } => (gauge.value() as f64, "bytes"),
        _ => return None,
    };
    // A node that has begun has rows, even if these are none; anything else which is 0 did not happen.
    let is_told = number > 0.0 || matches!(value, MetricValue::OutputRows(_));
    is_told.then(|| Metric { name: value.name().to_string(), value: number, unit: unit.to_string() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::Schema;
    use datafusion::physical_expr::Partitioning;
    use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
    use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;

    use super::*;

    #[test]
    fn waves_of_one_plan_are_added_up_and_another_plan_is_not() {
        let metric = |name: &str, value| Metric { name: name.to_string(), value, unit: "count".to_string() };
        let node = |name: &str, inputs: &[usize], metrics: Vec<Metric>| PlanNode {
            name: name.to_string(),
            detail: String::new(),
            stage: Some(1),
            inputs: inputs.to_vec(),
            metrics,
        };
        let mut sum = vec![
            node("ShuffleReaderExec", &[1], vec![]),
            node("WriteExec", &[], vec![metric("documents", 3.0), metric("peak_mem_used", 9.0)]),
        ];
        let other = vec![
            node("UnresolvedShuffleExec", &[1], vec![metric("output_rows", 1.0)]),
            node("WriteExec", &[], vec![metric("documents", 4.0), metric("peak_mem_used", 7.0)]),
        ];
        assert!(add_wave(&mut sum, &other));
        assert_eq!(sum[0].metrics, [metric("output_rows", 1.0)]);
        assert_eq!(sum[1].metrics, [metric("documents", 7.0), metric("peak_mem_used", 9.0)]);
        let before = sum.clone();
        assert!(!add_wave(&mut sum, &other[1..]) && !add_wave(&mut sum, &[node("SortExec", &[1], vec![]), other[1].clone()]));
        assert_eq!(sum, before);
    }

    #[test]
    fn a_reader_is_joined_to_the_stage_which_it_reads() {
        let schema = Arc::new(Schema::empty());
        let reader = Arc::new(UnresolvedShuffleExec::new(1, Arc::clone(&schema), Partitioning::UnknownPartitioning(1)));
        let last = CoalescePartitionsExec::new(reader);
        let first = PlaceholderRowExec::new(schema);
        let nodes =
            graph(&[StagePlan { stage: Some(2), plan: &last, metrics: &[] }, StagePlan { stage: Some(1), plan: &first, metrics: &[] }]);
        let seen: Vec<_> = nodes.iter().map(|node| (node.name.as_str(), node.stage, node.inputs.clone())).collect();
        assert_eq!(
            seen,
            [
                ("CoalescePartitionsExec", Some(2), vec![1]),
                ("UnresolvedShuffleExec", Some(2), vec![2]),
                ("PlaceholderRowExec", Some(1), vec![]),
            ]
        );
    }
}
