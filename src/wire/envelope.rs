//! kombu's Redis envelope: what stands in a queue's list and, while a worker has it, in the `unacked` hash.

mod peek;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD};

use super::error::BODY;
use super::json::{Error, Limits, Object, Reason, Value, lossy};
use super::{DecodeError, compression, priority};

pub use peek::{Peek, peek};

/// Python's decoder is not strict about the end either.
const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A message on its way: a serialized body, and what kombu needs to deliver it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope {
    /// The body as it stands there; [`Envelope::body_bytes`] undoes `properties.body_encoding`.
    pub body: String,
    /// The serializer, `application/json`.
    pub content_type: Option<String>,
    /// The charset, `utf-8`.
    pub content_encoding: Option<String>,
    /// The headers; for a task see [`Headers`](super::Headers).
    pub headers: Object,
    /// Delivery properties.
    pub properties: Properties,
    /// Any other field.
    pub other: Object,
}

/// The delivery properties of an [`Envelope`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties {
    /// The task id again.
    pub correlation_id: Option<String>,
    /// Where an rpc result backend would answer.
    pub reply_to: Option<String>,
    /// 2 for tasks, 1 for events; without meaning on Redis.
    pub delivery_mode: Option<i64>,
    /// Where it was sent.
    pub delivery_info: DeliveryInfo,
    /// As requested, not clamped. Absent means 0, the most urgent.
    pub priority: Option<i64>,
    /// Milliseconds as text; not enforced on Redis.
    pub expiration: Option<String>,
    /// `base64`, or absent when the body is the text itself.
    pub body_encoding: Option<String>,
    /// The key under which a worker acknowledges it; new for every publish.
    pub delivery_tag: String,
    /// Any other field.
    pub other: Object,
}

/// Where a message was sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryInfo {
    /// The exchange; empty for the anonymous one.
    pub exchange: String,
    /// The routing key; with the anonymous exchange the name of the queue.
    pub routing_key: String,
    /// Set once it has been put back.
    pub redelivered: Option<bool>,
    /// Any other field.
    pub other: Object,
}

impl Envelope {
    /// An envelope with a JSON body.
    pub fn new(headers: Object, body: &str, properties: Properties) -> Self {
        Self {
            body: STANDARD.encode(body),
            content_type: Some("application/json".to_owned()),
            content_encoding: Some("utf-8".to_owned()),
            headers,
            properties: Properties { body_encoding: Some("base64".to_owned()), ..properties },
            other: Object::new(),
        }
    }

    /// Reads an element of a queue's list, or a message from a channel.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_within(bytes, &Limits::default())
    }

    /// The same with other limits.
    pub fn decode_within(bytes: &[u8], limits: &Limits) -> Result<Self, DecodeError> {
        let value = Value::parse_lossy(bytes, limits).map_err(DecodeError::json("the message"))?;
        Self::from_value(value)
    }

    pub(super) fn from_value(value: Value) -> Result<Self, DecodeError> {
        let mut fields = value.into_object("the message")?;
        let body = fields.require("body", "body", "a string")?;
        let headers = match fields.remove("headers") {
            None | Some(Value::Null) => Object::new(),
            Some(headers) => headers.into_object("headers")?,
        };
        let properties = fields.remove("properties").ok_or(DecodeError::Missing { field: "properties" })?;
        Ok(Self {
            body,
            content_type: fields.take("content-type"),
            content_encoding: fields.take("content-encoding"),
            headers,
            properties: Properties::from_object(properties.into_object("properties")?)?,
            other: fields,
        })
    }

    /// The bytes that kombu reads.
    pub fn encode(&self) -> Vec<u8> {
        self.to_value().to_json().into_bytes()
    }

    pub(super) fn to_value(&self) -> Value {
        let Self { body, content_type, content_encoding, headers, properties, other } = self;
        let fields = [
            ("body", Some(body.as_str().into())),
            ("content-encoding", content_encoding.as_deref().map(Value::from)),
            ("content-type", content_type.as_deref().map(Value::from)),
            ("headers", Some(headers.clone().into())),
            ("properties", Some(properties.to_object().into())),
        ];
        present(fields).with_all(other).into()
    }

    /// The serialized body.
    pub fn body_bytes(&self) -> Result<Cow<'_, [u8]>, DecodeError> {
        match self.properties.body_encoding.as_deref() {
            None => Ok(Cow::Borrowed(self.body.as_bytes())),
            Some("base64") => TOLERANT.decode(&self.body).map(Cow::Owned).map_err(DecodeError::Base64),
            Some(encoding) => Err(DecodeError::BodyEncoding(encoding.chars().take(64).collect())),
        }
    }

    /// The name of what the body was compressed by after it was serialized, as in kombu.
    pub fn compression(&self) -> Option<&str> {
        self.headers.get("compression").and_then(Value::as_str).filter(|method| !method.is_empty())
    }

    /// The body as a value.
    pub fn body_json(&self, limits: &Limits) -> Result<Value, DecodeError> {
        let text = self.body_text(limits.bytes)?;
        Value::parse_within(text.as_bytes(), &limits.bytes(text.len())).map_err(DecodeError::json(BODY))
    }

    /// The text of the body, of at most so many bytes. Bytes that are not UTF-8 become U+FFFD.
    pub fn body_text(&self, most: usize) -> Result<String, DecodeError> {
        if !self.is_json() {
            let kind = self.content_type.as_deref().unwrap_or_default();
            return Err(DecodeError::ContentType(kind.chars().take(64).collect()));
        }
        let bytes = self.body_bytes()?;
        let bytes = match self.compression() {
            None => bytes.into_owned(),
            Some(method) => compression::inflate(method, &bytes, most)?,
        };
        if bytes.len() > most {
            let reason = Reason::TooLarge(most);
            return Err(DecodeError::json(BODY)(Error { offset: most, reason }));
        }
        Ok(lossy(bytes))
    }

    /// Whether the body says that it is JSON, in an encoding that can be read: UTF-8 or a part of it.
    pub fn is_json(&self) -> bool {
        let Some(kind) = self.content_type.as_deref() else { return true };
        let mut parts = kind.split(';').map(str::trim);
        parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
            && parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
                let value = value.trim().trim_matches('"');
                let is_readable =
                    ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|it| value.eq_ignore_ascii_case(it));
                !name.trim().eq_ignore_ascii_case("charset") || is_readable
            })
    }

    /// The same message as kombu puts it back into its queue: marked, under the same delivery tag.
    #[must_use]
    pub fn redelivered(mut self) -> Self {
        self.headers.insert("redelivered", true);
        self.properties.delivery_info.redelivered = Some(true);
        self
    }
}

