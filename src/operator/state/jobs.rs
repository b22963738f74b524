//! The unfinished jobs: stubs of what was declared and recorded, and what was seen of each.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use kube::api::ObjectMeta;
use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::backoff::Stumble;
use super::ended::Ended;
use super::queue::WorkQueue;
use crate::api::CrewJob;
use crate::core::evidence::Evidence;
use crate::core::id::{AttemptId, ObjectKey, TaskId};
use crate::core::index::{Index, Limits, Names, PoolJobs, Share};
use crate::core::job::Job;
use crate::core::status::host_of;

/// Whole objects that are kept until their first enqueue, so that a new job is not read a second time.
const FRESH: usize = 680;
/// A pool keeps no more of them than so many times those that may still be kept: alone 510, and with a pool that has
/// many beside it at least as many as those leave room for.
const FRESH_PART: usize = 3;
/// Jobs that are looked at side by side: of one pool, which a slow Redis may hold up, and of all pools.
const LIMITS: Limits = Limits { all: 1024, lane: 32 };
/// Bytes that the inputs of a whole object may take in memory for it to be kept.
const SMALL: u32 = 6 << 10;
/// Bytes of results that are held until their statuses are written; the others are read again then.
const TEXTS: usize = 8 << 20;
/// Jobs that are remembered to be over, so that what the watch still says of them is no news: more than end while it
/// is behind.
const OVER: usize = 4096;

/// The pool whose turn it is when a job is looked at, whether it exists or not.
pub type Lane = Arc<ObjectKey>;

/// The unfinished jobs, and the queue of those to look at.
pub struct Jobs {
    table: Mutex<Table>,
    /// Jobs to look at. [`Jobs::look_at`] and [`Jobs::look_at_later`] put them there.
    pub queue: WorkQueue<Lane, ObjectKey>,
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
    pub stumble: Option<Box<Stumble>>,
    /// Bytes that its inputs take in memory while a message is made of them.
    pub weight: u32,
    /// The object as it was created, until its first enqueue.
    pub fresh: Option<Arc<CrewJob>>,
    lane: Lane,
}

/// The jobs by name and by the task of the attempt in hand.
#[derive(Default)]
pub struct Table {
    /// In boxes: a hash table keeps up to half of its places empty, and each would be as large as an entry.
    by_key: HashMap<ObjectKey, Box<Entry>>,
    by_task: HashMap<TaskId, ObjectKey>,
    index: Index,
    names: Names,
    lanes: HashMap<ObjectKey, Lane>,
    over: Over,
    fresh: usize,
    turns: u64,
    /// Bytes of results in the entries' evidence.
    texts: usize,
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

impl Default for Jobs {
    fn default() -> Self {
        Self {
            table: Mutex::default(),
            queue: WorkQueue::new(LIMITS),
            ended: Ended::default(),
            listed: CancellationToken::new(),
        }
    }
}

impl Jobs {
    /// The table. Never held across an await.
    pub fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// Looks at a job as soon as its pool has its turn. Not while the table is locked.
    pub fn look_at(&self, key: &ObjectKey) {
        let lane = self.lock().by_key.get(key).map(|entry| entry.lane.clone());
        if let Some(lane) = lane {
            self.queue.now(lane, key.clone());
        }
    }

    /// Looks at a job at this time, or sooner if something else asks for it. Not while the table is locked.
    pub fn look_at_later(&self, key: &ObjectKey, at: Timestamp) {
        let lane = self.lock().by_key.get(key).map(|entry| entry.lane.clone());
        if let Some(lane) = lane {
            self.queue.at(lane, key.clone(), at);
        }
    }

    /// Looks at these jobs.
    pub fn look_at_all(&self, of: impl FnOnce(&Table) -> Vec<(Lane, ObjectKey)>) {
        let jobs = of(&self.lock());
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
        self.look_at_all(|table| {
            let keys = table.index.seen_in(namespace).map(|job| key(namespace, job));
            keys.filter_map(|key| table.get(&key)).map(Entry::turn_of).collect()
        });
    }

