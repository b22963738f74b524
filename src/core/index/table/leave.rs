//! Where a job leaves the table.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use super::super::super::evidence::{Evidence, Mark};
use super::super::super::id::{ObjectKey, SpecHash, TaskId};
use super::super::super::job::{Job, Spec};
use super::super::super::milestones::Told;
use super::super::super::status::{Attempt, Phase, Status, Why};
use super::{Entry, Lane, Table};

impl<F> Table<F> {
    /// Drops a job that is over or gone; no job ever comes back from there.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Box<Entry<F>>> {
        let entry = self.by_key.remove(key)?;
        self.index.change(key, Some(&entry.share()), None);
        self.ledgers.change::<F>(key, Some(&entry.job.spec.pool), None);
        self.forget_lane(&entry.lane);
        self.texts -= entry.evidence.text_bytes();
        self.fresh -= usize::from(entry.fresh.is_some());
        self.by_task.remove(&entry.job.attempt_in_hand().task);
        if !key.is_deleted() {
            self.over.remember(entry.job.uid, ());
        }
        Some(entry)
    }

    /// The same, if it still is this job: another one may have taken its name.
    pub fn remove_job(&mut self, key: &ObjectKey, uid: Uuid) -> Option<Box<Entry<F>>> {
        self.get(key).filter(|entry| entry.job.uid == uid)?;
        self.remove(key)
    }

    /// The jobs that a list did not contain.
    pub fn missing_from(&self, listed: &HashSet<ObjectKey>) -> Vec<(Lane, ObjectKey)> {
        let missing = self.by_key.iter().filter(|(key, _)| !key.is_deleted() && !listed.contains(*key));
        missing.map(|(_, entry)| entry.turn_of()).collect()
    }

    /// Keeps what is left of a deleted job until it is taken off Redis. Its result belongs to nothing.
    pub fn keep(&mut self, job: Job, mut evidence: Evidence) {
        if self.by_key.contains_key(&job.key) {
            return;
        }
        evidence.drop_text();
        let (key, lane) = (job.key.clone(), self.lane(&job));
        self.versions += 1;
        self.by_task.insert(job.attempt_in_hand().task, key.clone());
        let (evidence_version, version) = (self.versions, "".into());
        let entry = Entry {
            job,
            version,
            evidence,
            evidence_version,
            closing: false,
            consecutive_errors: None,
            weight: 0,
            fresh: None,
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

impl<F> Entry<F> {
    /// What is left of a job that was deleted before its end: one attempt, which is brought to its end as that of a
    /// cancelled job is. `None` when nothing of it can be on Redis.
    pub fn remains(self) -> Option<(Job, Evidence)> {
        let Self { mut job, mut evidence, .. } = self;
        let id = job.attempt_in_hand();
        // Its message may be on its way while its object goes. What was read before that tells nothing.
        if job.status.why.is_released() && job.status.attempt.is_none() && !evidence.is_published() {
            let enqueued_at = job.status.released_at.as_deref().copied().unwrap_or(job.created_at);
            let attempt = Attempt { number: id.number, generation: id.generation, enqueued_at, started_at: None };
            let (phase, why, spec_hash) = (Phase::Queued, Why::Enqueued, Some(job.spec.hash));
            job.status = Status { phase, why, attempt: Some(attempt), spec_hash, ..job.status };
            evidence = Evidence::none(id.task);
        }
        let is_out = job.status.attempt.is_some() || evidence.is_out() || evidence.is_published();
        job.key = job.key.deleted(id.task);
        job.spec.cancel = true;
        is_out.then_some((job, evidence))
    }
}

/// An attempt that a marker on Redis names, and that is in hand of no job any more.
#[derive(Debug, Clone)]
pub struct Stray {
    /// Its job, which has ended, was deleted, or has another attempt in hand.
    pub job: ObjectKey,
    /// UID of that job.
    pub uid: Uuid,
    /// Number of the attempt.
    pub number: u32,
    /// The pool on whose Redis it is.
    pub pool: Arc<str>,
    /// The queue that it was published to.
    pub queue: Option<Arc<str>>,
    /// What its marker says.
    pub mark: Mark,
}

impl Stray {
    /// It as a job of its own, which is cancelled. `None` when the marker does not name this task.
    pub fn into_job(self, task: TaskId) -> Option<Job> {
        let Self { job, uid, number, pool, queue, mark } = self;
        let attempt = Attempt { number, generation: mark.generation, enqueued_at: mark.at, started_at: None };
        let job = Job {
            key: job.deleted(task),
            uid,
            created_at: mark.at,
            spec: Spec {
                generation: 0,
                pool,
                queue: queue.clone(),
                task: "".into(),
                priority: mark.priority,
                overrides: None,
                suspend: false,
                cancel: true,
                run_once: None,
                dedup: None,
                hash: mark.spec.unwrap_or(SpecHash([0; 16])),
                invalid: None,
            },
            labels: Box::default(),
            cause: None,
            status: Status {
                phase: Phase::Queued,
                why: Why::Enqueued,
                attempt: Some(attempt),
                queue,
                spec_hash: mark.spec,
                ..Status::default()
            },
        };
        Some(job).filter(|job| job.attempt_in_hand().task == task)
    }
}
