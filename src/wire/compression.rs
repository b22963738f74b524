//! What Celery and kombu compress: bodies of messages (`task_compression`) and results (`result_compression`).
//!
//! The names are those of `kombu/compression.py`. What comes out has a bound: a few bytes can stand for gigabytes.

use std::io::{Error, ErrorKind, Read};

use bzip2::read::MultiBzDecoder;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

use super::DecodeError;

/// Largest window of zstd, as RFC 8878 recommends: how far a frame may look back, in bytes.
const WINDOW: u64 = 8 << 20;

/// What is made of compressed bytes, piece by piece.
pub struct Inflater<'a>(Method<'a>);

enum Method<'a> {
    /// What kombu calls gzip.
    Zlib(Box<ZlibDecoder<&'a [u8]>>),
    /// What other clients call gzip.
    Gzip(Box<MultiGzDecoder<&'a [u8]>>),
    Bzip2(Box<MultiBzDecoder<&'a [u8]>>),
    Zstd(Box<Frames<'a>>),
}

impl<'a> Inflater<'a> {
    /// For bytes that were compressed by this method, named as in the header `compression`.
    pub fn new(method: &str, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self(match method {
            "application/x-gzip" | "gzip" | "zlib" if bytes.starts_with(&[0x1f, 0x8b]) => {
                Method::Gzip(Box::new(MultiGzDecoder::new(bytes)))
            }
            "application/x-gzip" | "gzip" | "zlib" => Method::Zlib(Box::new(ZlibDecoder::new(bytes))),
            "application/x-bz2" | "bzip2" | "bzip" => Method::Bzip2(Box::new(MultiBzDecoder::new(bytes))),
            "application/zstd" | "zstd" | "zstandard" => Method::Zstd(Box::new(Frames::of(bytes))),
            other => return Err(DecodeError::Compression(other.chars().take(64).collect())),
        }))
    }
}

impl Read for Inflater<'_> {
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        match &mut self.0 {
            Method::Zlib(from) => from.read(to),
            Method::Gzip(from) => from.read(to),
            Method::Bzip2(from) => from.read(to),
            Method::Zstd(from) => from.read(to),
        }
    }
}

/// Frames of zstd, one after the other.
struct Frames<'a> {
    rest: &'a [u8],
    decoder: FrameDecoder,
    is_within: bool,
}

impl<'a> Frames<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW);
        Self { rest: bytes, decoder, is_within: false }
    }
}

impl Read for Frames<'_> {
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Error> {
        use ruzstd::decoding::BlockDecodingStrategy::UptoBlocks;
        loop {
            if self.is_within && self.decoder.can_collect() > 0 {
                return self.decoder.read(to);
            }
            if self.is_within && !self.decoder.is_finished() {
                self.decoder.decode_blocks(&mut self.rest, UptoBlocks(1)).map_err(Error::other)?;
                continue;
            }
            if self.rest.is_empty() {
                return Ok(0);
            }
            self.is_within = match self.decoder.init(&mut self.rest) {
                Ok(()) => true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = usize::try_from(length).ok().and_then(|length| self.rest.get(length..));
                    self.rest = skipped.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
                    false
                }
                Err(error) => return Err(Error::other(error)),
            };
        }
    }
}

/// Whether a compression of this name can be undone.
pub fn is_known(method: &str) -> bool {
    Inflater::new(method, &[]).is_ok()
}

/// Undoes a compression. An error where there would be more than `most` bytes.
pub fn inflate(method: &str, bytes: &[u8], most: usize) -> Result<Vec<u8>, DecodeError> {
    let mut inflated = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    Inflater::new(method, bytes)?
        .take(limit)
        .read_to_end(&mut inflated)
        .map_err(|error| DecodeError::Inflate { method: method.chars().take(64).collect(), why: error.to_string() })?;
    if inflated.len() > most { Err(DecodeError::Inflated(most)) } else { Ok(inflated) }
}

/// What the beginning of compressed bytes stands for, up to `most` bytes; what cannot be read ends it.
pub fn inflate_beginning(method: &str, bytes: &[u8], most: usize) -> Vec<u8> {
    let mut inflated = Vec::new();
    if let Ok(inflater) = Inflater::new(method, bytes) {
        // What was read before an error stays.
        let _ = inflater.take(most as u64).read_to_end(&mut inflated);
    }
    inflated
}

#[cfg(test)]
mod tests;
