//! What must hold for any message that a worker takes, and whatever comes of it; shared by the fuzz target and the
//! ordinary tests.

#![allow(clippy::unwrap_used, reason = "whatever does not hold must be seen")]

use crewjob::wire::{Call, Envelope, Message, Object, RawJson, ResultDocument, State, Value};
use crewjob::worker::steps::{
    About, Arguments, Conclusion, Defaults, Failure, Outcome, Read, Routes, RunEnd, Seen, Sender, Told, conclude,
    ended, may_retry, next, read, refusal,
};
use jiff::Timestamp;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// Takes a message whose shape the first byte decides, and brings it to every end. Panics when something does not hold.
pub fn message(bytes: &[u8]) {
    let Some((shape, bytes)) = bytes.split_first() else { return };
    match shape % 4 {
        0 => take(bytes),
        1 => take(&with_body(bytes, &Object::new()).encode()),
        2 => take(&with_headers(bytes).encode()),
        // Two halves: what is asked for, and what a run before has left.
        _ => {
            let (first, second) = bytes.split_at(bytes.len() / 2);
            take(&with_body(first, &Object::new().with("retries", 1_i64)).encode());
            let message = Message::decode(&Call::new("a.task", "id-1", "default").envelope()).unwrap();
            let _ = (ended(&message, true, second), ended(&message, false, second));
        }
    }
}

fn with_body(body: &[u8], other: &Object) -> Envelope {
    let mut envelope = Call::new("a.task", "id-1", "default").envelope();
    envelope.body = String::from_utf8_lossy(body).into_owned();
    envelope.properties.body_encoding = None;
    for (key, value) in other.iter() {
        envelope.headers.insert(key, value.clone());
    }
    envelope
}

fn with_headers(headers: &[u8]) -> Envelope {
    let mut envelope = Call::new("a.task", "id-1", "default").envelope();
    if let Ok(Value::Object(others)) = Value::parse(headers) {
        for (key, value) in others.iter() {
            envelope.headers.insert(key, value.clone());
        }
    }
    envelope
}

fn take(bytes: &[u8]) {
    let (envelope, message) = match read(bytes) {
        Read::Poison(_) => return,
        Read::Unreadable(unreadable) => {
            let end = Conclusion::unreadable(&unreadable, NOW);
            let document = ResultDocument::decode(&end.document.unwrap()).unwrap();
            assert_eq!((document.task_id, document.status), (unreadable.id, State::Failure));
            return;
        }
        Read::Task(task) => *task,
    };
    let seen = Seen {
        message: &message,
        redelivered: true,
        is_revoked: false,
        is_announced: true,
        has_slot: true,
        answer: None,
        aside: None,
    };
    let _ = next(&seen, NOW);
    let _ = Arguments::bind(&message.args, &message.kwargs).map(|arguments| arguments.canonical());
    let about = About { message: &message, envelope: &envelope, worker: "w@h" };
    ends(about, &Conclusion::dropped(about, true, NOW), State::Revoked);
    if let Some(failure) = refusal(&message) {
        ends(about, &concluded(about, Outcome::Failed { failure, retryable: false }), State::Failure);
        return;
    }
    let failure = Failure::new("builtins", "ValueError", "no");
    let succeeded = concluded(about, Outcome::Succeeded(RawJson::new("[7]").unwrap()));
    let status = if succeeded.is_success { State::Success } else { State::Failure };
    ends(about, &succeeded, status);
    let again = concluded(about, Outcome::Failed { failure: failure.clone(), retryable: true });
    let tries = may_retry(&message.headers, 3);
    if tries {
        let next = Message::decode(&again.publish[0]).unwrap().headers;
        assert_eq!((&next.id, again.publish.len()), (&message.headers.id, 1));
        assert_eq!(next.retries, Some(message.headers.retries.unwrap_or(0) + 1));
    }
    ends(about, &again, if tries { State::Retry } else { State::Failure });
    ends(about, &concluded(about, Outcome::Failed { failure, retryable: false }), State::Failure);
    ends(about, &concluded(about, Outcome::Stopped { signal: 15 }), State::Revoked);
}

fn concluded(about: About<'_>, outcome: Outcome) -> Conclusion {
    let (routes, defaults) = (Routes::new([], "default"), Defaults::default());
    let sender = Sender { origin: "gen1@h", reply_to: "", routes: &routes, defaults: &defaults };
    let end = RunEnd {
        sender: &sender,
        max_retries: 3,
        is_builtin_errback: |task| task == "native",
        jitter_seed: 0,
        seconds: 1.5,
        told: &Told::default(),
        now: NOW,
    };
    let mut ids = 0;
    let fresh = || {
        ids += 1;
        format!("fresh-{ids}")
    };
    conclude(about, outcome, &end, fresh)
}

/// Each document that is stored and each message that is published can be decoded.
fn ends(about: About<'_>, end: &Conclusion, status: State) {
    let headers = &about.message.headers;
    if let Some(document) = &end.document {
        let document = ResultDocument::decode(document).unwrap();
        assert_eq!((&document.task_id, document.status), (&headers.id, status));
    } else {
        assert_eq!(headers.ignore_result, Some(true));
    }
    for other in &end.others {
        assert_eq!(ResultDocument::decode(&other.encode()).as_ref(), Ok(other));
    }
    for message in &end.publish {
        let again = Envelope::decode(&message.encode()).unwrap();
        assert!(!Message::decode(&again).unwrap().headers.id.is_empty());
        assert!(!again.properties.delivery_tag.is_empty());
    }
}
