//! Free-form JSON out of a resource, which may nest as deeply and be as large as its author likes.
//!
//! The API server stores thousands of levels; `serde_json` gives up at 128, and with it a whole list or watch would fail
//! because of one object. So what lies too deep is passed over: the value then has an empty array or object one level
//! below [`MAX_DEPTH`], by which [`CrewJobSpec::problem`](super::CrewJobSpec::problem) knows it.
//!
//! Each value takes 32 bytes and more, although `0,` is only two: of what is larger than [`MAX_BYTES`] as text nothing is
//! kept but a note that it is.

use std::cell::Cell;
use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// The deepest nesting that a task is sent, the outermost object or array being level 1.
pub const MAX_DEPTH: usize = 32;
/// The largest `inputs`, `args` or `kwargs`, in bytes of compact JSON.
pub const MAX_BYTES: usize = 64 << 10;

/// The only member of what is left of an object that is too large.
const TOO_LARGE: &str = "\u{0}too large";

/// Whether this is what is left of an object that was too large.
pub fn is_too_large(object: &Map<String, Value>) -> bool {
    object.len() == 1 && object.contains_key(TOO_LARGE)
}

/// Whether this is what is left of an array that was too large.
pub fn is_too_large_array(items: &[Value]) -> bool {
    matches!(items, [Value::Object(object)] if is_too_large(object))
}

fn too_large() -> Map<String, Value> {
    Map::from_iter([(TOO_LARGE.to_owned(), Value::Null)])
}

/// Reads a value that may be missing.
pub(super) fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    let value = bounded(deserializer)?;
    Ok(Some(value).filter(|value| !value.is_null()))
}

/// Reads an object, which may be missing.
pub(super) fn object<'de, D: Deserializer<'de>, T: From<Map<String, Value>> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    match bounded(deserializer)? {
        Value::Object(members) => Ok(members.into()),
        Value::Null => Ok(T::default()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(D::Error::custom("not an object"))
        }
    }
}

/// Reads an array that may be missing.
pub(super) fn array<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Value>>, D::Error> {
    match bounded(deserializer)? {
        Value::Array(items) => Ok(Some(items)),
        Value::Null => Ok(None),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Err(D::Error::custom("not an array"))
        }
    }
}

/// Reads any value, or what is left of one that is too large.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let bytes = Cell::new(0);
    let value = Level { depth: 1, bytes: &bytes }.deserialize(deserializer)?;
    if bytes.get() <= MAX_BYTES {
        return Ok(value);
    }
    Ok(match value {
        Value::Array(_) => vec![Value::Object(too_large())].into(),
        Value::Object(_) => Value::Object(too_large()),
        value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => value,
    })
}

/// The level that an object or array at this place would have, and the size so far of all that is read.
#[derive(Clone, Copy)]
struct Level<'a> {
    depth: usize,
    bytes: &'a Cell<usize>,
}

impl Level<'_> {
    fn is_too_deep(self) -> bool {
        self.depth > MAX_DEPTH
    }

    fn below(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    /// Counts what is read. Whether it is still small enough to be kept.
    fn count(self, bytes: usize) -> bool {
        self.bytes.set(self.bytes.get().saturating_add(bytes));
        self.bytes.get() <= MAX_BYTES
    }

    fn kept<V: fmt::Display + Into<Value>>(self, value: V) -> Value {
        let value = value.into();
        if self.count(value.to_string().len()) { value } else { Value::Null }
    }
}

