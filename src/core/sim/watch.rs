//! The watch on unfinished jobs, as `operator::watch` has it: slow, broken now and then, and an object that leaves the
//! selector arrives as deleted, with its old content.

use std::collections::HashSet;

use uuid::Uuid;

use super::super::id::ObjectKey;
use super::super::index::{Applied, Entry};
use super::super::job::Job;
use super::operator::Order;
use super::say;
use super::world::{World, number_of};

impl World {
    /// A job was written, and was that before.
    pub fn tell_watchers(&mut self, job: usize, was: &Job) {
        let latest = if self.chaos.deafness { 4_000 } else { 50 };
        for operator in self.leaders() {
            let due = (self.now + self.rng.between(1, latest)).max(self.operators[operator].watched_until);
            self.operators[operator].watched_until = due;
            if self.chaos.deafness && self.rng.per_mille(250) {
                self.count("watch broken");
                self.order(operator, due - self.now, Order::List);
                continue;
            }
            let stored = &self.api.jobs[job];
            let order = if stored.deleted || stored.job.status.phase.is_terminal() {
                Order::Left { was: Box::new(was.clone()) }
            } else {
                Order::Watch { version: stored.version, is: Box::new(stored.job.clone()) }
            };
            self.order(operator, due - self.now, order);
        }
    }

    pub fn watched(&mut self, operator: usize, version: u64, is: Job) {
        if version < self.api.jobs[number_of(&is.key)].version {
            self.count("late watch event");
        }
        if !self.arrive(operator, version, is) {
            self.count("stale watch event");
        }
    }

    /// The old content says nothing about why it has gone: that is read live, unless we have written its end ourselves.
    pub fn left(&mut self, operator: usize, was: &Job) {
        let Some(entry) = self.operators[operator].table.get(&was.key).filter(|entry| !entry.closing) else { return };
        let uid = entry.job.uid;
        say!(self, "operator {operator} hears that {}, {:?} till now, is gone", was.key.name, was.status.phase);
        self.count("left the watch");
        self.get(operator, was.key.clone(), uid);
    }

    /// Reads a job live; the answer takes its time.
    fn get(&mut self, operator: usize, key: ObjectKey, uid: Uuid) {
        self.order_after(operator, 1, 200, Order::Live { key, uid });
    }

    /// All unfinished jobs as they are now; what is known and not among them is read live.
    pub fn listed(&mut self, operator: usize) {
        let listed: Vec<(u64, Job)> =
            self.api.unfinished().map(|stored| (stored.version, stored.job.clone())).collect();
        let keys: HashSet<ObjectKey> = listed.iter().map(|(_, job)| job.key.clone()).collect();
        for (version, job) in listed {
            self.arrive(operator, version, job);
        }
        let mut missing = self.operators[operator].table.missing_from(&keys);
        missing.sort();
        for (_, key) in missing {
            if let Some(uid) = self.operators[operator].table.get(&key).map(|entry| entry.job.uid) {
                self.get(operator, key, uid);
            }
        }
    }

    /// The live job is here.
    pub fn read_live(&mut self, operator: usize, key: &ObjectKey, uid: Uuid) {
        let stored = &self.api.jobs[number_of(key)];
        if stored.deleted {
            self.gone(operator, key, uid);
        } else {
            let (version, job) = (stored.version, stored.job.clone());
            self.arrive(operator, version, job);
        }
    }

    /// Takes a live object, as `operator::job::arrive` does. Whether it is news.
    fn arrive(&mut self, operator: usize, version: u64, job: Job) -> bool {
        let key = job.key.clone();
        match self.operators[operator].table.apply(job, version.to_string().into(), 0, || (), false) {
            Applied::Stale => return false,
            Applied::Changed if self.operators[operator].over.contains(&key) => {
                self.broken.push(format!("{} is over, and operator {operator} takes it up again", key.name));
            }
            Applied::Changed => {}
            Applied::Replaced(old) => self.abandon(operator, *old),
            Applied::Ended(entry) => {
                self.operators[operator].over.insert(key.clone());
                self.broker.forget(entry.job.attempt_in_hand().task);
            }
        }
        self.read_if_unread(operator, &key);
        self.look_at(operator, &key);
        true
    }

    /// The job does not exist any more.
    fn gone(&mut self, operator: usize, key: &ObjectKey, uid: Uuid) {
        if let Some(entry) = self.operators[operator].table.remove_job(key, uid) {
            self.operators[operator].turns.forget(key);
            self.operators[operator].over.insert(key.clone());
            self.abandon(operator, *entry);
        }
    }

    /// A job was deleted before its end: what is left of it is brought to its end as a cancelled job is.
    fn abandon(&mut self, operator: usize, entry: Entry<()>) {
        let it = &mut self.operators[operator];
        let is_connected = it.connected;
        let Some((job, evidence)) = entry.remains().filter(|_| is_connected) else { return };
        let key = job.key.clone();
        it.table.keep(job, evidence);
        self.read_if_unread(operator, &key);
        self.look_at(operator, &key);
    }

    pub fn read_if_unread(&mut self, operator: usize, key: &ObjectKey) {
        let it = &mut self.operators[operator];
        if it.table.get(key).is_some_and(|entry| entry.evidence.is_unread()) {
            it.readings.want_unread();
        }
    }
}
