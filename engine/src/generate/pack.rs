//! Compression of an object while it is made.

use std::io::{self, Write};

use bzip2::write::BzEncoder;
use flate2::write::GzEncoder;
use liblzma::write::XzEncoder;

use super::Compression;
use crate::{Error, Result};

/// Takes raw blocks and gives what is to be stored.
pub(super) enum Packer {
    None,
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Bzip2(BzEncoder<Vec<u8>>),
    Xz(XzEncoder<Vec<u8>>),
}

fn failed(error: io::Error) -> Error {
    Error::internal("cannot compress sample data").with_source(error)
}

impl Packer {
    pub(super) fn try_new(compress: Option<Compression>) -> Result<Self> {
        Ok(match compress {
            None => Self::None,
            Some(Compression::Gzip) => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(6))),
            Some(Compression::Zstd) => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 3).map_err(failed)?),
            Some(Compression::Bzip2) => Self::Bzip2(BzEncoder::new(Vec::new(), bzip2::Compression::new(6))),
            Some(Compression::Xz) => Self::Xz(XzEncoder::new(Vec::new(), 3)),
        })
    }

    /// Packs a block and gives what has come out so far; the block is empty afterwards.
    pub(super) fn pack(&mut self, raw: &mut Vec<u8>) -> Result<Vec<u8>> {
        let written = match self {
            Self::None => {
                let capacity = raw.capacity();
                return Ok(std::mem::replace(raw, Vec::with_capacity(capacity)));
            }
            Self::Gzip(encoder) => encoder.write_all(raw),
            Self::Zstd(encoder) => encoder.write_all(raw),
            Self::Bzip2(encoder) => encoder.write_all(raw),
            Self::Xz(encoder) => encoder.write_all(raw),
        };
        written.map_err(failed)?;
        raw.clear();
        Ok(std::mem::take(match self {
            Self::None => raw,
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Bzip2(encoder) => encoder.get_mut(),
            Self::Xz(encoder) => encoder.get_mut(),
        }))
    }

    /// Ends the object and gives the rest of it.
    pub(super) fn finish(self) -> Result<Vec<u8>> {
        match self {
            Self::None => Ok(Vec::new()),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Bzip2(encoder) => encoder.finish(),
            Self::Xz(encoder) => encoder.finish(),
        }
        .map_err(failed)
    }
}
