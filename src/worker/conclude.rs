//! From what came of a run to what is stored, published and said. Pure.

use jiff::Timestamp;

use super::admit::Unreadable;
use super::document::{self, About, Told};
use super::follow::{self, Body, Following, Part, Sender};
use super::outcome::{Failure, Outcome};
use crate::wire::event::Detail;
use crate::wire::{Envelope, Limits, Message, Number, RawJson, ResultDocument, Signature, python};

/// What is to be done at the end of a task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conclusion {
    /// The result document; `None` stores nothing.
    pub document: Option<Vec<u8>>,
    /// Whether it is a success.
    pub is_success: bool,
    /// The results of other tasks that will not run because this one has failed.
    pub others: Vec<ResultDocument>,
    /// Parts of chords that end with it, to be counted before anything else is done.
    pub parts: Vec<Part>,
    /// Errbacks that are called here, and what for.
    pub in_place: Vec<(Signature, Failure)>,
    /// What is published.
    pub publish: Vec<Envelope>,
    /// What is said when it is done.
    pub event: Option<Detail>,
    /// What went wrong with what follows, for the log.
    pub refused: Vec<String>,
}

/// What is known of a run that has ended, besides its outcome.
#[derive(Debug, Clone, Copy)]
pub struct RunEnd<'a> {
    /// The sender of what follows.
    pub sender: &'a Sender<'a>,
    /// Runs after the first of a failed task that may be tried again.
    pub max_retries: u32,
    /// Whether this task is an errback of the worker itself, which is called here, without a message.
    pub is_builtin_errback: fn(&str) -> bool,
    /// Any number, from which the jitter of a retry follows.
    pub jitter_seed: u32,
    /// What it says of itself.
    pub told: &'a Told,
    /// How long the run took, in seconds.
    pub seconds: f64,
    /// When it ended.
    pub now: Timestamp,
}

/// Celery's `retry_backoff`, and its `retry_backoff_max`, in seconds.
const BACKOFF: (u32, u32) = (1, 600);

impl Conclusion {
    /// A task that this worker cannot run.
    pub fn refused(id: &str, failure: &Failure, now: Timestamp) -> Self {
        let document = document::refused(id, failure, now).encode();
        Self { document: Some(document), event: Some(failed(id, failure)), ..Self::default() }
    }

    /// A task whose message cannot be read.
    pub fn unreadable(unreadable: &Unreadable, now: Timestamp) -> Self {
        let Unreadable { id, task: _, failure, headers } = unreadable;
        let document = document::unreadable(id, failure, headers, now).encode();
        Self { document: Some(document), event: Some(failed(id, failure)), ..Self::default() }
    }

    /// A task that is not wanted any more, or came too late.
    pub fn dropped(about: About<'_>, expired: bool, now: Timestamp) -> Self {
        let document = document::revoked(about, if expired { "expired" } else { "revoked" }, now).encode();
        let event = Detail::TaskRevoked {
            uuid: about.message.headers.id.clone(),
            terminated: Some(false),
            signum: None,
            expired: Some(expired),
        };
        Self { document: Some(document), event: Some(event), ..Self::default() }.with_parts(about.message)
    }

    /// The same with the parts of chords that end with this task.
    #[must_use]
    pub fn with_parts(self, message: &Message) -> Self {
        let document = self.document.as_deref().unwrap_or_default();
        let parts = follow::parts(message, document, &self.others);
        Self { parts, ..self }
    }

    /// Adds what follows when all parts of a chord have ended.
    pub fn add(&mut self, body: Body) {
        let Body { messages, failed, in_place, refused } = body;
        self.publish.extend(messages);
        self.others.extend(failed);
        self.in_place.extend(in_place);
        self.refused.extend(refused);
    }
}

/// Concludes a run. `fresh` makes new ids.
pub fn conclude(about: About<'_>, outcome: Outcome, end: &RunEnd<'_>, mut fresh: impl FnMut() -> String) -> Conclusion {
    let ended = match outcome {
        Outcome::Succeeded(result) => {
            match follow::after_success(about.message, &result, end.sender, end.now, &mut fresh) {
                Ok(following) => succeeded(about, result, following, end),
                // The work is done: another run would do it again.
                Err(failure) => give_up(about, &failure, false, end, fresh),
            }
        }
        Outcome::Failed { failure, retryable: true } if follow::may_retry(&about.message.headers, end.max_retries) => {
            try_again(about, &failure, end, fresh)
        }
        Outcome::Failed { failure, retryable } => give_up(about, &failure, retryable, end, fresh),
        Outcome::Stopped { signal } => stopped(about, signal, end),
    };
    let ignores = about.message.headers.ignore_result.unwrap_or(false);
    let ended = ended.with_parts(about.message);
    Conclusion { document: ended.document.filter(|_| !ignores), ..ended }
}

