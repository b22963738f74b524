//! Giving permits: to one job after the other, as long as there is room.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::count::Room;
use super::super::line::Order;
use super::Ledger;

/// How often what has no effect any more is forgotten.
const SWEEP_EVERY: Duration = Duration::from_mins(10);

/// By what the next job is chosen: how urgent it is by now, how much its key has had, and its order.
struct Rank<'a> {
    priority: i64,
    had: f64,
    order: Order,
    name: &'a Arc<str>,
}

impl Rank<'_> {
    fn is_before(&self, other: &Self) -> bool {
        let by_urgency = other.priority.cmp(&self.priority);
        let by_share = by_urgency.then(self.had.total_cmp(&other.had));
        by_share.then_with(|| (self.order, self.name).cmp(&(other.order, other.name))) == Ordering::Less
    }
}

impl Ledger {
    /// Whether a permit was given back, or asked for, since permits were last given.
    pub fn is_stirred(&self) -> bool {
        self.is_stirred
    }

    /// Whether permits may be given that could not be before.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.is_stirred || self.again.is_some_and(|at| at <= now)
    }

    /// When that is so next, by itself.
    pub fn again(&self) -> Option<Timestamp> {
        self.again
    }

    /// Gives permits while there is room, and says to which jobs. Jobs that had one come first, so that what they may
    /// have on Redis does not count against others for long.
    pub fn give(&mut self, now: Timestamp) -> Vec<Arc<str>> {
        self.is_stirred = false;
        self.again = None;
        if !self.is_complete {
            return Vec::new();
        }
        let now = whole_millis(now);
        let mut given = Vec::new();
        for (since, name) in self.renewals.clone() {
            let Some(standing) = self.jobs.get(&name) else { continue };
            match self.room(standing, now) {
                None => {
                    let (keys, uid) = (standing.keys.clone(), standing.uid);
                    self.was_not_released(&keys, since, uid);
                    self.grant(&name, now);
                    given.push(name);
                }
                Some((_, Room::At(at))) => self.look_again_at(at),
                Some((_, Room::Later | Room::Now)) => {}
            }
        }
        while let Some((name, least)) = self.next(now) {
            let standing = self.jobs.get(&name);
            let share =
                standing.and_then(|it| self.limits.share_of(&it.keys)).map(|(key, weight)| (key.clone(), weight));
            if let Some((key, weight)) = share {
                self.shares.released(&key, weight, least, now);
            }
            self.grant(&name, now);
            given.push(name);
        }
        self.is_stirred = false;
        if self.swept_at.is_none_or(|at| now.duration_since(at).unsigned_abs() >= SWEEP_EVERY) {
            self.swept_at = Some(now);
            self.sweep(now);
        }
        given
    }

    fn look_again_at(&mut self, at: Timestamp) {
        self.again = Some(self.again.map_or(at, |known| known.min(at)));
    }

    fn grant(&mut self, name: &Arc<str>, now: Timestamp) {
        let Some(standing) = self.jobs.get(name) else { return };
        let granted = standing.granted(now);
        if standing.waits()
            && let Some(line) = self.lines.get_mut(&standing.keys)
        {
            line.released(now);
        }
        self.was_released(&granted.keys, now, granted.uid);
        self.put(name, Some(granted));
    }

    /// The job that is next, and the least that any key has had of those whose jobs are as urgent.
    fn next(&mut self, now: Timestamp) -> Option<(Arc<str>, f64)> {
        let aging = self.limits.aging;
        let mut best: Option<Rank> = None;
        let mut again: Option<Timestamp> = None;
        let firsts = || {
            self.lines.iter().filter_map(|(keys, line)| {
                let (order, name) = line.first()?;
                let had = self.limits.share_of(keys).map_or(0.0, |(key, _)| self.shares.had(key));
                Some(Rank { priority: order.priority(aging, now), had, order, name })
            })
        };
        for rank in firsts() {
            let Some(standing) = self.jobs.get(rank.name) else { continue };
            match self.room(standing, now) {
                None if best.as_ref().is_none_or(|best| rank.is_before(best)) => best = Some(rank),
                Some((_, Room::At(at))) => again = Some(again.map_or(at, |known| known.min(at))),
                None | Some(_) => {}
            }
        }
        let next = best.map(|best| {
            let as_urgent = firsts().filter(|rank| rank.priority == best.priority);
            (best.name.clone(), as_urgent.map(|rank| rank.had).fold(best.had, f64::min))
        });
        if let Some(at) = again {
            self.look_again_at(at);
        }
        next
    }

    /// Forgets what has no effect any more: keys come and go with jobs.
    fn sweep(&mut self, now: Timestamp) {
        for (limit, counts) in self.limits.all.iter().zip(&mut self.counts) {
            counts.retain(|_, count| !count.is_over(limit, now));
        }
        self.lines.retain(|_, line| !line.is_over(now));
        self.shares.sweep();
    }
}

/// Rounded up, as it is recorded.
fn whole_millis(at: Timestamp) -> Timestamp {
    let millis = at.as_millisecond();
    let floor = Timestamp::from_millisecond(millis).unwrap_or(at);
    if floor < at { Timestamp::from_millisecond(millis + 1).unwrap_or(at) } else { floor }
}
