//! From the decision core to the resource: what the API shows of a job's status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    Attempt as ApiAttempt, ConditionType, Consumption, CrewJobStatus, JobError, JobResult, JobState, Outcome,
    Phase as ApiPhase, Progress as ApiProgress, Usage as ApiUsage, UsageCount, Worker, usage,
};
use crate::core::account::SavedState;
use crate::core::id::TaskId;
use crate::core::job::Job;
use crate::core::status::{
    AttemptOutcome, GaveUp, Holder, Kept, PastAttempt, Phase, Progress, Status, StoredResult, Why,
};
use crate::core::usage::{Consumed, Usage};

/// The merge patch that turns the recorded status into the new one; `None` when it says the same.
pub fn status_patch(job: &Job, new: &Status, version: &str) -> Option<Value> {
    let patch = merge_patch(&render(job, &job.status), &render(job, new))?;
    Some(json!({ "metadata": { "resourceVersion": version }, "status": patch }))
}

/// The merge patch that turns one value into another of its kind; `None` when they say the same.
pub fn merge_patch<T: Serialize>(old: &T, new: &T) -> Option<Value> {
    let value = |of: &T| serde_json::to_value(of).unwrap_or_default();
    difference(&value(old), &value(new))
}

/// RFC 7386: what to merge into `old` to get `new`. Lists are replaced whole.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let removed = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = after.iter().filter_map(|(key, value)| match before.get(key) {
        Some(old) => difference(old, value).map(|patch| (key.clone(), patch)),
        None => Some((key.clone(), value.clone())),
    });
    let patch: Map<String, Value> = removed.chain(changed).collect();
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The status as the API shows it.
pub fn render(job: &Job, status: &Status) -> CrewJobStatus {
    let last = status.history.last().map(|past| (past.task, past.enqueued_at, past.started_at));
    let current = status
        .attempt
        .map(|attempt| (TaskId::derive(job.uid, attempt.number), Some(attempt.enqueued_at), attempt.started_at));
    let (task, queued_at, started_at) = current
        .or(last)
        .map_or((None, None, None), |(task, queued_at, started_at)| (Some(task), queued_at, started_at));
    let time = |at: Timestamp| Time(to_second(at));
    let mut rendered = CrewJobStatus {
        phase: match status.phase {
            Phase::Pending => ApiPhase::Pending,
            Phase::Queued => ApiPhase::Queued,
            Phase::Running => ApiPhase::Running,
            Phase::Retrying => ApiPhase::Retrying,
            Phase::Succeeded => ApiPhase::Succeeded,
            Phase::Failed => ApiPhase::Failed,
            Phase::Cancelled => ApiPhase::Cancelled,
        },
        observed_generation: (status.observed_generation > 0).then_some(status.observed_generation),
        spec_hash: status.spec_hash.map(|hash| hash.to_string()),
        task_id: task.map(|task| task.to_string()),
        attempts: number(status.attempts),
        delivery_generation: status.attempt.map_or(0, |attempt| number(attempt.generation)),
        worker_losses: number(status.worker_losses),
        message_losses: number(status.message_losses),
        queue: status.queue.as_deref().map(str::to_owned),
        queued_at: queued_at.map(time),
        first_queued_at: status.queued_at.map(time),
        started_at: started_at.map(time),
        finished_at: status.finished_at().map(time),
        next_retry_at: status.retry_at.as_deref().copied().map(time_up),
        released_at: status.released_at.as_deref().copied().map(MicroTime),
        release_minute: status.released_at.as_deref().copied().map(release_minute),
        dedup_uid: status.stands.as_deref().map(ToString::to_string),
        expiry_bucket: status.end.as_ref().and_then(|end| end.expires_at).map(expiry_bucket),
        worker: status.worker.as_deref().map(worker),
        progress: status.progress.as_deref().map(progress),
        usage: status.spent().map(|spent| all_usage(&spent.total())),
        usage_count: status
            .spent()
            .filter(|spent| !spent.last.usage.is_empty())
            .map(|spent| UsageCount { id: spent.last.id.to_string(), models: usage::models(&spent.last.usage) }),
        state: status.state().map(state),
        result: status.result.as_deref().map(|result| stored(job, task, result)),
        error: status
            .error
            .as_deref()
            .map(|error| JobError::new(&error.kind, &error.message, error.traceback.as_deref())),
        trace_id: status.is_traced.then(|| job.uid.simple().to_string()),
        attempt_history: status.history.iter().map(past).collect(),
        conditions: Vec::new(),
    };
    rendered.conditions = conditions(job, status);
    rendered
}

fn to_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Rounded up, so that a restart does not begin a retry early.
fn time_up(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second() + i64::from(at.subsec_nanosecond() > 0)).unwrap_or(at))
}

/// The UTC hour after which a finished job that expires at this time may be deleted.
pub fn expiry_bucket(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H").to_string()
}

/// The UTC minute of this time, by which jobs that were released in it are found.
pub fn release_minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M").to_string()
}

fn worker(holder: &Holder) -> Worker {
    let container = holder.container.as_ref();
    Worker {
        name: holder.node.to_string(),
        pod_name: container.map(|container| container.pod.to_string()),
        pod_uid: container.map(|container| container.pod_uid.to_string()),
        container_id: container.map(|container| container.id.to_string()),
        started_at: container.map(|container| Time(to_second(container.started_at))),
    }
}

