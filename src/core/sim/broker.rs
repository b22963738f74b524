//! Redis as Celery and the operator use it: one queue, what is in flight, markers, results, and one script per
//! transition, each compare-and-set on the marker and fenced by the Lease's epoch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::job::{AttemptId, Priority, SpecHash, TaskId};
use super::super::observed::Ending;
use super::super::plan::InPlaceOf;

/// A message: whose, and which attempt and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    pub job: usize,
    pub id: AttemptId,
    pub spec: SpecHash,
    pub priority: Priority,
}

/// Delivery tag: task and generation.
pub type Tag = (TaskId, u32);

impl Message {
    pub fn tag(self) -> Tag {
        (self.id.task, self.id.generation)
    }
}

/// An entry of `unacked`.
#[derive(Debug, Clone, Copy)]
pub struct InFlight {
    pub message: Message,
    pub received_at: i64,
    /// Its score in `unacked_index`; renewed by the operator.
    pub score: i64,
}

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

/// A result document.
#[derive(Debug, Clone)]
pub enum Document {
    Started { pod: usize },
    Ended { how: Ending, pod: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Done,
    /// The marker, or the message, is not as the plan expects.
    Refused,
    /// A later leader has been here.
    Fenced,
    /// Redis cannot be reached.
    Down,
    /// It was done, and the answer did not arrive.
    Lost,
}

/// How long a result is kept.
pub const RESULT_EXPIRES: i64 = 120_000;
/// How long a message may be in flight before Kombu puts it back.
pub const VISIBILITY_TIMEOUT: i64 = 300_000;

/// What Redis keeps.
#[derive(Debug, Clone, Default)]
pub struct Data {
    queue: VecDeque<Message>,
    unacked: BTreeMap<Tag, InFlight>,
    markers: BTreeMap<TaskId, Marker>,
    documents: BTreeMap<TaskId, (Document, i64)>,
    epoch: u64,
}

#[derive(Debug, Default)]
pub struct Broker {
    pub now: i64,
    pub down: bool,
    pub queue: VecDeque<Message>,
    pub unacked: BTreeMap<Tag, InFlight>,
    pub markers: BTreeMap<TaskId, Marker>,
    documents: BTreeMap<TaskId, (Document, i64)>,
    epoch: u64,
    /// Not in Redis: how often it was emptied, or went back to what it was.
    pub flushes: u32,
    /// Not in Redis: how often each message was published, per emptied Redis.
    pub published: BTreeMap<(Tag, u32), u32>,
    /// Not in Redis: messages that were published although another one of the same attempt was in the queue.
    pub doubled: Vec<Tag>,
    /// Not in Redis: tasks whose message Kombu put back, so that Celery alone may run them twice.
    pub put_back: BTreeSet<TaskId>,
}

/// All that one look tells about a task.
#[derive(Debug, Clone)]
pub struct Sight {
    pub marker: Option<Marker>,
    pub queued: Option<u32>,
    pub in_flight: Option<InFlight>,
    pub document: Option<Document>,
}

impl Broker {
    // === reads ===

    pub fn look(&self, task: TaskId) -> Sight {
        let marker = self.markers.get(&task).copied();
        let is_current = |id: AttemptId| id.task == task && marker.is_none_or(|m| m.generation == id.generation);
        Sight {
            marker,
            queued: self.queue.iter().find(|message| is_current(message.id)).map(|message| message.id.generation),
            in_flight: self
                .unacked
                .range((task, 0)..=(task, u32::MAX))
                .map(|(_, entry)| *entry)
                .find(|entry| is_current(entry.message.id)),
            document: self.document(task).cloned(),
        }
    }

    fn document(&self, task: TaskId) -> Option<&Document> {
        self.documents.get(&task).filter(|(_, expires_at)| *expires_at > self.now).map(|(document, _)| document)
    }

    // === the operator's scripts ===

    /// What every script begins with.
    pub fn admit(&mut self, epoch: u64) -> Reply {
        if self.down {
            return Reply::Down;
        }
        if epoch < self.epoch {
            return Reply::Fenced;
        }
        self.epoch = epoch;
        Reply::Done
    }

