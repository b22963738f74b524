//! Remote control of a running worker.

use crewjob::wire::pidbox::Request;

use super::*;

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
    assert!(!short.is_full_form(), "whoever waits hears of it at once");
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
    let address = crewjob::wire::pidbox::ReturnAddress { ticket: "t".into(), oid: "o".into() };
    let keys = crewjob::wire::BrokerKeys::default();
    server.run::<()>(&["SADD", "_kombu.binding.reply.celery.pidbox", &address.binding_member(&keys)]);
    tell(&server, &Request::query_task(vec!["id-1".into()]).replying_to(address));
    let reply: Vec<u8> = until("an answer", || server.run(&["RPOP", &keys.reply_list("o")]));
    let nodes = crewjob::wire::pidbox::Reply::decode(&reply).unwrap().nodes;
    let found = crewjob::wire::pidbox::TaskInfo::query(nodes.get("a@b").unwrap());
    assert_eq!(
        found.iter().map(|(state, info)| (state.as_str(), info.id.as_str())).collect::<Vec<_>>(),
        [("reserved", "id-1")]
    );
}
