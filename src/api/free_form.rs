//! Free-form JSON out of a resource, which may nest as deeply as its author likes.
//!
//! The API server stores thousands of levels; `serde_json` gives up at 128, and with it a whole list or watch would fail
//! because of one object. So what lies too deep is passed over: the value then has an empty array or object one level
//! below [`MAX_DEPTH`], by which [`CrewJobSpec::problem`](super::CrewJobSpec::problem) knows it.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// The deepest nesting that a task is sent, the outermost object or array being level 1.
pub const MAX_DEPTH: usize = 32;

/// Reads a value that may be missing.
pub(super) fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    let value = Level(1).deserialize(deserializer)?;
    Ok(Some(value).filter(|value| !value.is_null()))
}

/// Reads an object, which may be missing.
pub(super) fn object<'de, D: Deserializer<'de>, T: From<Map<String, Value>> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    match Level(1).deserialize(deserializer)? {
        Value::Object(members) => Ok(members.into()),
        Value::Null => Ok(T::default()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(D::Error::custom("not an object"))
        }
    }
}

/// Reads an array that may be missing.
pub(super) fn array<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Value>>, D::Error> {
    match Level(1).deserialize(deserializer)? {
        Value::Array(items) => Ok(Some(items)),
        Value::Null => Ok(None),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Err(D::Error::custom("not an array"))
        }
    }
}

/// The level that an object or array at this place would have.
#[derive(Clone, Copy)]
struct Level(usize);

impl Level {
    fn is_too_deep(self) -> bool {
        self.0 > MAX_DEPTH
    }

    fn below(self) -> Self {
        Self(self.0 + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        if self.is_too_deep() {
            // To pass over a value takes no recursion.
            while items.next_element::<IgnoredAny>()?.is_some() {}
        } else {
            while let Some(item) = items.next_element_seed(self.below())? {
                array.push(item);
            }
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        if self.is_too_deep() {
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        } else {
            while let Some(key) = members.next_key::<String>()? {
                object.insert(key, members.next_value_seed(self.below())?);
            }
        }
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
    fn what_is_not_there_is_not_there() {
        let job: CrewJobSpec =
            serde_json::from_value(json!({ "topic": "t", "inputs": null, "args": null, "kwargs": null })).unwrap();
        assert_eq!(job, CrewJobSpec::on("t"));
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
        fn what_is_not_too_deep_is_read_as_it_is(value in any_json()) {
            let read = Level(1).deserialize(&mut serde_json::Deserializer::from_str(&value.to_string())).unwrap();
            prop_assert_eq!(read, serde_json::from_str::<Value>(&value.to_string()).unwrap());
        }
    }
}