    pub fn enqueue(&mut self, epoch: u64, message: Message) -> Reply {
        let admitted = self.admit(epoch);
        if admitted != Reply::Done || self.markers.contains_key(&message.id.task) {
            return admitted;
        }
        if self.document(message.id.task).is_some() {
            return Reply::Refused;
        }
        self.publish(message);
        Reply::Done
    }

    pub fn requeue(&mut self, epoch: u64, in_place_of: InPlaceOf, message: Message, clear_result: bool) -> Reply {
        let admitted = self.admit(epoch);
        if admitted != Reply::Done {
            return admitted;
        }
        let task = message.id.task;
        let marked = self.markers.get(&task).map(|marker| marker.generation);
        if marked == Some(message.id.generation) {
            return Reply::Done; // an earlier call got through, and its caller did not live to record it
        }
        let in_flight = |generation| self.unacked.contains_key(&(task, generation));
        let as_expected = match in_place_of {
            InPlaceOf::Nothing => marked.is_none(),
            InPlaceOf::InFlight(generation) => {
                marked.is_none_or(|marked| marked == generation) && in_flight(generation)
            }
            InPlaceOf::Nowhere(generation) => marked == Some(generation) && !in_flight(generation),
            InPlaceOf::Ended(generation) => marked == Some(generation),
        };
        let is_over = match self.document(task) {
            Some(Document::Ended { how: Ending::Failed(_) | Ending::ChildLost(_), .. }) => !clear_result,
            Some(Document::Ended { .. }) => true,
            Some(Document::Started { .. }) | None => false,
        };
        if !as_expected || is_over {
            return Reply::Refused;
        }
        if let Some(generation) = in_place_of.generation() {
            self.unacked.remove(&(task, generation));
        }
        // A failure of an old copy that Celery itself made is taken for the queued message's; nothing tells them apart.
        let is_ended = matches!(in_place_of, InPlaceOf::Ended(_));
        if !is_ended && self.queue.iter().any(|queued| queued.id.task == task) {
            self.doubled.push(message.tag());
        }
        self.documents.remove(&task); // what an earlier generation says must not be taken for this one
        self.publish(message);
        Reply::Done
    }

    fn publish(&mut self, message: Message) {
        let AttemptId { number, task, generation } = message.id;
        self.markers.insert(
            task,
            Marker {
                job: message.job,
                number,
                generation,
                withdrawn: false,
                at: self.now,
                spec: message.spec,
                priority: message.priority,
            },
        );
        self.queue.push_back(message);
        *self.published.entry((message.tag(), self.flushes)).or_default() += 1;
    }

    pub fn withdraw(&mut self, epoch: u64, id: AttemptId) -> Reply {
        let admitted = self.admit(epoch);
        if admitted != Reply::Done {
            return admitted;
        }
        let queued = self.queue.len();
        if self.markers.get(&id.task).is_some_and(|marker| marker.generation != id.generation) {
            return Reply::Refused;
        }
        let found = self
            .queue
            .iter()
            .find(|message| message.id.task == id.task)
            .map(|message| (message.job, message.spec, message.priority));
        self.queue.retain(|message| message.id.task != id.task);
        match found {
            Some((job, spec, priority)) if self.queue.len() < queued => {
                let AttemptId { number, task, generation } = id;
                self.markers
                    .insert(task, Marker { job, number, generation, withdrawn: true, at: self.now, spec, priority });
                Reply::Done
            }
            _ => Reply::Refused,
        }
    }

    pub fn retire(&mut self, epoch: u64, in_place_of: InPlaceOf, id: AttemptId) -> Reply {
        let admitted = self.admit(epoch);
        if admitted != Reply::Done {
            return admitted;
        }
        let Some(from) = in_place_of.generation() else { return Reply::Refused };
        let in_flight = self.unacked.contains_key(&(id.task, from));
        let as_expected = match in_place_of {
            InPlaceOf::InFlight(_) => in_flight,
            InPlaceOf::Nowhere(_) => !in_flight,
            InPlaceOf::Nothing | InPlaceOf::Ended(_) => true,
        };
        match self.markers.get_mut(&id.task) {
            Some(marker) if marker.generation == from && as_expected => {
                marker.generation = id.generation;
                marker.withdrawn = true;
                self.unacked.remove(&(id.task, from));
                Reply::Done
            }
            Some(_) | None => Reply::Refused,
        }
    }

