//! What can go wrong with Redis, without its types and without its passwords.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a pool's Redis cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The server does not answer, or not as Redis does.
    #[error("connecting to Redis at {address}: {detail}")]
    Unreachable {
        /// Scheme, host and port.
        address: String,
        /// What was seen, and what to do about it.
        detail: String,
    },
    /// The server answers, and cannot be used.
    #[error("Redis at {address} cannot be used: {detail}")]
    Unsupported {
        /// Scheme, host and port.
        address: String,
        /// Why, and what to use instead.
        detail: String,
    },
    /// The server refused the user name or the password.
    #[error("Redis at {address} refused the user name or the password")]
    AuthenticationFailed {
        /// Scheme, host and port.
        address: String,
    },
    /// A URL or certificate that cannot be used.
    #[error("{field} is not usable: {detail}")]
    Invalid {
        /// Key of the Secret.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

/// What is said of a Redis with `cluster-enabled yes`, and of services that work like one.
pub(super) const CLUSTER: &str = "Redis Cluster is not supported, because keys that change together would be in several slots: \
    the operator's own are in another one than those of Celery, also where these have a prefix in braces; use a Redis with cluster \
    mode disabled";

/// Why something could not be done on Redis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Redis cannot be reached or did not answer in time.
    #[error("{act}: Redis is not reachable: {detail}")]
    Unavailable {
        /// What was tried.
        act: &'static str,
        /// What was seen.
        detail: String,
    },
    /// The server refused the user name or the password.
    #[error("{act}: Redis refused the user name or the password")]
    AuthenticationFailed {
        /// What was tried.
        act: &'static str,
    },
    /// Redis understood and said no: a missing permission, no memory, a read-only replica.
    #[error("{act}: Redis refused: {detail}")]
    Refused {
        /// What was tried.
        act: &'static str,
        /// What Redis said.
        detail: String,
    },
    /// The fence is of a later term than the caller's, or of none that an operator has written.
    #[error("{act}: the fence on Redis is not of this operator's term")]
    Fenced {
        /// What was tried.
        act: &'static str,
    },
    /// Redis answered with something else than what was asked for.
    #[error("{act}: Redis holds or answered something unexpected: {detail}")]
    Unexpected {
        /// What was tried.
        act: &'static str,
        /// What was seen.
        detail: String,
    },
}

impl Error {
    pub(super) fn of(act: &'static str, error: &redis::RedisError) -> Self {
        let (kind, detail) = (error.kind(), error.to_string());
        if let Some(size) = error.code().and_then(|code| code.parse::<u64>().ok()) {
            return Self::unexpected(act, format!("a value of {size} bytes, which is more than is read"));
        }
        let is_of_cluster = ["CROSSSLOT", "MOVED", "CLUSTERDOWN"].iter().any(|code| detail.contains(code));
        let detail = if is_of_cluster { format!("{CLUSTER} ({detail})") } else { detail };
        if kind == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) {
            Self::AuthenticationFailed { act }
        } else if kind == ErrorKind::Io || BUSY.contains(&kind) || is_replica(error) {
            Self::Unavailable { act, detail }
        } else if error.code().is_some() {
            Self::Refused { act, detail }
        } else {
            Self::Unexpected { act, detail }
        }
    }

    /// Whether Redis would refuse it again: a right is missing, or a key holds another type of value.
    pub fn is_for_good(&self) -> bool {
        match self {
            Self::Refused { detail, .. } => ["WRONGTYPE", "NOPERM"].iter().any(|code| detail.contains(code)),
            Self::Unavailable { .. }
            | Self::AuthenticationFailed { .. }
            | Self::Fenced { .. }
            | Self::Unexpected { .. } => false,
        }
    }

    /// Whether a script met a compressed result, which it cannot read.
    pub(super) fn is_about_compressed(&self) -> bool {
        matches!(self, Self::Refused { detail, .. } if detail.contains("COMPRESSED"))
    }

    pub(super) fn unexpected(act: &'static str, detail: impl Into<String>) -> Self {
        Self::Unexpected { act, detail: detail.into() }
    }
}

/// Whether the server follows another one by now. Redis 6.2 wraps what a script was told,
/// in `ERR Error running script (call to f_…): @user_script: 1: -READONLY …`.
pub(super) fn is_replica(error: &RedisError) -> bool {
    const CODES: [&str; 2] = ["READONLY", "MASTERDOWN"];
    let wrapped = |code: &&str| error.detail().is_some_and(|detail| detail.contains(&format!(": -{code} ")));
    error.code().is_some_and(|code| CODES.contains(&code)) || CODES.iter().any(wrapped)
}

/// Answers of a server that will work again by itself.
const BUSY: [ErrorKind; 3] = [
    ErrorKind::Server(ServerErrorKind::BusyLoading),
    ErrorKind::Server(ServerErrorKind::MasterDown),
    ErrorKind::Server(ServerErrorKind::TryAgain),
];
