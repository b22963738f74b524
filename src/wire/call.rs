//! Sending a task as `apply_async` does.

use super::json::{Object, Value};
use super::{DeliveryInfo, Embed, Envelope, Headers, Message, Properties, TimeLimit, python};

/// A call of a task, to be put on a queue through the anonymous exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The registered name of the task.
    pub task: String,
    /// The task id.
    pub id: String,
    /// The queue.
    pub queue: String,
    /// The delivery tag; must be unique to this publish.
    pub delivery_tag: String,
    /// `properties.reply_to`; only an rpc result backend looks at it.
    pub reply_to: String,
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Object,
    /// What follows the task.
    pub embed: Embed,
    /// Celery's priority, 0 the most urgent.
    pub priority: i64,
    /// Time limits of the run.
    pub time_limit: TimeLimit,
    /// Runs that came before this one.
    pub retries: i64,
    /// The first task of the tree; nothing means this one.
    pub root_id: Option<String>,
    /// The task before this one.
    pub parent_id: Option<String>,
    /// The sending process, `gen<pid>@<host>` in Celery.
    pub origin: String,
    /// Further headers. One that Celery knows replaces Celery's.
    pub headers: Object,
}

impl Call {
    /// A call without arguments, with Celery's default priority of 5 in the reference configuration, and with the task id
    /// as delivery tag.
    pub fn new(task: impl Into<String>, id: impl Into<String>, queue: impl Into<String>) -> Self {
        let id = id.into();
        Self {
            task: task.into(),
            delivery_tag: id.clone(),
            id,
            queue: queue.into(),
            reply_to: String::new(),
            args: Vec::new(),
            kwargs: Object::new(),
            embed: Embed::default(),
            priority: 5,
            time_limit: TimeLimit::default(),
            retries: 0,
            root_id: None,
            parent_id: None,
            origin: String::new(),
            headers: Object::new(),
        }
    }

    /// The message, with every field that Celery's own has.
    pub fn envelope(self) -> Envelope {
        let properties = Properties {
            correlation_id: Some(self.id.clone()),
            reply_to: Some(self.reply_to),
            delivery_mode: Some(2),
            delivery_info: DeliveryInfo::to_queue(self.queue),
            priority: Some(self.priority),
            delivery_tag: self.delivery_tag,
            ..Properties::default()
        };
        let headers = Headers {
            lang: Some("py".to_owned()),
            task: self.task,
            retries: Some(self.retries),
            timelimit: self.time_limit,
            root_id: Some(self.root_id.unwrap_or_else(|| self.id.clone())),
            id: self.id,
            parent_id: self.parent_id,
            argsrepr: Some(python::safe_repr_array(&self.args)),
            kwargsrepr: Some(python::safe_repr_object(&self.kwargs)),
            origin: Some(self.origin),
            ignore_result: Some(false),
            replaced_task_nesting: Some(0),
            other: self.headers,
            ..Headers::default()
        };
        Message { headers, args: self.args, kwargs: self.kwargs, embed: self.embed }.to_envelope(properties)
    }
}

#[cfg(test)]
mod tests;
