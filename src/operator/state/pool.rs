//! One pool: what it is asked to do, what it did last, and how its jobs see it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::former::Former;
use super::nodes::Nodes;
use super::shared_pods::SharedPods;
use crate::api::{CrewWorkerPool, CrewWorkerPoolSpec, CrewWorkerPoolStatus, RedisStatus, TAKE_REPLICAS};
use crate::core::claims::clocks::Clocks;
use crate::core::id::{ObjectKey, TaskId};
use crate::core::index::LookUp;
use crate::core::index::pods::Fleet;
use crate::core::observed::{Pool, PoolFacts};
use crate::core::policy::Policy;
use crate::core::setup::Futile;
use crate::core::start::Blocked;
use crate::core::status::{PoolProblem, PoolProblemKind};
use crate::runtime::metrics::PoolLabels;
use crate::store::{MarkerId, Queue, Store, Wanted};

/// How often the jobs of a pool are told another text of the same problem.
const DETAILS_EVERY: Duration = Duration::from_mins(1);
/// How much sooner than it may be a result is taken for expired: two audits, and what clocks may differ.
const AUDIT_MARGIN: Duration = Duration::from_mins(3);
/// For how long at least a worker that is no Pod may be busy and say nothing.
const UNKNOWN_FOR: Duration = Duration::from_hours(1);