fn succeeded(about: About<'_>, result: RawJson, following: Following, end: &RunEnd<'_>) -> Conclusion {
    let shown = result.parse(&Limits::default()).map(|value| python::safe_repr(&value)).ok();
    let event = Detail::TaskSucceeded {
        uuid: about.message.headers.id.clone(),
        result: shown,
        runtime: Some(Number::from(end.seconds)),
    };
    let document = end.told.in_document(document::success(about, result, &following.children, end.now)).encode();
    Conclusion {
        document: Some(document),
        is_success: true,
        publish: following.messages,
        event: Some(event),
        ..Conclusion::default()
    }
}

fn try_again(about: About<'_>, failure: &Failure, end: &RunEnd<'_>, fresh: impl FnMut() -> String) -> Conclusion {
    let retries = u32::try_from(about.message.headers.retries.unwrap_or(0)).unwrap_or(0);
    let seconds = follow::countdown(retries, BACKOFF.0, BACKOFF.1, Some(end.jitter_seed));
    let properties = &about.envelope.properties;
    let again = follow::retry(about.message, properties, seconds, end.sender, end.now, fresh);
    let event = Detail::TaskRetried {
        uuid: about.message.headers.id.clone(),
        exception: Some(repr(failure)),
        traceback: failure.traceback.clone(),
    };
    let document = end.told.in_document(document::retry(about, failure, &again.children)).encode();
    Conclusion { document: Some(document), publish: vec![again.message], event: Some(event), ..Conclusion::default() }
}

fn give_up(
    about: About<'_>,
    failure: &Failure,
    retryable: bool,
    end: &RunEnd<'_>,
    fresh: impl FnMut() -> String,
) -> Conclusion {
    let after = follow::after_failure(about.message, failure, end.sender, end.is_builtin_errback, end.now, fresh);
    let document = document::failure(about, failure, retryable, end.now);
    Conclusion {
        document: Some(end.told.in_document(document).encode()),
        is_success: false,
        others: after.chain,
        parts: Vec::new(),
        in_place: after.in_place.into_iter().map(|errback| (errback, failure.clone())).collect(),
        publish: after.messages,
        event: Some(failed(&about.message.headers.id, failure)),
        refused: after.refused,
    }
}

fn stopped(about: About<'_>, signal: i32, end: &RunEnd<'_>) -> Conclusion {
    let event = Detail::TaskRevoked {
        uuid: about.message.headers.id.clone(),
        terminated: Some(true),
        signum: Some(signal.into()),
        expired: Some(false),
    };
    let document = end.told.in_document(document::revoked(about, "terminated", end.now)).encode();
    Conclusion { document: Some(document), event: Some(event), ..Conclusion::default() }
}

fn failed(id: &str, failure: &Failure) -> Detail {
    Detail::TaskFailed { uuid: id.to_owned(), exception: Some(repr(failure)), traceback: failure.traceback.clone() }
}

