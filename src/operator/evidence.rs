//! Result documents as evidence: what a document says about the attempt that it names.

use std::sync::Arc;

use jiff::Timestamp;

use super::observe::held;
use crate::core::job::AttemptId;
use crate::core::observed::{Ended, Ending, Holding, Liveness, Task};
use crate::core::status::{Holder, Progress, TaskError, head};
use crate::store::Document;
use crate::wire::result::{ResultDocument, State};
use crate::wire::{Limits, Value};

/// What is known of the attempt after reading its document; `None` when the document adds nothing.
pub fn from_document(
    id: AttemptId,
    before: &Task,
    document: &Document,
    holder: impl Fn(&Arc<str>) -> Holder,
    now: Timestamp,
) -> Option<Task> {
    let bytes = match document {
        Document::Whole(bytes) => bytes,
        Document::TooLarge { size, .. } => {
            let why = format!("the result document has {size} bytes, at most {} are read", Document::LARGEST);
            return Some(ended(id, before, Ending::Unreadable(why.into()), None, 0, None));
        }
    };
    let limits = Limits::default().bytes(Document::LARGEST);
    let document = match ResultDocument::decode_within(bytes, &limits) {
        Ok(document) => document,
        Err(error) => {
            let why = format!("the result document cannot be read: {error}");
            return Some(ended(id, before, Ending::Unreadable(why.into()), None, 0, None));
        }
    };
    let node: Option<Arc<str>> = document.worker.as_deref().map(Arc::from);
    let worker = node.as_ref().map(&holder);
    let retries = celery_retries(id, &document);
    let finish = |how| Some(ended(id, before, how, worker.clone(), retries, document.done_at()));
    match &document.status {
        State::Success => finish(Ending::Succeeded(document.result.as_str().into())),
        State::Failure => finish(failure(&document)),
        State::Revoked if document.is_full_form() => finish(Ending::Revoked),
        State::Rejected | State::Ignored => finish(Ending::Unreadable(
            format!("the task ended in state {} without a result", document.status.as_str()).into(),
        )),
        State::Started => running(id, before, worker, retries, Some(now), None),
        State::Custom(_) => running(id, before, worker, retries, None, progress(&document, now)),
        State::Retry => running(id, before, None, retries + 1, None, None),
        // A REVOKED in short form is written by workers that do not have the task.
        State::Revoked | State::Pending | State::Received => None,
    }
}

/// Retries that Celery made by itself: `retries` counts the runs before this attempt too.
fn celery_retries(id: AttemptId, document: &ResultDocument) -> u32 {
    let retries = document.retries.and_then(|retries| u32::try_from(retries).ok()).unwrap_or(id.number - 1);
    retries.saturating_sub(id.number - 1)
}

fn failure(document: &ResultDocument) -> Ending {
    let Some(exception) = document.exception() else {
        return Ending::Failed(TaskError::new("Unknown", head(document.result.as_str(), TaskError::MESSAGE), None));
    };
    let error = TaskError::new(&exception.exc_type, &exception.message(), document.traceback.as_deref());
    if exception.exc_type == "WorkerLostError" { Ending::ChildLost(error) } else { Ending::Failed(error) }
}

fn ended(
    id: AttemptId,
    before: &Task,
    how: Ending,
    worker: Option<Holder>,
    celery_retries: u32,
    finished_at: Option<Timestamp>,
) -> Task {
    let (marker, started_at) = match before {
        Task::Held(held) => (Some(held.generation), held.started_at),
        Task::Queued { generation } | Task::Withdrawn { generation } => (Some(*generation), None),
        Task::Absent(search) => (search.marker, search.seen.as_ref().and_then(|held| held.started_at)),
        Task::Ended(ended) => (ended.marker, ended.started_at),
        Task::Unread => (Some(id.generation), None),
    };
    Task::Ended(Ended { marker, how, worker, celery_retries, started_at, finished_at })
}

fn running(
    id: AttemptId,
    before: &Task,
    worker: Option<Holder>,
    celery_retries: u32,
    started_at: Option<Timestamp>,
    progress: Option<Progress>,
) -> Option<Task> {
    let before_held = match before {
        Task::Held(held) => Some(held),
        Task::Absent(search) => search.seen.as_ref(),
        Task::Ended(_) => return None, // an end is the last word
        Task::Unread | Task::Queued { .. } | Task::Withdrawn { .. } => None,
    };
    let by = worker.map_or(Holding::Unattributed, |worker| Holding::By(worker, Liveness::Alive));
    let generation = before_held.map_or(id.generation, |held| held.generation);
    let mut now = held(generation, by, started_at, before_held);
    if let Some(before) = before_held {
        now.started_at = before.started_at.or(now.started_at);
    }
    now.celery_retries = now.celery_retries.max(celery_retries);
    now.progress = progress.or(now.progress);
    Some(Task::Held(now))
}

/// Celery's custom state `PROGRESS`: `{"percent": 40, "message": "…"}`. Other shapes give what they have.
fn progress(document: &ResultDocument, now: Timestamp) -> Option<Progress> {
    let meta = document.result.parse(&Limits::default().bytes(64 << 10)).ok()?;
    let percent = meta.get("percent").and_then(Value::as_f64).map(|percent| percent.clamp(0.0, 100.0));
    let message = ["message", "status", "step"].iter().find_map(|key| meta.get(key).and_then(Value::as_str));
    (percent.is_some() || message.is_some()).then(|| Progress {
        percent: percent.map(whole),
        message: message.map(|text| head(text, TaskError::MESSAGE).into()),
        at: now,
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=100 by the caller")]
fn whole(percent: f64) -> u8 {
    percent as u8
}
