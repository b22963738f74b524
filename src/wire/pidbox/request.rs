use crate::wire::json::{Limits, Number, Object, Value};
use crate::wire::{BrokerKeys, DecodeError, Envelope, keys};

/// A command to workers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The command.
    pub method: String,
    /// Its arguments.
    pub arguments: Object,
    /// The node names of the workers it is for; nothing means all.
    pub destination: Option<Vec<String>>,
    /// Instead of `destination`, a pattern for node names.
    pub pattern: Option<String>,
    /// How `pattern` is read: `glob` or `pcre`.
    pub matcher: Option<String>,
    /// Where replies go; nothing means that none are wanted.
    pub reply: Option<ReturnAddress>,
    /// Any other field.
    pub other: Object,
}

/// Where a worker's reply goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReturnAddress {
    /// Returned in the reply's headers.
    pub ticket: String,
    /// The caller's id. Workers look its binding up before they reply; see
    /// [`ReturnAddress::binding_member`].
    pub oid: String,
}

impl ReturnAddress {
    /// The member that the caller adds to the bindings of [`keys::PIDBOX_REPLY`], and removes when it is done.
    pub fn binding_member(&self, keys: &BrokerKeys) -> String {
        keys.binding_member(&self.oid, "", &keys::reply_queue(&self.oid))
    }
}

impl Request {
    fn new(method: &str) -> Self {
        Self { method: method.to_owned(), ..Self::default() }
    }

    fn with(mut self, argument: &str, value: impl Into<Value>) -> Self {
        self.arguments.insert(argument, value);
        self
    }

    /// Asks each worker for a sign of life.
    pub fn ping() -> Self {
        Self::new("ping")
    }

    /// The tasks that are running.
    pub fn active() -> Self {
        Self::new("active").with("safe", Value::Null)
    }

    /// The tasks that have been taken.
    pub fn reserved() -> Self {
        Self::new("reserved")
    }

    /// The tasks that wait for their time.
    pub fn scheduled() -> Self {
        Self::new("scheduled")
    }

    /// The ids of revoked tasks that workers remember.
    pub fn revoked() -> Self {
        Self::new("revoked")
    }

    /// Process, pool and counters.
    pub fn stats() -> Self {
        Self::new("stats")
    }

    /// The settings that differ from Celery's, or all.
    pub fn conf(with_defaults: bool) -> Self {
        Self::new("conf").with("with_defaults", with_defaults)
    }

    /// The names of the tasks that workers know.
    pub fn registered() -> Self {
        Self::new("registered").with("taskinfoitems", Value::Array(Vec::new()))
    }

    /// The same with these attributes, where a task has them.
    pub fn registered_with(attributes: &[&str]) -> Self {
        let attributes: Vec<Value> = attributes.iter().map(|it| Value::from(*it)).collect();
        Self::new("registered").with("taskinfoitems", Value::Array(attributes))
    }

    /// The text for a bug report.
    pub fn report() -> Self {
        Self::new("report")
    }

    /// The queues that workers consume.
    pub fn active_queues() -> Self {
        Self::new("active_queues")
    }

    /// What workers know about tasks.
    pub fn query_task(ids: Vec<String>) -> Self {
        Self::new("query_task").with("ids", ids)
    }

    /// Drop these tasks when they arrive; the ones that run are killed with `signal`, if there is one.
    pub fn revoke(ids: Vec<String>, signal: Option<&str>) -> Self {
        let ids = match <[String; 1]>::try_from(ids) {
            Ok([id]) => Value::from(id),
            Err(ids) => ids.into(),
        };
        Self::new("revoke")
            .with("task_id", ids)
            .with("terminate", signal.is_some())
            .with("signal", signal.unwrap_or("SIGTERM"))
    }

    /// Send task events.
    pub fn enable_events() -> Self {
        Self::new("enable_events")
    }

    /// Send a heartbeat now.
    pub fn heartbeat() -> Self {
        Self::new("heartbeat")
    }

    /// Stop warmly.
    pub fn shutdown() -> Self {
        Self::new("shutdown")
    }

    /// A new worker asks the others which tasks are revoked.
    pub fn hello(from_node: &str, revoked: Vec<String>) -> Self {
        Self::new("hello").with("from_node", from_node).with("revoked", revoked)
    }

    /// Only for these workers.
    #[must_use]
    pub fn to(self, nodes: Vec<String>) -> Self {
        Self { destination: Some(nodes), ..self }
    }

    /// With replies.
    #[must_use]
    pub fn replying_to(self, address: ReturnAddress) -> Self {
        Self { reply: Some(address), ..self }
    }

    /// The message to publish on [`BrokerKeys::pidbox_channel`](crate::wire::BrokerKeys::pidbox_channel). `expires`, in
    /// seconds since the epoch, is informational.
    pub fn envelope(&self, clock: i64, expires: Option<f64>, delivery_tag: impl Into<String>) -> Envelope {
        let headers = Object::new().with("clock", clock).with("expires", expires.map(Number::from));
        Envelope::new(headers, &self.to_value().to_json(), super::properties(2, keys::PIDBOX, "", delivery_tag.into()))
    }

    fn to_value(&self) -> Value {
        let Self { method, arguments, destination, pattern, matcher, reply, other } = self;
        let mut fields = Object::new()
            .with("method", method.as_str())
            .with("arguments", arguments.clone())
            .with("destination", destination.clone())
            .with("pattern", pattern.as_deref())
            .with("matcher", matcher.as_deref());
        if let Some(ReturnAddress { ticket, oid }) = reply {
            let to = Object::new().with("exchange", keys::PIDBOX_REPLY).with("routing_key", oid.as_str());
            fields = fields.with("ticket", ticket.as_str()).with("reply_to", to);
        }
        fields.with_all(other).into()
    }

    /// Reads a message from the channel of requests.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_within(bytes, &Limits::default())
    }

    /// The same with other limits.
    pub fn decode_within(bytes: &[u8], limits: &Limits) -> Result<Self, DecodeError> {
        let mut fields = Envelope::decode_within(bytes, limits)?.body_json(limits)?.into_object("the request")?;
        let reply = ReturnAddress::take_from(&mut fields);
        let destination = fields.get("destination").and_then(names);
        if destination.is_some() || fields.get("destination").is_some_and(Value::is_null) {
            fields.remove("destination");
        }
        Ok(Self {
            method: fields.require("method", "the request's method", "a string")?,
            arguments: fields.take_nullable("arguments").unwrap_or_default(),
            destination,
            pattern: fields.take_nullable("pattern"),
            matcher: fields.take_nullable("matcher"),
            reply,
            other: fields,
        })
    }
}

impl ReturnAddress {
    /// Takes `ticket` and `reply_to`, or leaves both. Workers reply on [`keys::PIDBOX_REPLY`] only, so any other exchange
    /// is left too.
    fn take_from(fields: &mut Object) -> Option<Self> {
        let to = fields.get("reply_to")?;
        let oid = to.get("routing_key")?.as_str()?.to_owned();
        let plain = to.as_object()?.len() == 2 && to.get("exchange")?.as_str()? == keys::PIDBOX_REPLY;
        let ticket = fields.get("ticket")?.as_str()?.to_owned();
        plain.then(|| {
            fields.remove("reply_to");
            fields.remove("ticket");
            Self { ticket, oid }
        })
    }
}

fn names(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}
