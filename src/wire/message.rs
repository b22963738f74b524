//! Celery's task protocol, version 2: the headers and the body of an envelope that carries a task.

mod body;
mod embed;

use self::body::Body;
use super::json::{Limits, Number, Object, Value};
use super::{DecodeError, Envelope, Properties, python, time};

pub use embed::{Embed, Signature};

/// A task as it is sent to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// What to run, and under which conditions.
    pub headers: Headers,
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Object,
    /// What follows the task.
    pub embed: Embed,
}

/// The headers of a task.
///
/// A known header of an unexpected type is found in `other`, and is sent on as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    /// The language of the sender; informational.
    pub lang: Option<String>,
    /// The registered name of the task.
    pub task: String,
    /// The task id.
    pub id: String,
    /// A name to display instead of `task`.
    pub shadow: Option<String>,
    /// Not to be run before; see [`Headers::eta_at`].
    pub eta: Option<String>,
    /// Not to be run after; see [`Headers::expires_at`].
    pub expires: Option<String>,
    /// The group it belongs to.
    pub group: Option<String>,
    /// Its position in the group.
    pub group_index: Option<i64>,
    /// Runs that came before this one.
    pub retries: Option<i64>,
    /// Time limits of the run.
    pub timelimit: TimeLimit,
    /// The first task of the tree.
    pub root_id: Option<String>,
    /// The task that sent this one. A retry is its own parent.
    pub parent_id: Option<String>,
    /// `repr` of the positional arguments, for display.
    pub argsrepr: Option<String>,
    /// `repr` of the keyword arguments, for display.
    pub kwargsrepr: Option<String>,
    /// The process that first sent it.
    pub origin: Option<String>,
    /// Whether no result is wanted; nothing means the task's own default.
    pub ignore_result: Option<bool>,
    /// How often the task has replaced itself.
    pub replaced_task_nesting: Option<i64>,
    /// Names of the headers that are stamps.
    pub stamped_headers: Option<Vec<Value>>,
    /// Stamps.
    pub stamps: Object,
    /// Any other header.
    pub other: Object,
}

/// Seconds a run may take. Celery writes them as `[hard, soft]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimeLimit {
    /// After this the run is killed.
    pub hard: Option<Number>,
    /// After this the task is asked to stop.
    pub soft: Option<Number>,
}

impl Message {
    /// Reads the task that an envelope carries.
    pub fn decode(envelope: &Envelope) -> Result<Self, DecodeError> {
        Self::decode_within(envelope, &Limits::default())
    }

    /// The same with other limits, which hold for the decoded body.
    pub fn decode_within(envelope: &Envelope, limits: &Limits) -> Result<Self, DecodeError> {
        let text = envelope.body_text(limits.bytes)?;
        let mut outer = envelope.headers.clone();
        // Of the body as it came: what is sent on is not compressed.
        outer.remove("compression");
        Ok(match body::read(&text, &limits.bytes(text.len()))? {
            Body::Two { args, kwargs, embed } => {
                Self { headers: Headers::from_object(outer)?, args, kwargs, embed: Embed::from_object(embed) }
            }
            Body::One { has_args: false, .. } if outer.contains_key("task") => return Err(DecodeError::no_task()),
            Body::One { has_args: _, args, kwargs, fields } => Self::of_protocol_1(args, kwargs, fields, &outer)?,
        })
    }

    /// A task of protocol 1, whose body has everything, or of both: its headers win. As `proto1_to_proto2` and
    /// `hybrid_to_proto2` of Celery's `worker/strategy.py`; a chain is in the callbacks.
    fn of_protocol_1(
        args: Vec<Value>,
        kwargs: Object,
        mut fields: Object,
        outer: &Object,
    ) -> Result<Self, DecodeError> {
        let mut embed = Object::new();
        for name in ["callbacks", "errbacks", "chord"] {
            embed.insert(name, fields.remove(name).unwrap_or_default());
        }
        fields.remove("chain");
        // Times are in UTC, as Celery sends them, or have an offset.
        fields.remove("utc");
        if let Some(group) = fields.remove("taskset") {
            fields.insert("group", group);
        }
        fields.insert("argsrepr", python::safe_repr_array(&args));
        fields.insert("kwargsrepr", python::safe_repr_object(&kwargs));
        let headers = Headers::from_object(fields.with_all(outer))?;
        Ok(Self { headers, args, kwargs, embed: Embed::from_object(embed) })
    }

