//! The watch on unfinished jobs, as `operator::watch` has it: slow, broken now and then, and an object that leaves the
//! selector arrives as deleted, with its old content.

use super::super::evidence::Evidence;
use super::super::job::Job;
use super::operator::{Operator, Order};
use super::say;
use super::world::World;

impl World {
    /// A job was written, and was that before.
    pub fn tell_watchers(&mut self, job: usize, was: &Job) {
        let latest = if self.chaos.deafness { 4_000 } else { 50 };
        for operator in self.leaders() {
            let due = (self.now + self.rng.between(1, latest)).max(self.operators[operator].watched_until);
            self.operators[operator].watched_until = due;
            if self.chaos.deafness && self.rng.per_mille(100) {
                self.count("watch broken");
                self.order(operator, due - self.now, Order::List);
                continue;
            }
            let stored = &self.api.jobs[job];
            let order = if stored.deleted || stored.job.status.phase.is_terminal() {
                Order::Left { job, was: Box::new(was.clone()) }
            } else {
                Order::Watch { job, version: stored.version, is: Box::new(stored.job.clone()) }
            };
            self.order(operator, due - self.now, order);
        }
    }

    pub fn watched(&mut self, operator: usize, job: usize, version: u64, is: Job) {
        let it = &mut self.operators[operator];
        if it.ended.contains(&job)
            || it.deleted.contains(&job)
            || it.cache.get(&job).is_some_and(|(known, _)| *known >= version)
        {
            return; // older than our own last write
        }
        if it.cache.contains_key(&job) {
            it.fresh.remove(&job);
        } else {
            it.meet(job, &is);
        }
        if it.cache.get(&job).is_some_and(|(_, known)| known.status != is.status) {
            it.evidence(job, is.attempt_in_hand().task).unread();
        }
        it.cache.insert(job, (version, is));
        self.look(operator, job);
    }

    /// The old content says nothing about why it has gone: that is read live, unless we have written its end ourselves.
    pub fn left(&mut self, operator: usize, job: usize, was: &Job) {
        let it = &self.operators[operator];
        if !it.cache.contains_key(&job) || it.closing.contains(&job) || it.deleted.contains(&job) {
            return;
        }
        say!(self, "operator {operator} hears that {}, {:?} till now, is gone", was.key.name, was.status.phase);
        self.count("left the watch");
        self.get(operator, job);
    }

    /// Reads a job live; the answer takes its time.
    fn get(&mut self, operator: usize, job: usize) {
        self.order_after(operator, 1, 200, Order::Live { job });
    }

    /// All unfinished jobs as they are now; what is known and not among them is read live.
    pub fn listed(&mut self, operator: usize) {
        for job in 0..self.api.jobs.len() {
            let stored = &self.api.jobs[job];
            if !stored.deleted && !stored.job.status.phase.is_terminal() {
                let (version, is) = (stored.version, stored.job.clone());
                self.watched(operator, job, version, is);
            } else if self.operators[operator].cache.contains_key(&job)
                && !self.operators[operator].deleted.contains(&job)
            {
                self.get(operator, job);
            }
        }
    }

    /// The live job is here.
    pub fn read_live(&mut self, operator: usize, job: usize) {
        let stored = &self.api.jobs[job];
        let it = &mut self.operators[operator];
        if stored.deleted {
            self.abandon(operator, job);
        } else if stored.job.status.phase.is_terminal() {
            it.forget_job(job);
        } else if it.cache.get(&job).is_none_or(|(known, _)| *known < stored.version) {
            it.cache.insert(job, (stored.version, stored.job.clone()));
            it.fresh.remove(&job);
            // What was read before another writer wrote is stale.
            it.evidence(job, stored.job.attempt_in_hand().task).unread();
            self.order(operator, 1, Order::Look { job });
        }
    }
}

impl World {
    /// A job was deleted before its end: what is left of it is brought to its end as a cancelled job is.
    fn abandon(&mut self, operator: usize, job: usize) {
        let it = &mut self.operators[operator];
        let Some((_, is)) = it.cache.get_mut(&job) else { return };
        let notes = it.notes.get(&job);
        let is_out = is.status.attempt.is_some() || notes.is_some_and(|notes| notes.is_out() || notes.is_published());
        if !is_out || !it.connected {
            return it.forget_job(job);
        }
        is.spec.cancel = true;
        if it.deleted.insert(job) {
            self.order(operator, 1, Order::Look { job });
        }
    }
}

impl Operator {
    /// A job that is met for the first time: of one that no status says was published, nothing is on Redis.
    fn meet(&mut self, job: usize, is: &Job) {
        if is.status.attempt.is_none() && is.status.attempts == 0 {
            self.fresh.insert(job);
            self.notes.insert(job, Evidence::unsent(is.attempt_in_hand().task));
        }
    }

    /// Nothing of a job that has ended is kept.
    pub fn forget_job(&mut self, job: usize) {
        self.cache.remove(&job);
        self.notes.remove(&job);
        self.closing.remove(&job);
        self.fresh.remove(&job);
        self.deleted.remove(&job);
        self.ended.insert(job);
    }
}
