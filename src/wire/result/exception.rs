use crate::wire::json::Value;
use crate::wire::python;

/// A Python exception as results carry it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exception {
    /// The class.
    pub exc_type: String,
    /// The arguments of its constructor.
    pub exc_message: Vec<Value>,
    /// The module of the class.
    pub exc_module: Option<String>,
}

impl Exception {
    /// Reads the object that stands in `result`.
    pub fn decode(value: &Value) -> Option<Self> {
        let exc_message = match value.get("exc_message") {
            Some(Value::Array(arguments)) => arguments.clone(),
            None | Some(Value::Null) => Vec::new(),
            Some(argument) => vec![argument.clone()],
        };
        Some(Self {
            exc_type: value.get("exc_type")?.as_str()?.to_owned(),
            exc_message,
            exc_module: value.get("exc_module").and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// What Python's `str()` of it says, cut after [`python::MAX_CHARS`].
    pub fn message(&self) -> String {
        match (self.exc_type.as_str(), self.exc_message.as_slice()) {
            ("TimeLimitExceeded" | "SoftTimeLimitExceeded", arguments) => {
                format!("{}{}", self.exc_type, python::repr_tuple(arguments))
            }
            (_, []) => String::new(),
            ("KeyError" | "NotRegistered", [argument]) => python::repr(argument),
            (_, [argument]) => python::str(argument),
            (_, arguments) => python::repr_tuple(arguments),
        }
    }
}
