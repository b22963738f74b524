//! From the body of `POST /api/submit` to the CrewJob that it stands for.
//!
//! The members are the fields of a CrewJob's spec as the definition has them, so that the short form has every field of this version,
//! and a few beside them. The API server checks the values.

use std::collections::BTreeSet;

use kube::Resource as _;
use serde_json::{Map, Value, json};

use crate::api::{self, CrewJob};
use crate::core::gateway::id::{is_name, is_namespace};
use crate::core::gateway::problem::{Kind, Problem, member};
use crate::core::stem::stem;

/// Members beside the fields of the spec.
pub const BESIDE: [&str; 5] = ["annotations", "labels", "name", "namespace", "pool"];

/// The fields of a spec.
#[derive(Debug, Clone)]
pub struct Fields {
    /// Their schemas, as the definition has them.
    pub schemas: Map<String, Value>,
    known: BTreeSet<String>,
}

/// What a body stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    /// The namespace of the job.
    pub namespace: String,
    /// The object; it has a name if the body does, and otherwise what the API server begins one with.
    pub object: Value,
    /// The body in one spelling, for a digest.
    pub canonical: String,
}

impl Fields {
    /// Those of the definition that this program has.
    pub fn of_definition() -> Self {
        let [job, ..] = api::crds();
        let schema = job.spec.versions.into_iter().find_map(|version| version.schema?.open_api_v3_schema);
        let schema = serde_json::to_value(schema).unwrap_or_default();
        let schemas = schema["properties"]["spec"]["properties"].as_object().cloned().unwrap_or_default();
        let known = schemas.keys().cloned().chain(BESIDE.map(ToOwned::to_owned)).collect();
        Self { schemas, known }
    }

    /// Reads a body. A job that names no namespace is of `home`.
    pub fn read(&self, body: &[u8], home: &str) -> Result<Form, Problem> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| Problem::new(Kind::InvalidBody, format!("it is no JSON: {error}")))?;
        let canonical = value.to_string();
        let Value::Object(mut members) = value else {
            return Err(Problem::new(Kind::InvalidBody, "it is no JSON object, such as {\"topic\": \"…\"}"));
        };
        if let Some(unknown) = members.keys().find(|name| !self.known.contains(*name)) {
            let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
            return Err(Problem::of_field(
                member(unknown),
                format!("there is no such field; there are {}", known.join(", ")),
            ));
        }
        let namespace = name(&mut members, "namespace", is_namespace)?.unwrap_or_else(|| home.to_owned());
        let mut metadata = match name(&mut members, "name", is_name)? {
            Some(name) => json!({ "name": name }),
            None => json!({ "generateName": stem(members.get("topic").and_then(Value::as_str).unwrap_or_default()) }),
        };
        for field in ["labels", "annotations"] {
            if let Some(texts) = texts(&mut members, field)? {
                metadata[field] = texts;
            }
        }
        if let Some(pool) = name(&mut members, "pool", is_name)? {
            if members.contains_key("poolRef") {
                return Err(Problem::of_field("/pool", "poolRef is there as well; one of them is enough"));
            }
            members.insert("poolRef".into(), json!({ "name": pool }));
        }
        let (version, kind) = (CrewJob::api_version(&()), CrewJob::kind(&()));
        let object = json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": members });
        Ok(Form { namespace, object, canonical })
    }
}

impl Form {
    /// Notes something at the object that is the gateway's to say.
    pub fn annotate(&mut self, name: &str, value: &str) {
        let annotations = &mut self.object["metadata"]["annotations"];
        if !annotations.is_object() {
            *annotations = json!({});
        }
        annotations[name] = value.into();
    }

    /// Gives the object this name. Refused where the body has another one.
    pub fn rename(&mut self, name: &str) -> Result<(), Problem> {
        let Some(metadata) = self.object["metadata"].as_object_mut() else { return Ok(()) };
        if metadata.contains_key("name") {
            return Err(Problem::of_field(
                "/name",
                "with an Idempotency-Key the name follows from the key: leave it out",
            ));
        }
        metadata.remove("generateName");
        metadata.insert("name".into(), name.into());
        Ok(())
    }
}

fn name(members: &mut Map<String, Value>, field: &str, is_valid: fn(&str) -> bool) -> Result<Option<String>, Problem> {
    match members.remove(field) {
        None => Ok(None),
        Some(Value::String(text)) if is_valid(&text) => Ok(Some(text)),
        Some(_) => Err(Problem::of_field(format!("/{field}"), "it is no name that Kubernetes takes")),
    }
}

