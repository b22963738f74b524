//! Listening to results and events, for as long as the receiver is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::Stream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::Store;
use super::link::Link;
use super::listen::{Heard, listen};
use super::notice::{Notice, events};
use crate::core::id::TaskId;
use crate::wire::ResultKeys;

const ACT: &str = "listening to results and events";

/// Notices that may wait for one reader.
const WAITING: usize = 8192;
/// Bytes of notices that may always wait for one reader.
const OWN: usize = 64 << 10;
/// Bytes of notices that may wait for one reader, as long as the readers of all pools have no more than [`SHARED`].
const MOST: usize = 2 << 20;
/// Bytes of notices that may wait for all readers together, besides what each may always have.
const SHARED: usize = 8 << 20;

/// Bytes of [`SHARED`] that are taken.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Store {
    /// Listens to results and events of our tasks until the stream is dropped, over all losses of the connection.
    ///
    /// [`Notice::Connected`] comes first, and again whenever something may have been missed. A slow reader costs
    /// notices, not memory, and is told so by [`Notice::Lagged`].
    pub fn subscribe(&self) -> impl Stream<Item = Notice> + Send + use<> {
        let names = &self.0.names;
        let (sender, receiver) = mpsc::channel(WAITING);
        let feed = Arc::new(Feed {
            sender,
            lagged: Notify::new(),
            bytes: Arc::default(),
            results: names.results.clone(),
            sent: names.broker.event_channel("task-sent"),
        });
        let (results, events) = (names.results.result_pattern(), names.broker.event_pattern());
        let mut listeners = JoinSet::new();
        let mut spawn = |link: &Link, patterns| {
            let feed = feed.clone();
            listeners.spawn(listen(ACT, link.clone(), patterns, move |heard| feed.take(heard)));
        };
        if self.0.same_database {
            spawn(&self.0.broker, vec![results, events]);
        } else {
            spawn(&self.0.broker, vec![events]);
            spawn(&self.0.results, vec![results]);
        }
        futures::stream::unfold((receiver, feed, listeners), async |(mut receiver, feed, listeners)| {
            let notice = tokio::select! {
                biased;
                () = feed.lagged.notified() => Notice::Lagged,
                waiting = receiver.recv() => waiting?.notice,
            };
            Some((notice, (receiver, feed, listeners)))
        })
    }
}

/// From the sockets to the reader.
struct Feed {
    sender: mpsc::Sender<Waiting>,
    lagged: Notify,
    bytes: Arc<AtomicUsize>,
    results: ResultKeys,
    sent: String,
}

impl Feed {
    /// Called by the connection; it must not block.
    fn take(&self, heard: Heard) {
        let (channel, payload) = match heard {
            Heard::Connected => return self.offer(Notice::Connected),
            Heard::Disconnected(reason) => return self.offer(Notice::Disconnected(reason)),
            Heard::Message { channel, payload } => (channel, payload),
        };
        if let Some(id) = self.results.task_id(&channel) {
            // Foreign results are dropped by their id, whatever is in them.
            if let Some(task) = TaskId::parse(id) {
                let document = payload.filter(|payload| payload.len() <= Notice::DOCUMENT);
                self.offer(Notice::Result { task, document });
            }
        } else if let Some(payload) = payload.filter(|_| channel != self.sent) {
            for notice in events(&payload) {
                self.offer(notice);
            }
        }
    }

    fn offer(&self, notice: Notice) {
        let waits = Room::take(&self.bytes, notice.size()).map(|room| Waiting { notice, _room: room });
        if waits.is_none_or(|waiting| self.sender.try_send(waiting).is_err()) {
            self.lagged.notify_one();
        }
    }
}

/// A notice that waits for the reader.
struct Waiting {
    notice: Notice,
    _room: Room,
}

/// Room for one notice, until it is dropped.
struct Room {
    own: Arc<AtomicUsize>,
    size: usize,
    is_shared: bool,
}

impl Room {
    fn take(own: &Arc<AtomicUsize>, size: usize) -> Option<Self> {
        let before = own.fetch_add(size, Ordering::Relaxed);
        let is_shared = before.saturating_add(size) > OWN;
        let room = Self { own: own.clone(), size, is_shared };
        let shared = if is_shared { TAKEN.fetch_add(size, Ordering::Relaxed) } else { 0 };
        let fits = !is_shared || before.saturating_add(size) <= MOST && shared.saturating_add(size) <= SHARED;
        // What does not fit gives its room back here.
        fits.then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.own.fetch_sub(self.size, Ordering::Relaxed);
        if self.is_shared {
            TAKEN.fetch_sub(self.size, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_whose_notices_are_not_read_leaves_room_for_those_of_other_pools() {
        let flooded: Vec<_> = (0..20).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let take = |own: &Arc<AtomicUsize>| std::iter::from_fn(|| Room::take(own, 8 << 10)).collect::<Vec<_>>();
        let mut waiting: Vec<_> = flooded.iter().map(take).collect();
        let bytes = |waiting: &[Vec<Room>]| waiting.iter().flatten().map(|room| room.size).sum::<usize>();
        assert!(bytes(&waiting) <= SHARED + 20 * OWN, "{}", bytes(&waiting));
        assert_eq!(waiting[0].len() * (8 << 10), MOST);
        let quiet = Arc::new(AtomicUsize::new(0));
        waiting.push(take(&quiet));
        assert_eq!(waiting[20].len() * (8 << 10), OWN);
        drop(waiting);
        assert_eq!((quiet.load(Ordering::Relaxed), TAKEN.load(Ordering::Relaxed)), (0, 0));
    }
}
