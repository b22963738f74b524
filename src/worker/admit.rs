//! What a message is, and whether the run that it asks for has ended before. Pure.

use std::borrow::Cow;

use super::outcome::Failure;
use crate::wire::{DecodeError, Envelope, Limits, Message, Object, ResultDocument, State, envelope, result};

/// Largest message that is run.
pub const LARGEST: usize = 64 << 20;

/// What a message is.
#[derive(Debug)]
pub enum Read {
    /// A task.
    Task(Box<(Envelope, Message)>),
    /// It cannot be run; it has a task id, under which that is stored.
    Unreadable(Box<Unreadable>),
    /// It has no task id under which anything could be stored.
    Poison(String),
}

/// A message that cannot be run.
#[derive(Debug)]
pub struct Unreadable {
    /// The id.
    pub id: String,
    /// The task, if it is known.
    pub task: Option<String>,
    /// What is wrong with it.
    pub failure: Failure,
    /// Its headers, as far as they can be read.
    pub headers: Object,
}

/// What takes more values than these stays text, in whatever a task is called with.
fn limits() -> Limits {
    Limits::default().bytes(LARGEST).depth(Limits::MAX_DEPTH)
}

/// The task of a message that was read before.
pub fn message(envelope: &Envelope) -> Option<Message> {
    Message::decode_within(envelope, &limits()).ok()
}

/// Reads a message.
pub fn read(bytes: &[u8]) -> Read {
    let limits = limits();
    let envelope = match Envelope::decode_within(bytes, &limits) {
        Ok(envelope) => envelope,
        Err(error) => {
            let peek = envelope::peek(bytes);
            let id = peek.as_ref().and_then(|peek| peek.task_id.as_deref()).map(str::to_owned);
            let Some(id) = id.filter(|id| !id.is_empty()) else { return Read::Poison(chain(&error)) };
            let task = peek.and_then(|peek| peek.task_name.map(Cow::into_owned));
            let failure = if bytes.len() > LARGEST {
                Failure::new("kombu.exceptions", "LimitExceeded", too_large(bytes.len()))
            } else {
                Failure::new("kombu.exceptions", "DecodeError", chain(&error))
            };
            return Read::Unreadable(Box::new(Unreadable { id, task, failure, headers: Object::new() }));
        }
    };
    let error = match Message::decode_within(&envelope, &limits) {
        Ok(message) if message.headers.id.is_empty() => return Read::Poison("the task id is empty".into()),
        Ok(message) => return Read::Task(Box::new((envelope, message))),
        Err(error) => error,
    };
    let text = |key: &str| envelope.headers.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let task = text("task");
    let id = text("id").or_else(|| {
        // In protocol 1 the id is in the body, and is the correlation id, too.
        let is_protocol_1 = !envelope.headers.contains_key("task");
        envelope.properties.correlation_id.clone().filter(|_| is_protocol_1 && error.is_of_body())
    });
    let Some(id) = id.filter(|id| !id.is_empty()) else { return Read::Poison(chain(&error)) };
    let failure = if let DecodeError::ContentType(kind) = &error {
        let message = format!("Refusing to deserialize content of type {kind}: only application/json");
        Failure::new("kombu.exceptions", "ContentDisallowed", message)
    } else {
        let kind = if matches!(error, DecodeError::Inflated(_)) { "LimitExceeded" } else { "DecodeError" };
        Failure::new("kombu.exceptions", kind, chain(&error))
    };
    Read::Unreadable(Box::new(Unreadable { id, task, failure, headers: envelope.headers }))
}

/// How the run that this message asks for has ended before, by what that has left as its result (`head` may be cut).
///
/// A copy of a message that is delivered again must not run once more. A retry is a message of its own, which uses this
/// one up; but a worker that gives its tasks up when it loses the connection stores RETRY too, with an exception `Retry`
/// of Celery's own, and leaves the rest to this message. A failure without an exception was stored by the task itself,
/// which did not get to its end if the message comes again.
pub fn ended(message: &Message, redelivered: bool, head: &[u8]) -> Option<String> {
    let state = result::state_of_prefix(head)?;
    let document = ResultDocument::decode(head).ok().filter(|_| redelivered);
    let is_note = document.as_ref().is_some_and(|document| document.exception().is_none());
    if matches!(state, State::Success | State::Revoked) || state == State::Failure && !is_note {
        return Some(state.to_string());
    }
    let document = document?;
    let (mine, stored) = (message.headers.retries.unwrap_or(0), document.retries?);
    let gave_up = document.exception().is_some_and(|exception| exception.exc_type == "Retry");
    let is_used_up = stored > mine || (state == State::Retry && !gave_up && stored == mine);
    is_used_up.then(|| format!("retry {stored}"))
}

