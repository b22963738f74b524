//! End states that result documents name. A task can store one itself while it runs, and so the document of a message that
//! is in flight with a living worker is no end: the worker acknowledges the message after it has stored the result.

use std::time::Duration;

use jiff::Timestamp;

use super::super::observed::Ending;
use super::{Document, Evidence, Found, Over, Place, Unconfirmed};

/// How soon after a document was heard its message is looked up: by then its worker has acknowledged it.
const FIRST_LOOK: Duration = Duration::from_millis(30);
/// How soon it is looked up again; twice as late each time.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The longest wait between two looks.
const LONGEST: Duration = Duration::from_secs(5);
/// After so many looks, a second and a half, the workers are asked: the one that stored it may not have the task any more.
const ASK_AFTER: u32 = 5;

impl Evidence {
    /// When the message is to be looked up, by its delivery tag, because a document names an end state.
    pub fn looks_up(&self) -> Option<(Timestamp, String)> {
        let unconfirmed = self.unconfirmed.as_ref().filter(|_| self.over.is_none())?;
        let tag = match self.place {
            Some(Found::At(Place::InFlight { generation, .. })) => self.of.delivery_tag(generation),
            Some(Found::At(Place::CopyInFlight { tag: Some(tag), .. })) => tag.to_string(),
            _ => return None,
        };
        Some((unconfirmed.look_at.unwrap_or(Timestamp::MIN), tag))
    }

    /// The message was looked up: which generation its marker has, and whether it is in flight. Where it is, no document
    /// is of an end yet; where it is not, the document was read after that.
    pub fn looked_up(
        &mut self,
        generation: Option<u32>,
        is_in_flight: bool,
        document: Option<Document>,
        now: Timestamp,
    ) {
        let is_same = generation == self.marker;
        let Some(unconfirmed) = &mut self.unconfirmed else { return };
        // A Redis that has lost the marker has lost the message as well: that is no acknowledgement.
        if is_in_flight || generation.is_none() || !is_same {
            let wait = LOOK_AGAIN.saturating_mul(2u32.saturating_pow(unconfirmed.looks)).min(LONGEST);
            unconfirmed.looks += 1;
            unconfirmed.look_at = Some(now.checked_add(wait).unwrap_or(Timestamp::MAX));
            if !is_same {
                self.unread();
            }
            return;
        }
        let over = match document {
            Some(Document::Over { how, worker, celery_retries, finished_at, account }) => {
                Over { how, worker, celery_retries, finished_at, account }
            }
            // It is to run again.
            Some(Document::Running(_)) => return self.unread(),
            // It has expired.
            None => unconfirmed.over.clone(),
        };
        // After a retry of Celery's own it may go on by another copy of its message, of which only an audit knows. That asks
        // the workers, and an end that a worker may have stored is not to wait for it.
        if over.celery_retries > 0 && !over.how.may_be_of_a_worker() {
            return self.unread();
        }
        self.end_with(over);
    }

    /// Whether a document names an end state, of a message that was not acknowledged as far as is known.
    pub fn names_end(&self) -> bool {
        self.unconfirmed.is_some()
    }

    /// Whether the workers are to be asked whether any has it, since its message is in flight still.
    pub fn is_long_unconfirmed(&self) -> bool {
        self.unconfirmed.as_ref().is_some_and(|it| it.looks == ASK_AFTER)
    }

    /// A worker says that its run has ended, which it does after it has acknowledged the message.
    pub fn run_ended(&mut self) {
        if let Some(unconfirmed) = &mut self.unconfirmed {
            unconfirmed.look_at = None;
        }
    }

