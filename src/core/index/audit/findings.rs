//! What one reading of Redis, and of the workers, has found.

use std::collections::{HashMap, HashSet};

use super::super::super::evidence::{Document, Mark, Place};
use super::super::super::id::TaskId;
use super::super::super::observed::Besides;
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
    /// Those of the attempts from which messages of other tasks follow.
    pub followed: HashSet<TaskId>,
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

    /// Takes the result document of this task.
    pub fn take(&mut self, task: TaskId) -> Option<Document> {
        self.documents.remove(&task)
    }
}

impl Findings {
    /// What is found of a few attempts, of which the messages are looked up one by one.
    pub fn of_few(results: Results) -> Self {
        let (marks, copies, followed) = Default::default();
        Self { results, marks, copies, followed, answers: None, is_audit: false }
    }

    /// What an audit finds: all messages are looked at.
    pub fn of_audit(results: Results) -> Self {
        Self { is_audit: true, ..Self::of_few(results) }
    }

    /// Where the message of the delivery in hand is, or else a copy that no operator has published. Copies of earlier
    /// deliveries do not count, and one in flight counts more than one in a queue.
    pub fn place(&self, task: TaskId) -> Place {
        let elsewhere = if self.followed.contains(&task) { Place::GoesOn } else { Place::Nowhere };
        self.current(task).min_by_key(|place| rank(*place)).unwrap_or(elsewhere)
    }

    /// Which copies there are besides that one.
    pub fn besides(&self, task: TaskId) -> Besides {
        let place = self.place(task);
        let others = || self.current(task).filter(|other| !is_same(*other, place));
        Besides { waits: others().any(Place::is_queued), is_in_flight: others().any(Place::is_in_flight) }
    }

    /// Copies of the delivery in hand, and those that no operator has published.
    fn current(&self, task: TaskId) -> impl Iterator<Item = Place> {
        let marked = self.marks.get(&task).map(|mark| mark.generation);
        let is_current = move |place: &Place| match place {
            Place::InFlight { generation, .. } | Place::Queued { generation } => {
                marked.is_none_or(|marked| marked == *generation)
            }
            Place::CopyQueued | Place::CopyInFlight { .. } | Place::GoesOn | Place::Nowhere => true,
        };
        self.copies.get(&task).into_iter().flatten().copied().filter(is_current)
    }

    /// Whether a message of the task was found.
    pub fn is_there(&self, task: TaskId) -> bool {
        !matches!(self.place(task), Place::GoesOn | Place::Nowhere)
    }

    /// Whether this tells where the message is, without a look at all other messages.
    pub fn is_placed(&self, task: TaskId) -> bool {
        let document = self.results.documents.get(&task);
        match self.place(task) {
            Place::Queued { .. } | Place::CopyQueued => true,
            // A message that no worker says it runs may be with no worker; one whose task Celery is to run again is not
            // what it goes on by.
            Place::InFlight { .. } | Place::CopyInFlight { .. } => match document {
                Some(Document::Running(report)) => !report.is_of_retry(),
                Some(Document::Over { .. }) => true,
                None => false,
            },
            // What only a task can have stored may be of a copy that goes on after a retry of Celery's own.
            Place::GoesOn | Place::Nowhere => matches!(document, Some(Document::Over { how, celery_retries, .. })
                if *celery_retries == 0 || how.may_be_of_a_worker()),
        }
    }
}

/// By which place an attempt is judged: by the one of the lowest rank.
fn rank(place: Place) -> u8 {
    match place {
        Place::InFlight { .. } => 0,
        Place::CopyInFlight { .. } => 1,
        Place::Queued { .. } => 2,
        Place::CopyQueued => 3,
        Place::GoesOn => 4,
        Place::Nowhere => 5,
    }
}

/// Whether both are the same copy, as far as can be told: an audit may see one twice, in flight and in a queue.
fn is_same(one: Place, other: Place) -> bool {
    match (one, other) {
        (Place::InFlight { generation, .. } | Place::Queued { generation }, _) => {
            matches!(other, Place::InFlight { generation: it, .. } | Place::Queued { generation: it } if it == generation)
        }
        (Place::CopyInFlight { tag, .. }, Place::CopyInFlight { tag: other, .. }) => tag == other,
        (Place::CopyInFlight { .. } | Place::CopyQueued | Place::GoesOn | Place::Nowhere, _) => one == other,
    }
}
