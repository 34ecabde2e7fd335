//! How the cost of a job grows with its splits, and what follows for sizes that no machine here has.
//!
//! Jobs of more and more splits of a few bytes, an object each, run on a fleet and in one process: there nothing is left but listing,
//! planning, scheduling, receipts and files. A line is laid through each cost, by all points but the largest, and the largest shows how well it
//! foretells. One job over real data gives what a core compresses. From these constants the tables follow.

use std::path::{Path, PathBuf};

use baler_benches::fleet::{Fleet, Run, run, tiny_objects};
use baler_benches::{Result, jobs, keep};
use clap::Parser;
use plotters::prelude::*;

/// A split of `blob.split_size`'s default.
const SPLIT_BYTES: f64 = (128 << 20) as f64;
/// What Amazon grants to a prefix of a bucket: writes a second (S3's "Optimizing performance" guide).
const PUTS_PER_SECOND: f64 = 3500.0;
/// Cores of the pods of driver and scheduler.
const SERVER_CORES: f64 = 4.0;

#[derive(Debug, Parser)]
struct Args {
    /// The `baler` binary to measure.
    #[arg(long)]
    baler: PathBuf,
    /// Numbers of splits; a job on the fleet and one in one process for each.
    #[arg(long, value_delimiter = ',', default_value = "16,100,1000,10000,100000")]
    splits: Vec<usize>,
    /// Raw bytes of the job which tells what a core compresses.
    #[arg(long, default_value = "2GiB")]
    size: String,
    /// Executors, which share the cores of this machine.
    #[arg(long, default_value_t = 2)]
    executors: usize,
    /// Where the figures are kept as JSON.
    #[arg(long, default_value = "target/benches/scale.json")]
    json: PathBuf,
    /// Where the plot is drawn.
    #[arg(long, default_value = "target/benches/scale.svg")]
    plot: PathBuf,
}

/// What jobs of some number of splits took.
struct Point {
    splits: usize,
    fleet: Run,
    one: Run,
    scheduler_peak: u64,
}

/// One kind of cost: its name, and how it is read from a point.
struct Cost {
    name: &'static str,
    unit: &'static str,
    of: fn(&Point) -> f64,
}

impl Cost {
    /// The line through these points. Times are counted from next to nothing, so a point weighs 1 ÷ n there and large numbers do not drown the
    /// small; memory has a large fixed part, whose noise would drown the growth if small numbers weighed more.
    fn line(&self, points: &[Point]) -> Line {
        let points: Vec<_> = points.iter().map(|point| (point.splits as f64, (self.of)(point))).collect();
        Line::through(&points, if self.unit == "MiB" { |_| 1.0 } else { |n| 1.0 / n })
    }
}

const COSTS: [Cost; 6] = [
    Cost { name: "driver", unit: "CPU s", of: |point| point.fleet.driver_cpu_seconds },
    Cost { name: "scheduler", unit: "CPU s", of: |point| point.fleet.scheduler_cpu_seconds },
    Cost { name: "executors", unit: "CPU s", of: |point| point.fleet.executors_cpu_seconds },
    Cost { name: "one process", unit: "CPU s", of: |point| point.one.cpu_seconds() },
    Cost { name: "driver's memory", unit: "MiB", of: |point| mib(point.fleet.peak_bytes) },
    Cost { name: "scheduler's memory", unit: "MiB", of: |point| mib(point.scheduler_peak) },
];
/// Places of what is foretold.
const DRIVER: usize = 0;
const SCHEDULER: usize = 1;
const MEMORY: usize = 4;

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A cost of `fixed + each · n`.
#[derive(Debug, Clone, Copy)]
struct Line {
    fixed: f64,
    each: f64,
}

impl Line {
    /// The line with the least squares, where a point at `n` weighs so much.
    fn through(points: &[(f64, f64)], weight: fn(f64) -> f64) -> Self {
        let sum = |term: fn(f64, f64) -> f64| points.iter().map(|(n, y)| weight(*n) * term(*n, *y)).sum::<f64>();
        let (w, x, y) = (sum(|_, _| 1.0), sum(|n, _| n), sum(|_, y| y));
        let (xx, xy) = (sum(|n, _| n * n), sum(|n, y| n * y));
        let each = ((w * xy - x * y) / (w * xx - x * x)).max(0.0);
        Self { fixed: (y - each * x) / w, each }
    }

    fn at(&self, n: f64) -> f64 {
        self.fixed + self.each * n
    }
}

