//! The spec of a CrewWorkerPool.

use super::{POOL, yaml};

#[test]
fn a_pool_needs_no_more_than_a_secret_and_gets_the_reference_configuration() {
    let spec = POOL.accepts("");
    let expected = r#"
        redis: { secretName: redis, resultRetention: 168h }
        celery:
          prioritySteps: [0, 3, 6, 9]
          separator: "\u0006\u0016"
          visibilityTimeout: 1h
          unackedKey: unacked
          resultExpires: 1h
        queues: [{ name: crew_jobs, routingKey: crew.jobs }, { name: default }]
        allowedTasks:
        - backend.tasks.run_crew_task
        - backend.tasks.health_check
        - backend.tasks.cleanup_old_results
        - backend.celery_app.error_handler
        concurrency: 1
        minReplicas: 0
        maxReplicas: 10
        scaleDownDelay: 1m
        onWorkerUnreachable: Wait
        largeResults: ConfigMap
        runOnceRetention: 720h
        agingAfter: 1h
    "#;
    assert_eq!(spec, yaml(expected));
    assert_eq!(POOL.accepts("celery: { unackedKey: other }")["celery"]["visibilityTimeout"], "1h");
}

#[test]
fn a_pool_names_its_secret() {
    POOL.refuses("redis:", "spec.redis: Required value");
    POOL.refuses("redis: {}", "spec.redis.secretName: Required value");
    POOL.refuses("redis: { secretName: '' }", "spec.redis.secretName: should be at least 1 chars long");
    POOL.refuses(
        "redis: { secretName: a, resultRetention: 59m }",
        "spec.redis.resultRetention: must be between 1h and 8784h",
    );
}

#[test]
fn runs_are_remembered_for_an_hour_to_ten_years() {
    POOL.accepts("runOnceRetention: 87840h");
    for wrong in ["59m", "87841h"] {
        let refused = "spec.runOnceRetention: must be between 1h and 87840h";
        POOL.refuses(&format!("runOnceRetention: {wrong}"), refused);
    }
}

#[test]
fn prices_are_decimal_numbers_for_each_model_once() {
    let price = |text: &str| format!("prices: [{{ model: m, inputPerMillion: {text}, outputPerMillion: \"1\" }}]");
    POOL.accepts(&price("\"0.125\""));
    for text in ["\"1,5\"", "\"-1\"", "\"1e3\"", "\"\"", "\".5\""] {
        POOL.refuses(&price(text), "spec.prices[0].inputPerMillion: ");
    }
    POOL.refuses("prices: [{ model: m, inputPerMillion: \"1\" }]", "spec.prices[0].outputPerMillion: Required value");
    let twice = "{ model: m, inputPerMillion: \"1\", outputPerMillion: \"1\" }";
    POOL.refuses(&format!("prices: [{twice}, {twice}]"), "spec.prices[1]: Duplicate value");
}

