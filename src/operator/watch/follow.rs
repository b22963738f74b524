//! Following objects, and keeping an index in step with them.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use kube::Api;
use kube::api::WatchParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;

use crate::cluster::objects::{Pause, objects};
use crate::operator::state::watches::{Scope, Watches, key};

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use kube::ResourceExt as _;

    use super::*;

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
}