/// Bytes of a text as JSON.
fn quoted(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | 8 | 9 | 10 | 12 | 13 => 2,
        0..32 => 6,
        _ => 1,
    };
    2 + text.bytes().map(escaped).sum::<usize>()
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.count(4);
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(self.kept(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(self.kept(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(self.kept(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(self.kept(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(if self.count(quoted(value)) { value.into() } else { Value::Null })
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(if self.count(quoted(&value)) { value.into() } else { Value::Null })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        let mut fits = self.count(2) && !self.is_too_deep();
        while fits && let Some(item) = items.next_element_seed(self.below())? {
            array.push(item);
            fits = self.count(usize::from(array.len() > 1));
        }
        // To pass over a value takes no recursion.
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let mut fits = self.count(2) && !self.is_too_deep();
        while fits && let Some(key) = members.next_key::<String>()? {
            fits = self.count(quoted(&key) + 1 + usize::from(!object.is_empty()));
            let value = members.next_value_seed(self.below())?;
            object.insert(key, value);
        }
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::api::CrewJobSpec;

    fn job(inputs: &str) -> CrewJobSpec {
        serde_json::from_str(&format!(r#"{{"topic": "t", "inputs": {inputs}}}"#)).unwrap()
    }

    fn nested(levels: usize, open: &str, close: &str) -> String {
        format!("{{\"a\": {}{}}}", open.repeat(levels - 1), close.repeat(levels - 1))
    }

    #[test]
    fn up_to_32_levels_are_fine() {
        for json in [nested(32, "[", "]"), nested(32, "{\"a\": ", "}").replace("\"a\": }", "}")] {
            let job = job(&json);
            assert_eq!(Value::Object(job.inputs.clone()), serde_json::from_str::<Value>(&json).unwrap());
            assert_eq!(job.problem(), None);
        }
    }

    #[test]
    fn deeper_ones_are_read_all_the_same_and_are_a_problem_of_that_job() {
        for levels in [33, 34, 200, 100_000] {
            for inputs in [nested(levels, "[", "]"), nested(levels, "{\"a\": ", "}").replace("\"a\": }", "}")] {
                let problem = job(&inputs).problem().unwrap();
                assert!(problem.contains("is nested more than 32 levels deep"), "{problem}");
            }
        }
    }

    #[test]
    fn args_and_kwargs_are_read_the_same_way() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for field in [format!(r#""args": {deep}"#), format!(r#""kwargs": {{"a": {deep}}}"#)] {
            let job: CrewJobSpec = serde_json::from_str(&format!(r#"{{"topic": "t", {field}}}"#)).unwrap();
            assert!(job.problem().unwrap().contains("is nested more than 32 levels deep"));
        }
        assert!(serde_json::from_str::<CrewJobSpec>(r#"{"topic": "t", "args": {}}"#).is_err());
        assert!(serde_json::from_str::<CrewJobSpec>(r#"{"topic": "t", "kwargs": []}"#).is_err());
    }

    #[test]
    fn null_inputs_and_arguments_are_the_same_as_absent_ones() {
        let job: CrewJobSpec =
            serde_json::from_value(json!({ "topic": "t", "inputs": null, "args": null, "kwargs": null })).unwrap();
        assert_eq!(job, CrewJobSpec::with_topic("t"));
    }

    #[test]
    fn of_inputs_that_are_too_large_only_that_fact_is_kept() {
        let text = |bytes: usize| format!("{{\"a\": \"{}\"}}", "x".repeat(bytes - 8));
        let zeros = |bytes: usize| format!("{{\"a\":[0{}]}}", ",0".repeat((bytes - 9) / 2));
        assert_eq!(job(&text(MAX_BYTES)).problem(), None);
        assert_eq!(job(&zeros(MAX_BYTES)).problem(), None);
        let deep = format!("{{\"a\": {}{}, \"b\": {}}}", "[".repeat(9000), "]".repeat(9000), zeros(1 << 20));
        for inputs in [text(MAX_BYTES + 1), zeros(MAX_BYTES + 2), zeros(1_400_000), text(1_400_000), deep] {
            let job = job(&inputs);
            assert!(is_too_large(&job.inputs), "{:?}", job.inputs);
            assert_eq!(
                job.problem().unwrap(),
                "spec.inputs has more than 65536 bytes of JSON, which are the most that a task is sent"
            );
        }
    }

    #[test]
    fn a_result_that_is_as_large_as_a_status_may_hold_is_read_back() {
        let value = Value::from("x".repeat(4094));
        let read = bounded(&mut serde_json::Deserializer::from_str(&value.to_string())).unwrap();
        assert_eq!(read, value);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e300..1e300).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn its_size_is_that_of_its_compact_text(value in any_json()) {
            let bytes = Cell::new(0);
            let text = value.to_string();
            Level { depth: 1, bytes: &bytes }.deserialize(&mut serde_json::Deserializer::from_str(&text)).unwrap();
            // Not every float is read as it was written.
            prop_assert_eq!(bytes.get(), serde_json::from_str::<Value>(&text).unwrap().to_string().len());
        }

        #[test]
        fn a_value_that_is_not_too_deep_is_read_unchanged(value in any_json()) {
            let read = bounded(&mut serde_json::Deserializer::from_str(&value.to_string())).unwrap();
            prop_assert_eq!(read, serde_json::from_str::<Value>(&value.to_string()).unwrap());
        }
    }
}
