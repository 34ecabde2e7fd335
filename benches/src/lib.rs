//! What the benchmarks share.

/// Any failure of a benchmark.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The middle value; 0 for none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Lowest and highest value.
pub fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, 0.0), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// CPU seconds, in user and kernel.
#[derive(Debug, Clone, Copy)]
pub struct CpuSeconds {
    /// Of the process itself.
    pub own: f64,
    /// Of its children which have ended and were waited for.
    pub children: f64,
}

/// What a process has taken so far, if it lives.
pub fn cpu_seconds_of(pid: u32) -> Option<CpuSeconds> {
    /// A clock tick in /proc (`USER_HZ`), on every architecture that Rust's standard library runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in brackets, which may hold spaces; utime is field 14, its children's field 16.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(4).map_while(|field| field.parse().ok()).collect();
    let [user, system, children_user, children_system] = ticks.try_into().ok()?;
    Some(CpuSeconds { own: (user + system) / TICKS_PER_SECOND, children: (children_user + children_system) / TICKS_PER_SECOND })
}

/// Peak resident memory of a process so far, in bytes, if it lives.
pub fn peak_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}
