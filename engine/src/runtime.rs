//! The runtimes: network and disk waits live on the I/O runtime, plans run on the caller's, compression on the CPU pool.
//!
//! Compression keeps a thread busy for tens of milliseconds. On the runtime which also polls sockets it would
//! starve them, so everything that waits for a server is spawned here.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::error::{Error, Result};

/// Threads which poll sockets and files. Two keep one slow callback from holding up the rest; they hardly use CPU.
const IO_THREADS: usize = 2;

/// Stack of a thread which may plan or decode a query, in bytes of address space: deep plans recurse deeply.
pub(crate) const STACK_BYTES: usize = 16 << 20;

static IO: OnceLock<Option<Runtime>> = OnceLock::new();

/// The process-wide I/O runtime, started on first use.
///
/// # Errors
/// Internal, when the operating system refuses the threads.
pub fn io() -> Result<&'static Handle> {
    IO.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .thread_name("baler-io")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .ok()
    })
    .as_ref()
    .map(Runtime::handle)
    .ok_or_else(|| Error::internal("cannot start the I/O runtime: the operating system refused its threads"))
}

/// A spawned task which is aborted when its handle is dropped, so that a cancelled plan leaves no reader or writer behind.
#[derive(Debug)]
pub struct Spawned<T>(JoinHandle<T>);

impl<T> Spawned<T> {
    /// Waits for the task. Cancel-safe: dropping the future aborts the task.
    ///
    /// # Errors
    /// Internal, when the task panicked or its runtime was shut down.
    pub async fn join(mut self) -> Result<T> {
        (&mut self.0).await.map_err(|cause| Error::internal("a background task ended early").with_source(cause))
    }

    /// Aborts the task and waits until it is gone, with all that it held: its span, which is not closed before. Cancel-safe.
    pub async fn stop(mut self) {
        self.0.abort();
        // How it ended does not matter.
        drop((&mut self.0).await);
    }
}

impl<T> Drop for Spawned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs `future` on the I/O runtime, within the caller's span.
///
/// # Errors
/// As [`io`].
pub fn spawn_io<F>(future: F) -> Result<Spawned<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Ok(Spawned(io()?.spawn(future.in_current_span())))
}

/// Runs blocking `work` (writing files) on a thread of the I/O runtime's blocking pool. Dropping the handle keeps work that has
/// not begun from beginning; work that has begun goes on to its end.
///
/// # Errors
/// As [`io`].
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<Spawned<T>> {
    Ok(Spawned(io()?.spawn_blocking(work)))
}

static CPU: OnceLock<Option<Runtime>> = OnceLock::new();

/// Runs a plan on the CPU runtime of the one-process mode: a thread for each partition, which
/// is one more than cores (`BALER_CPU_THREADS`), because a thread waits while the compression pool works for it.
///
/// # Errors
/// Internal, when the operating system refuses the threads.
pub fn spawn_cpu<F>(future: F) -> Result<Spawned<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let runtime = CPU.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(cpu_threads() + 1)
            .thread_name("baler-cpu")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .ok()
    });
    let runtime =
        runtime.as_ref().ok_or_else(|| Error::internal("cannot start the CPU runtime: the operating system refused its threads"))?;
    Ok(Spawned(runtime.spawn(future.in_current_span())))
}

static SERVER: OnceLock<Option<Runtime>> = OnceLock::new();

/// The runtime of a scheduler or executor: plans are decoded and made here, and must not hold up sockets of stores and sinks.
///
/// # Errors
/// Internal, when the operating system refuses the threads.
pub fn server() -> Result<&'static Handle> {
    // Two even on one core: a plan that takes long must not keep heartbeats waiting.
    let threads = cpu_threads().max(2);
    SERVER
        .get_or_init(|| {
            Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name("baler-server")
                .thread_stack_size(STACK_BYTES)
                .enable_all()
                .build()
                .ok()
        })
        .as_ref()
        .map(Runtime::handle)
        .ok_or_else(|| Error::internal("cannot start the server's runtime: the operating system refused its threads"))
}

/// Cores to use: `BALER_CPU_THREADS`, else what the operating system (and its cgroup) grants.
pub fn cpu_threads() -> usize {
    let granted = || std::thread::available_parallelism().map_or(1, usize::from);
    std::env::var("BALER_CPU_THREADS").ok().and_then(|text| text.parse().ok()).filter(|threads| *threads > 0).unwrap_or_else(granted)
}

/// What a core file may hold, in bytes: nothing, as memory holds secrets. It is one byte and not none, because Linux hands the memory to a program which
/// the system names (systemd-coredump, apport) at every other limit (`RLIMIT_CORE` of 1 ends that; see the kernel's `coredump.c`).
pub(crate) const CORE_BYTES: u64 = 1;

/// From now on this process leaves no memory behind when it crashes.
///
/// # Errors
/// Internal, when the operating system refuses.
pub fn forbid_core_dumps() -> Result<()> {
    let most = getrlimit(Resource::Core).maximum.map_or(CORE_BYTES, |most| most.min(CORE_BYTES));
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::Core, limit).map_err(|e| Error::internal("core dumps cannot be switched off").with_source(e))
}

static DRAINING: AtomicBool = AtomicBool::new(false);

/// From now on no task of this process begins another split.
pub fn begin_drain() {
    DRAINING.store(true, Ordering::Release);
}

/// Whether this process is leaving.
pub fn is_draining() -> bool {
    DRAINING.load(Ordering::Acquire)
}

/// Resolves to the signal's name when the process is asked to stop.
///
/// # Errors
/// Internal, when the operating system refuses to tell.
pub async fn stop_signal() -> Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: std::io::Error| Error::internal("cannot listen for signals").with_source(e);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| "SIGINT").map_err(failed),
    }
}
