//! From the resource to the decision core: what the operator keeps of a `CrewJob`.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Attempt as ApiAttempt, ConditionType, CrewJob, CrewJobSpec, CrewJobStatus, JobDefaults, OnUnknown as ApiOnUnknown,
    Outcome, Phase as ApiPhase, RetryPolicy, Timeouts, Worker, usage,
};
use crate::core::account::{Account, Count, JobAccount, SavedState, Spent};
use crate::core::claims;
use crate::core::id::{GENERATIONS, ObjectKey, Priority, SpecHash, TaskId};
use crate::core::job::{Job, Spec};
use crate::core::policy::{OnUnknown, Overrides};
use crate::core::status::{
    Attempt, AttemptOutcome, Container, End, Holder, PastAttempt, Phase, Progress, Refusal, RefusalKind, Status,
    TaskError, Unstopped, Why,
};
use crate::core::trace::SpanContext;
use crate::core::usage::{Consumed, Usage};
use crate::wire::TraceParent;

/// Annotation of a CrewJob with the `traceparent` (W3C Trace Context) of what caused it, such as a pipeline. The job's own
/// trace is linked to that span. One that is malformed is ignored.
const TRACEPARENT: &str = "crewjob.dev/traceparent";

/// An object that the API server would never have stored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the CrewJob has no {0}")]
pub struct Incomplete(&'static str);

impl CrewJob {
    /// What the operator keeps of this object.
    pub fn to_job(&self) -> Result<Job, Incomplete> {
        let meta = &self.metadata;
        let name = meta.name.as_deref().ok_or(Incomplete("metadata.name"))?;
        let namespace = meta.namespace.as_deref().ok_or(Incomplete("metadata.namespace"))?;
        let uid = meta.uid.as_deref().ok_or(Incomplete("metadata.uid"))?;
        let job_uid = Uuid::try_parse(uid).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, uid.as_bytes()));
        Ok(Job {
            key: ObjectKey::new(namespace, name),
            uid: job_uid,
            created_at: meta.creation_timestamp.as_ref().map(|time| time.0).ok_or(Incomplete("creationTimestamp"))?,
            spec: self.spec.to_core(meta.generation.unwrap_or(0)),
            labels: labels(meta.labels.as_ref()),
            cause: meta.annotations.as_ref().and_then(|all| all.get(TRACEPARENT)).and_then(|text| cause(text)),
            status: self.status.as_ref().map(|status| status.to_core(job_uid)).unwrap_or_default(),
        })
    }
}

/// How many labels of a job are kept, and how long they may be together.
const LABELS: (usize, usize) = (32, 2048);

/// The labels that a limit may go by, in the order of their names. There may be any number of them.
fn labels(all: Option<&BTreeMap<String, String>>) -> Box<[(Arc<str>, Arc<str>)]> {
    let (most, bytes) = LABELS;
    let mut room = bytes;
    let kept = all.into_iter().flatten().take(most).take_while(|(label, value)| {
        let rest = room.checked_sub(label.len() + value.len());
        room = rest.unwrap_or(0);
        rest.is_some()
    });
    kept.map(|(label, value)| (Arc::from(label.as_str()), Arc::from(value.as_str()))).collect()
}

/// The span that an annotation names; nothing where it names none.
fn cause(text: &str) -> Option<Box<SpanContext>> {
    let TraceParent { trace, span, is_sampled } = TraceParent::parse(text.trim())?;
    Some(Box::new(SpanContext { trace, span, is_sampled }))
}

impl CrewJobSpec {
    fn to_core(&self, generation: i64) -> Spec {
        let overrides = overrides(self.retry_policy.as_ref(), self.timeouts.as_ref(), self.ttl_after_finished.as_ref());
        Spec {
            generation,
            pool: self.pool_ref.name.as_str().into(),
            queue: self.queue.as_deref().map(Arc::from),
            task: self.task.as_str().into(),
            priority: Priority::clamped(self.priority),
            overrides: (overrides != Overrides::default()).then(|| Box::new(overrides)),
            suspend: self.suspend,
            cancel: self.cancel,
            run_once: self.run_once.as_deref().map(Arc::from),
            dedup: self.dedup.as_ref().map(|dedup| Box::new(dedup.to_core())),
            hash: self.hash(),
            invalid: self.problem().map(String::into_boxed_str),
        }
    }
}

impl JobDefaults {
    /// The pool's choices.
    pub fn to_core(&self) -> Overrides {
        overrides(self.retry_policy.as_ref(), self.timeouts.as_ref(), self.ttl_after_finished.as_ref())
    }
}

