//! What a job sends to its task: the arguments, their digest, and what could not be sent.

use std::io;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::free_form::{MAX_BYTES, MAX_DEPTH, is_too_large, is_too_large_array};
use super::{CrewJob, CrewJobSpec};
use crate::core::id::SpecHash;
use crate::core::status::head;

impl CrewJob {
    /// Positional and keyword arguments of the task.
    ///
    /// The topic is merged over the inputs; `args` and `kwargs` of the spec go verbatim instead when given.
    pub fn call(&self) -> (Vec<Value>, Map<String, Value>) {
        let spec = &self.spec;
        if spec.args.is_some() || spec.kwargs.is_some() {
            return (spec.args.clone().unwrap_or_default(), spec.kwargs.clone().unwrap_or_default());
        }
        let mut inputs = spec.inputs.clone();
        inputs.insert("topic".to_owned(), spec.topic.clone().into());
        let mut kwargs = Map::new();
        kwargs.insert("inputs".to_owned(), Value::Object(inputs));
        kwargs.insert("bypass_cache".to_owned(), spec.bypass_cache.into());
        (vec![self.metadata.name.clone().unwrap_or_default().into()], kwargs)
    }
}

impl CrewJobSpec {
    /// Digest of everything an attempt runs. `serde_json` keeps keys sorted, so that equal values have equal digests.
    pub fn hash(&self) -> SpecHash {
        let mut digest = Payload::default();
        // Writing to a digest never fails, and these always have a text.
        let payload = (&self.task, &self.topic, &self.inputs, &self.args, &self.kwargs, self.bypass_cache);
        let _ = serde_json::to_writer(&mut digest, &payload);
        let digest = digest.0.finalize();
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        SpecHash(hash)
    }

    /// Bytes that the free-form parts take in memory, about.
    pub fn weight(&self) -> usize {
        let inputs =
            self.inputs.iter().chain(self.kwargs.iter().flatten()).map(|(key, value)| key.len() + weight(value));
        inputs.chain(self.args.iter().flatten().map(weight)).sum()
    }

    /// Why no worker could take this job, where the schema cannot tell; it names the field.
    pub fn problem(&self) -> Option<String> {
        let too_large = [
            ("inputs", is_too_large(&self.inputs)),
            ("args", self.args.as_deref().is_some_and(is_too_large_array)),
            ("kwargs", self.kwargs.as_ref().is_some_and(is_too_large)),
        ];
        if let Some((field, _)) = too_large.iter().find(|(_, is_too_large)| *is_too_large) {
            return Some(format!(
                "spec.{field} has more than {MAX_BYTES} bytes of JSON, which are the most that a task is sent"
            ));
        }
        let inputs = self.inputs.iter().map(|(key, value)| (format!("spec.inputs.{key}"), value));
        let args = self.args.iter().flatten().enumerate().map(|(i, value)| (format!("spec.args[{i}]"), value));
        let kwargs = self.kwargs.iter().flatten().map(|(key, value)| (format!("spec.kwargs.{key}"), value));
        let reserved = [("spec.inputs", Some(&self.inputs)), ("spec.kwargs", self.kwargs.as_ref())];
        reserved
            .iter()
            .find(|(_, object)| object.is_some_and(is_reserved))
            .map(|(field, _)| reserved_message(field))
            .or_else(|| inputs.chain(args).chain(kwargs).find_map(|(path, value)| problem_at(&path, value, 2)))
    }
}

/// The digest of what is written to it.
#[derive(Default)]
struct Payload(Sha256);

impl io::Write for Payload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn weight(value: &Value) -> usize {
    /// A value, and its place in an object.
    const VALUE: usize = 64;
    VALUE
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(members) => members.iter().map(|(key, value)| key.len() + weight(value)).sum(),
        }
}

fn is_reserved(object: &Map<String, Value>) -> bool {
    object.len() == 2 && object.contains_key("__type__") && object.contains_key("__value__")
}

fn reserved_message(path: &str) -> String {
    let path = shortened(path);
    format!("{path} has exactly the keys \"__type__\" and \"__value__\", which Celery would decode; rename one")
}

/// A path that leaves room for what is wrong with it: messages are cut at 256 bytes.
fn shortened(path: &str) -> String {
    const ROOM: usize = 96;
    if path.len() <= ROOM { path.to_owned() } else { format!("{}…", head(path, ROOM)) }
}