/// A pool that is being served, as others reach it.
pub struct Handle {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation` of the spec.
    pub generation: i64,
    /// What was declared.
    pub spec: CrewWorkerPoolSpec,
    /// What its jobs may know, as the spec says it.
    pub facts: Arc<PoolFacts>,
    /// Where its workers run; `None` where Kubernetes does not tell.
    pub fleet: Option<Fleet>,
    /// The workers that were heard of.
    pub nodes: Nodes,
    /// The Pods whose workers have said that deleting them would end other tasks.
    pub shared: SharedPods,
    /// Asks for a look at the load.
    pub load: Notify,
    /// The same, after Pods have changed: many do at once, so it is not done for each.
    pub workers: Notify,
    /// Asks for a reading of the levels of unread jobs.
    pub levels: Notify,
    /// Asks for a full audit.
    pub audit: Notify,
    /// Asks for a look for attempts without a job.
    pub strays: Notify,
    /// Asks for [`Handle::take_markers_to_delete`].
    pub markers_to_delete: Notify,
    /// Asks for [`Handle::take_look_ups`].
    pub look_ups: Notify,
    /// Says that a worker has started.
    pub started: Notify,
    /// Asks for [`Handle::take_errands`].
    pub sweep: Notify,
    /// Ends everything that serves this pool.
    pub stop: CancellationToken,
    state: RwLock<State>,
    /// When the last full audit began, and when the one before.
    audits: Mutex<(Option<Timestamp>, Option<Timestamp>)>,
    /// How many messages were put on its queues by this operator.
    pub publications: AtomicU64,
    finished: Mutex<Vec<MarkerId>>,
    to_look_up: Mutex<HashMap<TaskId, LookUp>>,
    errands: Mutex<Errands>,
    /// Of tasks that have replaced themselves, the ids of those that they go on by.
    followers: Mutex<HashMap<TaskId, Vec<Arc<str>>>>,
    clocks: Mutex<Clocks>,
    /// Whether the load was looked at, and the workers scaled to it, since this operator leads.
    pub looked_at: AtomicBool,
    /// When a worker was last heard of working, in milliseconds since 1970; 0 when none was.
    heard_at: AtomicI64,
    /// When a worker was last heard of at all.
    worker_heard_at: AtomicI64,
    /// The annotation that asks to take the replicas back: what it says, and what it said when that was last done.
    taking: Mutex<(Option<String>, Option<String>)>,
    /// The status that was last written.
    reported: Mutex<Option<CrewWorkerPoolStatus>>,
}

/// What a pass through the queues is for.
#[derive(Default)]
pub struct Errands {
    /// Messages that cannot be named by their bytes, and what is to become of them.
    pub wanted: HashMap<MarkerId, Wanted>,
    /// Markers that go when their messages have.
    pub over: Vec<MarkerId>,
}

struct State {
    /// The server that answers.
    run_id: Option<Arc<str>>,
    /// The Redis that was used under an earlier spec.
    left: Option<Store>,
    /// The Redis that the Secret named before.
    former: Option<Former>,
    /// The Redis that was connected to last.
    redis: Option<RedisStatus>,
    problem: Option<PoolProblem>,
    /// The problem as the pool's jobs know it, and since when they do.
    told: Option<PoolProblem>,
    told_at: Option<Instant>,
    store: Option<Store>,
    /// The facts, with what keeps workers from starting.
    facts: Arc<PoolFacts>,
}

impl Handle {
    /// For how long a worker that is no Pod may be busy, have a message that it has not begun, and say nothing.
    pub fn longest_silence(&self) -> Duration {
        Policy::resolve(None, &self.facts.defaults).hard.max(UNKNOWN_FOR)
    }

    /// A pool that is not connected yet.
    pub fn new(key: ObjectKey, pool: &CrewWorkerPool) -> Self {
        let spec = pool.spec.clone();
        let blocked = pool.status.as_ref().and_then(CrewWorkerPoolStatus::blocked);
        let futile = pool.status.as_ref().and_then(CrewWorkerPoolStatus::futile).map(Arc::new);
        let facts = PoolFacts { blocked, futile, ..spec.to_facts(&key.name) };
        let facts = Arc::new(facts);
        let problem = PoolProblem { kind: PoolProblemKind::Connecting, detail: "not connected yet".into() };
        let fleet = spec.deployment_ref.as_ref().map(|named| Fleet {
            deployment: ObjectKey::new(key.namespace.clone(), named.name.as_str()),
            container: named.container.as_deref().map(Arc::from),
        });
        Self {
            key,
            fleet,
            nodes: Nodes::default(),
            shared: SharedPods::default(),
            uid: pool.uid().unwrap_or_default(),
            generation: pool.metadata.generation.unwrap_or(0),
            spec,
            facts: facts.clone(),
            load: Notify::new(),
            workers: Notify::new(),
            levels: Notify::new(),
            audit: Notify::new(),
            strays: Notify::new(),
            markers_to_delete: Notify::new(),
            look_ups: Notify::new(),
            sweep: Notify::new(),
            started: Notify::new(),
            clocks: Mutex::default(),
            stop: CancellationToken::new(),
            state: RwLock::new(State {
                run_id: None,
                left: None,
                former: None,
                redis: None,
                told: Some(problem.clone()),
                told_at: None,
                problem: Some(problem),
                store: None,
                facts,
            }),
            audits: Mutex::new((
                pool.status.as_ref().and_then(|status| status.audited_at.as_ref()).map(|at| at.0),
                None,
            )),
            publications: AtomicU64::new(0),
            finished: Mutex::default(),
            to_look_up: Mutex::default(),
            errands: Mutex::default(),
            looked_at: AtomicBool::new(false),
            followers: Mutex::default(),
            heard_at: AtomicI64::new(0),
            worker_heard_at: AtomicI64::new(0),
            taking: Mutex::new((
                take_replicas(pool),
                pool.status.as_ref().and_then(|status| status.replicas_taken_for.clone()),
            )),
            reported: Mutex::default(),
        }
    }

    /// Every unfinished job was compared with Redis, from this time on.
    pub fn audited(&self, began_at: Timestamp) {
        let mut audits = self.audits.lock();
        *audits = (Some(began_at), audits.0);
    }

    /// A worker has begun or finished something.
    pub fn hears_of_work(&self, now: Timestamp) {
        self.heard_at.store(now.as_millisecond(), Ordering::Relaxed);
        self.hears_of_worker(now);
    }

    /// When a worker was last heard of working.
    pub fn heard_of_work_at(&self) -> Option<Timestamp> {
        moment(&self.heard_at)
    }

    /// A worker has said something.
    pub fn hears_of_worker(&self, now: Timestamp) {
        self.worker_heard_at.store(now.as_millisecond(), Ordering::Relaxed);
    }

    /// When a worker was last heard of.
    pub fn worker_heard_at(&self) -> Option<Timestamp> {
        moment(&self.worker_heard_at)
    }

    /// Labels of its metrics.
    pub fn labels(&self) -> PoolLabels {
        PoolLabels { namespace: self.key.namespace.to_string(), pool: self.key.name.to_string() }
    }

    /// The Deployment that the pool scales.
    pub fn deployment(&self) -> Option<ObjectKey> {
        self.fleet.as_ref().map(|fleet| fleet.deployment.clone())
    }

    /// Notes what the annotation says that asks to take the replicas back. Whether that is news.
    pub fn ask_to_take_replicas(&self, asked: Option<String>) -> bool {
        let mut taking = self.taking.lock();
        let is_news = taking.0 != asked;
        taking.0 = asked;
        is_news
    }

    /// What the annotation says that asks to take the replicas back, if that was not done yet.
    pub fn asked_to_take_replicas(&self) -> Option<String> {
        let taking = self.taking.lock();
        taking.0.clone().filter(|asked| taking.1.as_ref() != Some(asked))
    }

    /// The replicas were taken back because the annotation said so.
    pub fn replicas_were_taken_for(&self, asked: String) {
        self.taking.lock().1 = Some(asked);
    }

    /// What the annotation said when the replicas were last taken back.
    pub fn replicas_taken_for(&self) -> Option<String> {
        self.taking.lock().1.clone()
    }

    /// Notes what was written as the status.
    pub fn reported(&self, status: CrewWorkerPoolStatus) {
        *self.reported.lock() = Some(status);
    }

    /// The status that was last written: a watch may be behind it.
    pub fn last_reported(&self) -> Option<CrewWorkerPoolStatus> {
        self.reported.lock().clone()
    }

    /// Start of the audit before last. Everything that an audit found before this time has been acted on.
    pub fn settled_until(&self) -> Option<Timestamp> {
        self.audits.lock().1
    }

    /// The latest time at which an attempt must have been published to have ended, and its result to have expired,
    /// while no operator watched; `None` when one did.
    pub fn unwatched(&self, now: Timestamp) -> Option<Timestamp> {
        let kept = self.facts.result_expires.saturating_sub(AUDIT_MARGIN);
        let expired = now.checked_sub(kept).ok()?;
        self.audits.lock().0.is_some_and(|audited_at| audited_at < expired).then_some(expired)
    }

    /// The pool's queues as Redis names them.
    pub fn queues(&self) -> Vec<Queue> {
        self.spec.queues.iter().map(|queue| Queue::new(queue.name.as_str(), queue.routing_key())).collect()
    }

    /// What keeps it from working.
    pub fn problem(&self) -> Option<PoolProblem> {
        self.state.read().problem.clone()
    }

    /// Whether the first look at its load is still to come: it is not connected yet, or its Redis is only starting.
    pub fn is_settling(&self) -> bool {
        let passes = |kind| matches!(kind, PoolProblemKind::Connecting | PoolProblemKind::BrokerUnreachable);
        !self.looked_at.load(Ordering::Relaxed) && self.problem().is_none_or(|problem| passes(problem.kind))
    }

    /// Its Redis, when it was reached.
    pub fn store(&self) -> Option<Store> {
        let state = self.state.read();
        state.store.clone().filter(|_| state.problem.is_none())
    }

    /// Says that the pool works, or what keeps it from working. Whether that is news.
    pub fn set(&self, problem: Option<PoolProblem>, store: Option<Store>) -> bool {
        let mut state = self.state.write();
        let is_other = |one: &Option<PoolProblem>, other: &Option<PoolProblem>| {
            one.as_ref().map(|it| it.kind) != other.as_ref().map(|it| it.kind)
        };
        let is_late = state.told_at.is_none_or(|at| at.elapsed() >= DETAILS_EVERY);
        // A text that changes with every try would rewrite the status of every job that waits.
        let news = state.told != problem && (is_other(&state.told, &problem) || is_late);
        if news {
            state.told.clone_from(&problem);
            state.told_at = Some(Instant::now());
        }
        state.problem = problem;
        if store.is_some() {
            state.store = store;
        }
        news
    }

    /// The markers to delete since the last call.
    pub fn take_markers_to_delete(&self) -> Vec<MarkerId> {
        std::mem::take(&mut self.finished.lock())
    }

    /// The messages to look up since the last call.
    pub fn take_look_ups(&self) -> Vec<LookUp> {
        std::mem::take(&mut *self.to_look_up.lock()).into_values().collect()
    }

    /// A message is to be looked up, soon and together with others.
    pub fn look_up(&self, it: LookUp) {
        self.to_look_up.lock().insert(it.id.task, it);
        self.look_ups.notify_one();
    }

    /// The clocks of its workers.
    pub fn clocks(&self) -> MutexGuard<'_, Clocks> {
        self.clocks.lock()
    }

    /// What is to be looked for in the queues since the last call, and which markers go afterwards.
    pub fn take_errands(&self) -> Errands {
        std::mem::take(&mut self.errands.lock())
    }

    /// Looks for it in the next pass; what was asked for since counts for more.
    pub fn try_again(&self, errands: Errands) {
        let mut now = self.errands.lock();
        for (id, wanted) in errands.wanted {
            now.wanted.entry(id).or_insert(wanted);
        }
        now.over.extend(errands.over);
        drop(now);
        self.sweep.notify_one();
    }

    /// Says which Redis is used.
    pub fn uses(&self, redis: RedisStatus) {
        self.state.write().redis = Some(redis);
    }

    /// Says which Redis is to be followed although it was left.
    pub fn set_former(&self, former: Option<Former>) {
        self.state.write().former = former;
    }

    /// The Redis that was left, as long as something may run there.
    pub fn former(&self) -> Option<Former> {
        self.state.read().former.clone()
    }

    /// Says which Redis was used under an earlier spec.
    pub fn leaves(&self, left: Option<Store>) {
        self.state.write().left = left;
    }

    /// The Redis that was used under an earlier spec, once.
    pub fn take_left(&self) -> Option<Store> {
        self.state.write().left.take()
    }

    /// Says which server answers, by its `run_id`.
    pub fn is_on(&self, run_id: &Arc<str>) {
        let same = self.state.read().run_id.as_ref() == Some(run_id);
        if !same {
            self.state.write().run_id = Some(run_id.clone());
        }
    }

    /// Server, database and prefix, once it is connected. Two names of one server are one.
    pub fn place(&self) -> Option<(Arc<str>, i64, Option<&str>)> {
        let state = self.state.read();
        let database = state.store.as_ref().filter(|_| state.problem.is_none())?.database();
        Some((state.run_id.clone()?, database, self.spec.celery.global_key_prefix.as_deref()))
    }

    /// Says that this version of the Secret holds what is used.
    pub fn uses_secret(&self, version: &str) {
        if let Some(redis) = &mut self.state.write().redis {
            version.clone_into(&mut redis.secret_version);
        }
    }

    /// The Redis that is used, once it was connected to.
    pub fn redis(&self) -> Option<RedisStatus> {
        self.state.read().redis.clone()
    }

    /// What keeps the workers from starting, as jobs are told.
    pub fn blocked(&self) -> Option<Blocked> {
        self.state.read().facts.blocked.clone()
    }

    /// Says what keeps the workers from starting. Whether that is news.
    pub fn set_blocked(&self, blocked: Option<&Blocked>) -> bool {
        let mut state = self.state.write();
        if state.facts.blocked.as_ref() == blocked {
            return false;
        }
        state.facts = Arc::new(PoolFacts { blocked: blocked.cloned(), ..(*state.facts).clone() });
        true
    }

    /// Why runs would be in vain, as jobs are told.
    pub fn futile(&self) -> Option<Arc<Futile>> {
        self.state.read().facts.futile.clone()
    }

    /// Says why runs would be in vain. Whether that is news: other words for the same are none, as they would rewrite the
    /// status of every job that waits.
    pub fn set_futile(&self, futile: Option<&Futile>) -> bool {
        let mut state = self.state.write();
        let gist = |it: &Futile| (it.kind, it.tasks.clone());
        if state.facts.futile.as_deref().map(gist) == futile.map(gist) {
            return false;
        }
        state.facts = Arc::new(PoolFacts { futile: futile.cloned().map(Arc::new), ..(*state.facts).clone() });
        true
    }

    /// Tasks have replaced themselves by those with these ids. `is_all` where all such tasks of the pool are named.
    pub fn follow(&self, followers: HashMap<TaskId, Vec<Arc<str>>>, is_all: bool) {
        let mut known = self.followers.lock();
        if is_all {
            *known = followers;
        } else {
            known.extend(followers);
        }
    }

    /// The ids of tasks that this one has replaced itself by, as far as they were seen last.
    pub fn followers_of(&self, task: TaskId) -> Vec<Arc<str>> {
        self.followers.lock().get(&task).cloned().unwrap_or_default()
    }

    /// Looks for a message in the next pass through the queues.
    pub fn sweep(&self, marker: MarkerId, wanted: Wanted) {
        self.errands.lock().wanted.insert(marker, wanted);
        self.sweep.notify_one();
    }

    /// Takes every copy of a message off the queues in the next pass, and deletes its marker after that.
    pub fn clear(&self, marker: MarkerId) {
        let mut errands = self.errands.lock();
        errands.wanted.insert(marker.clone(), Wanted::Gone);
        errands.over.push(marker);
        drop(errands);
        self.sweep.notify_one();
    }

    /// Deletes these markers, soon and together with others.
    pub fn forget(&self, over: impl IntoIterator<Item = MarkerId>) {
        self.finished.lock().extend(over);
        self.markers_to_delete.notify_one();
    }

    /// How its jobs see it.
    pub fn view(&self) -> Pool {
        let state = self.state.read();
        state.told.clone().map_or_else(|| Pool::Ready(state.facts.clone()), Pool::Unusable)
    }
}

/// What the annotation says that asks to take the replicas back, as far as the status has room for it.
pub fn take_replicas(pool: &CrewWorkerPool) -> Option<String> {
    pool.annotations().get(TAKE_REPLICAS).map(|asked| asked.chars().take(256).collect())
}

fn moment(millis: &AtomicI64) -> Option<Timestamp> {
    let at = Some(millis.load(Ordering::Relaxed)).filter(|at| *at > 0)?;
    Timestamp::from_millisecond(at).ok()
}
