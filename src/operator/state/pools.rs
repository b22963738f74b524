//! The pools there are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio_util::sync::CancellationToken;

use super::pool::Handle;
use crate::api::OnWorkerUnreachable;
use crate::core::id::{ObjectKey, TaskId};
use crate::core::index::LookUp;
use crate::core::index::pods::Fleet;
use crate::core::job::Job;
use crate::core::observed::Pool;
use crate::runtime::admin::State as Ready;
use crate::store::{MarkerId, Store, Wanted};

/// How many pools that do not work `/readyz` names.
const SHOWN: usize = 20;
/// For how long at most an operator that has just started is not ready because of pools that were not looked at yet.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);

/// Whether an operator that begins to lead has looked at the load of each pool, and has scaled its workers.
///
/// It is ready only then: what waits for it to be ready (`helm --wait`, whose watch of all resources fails when one of
/// them changes just after the last has become ready) sees the workers as the operator has scaled them.
#[derive(Debug)]
pub struct Settling {
    since: Instant,
    is_over: AtomicBool,
}

impl Settling {
    /// Begins now, or is over where the process has been ready before.
    pub fn new(has_been_ready: bool) -> Self {
        Self { since: Instant::now(), is_over: AtomicBool::new(has_been_ready) }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) || self.since.elapsed() > SETTLES_WITHIN
    }
}

/// All pools by name.
#[derive(Default)]
pub struct Pools {
    by_key: RwLock<HashMap<ObjectKey, Arc<Handle>>>,
    /// Cancelled when all are known that there were when this operator began to lead.
    pub listed: CancellationToken,
}

impl Pools {
    pub fn read(&self) -> RwLockReadGuard<'_, HashMap<ObjectKey, Arc<Handle>>> {
        self.by_key.read()
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, HashMap<ObjectKey, Arc<Handle>>> {
        self.by_key.write()
    }

