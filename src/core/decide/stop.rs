//! What ends a job before its task does: cancel, deadlines, and runs that outlive their time limit.

use std::time::Duration;

use jiff::Timestamp;

use super::super::observed::{Held, Holding, Liveness, PodDeletion, Search, Task};
use super::super::plan::{Effect, Next, Plan};
use super::super::status::{AttemptOutcome, GaveUp, Holder, Phase, Status, TaskError, Unstopped};
use super::{Case, HARD_LIMIT_MARGIN, InPool, later};

/// How often a worker is told again to stop a task.
pub const REVOKE_AGAIN: Duration = Duration::from_secs(10);
/// The same at most, however often there is news of the task: another worker may have taken it, which was not told.
const REVOKE_AT_MOST: Duration = Duration::from_secs(1);
/// How long a worker may take to stop a task before its Pod is deleted, or, where that would hurt others, it is said
/// that the job cannot be stopped.
pub const STOP_GRACE: Duration = Duration::from_secs(30);

/// Why a job is to end now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// `spec.cancel`.
    Cancel,
    /// `timeouts.total` has passed.
    Deadline,
}

impl Case<'_> {
    /// Whether the job is to end now, and why.
    pub(super) fn stop(&self) -> Option<Stop> {
        if self.job.spec.cancel {
            return Some(Stop::Cancel);
        }
        self.deadline().filter(|deadline| *deadline <= self.now).map(|_| Stop::Deadline)
    }

    /// When `timeouts.total` passes. It counts from the first publication.
    fn deadline(&self) -> Option<Timestamp> {
        let is_first = self.job.status.attempts == 0;
        let published_at = self.seen.published.at.filter(|_| is_first);
        self.job.status.queued_at.or(published_at).zip(self.policy.total).map(|(at, total)| later(at, total))
    }

    /// When the message of this delivery has waited for a worker as long as `timeouts.queue` allows.
    pub(super) fn waits_until(&self) -> Option<Timestamp> {
        let recorded = self.job.status.attempt.map(|attempt| attempt.enqueued_at);
        recorded.or(self.seen.published.at).zip(self.policy.queue).map(|(at, queue)| later(at, queue))
    }

    /// Whether it has waited for too long.
    pub(super) fn has_waited_enough(&self) -> bool {
        self.waits_until().is_some_and(|until| until <= self.now)
    }

    /// The end of a job that was to end.
    pub(super) fn stopped(&self, stop: Stop, error: Option<TaskError>, so_far: Status) -> Plan {
        match stop {
            Stop::Cancel => {
                let error = error.map(Box::new).or_else(|| so_far.error.clone());
                self.cancelled(Status { error, ..so_far })
            }
            Stop::Deadline => self.give_up(GaveUp::DeadlineExceeded, error, so_far),
        }
    }

    /// The plan, with another look no later than the next deadline.
    pub(super) fn on_time(&self, plan: Plan) -> Plan {
        if plan.next == Next::Never {
            return plan;
        }
        let waits = matches!(self.seen.task, Task::Queued { .. }).then(|| self.waits_until()).flatten();
        let runs_out = match &self.seen.task {
            Task::Held(held) | Task::Absent(Search { seen: Some(held), .. }) => {
                self.runs_out_at(held).filter(|_| !held.is_lost())
            }
            Task::Absent(_)
            | Task::Unread
            | Task::Queued { .. }
            | Task::Withdrawn { .. }
            | Task::GoesOn { .. }
            | Task::Ended(_) => None,
        };
        let due = [self.deadline(), waits, runs_out].into_iter().flatten().filter(|at| *at > self.now).min();
        let next = match (plan.next, due) {
            (Next::At(at), Some(due)) => Next::At(at.min(due)),
            (Next::OnHint, Some(due)) => Next::At(due),
            (next, _) => next,
        };
        Plan { next, ..plan }
    }

    /// When a run must have ended: its worker ends it at the hard limit, and then takes a moment to say so.
    pub(super) fn runs_out_at(&self, held: &Held) -> Option<Timestamp> {
        held.started_at.map(|began| later(later(began, self.policy.hard), HARD_LIMIT_MARGIN))
    }

    /// Whether a run has outlived its hard limit, because its worker does not enforce it.
    pub(super) fn is_overdue(&self, held: &Held) -> bool {
        self.runs_out_at(held).is_some_and(|at| at <= self.now)
    }
}

impl InPool<'_> {
    /// The plan, with the worker told to stop the task where the job is to end, or the run has outlived its limit.
    pub(super) fn stopping(&self, held: Option<&Held>, plan: Plan) -> Plan {
        let is_overdue = held.is_some_and(|held| self.is_overdue(held));
        if plan.status.phase.is_terminal() || self.stop().is_none() && !is_overdue {
            return plan;
        }
        let asked_at = self.seen.stop_asked_at.unwrap_or(self.now);
        let patience = later(asked_at, STOP_GRACE);
        let told_just_now = self.seen.stop_repeated_at.map(|at| later(at, REVOKE_AT_MOST)).filter(|at| *at > self.now);
        let plan = match told_just_now {
            Some(again) => Plan { next: Next::At(again), ..plan },
            None => Plan { next: Next::At(later(self.now, REVOKE_AGAIN)), ..plan }.first(Effect::Revoke(self.id.task)),
        };
        if self.now < patience {
            return plan;
        }
        // Solo pools and workers on their way out hear nothing.
        match held.map(|held| &held.by) {
            Some(Holding::By(Holder { container: Some(container), .. }, Liveness::Alive))
                if self.seen.pod_deletion == PodDeletion::Fine =>
            {
                plan.first(Effect::DeletePod(container.clone()))
            }
            Some(Holding::By(..)) if self.seen.pod_deletion == PodDeletion::UnderWay => plan,
            Some(_) if self.job.spec.cancel => {
                let deaf = Some((self.now, Unstopped::WorkerDeaf));
                let status = plan.status.remarked(|it| it.cancel_unsupported = it.cancel_unsupported.or(deaf));
                Plan { status, ..plan }
            }
            Some(_) | None => plan,
        }
    }

    /// A run that outlived its hard limit is over: it was stopped, or its worker is gone.
    pub(super) fn ran_too_long(&self, held: &Held) -> Plan {
        let error = TaskError::new("TimeLimitExceeded", "its worker did not keep timeouts.hard", None);
        let mut status = self.status();
        status.attempts = status.attempts.max(self.id.number.saturating_add(held.celery_retries));
        status.spec_hash = status.spec_hash.or(Some(self.job.spec.hash));
        status.remember(self.past(AttemptOutcome::Failed, Some(held), Some(error.clone())));
        self.retry_or_give_up(held.celery_retries, &error.into(), status)
    }

    /// Withdrawn because it had waited for too long, and not because it was suspended: then it waits no more.
    pub(super) fn is_given_up_waiting(&self) -> bool {
        let was_suspended = self.job.status.phase == Phase::Pending && self.job.status.attempt.is_some();
        self.has_waited_enough() && !was_suspended
    }
}