fn overrides(retry: Option<&RetryPolicy>, timeouts: Option<&Timeouts>, ttl: Option<&super::Duration>) -> Overrides {
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    let std = |duration: &super::Duration| duration.to_std();
    let backoff = retry.and_then(|retry| retry.backoff.as_ref());
    let timeouts = timeouts.cloned().unwrap_or_default();
    Overrides {
        max_retries: retry.and_then(|retry| retry.max_retries).map(count),
        backoff_initial: backoff.and_then(|backoff| backoff.initial.as_ref()).map(std),
        backoff_factor: backoff.and_then(|backoff| backoff.factor).map(count),
        backoff_max: backoff.and_then(|backoff| backoff.max.as_ref()).map(std),
        non_retryable: retry
            .and_then(|retry| retry.non_retryable.as_ref())
            .map(|kinds| kinds.iter().map(|kind| Arc::from(kind.as_str())).collect()),
        max_worker_losses: retry.and_then(|retry| retry.max_worker_losses).map(count),
        on_unknown: retry.and_then(|retry| retry.on_unknown).map(|choice| match choice {
            ApiOnUnknown::Fail => OnUnknown::Fail,
            ApiOnUnknown::Retry => OnUnknown::Retry,
        }),
        resume: retry.and_then(|retry| retry.resume),
        soft: timeouts.soft.as_ref().map(std),
        hard: timeouts.hard.as_ref().map(std),
        queue: timeouts.queue.as_ref().map(std),
        total: timeouts.total.as_ref().map(std),
        ttl: ttl.map(std),
    }
}

impl CrewJobStatus {
    /// What an earlier operator recorded, or this one. A final result is not read back: nothing is decided from it.
    fn to_core(&self, uid: Uuid) -> Status {
        let phase = match self.phase {
            ApiPhase::Pending => Phase::Pending,
            ApiPhase::Queued => Phase::Queued,
            ApiPhase::Running => Phase::Running,
            ApiPhase::Retrying => Phase::Retrying,
            ApiPhase::Succeeded => Phase::Succeeded,
            ApiPhase::Failed => Phase::Failed,
            ApiPhase::Cancelled => Phase::Cancelled,
        };
        let since = |kind: ConditionType| {
            super::find_condition(&self.conditions, kind)
                .filter(|condition| condition.status == "True")
                .map(|condition| condition.last_transition_time.0)
        };
        let history: Vec<PastAttempt> = self.attempt_history.iter().filter_map(past_to_core).collect();
        let attempts = count(self.attempts).min(claims::RUNS);
        // Between attempts `taskID` still names the one that is over. An attempt is numbered by its first run.
        let named = self.task_id.as_deref().and_then(TaskId::parse).filter(|_| phase != Phase::Retrying);
        let number = named.and_then(|task| {
            let earliest = attempts.saturating_sub(claims::RETRIES).max(1);
            (earliest..=attempts + 1).rev().find(|n| TaskId::derive(uid, *n) == task)
        });
        let attempt = number.zip(self.queued_at.as_ref()).map(|(number, queued_at)| Attempt {
            number,
            generation: count(self.delivery_generation).min(GENERATIONS),
            enqueued_at: queued_at.0,
            started_at: self.started_at.as_ref().map(|time| time.0),
        });
        let said = super::find_condition(&self.conditions, ConditionType::Reconciling);
        // A refusal stands in the place of what would be said without it.
        let refused = said.and_then(|condition| {
            let (kind, detail) = (RefusalKind::named(&condition.reason)?, condition.message.as_str().into());
            Some(Box::new(Refusal { kind, detail, told_at: Timestamp::UNIX_EPOCH }))
        });
        let why = match (said, phase) {
            (None, _) => Why::Unseen,
            (Some(_), Phase::Pending) if refused.is_some() => Why::Unseen,
            (Some(_), Phase::Queued) if refused.is_some() => Why::Enqueued,
            (Some(_), Phase::Running) if refused.is_some() => Why::Started,
            (Some(_), Phase::Retrying) if refused.is_some() => Why::RetryScheduled,
            (Some(condition), _) => {
                Why::Recorded { reason: condition.reason.as_str().into(), message: condition.message.as_str().into() }
            }
        };
        Status {
            observed_generation: self.observed_generation.unwrap_or(0),
            phase,
            why,
            refused,
            attempt,
            attempts,
            worker_losses: count(self.worker_losses),
            message_losses: count(self.message_losses),
            history,
            retry_at: self.next_retry_at.as_ref().map(|time| Box::new(time.0)),
            queued_at: self.first_queued_at.as_ref().map(|time| time.0),
            stands: self.dedup_uid.as_ref().and_then(|uid| Uuid::try_parse(uid).ok()).map(Box::new),
            released_at: self.released_at.as_ref().map(|time| Box::new(time.0)),
            worker: self.worker.as_ref().map(|worker| Box::new(worker_to_core(worker))),
            end: self
                .finished_at
                .as_ref()
                .map(|time| Box::new(End { late_result: since(ConditionType::LateResult), ..End::new(time.0) })),
            result: None,
            error: self
                .error
                .as_ref()
                .map(|error| Box::new(TaskError::new(&error.type_, &error.message, error.traceback.as_deref()))),
            progress: self.progress.as_ref().map(|progress| {
                Box::new(Progress {
                    percent: progress.percent.and_then(|percent| u8::try_from(percent).ok()),
                    message: progress.message.as_deref().map(Arc::from),
                    at: Timestamp::UNIX_EPOCH,
                })
            }),
            account: self.account(),
            queue: self.queue.as_deref().map(Arc::from),
            is_traced: self.trace_id.is_some(),
            spec_hash: self.spec_hash.as_deref().and_then(SpecHash::parse),
            remarks: None,
        }
        .remarked(|it| {
            it.spec_changed = since(ConditionType::SpecChanged);
            it.cancel_unsupported = super::find_condition(&self.conditions, ConditionType::CancelUnsupported)
                .filter(|condition| condition.status == "True")
                .map(|condition| {
                    let all = [Unstopped::PoolDeleted, Unstopped::WorkerDeaf];
                    let why = all.into_iter().find(|why| why.reason() == condition.reason);
                    (condition.last_transition_time.0, why.unwrap_or(Unstopped::WorkerDeaf))
                });
        })
    }

