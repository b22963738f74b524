//! What one reading of Redis, and of the workers, has found.

use std::collections::HashMap;

use super::super::super::evidence::{Document, Mark, Place};
use super::super::super::id::TaskId;
use super::answers::Answers;

/// Bytes of results that one reading holds; of the others it holds the digests.
const TEXTS: usize = 4 << 20;

/// The result documents of some attempts: what is read first. A task that ends after that is still found where it is.
#[derive(Debug, Default)]
pub struct Results {
    pub(super) documents: HashMap<TaskId, Document>,
    /// Bytes of results in these.
    pub(super) texts: usize,
}

/// What was found of some attempts. It is made of their results: places are read after these.
#[derive(Debug)]
pub struct Findings {
    /// Their result documents.
    pub results: Results,
    /// Their markers. When an attempt was published is told by the clock of Redis, and bounded where it is noted.
    pub marks: HashMap<TaskId, Mark>,
    /// Where copies of their messages are, of any delivery.
    pub copies: HashMap<TaskId, Vec<Place>>,
    /// What the workers answered that were asked about some of them.
    pub answers: Option<Answers>,
    /// Whether all messages were looked at, so that one that is nowhere counts as missed.
    pub is_audit: bool,
}

impl Results {
    /// A result document was read, perhaps not for the first time.
    pub fn document(&mut self, task: TaskId, mut document: Document) {
        self.texts += document.text_bytes();
        if self.texts > TEXTS {
            document.drop_text();
        }
        self.documents.insert(task, document);
    }
}

impl Findings {
    /// What is found of a few attempts, of which the messages are looked up one by one.
    pub fn of_few(results: Results) -> Self {
        Self { results, marks: HashMap::new(), copies: HashMap::new(), answers: None, is_audit: false }
    }

    /// What an audit finds: all messages are looked at.
    pub fn of_audit(results: Results) -> Self {
        Self { is_audit: true, ..Self::of_few(results) }
    }

    /// Where the message of the delivery in hand is. Copies of earlier ones do not count, and one in flight counts more
    /// than one in a queue.
    pub fn place(&self, task: TaskId) -> Place {
        let marked = self.marks.get(&task).map(|mark| mark.generation);
        let is_current = |generation: u32| marked.is_none_or(|marked| marked == generation);
        let copies = self.copies.get(&task).map(Vec::as_slice).unwrap_or_default();
        let in_flight = |place: &&Place| matches!(place, Place::InFlight { generation, .. } if is_current(*generation));
        let queued = |place: &&Place| matches!(place, Place::Queued { generation } if is_current(*generation));
        copies.iter().find(in_flight).or_else(|| copies.iter().find(queued)).copied().unwrap_or(Place::Nowhere)
    }

    /// Whether this tells where the message is, without a look at all other messages.
    pub fn is_placed(&self, task: TaskId) -> bool {
        let document = self.results.documents.get(&task);
        match self.place(task) {
            Place::Queued { .. } => true,
            // A message that no worker says it runs may be with no worker.
            Place::InFlight { .. } => document.is_some(),
            Place::Nowhere => matches!(document, Some(Document::Over { .. })),
        }
    }
}
