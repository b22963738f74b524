//! Events: what the worker says while it works, in order, and never in the way of the work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::runtime::clock;
use crate::store::Channel;
use crate::wire::event::Detail;
use crate::wire::{Event, Number};

/// Events that may wait while Redis is slow or away; more are dropped.
const WAITING: usize = 10_000;
/// Latest logical time that is believed: no fleet announces so much, and all readers of JSON can hold it.
const LATEST: i64 = 1 << 53;
/// Events published at once.
const AT_ONCE: usize = 200;
/// How long events are gathered before they are published together. One by one they would hold up each step of short tasks
/// on Redis.
const GATHERED: Duration = Duration::from_millis(5);

/// Where events are handed in.
pub struct Announcer {
    node: Arc<str>,
    clock: AtomicI64,
    tasks: AtomicBool,
    queue: Mutex<Option<mpsc::Sender<(Event, String)>>>,
}

impl Announcer {
    /// Publishes on this channel what is handed in. The handle ends once the announcer is closed and all is out.
    pub fn start(channel: Channel, node: &str, task_events: bool) -> (Self, JoinHandle<()>) {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let publishing = tokio::spawn(async move {
            let mut events = Vec::with_capacity(AT_ONCE);
            let mut reachable = true;
            while receiver.recv_many(&mut events, AT_ONCE).await > 0 {
                if events.len() < AT_ONCE && !receiver.is_closed() {
                    sleep(GATHERED).await;
                    let further = AT_ONCE - events.len();
                    events.extend(std::iter::from_fn(|| receiver.try_recv().ok()).take(further));
                }
                let published = channel.announce(&events).await;
                if let Err(error) = &published
                    && reachable
                {
                    tracing::warn!(%error, "sending events failed; these events are lost");
                }
                reachable = published.is_ok();
                events.clear();
            }
        });
        let queue = Mutex::new(Some(sender));
        (Self { node: node.into(), clock: AtomicI64::new(0), tasks: AtomicBool::new(task_events), queue }, publishing)
    }

    /// Announces something about a task, if events are wanted.
    pub fn task(&self, detail: Detail) {
        if self.tasks.load(Ordering::Relaxed) {
            self.say(detail);
        }
    }

    /// Announces something.
    pub fn say(&self, detail: Detail) {
        let now = clock::now();
        let event = Event {
            detail,
            hostname: Some(self.node.to_string()),
            clock: Some(self.tick()),
            timestamp: Some(Number::from(epoch_seconds(now))),
            pid: Some(std::process::id().into()),
            utcoffset: Some(Number::from(0.0)),
            other: crate::wire::Object::new(),
        };
        let queue = self.queue.lock();
        if let Some(queue) = &*queue {
            // Full only while Redis is away, which is logged where it is seen.
            let _ = queue.try_send((event, clock::random_id().to_string()));
        }
    }

    /// The next time of the Lamport clock, which orders the events of all workers.
    pub fn tick(&self) -> i64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes over the logical clock of a worker that is ahead.
    pub fn adjust(&self, other: i64) {
        if other <= LATEST {
            self.clock.fetch_max(other, Ordering::Relaxed);
        }
    }

    /// Turns events about tasks on or off; says whether that changed anything.
    pub fn enable_tasks(&self, on: bool) -> bool {
        self.tasks.swap(on, Ordering::Relaxed) != on
    }

    /// Whether tasks are announced.
    pub fn announces_tasks(&self) -> bool {
        self.tasks.load(Ordering::Relaxed)
    }

    /// Takes no more events.
    pub fn close(&self) {
        self.queue.lock().take();
    }
}

/// Seconds since the epoch, as Python's `time.time()` gives them.
pub fn epoch_seconds(time: jiff::Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logical_time_that_no_worker_can_have_reached_is_not_taken_over() {
        let (clock, tasks) = (AtomicI64::new(7), AtomicBool::new(true));
        let announcer = Announcer { node: "w@h".into(), clock, tasks, queue: Mutex::new(None) };
        for (other, next) in [(i64::MAX, 8), (-1, 9), (100, 101), (1 << 53, (1 << 53) + 1)] {
            announcer.adjust(other);
            assert_eq!(announcer.tick(), next);
        }
    }
}
