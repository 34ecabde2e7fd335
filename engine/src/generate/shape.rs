//! Which shapes of records there are, and what their writers share.

use chrono::DateTime;
use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::events::EventWriter;
use super::tables::{BinaryWriter, LineitemWriter, LogWriter, TextWriter};

/// What the records look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Shape {
    /// JSON events of a web shop, one per line; zlib level 9 packs a MiB of them about 10:1.
    #[default]
    Json,
    /// Rows of TPC-H's lineitem, fields separated by `|`, without header.
    Csv,
    /// Lines of an nginx access log.
    Logs,
    /// Sentences of English words in their usual frequencies, a paragraph per line.
    Text,
    /// Records without lines, of which most is random and does not compress.
    Binary,
    /// JSON events, and now and then a line of several MiB.
    LongLines,
}

impl Shape {
    /// The ending of an object's name.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Json | Self::LongLines => "json",
            Self::Csv => "csv",
            Self::Logs => "log",
            Self::Text => "txt",
            Self::Binary => "bin",
        }
    }

    /// About the bytes of a record, to spread the records of an object over its day.
    fn record_bytes(self) -> u64 {
        match self {
            Self::Json | Self::LongLines => 930,
            Self::Csv => 115,
            Self::Logs => 255,
            Self::Text => 270,
            Self::Binary => 580,
        }
    }
}

/// Writes one record after the other.
pub(super) trait RecordWriter: Send {
    /// Appends the next record, with its line end if the shape has lines.
    fn write_record(&mut self, out: &mut Vec<u8>);
}

/// The writer of file number `file`, which will have about `share` bytes.
pub(super) fn new_record_writer(shape: Shape, seed: u64, file: u64, share: u64) -> Box<dyn RecordWriter> {
    let dice = Dice::new(seed, file);
    let clock = Clock::new(file, share / shape.record_bytes());
    match shape {
        Shape::Json => Box::new(EventWriter::new(dice, clock)),
        Shape::LongLines => Box::new(LongLineWriter::new(dice, clock)),
        Shape::Csv => Box::new(LineitemWriter::new(dice, file)),
        Shape::Logs => Box::new(LogWriter::new(dice, clock)),
        Shape::Text => Box::new(TextWriter::new(dice)),
        Shape::Binary => Box::new(BinaryWriter::new(dice, clock)),
    }
}

/// The chance of one file: equal seeds roll equal numbers.
pub(super) struct Dice {
    random: StdRng,
}

impl Dice {
    fn new(seed: u64, file: u64) -> Self {
        Self { random: StdRng::seed_from_u64(scramble(seed ^ scramble(file))) }
    }

    /// 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// A number from 0 to `end`, without `end`.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        ((u64::from(self.random.next_u32()) * u64::from(end)) >> 32) as u32
    }

    /// A number from 0 to 1, without 1.
    pub(super) fn fraction(&mut self) -> f64 {
        f64::from(self.random.next_u32()) / 4_294_967_296.0
    }

    /// True `percent` times of a hundred.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// A number from 0 to `end`, without `end`, of which small ones are much the likelier, as with visitors and words:
    /// each power of ten is as likely as the next one.
    pub(super) fn skewed(&mut self, end: u32) -> u32 {
        (f64::from(end).powf(self.fraction()) as u32).saturating_sub(1)
    }

    /// One of the list, each as likely.
    pub(super) fn pick<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        list.get(self.below(list.len() as u32) as usize).copied()
    }

    /// One of the texts, each as likely.
    pub(super) fn pick_text(&mut self, list: &[&'static str]) -> &'static str {
        self.pick(list).unwrap_or_default()
    }

    /// Appends random bytes.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>, bytes: usize) {
        let start = out.len();
        out.resize(start + bytes, 0);
        if let Some(slice) = out.get_mut(start..) {
            self.random.fill_bytes(slice);
        }
    }
}

