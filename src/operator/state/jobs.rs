//! The unfinished jobs: [`core::index::Table`](crate::core::index::Table) behind a lock, and the queue of those to look at.

use std::collections::{HashMap, HashSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use jiff::Timestamp;
use kube::api::ObjectMeta;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::queue::WorkQueue;
use crate::api::CrewJob;
use crate::core::evidence::Evidence;
use crate::core::id::{ObjectKey, TaskId};
use crate::core::index::{self, Ended, Lane, Limits};
use crate::core::job::Job;

/// Jobs that are looked at side by side: of one pool, which a slow Redis may hold up, and of all pools.
const LIMITS: Limits = Limits { all: 512, lane: 32 };

/// The unfinished jobs, with whole objects of some new ones.
pub type Table = index::Table<Arc<CrewJob>>;
/// One of them.
pub type Entry = index::Entry<Arc<CrewJob>>;
/// What became of an object that arrived.
pub type Applied = index::Applied<Arc<CrewJob>>;

/// The unfinished jobs, and the queue of those to look at.
pub struct Jobs {
    table: Mutex<Table>,
    /// Jobs to look at. [`Jobs::look_at`] and [`Jobs::look_at_later`] put them there.
    pub queue: WorkQueue<Lane, ObjectKey>,
    ended: Mutex<Ended>,
    /// Says that jobs may get a permit under the limits of their pools that could not before.
    pub permits: Notify,
    /// Jobs that wait for a run-once key, by the job that has it.
    waiters: Mutex<HashMap<ObjectKey, HashSet<ObjectKey>>>,
    /// Cancelled when all are known.
    pub listed: CancellationToken,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            table: Mutex::default(),
            queue: WorkQueue::new(LIMITS),
            ended: Mutex::default(),
            permits: Notify::new(),
            waiters: Mutex::default(),
            listed: CancellationToken::new(),
        }
    }
}

/// The table, locked. When it is unlocked, jobs that may get a permit by what was changed are given one soon.
pub struct Locked<'a> {
    table: MutexGuard<'a, Table>,
    permits: &'a Notify,
}

impl Deref for Locked<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Table {
        &mut self.table
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if self.table.is_any_permit_due() {
            self.permits.notify_one();
        }
    }
}

impl Jobs {
    /// The table. Never held across an await.
    pub fn lock(&self) -> Locked<'_> {
        Locked { table: self.table.lock(), permits: &self.permits }
    }

    /// Jobs that ended without a result.
    pub fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock()
    }

    /// Notes what a job has found out about the one that it waits for, if it waits for one. `note` is told whether that one
    /// will wake it: one that has left meanwhile wakes nothing.
    pub fn found(&self, job: &Job, awaited: Option<ObjectKey>, note: impl FnOnce(&mut Entry, bool)) {
        // First, so that one that leaves from here on finds it.
        if let Some(awaited) = &awaited {
            self.waiters.lock().entry(awaited.clone()).or_default().insert(job.key.clone());
        }
        let mut table = self.lock();
        // A job leaves the table before it wakes those that wait for it.
        let is_awaited = awaited.is_none_or(|awaited| table.get(&awaited).is_some());
        table.update(&job.key, |entry| {
            if entry.job.uid == job.uid {
                note(entry, is_awaited);
            }
        });
    }

    /// A job has ended, or is gone: those that wait for its run-once key ask for it.
    pub fn left(&self, holder: &ObjectKey) {
        let waiters = self.waiters.lock().remove(holder);
        for key in waiters.into_iter().flatten() {
            self.lock().update(&key, |entry| {
                entry.claim = None;
                entry.twins = None;
            });
            self.look_at(&key);
        }
    }

    /// Looks at a job as soon as its pool has its turn. Not while the table is locked.
    pub fn look_at(&self, key: &ObjectKey) {
        let turn = self.lock().get(key).map(Entry::turn_of);
        if let Some((lane, key)) = turn {
            self.queue.now(lane, key);
        }
    }

    /// Looks at a job at this time, or sooner if something else asks for it. Not while the table is locked.
    pub fn look_at_later(&self, key: &ObjectKey, at: Timestamp) {
        let turn = self.lock().get(key).map(Entry::turn_of);
        if let Some((lane, key)) = turn {
            self.queue.at(lane, key, at);
        }
    }

    /// Looks at these jobs.
    pub fn look_at_all(&self, of: impl FnOnce(&mut Table) -> Vec<(Lane, ObjectKey)>) {
        let jobs = of(&mut self.lock());
        for (lane, key) in jobs {
            self.queue.now(lane, key);
        }
    }

    /// Looks at the jobs that this Pod was last seen with.
    pub fn look_at_seen_with(&self, pod: &ObjectKey) {
        self.look_at_all(|table| table.seen_with(pod).map(Entry::turn_of).collect());
    }

    /// Looks at the jobs of a namespace that any Pod was seen with.
    pub fn look_at_seen_in(&self, namespace: &Arc<str>) {
        self.look_at_all(|table| table.seen_in(namespace).map(Entry::turn_of).collect());
    }

    /// A job asks for a permit; those that get one now are looked at.
    pub fn ask_for_permit(&self, key: &ObjectKey, now: Timestamp) {
        self.look_at_all(|table| table.ask_for_permit(key, now));
    }

    /// Gives permits where there is room now, and looks at the jobs that get one. When there is more by itself.
    pub fn give_permits(&self, now: Timestamp) -> Option<Timestamp> {
        let mut next = None;
        self.look_at_all(|table| {
            let given = table.give_due_permits(now);
            next = table.permits_due_at();
            given
        });
        next
    }

    /// Notes what was heard of a task, and looks at its job. Whether Redis must be read first.
    pub fn hear(&self, task: TaskId, note: impl FnOnce(&Job, &mut Evidence)) -> bool {
        let heard = self.lock().hear(task, note);
        heard.is_some_and(|index::Heard { turn: (lane, key), is_unread }| {
            self.queue.now(lane, key);
            is_unread
        })
    }

    /// Takes an object from a watch or a GET.
    pub fn apply(&self, job: Job, version: Arc<str>, object: CrewJob, listing: bool) -> Applied {
        let weight = u32::try_from(object.spec.weight()).unwrap_or(u32::MAX);
        self.lock().apply(job, version, weight, || Arc::new(essence(object)), listing)
    }
}

