use crate::wire::DecodeError;
use crate::wire::json::{Object, Value};

/// The third part of a body: what follows the task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Embed {
    /// Signatures to send on success.
    pub callbacks: Value,
    /// Signatures to call on failure.
    pub errbacks: Value,
    /// The rest of a chain, last element next.
    pub chain: Value,
    /// The body of the chord this task is a part of.
    pub chord: Value,
    /// Any other field.
    pub other: Object,
}

/// A call to be made later, as it stands in [`Embed`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signature {
    /// The registered name of the task.
    pub task: String,
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Object,
    /// Options of the call.
    pub options: Object,
    /// `chain`, `group`, `chord`, or nothing for a plain task.
    pub subtask_type: Option<String>,
    /// Whether the parent's result is not passed on.
    pub immutable: bool,
    /// Any other field.
    pub other: Object,
}

impl Embed {
    pub(super) fn from_object(mut fields: Object) -> Self {
        let mut field = |key| fields.remove(key).unwrap_or_default();
        let (callbacks, errbacks, chain, chord) =
            (field("callbacks"), field("errbacks"), field("chain"), field("chord"));
        Self { callbacks, errbacks, chain, chord, other: fields }
    }

    pub(super) fn to_object(&self) -> Object {
        let Self { callbacks, errbacks, chain, chord, other } = self;
        [("callbacks", callbacks), ("errbacks", errbacks), ("chain", chain), ("chord", chord)]
            .into_iter()
            .map(|(key, value)| (key, value.clone()))
            .collect::<Object>()
            .with_all(other)
    }
}

impl Signature {
    /// Reads one signature.
    pub fn decode(value: &Value) -> Result<Self, DecodeError> {
        let mut fields = value.clone().into_object("the signature")?;
        Ok(Self {
            task: fields.require("task", "the signature's task", "a string")?,
            args: fields.take_nullable("args").unwrap_or_default(),
            kwargs: fields.take_nullable("kwargs").unwrap_or_default(),
            options: fields.take_nullable("options").unwrap_or_default(),
            subtask_type: fields.take_nullable("subtask_type"),
            immutable: fields.take_nullable("immutable").unwrap_or_default(),
            other: fields,
        })
    }

    /// The value that stands in a body.
    pub fn to_value(&self) -> Value {
        let Self { task, args, kwargs, options, subtask_type, immutable, other } = self;
        let fields: [(&str, Value); 6] = [
            ("task", task.as_str().into()),
            ("args", args.clone().into()),
            ("kwargs", kwargs.clone().into()),
            ("options", options.clone().into()),
            ("subtask_type", subtask_type.as_deref().into()),
            ("immutable", (*immutable).into()),
        ];
        fields.into_iter().collect::<Object>().with_all(other).into()
    }
}
