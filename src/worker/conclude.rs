//! From what came of a run to what is stored, published and said. Pure.

use jiff::Timestamp;

use super::document::{self, About};
use super::outcome::{Failure, Outcome};
use crate::store::channel::Publication;
use crate::wire::event::Detail;
use crate::wire::{Limits, Number, python};

/// What is to be done at the end of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conclusion {
    /// The result document; `None` stores nothing.
    pub document: Option<Vec<u8>>,
    /// Whether it is a success.
    pub is_success: bool,
    /// What is published with it.
    pub publish: Vec<Publication>,
    /// What is said when it is done.
    pub event: Option<Detail>,
}

/// What a worker's setup says about the end of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Runs after the first of a failed task that may be tried again.
    pub max_retries: u32,
}

impl Conclusion {
    /// The message is acknowledged, nothing else.
    pub fn nothing(_id: &str) -> Self {
        Self { document: None, is_success: false, publish: Vec::new(), event: None }
    }

    /// A task that nobody here can run, or whose message cannot be read.
    pub fn refused(id: &str, document: Vec<u8>, failure: &Failure) -> Self {
        Self { document: Some(document), event: Some(failed(id, failure)), ..Self::nothing(id) }
    }

    /// A task that is not wanted any more, or came too late.
    pub fn dropped(about: About<'_>, expired: bool, now: Timestamp) -> Self {
        let id = &about.message.headers.id;
        let document = document::revoked(about, if expired { "expired" } else { "revoked" }, now).encode();
        let event =
            Detail::TaskRevoked { uuid: id.clone(), terminated: Some(false), signum: None, expired: Some(expired) };
        Self { document: Some(document), event: Some(event), ..Self::nothing(id) }
    }
}

/// Concludes a run that took so many seconds.
pub fn conclude(about: About<'_>, outcome: Outcome, seconds: f64, _rules: &Rules, now: Timestamp) -> Conclusion {
    let headers = &about.message.headers;
    let stores = !headers.ignore_result.unwrap_or(false);
    let uuid = headers.id.clone();
    let (document, is_success, event) = match outcome {
        Outcome::Succeeded(result) => {
            let shown = result.parse(&Limits::default()).map(|value| python::safe_repr(&value)).ok();
            let runtime = Some(Number::from(seconds));
            let event = Detail::TaskSucceeded { uuid, result: shown, runtime };
            (document::success(about, result, Vec::new(), now), true, event)
        }
        Outcome::Failed { failure, retryable: _ } => {
            let event = failed(&uuid, &failure);
            (document::failure(about, &failure, now), false, event)
        }
        Outcome::Stopped { signal } => {
            let event =
                Detail::TaskRevoked { uuid, terminated: Some(true), signum: Some(signal.into()), expired: Some(false) };
            (document::revoked(about, "terminated", now), false, event)
        }
    };
    let document = stores.then(|| document.encode());
    Conclusion { document, is_success, publish: Vec::new(), event: Some(event) }
}

fn failed(id: &str, failure: &Failure) -> Detail {
    Detail::TaskFailed { uuid: id.to_owned(), exception: Some(repr(failure)), traceback: failure.traceback.clone() }
}

/// Python's `repr` of the exception.
fn repr(failure: &Failure) -> String {
    let kind = &failure.exception.exc_type;
    match failure.exception.exc_message.as_slice() {
        [argument] => format!("{kind}({})", python::repr(argument)),
        arguments => format!("{kind}{}", python::repr_tuple(arguments)),
    }
}
