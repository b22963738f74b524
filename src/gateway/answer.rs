//! Answers: JSON, and problems as RFC 9457 has them.

use axum::body::Body;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::core::gateway::problem::{Problem, TYPES};
use crate::core::gateway::rate::Taken;

/// What a request is answered with.
pub type Answer = Response<Body>;

/// An answer with a text.
pub fn text(status: StatusCode, kind: &'static str, text: impl Into<Body>) -> Answer {
    let mut answer = Response::new(text.into());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// An answer with a JSON value.
pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // Only a map with keys that are no texts could not be written; there is none.
    text(status, "application/json", serde_json::to_string(value).unwrap_or_default())
}

/// The members of a problem.
pub fn members(problem: &Problem) -> Value {
    let kind = problem.kind;
    let mut members = Map::new();
    members.insert("type".into(), format!("{TYPES}{}", kind.slug()).into());
    members.insert("title".into(), kind.title().into());
    members.insert("status".into(), kind.status().into());
    members.insert("detail".into(), problem.detail.clone().into());
    members.extend(problem.about.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())));
    if !problem.flaws.is_empty() {
        let flaws = problem.flaws.iter().map(|flaw| json!({ "pointer": flaw.pointer, "detail": flaw.detail }));
        members.insert("errors".into(), flaws.collect());
    }
    members.into()
}

/// An answer that says what is wrong.
pub fn problem(problem: &Problem) -> Answer {
    let status = StatusCode::from_u16(problem.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = text(status, "application/problem+json", members(problem).to_string());
    let headers = answer.headers_mut();
    if let Some(time) = problem.retry_after {
        headers.insert(header::RETRY_AFTER, seconds(time));
    }
    if !problem.allowed.is_empty() {
        // The methods are plain words.
        if let Ok(allowed) = HeaderValue::from_str(&problem.allowed.join(", ")) {
            headers.insert(header::ALLOW, allowed);
        }
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"crewjob\""));
    }
    if matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT) {
        // What was not read of the body is not to be taken for the next request.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Says how many requests the caller has left.
pub fn with_rate(mut answer: Answer, limit: u32, taken: &Taken) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(HeaderName::from_static("x-ratelimit-limit"), limit.into());
    headers.insert(HeaderName::from_static("x-ratelimit-remaining"), taken.remaining.into());
    headers.insert(HeaderName::from_static("x-ratelimit-reset"), seconds(taken.reset));
    answer
}

/// Whole seconds, rounded up: a client that waits so long does not come too early.
fn seconds(time: std::time::Duration) -> HeaderValue {
    HeaderValue::from(time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::gateway::problem::Kind;

    #[test]
    fn a_problem_has_the_members_of_its_standard_and_says_when_to_come_again() {
        let limited =
            Problem::new(Kind::RateLimited, "slow down").again_after(Duration::from_millis(1200)).with("phase", "x");
        assert_eq!(
            members(&limited),
            json!({
                "type": "https://crewjob.dev/problems/rate-limited", "title": "Too many requests", "status": 429,
                "detail": "slow down", "phase": "x",
            })
        );
        let answer = problem(&limited);
        assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (429, &HeaderValue::from_static("2")));
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let flawed = members(&Problem::of_field("/priority", "it is no number"));
        assert_eq!(flawed["errors"], json!([{ "pointer": "/priority", "detail": "it is no number" }]));
    }

    #[test]
    fn a_refused_method_names_those_that_are_allowed_and_a_missing_token_how_to_send_one() {
        let refused = Problem { allowed: &["GET", "POST"], ..Problem::new(Kind::MethodNotAllowed, "") };
        assert_eq!(problem(&refused).headers()["allow"], "GET, POST");
        assert!(problem(&Problem::new(Kind::Unauthenticated, "")).headers().contains_key("www-authenticate"));
        assert_eq!(problem(&Problem::new(Kind::TooLarge, "")).headers()["connection"], "close");
    }
}
