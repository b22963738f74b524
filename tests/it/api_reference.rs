//! Renders `docs/api.md` from the resource definitions.

use std::fmt::Write;

use crewjob::api::{ConditionType, Phase, Reason};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::{JsonSchema, schema_for};
use serde_json::Value;

/// The whole page.
pub fn render(definitions: &[CustomResourceDefinition]) -> String {
    let mut page = String::from(
        "<!-- Made by `make generate` from src/api. Do not edit. -->\n\
         # API reference\n\n\
         `kubectl explain crewjob.spec` and `kubectl explain crewworkerpool.spec` print the same. Durations are written in \
         hours, minutes, seconds and milliseconds, such as `50m`, `1h30m` or `500ms`; a week is `168h`.\n",
    );
    for definition in definitions {
        page.push_str(&kind(&serde_json::to_value(definition).unwrap()));
    }
    page.push_str("\n## Phases of a CrewJob\n");
    page.push_str(&words::<Phase>("Phase"));
    page.push_str("\n## Conditions\n");
    page.push_str(&words::<ConditionType>("Type"));
    page.push_str("\n## Reasons\n\nThe `reason` of every condition is one of these words.\n");
    page.push_str(&words::<Reason>("Reason"));
    page
}

fn kind(definition: &Value) -> String {
    let names = &definition["spec"]["names"];
    let version = &definition["spec"]["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut out = format!(
        "\n## {}\n\n{}\n\nAPI version `{}/{}`, short name `{}`, category `{}`.",
        text(&names["kind"]),
        text(&schema["description"]),
        text(&definition["spec"]["group"]),
        text(&version["name"]),
        text(&names["shortNames"][0]),
        text(&names["categories"][0]),
    );
    if let Some(fields) = version["selectableFields"].as_array() {
        let paths: Vec<_> =
            fields.iter().map(|f| format!("`{}`", text(&f["jsonPath"]).trim_start_matches('.'))).collect();
        write!(out, " Field selectors: {}.", paths.join(", ")).unwrap();
    }
    out.push('\n');
    let rules: Vec<&str> = schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|rule| text(&rule["message"]))
        .collect();
    if !rules.is_empty() {
        out.push_str("\nThe API server holds that:\n\n");
        for rule in rules {
            writeln!(out, "* {rule}").unwrap();
        }
    }
    for part in ["spec", "status"] {
        let schema = &schema["properties"][part];
        write!(out, "\n### {part}\n\n{}\n", cell(text(&schema["description"]))).unwrap();
        out.push_str("\n| Field | Type | Default | Meaning |\n|---|---|---|---|\n");
        rows(&mut out, "", schema);
    }
    out
}

fn rows(out: &mut String, prefix: &str, object: &Value) {
    let required: Vec<&str> = object["required"].as_array().into_iter().flatten().map(text).collect();
    for (name, schema) in object["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        let default = match &schema["default"] {
            Value::Null if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => String::new(),
            default @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
                format!("`{}`", default.to_string().replace('|', "\\|"))
            }
        };
        let meaning = cell(text(&schema["description"]));
        writeln!(out, "| `{path}` | {} | {default} | {meaning} |", type_of(schema)).unwrap();
        rows(out, &format!("{path}."), schema);
        rows(out, &format!("{path}[]."), &schema["items"]);
    }
}

fn type_of(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(|word| format!("`{}`", text(word))).collect::<Vec<_>>().join(" ");
    }
    match schema["type"].as_str() {
        None => "any JSON".to_owned(),
        Some("array") => format!("list of {}", type_of(&schema["items"])),
        Some("object") if schema["x-kubernetes-preserve-unknown-fields"] == true => "any object".to_owned(),
        Some("string") if schema["format"] == "date-time" => "time".to_owned(),
        Some("string") if text(&schema["pattern"]).contains("h|m|s|ms") => "duration".to_owned(),
        Some(plain) => plain.to_owned(),
    }
}

/// A table of the variants of an enum with their doc comments.
fn words<T: JsonSchema>(title: &str) -> String {
    let mut out = format!("\n| {title} | Meaning |\n|---|---|\n");
    let schema = schema_for!(T).to_value();
    for variant in schema["oneOf"].as_array().expect("every variant has a doc comment") {
        writeln!(out, "| `{}` | {} |", text(&variant["const"]), cell(text(&variant["description"]))).unwrap();
    }
    out
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn cell(text: &str) -> String {
    let paragraphs: Vec<_> = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
    paragraphs.join("<br>").replace('|', "\\|")
}
