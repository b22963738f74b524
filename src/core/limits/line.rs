//! The jobs that wait under the same keys, in their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::id::Priority;

/// Releases from which the pace of a line is taken.
const PACE: usize = 16;

/// By what a job is ordered: first by its urgency, which is when a job of priority 0 that is as urgent was created, in
/// seconds. So it never changes while jobs become older and with that more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    urgency: i64,
    created: i64,
}

impl Order {
    /// That of a job, where waiting for `aging` counts as one priority.
    pub fn of(created_at: Timestamp, priority: Priority, aging: Duration) -> Self {
        let created = created_at.as_second();
        let aging = i64::try_from(aging.as_secs()).unwrap_or(i64::MAX).max(1);
        Self { urgency: created.saturating_sub(aging.saturating_mul(priority.get().into())), created }
    }

    /// The priority that it counts as by now, at most 10.
    pub fn priority(self, aging: Duration, now: Timestamp) -> i64 {
        let aging = i64::try_from(aging.as_secs()).unwrap_or(i64::MAX).max(1);
        (now.as_second().saturating_sub(self.urgency) / aging).min(10)
    }
}

/// The jobs that wait under the same keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Names by urgency and second of creation: a place is found by counting seconds, not jobs.
    waiting: BTreeMap<Order, BTreeSet<Arc<str>>>,
    len: u32,
    /// When the last ones were released.
    released: VecDeque<Timestamp>,
}

impl Line {
    /// A job waits.
    pub fn insert(&mut self, order: Order, name: &Arc<str>) {
        self.len += u32::from(self.waiting.entry(order).or_default().insert(name.clone()));
    }

    /// It does not wait any more.
    pub fn remove(&mut self, order: Order, name: &Arc<str>) {
        let Some(names) = self.waiting.get_mut(&order) else { return };
        self.len -= u32::from(names.remove(name));
        if names.is_empty() {
            self.waiting.remove(&order);
        }
    }

    /// The one that is next.
    pub fn first(&self) -> Option<(Order, &Arc<str>)> {
        let (order, names) = self.waiting.first_key_value()?;
        Some((*order, names.first()?))
    }

    /// Its place, the first being 1.
    pub fn position(&self, order: Order, name: &Arc<str>) -> u32 {
        let before: usize = self.waiting.range(..order).map(|(_, names)| names.len()).sum();
        let beside = self.waiting.get(&order).map_or(0, |names| names.range(..name.clone()).count());
        u32::try_from(before + beside + 1).unwrap_or(u32::MAX)
    }

    /// One of them was released.
    pub fn released(&mut self, at: Timestamp) {
        self.released.push_back(at);
        if self.released.len() > PACE {
            self.released.pop_front();
        }
    }

    /// How long it takes from one release to the next, as far as it was seen.
    pub fn pace(&self, now: Timestamp) -> Option<Duration> {
        let first = self.released.front()?;
        let steps = u32::try_from(self.released.len() - 1).ok().filter(|steps| *steps > 0)?;
        Some(Duration::try_from(now.duration_since(*first)).unwrap_or_default() / steps)
    }

    /// Whether none waits, and none did for so long that the pace tells nothing.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let is_old = |at: &Timestamp| now.duration_since(*at).unsigned_abs() > Duration::from_hours(1);
        self.len == 0 && self.released.back().is_none_or(is_old)
    }
}
