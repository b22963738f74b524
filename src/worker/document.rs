//! Result documents: what a run leaves behind, field by field as a Python worker writes it.

use jiff::Timestamp;

use super::outcome::{Failure, Memory};
use crate::core::account::{Count, SavedState};
use crate::store::told;
use crate::wire::result::RETRYABLE;
use crate::wire::{Envelope, Message, Object, RawJson, ResultDocument, State, Value, time};

/// The run that a document is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// Its message.
    pub message: &'a Message,
    /// The envelope it came in.
    pub envelope: &'a Envelope,
    /// The worker's node name.
    pub worker: &'a str,
}

/// The document of a success. `children` are the tasks that were sent, as result tuples.
pub fn success(about: About<'_>, result: RawJson, children: &Value, now: Timestamp) -> ResultDocument {
    document(about, State::Success, result, None, children, Some(now))
}

/// The document of a failure. Under a name of ours it says whether another run may succeed, which the operator heeds for
/// its jobs. A run that was ended from outside, by a limit or a signal, says nothing of that.
pub fn failure(about: About<'_>, failure: &Failure, retryable: bool, now: Timestamp) -> ResultDocument {
    let bare = document(about, State::Failure, exception(failure), failure.traceback.clone(), &none(), Some(now));
    let is_told = failure.exception.exc_module.as_deref() != Some("billiard.exceptions");
    let other = if is_told { bare.other.with(RETRYABLE, retryable) } else { bare.other };
    ResultDocument { other, ..bare }
}

/// The document of a run after which the task is sent again.
pub fn retry(about: About<'_>, failure: &Failure, children: &Value) -> ResultDocument {
    document(about, State::Retry, exception(failure), failure.traceback.clone(), children, None)
}

/// The document of a task that is not run, or was stopped: `why` is `revoked`, `expired` or `terminated`.
pub fn revoked(about: About<'_>, why: &str, now: Timestamp) -> ResultDocument {
    let failure = Failure::new("celery.exceptions", "TaskRevokedError", why);
    document(about, State::Revoked, exception(&failure), None, &none(), Some(now))
}

/// The document of a task that was revoked before any worker had it.
pub fn revoked_unseen(id: &str, now: Timestamp) -> ResultDocument {
    let failure = Failure::new("celery.exceptions", "TaskRevokedError", "revoked");
    let bare = refused(id, &failure, now);
    ResultDocument { status: State::Revoked, children: RawJson::default(), other: Object::new(), ..bare }
}

/// The document of a run that reports how far it is.
pub fn progress(about: About<'_>, meta: RawJson) -> ResultDocument {
    document(about, State::Custom("PROGRESS".into()), meta, None, &none(), None)
}

/// What a run says of itself beside its outcome, under names of ours: Celery hands on what it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// The memory that its command took, if it was a command that has ended.
    pub memory: Option<Memory>,
    /// What was consumed under its task id, as far as programs have reported it.
    pub usage: Count,
    /// The state of its job, if there is one.
    pub state: Option<SavedState>,
}

impl Told {
    /// A document that says it, too.
    #[must_use]
    pub fn in_document(&self, document: ResultDocument) -> ResultDocument {
        let mut other = told::with_usage(document.other, &self.usage);
        if let Some(Memory { peak, oom_killed }) = self.memory {
            let peak = peak.and_then(|bytes| i64::try_from(bytes).ok());
            other = other.with("memory", Object::new().with("peak", peak).with("oom_killed", oom_killed));
        }
        if let Some(state) = &self.state {
            other = told::with_state(other, state);
        }
        ResultDocument { other, ..document }
    }
}

/// The failure of a task that is not known here, or whose message cannot be read: nothing else is known of it.
pub fn refused(id: &str, failure: &Failure, now: Timestamp) -> ResultDocument {
    ResultDocument {
        status: State::Failure,
        result: exception(failure),
        traceback: failure.traceback.clone(),
        children: RawJson::from(&none()),
        date_done: Some(time::format(now)),
        task_id: id.to_owned(),
        parent_id: None,
        group_id: None,
        name: None,
        args: None,
        kwargs: None,
        worker: None,
        retries: None,
        queue: None,
        other: ["name", "args", "kwargs", "worker", "retries", "queue"]
            .map(|field| (field, Value::Null))
            .into_iter()
            .collect(),
    }
}

/// The failure of a task whose body cannot be read, with what its headers tell.
pub fn unreadable(id: &str, failure: &Failure, headers: &Object, now: Timestamp) -> ResultDocument {
    let mut document = refused(id, failure, now);
    let text = |name: &str| headers.get(name).and_then(Value::as_str).map(str::to_owned);
    (document.parent_id, document.group_id) = (text("parent_id"), text("group"));
    (document.name, document.retries) = (text("task"), headers.get("retries").and_then(Value::as_i64));
    let known = [("name", document.name.is_some()), ("retries", document.retries.is_some())];
    for (field, _) in known.into_iter().filter(|(_, is_known)| *is_known) {
        document.other.remove(field);
    }
    document
}

/// No tasks were sent.
fn none() -> Value {
    Value::Array(Vec::new())
}

fn exception(failure: &Failure) -> RawJson {
    let exception = &failure.exception;
    let fields = Object::new()
        .with("exc_type", exception.exc_type.as_str())
        .with("exc_message", exception.exc_message.clone())
        .with("exc_module", exception.exc_module.as_deref());
    RawJson::from(&Value::from(fields))
}

fn document(
    about: About<'_>,
    status: State,
    result: RawJson,
    traceback: Option<String>,
    children: &Value,
    done: Option<Timestamp>,
) -> ResultDocument {
    let headers = &about.message.headers;
    ResultDocument {
        status,
        result,
        traceback,
        children: RawJson::from(children),
        date_done: done.map(time::format),
        task_id: headers.id.clone(),
        parent_id: headers.parent_id.clone(),
        group_id: headers.group.clone(),
        name: Some(headers.task.clone()),
        args: Some(RawJson::from(&Value::Array(about.message.args.clone()))),
        kwargs: Some(RawJson::from(&Value::from(about.message.kwargs.clone()))),
        worker: Some(about.worker.to_owned()),
        retries: Some(headers.retries.unwrap_or(0)),
        queue: Some(about.envelope.properties.delivery_info.routing_key.clone()),
        other: Object::new(),
    }
}
