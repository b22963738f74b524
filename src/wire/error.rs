//! Why bytes from Redis are not what they should be.

use super::json;

/// Why something could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are not a JSON document.
    #[error("{what} is not valid JSON")]
    Json {
        /// What was being read.
        what: &'static str,
        /// Where and why.
        #[source]
        source: json::Error,
    },
    /// A field that every reader needs is absent.
    #[error("{field} is missing")]
    Missing {
        /// Its path.
        field: &'static str,
    },
    /// A field has another type than it must have.
    #[error("{field} is not {expected}")]
    Type {
        /// Its path.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The body says it is base64 and is not.
    #[error("the body is not valid base64")]
    Base64(#[source] base64::DecodeError),
    /// `properties.body_encoding` is not `base64`.
    #[error("the body is encoded as {0:?}; only base64 and plain text can be read")]
    BodyEncoding(String),
    /// The serializer is not JSON.
    #[error("the content type is {0:?}; only application/json can be read")]
    ContentType(String),
}

impl DecodeError {
    pub(super) fn json(what: &'static str) -> impl FnOnce(json::Error) -> Self {
        move |source| Self::Json { what, source }
    }
}
