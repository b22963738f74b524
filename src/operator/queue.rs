//! The work queue: every key once, never two workers on one key, and timers.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::lease::age;
use crate::runtime::clock;

/// Keys that want to be looked at.
#[derive(Debug)]
pub struct WorkQueue<K> {
    inner: Mutex<Inner<K>>,
    ready: Notify,
    timer: Notify,
}

#[derive(Debug)]
struct Inner<K> {
    /// In order of arrival; each key is in `waiting` exactly once while it is here.
    ready: VecDeque<K>,
    waiting: HashSet<K>,
    /// With a worker; the flag says whether it must be looked at again afterwards.
    busy: HashMap<K, bool>,
    timers: BTreeSet<(Timestamp, K)>,
    timer_of: HashMap<K, Timestamp>,
}

impl<K: Clone + Eq + Hash + Ord> WorkQueue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        let inner = Inner {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            busy: HashMap::new(),
            timers: BTreeSet::new(),
            timer_of: HashMap::new(),
        };
        Self { inner: Mutex::new(inner), ready: Notify::new(), timer: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at `key` as soon as a worker is free.
    pub fn now(&self, key: K) {
        if self.lock().push(key) {
            self.ready.notify_one();
        }
    }

    /// Looks at `key` at this time, or sooner if something else asks for it.
    pub fn at(&self, key: K, at: Timestamp) {
        let mut inner = self.lock();
        match inner.timer_of.get(&key).copied() {
            Some(set) if set <= at => return,
            Some(set) => {
                inner.timers.remove(&(set, key.clone()));
            }
            None => {}
        }
        inner.timer_of.insert(key.clone(), at);
        inner.timers.insert((at, key));
        drop(inner);
        self.timer.notify_one();
    }

    /// Drops the timer of a key that is gone.
    pub fn forget(&self, key: &K) {
        let mut inner = self.lock();
        if let Some(at) = inner.timer_of.remove(key) {
            inner.timers.remove(&(at, key.clone()));
        }
    }

    /// The next key. It is the caller's until [`WorkQueue::done`].
    pub async fn next(&self) -> K {
        loop {
            let taken = {
                let mut inner = self.lock();
                let key = inner.ready.pop_front();
                if let Some(key) = &key {
                    inner.waiting.remove(key);
                    inner.busy.insert(key.clone(), false);
                }
                (key, !inner.ready.is_empty())
            };
            match taken {
                (Some(key), more) => {
                    if more {
                        self.ready.notify_one();
                    }
                    return key;
                }
                (None, _) => self.ready.notified().await,
            }
        }
    }

    /// Gives a key back; it is looked at again if it was asked for meanwhile.
    pub fn done(&self, key: K) {
        let again = self.lock().busy.remove(&key).unwrap_or(false);
        if again {
            self.now(key);
        }
    }

    /// Moves keys whose time has come into the queue, for ever.
    pub async fn run_timers(&self) {
        loop {
            let now = clock::now();
            let (due, next) = self.lock().due(now);
            for key in due {
                self.now(key);
            }
            match next {
                Some(at) => {
                    tokio::select! { () = tokio::time::sleep(age(now, at)) => {}, () = self.timer.notified() => {} }
                }
                None => self.timer.notified().await,
            }
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash + Ord> Inner<K> {
    /// Whether a worker must be woken for it.
    fn push(&mut self, key: K) -> bool {
        if let Some(again) = self.busy.get_mut(&key) {
            *again = true;
            return false;
        }
        let new = self.waiting.insert(key.clone());
        if new {
            self.ready.push_back(key);
        }
        new
    }

    fn due(&mut self, now: Timestamp) -> (Vec<K>, Option<Timestamp>) {
        let mut due = Vec::new();
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.timers.pop_first() {
                self.timer_of.remove(&key);
                due.push(key);
            }
        }
        (due, self.timers.first().map(|(at, _)| *at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_key_asked_for_twice_is_handed_out_once() {
        let queue = WorkQueue::new();
        queue.now("a");
        queue.now("a");
        queue.now("b");
        assert_eq!([queue.next().await, queue.next().await], ["a", "b"]);
        assert!(queue.lock().ready.is_empty());
    }

    #[tokio::test]
    async fn a_key_asked_for_while_it_is_worked_on_comes_again_afterwards_and_not_before() {
        let queue = WorkQueue::new();
        queue.now("a");
        let key = queue.next().await;
        queue.now("a");
        assert!(queue.lock().ready.is_empty());
        queue.done(key);
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test]
    async fn the_earliest_timer_of_a_key_wins() {
        let queue = WorkQueue::new();
        let now = clock::now();
        let soon = now + Duration::from_millis(20);
        queue.at("a", now + Duration::from_hours(1));
        queue.at("a", soon);
        queue.at("a", now + Duration::from_hours(2));
        let key = tokio::select! { key = queue.next() => key, () = queue.run_timers() => unreachable!() };
        assert_eq!(key, "a");
        assert!(clock::now() >= soon);
    }

    #[tokio::test]
    async fn a_forgotten_key_has_no_timer() {
        let queue = WorkQueue::new();
        queue.at("a", clock::now());
        queue.forget(&"a");
        assert_eq!(queue.lock().due(Timestamp::MAX), (vec![], None));
    }
}
