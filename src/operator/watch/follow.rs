//! Following objects so that one is read at a time, however many there are and however large they are.
//!
//! A list is answered as a whole: a hundred CrewJobs may have 150 MB. The API server can send the objects of a list one
//! by one instead, as the beginning of a watch (`WatchList`). Where it refuses that, small pages are listed.

use std::pin::Pin;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use kube::api::WatchParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils;
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::operator::state::watches::{Scope, Watches, key};
use crate::runtime::backoff::{Backoff, Bounds};

/// Objects of one page, where the API server does not send them one by one. An object has up to 1.5 MB.
const PAGE: u32 = 10;

/// Longest pause of a watch after its first failure, and after any.
const PAUSE: Bounds = (Duration::from_millis(500), Duration::from_secs(8));

/// After so long without a failure the next pause is a short one.
const CALM: Duration = Duration::from_mins(1);

type Events<K> = Pin<Box<dyn Stream<Item = watcher::Result<Event<K>>> + Send>>;

/// What is kept of the objects of a kind.
pub trait Index<K> {
    /// What is kept of a list until it is complete.
    type List: Default;

    /// An object of a list that is not complete yet. Those that are missing from it are not known before its end.
    fn list(&mut self, object: K, list: &mut Self::List);

    /// The list is complete: what is not in it is gone.
    fn reset(&mut self, list: Self::List);

    /// An object was created or changed.
    fn apply(&mut self, object: K);

    /// An object was deleted, or does not match the selector any more. This is its last state.
    fn delete(&mut self, object: K);

    /// The watch failed, and is tried again.
    fn failed(&mut self, error: &watcher::Error);
}

/// Keeps an index in step with the objects, for ever.
pub async fn follow_into<K>(mut events: BoxStream<'static, watcher::Result<Event<K>>>, index: &mut impl Index<K>) {
    let mut list = None;
    while let Some(event) = events.next().await {
        match event {
            // This says only that a list was asked for: nothing is forgotten before it has come.
            Ok(Event::Init) => list = None,
            Ok(Event::InitApply(object)) => index.list(object, list.get_or_insert_default()),
            Ok(Event::InitDone) => index.reset(list.take().unwrap_or_default()),
            Ok(Event::Apply(object)) => index.apply(object),
            Ok(Event::Delete(object)) => index.delete(object),
            Err(error) => index.failed(&error),
        }
    }
}

/// Follows `what` for ever. Of failures that repeat only the first is passed on, and then one a minute.
pub fn follow<K>(
    watches: &Watches,
    what: &str,
    scope: Scope,
    api: Api<K>,
    config: watcher::Config,
) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let params = WatchParams { field_selector: config.field_selector.clone(), ..WatchParams::default() };
    let request = kube::core::Request::new(api.resource_url()).watch(&params, "0");
    let key = request.map_or_else(|_| api.resource_url().to_owned(), |request| key(request.uri()));
    let mut registered = watches.register(what, scope, key);
    let events = objects(api, config).backoff(Pause::default());
    events.filter_map(move |event| std::future::ready(registered.note(event))).boxed()
}

/// Follows the objects of a kind, for ever and without a pause after a failure.
fn objects<K>(api: Api<K>, config: Config) -> Events<K>
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
struct Pause {
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
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use kube::client::Body;
    use kube::{Client, ResourceExt};
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

    /// The names that are known, and the changes to them.
    #[derive(Default)]
    struct Names(BTreeSet<String>, Vec<String>);

    impl Names {
        fn note(&mut self, what: &str) {
            self.1.push(format!("{what}: {}", self.0.iter().map(String::as_str).collect::<Vec<_>>().join(" ")));
        }
    }

    impl Index<ConfigMap> for Names {
        type List = BTreeSet<String>;

        fn list(&mut self, object: ConfigMap, list: &mut BTreeSet<String>) {
            list.insert(object.name_any());
            self.note("list");
        }

        fn reset(&mut self, list: BTreeSet<String>) {
            self.0 = list;
            self.note("reset");
        }

        fn apply(&mut self, object: ConfigMap) {
            self.0.insert(object.name_any());
            self.note("apply");
        }

        fn delete(&mut self, object: ConfigMap) {
            self.0.remove(&object.name_any());
            self.note("delete");
        }

        fn failed(&mut self, _: &watcher::Error) {
            self.note("failed");
        }
    }

    #[tokio::test]
    async fn objects_stay_known_while_they_are_listed_again_until_a_list_without_them_is_complete() {
        let named = |name: &str| {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            ConfigMap { metadata, ..ConfigMap::default() }
        };
        let events = vec![
            Ok(Event::Init),
            Ok(Event::InitApply(named("a"))),
            Ok(Event::InitApply(named("b"))),
            Ok(Event::InitDone),
            Ok(Event::Apply(named("c"))),
            Ok(Event::Delete(named("a"))),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(named("d"))),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(named("b"))),
            Ok(Event::InitDone),
            Ok(Event::Init),
            Ok(Event::InitDone),
        ];
        let mut known = Names::default();
        follow_into(stream::iter(events).boxed(), &mut known).await;
        let expected = [
            "list: ",
            "list: ",
            "reset: a b",
            "apply: a b c",
            "delete: b c",
            "failed: b c",
            "list: b c",
            "failed: b c",
            "list: b c",
            "reset: b",
            "reset: ",
        ];
        assert_eq!(known.1, expected);
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
