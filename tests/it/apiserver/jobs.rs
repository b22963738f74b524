//! The spec of a CrewJob.

use serde_json::json;

use super::{JOB, yaml};

#[test]
fn a_job_needs_no_more_than_a_topic_and_gets_the_defaults() {
    let spec = JOB.accepts("");
    let expected = "{ topic: bees, priority: 5, poolRef: { name: default }, task: backend.tasks.run_crew_task, \
                    bypassCache: false, suspend: false, cancel: false }";
    assert_eq!(spec, yaml(expected));
}

#[test]
fn a_topic_has_1_to_4096_characters() {
    JOB.accepts(&format!("topic: {}", "ü".repeat(4096)));
    JOB.refuses(&format!("topic: {}", "a".repeat(4097)), "spec.topic: Too long: may not be more than 4096");
    JOB.refuses("topic: ''", "spec.topic: should be at least 1 chars long");
    JOB.refuses("topic:", "spec.topic: Required value");
}

#[test]
fn inputs_are_any_object_and_are_kept_as_they_are() {
    let inputs = "inputs: { level: undergraduate, deep: { list: [1, 2.5, null, { a: null }], big: 9007199254740993 } }";
    assert_eq!(JOB.accepts(inputs)["inputs"], yaml(inputs)["inputs"]);
    JOB.refuses("inputs: [1]", "spec.inputs: must be of type object");
    JOB.refuses("inputs: text", "spec.inputs: Invalid value: \"string\"");
    let many: serde_json::Map<_, _> = (0..257).map(|i| (format!("k{i}"), json!(i))).collect();
    JOB.refuses(&json!({ "inputs": many }).to_string(), "spec.inputs: Too many: 257: must have at most 256");
}

#[test]
fn args_are_an_array_and_kwargs_an_object() {
    let given = "{ args: [1, two, null, { a: null }], kwargs: { x: null, y: [1] } }";
    let spec = JOB.accepts(given);
    assert_eq!((&spec["args"], &spec["kwargs"]), (&yaml(given)["args"], &yaml(given)["kwargs"]));
    JOB.refuses("args: { a: 1 }", "spec.args: must be of type array");
    JOB.refuses("args: text", "spec.args: Invalid value: \"string\"");
    JOB.refuses("kwargs: [1]", "spec.kwargs: Invalid value: \"array\"");
    JOB.refuses(&format!("args: {:?}", [0; 65]), "spec.args: Too many: 65: must have at most 64 items");
}

#[test]
fn priority_goes_from_0_to_10() {
    JOB.accepts("priority: 0");
    JOB.accepts("priority: 10");
    JOB.refuses("priority: 11", "spec.priority: should be less than or equal to 10");
    JOB.refuses("priority: -1", "spec.priority: should be greater than or equal to 0");
    JOB.refuses("priority: 2.5", "spec.priority: must be of type int32");
    JOB.refuses("priority: high", "spec.priority: Invalid value: \"string\"");
}

#[test]
fn queue_and_task_are_names_that_fit_into_redis_keys() {
    for field in ["queue", "task"] {
        JOB.accepts(&format!("{field}: a.B_c-9:d"));
        JOB.accepts(&format!("{field}: {}", "a".repeat(128)));
        for bad in ["'a b'", "'a/b'", "'a*'", "'ä'", "\"a\\u0006\\u00163\"", "''", &"a".repeat(129)] {
            JOB.refuses(&format!("{field}: {bad}"), &format!("spec.{field}"));
        }
    }
}

#[test]
fn a_dedup_key_is_a_word_with_a_window_and_goes_with_no_run_once_key() {
    let accepted = JOB.accepts("dedup: { key: 'orders/4711:a' }");
    assert_eq!(accepted["dedup"], yaml("{ key: 'orders/4711:a', window: 24h, onConflict: Reject }"));
    JOB.accepts("dedup: { key: a, window: 1s, onConflict: Attach }");
    JOB.refuses("dedup: {}", "spec.dedup.key: Required value");
    for bad in ["''", "'a b'", "'a,b'", &"a".repeat(254)] {
        JOB.refuses(&format!("dedup: {{ key: {bad} }}"), "spec.dedup.key");
    }
    for bad in ["999ms", "8785h"] {
        JOB.refuses(&format!("dedup: {{ key: a, window: {bad} }}"), "spec.dedup.window: must be between 1s and 8784h");
    }
    JOB.refuses("dedup: { key: a, onConflict: Queue }", "spec.dedup.onConflict: Unsupported value");
    JOB.refuses("{ dedup: { key: a }, runOnce: b }", "spec.dedup: a job has either runOnce or dedup");
}

