//! What unfinished jobs wait for: a closed list, since it is a label of a metric.

use super::dedup::{ATTACHED, REPLACING};
use super::limits::{LIMIT_REACHED, RELEASED};
use super::reason::PoolProblemKind;
use super::setup::FaultKind;
use super::start::BlockedKind;
use super::status::{Phase, Status};

/// Those that no other list has. `Enqueued` first, as most jobs that wait do so for a worker.
const OWN: [&str; 14] = [
    "Enqueued",
    "Pending",
    "RetryScheduled",
    "Suspended",
    "RunOnceHeld",
    LIMIT_REACHED,
    RELEASED,
    ATTACHED,
    REPLACING,
    "PoolNotFound",
    "QueueNotInPool",
    "TaskNotAllowed",
    "WorkerLost",
    "MessageLost",
];
/// What a later operator has recorded and this one does not know.
const OTHER: &str = "Other";

/// What a job waits for: what is refused, otherwise the reason of its phase. `None` of a job that runs or has ended.
pub fn reason(status: &Status) -> Option<&'static str> {
    match (&status.refused, status.phase) {
        (_, Phase::Succeeded | Phase::Failed | Phase::Cancelled) | (None, Phase::Running) => None,
        (Some(refused), _) => Some(refused.kind.reason()),
        (None, Phase::Pending | Phase::Queued | Phase::Retrying) => Some(named(status.why.reason())),
    }
}

/// The same name, from the list.
pub fn named(reason: &str) -> &'static str {
    let own = OWN.into_iter().find(|own| *own == reason);
    own.or_else(|| PoolProblemKind::named(reason).map(PoolProblemKind::reason))
        .or_else(|| BlockedKind::named(reason).map(BlockedKind::reason))
        .or_else(|| FaultKind::named(reason).map(FaultKind::reason))
        .unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::core::reason::{Hold, PoolProblem, Refusal, RefusalKind, Why};

    fn of(phase: Phase, why: Why) -> Status {
        Status { phase, why, ..Status::default() }
    }

    #[test]
    fn a_job_that_waits_does_so_for_the_reason_of_its_phase() {
        let problem = PoolProblem { kind: PoolProblemKind::SecretNotFound, detail: "d".into() };
        let hold = Why::OnHold(Hold::PoolNotReady { pool: "p".into(), problem });
        for (phase, why, expected) in [
            (Phase::Pending, Why::Unseen, "Pending"),
            (Phase::Pending, hold, "SecretNotFound"),
            (Phase::Pending, Why::OnHold(Hold::Suspended), "Suspended"),
            (Phase::Pending, Why::OnHold(Hold::KeyHeld { key: "k".into(), by: "b".into() }), "RunOnceHeld"),
            (Phase::Queued, Why::Enqueued, "Enqueued"),
            (Phase::Queued, Why::WorkerLost, "WorkerLost"),
            (Phase::Retrying, Why::RetryScheduled, "RetryScheduled"),
        ] {
            assert_eq!(reason(&of(phase, why)), Some(expected));
        }
    }

    #[test]
    fn a_job_that_runs_or_has_ended_waits_for_nothing() {
        assert_eq!(reason(&of(Phase::Running, Why::Started)), None);
        for phase in [Phase::Succeeded, Phase::Failed, Phase::Cancelled] {
            assert_eq!(reason(&of(phase, Why::Cancelled)), None);
        }
    }

    #[test]
    fn what_is_refused_counts_for_more_also_for_a_job_that_runs() {
        let refused = Refusal { kind: RefusalKind::Result, detail: "d".into(), told_at: Timestamp::UNIX_EPOCH };
        let status = Status { refused: Some(Box::new(refused)), ..of(Phase::Running, Why::Started) };
        assert_eq!(reason(&status), Some("ResultRefused"));
    }

    #[test]
    fn the_list_stays_closed_whatever_is_found_in_a_status() {
        let recorded =
            |reason: &str| of(Phase::Pending, Why::Recorded { reason: Arc::from(reason), message: "m".into() });
        assert_eq!(reason(&recorded("ImageNotPulled")), Some("ImageNotPulled"));
        assert_eq!(reason(&recorded("ResultsIgnored")), Some("ResultsIgnored"));
        assert_eq!(reason(&recorded("made-up-by-a-tenant")), Some(OTHER));
    }
}
