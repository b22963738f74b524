//! The workers that a pool has heard of, by the names that they call themselves. A name is a claim: whether it leads to a
//! Pod is for [`Pods`](crate::core::index::pods::Pods) to say.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::setup::Setup;
use crate::core::setup::{Finding, NodeSettings};
use crate::core::status::host_of;

/// The most that are remembered: a pool has at most as many replicas.
const MOST: usize = 10_000;
/// The longest name that is remembered, in bytes.
const LONGEST_NAME: usize = 512;
/// How soon a worker is asked again that did not answer, and how often: one that starts is not bound to the control channel
/// yet, and one that runs tasks in its main loop hears nothing meanwhile.
const AGAIN: Duration = Duration::from_secs(10);
const TRIES: u32 = 4;
/// A worker that was silent for so long is forgotten where room is needed.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);

/// The workers that a pool has heard of.
#[derive(Default)]
pub struct Nodes(Mutex<Known>);

#[derive(Default)]
struct Known {
    nodes: HashMap<Arc<str>, Node>,
    setup: Setup,
}

struct Node {
    first_heard_at: Instant,
    heard_at: Instant,
    /// Whether its name has led to a Pod of the pool: then Kubernetes tells when it ends.
    was_pod: bool,
    /// Whether it was silent when all were called.
    is_silent: bool,
    /// Whether it has said that it takes no more messages.
    has_left: bool,
    asked_at: Option<Instant>,
    /// How often it was asked since it last answered or started.
    unanswered: u32,
    settings: Option<NodeSettings>,
}

impl Node {
    /// When it is to be asked again because it has not answered.
    fn ask_again_at(&self) -> Option<Instant> {
        let is_waited_for = !self.has_left && (1..TRIES).contains(&self.unanswered);
        self.asked_at.filter(|_| is_waited_for).map(|at| at + AGAIN)
    }
}

impl Nodes {
    /// A worker has said that it is there. `is_pod` is whether its name leads to a Pod of the pool now. Whether it was never
    /// asked for its settings.
    pub fn heard(&self, node: &Arc<str>, is_pod: bool, now: Instant) -> bool {
        self.0.lock().note(node, now).is_some_and(|known| {
            known.was_pod |= is_pod;
            known.asked_at.is_none()
        })
    }

    /// A worker has started, perhaps with other settings than before.
    pub fn started(&self, node: &Arc<str>, is_pod: bool, now: Instant) {
        if let Some(known) = self.0.lock().note(node, now) {
            known.was_pod |= is_pod;
            (known.asked_at, known.unanswered) = (None, 0);
        }
    }

    /// A worker has said that it takes no more messages, although it may still run some.
    pub fn left(&self, node: &str) {
        if let Some(known) = self.0.lock().nodes.get_mut(node) {
            known.has_left = true;
        }
    }

    /// All workers were called and these have answered. Of the others the Pods that are gone are forgotten, and the settings
    /// of those that are no Pods. None is when none has answered, because then it is not the workers that are gone.
    pub fn answered_call(&self, present: &[Arc<str>], is_pod: impl Fn(&Arc<str>) -> bool, now: Instant) {
        if present.is_empty() {
            return;
        }
        let mut known = self.0.lock();
        for node in present {
            known.note(node, now);
        }
        let present: HashSet<&Arc<str>> = present.iter().collect();
        known.nodes.retain(|name, node| {
            let is_pod = is_pod(name);
            node.was_pod |= is_pod;
            if present.contains(name) {
                return true;
            }
            node.is_silent = true;
            if !is_pod {
                node.settings = None;
            }
            is_pod || !node.was_pod
        });
    }

    /// Takes over those of the same pool before its spec changed that were never seen as a Pod.
    pub fn remember_elsewhere(&self, former: &Self) {
        let (former, mut known) = (former.0.lock(), self.0.lock());
        for (name, node) in former.nodes.iter().filter(|(_, node)| !node.was_pod) {
            if let Some(new) = known.note(name, node.heard_at) {
                (new.first_heard_at, new.is_silent) = (node.first_heard_at, node.is_silent);
            }
        }
    }

