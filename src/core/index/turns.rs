//! Whose turn it is: every key once, never twice at a time, timers, and a fair turn between lanes.
//!
//! A lane is what must not hold up others: a pool. Lanes with keys take turns, one key each, so that 10,000 keys of one
//! lane do not come before the first of another. What is out at the same time is limited for each lane: to
//! [`Limits::lane`], and to a part of what is still free. So even when very many lanes are slow, some room is left
//! for one that is not (dynamic thresholds, as switches share their buffers).

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;

use jiff::Timestamp;

/// Keys for which room is kept although none is ready.
const FEW: usize = 1024;

/// How many keys may be out at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of all lanes.
    pub all: usize,
    /// Of one lane.
    pub lane: usize,
}

/// Keys that want to be looked at.
#[derive(Debug)]
pub struct Turns<L, K> {
    limits: Limits,
    lanes: HashMap<L, Lane<K>>,
    /// Lanes that have keys ready, each once; the first is next unless it has no room.
    order: VecDeque<L>,
    /// The keys that are ready, each once.
    ready: HashSet<K>,
    out: HashMap<K, Out<L>>,
    timers: BTreeSet<(Timestamp, K)>,
    timer_of: HashMap<K, (Timestamp, L)>,
}

#[derive(Debug)]
struct Lane<K> {
    /// In order of arrival.
    ready: VecDeque<K>,
    out: usize,
}

/// A key that is being looked at.
#[derive(Debug)]
struct Out<L> {
    lane: L,
    /// The lane in which it must be looked at again afterwards.
    again: Option<L>,
}

impl<L: Clone + Eq + Hash, K: Clone + Eq + Hash + Ord> Turns<L, K> {
    /// No keys.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            order: VecDeque::new(),
            ready: HashSet::new(),
            out: HashMap::new(),
            timers: BTreeSet::new(),
            timer_of: HashMap::new(),
        }
    }

    /// Asks for a look at `key`, now. Whether that makes one more key ready.
    pub fn push(&mut self, lane: L, key: K) -> bool {
        if let Some(out) = self.out.get_mut(&key) {
            out.again = Some(lane);
            return false;
        }
        let is_new = self.ready.insert(key.clone());
        if is_new {
            let keys = self.lanes.entry(lane.clone()).or_insert_with(|| Lane { ready: VecDeque::new(), out: 0 });
            if keys.ready.is_empty() {
                self.order.push_back(lane);
            }
            keys.ready.push_back(key);
        }
        is_new
    }

    /// Asks for a look at `key` at this time; sooner if something else asks for it.
    pub fn push_at(&mut self, lane: L, key: K, at: Timestamp) {
        match self.timer_of.get(&key) {
            Some((set, _)) if *set <= at => return,
            Some((set, _)) => {
                self.timers.remove(&(*set, key.clone()));
            }
            None => {}
        }
        self.timer_of.insert(key.clone(), (at, lane));
        self.timers.insert((at, key));
    }

    /// Drops the timer of a key that is gone.
    pub fn forget(&mut self, key: &K) {
        if let Some((at, _)) = self.timer_of.remove(key) {
            self.timers.remove(&(at, key.clone()));
        }
    }

    /// Makes ready what is due by now. Whether that was anything, and when the next key is due.
    pub fn due(&mut self, now: Timestamp) -> (bool, Option<Timestamp>) {
        let mut any = false;
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.timers.pop_first()
                && let Some((_, lane)) = self.timer_of.remove(&key)
            {
                any |= self.push(lane, key);
            }
        }
        (any, self.timers.first().map(|(at, _)| *at))
    }

    /// The next key, of the lane whose turn it is among those with room. It is out until [`Turns::done`].
    pub fn take(&mut self) -> Option<K> {
        let free = self.limits.all.checked_sub(self.out.len()).filter(|free| *free > 0)?;
        // A lane that is alone gets its full limit.
        let part = (free * self.limits.lane).div_ceil(self.limits.all);
        for _ in 0..self.order.len() {
            let lane = self.order.pop_front()?;
            let Some(keys) = self.lanes.get_mut(&lane) else { continue };
            let has_room = keys.out < self.limits.lane.min(part);
            let key = if has_room { keys.ready.pop_front() } else { None };
            if !keys.ready.is_empty() {
                self.order.push_back(lane.clone());
            }
            if let Some(key) = key {
                keys.out += 1;
                self.ready.remove(&key);
                if self.ready.is_empty() && self.ready.capacity() > FEW {
                    self.ready = HashSet::new(); // all jobs are looked at for a moment when an operator takes over
                }
                self.out.insert(key.clone(), Out { lane, again: None });
                return Some(key);
            }
        }
        None
    }

    /// Gives a key back; it becomes ready if it was asked for meanwhile. Whether any key may be taken now.
    pub fn done(&mut self, key: K) -> bool {
        let Some(Out { lane, again }) = self.out.remove(&key) else { return false };
        if let Some(keys) = self.lanes.get_mut(&lane) {
            keys.out -= 1;
            if keys.out == 0 && keys.ready.is_empty() {
                self.lanes.remove(&lane);
            }
        }
        if let Some(lane) = again {
            self.push(lane, key);
        }
        !self.order.is_empty()
    }

    /// Whether keys are ready, whether their lanes have room or not.
    pub fn has_ready(&self) -> bool {
        !self.order.is_empty()
    }
}
