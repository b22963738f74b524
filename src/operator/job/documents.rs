//! Result documents, in the words of the decision core.

use std::sync::Arc;

use jiff::Timestamp;

use crate::core::claims;
use crate::core::evidence::{self, Word};
use crate::core::id::AttemptId;
use crate::core::observed::Ending;
use crate::core::status::{Holder, Progress, TaskError, head};
use crate::store::Document;
use crate::wire::result::{ResultDocument, State};
use crate::wire::{Limits, Value};

/// What a document says about the attempt that it names, read at `now`; `None` when it says nothing. `holder` tells
/// which worker a node name means, and how far its clock is behind.
pub fn read(
    id: AttemptId,
    document: Document,
    holder: impl Fn(&Arc<str>) -> (Holder, i64),
    now: Timestamp,
) -> Option<evidence::Document> {
    let (document, output) = match document {
        Document::Read { fields, output } => (fields, output),
        Document::Unreadable(why) => return Some(unreadable(why)),
    };
    let (worker, behind) = document.worker.as_deref().and_then(claims::node_name).map(|node| holder(&node)).unzip();
    let behind = behind.unwrap_or(0);
    let celery_retries = claims::celery_retries(id.number, document.retries);
    let finished_at = document.done_at();
    let word = |holder, started_at, celery_retries, progress| {
        Some(evidence::Document::Running(Word { holder, said_at: now, behind, started_at, celery_retries, progress }))
    };
    let over = |how, worker| Some(evidence::Document::Over { how, worker, celery_retries, finished_at });
    match &document.status {
        State::Success => over(Ending::Succeeded(Arc::new(output?)), worker),
        State::Failure => over(failure(&document), worker),
        State::Revoked if document.is_full_form() => over(Ending::Revoked, worker),
        State::Rejected | State::Ignored => {
            let why = format!("the task ended in state {} without a result", document.status.as_str());
            over(Ending::Unreadable(why.into()), worker)
        }
        State::Started => word(worker, Some(now), celery_retries, None),
        State::Custom(_) => word(worker, None, celery_retries, progress(&document, now)),
        // Another run will follow, anywhere.
        State::Retry => word(None, None, celery_retries.saturating_add(1).min(claims::RETRIES), None),
        // A REVOKED in short form is written by workers that do not have the task.
        State::Revoked | State::Pending | State::Received => None,
    }
}

fn unreadable(why: String) -> evidence::Document {
    let how = Ending::Unreadable(why.into());
    evidence::Document::Over { how, worker: None, celery_retries: 0, finished_at: None }
}

fn failure(document: &ResultDocument) -> Ending {
    let Some(exception) = document.exception() else {
        return Ending::Failed(TaskError::new("Unknown", head(document.result.as_str(), TaskError::MESSAGE), None));
    };
    let error = TaskError::new(
        &claims::exception_name(&exception.exc_type),
        &exception.message(),
        document.traceback.as_deref(),
    );
    if exception.exc_type == "WorkerLostError" { Ending::ChildLost(error) } else { Ending::Failed(error) }
}

/// Celery's custom state `PROGRESS`: `{"percent": 40, "message": "…"}`. Other shapes give what they have.
fn progress(document: &ResultDocument, now: Timestamp) -> Option<Progress> {
    let meta = document.result.parse(&Limits::default().bytes(64 << 10)).ok()?;
    let percent = meta.get("percent").and_then(Value::as_f64).map(claims::percent);
    let message = ["message", "status", "step"].iter().find_map(|key| meta.get(key).and_then(Value::as_str));
    (percent.is_some() || message.is_some()).then(|| Progress {
        percent,
        message: message.map(|text| head(text, TaskError::MESSAGE).into()),
        at: now,
    })
}
