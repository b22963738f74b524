//! What is sent after a run: callbacks and the rest of a chain after a success, errbacks after a failure, the same task
//! again for a retry.
//!
//! The messages are those that a Celery worker sends, for tasks with the defaults of [`Sender`]. Groups and chains are
//! taken apart as Celery does it. Chords need a count of their parts that all workers keep together; this worker does
//! not, so a task that is a part of one, or is followed by one, is refused before it runs: [`refusal`].
//!
//! An envelope goes to the queue that its routing key names when its exchange is empty, as it nearly always is, and
//! else to the queues that are bound to the exchange with that key.

mod backoff;
mod call;
mod canvas;
mod failed;
mod publisher;
mod retry;

use jiff::Timestamp;

use self::canvas::Canvas;
use self::publisher::Publisher;
use super::outcome::{Failure, limits};
use super::routes::Routes;
use crate::wire::{Envelope, Headers, Message, Object, RawJson, TimeLimit, Value};

pub use backoff::{MAX_RETRIES, countdown, may_retry, sent_by_operator};
pub use failed::{Failed, after_failure};
pub use retry::{Retried, retry};

/// Who sends what follows, and what holds for tasks whose signature does not say.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// `headers.origin`, in Celery `gen<pid>@<host>`.
    pub origin: &'a str,
    /// `properties.reply_to`; only an rpc result backend looks at it.
    pub reply_to: &'a str,
    /// Where tasks go that name no queue.
    pub routes: &'a Routes,
    /// Celery's `task_default_priority`. The priority of the task that has ended is not inherited.
    pub priority: i64,
    /// Celery's `task_time_limit` and `task_soft_time_limit`.
    pub time_limit: &'a TimeLimit,
}

/// What follows a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// To be sent in this order, before the result is stored.
    pub messages: Vec<Envelope>,
    /// The field `children` of the result: result tuples `[[id, parent], children]`.
    pub children: Value,
}

/// Why a task is not to be run: it is a part of a chord, or is followed by something that this worker cannot send. To
/// be stored instead of running it, so that nothing is done by halves.
pub fn refusal(message: &Message) -> Option<Failure> {
    if !message.embed.chord.is_null() {
        return Some(Refused::chord().into());
    }
    let rest = elements(&message.embed.chain);
    let part_of_chord = rest.iter().any(|step| option(step, "chord").is_some());
    if part_of_chord {
        return Some(Refused::chord().into());
    }
    let next = elements(&message.embed.callbacks).iter().chain(rest.last());
    next.map(Canvas::decode).find_map(Result::err).map(Failure::from)
}

/// What follows when a task has returned `result`. A failure is to be stored instead of the result; then nothing is
/// sent.
///
/// `fresh` makes ids that nobody has had, for tasks, groups and delivery tags.
pub fn after_success(
    message: &Message,
    result: &RawJson,
    sender: &Sender,
    now: Timestamp,
    fresh: impl FnMut() -> String,
) -> Result<Following, Failure> {
    let callbacks = elements(&message.embed.callbacks);
    let chain = elements(&message.embed.chain);
    let mut publisher = Publisher::new(&message.headers, sender, now, fresh);
    if callbacks.is_empty() && chain.is_empty() {
        return Ok(publisher.following());
    }
    let result = result.parse(&limits(result.as_str())).map_err(|error| {
        Failure::new("kombu.exceptions", "EncodeError", format!("the result cannot be passed on: {error}"))
    })?;
    let given = std::slice::from_ref(&result);
    // Celery hands its own priority on, which is none unless `task_inherit_parent_priority` is set; groups and chains
    // lose theirs by that.
    let passed = descent(&message.headers).with("priority", Value::Null);

    let mut single = Vec::new();
    let callbacks = callbacks.iter().map(Canvas::decode).collect::<Result<Vec<_>, _>>()?;
    let several = callbacks.len() > 1;
    for callback in callbacks {
        if several && !matches!(callback, Canvas::Group { .. }) {
            single.push(callback);
        } else {
            publisher.apply(callback, given, &passed)?;
        }
    }
    if !single.is_empty() {
        publisher.apply(Canvas::group(single), given, &passed)?;
    }
    if let Some((next, rest)) = chain.split_last() {
        publisher.apply(Canvas::decode(next)?, given, &passed.with("chain", rest.to_vec()))?;
    }
    Ok(publisher.following())
}

/// Where the tasks stand in the tree that follow this one.
fn descent(headers: &Headers) -> Object {
    Object::new().with("parent_id", headers.id.as_str()).with("root_id", root(headers))
}

fn root(headers: &Headers) -> &str {
    headers.root_id.as_deref().filter(|root| !root.is_empty()).unwrap_or(&headers.id)
}

/// The signatures in a field of a body: a list, one alone, or none.
fn elements(field: &Value) -> &[Value] {
    match field {
        Value::Array(signatures) => signatures,
        Value::Object(_) => std::slice::from_ref(field),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => &[],
    }
}

/// An option of a signature that has a value.
fn option<'a>(signature: &'a Value, name: &str) -> Option<&'a Value> {
    signature.get("options")?.get(name).filter(|value| !value.is_null())
}

/// Why something cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    kind: &'static str,
    why: String,
}

impl Refused {
    fn chord() -> Self {
        Self::unsupported("chords")
    }

    fn unsupported(what: &str) -> Self {
        Self { kind: "NotImplementedError", why: format!("this worker does not take part in {what}") }
    }

    fn malformed(why: impl Into<String>) -> Self {
        Self { kind: "ValueError", why: why.into() }
    }
}

impl From<Refused> for Failure {
    fn from(Refused { kind, why }: Refused) -> Self {
        Self::new("builtins", kind, why)
    }
}

#[cfg(test)]
mod tests;
