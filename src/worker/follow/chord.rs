//! Chords: how the end of a part is recorded, and what follows when all parts have ended.
//!
//! As `RedisBackend.on_chord_part_return` of Celery 5.7 does it. Workers of every version count together: all of them read
//! the records of the sorted set `.j` and the size `.s`.

use jiff::Timestamp;

use super::canvas::Canvas;
use super::failed::{Failed, after_failure, failed_with};
use super::publisher::Publisher;
use super::refused::Refused;
use super::sender::Sender;
use super::signature::{elements, option, root};
use crate::wire::{
    Embed, Envelope, Exception, Headers, Message, Object, ResultDocument, Signature, State, Value, python,
};
use crate::worker::outcome::{Failure, limits};

/// A part of a chord that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The group that its chord has for its parts.
    pub group: String,
    /// Its task ID.
    pub task: String,
    /// Its position among the parts, as the score of a sorted set.
    pub index: String,
    /// How it has ended, as JSON: `[1, id, state, result]`.
    pub record: String,
    /// The signature of the chord's body.
    pub body: Value,
}

/// What follows when all parts of a chord have ended: its body, or what tells that the body will never run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Body {
    /// To be sent, in this order.
    pub messages: Vec<Envelope>,
    /// To be stored: the body has failed, and what comes after it.
    pub failed: Vec<ResultDocument>,
    /// Errbacks to be called here, and what for.
    pub in_place: Vec<(Signature, Failure)>,
    /// What cannot be sent, for the log.
    pub refused: Vec<String>,
}

/// The parts of chords that end with a task: the task itself, and those steps of its chain that fail with it.
/// `document` is its own result.
pub fn parts(message: &Message, document: &[u8], others: &[ResultDocument]) -> Vec<Part> {
    let mut parts = Vec::new();
    let headers = &message.headers;
    if let (false, Some(group)) = (message.embed.chord.is_null(), &headers.group)
        && let Ok(document) = ResultDocument::decode(document)
    {
        parts.extend(part(group, headers.group_index, &document, &message.embed.chord));
    }
    for step in elements(&message.embed.chain) {
        let text = |name| option(step, name).and_then(Value::as_str);
        let (Some(body), Some(group), Some(id)) = (option(step, "chord"), text("group_id"), text("task_id")) else {
            continue;
        };
        let document = others.iter().find(|document| document.task_id == id);
        let index = option(step, "group_index").and_then(Value::as_i64);
        parts.extend(document.and_then(|document| part(group, index, document, body)));
    }
    parts
}

fn part(group: &str, index: Option<i64>, document: &ResultDocument, body: &Value) -> Option<Part> {
    match &document.status {
        State::Success | State::Failure | State::Revoked => {}
        State::Pending
        | State::Received
        | State::Started
        | State::Retry
        | State::Rejected
        | State::Ignored
        | State::Custom(_) => return None,
    }
    let id = Value::from(document.task_id.as_str()).to_json();
    Some(Part {
        group: group.to_owned(),
        task: document.task_id.clone(),
        index: index.map_or_else(|| "+inf".to_owned(), |index| index.to_string()),
        record: format!("[1, {id}, \"{}\", {}]", document.status.as_str(), document.result.as_str()),
        body: body.clone(),
    })
}

/// What is needed to send a body, or to fail it.
#[derive(Debug, Clone, Copy)]
pub struct BodySender<'a> {
    /// Of the part that ended last.
    pub parent: &'a Headers,
    /// The sender.
    pub sender: &'a Sender<'a>,
    /// Tells the tasks that are called in place as errbacks.
    pub is_builtin_errback: fn(&str) -> bool,
    /// When it is sent.
    pub now: Timestamp,
}

/// What follows the end of all parts. `records` are theirs, by position. `structure` is what the sender of the chord has
/// stored where a part is a group: the results are then nested in the same way.
pub fn body(
    body: &Value,
    records: &[Vec<u8>],
    structure: Option<&[u8]>,
    send: &BodySender<'_>,
    mut fresh: impl FnMut() -> String,
) -> Body {
    let results = match collected(records, structure) {
        Ok(results) => results,
        Err(ended) => return fail(body, &ended, send, fresh),
    };
    let mut publisher = Publisher::new(send.parent, send.sender, send.now, &mut fresh);
    let applied = Canvas::decode(body).and_then(|canvas| publisher.apply(canvas, &[results], &Object::new()));
    match applied {
        Ok(()) => Body { messages: publisher.following().messages, ..Body::default() },
        Err(Refused { kind: _, why }) => {
            let error = chord_error(format!("Callback error: {why}"));
            let ended = Ended { cause: error.clone(), error };
            fail(body, &ended, send, fresh)
        }
    }
}