/// Spreads the bits of a number, so that what is derived from neighbours has nothing in common (SplitMix64).
pub(super) fn scramble(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The time of the records of one file: each file has a day of its own, and its records fill it.
pub(super) struct Clock {
    pub(super) now_ms: u64,
    gap_ms: u32,
    /// Date and minute of `now_ms` as text, which only change every minute.
    minute: u64,
    iso: String,
    log: String,
}

/// 2026-01-01T00:00:00Z
const START_MS: u64 = 1_767_225_600_000;
const DAY_MS: u64 = 86_400_000;

impl Clock {
    fn new(file: u64, records: u64) -> Self {
        let gap_ms = (DAY_MS / records.max(1)).clamp(1, 1000) as u32;
        Self { now_ms: START_MS + file * DAY_MS, gap_ms, minute: u64::MAX, iso: String::new(), log: String::new() }
    }

    /// Goes on to the next record's time.
    pub(super) fn advance(&mut self, dice: &mut Dice) {
        self.now_ms += u64::from(dice.below(self.gap_ms * 2 + 1));
        let minute = self.now_ms / 60_000;
        if minute != self.minute {
            self.minute = minute;
            let time = i64::try_from(self.now_ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
            self.iso = time.format("%Y-%m-%dT%H:%M:").to_string();
            self.log = time.format("%d/%b/%Y:%H:%M:").to_string();
        }
    }

    /// Appends `2026-01-01T00:00:00.000Z`.
    pub(super) fn write_iso(&self, out: &mut Vec<u8>) {
        let millis = self.now_ms % 60_000;
        put(out, &self.iso);
        put_padded(out, millis / 1000, 2);
        out.push(b'.');
        put_padded(out, millis % 1000, 3);
        out.push(b'Z');
    }

    /// Appends `01/Jan/2026:00:00:00 +0000`.
    pub(super) fn write_log(&self, out: &mut Vec<u8>) {
        put(out, &self.log);
        put_padded(out, self.now_ms % 60_000 / 1000, 2);
        put(out, " +0000");
    }
}

/// Appends text.
pub(super) fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends a number in decimal, with zeros in front up to `width` digits. `write!` takes several times as long.
pub(super) fn put_padded(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut length = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        length += 1;
        if number == 0 && length >= width {
            break;
        }
    }
    out.extend_from_slice(digits.get(20 - length..).unwrap_or_default());
}

/// Appends a number in decimal.
pub(super) fn put_number(out: &mut Vec<u8>, number: impl Into<u64>) {
    put_padded(out, number.into(), 1);
}

/// Appends hundredths as `12.34`.
pub(super) fn put_hundredths(out: &mut Vec<u8>, hundredths: impl Into<u64>) {
    let hundredths = hundredths.into();
    put_padded(out, hundredths / 100, 1);
    out.push(b'.');
    put_padded(out, hundredths % 100, 2);
}

/// Appends the lowest `digits` hexadecimal digits of a number.
pub(super) fn put_hex(out: &mut Vec<u8>, number: u64, digits: u32) {
    for digit in (0..digits).rev() {
        let value = (number >> (digit * 4) & 15) as u8;
        out.push(if value < 10 { b'0' + value } else { b'a' + value - 10 });
    }
}

/// JSON events, and now and then an export of many events in one line.
struct LongLineWriter {
    events: EventWriter,
    dice: Dice,
    /// Bytes of short lines before the next long one.
    rest: usize,
}

impl LongLineWriter {
    fn new(mut dice: Dice, clock: Clock) -> Self {
        let events = EventWriter::new(Dice::new(dice.bits(), 0), clock);
        // The first one comes early, so that small samples have one.
        Self { events, dice, rest: 1 << 20 }
    }
}

impl RecordWriter for LongLineWriter {
    fn write_record(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        if self.rest > 0 {
            self.events.write_record(out);
            self.rest = self.rest.saturating_sub(out.len() - start);
            return;
        }
        let length = (2 << 20) + self.dice.below(6 << 20) as usize;
        put(out, "{\"type\":\"export\",\"events\":[");
        while out.len() - start < length {
            self.events.write_event(out);
            out.push(b',');
        }
        out.pop();
        put(out, "]}\n");
        self.rest = (4 << 20) + self.dice.below(12 << 20) as usize;
    }
}
