//! Clocks of workers, as far as they differ from the operator's.
//!
//! A worker's event says when it was sent, by the worker's clock, and comes within milliseconds: the difference is how far
//! that clock is behind. The smallest difference of the last half minute to minute counts, since an event may be late but
//! never early. What else a worker says of times is translated by it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A clock that differs by more than this is complained about.
pub const TOLERANCE: Duration = Duration::from_secs(30);
/// What is complained about is so until it differs by less than this.
const WELL_AGAIN: Duration = Duration::from_secs(20);
/// Nodes whose clocks are remembered per pool.
const NODES: usize = 1_000;
/// Differences of this span are compared at least.
const WINDOW: SignedDuration = SignedDuration::from_secs(30);
/// A worker that was not heard for so long is not complained about any more.
const SILENT: SignedDuration = SignedDuration::from_mins(2);
/// A worker that was not heard for so long is not counted with any more: no task runs longer, as a rule.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(2);
/// Events that are late by so much, this often in a row, are not late: the clock was set.
const JUMP: (i64, u8) = (10_000, 3);

/// The clocks of a pool's workers.
#[derive(Debug, Default)]
pub struct Clocks(HashMap<Arc<str>, Clock>);

#[derive(Debug)]
struct Clock {
    /// Smallest difference since `since`, in milliseconds: positive when it is behind.
    behind: i64,
    /// Smallest difference of the window before.
    before: i64,
    since: Timestamp,
    heard_at: Timestamp,
    late: u8,
    is_complained_about: bool,
}

/// When something happened at a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By the operator's clock.
    pub at: Timestamp,
    /// How far the worker's clock is behind the operator's, in milliseconds; negative when it is ahead.
    pub behind: i64,
}

/// The worst clock of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skew {
    /// Whose.
    pub node: Arc<str>,
    /// How far it is behind, in seconds, to ten; negative when it is ahead.
    pub behind: i64,
    /// How many clocks differ too much.
    pub nodes: usize,
}

impl Clocks {
    /// A node said `told`, by its own clock, and was heard at `now`.
    pub fn hear(&mut self, node: &Arc<str>, told: Timestamp, now: Timestamp) -> Moment {
        let difference = millis(now.duration_since(told));
        if let Some(clock) = self.0.get_mut(node) {
            clock.note(difference, now);
            return clock.moment(told, now);
        }
        let clock = Clock {
            behind: difference,
            before: difference,
            since: now,
            heard_at: now,
            late: 0,
            is_complained_about: is_more_than(difference, TOLERANCE),
        };
        let moment = clock.moment(told, now);
        if self.0.len() >= NODES {
            self.0.retain(|_, clock| now.duration_since(clock.heard_at) < SILENT);
        }
        if self.0.len() < NODES {
            self.0.insert(node.clone(), clock);
        }
        moment
    }

    /// How far a node's clock is behind, in milliseconds; 0 where it was never heard.
    pub fn behind(&self, node: &str) -> i64 {
        self.0.get(node).map_or(0, Clock::best)
    }

    /// A time by a node's clock, by the operator's; never later than now.
    pub fn ours(&self, node: &str, told: Timestamp, now: Timestamp) -> Timestamp {
        shifted(told, self.behind(node)).min(now)
    }

    /// How far apart clocks may be: a time that an unnamed clock told is known to within this span.
    pub fn spread(&self, now: Timestamp) -> Duration {
        let counts = |clock: &&Clock| now.duration_since(clock.heard_at) < FORGOTTEN;
        let widest = self.0.values().filter(counts).map(|clock| clock.best().unsigned_abs()).max();
        Duration::from_millis(widest.unwrap_or(0))
    }

    /// The worst clock, if there is one to complain about.
    pub fn skew(&self, now: Timestamp) -> Option<Skew> {
        let wrong = |(_, clock): &(_, &Clock)| clock.is_complained_about && now.duration_since(clock.heard_at) < SILENT;
        let nodes = self.0.iter().filter(wrong).count();
        let (node, clock) = self.0.iter().filter(wrong).max_by_key(|(node, clock)| (clock.best().abs(), *node))?;
        Some(Skew { node: node.clone(), behind: (clock.best() + 5_000).div_euclid(10_000) * 10, nodes })
    }
}

impl Clock {
    fn note(&mut self, difference: i64, now: Timestamp) {
        let is_late = difference > self.best().saturating_add(JUMP.0);
        self.late = if is_late { self.late + 1 } else { 0 };
        if self.late >= JUMP.1 || now < self.since {
            (self.before, self.behind, self.since, self.late) = (difference, difference, now, 0);
        } else if now.duration_since(self.since) >= WINDOW {
            (self.before, self.behind, self.since) = (self.behind, difference, now);
        } else {
            self.behind = self.behind.min(difference);
        }
        self.heard_at = now;
        let bound = if self.is_complained_about { WELL_AGAIN } else { TOLERANCE };
        self.is_complained_about = is_more_than(self.best(), bound);
    }

    fn best(&self) -> i64 {
        self.behind.min(self.before)
    }

    fn moment(&self, told: Timestamp, now: Timestamp) -> Moment {
        Moment { at: shifted(told, self.best()).min(now), behind: self.best() }
    }
}

fn millis(difference: SignedDuration) -> i64 {
    i64::try_from(difference.as_millis()).unwrap_or(i64::MAX)
}

fn is_more_than(difference: i64, bound: Duration) -> bool {
    u128::from(difference.unsigned_abs()) > bound.as_millis()
}

/// A time so many milliseconds later; the end of time when that is past it.
pub fn shifted(at: Timestamp, millis: i64) -> Timestamp {
    let end = if millis < 0 { Timestamp::MIN } else { Timestamp::MAX };
    at.checked_add(SignedDuration::from_millis(millis)).unwrap_or(end)
}
