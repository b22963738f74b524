//! Remote control: requests to workers over a channel, and their replies through a list.

mod info;
mod request;

use super::json::{Limits, Object, Value};
use super::{DecodeError, DeliveryInfo, Envelope, Properties, keys};

pub use info::{BrokerInfo, RegisteredTask, TaskInfo, WorkerConf, WorkerReport, WorkerStats};
pub use request::{Request, ReturnAddress};

/// What workers have answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The ticket of the request; replies to older requests arrive in the same list.
    pub ticket: Option<String>,
    /// The answer of each worker by node name; there is one, normally.
    pub nodes: Object,
}

impl Reply {
    /// Reads an element of a list of replies.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_within(bytes, &Limits::default())
    }

    /// The same with other limits.
    pub fn decode_within(bytes: &[u8], limits: &Limits) -> Result<Self, DecodeError> {
        let envelope = Envelope::decode_within(bytes, limits)?;
        let nodes = envelope.body_json(limits)?.into_object("the reply")?;
        let ticket = envelope.headers.get("ticket").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { ticket, nodes })
    }

    /// The message that a worker pushes into the list of the caller `oid`.
    pub fn envelope(&self, oid: &str, clock: i64, delivery_tag: impl Into<String>) -> Envelope {
        let headers = Object::new().with("ticket", self.ticket.as_deref()).with("clock", clock);
        let properties = properties(1, keys::PIDBOX_REPLY, oid, delivery_tag.into());
        Envelope::new(headers, &Value::from(self.nodes.clone()).to_json(), properties)
    }
}

/// The message of a worker that could not answer.
pub fn error_of(answer: &Value) -> Option<&str> {
    answer.get("error")?.as_str()
}

fn properties(delivery_mode: i64, exchange: &str, routing_key: &str, delivery_tag: String) -> Properties {
    Properties {
        delivery_mode: Some(delivery_mode),
        delivery_info: DeliveryInfo {
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            ..DeliveryInfo::default()
        },
        priority: Some(0),
        delivery_tag,
        ..Properties::default()
    }
}

#[cfg(test)]
mod tests;