#[test]
fn celerys_own_tasks_are_refused() {
    JOB.accepts("task: celeryish.task");
    JOB.refuses("task: celery.backend_cleanup", "spec.task: must not be one of Celery's own tasks (celery.*)");
}

#[test]
fn a_pool_is_named_by_1_to_253_characters() {
    JOB.accepts("poolRef: { name: gpu }");
    assert_eq!(JOB.accepts("poolRef: {}")["poolRef"]["name"], "default");
    JOB.refuses("poolRef: { name: '' }", "spec.poolRef.name: should be at least 1 chars long");
    JOB.refuses(&format!("poolRef: {{ name: {} }}", "a".repeat(254)), "spec.poolRef.name: Too long");
}

#[test]
fn switches_are_booleans() {
    for field in ["suspend", "cancel", "bypassCache"] {
        JOB.accepts(&format!("{field}: true"));
        JOB.refuses(&format!("{field}: 'yes'"), &format!("spec.{field}: Invalid value: \"string\""));
    }
}

#[test]
fn a_retry_policy_has_its_bounds() {
    JOB.accepts("retryPolicy: {}");
    JOB.accepts(
        "retryPolicy: { maxRetries: 0, maxWorkerLosses: 100, onUnknown: Retry, nonRetryable: [ValueError, openai.AuthenticationError], \
         backoff: { initial: 0s, factor: 10, max: 24h } }",
    );
    for (policy, because) in [
        ("maxRetries: 101", "spec.retryPolicy.maxRetries: should be less than or equal to 100"),
        ("maxRetries: -1", "spec.retryPolicy.maxRetries: should be greater than or equal to 0"),
        ("maxWorkerLosses: 101", "spec.retryPolicy.maxWorkerLosses: should be less than or equal to 100"),
        (
            "onUnknown: Hope",
            "spec.retryPolicy.onUnknown: Unsupported value: \"Hope\": supported values: \"Fail\", \"Retry\"",
        ),
        ("nonRetryable: ['not a type']", "spec.retryPolicy.nonRetryable[0]"),
        ("backoff: { factor: 0 }", "spec.retryPolicy.backoff.factor: should be greater than or equal to 1"),
        ("backoff: { factor: 1.5 }", "spec.retryPolicy.backoff.factor: must be of type int32"),
        ("backoff: { initial: 25h }", "spec.retryPolicy.backoff.initial: must be between 0s and 24h"),
        ("backoff: { max: 24h1ms }", "spec.retryPolicy.backoff.max: must be between 0s and 24h"),
    ] {
        JOB.refuses(&format!("retryPolicy: {{ {policy} }}"), because);
    }
    let types: Vec<_> = (0..33).map(|i| format!("E{i}")).collect();
    JOB.refuses(&format!("retryPolicy: {{ nonRetryable: {types:?} }}"), "spec.retryPolicy.nonRetryable: Too many: 33");
}

#[test]
fn durations_are_hours_minutes_seconds_and_milliseconds() {
    for good in ["1h", "1h30m", "90m", "1500ms", "2h45m30s250ms"] {
        JOB.accepts(&format!("timeouts: {{ queue: {good} }}"));
    }
    for bad in ["1d", "'50'", "1.5h", "-1h", "' 1h'", "1 h", "100000h", "1h1h1h1h1h", "''"] {
        JOB.refuses(
            &format!("timeouts: {{ queue: {bad} }}"),
            "spec.timeouts.queue: should match '^([0-9]{1,5}(h|m|s|ms)){1,4}$'",
        );
    }
    JOB.refuses("timeouts: { queue: 60 }", "spec.timeouts.queue: Invalid value: \"integer\"");
}

