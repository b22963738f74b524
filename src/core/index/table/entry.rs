//! One unfinished job.

use std::sync::Arc;

use super::super::super::backoff::ConsecutiveErrors;
use super::super::super::evidence::{Evidence, SETTLED_AFTER};
use super::super::super::id::ObjectKey;
use super::super::super::job::Job;
use super::super::super::limits::LIMIT_REACHED;
use super::super::super::milestones::Told;
use super::super::super::once::Claim;
use super::super::super::status::{Phase, host_of};
use super::super::super::twins::Verdict;
use super::super::super::waits;
use super::super::jobs::Share;

/// The pool whose turn it is when a job is looked at, whether it exists or not.
pub type Lane = Arc<ObjectKey>;

/// One unfinished job, with a handle `F` of the whole object as long as that is kept.
#[derive(Clone)]
pub struct Entry<F> {
    /// What was declared and what was last recorded.
    pub job: Job,
    /// `metadata.resourceVersion` of that.
    pub version: Arc<str>,
    /// What is known of the attempt in hand.
    pub evidence: Evidence,
    /// Changes with every change of `evidence`: a slow reading of levels does not overwrite what came later.
    pub evidence_version: u64,
    /// Its end is being written: the watch will say that it is gone, and that is no news.
    pub closing: bool,
    /// Failures of the operator itself in a row.
    pub consecutive_errors: Option<Box<ConsecutiveErrors>>,
    /// Bytes that its inputs take in memory while a message is made of them.
    pub weight: u32,
    /// The object as it was created, until its first enqueue.
    pub fresh: Option<F>,
    /// What was read of its run-once key. In a box, as few jobs have one.
    pub claim: Option<Box<Claim>>,
    /// What was found out of other jobs with its dedup key. In a box, as few jobs have one.
    pub twins: Option<Box<Verdict>>,
    /// What was told of it in Normal Events.
    pub told: Told,
    pub(super) lane: Lane,
}

impl<F> std::fmt::Debug for Entry<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("job", &self.job.key).field("evidence", &self.evidence).finish_non_exhaustive()
    }
}

impl<F> Entry<F> {
    /// What is known of its run-once key.
    pub fn claim(&self) -> Claim {
        self.claim.as_deref().cloned().unwrap_or_default()
    }

    /// What other jobs with its dedup key mean for it.
    pub fn twins(&self) -> Verdict {
        self.twins.as_deref().cloned().unwrap_or_default()
    }

    /// What asks for a look at it.
    pub fn turn_of(&self) -> (Lane, ObjectKey) {
        (self.lane.clone(), self.job.key.clone())
    }

    /// Whether a message of it is, or may be, on Redis or with a worker. That audits find none of a job that was never
    /// published is no sign of one. A job that waits for a permit has none, as its permit is recorded before its message
    /// is published.
    pub(super) fn is_out(&self) -> bool {
        let status = &self.job.status;
        let is_recorded = matches!(status.phase, Phase::Queued | Phase::Running);
        let is_unread = self.evidence.is_unread() && status.why.reason() != LIMIT_REACHED;
        let may_be_out = self.evidence.is_outstanding() || is_unread;
        is_recorded || may_be_out || self.is_begun() && self.is_unclear()
    }

    /// Whether it is not known where its message is. What stays missing is with a worker that hangs, or lost: it does not
    /// keep the workers up.
    fn is_unclear(&self) -> bool {
        match self.evidence.misses() {
            Some(misses) => misses < SETTLED_AFTER,
            None => self.is_begun() && self.evidence.is_unread(),
        }
    }

    fn is_begun(&self) -> bool {
        self.job.status.attempt.is_some() || self.evidence.is_published()
    }

    /// What it adds to the figures of its pool.
    pub(super) fn share(&self) -> Share {
        let (job, evidence) = (&self.job, &self.evidence);
        let has = evidence.holder_now();
        let seen_pod = evidence.holder().map(|seen| match &seen.container {
            Some(container) => container.pod.clone(),
            None => host_of(&seen.node).into(),
        });
        Share {
            pool: job.spec.pool.clone(),
            hard_limit: job.spec.overrides.as_ref().and_then(|overrides| overrides.hard),
            is_begun: self.is_begun(),
            is_queued: evidence.is_queued(),
            is_outstanding: evidence.is_outstanding() || self.is_unclear(),
            is_missed: has.is_none() && evidence.misses().is_some(),
            is_futile: job.status.why.is_futile(),
            waits_for: waits::reason(&job.status),
            published_at: evidence.published_at(),
            is_unread: evidence.is_unread(),
            is_fresh: self.fresh.is_some(),
            node: has.map(|holder| holder.node.clone()),
            busy_pod: has.and_then(|holder| holder.container.as_ref()).map(|container| container.pod.clone()),
            seen_pod,
        }
    }
}

/// Resource versions of one kind are comparable as numbers since Kubernetes 1.35, and always were in practice; one that
/// is no number is taken as news.
pub(super) fn is_newer(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version > than,
        _ => version != than,
    }
}
