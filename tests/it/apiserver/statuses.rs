//! The status: a final phase stays, whichever client writes it and however.

use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use super::{JOB, POOL, Stored, assert_says};
use crate::control_plane::ControlPlane;

/// The ways to write a status.
type Write = fn(&Stored, &Value) -> Result<(), String>;
const WAYS: [(&str, Write); 3] =
    [("merge patch", Stored::merge_status), ("apply", Stored::apply_status), ("put", Stored::put_status)];

#[track_caller]
fn a_job_with_status(status: &Value) -> Stored {
    let job = JOB.create("");
    job.apply_status(status).unwrap();
    job
}

#[test]
fn a_new_job_is_pending_with_no_attempts_at_once() {
    let job = JOB.create("");
    assert_eq!(job.status(), json!({ "phase": "Pending", "attempts": 0, "observedGeneration": 0 }));
}

/// kstatus calls an object without conditions current unless `observedGeneration` differs from `generation`.
#[test]
fn an_object_that_no_operator_has_seen_has_an_observed_generation_that_is_behind() {
    for object in [JOB.create(""), POOL.create("")] {
        assert_eq!(object.get().metadata.generation, Some(1));
        assert_eq!(object.status()["observedGeneration"], 0, "{}", object.kind.name);
    }
}

#[test]
fn a_status_without_an_observed_generation_as_an_older_definition_allowed_is_served_with_one_that_is_behind() {
    for (way, write) in WAYS {
        let job = a_job_with_status(&json!({ "phase": "Queued", "observedGeneration": 1 }));
        let gone =
            if way == "merge patch" { json!({ "observedGeneration": null }) } else { json!({ "phase": "Queued" }) };
        write(&job, &gone).unwrap_or_else(|message| panic!("by {way}: {message}"));
        assert_eq!(job.status()["observedGeneration"], 0, "by {way}");
    }
}

#[test]
fn phases_lead_anywhere_until_one_is_final() {
    for (way, write) in WAYS {
        let job = JOB.create("");
        for phase in ["Queued", "Running", "Retrying", "Pending", "Queued", "Cancelled"] {
            write(&job, &json!({ "phase": phase })).unwrap_or_else(|message| panic!("{phase} by {way}: {message}"));
        }
    }
    let message = JOB.create("").merge_status(&json!({ "phase": "Lost" })).unwrap_err();
    assert_says(&message, "status.phase: Unsupported value: \"Lost\"");
}

#[test]
fn a_final_phase_is_neither_changed_nor_removed_nor_lost_with_the_status() {
    for phase in ["Succeeded", "Failed", "Cancelled"] {
        let job = a_job_with_status(&json!({ "phase": phase, "attempts": 1, "taskID": "a" }));
        let other = if phase == "Failed" { "Succeeded" } else { "Failed" };
        for (way, write) in WAYS {
            for (change, status) in [
                ("another final phase", json!({ "phase": other, "attempts": 1 })),
                ("a phase that is not final", json!({ "phase": "Running", "attempts": 1 })),
                ("no phase", if way == "merge patch" { json!({ "phase": null }) } else { json!({ "attempts": 1 }) }),
                ("no status", Value::Null),
            ] {
                match write(&job, &status) {
                    Ok(()) => panic!("{change} after {phase} by {way} is accepted: {}", job.status()),
                    Err(message) => {
                        assert_says(&message, "status.phase is final once it is Succeeded, Failed or Cancelled");
                    }
                }
            }
        }
        assert_eq!(job.status(), json!({ "phase": phase, "attempts": 1, "taskID": "a", "observedGeneration": 0 }));
    }
}

#[test]
fn the_rest_of_a_finished_jobs_status_can_still_be_written() {
    for (way, write) in WAYS {
        let job = a_job_with_status(&json!({ "phase": "Cancelled", "attempts": 1 }));
        let condition = json!({
            "type": "LateResult", "status": "True", "reason": "LateResult", "message": "", "lastTransitionTime": "2026-11-22T15:00:00Z",
        });
        write(&job, &json!({ "phase": "Cancelled", "attempts": 1, "conditions": [condition] }))
            .unwrap_or_else(|message| panic!("by {way}: {message}"));
        assert_eq!(job.status()["conditions"][0]["type"], "LateResult");
    }
}

#[test]
fn the_status_is_not_written_with_the_object() {
    let job = a_job_with_status(&json!({ "phase": "Succeeded" }));
    let mut object = job.get();
    object.data["status"] = json!({ "phase": "Pending" });
    let server = ControlPlane::shared();
    server.block_on(job.api.replace(&job.name, &PostParams::default(), &object)).unwrap();
    assert_eq!(job.status()["phase"], "Succeeded");
}