fn problem_at(path: &str, value: &Value, depth: usize) -> Option<String> {
    let nested = matches!(value, Value::Array(_) | Value::Object(_));
    if nested && depth > MAX_DEPTH {
        let path = shortened(path);
        return Some(format!("{path} is nested more than {MAX_DEPTH} levels deep"));
    }
    match value {
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(i, item)| problem_at(&format!("{path}[{i}]"), item, depth + 1))
        }
        Value::Object(object) if is_reserved(object) => Some(reserved_message(path)),
        Value::Object(object) => {
            object.iter().find_map(|(key, item)| problem_at(&format!("{path}.{key}"), item, depth + 1))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_long_path_is_shortened_so_that_the_message_has_room_for_the_problem() {
        let deep = (0..40).fold(Value::Null, |inner, _| serde_json::json!({ "a-rather-long-key": inner }));
        let mut spec = CrewJobSpec::with_topic("bees");
        spec.inputs.insert("deep".to_owned(), deep);
        let problem = spec.problem().unwrap();
        assert!(problem.starts_with("spec.inputs.deep.a-rather") && problem.len() < 256, "{problem}");
        assert!(problem.ends_with("… is nested more than 32 levels deep"), "{problem}");
    }

    fn job(spec: &str) -> CrewJob {
        let spec: CrewJobSpec = serde_saphyr::from_str(&format!("topic: bees\n{spec}")).unwrap();
        CrewJob::new("intro", spec)
    }

    #[track_caller]
    fn check_call(spec: &str, expected: &str) {
        let (args, kwargs) = job(spec).call();
        assert_eq!(json!([args, kwargs]), serde_json::from_str::<Value>(expected).unwrap());
    }

    #[test]
    fn a_task_gets_the_jobs_name_and_its_inputs_with_the_topic_among_them() {
        check_call("", r#"[["intro"], {"inputs": {"topic": "bees"}, "bypass_cache": false}]"#);
        check_call(
            "inputs: { level: 3, topic: wasps }\nbypassCache: true",
            r#"[["intro"], {"inputs": {"level": 3, "topic": "bees"}, "bypass_cache": true}]"#,
        );
    }

    #[test]
    fn arguments_of_the_spec_are_sent_as_they_are() {
        check_call("args: [1, null]", "[[1, null], {}]");
        check_call("kwargs: { a: 1 }\ninputs: { b: 2 }", r#"[[], {"a": 1}]"#);
        check_call("args: []", "[[], {}]");
    }

    #[test]
    fn whatever_a_task_gets_is_in_the_digest_and_nothing_else() {
        let hash = |spec: &str| job(spec).spec.hash();
        let same = hash("");
        for spec in ["priority: 9", "suspend: true", "cancel: true", "queue: a", "timeouts: { total: 1h }"] {
            assert_eq!(hash(spec), same, "{spec}");
        }
        for spec in ["task: a", "inputs: { a: 1 }", "args: []", "args: [1]", "kwargs: {}", "bypassCache: true"] {
            assert_ne!(hash(spec), same, "{spec}");
        }
        assert_eq!(hash("inputs: { a: 1, b: 2 }"), hash("inputs: { b: 2, a: 1 }"));
        assert_ne!(CrewJobSpec::with_topic("wasps").hash(), same);
    }

    #[test]
    fn the_digest_is_the_same_in_every_version() {
        assert_eq!(job("inputs: { a: [1, null, ü] }").spec.hash().to_string(), "0901dd8d1db6e7d0725ce23e19e190a2");
    }

    #[track_caller]
    fn check_problem(spec: &str, expected: Option<&str>) {
        assert_eq!(job(spec).spec.problem().as_deref(), expected);
    }

    #[test]
    fn inputs_that_are_too_large_are_a_problem_that_names_the_field() {
        let text = |bytes: usize| "a".repeat(bytes);
        check_problem(&format!("inputs: {{ a: {} }}", text((64 << 10) - 8)), None);
        for (spec, field) in [
            (format!("inputs: {{ a: {} }}", text((64 << 10) - 7)), "inputs"),
            (format!("args: [{}]", text((64 << 10) - 3)), "args"),
            (format!("kwargs: {{ a: {} }}", text((64 << 10) - 7)), "kwargs"),
        ] {
            let problem = "has more than 65536 bytes of JSON, which are the most that a task is sent";
            check_problem(&spec, Some(&format!("spec.{field} {problem}")));
        }
    }

    #[test]
    fn an_object_that_celery_would_decode_is_a_problem_wherever_it_is() {
        let typed = "{ __type__: datetime, __value__: 1 }";
        for (spec, path) in [
            (format!("inputs: {typed}"), "spec.inputs"),
            (format!("inputs: {{ a: [0, {{ b: {typed} }}] }}"), "spec.inputs.a[1].b"),
            (format!("args: [{typed}]"), "spec.args[0]"),
            (format!("kwargs: {{ a: {typed} }}"), "spec.kwargs.a"),
        ] {
            let problem = job(&spec).spec.problem().unwrap();
            assert!(problem.starts_with(&format!("{path} has exactly the keys")), "{problem}");
        }
        check_problem("inputs: { a: { __type__: 1, __value__: 1, more: 1 }, b: { __type__: 1 } }", None);
    }
}
