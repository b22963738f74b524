//! The description of the interface, as `OpenAPI` 3.1 has it: made from the types that are answered with, the definition of a CrewJob,
//! and the list of problems.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::config::Mode;
use super::form::{BESIDE, Fields};
use super::view::Job;
use crate::core::gateway::problem::{Kind, TYPES};
use crate::core::gateway::route::{GROUP, RESOURCES, VERSION};

/// One operation of the short form.
struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    success: (u16, &'static str),
    problems: &'static [Kind],
}

const OPERATIONS: [Operation; 5] = [
    Operation {
        method: "post",
        path: "/api/submit",
        id: "submit",
        summary: "Makes a job. With an Idempotency-Key, the same request makes it once, however often and to whichever replica it is sent.",
        success: (202, "Job"),
        problems: &[
            Kind::InvalidBody,
            Kind::InvalidKey,
            Kind::CrossSite,
            Kind::Conflict,
            Kind::TooLarge,
            Kind::TooSlow,
            Kind::MediaType,
            Kind::Invalid,
            Kind::KeyReused,
        ],
    },
    Operation {
        method: "get",
        path: "/api/status/{id}",
        id: "status",
        summary: "How a job is.",
        success: (200, "Job"),
        problems: &[Kind::NoSuchJob],
    },
    Operation {
        method: "get",
        path: "/api/result/{id}",
        id: "result",
        summary: "What a job has returned, as it is.",
        success: (200, "Result"),
        problems: &[Kind::NoSuchJob, Kind::NoResult, Kind::NotFinished, Kind::ResultOnRedis],
    },
    Operation {
        method: "post",
        path: "/api/cancel/{id}",
        id: "cancel",
        summary: "Asks for the end of a job: 202, or 200 where it is over already, with the job.",
        success: (202, "Job"),
        problems: &[Kind::CrossSite, Kind::NoSuchJob, Kind::MediaType],
    },
    Operation {
        method: "get",
        path: "/api/events/{id}",
        id: "events",
        summary: "What happens to a job, as server-sent events: phase, progress, end, and error where the stream cannot go on. 204 after the \
                  end, for a client that has had it.",
        success: (200, "Events"),
        problems: &[Kind::NoSuchJob, Kind::TooManyStreams],
    },
];

/// What any operation may answer.
const ANY: [Kind; 10] = [
    Kind::BadPath,
    Kind::RefusedHeader,
    Kind::Unauthenticated,
    Kind::Forbidden,
    Kind::RateLimited,
    Kind::Overloaded,
    Kind::ApiServerFailed,
    Kind::ApiServerBusy,
    Kind::ApiServerUnavailable,
    Kind::ApiServerTooSlow,
];

/// The document, for a gateway below this prefix.
pub fn document(fields: &Fields, prefix: &str, mode: Mode) -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let job = schema::<Job>(&mut generator);
    let mut schemas: Map<String, Value> = generator.take_definitions(true).into_iter().collect();
    schemas.insert("Job".into(), job);
    schemas.insert("Submission".into(), submission(fields));
    schemas.insert("Problem".into(), problem());
    let mut paths = Map::new();
    for operation in &OPERATIONS {
        paths.insert(operation.path.into(), json!({ operation.method: described(operation) }));
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "CrewJob gateway", "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "Jobs over HTTP. Beside these paths, those of Kubernetes for {} under /apis/{GROUP}/{VERSION} are passed on as they are: \
                 the API server describes them.", RESOURCES.join(", "),
            ),
        },
        "servers": [{ "url": if prefix.is_empty() { "/" } else { prefix } }],
        "paths": paths,
        "components": { "schemas": schemas },
    });
    if mode == Mode::Forward {
        document["security"] = json!([{ "token": [] }]);
        let description = "A token of the cluster, such as that of a service account. It goes on to the API server.";
        document["components"]["securitySchemes"] =
            json!({ "token": { "type": "http", "scheme": "bearer", "description": description } });
    }
    document
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    let mut schema = generator.root_schema_for::<T>().to_value();
    if let Some(members) = schema.as_object_mut() {
        for name in ["$schema", "components", "$defs"] {
            members.remove(name);
        }
    }
    schema
}

