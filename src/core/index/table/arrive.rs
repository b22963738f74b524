//! Where an object arrives in the table.

use std::sync::Arc;

use super::super::super::evidence::Evidence;
use super::super::super::id::ObjectKey;
use super::super::super::job::Job;
use super::super::super::milestones::Told;
use super::super::jobs::PoolJobs;
use super::entry::is_newer;
use super::{Entry, Table};

/// Whole objects that are kept until their first enqueue, so that a new job is not read a second time.
const FRESH: usize = 680;
/// A pool keeps no more of them than so many times those that may still be kept: alone 510, and with a pool that has
/// many beside it at least as many as those leave room for.
const FRESH_PART: usize = 3;
/// Bytes that the inputs of a whole object may take in memory for it to be kept.
const SMALL: u32 = 6 << 10;

/// What became of an object that a watch delivered.
#[derive(Debug)]
pub enum Applied<F> {
    /// It is news.
    Changed,
    /// It is older than what is known.
    Stale,
    /// It took the place of a deleted job of the same name.
    Replaced(Box<Entry<F>>),
    /// The job has ended, and another writer has recorded that.
    Ended(Box<Entry<F>>),
}

impl<F> Table<F> {
    /// Takes an object from a watch or a GET, of which `whole` makes a handle if it is kept. A job that is met for the
    /// first time after the first list, and that no status says was enqueued, is known not to be on Redis; all others
    /// are unread.
    pub fn apply(
        &mut self,
        mut job: Job,
        version: Arc<str>,
        weight: u32,
        whole: impl FnOnce() -> F,
        listing: bool,
    ) -> Applied<F> {
        if job.status.phase.is_terminal() {
            return self.apply_ended(&job, &version);
        }
        self.names.share(&mut job.key.namespace);
        self.names.share(&mut job.spec.pool);
        self.names.share(&mut job.spec.task);
        for (label, value) in &mut job.labels {
            self.names.share(label);
            self.names.share(value);
        }
        job.spec.queue.iter_mut().chain(&mut job.status.queue).for_each(|queue| self.names.share(queue));
        let key = job.key.clone();
        match self.by_key.get(&key) {
            Some(known) if known.job.uid == job.uid => {
                if !is_newer(&version, &known.version) {
                    return Applied::Stale;
                }
                self.renew(&key, job, version, weight);
                Applied::Changed
            }
            Some(_) => {
                let old = self.remove(&key);
                self.insert(job, version, weight, whole, listing);
                old.map_or(Applied::Changed, Applied::Replaced)
            }
            None if self.over.contains(&job.uid) => Applied::Stale,
            None => {
                self.insert(job, version, weight, whole, listing);
                Applied::Changed
            }
        }
    }

    /// An object that has ended takes out its job, or an older one of its name that was deleted.
    fn apply_ended(&mut self, job: &Job, version: &str) -> Applied<F> {
        let known = self.get(&job.key).map(|entry| (entry.job.uid == job.uid, is_newer(version, &entry.version)));
        match known {
            Some((true, _)) => self.remove(&job.key).map_or(Applied::Stale, Applied::Ended),
            Some((false, true)) => self.remove(&job.key).map_or(Applied::Stale, Applied::Replaced),
            Some((false, false)) | None => Applied::Stale,
        }
    }

    fn renew(&mut self, key: &ObjectKey, job: Job, version: Arc<str>, weight: u32) {
        let lane = self.lane(&job);
        self.change(key, |known| {
            let before = known.job.attempt_in_hand();
            let is_foreign = known.job.status != job.status;
            known.job = job;
            known.version = version;
            known.fresh = None;
            known.weight = weight;
            known.lane = lane;
            let after = known.job.attempt_in_hand();
            if before.task != after.task || is_foreign {
                // Another writer has changed the status: what was read before is stale.
                known.evidence.about(after.task).unread();
                known.evidence.recall(&known.job.status);
                return true;
            }
            false
        });
    }

    fn insert(&mut self, job: Job, version: Arc<str>, weight: u32, whole: impl FnOnce() -> F, listing: bool) {
        let new = !listing && job.status.attempt.is_none() && job.status.attempts == 0;
        let of = job.attempt_in_hand().task;
        let mut evidence = if new { Evidence::unsent(of) } else { Evidence::none(of) };
        evidence.recall(&job.status);
        let lane = self.lane(&job);
        let kept = self.index.pool(&lane).map_or(0, PoolJobs::fresh);
        let has_room = kept < FRESH.saturating_sub(self.fresh) * FRESH_PART;
        let fresh = (new && has_room && weight <= SMALL).then(whole);
        self.fresh += usize::from(fresh.is_some());
        self.versions += 1;
        let key = job.key.clone();
        self.by_task.insert(of, key.clone());
        let entry = Entry {
            job,
            version,
            evidence,
            evidence_version: self.versions,
            closing: false,
            consecutive_errors: None,
            weight,
            fresh,
            claim: None,
            twins: None,
            told: Told::default(),
            lane,
        };
        self.index.change(&key, None, Some(&entry.share()));
        self.ledgers.change(&key, None, Some(&entry));
        self.by_key.insert(key, Box::new(entry));
    }
}
