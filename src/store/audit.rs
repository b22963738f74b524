//! Where every message is.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use redis::{FromRedisValue, Value};

use super::bounded::passed_over;
use super::notice::moment;
use super::{Error, Queue, Store};
use crate::core::claims;
use crate::core::id::TaskId;
use crate::wire::envelope::{Peek, peek};

const ACT: &str = "auditing the queues";

/// Bytes that one answer should have: a connection keeps a buffer as large as its largest answer, and each pool has one.
const ANSWER: usize = 64 << 10;
/// Elements of a list in its first answer, when nothing is known of their sizes.
const FIRST: usize = 16;

/// Ids of tasks that are listed that follow from one task.
const FOLLOWERS: usize = 32;

/// Unreadable elements that are listed; more are only counted.
const LISTED: usize = 100;

/// Where every message of a pool's Redis is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audit {
    /// Places of our tasks. There is more than one where kombu has restored a message that still runs.
    pub places: HashMap<TaskId, Vec<Place>>,
    /// Tasks from which messages of other tasks follow, directly or not, and the ids of some of these.
    pub followers: HashMap<TaskId, Vec<Arc<str>>>,
    /// Elements that are no messages; a stock worker that takes one dies of it. The first 100.
    pub poison: Vec<Poison>,
    /// All elements that are no messages.
    pub poisoned: u64,
}

/// Where a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It waits in a queue.
    Queued {
        /// Its delivery tag.
        tag: Arc<str>,
        /// Name of the queue.
        queue: Arc<str>,
        /// Lowest Celery priority of the band.
        band: u8,
        /// A worker had it before.
        redelivered: bool,
    },
    /// A worker has it.
    InFlight {
        /// Its delivery tag.
        tag: Arc<str>,
        /// When it was taken or last renewed, by the clock of the worker that did it.
        received_at: Option<Timestamp>,
        /// When it may run, if it has to wait for a time.
        eta: Option<Timestamp>,
    },
}

/// An element that is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    /// The list.
    pub key: String,
    /// Position in the list when it was seen, counted from the head.
    pub position: usize,
    /// Its size in bytes.
    pub size: usize,
}

impl Store {
    /// Finds out where every message is. Reads in stretches; Redis is never held up.
    ///
    /// A message that moves meanwhile is still seen, because what is in flight is read before and after the queues:
    /// one that a worker takes was in a queue or is in flight at the second reading, one that is put back was in flight
    /// at the first reading or is in a queue. What only the first reading saw may have been acknowledged since.
    /// One audit proves no loss: a message that is taken and put back while it runs can be missed, and so can one in
    /// the hands of a stock worker, which for a moment holds what it takes in neither place.
    pub async fn audit(&self, queues: &[Queue]) -> Result<Audit, Error> {
        let mut audit = Audit::default();
        let before = self.in_flight(&mut audit).await?;
        for queue in queues {
            for step in self.0.names.broker.bands.steps() {
                self.read_list(&mut audit, queue, *step).await?;
            }
        }
        for (task, place) in self.in_flight(&mut audit).await? {
            audit.places.entry(task).or_default().push(place);
        }
        for (task, place) in before {
            audit.places.entry(task).or_insert_with(|| vec![place]);
        }
        Ok(audit)
    }

    /// Reads one list from its head: pushes there shift elements towards what is still to be read, and pops take from
    /// the other end, so none is skipped.
    async fn read_list(&self, audit: &mut Audit, queue: &Queue, band: u8) -> Result<(), Error> {
        let list = self.0.names.broker.queue(&queue.name, Some(band.into()));
        let (mut position, mut count) = (0, FIRST);
        loop {
            let mut command = redis::cmd("LRANGE");
            command.arg(&list).arg(position).arg(position + count - 1);
            let Value::Array(elements) = self.0.scans.ask(ACT, &command).await? else {
                return Err(Error::unexpected(ACT, format!("{list} is no list that may be read")));
            };
            if count > 1 && elements.iter().any(|element| passed_over(element).is_some()) {
                count = 1;
                continue;
            }
            let mut bytes = 1;
            for (offset, element) in elements.iter().enumerate() {
                let at = position + offset;
                if let Value::BulkString(element) = element {
                    bytes += element.len();
                    audit.element(element, queue, band, || Poison {
                        key: list.clone(),
                        position: at,
                        size: element.len(),
                    });
                    continue;
                }
                let size = passed_over(element).ok_or_else(|| Error::unexpected(ACT, "an element of no kind"))?;
                bytes += ANSWER;
                if self.is_large_message(&list, at).await? == Some(false) {
                    let size = usize::try_from(size).unwrap_or(usize::MAX);
                    audit.note(vec![Poison { key: list.clone(), position: at, size }], 1);
                }
            }
            if elements.len() < count {
                return Ok(());
            }
            position += count;
            count = (count * ANSWER / bytes).clamp(1, 2000);
        }
    }