fn all_usage(total: &Usage) -> ApiUsage {
    ApiUsage { total: (&total.total()).into(), models: usage::models(total) }
}

fn state(state: &SavedState) -> JobState {
    let saved_at = state.saved_at.map(|at| Time(to_second(at)));
    JobState::new(saved_at, state.bytes, state.is_resumed, state.problem.as_deref())
}

fn progress(progress: &Progress) -> ApiProgress {
    ApiProgress::new(progress.percent.map(i32::from), progress.message.as_deref())
}

fn past(past: &PastAttempt) -> ApiAttempt {
    let attempt = ApiAttempt {
        number: number(past.number),
        task_id: Some(past.task.to_string()),
        outcome: Some(match past.outcome {
            AttemptOutcome::Succeeded => Outcome::Succeeded,
            AttemptOutcome::Failed => match past.error.as_ref().map(|error| &*error.kind) {
                Some("TimeLimitExceeded" | "SoftTimeLimitExceeded") => Outcome::TimedOut,
                Some(_) | None => Outcome::Failed,
            },
            AttemptOutcome::WorkerLost => Outcome::WorkerLost,
            AttemptOutcome::MessageLost => Outcome::MessageLost,
            AttemptOutcome::Revoked => Outcome::Cancelled,
            AttemptOutcome::Unknown => Outcome::NoResult,
        }),
        worker: past.worker.as_deref().map(str::to_owned),
        enqueued_at: past.enqueued_at.map(|at| Time(to_second(at))),
        started_at: past.started_at.map(|at| Time(to_second(at))),
        finished_at: Some(Time(to_second(past.finished_at))),
        error_type: None,
        message: None,
        resumed: past.account.as_ref().and_then(|it| it.state.as_ref()).is_some_and(|state| state.is_resumed),
        usage: past
            .account
            .as_ref()
            .map(|account| account.count.usage.total())
            .filter(|total| *total != Consumed::default())
            .map(|total| Consumption::from(&total)),
    };
    match &past.error {
        Some(error) => attempt.because(Some(&error.kind), &error.message),
        None => attempt,
    }
}

/// Name of the ConfigMap that holds a result: the job's name, shortened if need be, and the task it came from.
pub fn result_config_map_name(job: &str, task: TaskId) -> String {
    let task = task.to_string();
    let suffix = task.rsplit('-').next().unwrap_or(&task);
    let stem = job.get(..job.floor_char_boundary(230)).unwrap_or(job).trim_end_matches(['.', '-']);
    format!("{stem}-result-{suffix}")
}

fn stored(job: &Job, task: Option<TaskId>, result: &StoredResult) -> JobResult {
    let task = task.unwrap_or_else(|| job.attempt_in_hand().task);
    let described = JobResult::described(result.output.bytes, result.output.sha256);
    match &result.kept {
        Kept::Inline => match &result.output.text {
            Some(text) => described.inline(text),
            None => described,
        },
        Kept::Elsewhere(name) => described.in_config_map(name.to_string()),
        Kept::ConfigMap => described.in_config_map(result_config_map_name(&job.key.name, task)),
        Kept::Redis { key, until } => described.on_redis(key.to_string(), Some(Time(to_second(*until)))),
    }
}

fn conditions(job: &Job, status: &Status) -> Vec<Condition> {
    if matches!(status.why, Why::Unseen) && status.refused.is_none() {
        return Vec::new();
    }
    let ended_at = status.finished_at().unwrap_or(job.created_at);
    let condition = |kind: ConditionType, holds: bool, since: Timestamp, reason: &str, message: &str| Condition {
        type_: kind.to_string(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: super::text::head(message, super::condition::MESSAGE_BYTES).to_owned(),
        observed_generation: (status.observed_generation > 0).then_some(status.observed_generation),
        last_transition_time: Time(to_second(since)),
    };
    let (reason, message) = match &status.refused {
        Some(refused) => (refused.kind.reason(), &refused.detail.to_string()),
        None => (status.why.reason(), &status.message()),
    };
    let terminal = status.phase.is_terminal();
    let since = if terminal { ended_at } else { job.created_at };
    let mut all = vec![condition(ConditionType::Reconciling, !terminal, since, reason, message)];
    match status.phase {
        Phase::Succeeded => all.push(condition(ConditionType::Complete, true, ended_at, reason, message)),
        Phase::Failed => {
            all.push(condition(ConditionType::Failed, true, ended_at, reason, message));
            all.push(condition(ConditionType::Stalled, true, ended_at, reason, message));
        }
        Phase::Cancelled => all.push(condition(ConditionType::Failed, true, ended_at, reason, message)),
        Phase::Pending | Phase::Queued | Phase::Running | Phase::Retrying => {}
    }
    if let Some(at) = status.remarks().spec_changed {
        let message = Status { why: Why::GaveUp(GaveUp::SpecChanged), ..Status::default() }.message();
        all.push(condition(ConditionType::SpecChanged, true, at, "SpecChanged", &message));
    }
    if let Some((at, why)) = status.remarks().cancel_unsupported {
        all.push(condition(ConditionType::CancelUnsupported, true, at, why.reason(), why.message()));
    }
    if let Some(at) = status.end.as_ref().and_then(|end| end.late_result) {
        let message = "a result arrived after the job had ended; it was not recorded";
        all.push(condition(ConditionType::LateResult, true, at, "LateResult", message));
    }
    all
}

fn number(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
