//! What follows from a result document.

use std::sync::Arc;

use super::super::id::TaskId;
use super::super::observed::{Ended, Ending, Failure, Held, Holding, LargeResults, Liveness};
use super::super::plan::{Effect, InPlaceOf, Next, Plan};
use super::super::status::{AttemptOutcome, GaveUp, Kept, Output, Phase, Status, StoredResult, TaskError, Why};
use super::{InPool, later};

/// What Celery stores of a task that has returned what its result serializer cannot encode: `celery.app.trace` turns the
/// error of the result backend into a failure of the task. It is raised as well where a task sends another one arguments
/// that cannot be encoded.
const NOT_ENCODED: &str = "kombu.exceptions.EncodeError";

impl InPool<'_> {
    /// A result document says how the run ended.
    pub(super) fn ended(&self, ended: &Ended) -> Plan {
        match &ended.how {
            Ending::Succeeded(output) => self.succeeded(ended, output),
            Ending::Failed(failure) => {
                let status = self.run_over(ended, AttemptOutcome::Failed, Some(failure.error.clone()));
                self.retry_or_give_up(ended.celery_retries, failure, status)
            }
            Ending::ChildLost(error) => {
                let in_place_of = ended.marker.map_or(InPlaceOf::Nothing, InPlaceOf::Ended);
                self.worker_lost(&self.as_held(ended), in_place_of, Some(error.clone()))
            }
            Ending::Revoked => self.revoked(ended),
            Ending::Unreadable(why) => {
                let error = TaskError::new("ResultUnreadable", why, None);
                let status = self.run_over(ended, AttemptOutcome::Unknown, Some(error.clone()));
                self.give_up(GaveUp::NoResult, Some(error), status)
            }
        }
    }

    /// The worker that had it has stopped it.
    fn revoked(&self, ended: &Ended) -> Plan {
        if let Some(stop) = self.stop() {
            return self.stopped(stop, None, self.run_over(ended, AttemptOutcome::Revoked, None));
        }
        let began = ended.started_at.or(self.job.status.attempt.and_then(|attempt| attempt.started_at));
        if began.is_some_and(|began| later(began, self.policy.hard) <= self.now) {
            return self.ran_too_long(&self.as_held(ended));
        }
        self.give_up(GaveUp::Revoked, None, self.run_over(ended, AttemptOutcome::Revoked, None))
    }

    fn succeeded(&self, ended: &Ended, output: &Arc<Output>) -> Plan {
        let why = if self.job.spec.cancel { Why::FinishedBeforeCancel } else { Why::Succeeded };
        let (may_be_copied, keep) = match self.pool.large_results {
            LargeResults::ConfigMap => (true, self.pool.keep_large_results.max(self.pool.result_expires)),
            LargeResults::Redis => (false, self.pool.result_expires),
        };
        let (kept, effect) = if output.is_inline() {
            (Kept::Inline, None)
        } else if may_be_copied && output.bytes <= StoredResult::CONFIG_MAP as u64 {
            (Kept::ConfigMap, Some(Effect::StoreResult(output.clone())))
        } else {
            let key = format!("{}{}", self.pool.result_prefix, self.id.task).into();
            (
                Kept::Redis { key, until: later(self.now, keep) },
                Some(Effect::ExtendResult { task: self.id.task, ttl: keep }),
            )
        };
        let status = Status {
            result: Some(Box::new(StoredResult { output: output.clone(), kept })),
            error: None,
            ..self.run_over(ended, AttemptOutcome::Succeeded, None)
        };
        let mut plan = self.finish(Phase::Succeeded, why, status);
        plan.effects.extend(effect);
        plan
    }

    /// Another attempt if the policy allows one, after its backoff.
    pub(super) fn retry_or_give_up(&self, celery_retries: u32, failure: &Failure, so_far: Status) -> Plan {
        let error = failure.error.clone();
        let runs = self.id.number.saturating_add(celery_retries);
        let attempts = so_far.attempts.max(runs);
        if let Some(stop) = self.stop() {
            return self.stopped(stop, Some(error), Status { attempts, ..so_far });
        }
        if failure.is_named(NOT_ENCODED) {
            return self.give_up(GaveUp::ResultNotEncodable, Some(error), Status { attempts, ..so_far });
        }
        if failure.is_permanent || self.policy.non_retryable.iter().any(|name| failure.is_named(name)) {
            return self.give_up(GaveUp::NonRetryableError, Some(error), Status { attempts, ..so_far });
        }
        if runs > self.policy.max_retries {
            return self.give_up(GaveUp::RetriesExhausted, Some(error), Status { attempts, ..so_far });
        }
        let next = TaskId::derive(self.job.uid, attempts.saturating_add(1));
        let retry_at = later(self.now, self.policy.backoff.delay(runs.saturating_sub(1), next));
        let status = Status {
            phase: Phase::Retrying,
            why: Why::RetryScheduled,
            attempt: None,
            attempts,
            retry_at: Some(Box::new(retry_at)),
            message_losses: 0,
            worker: None, // the next attempt's message is not with the worker of this one
            error: Some(Box::new(error)),
            progress: None,
            ..so_far
        };
        self.leaving(Plan::record(status, Next::At(retry_at)), false)
    }

    /// The status with this run over and in the history.
    fn run_over(&self, ended: &Ended, outcome: AttemptOutcome, error: Option<TaskError>) -> Status {
        let mut status = self.under_way(self.generation(ended));
        let started_at = ended.started_at.or(status.attempt.and_then(|attempt| attempt.started_at));
        if let Some(attempt) = &mut status.attempt {
            attempt.started_at = started_at;
        }
        status.attempts = status.attempts.max(self.id.number.saturating_add(ended.celery_retries));
        if let Some(worker) = &ended.worker {
            status.worker = Some(Box::new(worker.clone()));
        }
        status.remember(self.past(outcome, Some(&self.as_held(ended)), error));
        status
    }

    /// Generation of the run: what the marker says, never less than what is recorded.
    fn generation(&self, ended: &Ended) -> u32 {
        ended.marker.unwrap_or(0).max(self.id.generation)
    }

    /// The worker that had it, as far as its result document tells.
    fn as_held(&self, ended: &Ended) -> Held {
        Held {
            generation: self.generation(ended),
            started_at: ended.started_at,
            by: match &ended.worker {
                Some(worker) => Holding::By(worker.clone(), Liveness::Alive),
                None => Holding::Unattributed,
            },
            celery_retries: ended.celery_retries,
            progress: None,
            account: ended.account.clone(),
            has_stored_failure: false,
        }
    }
}
