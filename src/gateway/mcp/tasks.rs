//! Jobs as tasks of the protocol.

use rmcp::model::{CallToolResult, DetailedTask, Task, TaskPayload, TaskStatus};
use serde_json::Value;

use crate::core::gateway::id::JobId;
use crate::gateway::view::{is_over, text, why};

/// How often a client should ask.
const POLL: u64 = 2_000;

/// A job that was just made, as the short form shows it.
pub fn task_of_answer(job: &Value) -> Task {
    let (id, at) = (text(job, "/id"), text(job, "/createdAt"));
    Task::new(id, TaskStatus::Working, at, at).with_poll_interval_ms(POLL)
}

/// A job, and what came of it.
pub fn detailed(id: &JobId, job: &Value, payload: TaskPayload) -> DetailedTask {
    let at = ["/status/finishedAt", "/status/startedAt", "/status/queuedAt", "/metadata/creationTimestamp"];
    let last = at.iter().map(|at| text(job, at)).find(|at| !at.is_empty()).unwrap_or_default();
    let mut task = Task::new(id.to_string(), payload.status(), text(job, "/metadata/creationTimestamp"), last);
    let message = why(job, "message");
    if !message.is_empty() {
        task = task.with_status_message(message);
    }
    if !is_over(job) {
        task = task.with_poll_interval_ms(POLL);
    }
    DetailedTask::new(task, payload)
}

/// It has ended, as a call of a tool ends.
pub fn completed(result: CallToolResult) -> TaskPayload {
    let result = serde_json::to_value(result).ok().and_then(|value| value.as_object().cloned()).unwrap_or_default();
    TaskPayload::Completed { result }
}
