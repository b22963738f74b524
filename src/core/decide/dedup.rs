//! What comes before the first message of a job that may be a duplicate.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::dedup::{Dedup, OnConflict, REPLACING};
use super::super::plan::{Effect, Next, Plan};
use super::super::reason::{Hold, Why};
use super::super::status::{Phase, Status};
use super::super::twins::{self, Twin, TwinEnd, Verdict, is_newer};
use super::{InPool, later};

impl InPool<'_> {
    /// What comes first; nothing once it is recorded that the job stands for its key.
    pub(super) fn deduplicating(&self) -> Option<Plan> {
        let dedup = self.job.spec.dedup.as_deref()?;
        if self.job.status.stands.as_deref() == Some(&self.job.uid) {
            return None;
        }
        Some(match &self.seen.twins {
            Verdict::Unread => self.listing(self.nothing(), self.now),
            Verdict::Alone => {
                let stands = Some(Box::new(self.job.uid));
                Plan::record(Status { stands, ..self.status() }, Next::At(self.now))
            }
            Verdict::Undecided { read_at, .. } => self.listing(self.nothing(), later(*read_at, twins::SOON)),
            Verdict::Of { twin, read_at } => self.duplicate(dedup, twin, later(*read_at, twins::AGAIN)),
        })
    }

    /// The plan, and the jobs with the key are listed as soon as that is due.
    fn listing(&self, plan: Plan, due: Timestamp) -> Plan {
        if due > self.now {
            return Plan { next: Next::At(due), ..plan };
        }
        Plan { next: Next::At(later(self.now, twins::AGAIN)), ..plan }.first(Effect::ListTwins)
    }

    fn duplicate(&self, dedup: &Dedup, twin: &Twin, due: Timestamp) -> Plan {
        let (key, of): (Arc<str>, Arc<str>) = (dedup.key.clone(), twin.job.clone());
        match (dedup.on_conflict, &twin.end) {
            (OnConflict::Attach, Some(end)) => self.ended_as(key, of, end),
            (OnConflict::Attach, None) => {
                let mut plan = self.on_hold(Hold::Attached { key, to: of });
                plan.status.stands = Some(Box::new(twin.uid));
                self.listing(plan, due)
            }
            (OnConflict::Replace, None) if is_newer(self.job, twin) => {
                let cancel = Effect::CancelTwin { job: of.clone(), uid: twin.uid };
                // What an earlier operator told does not name the job. So it is cancelled again when it has not ended by then.
                let is_told = if let Why::OnHold(Hold::Replacing { job, .. }) = &self.job.status.why {
                    *job == of
                } else {
                    self.job.status.why.reason() == REPLACING && due > self.now
                };
                let plan = self.listing(self.on_hold(Hold::Replacing { key, job: of }), due);
                if is_told { plan } else { plan.first(cancel) }
            }
            (OnConflict::Reject | OnConflict::Replace, _) => {
                self.finish(Phase::Failed, Why::Duplicate { key, of }, self.status()).warned()
            }
        }
    }

    /// The end of a job that is attached to one that has ended.
    fn ended_as(&self, key: Arc<str>, of: Arc<str>, end: &TwinEnd) -> Plan {
        let TwinEnd { phase, result, error } = end.clone();
        let plan = self.finish(phase, Why::Attached { key, to: of }, Status { result, error, ..self.status() });
        if phase == Phase::Failed { plan.warned() } else { plan }
    }
}
