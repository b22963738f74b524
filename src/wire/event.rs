//! Events: what workers and producers publish on `celeryev`, one by one or in batches.

mod detail;

use super::json::{Limits, Number, Object, Value};
use super::{DecodeError, DeliveryInfo, Envelope, Properties, keys};

pub use detail::{Detail, TaskSummary, WorkerStatus};

/// An event.
///
/// A known field of an unexpected type is found in `other`, and is sent on as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub detail: Detail,
    /// The node name of the worker; of `task-sent` the process that sent it.
    pub hostname: Option<String>,
    /// The Lamport clock of the sender.
    pub clock: Option<i64>,
    /// Seconds since the epoch.
    pub timestamp: Option<Number>,
    /// The sender's process.
    pub pid: Option<i64>,
    /// Offset of the sender's local time, in hours west of UTC.
    pub utcoffset: Option<Number>,
    /// Any other field.
    pub other: Object,
}

impl Event {
    /// Reads a message from a channel of events: one event, or a batch.
    pub fn decode(bytes: &[u8]) -> Result<Vec<Self>, DecodeError> {
        Self::decode_within(bytes, &Limits::default())
    }

    /// The same with other limits.
    pub fn decode_within(bytes: &[u8], limits: &Limits) -> Result<Vec<Self>, DecodeError> {
        match Envelope::decode_within(bytes, limits)?.body_json(limits)? {
            Value::Array(events) => events.into_iter().map(Self::from_value).collect(),
            event @ Value::Object(_) => Ok(vec![Self::from_value(event)?]),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Verbatim(_) => {
                Err(DecodeError::Type { field: "the body", expected: "an event or a batch of events" })
            }
        }
    }

    /// Reads the object of one event.
    pub fn from_value(value: Value) -> Result<Self, DecodeError> {
        let mut fields = value.into_object("the event")?;
        let event_type = fields.require("type", "the event's type", "a string")?;
        Ok(Self {
            detail: Detail::take_from(event_type, &mut fields),
            hostname: fields.take("hostname"),
            clock: fields.take("clock"),
            timestamp: fields.take("timestamp"),
            pid: fields.take("pid"),
            utcoffset: fields.take("utcoffset"),
            other: fields,
        })
    }

    /// The object that Celery reads.
    pub fn to_value(&self) -> Value {
        let Self { detail, hostname, clock, timestamp, pid, utcoffset, other } = self;
        let common = [
            ("hostname", hostname.as_deref().map(Value::from)),
            ("utcoffset", utcoffset.clone().map(Value::from)),
            ("pid", pid.map(Value::from)),
            ("clock", clock.map(Value::from)),
            ("timestamp", timestamp.clone().map(Value::from)),
        ];
        let common = common.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let fields = common.chain(detail.fields()).chain([("type", detail.event_type().into())]);
        fields.collect::<Object>().with_all(other).into()
    }

    /// The type, `task-started` for example.
    pub fn event_type(&self) -> &str {
        self.detail.event_type()
    }

    /// The task it is about.
    pub fn task_id(&self) -> Option<&str> {
        self.detail.task_id()
    }

    /// The message to publish on [`BrokerKeys::event_channel`](super::BrokerKeys::event_channel) of the event's type.
    pub fn envelope(&self, delivery_tag: impl Into<String>) -> Envelope {
        let headers = Object::new().with("hostname", self.hostname.as_deref());
        let properties = Properties {
            delivery_mode: Some(1),
            delivery_info: DeliveryInfo {
                exchange: keys::EVENTS.to_owned(),
                routing_key: self.event_type().replace('-', "."),
                ..DeliveryInfo::default()
            },
            priority: Some(0),
            delivery_tag: delivery_tag.into(),
            ..Properties::default()
        };
        Envelope::new(headers, &self.to_value().to_json(), properties)
    }
}

#[cfg(test)]
mod tests;