fn too_large(size: usize) -> String {
    format!("the message has {} MiB, more than the {} that are accepted", size >> 20, LARGEST >> 20)
}

fn chain(error: &DecodeError) -> String {
    crate::runtime::telemetry::chain(error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Call;
    use crate::wire::json::tests::any_value;

    fn task(change: impl FnOnce(&mut Message)) -> Message {
        let mut message = Message::decode(&Call::new("a.task", "id-1", "default").envelope()).unwrap();
        change(&mut message);
        message
    }

    #[test]
    fn an_unreadable_message_fails_under_its_id_or_is_poison() {
        let mut call = Call::new("a.task", "id-1", "default").envelope();
        call.body = "!".into();
        let refused = |call: &Envelope| {
            let Read::Unreadable(unreadable) = read(&call.encode()) else { panic!() };
            *unreadable
        };
        let Unreadable { id, task, failure, .. } = refused(&call);
        assert_eq!((id.as_str(), task.as_deref()), ("id-1", Some("a.task")));
        assert_eq!(failure.exception.exc_type, "DecodeError");
        call.body = "W1tdLHt9LG51bGxd".into();
        call.headers.insert("compression", "application/x-brotli");
        let failure = refused(&call).failure;
        assert!(failure.exception.message().contains("application/x-brotli"), "{failure:?}");
        call.content_type = Some("application/x-python-serialize".into());
        assert_eq!(refused(&call).failure.exception.exc_type, "ContentDisallowed");
        call.headers.remove("id");
        assert!(matches!(read(&call.encode()), Read::Poison(_)));
        assert!(matches!(read(b"{"), Read::Poison(_)));
    }

    #[test]
    fn a_copy_of_a_task_that_has_ended_is_told_from_a_run_that_was_cut_off() {
        let retry = |number: i64, kind: &str| {
            format!(
                r#"{{"status": "RETRY", "result": {{"exc_type": "{kind}", "exc_message": []}}, "task_id": "id-1", "retries": {number}}}"#
            )
        };
        let ended = |retries: i64, redelivered: bool, head: &str| {
            ended(&task(|task| task.headers.retries = Some(retries)), redelivered, head.as_bytes())
        };
        assert_eq!(ended(0, false, ""), None);
        assert_eq!(ended(0, true, r#"{"status": "STARTED", "task_id": "id-1", "retries": 0}"#), None);
        assert_eq!(ended(0, false, r#"{"status": "SUCCESS", "result": "cut off he"#).as_deref(), Some("SUCCESS"));
        assert_eq!(ended(0, false, r#"{"status": "REVOKED", "task_id": "id-1"}"#).as_deref(), Some("REVOKED"));
        assert_eq!(ended(0, true, &retry(0, "ValueError")).as_deref(), Some("retry 0"));
        assert_eq!(ended(0, true, &retry(2, "ValueError")).as_deref(), Some("retry 2"));
        assert_eq!(ended(1, false, &retry(0, "ValueError")), None, "the retry itself");
        assert_eq!(ended(1, true, &retry(0, "ValueError")), None, "the retry, put back");
        assert_eq!(ended(0, true, &retry(0, "Retry")), None, "given up with the connection");
        let failure = |result: &str| format!(r#"{{"status": "FAILURE", "result": {result}, "task_id": "id-1"}}"#);
        let (own, error) = (failure(r#"{"step": 1}"#), failure(r#"{"exc_type": "E", "exc_message": []}"#));
        assert_eq!(ended(0, true, &own), None, "stored by the task on its way");
        assert_eq!(ended(0, false, &own).as_deref(), Some("FAILURE"));
        assert_eq!(ended(0, true, &error).as_deref(), Some("FAILURE"));
        assert_eq!(ended(0, true, &error[..50]).as_deref(), Some("FAILURE"), "cut off");
    }

    proptest! {
        #[test]
        fn whatever_comes_from_a_queue_is_read(bytes in prop::collection::vec(any::<u8>(), 0..400), body in any_value()) {
            let _ = read(&bytes);
            let mut call = Call::new("a.task", "id-1", "default").envelope();
            call.body = body.to_json();
            call.properties.body_encoding = None;
            let _ = read(&call.encode());
            call.headers = crate::wire::Object::new().with("id", "id-1").with("task", body);
            let _ = read(&call.encode());
        }
    }
}