    /// The order in the queue is not simulated; what the marker remembers is.
    pub fn move_band(&mut self, epoch: u64, id: AttemptId, priority: Priority) -> Reply {
        let admitted = self.admit(epoch);
        let is_queued = self.queue.iter().any(|message| message.id == id);
        match self.markers.get_mut(&id.task) {
            Some(marker) if admitted == Reply::Done && is_queued && marker.generation == id.generation => {
                marker.priority = priority;
                Reply::Done
            }
            Some(_) | None if admitted == Reply::Done => Reply::Refused,
            Some(_) | None => admitted,
        }
    }

    pub fn forget(&mut self, epoch: u64, task: TaskId) -> Reply {
        let admitted = self.admit(epoch);
        if admitted == Reply::Done
            && let Some(marker) = self.markers.remove(&task)
        {
            self.unacked.remove(&(task, marker.generation));
        }
        admitted
    }

    /// `ZADD XX`: what is in flight with a living worker stays there.
    pub fn renew(&mut self, epoch: u64, tag: Tag) {
        if self.admit(epoch) == Reply::Done
            && let Some(entry) = self.unacked.get_mut(&tag)
        {
            entry.score = self.now;
        }
    }

    // === what workers do ===

    pub fn pop(&mut self) -> Option<Message> {
        if self.down { None } else { self.queue.pop_front() }
    }

    pub fn hold(&mut self, message: Message) {
        let now = self.now;
        self.unacked.insert(message.tag(), InFlight { message, received_at: now, score: now });
    }

    /// Removes whatever has that tag, whoever holds it: tags are shared by the copies of a message.
    pub fn ack(&mut self, tag: Tag) {
        self.unacked.remove(&tag);
    }

    /// Kombu puts a message back in front; without its entry there is nothing to put back.
    pub fn put_back(&mut self, tag: Tag, begun: bool) -> bool {
        let Some(entry) = self.unacked.remove(&tag) else { return false };
        if begun {
            self.put_back.insert(tag.0);
        }
        self.queue.push_front(entry.message);
        true
    }

    /// Stores a document; a success is never overwritten.
    pub fn store(&mut self, task: TaskId, document: Document) {
        let is_final = |document: &Document| matches!(document, Document::Ended { how: Ending::Succeeded(_), .. });
        if !self.document(task).is_some_and(is_final) {
            self.documents.insert(task, (document, self.now + RESULT_EXPIRES));
        }
    }

    /// What any draining kombu channel does every 100 seconds.
    pub fn sweep(&mut self) -> bool {
        let now = self.now;
        let old: Vec<Tag> = self
            .unacked
            .iter()
            .filter(|(_, entry)| entry.score < now - VISIBILITY_TIMEOUT)
            .map(|(tag, _)| *tag)
            .collect();
        for tag in &old {
            self.put_back(*tag, true);
        }
        !old.is_empty()
    }

    pub fn flush(&mut self) {
        self.become_as(Data::default());
    }

    /// What a replica has that is not told of anything more.
    pub fn data(&self) -> Data {
        let Self { queue, unacked, markers, documents, epoch, .. } = self;
        Data {
            queue: queue.clone(),
            unacked: unacked.clone(),
            markers: markers.clone(),
            documents: documents.clone(),
            epoch: *epoch,
        }
    }

    /// A replica takes over, or an old snapshot is loaded: what happened since is forgotten.
    pub fn become_as(&mut self, data: Data) {
        let Data { queue, unacked, markers, documents, epoch } = data;
        *self = Self { queue, unacked, markers, documents, epoch, flushes: self.flushes + 1, ..std::mem::take(self) };
    }
}
