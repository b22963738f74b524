//! Commands that stay, between their calls.

use std::collections::BTreeSet;

use super::*;

/// Answers each call with its process number.
const ANSWERS: &str =
    "import json, os, sys\\nfor line in sys.stdin:\\n    print(json.dumps({'result': os.getpid()}), flush=True)";

/// The processes that it has started and that still run.
fn children(worker: &Worker) -> BTreeSet<String> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", worker.process.id())).unwrap();
    let of = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    let all: String = threads.filter_map(Result::ok).map(of).collect();
    all.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn servers_of_all_tasks_together_are_at_most_as_many_as_tasks_may_run_at_once() {
    let server = RedisServer::start();
    let task = |name: &str| format!("  {name}: {{server: true, command: [python3, -c, \"{ANSWERS}\"]}}\n");
    let tasks: String = ["one", "two", "three", "four", "five"].map(task).concat();
    let worker = Worker::start(&server, &format!("tasks:\n{tasks}"), &["-c", "2"]);
    for (at, task) in ["one", "two", "three", "four", "five", "five"].into_iter().enumerate() {
        send(&server, task, &format!("id-{at}"), "[]");
    }
    let processes: Vec<String> =
        (0..6).map(|at| state(&server, &format!("id-{at}"), "SUCCESS").result.to_string()).collect();
    until("two processes are left", || (children(&worker).len() <= 2).then_some(()));
    assert!(children(&worker).contains(&processes[5]), "the last one that was used stays");
    send(&server, "five", "id-6", "[]");
    let last = state(&server, "id-6", "SUCCESS").result.to_string();
    assert!(processes[4..].contains(&last), "{last} of {processes:?}");
}

#[test]
fn a_server_that_is_idle_for_too_long_ends() {
    let server = RedisServer::start();
    let tasks = format!("tasks: {{serve: {{server: true, idleTimeout: 1, command: [python3, -c, \"{ANSWERS}\"]}}}}");
    let worker = Worker::start(&server, &tasks, &[]);
    send(&server, "serve", "id-1", "[]");
    let process = state(&server, "id-1", "SUCCESS").result.to_string();
    assert!(worker.log().contains("ready"), "{}", worker.log());
    until("it ends", || children(&worker).is_empty().then_some(()));
    assert!(!Path::new(&format!("/proc/{process}")).exists(), "and is no zombie");
    send(&server, "serve", "id-2", "[]");
    assert_ne!(state(&server, "id-2", "SUCCESS").result.to_string(), process);
}

#[test]
fn an_idle_server_is_listened_to_and_its_end_is_noticed() {
    let server = RedisServer::start();
    let script = "import json, sys\\nsys.stdin.readline()\\nprint(json.dumps({'result': 1}), flush=True)\\nprint('x' * 200000 + ' said between two calls', file=sys.stderr)\\nprint('the end', file=sys.stderr)";
    let tasks = format!("tasks: {{serve: {{server: true, command: [python3, -c, \"{script}\"]}}}}");
    let worker = Worker::start(&server, &tasks, &[]);
    send(&server, "serve", "id-1", "[]");
    state(&server, "id-1", "SUCCESS");
    until("what it writes is logged", || worker.log().contains("the end").then_some(()));
    until("it is no zombie", || children(&worker).is_empty().then_some(()));
}
