//! What a bug report does not say: what jobs are about, what they returned, and what may be a secret.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

/// User and password in a URL.
static CREDENTIALS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"://[^/@\s]+@").ok());
/// Fields of a job's spec and status that are the user's.
const OF_THE_USER: [&str; 6] = ["topic", "inputs", "args", "kwargs", "result", "traceback"];
/// Annotations with copies of whole objects.
const COPIES: [&str; 1] = ["kubectl.kubernetes.io/last-applied-configuration"];

/// Replaces them, in objects of any kind. `open` leaves what jobs are about and what they returned.
pub fn redact(value: &mut Value, open: bool) {
    match value {
        Value::Object(fields) => {
            fields.remove("managedFields");
            if let Some(annotations) = fields.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.retain(|name, _| !COPIES.contains(&name.as_str()));
            }
            // A variable of a container: its name is told, and whether it has a value.
            if fields.contains_key("name") && fields.get("value").is_some_and(Value::is_string) {
                fields.insert("value".to_owned(), "(redacted)".into());
            }
            let is_job = fields.get("kind").is_some_and(|kind| kind == "CrewJob") || fields.contains_key("poolRef");
            let is_status = fields.contains_key("phase") && fields.contains_key("attempts");
            for (name, field) in fields.iter_mut() {
                if !open && (is_job || is_status || name == "traceback") && OF_THE_USER.contains(&name.as_str()) {
                    *field = json!(format!("(redacted, {} bytes)", field.to_string().len()));
                } else {
                    redact(field, open);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, open)),
        Value::String(text) => {
            if let Some(credentials) = &*CREDENTIALS
                && credentials.is_match(text)
            {
                *text = credentials.replace_all(text, "://(redacted)@").into_owned();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Value {
        json!({
            "kind": "CrewJob",
            "metadata": {
                "name": "tea", "managedFields": [{ "manager": "kubectl" }],
                "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{\"topic\":\"private\"}", "team": "a" },
            },
            "spec": { "topic": "private", "inputs": { "audience": "private" }, "kwargs": { "a": "private" }, "poolRef": { "name": "default" } },
            "status": {
                "phase": "Failed", "attempts": 1, "result": { "value": "private" },
                "error": { "type": "ValueError", "traceback": "private" },
            },
        })
    }

    #[test]
    fn what_a_job_is_about_and_what_it_returned_is_not_told_unless_that_was_asked_for() {
        let mut closed = json!([job()]);
        redact(&mut closed, false);
        assert!(!closed.to_string().contains("private"), "{closed:#}");
        let kept = &closed[0];
        assert_eq!(
            (&kept["metadata"]["annotations"]["team"], &kept["status"]["error"]["type"]),
            (&json!("a"), &json!("ValueError"))
        );
        assert_eq!(kept["spec"]["poolRef"]["name"], "default");
        let mut open = json!([job()]);
        redact(&mut open, true);
        assert_eq!(open[0]["spec"]["inputs"]["audience"], "private");
    }

    #[test]
    fn what_may_be_a_secret_is_never_told() {
        let mut pod = json!({
            "kind": "Pod",
            "spec": { "containers": [{
                "name": "worker",
                "args": ["--broker", "rediss://user:pass@redis:6379/0"],
                "env": [{ "name": "OPENAI_API_KEY", "value": "sk-123" }, { "name": "REDIS_URL", "valueFrom": { "secretKeyRef": { "name": "redis" } } }],
            }] },
        });
        redact(&mut pod, true);
        let text = pod.to_string();
        assert!(!text.contains("pass") && !text.contains("sk-123"), "{text}");
        assert!(
            text.contains("OPENAI_API_KEY") && text.contains("secretKeyRef") && text.contains("@redis:6379/0"),
            "{text}"
        );
    }
}
