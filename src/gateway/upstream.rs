//! What the API server is asked, and what it says.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use serde_json::Value;

use super::caller::{Caller, Callers};
use crate::cluster::{Streamed, is_too_slow};
use crate::core::gateway::problem::{Flaw, Kind, Problem, pointer};
use crate::runtime::telemetry::chain;

/// Bytes of one answer that is read as a whole: an object, with the most that etcd keeps and its JSON around it.
const ANSWER: usize = 4 << 20;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("crewjob-gateway/", env!("CARGO_PKG_VERSION")));

/// The API server.
pub struct Upstream {
    client: Client,
    callers: Arc<Callers>,
}

/// Why a call has no answer that can be used.
#[derive(Debug)]
pub enum Failure {
    /// The API server refused it: its status, and what it says.
    Refused(u16, Value),
    /// It was not answered.
    Unanswered(Problem),
}

impl Upstream {
    /// By this client, which adds the rights of the gateway itself, if it has any; `callers` hears whose token is accepted.
    pub fn new(client: Client, callers: Arc<Callers>) -> Self {
        Self { client, callers }
    }

    /// Asks, with the rights of the caller.
    pub async fn send(&self, caller: &Caller, mut request: Request<Bytes>) -> Result<Response<Body>, Problem> {
        request.headers_mut().extend(caller.rights());
        let answered = self.client.send(request.map(kube::client::Body::from)).await;
        let answer = answered.map_err(|error| unanswered(&error))?;
        if knows_caller(answer.status()) {
            self.callers.accepted(caller);
        }
        Ok(answer.map(Body::new))
    }

    /// Asks, and reads the answer as JSON. `kind` is the type of the body.
    pub async fn json(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        kind: &'static str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let mut request = request(method, path, body).map_err(Failure::Unanswered)?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let answer = self.send(caller, request).await.map_err(Failure::Unanswered)?;
        let status = answer.status();
        let again = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let bytes = to_bytes(answer.into_body(), ANSWER).await.map_err(|error| Failure::Unanswered(broken(&error)))?;
        let said: Option<Value> = serde_json::from_slice(&bytes).ok();
        if status.is_success() {
            let detail = "its answer is no JSON";
            return said.ok_or_else(|| Failure::Unanswered(Problem::new(Kind::ApiServerFailed, detail)));
        }
        if status.as_u16() == 429 {
            let problem = Problem::new(Kind::ApiServerBusy, "it takes no further requests at present");
            return Err(Failure::Unanswered(problem.again_after(Duration::from_secs(again.unwrap_or(1)))));
        }
        Err(Failure::Refused(status.as_u16(), said.unwrap_or_default()))
    }

    /// A client with the rights of the caller, for what is asked in kube's own words.
    pub fn client(&self, caller: &Caller) -> Client {
        let (client, rights) = (self.client.clone(), caller.rights());
        let service = tower::service_fn(move |mut request: Request<kube::client::Body>| {
            let client = client.clone();
            request.headers_mut().extend(rights.clone());
            async move { client.send(request).await }
        });
        Client::new(service, "")
    }

    /// Begins a watch, of which each line is an event.
    pub async fn watch(&self, caller: &Caller, path: &str) -> Result<Response<Body>, Problem> {
        self.send(caller, request(Method::GET, path, Bytes::new())?).await
    }
}

/// A request in the gateway's own name.
fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Bytes>, Problem> {
    let request = Request::builder().method(method).uri(path).header(ACCEPT, JSON).header(USER_AGENT, AGENT).body(body);
    request.map_err(|_| Problem::new(Kind::BadPath, "it cannot be passed on"))
}

/// Whether the API server gives an answer of this status only to a caller whose token it has accepted.
fn knows_caller(status: StatusCode) -> bool {
    status.is_success() || matches!(status.as_u16(), 403 | 404 | 409 | 410 | 422)
}

/// Marks a request, of which the answer is passed on as it is read.
pub fn streamed(mut request: Request<Bytes>) -> Request<Bytes> {
    request.extensions_mut().insert(Streamed);
    request
}

impl Failure {
    /// What it is to a caller that has asked for a job, or for `what` else.
    pub fn problem(self, what: &str) -> Problem {
        let (status, said) = match self {
            Self::Unanswered(problem) => return problem,
            Self::Refused(status, said) => (status, said),
        };
        let message = said["message"].as_str().unwrap_or("the API server does not say why").to_owned();
        match status {
            401 => Problem::new(Kind::Unauthenticated, "the API server does not accept the token: it may have expired"),
            403 => Problem::new(Kind::Forbidden, message),
            404 => Problem::new(Kind::NoSuchJob, format!("there is no {what}, or not any more: {message}")),
            409 => Problem::new(Kind::Conflict, message),
            413 => Problem::new(Kind::TooLarge, message),
            400 | 422 => {
                let causes = said["details"]["causes"].as_array().cloned().unwrap_or_default();
                let text = |cause: &Value, name: &str| cause[name].as_str().unwrap_or_default().to_owned();
                let flaws = causes
                    .iter()
                    .map(|cause| Flaw { pointer: pointer(&text(cause, "field")), detail: text(cause, "message") });
                Problem { flaws: flaws.collect(), ..Problem::new(Kind::Invalid, message) }
            }
            500.. => Problem::new(Kind::ApiServerFailed, message).again_after(Duration::from_secs(1)),
            _ => Problem::new(Kind::ApiServerFailed, format!("it answered with status {status}: {message}")),
        }
    }
}

/// What is told of a call that was not answered. Its cause, which may name addresses of the cluster, is for the log.
fn unanswered(error: &kube::Error) -> Problem {
    let cause = chain(error);
    tracing::warn!(error = cause, "calling the API server failed; the caller is told to try again");
    let again = Duration::from_secs(1);
    if is_too_slow(error) {
        return Problem::new(Kind::ApiServerTooSlow, "whether the request was carried out is not known")
            .again_after(again);
    }
    Problem::new(Kind::ApiServerUnavailable, "the gateway is there, the API server of the cluster is not")
        .again_after(again)
}

fn broken(error: &axum::Error) -> Problem {
    let cause = chain(error);
    tracing::warn!(error = cause, "reading an answer of the API server failed; the caller is told to try again");
    Problem::new(Kind::ApiServerFailed, "its answer broke off, took too long or was too large")
        .again_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_api_server_refuses_is_said_with_the_fields_of_the_short_form() {
        let said = json!({
            "kind": "Status", "message": "CrewJob is invalid", "reason": "Invalid",
            "details": { "causes": [{ "field": "spec.priority", "message": "should be at most 10", "reason": "FieldValueInvalid" }] },
        });
        let problem = Failure::Refused(422, said).problem("job");
        assert_eq!((problem.kind, &*problem.detail), (Kind::Invalid, "CrewJob is invalid"));
        assert_eq!(problem.flaws, [Flaw { pointer: "/priority".into(), detail: "should be at most 10".into() }]);
    }

    #[test]
    fn every_refusal_has_a_kind_of_its_own() {
        for (status, kind) in [
            (401, Kind::Unauthenticated),
            (403, Kind::Forbidden),
            (404, Kind::NoSuchJob),
            (409, Kind::Conflict),
            (500, Kind::ApiServerFailed),
            (503, Kind::ApiServerFailed),
            (418, Kind::ApiServerFailed),
        ] {
            assert_eq!(Failure::Refused(status, Value::Null).problem("job").kind, kind, "{status}");
        }
    }
}
