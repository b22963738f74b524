//! Messages that wait for their ETA.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::entry::{Entries, Entry, Listed, Stage};
use crate::wire::{Embed, Envelope, Message};

/// Bytes of a description of arguments that are kept.
const SHOWN: usize = 64;
/// Messages that are put back at once.
const AT_ONCE: usize = 100;

/// A place for a message that waits.
pub type Place = OwnedSemaphorePermit;

/// The messages that wait, by the time when they may run.
#[derive(Debug)]
pub struct Schedule {
    places: Arc<Semaphore>,
    waiting: Mutex<BTreeMap<(Timestamp, u64), (Listed, Place)>>,
    serial: AtomicU64,
    /// Told when one more waits, or may wait no longer.
    pub changed: Notify,
}

impl Schedule {
    /// Room for so many.
    pub fn new(limit: u32) -> Self {
        let places = Arc::new(Semaphore::new(limit as usize));
        Self { places, waiting: Mutex::default(), serial: AtomicU64::new(0), changed: Notify::new() }
    }

    /// A place, as soon as one is free.
    pub async fn place(&self) -> Option<Place> {
        self.places.clone().acquire_owned().await.ok()
    }

    /// Lets a message wait until then, holding only what is said of it meanwhile.
    pub fn add(&self, entries: &Arc<Entries>, entry: &Entry, at: Timestamp, place: Place) {
        let (envelope, message) = said_of(entry);
        let listed = entries.add(entry.tag.clone(), entry.list.clone(), (String::new(), false), envelope, message);
        listed.entry.enter(Stage::Scheduled(at));
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        // It may have been told to stop on its way here. From now on both entries are told.
        let at = if entry.is_stopped() { Timestamp::MIN } else { at };
        if entry.is_stopped() {
            listed.entry.stop(0);
        }
        self.waiting.lock().insert((at, serial), (listed, place));
        self.changed.notify_one();
    }

    /// Lets those that are to be stopped wait no longer.
    pub fn hurry_stopped(&self) {
        let mut waiting = self.waiting.lock();
        let stopped: Vec<_> = waiting.extract_if(.., |_, (listed, _)| listed.entry.is_stopped()).collect();
        waiting.extend(stopped.into_iter().map(|((_, serial), message)| ((Timestamp::MIN, serial), message)));
        drop(waiting);
        self.changed.notify_one();
    }

    /// Takes out those that may run, and says when the next one may.
    pub fn due(&self, now: Timestamp) -> (Vec<(Listed, Place)>, Option<Timestamp>) {
        let mut waiting = self.waiting.lock();
        let next_due = || waiting.first_entry().filter(|first| first.key().0 <= now).map(OccupiedEntry::remove);
        let due = std::iter::from_fn(next_due).take(AT_ONCE).collect();
        (due, waiting.keys().next().map(|(at, _)| *at))
    }
}

/// What remote control says of a message that waits: without its body, which stays on Redis, and with its arguments cut
/// short. A worker that holds many needs little memory for each.
fn said_of(entry: &Entry) -> (Envelope, Message) {
    let mut headers = entry.message.headers.clone();
    for text in [&mut headers.argsrepr, &mut headers.kwargsrepr] {
        *text = text.as_deref().map(|text| text[..text.floor_char_boundary(SHOWN)].to_owned());
    }
    let args = headers.argsrepr.iter().map(|text| text.as_str().into()).collect();
    // A part of a chord is counted also when it is stopped.
    let embed = Embed { chord: entry.message.embed.chord.clone(), ..Embed::default() };
    let message = Message { headers, args, embed, ..Message::default() };
    (Envelope { properties: entry.envelope.properties.clone(), ..Envelope::default() }, message)
}
