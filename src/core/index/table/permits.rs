//! Permits under the limits of pools.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::super::id::ObjectKey;
use super::super::super::job::Job;
use super::super::super::limits::{Ledger, Limits, Permit};
use super::super::super::status::PastAttempt;
use super::{Entry, Lane, Table};

impl<F> Table<F> {
    /// What limits the jobs of a pool from now on, if anything.
    pub fn limit(&mut self, pool: &ObjectKey, limits: Option<&Arc<Limits>>) {
        let known = self.ledgers.by_pool.remove(pool);
        let Some(limits) = limits else { return };
        let ledger = match known {
            Some(known) if known.limits() == limits => known,
            Some(known) => {
                let mut changed = known.changed(limits);
                self.of_pool(pool).for_each(|entry| changed.note_as(&known, &entry.job, entry.is_out()));
                changed
            }
            None => {
                let mut new = Ledger::new(limits.clone());
                self.of_pool(pool).for_each(|entry| new.note(&entry.job, entry.is_out()));
                new
            }
        };
        self.ledgers.is_stirred |= ledger.is_stirred();
        self.ledgers.by_pool.insert(pool.clone(), ledger);
    }

    /// Whether it is to be found out when jobs of a pool were released that are over. No permit is given before
    /// [`Table::releases_known`].
    pub fn lacks_releases(&self, pool: &ObjectKey) -> bool {
        self.ledgers.by_pool.get(pool).is_some_and(|ledger| !ledger.is_complete())
    }

    /// A job is over. When it was released may count still under the limits of its pool.
    pub fn note_over(&mut self, job: &Job) {
        let pool = ObjectKey { namespace: job.key.namespace.clone(), name: job.spec.pool.clone() };
        if let Some(ledger) = self.ledgers.by_pool.get_mut(&pool) {
            ledger.note_over(job);
        }
    }

    /// The last attempt of a job is over. It may slow down others under the limits of its pool.
    pub fn note_last(&mut self, job: &Job, past: &PastAttempt) {
        let pool = ObjectKey { namespace: job.key.namespace.clone(), name: job.spec.pool.clone() };
        if let Some(ledger) = self.ledgers.by_pool.get_mut(&pool) {
            ledger.note_last(job, past);
        }
    }

    /// All jobs of a pool that are over and may count still were noted.
    pub fn releases_known(&mut self, pool: &ObjectKey) {
        if let Some(ledger) = self.ledgers.by_pool.get_mut(pool) {
            ledger.complete();
            self.ledgers.is_stirred = true;
        }
    }

    /// How a job stands under the limits of its pool.
    pub fn permit(&self, key: &ObjectKey, now: Timestamp) -> Permit {
        let entry = self.get(key).filter(|_| !self.ledgers.by_pool.is_empty());
        let ledger = entry.and_then(|entry| self.ledgers.by_pool.get(&*entry.lane));
        ledger.map_or(Permit::Free, |ledger| ledger.permit(&key.name, now))
    }

    /// A job asks for a permit. Answers which jobs get one now.
    pub fn ask_for_permit(&mut self, key: &ObjectKey, now: Timestamp) -> Vec<(Lane, ObjectKey)> {
        let Some(pool) = self.get(key).map(|entry| entry.lane.clone()) else { return Vec::new() };
        let Some(ledger) = self.ledgers.by_pool.get_mut(&*pool) else { return Vec::new() };
        ledger.ask(&key.name);
        self.give_permits(&pool, now)
    }

    /// Which jobs get a permit now, of all pools in which there may be room.
    pub fn give_due_permits(&mut self, now: Timestamp) -> Vec<(Lane, ObjectKey)> {
        self.ledgers.is_stirred = false;
        let due = self.ledgers.by_pool.iter().filter(|(_, ledger)| ledger.is_due(now));
        let due: Vec<ObjectKey> = due.map(|(pool, _)| pool.clone()).collect();
        due.iter().flat_map(|pool| self.give_permits(pool, now)).collect()
    }

    fn give_permits(&mut self, pool: &ObjectKey, now: Timestamp) -> Vec<(Lane, ObjectKey)> {
        let Some(ledger) = self.ledgers.by_pool.get_mut(pool) else { return Vec::new() };
        let given = ledger.give(now).into_iter();
        let keys = given.map(|name| ObjectKey { namespace: pool.namespace.clone(), name });
        keys.filter_map(|key| self.get(&key).map(Entry::turn_of)).collect()
    }

    /// Whether a job may get a permit that could not before, whatever the time.
    pub fn is_any_permit_due(&self) -> bool {
        self.ledgers.is_stirred
    }

    /// When that is so next, unless something else happens before.
    pub fn permits_due_at(&self) -> Option<Timestamp> {
        self.ledgers.by_pool.values().filter_map(Ledger::again).min()
    }
}
