//! What is done next with a task's message, until it runs or is dropped. Pure: `now` is an argument.

use std::time::Duration;

use jiff::Timestamp;

use super::admit;
use super::context::{LEASE, RENEW};
use crate::wire::Message;

/// Longest first wait for a lease: that of the attempt before is often given up a moment after its retry has been sent.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// What is known of a message that does not run yet.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is observed on its own")]
pub struct Seen<'a> {
    /// The message.
    pub message: &'a Message,
    /// Whether it was put back after it had been taken: an earlier run may go on, or may have ended.
    pub redelivered: bool,
    /// Whether the task was revoked, or told to stop.
    pub is_revoked: bool,
    /// Whether `task-received` was sent.
    pub is_announced: bool,
    /// Whether it has one of the worker's slots.
    pub has_slot: bool,
    /// The answer to the last [`Step::Ask`]; `None` once it was acted on.
    pub answer: Option<Answer>,
    /// Why it was last put aside, if it was.
    pub aside: Option<Aside>,
}

/// Whether the task may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Not for so long: its rate limit is reached.
    Limited(Duration),
    /// Another run holds the lease, which lasts for so long at most.
    LeasedElsewhere(Duration),
    /// Redis did not answer.
    Failed,
    /// No other run holds the lease; with the beginning of the result that a run before has left, empty without one.
    Free(Vec<u8>),
}

/// Why a message is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// It was put back, and its former run may go on without its lease.
    PutBack,
    /// Another run holds the lease.
    LeasedElsewhere,
    /// Redis did not answer.
    NoAnswer,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send `task-received`.
    Announce,
    /// Give up the slot until this time, the task's ETA.
    Wait(Timestamp),
    /// Wait for a slot.
    TakeSlot,
    /// Ask the rate limit, then for the lease; take the lease if it is free and `take` is set, else only look.
    Ask {
        /// Whether the lease is to be taken.
        take: bool,
    },
    /// Keep the slot and wait for so long.
    Rest(Duration),
    /// Give back the rate and wait for so long: with the slot when Redis did not answer, for then no other message can
    /// run either, else without it.
    PutAside(Aside, Duration),
    /// Run the task: its lease is held.
    Run,
    /// Acknowledge the message: the task has ended before, in this way.
    Forget(String),
    /// End the task as revoked, or as expired.
    Drop {
        /// Whether it has expired.
        expired: bool,
    },
}

/// Decides what follows from what is known.
pub fn next(seen: &Seen<'_>, now: Timestamp) -> Step {
    match &seen.answer {
        None => before_asking(seen, now),
        // With its slot, or the worker would take the whole queue.
        Some(Answer::Limited(time)) => Step::Rest(*time),
        Some(Answer::LeasedElsewhere(left)) if seen.aside.is_some() => Step::PutAside(Aside::LeasedElsewhere, *left),
        Some(Answer::LeasedElsewhere(left)) => Step::PutAside(Aside::LeasedElsewhere, FIRST_WAIT.min(*left)),
        Some(Answer::Failed) => Step::PutAside(Aside::NoAnswer, RENEW),
        Some(Answer::Free(head)) => match admit::ended(seen.message, seen.redelivered, head) {
            Some(how) => Step::Forget(how),
            None if seen.has_given_time() => Step::Run,
            None => Step::PutAside(Aside::PutBack, LEASE),
        },
    }
}

/// Until the rate limit and the lease are asked. What was known before a wait is old afterwards, so all of it is judged
/// again.
fn before_asking(seen: &Seen<'_>, now: Timestamp) -> Step {
    let headers = &seen.message.headers;
    if seen.is_revoked {
        return Step::Drop { expired: false };
    }
    if headers.expires_at().is_some_and(|expires| expires <= now) {
        return Step::Drop { expired: true };
    }
    if !seen.is_announced {
        return Step::Announce;
    }
    if let Some(eta) = headers.eta_at().filter(|eta| *eta > now) {
        return Step::Wait(eta);
    }
    if !seen.has_slot {
        return Step::TakeSlot;
    }
    Step::Ask { take: seen.has_given_time() }
}

impl Seen<'_> {
    /// Whether a former run had the time to renew its lease.
    ///
    /// A worker that was cut off for longer than its leases last puts its running tasks back the moment it reaches Redis
    /// again, before it renews. So a message that was put back waits for as long as a lease lasts before it takes the
    /// lease. It waits anew after each look that found a lease or no answer: the worker that renews may be cut off again.
    fn has_given_time(&self) -> bool {
        !self.redelivered || self.aside == Some(Aside::PutBack)
    }
}

#[cfg(test)]
mod tests;
