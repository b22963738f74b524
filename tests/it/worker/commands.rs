//! What a command is given and what is kept of it.

use super::*;

/// More numbers than a decoder takes that does not know how long the text is.
const NUMBERS: &str = "[python3, -c, 'print(list(range(300000)))']";

#[test]
fn a_command_does_not_find_the_way_to_the_broker_in_its_environment() {
    let server = RedisServer::start();
    let tasks = "
tasks:
  env: {command: [env], output: text}
  given: {command: [env], output: text, env: {REDIS_URL: redis://elsewhere}}
  served: {server: true, command: [python3, -c, 'import json, os; input(); print(json.dumps({\"result\": dict(os.environ)}))']}
";
    for task in ["env", "given", "served"] {
        send(&server, task, task, "[]");
    }
    let _worker = Worker::start(&server, tasks, &[]);
    for task in ["env", "served"] {
        let found = state(&server, task, "SUCCESS").result.to_string();
        assert!(found.contains("PATH") && !found.contains("REDIS_URL"), "{found}");
        assert!(!found.contains(&server.url(0)), "{found}");
    }
    let found = state(&server, "given", "SUCCESS").result.to_string();
    assert!(found.contains("REDIS_URL=redis://elsewhere"), "{found}");
}

#[test]
fn a_crew_may_print_many_values_and_they_are_kept() {
    let server = RedisServer::start();
    let worker =
        Worker::start(&server, &format!("crew: {{name: research, cache: 60, run: {{command: {NUMBERS}}}}}"), &[]);
    for (id, is_cached) in [("id-1", false), ("id-2", true)] {
        send(&server, "backend.tasks.run_crew_task", id, r#"["job-1", {"topic": "AI"}]"#);
        let result = state(&server, id, "SUCCESS").result;
        let result = result.parse(&crewjob::wire::Limits::default().values(1_000_000)).unwrap();
        assert_eq!(result.get("result").and_then(Value::as_array).map(<[_]>::len), Some(300_000));
        assert_eq!(result.get("format").and_then(Value::as_str), Some("json"));
        assert_eq!(result.get("cached").and_then(Value::as_bool), Some(is_cached), "{}", worker.log());
    }
}

#[test]
fn a_result_of_many_values_is_passed_on() {
    let server = RedisServer::start();
    send_changed(&server, "many", "id-1", "[]", |call| {
        call.embed.callbacks = value(r#"[{"task": "next", "args": [], "kwargs": {}, "options": {"queue": "other"}}]"#);
    });
    let _worker = Worker::start(&server, &format!("tasks: {{many: {{command: {NUMBERS}}}}}"), &[]);
    state(&server, "id-1", "SUCCESS");
    assert_eq!(server.run::<u64>(&["LLEN", "other"]), 1);
}

#[test]
fn the_memory_of_a_command_is_told_beside_its_result() {
    let server = RedisServer::start();
    let taking = "taken = b\"x\" * (50 << 20); import time; time.sleep(1)";
    let tasks = format!(
        "tasks: {{takes: {{command: [python3, -c, '{taking}; print(1)']}}, fails: {{command: [python3, -c, '{taking}; exit(1)']}}}}"
    );
    send(&server, "takes", "id-1", "[]");
    send(&server, "fails", "id-2", "[]");
    send(&server, "backend.tasks.health_check", "id-3", "[]");
    let _worker = Worker::start(&server, &tasks, &["-c", "3"]);
    for (id, end) in [("id-1", "SUCCESS"), ("id-2", "FAILURE")] {
        let found = state(&server, id, end);
        let memory = found.other.get("memory").unwrap();
        let peak = memory.get("peak").and_then(Value::as_i64).unwrap();
        assert!((50 << 20..200 << 20).contains(&peak), "{peak}");
        assert_eq!(memory.get("oom_killed").and_then(Value::as_bool), Some(false));
    }
    assert_eq!(state(&server, "id-3", "SUCCESS").other.get("memory"), None, "it is this process that ran it");
}
