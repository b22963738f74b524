//! What kubectl prints.

use crewjob::api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{JOB, POOL};
use crate::control_plane::ControlPlane;

#[track_caller]
fn assert_prints(printed: &str, expected: &[&str]) {
    // kubectl explain wraps its lines.
    let flowing = printed.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in expected {
        assert!(flowing.contains(text), "{text:?} is missing in\n{printed}");
    }
}

/// The words of a table's header, columns with blanks in their names told apart by two blanks.
fn header(table: &str) -> Vec<&str> {
    table.lines().next().unwrap_or_default().split("  ").map(str::trim).filter(|column| !column.is_empty()).collect()
}

#[test]
fn the_definitions_are_established_and_structural() {
    let server = ControlPlane::shared();
    let definitions: Api<CustomResourceDefinition> = Api::all(server.client());
    for definition in api::crds() {
        let found = server.block_on(definitions.get(&definition.name_any())).unwrap();
        let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
        let holds = |name: &str| conditions.iter().any(|c| c.type_ == name && c.status == "True");
        assert!(holds("Established") && holds("NamesAccepted") && !holds("NonStructuralSchema"), "{conditions:?}");
    }
}

#[test]
fn explain_says_what_users_need_to_know() {
    let server = ControlPlane::shared();
    assert_prints(
        &server.kubectl("explain crewjob.spec"),
        &["GROUP: crewjob.dev", "topic <string> -required-", "ttlAfterFinished <string>", "retryPolicy <Object>"],
    );
    assert_prints(
        &server.kubectl("explain crewj.spec.priority"),
        &["10 is the most urgent", "`10 - priority`", "four bands", "8 to 10, 5 to 7, 2 to 4, 0 to 1"],
    );
    assert_prints(
        &server.kubectl("explain crewjob.spec.retryPolicy.onUnknown"),
        &["ENUM: Fail Retry", "paid for twice"],
    );
    assert_prints(&server.kubectl("explain crewjob.status.worker"), &["podUID <string>", "containerID <string>"]);
    assert_prints(
        &server.kubectl("explain crewpool.spec.redis.secretName"),
        &["crewjob.dev/redis: \"true\"", "REDIS_URL"],
    );
}

#[test]
fn every_field_is_explained() {
    let server = ControlPlane::shared();
    for kind in ["crewjob", "crewworkerpool", "crewschedule"] {
        let printed = server.kubectl(&format!("explain {kind} --recursive"));
        assert_prints(&printed, &["spec <Object> -required-", "status <Object>"]);
        for definition in api::crds() {
            let schema = &definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema;
            undescribed(&serde_json::to_value(schema).unwrap(), "");
        }
    }
}

/// Panics at the first field without a description.
fn undescribed(schema: &serde_json::Value, path: &str) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(field["description"].as_str().is_some_and(|text| text.ends_with('.')), "{path} is not described");
        undescribed(field, &path);
        undescribed(&field["items"], &path);
    }
}

#[test]
fn a_list_of_jobs_shows_what_matters() {
    let server = ControlPlane::shared();
    let namespace = server.namespace();
    let job = JOB.create_in(&namespace, "{ topic: Introduction to machine learning, priority: 8 }");
    let new = server.kubectl(&format!("-n {namespace} get crewj"));
    assert_eq!(header(&new), ["NAME", "PHASE", "REASON", "PRIORITY", "ATTEMPTS", "AGE"]);
    assert_prints(&new, &[&format!("{} Pending 8 0 ", job.name)]);

    job.merge_status(&json!({ "phase": "Running", "attempts": 2, "taskID": "7f1c", "worker": { "name": "crew@w-1" },
        "expiryBucket": "2026-11-22T15" }))
        .unwrap();
    let wide = server.kubectl(&format!("-n {namespace} get crewjobs -o wide"));
    assert_eq!(
        header(&wide),
        [
            "NAME", "PHASE", "REASON", "PRIORITY", "ATTEMPTS", "AGE", "POOL", "WORKER", "TASK ID", "COST", "EXPIRES",
            "TOPIC"
        ]
    );
    assert_prints(&wide, &["Running 8 2", "default crew@w-1 7f1c 2026-11-22T15 Introduction to machine learning"]);
}

#[test]
fn a_list_of_jobs_says_why_one_is_not_running() {
    let server = ControlPlane::shared();
    let namespace = server.namespace();
    for (reason, phase) in [("PoolNotFound", "Pending"), ("CrashLoop", "Queued"), ("RetriesExhausted", "Failed")] {
        let job = JOB.create_in(&namespace, "");
        let reconciling = json!({
            "type": "Reconciling", "status": if phase == "Failed" { "False" } else { "True" }, "reason": reason,
            "message": "", "lastTransitionTime": "2026-11-22T15:00:00Z",
        });
        let other = json!({
            "type": "SpecChanged", "status": "True", "reason": "SpecChanged", "message": "",
            "lastTransitionTime": "2026-11-22T15:00:00Z",
        });
        job.merge_status(&json!({ "phase": phase, "conditions": [other, reconciling] })).unwrap();
        let table = server.kubectl(&format!("-n {namespace} get crewjob {}", job.name));
        assert_prints(&table, &[&format!("{} {phase} {reason} 5 0 ", job.name)]);
    }
}

#[test]
fn a_list_of_pools_shows_their_load() {
    let server = ControlPlane::shared();
    let namespace = server.namespace();
    let pool = POOL.create_in(&namespace, "deploymentRef: { name: crewjob-worker }");
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "AsExpected", "message": "", "lastTransitionTime": "2026-11-22T15:00:00Z",
    });
    let replicas = json!({ "desired": 4, "ready": 3, "busy": 2 });
    pool.merge_status(&json!({ "depth": 12, "inFlight": 2, "replicas": replicas, "conditions": [ready] })).unwrap();
    let table = server.kubectl(&format!("-n {namespace} get crewpool"));
    assert_eq!(header(&table), ["NAME", "READY", "DEPTH", "IN FLIGHT", "REPLICAS", "AGE"]);
    assert_prints(&table, &["True 12 2 3 "]);
    let wide = server.kubectl(&format!("-n {namespace} get crewpool -o wide"));
    assert_prints(&wide, &["4 2 crewjob-worker AsExpected"]);
}

#[test]
fn the_category_lists_both_kinds() {
    let server = ControlPlane::shared();
    let namespace = server.namespace();
    let (job, pool) = (JOB.create_in(&namespace, ""), POOL.create_in(&namespace, ""));
    let printed = server.kubectl(&format!("-n {namespace} get crew -o name"));
    assert_prints(
        &printed,
        &[&format!("crewjob.crewjob.dev/{}", job.name), &format!("crewworkerpool.crewjob.dev/{}", pool.name)],
    );
}