/// Python's `repr` of the exception.
pub fn repr(failure: &Failure) -> String {
    failure.repr()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::account::{Count, SavedState};
    use crate::core::usage::{Consumed, Usage};
    use crate::wire::json::tests::any_value;
    use crate::wire::{Call, State, Value};
    use crate::worker::follow::Defaults;
    use crate::worker::outcome::Memory;
    use crate::worker::routes::Routes;

    /// What is concluded for a message with this body's third part, and how often it has run before.
    fn concluded(embed: &str, retries: i64, outcome: Outcome) -> (ResultDocument, Conclusion) {
        concluded_of(&Value::parse(embed.as_bytes()).unwrap(), retries, outcome)
    }

    fn concluded_of(embed: &Value, retries: i64, outcome: Outcome) -> (ResultDocument, Conclusion) {
        let mut call = Call::new("a.task", "id-1", "default");
        call.retries = retries;
        call.embed.callbacks = embed.get("callbacks").cloned().unwrap_or_default();
        call.embed.errbacks = embed.get("errbacks").cloned().unwrap_or_default();
        call.embed.chain = embed.get("chain").cloned().unwrap_or_default();
        let envelope = call.envelope();
        let message = Message::decode(&envelope).unwrap();
        let routes = Routes::new([], "default");
        let defaults = Defaults::default();
        let sender = Sender { origin: "gen1@h", reply_to: "", routes: &routes, defaults: &defaults };
        let memory = Some(Memory { peak: Some(1 << 20), oom_killed: false });
        let usage = Count { id: "c".into(), usage: Usage::of("m", Consumed { input: 3, ..Consumed::default() }) };
        let told = Told { memory, usage, state: Some(SavedState { is_resumed: true, ..SavedState::default() }) };
        let run_end = RunEnd {
            sender: &sender,
            max_retries: 3,
            is_builtin_errback: |task| task == "native",
            jitter_seed: 0,
            told: &told,
            seconds: 1.5,
            now: "2026-11-22T12:00:00Z".parse().unwrap(),
        };
        let about = About { message: &message, envelope: &envelope, worker: "w@h" };
        let mut ids = 0;
        let fresh = || {
            ids += 1;
            format!("fresh-{ids}")
        };
        let end = conclude(about, outcome, &run_end, fresh);
        (ResultDocument::decode(end.document.as_ref().unwrap()).unwrap(), end)
    }

    fn failure(retryable: bool) -> Outcome {
        Outcome::Failed { failure: Failure::new("builtins", "ValueError", "no"), retryable }
    }

    #[test]
    fn a_success_publishes_its_callbacks_and_names_them_as_its_children() {
        let embed = r#"{"callbacks": [{"task": "next", "args": [], "kwargs": {}, "options": {}}]}"#;
        let (document, end) = concluded(embed, 0, Outcome::Succeeded(RawJson::new("7").unwrap()));
        assert_eq!((document.status, end.is_success), (State::Success, true));
        let [next] = end.publish.as_slice() else { panic!("{:?}", end.publish) };
        let next = Message::decode(next).unwrap();
        assert_eq!((next.headers.task.as_str(), next.args), ("next", vec![Value::from(7)]));
        assert!(document.children.as_str().contains(&next.headers.id), "{}", document.children.as_str());
    }

    #[test]
    fn a_failure_that_may_be_tried_again_is_until_the_budget_is_used_up() {
        let (document, end) = concluded("{}", 2, failure(true));
        assert_eq!(document.status, State::Retry);
        let again = Message::decode(&end.publish[0]).unwrap().headers;
        assert_eq!((again.id.as_str(), again.retries), ("id-1", Some(3)));
        assert!(matches!(end.event, Some(Detail::TaskRetried { .. })));
        let (document, end) = concluded("{}", 3, failure(true));
        assert_eq!((document.status, end.publish.len()), (State::Failure, 0));
        assert_eq!(concluded("{}", 0, failure(false)).0.status, State::Failure);
    }

    #[test]
    fn a_failure_says_whether_another_run_may_succeed_unless_the_worker_ended_the_run() {
        for retryable in [true, false] {
            let (document, _) = concluded("{}", 3, failure(retryable));
            assert_eq!(document.other.get("retryable"), Some(&Value::Bool(retryable)));
        }
        for kind in ["TimeLimitExceeded", "SoftTimeLimitExceeded", "WorkerLostError"] {
            let failure = Failure::new("billiard.exceptions", kind, "");
            let (document, _) = concluded("{}", 3, Outcome::Failed { failure, retryable: false });
            assert_eq!(document.other.get("retryable"), None, "{kind}");
        }
    }

    #[test]
    fn errbacks_are_published_or_called_here_when_a_task_fails_for_good() {
        let embed = r#"{"errbacks": [{"task": "theirs", "args": [], "kwargs": {}, "options": {}},
            {"task": "native", "args": [], "kwargs": {}, "options": {}}]}"#;
        let (_, end) = concluded(embed, 0, failure(false));
        assert_eq!(end.in_place.iter().map(|(errback, _)| errback.task.as_str()).collect::<Vec<_>>(), ["native"]);
        assert_eq!(Message::decode(&end.publish[0]).unwrap().headers.task, "theirs");
        assert_eq!(concluded(embed, 0, failure(true)).1.in_place.len(), 0, "not on a retry");
    }

    #[test]
    fn every_end_of_a_command_tells_of_its_memory_what_it_consumed_and_its_state() {
        let outcomes =
            [Outcome::Succeeded(RawJson::default()), failure(true), failure(false), Outcome::Stopped { signal: 15 }];
        for outcome in outcomes {
            let (document, _) = concluded("{}", 0, outcome);
            assert_eq!(document.other.get("memory").unwrap().to_json(), r#"{"peak":1048576,"oom_killed":false}"#);
            assert_eq!(
                document.other.get("usage").unwrap().to_json(),
                r#"{"count":"c","models":{"m":{"input_tokens":3}}}"#
            );
            assert_eq!(document.other.get("state").unwrap().to_json(), r#"{"resumed":true}"#);
        }
    }

    proptest! {
        #[test]
        fn whatever_follows_a_task_it_is_concluded(
            callbacks in any_value(), errbacks in any_value(), chain in any_value(), retries in any::<i64>(), kind in 0..3,
        ) {
            let outcome = match kind {
                0 => Outcome::Succeeded(RawJson::from(&callbacks)),
                1 => failure(true),
                _ => failure(false),
            };
            let lists = |value: Value| [value.clone(), Value::Array(vec![value])];
            for (callbacks, (errbacks, chain)) in
                lists(callbacks).into_iter().zip(lists(errbacks).into_iter().zip(lists(chain)))
            {
                let embed =
                    crate::wire::Object::new().with("callbacks", callbacks).with("errbacks", errbacks).with("chain", chain);
                concluded_of(&embed.into(), retries, outcome.clone());
            }
        }
    }
}
