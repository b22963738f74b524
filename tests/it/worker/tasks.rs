//! From a message to its result.

use super::*;

const ECHO: &str = r#"
tasks:
  echo: {command: [cat]}
  fail: {command: [/bin/sh, -c, "echo lost >&2; exit 3"]}
  slow: {command: [/bin/sh, -c, "echo '{\"progress\": {\"percent\": 40}}'; sleep 1; echo 1"], softTimeLimit: 0, timeLimit: 0}
"#;

#[test]
fn a_command_gets_the_call_and_its_result_is_stored_as_a_python_worker_stores_it() {
    let server = RedisServer::start();
    send(&server, "echo", "id-1", r#"["job-1", {"topic": "AI"}]"#);
    let _worker = Worker::start(&server, ECHO, &["-n", "w@host"]);
    let found = state(&server, "id-1", "SUCCESS");
    let given = found.result.parse(&crewjob::wire::Limits::default()).unwrap();
    assert_eq!(given.get("args"), Some(&value(r#"["job-1", {"topic": "AI"}]"#)));
    assert_eq!(given.get("worker").and_then(Value::as_str), Some("w@host"));
    assert_eq!((found.name.as_deref(), found.worker.as_deref()), (Some("echo"), Some("w@host")));
    assert_eq!((found.retries, found.queue.as_deref(), found.children.as_str()), (Some(0), Some("default"), "[]"));
    assert!(found.done_at().is_some());
    until("it is acknowledged", || (in_flight(&server) == 0).then_some(()));
    assert!((3500..=3600).contains(&server.run::<i64>(&["TTL", "celery-task-meta-id-1"])));
}

#[test]
fn the_failure_of_a_command_has_its_last_words() {
    let server = RedisServer::start();
    send(&server, "fail", "id-1", "[]");
    send(&server, "not.registered", "id-2", "[]");
    let _worker = Worker::start(&server, ECHO, &[]);
    let exception = state(&server, "id-1", "FAILURE").exception().unwrap();
    assert_eq!((exception.exc_type.as_str(), exception.message().as_str()), ("CommandFailed", "exit status 3: lost"));
    let exception = state(&server, "id-2", "FAILURE").exception().unwrap();
    assert_eq!((exception.exc_type.as_str(), exception.message().as_str()), ("NotRegistered", "'not.registered'"));
}

#[test]
fn progress_is_shown_while_it_runs() {
    let server = RedisServer::start();
    send(&server, "slow", "id-1", "[]");
    let _worker = Worker::start(&server, ECHO, &[]);
    assert_eq!(state(&server, "id-1", "PROGRESS").result.as_str(), r#"{"percent": 40}"#);
    assert_eq!(state(&server, "id-1", "SUCCESS").result.as_str(), "1");
}

#[test]
fn a_task_waits_for_its_time_without_taking_a_place_and_expires() {
    let server = RedisServer::start();
    let at = |seconds: i64| {
        let time = jiff::Timestamp::from_second(server.run::<(i64, i64)>(&["TIME"]).0 + seconds).unwrap();
        Value::from(crewjob::wire::time::format(time))
    };
    for (id, field, seconds) in [("later", "eta", 3), ("late", "expires", -1)] {
        send_changed(&server, "echo", id, "[]", |call| call.headers.insert(field, at(seconds)).map_or((), drop));
    }
    send(&server, "echo", "now", "[]");
    let _worker = Worker::start(&server, ECHO, &["-c", "1"]);
    state(&server, "now", "SUCCESS");
    let expired = state(&server, "late", "REVOKED");
    assert_eq!(expired.exception().unwrap().message(), "expired");
    assert_eq!(document(&server, "later"), None);
    state(&server, "later", "SUCCESS");
}

#[test]
fn a_crews_output_is_kept_for_calls_with_the_same_inputs() {
    let server = RedisServer::start();
    let runs = tempfile::NamedTempFile::new().unwrap();
    let tasks = format!(
        r#"crew: {{name: research, cache: 60, run: {{output: text, command: [/bin/sh, -c, "echo run >> {}; echo '{{\"answer\": 42}}'"]}}}}"#,
        runs.path().display()
    );
    let _worker = Worker::start(&server, &tasks, &[]);
    let call = |id: &str, bypass: &str| {
        send(&server, "backend.tasks.run_crew_task", id, &format!(r#"["job-1", {{"topic": "AI"}}, {bypass}]"#));
        let result = state(&server, id, "SUCCESS").result.parse(&crewjob::wire::Limits::default()).unwrap();
        assert_eq!(result.get("result"), Some(&value(r#"{"answer": 42}"#)));
        assert_eq!(result.get("celery").and_then(|celery| celery.get("task_id")), Some(&Value::from(id)));
        result.get("cached").and_then(Value::as_bool).unwrap()
    };
    assert_eq!([call("id-1", "false"), call("id-2", "false"), call("id-3", "true")], [false, true, false]);
    assert_eq!(written(runs.path()), "run\nrun\n");
}

#[test]
fn the_tasks_of_the_python_application_are_there_without_a_command() {
    let server = RedisServer::start();
    send(&server, "backend.tasks.health_check", "id-1", "[]");
    server.run::<()>(&["LPUSH", "gone.reply.celery.pidbox", "x"]);
    send(&server, "backend.tasks.cleanup_old_results", "id-2", "[]");
    let _worker = Worker::start(&server, "{}", &["-n", "w@host"]);
    let health = state(&server, "id-1", "SUCCESS").result.parse(&crewjob::wire::Limits::default()).unwrap();
    assert_eq!(health.get("worker_id").and_then(Value::as_str), Some("w@host"));
    assert!(state(&server, "id-2", "SUCCESS").result.as_str().contains(r#""reply_lists_deleted":1"#));
}

#[test]
fn a_server_serves_one_call_after_the_other_and_is_replaced_after_enough_of_them() {
    let server = RedisServer::start();
    let script =
        "import json, os, sys\\nfor line in sys.stdin:\\n    print(json.dumps({'result': os.getpid()}), flush=True)";
    let tasks =
        format!(r#"tasks: {{serve: {{server: true, maxTasksPerChild: 3, command: [python3, -c, "{script}"]}}}}"#);
    for number in 0..6 {
        send(&server, "serve", &format!("id-{number}"), "[]");
    }
    let mut worker = Worker::start(&server, &tasks, &[]);
    let pids: Vec<String> =
        (0..6).map(|number| state(&server, &format!("id-{number}"), "SUCCESS").result.to_string()).collect();
    assert!(pids[0] == pids[1] && pids[1] == pids[2] && pids[3] == pids[5] && pids[2] != pids[3], "{pids:?}");
    worker.signal("TERM");
    assert!(worker.gone().success());
    assert!(!Path::new(&format!("/proc/{}", pids[5])).exists(), "the server has ended with its worker");
}

#[test]
fn a_command_can_be_tried_before_any_task_depends_on_it() {
    let check = |command: &str, task: &str| {
        let mut crewjob = Command::new(env!("CARGO_BIN_EXE_crewjob"));
        let done = crewjob.args(["worker", "--check-command", task, "--task", command]).output().unwrap();
        (done.status.code(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    };
    let (code, said) = check("good=echo 42", "good");
    assert!(code == Some(0) && said.contains("It succeeded"), "{said}");
    let (code, said) = check("bad=echo no json", "bad");
    assert!(code == Some(1) && said.contains("does not keep the contract"), "{said}");
    let (code, said) = check("good=echo 42", "other");
    assert!(code == Some(1) && said.contains("there are: good"), "{said}");
}

#[test]
fn a_command_is_tried_with_the_call_that_is_given() {
    let check = |call: &str, input: &str| {
        let mut crewjob = Command::new(env!("CARGO_BIN_EXE_crewjob"));
        crewjob.args(["worker", "--check-command", "sum", "--task", "sum=jq '.args | add'", "--call", call]);
        let mut process = crewjob.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut process.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let done = process.wait_with_output().unwrap();
        (done.status.code(), String::from_utf8([done.stdout, done.stderr].concat()).unwrap())
    };
    for (call, input) in [(r#"{"args": [40, 2]}"#, ""), ("-", r#"{"args": [40, 2]}"#)] {
        let (code, said) = check(call, input);
        assert!(code == Some(0) && said.contains("with the result 42."), "{said}");
    }
    let (code, said) = check("[40, 2]", "");
    assert!(code == Some(1) && said.contains("it is no object"), "{said}");
}

#[test]
fn the_shell_crew_of_the_examples_runs() {
    let server = RedisServer::start();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/shell-crew");
    let tasks = std::fs::read_to_string(folder.join("tasks.yaml")).unwrap();
    let tasks = tasks.replace("command: [./crew.sh]", &format!("command: [{}]", folder.join("crew.sh").display()));
    send(&server, "backend.tasks.run_crew_task", "id-1", r#"["job-1", {"topic": "Caf\u00e9 \"noir\""}]"#);
    let _worker = Worker::start(&server, &tasks, &[]);
    let result = state(&server, "id-1", "SUCCESS").result.parse(&crewjob::wire::Limits::default()).unwrap();
    let text = result.get("result").and_then(Value::as_str).unwrap();
    assert!(text.starts_with("# Caf") && text.contains("noir"), "{text}");
    assert_eq!(result.get("format"), Some(&Value::from("text")));
}