    /// What runs have said of themselves.
    fn account(&self) -> Option<Box<JobAccount>> {
        if self.usage.is_none() && self.state.is_none() {
            return None;
        }
        let last = self.usage_count.as_ref();
        let last =
            last.map(|it| Count { id: it.id.as_str().into(), usage: usage::to_core(&it.models) }).unwrap_or_default();
        let all = self.usage.as_ref().map(|usage| usage::to_core(&usage.models)).unwrap_or_default();
        let spent = Spent { before: all.without(&last.usage), last, at: Timestamp::UNIX_EPOCH };
        let state = self.state.as_ref().map(|state| SavedState {
            saved_at: state.saved_at.as_ref().map(|time| time.0),
            bytes: u64::try_from(state.size_bytes).unwrap_or(0),
            is_resumed: state.resumed,
            problem: state.problem.as_deref().map(Arc::from),
        });
        Some(Box::new(JobAccount { spent, state }))
    }
}

fn count(n: i32) -> u32 {
    u32::try_from(n).unwrap_or(0)
}

fn worker_to_core(worker: &Worker) -> Holder {
    let container = match (&worker.pod_name, &worker.pod_uid, &worker.container_id, &worker.started_at) {
        (Some(pod), Some(pod_uid), Some(id), Some(started_at)) => Some(Container {
            pod: pod.as_str().into(),
            pod_uid: pod_uid.as_str().into(),
            id: id.as_str().into(),
            started_at: started_at.0,
        }),
        _ => None,
    };
    Holder { node: worker.name.as_str().into(), container }
}

fn past_to_core(past: &ApiAttempt) -> Option<PastAttempt> {
    let error =
        past.error_type.as_deref().map(|kind| TaskError::new(kind, past.message.as_deref().unwrap_or(""), None));
    Some(PastAttempt {
        number: count(past.number),
        task: past.task_id.as_deref().and_then(TaskId::parse)?,
        outcome: match past.outcome {
            Some(Outcome::Succeeded) => AttemptOutcome::Succeeded,
            Some(Outcome::Failed | Outcome::TimedOut) => AttemptOutcome::Failed,
            Some(Outcome::WorkerLost) => AttemptOutcome::WorkerLost,
            Some(Outcome::MessageLost) => AttemptOutcome::MessageLost,
            Some(Outcome::Cancelled) => AttemptOutcome::Revoked,
            Some(Outcome::NoResult | Outcome::ResultExpired) | None => AttemptOutcome::Unknown,
        },
        worker: past.worker.as_deref().map(Arc::from),
        enqueued_at: past.enqueued_at.as_ref().map(|time| time.0),
        started_at: past.started_at.as_ref().map(|time| time.0),
        finished_at: past.finished_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        error,
        account: (past.resumed || past.usage.is_some()).then(|| {
            let consumed = past.usage.as_ref().map(Consumed::from);
            let usage = consumed.map(|consumed| Usage::of("", consumed)).unwrap_or_default();
            let state = past.resumed.then(|| SavedState { is_resumed: true, ..SavedState::default() });
            Box::new(Account { count: Count { usage, ..Count::default() }, state })
        }),
    })
}
