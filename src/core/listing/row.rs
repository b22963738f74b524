//! One job of a list.

use std::sync::Arc;

use jiff::Timestamp;

/// Characters of a topic that are kept; a longer one is cut.
pub const TOPIC: usize = 160;
/// Characters of a worker's name, of an error's type and of its message that are kept.
pub const SHORT: usize = 128;
/// Labels of a job that are kept.
pub const LABELS: usize = 16;

/// The phases in the order of a job's life. Another one, of a later version, comes after them.
pub const PHASES: [&str; 7] = ["Pending", "Queued", "Running", "Retrying", "Succeeded", "Failed", "Cancelled"];

/// What a list shows of a job. The texts are what the object says, cut to a bound; all of them may come from its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name, unique within the namespace.
    pub name: Arc<str>,
    /// `status.phase`; `Pending` of a job that no operator has seen.
    pub phase: Arc<str>,
    /// Why it is where it is; empty where that is not said.
    pub reason: Arc<str>,
    /// The pool.
    pub pool: Arc<str>,
    /// The queue that it is on, or asks for; empty for the pool's first.
    pub queue: Arc<str>,
    /// The Celery task.
    pub task: Arc<str>,
    /// The labels, by name.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// The beginning of the topic.
    pub topic: Box<str>,
    /// From 0 to 10; 10 is the most urgent.
    pub priority: i32,
    /// Runs begun so far.
    pub attempts: i32,
    /// How far the running attempt is, in percent.
    pub percent: Option<i32>,
    /// The Celery node that has or had it.
    pub worker: Option<Arc<str>>,
    /// The type of the error of the last run.
    pub error: Option<Arc<str>>,
    /// What the error says.
    pub error_message: Option<Box<str>>,
    /// `spec.suspend`.
    pub suspended: bool,
    /// `spec.cancel`.
    pub cancelling: bool,
    /// When it was created.
    pub created: Timestamp,
    /// When the current or last attempt was put on its queue.
    pub queued: Option<Timestamp>,
    /// When the current or last attempt was begun.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
}

impl Row {
    /// Whether the phase never changes again.
    pub fn is_over(&self) -> bool {
        matches!(&*self.phase, "Succeeded" | "Failed" | "Cancelled")
    }

    /// Where the phase stands in a job's life.
    pub fn stage(&self) -> usize {
        PHASES.iter().position(|phase| *phase == &*self.phase).unwrap_or(PHASES.len())
    }

    /// How long the current or last attempt has run, in milliseconds; `None` while it has not begun.
    pub fn runs(&self, now: Timestamp) -> Option<i64> {
        let until = if self.is_over() { self.finished? } else { now };
        Some((until.as_millisecond() - self.started?.as_millisecond()).max(0))
    }
}

/// The beginning of a text, of at most so many characters.
pub fn cut(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}
