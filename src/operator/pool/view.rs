//! What a look at a pool's load has seen.

use std::time::Duration;

use jiff::Timestamp;

use crate::core::eviction::Eviction;
use crate::core::id::ObjectKey;
use crate::core::index::pods::DeploymentView;
use crate::core::policy::Policy;
use crate::core::scale::Scaling;
use crate::core::start::Blocked;
use crate::operator::context::Context;
use crate::operator::state::pool::Handle;

/// The workers of a pool, as its status shows them.
#[derive(Default)]
pub struct View {
    pub(super) deployment: Option<ObjectKey>,
    pub(super) known: Option<DeploymentView>,
    /// Whether Deployments and Pods have not been listed yet: what is said of them stays.
    pub(super) unlisted: bool,
    pub(super) ready: u32,
    /// How many tasks they can run at once.
    pub(super) slots: u64,
    /// Since when they take nothing although they could.
    pub(super) stalled_since: Option<Timestamp>,
    pub(super) scaling: Option<Scaling>,
    /// Whether Redis drops keys when it is full.
    pub(super) eviction: Option<Eviction>,
    /// The same of the Redis that has the results, where that is another database.
    pub(super) results_eviction: Option<Eviction>,
    /// A pool that consumes one of the queues too, and which.
    pub(super) shared: Option<(ObjectKey, String)>,
    /// What keeps workers from starting.
    pub(super) blocked: Option<Blocked>,
    pub(super) hard_limit: Duration,
}

/// What the pool's jobs add up to, counted along with every change.
pub struct Census {
    /// The longest hard limit.
    pub(super) hard_limit: Duration,
    /// Workers that have a task.
    pub(super) busy: usize,
    /// When the job was published that waits longest.
    pub(super) oldest: Option<Timestamp>,
    /// Jobs that have a message which waits or which a worker has.
    pub(super) outstanding: u64,
    /// Messages that are in no queue and that no worker says it has.
    pub(super) missed: u64,
    /// Whether a job waits for a worker that is set up otherwise.
    pub(super) wants_other_worker: bool,
}

impl Census {
    /// As the table of jobs has it now.
    pub fn take(ctx: &Context, pool: &Handle) -> Self {
        let declared = Policy::resolve(None, &pool.facts.defaults).hard;
        let table = ctx.jobs.lock();
        let Some(figures) = table.figures(&pool.key) else {
            return Self {
                hard_limit: declared,
                busy: 0,
                oldest: None,
                outstanding: 0,
                missed: 0,
                wants_other_worker: false,
            };
        };
        let hard_limit = declared.max(figures.hard_limit().unwrap_or_default());
        Self {
            hard_limit,
            busy: figures.busy_workers(),
            oldest: figures.oldest(),
            outstanding: figures.outstanding() as u64,
            missed: figures.missed() as u64,
            wants_other_worker: figures.futile() > 0,
        }
    }
}
