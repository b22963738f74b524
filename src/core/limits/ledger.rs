//! The limits of one pool, and how its jobs stand under them.

mod give;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::super::job::Job;
use super::super::status::PastAttempt;
use super::count::{Count, Room};
use super::declared::{By, Keys, Limit, Limits};
use super::line::Line;
use super::permit::{Permit, Reached, Wait};
use super::shares::Shares;
use standing::{Asks, Standing};

/// How long a permit may wait for its message to be published. Then it is asked for anew, so that what counts is when
/// messages are published.
const USED_WITHIN: Duration = Duration::from_secs(10);

/// The limits of one pool, and how its unfinished jobs stand under them.
#[derive(Debug, Clone)]
pub struct Ledger {
    limits: Arc<Limits>,
    jobs: HashMap<Arc<str>, Standing>,
    /// Of each limit, by key.
    counts: Vec<HashMap<Arc<str>, Count>>,
    /// Ordered, so that the same is decided at every run.
    lines: BTreeMap<Keys, Line>,
    /// Jobs that have a permit and ask for it anew, the longest released first.
    renewals: BTreeSet<(Timestamp, Arc<str>)>,
    shares: Shares,
    /// Whether something was given back, or began to wait, since permits were last given.
    is_stirred: bool,
    /// When a rate allows the next one.
    again: Option<Timestamp>,
    swept_at: Option<Timestamp>,
    /// Whether it is known when jobs were released that are over. No permit is given before.
    is_complete: bool,
}

impl Ledger {
    /// One without jobs.
    pub fn new(limits: Arc<Limits>) -> Self {
        let counts = limits.all.iter().map(|_| HashMap::new()).collect();
        let has_rate = limits.all.iter().any(|limit| limit.rate.is_some());
        Self {
            limits,
            jobs: HashMap::new(),
            counts,
            lines: BTreeMap::new(),
            renewals: BTreeSet::new(),
            shares: Shares::default(),
            is_stirred: false,
            again: None,
            swept_at: None,
            is_complete: !has_rate,
        }
    }

    /// What the pool declares.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// One without jobs for what the pool declares now. What is known of releases counts on under a limit of the same
    /// name and keys; permits that were given and are not recorded yet are kept by [`Ledger::note_as`].
    #[must_use]
    pub fn changed(&self, limits: &Arc<Limits>) -> Self {
        let mut new = Self::new(limits.clone());
        for (limit, counts) in limits.all.iter().zip(&mut new.counts) {
            let is_it = |known: &Limit| known.name == limit.name && known.by == limit.by;
            let Some(index) = self.limits.all.iter().position(is_it) else { continue };
            for (key, known) in &self.counts[index] {
                counts.entry(key.clone()).or_default().inherit(known, limit);
            }
        }
        new.is_stirred = true;
        new
    }

    /// A job came or changed. `is_out` says whether a message of it is, or may be, on Redis or with a worker.
    pub fn note(&mut self, job: &Job, is_out: bool) {
        let before = self.jobs.get(&job.key.name).cloned();
        self.note_after(before, job, is_out);
    }

    /// The same for a job that stood as it does in another ledger.
    pub fn note_as(&mut self, known: &Self, job: &Job, is_out: bool) {
        self.note_after(known.jobs.get(&job.key.name).cloned(), job, is_out);
    }

    fn note_after(&mut self, before: Option<Standing>, job: &Job, is_out: bool) {
        let before = before.filter(|standing| standing.uid == job.uid);
        let now = Standing::of(job, is_out, before.as_ref(), &self.limits);
        if before.is_none() {
            for at in standing::releases_before(job) {
                self.was_released(&now.keys, at, job.uid);
            }
        }
        if let Some(at) = now.released_at.filter(|at| before.as_ref().is_none_or(|it| it.released_at != Some(*at))) {
            self.was_released(&now.keys, at, job.uid);
        }
        if let Some(before) = &before
            && let Some(unused) = before.unrecorded().filter(|at| !now.keeps(*at))
        {
            self.was_not_released(&before.keys, unused, job.uid);
        }
        let keys = now.keys.clone();
        self.put(&job.key.name, Some(now));
        if let Some(past) = job.status.history.last() {
            self.slow_down(&keys, past);
        }
    }

