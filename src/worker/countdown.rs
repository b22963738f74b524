//! The end of countdowns: messages whose ETA has come go back to the front of their queue. So any worker with a free slot
//! runs them, and none waits behind the tasks of this one.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::context::Worker;
use super::entry::Entry;
use crate::runtime::clock;
use crate::store::channel::End;

/// Puts messages back when their time has come, all of them when the worker is told to stop. Those that are to be stopped
/// are handed to `stop`. Ends when `handled` says that no further one can come: a message that was taken just before the
/// worker was told to stop comes after that.
pub async fn keep(worker: Arc<Worker>, handled: CancellationToken, stop: impl AsyncFn(&Worker, &Entry)) {
    loop {
        let now = clock::now();
        let is_last_look = handled.is_cancelled();
        let is_told_to_stop = worker.warm_shutdown.is_cancelled();
        let (due, next) = worker.schedule.due(if is_told_to_stop { Timestamp::MAX } else { now });
        if !due.is_empty() {
            let all = due.iter().map(|(listed, _)| &*listed.entry);
            let (stopped, entries): (Vec<&Entry>, Vec<&Entry>) = all.partition(|entry| entry.is_stopped());
            for entry in stopped {
                stop(&worker, entry).await;
            }
            let queues = worker.queues.borrow().clone();
            let messages: Vec<_> = entries.iter().map(|entry| entry.unbegun()).collect();
            worker.retry_until_done(|| worker.channel.release(&messages, End::Front, &queues)).await;
            continue;
        }
        if is_last_look {
            return;
        }
        let time = async {
            match next {
                Some(at) => sleep(clock::until(at, now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time => {}
            () = worker.schedule.changed.notified() => {}
            () = worker.warm_shutdown.cancelled(), if !is_told_to_stop => {}
            () = handled.cancelled() => {}
        }
    }
}
