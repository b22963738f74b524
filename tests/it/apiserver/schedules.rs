//! The spec of a `CrewSchedule`.

use super::{SCHEDULE, yaml};

#[test]
fn a_schedule_needs_lines_and_a_template_and_makes_one_job_at_a_time() {
    let spec = SCHEDULE.accepts("");
    let expected = r#"
        schedules: ["30 2 * * *"]
        timeZone: Etc/UTC
        template:
          spec: { topic: bees, priority: 5, poolRef: { name: default }, task: backend.tasks.run_crew_task, bypassCache: false, suspend: false, cancel: false }
        overlap: Skip
        catchUp: { window: 1h, policy: Latest }
        jitter: 0s
        suspend: false
        history: { succeeded: 3, failed: 3, cancelled: 1 }
    "#;
    assert_eq!(spec, yaml(expected));
}

#[test]
fn what_the_api_server_can_tell_to_be_wrong_is_refused_with_its_field() {
    for (wrong, because) in [
        ("schedules: []", "spec.schedules: Invalid value: 0: spec.schedules in body should have at least 1 items"),
        ("schedules: ['']", "spec.schedules[0]"),
        ("timeZone: ''", "spec.timeZone"),
        ("timeZone: ../etc/passwd", "spec.timeZone"),
        ("template:", "spec.template: Required value"),
        ("template: { spec: {} }", "spec.template.spec.topic: Required value"),
        ("template: { spec: { topic: bees, priority: 11 } }", "spec.template.spec.priority"),
        ("template: { spec: { topic: bees, runOnce: key } }", "runOnce is for a job that is created again"),
        ("template: { spec: { topic: bees, cancel: true } }", "use suspend of the schedule"),
        ("template: { spec: { topic: bees, ttlAfterFinished: 1m } }", "must be at least 2m"),
        (
            "template: { metadata: { labels: { crewjob.dev/schedule: x } }, spec: { topic: bees } }",
            "the operator's own",
        ),
        ("overlap: Perhaps", "spec.overlap: Unsupported value"),
        ("catchUp: { window: 30s }", "spec.catchUp.window: must be between 1m and 168h"),
        ("catchUp: { policy: Some }", "spec.catchUp.policy: Unsupported value"),
        ("jitter: 25h", "spec.jitter: must be between 0s and 24h"),
        ("pauseAfterFailures: 0", "spec.pauseAfterFailures"),
        ("history: { succeeded: -1 }", "spec.history.succeeded"),
        ("start: '2026-12-01T00:00:00Z', end: '2026-11-01T00:00:00Z'", "spec.start: start must be before end"),
        ("start: tomorrow", "spec.start"),
    ] {
        let wrong = wrong.replace("', end:", "'\nend:");
        SCHEDULE.refuses(&wrong, because);
    }
}

#[test]
fn everything_in_a_schedule_can_be_changed() {
    let schedule = SCHEDULE.create("");
    schedule.accepts("template: { spec: { topic: wasps, timeouts: { hard: 2h } } }");
    schedule.accepts("schedules: ['@daily', '0 12 * * MON']");
}
