//! Messages that are looked up because the result documents of their tasks name an end state.

use jiff::Timestamp;

use super::super::super::evidence::Document;
use super::super::super::id::{AttemptId, ObjectKey};
use super::{Entry, Table};

/// One message to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookUp {
    /// Whose it is.
    pub key: ObjectKey,
    /// Of which attempt.
    pub id: AttemptId,
    /// Its delivery tag.
    pub tag: String,
    /// When it is due.
    pub at: Timestamp,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookedUp {
    /// Generation in the marker of its attempt, when there is one.
    pub generation: Option<u32>,
    /// Whether it was not acknowledged.
    pub is_in_flight: bool,
    /// The result document, read after that.
    pub document: Option<Document>,
}

impl<F> Entry<F> {
    /// What is to be looked up of it.
    pub fn look_up(&self) -> Option<LookUp> {
        let (at, tag) = self.evidence.looks_up()?;
        let (key, id) = (self.job.key.clone(), self.job.attempt_in_hand());
        Some(LookUp { key, id, tag, at })
    }
}

impl<F> Table<F> {
    /// A message was looked up. It counts for nothing where another one is to be looked up by now. Whether the workers are
    /// to be asked about it.
    pub fn looked_up(&mut self, of: &LookUp, found: LookedUp, now: Timestamp) -> bool {
        // Not by the version of the evidence: what is done to stop a task changes that with every look at the job.
        let is_asked = |entry: &&Entry<F>| {
            entry.look_up().is_some_and(|it| (&it.key, it.id, &it.tag) == (&of.key, of.id, &of.tag))
        };
        let Some(entry) = self.get(&of.key).filter(is_asked) else { return false };
        let LookedUp { generation, is_in_flight, document } = found;
        let mut evidence = entry.evidence.clone();
        evidence.looked_up(generation, is_in_flight, document, now);
        if evidence.is_over() || evidence.is_unread() {
            self.note(&of.key, |_, known| *known = evidence);
        } else {
            // That is no news: a reading that is under way is not overtaken by it.
            self.update(&of.key, |entry| entry.evidence = evidence);
        }
        self.get(&of.key).is_some_and(|entry| entry.evidence.is_long_unconfirmed())
    }
}
