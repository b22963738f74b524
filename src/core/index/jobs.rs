//! Which jobs a pool has, what they add up to, and which Pod was seen with which job.
//!
//! Every figure is counted along with each change, so that a look at a pool costs the same with ten jobs and with
//! 100,000, and no look at one pool touches the jobs of another.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::id::ObjectKey;

/// Places that a set may keep when it is empty.
const EMPTY: usize = 64;

/// What one unfinished job adds to the figures of its pool.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is counted on its own")]
pub struct Share {
    /// Name of the pool, in the job's namespace.
    pub pool: Arc<str>,
    /// Hard limit that the job sets itself.
    pub hard_limit: Option<Duration>,
    /// Whether an attempt was published, as far as is known.
    pub is_begun: bool,
    /// Whether its message waits in a queue.
    pub is_queued: bool,
    /// Whether its message waits or a worker has it, or may, as Redis was not read yet or not often enough.
    pub is_outstanding: bool,
    /// Whether its message was looked for in vain: a worker may have popped it.
    pub is_missed: bool,
    /// When that message was published, where it is known.
    pub published_at: Option<Timestamp>,
    /// Whether it waits because a run would be in vain.
    pub is_futile: bool,
    /// What it waits for, from the closed list of reasons.
    pub waits_for: Option<&'static str>,
    /// Whether Redis must be read before anything is decided.
    pub is_unread: bool,
    /// Whether the whole object is kept until its first enqueue.
    pub is_fresh: bool,
    /// The worker that has its message.
    pub node: Option<Arc<str>>,
    /// The Pod of that worker, where it is known.
    pub busy_pod: Option<Arc<str>>,
    /// The Pod that was last seen with it, or the host of that worker's name: the job is looked at when it changes.
    pub seen_pod: Option<Arc<str>>,
}

/// The jobs of one pool.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PoolJobs {
    names: HashSet<Arc<str>>,
    unread: HashSet<Arc<str>>,
    /// How many jobs set which hard limit.
    hard_limits: BTreeMap<Duration, usize>,
    /// How many waiting messages were published in which second.
    waiting: BTreeMap<i64, usize>,
    /// How many wait for what.
    waits_for: BTreeMap<&'static str, usize>,
    /// How many messages which worker has.
    nodes: HashMap<Arc<str>, usize>,
    pods: HashMap<Arc<str>, usize>,
    begun: usize,
    queued: usize,
    outstanding: usize,
    missed: usize,
    futile: usize,
    fresh: usize,
}

/// The jobs of all pools.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Index {
    pools: HashMap<ObjectKey, PoolJobs>,
    /// Names of the jobs that a Pod was last seen with.
    seen: HashMap<ObjectKey, HashSet<Arc<str>>>,
}

impl Index {
    /// A job came (`before` is `None`), changed, or went (`after` is `None`).
    pub fn change(&mut self, job: &ObjectKey, before: Option<&Share>, after: Option<&Share>) {
        if before == after {
            return;
        }
        if let Some(share) = before {
            self.take(job, share);
        }
        if let Some(share) = after {
            self.add(job, share);
        }
    }

    fn add(&mut self, job: &ObjectKey, share: &Share) {
        let pool = ObjectKey { namespace: job.namespace.clone(), name: share.pool.clone() };
        self.pools.entry(pool).or_default().add(&job.name, share);
        if let Some(pod) = &share.seen_pod {
            let pod = ObjectKey { namespace: job.namespace.clone(), name: pod.clone() };
            self.seen.entry(pod).or_default().insert(job.name.clone());
        }
    }

    fn take(&mut self, job: &ObjectKey, share: &Share) {
        let pool = ObjectKey { namespace: job.namespace.clone(), name: share.pool.clone() };
        if let Some(jobs) = self.pools.get_mut(&pool) {
            jobs.take(&job.name, share);
            if jobs.names.is_empty() {
                self.pools.remove(&pool);
            }
        }
        if let Some(pod) = &share.seen_pod {
            let pod = ObjectKey { namespace: job.namespace.clone(), name: pod.clone() };
            if let Some(jobs) = self.seen.get_mut(&pod) {
                jobs.remove(&job.name);
                if jobs.is_empty() {
                    self.seen.remove(&pod);
                }
            }
        }
    }

    /// The jobs of a pool; `None` when it has none.
    pub fn pool(&self, pool: &ObjectKey) -> Option<&PoolJobs> {
        self.pools.get(pool)
    }

