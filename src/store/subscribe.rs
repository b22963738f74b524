//! Listening to results and events, for as long as somebody reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::Stream;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::notice::{Notice, events};
use super::{Error, Store};
use crate::core::job::TaskId;
use crate::wire::ResultKeys;

const ACT: &str = "listening to results and events";

/// Notices that may wait for the reader.
const WAITING: usize = 8192;
/// Bytes of documents that may wait for the reader.
const WAITING_BYTES: usize = 64 << 20;
/// How often a silent connection is tried.
const KEEPALIVE: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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
        if self.0.same_database {
            listeners.spawn(listen(self.clone(), feed.clone(), false, vec![results, events]));
        } else {
            listeners.spawn(listen(self.clone(), feed.clone(), false, vec![events]));
            listeners.spawn(listen(self.clone(), feed.clone(), true, vec![results]));
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

/// Listens to these patterns for good.
async fn listen(store: Store, feed: Arc<Feed>, results: bool, patterns: Vec<String>) {
    let mut pause = SHORTEST_PAUSE;
    let mut told = false;
    loop {
        let link = if results { &store.0.results } else { &store.0.broker };
        let lost = Arc::new(Notify::new());
        let (hear, gone) = (feed.clone(), lost.clone());
        let push = move |push: PushInfo| {
            hear.take(push, &gone);
            Ok::<(), std::convert::Infallible>(())
        };
        let reason = match link.listener(ACT, push, &patterns).await {
            Ok(mut connection) => {
                (pause, told) = (SHORTEST_PAUSE, false);
                feed.offer(Notice::Connected);
                loop {
                    if timeout(KEEPALIVE, lost.notified()).await.is_ok() {
                        break "the connection was closed".to_owned();
                    }
                    if let Err(error) = redis::cmd("PING").exec_async(&mut connection).await {
                        break Error::of(ACT, &error).to_string();
                    }
                }
            }
            Err(error) => error.to_string(),
        };
        if !told {
            feed.offer(Notice::Disconnected(reason));
            told = true;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
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
    /// Called by the connection for whatever the server pushes; it must not block.
    fn take(&self, push: PushInfo, lost: &Notify) {
        let PushInfo { kind, data } = push;
        if kind == PushKind::Disconnection {
            lost.notify_one();
        }
        let (PushKind::PMessage, Ok([_, Value::BulkString(channel), Value::BulkString(payload)])) =
            (kind, <[Value; 3]>::try_from(data))
        else {
            return;
        };
        let Ok(channel) = String::from_utf8(channel) else { return };
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