    /// The last attempt of a job is over, and with it the job.
    pub fn note_last(&mut self, job: &Job, past: &PastAttempt) {
        let keys = self.limits.keys_of(job);
        self.slow_down(&keys, past);
    }

    /// Slows keys down if an attempt of them failed because of too many requests. Once, however often this is said: what was
    /// released before tells nothing new.
    fn slow_down(&mut self, keys: &Keys, past: &PastAttempt) {
        for ((limit, counts), key) in self.limits.all.iter().zip(&mut self.counts).zip(&**keys) {
            if let Some(signal) = limit.slow_down.as_ref().and_then(|declared| declared.signal(past)) {
                counts.entry(key.clone()).or_default().slow_down(limit, signal);
            }
        }
    }

    /// A job is over, or gone.
    pub fn remove(&mut self, name: &Arc<str>) {
        if let Some(Standing { keys, uid, .. }) = self.jobs.get(name).cloned() {
            if let Some(unused) = self.jobs.get(name).and_then(Standing::unrecorded) {
                self.was_not_released(&keys, unused, uid);
            }
            self.put(name, None);
        }
    }

    /// Whether it is known when jobs were released that are over.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// All jobs that are over, and may count still, were noted.
    pub fn complete(&mut self) {
        self.is_complete = true;
        self.is_stirred = true;
    }

    /// A job is over. When it was released may count still.
    pub fn note_over(&mut self, job: &Job) {
        let keys = self.limits.keys_of(job);
        let last = job.status.released_at.as_deref().copied();
        for at in standing::releases_before(job).chain(last) {
            self.was_released(&keys, at, job.uid);
        }
    }

    fn was_released(&mut self, keys: &Keys, at: Timestamp, job: Uuid) {
        for ((limit, counts), key) in self.limits.all.iter().zip(&mut self.counts).zip(&**keys) {
            if limit.rate.is_some() {
                counts.entry(key.clone()).or_default().released(limit, at, job);
            }
        }
    }

    fn was_not_released(&mut self, keys: &Keys, at: Timestamp, job: Uuid) {
        for (counts, key) in self.counts.iter_mut().zip(&**keys) {
            if let Some(count) = counts.get_mut(key) {
                count.not_released(at, job);
            }
        }
        self.is_stirred = true;
    }

    /// How a job stands; what it adds to the figures is counted along.
    fn put(&mut self, name: &Arc<str>, now: Option<Standing>) {
        let before = self.jobs.get(name).cloned();
        if before == now {
            return;
        }
        if let Some(before) = &before {
            self.take(name, before);
        }
        let had = before.as_ref().is_some_and(Standing::has_permit);
        if let Some(before) = before.as_ref().filter(|_| had && !now.as_ref().is_some_and(Standing::has_permit)) {
            self.grow(&before.keys);
        }
        if let Some(now) = now {
            self.add(name, &now);
            self.is_stirred |= had && !now.has_permit() || now.asks() && !before.as_ref().is_some_and(Standing::asks);
            self.jobs.insert(name.clone(), now);
        } else {
            self.is_stirred |= had;
            self.jobs.remove(name);
        }
    }

    /// A job with these keys has given its permit back.
    fn grow(&mut self, keys: &Keys) {
        for (counts, key) in self.counts.iter_mut().zip(&**keys) {
            if let Some(count) = counts.get_mut(key) {
                count.grow();
            }
        }
    }

    fn add(&mut self, name: &Arc<str>, standing: &Standing) {
        let Standing { keys, order, .. } = standing;
        if standing.has_permit() {
            for (counts, key) in self.counts.iter_mut().zip(&**keys) {
                counts.entry(key.clone()).or_default().has(standing.is_renewal());
            }
        }
        if standing.is_renewal() {
            self.renewals.insert((standing.given_at(), name.clone()));
        }
        if standing.waits() {
            self.lines.entry(keys.clone()).or_default().insert(*order, name);
            if let Some((key, _)) = self.limits.share_of(keys) {
                self.shares.waits(key);
            }
        }
    }

