//! What a job sends to its task: the arguments, their digest, and what could not be sent.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{CrewJob, CrewJobSpec, free_form::MAX_DEPTH};
use crate::core::job::SpecHash;
use crate::core::status::head;

/// The largest `inputs`, `args` or `kwargs`, in bytes of compact JSON.
const MAX_BYTES: usize = 64 << 10;

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
        let payload = json!([self.task, self.topic, self.inputs, self.args, self.kwargs, self.bypass_cache]);
        let digest = Sha256::digest(payload.to_string().as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        SpecHash(hash)
    }

    /// Why no worker could take this job, where the schema cannot tell; it names the field.
    pub fn problem(&self) -> Option<String> {
        let sizes = [
            ("inputs", serde_json::to_vec(&self.inputs)),
            ("args", serde_json::to_vec(&self.args)),
            ("kwargs", serde_json::to_vec(&self.kwargs)),
        ];
        for (field, json) in sizes {
            let size = json.map_or(usize::MAX, |json| json.len());
            if size > MAX_BYTES {
                return Some(format!("spec.{field} has {size} bytes, at most {MAX_BYTES} are allowed"));
            }
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
    use super::*;

    #[test]
    fn a_long_path_is_shortened_so_that_the_message_says_what_is_wrong() {
        let deep = (0..40).fold(Value::Null, |inner, _| serde_json::json!({ "a-rather-long-key": inner }));
        let mut spec = CrewJobSpec::on("bees");
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
        assert_ne!(CrewJobSpec::on("wasps").hash(), same);
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
    fn what_is_too_large_is_a_problem_that_names_the_field() {
        let text = |bytes: usize| "a".repeat(bytes);
        check_problem(&format!("inputs: {{ a: {} }}", text((64 << 10) - 8)), None);
        for (spec, field) in [
            (format!("inputs: {{ a: {} }}", text((64 << 10) - 7)), "inputs"),
            (format!("args: [{}]", text((64 << 10) - 3)), "args"),
            (format!("kwargs: {{ a: {} }}", text((64 << 10) - 7)), "kwargs"),
        ] {
            check_problem(&spec, Some(&format!("spec.{field} has 65537 bytes, at most 65536 are allowed")));
        }
    }

    #[test]
    fn what_celery_would_decode_is_a_problem_wherever_it_is() {
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