    /// A message says that a document of an end state was stored. Whether the message of the task was acknowledged is
    /// looked up.
    pub(super) fn told_of_end(&mut self, over: Over, now: Timestamp) {
        let generation = self.marker.unwrap_or(0);
        match &mut self.place {
            None => return,
            Some(Found::At(Place::CopyQueued | Place::GoesOn)) if !over.how.may_be_of_a_worker() => {
                return self.unread();
            }
            Some(Found::Withdrawn(_) | Found::At(Place::CopyQueued | Place::GoesOn)) => {
                return self.end_with(over);
            }
            Some(Found::At(place)) => *place = place.taken(generation),
        }
        let looks = self.unconfirmed.as_ref().map_or(0, |it| it.looks);
        let look_at = now.checked_add(FIRST_LOOK).unwrap_or(Timestamp::MAX);
        self.unconfirmed = Some(Box::new(Unconfirmed { over, looks, look_at: Some(look_at) }));
    }

    /// Redis was read, and has a document of an end state.
    pub(super) fn read_end(&mut self, over: Over) {
        match self.place {
            Some(Found::At(Place::InFlight { .. } | Place::CopyInFlight { .. })) => self.await_confirmation(over),
            // The message was put back.
            Some(Found::At(Place::Queued { .. } | Place::CopyQueued)) if !over.how.may_be_of_a_worker() => {
                self.unconfirmed = None;
            }
            // Redis was emptied since. The worker that was seen may have stored it on its way.
            Some(Found::At(Place::Nowhere)) if self.marker.is_none() && self.seen.is_some() => {
                self.await_confirmation(over);
            }
            _ => self.end_with(over),
        }
    }

    fn end_with(&mut self, over: Over) {
        self.unconfirmed = None;
        self.over = Some(Box::new(over));
    }

    /// Redis was read, and has no document. One that was heard or read before has expired, or Redis has forgotten it, with
    /// the message or without: it says what it said.
    pub(super) fn read_without_document(&mut self) {
        if let Some(over) = self.unconfirmed.as_ref().map(|it| it.over.clone()) {
            self.read_end(over);
        }
    }

    fn await_confirmation(&mut self, over: Over) {
        let before = self.unconfirmed.take().map(|it| (it.looks, it.look_at));
        let (looks, look_at) = before.unwrap_or_default();
        self.unconfirmed = Some(Box::new(Unconfirmed { over, looks, look_at }));
    }

    /// The holder is dead, and has left a document of an end state. What no worker stores at the end of a run is none
    /// while the message is in flight.
    pub(super) fn left_by_dead(&mut self, over: Over, is_in_flight: bool) {
        let is_held = is_in_flight || matches!(self.place, Some(Found::At(Place::CopyInFlight { .. })));
        match over.how.may_be_of_a_worker() {
            false if is_held => self.await_confirmation(over),
            // Only an audit tells whether it had a copy of the message, after a retry of Celery's own.
            false if over.celery_retries > 0 && self.place.is_none() => {}
            _ => self.end_with(over),
        }
    }

    /// What a document says in the end although its message was not acknowledged, as no worker has it.
    pub(super) fn end_without_worker(&self) -> Option<&Over> {
        self.unconfirmed.as_ref().map(|it| &it.over).filter(|over| over.how.may_be_of_a_worker())
    }

    /// The message went with an emptied Redis, and the worker that ran the task, or every worker, says that it does not
    /// have it: what the document says that was heard or read is its end. What no worker stores at the end of a run may be
    /// of one that has died since.
    pub(super) fn ended_since_emptied(&mut self, denied_by_holder: bool) {
        let counts = |it: &mut Box<Unconfirmed>| denied_by_holder || it.over.how.may_be_of_a_worker();
        if let Some(unconfirmed) = self.unconfirmed.take_if(counts) {
            self.end_with(unconfirmed.over);
        }
    }

    /// Whether a document of a failure is there that no worker stores at the end of a run.
    pub(super) fn has_stored_failure(&self) -> bool {
        self.unconfirmed.as_ref().is_some_and(|it| !it.over.how.may_be_of_a_worker())
    }

    /// What is held of a result until the status is written.
    pub(super) fn ending(&self) -> Option<&Ending> {
        let unconfirmed = self.unconfirmed.as_ref().map(|it| &it.over);
        self.over.as_deref().or(unconfirmed).map(|over| &over.how)
    }
}