    /// Notes what was heard of a task, and looks at its job. Whether Redis must be read first.
    pub fn hear(&self, task: TaskId, note: impl FnOnce(&Job, &mut Evidence)) -> bool {
        let mut table = self.lock();
        let Some(key) = table.by_task.get(&task).cloned() else { return false };
        table.note(&key, note);
        let heard = table.get(&key).map(|entry| (entry.turn_of(), entry.evidence.is_unread()));
        drop(table);
        let Some(((lane, key), is_unread)) = heard else { return false };
        self.queue.now(lane, key);
        is_unread
    }
}

fn key(namespace: &Arc<str>, name: &Arc<str>) -> ObjectKey {
    ObjectKey { namespace: namespace.clone(), name: name.clone() }
}

impl Entry {
    /// What asks for a look at it.
    pub fn turn_of(&self) -> (Lane, ObjectKey) {
        (self.lane.clone(), self.job.key.clone())
    }

    /// What it adds to the figures of its pool.
    fn share(&self) -> Share {
        let (job, evidence) = (&self.job, &self.evidence);
        let has = evidence.holder_now();
        let seen_pod = evidence.holder().map(|seen| match &seen.container {
            Some(container) => container.pod.clone(),
            None => host_of(&seen.node).into(),
        });
        Share {
            pool: job.spec.pool.clone(),
            hard_limit: job.spec.overrides.as_ref().and_then(|overrides| overrides.hard),
            is_begun: job.status.attempt.is_some() || evidence.is_published(),
            is_queued: evidence.is_queued(),
            is_missed: has.is_none() && evidence.misses().is_some(),
            published_at: evidence.published_at(),
            is_unread: evidence.is_unread(),
            is_fresh: self.fresh.is_some(),
            node: has.map(|holder| holder.node.clone()),
            busy_pod: has.and_then(|holder| holder.container.as_ref()).map(|container| container.pod.clone()),
            seen_pod,
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

    /// The unfinished job that has this attempt in hand.
    pub fn of_task(&self, task: TaskId) -> Option<&Entry> {
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

    /// The jobs of a pool.
    pub fn of_pool(&self, pool: &ObjectKey) -> impl Iterator<Item = &Entry> {
        let names = self.index.pool(pool).into_iter().flat_map(PoolJobs::names);
        names.filter_map(|name| self.get(&key(&pool.namespace, name)))
    }

    /// The jobs of a pool of which Redis must be read before anything is decided.
    pub fn unread_of(&self, pool: &ObjectKey) -> impl Iterator<Item = &Entry> {
        let names = self.index.pool(pool).into_iter().flat_map(PoolJobs::unread);
        names.filter_map(|name| self.get(&key(&pool.namespace, name)))
    }

    /// The pools that jobs of this namespace ask for, whether they exist or not.
    pub fn pools_of(&self, namespace: &str) -> Vec<ObjectKey> {
        self.index.pools_of(namespace).cloned().collect()
    }

    /// The jobs that this Pod was last seen with, whether it still has them or not.
    pub fn seen_with(&self, pod: &ObjectKey) -> impl Iterator<Item = &Entry> {
        self.index.seen_with(pod).filter_map(|name| self.get(&key(&pod.namespace, name)))
    }

    /// Takes an object from a watch or a GET. A job that is met for the first time after the first list, and that no
    /// status says was enqueued, is known not to be on Redis; all others are unread.
    pub fn apply(&mut self, mut job: Job, version: Arc<str>, object: CrewJob, listing: bool) -> Applied {
        self.names.share(&mut job.key.namespace);
        self.names.share(&mut job.spec.pool);
        self.names.share(&mut job.spec.task);
        job.spec.queue.iter_mut().chain(&mut job.status.queue).for_each(|queue| self.names.share(queue));
        let key = job.key.clone();
        match self.by_key.get(&key) {
            Some(known) if known.job.uid == job.uid => {
                if !is_newer(&version, &known.version) {
                    return Applied::Stale;
                }
                self.renew(&key, job, version, weight(&object));
                Applied::Changed
            }
            Some(_) => {
                let old = self.remove(&key);
                self.insert(job, version, object, listing);
                old.map_or(Applied::Changed, Applied::Replaced)
            }
            None if self.over.jobs.contains(&job.uid) => Applied::Stale,
            None => {
                self.insert(job, version, object, listing);
                Applied::Changed
            }
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

    fn insert(&mut self, job: Job, version: Arc<str>, object: CrewJob, listing: bool) {
        let new = !listing && job.status.attempt.is_none() && job.status.attempts == 0;
        let of = job.attempt_in_hand().task;
        let mut evidence = if new { Evidence::unsent(of) } else { Evidence::none(of) };
        evidence.recall(&job.status);
        let lane = self.lane(&job);
        let kept = self.index.pool(&lane).map_or(0, PoolJobs::fresh);
        let has_room = kept < FRESH.saturating_sub(self.fresh) * FRESH_PART;
        let weight = weight(&object);
        let fresh = (new && has_room && weight <= SMALL).then(|| Arc::new(essence(object)));
        self.fresh += usize::from(fresh.is_some());
        self.turns += 1;
        let key = job.key.clone();
        self.by_task.insert(of, key.clone());
        let entry =
            Entry { job, version, evidence, turn: self.turns, closing: false, stumble: None, weight, fresh, lane };
        self.index.change(&key, None, Some(&entry.share()));
        self.by_key.insert(key, Box::new(entry));
    }

    /// Keeps what is left of a deleted job until it is taken off Redis.
    pub fn keep(&mut self, job: Job, evidence: Evidence) {
        let (key, lane) = (job.key.clone(), self.lane(&job));
        self.turns += 1;
        self.by_task.insert(job.attempt_in_hand().task, key.clone());
        let (turn, version) = (self.turns, "".into());
        let entry = Entry { job, version, evidence, turn, closing: false, stumble: None, weight: 0, fresh: None, lane };
        self.index.change(&key, None, Some(&entry.share()));
        self.by_key.insert(key, Box::new(entry));
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
    fn change(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Entry) -> bool) {
        let Some(entry) = self.by_key.get_mut(key) else { return };
        let (before, task, was_fresh) = (entry.share(), entry.job.attempt_in_hand().task, entry.fresh.is_some());
        self.texts -= entry.evidence.text_bytes();
        if change(entry) {
            self.turns += 1;
            entry.turn = self.turns;
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

    /// Notes something about the attempts in hand of those jobs of a pool that `of` selects.
    pub fn note_all(&mut self, pool: &ObjectKey, of: impl Fn(&Entry) -> bool, note: impl Fn(&mut Evidence)) {
        let jobs: Vec<ObjectKey> = self.of_pool(pool).filter(|it| of(it)).map(|it| it.job.key.clone()).collect();
        for key in jobs {
            self.note(&key, |_, evidence| note(evidence));
        }
    }

    /// Changes an entry in place. The attempt in hand may change with it; then nothing is known of the new one but that
    /// we have not published it.
    pub fn update(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Entry)) {
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

    /// Drops a job that is over or gone; no job ever comes back from there.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Box<Entry>> {
        let entry = self.by_key.remove(key)?;
        self.index.change(key, Some(&entry.share()), None);
        self.forget_lane(&entry.lane);
        self.texts -= entry.evidence.text_bytes();
        self.fresh -= usize::from(entry.fresh.is_some());
        self.by_task.remove(&entry.job.attempt_in_hand().task);
        if !key.is_deleted() {
            self.over.remember(entry.job.uid);
        }
        Some(entry)
    }

    /// The same, if it still is this job: another one may have taken its name.
    pub fn remove_job(&mut self, key: &ObjectKey, uid: Uuid) -> Option<Box<Entry>> {
        self.get(key).filter(|entry| entry.job.uid == uid)?;
        self.remove(key)
    }

    /// The same for an object that has ended: takes out the job, or an older one of its name that was deleted.
    pub fn remove_ended(&mut self, key: &ObjectKey, uid: Uuid, version: &str) -> Option<Box<Entry>> {
        self.get(key).filter(|entry| entry.job.uid == uid || is_newer(version, &entry.version))?;
        self.remove(key)
    }

    /// The jobs that a list did not contain.
    pub fn missing_from(&self, listed: &HashSet<ObjectKey>) -> Vec<(Lane, ObjectKey)> {
        let missing = self.by_key.iter().filter(|(key, _)| !key.is_deleted() && !listed.contains(*key));
        missing.map(|(_, entry)| entry.turn_of()).collect()
    }
}

fn weight(object: &CrewJob) -> u32 {
    u32::try_from(object.spec.weight()).unwrap_or(u32::MAX)
}

/// What of a whole object is needed to publish its first message.
fn essence(object: CrewJob) -> CrewJob {
    let ObjectMeta { name, namespace, uid, .. } = object.metadata;
    CrewJob { metadata: ObjectMeta { name, namespace, uid, ..ObjectMeta::default() }, spec: object.spec, status: None }
}

/// Resource versions of one kind are comparable as numbers since Kubernetes 1.35, and always were in practice; one that
/// is no number is taken as news.
fn is_newer(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version > than,
        _ => version != than,
    }
}
