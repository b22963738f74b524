//! What is needed to send what follows a run, and what comes of it.

use crate::wire::{Envelope, TimeLimit, Value};
use crate::worker::routes::Routes;

/// The sender of what follows, with the defaults for tasks whose signature does not say.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// `headers.origin`, in Celery `gen<pid>@<host>`.
    pub origin: &'a str,
    /// `properties.reply_to`; only an rpc result backend looks at it.
    pub reply_to: &'a str,
    /// Where tasks go that name no queue.
    pub routes: &'a Routes,
    /// Celery's `task_default_priority`. The priority of the task that has ended is not inherited.
    pub priority: i64,
    /// Celery's `task_time_limit` and `task_soft_time_limit`.
    pub time_limit: &'a TimeLimit,
}

/// What follows a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// To be sent in this order, before the result is stored.
    pub messages: Vec<Envelope>,
    /// The field `children` of the result: result tuples `[[id, parent], children]`.
    pub children: Value,
}
