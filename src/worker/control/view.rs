use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::Revoked;
use crate::store::Queue;
use crate::wire::{Message, Properties, TimeLimit};
use crate::worker::config::Config;
use crate::worker::routes::Routes;

/// What a worker knows when it is asked something.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// Its node name.
    pub node: &'a str,
    /// Its process.
    pub pid: u32,
    /// Since it started.
    pub uptime: Duration,
    /// Its logical clock, moved on by the request.
    pub clock: i64,
    /// Tasks it runs at once.
    pub concurrency: u32,
    /// The tasks that run.
    pub running: Vec<Task<'a>>,
    /// The tasks that have been taken and are to run as soon as there is room.
    pub reserved: Vec<Task<'a>>,
    /// The tasks that wait for their time.
    pub scheduled: Vec<Task<'a>>,
    /// The names of the tasks it runs.
    pub registered: &'a [String],
    /// Rate limits by the names of tasks, as they were set: `10/m`.
    pub rate_limits: &'a BTreeMap<String, String>,
    /// The queues it takes messages from.
    pub queues: &'a [Queue],
    /// The tasks it drops.
    pub revoked: &'a Revoked,
    /// Tasks it has begun, by name.
    pub totals: &'a BTreeMap<String, i64>,
    /// Where its messages come from.
    pub broker: &'a Broker,
    /// Messages it holds at most.
    pub prefetch_count: i64,
    /// What it has used of its machine, if that can be told.
    pub usage: Option<Usage>,
    /// Memory that it occupies now, in bytes, if that can be told.
    pub memory: Option<i64>,
    /// How it is set up.
    pub config: &'a Config,
    /// Limits of tasks whose message has none.
    pub time_limit: &'a TimeLimit,
    /// Where following tasks go.
    pub routes: &'a Routes,
    /// Whether it sends the events of tasks at present.
    pub events: bool,
}

/// A task that a worker has.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// What is to be run.
    pub message: &'a Message,
    /// How it arrived.
    pub properties: &'a Properties,
    /// When the run began.
    pub started: Option<Timestamp>,
    /// The process of the run.
    pub pid: Option<u32>,
    /// Whether its message is acknowledged.
    pub acknowledged: bool,
}

/// The Redis that messages come from. Passwords have no place here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its host.
    pub hostname: String,
    /// Its port.
    pub port: u16,
    /// The number of the database.
    pub database: i64,
    /// The user, if one is named.
    pub userid: Option<String>,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// What a process has used, as `getrusage` counts it on Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Time in its own code.
    pub user: Duration,
    /// Time in the kernel.
    pub system: Duration,
    /// Most memory it occupied, in kilobytes.
    pub max_memory: i64,
    /// Page faults that needed no reading.
    pub minor_faults: i64,
    /// Page faults that did.
    pub major_faults: i64,
    /// Blocks read.
    pub blocks_in: i64,
    /// Blocks written.
    pub blocks_out: i64,
    /// How often it waited.
    pub voluntary_switches: i64,
    /// How often it was made to wait.
    pub involuntary_switches: i64,
}
