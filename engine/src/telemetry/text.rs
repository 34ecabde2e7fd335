//! Prometheus' text format, version 0.0.4.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// `Content-Type` of [`Text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What sort of family it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// By buckets.
    Histogram,
}

/// Families and samples, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a family: its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// Adds a sample of the family which was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.push(format_args!("{name}"));
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.push(format_args!("{}{label}=\"{text}\"", if index == 0 { "{" } else { "," }));
        }
        self.push(format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
    }

    /// A gauge of one sample.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.family(name, Kind::Gauge, help);
        self.sample(name, labels, value);
    }

    /// Adds families which another library has written in this format.
    pub fn append(&mut self, families: &str) {
        self.0.push_str(families);
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// All of it.
    pub fn into_string(self) -> String {
        self.0
    }

    fn push(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a `String` cannot fail.
        self.0.write_fmt(arguments).unwrap_or_default();
    }
}

/// Writes families each time they are asked for.
pub type Source = Box<dyn Fn(&mut Text) + Send + Sync>;

/// What a process shows besides its counters: figures of the job or query which it drives. Cheap to clone.
#[derive(Clone, Default)]
pub struct Published(Arc<Mutex<Vec<Source>>>);

impl Published {
    /// Shows these families from now on.
    pub fn add(&self, source: Source) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(source);
    }

    /// Writes all of them.
    pub fn write(&self, text: &mut Text) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|source| source(text));
    }
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Published")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_and_help_are_escaped() {
        let mut text = Text::default();
        text.gauge("baler_x", "a\nb", &[("topic", "a\"b\\c\nd"), ("partition", "0")], 1.5);
        assert_eq!(text.as_str(), "# HELP baler_x a\\nb\n# TYPE baler_x gauge\nbaler_x{topic=\"a\\\"b\\\\c\\nd\",partition=\"0\"} 1.5\n");
    }
}
