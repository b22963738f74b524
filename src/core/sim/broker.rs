//! Redis as Celery and the operator use it: one queue, what is in flight, markers, results and leases.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::evidence::{Mark, Place};
use super::super::id::{AttemptId, Priority, SpecHash, TaskId};
use super::super::observed::Ending;
use super::at;
use uuid::Uuid;

/// A message: whose, and which attempt and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    pub job: usize,
    pub id: AttemptId,
    pub spec: SpecHash,
    pub priority: Priority,
    /// Whether it was put back before.
    pub redelivered: bool,
    /// Of a copy that no operator has published, a number that no other one has; else 0.
    pub copy: u32,
    /// Retries that Celery has made under this task id.
    pub retries: u32,
    /// No message of the task, but of one that it has replaced itself by.
    pub is_follower: bool,
    /// When it may run.
    pub eta: i64,
}

/// Delivery tag: task, generation, and the number of a copy that no operator has published.
pub type Tag = (TaskId, u32, u32);

impl Message {
    pub fn tag(self) -> Tag {
        (self.id.task, self.id.generation, self.copy)
    }

    /// Whether it is a message of this task.
    pub fn is_of(self, task: TaskId) -> bool {
        self.id.task == task && !self.is_follower
    }

    fn queued(self) -> Place {
        if self.copy > 0 { Place::CopyQueued } else { Place::Queued { generation: self.id.generation } }
    }
}

/// The tag of a copy that no operator has published, as such clients make it.
pub fn copy_tag(copy: u32) -> Uuid {
    Uuid::from_u128(copy.into())
}

/// An entry of `unacked`.
#[derive(Debug, Clone, Copy)]
pub struct InFlight {
    pub message: Message,
    /// Its score in `unacked_index`: when it was taken, by its worker's clock, or renewed by the operator, which cannot
    /// tell the two.
    pub score: i64,
}

impl InFlight {
    fn place(&self) -> Place {
        let received_at = Some(at(self.score));
        match self.message.copy {
            0 => Place::InFlight { generation: self.message.id.generation, received_at },
            copy => Place::CopyInFlight { tag: Some(copy_tag(copy)), received_at },
        }
    }
}

/// What a glance at the queue tells.
#[derive(Debug, PartialEq, Eq)]
pub struct Glance(usize, Option<Message>, Option<Message>);

#[derive(Debug, Clone, Copy)]
pub struct Marker {
    pub job: usize,
    pub number: u32,
    pub generation: u32,
    pub withdrawn: bool,
    pub at: i64,
    pub spec: SpecHash,
    pub priority: Priority,
}

impl Marker {
    /// What it says of its attempt.
    pub fn mark(&self) -> Mark {
        Mark {
            generation: self.generation,
            withdrawn: self.withdrawn,
            at: at(self.at),
            spec: Some(self.spec),
            priority: self.priority,
        }
    }
}

/// A result document.
#[derive(Debug, Clone)]
pub enum Document {
    Started {
        pod: usize,
        retries: u32,
    },
    /// Celery is to run it again.
    Retry {
        retries: u32,
    },
    Ended {
        how: Ending,
        pod: usize,
        retries: u32,
    },
}

/// How long a result is kept.
pub const RESULT_EXPIRES: i64 = 120_000;

/// How long a lease on a task lives unless it is renewed.
pub const LEASE_EXPIRES: i64 = 6_000;

/// What Redis keeps.
#[derive(Debug, Clone, Default)]
pub struct Data {
    pub queue: VecDeque<Message>,
    pub unacked: BTreeMap<Tag, InFlight>,
    pub markers: BTreeMap<TaskId, Marker>,
    pub documents: BTreeMap<TaskId, (Document, i64)>,
    /// Which run has a task, as a number that no other run has, and until when the lease holds.
    leases: BTreeMap<TaskId, (usize, i64)>,
    pub epoch: u64,
}

#[derive(Debug, Default)]
pub struct Broker {
    pub now: i64,
    pub down: bool,
    pub data: Data,
    pub ledger: Ledger,
}

/// Not in Redis: what the verdict must know of it.
#[derive(Debug, Default)]
pub struct Ledger {
    /// When it last lost what it knew: it was emptied, or went back to what it was.
    pub forgot_at: Option<i64>,
    /// Whether it ever went back to what it was.
    pub went_back: bool,
    /// When it could last not be reached.
    pub down_at: Option<i64>,
    /// How often it has forgotten.
    pub lives: u32,
    /// How often each message was published, per life.
    pub published: BTreeMap<(Tag, u32), u32>,
    /// How often anything was published.
    pub publications: u32,
    /// How many copies were published by others than operators.
    pub copies: u32,
    /// Tasks whose message Kombu put back, so that Celery alone may run them twice.
    pub put_back: BTreeSet<TaskId>,
}

impl Ledger {
    /// Whether a message of this tag was published and is forgotten.
    pub fn was_published_before_it_forgot(&self, tag: Tag) -> bool {
        self.published.range((tag, 0)..(tag, self.lives)).next().is_some()
    }

    /// Whether something that was written then may be forgotten by now.
    pub fn has_forgotten_since(&self, written_at: i64) -> bool {
        self.forgot_at.is_some_and(|forgot_at| forgot_at >= written_at)
    }
}

impl Broker {
    // === reads ===

    pub fn document(&self, task: TaskId) -> Option<&Document> {
        self.data.documents.get(&task).filter(|(_, expires_at)| *expires_at > self.now).map(|(document, _)| document)
    }