    fn take(&mut self, name: &Arc<str>, standing: &Standing) {
        let Standing { keys, order, .. } = standing;
        if standing.has_permit() {
            for (counts, key) in self.counts.iter_mut().zip(&**keys) {
                counts.entry(key.clone()).or_default().had(standing.is_renewal());
            }
        }
        if standing.is_renewal() {
            self.renewals.remove(&(standing.given_at(), name.clone()));
        }
        if standing.waits() {
            if let Some(line) = self.lines.get_mut(keys) {
                line.remove(*order, name);
            }
            if let Some((key, _)) = self.limits.share_of(keys) {
                self.shares.waits_no_more(key);
            }
        }
    }

    /// A job asks for a permit; one that has it asks for it anew. [`Ledger::give`] is to follow.
    pub fn ask(&mut self, name: &Arc<str>) {
        let Some(standing) = self.jobs.get(name) else { return };
        let asking = standing.asking();
        self.put(name, Some(asking));
    }

    /// How a job stands under the limits.
    pub fn permit(&self, name: &Arc<str>, now: Timestamp) -> Permit {
        let Some(standing) = self.jobs.get(name).filter(|_| self.is_complete) else { return Permit::Unknown };
        match standing.asks {
            Asks::Granted { at, .. } if now.duration_since(at).as_secs() < USED_WITHIN.as_secs().cast_signed() => {
                Permit::Granted { at }
            }
            Asks::Granted { .. } | Asks::Not => Permit::Unasked,
            Asks::Asked { .. } => Permit::Waits(Box::new(self.wait(name, standing, now))),
        }
    }

    fn wait(&self, name: &Arc<str>, standing: &Standing, now: Timestamp) -> Wait {
        let (index, room) = self.room(standing, now).unwrap_or((self.limits.all.len() - 1, Room::Now));
        let limit = &self.limits.all[index];
        let slowed = standing.keys.get(index).and_then(|key| self.counts[index].get(key)?.slowed(limit, now));
        let reached = match (room, slowed, limit.max_in_flight, limit.rate) {
            (Room::At(at), Some(slow), ..) if slow.until() == at => Reached::Paused,
            (Room::Later, Some(slow), Some(most), _) if slow.most() < most => Reached::Slowed(slow.most()),
            (Room::Later, _, Some(most), _) => Reached::InFlight(most),
            (Room::At(_), _, _, Some(rate)) => Reached::Rate(rate.count, rate.per),
            _ => Reached::Turn,
        };
        let line = self.lines.get(&standing.keys).filter(|_| standing.waits());
        let position = line.map_or(1, |line| line.position(standing.order, name));
        let from = if let Room::At(at) = room { at } else { now };
        let by_rate = limit.rate.map(|rate| rate.per / rate.count.max(1)).filter(|_| reached != Reached::Turn);
        let step = line.and_then(|line| line.pace(now)).into_iter().chain(by_rate).max();
        let steps = if matches!(room, Room::At(_)) { position - 1 } else { position };
        let expected = if steps == 0 { Some(Duration::ZERO) } else { step.map(|step| step.saturating_mul(steps)) };
        Wait {
            pool: self.limits.pool.clone(),
            limit: limit.name.clone(),
            key: standing.keys.get(index).filter(|_| limit.by != By::All).cloned(),
            reached,
            position,
            expected_at: expected.and_then(|span| from.checked_add(span).ok()),
        }
    }

    /// The first limit that has no room for a job, and when it may have some; `None` when all have room.
    fn room(&self, standing: &Standing, now: Timestamp) -> Option<(usize, Room)> {
        let renewed = standing.is_renewal().then(|| (standing.given_at(), standing.uid));
        let limits = self.limits.all.iter().zip(&self.counts).zip(&*standing.keys);
        let rooms = limits.map(|((limit, counts), key)| match (counts.get(key), renewed) {
            (None, _) => Room::Now,
            (Some(count), None) => count.room(limit, now),
            (Some(count), given) => count.room_anew(limit, given, now),
        });
        rooms.enumerate().find(|(_, room)| *room != Room::Now)
    }
}
