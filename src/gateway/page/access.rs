//! What the caller may do, as the API server says it, remembered for a few seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::super::caller::Caller;
use super::super::upstream::Upstream;
use crate::core::gateway::problem::{Kind, Problem};
use crate::core::listing::Scope;

/// How long an answer is believed.
const BELIEVED: Duration = Duration::from_secs(10);
/// Answers that are remembered twice as long as it takes to get so many others.
const REMEMBERED: usize = 4096;
/// Questions that are asked at once, for one request.
const AT_ONCE: usize = 16;
/// Namespaces that are asked about for a caller that may not list all.
const NAMESPACES: usize = 256;

/// A verb and a resource of the API server.
pub type Right = (&'static str, &'static str, &'static str);

/// Listing jobs.
pub const LIST: Right = ("list", "crewjobs", "");

/// Whether the caller may, and if not, why.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// It may.
    pub is_allowed: bool,
    /// Why not, in a sentence.
    pub reason: Arc<str>,
}

type Key = [u8; 32];

/// Asks and remembers.
#[derive(Default)]
pub struct Access {
    lately: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    new: HashMap<Key, (Instant, Verdict)>,
    old: HashMap<Key, (Instant, Verdict)>,
}

impl Remembered {
    fn get(&self, key: &Key, now: Instant) -> Option<Verdict> {
        let found = self.new.get(key).or_else(|| self.old.get(key))?;
        (now < found.0 + BELIEVED).then(|| found.1.clone())
    }

    fn note(&mut self, key: Key, verdict: Verdict, now: Instant) {
        if self.new.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(key, (now, verdict));
    }
}

impl Access {
    /// Whether the caller may do that in a namespace; `None` is all of them.
    pub async fn may(
        &self,
        upstream: &Upstream,
        caller: &Caller,
        right: Right,
        namespace: Option<&str>,
    ) -> Result<Verdict, Problem> {
        let key = key(caller, right, namespace);
        if let Some(verdict) = self.lately.lock().get(&key, Instant::now()) {
            return Ok(verdict);
        }
        let (verb, resource, subresource) = right;
        let group = if matches!(resource, "pods") { "" } else { "crewjob.dev" };
        let attributes = json!({
            "namespace": namespace.unwrap_or_default(), "verb": verb, "group": group, "resource": resource,
            "subresource": subresource,
        });
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = upstream.json(caller, Method::POST, path, "application/json", Some(&review)).await;
        let answer = answer.map_err(|failure| failure.problem("review of rights"))?;
        let is_allowed = answer["status"]["allowed"].as_bool().unwrap_or(false);
        let what = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
        let place = namespace.map_or_else(|| "in all namespaces".to_owned(), |it| format!("in the namespace {it}"));
        let reason = if is_allowed { String::new() } else { format!("You may not {verb} {what} {place}.") };
        let verdict = Verdict { is_allowed, reason: reason.into() };
        self.lately.lock().note(key, verdict.clone(), Instant::now());
        Ok(verdict)
    }

    /// In which of these namespaces the caller may list jobs. A caller that may do so in none of those that it asked for is
    /// refused. `asked` are namespaces that it has named; without one those are meant that have jobs.
    pub async fn scope(
        &self,
        upstream: &Upstream,
        caller: &Caller,
        asked: &[String],
        known: Vec<Arc<str>>,
    ) -> Result<Scope, Problem> {
        if self.may(upstream, caller, LIST, None).await?.is_allowed {
            return Ok(Scope::All);
        }
        // Whether a namespace that was asked for has jobs is not for a caller that may not list them.
        let meant: Vec<Arc<str>> =
            if asked.is_empty() { known } else { asked.iter().map(|it| it.as_str().into()).collect() };
        let asking = meant.into_iter().take(NAMESPACES).map(|namespace| async move {
            let verdict = self.may(upstream, caller, LIST, Some(&namespace)).await?;
            Ok::<_, Problem>((namespace, verdict))
        });
        let asking: Vec<_> = asking.collect();
        let verdicts: Vec<(Arc<str>, Verdict)> = stream::iter(asking).buffer_unordered(AT_ONCE).try_collect().await?;
        if !asked.is_empty()
            && let Some((_, refused)) = verdicts.iter().find(|(_, verdict)| !verdict.is_allowed)
        {
            return Err(Problem::new(Kind::Forbidden, &*refused.reason));
        }
        let allowed = verdicts.into_iter().filter(|(_, verdict)| verdict.is_allowed);
        Ok(Scope::Only(allowed.map(|(namespace, _)| namespace).collect()))
    }
}

/// What the page can do with a right, and which right that is.
const USES: [(&str, Right); 4] = [
    ("change", ("patch", "crewjobs", "")),
    ("create", ("create", "crewjobs", "")),
    ("schedule", ("patch", "crewschedules", "")),
    ("log", ("get", "pods", "log")),
];

/// What the caller may do in a namespace, as the page reads it.
pub async fn rights(access: &Access, upstream: &Upstream, caller: &Caller, namespace: &str) -> Result<Value, Problem> {
    let asking = USES.map(|(word, right)| async move {
        let verdict = access.may(upstream, caller, right, Some(namespace)).await?;
        Ok::<_, Problem>((word.to_owned(), json!({ "allowed": verdict.is_allowed, "reason": &*verdict.reason })))
    });
    let rights: Vec<(String, Value)> = stream::iter(asking).buffered(AT_ONCE).try_collect().await?;
    let rights: serde_json::Map<String, Value> = rights.into_iter().collect();
    Ok(json!({ "namespace": namespace, "rights": rights }))
}

/// A digest of caller and question: no token is kept.
fn key(caller: &Caller, (verb, resource, subresource): Right, namespace: Option<&str>) -> Key {
    let rights = caller.rights();
    let rights = rights.iter().flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]);
    let place = namespace.map_or([&b"all"[..], b""], |namespace| [b"one", namespace.as_bytes()]);
    let mut hash = Sha256::new();
    for text in rights.chain(place).chain([verb, resource, subresource].map(str::as_bytes)) {
        hash.update(text.len().to_be_bytes());
        hash.update(text);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_are_believed_for_ten_seconds_and_remembered_in_bounded_memory() {
        let mut remembered = Remembered::default();
        let now = Instant::now();
        let verdict = Verdict { is_allowed: true, reason: "".into() };
        let key = |number: usize| Key::from(Sha256::digest(number.to_string()));
        remembered.note(key(0), verdict.clone(), now);
        assert!(remembered.get(&key(0), now + Duration::from_secs(9)).is_some());
        assert!(remembered.get(&key(0), now + Duration::from_secs(10)).is_none());
        (1..5 * REMEMBERED).for_each(|number| remembered.note(key(number), verdict.clone(), now));
        assert!(remembered.new.len() <= REMEMBERED && remembered.old.len() <= REMEMBERED);
    }
}
