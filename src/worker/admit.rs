//! What is to be done with a message: decided before anything is done.

use std::borrow::Cow;

use jiff::Timestamp;

use super::outcome::Failure;
use crate::wire::{DecodeError, Envelope, Limits, Message, ResultDocument, State, envelope, result};

/// Largest message that is run.
pub const LARGEST: usize = 64 << 20;

/// What a message is.
#[derive(Debug)]
pub enum Read {
    /// A task.
    Task(Box<(Envelope, Message)>),
    /// Nobody can run it, but it has a task id under which to say so.
    Unreadable {
        /// The id.
        id: String,
        /// The task, if it is known.
        task: Option<String>,
        /// What is wrong with it.
        failure: Failure,
    },
    /// Nobody can even say so.
    Poison(String),
}

/// What a task's message is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// To be run now.
    Run,
    /// To be run then.
    Wait(Timestamp),
    /// Not to be run: nobody wants it any more.
    Revoked,
    /// Not to be run: it is too late.
    Expired,
    /// Not to be run: this worker does not know how.
    Unknown,
}

/// Reads a message.
pub fn read(bytes: &[u8]) -> Read {
    let limits = Limits::default().bytes(LARGEST);
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
            return Read::Unreadable { id, task, failure };
        }
    };
    let text = |key: &str| envelope.headers.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let (id, task) = (text("id").filter(|id| !id.is_empty()), text("task"));
    let Some(id) = id else { return Read::Poison("headers.id is missing".into()) };
    let kind = envelope.content_type.as_deref();
    if kind.is_some_and(|kind| kind != "application/json") {
        let message = format!("Refusing to deserialize content of type {}: only application/json", kind.unwrap_or(""));
        let failure = Failure::new("kombu.exceptions", "ContentDisallowed", message);
        return Read::Unreadable { id, task, failure };
    }
    match Message::decode_within(&envelope, &limits) {
        Ok(message) => Read::Task(Box::new((envelope, message))),
        Err(error) => {
            let failure = Failure::new("kombu.exceptions", "DecodeError", chain(&error));
            Read::Unreadable { id, task, failure }
        }
    }
}

/// Decides. `is_revoked` is what is known of this task, `is_known` whether there is a way to run it.
pub fn admit(message: &Message, is_revoked: bool, is_known: bool, now: Timestamp) -> Admission {
    let headers = &message.headers;
    if !is_known {
        Admission::Unknown
    } else if is_revoked {
        Admission::Revoked
    } else if headers.expires_at().is_some_and(|expires| expires <= now) {
        Admission::Expired
    } else {
        headers.eta_at().filter(|eta| *eta > now).map_or(Admission::Run, Admission::Wait)
    }
}

/// How the run that this message asks for has ended before, by what that has left as its result (`head` may be cut).
///
/// A copy of a message that is delivered again must not run once more. A retry is a message of its own, which uses this
/// one up; but a worker that gives its tasks up when it loses the connection stores RETRY too, with an exception `Retry`
/// of Celery's own, and leaves the rest to this message.
pub fn ended(message: &Message, redelivered: bool, head: &[u8]) -> Option<String> {
    let state = result::state_of_prefix(head)?;
    if matches!(state, State::Success | State::Failure | State::Revoked) {
        return Some(state.to_string());
    }
    let document = ResultDocument::decode(head).ok().filter(|_| redelivered)?;
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

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_message_is_run_waits_or_is_dropped_by_what_it_says() {
        let early = || Some("2026-11-22T11:59:59+00:00".to_owned());
        let late = || Some("2026-11-22T12:00:01+00:00".to_owned());
        let admit = |message: &Message| admit(message, false, true, now());
        assert_eq!(admit(&task(|_| ())), Admission::Run);
        assert_eq!(admit(&task(|task| task.headers.eta = early())), Admission::Run);
        let at = "2026-11-22T12:00:01Z".parse().unwrap();
        assert_eq!(admit(&task(|task| task.headers.eta = late())), Admission::Wait(at));
        assert_eq!(admit(&task(|task| task.headers.expires = late())), Admission::Run);
        assert_eq!(admit(&task(|task| task.headers.expires = early())), Admission::Expired);
    }

    #[test]
    fn a_revoked_task_is_dropped_before_its_time_and_an_unknown_one_fails() {
        let waiting = task(|task| task.headers.eta = Some("2026-11-22T13:00:00+00:00".into()));
        assert_eq!(admit(&waiting, true, true, now()), Admission::Revoked);
        assert_eq!(admit(&waiting, true, false, now()), Admission::Unknown);
    }

    #[test]
    fn what_cannot_be_read_fails_under_its_id_or_is_poison() {
        let mut call = Call::new("a.task", "id-1", "default").envelope();
        call.body = "!".into();
        let Read::Unreadable { id, task, failure } = read(&call.encode()) else { panic!() };
        assert_eq!((id.as_str(), task.as_deref()), ("id-1", Some("a.task")));
        assert_eq!(failure.exception.exc_type, "DecodeError");
        call.content_type = Some("application/x-python-serialize".into());
        let Read::Unreadable { failure, .. } = read(&call.encode()) else { panic!() };
        assert_eq!(failure.exception.exc_type, "ContentDisallowed");
        call.headers.remove("id");
        assert!(matches!(read(&call.encode()), Read::Poison(_)));
        assert!(matches!(read(b"{"), Read::Poison(_)));
    }

    #[test]
    fn a_copy_of_what_has_ended_is_told_from_a_run_that_was_cut_off() {
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
