//! What the benchmarks share.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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

/// Bytes of a chunk, as a job takes them by default.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Compresses the corpus on all cores, one compressor and one buffer a thread; seconds and compressed bytes.
///
/// # Errors
/// When the encoder refuses a chunk.
pub fn bare_loop(corpus: &[u8], effort: u8, cores: usize) -> Result<(f64, usize)> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let chunks: Vec<&[u8]> = corpus.chunks(CHUNK_BYTES).collect();
    let started = Instant::now();
    let level = libdeflater::CompressionLvl::new(i32::from(effort)).map_err(|e| format!("{e:?}"))?;
    let work = || -> std::result::Result<usize, String> {
        let mut compressor = libdeflater::Compressor::new(level);
        let mut out = vec![0; compressor.zlib_compress_bound(CHUNK_BYTES)];
        let mut bytes = 0;
        while let Some(chunk) = chunks.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            bytes += compressor.zlib_compress(chunk, &mut out).map_err(|e| format!("{e:?}"))?;
        }
        Ok(bytes)
    };
    let total = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread panicked".to_string())?)
            .sum::<std::result::Result<usize, String>>()
    })?;
    Ok((started.elapsed().as_secs_f64(), total))
}

/// What a process took.
#[derive(Debug, Clone, Copy)]
pub struct JobFigures {
    /// From its start to its end.
    pub seconds: f64,
    /// Its peak resident memory.
    pub peak_bytes: u64,
}

/// Runs a command to its end, its output thrown away.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run_watched(command: &mut Command) -> Result<JobFigures> {
    let started = Instant::now();
    let mut job = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut peak_bytes = 0;
    let status = loop {
        // The peak so far is in the process's own books; the last look is at most 20 ms old.
        peak_bytes = peak_memory(job.id()).unwrap_or(peak_bytes).max(peak_bytes);
        match job.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    if status.success() { Ok(JobFigures { seconds, peak_bytes }) } else { Err(format!("{command:?} ended with {status}").into()) }
}
