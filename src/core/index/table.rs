//! The unfinished jobs: stubs of what was declared and recorded, and what was seen of each.

mod arrive;
mod entry;
mod leave;
mod ledgers;
mod look_up;
mod permits;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::super::evidence::{Document, Evidence};
use super::super::id::{AttemptId, ObjectKey, TaskId};
use super::super::job::Job;
use super::super::status::Status;
use super::jobs::{Index, PoolJobs};
use super::last::Last;
use super::names::Names;
pub use arrive::Applied;
use entry::is_newer;
pub use entry::{Entry, Lane};
pub use leave::Stray;
use ledgers::Ledgers;
pub use look_up::{LookUp, LookedUp};

/// Bytes of results that are held until their statuses are written; the others are read again then.
const TEXTS: usize = 8 << 20;
/// Jobs that are remembered to be over, so that what the watch still says of them is no news: more than end while it
/// is behind.
const OVER: usize = 4096;

/// The jobs by name and by the task of the attempt in hand. `F` is a handle of a whole object.
#[derive(Debug)]
pub struct Table<F> {
    /// In boxes: a hash table keeps up to half of its places empty, and each would be as large as an entry.
    by_key: HashMap<ObjectKey, Box<Entry<F>>>,
    by_task: HashMap<TaskId, ObjectKey>,
    index: Index,
    /// Of the pools that have limits.
    ledgers: Ledgers,
    names: Names,
    lanes: HashMap<ObjectKey, Lane>,
    /// The jobs that were over last, by UID.
    over: Last<Uuid>,
    fresh: usize,
    versions: u64,
    /// Bytes of results in the entries' evidence.
    texts: usize,
}

/// What was heard of an attempt in hand, and noted.
#[derive(Debug)]
pub struct Heard {
    /// What asks for a look at its job.
    pub turn: (Lane, ObjectKey),
    /// Whether Redis must be read before anything is decided.
    pub is_unread: bool,
}

fn key(namespace: &Arc<str>, name: &Arc<str>) -> ObjectKey {
    ObjectKey { namespace: namespace.clone(), name: name.clone() }
}

impl<F> Default for Table<F> {
    fn default() -> Self {
        Self::remembering(OVER)
    }
}

impl<F> Table<F> {
    /// An empty table that remembers so many jobs to be over.
    pub fn remembering(over: usize) -> Self {
        Self {
            by_key: HashMap::new(),
            by_task: HashMap::new(),
            index: Index::default(),
            ledgers: Ledgers::default(),
            names: Names::default(),
            lanes: HashMap::new(),
            over: Last::new(over),
            fresh: 0,
            versions: 0,
            texts: 0,
        }
    }

    /// Number of unfinished jobs.
    pub fn live(&self) -> usize {
        self.by_key.len()
    }

    /// The job of that name.
    pub fn get(&self, key: &ObjectKey) -> Option<&Entry<F>> {
        self.by_key.get(key).map(|entry| &**entry)
    }

    /// The unfinished job that has this attempt in hand: its namespace, its pool, and the attempt.
    pub fn in_hand(&self, task: TaskId) -> Option<(Arc<str>, Arc<str>, AttemptId)> {
        let job = &self.by_key.get(self.by_task.get(&task)?)?.job;
        Some((job.key.namespace.clone(), job.spec.pool.clone(), job.attempt_in_hand()))
    }

    /// The unfinished job that has this attempt in hand.
    pub fn of_task(&self, task: TaskId) -> Option<&Entry<F>> {
        self.get(self.by_task.get(&task)?)
    }

    /// Whether this is the attempt in hand of an unfinished job of that namespace.
    pub fn is_in_hand(&self, namespace: &str, task: TaskId) -> bool {
        self.by_task.get(&task).is_some_and(|key| &*key.namespace == namespace)
    }

    /// The figures of a pool; `None` when it has no jobs.
    pub fn figures(&self, pool: &ObjectKey) -> Option<&PoolJobs> {
        self.index.pool(pool)
    }

    /// How many jobs wait for what, by the pool that they ask for, whether it exists or not.
    pub fn waiting(&self) -> impl Iterator<Item = (&ObjectKey, &'static str, usize)> {
        self.index.waiting()
    }

    /// The jobs of a pool.
    pub fn of_pool(&self, pool: &ObjectKey) -> impl Iterator<Item = &Entry<F>> {
        let names = self.index.pool(pool).into_iter().flat_map(PoolJobs::names);
        names.filter_map(|name| self.get(&key(&pool.namespace, name)))
    }

    /// The jobs of a pool of which Redis must be read before anything is decided.
    pub fn unread_of(&self, pool: &ObjectKey) -> impl Iterator<Item = &Entry<F>> {
        let names = self.index.pool(pool).into_iter().flat_map(PoolJobs::unread);
        names.filter_map(|name| self.get(&key(&pool.namespace, name)))
    }

    /// The pools that jobs of this namespace ask for, whether they exist or not.
    pub fn pools_of(&self, namespace: &str) -> Vec<ObjectKey> {
        self.index.pools_of(namespace).cloned().collect()
    }

    /// The jobs of a namespace that any Pod was seen with.
    pub fn seen_in<'a>(&'a self, namespace: &'a Arc<str>) -> impl Iterator<Item = &'a Entry<F>> {
        self.index.seen_in(namespace).filter_map(|name| self.get(&key(namespace, name)))
    }

