//! The work queue: [`Turns`] behind a lock, with wake-ups.

use std::hash::Hash;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::core::index::{Limits, Turns};
use crate::runtime::clock;

/// Keys that want to be looked at, in lanes that take turns.
#[derive(Debug)]
pub struct WorkQueue<L, K> {
    turns: Mutex<Turns<L, K>>,
    ready: Notify,
    timer: Notify,
}

impl<L: Clone + Eq + Hash, K: Clone + Eq + Hash + Ord> WorkQueue<L, K> {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Self { turns: Mutex::new(Turns::new(limits)), ready: Notify::new(), timer: Notify::new() }
    }

    /// Looks at `key` as soon as its lane has its turn and room.
    pub fn now(&self, lane: L, key: K) {
        if self.turns.lock().push(lane, key) {
            self.ready.notify_one();
        }
    }

    /// Looks at `key` at this time, or sooner if something else asks for it.
    pub fn at(&self, lane: L, key: K, at: Timestamp) {
        self.turns.lock().push_at(lane, key, at);
        self.timer.notify_one();
    }

    /// Drops the timer of a key that is gone.
    pub fn forget(&self, key: &K) {
        self.turns.lock().forget(key);
    }

    /// The next key. It is the caller's until [`WorkQueue::done`].
    pub async fn next(&self) -> K {
        loop {
            let (key, has_more) = {
                let mut turns = self.turns.lock();
                (turns.take(), turns.has_ready())
            };
            match key {
                Some(key) => {
                    if has_more {
                        self.ready.notify_one();
                    }
                    return key;
                }
                None => self.ready.notified().await,
            }
        }
    }

    /// Gives a key back; it is looked at again if it was asked for meanwhile.
    pub fn done(&self, key: K) {
        if self.turns.lock().done(key) {
            self.ready.notify_one();
        }
    }

    /// Moves keys whose time has come into the queue, for ever.
    pub async fn run_timers(&self) {
        loop {
            let now = clock::now();
            let (any, next) = self.turns.lock().due(now);
            if any {
                self.ready.notify_one();
            }
            match next {
                Some(at) => {
                    tokio::select! { () = tokio::time::sleep(clock::until(at, now)) => {}, () = self.timer.notified() => {} }
                }
                None => self.timer.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn queue() -> WorkQueue<&'static str, &'static str> {
        WorkQueue::new(Limits { all: 4, lane: 1 })
    }

    #[tokio::test]
    async fn a_key_asked_for_twice_is_handed_out_once() {
        let queue = queue();
        queue.now("one", "a");
        queue.now("one", "a");
        queue.now("other", "b");
        assert_eq!([queue.next().await, queue.next().await], ["a", "b"]);
        assert!(!queue.turns.lock().has_ready());
    }

    #[tokio::test]
    async fn a_key_asked_for_while_it_is_worked_on_comes_again_afterwards_and_not_before() {
        let queue = queue();
        queue.now("one", "a");
        let key = queue.next().await;
        queue.now("one", "a");
        assert!(!queue.turns.lock().has_ready());
        queue.done(key);
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test]
    async fn a_key_that_waited_for_room_in_its_lane_is_handed_out_when_there_is_some() {
        let queue = queue();
        queue.now("one", "a");
        queue.now("one", "b");
        let key = queue.next().await;
        let (next, ()) = tokio::join!(queue.next(), async {
            tokio::task::yield_now().await;
            queue.done(key);
        });
        assert_eq!(next, "b");
    }

    #[tokio::test]
    async fn the_earliest_timer_of_a_key_wins() {
        let queue = queue();
        let now = clock::now();
        let soon = now + Duration::from_millis(20);
        queue.at("one", "a", now + Duration::from_hours(1));
        queue.at("one", "a", soon);
        queue.at("one", "a", now + Duration::from_hours(2));
        let key = tokio::select! { key = queue.next() => key, () = queue.run_timers() => unreachable!() };
        assert_eq!(key, "a");
        assert!(clock::now() >= soon);
    }
}
