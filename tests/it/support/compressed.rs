//! What Celery compresses, as it compresses it.

use std::io::Write;

use bzip2::write::BzEncoder;
use flate2::write::ZlibEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// The names of kombu for what it compresses by.
pub const METHODS: [&str; 3] = ["application/x-gzip", "application/x-bz2", "application/zstd"];

/// Bytes as kombu compresses them.
pub fn compressed(method: &str, plain: &[u8]) -> Vec<u8> {
    let mut zlib = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    let mut bzip2 = BzEncoder::new(Vec::new(), bzip2::Compression::default());
    match method {
        "application/x-gzip" => zlib.write_all(plain).and_then(|()| zlib.finish()).unwrap(),
        "application/x-bz2" => bzip2.write_all(plain).and_then(|()| bzip2.finish()).unwrap(),
        _ => compress_to_vec(plain, CompressionLevel::Fastest),
    }
}

/// A result as Celery stores it with `result_compression`.
pub fn result(method: &str, plain: &[u8]) -> Vec<u8> {
    [b"\0celery-compressed\0", method.as_bytes(), b"\0", &compressed(method, plain)].concat()
}

/// Stores a value that is no text.
pub fn set(mut connection: redis::Connection, key: &str, value: &[u8]) {
    redis::cmd("SET").arg(key).arg(value).exec(&mut connection).unwrap();
}