#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn main() -> Result<()> {
    let args = Args::parse();
    if args.splits.len() < 3 {
        return Err("a line and its check need three numbers of splits".into());
    }
    let folder = tempfile::tempdir()?;
    let points = measure(&args, folder.path())?;
    let data = folder.path().join("data");
    jobs::generate(&args.baler, &args.size, 2, "json", &data)?;
    let work = run(&args.baler, folder.path(), &data, None)?;
    let bytes: u64 = std::fs::read_dir(&data)?.map(|entry| Ok(entry?.metadata()?.len())).sum::<Result<u64>>()?;
    let per_core = bytes as f64 / work.cpu_seconds();
    println!("a core compresses {:.0} MB/s of JSON events", per_core / 1e6);

    let largest = points.last().ok_or("no points")?;
    println!("{:<20} {:>12} {:>16} {:>14} {:>14}", "cost", "fixed", "per 1000 splits", "foretold", "measured");
    let lines = COSTS.map(|cost| {
        let line = cost.line(&points[..points.len() - 1]);
        let (foretold, measured) = (line.at(largest.splits as f64), (cost.of)(largest));
        let name = format!("{}, {}", cost.name, cost.unit);
        println!("{name:<20} {:>12.3} {:>16.3} {foretold:>14.2} {measured:>14.2}", line.fixed, 1000.0 * line.each);
        // What is foretold beyond here rests on all points.
        cost.line(&points)
    });
    for (name, bytes, cores) in [("2 TB, 10 executors", 2e12, 40.0), ("1 PB, 1,000 executors", 1e15, 4000.0)] {
        foretell(name, bytes, cores, per_core, &lines);
    }
    draw(&args.plot, &points)?;
    let figures = points.iter().map(|point| {
        let costs = COSTS.iter().map(|cost| (cost.name.to_string(), (cost.of)(point).into()));
        let times = [("splits".to_string(), point.splits.into()), ("fleet_seconds".to_string(), point.fleet.seconds.into())];
        costs.chain(times).collect::<serde_json::Map<_, _>>().into()
    });
    keep(&args.json, &serde_json::json!({"points": figures.collect::<Vec<serde_json::Value>>(), "bytes_per_core_second": per_core}))
}

#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn measure(args: &Args, folder: &Path) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for splits in &args.splits {
        let data = tiny_objects(folder, *splits)?;
        // A fleet of its own for each, so that its memory is of this job.
        let fleet = Fleet::start(&args.baler, args.executors, folder)?;
        let on_fleet = run(&args.baler, folder, &data, Some(&fleet))?;
        let scheduler_peak = fleet.peak_bytes().first().copied().unwrap_or_default();
        drop(fleet);
        let one = run(&args.baler, folder, &data, None)?;
        println!("{splits} splits: fleet {:.2} s, one process {:.2} s", on_fleet.seconds, one.seconds);
        points.push(Point { splits: *splits, fleet: on_fleet, one, scheduler_peak });
    }
    points.sort_by_key(|point| point.splits);
    Ok(points)
}

/// Prints how long a job takes, and how busy what there is only one of is meanwhile.
#[expect(clippy::print_stdout, reason = "the figures belong on stdout")]
fn foretell(name: &str, bytes: f64, cores: f64, per_core: f64, lines: &[Line; 6]) {
    let splits = bytes / SPLIT_BYTES;
    let seconds = bytes / (per_core * cores);
    println!("{name}: {splits:.0} splits, {seconds:.0} s of work on {cores} cores");
    let parts = [
        ("driver's cores", lines[DRIVER].at(splits) / seconds / SERVER_CORES),
        ("scheduler's cores", lines[SCHEDULER].at(splits) / seconds / SERVER_CORES),
        ("receipts, a bucket's prefix", splits / seconds / PUTS_PER_SECOND),
    ];
    for (part, busy) in parts {
        // The share grows with the executors, for they shorten the time.
        println!("  {part}: {:.1} % busy; would hold up {:.0} cores", 100.0 * busy, cores / busy);
    }
    println!("  driver's memory: {:.0} MiB", lines[MEMORY].at(splits));
}

/// CPU time for each split over the number of splits, both axes logarithmic.
fn draw(file: &Path, points: &[Point]) -> Result<()> {
    let per_split = |cost: &Cost, point: &Point| (point.splits as f64, 1000.0 * (cost.of)(point) / point.splits as f64);
    let costs = || COSTS.iter().filter(|cost| cost.unit == "CPU s");
    let all: Vec<f64> = costs().flat_map(|cost| points.iter().map(|point| per_split(cost, point).1)).filter(|y| *y > 0.0).collect();
    let (low, high) = baler_benches::spread(&all);
    let (first, last) = (points.first().map_or(1, |point| point.splits), points.last().map_or(1, |point| point.splits));
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let area = SVGBackend::new(file, (720, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("CPU time of one split in a job of many", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((first as f64..last as f64).log_scale(), (low / 1.5..high * 1.5).log_scale())?;
    chart.configure_mesh().x_desc("splits of the job").y_desc("CPU ms for each split").light_line_style(TRANSPARENT).draw()?;
    for (cost, color) in costs().zip([RED, BLUE, GREEN, BLACK]) {
        let line: Vec<_> = points.iter().map(|point| per_split(cost, point)).filter(|(_, y)| *y > 0.0).collect();
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)).point_size(3))?
            .label(cost.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    Ok(area.present()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again() {
        for weight in [|_| 1.0, |n| 1.0 / n] {
            let line = Line::through(&[(16.0, 2.0 + 0.5 * 16.0), (100.0, 52.0), (1000.0, 502.0)], weight);
            assert!((line.fixed - 2.0).abs() < 1e-9 && (line.each - 0.5).abs() < 1e-9, "{line:?}");
            assert!((line.at(10.0) - 7.0).abs() < 1e-9);
        }
    }
}