    /// The pool of that name.
    pub fn get(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<Arc<Handle>> {
        self.read().get(&ObjectKey { namespace: namespace.clone(), name: name.clone() }).cloned()
    }

    /// The names of all pools.
    pub fn keys(&self) -> HashSet<ObjectKey> {
        self.read().keys().cloned().collect()
    }

    /// Whether there is a pool of that name.
    pub fn contains(&self, key: &ObjectKey) -> bool {
        self.read().contains_key(key)
    }

    /// The pool as the jobs of its namespace see it.
    pub fn view(&self, namespace: &Arc<str>, name: &Arc<str>) -> Pool {
        if let Some(pool) = self.get(namespace, name) {
            return pool.view();
        }
        let mut existing: Vec<Arc<str>> =
            self.read().keys().filter(|key| key.namespace == *namespace).map(|key| key.name.clone()).collect();
        existing.sort();
        Pool::Missing { existing }
    }

    /// How long finished jobs of the pool are kept, unless they say otherwise.
    pub fn default_ttl(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<Duration> {
        self.get(namespace, name).and_then(|pool| pool.facts.defaults.ttl)
    }

    /// The pool's Redis, when it works.
    pub fn store(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<Store> {
        self.get(namespace, name).and_then(|pool| pool.store())
    }

    /// What `/readyz` says of them. A pool's Redis concerns its own tenant only.
    pub fn state(&self, settling: &Settling) -> Ready {
        let pools = self.read();
        if !settling.is_over() {
            let awaited = pools.values().filter(|pool| pool.is_settling());
            let awaited: Vec<String> = awaited.take(SHOWN).map(|pool| pool.key.to_string()).collect();
            if !awaited.is_empty() {
                return Ready::Missing(format!("looking at the load for the first time: {}", awaited.join("; ")));
            }
            if self.listed.is_cancelled() {
                settling.is_over.store(true, Ordering::Relaxed);
            }
        }
        let broken: Vec<String> = pools
            .values()
            .filter_map(|pool| pool.problem().map(|problem| format!("{}: {}", pool.key, problem.kind.reason())))
            .collect();
        if broken.is_empty() {
            return Ready::Ready(format!("{} connected", pools.len()));
        }
        let more = broken.len().saturating_sub(SHOWN);
        let more = (more > 0).then(|| format!("and {more} more"));
        Ready::Degraded(broken.into_iter().take(SHOWN).chain(more).collect::<Vec<_>>().join("; "))
    }

    /// Another pool that consumes a queue of this one on the same Redis, and which queue; always the same of several.
    pub fn sharing(&self, pool: &Handle) -> Option<(ObjectKey, String)> {
        let place = pool.place()?;
        let pools = self.read();
        // Queues are compared first: each pool asks this of all others every other second.
        let shared = pools.values().filter(|other| other.key != pool.key).filter_map(|other| {
            let names = |name: &str| other.spec.queues.iter().any(|queue| queue.name == name);
            let queue = pool.spec.queues.iter().find(|queue| names(&queue.name))?;
            (other.place().as_ref() == Some(&place)).then(|| (other.key.clone(), queue.name.clone()))
        });
        shared.min_by(|(a, _), (b, _)| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)))
    }

    /// Something was published: workers may be needed now.
    pub fn published(&self, namespace: &Arc<str>, name: &Arc<str>) {
        if let Some(pool) = self.get(namespace, name) {
            pool.publications.fetch_add(1, Ordering::Relaxed);
            pool.load.notify_one();
        }
    }

    /// Something may be wrong that a look at the pool's load finds out.
    pub fn look_at_load(&self, namespace: &Arc<str>, name: &Arc<str>) {
        if let Some(pool) = self.get(namespace, name) {
            pool.load.notify_one();
        }
    }

    /// Some job of the pool is unread.
    pub fn read_levels(&self, namespace: &Arc<str>, name: &Arc<str>) {
        if let Some(pool) = self.get(namespace, name) {
            pool.levels.notify_one();
        }
    }

    /// Something can only be told by looking for every message and asking every worker.
    pub fn audit(&self, namespace: &Arc<str>, name: &Arc<str>) {
        if let Some(pool) = self.get(namespace, name) {
            pool.audit.notify_one();
        }
    }

    /// Pods of a namespace have changed.
    pub fn refresh_workers(&self, namespace: &str) {
        for pool in self.read().values().filter(|pool| &*pool.key.namespace == namespace) {
            pool.workers.notify_one();
        }
    }

    /// Deployments of a namespace have changed.
    pub fn refresh_namespace(&self, namespace: &str) {
        for pool in self.read().values().filter(|pool| &*pool.key.namespace == namespace) {
            pool.load.notify_one();
        }
    }

    /// Where the workers of a pool run.
    pub fn fleet(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<Fleet> {
        self.get(namespace, name).and_then(|pool| pool.fleet.clone())
    }

    /// Whether the tasks of a worker whose Node does not answer are run again elsewhere.
    pub fn restarts_unreachable(&self, namespace: &Arc<str>, name: &Arc<str>) -> bool {
        self.get(namespace, name).is_some_and(|pool| pool.spec.on_worker_unreachable == OnWorkerUnreachable::Restart)
    }

    /// The message of a task cannot be named by its bytes: it is to be looked for in the queues, together with others.
    pub fn sweep(&self, job: &Job, task: TaskId, wanted: Wanted) {
        if let Some(pool) = self.get(&job.key.namespace, &job.spec.pool) {
            pool.sweep(MarkerId::new(job.key.namespace.clone(), task), wanted);
        }
    }

    /// An attempt is over and recorded: its marker goes, soon and together with others.
    pub fn forget(&self, job: &Job, task: TaskId) {
        if let Some(pool) = self.get(&job.key.namespace, &job.spec.pool) {
            pool.forget([MarkerId::new(job.key.namespace.clone(), task)]);
        }
    }

    /// A message is to be looked up on its pool's Redis, soon and together with others.
    pub fn look_up(&self, job: &Job, it: LookUp) {
        if let Some(pool) = self.get(&job.key.namespace, &job.spec.pool) {
            pool.look_up(it);
        }
    }

    /// The same for one that was stopped: first every copy of its message is taken off the queues.
    pub fn clear(&self, job: &Job, task: TaskId) {
        if let Some(pool) = self.get(&job.key.namespace, &job.spec.pool) {
            pool.clear(MarkerId::new(job.key.namespace.clone(), task));
        }
    }

    /// Something was published that no job stands behind.
    pub fn look_for_strays(&self, namespace: &Arc<str>, name: &Arc<str>) {
        if let Some(pool) = self.get(namespace, name) {
            pool.strays.notify_one();
        }
    }

    /// Whether another pool of the namespace serves this queue, and this one does not.
    pub fn is_left_to_another(&self, pool: &ObjectKey, queue: &str) -> bool {
        let serves = |it: &Handle| it.facts.queues.iter().any(|name| &**name == queue);
        let pools = self.read();
        let mut others = pools.values().filter(|it| it.key.namespace == pool.namespace && it.key != *pool);
        !pools.get(pool).is_some_and(|it| serves(it)) && others.any(|it| serves(it))
    }

    /// Whether there is any pool in this namespace.
    pub fn is_any_in(&self, namespace: &str) -> bool {
        self.read().keys().any(|key| &*key.namespace == namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CrewWorkerPool;
    use crate::core::status::{PoolProblem, PoolProblemKind};

    fn pool(name: &str) -> (ObjectKey, Arc<Handle>) {
        let key = ObjectKey::new("team-a", name);
        let spec = serde_json::from_value(serde_json::json!({ "redis": { "secretName": "redis" } })).unwrap();
        (key.clone(), Arc::new(Handle::new(key, &CrewWorkerPool::new(name, spec))))
    }

    fn is_ready(pools: &Pools, settling: &Settling) -> bool {
        !matches!(pools.state(settling), Ready::Missing(_))
    }

    #[test]
    fn an_operator_that_starts_is_ready_when_it_has_looked_at_each_pool_that_can_be_looked_at_once() {
        let (pools, settling) = (Pools::default(), Settling::new(false));
        pools.state(&settling); // asked before any pool is known
        let (key, looked_at) = pool("works");
        pools.write().insert(key, looked_at.clone());
        let (key, broken) = pool("broken");
        pools.write().insert(key, broken.clone());
        pools.listed.cancel();
        let unready = |kind| {
            broken.set(Some(PoolProblem { kind, detail: "so".into() }), None);
            !is_ready(&pools, &settling)
        };
        assert!(unready(PoolProblemKind::Connecting));
        looked_at.looked_at.store(true, Ordering::Relaxed);
        assert!(unready(PoolProblemKind::BrokerUnreachable), "its Redis may only be starting");
        let state = pools.state(&settling);
        assert_eq!(state, Ready::Missing("looking at the load for the first time: team-a/broken".into()));
        assert!(!unready(PoolProblemKind::SecretInvalid), "waiting would not help");
        assert!(!unready(PoolProblemKind::BrokerUnreachable), "later it concerns this tenant only");
    }

    #[test]
    fn readiness_waits_for_no_pool_longer_than_twenty_seconds_and_for_none_after_a_change_of_leadership() {
        let pools = Pools::default();
        let (key, unreachable) = pool("unreachable");
        pools.write().insert(key, unreachable);
        assert!(is_ready(&pools, &Settling::new(true)));
        let Some(since) = Instant::now().checked_sub(SETTLES_WITHIN + Duration::from_secs(1)) else { return };
        assert!(is_ready(&pools, &Settling { since, is_over: AtomicBool::new(false) }));
    }
}
