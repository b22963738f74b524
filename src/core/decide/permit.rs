//! What comes before a message where the pool of a job has limits.

use jiff::Timestamp;

use super::super::limits::{LIMIT_REACHED, Permit, Wait};
use super::super::plan::{Effect, Next, Plan};
use super::super::reason::{Hold, Why};
use super::super::status::{Phase, Status};
use super::{InPool, QUEUED_AFTER, later};

impl InPool<'_> {
    /// What comes before a message of a job that has none in hand; nothing once its permit is recorded.
    ///
    /// It is recorded before anything is published: so what is, or may be, on Redis always follows from the statuses.
    pub(super) fn permitting(&self) -> Option<Plan> {
        let status = &self.job.status;
        let is_recorded = |at: Timestamp| status.why.is_released() && status.released_at.as_deref() == Some(&at);
        match &self.seen.permit {
            Permit::Free => None,
            Permit::Unknown => Some(self.nothing()),
            Permit::Granted { at } if is_recorded(*at) => None,
            Permit::Granted { at } => {
                let released_at = Some(Box::new(*at));
                let (phase, why) = (self.phase_before(), Why::Released);
                let status = Status { phase, why, released_at, progress: None, ..self.status() };
                Some(Plan::record(status, Next::At(self.now)))
            }
            Permit::Unasked => {
                let again = Next::At(later(self.now, QUEUED_AFTER));
                Some(Plan { next: again, ..self.nothing() }.first(Effect::AskForPermit))
            }
            // It has one of an earlier leader, and what that has published with it must not be forgotten.
            Permit::Waits(_) if status.why.is_released() => Some(self.nothing()),
            Permit::Waits(wait) => Some(self.waiting_for_permit(wait)),
        }
    }

    /// The place of a job that waits is told when it begins to wait, and then rarely.
    fn waiting_for_permit(&self, wait: &Wait) -> Plan {
        let why = &self.job.status.why;
        let is_told = if let Why::OnHold(Hold::LimitReached(told)) = why {
            !wait.is_news_after(told)
        } else {
            why.reason() == LIMIT_REACHED && !wait.is_first() // as an earlier operator told it
        };
        let why = if is_told { why.clone() } else { Why::OnHold(Hold::LimitReached(Box::new(wait.clone()))) };
        let status = Status { phase: self.phase_before(), why, progress: None, ..self.status() };
        Plan::record(status, Next::At(wait.look_again_at(self.now)))
    }

    /// The phase of a job that has no message.
    fn phase_before(&self) -> Phase {
        if self.job.status.retry_at.is_some() { Phase::Retrying } else { Phase::Pending }
    }

    /// Whether a message of the job counts under the limits already, so that another one may take its place.
    pub(super) fn is_permitted(&self) -> bool {
        matches!(self.job.status.phase, Phase::Queued | Phase::Running)
    }
}
