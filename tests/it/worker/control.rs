//! Remote control of a running worker.

use crewjob::wire::pidbox::{Reply, Request, ReturnAddress, TaskInfo};

use super::*;

#[test]
fn a_worker_warns_of_another_one_with_another_visibility_timeout() {
    let server = RedisServer::start();
    let env = [("REDIS_URL", server.url(0))];
    let first = Worker::start_with(&env, "{}", &["-n", "first@host", "--visibility-timeout", "7200"]);
    until("the first one is ready", || first.log().contains("ready").then_some(()));
    let second = Worker::start_with(&env, "{}", &["-n", "second@host"]);
    until("the second one is ready", || second.log().contains("ready").then_some(()));
    let log = second.log();
    let warning = log.lines().find(|line| line.contains("another visibility timeout")).expect("a warning");
    assert!(warning.contains("first@host") && warning.contains("7200") && warning.contains("3600"), "{warning}");
}

const SLOW: &str = r#"tasks: {slow: {command: [/bin/sh, -c, "echo '{\"progress\": 1}'; sleep 60"]}}"#;

fn tell(server: &RedisServer, request: &Request) {
    let sent = request.envelope(1, None, "tag").encode();
    server.run::<()>(&["PUBLISH", "/0.celery.pidbox", std::str::from_utf8(&sent).unwrap()]);
}

#[test]
fn a_running_task_that_is_revoked_is_stopped_and_its_command_is_gone() {
    let server = RedisServer::start();
    send(&server, "slow", "id-1", "[]");
    let worker = Worker::start(&server, SLOW, &[]);
    state(&server, "id-1", "PROGRESS");
    tell(&server, &Request::revoke(vec!["id-1".into()], None));
    tell(&server, &Request::revoke(vec!["id-1".into()], Some("SIGTERM")));
    let revoked = state(&server, "id-1", "REVOKED");
    assert_eq!(revoked.exception().unwrap().message(), "terminated");
    assert!(revoked.is_full_form());
    until("it is acknowledged", || (in_flight(&server) == 0).then_some(()));
    let children = format!("/proc/{0}/task/{0}/children", worker.process.id());
    until("its processes are gone", || std::fs::read_to_string(&children).unwrap().is_empty().then_some(()));
}