#[test]
fn timeouts_have_their_bounds() {
    JOB.accepts("timeouts: { soft: 1s, hard: 168h, queue: 8784h, total: 8784h }");
    JOB.accepts("ttlAfterFinished: 0s");
    for (spec, because) in [
        ("timeouts: { soft: 999ms }", "spec.timeouts.soft: must be between 1s and 168h"),
        ("timeouts: { hard: 168h1ms }", "spec.timeouts.hard: must be between 1s and 168h"),
        ("timeouts: { queue: 8785h }", "spec.timeouts.queue: must be between 1s and 8784h"),
        ("timeouts: { total: 0s }", "spec.timeouts.total: must be between 1s and 8784h"),
        ("ttlAfterFinished: 99999h", "spec.ttlAfterFinished: must be between 0s and 8784h"),
    ] {
        JOB.refuses(spec, because);
    }
}

#[test]
fn the_soft_limit_is_shorter_than_the_hard_one() {
    JOB.accepts("timeouts: { soft: 59m, hard: 1h }");
    for hard in ["1h", "59m", "3600s"] {
        JOB.refuses(
            &format!("timeouts: {{ soft: 60m, hard: {hard} }}"),
            "spec.timeouts.soft: soft must be shorter than hard",
        );
    }
}

#[test]
fn the_fields_that_define_a_jobs_task_cannot_be_changed_or_added_or_removed() {
    for (field, before, after) in [
        ("topic", "topic: bees", "topic: wasps"),
        ("poolRef", "poolRef: { name: a }", "poolRef: { name: b }"),
        ("poolRef", "poolRef: { name: a }", "poolRef:"),
        ("queue", "queue: a", "queue: b"),
        ("queue", "queue: a", "queue:"),
        ("queue", "", "queue: a"),
        ("task", "task: a", "task: b"),
        ("task", "task: a", "task:"),
        ("bypassCache", "bypassCache: true", "bypassCache: false"),
        ("bypassCache", "bypassCache: true", "bypassCache:"),
        ("runOnce", "runOnce: a", "runOnce: b"),
        ("runOnce", "runOnce: a", "runOnce:"),
        ("runOnce", "", "runOnce: a"),
        ("dedup", "dedup: { key: a }", "dedup: { key: b }"),
        ("dedup", "dedup: { key: a }", "dedup: { key: a, window: 1h }"),
        ("dedup", "dedup: { key: a }", "dedup:"),
        ("dedup", "", "dedup: { key: a }"),
        ("retryPolicy", "retryPolicy: { maxRetries: 3 }", "retryPolicy: { maxRetries: 4 }"),
        ("retryPolicy", "retryPolicy: { maxRetries: 3 }", "retryPolicy: { onUnknown: Retry }"),
        ("retryPolicy", "retryPolicy: { nonRetryable: [A] }", "retryPolicy: { nonRetryable: [A, B] }"),
        ("retryPolicy", "retryPolicy: { maxRetries: 3 }", "retryPolicy:"),
        ("retryPolicy", "", "retryPolicy: { maxRetries: 3 }"),
        ("timeouts", "timeouts: { total: 1h }", "timeouts: { total: 2h }"),
        ("timeouts", "timeouts: { total: 1h }", "timeouts: { total: null }"),
        ("timeouts", "timeouts: { total: 1h }", "timeouts:"),
        ("timeouts", "", "timeouts: { total: 1h }"),
    ] {
        let because =
            format!("spec.{field}: Forbidden: {field} cannot be changed once the job exists; create another job");
        JOB.create(before).refuses(after, &because);
    }
}

#[test]
fn the_fields_that_steer_a_job_can_be_changed() {
    let job = JOB.create("{ queue: a, retryPolicy: { maxRetries: 3 }, timeouts: { total: 1h }, inputs: { a: 1 } }");
    for change in [
        "suspend: true",
        "cancel: true",
        "priority: 10",
        "priority:",
        "ttlAfterFinished: 24h",
        "ttlAfterFinished:",
        "{ queue: a, retryPolicy: { maxRetries: 3 }, timeouts: { total: 1h } }",
    ] {
        job.accepts(change);
    }
}
