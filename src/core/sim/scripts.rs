//! The operator's scripts on Redis: one per transition, each compare-and-set on the marker and fenced by the Lease's
//! epoch.

use uuid::Uuid;

use super::super::evidence::Evidence;
use super::super::id::{AttemptId, Priority, TaskId};
use super::super::observed::Ending;
use super::super::plan::{Effect, InPlaceOf, Publication};
use super::broker::{Broker, Document, Marker, Message, Tag, copy_tag};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Done,
    /// An earlier call got through.
    DoneBefore,
    /// The marker, or the message, is not as the plan expects.
    Refused,
    /// A later leader has been here.
    Fenced,
    /// Redis cannot be reached.
    Down,
    /// It was done, and the answer did not arrive.
    Lost,
}

/// What is published.
fn message(job: usize, it: &Publication) -> Message {
    let (retries, copy, eta) = Default::default();
    let (spec, priority) = (it.spec_hash, it.priority);
    Message { job, id: it.id, spec, priority, redelivered: false, copy, retries, is_follower: false, eta }
}

/// What the operator knows of an attempt once an effect other than a publication is done.
pub fn learn(evidence: &mut Evidence, effect: &Effect) {
    match effect {
        Effect::Move { priority, .. } => evidence.moved(*priority),
        Effect::Withdraw(id) => evidence.withdrawn(id.generation),
        Effect::Retire { .. } => evidence.unread(),
        Effect::Drop { .. } if !evidence.is_over() => evidence.unread(),
        Effect::Enqueue(_)
        | Effect::Requeue { .. }
        | Effect::Revoke(_)
        | Effect::DeletePod(_)
        | Effect::StoreResult(_)
        | Effect::ClaimKey(_)
        | Effect::AskForPermit
        | Effect::ListTwins
        | Effect::CancelTwin { .. }
        | Effect::RememberRun { .. }
        | Effect::ExtendResult { .. }
        | Effect::Drop { .. }
        | Effect::Forget(_)
        | Effect::Clear(_) => {}
    }
}

/// The number of the copy with this tag.
fn number_of(copy: Uuid) -> u32 {
    u32::try_from(copy.as_u128()).unwrap_or(0)
}

impl Broker {
    /// Runs the script of an effect; `None` for one that has none.
    pub fn run(&mut self, epoch: u64, job: usize, effect: &Effect) -> Option<Reply> {
        Some(match effect {
            Effect::Enqueue(it) => self.enqueue(epoch, message(job, it)),
            Effect::Requeue { in_place_of, message: it, clear_result } => {
                self.requeue(epoch, *in_place_of, message(job, it), *clear_result)
            }
            Effect::Withdraw(id) => self.withdraw(epoch, *id),
            Effect::Retire { in_place_of, id } => self.retire(epoch, *in_place_of, *id),
            Effect::Drop { id, copy } => self.drop_copy(epoch, *id, copy.map_or(0, number_of)),
            Effect::Move { id, priority, queue: _ } => self.move_band(epoch, *id, *priority),
            Effect::Forget(task) => self.forget(*task),
            Effect::Clear(task) => self.clear(epoch, *task),
            Effect::Revoke(_)
            | Effect::DeletePod(_)
            | Effect::StoreResult(_)
            | Effect::ClaimKey(_)
            | Effect::AskForPermit
            | Effect::ListTwins
            | Effect::CancelTwin { .. }
            | Effect::RememberRun { .. }
            | Effect::ExtendResult { .. } => return None,
        })
    }

    /// What every script begins with.
    pub fn admit(&mut self, epoch: u64) -> Reply {
        if self.down {
            return Reply::Down;
        }
        if epoch < self.data.epoch {
            return Reply::Fenced;
        }
        self.data.epoch = epoch;
        Reply::Done
    }