    /// The body as a value.
    pub fn body(&self) -> Value {
        Value::Array(vec![self.args.clone().into(), self.kwargs.clone().into(), self.embed.to_object().into()])
    }

    /// Puts the task into an envelope.
    pub fn to_envelope(&self, properties: Properties) -> Envelope {
        Envelope::new(self.headers.to_object(), &self.body().to_json(), properties)
    }
}

impl Headers {
    /// Reads the headers of an envelope.
    pub fn from_object(mut fields: Object) -> Result<Self, DecodeError> {
        Ok(Self {
            task: fields.require("task", "headers.task", "a string")?,
            id: fields.require("id", "headers.id", "a string")?,
            lang: fields.take_nullable("lang"),
            shadow: fields.take_nullable("shadow"),
            eta: fields.take_nullable("eta"),
            expires: fields.take_nullable("expires"),
            group: fields.take_nullable("group"),
            group_index: fields.take_nullable("group_index"),
            retries: fields.take_nullable("retries"),
            timelimit: TimeLimit::take_from(&mut fields),
            root_id: fields.take_nullable("root_id"),
            parent_id: fields.take_nullable("parent_id"),
            argsrepr: fields.take_nullable("argsrepr"),
            kwargsrepr: fields.take_nullable("kwargsrepr"),
            origin: fields.take_nullable("origin"),
            ignore_result: fields.take_nullable("ignore_result"),
            replaced_task_nesting: fields.take_nullable("replaced_task_nesting"),
            stamped_headers: fields.take_nullable("stamped_headers"),
            stamps: fields.take_nullable("stamps").unwrap_or_default(),
            other: fields,
        })
    }

    /// All headers that Celery sends, in its order.
    pub fn to_object(&self) -> Object {
        let Self {
            lang,
            task,
            id,
            shadow,
            eta,
            expires,
            group,
            group_index,
            retries,
            timelimit,
            root_id,
            parent_id,
            argsrepr,
            kwargsrepr,
            origin,
            ignore_result,
            replaced_task_nesting,
            stamped_headers,
            stamps,
            other,
        } = self;
        let text = |field: &Option<String>| Value::from(field.as_deref());
        let fields: [(&str, Value); 19] = [
            ("lang", text(lang)),
            ("task", task.as_str().into()),
            ("id", id.as_str().into()),
            ("shadow", text(shadow)),
            ("eta", text(eta)),
            ("expires", text(expires)),
            ("group", text(group)),
            ("group_index", (*group_index).into()),
            ("retries", retries.unwrap_or(0).into()),
            ("timelimit", timelimit.to_value()),
            ("root_id", text(root_id)),
            ("parent_id", text(parent_id)),
            ("argsrepr", text(argsrepr)),
            ("kwargsrepr", text(kwargsrepr)),
            ("origin", text(origin)),
            ("ignore_result", (*ignore_result).into()),
            ("replaced_task_nesting", replaced_task_nesting.unwrap_or(0).into()),
            ("stamped_headers", stamped_headers.clone().into()),
            ("stamps", stamps.clone().into()),
        ];
        fields.into_iter().collect::<Object>().with_all(other)
    }

    /// When it may start; nothing when there is no such time or it cannot be read.
    pub fn eta_at(&self) -> Option<jiff::Timestamp> {
        time::parse(self.eta.as_deref()?)
    }

    /// When it expires; nothing when it does not or the time cannot be read.
    pub fn expires_at(&self) -> Option<jiff::Timestamp> {
        time::parse(self.expires.as_deref()?)
    }
}

impl TimeLimit {
    /// Limits in whole seconds.
    pub fn seconds(hard: i64, soft: i64) -> Self {
        Self { hard: Some(hard.into()), soft: Some(soft.into()) }
    }

    fn take_from(fields: &mut Object) -> Self {
        let limit = |value: &Value| match value {
            Value::Null => Some(None),
            Value::Number(number) => Some(Some(number.clone())),
            Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) | Value::Verbatim(_) => None,
        };
        let read = match fields.get("timelimit") {
            None => return Self::default(),
            Some(Value::Null) => Some(Self::default()),
            Some(value) => match value.as_array() {
                Some([hard, soft]) => limit(hard).zip(limit(soft)).map(|(hard, soft)| Self { hard, soft }),
                _ => None,
            },
        };
        if read.is_some() {
            fields.remove("timelimit");
        }
        read.unwrap_or_default()
    }

    fn to_value(&self) -> Value {
        Value::Array(vec![self.hard.clone().into(), self.soft.clone().into()])
    }
}

#[cfg(test)]
mod tests;
