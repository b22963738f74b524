//! The unfinished jobs: stubs of what was declared and recorded, and what was seen of each.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::late::Ended;
use super::queue::WorkQueue;
use crate::api::CrewJob;
use crate::core::evidence::Evidence;
use crate::core::job::{AttemptId, Job, ObjectKey, TaskId};

/// Whole objects that are kept until their first enqueue, so that a new job is not read a second time.
const FRESH: usize = 512;
/// Jobs that are remembered to be over, so that what the watch still says of them is no news: more than end while it
/// is behind.
const OVER: usize = 4096;

/// The unfinished jobs, and the queue of those to look at.
#[derive(Default)]
pub struct Jobs {
    table: Mutex<Table>,
    /// Jobs to look at.
    pub queue: WorkQueue<ObjectKey>,
    /// Jobs that ended without a result.
    pub ended: Ended,
    /// Cancelled when all are known.
    pub listed: CancellationToken,
}

/// One unfinished job.
#[derive(Clone)]
pub struct Entry {
    /// What was declared and what was last recorded.
    pub job: Job,
    /// `metadata.resourceVersion` of that.
    pub version: Arc<str>,
    /// What is known of the attempt in hand.
    pub evidence: Evidence,
    /// Changes with every change of `evidence`: a slow reading of levels does not overwrite what came later.
    pub turn: u64,
    /// Its end is being written: the watch will say that it is gone, and that is no news.
    pub closing: bool,
    /// Failures of the operator itself in a row.
    pub stumbles: u32,
    /// The object as it was created, until its first enqueue.
    pub fresh: Option<Arc<CrewJob>>,
}

/// The jobs by name and by the task of the attempt in hand.
#[derive(Default)]
pub struct Table {
    /// In boxes: a hash table keeps up to half of its places empty, and each would be as large as an entry.
    by_key: HashMap<ObjectKey, Box<Entry>>,
    by_task: HashMap<TaskId, ObjectKey>,
    over: Over,
    fresh: usize,
    turns: u64,
}

/// The jobs that were over last, by UID.
#[derive(Default)]
struct Over {
    jobs: HashSet<Uuid>,
    order: VecDeque<Uuid>,
}

impl Over {
    fn remember(&mut self, job: Uuid) {
        if self.jobs.insert(job) {
            self.order.push_back(job);
        }
        if self.order.len() > OVER
            && let Some(oldest) = self.order.pop_front()
        {
            self.jobs.remove(&oldest);
        }
    }
}

/// What became of an object that a watch delivered.
#[derive(Debug)]
pub enum Applied {
    /// It is news.
    Changed,
    /// It is older than what is known.
    Stale,
    /// It took the place of a deleted job of the same name.
    Replaced(Box<Entry>),
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("job", &self.job.key).field("evidence", &self.evidence).finish_non_exhaustive()
    }
}

impl Jobs {
    /// The table. Never held across an await.
    pub fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what was heard of a task, and looks at its job. Whether Redis must be read first.
    pub fn hear(&self, task: TaskId, note: impl FnOnce(&Job, &mut Evidence)) -> bool {
        let mut table = self.lock();
        let Some(key) = table.by_task.get(&task).cloned() else { return false };
        table.note(&key, note);
        let is_unread = table.get(&key).is_some_and(|entry| entry.evidence.is_unread());
        drop(table);
        self.queue.now(key);
        is_unread
    }

    /// Looks at every job that `of` selects.
    pub fn look_at(&self, of: impl Fn(&Entry) -> bool) {
        let keys: Vec<ObjectKey> = {
            let table = self.lock();
            table.iter().filter(|entry| of(entry)).map(|entry| entry.job.key.clone()).collect()
        };
        for key in keys {
            self.queue.now(key);
        }
    }
}

impl Table {
    /// Number of unfinished jobs.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The job of that name.
    pub fn get(&self, key: &ObjectKey) -> Option<&Entry> {
        self.by_key.get(key).map(|entry| &**entry)
    }

    /// The unfinished job that has this attempt in hand: its namespace, its pool, and the attempt.
    pub fn in_hand(&self, task: TaskId) -> Option<(Arc<str>, Arc<str>, AttemptId)> {
        let job = &self.by_key.get(self.by_task.get(&task)?)?.job;
        Some((job.key.namespace.clone(), job.spec.pool.clone(), job.attempt_in_hand()))
    }

    /// Whether this is the attempt in hand of an unfinished job of that namespace.
    pub fn is_in_hand(&self, namespace: &str, task: TaskId) -> bool {
        self.by_task.get(&task).is_some_and(|key| &*key.namespace == namespace)
    }

