//! Following objects so that one is read at a time, however many there are and however large they are.
//!
//! A list is answered as a whole: a hundred CrewJobs may have 150 MB. The API server can send the objects of a list one
//! by one instead, as the beginning of a watch (`WatchList`). Where it refuses that, small pages are listed.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use kube::runtime::utils;
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::runtime::backoff::{Backoff, Bounds};

/// Objects of one page, where the API server does not send them one by one. An object has up to 1.5 MB.
const PAGE: u32 = 10;

/// Longest pause of a watch after its first failure, and after any.
const PAUSE: Bounds = (Duration::from_millis(500), Duration::from_secs(8));

/// After so long without a failure the next pause is a short one.
const CALM: Duration = Duration::from_mins(1);

/// What is heard of the objects of a kind.
pub type Events<K> = Pin<Box<dyn Stream<Item = watcher::Result<Event<K>>> + Send>>;

/// Follows the objects of a kind, for ever and without a pause after a failure.
pub fn objects<K>(api: Api<K>, config: Config) -> Events<K>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let one_by_one: Events<K> = watch(api.clone(), config.clone().streaming_lists()).boxed();
    let paged = move || -> Events<K> { watch(api.clone(), config.clone().page_size(PAGE)).boxed() };
    stream::unfold((one_by_one, Some(paged)), async |(mut events, mut paged)| {
        loop {
            let event = events.next().await?;
            match (&event, paged.take()) {
                (Err(error), Some(paged)) if is_refused(error) => {
                    tracing::info!(%error, "the API server does not send lists one object at a time; listing small pages");
                    events = paged();
                }
                (_, kept) => return Some((event, (events, kept))),
            }
        }
    })
    .boxed()
}

/// Whether the API server does not know how to begin a watch with a list.
fn is_refused(error: &watcher::Error) -> bool {
    let watcher::Error::WatchStartFailed(kube::Error::Api(status)) = error else { return false };
    matches!(status.code, 400 | 422)
}

/// Pauses that double from failure to failure. A success resets nothing: kube says `Init` before each list.
pub struct Pause {
    backoff: Backoff,
    failed_at: Option<Instant>,
}

impl Default for Pause {
    fn default() -> Self {
        Self { backoff: Backoff::new(PAUSE), failed_at: None }
    }
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.failed_at.replace(now).is_some_and(|at| now > at + CALM) {
            self.backoff.reset();
        }
        Some(self.backoff.pause())
    }
}

impl utils::Backoff for Pause {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::client::Body;
    use kube::{Client, ResourceExt as _};
    use serde_json::json;

    use utils::Backoff as _;

    use super::*;

    /// What is followed on an API server that answers a watch that begins with a list in this way.
    async fn followed(one_by_one: (u16, String)) -> Vec<String> {
        let service = tower::service_fn(move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let (code, body) = if query.contains("sendInitialEvents=true") {
                one_by_one.clone()
            } else if query.contains("watch=true") {
                (200, String::new())
            } else {
                assert!(query.contains("limit=10"), "{query}");
                let item = json!({ "metadata": { "name": "paged", "resourceVersion": "7" } });
                let list = json!({ "kind": "ConfigMapList", "metadata": { "resourceVersion": "7" }, "items": [item] });
                (200, list.to_string())
            };
            async move { Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(body.into_bytes())).unwrap()) }
        });
        let api: Api<ConfigMap> = Api::all(Client::new(service, "default"));
        let mut names = Vec::new();
        let mut events = objects(api, Config::default());
        loop {
            match events.next().await.unwrap().unwrap() {
                Event::InitApply(object) => names.push(object.name_any()),
                Event::InitDone => return names,
                Event::Init | Event::Apply(_) | Event::Delete(_) => {}
            }
        }
    }

    #[tokio::test]
    async fn objects_come_one_by_one_where_the_api_server_can_send_them_so() {
        let object = json!({ "metadata": { "name": "streamed", "resourceVersion": "7" } });
        let end = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": { "resourceVersion": "7", "annotations": { "k8s.io/initial-events-end": "true" } },
        });
        let event = |kind: &str, object: &serde_json::Value| json!({ "type": kind, "object": object }).to_string();
        let stream = format!("{}\n{}\n", event("ADDED", &object), event("BOOKMARK", &end));
        assert_eq!(followed((200, stream)).await, ["streamed"]);
    }

    #[tokio::test]
    async fn where_it_cannot_small_pages_are_listed() {
        let refusal = json!({
            "kind": "Status", "status": "Failure", "code": 422, "reason": "Invalid",
            "message": "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        });
        assert_eq!(followed((422, refusal.to_string())).await, ["paged"]);
    }

    #[test]
    fn a_watch_that_fails_again_and_again_pauses_longer_although_kube_says_init_in_between() {
        let mut pause = Pause::default();
        let mut last = Duration::ZERO;
        for _ in 0..10 {
            last = pause.next().unwrap();
            pause.reset();
        }
        assert!(last >= PAUSE.1 / 2 && last <= PAUSE.1, "{last:?}");
    }
}
