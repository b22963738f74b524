//! What is read of signatures and of the headers of the task that has ended.

use super::refused::Refused;
use crate::wire::{Headers, Object, Value};

/// Where the tasks stand in the tree that follow this one.
pub(super) fn descent(headers: &Headers) -> Object {
    Object::new().with("parent_id", headers.id.as_str()).with("root_id", root(headers))
}

pub(super) fn root(headers: &Headers) -> &str {
    headers.root_id.as_deref().filter(|root| !root.is_empty()).unwrap_or(&headers.id)
}

/// The signatures in a field of a body: a list, one alone, or none.
pub(super) fn elements(field: &Value) -> &[Value] {
    match field {
        Value::Array(signatures) => signatures,
        Value::Object(_) => std::slice::from_ref(field),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Verbatim(_) => &[],
    }
}

/// An option of a signature that has a value.
pub(super) fn option<'a>(signature: &'a Value, name: &str) -> Option<&'a Value> {
    signature.get("options")?.get(name).filter(|value| !value.is_null())
}

pub(super) fn take_text(options: &mut Object, name: &str) -> Result<Option<String>, Refused> {
    match options.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(_) => Err(Refused::malformed(format!("the option {name} is no string"))),
    }
}

pub(super) fn take_integer(options: &mut Object, name: &str) -> Option<i64> {
    options.remove(name)?.as_i64()
}
