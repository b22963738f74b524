//! `Idempotency-Key`: the name of a job that follows from its key, so that the API server, and no store of the gateway's, makes
//! sure that there is one.

use std::fmt::Write as _;

/// Characters that a key may have.
pub const LONGEST: usize = 255;

/// The annotation of a job that was made under a key: the digest of the request.
pub const REQUEST: &str = "crewjob.dev/gateway-request";

/// Bytes of a digest that are in a name: too many to be met by chance, or found by trying.
const BYTES: usize = 20;

/// Whether a key can be used: 1 to 255 visible ASCII characters, as the header's draft says of a string.
pub fn is_usable(key: &str) -> bool {
    (1..=LONGEST).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// What the digest of a job's name is taken of. No part of it can be read as the end of the one before it.
///
/// `scope` is what tells callers apart that the gateway, and not the API server, lets in; else it is empty: a caller that may not
/// read the job of another one is refused by the API server, also under the same key.
pub fn identity(namespace: &str, scope: &str, key: &str) -> String {
    format!("{namespace}\n{}\n{scope}\n{key}", scope.len())
}

/// The name of the job with this digest of its [`identity`].
pub fn name(digest: &[u8; 32]) -> String {
    format!("key-{}", hexadecimal(&digest[..BYTES]))
}

/// Bytes as text.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What follows from a job that has the name of a request's key already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It is the job of this request.
    Same,
    /// It was made by another request, or not by the gateway.
    Other,
}

/// Compares the digest of a request with the one in the annotation of the job that is there.
pub fn again(digest: &str, noted: Option<&str>) -> Again {
    if noted == Some(digest) { Again::Same } else { Again::Other }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::gateway::id::is_name;

    #[test]
    fn keys_are_visible_text_of_bounded_length() {
        for usable in ["a", "8e03978e-40d5-43dd-bc93-6894a57f9324", "with space", &"k".repeat(255)] {
            assert!(is_usable(usable), "{usable}");
        }
        for unusable in ["", "tab\t", "é", "line\n", &"k".repeat(256)] {
            assert!(!is_usable(unusable), "{unusable}");
        }
    }

    #[test]
    fn no_two_requests_have_the_same_identity_by_where_their_parts_end() {
        let all =
            [("a", "", "b\nc"), ("a", "b", "c"), ("a", "", "b"), ("a", "0\n", "b"), ("a", "b\n", "c"), ("b", "", "b")];
        let identities: std::collections::BTreeSet<String> = all.iter().map(|(a, b, c)| identity(a, b, c)).collect();
        assert_eq!(identities.len(), all.len(), "{identities:?}");
    }

    #[test]
    fn the_name_of_a_key_is_one_that_kubernetes_takes_and_is_pinned() {
        let digest = std::array::from_fn(|index| u8::try_from(index * 7).unwrap());
        assert_eq!(name(&digest), "key-00070e151c232a31383f464d545b626970777e85");
        assert!(is_name(&name(&digest)));
    }

    #[test]
    fn a_job_with_another_digest_or_none_is_of_another_request() {
        assert_eq!(again("d", Some("d")), Again::Same);
        assert_eq!(again("d", Some("e")), Again::Other);
        assert_eq!(again("d", None), Again::Other);
    }
}
