//! From an object to a row, and from a row to what the page reads.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::core::Object;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::{CrewJob, CrewJobSpec, CrewJobStatus, Phase, Time};
use crate::core::listing::{LABELS, Row, SHORT, TOPIC, cut};

/// A CrewJob of which only that is read which a list shows: its inputs are passed over.
pub type Listed = Object<Spec, Status>;

/// Of the spec.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    topic: String,
    pool_ref: Named,
    queue: String,
    task: String,
    priority: i32,
    suspend: bool,
    cancel: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

/// Of the status.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    phase: String,
    queue: String,
    attempts: i32,
    progress: Progress,
    worker: Named,
    error: Failure,
    queued_at: Option<Time>,
    started_at: Option<Time>,
    finished_at: Option<Time>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    reason: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    percent: Option<i32>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Failure {
    #[serde(rename = "type")]
    type_: String,
    message: String,
}

/// What a list shows of the job.
pub fn row(job: &Listed) -> Row {
    let (spec, none) = (&job.spec, Status::default());
    let status = job.status.as_ref().unwrap_or(&none);
    let short = |text: &str| -> Option<Arc<str>> { (!text.is_empty()).then(|| cut(text, SHORT).into()) };
    let or = |one: &str, other: &str| -> Arc<str> { if one.is_empty() { other.into() } else { one.into() } };
    let reconciling = status.conditions.iter().find(|condition| condition.type_ == "Reconciling");
    let labels = job.labels().iter().take(LABELS).map(|(name, value)| (name.as_str().into(), value.as_str().into()));
    let time = |at: &Option<Time>| at.as_ref().map(|at| at.0);
    Row {
        namespace: job.namespace().unwrap_or_default().into(),
        name: job.name_any().into(),
        phase: or(cut(&status.phase, SHORT), "Pending"),
        reason: reconciling.map(|condition| cut(&condition.reason, SHORT)).unwrap_or_default().into(),
        pool: spec.pool_ref.name.as_str().into(),
        queue: or(&status.queue, &spec.queue),
        task: spec.task.as_str().into(),
        labels: labels.collect(),
        topic: cut(&spec.topic, TOPIC).into(),
        priority: spec.priority,
        attempts: status.attempts,
        percent: status.progress.percent.filter(|_| status.phase == "Running"),
        worker: short(&status.worker.name),
        error: short(&status.error.type_),
        error_message: short(&status.error.message).map(|text| (*text).into()),
        suspended: spec.suspend,
        cancelling: spec.cancel,
        created: job.creation_timestamp().map(|at| at.0).unwrap_or_default(),
        queued: time(&status.queued_at),
        started: time(&status.started_at),
        finished: time(&status.finished_at),
    }
}

/// The row as the page reads it. What is empty is left out.
pub fn value(row: &Row) -> Value {
    let mut value = json!({
        "namespace": &*row.namespace, "name": &*row.name, "phase": &*row.phase, "reason": &*row.reason,
        "pool": &*row.pool, "topic": &*row.topic, "priority": row.priority, "attempts": row.attempts,
        "percent": row.percent, "worker": row.worker.as_deref(), "error": row.error.as_deref(),
        "errorMessage": row.error_message.as_deref(), "suspended": row.suspended, "cancelling": row.cancelling,
        "created": row.created.to_string(), "started": row.started.map(|at| at.to_string()),
        "finished": row.finished.map(|at| at.to_string()),
    });
    if let Some(members) = value.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    value
}

/// As much of the job as its place in a queue follows from.
pub fn outline(row: &Row) -> CrewJob {
    let mut spec = CrewJobSpec::with_topic("");
    spec.priority = row.priority;
    row.task.as_ref().clone_into(&mut spec.task);
    let mut job = CrewJob::new(&row.name, spec);
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    job.status = Some(CrewJobStatus {
        phase: phase(&row.phase),
        queue: text(&row.queue),
        queued_at: row.queued.map(Time),
        started_at: row.started.map(Time),
        finished_at: row.finished.map(Time),
        ..CrewJobStatus::default()
    });
    job
}

fn phase(text: &str) -> Phase {
    serde_json::from_value(text.into()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(value: Value) -> Row {
        row(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_job_that_no_operator_has_seen_is_pending_and_what_is_long_is_cut() {
        let labels: serde_json::Map<String, Value> = (0..40).map(|n| (format!("l{n}"), "v".into())).collect();
        let row = listed(json!({
            "metadata": { "name": "tea", "namespace": "team", "creationTimestamp": "2026-03-01T10:00:00Z", "labels": labels },
            "spec": { "topic": "ö".repeat(4096), "poolRef": { "name": "default" }, "priority": 7, "inputs": { "a": [1] } },
        }));
        assert_eq!((&*row.phase, &*row.reason, row.priority, row.labels.len()), ("Pending", "", 7, LABELS));
        assert_eq!(row.topic.chars().count(), TOPIC);
    }

    #[test]
    fn a_row_says_what_a_list_shows_and_leaves_out_what_is_not_known() {
        let row = listed(json!({
            "metadata": { "name": "tea", "namespace": "team", "creationTimestamp": "2026-03-01T10:00:00Z" },
            "spec": { "topic": "Tea", "poolRef": { "name": "gpu" }, "priority": 5, "task": "t", "cancel": true },
            "status": {
                "phase": "Running", "attempts": 2, "queue": "q", "progress": { "percent": 40 },
                "worker": { "name": "crew@pod" }, "startedAt": "2026-03-01T10:01:00Z",
                "conditions": [{
                    "type": "Reconciling", "status": "True", "reason": "Started", "message": "", "lastTransitionTime": "2026-03-01T10:01:00Z",
                }],
            },
        }));
        assert_eq!(
            value(&row),
            json!({
                "namespace": "team", "name": "tea", "phase": "Running", "reason": "Started", "pool": "gpu", "topic": "Tea",
                "priority": 5, "attempts": 2, "percent": 40, "worker": "crew@pod", "suspended": false, "cancelling": true,
                "created": "2026-03-01T10:00:00Z", "started": "2026-03-01T10:01:00Z",
            })
        );
        let outline = outline(&row);
        let status = outline.status.unwrap();
        assert_eq!((status.phase, status.queue.as_deref(), &*outline.spec.task), (Phase::Running, Some("q"), "t"));
    }
}
