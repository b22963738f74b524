use serde_json::json;

use super::*;

fn job(status: &Value) -> Value {
    json!({
        "metadata": { "name": "b.c", "namespace": "a", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-11-29T00:00:00Z" },
        "spec": { "topic": "t" }, "status": status,
    })
}

#[test]
fn a_job_that_no_operator_has_seen_is_pending_and_has_no_more() {
    let told = serde_json::to_value(Job::of(&job(&json!({ "phase": "Pending" })), "/crew")).unwrap();
    assert_eq!(
        told,
        json!({
            "id": "a.b.c", "namespace": "a", "name": "b.c", "uid": "u", "topic": "t", "phase": "Pending", "reason": "",
            "message": "", "attempts": 0, "createdAt": "2026-11-29T00:00:00Z",
            "links": {
                "status": "/crew/api/status/a.b.c", "result": "/crew/api/result/a.b.c", "events": "/crew/api/events/a.b.c",
                "cancel": "/crew/api/cancel/a.b.c",
                "kubernetes": "/crew/apis/crewjob.dev/v1alpha1/namespaces/a/crewjobs/b.c",
            },
        })
    );
}

#[test]
fn a_finished_job_says_where_its_result_is_and_no_progress_any_more() {
    for (result, place) in [
        (json!({ "value": 1, "sizeBytes": 1 }), Place::Status),
        (json!({ "text": "NaN" }), Place::Status),
        (json!({ "configMapName": "m" }), Place::ConfigMap),
        (json!({ "redisKey": "k" }), Place::Redis),
    ] {
        let job = job(&json!({ "phase": "Succeeded", "result": result, "progress": { "percent": 9 } }));
        let told = Job::of(&job, "");
        assert_eq!(told.result.map(|result| result.place), Some(place));
        assert!(told.progress.is_none() && seen(&job).is_over);
    }
}

#[test]
fn a_follower_sees_phase_reason_and_progress() {
    let seen = seen(&job(&json!({
        "phase": "Running", "progress": { "percent": 40, "message": "reading" },
        "conditions": [{ "type": "Reconciling", "reason": "Running", "message": "a worker runs it" }],
    })));
    assert_eq!((&*seen.version, &*seen.phase, &*seen.reason), ("7", "Running", "Running"));
    assert_eq!(seen.progress, Some((Some(40), "reading".to_owned())));
}
