use jiff::Timestamp;

use super::canvas::Canvas;
use super::publisher::Publisher;
use super::refused::Refused;
use super::sender::Sender;
use super::signature::{descent, elements};
use crate::wire::{Envelope, Message, Object, RawJson, ResultDocument, Signature, State, Value, time};
use crate::worker::outcome::Failure;

/// What follows a failure, after it has been stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failed {
    /// To be stored first, in this order: the rest of a chain has failed for the same reason.
    pub chain: Vec<ResultDocument>,
    /// Errbacks to be called here, with the request, the exception and the traceback, in this order.
    pub in_place: Vec<Signature>,
    /// The other errbacks, to be sent in this order.
    pub messages: Vec<Envelope>,
    /// Why further errbacks cannot be sent, for the log.
    pub refused: Vec<String>,
}

/// What follows when a task has failed for good.
///
/// `is_builtin_errback` tells the tasks that are called in place. A Python worker does that with its functions of several
/// parameters, which cannot be told by name; all others are sent as one group and get the id of the failed task.
pub fn after_failure(
    message: &Message,
    failure: &Failure,
    sender: &Sender,
    is_builtin_errback: impl Fn(&str) -> bool,
    now: Timestamp,
    fresh: impl FnMut() -> String,
) -> Failed {
    let mut failed = Failed { chain: rest_of_chain(message, failure, now), ..Failed::default() };
    let mut sent = Vec::new();
    for errback in elements(&message.embed.errbacks) {
        match Canvas::decode(errback) {
            Ok(Canvas::Task { signature, copied: _ }) if is_builtin_errback(&signature.task) => {
                failed.in_place.push(signature);
            }
            Ok(canvas) => sent.push(canvas),
            Err(Refused { kind: _, why }) => failed.refused.push(why),
        }
    }
    let mut publisher = Publisher::new(&message.headers, sender, now, fresh);
    let id = Value::from(message.headers.id.as_str());
    match publisher.apply(Canvas::group(sent), &[id], &descent(&message.headers)) {
        Ok(()) => failed.messages = publisher.following().messages,
        Err(Refused { kind: _, why }) => failed.refused.push(why),
    }
    failed
}

/// These will never run, but a client may wait for the last of them.
fn rest_of_chain(message: &Message, failure: &Failure, now: Timestamp) -> Vec<ResultDocument> {
    let mut documents = Vec::new();
    let mut steps: Vec<&Value> = elements(&message.embed.chain).iter().collect();
    let mut index = 0;
    while let Some(step) = steps.get(index).copied() {
        index += 1;
        documents.extend(failed_with(step, failure, now));
        // What comes after a chord waits for its body.
        if step.get("subtask_type").and_then(Value::as_str) == Some("chord") {
            steps.extend(step.get("kwargs").and_then(|kwargs| kwargs.get("body")));
        }
    }
    documents
}

pub(super) fn failed_with(step: &Value, failure: &Failure, now: Timestamp) -> Option<ResultDocument> {
    let text = |object: &Value, name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
    let options = step.get("options")?;
    let raw = |name: &str| Some(step.get(name).map(RawJson::from).unwrap_or_default());
    Some(ResultDocument {
        status: State::Failure,
        result: RawJson::from(&exception(failure)),
        traceback: failure.traceback.clone(),
        children: RawJson::from(&Value::Array(Vec::new())),
        date_done: Some(time::format(now)),
        task_id: text(options, "task_id")?,
        parent_id: text(options, "parent_id"),
        group_id: text(options, "group_id"),
        name: text(step, "task"),
        args: raw("args"),
        kwargs: raw("kwargs"),
        worker: None,
        retries: Some(options.get("retries").and_then(Value::as_i64).unwrap_or(0)),
        queue: None,
        other: Object::new().with("worker", Value::Null).with("queue", Value::Null),
    })
}

fn exception(failure: &Failure) -> Value {
    let exception = &failure.exception;
    Object::new()
        .with("exc_type", exception.exc_type.as_str())
        .with("exc_message", exception.exc_message.clone())
        .with("exc_module", exception.exc_module.as_deref())
        .into()
}
