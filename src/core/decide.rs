//! The whole life of a job on one screen: `(job, what was seen, now)` gives a plan.
//!
//! Nothing here waits, fails or asks: "not yet" is a plan too. What a crash between an effect and the status costs is
//! nothing, because ids are derived and every effect is compare-and-set on the marker's generation.

mod copies;
mod dedup;
mod lost;
mod outcome;
mod permit;
mod stop;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;

use super::account::Count;
use super::expiry::expires_at;
use super::id::{AttemptId, SpecHash};
use super::job::Job;
use super::observed::{Ended, Ending, Held, Holding, Liveness, Observed, Pool, PoolFacts, Search, Task};
use super::once::{self, Claim, Ran};
use super::plan::{Effect, InPlaceOf, Next, Notice, Plan, Publication};
use super::policy::{Overrides, Policy};
use super::status::{
    Account, Attempt, End, GaveUp, Hold, Phase, PoolProblemKind, Progress, RefusalKind, Status, TaskError, Unstopped,
    Why,
};

/// A job that leaves the queue sooner is never recorded as `Queued`: that would cost an API write.
pub const QUEUED_AFTER: Duration = Duration::from_millis(300);
/// A run that ends sooner is never recorded as `Running`.
pub const RUNNING_AFTER: Duration = Duration::from_secs(1);
/// Progress is recorded at most this often.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// A worker may take this long, after the hard limit, to store the failure.
pub const HARD_LIMIT_MARGIN: Duration = Duration::from_mins(1);

/// What to do about a job.
pub fn decide(job: &Job, seen: &Observed, now: Timestamp) -> Plan {
    static NO_DEFAULTS: LazyLock<Overrides> = LazyLock::new(Overrides::default);
    let defaults = if let Pool::Ready(pool) = &seen.pool { &pool.defaults } else { &NO_DEFAULTS };
    let policy = Policy::resolve(job.spec.overrides.as_deref(), defaults);
    let case = Case { job, seen, now, id: job.attempt_in_hand(), policy };
    if job.status.phase.is_terminal() {
        return case.after_the_end();
    }
    let plan = match &seen.pool {
        Pool::Missing { .. } if job.spec.cancel && !case.is_begun() => case.cancelled(case.status()),
        // Nothing can be taken off or stopped, and the job is not to wait for a pool that may never come back. What is
        // left on its Redis is found there by its marker.
        Pool::Missing { .. } if job.spec.cancel => {
            let unstopped = Some((now, Unstopped::PoolDeleted)).filter(|_| job.status.attempt.is_some());
            case.cancelled(case.status().remarked(|it| it.cancel_unsupported = it.cancel_unsupported.or(unstopped)))
        }
        Pool::Missing { .. } if case.is_begun() => {
            let hold = Hold::PoolDeleted { pool: job.spec.pool.clone() };
            Plan::record(Status { why: Why::OnHold(hold), ..case.status() }, Next::OnHint)
        }
        // No pool could run it.
        Pool::Missing { .. } if job.spec.invalid.is_some() => case.invalid(),
        Pool::Missing { existing } => {
            case.hold_unless_begun(Hold::PoolNotFound { pool: job.spec.pool.clone(), existing: existing.clone() })
        }
        Pool::Unusable(problem) => {
            case.hold_unless_begun(Hold::PoolNotReady { pool: job.spec.pool.clone(), problem: problem.clone() })
        }
        Pool::Ready(_) if seen.of != case.id.task => case.nothing(),
        Pool::Ready(pool) => InPool { case: &case, pool }.follow(&seen.task),
    };
    case.on_time(case.mended(plan))
}

/// One call of `decide`.
struct Case<'a> {
    job: &'a Job,
    seen: &'a Observed,
    now: Timestamp,
    id: AttemptId,
    policy: Policy,
}

/// One call of `decide` for a job whose pool works.
struct InPool<'a> {
    case: &'a Case<'a>,
    pool: &'a Arc<PoolFacts>,
}

impl<'a> std::ops::Deref for InPool<'a> {
    type Target = Case<'a>;

    fn deref(&self) -> &Case<'a> {
        self.case
    }
}

