//! Whether the watches work, and since when one does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::Uri;
use jiff::Timestamp;
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::Accepted;
use crate::runtime::admin::State;
use crate::runtime::clock;
use crate::runtime::telemetry::Repeated;

/// How many broken watches `/readyz` names.
const NAMED: usize = 10;

/// The watches there are, by resource and field selector. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Watches(Arc<Mutex<BTreeMap<String, Followed>>>);

#[derive(Debug)]
struct Followed {
    what: String,
    scope: Scope,
    state: Health,
}

/// What is affected when a watch is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All tenants: the operator is not ready.
    All,
    /// One namespace, or only jobs that are finished: that is shown.
    Part,
}

#[derive(Debug)]
enum Health {
    Listing,
    Works,
    Broken { since: Timestamp, why: String },
}

impl Watches {
    /// Begins to note how the watch with this [`key`] is.
    pub fn register(&self, what: &str, scope: Scope, key: String) -> Registered {
        let followed = Followed { what: what.to_owned(), scope, state: Health::Listing };
        self.0.lock().insert(key.clone(), followed);
        Registered { watches: self.clone(), key, failures: Repeated::default() }
    }

    /// Tells of the watches that a client's calls begin.
    pub fn on_accepted(&self) -> Accepted {
        let watches = self.clone();
        Arc::new(move |uri| watches.accepted(&key(uri)))
    }

    /// The API server has accepted a watch.
    pub fn accepted(&self, key: &str) {
        if let Some(followed) = self.0.lock().get_mut(key)
            && matches!(followed.state, Health::Broken { .. })
        {
            tracing::info!(watch = followed.what, "the watch works again");
            followed.state = Health::Works;
        }
    }

    fn works(&self, key: &str) {
        self.accepted(key);
        if let Some(followed) = self.0.lock().get_mut(key) {
            followed.state = Health::Works;
        }
    }

    fn broke(&self, key: &str, why: String) {
        if let Some(followed) = self.0.lock().get_mut(key) {
            let since = match &followed.state {
                Health::Broken { since, .. } => *since,
                Health::Listing | Health::Works => clock::now(),
            };
            followed.state = Health::Broken { since, why };
        }
    }

    /// What `/readyz` says of them.
    pub fn state(&self) -> State {
        let watches = self.0.lock();
        let broken: Vec<String> = watches.values().filter_map(Followed::trouble).take(NAMED).collect();
        let concerns_all = |it: &&Followed| it.scope == Scope::All && !matches!(it.state, Health::Works);
        let text = if broken.is_empty() { format!("{} work", watches.len()) } else { broken.join("; ") };
        if watches.values().any(|it| concerns_all(&it)) {
            State::Missing(text)
        } else if broken.is_empty() {
            State::Ready(text)
        } else {
            State::Degraded(text)
        }
    }
}

impl Followed {
    fn trouble(&self) -> Option<String> {
        match &self.state {
            Health::Works => None,
            Health::Listing => Some(format!("{} are being listed", self.what)),
            Health::Broken { since, why } => Some(format!("{} since {since:.0}: {why}", self.what)),
        }
    }
}

/// What tells a watch from the others: the path of its resource, and the field selector as it is sent.
pub fn key(of: &Uri) -> String {
    let mut query = of.query().unwrap_or_default().split('&');
    let selector = query.find_map(|part| part.strip_prefix("fieldSelector="));
    format!("{}?{}", of.path(), selector.unwrap_or_default())
}

/// A watch that is being followed; forgotten with it.
pub struct Registered {
    watches: Watches,
    key: String,
    failures: Repeated,
}

impl Registered {
    /// Notes an event. Of failures that repeat only the first is passed on, and then one a minute.
    pub fn note<K>(&mut self, event: watcher::Result<Event<K>>) -> Option<watcher::Result<Event<K>>> {
        match &event {
            // kube says this before it asks.
            Ok(Event::Init) => {}
            Ok(Event::InitApply(_) | Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                self.watches.works(&self.key);
            }
            Err(error) => {
                self.watches.broke(&self.key, error.to_string());
                if !self.failures.is_to_be_said(Instant::now()) {
                    return None;
                }
            }
        }
        Some(event)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.watches.0.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn followed(watches: &Watches, path: &str, scope: Scope) -> Registered {
        watches.0.lock().insert(path.into(), Followed { what: path.into(), scope, state: Health::Listing });
        Registered { watches: watches.clone(), key: path.into(), failures: Repeated::default() }
    }

    fn failure() -> watcher::Result<Event<Pod>> {
        Err(watcher::Error::NoResourceVersion)
    }

    #[test]
    fn readiness_names_the_watch_that_is_broken_and_since_when_until_it_is_accepted_again() {
        let watches = Watches::default();
        let mut jobs = followed(&watches, "/jobs", Scope::All);
        assert_eq!(watches.state(), State::Missing("/jobs are being listed".into()));
        jobs.note::<Pod>(Ok(Event::InitDone));
        assert_eq!(watches.state(), State::Ready("1 work".into()));
        assert!(jobs.note(failure()).is_some());
        let State::Missing(first) = watches.state() else { panic!("{:?}", watches.state()) };
        assert!(first.starts_with("/jobs since 2") && first.ends_with(&failure().unwrap_err().to_string()), "{first}");
        jobs.note::<Pod>(Ok(Event::Init));
        assert_eq!(watches.state(), State::Missing(first), "a list that has only been asked for is no success");
        watches.accepted("/jobs");
        assert_eq!(watches.state(), State::Ready("1 work".into()));
        drop(jobs);
        assert_eq!(watches.state(), State::Ready("0 work".into()));
    }

    #[test]
    fn a_broken_watch_of_one_namespace_is_shown_and_does_not_make_the_operator_unready() {
        let watches = Watches::default();
        let mut pods = followed(&watches, "/pods", Scope::Part);
        pods.note(failure());
        assert!(matches!(watches.state(), State::Degraded(text) if text.starts_with("/pods since")));
    }

    #[test]
    fn watches_on_one_resource_are_told_from_each_other_by_their_selectors() {
        let key_of = |uri: &str| key(&uri.parse().unwrap());
        let all = key_of("/apis/crewjob.dev/v1alpha1/crewjobs?watch=true&resourceVersion=7");
        let some = key_of("/apis/crewjob.dev/v1alpha1/crewjobs?watch=true&fieldSelector=a%3D1&resourceVersion=7");
        assert_ne!(all, some);
        assert_eq!(
            some,
            key_of("/apis/crewjob.dev/v1alpha1/crewjobs?fieldSelector=a%3D1&watch=true&allowWatchBookmarks=true")
        );
    }

    #[test]
    fn a_watch_that_fails_again_and_again_is_logged_once_a_minute() {
        let watches = Watches::default();
        let mut pods = followed(&watches, "/pods", Scope::Part);
        let said = (0..100).filter(|_| pods.note(failure()).is_some()).count();
        assert_eq!(said, 1);
    }
}
