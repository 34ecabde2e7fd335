//! Input shapes. All are made from a seed, so that a failure can be repeated.

use std::io::Write;

/// A small generator of random numbers (SplitMix64), the same in every version of every library.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it has no end, which an iterator's `next` may have")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Bytes which do not compress.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(length).collect()
    }
}

/// JSON lines of together at least `length` bytes, each ended by `end`.
pub fn lines(seed: u64, length: usize, end: &str) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut text = Vec::with_capacity(length + 256);
    let mut number = 0_u64;
    while text.len() < length {
        let (user, amount) = (random.below(5000), random.below(100_000));
        let word = ["login", "view", "add-to-cart", "pay", "übersicht"][random.below(5) as usize];
        write!(text, r#"{{"n":{number},"user":"user-{user}","event":"{word}","amount":{amount}}}{end}"#).ok();
        number += 1;
    }
    text
}

/// One input object.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The file's name, as it is on disk.
    pub name: String,
    /// What is on disk.
    pub stored: Vec<u8>,
    /// What it holds after decompression.
    pub content: Vec<u8>,
    /// Lines, where that is certain: a final piece without line end counts as one.
    pub records: Option<i64>,
}

fn plain(name: &str, content: Vec<u8>) -> Shape {
    let ends = content.iter().filter(|byte| **byte == b'\n').count() as i64;
    let open_end = i64::from(content.last().is_some_and(|byte| *byte != b'\n'));
    Shape { name: name.to_string(), stored: content.clone(), content, records: Some(ends + open_end) }
}

/// Text in all its forms, with splits of 1 MiB and chunks of 64 KiB in mind.
pub fn texts() -> Vec<Shape> {
    let without_end = {
        let mut text = lines(3, 300_000, "\n");
        text.pop();
        text
    };
    let one_long_line = |length: usize| {
        let mut text = lines(4, 70_000, "\n");
        text.extend(std::iter::repeat_n(b'x', length));
        text.push(b'\n');
        text.extend(lines(5, 70_000, "\n"));
        text
    };
    let line_ends_at_split = {
        let mut text = lines(6, 1 << 20, "\n");
        text.truncate((1 << 20) - 1);
        text.push(b'\n');
        text.extend(lines(7, 200_000, "\n"));
        text
    };
    vec![
        plain("lines.jsonl", lines(1, 2_500_000, "\n")),
        plain("crlf.txt", lines(2, 1_500_000, "\r\n")),
        plain("no-final-newline.txt", without_end),
        plain("line-longer-than-a-chunk.txt", one_long_line(300_000)),
        plain("line-longer-than-a-split.txt", one_long_line(2_700_000)),
        plain("line-ends-at-split.txt", line_ends_at_split),
        plain("one-line-without-end.txt", vec![b'y'; 1_200_000]),
        plain("only-newlines.txt", vec![b'\n'; 200_000]),
        plain("one-byte.txt", b"z".to_vec()),
        plain("one-newline.txt", b"\n".to_vec()),
        plain("empty.txt", Vec::new()),
    ]
}

/// Names which a URL, a glob or a shell would read in another way.
pub fn odd_names() -> Vec<Shape> {
    let names = [
        "two words.txt",
        "100%.txt",
        "50%25.txt",
        "a#b.txt",
        "what?.txt",
        "grün-名前-🦀.txt",
        "a+b&c=d.txt",
        "[x]{y}.txt",
        "deep/er/file.txt",
    ];
    names.iter().enumerate().map(|(seed, name)| plain(name, lines(20 + seed as u64, 3000, "\n"))).collect()
}

/// Bytes which are no text.
pub fn binary() -> Shape {
    let mut content = Random::new(30).bytes(1_300_000);
    content.extend(std::iter::repeat_n(0, 400_000));
    Shape { name: "noise.bin".to_string(), stored: content.clone(), content, records: None }
}

/// The compressed forms, each by its suffix, and one of each under a name which says nothing.
pub fn compressed() -> Vec<Shape> {
    let content = lines(40, 1_400_000, "\n");
    let records = plain("", content.clone()).records;
    let (first, second) = content.split_at(700_000);
    let many = |compress: fn(&[u8]) -> Vec<u8>| [compress(first), compress(&[]), compress(second)].concat();
    let forms = [
        ("one.gz", gzip(&content)),
        ("many-members.gz", many(gzip)),
        ("one.zst", zstd_frame(&content)),
        ("many-frames.zst", many(zstd_frame)),
        ("one.bz2", bzip2_stream(&content)),
        ("many-streams.bz2", many(bzip2_stream)),
        ("one.xz", xz(&content)),
        ("many-streams.xz", many(xz)),
        ("gzip-by-magic.log", gzip(&content)),
        ("zstd-by-magic.log", zstd_frame(&content)),
        ("bzip2-by-magic.log", bzip2_stream(&content)),
        ("xz-by-magic.log", xz(&content)),
    ];
    forms.into_iter().map(|(name, stored)| Shape { name: name.to_string(), stored, content: content.clone(), records }).collect()
}

/// Compressed objects cut short, and with some bytes changed in the middle. `content` is what the whole would have held.
pub fn damaged() -> Vec<Shape> {
    let content = lines(41, 900_000, "\n");
    let mut shapes = Vec::new();
    for (suffix, stored) in [("gz", gzip(&content)), ("zst", zstd_frame(&content)), ("bz2", bzip2_stream(&content)), ("xz", xz(&content))] {
        let truncated = stored[..stored.len() * 3 / 5].to_vec();
        let mut corrupt = stored.clone();
        let middle = corrupt.len() / 2;
        corrupt[middle..middle + 16].iter_mut().for_each(|byte| *byte ^= 0x5a);
        for (how, stored) in [("truncated", truncated), ("corrupt", corrupt)] {
            shapes.push(Shape { name: format!("{how}.{suffix}"), stored, content: content.clone(), records: None });
        }
    }
    shapes
}

/// One gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

/// One zstd frame.
pub fn zstd_frame(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("zstd works");
    encoder.include_checksum(true).expect("zstd can add a checksum");
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

/// One bzip2 stream.
pub fn bzip2_stream(bytes: &[u8]) -> Vec<u8> {
    // Blocks of 100 kB, so that a file holds several.
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(1));
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

/// One xz stream.
pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 3);
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}