/// Why a chord's body does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Stored for a body that is one task.
    error: Failure,
    /// How a part has failed; stored for each task of a body that is a group.
    cause: Failure,
}

impl Ended {
    /// The parts cannot be counted here.
    pub fn uncounted(why: &str) -> Self {
        let error = chord_error(format!("the parts of this chord cannot be counted: {why}"));
        Self { cause: error.clone(), error }
    }
}

fn chord_error(message: String) -> Failure {
    Failure::new("celery.exceptions", "ChordError", message)
}

/// A body fails with what comes after it, and its errbacks are called, as Celery's `chord_error_from_stack` does.
pub fn fail(body: &Value, ended: &Ended, send: &BodySender<'_>, mut fresh: impl FnMut() -> String) -> Body {
    let mut failed = Body::default();
    let is_group = body.get("subtask_type").and_then(Value::as_str) == Some("group");
    let failure = if is_group { &ended.cause } else { &ended.error };
    let mut tasks = vec![body];
    while let Some(task) = tasks.pop() {
        let inner = task.get("kwargs").and_then(|kwargs| kwargs.get("tasks")).filter(|_| is_canvas(task));
        tasks.extend(inner.map(elements).unwrap_or_default());
        failed.failed.extend(failed_with(task, failure, send.now));
        let message = pretended(task, send.parent);
        let Failed { chain, in_place, messages, refused } =
            after_failure(&message, failure, send.sender, send.is_builtin_errback, send.now, &mut fresh);
        failed.failed.extend(chain);
        failed.in_place.extend(in_place.into_iter().map(|errback| (errback, failure.clone())));
        failed.messages.extend(messages);
        failed.refused.extend(refused);
    }
    failed
}

fn is_canvas(task: &Value) -> bool {
    task.get("subtask_type").and_then(Value::as_str).is_some_and(|kind| !kind.is_empty())
}

/// The message of a task that was never sent, as far as its errbacks and its chain go.
fn pretended(task: &Value, parent: &Headers) -> Message {
    let given = |name: &str| option(task, name).cloned().unwrap_or_default();
    let text = |name: &str| option(task, name).and_then(Value::as_str).map(str::to_owned);
    let id = text("task_id").unwrap_or_default();
    let root_id = Some(text("root_id").unwrap_or_else(|| root(parent).to_owned()));
    let embed = Embed { errbacks: given("link_error"), chain: given("chain"), ..Embed::default() };
    Message { headers: Headers { id, root_id, ..Headers::default() }, embed, ..Message::default() }
}

/// The results of all parts in one list, or how the first of them has failed.
fn collected(records: &[Vec<u8>], structure: Option<&[u8]>) -> Result<Value, Box<Ended>> {
    let unreadable = |what: &str| {
        let error = chord_error(format!("Join error: {what} cannot be read"));
        Box::new(Ended { cause: error.clone(), error })
    };
    let parse = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok()?;
        Value::parse_within(bytes, &limits(text)).ok()
    };
    let mut results = Vec::new();
    for record in records {
        let fields = parse(record).and_then(|record| record.as_array().map(<[Value]>::to_vec));
        let record = fields.and_then(|fields| <[Value; 4]>::try_from(fields).ok());
        let Some([_, Value::String(id), Value::String(state), result]) = record else {
            return Err(unreadable("the record of a part"));
        };
        if state == "FAILURE" || state == "REVOKED" {
            let cause = raised(&result);
            let error = chord_error(format!("Dependency {id} raised {}", cause.repr()));
            return Err(Box::new(Ended { error, cause }));
        }
        results.push((id, result));
    }
    let Some(structure) = structure else {
        return Ok(Value::Array(results.into_iter().map(|(_, result)| result).collect()));
    };
    let nested = parse(structure).and_then(|structure| nested(structure.get("result")?, &results));
    nested.ok_or_else(|| unreadable("the group of its parts"))
}

/// The results in the shape of a result tuple: `[[id, parent], children]`, where a group has a list of children.
fn nested(tuple: &Value, results: &[(String, Value)]) -> Option<Value> {
    let [id, children] = tuple.as_array()? else { return None };
    if let Some(children) = children.as_array() {
        return children.iter().map(|child| nested(child, results)).collect::<Option<Vec<_>>>().map(Value::Array);
    }
    let id = id.as_array()?.first()?.as_str()?;
    results.iter().find(|(part, _)| part == id).map(|(_, result)| result.clone())
}

/// The exception in a record.
fn raised(result: &Value) -> Failure {
    let unknown = || Failure::new("builtins", "Exception", python::repr(result)).exception;
    Failure { exception: Exception::decode(result).unwrap_or_else(unknown), traceback: None }
}

#[cfg(test)]
mod tests;
