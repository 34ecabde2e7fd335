//! Compressed blocks → plain blocks, as a stream, in a thread of its own. Offsets count decompressed bytes.

use std::io::{BufReader, Read};

use serde::{Deserialize, Serialize};

use super::block::{Block, BlockShape, Filling};
use super::read::{BlockSender, BlockStream};
use crate::error::{Error, Result};
use crate::runtime;

/// How an object is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// The first bytes decide.
    Auto,
    /// Plain bytes.
    None,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
    /// bzip2, any number of streams.
    Bzip2,
    /// .xz, any number of streams.
    Xz,
}

impl Compression {
    /// The words of option `blob.compression`.
    pub const WORDS: &[(&str, Self)] =
        &[("auto", Self::Auto), ("none", Self::None), ("gzip", Self::Gzip), ("zstd", Self::Zstd), ("bzip2", Self::Bzip2), ("xz", Self::Xz)];

    /// How many first bytes [`Self::from_magic`] looks at.
    pub const MAGIC_BYTES: usize = 10;

    /// What a name's suffix says; `Auto` where it says nothing.
    pub fn from_suffix(name: &str) -> Self {
        match name.rsplit('.').next().map(str::to_ascii_lowercase).as_deref() {
            Some("gz" | "gzip") => Self::Gzip,
            Some("zst" | "zstd") => Self::Zstd,
            Some("bz2" | "bzip2") => Self::Bzip2,
            Some("xz") => Self::Xz,
            _ => Self::Auto,
        }
    }

    /// What the first bytes say: the signatures of RFC 1952, RFC 8878, bzip2 (with its block signature, because `BZh` alone
    /// could be text) and the .xz format.
    pub fn from_magic(head: &[u8]) -> Self {
        let is_bzip2_block = |rest: &[u8]| {
            rest.starts_with(&[0x31, 0x41, 0x59, 0x26, 0x53, 0x59]) || rest.starts_with(&[0x17, 0x72, 0x45, 0x38, 0x50, 0x90])
        };
        match head {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0x00, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..] if is_bzip2_block(rest) => Self::Bzip2,
            _ => Self::None,
        }
    }

    fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| *word)
    }

    fn decoder<'a>(self, input: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
        let input = BufReader::with_capacity(256 << 10, input);
        Ok(match self {
            Self::Auto | Self::None => Box::new(input),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Self::Zstd => {
                Box::new(zstd::stream::read::Decoder::with_buffer(input).map_err(|e| Error::internal("starting zstd").with_source(e))?)
            }
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Self::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(input)),
        })
    }
}

/// Decodes the blocks of a whole compressed object. A corrupt stream ends in one Decode error after all that came before it.
///
/// # Errors
/// Internal, when no thread can be had.
pub fn decompress(object: String, compression: Compression, input: BlockStream, shape: BlockShape) -> Result<BlockStream> {
    let (sender, blocks) = BlockStream::channel();
    let decoder = runtime::io()?.spawn_blocking(move || {
        let mut input = BlockInput { input, current: None, consumed: 0, failure: None };
        let ended = decode_blocks(&object, compression, &mut input, shape, &sender);
        // A receiver that is gone has no use for the end.
        drop(sender.blocking_send(ended.map(|()| None)));
    });
    drop(decoder); // it goes on by itself, until the receiver is dropped
    Ok(blocks)
}

fn decode_blocks(object: &str, compression: Compression, input: &mut BlockInput, shape: BlockShape, sender: &BlockSender) -> Result<()> {
    let mut decoder = compression.decoder(&mut *input)?;
    let mut offset = 0u64;
    loop {
        let mut filling = Filling::new(shape, shape.block_bytes, offset);
        let mut failed = None;
        let is_end = loop {
            if filling.free().is_empty() {
                break false;
            }
            match decoder.read(filling.free()) {
                Ok(0) => break true,
                Ok(count) => filling.advance(count),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    failed = Some(error);
                    break true;
                }
            }
        };
        let length = filling.length() as u64;
        if length > 0 && sender.blocking_send(Ok(Some(filling.finish()))).is_err() {
            return Ok(());
        }
        offset += length;
        if let Some(cause) = failed {
            drop(decoder);
            return Err(input.failure.take().unwrap_or_else(|| {
                Error::decode(format!(
                    "{object}: the {} stream is corrupt or truncated at byte {offset} of its content (near byte {} as stored); \
                     replace the object, or set blob.on_corrupt to 'dead_letter' to go on without this object",
                    compression.name(),
                    input.consumed
                ))
                .with_source(cause)
            }));
        }
        if is_end {
            return Ok(());
        }
    }
}

