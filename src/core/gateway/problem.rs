//! What can be wrong with a request, as RFC 9457 says it. The list is closed, and what a kind is called stays.

use std::time::Duration;

/// What `type` begins with.
pub const TYPES: &str = "https://crewjob.dev/problems/";

macro_rules! kinds {
    ($($(#[doc = $meaning:literal])+ $kind:ident = $slug:literal, $status:literal, $title:literal;)+) => {
        /// A kind of problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[doc = $meaning])+ $kind,)+ }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// The last part of its `type`.
            pub const fn slug(self) -> &'static str {
                match self { $(Self::$kind => $slug,)+ }
            }

            /// The status of the answer.
            pub const fn status(self) -> u16 {
                match self { $(Self::$kind => $status,)+ }
            }

            /// What it is, in a few words that are the same each time.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)+ }
            }
        }
    };
}

kinds! {
    /// The body, or a field of it, is not what it should be.
    InvalidBody = "invalid-body", 400, "The body of the request cannot be used";
    /// The path is not plain.
    BadPath = "bad-path", 400, "The path of the request cannot be used";
    /// A header that only a proxy in front of the API server may set, or one that asks to be another user.
    RefusedHeader = "refused-header", 400, "The request has a header that is never passed on";
    /// `Idempotency-Key` is empty, too long or not visible ASCII.
    InvalidKey = "invalid-idempotency-key", 400, "The Idempotency-Key cannot be used";
    /// There is no bearer token, or the API server does not know it.
    Unauthenticated = "unauthenticated", 401, "The request has no valid token";
    /// The API server does not allow it.
    Forbidden = "forbidden", 403, "This is not allowed";
    /// A page of another site has sent the request.
    CrossSite = "cross-site", 403, "Requests of other sites are refused";
    /// The header that names the user comes from an address that is no trusted proxy's.
    UntrustedProxy = "untrusted-proxy", 403, "The request does not come from a trusted proxy";
    /// The gateway has no such path.
    NotFound = "not-found", 404, "There is nothing at this path";
    /// There is no such job.
    NoSuchJob = "no-such-job", 404, "There is no such job";
    /// The job is over and has no result.
    NoResult = "no-result", 404, "The job has no result";
    /// The path takes other methods.
    MethodNotAllowed = "method-not-allowed", 405, "The method is not allowed here";
    /// The body did not arrive in time.
    TooSlow = "body-too-slow", 408, "The body of the request did not arrive in time";
    /// There is another job of that name, or the object was changed meanwhile.
    Conflict = "conflict", 409, "The object is not as the request assumes";
    /// The job goes on.
    NotFinished = "not-finished", 409, "The job has not finished";
    /// Only Redis has the result.
    ResultOnRedis = "result-on-redis", 409, "The result is kept on Redis";
    /// The body is larger than is read.
    TooLarge = "body-too-large", 413, "The body of the request is too large";
    /// The body is not of a type that is read here.
    MediaType = "unsupported-media-type", 415, "The body of the request is of another type";
    /// The API server refused a value.
    Invalid = "invalid-job", 422, "The API server does not accept these values";
    /// The key was used with another body.
    KeyReused = "idempotency-key-reused", 422, "The Idempotency-Key was used for another request";
    /// The caller has made too many requests.
    RateLimited = "rate-limited", 429, "Too many requests";
    /// The API server has answered something else than expected.
    ApiServerFailed = "api-server-failed", 502, "The API server failed";
    /// Too many streams are open.
    TooManyStreams = "too-many-streams", 503, "Too many event streams are open";
    /// The gateway holds as much as it may.
    Overloaded = "overloaded", 503, "The gateway is busy";
    /// The API server is busy.
    ApiServerBusy = "api-server-busy", 503, "The API server is busy";
    /// The API server cannot be reached.
    ApiServerUnavailable = "api-server-unavailable", 503, "The API server cannot be reached";
    /// The API server has not answered in time.
    ApiServerTooSlow = "api-server-too-slow", 504, "The API server did not answer in time";
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Where it is in the body, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

/// One occurrence of a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub kind: Kind,
    /// What is wrong this time, and what to do about it.
    pub detail: String,
    /// The fields that are wrong.
    pub flaws: Vec<Flaw>,
    /// Further members, such as the phase of the job.
    pub about: Vec<(&'static str, String)>,
    /// After which time another try is worth it.
    pub retry_after: Option<Duration>,
    /// Methods that the path takes.
    pub allowed: &'static [&'static str],
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { kind, detail, flaws: Vec::new(), about: Vec::new(), retry_after: None, allowed: &[] }
    }

    /// The body has this flaw.
    pub fn of_field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let flaw = Flaw { pointer: pointer.into(), detail: detail.into() };
        Self { flaws: vec![flaw.clone()], ..Self::new(Kind::InvalidBody, format!("{}: {}", flaw.pointer, flaw.detail)) }
    }

    /// The same, and worth another try after this time.
    #[must_use]
    pub fn again_after(self, time: Duration) -> Self {
        Self { retry_after: Some(time), ..self }
    }

    /// The same, with another member.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.about.push((name, value.into()));
        self
    }
}

/// The JSON pointer of a path as the API server writes it, such as `spec.retryPolicy.backoff` or `spec.args[2]`, within a body
/// whose members are those of the spec.
pub fn pointer(path: &str) -> String {
    let path = path.strip_prefix("spec.").unwrap_or(path);
    let parts = path.split(['.', '[']).map(|part| part.trim_end_matches(']'));
    parts.filter(|part| !part.is_empty()).map(member).collect()
}

/// The JSON pointer of a member of the body.
pub fn member(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_type_of_its_own_and_a_status_that_is_an_error() {
        let slugs: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!((400..600).contains(&kind.status()) && !kind.title().ends_with('.'), "{kind:?}");
            assert!(kind.slug().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{kind:?}");
        }
    }

    #[test]
    fn every_kind_is_in_the_document_with_its_status() {
        let document = include_str!("../../../docs/gateway.md");
        let table = document.split("<!-- problems -->").nth(1).unwrap().split("<!-- /problems -->").next().unwrap();
        assert_eq!(table.lines().filter(|line| line.contains('`')).count(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(document.contains(&format!("| {} | `{}` | ", kind.status(), kind.slug())), "{kind:?}");
        }
    }

    #[test]
    fn a_path_of_the_api_server_becomes_a_pointer_into_the_short_form() {
        for (path, expected) in [
            ("spec.priority", "/priority"),
            ("spec.retryPolicy.backoff.factor", "/retryPolicy/backoff/factor"),
            ("spec.args[2]", "/args/2"),
            ("metadata.labels", "/metadata/labels"),
            ("", ""),
        ] {
            assert_eq!(pointer(path), expected, "{path}");
        }
    }
}
