use std::io::Write;

use bzip2::write::BzEncoder;
use flate2::write::{GzEncoder, ZlibEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

const GZIP: &[&str] = &["application/x-gzip", "gzip", "zlib"];

/// Bytes as compressed by each method, with the names that kombu knows it by.
pub(crate) fn compressed(plain: &[u8]) -> [(&'static [&'static str], Vec<u8>); 4] {
    let mut zlib = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut bzip2 = BzEncoder::new(Vec::new(), bzip2::Compression::default());
    zlib.write_all(plain).unwrap();
    gzip.write_all(plain).unwrap();
    bzip2.write_all(plain).unwrap();
    [
        (GZIP, zlib.finish().unwrap()),
        (GZIP, gzip.finish().unwrap()),
        (&["application/x-bz2", "bzip2", "bzip"], bzip2.finish().unwrap()),
        (&["application/zstd", "zstd", "zstandard"], compress_to_vec(plain, CompressionLevel::Fastest)),
    ]
}

#[test]
fn what_kombu_compresses_is_read_under_each_of_its_names() {
    let plain = "Ein Text, der sich wiederholt. ".repeat(10_000);
    for (names, bytes) in compressed(plain.as_bytes()) {
        for name in names {
            assert!(inflate(name, &bytes, plain.len()).unwrap() == plain.as_bytes(), "{name}");
            let twice = [&*bytes, &bytes].concat();
            // zlib has one stream, and what comes after it is passed over, as in Python.
            let times = if bytes[0] == 0x78 { 1 } else { 2 };
            assert!(inflate(name, &twice, 1 << 20).unwrap() == plain.repeat(times).as_bytes(), "{name} twice");
        }
    }
    assert_eq!(inflate("zstd", b"\x50\x2a\x4d\x18\x03\0\0\0abc", 10), Ok(Vec::new()), "a frame to be skipped");
}

#[test]
fn a_bomb_takes_no_more_memory_than_the_bound() {
    let bomb = compressed(&vec![b'['; 2 << 20]);
    for (names, bytes) in bomb {
        assert!(bytes.len() < 8 << 10, "{names:?}: {}", bytes.len());
        assert_eq!(inflate(names[0], &bytes, 1 << 20), Err(DecodeError::Inflated(1 << 20)));
        assert_eq!(inflate_beginning(names[0], &bytes, 100), b"[".repeat(100));
    }
}

#[test]
fn a_method_that_is_not_known_is_named_and_so_is_what_is_damaged() {
    let error = inflate("application/x-brotli", b"x", 10).unwrap_err().to_string();
    assert_eq!(error, r#"the compression is "application/x-brotli"; only gzip (zlib), bzip2 and zstd can be read"#);
    for (names, bytes) in compressed(b"plain") {
        for damaged in [&bytes[..bytes.len() / 2], b"plain", &[0x1f, 0x8b]] {
            let result = inflate(names[0], damaged, 10);
            assert!(matches!(result, Err(DecodeError::Inflate { .. })), "{names:?} {damaged:?} {result:?}");
        }
    }
}