/// The compressed blocks as a `Read`, for decoders.
struct BlockInput {
    input: BlockStream,
    current: Option<(Block, usize)>,
    consumed: u64,
    failure: Option<Error>,
}

impl Read for BlockInput {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if let Some((block, position)) = &mut self.current {
                let rest = &block.bytes()[*position..];
                if !rest.is_empty() {
                    let count = rest.len().min(out.len());
                    out[..count].copy_from_slice(&rest[..count]);
                    *position += count;
                    self.consumed += count as u64;
                    return Ok(count);
                }
            }
            match self.input.blocking_next() {
                None => return Ok(0),
                Some(Ok(block)) => self.current = Some((block, 0)),
                Some(Err(error)) => {
                    self.failure = Some(error);
                    return Err(std::io::Error::other("the object could not be read"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// Decodes `stored`, fed in pieces of `piece` bytes, into blocks of `block` bytes.
    fn decode(compression: Compression, stored: &[u8], piece: usize, block: usize) -> Result<Vec<u8>> {
        let (sender, input) = BlockStream::channel();
        let pieces: Vec<Vec<u8>> = stored.chunks(piece).map(<[u8]>::to_vec).collect();
        let io = runtime::io()?;
        io.spawn(async move {
            for piece in pieces {
                let mut filling = Filling::new(BlockShape { headroom: 0, block_bytes: piece.len(), counts_feeds: false }, piece.len(), 0);
                filling.put(&piece);
                if sender.send(Ok(Some(filling.finish()))).await.is_err() {
                    return;
                }
            }
            drop(sender.send(Ok(None)).await);
        });
        let mut blocks =
            decompress("o".to_string(), compression, input, BlockShape { headroom: 3, block_bytes: block, counts_feeds: true })?;
        let mut found = Vec::new();
        io.block_on(async {
            while let Some(block) = blocks.next().await {
                let block = block?;
                assert_eq!(block.offset, found.len() as u64);
                found.extend_from_slice(block.bytes());
            }
            Ok(found)
        })
    }

    const METHODS: [Compression; 4] = [Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz];

    fn encode(compression: Compression, raw: &[u8]) -> Vec<u8> {
        match compression {
            Compression::Zstd => zstd::encode_all(raw, 3).unwrap(),
            Compression::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(raw).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(raw).unwrap();
                encoder.finish().unwrap()
            }
            _ => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(raw).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn streams_of_any_number_of_members_come_back_and_a_cut_one_is_an_error(
            raw in prop::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 1..2000), members in 1usize..4, piece in 1usize..500, block in 1usize..700,
        ) {
            for method in METHODS {
                let stored = encode(method, &raw).repeat(members);
                prop_assert_eq!(decode(method, &stored, piece, block).unwrap(), raw.repeat(members));
                let error = decode(method, &stored[..stored.len() - 1], piece, block).unwrap_err();
                prop_assert_eq!(error.kind(), crate::ErrorKind::Decode);
            }
        }

        #[test]
        fn foreign_bytes_end_in_bytes_or_an_error_never_in_a_panic(data in prop::collection::vec(any::<u8>(), 0..400), at in any::<prop::sample::Index>()) {
            for method in METHODS {
                // Both noise and a damaged real stream, which leads further in.
                drop(decode(method, &data, 64, 128));
                let mut stored = encode(method, &data);
                let index = at.index(stored.len());
                stored[index] ^= 0x10;
                drop(decode(method, &stored, 64, 128));
            }
        }
    }

    #[test]
    fn suffix_and_magic_name_the_method() {
        assert_eq!(Compression::from_suffix("a/b.JSON.GZ"), Compression::Gzip);
        assert_eq!(Compression::from_suffix("a.b/c"), Compression::Auto);
        assert_eq!(Compression::from_magic(b"BZh9 is not bzip2"), Compression::None);
        assert_eq!(Compression::from_magic(&[0x1f, 0x8b, 8, 0]), Compression::Gzip);
        assert_eq!(Compression::from_magic(b""), Compression::None);
    }
}