impl Case<'_> {
    /// Whether something of this job has been published, as far as the status tells.
    fn is_begun(&self) -> bool {
        self.job.status.attempt.is_some() || self.job.status.attempts > 0
    }

    /// Nothing can run what the spec asks for.
    fn invalid(&self) -> Plan {
        let why = self.job.spec.invalid.as_deref().unwrap_or_default();
        self.give_up(GaveUp::InvalidSpec, Some(TaskError::new("InvalidSpec", why, None)), self.status())
    }

    /// What the first attempt ran: as recorded, else as it was published.
    fn pinned(&self) -> Option<SpecHash> {
        let published = self.seen.published.spec.filter(|_| self.seen.of == self.id.task);
        self.job.status.spec_hash.or(published)
    }

    /// Whether an attempt now would run something else than the first one did.
    fn is_changed(&self) -> bool {
        self.pinned().is_some_and(|pinned| pinned != self.job.spec.hash)
    }

    /// A copy of the recorded status, to be changed.
    fn status(&self) -> Status {
        let mut status = self.job.status.clone();
        status.observed_generation = self.job.spec.generation;
        status.spec_hash = self.pinned();
        let is_changed = self.is_changed();
        status.remarked(|it| it.spec_changed = is_changed.then(|| it.spec_changed.unwrap_or(self.now)))
    }

    /// Record what is recorded already, unless the spec has changed since, and look again as late as is sound.
    fn nothing(&self) -> Plan {
        let next =
            self.job.status.retry_at.as_deref().copied().filter(|at| *at > self.now).map_or(Next::OnHint, Next::At);
        let status = if self.is_begun() { self.status() } else { self.job.status.clone() };
        Plan::record(status, next)
    }

    /// The end is recorded: what is left of the attempt goes, and a result that comes now is late.
    fn after_the_end(&self) -> Plan {
        let mut plan = Plan::record(self.job.status.clone(), Next::Never).then(Effect::Forget(self.id.task));
        if !matches!(self.seen.pool, Pool::Ready(_)) || self.seen.of != self.id.task {
            return plan;
        }
        match &self.seen.task {
            Task::Queued { generation } => {
                plan.first(Effect::Withdraw(AttemptId { generation: *generation, ..self.id }))
            }
            Task::Ended(Ended { how: Ending::Succeeded(_), .. }) => {
                if plan.status.phase != Phase::Succeeded
                    && let Some(end) = &mut plan.status.end
                {
                    end.late_result.get_or_insert(self.now);
                }
                plan
            }
            Task::Ended(_)
            | Task::Unread
            | Task::Absent(_)
            | Task::Withdrawn { .. }
            | Task::GoesOn { .. }
            | Task::Held(_) => plan,
        }
    }

    /// What was refused is no more when the effects have got through, since the status is written after them, when
    /// nothing is left to be done, or when something else holds the job up. Refused details of the status are missing
    /// until the job moves on.
    fn mended(&self, mut plan: Plan) -> Plan {
        let Some(refused) = &plan.status.refused else { return plan };
        let has_moved_on = plan.status.why != self.job.status.why || plan.status.phase != self.job.status.phase;
        let is_known = matches!(self.seen.pool, Pool::Ready(_)) && self.seen.of == self.id.task;
        let has_nothing_to_do = match &self.seen.task {
            Task::Unread | Task::Absent(_) => false,
            Task::Queued { .. } | Task::Withdrawn { .. } | Task::GoesOn { .. } | Task::Held(_) | Task::Ended(_) => {
                is_known
            }
        };
        let is_over = !plan.effects.is_empty() || has_nothing_to_do && refused.kind != RefusalKind::Status;
        if has_moved_on || is_over {
            plan.status.refused = None;
        }
        plan
    }

    /// Not on its way, or not to be followed now, and why. A job that is under way keeps its phase.
    fn hold_unless_begun(&self, hold: Hold) -> Plan {
        let connecting =
            matches!(&hold, Hold::PoolNotReady { problem, .. } if problem.kind == PoolProblemKind::Connecting);
        let is_under_way = self.is_begun() || self.job.status.why.is_released();
        if is_under_way || connecting { self.nothing() } else { self.on_hold(hold) }
    }

    /// Kept from being published, and why.
    fn on_hold(&self, hold: Hold) -> Plan {
        let phase = if self.job.status.retry_at.is_some() { Phase::Retrying } else { Phase::Pending };
        let is_asked_for = match hold {
            Hold::Suspended
            | Hold::KeyHeld { .. }
            | Hold::LimitReached(_)
            | Hold::Attached { .. }
            | Hold::Replacing { .. } => true,
            Hold::PoolNotFound { .. }
            | Hold::PoolDeleted { .. }
            | Hold::QueueNotInPool { .. }
            | Hold::TaskNotAllowed { .. }
            | Hold::PoolNotReady { .. }
            | Hold::Futile { .. } => false,
        };
        let plan =
            Plan::record(Status { phase, why: Why::OnHold(hold), progress: None, ..self.status() }, Next::OnHint);
        if is_asked_for { plan } else { plan.warned() }
    }

    /// The end of the job.
    fn finish(&self, phase: Phase, why: Why, so_far: Status) -> Plan {
        let status = Status {
            phase,
            why,
            end: Some(Box::new(End { expires_at: expires_at(self.now, self.policy.ttl), ..End::new(self.now) })),
            retry_at: None,
            progress: None,
            account: so_far.account.map(|account| Box::new(account.settled())),
            ..so_far
        };
        let remember = self.remembered(&status);
        let mut plan = self.leaving(Plan::record(status, Next::Never), self.may_leave_copies());
        plan.effects.extend(remember);
        plan
    }

    /// What is remembered of a job with a run-once key before its end is recorded. A job that was cancelled, or that no
    /// worker has begun, leaves the key to the next one.
    fn remembered(&self, end: &Status) -> Option<Effect> {
        let key = self.job.spec.run_once.clone()?;
        let succeeded = end.phase == Phase::Succeeded;
        let has_run = end.attempts > 0 && (succeeded || end.phase == Phase::Failed);
        let retention = if let Pool::Ready(pool) = &self.seen.pool { pool.remember_runs } else { once::RETENTION };
        let until = later(self.now, retention);
        has_run.then_some(Effect::RememberRun { key, succeeded, at: self.now, until })
    }

    /// Whether copies of the message may lie on the queues although the job is over because it was stopped: Kombu
    /// restores what a worker had, and workers that start later have not heard a revoke.
    fn may_leave_copies(&self) -> bool {
        let is_published = self.job.status.attempt.is_some() || self.seen.published.at.is_some();
        let is_first_taken_back = self.seen.task == Task::Withdrawn { generation: 0 };
        self.stop().is_some() && is_published && !is_first_taken_back
    }

    fn cancelled(&self, so_far: Status) -> Plan {
        self.finish(Phase::Cancelled, Why::Cancelled, so_far)
    }

    fn give_up(&self, why: GaveUp, error: Option<TaskError>, so_far: Status) -> Plan {
        let error = error.map(Box::new).or_else(|| so_far.error.clone());
        self.finish(Phase::Failed, Why::GaveUp(why), Status { error, ..so_far }).warned()
    }
}

