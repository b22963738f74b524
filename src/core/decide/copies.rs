//! What follows where a task lives on in messages that no operator has published.

use super::super::id::AttemptId;
use super::super::observed::{Held, Holding, Liveness, Others, Pool, Task};
use super::super::plan::{Effect, InPlaceOf, Next, Plan};
use super::super::status::Phase;
use super::stop::STOP_GRACE;
use super::{Case, InPool, QUEUED_AFTER, later};

impl Case<'_> {
    /// The plan, with what is left of the attempt taken off Redis: it is over.
    pub(super) fn leaving(&self, plan: Plan, may_leave_copies: bool) -> Plan {
        let is_read = matches!(self.seen.pool, Pool::Ready(_)) && self.seen.of == self.id.task;
        let is_known = is_read && self.seen.task != Task::Unread;
        let others = if is_known { self.seen.others } else { Others::default() };
        let plan = match others.tag {
            Some(copy) => plan.first(Effect::Drop { id: self.id, copy: Some(copy) }),
            None => plan,
        };
        plan.then(if may_leave_copies || others.besides.any() {
            Effect::Clear(self.id.task)
        } else {
            Effect::Forget(self.id.task)
        })
    }
}

impl InPool<'_> {
    /// What follows where no worker has a message, or the one that had it died, and there are copies of it: of which this
    /// may be one that no operator has published.
    pub(super) fn lost_among_copies(&self, held: &Held) -> Option<Plan> {
        let Others { is_copy, tag, besides } = self.seen.others;
        match &held.by {
            // Which of several copies a worker had that died is not known, nor whether it had a copy that Celery has
            // published since, as it does for a retry of its own: that all workers deny it tells.
            Holding::By(_, Liveness::Dead)
                if held.started_at.is_some() && (is_copy || besides.is_in_flight || held.celery_retries > 0) =>
            {
                Some(self.stopping(Some(held), self.nothing()))
            }
            // Another copy is there to go on by, and so this one is no loss.
            Holding::By(_, Liveness::Dead) if held.started_at.is_some() && besides.waits => Some(self.without(held)),
            Holding::NoWorker if besides.any() => Some(self.without(held)),
            Holding::NoWorker if is_copy => Some(match tag {
                Some(tag) => self.worker_lost(held, InPlaceOf::Copy(held.generation, tag), None),
                // Kombu puts it back some day.
                None => self.stopping(Some(held), self.nothing()),
            }),
            Holding::By(..) | Holding::NoWorker | Holding::Unattributed => None,
        }
    }

    /// Without this copy of the message, which no worker has. It is not the only one.
    fn without(&self, held: &Held) -> Plan {
        let Others { is_copy, tag, .. } = self.seen.others;
        if is_copy && tag.is_none() {
            return self.stopping(Some(held), self.nothing());
        }
        let id = AttemptId { generation: held.generation, ..self.id };
        let again = Next::At(later(self.now, QUEUED_AFTER));
        Plan { next: again, ..self.nothing() }.first(Effect::Drop { id, copy: tag })
    }

    /// The task has replaced itself by others, which go on. None of them is the attempt's own, so no limit of its run
    /// holds for them. Whether a worker has one that is in flight is not known: where the job is to end, it ends once
    /// workers had the time to hear that, and what is left is dropped by the worker that takes it.
    pub(super) fn goes_on(&self, generation: u32) -> Plan {
        let asked_at = self.seen.stop_asked_at.filter(|at| later(*at, STOP_GRACE) <= self.now);
        if let Some(stop) = self.stop().filter(|_| asked_at.is_some()) {
            return self.stopped(stop, None, self.status());
        }
        let is_known = self.job.status.phase == Phase::Running && self.recorded(generation).is_some();
        self.stopping(None, if is_known { self.nothing() } else { self.waiting(generation) })
    }
}
