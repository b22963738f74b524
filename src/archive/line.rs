//! What is kept of a job: the object as the API server gives it, without what is only of use there and, unless asked for,
//! without its inputs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// Annotation in which kubectl keeps a copy of the whole manifest, inputs included.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Fields of the spec that a task is called with.
const INPUTS: [&str; 3] = ["inputs", "args", "kwargs"];

/// A job as a line of the archive.
#[derive(Debug)]
pub struct Kept {
    /// The line, with its line feed.
    pub line: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// Hour in which the job expires.
    pub hour: Option<String>,
    /// Whether something deletes it already.
    pub is_being_deleted: bool,
}

/// Values are kept as they are written: numbers of any size stay what they are, and large inputs take no more memory
/// than their text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    api_version: String,
    kind: String,
    metadata: BTreeMap<String, Value>,
    #[serde(borrow)]
    spec: BTreeMap<String, &'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    status: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Expiry {
    expiry_bucket: Option<String>,
}

/// The line of a job, of which this is the object as JSON.
pub fn keep(object: &str, with_inputs: bool) -> Result<Kept, serde_json::Error> {
    let mut object: Object<'_> = serde_json::from_str(object)?;
    object.metadata.remove("managedFields");
    if let Some(Value::Object(annotations)) = object.metadata.get_mut("annotations") {
        annotations.remove(LAST_APPLIED);
    }
    if !with_inputs {
        object.spec.retain(|field, _| !INPUTS.contains(&field.as_str()));
    }
    let expiry: Expiry =
        object.status.map(|status| serde_json::from_str(status.get())).transpose()?.unwrap_or_default();
    let text = |field: &str| object.metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    // Between values a line break is as good as a space, and within them JSON has none.
    let line = serde_json::to_string(&object)?.replace(['\n', '\r'], " ");
    Ok(Kept {
        line: format!("{line}\n"),
        uid: text("uid"),
        version: text("resourceVersion"),
        hour: expiry.expiry_bucket,
        is_being_deleted: object.metadata.get("deletionTimestamp").is_some_and(|at| !at.is_null()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const JOB: &str = r#"{
        "apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob",
        "metadata": {
            "name": "tea", "namespace": "team", "uid": "7", "resourceVersion": "12", "managedFields": [{ "manager": "kubectl" }],
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "hunter2", "team": "tea" }
        },
        "spec": { "topic": "Tea", "inputs": { "password": "hunter2" }, "args": ["hunter2"], "kwargs": { "k": "hunter2" } },
        "status": { "phase": "Succeeded", "expiryBucket": "2026-11-22T15", "result": { "value": 12345678901234567890123 } }
    }"#;

    #[test]
    fn a_line_is_the_job_without_managed_fields_and_without_its_inputs_wherever_they_are() {
        let kept = keep(JOB, false).unwrap();
        assert!(!kept.line.contains("hunter2"), "{}", kept.line);
        let line: Value = serde_json::from_str(&kept.line.replace("12345678901234567890123", "1")).unwrap();
        assert_eq!(
            line,
            json!({
                "apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob",
                "metadata": {
                    "name": "tea", "namespace": "team", "uid": "7", "resourceVersion": "12",
                    "annotations": { "team": "tea" },
                },
                "spec": { "topic": "Tea" },
                "status": { "phase": "Succeeded", "expiryBucket": "2026-11-22T15", "result": { "value": 1 } },
            })
        );
        assert_eq!(
            (kept.uid.as_str(), kept.version.as_str(), kept.hour.as_deref()),
            ("7", "12", Some("2026-11-22T15"))
        );
    }

    #[test]
    fn inputs_are_kept_where_that_is_asked_for() {
        let kept = keep(JOB, true).unwrap();
        assert_eq!(kept.line.matches("hunter2").count(), 3, "not in the copy that kubectl made: {}", kept.line);
    }

    #[test]
    fn numbers_stay_as_they_are_and_a_job_is_one_line_however_it_was_written() {
        let kept = keep(JOB, false).unwrap();
        assert!(kept.line.contains("12345678901234567890123"));
        assert_eq!(kept.line.matches('\n').count(), 1);
        let spread = JOB.replace(r#""phase": "Succeeded""#, "\"phase\":\r\n\"Succeeded\"");
        assert_eq!(keep(&spread, false).unwrap().line.matches(['\n', '\r']).count(), 1);
    }

    #[test]
    fn what_is_no_job_is_an_error() {
        assert!(keep("{}", false).is_err());
        assert!(keep("<html>", false).is_err());
    }
}
