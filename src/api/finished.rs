//! What still follows the spec of a job that is finished.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CrewJob, expiry_bucket};
use crate::core::expiry::expires_at;

impl CrewJob {
    /// The merge patch that makes the status of a finished job follow a change of its spec; `None` when it does so
    /// already, or has not ended. The pool's time to live counts where the job has none of its own.
    ///
    /// How the job ended stays as it is, and nothing is run again.
    pub fn follow_spec(&self, pool_ttl: Option<Duration>) -> Option<Value> {
        let status = self.status.as_ref().filter(|status| status.phase.is_terminal())?;
        let generation =
            self.metadata.generation.filter(|generation| status.observed_generation != Some(*generation))?;
        let ttl = self.spec.ttl_after_finished.map(super::Duration::to_std).or(pool_ttl);
        let expires_at = status.finished_at.as_ref().and_then(|finished_at| expires_at(finished_at.0, ttl));
        Some(json!({
            "metadata": { "resourceVersion": self.metadata.resource_version },
            "status": { "observedGeneration": generation, "expiryBucket": expires_at.map(expiry_bucket) },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{FINISHED, Phase, UNFINISHED};

    const HOUR: Duration = Duration::from_hours(1);

    /// A job that ended at 15:30 with an expiry, whose spec was changed since to have this time to live.
    fn job(ttl: Option<&str>) -> CrewJob {
        let status = json!({
            "phase": "Succeeded", "observedGeneration": 1, "expiryBucket": "2026-11-22T16", "attempts": 1,
            "finishedAt": "2026-11-22T15:30:00Z",
        });
        let metadata = json!({ "name": "a", "namespace": "team", "generation": 2, "resourceVersion": "7" });
        let spec = json!({ "topic": "t", "ttlAfterFinished": ttl });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status })).unwrap()
    }

    #[test]
    fn a_changed_ttl_of_a_finished_job_counts_from_its_end() {
        for (change, ttl, pool_ttl, bucket) in [
            ("lengthened", Some("24h"), None, json!("2026-11-23T15")),
            ("shortened", Some("1m"), None, json!("2026-11-22T15")),
            ("nothing", Some("0s"), None, json!("2026-11-22T15")),
            ("into the next hour", Some("30m"), None, json!("2026-11-22T16")),
            ("removed", None, None, Value::Null),
            ("removed, and the pool has one", None, Some(HOUR * 2), json!("2026-11-22T17")),
            ("its own wins over the pool's", Some("1m"), Some(HOUR * 2), json!("2026-11-22T15")),
            ("the longest", Some("8784h"), None, json!("2027-11-23T15")),
        ] {
            let patch = job(ttl).follow_spec(pool_ttl).unwrap();
            let status = json!({ "observedGeneration": 2, "expiryBucket": bucket });
            assert_eq!(patch, json!({ "metadata": { "resourceVersion": "7" }, "status": status }), "{change}");
        }
    }

    #[test]
    fn nothing_is_written_about_a_job_that_has_not_ended_or_whose_spec_is_observed() {
        let mut unfinished = job(Some("1h"));
        unfinished.status.as_mut().unwrap().phase = Phase::Running;
        assert_eq!(unfinished.follow_spec(None), None);
        let mut observed = job(Some("1h"));
        observed.status.as_mut().unwrap().observed_generation = Some(2);
        assert_eq!(observed.follow_spec(Some(HOUR)), None, "the pool's default alone changes nothing after the end");
    }

    #[test]
    fn a_job_is_selected_as_finished_exactly_when_it_is_not_selected_as_unfinished() {
        for phase in [
            Phase::Pending,
            Phase::Queued,
            Phase::Running,
            Phase::Retrying,
            Phase::Succeeded,
            Phase::Failed,
            Phase::Cancelled,
        ] {
            let term = format!("status.phase!={phase:?}");
            let excludes = |selector: &str| selector.split(',').any(|part| part == term);
            assert_eq!(
                (excludes(FINISHED), excludes(UNFINISHED)),
                (!phase.is_terminal(), phase.is_terminal()),
                "{phase:?}"
            );
        }
    }
}