    pub fn enqueue(&mut self, epoch: u64, message: Message) -> Reply {
        let admitted = self.admit(epoch);
        if admitted != Reply::Done {
            return admitted;
        }
        if self.data.markers.contains_key(&message.id.task) || self.document(message.id.task).is_some() {
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
        let marked = self.data.markers.get(&task).map(|marker| marker.generation);
        if marked == Some(message.id.generation) {
            return Reply::DoneBefore; // and the operator that made it did not live to record it
        }
        let in_flight = |generation| self.data.unacked.contains_key(&(task, generation, 0));
        let copied = |copy| self.data.unacked.keys().find(|tag| tag.0 == task && tag.2 == number_of(copy)).copied();
        let as_expected = match in_place_of {
            InPlaceOf::Nothing => marked.is_none(),
            InPlaceOf::InFlight(generation) => {
                marked.is_none_or(|marked| marked == generation) && in_flight(generation)
            }
            InPlaceOf::Nowhere(generation) => marked == Some(generation) && !in_flight(generation),
            InPlaceOf::Ended(generation) => marked == Some(generation),
            InPlaceOf::Copy(generation, copy) => {
                marked.is_none_or(|marked| marked == generation) && copied(copy).is_some()
            }
        };
        let is_over = match self.document(task) {
            Some(Document::Ended { how: Ending::Failed(_) | Ending::ChildLost(_), .. }) => !clear_result,
            Some(Document::Ended { .. }) => true,
            Some(Document::Started { .. } | Document::Retry { .. }) | None => false,
        };
        if !as_expected || is_over {
            return Reply::Refused;
        }
        let message = match in_place_of {
            InPlaceOf::Copy(_, copy) => {
                let given_up = copied(copy).and_then(|tag| self.data.unacked.remove(&tag));
                Message { retries: given_up.map_or(0, |entry| entry.message.retries), ..message }
            }
            InPlaceOf::Nothing | InPlaceOf::InFlight(_) | InPlaceOf::Nowhere(_) | InPlaceOf::Ended(_) => message,
        };
        if let Some(generation) = in_place_of.generation() {
            self.data.unacked.remove(&(task, generation, 0));
        }
        self.data.documents.remove(&task); // what an earlier generation says must not be taken for this one
        self.publish(message);
        Reply::Done
    }

    fn publish(&mut self, message: Message) {
        let AttemptId { number, task, generation } = message.id;
        self.data.markers.insert(
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
        self.data.queue.push_back(message);
        let ledger = &mut self.ledger;
        ledger.publications += 1;
        *ledger.published.entry((message.tag(), ledger.lives)).or_default() += 1;
    }

    pub fn withdraw(&mut self, epoch: u64, id: AttemptId) -> Reply {
        let admitted = self.admit(epoch);
        if admitted != Reply::Done {
            return admitted;
        }
        let queued = self.data.queue.len();
        if self.data.markers.get(&id.task).is_some_and(|marker| marker.generation != id.generation) {
            return Reply::Refused;
        }
        let found = self
            .data
            .queue
            .iter()
            .find(|message| message.is_of(id.task))
            .map(|message| (message.job, message.spec, message.priority));
        self.data.queue.retain(|message| !message.is_of(id.task));
        match found {
            Some((job, spec, priority)) if self.data.queue.len() < queued => {
                let AttemptId { number, task, generation } = id;
                self.data
                    .markers
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
        let in_flight = self.data.unacked.contains_key(&(id.task, from, 0));
        let as_expected = match in_place_of {
            InPlaceOf::InFlight(_) => in_flight,
            InPlaceOf::Nowhere(_) => !in_flight,
            InPlaceOf::Nothing | InPlaceOf::Ended(_) | InPlaceOf::Copy(..) => true,
        };
        match self.data.markers.get_mut(&id.task) {
            Some(marker) if marker.generation == from && as_expected => {
                marker.generation = id.generation;
                marker.withdrawn = true;
                self.data.unacked.remove(&(id.task, from, 0));
                Reply::Done
            }
            Some(_) | None => Reply::Refused,
        }
    }

    /// Takes one copy out of what is in flight.
    pub fn drop_copy(&mut self, epoch: u64, id: AttemptId, copy: u32) -> Reply {
        let admitted = self.admit(epoch);
        let marked = self.data.markers.get(&id.task).map(|marker| marker.generation);
        if admitted == Reply::Done && marked.is_none_or(|marked| marked == id.generation) {
            self.data.unacked.retain(|(task, generation, number), _| {
                let is_it = *task == id.task && *number == copy && (copy > 0 || *generation == id.generation);
                !is_it
            });
        }
        admitted
    }

    /// The order in the queue is not simulated; what the marker remembers is.
    pub fn move_band(&mut self, epoch: u64, id: AttemptId, priority: Priority) -> Reply {
        let admitted = self.admit(epoch);
        let is_queued = self.data.queue.iter().any(|message| message.id == id && message.copy == 0);
        match self.data.markers.get_mut(&id.task) {
            Some(marker) if admitted == Reply::Done && is_queued && marker.generation == id.generation => {
                marker.priority = priority;
                Reply::Done
            }
            Some(_) | None if admitted == Reply::Done => Reply::Refused,
            Some(_) | None => admitted,
        }
    }

    /// No fence: whichever operator says so, the attempt is over.
    pub fn forget(&mut self, task: TaskId) -> Reply {
        if self.down {
            return Reply::Down;
        }
        if let Some(marker) = self.data.markers.remove(&task) {
            self.data.unacked.remove(&(task, marker.generation, 0));
        }
        Reply::Done
    }

    /// The pass through the queues that takes every copy off, and then the same.
    pub fn clear(&mut self, epoch: u64, task: TaskId) -> Reply {
        let admitted = self.admit(epoch);
        if admitted != Reply::Done {
            return admitted;
        }
        self.data.queue.retain(|message| !message.is_of(task));
        self.forget(task)
    }

    /// `ZADD XX`, without a fence: what is in flight with a living worker stays there.
    pub fn renew(&mut self, tag: &str) {
        let now = self.now;
        let is_it = |(task, generation, copy): &Tag| match copy {
            0 => task.delivery_tag(*generation) == tag,
            copy => copy_tag(*copy).to_string() == tag,
        };
        let entry = self.data.unacked.iter_mut().find(|(tag, _)| is_it(tag));
        if let Some((_, entry)) = entry.filter(|_| !self.down) {
            entry.score = now;
        }
    }
}
