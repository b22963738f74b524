//! What follows when a worker died or a message vanished.

use super::super::observed::{Held, Holding, Liveness, Search};
use super::super::plan::{Effect, InPlaceOf, Next, Plan};
use super::super::policy::OnUnknown;
use super::super::status::{AttemptOutcome, GaveUp, PastAttempt, Phase, Status, TaskError, Why};
use super::{HARD_LIMIT_MARGIN, InPool, later};

/// Messages of one attempt that may vanish from an intact Redis before the job is given up.
pub const MAX_MESSAGE_LOSSES: u32 = 2;
/// Full audits in a row after which a message counts as vanished.
pub const AUDITS: u32 = 2;

impl InPool<'_> {
    /// It was published, and it is neither in a queue nor in flight, and has no result.
    pub(super) fn missing(&self, search: &Search) -> Plan {
        let emptied = search.marker.is_none();
        let in_place_of = search.marker.map_or(InPlaceOf::Nothing, InPlaceOf::Nowhere);
        let current = search.marker.unwrap_or(self.id.generation);
        if current < self.id.generation {
            // What a dead worker ran need not be stopped, and workers would refuse the next message under a revoked id.
            let held = search.seen.as_ref().filter(|held| !held.is_lost());
            return if is_gone(search) { self.behind(in_place_of) } else { self.stopping(held, self.nothing()) };
        }
        if let Some(held) = search.seen.as_ref().filter(|held| held.generation == current) {
            match &held.by {
                Holding::By(_, Liveness::Dead) | Holding::NoWorker if search.may_have_expired_unread => {
                    return self.ended_unseen(Some(held));
                }
                // A worker that had not begun has lost nothing: its message would still be in flight. One that had may
                // have put the message back when it lost its connection, and another worker may have popped it since
                // and not noted yet that it has it. So the message is looked for like one that vanished; where the job
                // ends anyway, once, for what its task goes on by.
                Holding::By(_, Liveness::Dead) | Holding::NoWorker
                    if held.started_at.is_some() && (self.stop().is_some() && search.audits > 0 || is_gone(search)) =>
                {
                    return self.worker_lost(held, in_place_of, None);
                }
                Holding::By(_, Liveness::Alive | Liveness::Unreachable)
                    if held.started_at.is_some() || !search.denied =>
                {
                    return self.acknowledged_early(held, search);
                }
                Holding::By(..) | Holding::NoWorker | Holding::Unattributed => {}
            }
        }
        if !search.denied {
            return self.stopping(search.seen.as_ref(), self.nothing());
        }
        if !is_gone(search) {
            return self.nothing();
        }
        if search.may_have_expired_unread {
            return self.ended_unseen(None);
        }
        let mut status = self.status();
        if let Some(stop) = self.stop() {
            return self.stopped(stop, None, status);
        }
        status.message_losses = status.message_losses.saturating_add(u32::from(!emptied));
        status.remember(self.past(AttemptOutcome::MessageLost, None, None));
        if status.message_losses > MAX_MESSAGE_LOSSES {
            return self.give_up(GaveUp::MessageLost, None, status);
        }
        self.republished_for(Why::MessageLost, in_place_of, status, false)
    }

    /// The worker that held the message died, or the child process that ran it.
    pub(super) fn worker_lost(&self, held: &Held, in_place_of: InPlaceOf, child: Option<TaskError>) -> Plan {
        if in_place_of.generation().is_some_and(|generation| generation < self.id.generation) {
            return self.behind(in_place_of);
        }
        if self.is_overdue(held) || self.is_refused() {
            return self.ran_too_long(held);
        }
        let mut status = self.status();
        status.worker_losses = status.worker_losses.saturating_add(1);
        if held.started_at.is_some() || child.is_some() {
            status.attempts = status.attempts.max(self.id.number.saturating_add(held.celery_retries));
        }
        let clear_result = child.is_some() || held.has_stored_failure;
        status.remember(self.past(AttemptOutcome::WorkerLost, Some(held), child.clone()));
        if let Some(stop) = self.stop() {
            return self.stopped(stop, child, status);
        }
        if status.worker_losses > self.policy.max_worker_losses {
            return self.give_up(GaveUp::WorkerLost, child, status);
        }
        self.republished_for(Why::WorkerLost, in_place_of, status, clear_result)
    }

    /// Workers were told to refuse this task because it ran for too long: a message under its id would run nowhere.
    fn is_refused(&self) -> bool {
        self.seen.stop_asked_at.is_some() && self.stop().is_none()
    }

    /// What was seen is of an older generation than what is recorded: it was read before the status was, or Redis came
    /// back from a snapshot. The script knows which; the status could not be taken back, so nothing is ended.
    pub(super) fn behind(&self, in_place_of: InPlaceOf) -> Plan {
        if self.stop().is_some() || self.is_changed() {
            return self.stopping(None, self.nothing()).first(Effect::Retire { in_place_of, id: self.id });
        }
        self.republished_for(Why::MessageLost, in_place_of, self.status(), true)
    }

    /// Published again because of a loss, which people should hear of.
    fn republished_for(&self, why: Why, in_place_of: InPlaceOf, so_far: Status, clear_result: bool) -> Plan {
        let plan = self.republish(in_place_of, why, so_far, clear_result);
        if plan.status.phase == Phase::Queued { plan.warned() } else { plan }
    }

    /// Its message is gone and its worker lives: it acknowledged before it ran, and runs still, unless it says
    /// otherwise.
    fn acknowledged_early(&self, held: &Held, search: &Search) -> Plan {
        let recorded = self.job.status.attempt.map(|attempt| attempt.started_at.unwrap_or(attempt.enqueued_at));
        let since = held.started_at.or(recorded).or(self.seen.published.at).unwrap_or(self.now);
        let overdue = later(later(since, self.policy.hard), HARD_LIMIT_MARGIN);
        // A worker that had only reserved it may have given it back, to one that does not answer yet.
        let is_left = held.started_at.is_some() && search.denials_by_holder >= AUDITS;
        if self.now < overdue && !is_left {
            let plan = self.running(held);
            let next = match plan.next {
                Next::At(at) => Next::At(at.min(overdue)),
                Next::OnHint | Next::Never => Next::At(overdue),
            };
            return self.stopping(Some(held), Plan { next, ..plan });
        }
        let message = if is_left {
            "its worker does not have the task any more, and no result was stored"
        } else {
            "the message was acknowledged and no result was stored"
        };
        let error = TaskError::new("NoResult", message, None);
        let mut status = self.status();
        status.attempts = status.attempts.max(self.id.number.saturating_add(held.celery_retries));
        status.remember(self.past(AttemptOutcome::Unknown, Some(held), Some(error.clone())));
        let plan = self.unknown(GaveUp::NoResult, held.celery_retries, error, status);
        // A worker that has not denied it may still run it: whatever follows, this run is not wanted any more.
        if is_left { plan } else { plan.first(Effect::Revoke(self.id.task)) }
    }

    /// It may have ended while no operator watched, and its result may have expired.
    fn ended_unseen(&self, held: Option<&Held>) -> Plan {
        let error = TaskError::new("ResultExpired", "it may have ended while no operator was there to see it", None);
        let mut status = self.status();
        status.attempts = status.attempts.max(self.id.number);
        status.remember(self.past(AttemptOutcome::Unknown, held, Some(error.clone())));
        self.unknown(GaveUp::ResultExpired, 0, error, status)
    }

    /// The outcome cannot be known any more.
    fn unknown(&self, why: GaveUp, celery_retries: u32, error: TaskError, so_far: Status) -> Plan {
        if let Some(stop) = self.stop() {
            return self.stopped(stop, Some(error), so_far);
        }
        match self.policy.on_unknown {
            OnUnknown::Fail => self.give_up(why, Some(error), so_far),
            OnUnknown::Retry => self.retry_or_give_up(celery_retries, &error.into(), so_far),
        }
    }

    /// The attempt in hand, as history.
    pub(super) fn past(&self, outcome: AttemptOutcome, held: Option<&Held>, error: Option<TaskError>) -> PastAttempt {
        let recorded = self.job.status.attempt;
        let node = held.and_then(|held| match &held.by {
            Holding::By(holder, _) => Some(holder.node.clone()),
            Holding::Unattributed | Holding::NoWorker => None,
        });
        PastAttempt {
            number: self.id.number,
            task: self.id.task,
            outcome,
            worker: node.or_else(|| self.job.status.worker.as_ref().map(|holder| holder.node.clone())),
            enqueued_at: recorded.map(|attempt| attempt.enqueued_at).or(self.seen.published.at),
            started_at: held.and_then(|held| held.started_at).or(recorded.and_then(|attempt| attempt.started_at)),
            finished_at: self.now,
            error,
            account: held.and_then(|held| self.account(held)),
        }
    }
}

/// Whether no worker can have a message that is nowhere: all have denied it, and enough audits have passed for one that
/// had just popped it to note that. An emptied Redis explains by itself that it is nowhere, but not that a worker that
/// was seen with it, and lives, denies it: its task may have gone on by another message after the queues were read.
fn is_gone(search: &Search) -> bool {
    let was_held = search.seen.as_ref().is_some_and(|held| !held.is_lost());
    search.denied && (search.marker.is_none() && !was_held || search.audits >= AUDITS)
}