    /// The jobs that this Pod was last seen with, whether it still has them or not.
    pub fn seen_with(&self, pod: &ObjectKey) -> impl Iterator<Item = &Entry<F>> {
        self.index.seen_with(pod).filter_map(|name| self.get(&key(&pod.namespace, name)))
    }

    fn lane(&mut self, job: &Job) -> Lane {
        let pool = ObjectKey { namespace: job.key.namespace.clone(), name: job.spec.pool.clone() };
        self.lanes.entry(pool.clone()).or_insert_with(|| Arc::new(pool)).clone()
    }

    /// Drops the lane of a pool that has no jobs any more.
    fn forget_lane(&mut self, pool: &ObjectKey) {
        if self.index.pool(pool).is_none() {
            self.lanes.remove(pool);
        }
    }

    /// Changes a job, and counts along what that changes. `change` says whether it was news about the attempt in hand.
    fn change(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Entry<F>) -> bool) {
        let Some(entry) = self.by_key.get_mut(key) else { return };
        let (before, task, was_fresh) = (entry.share(), entry.job.attempt_in_hand().task, entry.fresh.is_some());
        self.texts -= entry.evidence.text_bytes();
        if change(entry) {
            self.versions += 1;
            entry.evidence_version = self.versions;
        }
        if self.texts + entry.evidence.text_bytes() > TEXTS {
            entry.evidence.drop_text();
        }
        self.texts += entry.evidence.text_bytes();
        self.fresh -= usize::from(was_fresh && entry.fresh.is_none());
        let now = entry.job.attempt_in_hand().task;
        if task != now {
            self.by_task.remove(&task);
            self.by_task.insert(now, key.clone());
        }
        self.index.change(key, Some(&before), Some(&entry.share()));
        self.ledgers.change(key, Some(&before.pool), Some(&**entry));
        if before.pool != entry.job.spec.pool {
            self.forget_lane(&ObjectKey { namespace: key.namespace.clone(), name: before.pool });
        }
    }

    /// Notes something about the attempt in hand.
    pub fn note(&mut self, key: &ObjectKey, note: impl FnOnce(&Job, &mut Evidence)) {
        self.change(key, |entry| {
            note(&entry.job, &mut entry.evidence);
            true
        });
    }

    /// Notes something about the attempt that this job had in hand, if it is still in hand.
    pub fn learn(&mut self, job: &Job, what: impl FnOnce(&mut Evidence)) {
        let of = job.attempt_in_hand().task;
        let is_in_hand = |entry: &Entry<F>| entry.job.uid == job.uid && entry.job.attempt_in_hand().task == of;
        if self.get(&job.key).is_some_and(is_in_hand) {
            self.note(&job.key, |_, evidence| what(evidence.about(of)));
        }
    }

    /// The workers were asked to stop the attempt that this job had in hand. That says nothing of where its message is: what
    /// is being read meanwhile counts. Else a job that is asked again at each news of it would overtake every audit.
    pub fn stop_asked(&mut self, job: &Job, now: Timestamp) {
        let of = job.attempt_in_hand().task;
        self.change(&job.key, |entry| {
            if entry.job.uid == job.uid && entry.job.attempt_in_hand().task == of {
                entry.evidence.about(of).stop_asked(now);
            }
            false
        });
    }

    /// What the dead worker of a job has stored was read, and whether its message is in flight, when this was known of the
    /// job. What came since counts for more.
    pub fn death_checked(&mut self, before: &Entry<F>, document: Option<Document>, is_in_flight: bool) {
        let key = &before.job.key;
        if self.get(key).is_some_and(|now| now.evidence_version == before.evidence_version) {
            self.note(key, |_, evidence| evidence.death_checked(document, is_in_flight));
        }
    }

    /// A status was written. What another writer has written since is known already, or another job may have the name.
    pub fn recorded(&mut self, job: &Job, version: &Arc<str>, status: &Status) {
        let is_newest = |entry: &Entry<F>| entry.job.uid == job.uid && is_newer(version, &entry.version);
        if self.get(&job.key).is_some_and(is_newest) {
            self.update(&job.key, |entry| {
                entry.version = version.clone();
                entry.job.status = status.clone();
            });
        }
    }

    /// Notes what was heard of a task; `None` when no unfinished job has it in hand.
    pub fn hear(&mut self, task: TaskId, note: impl FnOnce(&Job, &mut Evidence)) -> Option<Heard> {
        let key = self.by_task.get(&task)?.clone();
        self.note(&key, note);
        let entry = self.get(&key)?;
        Some(Heard { turn: entry.turn_of(), is_unread: entry.evidence.is_unread() })
    }

    /// Notes something about the attempts in hand of those jobs of a pool that `of` selects.
    pub fn note_all(&mut self, pool: &ObjectKey, of: impl Fn(&Entry<F>) -> bool, note: impl Fn(&mut Evidence)) {
        let jobs: Vec<ObjectKey> = self.of_pool(pool).filter(|it| of(it)).map(|it| it.job.key.clone()).collect();
        for key in jobs {
            self.note(&key, |_, evidence| note(evidence));
        }
    }

    /// Changes an entry in place. The attempt in hand may change with it; then nothing is known of the new one but that
    /// we have not published it.
    pub fn update(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Entry<F>)) {
        self.change(key, |entry| {
            let before = entry.job.attempt_in_hand().task;
            change(entry);
            let after = entry.job.attempt_in_hand().task;
            if before != after {
                entry.evidence = Evidence::unsent(after);
            }
            before != after
        });
    }
}