    /// All jobs.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.by_key.values().map(|entry| &**entry)
    }

    /// Takes an object from a watch or a GET. A job that is met for the first time after the first list, and that no
    /// status says was enqueued, is known not to be on Redis; all others are unread.
    pub fn apply(&mut self, job: Job, version: Arc<str>, object: CrewJob, listing: bool) -> Applied {
        let key = job.key.clone();
        if let Some(known) = self.by_key.get_mut(&key) {
            if known.job.uid == job.uid {
                if !is_newer(&version, &known.version) {
                    return Applied::Stale;
                }
                let before = known.job.attempt_in_hand();
                let is_foreign = known.job.status != job.status;
                known.job = job;
                known.version = version;
                if known.fresh.take().is_some() {
                    self.fresh -= 1;
                }
                let after = known.job.attempt_in_hand();
                if before.task != after.task {
                    self.by_task.remove(&before.task);
                    self.by_task.insert(after.task, key.clone());
                }
                if before.task != after.task || is_foreign {
                    // Somebody else has acted: what was read before is stale.
                    self.note(&key, |job, evidence| {
                        evidence.about(after.task).unread();
                        evidence.recall(&job.status);
                    });
                }
                return Applied::Changed;
            }
            let old = self.remove(&key);
            self.insert(job, version, object, listing);
            return old.map_or(Applied::Changed, Applied::Replaced);
        }
        if self.over.jobs.contains(&job.uid) {
            return Applied::Stale;
        }
        self.insert(job, version, object, listing);
        Applied::Changed
    }

    fn insert(&mut self, job: Job, version: Arc<str>, object: CrewJob, listing: bool) {
        let new = !listing && job.status.attempt.is_none() && job.status.attempts == 0;
        let of = job.attempt_in_hand().task;
        let mut evidence = if new { Evidence::unsent(of) } else { Evidence::none(of) };
        evidence.recall(&job.status);
        let fresh = (new && self.fresh < FRESH).then(|| Arc::new(object));
        self.fresh += usize::from(fresh.is_some());
        self.turns += 1;
        let key = job.key.clone();
        self.by_task.insert(of, key.clone());
        let entry = Entry { job, version, evidence, turn: self.turns, closing: false, stumbles: 0, fresh };
        self.by_key.insert(key, Box::new(entry));
    }

    /// Notes something about the attempt in hand.
    pub fn note(&mut self, key: &ObjectKey, note: impl FnOnce(&Job, &mut Evidence)) {
        self.turns += 1;
        if let Some(entry) = self.by_key.get_mut(key) {
            note(&entry.job, &mut entry.evidence);
            entry.turn = self.turns;
        }
    }

    /// Notes something about the attempts in hand of all jobs that `of` selects.
    pub fn note_all(&mut self, of: impl Fn(&Entry) -> bool, note: impl Fn(&mut Evidence)) {
        self.turns += 1;
        for entry in self.by_key.values_mut().filter(|entry| of(entry)) {
            note(&mut entry.evidence);
            entry.turn = self.turns;
        }
    }

    /// Changes an entry in place. The attempt in hand may change with it; then nothing is known of the new one but that
    /// we have not published it.
    pub fn update(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.by_key.get_mut(key) else { return };
        let before = entry.job.attempt_in_hand().task;
        let had_fresh = entry.fresh.is_some();
        change(entry);
        self.fresh -= usize::from(had_fresh && entry.fresh.is_none());
        let after = entry.job.attempt_in_hand().task;
        if before != after {
            self.by_task.remove(&before);
            self.by_task.insert(after, key.clone());
            self.note(key, |_, evidence| *evidence = Evidence::unsent(after));
        }
    }

    /// Drops a job that is over or gone; no job ever comes back from there.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Box<Entry>> {
        let entry = self.by_key.remove(key)?;
        self.fresh -= usize::from(entry.fresh.is_some());
        self.by_task.remove(&entry.job.attempt_in_hand().task);
        self.over.remember(entry.job.uid);
        Some(entry)
    }

    /// The jobs that a list did not contain.
    pub fn missing_from(&self, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
        self.by_key.keys().filter(|key| !listed.contains(*key)).cloned().collect()
    }
}

/// Resource versions of one kind are comparable as numbers since Kubernetes 1.35, and always were in practice; one that
/// is no number is taken as news.
fn is_newer(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version > than,
        _ => version != than,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply(table: &mut Table, uid: u128, version: u64) -> Applied {
        let uid = Uuid::from_u128(uid);
        let metadata = json!({
            "name": "job", "namespace": "team", "uid": uid.to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
            "resourceVersion": version.to_string(),
        });
        let object: CrewJob =
            serde_json::from_value(json!({ "metadata": metadata, "spec": { "topic": "t" } })).unwrap();
        table.apply(object.to_job().unwrap(), version.to_string().into(), object, false)
    }

    #[test]
    fn what_the_watch_says_late_of_a_job_that_is_over_brings_it_not_back() {
        let mut table = Table::default();
        assert!(matches!(apply(&mut table, 1, 10), Applied::Changed));
        assert!(matches!(apply(&mut table, 1, 9), Applied::Stale));
        table.remove(&ObjectKey::new("team", "job")).unwrap();
        assert!(matches!(apply(&mut table, 1, 11), Applied::Stale), "it would be published as a new job");
        assert_eq!(table.len(), 0);
        assert!(matches!(apply(&mut table, 2, 12), Applied::Changed), "another one of its name is news");
    }

    #[test]
    fn so_many_jobs_are_remembered_to_be_over_and_no_more() {
        let mut over = Over::default();
        for uid in 0..=OVER as u128 {
            over.remember(Uuid::from_u128(uid));
        }
        assert_eq!((over.jobs.len(), over.order.len()), (OVER, OVER));
        assert!(!over.jobs.contains(&Uuid::from_u128(0)) && over.jobs.contains(&Uuid::from_u128(1)));
    }
}