#[test]
fn limits_have_names_keys_and_something_that_they_limit() {
    let accepted = POOL.accepts(
        "limits: [{ name: tenants, key: { by: Label, label: example.com/tenant }, maxInFlight: 5, weights: { a: 4 } }, \
         { name: calls, rate: { count: 60, per: 1m } }, { name: even, key: { by: Namespace }, weight: 1 }]",
    );
    assert_eq!(accepted["limits"][1]["key"]["by"], "All");
    let limit = |text: &str| format!("limits: [{{ name: a, {text} }}]");
    for (wrong, refused) in [
        ("maxInFlight: 0", "spec.limits[0].maxInFlight: should be greater than or equal to 1"),
        ("maxInFlight: 100001", "spec.limits[0].maxInFlight: should be less than or equal to 100000"),
        ("rate: { count: 0, per: 1m }", "spec.limits[0].rate.count: should be greater than or equal to 1"),
        ("rate: { count: 1001, per: 1m }", "spec.limits[0].rate.count: should be less than or equal to 1000"),
        ("rate: { count: 1, per: 500ms }", "spec.limits[0].rate.per: must be between 1s and 1h"),
        ("rate: { count: 1, per: 61m }", "spec.limits[0].rate.per: must be between 1s and 1h"),
        ("rate: { count: 1 }", "spec.limits[0].rate.per: Required value"),
        ("key: { by: All }", "spec.limits[0]: must have maxInFlight, rate, weight or weights"),
        ("maxInFlight: 1, key: { by: Label }", "spec.limits[0].key.label: label must be set exactly where by is Label"),
        ("maxInFlight: 1, key: { label: a }", "spec.limits[0].key.label: label must be set exactly where by is Label"),
        ("maxInFlight: 1, key: { by: Label, label: 'a b' }", "spec.limits[0].key.label"),
        ("maxInFlight: 1, key: { by: User }", "spec.limits[0].key.by: Unsupported value"),
        ("weight: 1, slowDown: {}", "spec.limits[0].slowDown: slowDown needs maxInFlight"),
        ("maxInFlight: 1, slowDown: { exitStatuses: [0] }", "spec.limits[0].slowDown.exitStatuses[0]: should"),
        ("maxInFlight: 1, slowDown: { errors: [''] }", "spec.limits[0].slowDown.errors[0]: should"),
        ("weight: 0", "spec.limits[0].weight: should be greater than or equal to 1"),
        ("weight: 1, weights: { a: 1 }", "spec.limits[0].weights: weights needs a key by Label"),
        ("key: { by: Label, label: a }, weights: { a: 1001 }", "spec.limits[0].weights.a"),
    ] {
        POOL.refuses(&limit(wrong), refused);
    }
    POOL.refuses("limits: [{ maxInFlight: 1 }]", "spec.limits[0].name: Required value");
    POOL.refuses("limits: [{ name: 'A', maxInFlight: 1 }]", "spec.limits[0].name");
    POOL.refuses("limits: [{ name: a, weight: 1 }, { name: a, weight: 2 }]", "spec.limits[1]: Duplicate value");
    let nine: Vec<String> = (0..9).map(|n| format!("{{ name: a{n}, weight: 1 }}")).collect();
    POOL.refuses(&format!("limits: [{}]", nine.join(", ")), "spec.limits: Too many: 9");
    for wrong in ["59s", "8785h"] {
        POOL.refuses(&format!("agingAfter: {wrong}"), "spec.agingAfter: must be between 1m and 8784h");
    }
}

#[test]
fn keys_of_redis_are_plain_words() {
    POOL.accepts("celery: { globalKeyPrefix: 'app1:', unackedKey: app1.unacked, separator: ':' }");
    POOL.accepts("celery: { globalKeyPrefix: 'app1:', resultKeyPrefix: '' }");
    POOL.refuses("celery: { resultKeyPrefix: 'a*' }", "spec.celery.resultKeyPrefix");
    for bad in ["''", "'a b'", "'a*b'", "'{a}'", "\"a\\n\""] {
        POOL.refuses(&format!("celery: {{ globalKeyPrefix: {bad} }}"), "spec.celery.globalKeyPrefix");
        POOL.refuses(&format!("celery: {{ unackedKey: {bad} }}"), "spec.celery.unackedKey");
        POOL.refuses(&format!("celery: {{ separator: {bad} }}"), "spec.celery.separator");
        POOL.refuses(&format!("queues: [{{ name: {bad} }}]"), "spec.queues[0].name");
        POOL.refuses(&format!("queues: [{{ name: a, routingKey: {bad} }}]"), "spec.queues[0].routingKey");
        POOL.refuses(&format!("allowedTasks: [{bad}]"), "spec.allowedTasks[0]");
    }
}

#[test]
fn priority_steps_ascend_from_zero() {
    for good in ["[0]", "[0, 5]", "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"] {
        POOL.accepts(&format!("celery: {{ prioritySteps: {good} }}"));
    }
    for bad in ["[1, 3]", "[0, 6, 3]", "[0, 3, 3]"] {
        POOL.refuses(
            &format!("celery: {{ prioritySteps: {bad} }}"),
            "spec.celery.prioritySteps: must be ascending numbers, the first being 0",
        );
    }
    POOL.refuses("celery: { prioritySteps: [] }", "spec.celery.prioritySteps: should have at least 1 items");
    POOL.refuses(
        "celery: { prioritySteps: [0, 10] }",
        "spec.celery.prioritySteps[1]: should be less than or equal to 9",
    );
}

#[test]
fn a_task_is_not_handed_on_before_ten_minutes() {
    POOL.accepts("celery: { visibilityTimeout: 10m }");
    for bad in ["9m59s", "0s"] {
        POOL.refuses(
            &format!("celery: {{ visibilityTimeout: {bad} }}"),
            "spec.celery.visibilityTimeout: must be between 10m and 8784h",
        );
    }
    POOL.refuses("celery: { resultExpires: 9m59s }", "spec.celery.resultExpires: must be between 10m and 8784h");
}