fn texts(members: &mut Map<String, Value>, field: &str) -> Result<Option<Value>, Problem> {
    match members.remove(field) {
        None => Ok(None),
        Some(Value::Object(texts)) if texts.values().all(Value::is_string) => Ok(Some(texts.into())),
        Some(_) => Err(Problem::of_field(format!("/{field}"), "it is no object of texts")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Value) -> Result<Form, Problem> {
        Fields::of_definition().read(body.to_string().as_bytes(), "home")
    }

    #[test]
    fn the_short_form_has_every_field_of_a_spec_and_the_pool_by_its_name() {
        let form = read(&json!({
            "topic": "Tides!", "inputs": { "a": 1 }, "priority": 9, "pool": "gpu", "namespace": "team", "labels": { "a": "b" },
            "retryPolicy": { "maxRetries": 0 },
        }))
        .unwrap();
        assert_eq!(form.namespace, "team");
        assert_eq!(
            form.object,
            json!({
                "apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob",
                "metadata": { "generateName": "tides-", "labels": { "a": "b" } },
                "spec": {
                    "topic": "Tides!", "inputs": { "a": 1 }, "priority": 9, "poolRef": { "name": "gpu" },
                    "retryPolicy": { "maxRetries": 0 },
                },
            })
        );
        let fields = Fields::of_definition();
        for field in ["topic", "inputs", "runOnce", "timeouts", "ttlAfterFinished"] {
            assert!(fields.schemas.contains_key(field), "{field}");
        }
        assert!(BESIDE.iter().all(|name| !fields.schemas.contains_key(*name)), "no field has two meanings");
    }

    #[test]
    fn a_body_that_is_no_form_is_refused_with_the_field() {
        for (body, place) in [
            (json!({ "topic": "t", "prio": 1 }), "/prio"),
            (json!({ "topic": "t", "a/b": 1 }), "/a~1b"),
            (json!({ "topic": "t", "namespace": "../kube-system" }), "/namespace"),
            (json!({ "topic": "t", "namespace": 1 }), "/namespace"),
            (json!({ "topic": "t", "name": "A" }), "/name"),
            (json!({ "topic": "t", "labels": { "a": 1 } }), "/labels"),
            (json!({ "topic": "t", "pool": "a", "poolRef": { "name": "a" } }), "/pool"),
        ] {
            let problem = read(&body).unwrap_err();
            assert_eq!((problem.kind, &*problem.flaws[0].pointer), (Kind::InvalidBody, place), "{body}");
        }
        for body in ["", "{", "[]", "1", "\"topic\"", "{\"topic\": \"t\"} x", "\u{feff}{}"] {
            let refused = Fields::of_definition().read(body.as_bytes(), "home").unwrap_err();
            assert_eq!(refused.kind, Kind::InvalidBody, "{body}");
        }
        let deep = format!("{{\"inputs\": {}1{}}}", "[".repeat(500), "]".repeat(500));
        assert!(Fields::of_definition().read(deep.as_bytes(), "home").is_err());
    }

    #[test]
    fn two_spellings_of_a_body_are_one_and_two_bodies_are_two() {
        let fields = Fields::of_definition();
        let canonical = |body: &str| fields.read(body.as_bytes(), "home").unwrap().canonical;
        let one = canonical(r#"{"topic": "t", "inputs": {"a": 1, "b": 2}}"#);
        assert_eq!(one, canonical("{\"inputs\":\n{\"b\":2,\"a\":1},\"topic\":\"\\u0074\"}"));
        assert_ne!(one, canonical(r#"{"topic": "t", "inputs": {"a": 1, "b": 3}}"#));
    }

    #[test]
    fn what_the_gateway_notes_wins_over_what_the_body_says() {
        let mut form =
            read(&json!({ "topic": "t", "annotations": { "crewjob.dev/gateway-request": "forged", "a": "b" } }))
                .unwrap();
        form.annotate("crewjob.dev/gateway-request", "real");
        form.rename("key-1").unwrap();
        let expected = json!({ "name": "key-1", "annotations": { "crewjob.dev/gateway-request": "real", "a": "b" } });
        assert_eq!(form.object["metadata"], expected);
        assert!(read(&json!({ "topic": "t", "name": "mine" })).unwrap().rename("key-1").is_err());
    }
}
