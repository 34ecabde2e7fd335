//! Words of the user → values: sizes, choices, and table options with a hint for a misspelt one.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};

/// Reads a size such as `128MiB`, `16 MB`, `1g` or `4096` (bytes). `KiB` … `TiB` and bare `k` … `t` are powers of 1024,
/// `KB` … `TB` powers of 1000.
///
/// # Errors
/// Config, when the text is no size.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(size_error(text)),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(|| size_error(text));
    }
    let value: f64 = number.parse().map_err(|_| size_error(text))?;
    Ok((value * factor as f64).round() as u64)
}

fn size_error(text: &str) -> Error {
    Error::config(format!("`{text}` is not a size; write for example '128MiB', '1GB' or a number of bytes"))
}

/// Reads a time such as `30s`, `5m`, `1h`, `500ms`, or a bare number of seconds.
///
/// # Errors
/// Config, when the text is no time.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let text = text.trim();
    let wrong = || Error::config(format!("`{text}` is not a time; write for example '30s', '5m' or '500ms'"));
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis: u64 = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
}

/// Writes bytes for people: `1.5 GiB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// The valid word nearest to `word`, for an error's remedy.
pub fn nearest<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    valid.into_iter().max_by(|a, b| strsim::jaro_winkler(word, a).total_cmp(&strsim::jaro_winkler(word, b)))
}

/// An option which a table knows, as its reader takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownOption {
    /// Its name without the format.
    pub name: String,
    /// What holds where it is not given; empty for nothing.
    pub default: String,
    /// What it may be: words in quotes, or a kind of value.
    pub values: String,
}

/// The options of one `CREATE EXTERNAL TABLE`, taken out one by one; what is left over at the end was unknown.
#[derive(Debug)]
pub struct TableOptions {
    format: &'static str,
    given: HashMap<String, String>,
    known: Vec<KnownOption>,
}

impl TableOptions {
    /// Keys come as `blob.split_size`, or as `format.split_size` where the user wrote the bare key (DataFusion's habit).
    ///
    /// # Errors
    /// Config, when a key carries another format's prefix.
    pub fn try_new(format: &'static str, options: &HashMap<String, String>) -> Result<Self> {
        let mut given = HashMap::new();
        for (key, value) in options {
            let key = key.to_ascii_lowercase();
            let bare = key.strip_prefix("format.").or_else(|| key.strip_prefix(&format!("{format}."))).unwrap_or(&key);
            given.insert(bare.to_string(), value.clone());
        }
        Ok(Self { format, given, known: Vec::new() })
    }

    /// The options which were asked for so far, given or not.
    pub fn known(&self) -> &[KnownOption] {
        &self.known
    }

    fn ask(&mut self, name: &str, default: impl Display, values: impl Into<String>) -> Option<String> {
        self.known.push(KnownOption { name: name.to_string(), default: default.to_string(), values: values.into() });
        self.given.remove(name)
    }

    /// Takes the text of option `name`, if it was given.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.ask(name, "", "text")
    }

    /// Takes the text of option `name`.
    pub fn take_text(&mut self, name: &str, default: &str) -> String {
        self.ask(name, default, "text").unwrap_or_else(|| default.to_string())
    }

    /// Takes all options whose names begin with `prefix`, by the rest of their names.
    pub fn take_prefixed(&mut self, prefix: &str) -> BTreeMap<String, String> {
        self.known.push(KnownOption { name: format!("{prefix}…"), default: String::new(), values: "text".to_string() });
        let names: Vec<String> = self.given.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        names.into_iter().filter_map(|name| Some((name[prefix.len()..].to_string(), self.given.remove(&name)?))).collect()
    }

    /// Takes a size within `low ..= high` bytes.
    ///
    /// # Errors
    /// Config, when it is no size or out of range.
    pub fn take_bytes(&mut self, name: &str, default: u64, low: u64, high: u64) -> Result<u64> {
        let usual = if default == 0 { "0".to_string() } else { format_bytes(default).replace(".0 ", "") };
        let Some(text) = self.ask(name, usual, "size") else { return Ok(default) };
        let value = parse_bytes(&text).map_err(|e| e.context(format!("option {}.{name}", self.format)))?;
        if value < low || value > high {
            return Err(Error::config(format!(
                "option {}.{name}: {} is out of range, take {} to {}",
                self.format,
                format_bytes(value),
                format_bytes(low),
                format_bytes(high)
            )));
        }
        Ok(value)
    }

    /// Takes anything that has a `FromStr`: a number, a boolean.
    ///
    /// # Errors
    /// Config, when the text does not parse.
    pub fn take_parsed<T: FromStr + Display>(&mut self, name: &str, default: T) -> Result<T>
    where
        T::Err: Display,
    {
        let kind = if std::any::type_name::<T>() == "bool" { "'true', 'false'" } else { "number" };
        match self.ask(name, &default, kind) {
            None => Ok(default),
            Some(text) => text.trim().parse().map_err(|e| Error::config(format!("option {}.{name}: `{text}`: {e}", self.format))),
        }
    }

    /// Takes one of a few words.
    ///
    /// # Errors
    /// Config, naming the valid words.
    pub fn take_choice<T: Copy + PartialEq>(&mut self, name: &str, default: T, choices: &[(&str, T)]) -> Result<T> {
        let words = choices.iter().map(|(word, _)| format!("'{word}'")).collect::<Vec<_>>().join(", ");
        let usual = choices.iter().find(|(_, value)| *value == default).map_or("", |(word, _)| word);
        let Some(text) = self.ask(name, usual, words.clone()) else { return Ok(default) };
        let chosen = choices.iter().find(|(word, _)| *word == text.trim().to_ascii_lowercase()).map(|(_, value)| *value);
        chosen.ok_or_else(|| Error::config(format!("option {}.{name}: `{text}` is not one of {words}", self.format)))
    }

    /// Ends the taking.
    ///
    /// # Errors
    /// Config, when an option was given that nothing took: names the nearest valid one.
    pub fn finish(self) -> Result<()> {
        let mut left: Vec<_> = self.given.keys().collect();
        left.sort();
        let Some(unknown) = left.first() else { return Ok(()) };
        let hint = nearest(unknown, self.known.iter().map(|option| option.name.as_str()));
        let hint = hint.map(|name| format!("; did you mean '{}.{name}'?", self.format)).unwrap_or_default();
        Err(Error::config(format!("unknown option '{}.{unknown}' of a {} table{hint}", self.format, self.format.to_ascii_uppercase())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_both_systems_of_units() {
        let cases = [("128MiB", 128 << 20), ("1GB", 1_000_000_000), ("4096", 4096), ("1.5 k", 1536), ("2g", 2 << 30)];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "MiB", "12 parsecs", "-1", "99999999999 TiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_with_their_unit() {
        let cases = [("30s", 30_000), ("500ms", 500), ("5m", 300_000), ("1h", 3_600_000), ("7", 7_000)];
        for (text, millis) in cases {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "s", "5 parsecs", "-1s", "1.5s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_option_names_the_nearest() {
        let given = HashMap::from([("blob.split_sise".to_string(), "1MiB".to_string())]);
        let mut options = TableOptions::try_new("blob", &given).unwrap();
        options.take("split_size");
        options.take("boundary");
        assert!(options.finish().unwrap_err().to_string().contains("did you mean 'blob.split_size'?"));
    }
}