    /// The workers that were never seen as a Pod, and were heard of within that time: whether they still are there is not
    /// known to Kubernetes.
    pub fn elsewhere(&self, within: Duration, now: Instant) -> Vec<Arc<str>> {
        let known = self.0.lock();
        let is_elsewhere = |node: &Node| !node.was_pod && node.heard_at + within >= now;
        known.nodes.iter().filter(|(_, node)| is_elsewhere(node)).map(|(name, _)| name.clone()).collect()
    }

    /// When a worker is to be asked again that has not answered.
    pub fn ask_again_at(&self) -> Option<Instant> {
        self.0.lock().nodes.values().filter_map(Node::ask_again_at).min()
    }

    /// The workers to ask for their settings now: first those that were never asked, then those that have not answered, and
    /// in turn the others when `again`.
    pub fn to_ask(&self, most: usize, again: bool, now: Instant) -> Vec<Arc<str>> {
        let mut known = self.0.lock();
        let mut wanted: Vec<(Option<Instant>, Arc<str>)> = known
            .nodes
            .iter()
            .filter(|(_, node)| again || node.asked_at.is_none() || node.ask_again_at().is_some_and(|at| at <= now))
            .map(|(name, node)| (node.asked_at, name.clone()))
            .collect();
        wanted.sort_unstable();
        wanted.truncate(most);
        for (_, name) in &wanted {
            if let Some(node) = known.nodes.get_mut(name) {
                node.asked_at = Some(now);
                node.unanswered += 1;
            }
        }
        wanted.into_iter().map(|(_, name)| name).collect()
    }

    /// They have told their settings. `judge` says what all come to that are known and still take messages; where it cannot
    /// say, what was known before stays. Whether that is news.
    pub fn told(
        &self,
        answers: Vec<NodeSettings>,
        judge: impl Fn(&[&NodeSettings]) -> Option<Finding>,
        now: Instant,
    ) -> bool {
        let mut known = self.0.lock();
        for settings in answers {
            if let Some(node) = known.note(&settings.name.clone(), now) {
                node.settings = Some(settings);
                node.unanswered = 0;
            }
        }
        let staying = known.nodes.values().filter(|node| !node.has_left);
        let mut all: Vec<&NodeSettings> = staying.filter_map(|node| node.settings.as_ref()).collect();
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        match judge(&all) {
            Some(finding) => known.set(Setup::Known(finding)),
            None => false,
        }
    }

    /// Workers are there, and none answers any more: what they told is not taken for true for ever. Whether that is news.
    pub fn are_silent(&self) -> bool {
        self.0.lock().set(Setup::Silent)
    }

    /// What their settings come to.
    pub fn setup(&self) -> Setup {
        self.0.lock().setup.clone()
    }

    /// The names of the workers on this host, as far as they are known.
    pub fn on_host(&self, host: &str) -> Vec<Arc<str>> {
        self.0.lock().nodes.keys().filter(|name| host_of(name) == host).cloned().collect()
    }

    /// Whether the worker of this name runs one task at a time, by its own words; where it has said nothing, by those of
    /// the others, and where none has, as `declared`.
    pub fn runs_one_at_a_time(&self, node: &str, declared: bool) -> bool {
        let known = self.0.lock();
        let is_one = |settings: &NodeSettings| settings.concurrency.is_some_and(|concurrency| concurrency <= 1);
        match known.nodes.get(node).and_then(|node| node.settings.as_ref()).filter(|it| it.concurrency.is_some()) {
            Some(settings) => is_one(settings),
            None => declared && known.nodes.values().filter_map(|node| node.settings.as_ref()).all(is_one),
        }
    }

    /// The names of those that are there, and since when each is known.
    pub fn names(&self) -> Vec<(Arc<str>, Instant)> {
        let known = self.0.lock();
        let there = known.nodes.iter().filter(|(_, node)| node.was_pod || !node.is_silent);
        there.map(|(name, node)| (name.clone(), node.first_heard_at)).collect()
    }
}

