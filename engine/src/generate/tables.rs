//! Rows, log lines, text, and records without lines.

use super::shape::{Clock, Dice, RecordWriter, put, put_hundredths, put_number, put_padded, scramble};
use super::words::{ADJECTIVES, CATEGORIES, DEVICES, NOUNS, REFERRERS, WORDS};

/// Rows of TPC-H's lineitem: orders of one to seven lines.
pub(super) struct LineitemWriter {
    dice: Dice,
    order: u64,
    lines_left: u32,
    line: u32,
    /// Days since 1992-01-01, TPC-H's first day.
    order_day: u32,
    comments: Vocabulary,
}

impl LineitemWriter {
    pub(super) fn new(mut dice: Dice, file: u64) -> Self {
        let comments = Vocabulary::new(&mut dice);
        Self { dice, order: file * 100_000_000, lines_left: 0, line: 0, order_day: 0, comments }
    }
}

/// Appends a date of TPC-H's seven years. Months have 28 days, so that every date is valid.
fn put_date(out: &mut Vec<u8>, day: u32) {
    let (year, rest) = (1992 + day / 336, day % 336);
    put_number(out, year);
    out.push(b'-');
    put_padded(out, u64::from(1 + rest / 28), 2);
    out.push(b'-');
    put_padded(out, u64::from(1 + rest % 28), 2);
    out.push(b'|');
}

impl RecordWriter for LineitemWriter {
    fn write_record(&mut self, out: &mut Vec<u8>) {
        let dice = &mut self.dice;
        if self.lines_left == 0 {
            self.order += u64::from(1 + dice.below(3));
            (self.lines_left, self.line, self.order_day) = (1 + dice.below(7), 0, dice.below(2200));
        }
        self.lines_left -= 1;
        self.line += 1;
        let (part, quantity) = (1 + dice.below(200_000), 1 + dice.below(50));
        let price = 90_000 + part / 10 % 20_001 + 100 * (part % 1000);
        let ship = self.order_day + 1 + dice.below(121);
        let commit = self.order_day + 30 + dice.below(61);
        let receipt = ship + 1 + dice.below(30);
        for number in [self.order, part.into(), u64::from(1 + dice.below(10_000)), self.line.into(), quantity.into()] {
            put_number(out, number);
            out.push(b'|');
        }
        for hundredths in [quantity * price, dice.below(11), dice.below(9)] {
            put_hundredths(out, hundredths);
            out.push(b'|');
        }
        let shipped = ship <= 1160;
        put(
            out,
            if !shipped {
                "N|O|"
            } else if dice.chance(50) {
                "R|F|"
            } else {
                "A|F|"
            },
        );
        put_date(out, ship);
        put_date(out, commit);
        put_date(out, receipt);
        put(out, dice.pick_text(&["DELIVER IN PERSON|", "COLLECT COD|", "NONE|", "TAKE BACK RETURN|"]));
        put(out, dice.pick_text(&["REG AIR|", "AIR|", "RAIL|", "SHIP|", "TRUCK|", "MAIL|", "FOB|"]));
        for word in 0..2 + dice.below(5) {
            if word > 0 {
                out.push(b' ');
            }
            self.comments.put_word(out, dice);
        }
        put(out, "|\n");
    }
}

/// Lines of an nginx access log, format `combined`.
pub(super) struct LogWriter {
    dice: Dice,
    clock: Clock,
}

impl LogWriter {
    pub(super) fn new(dice: Dice, clock: Clock) -> Self {
        Self { dice, clock }
    }
}

