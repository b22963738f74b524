//! The pieces of a schema that `derive` cannot say: bounds of durations, immutability, free-form values.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// What the name of a container looks like.
pub(super) const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// What the keys of a Redis, the names of a queue and of a task may look like.
pub(super) const KEY: &str = "^[A-Za-z0-9._:-]{1,128}$";
pub(super) const KEY_OR_NONE: &str = "^[A-Za-z0-9._:-]{0,128}$";

/// A rule that keeps a duration within bounds, both included.
pub(super) fn between(least: &str, most: &str) -> Value {
    json!([{
        "rule": format!("duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"),
        "message": format!("must be between {least} and {most}"),
    }])
}

/// A rule that keeps `first` shorter than `second` where an object has both.
pub(super) fn shorter(first: &str, second: &str) -> Value {
    json!([{
        "rule": format!("!has(self.{first}) || !has(self.{second}) || duration(self.{first}) < duration(self.{second})"),
        "message": format!("{first} must be shorter than {second}"),
        "fieldPath": format!(".{first}"),
    }])
}

/// Rules that keep fields as they were created: neither changed nor added nor removed.
///
/// They stand on the object that has the fields, because a rule on a field is skipped when the field goes.
pub(super) fn immutable(fields: &[&str]) -> Value {
    fields
        .iter()
        .map(|field| {
            json!({
                "rule": unchanged("self", "oldSelf", field),
                "message": format!("{field} cannot be changed once the job exists; create another job"),
                "fieldPath": format!(".{field}"),
                "reason": "FieldValueForbidden",
            })
        })
        .collect()
}

/// The condition that a field is neither changed nor added nor removed.
///
/// Comparing optionals (`self.?a == oldSelf.?a`) would be shorter, but the API server cannot bound what that costs.
pub(super) fn unchanged(new: &str, old: &str, field: &str) -> String {
    format!("has({new}.{field}) == has({old}.{field}) && (!has({new}.{field}) || {new}.{field} == {old}.{field})")
}

/// Any JSON value, kept as it is.
pub(super) fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// Any JSON object, kept as it is and owned as a whole.
pub(super) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-map-type": "atomic",
    })
}

/// An array of any JSON values.
pub(super) fn any_array(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "x-kubernetes-preserve-unknown-fields": true },
        "x-kubernetes-list-type": "atomic",
    })
}

/// A point in time, to the second.
pub(super) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// Points in time, to the second.
pub(super) fn times(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "format": "date-time" } })
}

/// Conditions as every Kubernetes API has them.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One aspect of the current state.",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {
                    "type": "string",
                    "description": "Which aspect of the state this is about.",
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
                "status": {
                    "type": "string",
                    "description": "Whether the condition holds: True, False or Unknown.",
                    "enum": ["True", "False", "Unknown"],
                },
                "reason": {
                    "type": "string",
                    "description": "Why, in one word for programs. The API reference lists and explains every reason.",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {
                    "type": "string",
                    "description": "Why, in a sentence for people: what is wrong and what to do about it.",
                    "maxLength": 32768,
                },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When the status last changed from one value to another.",
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "description": "The metadata.generation that this condition was derived from.",
                },
            },
        },
    })
}

/// A definition without rules that compare with the old object: what a template says may be changed.
pub(super) fn changeable(definition: CustomResourceDefinition) -> CustomResourceDefinition {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(object) => {
                if let Some(Value::Array(rules)) = object.get_mut("x-kubernetes-validations") {
                    rules.retain(|rule| !rule["rule"].as_str().is_some_and(|rule| rule.contains("oldSelf")));
                    if rules.is_empty() {
                        object.remove("x-kubernetes-validations");
                    }
                }
                object.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let stripped = serde_json::to_value(&definition).and_then(|mut value| {
        strip(&mut value);
        serde_json::from_value(value)
    });
    stripped.unwrap_or(definition)
}

/// Brings a derived definition into the form that Kubernetes conventions ask for.
///
/// * no `nullable`: an optional field is absent, never null, so that no rule has a third case to think about;
/// * no unsigned or float formats, and no titles;
/// * descriptions as flowing text, which `kubectl explain` wraps itself.
pub(super) fn polish(definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let polished = serde_json::to_value(&definition).and_then(|mut value| {
        polish_value(&mut value);
        serde_json::from_value(value)
    });
    polished.unwrap_or(definition)
}

fn polish_value(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if is_schema(object) {
                polish_schema(object);
            }
            object.values_mut().for_each(polish_value);
        }
        Value::Array(items) => items.iter_mut().for_each(polish_value),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A schema says its type in a string; a field that is called `type` has a schema there.
fn is_schema(object: &Map<String, Value>) -> bool {
    ["type", "description"].iter().any(|key| object.get(*key).is_some_and(Value::is_string))
        || object.contains_key("x-kubernetes-preserve-unknown-fields")
}

fn polish_schema(schema: &mut Map<String, Value>) {
    if schema.get("nullable").is_some_and(Value::is_boolean) {
        schema.remove("nullable");
    }
    if schema.get("title").is_some_and(Value::is_string) {
        schema.remove("title");
    }
    if schema.get("format").and_then(Value::as_str).is_some_and(|f| f.starts_with("uint") || f == "double") {
        schema.remove("format");
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = flow(text);
    }
}

/// Joins the lines of each paragraph; lists keep their lines.
fn flow(text: &str) -> String {
    let mut flowing = String::with_capacity(text.len());
    let mut previous = "";
    for line in text.lines().map(str::trim) {
        let breaks = line.is_empty() || previous.is_empty() || line.starts_with("* ");
        if !flowing.is_empty() {
            flowing.push(if breaks { '\n' } else { ' ' });
        }
        flowing.push_str(line);
        previous = line;
    }
    flowing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_flow_and_lists_stay() {
        assert_eq!(flow("one\ntwo\n\nthree:\n* four\nfive\n* six"), "one two\n\nthree:\n* four five\n* six");
    }

    #[test]
    fn a_field_called_format_or_type_is_not_taken_for_a_keyword() {
        let mut schema = json!({ "type": "object", "title": "T", "nullable": true, "properties": {
            "type": { "type": "integer", "format": "uint32", "nullable": true },
            "title": { "type": "number", "format": "double" },
        }});
        polish_value(&mut schema);
        assert_eq!(
            schema,
            json!({ "type": "object", "properties": { "type": { "type": "integer" }, "title": { "type": "number" } } })
        );
    }
}