    /// Reads our messages with workers.
    async fn in_flight(&self, audit: &mut Audit) -> Result<Vec<(TaskId, Place)>, Error> {
        let keys = &self.0.names.broker;
        let mut in_flight = Vec::new();
        let (mut cursor, mut count) = (0_u64, 200);
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(keys.unacked()).arg(cursor).arg("COUNT").arg(count);
            let (next, page) = scanned(self.0.scans.ask(ACT, &command).await?)
                .ok_or_else(|| Error::unexpected(ACT, "the messages in flight are no hash that may be read"))?;
            if count > 1 && page.iter().any(|part| passed_over(part).is_some()) {
                count = 1;
                continue;
            }
            let (page, bytes) = entries(page);
            count = (count * ANSWER / bytes).clamp(1, 1000);
            let mut ours = Vec::new();
            for (tag, value) in page {
                // What is no message here was never taken from a queue: it is harmless.
                let Some(seen) = peek(&value) else { continue };
                audit.follows(&seen);
                if let Some(task) = seen.task_id.as_deref().and_then(TaskId::parse) {
                    ours.push((task, tag, seen.eta.as_deref().and_then(crate::wire::time::parse)));
                }
            }
            if !ours.is_empty() {
                let mut scores = redis::cmd("ZMSCORE");
                scores.arg(keys.unacked_index());
                for (_, tag, _) in &ours {
                    scores.arg(tag);
                }
                let scores: Vec<Option<f64>> = self.0.scans.query(ACT, &scores).await?;
                for ((task, tag, eta), score) in ours.into_iter().zip(scores) {
                    let received_at = score.and_then(moment);
                    in_flight.push((task, Place::InFlight { tag: tag.into(), received_at, eta }));
                }
            }
            if next == 0 {
                return Ok(in_flight);
            }
            cursor = next;
        }
    }
}

impl Audit {
    fn element(&mut self, element: &[u8], queue: &Queue, band: u8, poison: impl FnOnce() -> Poison) {
        let Some(seen) = message(element) else { return self.note(vec![poison()], 1) };
        self.follows(&seen);
        let Some(task) = seen.task_id.as_deref().and_then(TaskId::parse) else { return };
        let place = Place::Queued {
            tag: seen.delivery_tag.as_deref().unwrap_or("").into(),
            queue: queue.name.clone(),
            band,
            redelivered: seen.redelivered,
        };
        let places = self.places.entry(task).or_default();
        // A push during the reading shows an element twice.
        if !places.contains(&place) {
            places.push(place);
        }
    }

    /// Notes from which task of ours this message follows. One with an id like ours is another attempt of the same job.
    fn follows(&mut self, seen: &Peek<'_>) {
        let Some(root) = seen.root_id.as_deref().and_then(TaskId::parse) else { return };
        let Some(id) = seen.task_id.as_deref().filter(|id| TaskId::parse(id).is_none()) else { return };
        let followers = self.followers.entry(root).or_default();
        if followers.len() < FOLLOWERS
            && let Some(id) = claims::task_id(id).filter(|id| !followers.contains(id))
        {
            followers.push(id);
        }
    }

    fn note(&mut self, poison: Vec<Poison>, all: u64) {
        let room = LISTED.saturating_sub(self.poison.len());
        self.poison.extend(poison.into_iter().take(room));
        self.poisoned += all;
    }
}

/// The tags and messages of a page, and its size. One that is too large to be read is none of ours.
fn entries(page: Vec<Value>) -> (Vec<(String, Vec<u8>)>, usize) {
    let (mut read, mut bytes) = (Vec::with_capacity(page.len() / 2), 1);
    let mut parts = page.into_iter();
    while let (Some(tag), Some(message)) = (parts.next(), parts.next()) {
        if let (Value::BulkString(tag), Value::BulkString(message)) = (tag, message) {
            bytes += tag.len() + message.len();
            read.push((String::from_utf8_lossy(&tag).into_owned(), message));
        } else {
            bytes += ANSWER;
        }
    }
    (read, bytes)
}

/// The next cursor and the page of an answer to `HSCAN`.
fn scanned(answer: Value) -> Option<(u64, Vec<Value>)> {
    let Value::Array(answer) = answer else { return None };
    let [next, page] = <[Value; 2]>::try_from(answer).ok()?;
    Some((u64::from_redis_value(next).ok()?, Vec::<Value>::from_redis_value(page).ok()?))
}

/// What kombu can take from a queue: without a delivery tag it cannot.
fn message(element: &[u8]) -> Option<Peek<'_>> {
    peek(element).filter(|seen| seen.delivery_tag.is_some())
}

/// Whether a worker that takes this from a queue survives it.
pub(super) fn is_message(element: &[u8]) -> bool {
    message(element).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_tasks_that_follow_from_one_a_few_ids_of_bounded_length_are_kept() {
        let root = TaskId::derive(uuid::Uuid::nil(), 1);
        let message = |id: &str| format!(r#"{{"headers": {{"id": "{id}", "root_id": "{root}"}}}}"#);
        let mut audit = Audit::default();
        audit.follows(&peek(message(&"x".repeat(1 << 20)).as_bytes()).unwrap());
        assert_eq!(audit.followers[&root].len(), 0, "that it goes on is known, by what is not");
        for number in 0..2 * FOLLOWERS {
            audit.follows(&peek(message(&format!("step-{number}")).as_bytes()).unwrap());
        }
        assert_eq!(audit.followers[&root].len(), FOLLOWERS);
        audit.follows(&peek(message(&root.to_string()).as_bytes()).unwrap());
        assert_eq!(audit.followers.len(), 1);
    }
}