impl RecordWriter for LogWriter {
    fn write_record(&mut self, out: &mut Vec<u8>) {
        let dice = &mut self.dice;
        self.clock.advance(dice);
        let client = scramble(u64::from(dice.skewed(500_000)));
        for (index, shift) in [0_u32, 8, 16, 24].into_iter().enumerate() {
            if index > 0 {
                out.push(b'.');
            }
            put_number(out, 1 + (client >> shift & 0xff) % 254);
        }
        put(out, " - - [");
        self.clock.write_log(out);
        put(out, "] \"");
        put(out, dice.pick_text(&["GET ", "GET ", "GET ", "GET ", "GET ", "GET ", "POST ", "HEAD "]));
        let item = scramble(u64::from(dice.skewed(4000)));
        let (path, size) = match item % 10 {
            0..4 => ("/images/", 2_000 + item % 400_000),
            4..8 => ("/products/", 8_000 + item % 20_000),
            _ => ("/api/v2/items/", 200 + item % 3_000),
        };
        put(out, path);
        for (list, shift) in [(&CATEGORIES[..], 8), (&ADJECTIVES[..], 16), (&NOUNS[..], 24)] {
            put(out, list.get((item >> shift & 0xff) as usize % list.len()).copied().unwrap_or_default());
            out.push(if shift == 8 { b'/' } else { b'-' });
        }
        put_number(out, item >> 32 & 0xfff);
        put(out, if item % 10 < 4 { ".webp" } else { "" });
        put(out, " HTTP/2.0\" ");
        let status = match dice.below(100) {
            0..88 => "200 ",
            88..93 => "304 ",
            93..96 => "301 ",
            96..98 => "404 ",
            98 => "499 ",
            _ => "502 ",
        };
        put(out, status);
        put_number(out, if status == "200 " { size } else { 0 });
        put(out, " \"");
        put(out, if dice.chance(40) { "-" } else { dice.pick_text(&REFERRERS) });
        put(out, "\" \"");
        put(out, DEVICES.get((client >> 32) as usize % DEVICES.len()).map_or("-", |device| device[0]));
        put(out, "\"\n");
    }
}

/// Words to draw from, the first ones of the list the likelier; drawn up once, as a power per word takes its time.
struct Vocabulary {
    words: Vec<&'static str>,
}

impl Vocabulary {
    fn new(dice: &mut Dice) -> Self {
        let draw = |_| WORDS.get(dice.skewed(WORDS.len() as u32 + 1) as usize).copied().unwrap_or_default();
        Self { words: (0..1 << 14).map(draw).collect() }
    }

    fn put_word(&self, out: &mut Vec<u8>, dice: &mut Dice) {
        put(out, dice.pick_text(&self.words));
    }
}

/// Paragraphs of sentences.
pub(super) struct TextWriter {
    dice: Dice,
    vocabulary: Vocabulary,
}

impl TextWriter {
    pub(super) fn new(mut dice: Dice) -> Self {
        let vocabulary = Vocabulary::new(&mut dice);
        Self { dice, vocabulary }
    }

    fn write_sentence(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        let words = 4 + self.dice.below(16);
        for word in 0..words {
            if word > 0 {
                put(out, if word > 3 && self.dice.chance(6) { ", " } else { " " });
            }
            self.vocabulary.put_word(out, &mut self.dice);
        }
        if let Some(first) = out.get_mut(start) {
            first.make_ascii_uppercase();
        }
        put(out, self.dice.pick_text(&[".", ".", ".", ".", ".", ".", "?", "!"]));
    }
}

impl RecordWriter for TextWriter {
    fn write_record(&mut self, out: &mut Vec<u8>) {
        for sentence in 0..3 + self.dice.below(6) {
            if sentence > 0 {
                out.push(b' ');
            }
            self.write_sentence(out);
        }
        out.push(b'\n');
    }
}

/// Records of a header (magic, length, number, time, four readings) and random bytes.
pub(super) struct BinaryWriter {
    dice: Dice,
    clock: Clock,
    number: u64,
}

impl BinaryWriter {
    pub(super) fn new(dice: Dice, clock: Clock) -> Self {
        Self { dice, clock, number: 0 }
    }
}

impl RecordWriter for BinaryWriter {
    fn write_record(&mut self, out: &mut Vec<u8>) {
        self.clock.advance(&mut self.dice);
        self.number += 1;
        let payload = 64 + self.dice.below(960);
        put(out, "\u{7f}REC");
        out.extend_from_slice(&payload.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.clock.now_ms.to_le_bytes());
        for base in [20.0_f32, 1013.0, 0.5, 230.0] {
            out.extend_from_slice(&(base * (0.95 + 0.1 * self.dice.fraction() as f32)).to_le_bytes());
        }
        self.dice.fill(out, payload as usize);
    }
}
