//! Records in the content of a chunk. Before: a [`Record`]; after: its bytes, and the way back.
//!
//! | framing | a record is |
//! | --- | --- |
//! | `line` | value, line feed |
//! | `length_prefixed` | key, value |
//! | `complete` | offset (8 bytes), time (8 bytes, milliseconds since 1970 UTC, the lowest number for none), key, value, count of headers (4 bytes), then name and value of each |
//!
//! Key, value, name are each a length (4 bytes, -1 for none) and its bytes. All numbers are signed and big endian.

use super::pack::Record;
use super::spec::Framing;

/// The time of a record which has none.
const NO_TIME: i64 = i64::MIN;

/// Bytes of a record in a chunk.
pub(super) fn framed_bytes(framing: Framing, record: &Record<'_>) -> usize {
    let part = |part: Option<&[u8]>| 4 + part.map_or(0, <[u8]>::len);
    match framing {
        Framing::Line => record.value.map_or(0, <[u8]>::len) + 1,
        Framing::LengthPrefixed => part(record.key) + part(record.value),
        Framing::Complete => {
            let headers: usize = record.headers.iter().map(|(name, value)| 4 + name.len() + part(*value)).sum();
            8 + 8 + part(record.key) + part(record.value) + 4 + headers
        }
    }
}

/// Adds a record to a chunk.
pub(crate) fn write_framed(framing: Framing, record: &Record<'_>, out: &mut Vec<u8>) {
    match framing {
        Framing::Line => {
            out.extend_from_slice(record.value.unwrap_or_default());
            out.push(b'\n');
        }
        Framing::LengthPrefixed => {
            write_part(record.key, out);
            write_part(record.value, out);
        }
        Framing::Complete => {
            out.extend_from_slice(&record.offset.to_be_bytes());
            out.extend_from_slice(&record.timestamp.unwrap_or(NO_TIME).to_be_bytes());
            write_part(record.key, out);
            write_part(record.value, out);
            out.extend_from_slice(&(record.headers.len() as i32).to_be_bytes());
            for (name, value) in &record.headers {
                write_part(Some(name.as_bytes()), out);
                write_part(*value, out);
            }
        }
    }
}

fn write_part(part: Option<&[u8]>, out: &mut Vec<u8>) {
    let length = part.map_or(-1, |part| part.len() as i32);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(part.unwrap_or_default());
}

/// The records of a chunk, one after the other. What the framing does not hold is empty, and an offset which it does not hold is -1.
/// An item which is none is an error in words that follow the chunk's name, and the last one.
#[derive(Debug)]
pub(crate) struct Unframed<'a> {
    framing: Framing,
    left: &'a [u8],
}

impl<'a> Unframed<'a> {
    /// Before the first record of `content`.
    pub(crate) fn new(framing: Framing, content: &'a [u8]) -> Self {
        Self { framing, left: content }
    }

    fn record(&mut self) -> Option<Record<'a>> {
        match self.framing {
            Framing::Line => {
                let end = memchr::memchr(b'\n', self.left)?;
                let value = &self.left[..end];
                self.left = &self.left[end + 1..];
                Some(Record { offset: -1, value: Some(value), ..Record::default() })
            }
            Framing::LengthPrefixed => {
                let (key, value) = (self.part()?, self.part()?);
                Some(Record { offset: -1, key, value, ..Record::default() })
            }
            Framing::Complete => {
                let (offset, time) = (i64::from_be_bytes(*self.bytes()?), i64::from_be_bytes(*self.bytes()?));
                let (key, value) = (self.part()?, self.part()?);
                let count = i32::from_be_bytes(*self.bytes()?);
                let mut headers = Vec::new();
                for _ in 0..count {
                    headers.push((std::str::from_utf8(self.part()??).ok()?, self.part()?));
                }
                Some(Record { offset, timestamp: (time != NO_TIME).then_some(time), key, value, headers })
            }
        }
    }

    fn bytes<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (bytes, left) = self.left.split_first_chunk()?;
        self.left = left;
        Some(bytes)
    }

    fn part(&mut self) -> Option<Option<&'a [u8]>> {
        let length = i32::from_be_bytes(*self.bytes()?);
        let Ok(length) = usize::try_from(length) else { return (length == -1).then_some(None) };
        let (part, left) = self.left.split_at_checked(length)?;
        self.left = left;
        Some(Some(part))
    }
}

impl<'a> Iterator for Unframed<'a> {
    type Item = Result<Record<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let left = self.left.len();
        let record = self.record();
        if record.is_none() {
            self.left = &[];
        }
        Some(record.ok_or_else(|| format!("holds no record in the framing of its table, {left} bytes before its end")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Bytes = Option<Vec<u8>>;
    type Owned = (i64, Option<i64>, Bytes, Bytes, Vec<(String, Bytes)>);

    fn borrow(owned: &Owned) -> Record<'_> {
        let (offset, timestamp, key, value, headers) = owned;
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        Record { offset: *offset, timestamp: *timestamp, key: key.as_deref(), value: value.as_deref(), headers }
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop::option::of(prop::collection::vec(any::<u8>(), 0..20))
    }

    fn frame(framing: Framing, records: &[Owned]) -> Vec<u8> {
        let mut content = Vec::new();
        for record in records.iter().map(borrow) {
            let before = content.len();
            write_framed(framing, &record, &mut content);
            assert_eq!(content.len() - before, framed_bytes(framing, &record));
        }
        content
    }

    proptest! {
        #[test]
        fn records_come_back_as_far_as_their_framing_holds_them(
            records in prop::collection::vec(
                (0..i64::MAX, prop::option::of(0..i64::MAX), bytes(), bytes(), prop::collection::vec((".{0,8}", bytes()), 0..4)), 0..12),
        ) {
            let content = frame(Framing::Complete, &records);
            let back: Vec<_> = Unframed::new(Framing::Complete, &content).map(Result::unwrap).collect();
            let all: Vec<_> = records.iter().map(borrow).collect();
            prop_assert_eq!(format!("{back:?}"), format!("{all:?}"));
            let content = frame(Framing::LengthPrefixed, &records);
            let back: Vec<_> = Unframed::new(Framing::LengthPrefixed, &content).map(Result::unwrap).collect();
            prop_assert!(back.iter().map(|record| (record.key, record.value)).eq(all.iter().map(|record| (record.key, record.value))));
        }

        #[test]
        fn what_is_cut_or_no_chunk_ends_in_an_error_and_never_in_a_panic(
            value in prop::collection::vec(any::<u8>(), 1..40), cut in 1usize..20, noise in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            for (_, framing) in Framing::WORDS {
                let record = (1, Some(2), Some(b"k".to_vec()), Some(value.clone()), vec![("h".to_string(), None)]);
                let content = frame(*framing, &[record]);
                let cut = &content[..content.len() - cut.min(content.len() - 1)];
                if *framing != Framing::Line {
                    prop_assert!(Unframed::new(*framing, cut).any(|record| record.is_err()));
                }
                prop_assert!(Unframed::new(*framing, &noise).count() <= noise.len());
            }
        }
    }

    #[test]
    fn lines_are_values() {
        let values: Vec<_> = Unframed::new(Framing::Line, b"one\n\ntwo\n").map(|record| record.unwrap().value.unwrap()).collect();
        assert_eq!(values, [b"one".as_slice(), b"", b"two"]);
        assert!(Unframed::new(Framing::Line, b"one\ntwo").last().unwrap().is_err());
    }
}
