//! Plain bytes → a compressed stream, piece by piece. Before: the content of an object; after: what its suffix promises.

use std::io::Write;

use crate::connector::blob::Compression;
use crate::error::{Error, Result};

/// Levels which the tools of these formats take when nobody names one.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;
const BZIP2_LEVEL: u32 = 9;
const XZ_LEVEL: u32 = 6;

/// A stream which is being compressed. What it holds back is the format's window, not the object.
pub(super) enum Packer {
    /// The bytes as they are.
    Plain,
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Bzip2(bzip2::write::BzEncoder<Vec<u8>>),
    Xz(liblzma::write::XzEncoder<Vec<u8>>),
}

impl Packer {
    /// The beginning of a stream.
    ///
    /// # Errors
    /// Internal, when zstd cannot be set up.
    pub(super) fn new(compression: Compression) -> Result<Self> {
        Ok(match compression {
            Compression::None | Compression::Auto => Self::Plain,
            Compression::Gzip => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL))),
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).map_err(failed)?;
                encoder.include_checksum(true).map_err(failed)?;
                Self::Zstd(encoder)
            }
            Compression::Bzip2 => Self::Bzip2(bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(BZIP2_LEVEL))),
            Compression::Xz => Self::Xz(liblzma::write::XzEncoder::new(Vec::new(), XZ_LEVEL)),
        })
    }

    /// Whether what goes in comes out.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Adds bytes; gives what is ready.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(bytes.to_vec()),
            Self::Gzip(encoder) => feed(encoder, bytes).map(|()| std::mem::take(encoder.get_mut())),
            Self::Zstd(encoder) => feed(encoder, bytes).map(|()| std::mem::take(encoder.get_mut())),
            Self::Bzip2(encoder) => feed(encoder, bytes).map(|()| std::mem::take(encoder.get_mut())),
            Self::Xz(encoder) => feed(encoder, bytes).map(|()| std::mem::take(encoder.get_mut())),
        }
    }

    /// The end of the stream.
    pub(super) fn finish(self) -> Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(Vec::new()),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Bzip2(encoder) => encoder.finish(),
            Self::Xz(encoder) => encoder.finish(),
        }
        .map_err(failed)
    }
}

fn feed(encoder: &mut impl Write, bytes: &[u8]) -> Result<()> {
    encoder.write_all(bytes).map_err(failed)
}

fn failed(cause: std::io::Error) -> Error {
    Error::internal("compressing an object anew").with_source(cause)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn unpack(compression: Compression, packed: &[u8]) -> Vec<u8> {
        let mut raw = Vec::new();
        match compression {
            Compression::Gzip => flate2::read::GzDecoder::new(packed).read_to_end(&mut raw),
            Compression::Zstd => zstd::stream::read::Decoder::new(packed).unwrap().read_to_end(&mut raw),
            Compression::Bzip2 => bzip2::read::BzDecoder::new(packed).read_to_end(&mut raw),
            Compression::Xz => liblzma::read::XzDecoder::new(packed).read_to_end(&mut raw),
            _ => return packed.to_vec(),
        }
        .unwrap();
        raw
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn pieces_become_one_stream_which_its_tool_reads(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..6)) {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz] {
                let mut packer = Packer::new(compression).unwrap();
                let mut packed: Vec<u8> = pieces.iter().flat_map(|piece| packer.push(piece).unwrap()).collect();
                packed.extend(packer.finish().unwrap());
                if compression != Compression::None {
                    prop_assert_eq!(Compression::from_magic(&packed), compression);
                }
                prop_assert_eq!(unpack(compression, &packed), pieces.concat());
            }
        }
    }
}
