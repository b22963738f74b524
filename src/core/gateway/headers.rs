//! Which headers a request may have, which of them go on to the API server, and which come back. Names are in lower case.

/// Headers by which a proxy in front of an API server, or a caller with the right to do so, says which user it speaks for. A
/// request that has one is refused rather than stripped of it: it would be done with other rights than it asks for.
const REFUSED: [&str; 2] = ["impersonate-", "x-remote-"];

/// What the API server is told of a request, beside its token. None of it says which user it is.
const FORWARDED: [&str; 6] = ["accept", "accept-encoding", "content-type", "traceparent", "tracestate", "user-agent"];

/// What a client is told of an answer of the API server.
const ANSWERED: [&str; 8] =
    ["audit-id", "cache-control", "content-encoding", "content-type", "etag", "retry-after", "vary", "warning"];

/// Whether a request with this header is refused.
pub fn is_refused(name: &str) -> bool {
    REFUSED.iter().any(|beginning| name.starts_with(beginning))
}

/// Whether it goes on to the API server.
pub fn is_forwarded(name: &str) -> bool {
    FORWARDED.contains(&name)
}

/// Whether it comes back from the API server.
pub fn is_answered(name: &str) -> bool {
    ANSWERED.contains(&name)
}

/// The token of an `Authorization` header.
pub fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// What a browser says of where a request comes from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Site<'a> {
    /// `Sec-Fetch-Site`.
    pub fetch_site: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `Host`.
    pub host: Option<&'a str>,
}

impl Site<'_> {
    /// Whether a page of another site has sent it. What is no browser sends none of these headers.
    pub fn is_other(&self) -> bool {
        if let Some(site) = self.fetch_site {
            return !matches!(site, "same-origin" | "none");
        }
        let Some(origin) = self.origin else { return false };
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_none() || authority != self.host
    }
}

/// Whether a body of this `Content-Type` is read: none that a page of another site can send without being asked for first.
/// `is_short` is for the short form, which takes JSON only.
pub fn is_media_type(value: Option<&str>, method: &str, is_short: bool) -> bool {
    let Some(value) = value else { return method == "DELETE" };
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let of_kubernetes = match method {
        "PATCH" => &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"][..],
        _ => &["application/json", "application/yaml"],
    };
    if is_short { kind == "application/json" } else { of_kubernetes.contains(&&*kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_header_that_names_a_user_and_none_of_the_connection_goes_on() {
        for name in ["impersonate-user", "impersonate-extra-scopes", "x-remote-user", "x-remote-group"] {
            assert!(is_refused(name) && !is_forwarded(name), "{name}");
        }
        for name in [
            "authorization",
            "connection",
            "cookie",
            "forwarded",
            "host",
            "keep-alive",
            "proxy-authorization",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "x-forwarded-for",
            "x-forwarded-user",
        ] {
            assert!(!is_forwarded(name) && !is_answered(name) && !is_refused(name), "{name}");
        }
    }

    #[test]
    fn a_token_is_what_follows_the_word_bearer() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for other in ["Bearer", "Bearer ", "Basic abc", "abc", ""] {
            assert_eq!(bearer(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_page_of_another_site_has_sent_is_known_by_what_its_browser_says() {
        let site = |fetch_site, origin, host| Site { fetch_site, origin, host }.is_other();
        assert!(!site(None, None, Some("jobs")), "no browser");
        assert!(!site(Some("same-origin"), Some("https://jobs"), Some("jobs")));
        assert!(!site(Some("none"), None, Some("jobs")), "typed by a person");
        assert!(site(Some("cross-site"), None, Some("jobs")));
        assert!(site(Some("same-site"), None, Some("jobs")), "another host of the domain");
        assert!(!site(None, Some("https://jobs:8443"), Some("jobs:8443")), "a browser that does not say");
        assert!(site(None, Some("https://evil"), Some("jobs")));
        assert!(site(None, Some("null"), Some("jobs")), "a page in a sandbox");
    }

    #[test]
    fn bodies_that_a_form_of_another_site_could_send_are_read_nowhere() {
        for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("multipart/form-data")] {
            for method in ["POST", "PUT", "PATCH"] {
                assert!(!is_media_type(kind, method, true) && !is_media_type(kind, method, false), "{kind:?}");
            }
        }
        assert!(is_media_type(Some("Application/JSON; charset=utf-8"), "POST", true));
        assert!(
            is_media_type(Some("application/yaml"), "POST", false)
                && !is_media_type(Some("application/yaml"), "POST", true)
        );
        assert!(is_media_type(Some("application/merge-patch+json"), "PATCH", false));
        assert!(!is_media_type(Some("application/json"), "PATCH", false));
        assert!(is_media_type(None, "DELETE", false), "kubectl sends no type where it sends no body");
    }
}
