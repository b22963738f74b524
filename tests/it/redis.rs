//! The store against real Redis servers.

mod auditing;
mod carrying;
mod compressed;
mod connecting;
mod controlling;
mod copying;
mod fence;
mod kombu;
mod listening;
mod locating;
mod rating;
mod reading;
mod sentinels;
mod transitions;
mod withdrawing;

use std::collections::HashMap;
use std::sync::Arc;

use crewjob::core::id::{AttemptId, Priority, SpecHash, TaskId};
use crewjob::store::{Access, Epoch, MarkerId, Message, Queue, Secret, Settings, Store, Wanted};
use crewjob::wire::{Call, Object, Value};
use uuid::Uuid;

use crate::support::redis::RedisServer;

/// The default priority's band.
const HIGH: &str = "crew_jobs\u{6}\u{16}3";
/// The band of priority 0.
const LOWEST: &str = "crew_jobs\u{6}\u{16}9";

const FIRST: Epoch = term(1);

/// A term of the Lease that the tests assume.
const fn term(transitions: u32) -> Epoch {
    Epoch { created: 1_764_150_000, transitions }
}

fn settings(server: &RedisServer) -> Settings {
    Settings::new(Secret::new(server.url(0)), "cluster", "crewjob/crewjob-operator")
}

/// The same settings with another way in.
fn changed(mut settings: Settings, change: impl FnOnce(&mut Access)) -> Settings {
    change(&mut settings.access);
    settings
}

async fn store(server: &RedisServer) -> Store {
    Store::connect(&settings(server)).await.expect("a connection")
}

fn queues() -> [Queue; 2] {
    [Queue::new("crew_jobs", "crew.jobs"), Queue::new("default", "default")]
}

fn uid(job: u128) -> Uuid {
    Uuid::from_u128(job)
}

/// The first attempt of a job, in its first generation.
fn attempt(job: u128) -> AttemptId {
    AttemptId { number: 1, task: TaskId::derive(uid(job), 1), generation: 0 }
}

/// The message of the first attempt of a job with the default priority.
fn message(job: u128) -> Message {
    message_of(attempt(job), job, 5, "")
}

fn message_of(id: AttemptId, job: u128, priority: i32, padding: &str) -> Message {
    let priority = Priority::clamped(priority);
    let mut call = Call::new("backend.tasks.run_crew_task", id.task.to_string(), "crew_jobs");
    call.delivery_tag = id.tag();
    call.args = vec![Value::from(format!("job-{job}"))];
    call.kwargs = Object::new().with("inputs", Object::new().with("topic", "AI").with("priority", padding));
    call.priority = priority.celery(&[0, 3, 6, 9]).into();
    let envelope = call.envelope().encode();
    let (namespace, name) = ("team".into(), format!("job-{job}").into());
    let spec = SpecHash([7; 16]);
    Message { uid: uid(job), namespace, name, id, queue: Arc::from("crew_jobs"), priority, spec, envelope }
}

/// The same attempt, published again.
fn again(message: &Message, job: u128) -> Message {
    message_of(message.id.republished(), job, message.priority.get().into(), "")
}

fn result_key(task: TaskId) -> String {
    format!("celery-task-meta-{task}")
}

/// What a stock worker does: pops the oldest message of a list and notes it as in flight.
fn take(server: &RedisServer, list: &str, tag: &str) -> String {
    let message: String = server.run(&["RPOP", list]);
    let value = format!("[{message}, \"\", \"crew_jobs\"]");
    server.run::<()>(&["HSET", "unacked", tag, &value]);
    server.run::<()>(&["ZADD", "unacked_index", "1795354775.5307684", tag]);
    message
}

/// What kombu does to a message that it puts back.
/// Every copy of these messages is to be taken off the queues.
fn all_gone(ids: impl IntoIterator<Item = MarkerId>) -> HashMap<MarkerId, Wanted> {
    ids.into_iter().map(|id| (id, Wanted::Gone)).collect()
}

fn restored(message: &[u8]) -> Vec<u8> {
    crewjob::wire::Envelope::decode(message).expect("an envelope").redelivered().encode()
}
