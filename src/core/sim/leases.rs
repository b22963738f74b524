//! What a worker with leases makes of a copy before it runs it: it takes the lease, puts the copy aside or drops it.
//!
//! As `python/crewjob/guard.py` and `worker::handle` do it. A copy that is put aside stays in flight,
//! takes no process, and is its worker's for every question.

use super::super::observed::Ending;
use super::broker::{Document, LEASE_EXPIRES};
use super::say;
use super::worker::{Copy, Kind, Waits};
use super::world::{Event, World};

/// How often a lease is renewed, and how soon Redis is asked again that did not answer.
pub const RENEW_EVERY: i64 = 2_000;
/// The time from one run of a task to the next where Celery workers limit its rate.
pub const RATE_LIMIT: i64 = 20_000;
/// How long a copy waits that was put aside for the first time.
const FIRST_WAIT: i64 = 500;

/// What becomes of a copy that could begin.
pub enum Admission {
    Run,
    PutAside(Why),
    /// It has ended before.
    Drop,
}

/// Why a copy is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Another worker runs it, for so many milliseconds at least.
    Leased(i64),
    /// It was put back, and no run has a lease on it: its worker may have been cut off for longer than a lease lasts,
    /// and renews it a moment after the message was put back.
    PutBack,
    /// Redis does not say.
    Unknown,
    /// It may not run for so many milliseconds.
    Early(i64),
    /// The rate limit of its task lets it run in so many milliseconds.
    Limited(i64),
}

impl World {
    /// Takes the lease, where the worker needs one, and looks at the result after that.
    pub fn admit_copy(&mut self, pod: usize, index: usize) -> Admission {
        let Copy { message, waits, .. } = self.pods[pod].copies[index];
        if message.eta > self.now && waits == Waits::InLine {
            return Admission::PutAside(Why::Early(message.eta - self.now));
        }
        if self.chaos.limits && !self.pods[pod].is_native() && !message.is_follower && waits == Waits::InLine {
            return Admission::PutAside(Why::Limited(self.rng.between(0, RATE_LIMIT)));
        }
        // What a task replaces itself by has a lease of its own, which no other run asks for.
        if !self.pods[pod].is_leased() || message.is_follower {
            return Admission::Run;
        }
        if self.broker.down {
            return Admission::PutAside(Why::Unknown);
        }
        let Copy { message, gave_time, .. } = self.pods[pod].copies[index];
        let (task, run) = (message.id.task, self.runs.len());
        let document = self.broker.document(task);
        // What only a task can have stored the guard cannot read; a native worker can.
        let counts = !message.redelivered && self.pods[pod].is_native();
        let has_ended = matches!(document, Some(Document::Ended { how, .. }) if counts || how.may_be_of_a_worker());
        if message.redelivered && !gave_time && !has_ended && !self.broker.is_leased(task) {
            return Admission::PutAside(Why::PutBack);
        }
        match self.broker.take_lease(task, run) {
            Err(remaining) => Admission::PutAside(Why::Leased(remaining)),
            Ok(()) if has_ended => {
                self.broker.give_up_lease(task, run);
                Admission::Drop
            }
            Ok(()) => Admission::Run,
        }
    }

    pub fn put_aside(&mut self, pod: usize, index: usize, why: Why) {
        let (container, kind) = (self.pods[pod].container, self.pods[pod].kind);
        let copy = &mut self.pods[pod].copies[index];
        let is_first = copy.waits == Waits::InLine;
        copy.waits = if matches!(why, Why::Limited(_)) { Waits::Limited } else { Waits::Aside };
        copy.gave_time = why == Why::PutBack;
        let (number, message) = (copy.number, copy.message);
        let wait = match why {
            Why::Leased(remaining) if is_first => remaining.min(FIRST_WAIT),
            Why::Leased(remaining) => remaining,
            Why::PutBack => LEASE_EXPIRES,
            Why::Early(wait) | Why::Limited(wait) => wait,
            Why::Unknown if is_first && kind == Kind::Guarded => FIRST_WAIT,
            Why::Unknown => RENEW_EVERY,
        };
        self.count(match why {
            Why::Leased(_) => "put aside",
            Why::PutBack => "put aside: it was put back",
            Why::Unknown => "put aside: no answer",
            Why::Early(_) => "held for a countdown",
            Why::Limited(_) => "held for a rate limit",
        });
        say!(self, "{} puts {} aside for {wait} ms: {why:?}", self.pods[pod].name, self.name_of(message));
        self.at(wait, Event::TryAgain { pod, container, number });
    }

    pub fn try_again(&mut self, pod: usize, container: u32, number: u32) {
        if !self.is_container(pod, container) {
            return;
        }
        let it = &mut self.pods[pod];
        it.imagined.retain(|(lost, _)| *lost != number);
        // Without it the connection was lost: the message comes again from the queue.
        let Some(index) = it.copies.iter().position(|copy| copy.number == number) else { return };
        it.copies[index].waits = Waits::AgainInLine;
        let message = it.copies[index].message;
        if it.revoked.contains(&message.id.task) && !self.broker.down && !message.is_follower {
            self.broker.store(message.id.task, Document::Ended { how: Ending::Revoked, pod, retries: message.retries });
            self.drop_copy(pod, index);
            self.hint(message.id.task);
        }
        self.start_runs(pod);
    }

    /// A copy of something that is over: acknowledged, and not run.
    pub fn drop_copy(&mut self, pod: usize, index: usize) {
        let copy = self.pods[pod].copies.remove(index);
        say!(self, "{} does not run {} again", self.pods[pod].name, self.name_of(copy.message));
        self.count("copy dropped");
        self.broker.ack(copy.message.tag());
        self.leave_when_drained(pod);
        self.at(1, Event::Poll { pod });
    }

    pub fn renew_lease(&mut self, pod: usize, container: u32, run: usize) {
        if !self.is_container(pod, container) || self.runs[run].over {
            return;
        }
        if !self.broker.down && !self.broker.renew_lease(self.runs[run].tag.0, run) {
            say!(self, "{} has lost the lease of run {run}", self.pods[pod].name);
            self.count("lease lost");
        }
        self.at(RENEW_EVERY, Event::Renew { pod, container, run });
    }
}
