//! Remote control: what a worker answers to a request, and what it has to do about it.
//!
//! The answers are Celery's, word for word where its clients read them; `inspect`, `control` and Flower see a worker
//! like any other. What Celery raises is answered as the `repr` of the same exception.

mod arguments;
mod conf;
mod describe;
mod inspect;
mod order;
mod revoked;
mod signal;
mod transport;
mod view;

use jiff::Timestamp;

use self::arguments::{Arguments, Refusal};
use crate::store::Queue;
use crate::wire::pidbox::Request;
use crate::wire::{Number, Object, Pattern, Value};

pub use revoked::Revoked;
pub use view::{Broker, Task, Usage, View};

/// What comes of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// The reply; `None` if no reply is waited for, or if Celery says nothing either.
    pub reply: Option<Value>,
    /// What to do, in this order.
    pub actions: Vec<Action>,
}

/// Something that a worker is told to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Drop these tasks when they arrive, and forget the ones that wait. Those that are not running here become REVOKED
    /// at once, unless their state says that they run elsewhere or have ended.
    Revoke {
        /// The task ids, some of which may be unknown here.
        ids: Vec<String>,
        /// What the ones that run are killed with; nothing lets them run.
        signal: Option<i32>,
    },
    /// Remember that these were revoked, as another worker says.
    Merge {
        /// The task ids.
        revoked: Vec<String>,
    },
    /// Send the events of tasks.
    EnableEvents,
    /// Do not send the events of tasks.
    DisableEvents,
    /// Send a heartbeat now.
    Heartbeat,
    /// Stop warmly.
    Shutdown,
    /// Take messages from a queue too.
    AddConsumer(Queue),
    /// Take no more messages from this queue.
    CancelConsumer(String),
    /// Run so many more tasks at once.
    Grow(u32),
    /// Run so many fewer tasks at once.
    Shrink(u32),
    /// Change the limits of a task, for messages that have none.
    TimeLimit {
        /// The name of the task.
        task: String,
        /// Seconds after which a run is killed.
        hard: Option<Number>,
        /// Seconds after which a run is asked to stop.
        soft: Option<Number>,
    },
    /// Change how often a task may begin.
    RateLimit {
        /// The name of the task.
        task: String,
        /// The limit as it was given, for [`View::rate_limits`]; empty takes it off.
        text: String,
        /// Runs in a second; nothing means any number.
        per_second: Option<f64>,
    },
}

/// Longer patterns address no worker.
const LONGEST_PATTERN: usize = 1024;

/// Whether a request is for this node.
///
/// As in kombu, an empty destination counts as none, and a pattern without matcher as no pattern. A pattern that cannot
/// be read here, some regular expressions for example, addresses no worker.
pub fn is_for(request: &Request, node: &str) -> bool {
    let Request { destination, pattern, matcher, other, .. } = request;
    match (destination.as_deref(), other.get("destination")) {
        (Some(nodes), _) if !nodes.is_empty() => return nodes.iter().any(|name| name == node),
        (_, Some(Value::Array(nodes))) if !nodes.is_empty() => {
            return nodes.iter().any(|name| name.as_str() == Some(node));
        }
        (_, Some(Value::String(text))) if !text.is_empty() => return text.contains(node),
        (_, _) => {}
    }
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let Some((pattern, matcher)) = some(pattern).zip(some(matcher)) else { return true };
    let pattern = match matcher.as_str() {
        _ if pattern.len() > LONGEST_PATTERN => None,
        "glob" => Some(Pattern::glob(&pattern)),
        "pcre" => Pattern::regex(&pattern),
        _ => None,
    };
    pattern.is_some_and(|pattern| pattern.matches(node))
}

/// Answers a request that is for this worker.
pub fn answer(request: &Request, view: &View, now: Timestamp) -> Answered {
    let answered = obey(request, view, now).unwrap_or_else(Answered::refused);
    Answered { reply: answered.reply.filter(|_| request.reply.is_some()), ..answered }
}

impl Answered {
    fn with(value: impl Into<Value>) -> Self {
        Self { reply: Some(value.into()), actions: Vec::new() }
    }

    fn ok(text: impl Into<String>) -> Self {
        Self::with(Object::new().with("ok", text.into()))
    }

    fn error(text: impl Into<String>) -> Self {
        Self::with(Object::new().with("error", text.into()))
    }

    fn refused(Refusal(repr): Refusal) -> Self {
        Self::error(repr)
    }

    fn and(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }
}

fn obey(request: &Request, view: &View, now: Timestamp) -> Result<Answered, Refusal> {
    if request.other.get("arguments").is_some_and(|unread| !unread.is_null()) {
        return Err(Refusal::new("TypeError", "argument after ** must be a mapping"));
    }
    let given = Arguments::new(&request.method, &request.arguments);
    Ok(match request.method.as_str() {
        "ping" => Answered::ok("pong"),
        "clock" => inspect::clock(view),
        "active" | "dump_active" => inspect::active(&given, view),
        "reserved" | "dump_reserved" => inspect::reserved(view),
        "scheduled" | "dump_schedule" => inspect::scheduled(view),
        "revoked" | "dump_revoked" => inspect::revoked(view, now),
        "registered" | "dump_tasks" => inspect::registered(&given, view)?,
        "conf" | "dump_conf" => inspect::conf(&given, view),
        "stats" => inspect::stats(view),
        "report" => {
            given.only(&[])?;
            inspect::report(view)
        }
        "memsample" => inspect::memsample(view),
        "active_queues" => {
            given.only(&[])?;
            inspect::active_queues(view)
        }
        "query_task" => inspect::query_task(&given.with(&["ids"])?, view)?,
        "hello" => order::hello(&given.with(&["from_node"])?, view, now)?,
        "revoke" => order::revoke(&given.with(&["task_id"])?, view)?,
        "terminate" => order::terminate(&given.with(&["signal", "task_id"])?, view)?,
        "rate_limit" => order::rate_limit(&given.with(&["task_name", "rate_limit"])?, view)?,
        "time_limit" => order::time_limit(&given, view)?,
        "enable_events" => {
            given.only(&[])?;
            order::enable_events(view)
        }
        "disable_events" => {
            given.only(&[])?;
            order::disable_events(view)
        }
        "heartbeat" => {
            given.only(&[])?;
            Answered::with(Value::Null).and(Action::Heartbeat)
        }
        "pool_grow" => order::pool_grow(&given)?,
        "pool_shrink" => order::pool_shrink(&given, view)?,
        "pool_restart" => return Err(Refusal::new("ValueError", "Pool restarts not enabled")),
        "autoscale" => {
            given.only(&["max", "min"])?;
            return Err(Refusal::new("ValueError", "Autoscale not enabled"));
        }
        "shutdown" => Answered { reply: None, actions: vec![Action::Shutdown] },
        "add_consumer" => order::add_consumer(&given.with(&["queue"])?)?,
        "cancel_consumer" => order::cancel_consumer(&given.with(&["queue"])?)?,
        // Workers of a kind choose one among them, over channels that this one does not listen to.
        "election" => Answered::with(Value::Null),
        "revoke_by_stamped_headers" | "objgraph" | "memdump" => {
            return Err(Refusal::new("NotImplementedError", "not by this worker"));
        }
        unknown => return Err(Refusal::new("KeyError", unknown)),
    })
}

#[cfg(test)]
mod tests;
