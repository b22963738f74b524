//! `POST /api/submit`

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::answer::{self, Answer};
use super::caller::Caller;
use super::context::Gateway;
use super::form::Form;
use super::upstream::Failure;
use super::view::{Job, id, text};
use crate::core::gateway::key::{self, Again};
use crate::core::gateway::problem::{Kind, Problem};
use crate::core::gateway::route::{GROUP, VERSION};

/// The header with the key of a request that may be sent again.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The annotation of a job with the user that a trusted proxy has named.
const SUBMITTED_BY: &str = "crewjob.dev/submitted-by";
/// In which name fields are owned; unknown fields are refused.
const AS: &str = "fieldManager=crewjob-gateway&fieldValidation=Strict";

/// Makes a job, or finds the one that the same request has made before.
pub async fn submit(gateway: &Gateway, caller: &Caller, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Problem> {
    let mut form = gateway.fields.read(body, &gateway.home)?;
    if let Some(user) = &caller.user {
        form.annotate(SUBMITTED_BY, user);
    }
    let job = match key(headers)? {
        Some(key) => under_key(gateway, caller, &mut form, key).await?,
        None => create(gateway, caller, &form).await.map_err(refused)?,
    };
    let job = Job::of(&job, &gateway.prefix);
    let mut answer = answer::json(StatusCode::ACCEPTED, &job);
    if let Ok(location) = HeaderValue::from_str(&job.links.status) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    Ok(answer)
}

/// The key of a request, which is as a whole what the header says, quotes included.
fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut keys = headers.get_all(KEY).iter();
    let Some(first) = keys.next() else { return Ok(None) };
    let usable = first.to_str().ok().filter(|key| key::is_usable(key) && keys.next().is_none());
    let detail = || format!("send one key of 1 to {} visible ASCII characters", key::LONGEST);
    usable.map(Some).ok_or_else(|| Problem::new(Kind::InvalidKey, detail()))
}

/// The name of the job follows from the key, so that the API server lets one of all requests with it make a job, however many
/// gateways there are. The others find it, and what it was made by.
async fn under_key(gateway: &Gateway, caller: &Caller, form: &mut Form, key: &str) -> Result<Value, Problem> {
    let identity = key::identity(&form.namespace, caller.scope(), key);
    let name = key::name(&Sha256::digest(identity).into());
    let digest = key::hexadecimal(&Sha256::digest(&form.canonical));
    form.rename(&name)?;
    form.annotate(key::REQUEST, &digest);
    // A job may be deleted between the two calls; then there is room for a new one.
    for _ in 0..3 {
        match create(gateway, caller, form).await {
            Err(Failure::Refused(409, said)) if said["reason"] == "AlreadyExists" => {}
            created => return created.map_err(refused),
        }
        let path = format!("{}/{name}", collection(&form.namespace));
        let found = gateway.upstream.json(caller, Method::GET, &path, "application/json", None).await;
        let job = match found {
            Err(Failure::Refused(404, _)) => continue,
            found => found.map_err(|failure| failure.problem("job"))?,
        };
        let noted = job.pointer("/metadata/annotations").and_then(|it| it.get(key::REQUEST)?.as_str());
        return match key::again(&digest, noted) {
            Again::Same => Ok(job),
            Again::Other => {
                let detail = "a request with this key and another body has made a job; use a new key for each request";
                let problem = Problem::new(Kind::KeyReused, detail);
                Err(problem
                    .with("id", id(&job).to_string())
                    .with("createdAt", text(&job, "/metadata/creationTimestamp")))
            }
        };
    }
    Err(Problem::new(Kind::Conflict, "the job of this key is made and deleted again and again"))
}

async fn create(gateway: &Gateway, caller: &Caller, form: &Form) -> Result<Value, Failure> {
    let path = format!("{}?{AS}", collection(&form.namespace));
    gateway.upstream.json(caller, Method::POST, &path, "application/json", Some(&form.object)).await
}

/// Why no job was made: where there is nothing to make it in, it is the namespace.
fn refused(failure: Failure) -> Problem {
    match failure {
        Failure::Refused(404, ref said) => Problem::of_field("/namespace", text(said, "/message")),
        Failure::Refused(..) | Failure::Unanswered(_) => failure.problem("job"),
    }
}

/// The path of a namespace's jobs.
fn collection(namespace: &str) -> String {
    format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/crewjobs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_usable_key_is_taken_as_it_is_and_several_or_none_that_can_be_used_are_refused() {
        let read = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(KEY, HeaderValue::from_bytes(value).unwrap());
            }
            key(&headers).map(|key| key.map(ToOwned::to_owned)).map_err(|problem| problem.kind)
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[b"\"a-b\""]), Ok(Some("\"a-b\"".to_owned())));
        for values in [&[&b""[..]][..], &[b"a", b"b"], &[b"\xc3\xa9"], &[&[b'k'; 256]]] {
            assert_eq!(read(values), Err(Kind::InvalidKey));
        }
    }
}
