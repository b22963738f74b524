//! What a worker does on a real Redis server.

mod arrivals;
mod chaining;
mod compressed;
mod flight;
mod job_states;
mod keeping;
mod mailbox;
mod owners;
mod repeating;
mod settling;
mod taking;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crewjob::store::channel::Delivery;
use crewjob::store::{Access, Channel, Queue, Secret};
use crewjob::wire::{Call, Unacked};

use crate::support::redis::RedisServer;

const LEASE: Duration = Duration::from_secs(6);

async fn channel(server: &RedisServer) -> Channel {
    Channel::connect(&Access::new(Secret::new(server.url(0)))).await.expect("a connection")
}

fn queues() -> [Queue; 2] {
    [Queue::new("crew_jobs", "crew.jobs"), Queue::new("default", "default")]
}

/// Puts a message on a queue as a producer does. Its tag is its id with a `t` before it.
fn send(server: &RedisServer, queue: &str, id: &str, priority: i64) {
    let mut call = Call::new("a.task", id, queue);
    (call.priority, call.delivery_tag) = (priority, format!("t{id}"));
    let list = match priority {
        0..=2 => queue.to_owned(),
        _ => format!("{queue}\u{6}\u{16}{}", priority / 3 * 3),
    };
    server.run::<()>(&["LPUSH", &list, std::str::from_utf8(&call.envelope().encode()).unwrap()]);
}

async fn reserve(channel: &Channel) -> Option<(String, usize)> {
    let (delivery, _) = take(channel, &["crew_jobs", "default"]).await;
    delivery.map(|delivery| (delivery.tag, delivery.queue))
}

/// Takes a message as a worker that has never asked before.
async fn take(channel: &Channel, queues: &[&str]) -> (Option<Delivery>, u64) {
    static ASKERS: AtomicUsize = AtomicUsize::new(0);
    let asker = ASKERS.fetch_add(1, Ordering::Relaxed).to_string();
    channel.reserve(queues, &asker, "").await.unwrap()
}

fn in_flight(server: &RedisServer, tag: &str) -> Option<Unacked> {
    let value: Option<Vec<u8>> = server.run(&["HGET", "unacked", tag]);
    let scored: Option<f64> = server.run(&["ZSCORE", "unacked_index", tag]);
    assert_eq!(value.is_some(), scored.is_some(), "both or neither");
    value.map(|value| Unacked::decode(&value).unwrap())
}