#[test]
fn attempts_never_decrease() {
    for (way, write) in WAYS {
        let job = a_job_with_status(&json!({ "phase": "Running", "attempts": 2 }));
        for status in [json!({ "phase": "Running", "attempts": 1 }), Value::Null] {
            let message = write(&job, &status).expect_err(way);
            assert_says(&message, "status.attempts never decreases");
        }
        write(&job, &json!({ "phase": "Running", "attempts": 3 })).unwrap();
    }
    let job = a_job_with_status(&json!({ "phase": "Running", "attempts": 2 }));
    assert_says(&job.merge_status(&json!({ "attempts": null })).unwrap_err(), "status.attempts never decreases");
}

#[test]
fn a_result_is_set_once() {
    let result = json!({ "value": { "a": 1 }, "sizeBytes": 7, "sha256": "00" });
    let job = a_job_with_status(&json!({ "phase": "Succeeded", "result": result }));
    for change in [
        json!({ "sha256": "11" }),
        json!({ "sizeBytes": 8 }),
        json!({ "sizeBytes": null }),
        json!({ "configMapName": "other" }),
        json!({ "redisKey": "other" }),
        Value::Null,
    ] {
        let message = job.merge_status(&json!({ "result": change })).expect_err(&change.to_string());
        assert_says(&message, "status.result is set once");
    }
    job.merge_status(&json!({ "result": { "redisExpiresAt": "2026-11-22T15:00:00Z" } })).unwrap();
}

#[test]
fn any_json_is_a_result() {
    for value in [json!(1), json!(2.5), json!("text"), json!(true), json!([1, [2]]), json!({ "a": { "b": [] } })] {
        let job = JOB.create("");
        job.merge_status(&json!({ "phase": "Succeeded", "result": { "value": value } })).unwrap();
        assert_eq!(job.status()["result"]["value"], value);
    }
}

#[test]
fn a_status_keeps_within_its_bounds() {
    let job = JOB.create("");
    for (status, because) in [
        (json!({ "error": { "type": "a".repeat(65) } }), "status.error.type: Too long"),
        (json!({ "error": { "message": "a".repeat(257) } }), "status.error.message: Too long"),
        (json!({ "error": { "traceback": "a".repeat(1025) } }), "status.error.traceback: Too long"),
        (json!({ "progress": { "message": "a".repeat(257) } }), "status.progress.message: Too long"),
        (json!({ "progress": { "percent": 101 } }), "status.progress.percent: should be less than or equal to 100"),
        (json!({ "attemptHistory": vec![json!({}); 6] }), "status.attemptHistory: Too many: 6"),
        (json!({ "attempts": -1 }), "status.attempts: should be greater than or equal to 0"),
        (json!({ "startedAt": "yesterday" }), "status.startedAt"),
        (json!({ "conditions": [{ "type": "Failed" }] }), "status.conditions[0].status: Required value"),
    ] {
        assert_says(&job.merge_status(&status).unwrap_err(), because);
    }
}

#[test]
fn field_selectors_find_jobs_by_phase_pool_hour_of_expiry_and_observed_generation() {
    let namespace = ControlPlane::shared().namespace();
    let jobs: Vec<_> = ["", "", "poolRef: { name: gpu }", ""].map(|spec| JOB.create_in(&namespace, spec)).into();
    jobs[1]
        .merge_status(&json!({ "phase": "Succeeded", "expiryBucket": "2026-11-22T15", "observedGeneration": 3 }))
        .unwrap();
    jobs[3].merge_status(&json!({ "phase": "Cancelled" })).unwrap();

    for (selector, expected) in [
        ("status.phase=Pending", vec![0, 2]),
        (crewjob::api::UNFINISHED, vec![0, 2]),
        (crewjob::api::FINISHED, vec![1, 3]),
        ("status.observedGeneration=3", vec![1]),
        ("status.observedGeneration!=3,status.phase!=Pending", vec![3]),
        ("status.expiryBucket!=", vec![1]),
        ("status.phase=Succeeded", vec![1]),
        ("spec.poolRef.name=gpu", vec![2]),
        ("spec.poolRef.name=default,status.phase=Pending", vec![0]),
        ("status.expiryBucket=2026-11-22T15", vec![1]),
    ] {
        let api = JOB.api(&namespace);
        let list = ControlPlane::shared().block_on(api.list(&ListParams::default().fields(selector))).unwrap();
        let mut found: Vec<_> = list.items.into_iter().filter_map(|job| job.metadata.name).collect();
        let mut expected: Vec<_> = expected.into_iter().map(|i: usize| jobs[i].name.clone()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{selector}");
    }
}

#[test]
fn a_pool_reports_its_load() {
    let pool = POOL.create("");
    let status = json!({
        "observedGeneration": 1, "depth": 3, "inFlight": 1, "oldestQueuedAt": "2026-11-22T15:00:00Z",
        "queues": [{ "name": "crew_jobs", "depth": 3, "inFlight": 1, "bands": [{ "step": 0, "depth": 2 }, { "step": 3, "depth": 1 }] }],
        "replicas": { "desired": 4, "ready": 1, "busy": 1 },
    });
    pool.merge_status(&status).unwrap();
    assert_eq!(pool.status(), status);
}