#[test]
fn a_server_that_still_loads_when_its_call_is_revoked_is_stopped() {
    let server = RedisServer::start();
    let more_than_a_pipe_takes = format!(r#"["{}"]"#, "x".repeat(1 << 20));
    send(&server, "loads", "id-1", &more_than_a_pipe_takes);
    let worker = Worker::start(&server, "tasks: {loads: {server: true, command: [sleep, '60']}}", &[]);
    until("it runs", || worker.log().contains("task begins").then_some(()));
    tell(&server, &Request::revoke(vec!["id-1".into()], Some("SIGTERM")));
    assert_eq!(state(&server, "id-1", "REVOKED").exception().unwrap().message(), "terminated");
}

#[test]
fn a_task_that_is_revoked_before_it_comes_does_not_run() {
    let server = RedisServer::start();
    let worker = Worker::start(&server, SLOW, &[]);
    until("it is ready", || worker.log().contains("ready").then_some(()));
    tell(&server, &Request::revoke(vec!["id-1".into()], None));
    let short = state(&server, "id-1", "REVOKED");
    assert!(!short.is_full_form(), "a waiting producer hears of it at once");
    send(&server, "slow", "id-1", "[]");
    until("its own word", || document(&server, "id-1").filter(ResultDocument::is_full_form));
    until("it is acknowledged", || (in_flight(&server) == 0).then_some(()));
    assert!(!worker.log().contains("task begins"));
}

#[test]
fn a_worker_that_is_told_to_by_remote_control_goes() {
    let server = RedisServer::start();
    let mut worker = Worker::start(&server, SLOW, &["-n", "a@b"]);
    until("it is ready", || worker.log().contains("ready").then_some(()));
    tell(&server, &Request::shutdown().to(vec!["other@b".into()]));
    tell(&server, &Request::shutdown().to(vec!["a@b".into()]));
    assert!(worker.gone().success());
}

#[test]
fn a_worker_that_is_asked_for_a_task_that_it_put_aside_has_it() {
    let server = RedisServer::start();
    server.run::<()>(&["SET", "crewjob-lease:id-1", "another run"]);
    send(&server, "slow", "id-1", "[]");
    let worker = Worker::start(&server, SLOW, &["-n", "a@b"]);
    until("it is put aside", || worker.log().contains("put aside").then_some(()));
    until("it is ready", || worker.log().contains("ready").then_some(()));
    assert_eq!(asked(&server, "id-1"), [("reserved".to_owned(), "id-1".to_owned())]);
}

/// What the one worker answers to the question whether it has a task: in which state, and its id.
fn asked(server: &RedisServer, id: &str) -> Vec<(String, String)> {
    let address = ReturnAddress { ticket: "t".into(), oid: "o".into() };
    let keys = crewjob::wire::BrokerKeys::default();
    server.run::<()>(&["SADD", "_kombu.binding.reply.celery.pidbox", &address.binding_member(&keys)]);
    tell(server, &Request::query_task(vec![id.to_owned()]).replying_to(address));
    let reply: Vec<u8> = until("an answer", || server.run(&["RPOP", &keys.reply_list("o")]));
    let nodes = Reply::decode(&reply).unwrap().nodes;
    let found = nodes.iter().flat_map(|(_, answer)| TaskInfo::query(answer));
    found.map(|(state, info)| (state, info.id)).collect()
}

#[test]
fn a_task_that_waits_for_its_time_is_dropped_though_its_id_is_too_long_to_be_remembered() {
    let server = RedisServer::start();
    let id = "x".repeat(2000);
    send_changed(&server, "slow", &id, "[]", |call| {
        call.headers.insert("eta", Value::from("2100-01-01T00:00:00+00:00"));
    });
    let worker = Worker::start(&server, SLOW, &[]);
    until("it is ready", || worker.log().contains("ready").then_some(()));
    // In flight it is before the worker has read what Redis has handed out, and knows which task a revoke is about.
    until("the worker has it", || (!asked(&server, &id).is_empty()).then_some(()));
    tell(&server, &Request::revoke(vec![id.clone()], None));
    state(&server, &id, "REVOKED");
    until("it is acknowledged", || (in_flight(&server) == 0).then_some(()));
}

#[test]
fn a_queue_that_is_added_while_the_worker_is_busy_is_consumed_once_it_is_idle_again() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let line = format!("until [ -e {}/go ]; do sleep 0.02; done", folder.path().display());
    let worker =
        Worker::start(&server, &format!("tasks: {{wait: {{command: [/bin/sh, -c, {line:?}]}}}}"), &["-Q", "default"]);
    let waits = || server.run::<String>(&["CLIENT", "LIST"]).contains("flags=t ").then_some(());
    until("it is idle", waits);
    send(&server, "wait", "id-1", "[]");
    until("it is busy", || worker.log().contains("task begins").then_some(()));
    let mut add = Request::ping();
    add.method = "add_consumer".into();
    add.arguments = crewjob::wire::Object::new().with("queue", "more");
    tell(&server, &add);
    until("the queue is bound", || server.run::<bool>(&["EXISTS", "_kombu.binding.more"]).then_some(()));
    std::fs::write(folder.path().join("go"), "").unwrap();
    state(&server, "id-1", "SUCCESS");
    until("it is idle", waits);
    let mut call = Call::new("wait", "id-2", "more");
    call.priority = 0;
    server.run::<()>(&["LPUSH", "more", std::str::from_utf8(&call.envelope().encode()).unwrap()]);
    state(&server, "id-2", "SUCCESS");
}
