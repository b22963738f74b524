//! Kubernetes' own paths: the request goes on, the answer comes back as it is.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use futures::StreamExt as _;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};

use super::answer::Answer;
use super::caller::Caller;
use super::context::Gateway;
use super::upstream::streamed;
use crate::core::gateway::headers::{is_answered, is_forwarded};
use crate::core::gateway::problem::{Kind, Problem};

/// Bytes of a query.
const LONGEST_QUERY: usize = 8192;

/// Passes a request on.
pub async fn pass(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    parts: &Parts,
    path: &str,
    body: Bytes,
) -> Result<Answer, Problem> {
    let query = parts.uri.query().unwrap_or_default();
    if query.len() > LONGEST_QUERY {
        return Err(Problem::new(Kind::BadPath, format!("its query is longer than {LONGEST_QUERY} bytes")));
    }
    if query.split('&').any(|part| part.split('=').next().is_some_and(|name| name.contains('%'))) {
        return Err(Problem::new(
            Kind::BadPath,
            "a name in its query is encoded, so that it could be read in two ways",
        ));
    }
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let mut request = Request::builder().method(parts.method.clone()).uri(target).body(body);
    if let Ok(request) = &mut request {
        copy(&parts.headers, request.headers_mut(), is_forwarded);
    }
    let request = request.map_err(|_| Problem::new(Kind::BadPath, "it cannot be passed on"))?;
    let seat = if parts.method == Method::GET && is_watch(query) { Some(gateway.seat(&caller.key)?) } else { None };
    let answer = gateway.upstream.send(caller, streamed(request)).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Problem::new(Kind::ApiServerFailed, "it wants to speak another protocol"));
    }
    let mut passed = Response::new(Body::empty());
    *passed.status_mut() = answer.status();
    copy(answer.headers(), passed.headers_mut(), is_answered);
    let headers = passed.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let body = answer.into_body();
    // The seat is given back with the body: at the end of the watch, or when the client is gone.
    *passed.body_mut() = match seat {
        None => body,
        Some(seat) => {
            let chunks = body.into_data_stream().take_until(gateway.stop.clone().cancelled_owned());
            Body::from_stream(chunks.inspect(move |_| {
                let _kept = &seat;
            }))
        }
    };
    Ok(passed)
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, is_wanted: fn(&str) -> bool) {
    for (name, value) in from.iter().filter(|(name, _)| is_wanted(name.as_str())) {
        to.append(name.clone(), value.clone());
    }
}

/// Whether the API server may take it for a watch, in any spelling that it takes for true.
fn is_watch(query: &str) -> bool {
    query.split('&').any(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        name == "watch" && !matches!(value, "0" | "false" | "False" | "f" | "F" | "FALSE")
    })
}