    /// Where the message is that a task's marker names. One that Kombu has put back has other bytes, and is not found.
    pub fn locate(&self, task: TaskId) -> Option<Place> {
        let generation = self.data.markers.get(&task)?.generation;
        if let Some(entry) = self.data.unacked.get(&(task, generation, 0)) {
            return Some(entry.place());
        }
        let is_it = |message: &&Message| message.tag() == (task, generation, 0) && !message.redelivered;
        self.data.queue.iter().find(is_it).map(|_| Place::Queued { generation })
    }

    /// All messages with workers.
    pub fn in_flight(&self) -> Vec<(TaskId, Place)> {
        let ours = self.data.unacked.values().filter(|entry| !entry.message.is_follower);
        ours.map(|entry| (entry.message.id.task, entry.place())).collect()
    }

    /// All messages in the queue.
    pub fn queued(&self) -> Vec<(TaskId, Place)> {
        let ours = self.data.queue.iter().filter(|message| !message.is_follower);
        ours.map(|message| (message.id.task, message.queued())).collect()
    }

    /// The jobs that have replaced themselves, as what is in flight tells, or else the queue.
    pub fn followed(&self, in_flight: bool) -> BTreeSet<usize> {
        let messages: Box<dyn Iterator<Item = Message>> = if in_flight {
            Box::new(self.data.unacked.values().map(|entry| entry.message))
        } else {
            Box::new(self.data.queue.iter().copied())
        };
        messages.filter(|message| message.is_follower).map(|message| message.job).collect()
    }

    /// The length and the ends of the queue.
    pub fn glance(&self) -> Glance {
        Glance(self.data.queue.len(), self.data.queue.front().copied(), self.data.queue.back().copied())
    }

    // === what workers do ===

    /// Publishes a message under a new delivery tag: a retry, what a task replaces itself by, what a person sends.
    pub fn publish_copy(&mut self, message: Message) {
        self.ledger.copies += 1;
        self.data.queue.push_back(Message { copy: self.ledger.copies, redelivered: false, ..message });
    }

    pub fn pop(&mut self) -> Option<Message> {
        if self.down { None } else { self.data.queue.pop_front() }
    }

    /// Taken by a worker whose clock is ahead by so much, and noted with the time by it.
    pub fn hold(&mut self, message: Message, ahead: i64) {
        let score = self.now + ahead;
        self.data.unacked.insert(message.tag(), InFlight { message, score });
    }

    /// Removes whatever has that tag, whichever worker holds it: tags are shared by the copies of a message.
    pub fn ack(&mut self, tag: Tag) {
        self.data.unacked.remove(&tag);
    }

    /// Kombu puts a message back in front; without its entry there is nothing to put back.
    pub fn put_back(&mut self, tag: Tag, begun: bool) -> bool {
        let Some(entry) = self.data.unacked.remove(&tag) else { return false };
        if begun {
            self.ledger.put_back.insert(tag.0);
        }
        self.data.queue.push_front(Message { redelivered: true, ..entry.message });
        true
    }

    /// Stores a document; a success is never overwritten.
    pub fn store(&mut self, task: TaskId, document: Document) {
        let is_final = |document: &Document| matches!(document, Document::Ended { how: Ending::Succeeded(_), .. });
        if !self.document(task).is_some_and(is_final) {
            self.data.documents.insert(task, (document, self.now + RESULT_EXPIRES));
        }
    }

    /// What any draining kombu channel does: puts back what is in flight for longer than this. Whether there was any.
    pub fn sweep(&mut self, visibility_timeout: i64, spares_followers: bool) -> bool {
        let now = self.now;
        let old: Vec<Tag> = self
            .data
            .unacked
            .iter()
            .filter(|(_, entry)| {
                entry.score < now - visibility_timeout && !(spares_followers && entry.message.is_follower)
            })
            .map(|(tag, _)| *tag)
            .collect();
        for tag in &old {
            self.put_back(*tag, true);
        }
        !old.is_empty()
    }

    /// Whether any run has the lease on a task.
    pub fn is_leased(&self, task: TaskId) -> bool {
        self.data.leases.get(&task).is_some_and(|(_, until)| *until > self.now)
    }

    /// Takes the lease on a task for a run, or tells how long another run's holds.
    pub fn take_lease(&mut self, task: TaskId, run: usize) -> Result<(), i64> {
        match self.data.leases.get(&task) {
            Some((_, until)) if *until > self.now => Err(until - self.now),
            Some(_) | None => {
                self.data.leases.insert(task, (run, self.now + LEASE_EXPIRES));
                Ok(())
            }
        }
    }

    /// Renews a run's lease, also where Redis has lost it; false when it is another run's.
    pub fn renew_lease(&mut self, task: TaskId, run: usize) -> bool {
        let is_ours = self.data.leases.get(&task).is_none_or(|(holder, until)| *holder == run || *until <= self.now);
        if is_ours {
            self.data.leases.insert(task, (run, self.now + LEASE_EXPIRES));
        }
        is_ours
    }

    pub fn give_up_lease(&mut self, task: TaskId, run: usize) {
        if self.data.leases.get(&task).is_some_and(|(holder, _)| *holder == run) {
            self.data.leases.remove(&task);
        }
    }

    /// Redis is emptied, a replica takes over, or an old snapshot is loaded: what happened since is forgotten.
    pub fn become_as(&mut self, data: Data) {
        self.data = data;
        self.ledger.lives += 1;
        self.ledger.forgot_at = Some(self.now);
    }
}
