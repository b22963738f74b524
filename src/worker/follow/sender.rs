//! What is needed to send what follows a run, and what comes of it.

use crate::wire::{Envelope, TimeLimit, Value};
use crate::worker::routes::Routes;

/// The sender of what follows.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// `headers.origin`, in Celery `gen<pid>@<host>`.
    pub origin: &'a str,
    /// `properties.reply_to`; only an rpc result backend looks at it.
    pub reply_to: &'a str,
    /// Where tasks go that name no queue.
    pub routes: &'a Routes,
    /// What holds for tasks whose signature does not say. The priority of the task that has ended is not inherited, as in
    /// Celery without `task_inherit_parent_priority`.
    pub defaults: &'a Defaults,
}

/// What a message says whose signature does not. By default what a Celery worker sends for a task that it does not know,
/// as this worker knows no task of others (`link-unknown` of the golden messages): the most urgent priority, no limits, and
/// no word on the result. So the worker that takes the message applies its own settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Defaults {
    /// Celery's `task_default_priority`.
    pub priority: i64,
    /// Celery's `time_limit` and `soft_time_limit` of a task.
    pub time_limit: TimeLimit,
    /// Celery's `ignore_result` of a task.
    pub ignore_result: Option<bool>,
}

/// What follows a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// To be sent in this order, before the result is stored.
    pub messages: Vec<Envelope>,
    /// The field `children` of the result: result tuples `[[id, parent], children]`.
    pub children: Value,
}
