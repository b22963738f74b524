//! What counts under one key of one limit.

use std::collections::VecDeque;

use jiff::Timestamp;
use uuid::Uuid;

use super::declared::{Limit, Rate};
use super::slow::{Signal, Slow};

/// What counts under one key of one limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// Jobs that have a permit.
    permits: u32,
    /// Those of them that ask for it anew: another leader gave it, or it was not used for long.
    renewals: u32,
    /// The latest releases with the jobs' UIDs, oldest first.
    releases: VecDeque<(Timestamp, Uuid)>,
    /// That the key is slowed down. In a box, as few keys are.
    slow: Option<Box<Slow>>,
}

/// Whether one more job may have a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Now.
    Now,
    /// From then on, as far as the rate is concerned.
    At(Timestamp),
    /// When a job that has one gives it back.
    Later,
}

impl Count {
    /// A job has a permit; whether it asks for it anew.
    pub fn has(&mut self, is_renewal: bool) {
        self.permits += 1;
        self.renewals += u32::from(is_renewal);
    }

    /// The same job has it no more.
    pub fn had(&mut self, is_renewal: bool) {
        self.permits -= 1;
        self.renewals -= u32::from(is_renewal);
    }

    /// Whether a job may have a permit that has none.
    pub fn room(&self, limit: &Limit, now: Timestamp) -> Room {
        self.room_beside(self.permits, limit, None, now)
    }

    /// Whether a job may have its permit anew, which it has had since `given`: all that do not ask for theirs come
    /// first. Its earlier release does not count, as the later one takes its place.
    pub fn room_anew(&self, limit: &Limit, given: Option<(Timestamp, Uuid)>, now: Timestamp) -> Room {
        self.room_beside(self.permits - self.renewals, limit, given, now)
    }

    fn room_beside(&self, permits: u32, limit: &Limit, given: Option<(Timestamp, Uuid)>, now: Timestamp) -> Room {
        if let Some(until) = self.slowed(limit, now).map(Slow::until).filter(|until| *until > now) {
            return Room::At(until);
        }
        let is_full = self.most(limit, now).is_some_and(|most| permits >= most);
        if is_full { Room::Later } else { self.room_in_time(limit, given, now) }
    }

    /// How many may be in flight.
    pub fn most(&self, limit: &Limit, now: Timestamp) -> Option<u32> {
        let slowed = self.slowed(limit, now).map(Slow::most);
        limit.max_in_flight.map(|most| slowed.map_or(most, |slowed| slowed.min(most)))
    }

    /// That the key is slowed down.
    pub fn slowed(&self, limit: &Limit, now: Timestamp) -> Option<&Slow> {
        self.slow.as_deref().filter(|slow| !slow.is_over(limit.max_in_flight.unwrap_or(u32::MAX), now))
    }

    /// A job of the key, which does not count any more, failed because of too many requests.
    pub fn slow_down(&mut self, limit: &Limit, signal: Signal) {
        let most = limit.max_in_flight.unwrap_or(u32::MAX);
        match &mut self.slow {
            Some(slow) if slow.knows(signal) || !slow.is_over(most, signal.at) => slow.again(signal),
            slow => *slow = Some(Box::new(Slow::begin(self.permits.saturating_add(1), most, signal))),
        }
    }

    /// A job has given its permit back.
    pub fn grow(&mut self) {
        if let Some(slow) = &mut self.slow {
            slow.grow();
        }
    }

    fn room_in_time(&self, limit: &Limit, given: Option<(Timestamp, Uuid)>, now: Timestamp) -> Room {
        let Some(Rate { count, per }) = limit.rate else { return Room::Now };
        let latest = self.releases.iter().rev().filter(|it| Some(**it) != given);
        let nth = latest.map(|(at, _)| *at).nth((count.max(1) - 1) as usize);
        match nth.map(|at| at.checked_add(per).unwrap_or(Timestamp::MAX)) {
            Some(at) if at > now => Room::At(at),
            Some(_) | None => Room::Now,
        }
    }

    /// A job was released; once, however often this is said.
    pub fn released(&mut self, limit: &Limit, at: Timestamp, job: Uuid) {
        let Some(Rate { count, .. }) = limit.rate else { return };
        let index = self.releases.partition_point(|known| *known < (at, job));
        if self.releases.get(index) == Some(&(at, job)) {
            return;
        }
        self.releases.insert(index, (at, job));
        // What is taken back, or given anew, must not hide an older one.
        if self.releases.len() > 2 * count as usize {
            self.releases.pop_front();
        }
    }

    /// That release was not used.
    pub fn not_released(&mut self, at: Timestamp, job: Uuid) {
        self.releases.retain(|known| *known != (at, job));
    }

    /// Whether nothing counts here any more. A release is remembered for as long again as it counts: a clock may be set
    /// back.
    pub fn is_over(&self, limit: &Limit, now: Timestamp) -> bool {
        let latest = self.releases.back().zip(limit.rate);
        let until = latest.map(|((at, _), rate)| at.checked_add(rate.per * 2).unwrap_or(Timestamp::MAX));
        let is_told = self.slow.as_deref().is_some_and(|slow| !slow.is_forgotten(now));
        self.permits == 0 && until.is_none_or(|until| until <= now) && !is_told
    }

    /// Takes over what another one knows of releases, and that the key is slowed down.
    pub fn inherit(&mut self, from: &Self, limit: &Limit) {
        self.slow = from.slow.clone().filter(|_| limit.slow_down.is_some());
        for (at, job) in &from.releases {
            self.released(limit, *at, *job);
        }
    }
}
