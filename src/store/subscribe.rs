//! Listening to results and events, for as long as somebody reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::Stream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::Store;
use super::link::Link;
use super::listen::{Heard, listen};
use super::notice::{Notice, events};
use crate::core::job::TaskId;
use crate::wire::ResultKeys;

const ACT: &str = "listening to results and events";

/// Notices that may wait for the reader.
const WAITING: usize = 8192;
/// Bytes of documents that may wait for the reader.
const WAITING_BYTES: usize = 64 << 20;

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
            bytes: AtomicUsize::new(0),
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
                notice = receiver.recv() => notice?,
            };
            if let Notice::Result { document, .. } = &notice {
                feed.bytes.fetch_sub(document.len(), Ordering::Relaxed);
            }
            Some((notice, (receiver, feed, listeners)))
        })
    }
}

/// From the sockets to the reader.
struct Feed {
    sender: mpsc::Sender<Notice>,
    lagged: Notify,
    bytes: AtomicUsize,
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
                self.offer(Notice::Result { task, document: payload });
            }
        } else if channel != self.sent {
            for notice in events(&payload) {
                self.offer(notice);
            }
        }
    }

    fn offer(&self, notice: Notice) {
        let size = if let Notice::Result { document, .. } = &notice { document.len() } else { 0 };
        let before = self.bytes.fetch_add(size, Ordering::Relaxed);
        let fits = before == 0 || before.saturating_add(size) <= WAITING_BYTES;
        if !fits || self.sender.try_send(notice).is_err() {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            self.lagged.notify_one();
        }
    }
}