#[test]
fn a_pool_has_1_to_16_queues_each_once() {
    POOL.accepts("queues: [{ name: a }]");
    POOL.refuses("queues: []", "spec.queues: should have at least 1 items");
    POOL.refuses("queues: [{ name: a }, { name: b }, { name: a }]", "spec.queues[2]: Duplicate value");
    POOL.refuses("queues: [{ routingKey: a }]", "spec.queues[0].name: Required value");
    let queues: Vec<_> = (0..17).map(|i| format!("{{ name: q{i} }}")).collect();
    POOL.refuses(&format!("queues: [{}]", queues.join(", ")), "spec.queues: Too many: 17: must have at most 16 items");
}

#[test]
fn a_pool_allows_no_tasks_of_celery_itself() {
    POOL.accepts("allowedTasks: [a.b, celeryish]");
    POOL.accepts("allowedTasks: []");
    POOL.refuses("allowedTasks: [a.b, celery.chord]", "spec.allowedTasks: must not name Celery's own tasks (celery.*)");
    POOL.refuses("allowedTasks: [a, a]", "spec.allowedTasks[1]: Duplicate value: \"a\"");
}

#[test]
fn replicas_have_an_order() {
    POOL.accepts("{ minReplicas: 0, maxReplicas: 0 }");
    POOL.accepts("{ minReplicas: 3, maxReplicas: 3 }");
    POOL.refuses("{ minReplicas: 4, maxReplicas: 3 }", "spec.maxReplicas: maxReplicas must be at least minReplicas");
    POOL.refuses("minReplicas: 11", "spec.maxReplicas: maxReplicas must be at least minReplicas");
    POOL.create("maxReplicas: 3").refuses("minReplicas: 4", "maxReplicas must be at least minReplicas");
}

#[test]
fn scaling_has_its_bounds() {
    POOL.accepts("deploymentRef: { name: crew, container: crew-1 }");
    POOL.accepts("{ concurrency: 4, targetPerWorker: 1000, maxReplicas: 10000, scaleDownDelay: 0s, onWorkerUnreachable: Restart }");
    for (spec, because) in [
        ("minReplicas: -1", "spec.minReplicas: should be greater than or equal to 0"),
        ("maxReplicas: 10001", "spec.maxReplicas: should be less than or equal to 10000"),
        ("concurrency: 0", "spec.concurrency: should be greater than or equal to 1"),
        ("targetPerWorker: 0", "spec.targetPerWorker: should be greater than or equal to 1"),
        ("scaleDownDelay: 25h", "spec.scaleDownDelay: must be between 0s and 24h"),
        ("onWorkerUnreachable: Kill", "spec.onWorkerUnreachable: Unsupported value: \"Kill\""),
        ("deploymentRef: {}", "spec.deploymentRef.name: Required value"),
        ("deploymentRef: { name: d, container: \"\" }", "spec.deploymentRef.container: "),
        ("deploymentRef: { name: d, container: Crew }", "spec.deploymentRef.container: "),
        ("deploymentRef: { name: d, container: crew- }", "spec.deploymentRef.container: "),
    ] {
        POOL.refuses(spec, because);
    }
}

#[test]
fn large_results_go_to_config_maps_or_stay_on_redis() {
    POOL.accepts("largeResults: Redis");
    POOL.refuses("largeResults: S3", "spec.largeResults: Unsupported value: \"S3\"");
}

#[test]
fn job_defaults_obey_the_rules_of_jobs() {
    POOL.accepts(
        "jobDefaults: { ttlAfterFinished: 24h, retryPolicy: { maxRetries: 1 }, timeouts: { soft: 5m, hard: 6m } }",
    );
    for (defaults, because) in [
        ("ttlAfterFinished: 7d", "spec.jobDefaults.ttlAfterFinished"),
        ("retryPolicy: { maxRetries: 101 }", "spec.jobDefaults.retryPolicy.maxRetries"),
        ("timeouts: { soft: 6m, hard: 6m }", "spec.jobDefaults.timeouts.soft: soft must be shorter than hard"),
    ] {
        POOL.refuses(&format!("jobDefaults: {{ {defaults} }}"), because);
    }
}