/// What of a whole object is needed to publish its first message.
fn essence(object: CrewJob) -> CrewJob {
    let ObjectMeta { name, namespace, uid, .. } = object.metadata;
    CrewJob { metadata: ObjectMeta { name, namespace, uid, ..ObjectMeta::default() }, spec: object.spec, status: None }
}

#[cfg(test)]
impl Jobs {
    /// A table with one new job.
    pub fn with_one(namespace: &str, name: &str) -> Self {
        let jobs = Self::default();
        let metadata = serde_json::json!({
            "name": name, "namespace": namespace, "uid": uuid::Uuid::from_u128(1).to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        });
        let object = serde_json::json!({ "metadata": metadata, "spec": { "topic": "t" } });
        let object: CrewJob = serde_json::from_value(object).unwrap();
        jobs.apply(object.to_job().unwrap(), "1".into(), object, false);
        jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::once::Claim;

    #[test]
    fn a_new_job_is_kept_whole_but_for_its_metadata_until_its_first_enqueue() {
        let (jobs, key) = (Jobs::with_one("team", "job"), ObjectKey::new("team", "job"));
        let whole = jobs.lock().get(&key).unwrap().fresh.clone().unwrap();
        assert_eq!((whole.metadata.name.as_deref(), &whole.metadata.creation_timestamp), (Some("job"), &None));
        jobs.lock().update(&key, |entry| entry.fresh = None);
        assert!(jobs.lock().get(&key).unwrap().fresh.is_none());
    }

    #[tokio::test]
    async fn jobs_that_wait_for_a_key_ask_for_it_when_the_job_that_has_it_leaves() {
        let (jobs, key) = (Jobs::with_one("team", "job"), ObjectKey::new("team", "job"));
        let (holder, other) = (ObjectKey::new("team", "holder"), ObjectKey::new("team", "other"));
        let held = Claim::Held { by: "holder".into(), read_at: Timestamp::UNIX_EPOCH };
        let job = jobs.lock().get(&key).unwrap().job.clone();
        jobs.found(&job, Some(holder.clone()), |entry, _| entry.claim = Some(Box::new(held.clone())));
        jobs.left(&other);
        assert_eq!(jobs.lock().get(&key).unwrap().claim(), held);
        jobs.left(&holder);
        assert_eq!(jobs.lock().get(&key).unwrap().claim(), Claim::Unread);
        assert_eq!(jobs.queue.next().await, key);
    }

    #[test]
    fn a_job_is_told_that_the_one_it_would_wait_for_has_left_and_will_not_wake_it() {
        let (jobs, key) = (Jobs::with_one("team", "job"), ObjectKey::new("team", "job"));
        let job = jobs.lock().get(&key).unwrap().job.clone();
        let told = |awaited: Option<ObjectKey>| {
            let mut told = None;
            jobs.found(&job, awaited, |_, is_awaited| told = Some(is_awaited));
            told
        };
        assert_eq!(told(Some(ObjectKey::new("team", "gone"))), Some(false));
        assert_eq!(told(Some(key)), Some(true), "one that is there");
        assert_eq!(told(None), Some(true), "it waits for none");
    }
}
