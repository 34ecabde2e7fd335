//! Progress on stderr: a bar on a terminal, else a line every few seconds.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::Result;
use crate::options::format_bytes;
use crate::runtime::{Spawned, spawn_io};
use crate::telemetry::Figures;
use crate::telemetry::log::{is_json, say};

/// How often a log line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
const BAR_EVERY: Duration = Duration::from_millis(200);

/// Draws the progress of a job until it is dropped. `bytes` is what there is to read, of which `done` were read before;
/// `figures` tells how far it is; `words` are what is done to bytes and what is counted.
pub(super) fn show_progress(
    name: &str,
    words: [&'static str; 2],
    bytes: u64,
    done: u64,
    figures: impl Fn() -> Figures + Send + 'static,
) -> Result<Spawned<()>> {
    let (name, started, before) = (name.to_string(), Instant::now(), figures().raw_bytes);
    spawn_io(async move {
        let is_terminal = std::io::stderr().is_terminal() && !is_json();
        let bar = if is_terminal { ProgressBar::new(bytes) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {percent}% {eta} left") {
            bar.set_style(style);
        }
        loop {
            tokio::time::sleep(if is_terminal { BAR_EVERY } else { LINE_EVERY }).await;
            let now = figures();
            let read = now.raw_bytes - before;
            let message = describe(&name, words, read, &now, started.elapsed());
            bar.set_position((done + read).min(bytes));
            bar.set_message(message.clone());
            if !is_terminal {
                let percent = (done + read).min(bytes) * 100 / bytes.max(1);
                say(&format!("{message}, {percent} %"));
            }
        }
    })
}

fn describe(name: &str, [done, counted]: [&str; 2], read: u64, figures: &Figures, elapsed: Duration) -> String {
    let Figures { stored_bytes, documents, .. } = figures;
    let rate = read as f64 / elapsed.as_secs_f64().max(0.001);
    let ratio = if *stored_bytes > 0 { format!(", ratio {:.1}", read as f64 / *stored_bytes as f64) } else { String::new() };
    format!("{name}: {} {done}, {}/s, {documents} {counted}{ratio}", format_bytes(read), format_bytes(rate as u64))
}
