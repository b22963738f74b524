//! What is sent after a run: callbacks and the rest of a chain after a success, errbacks after a failure, the same task
//! again for a retry.
//!
//! The messages are those that a Celery worker sends, with [`Defaults`] for what a signature does not say. Groups and chains are
//! taken apart as Celery does it. The parts of chords are counted as Celery counts them, and the last one sends the body:
//! [`parts`], [`body`]. This worker begins no chord: a task that is followed by one is refused before it runs: [`refusal`].
//!
//! An envelope names the queue in its routing key when its exchange is empty, as it nearly always is. Else
//! `worker::deliver` finds the queues that are bound to the exchange.

mod backoff;
mod call;
mod canvas;
mod chord;
mod failed;
mod publisher;
mod refused;
mod retry;
mod sender;
mod signature;

use jiff::Timestamp;

use self::canvas::Canvas;
use self::publisher::Publisher;
use self::signature::{descent, elements};
use super::admit::LARGEST;
use super::outcome::Failure;
use crate::wire::{Envelope, Limits, Message, RawJson, Value};

pub use backoff::{countdown, may_retry};
pub use chord::{Body, BodySender, Ended, Part, body, fail, parts};
pub use failed::after_failure;
pub use retry::retry;
pub use sender::{Defaults, Following, Sender};

/// Why a task is not to be run: it is followed by something that this worker cannot send. To be stored instead of running
/// it, so that nothing is done by halves.
pub fn refusal(message: &Message) -> Option<Failure> {
    let rest = elements(&message.embed.chain);
    let next = elements(&message.embed.callbacks).iter().chain(rest.last());
    next.map(Canvas::decode).find_map(Result::err).map(Failure::from)
}

/// What follows when a task has returned `result`. A failure is to be stored instead of the result; then nothing is
/// sent.
///
/// `fresh` makes new ids, for tasks, groups and delivery tags.
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
    let result = result.to_value(&Limits::default());
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
    let following = publisher.following();
    if let Some(large) = following.messages.iter().find(|message| is_too_large(message)) {
        let task = large.headers.get("task").and_then(Value::as_str).unwrap_or_default();
        let why = format!("the result cannot be passed on: the message to {task} would have more than {LARGEST} bytes");
        return Err(Failure::new("kombu.exceptions", "EncodeError", why));
    }
    Ok(following)
}

/// Whether no worker would run it.
fn is_too_large(message: &Envelope) -> bool {
    // Few come near it, and encoding one takes time.
    message.body.len() > LARGEST / 2 && message.encode().len() > LARGEST
}

#[cfg(test)]
mod tests;