    /// How many jobs wait for what, by the pool that they ask for, whether it exists or not.
    pub fn waiting(&self) -> impl Iterator<Item = (&ObjectKey, &'static str, usize)> {
        self.pools
            .iter()
            .flat_map(|(pool, jobs)| jobs.waits_for.iter().map(move |(reason, count)| (pool, *reason, *count)))
    }

    /// Names of the pools that jobs of this namespace ask for, whether they exist or not.
    pub fn pools_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a ObjectKey> {
        self.pools.keys().filter(move |pool| &*pool.namespace == namespace)
    }

    /// Names of the jobs that this Pod was last seen with.
    pub fn seen_with(&self, pod: &ObjectKey) -> impl Iterator<Item = &Arc<str>> {
        self.seen.get(pod).into_iter().flatten()
    }

    /// Names of the jobs of this namespace that any Pod was seen with.
    pub fn seen_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<str>> {
        self.seen.iter().filter(move |(pod, _)| &*pod.namespace == namespace).flat_map(|(_, jobs)| jobs)
    }
}

impl PoolJobs {
    fn add(&mut self, job: &Arc<str>, share: &Share) {
        self.names.insert(job.clone());
        if share.is_unread {
            self.unread.insert(job.clone());
        }
        share.hard_limit.into_iter().for_each(|limit| *self.hard_limits.entry(limit).or_default() += 1);
        share.waits_since().into_iter().for_each(|second| *self.waiting.entry(second).or_default() += 1);
        share.waits_for.into_iter().for_each(|reason| *self.waits_for.entry(reason).or_default() += 1);
        share.node.iter().for_each(|node| *self.nodes.entry(node.clone()).or_default() += 1);
        share.busy_pod.iter().for_each(|pod| *self.pods.entry(pod.clone()).or_default() += 1);
        self.begun += usize::from(share.is_begun);
        self.queued += usize::from(share.is_queued);
        self.outstanding += usize::from(share.is_outstanding);
        self.missed += usize::from(share.is_missed);
        self.futile += usize::from(share.is_futile);
        self.fresh += usize::from(share.is_fresh);
    }

    fn take(&mut self, job: &Arc<str>, share: &Share) {
        self.names.remove(job);
        self.unread.remove(job);
        if self.unread.is_empty() && self.unread.capacity() > EMPTY {
            self.unread = HashSet::new(); // all jobs of a pool are unread for a moment
        }
        share.hard_limit.into_iter().for_each(|limit| one_less_of(&mut self.hard_limits, &limit));
        share.waits_since().into_iter().for_each(|second| one_less_of(&mut self.waiting, &second));
        share.waits_for.into_iter().for_each(|reason| one_less_of(&mut self.waits_for, &reason));
        share.node.iter().for_each(|node| one_less(&mut self.nodes, node));
        share.busy_pod.iter().for_each(|pod| one_less(&mut self.pods, pod));
        self.begun -= usize::from(share.is_begun);
        self.queued -= usize::from(share.is_queued);
        self.outstanding -= usize::from(share.is_outstanding);
        self.missed -= usize::from(share.is_missed);
        self.futile -= usize::from(share.is_futile);
        self.fresh -= usize::from(share.is_fresh);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Their names.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.names.iter()
    }

    /// Names of those of which Redis must be read before anything is decided.
    pub fn unread(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.unread.iter()
    }

    /// The longest hard limit that any of them sets.
    pub fn hard_limit(&self) -> Option<Duration> {
        self.hard_limits.last_key_value().map(|(limit, _)| *limit)
    }

    /// When the message was published that waits longest, to the second.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.waiting.first_key_value().and_then(|(second, _)| Timestamp::from_second(*second).ok())
    }

    /// How many workers have a message of theirs.
    pub fn busy_workers(&self) -> usize {
        self.nodes.len()
    }

    /// The Pods that have a message of theirs.
    pub fn busy_pods(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pods.keys()
    }

    /// How many were published, as far as is known.
    pub fn begun(&self) -> usize {
        self.begun
    }

    /// How many wait in a queue, as far as is known.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// How many have a message that waits or that a worker has, as far as is known.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// How many messages were looked for in vain.
    pub fn missed(&self) -> usize {
        self.missed
    }

    /// How many wait because a run would be in vain.
    pub fn futile(&self) -> usize {
        self.futile
    }

    /// How many are kept whole until their first enqueue.
    pub fn fresh(&self) -> usize {
        self.fresh
    }
}

impl Share {
    fn waits_since(&self) -> Option<i64> {
        self.published_at.filter(|_| self.is_queued).map(Timestamp::as_second)
    }
}

fn one_less<K: Hash + Eq>(counts: &mut HashMap<K, usize>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}

fn one_less_of<K: Ord>(counts: &mut BTreeMap<K, usize>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}