impl Known {
    fn set(&mut self, setup: Setup) -> bool {
        let is_news = self.setup != setup;
        self.setup = setup;
        is_news
    }

    fn note(&mut self, name: &Arc<str>, now: Instant) -> Option<&mut Node> {
        if !self.nodes.contains_key(name) {
            if self.nodes.len() >= MOST {
                self.nodes.retain(|_, node| node.heard_at + FORGOTTEN_AFTER >= now);
            }
            if self.nodes.len() >= MOST || name.len() > LONGEST_NAME {
                return None;
            }
        }
        let new = Node {
            first_heard_at: now,
            heard_at: now,
            was_pod: false,
            is_silent: false,
            has_left: false,
            asked_at: None,
            unanswered: 0,
            settings: None,
        };
        let node = self.nodes.entry(name.clone()).or_insert(new);
        node.heard_at = now;
        (node.is_silent, node.has_left) = (false, false);
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn settings(name: &str, concurrency: i64) -> NodeSettings {
        NodeSettings { name: name.into(), concurrency: Some(concurrency), ..NodeSettings::default() }
    }

    fn fine(all: &[&NodeSettings]) -> Option<Finding> {
        (!all.is_empty()).then(|| Finding { worst: None, message: all.len().to_string(), futile: None })
    }

    #[test]
    fn of_many_workers_that_come_up_a_sample_is_asked_for_its_settings_and_each_one_once() {
        let (nodes, now) = (Nodes::default(), Instant::now());
        for n in 0..100 {
            nodes.started(&format!("crew@{n}").into(), true, now);
        }
        let first = nodes.to_ask(16, false, now);
        let second = nodes.to_ask(16, false, now);
        assert_eq!((first.len(), second.len()), (16, 16));
        assert!(first.iter().all(|name| !second.contains(name)));
        nodes.started(&first[0], true, now);
        let asked: Vec<_> = (0..6).flat_map(|_| nodes.to_ask(16, false, now)).collect();
        assert_eq!(asked.len(), 69, "those that were not asked, and the one that has started anew");
        assert_eq!(nodes.to_ask(16, true, now).len(), 16, "in turn");
    }

    #[test]
    fn a_worker_that_does_not_answer_is_asked_again_soon_and_not_for_ever() {
        let (nodes, mut now) = (Nodes::default(), Instant::now());
        assert!(nodes.heard(&"crew@slow".into(), true, now), "its start was not heard, and it was never asked");
        assert_eq!(nodes.to_ask(16, false, now), named(&["crew@slow"]));
        assert!(!nodes.heard(&"crew@slow".into(), true, now));
        let mut asked = 1;
        while let Some(at) = nodes.ask_again_at() {
            assert_eq!(at, now + AGAIN);
            assert!(nodes.to_ask(16, false, now).is_empty(), "not before");
            now = at;
            asked += nodes.to_ask(16, false, now).len();
        }
        assert_eq!(asked, 4);
        nodes.started(&"crew@slow".into(), true, now);
        assert_eq!(nodes.to_ask(16, false, now).len(), 1);
        nodes.told(vec![settings("crew@slow", 1)], fine, now);
        assert_eq!(nodes.ask_again_at(), None, "it has answered");
    }

    #[test]
    fn what_is_known_of_settings_stays_while_no_worker_answers() {
        let (nodes, now) = (Nodes::default(), Instant::now());
        assert!(!nodes.told(vec![], |_| None, now));
        assert_eq!(nodes.setup(), Setup::Unknown, "no worker has ever answered");
        assert!(nodes.told(vec![settings("crew@a", 1)], fine, now));
        nodes.answered_call(&[], |_| false, now);
        assert!(!nodes.told(vec![], fine, now));
        assert!(matches!(nodes.setup(), Setup::Known(_)));
    }

    #[test]
    fn a_pods_worker_that_is_gone_is_forgotten_when_others_answer_and_a_busy_pods_is_not() {
        let (nodes, now) = (Nodes::default(), Instant::now());
        nodes.heard(&"crew@gone".into(), true, now);
        nodes.told(vec![settings("crew@gone", 8), settings("crew@busy", 1)], fine, now);
        nodes.answered_call(&named(&["crew@new"]), |name| &**name == "crew@busy", now);
        let mut left: Vec<_> = nodes.names().into_iter().map(|(name, _)| name).collect();
        left.sort_unstable();
        assert_eq!(left, named(&["crew@busy", "crew@new"]));
    }

    #[test]
    fn a_worker_that_was_never_a_pod_is_remembered_while_it_may_be_busy_and_a_pods_worker_is_not() {
        let (nodes, now, hour) = (Nodes::default(), Instant::now(), Duration::from_hours(1));
        nodes.heard(&"crew@pod".into(), true, now);
        nodes.told(vec![settings("celery@vm", 8)], fine, now);
        nodes.answered_call(&named(&["crew@other-pod"]), |name| &**name != "celery@vm", now);
        assert_eq!(nodes.elsewhere(hour, now + hour), named(&["celery@vm"]), "it does not answer while it is busy");
        assert!(nodes.elsewhere(hour, now + hour + Duration::from_secs(1)).is_empty());
        nodes.told(vec![], fine, now);
        assert!(nodes.names().iter().all(|(name, _)| &**name != "celery@vm"), "nothing is said of it meanwhile");
        assert!(nodes.runs_one_at_a_time("crew@pod", true), "its settings do not count any more");
    }

    #[test]
    fn a_worker_that_was_never_a_pod_is_remembered_when_the_spec_of_its_pool_changes() {
        let (former, now, hour) = (Nodes::default(), Instant::now(), Duration::from_hours(1));
        former.heard(&"celery@vm".into(), false, now);
        former.heard(&"crew@pod".into(), true, now);
        let nodes = Nodes::default();
        nodes.remember_elsewhere(&former);
        assert_eq!(nodes.elsewhere(hour, now + hour), named(&["celery@vm"]));
        assert!(nodes.elsewhere(hour, now + hour + Duration::from_secs(1)).is_empty(), "it was not heard of since");
    }

    #[test]
    fn how_many_tasks_a_worker_runs_at_once_is_what_it_says_and_not_what_is_declared() {
        let (nodes, now) = (Nodes::default(), Instant::now());
        assert!(nodes.runs_one_at_a_time("crew@a", true), "none has said otherwise");
        nodes.told(vec![settings("crew@threads", 8), settings("crew@solo", 1)], fine, now);
        assert!(!nodes.runs_one_at_a_time("crew@threads", true));
        assert!(nodes.runs_one_at_a_time("crew@solo", false));
        assert!(!nodes.runs_one_at_a_time("crew@silent", true), "it is set up as the others, presumably");
    }

    #[test]
    fn a_worker_that_takes_no_more_messages_counts_no_more_until_it_is_heard_again() {
        let (nodes, now) = (Nodes::default(), Instant::now());
        nodes.told(vec![settings("crew@old", 8), settings("crew@new", 1)], fine, now);
        nodes.left("crew@old");
        assert!(nodes.told(vec![], |all| fine(all).filter(|_| all.len() == 1), now), "only the new one counts");
        assert!(!nodes.runs_one_at_a_time("crew@old", true), "what it said is known while its tasks run");
        nodes.heard(&"crew@old".into(), true, now);
        assert!(nodes.told(vec![], |all| fine(all).filter(|_| all.len() == 2), now));
        nodes.left("crew@old");
        nodes.left("crew@new");
        assert!(!nodes.told(vec![], fine, now), "none is left, and what was known stays");
    }

    #[test]
    fn names_from_redis_fill_no_memory() {
        let (nodes, now) = (Nodes::default(), Instant::now());
        nodes.heard(&"n".repeat(LONGEST_NAME + 1).into(), false, now);
        for n in 0..=MOST {
            nodes.heard(&n.to_string().into(), false, now);
        }
        assert_eq!(nodes.names().len(), MOST);
        nodes.heard(&"later".into(), false, now + FORGOTTEN_AFTER + Duration::from_secs(1));
        assert_eq!(nodes.names().len(), 1);
    }
}
