//! Why bytes from Redis are not what they should be.

use super::json;

/// What is read where a body is.
pub(super) const BODY: &str = "the message body";

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
    /// A compression that is not known here.
    #[error("the compression is {0:?}; only gzip (zlib), bzip2 and zstd can be read")]
    Compression(String),
    /// Compressed bytes that are damaged.
    #[error("what is compressed by {method:?} cannot be read: {why}")]
    Inflate {
        /// The compression.
        method: String,
        /// What is wrong.
        why: String,
    },
    /// Compressed bytes that stand for more than is accepted.
    #[error("what is compressed has more than {0} bytes, which is the most that is accepted")]
    Inflated(usize),
    /// The serializer is not JSON.
    #[error("the content type is {0:?}; only application/json can be read")]
    ContentType(String),
}

impl DecodeError {
    /// A body that is no task's.
    pub(super) fn no_task() -> Self {
        Self::Type { field: BODY, expected: "[args, kwargs, embed]" }
    }

    /// Whether a body could not be read, so that nothing is known of what is in it.
    pub fn is_of_body(&self) -> bool {
        match self {
            Self::Base64(_)
            | Self::BodyEncoding(_)
            | Self::Compression(_)
            | Self::Inflate { .. }
            | Self::Inflated(_)
            | Self::ContentType(_) => true,
            Self::Json { what, .. } => *what == BODY,
            Self::Missing { .. } | Self::Type { .. } => false,
        }
    }

    pub(super) fn json(what: &'static str) -> impl FnOnce(json::Error) -> Self {
        move |source| Self::Json { what, source }
    }
}