impl Properties {
    fn from_object(mut fields: Object) -> Result<Self, DecodeError> {
        let delivery_info = match fields.remove("delivery_info") {
            None | Some(Value::Null) => DeliveryInfo::default(),
            Some(info) => DeliveryInfo::from_object(info.into_object("properties.delivery_info")?),
        };
        let priority = fields.get("priority").and_then(priority::read);
        if priority.is_some() {
            fields.remove("priority");
        }
        Ok(Self {
            correlation_id: fields.take("correlation_id"),
            reply_to: fields.take("reply_to"),
            delivery_mode: fields.take("delivery_mode"),
            delivery_info,
            priority,
            expiration: fields.take("expiration"),
            body_encoding: fields.take("body_encoding"),
            delivery_tag: fields.require("delivery_tag", "properties.delivery_tag", "a string")?,
            other: fields,
        })
    }

    fn to_object(&self) -> Object {
        let Self {
            correlation_id,
            reply_to,
            delivery_mode,
            delivery_info,
            priority,
            expiration,
            body_encoding,
            delivery_tag,
            other,
        } = self;
        let text = |field: &Option<String>| field.as_deref().map(Value::from);
        let fields = [
            ("correlation_id", text(correlation_id)),
            ("reply_to", text(reply_to)),
            ("delivery_mode", delivery_mode.map(Value::from)),
            ("expiration", text(expiration)),
            ("delivery_info", Some(delivery_info.to_object().into())),
            ("priority", priority.map(Value::from)),
            ("body_encoding", text(body_encoding)),
            ("delivery_tag", Some(delivery_tag.as_str().into())),
        ];
        present(fields).with_all(other)
    }
}

impl DeliveryInfo {
    /// The way to `queue` that Celery takes when a call names neither exchange nor routing key.
    pub fn to_queue(queue: impl Into<String>) -> Self {
        Self { routing_key: queue.into(), ..Self::default() }
    }

    fn from_object(mut fields: Object) -> Self {
        let mut text = |key| {
            let text = fields.take(key).unwrap_or_default();
            fields.remove(key);
            text
        };
        let (exchange, routing_key) = (text("exchange"), text("routing_key"));
        Self { exchange, routing_key, redelivered: fields.take("redelivered"), other: fields }
    }

    fn to_object(&self) -> Object {
        let Self { exchange, routing_key, redelivered, other } = self;
        let fields = [
            ("exchange", Some(exchange.as_str().into())),
            ("routing_key", Some(routing_key.as_str().into())),
            ("redelivered", redelivered.map(Value::from)),
        ];
        present(fields).with_all(other)
    }
}

fn present<const N: usize>(fields: [(&str, Option<Value>); N]) -> Object {
    fields.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// A value of the `unacked` hash: a message that a worker has taken and not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unacked {
    /// The message.
    pub envelope: Envelope,
    /// The exchange through which it goes back.
    pub exchange: String,
    /// The routing key with which it goes back.
    pub routing_key: String,
}

impl Unacked {
    /// Reads the array `[envelope, exchange, routing_key]`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_within(bytes, &Limits::default())
    }

    /// The same with other limits.
    pub fn decode_within(bytes: &[u8], limits: &Limits) -> Result<Self, DecodeError> {
        const WHAT: &str = "the unacked entry";
        let value = Value::parse_lossy(bytes, limits).map_err(DecodeError::json(WHAT))?;
        let wrong = DecodeError::Type { field: WHAT, expected: "[envelope, exchange, routing key]" };
        let Value::Array(parts) = value else { return Err(wrong) };
        let Ok([envelope, Value::String(exchange), Value::String(routing_key)]) = <[Value; 3]>::try_from(parts) else {
            return Err(wrong);
        };
        Ok(Self { envelope: Envelope::from_value(envelope)?, exchange, routing_key })
    }

    /// The bytes that kombu reads.
    pub fn encode(&self) -> Vec<u8> {
        let Self { envelope, exchange, routing_key } = self;
        let parts = vec![envelope.to_value(), exchange.as_str().into(), routing_key.as_str().into()];
        Value::Array(parts).to_json().into_bytes()
    }
}

#[cfg(test)]
mod tests;