impl InPool<'_> {
    /// What follows from where the task is.
    fn follow(&self, task: &Task) -> Plan {
        match task {
            Task::Unread => self.nothing(),
            Task::Queued { generation } => self.queued(*generation),
            Task::Withdrawn { generation } => self.withdrawn(*generation),
            Task::GoesOn { generation } => self.goes_on(*generation),
            Task::Held(held) => self.held(held),
            Task::Absent(search) => self.absent(search),
            Task::Ended(ended) => self.ended(ended),
        }
    }

    /// The attempt as it is recorded, if this generation of it is. An older one is seen when Redis came back from a
    /// snapshot; what is recorded stays, so that no generation is used twice.
    fn recorded(&self, generation: u32) -> Option<Attempt> {
        self.job.status.attempt.filter(|attempt| attempt.generation >= generation)
    }

    /// The status with this attempt under way.
    fn under_way(&self, generation: u32) -> Status {
        let status = self.status();
        let enqueued_at = self.seen.published.at.unwrap_or(self.now);
        let fresh = Attempt { number: self.id.number, generation, enqueued_at, started_at: None };
        Status {
            attempt: Some(self.recorded(generation).unwrap_or(fresh)),
            queued_at: status.queued_at.or(Some(enqueued_at)),
            queue: Some(self.queue().clone()),
            spec_hash: status.spec_hash.or(Some(self.job.spec.hash)),
            retry_at: None,
            ..status
        }
    }

    fn queue(&self) -> &Arc<str> {
        static NONE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));
        let declared = self.job.spec.queue.as_ref();
        self.job.status.queue.as_ref().or(declared).or(self.pool.queues.first()).unwrap_or(&NONE)
    }

    fn publication(&self, id: AttemptId) -> Publication {
        Publication {
            id,
            queue: self.queue().clone(),
            priority: self.job.spec.priority,
            limits: (self.policy.hard, self.policy.soft),
            resumes: self.policy.resume,
            spec_hash: self.job.spec.hash,
            again: id.number > 1 || id.generation > 0,
        }
    }

    /// In a queue list: recorded when it stays there.
    fn queued(&self, generation: u32) -> Plan {
        let id = AttemptId { generation, ..self.id };
        let spec = &self.job.spec;
        let is_copy = self.seen.others.is_copy;
        // A copy of Celery's own waits after a run, and not for the first.
        let is_vain = !is_copy && (self.has_waited_enough() || self.futile().is_some());
        if self.stop().is_some() || spec.suspend || is_vain {
            let again = Next::At(later(self.now, QUEUED_AFTER));
            return Plan { next: again, ..self.nothing() }.first(Effect::Withdraw(id));
        }
        let plan = self.waiting(generation);
        match self.seen.published.priority {
            Some(published) if published != spec.priority && !is_copy => {
                plan.first(Effect::Move { id, priority: spec.priority, queue: self.queue().clone() })
            }
            Some(_) | None => plan,
        }
    }

    /// Waiting for a worker to begin.
    fn waiting(&self, generation: u32) -> Plan {
        let phase = self.job.status.phase;
        let (was, blocked) = (&self.job.status.why, &self.pool.blocked);
        let is_said = match blocked {
            Some(blocked) => was.reason() == blocked.kind.reason(),
            None => !was.is_of_deleted_pool() && !was.is_of_blocked_workers(),
        };
        if phase == Phase::Queued && self.recorded(generation).is_some() && is_said {
            return self.nothing();
        }
        // Published by an operator that did not live to record it: long enough ago.
        let visible_at = self.seen.published.at.map_or(self.now, |at| later(at, QUEUED_AFTER));
        if phase != Phase::Running && self.now < visible_at {
            return Plan { next: Next::At(visible_at), ..self.nothing() };
        }
        let why = blocked.clone().map_or(Why::Enqueued, |blocked| {
            let pool = self.job.spec.pool.clone();
            Why::Blocked { pool, blocked }
        });
        let status = Status { phase: Phase::Queued, why, progress: None, ..self.under_way(generation) };
        Plan::record(status, Next::OnHint)
    }

    /// Taken off the queue by us.
    fn withdrawn(&self, generation: u32) -> Plan {
        if generation < self.id.generation {
            return self.behind(InPlaceOf::Nowhere(generation));
        }
        if let Some(stop) = self.stop() {
            return self.stopped(stop, None, self.status());
        }
        if self.job.spec.suspend {
            let status =
                Status { phase: Phase::Pending, why: Why::OnHold(Hold::Suspended), ..self.under_way(generation) };
            return Plan::record(status, Next::OnHint);
        }
        if self.is_given_up_waiting() {
            return self.give_up(GaveUp::QueueTimeout, None, self.status());
        }
        if let Some(hold) = self.futile() {
            let status = Status { phase: Phase::Pending, why: Why::OnHold(hold), ..self.under_way(generation) };
            return Plan::record(status, Next::OnHint).warned();
        }
        self.republish(InPlaceOf::Nowhere(generation), Why::Enqueued, self.under_way(generation), false)
    }

    /// In flight.
    fn held(&self, held: &Held) -> Plan {
        if let Some(plan) = self.lost_among_copies(held) {
            return plan;
        }
        match &held.by {
            // A worker that had only reserved it may have given it back before it died: another worker may have it.
            Holding::By(_, Liveness::Dead) if held.started_at.is_some() => {
                self.worker_lost(held, InPlaceOf::InFlight(held.generation), None)
            }
            Holding::NoWorker => self.worker_lost(held, InPlaceOf::InFlight(held.generation), None),
            Holding::By(..) | Holding::Unattributed => self.stopping(Some(held), self.running(held)),
        }
    }

    /// With a living worker: recorded when it stays there.
    fn running(&self, held: &Held) -> Plan {
        let Some(started_at) = held.started_at else {
            // To people a message that is only reserved is still queued, unless its run is known from elsewhere.
            let known = self.job.status.phase == Phase::Running && self.recorded(held.generation).is_some();
            return if known { self.nothing() } else { self.waiting(held.generation) };
        };
        let visible_at = later(started_at, RUNNING_AFTER);
        if self.job.status.phase != Phase::Running && self.now < visible_at {
            return Plan { next: Next::At(visible_at), ..self.nothing() };
        }
        let mut status = self.under_way(held.generation);
        if let Some(attempt) = &mut status.attempt {
            attempt.started_at = attempt.started_at.or(Some(started_at));
        }
        status.attempts = status.attempts.max(self.id.number.saturating_add(held.celery_retries));
        if let Holding::By(holder, _) = &held.by {
            status.worker = Some(Box::new(holder.clone()));
        }
        let next = self.tell(held, &mut status);
        Plan::record(Status { phase: Phase::Running, why: Why::Started, ..status }, next)
    }

    /// Records what a run says of itself, now and then.
    fn tell(&self, held: &Held, status: &mut Status) -> Next {
        let is_told = |new: &Progress| status.progress.as_ref().is_some_and(|old| old.at == new.at);
        let progress = held.progress.as_ref().filter(|new| !is_told(new));
        let account = self.account(held);
        let account = account.as_deref().filter(|account| status.is_news(account));
        if progress.is_none() && account.is_none() {
            return Next::OnHint;
        }
        let told_at = [
            status.progress.as_ref().map(|progress| progress.at),
            status.spent().map(|spent| spent.at),
            status.state().and_then(|state| state.saved_at),
        ];
        let told_at = told_at.into_iter().flatten().max();
        let is_complete = progress.is_some_and(|progress| progress.percent == Some(100));
        if let Some(again_at) = told_at.map(|at| later(at, PROGRESS_EVERY)).filter(|at| self.now < *at && !is_complete)
        {
            return Next::At(again_at);
        }
        if let Some(progress) = progress {
            status.progress = Some(Box::new(progress.clone()));
        }
        if let Some(account) = account {
            status.hear(account, self.now);
        }
        Next::OnHint
    }

    /// What a run says of itself, with costs by the prices of the pool.
    fn account(&self, held: &Held) -> Option<Box<Account>> {
        let account = held.account.clone()?;
        let count = Count { usage: account.count.usage.priced(&self.pool.prices), ..account.count };
        Some(Box::new(Account { count, ..*account }))
    }

    /// Nowhere to be seen: either never published, or lost.
    fn absent(&self, search: &Search) -> Plan {
        let (spec, status) = (&self.job.spec, &self.job.status);
        if status.attempt.is_some() || search.marker.is_some() || self.seen.published.at.is_some() {
            return self.missing(search);
        }
        if let Some(stop) = self.stop() {
            return self.stopped(stop, None, self.status());
        }
        if spec.invalid.is_some() && !self.is_changed() {
            return self.invalid();
        }
        // Before it may be held up: others with its key wait for it to give way.
        if let Some(plan) = self.deduplicating() {
            return plan;
        }
        if let Some(hold) = self.refusal() {
            return self.on_hold(hold);
        }
        if let Some(retry_at) = status.retry_at.as_deref().copied().filter(|at| *at > self.now) {
            return Plan::record(Status { why: Why::RetryScheduled, ..self.status() }, Next::At(retry_at));
        }
        if self.is_changed() {
            return self.give_up(GaveUp::SpecChanged, None, self.status());
        }
        if let Some(plan) = self.claiming().or_else(|| self.permitting()) {
            return plan;
        }
        Plan { next: Next::At(later(self.now, QUEUED_AFTER)), ..self.nothing() }
            .first(Effect::Enqueue(self.publication(self.id)))
    }

    /// What comes before the first message of a job with a run-once key; nothing once the key is its own.
    fn claiming(&self) -> Option<Plan> {
        let key = self.job.spec.run_once.as_ref()?;
        let claim = || Effect::ClaimKey(key.clone());
        match &self.seen.claim {
            Claim::Ours => None,
            Claim::Unread => {
                Some(Plan { next: Next::At(later(self.now, once::AGAIN)), ..self.nothing() }.first(claim()))
            }
            Claim::Held { by, read_at } => {
                let again = later(*read_at, once::AGAIN);
                let hold = self.on_hold(Hold::KeyHeld { key: key.clone(), by: by.clone() });
                let is_due = again <= self.now;
                let next = Next::At(if is_due { later(self.now, once::AGAIN) } else { again });
                let plan = Plan { next, ..hold };
                Some(if is_due { plan.first(claim()) } else { plan })
            }
            Claim::Ran(ran) => Some(self.already_ran(key, ran)),
        }
    }

    /// The end of a job whose work was done by another one.
    fn already_ran(&self, key: &Arc<str>, ran: &Ran) -> Plan {
        let why = Why::AlreadyRan { key: key.clone(), ran: Box::new(ran.clone()) };
        let plan = self.finish(ran.phase(), why, self.status());
        if ran.succeeded { plan } else { plan.warned() }
    }

    /// Why the next message may not be published.
    fn refusal(&self) -> Option<Hold> {
        let (spec, pool) = (&self.job.spec, self.pool);
        if spec.suspend {
            return Some(Hold::Suspended);
        }
        if !pool.queues.contains(self.queue()) {
            return Some(Hold::QueueNotInPool { queue: self.queue().clone(), queues: pool.queues.clone() });
        }
        if !pool.allowed_tasks.contains(&spec.task) || spec.task.starts_with("celery.") {
            return Some(Hold::TaskNotAllowed { task: spec.task.clone(), allowed: pool.allowed_tasks.clone() });
        }
        self.futile()
    }

    /// Why a run would be in vain. A message that waits is taken back then: any worker may take it.
    fn futile(&self) -> Option<Hold> {
        let futile = self.pool.futile.as_ref().filter(|futile| futile.concerns(&self.job.spec.task))?;
        Some(Hold::Futile { pool: self.job.spec.pool.clone(), futile: futile.clone() })
    }

    /// Publish again under a higher generation, if the job may be published at all.
    fn republish(&self, in_place_of: InPlaceOf, why: Why, so_far: Status, clear_result: bool) -> Plan {
        if let Some(stop) = self.stop() {
            return self.stopped(stop, None, so_far);
        }
        if let Some(hold) = self.refusal() {
            return self.on_hold(hold);
        }
        if self.is_changed() {
            return self.give_up(GaveUp::SpecChanged, None, so_far);
        }
        if !self.is_permitted()
            && let Some(plan) = self.permitting()
        {
            return plan;
        }
        let given_up = in_place_of.generation().unwrap_or(0).max(self.id.generation);
        let id = AttemptId { generation: given_up, ..self.id }.republished();
        let attempt = Attempt { number: id.number, generation: id.generation, enqueued_at: self.now, started_at: None };
        let status = Status {
            phase: Phase::Queued,
            why,
            attempt: Some(attempt),
            queued_at: so_far.queued_at.or(Some(self.now)),
            queue: Some(self.queue().clone()),
            spec_hash: so_far.spec_hash.or(Some(self.job.spec.hash)),
            retry_at: None,
            worker: None,
            progress: None,
            ..so_far
        };
        let message = self.publication(id);
        Plan::record(status, Next::OnHint).first(Effect::Requeue { in_place_of, message, clear_result })
    }
}

impl Plan {
    fn record(status: Status, next: Next) -> Self {
        Self { effects: Vec::new(), status, afterwards: Vec::new(), notices: Vec::new(), next }
    }

    fn first(mut self, effect: Effect) -> Self {
        self.effects.insert(0, effect);
        self
    }

    fn then(mut self, effect: Effect) -> Self {
        self.afterwards.push(effect);
        self
    }

    /// Said aloud as a Warning.
    fn warned(mut self) -> Self {
        let reason = self.status.why.reason().into();
        self.notices.push(Notice { warning: true, reason, message: self.status.message().into() });
        self
    }
}

/// `at` plus a span; the end of time when that is past it.
fn later(at: Timestamp, span: Duration) -> Timestamp {
    at.checked_add(span).unwrap_or(Timestamp::MAX)
}
