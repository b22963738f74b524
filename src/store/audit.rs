//! Where every message is.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::notice::moment;
use super::{Error, Queue, Store};
use crate::core::job::TaskId;
use crate::wire::envelope::{Peek, peek};

const ACT: &str = "auditing the queues";

/// Bytes that one answer should have.
const ANSWER: usize = 1 << 20;

/// Unreadable elements that are listed; more are only counted.
const LISTED: usize = 100;

/// Where every message of a pool's Redis is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audit {
    /// Places of our tasks. There is more than one where kombu has restored a message that still runs.
    pub places: HashMap<TaskId, Vec<Place>>,
    /// Messages of others.
    pub foreign: u64,
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
        /// When it was taken or last renewed, by the clock of who did it.
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
        let before = self.in_flight().await?;
        for queue in queues {
            for step in self.0.names.broker.bands.steps() {
                self.read_list(&mut audit, queue, *step).await?;
            }
        }
        let after = self.in_flight().await?;
        audit.foreign += after.foreign;
        for (task, place) in after.ours {
            audit.places.entry(task).or_default().push(place);
        }
        for (task, place) in before.ours {
            audit.places.entry(task).or_insert_with(|| vec![place]);
        }
        Ok(audit)
    }

    /// Reads one list from its head: pushes there shift elements towards what is still to be read, and pops take from
    /// the other end, so none is skipped.
    async fn read_list(&self, audit: &mut Audit, queue: &Queue, band: u8) -> Result<(), Error> {
        let list = self.0.names.broker.queue(&queue.name, Some(band.into()));
        let (mut position, mut count) = (0, 100);
        loop {
            let mut command = redis::cmd("LRANGE");
            command.arg(&list).arg(position).arg(position + count - 1);
            let elements: Vec<Vec<u8>> = self.0.scans.query(ACT, &command).await?;
            for (offset, element) in elements.iter().enumerate() {
                let Some(seen) = message(element) else {
                    let poison = Poison { key: list.clone(), position: position + offset, size: element.len() };
                    audit.note(vec![poison], 1);
                    continue;
                };
                let Some(task) = seen.task_id.as_deref().and_then(TaskId::parse) else {
                    audit.foreign += 1;
                    continue;
                };
                let place = Place::Queued {
                    tag: seen.delivery_tag.as_deref().unwrap_or("").into(),
                    queue: queue.name.clone(),
                    band,
                    redelivered: seen.redelivered,
                };
                let places = audit.places.entry(task).or_default();
                // A push during the reading shows an element twice.
                if !places.contains(&place) {
                    places.push(place);
                }
            }
            if elements.len() < count {
                return Ok(());
            }
            position += count;
            let bytes = elements.iter().map(Vec::len).sum::<usize>().max(1);
            count = (count * ANSWER / bytes).clamp(1, 2000);
        }
    }

    /// Reads the messages with workers.
    async fn in_flight(&self) -> Result<InFlight, Error> {
        let keys = &self.0.names.broker;
        let mut in_flight = InFlight::default();
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(keys.unacked()).arg(cursor).arg("COUNT").arg(200);
            let (next, page): (u64, Vec<(String, Vec<u8>)>) = self.0.scans.query(ACT, &command).await?;
            let mut ours = Vec::new();
            for (tag, value) in page {
                // What is no message here was never taken from a queue: it hurts nobody.
                let Some(seen) = peek(&value) else { continue };
                match seen.task_id.as_deref().and_then(TaskId::parse) {
                    Some(task) => ours.push((task, tag, seen.eta.as_deref().and_then(crate::wire::time::parse))),
                    None => in_flight.foreign += 1,
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
                    in_flight.ours.push((task, Place::InFlight { tag: tag.into(), received_at, eta }));
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
    fn note(&mut self, poison: Vec<Poison>, all: u64) {
        let room = LISTED.saturating_sub(self.poison.len());
        self.poison.extend(poison.into_iter().take(room));
        self.poisoned += all;
    }
}

#[derive(Default)]
struct InFlight {
    ours: Vec<(TaskId, Place)>,
    foreign: u64,
}

/// What kombu can take from a queue: without a delivery tag it cannot.
fn message(element: &[u8]) -> Option<Peek<'_>> {
    peek(element).filter(|seen| seen.delivery_tag.is_some())
}

/// Whether a worker that takes this from a queue survives it.
pub(super) fn is_message(element: &[u8]) -> bool {
    message(element).is_some()
}