fn described(operation: &Operation) -> Value {
    let (status, content) = operation.success;
    let of_job = json!({ "schema": { "$ref": "#/components/schemas/Job" } });
    let content = match content {
        "Job" => json!({ "application/json": of_job }),
        "Events" => json!({ "text/event-stream": { "schema": { "type": "string" } } }),
        _ => json!({ "application/json": { "schema": {} }, "text/plain": { "schema": { "type": "string" } } }),
    };
    let mut responses = Map::new();
    responses.insert(status.to_string(), json!({ "description": operation.summary, "content": content }));
    let mut kinds: Vec<Kind> = operation.problems.iter().chain(&ANY).copied().collect();
    kinds.sort_by_key(|kind| kind.status());
    for kinds in kinds.chunk_by(|one, other| one.status() == other.status()) {
        let listed =
            kinds.iter().map(|kind| format!("{} ({})", kind.slug(), kind.title())).collect::<Vec<_>>().join("; ");
        let content = json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
        responses.insert(kinds[0].status().to_string(), json!({ "description": listed, "content": content }));
    }
    let mut described = json!({ "operationId": operation.id, "summary": operation.summary, "responses": responses });
    if operation.path.contains("{id}") {
        let description = "NAMESPACE.NAME of the job; a name without a dot is of the gateway's own namespace.";
        described["parameters"] = json!([{
            "name": "id", "in": "path", "required": true, "description": description, "schema": { "type": "string" },
        }]);
    } else {
        let description =
            "Up to 255 visible ASCII characters, a new key for each request that is not a repetition of another one.";
        described["parameters"] = json!([{
            "name": "Idempotency-Key", "in": "header", "description": description,
            "schema": { "type": "string", "minLength": 1, "maxLength": crate::core::gateway::key::LONGEST },
        }]);
        let of_submission = json!({ "schema": { "$ref": "#/components/schemas/Submission" } });
        described["requestBody"] = json!({ "required": true, "content": { "application/json": of_submission } });
    }
    described
}

/// The body of a submission: the fields of a spec, and those beside them.
pub fn submission(fields: &Fields) -> Value {
    let mut properties = fields.schemas.clone();
    let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    for name in BESIDE {
        let described = match name {
            "namespace" => json!({ "type": "string", "description": "Namespace of the job. Default: the gateway's." }),
            "pool" => json!({ "type": "string", "description": "The pool by its name, in place of poolRef." }),
            "name" => {
                let description =
                    "Name of the job. Default: one that begins like the topic. Not with an Idempotency-Key.";
                json!({ "type": "string", "description": description })
            }
            _ => texts.clone(),
        };
        properties.insert(name.into(), described);
    }
    json!({ "type": "object", "required": ["topic"], "additionalProperties": false, "properties": properties })
}

fn problem() -> Value {
    let types: Vec<String> = Kind::ALL.iter().map(|kind| format!("{TYPES}{}", kind.slug())).collect();
    let flaw =
        json!({ "type": "object", "properties": { "pointer": { "type": "string" }, "detail": { "type": "string" } } });
    json!({
        "type": "object", "description": "What is wrong, as RFC 9457 has it.", "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": { "type": "string", "enum": types }, "title": { "type": "string" }, "status": { "type": "integer" },
            "detail": { "type": "string" }, "errors": { "type": "array", "items": flaw },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// All references of a document.
    fn references(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                into.extend(members.get("$ref").and_then(Value::as_str).map(ToOwned::to_owned));
                members.values().for_each(|value| references(value, into));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, into)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere_and_every_path_is_one_of_the_gateways() {
        let document = document(&Fields::of_definition(), "/crew", Mode::Forward);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() >= 5, "{found:?}");
        for reference in found {
            let at = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(at).is_some(), "{reference}");
        }
        for operation in &OPERATIONS {
            let path = format!("/crew{}", operation.path.replace("{id}", "a.b"));
            let method = operation.method.to_uppercase();
            assert!(crate::core::gateway::route::route(&method, &path, "/crew", "home").is_ok(), "{path}");
        }
        assert_eq!(document["servers"][0]["url"], "/crew");
        assert_eq!(document["components"]["schemas"]["Submission"]["properties"]["priority"]["type"], "integer");
    }

    #[test]
    fn every_problem_is_of_some_operation() {
        let named: BTreeSet<&str> =
            OPERATIONS.iter().flat_map(|it| it.problems).chain(&ANY).map(|kind| kind.slug()).collect();
        let elsewhere = ["not-found", "method-not-allowed", "untrusted-proxy"];
        let missing: Vec<&str> = Kind::ALL
            .iter()
            .map(|kind| kind.slug())
            .filter(|it| !named.contains(it) && !elsewhere.contains(it))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
