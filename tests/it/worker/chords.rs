//! Parts of chords, counted as Celery's Redis backend counts them.

use super::*;

const BODY: &str =
    r#"{"task": "body", "args": [], "kwargs": {}, "options": {"task_id": "the-body", "queue": "default-bodies"}}"#;

/// Says of how many parts a chord is, as its sender does.
fn begin(server: &RedisServer, parts: u8) {
    server.run::<()>(&["SET", "celery-taskset-meta-g.s", &parts.to_string()]);
}

/// Puts a part on the queue `default`, as it is or as kombu puts it back.
pub(super) fn send_part(server: &RedisServer, task: &str, id: &str, index: i32, redelivered: bool) {
    let mut call = Call::new(task, id, "default");
    call.priority = 0;
    call.embed.chord = value(BODY);
    let mut envelope = call.envelope();
    envelope.headers.insert("group", "g");
    envelope.headers.insert("group_index", index);
    let envelope = if redelivered { envelope.redelivered() } else { envelope };
    server.run::<()>(&["LPUSH", "default", std::str::from_utf8(&envelope.encode()).unwrap()]);
}

fn bodies(server: &RedisServer) -> Vec<Value> {
    let sent = server.list("default-bodies").into_iter().map(|body| crewjob::wire::Envelope::decode(&body).unwrap());
    sent.map(|body| crewjob::wire::Message::decode(&body).unwrap().args.into()).collect()
}

fn why_the_body_failed(server: &RedisServer) -> String {
    let exception = state(server, "the-body", "FAILURE").exception().unwrap();
    format!("{}: {}", exception.exc_type, exception.message())
}

#[test]
fn the_last_part_of_a_chord_sends_its_body_once_with_the_results_in_their_order() {
    let server = RedisServer::start();
    begin(&server, 3);
    // One has ended on a Python worker.
    server.run::<()>(&["ZADD", "celery-taskset-meta-g.j", "1", r#"[1, "theirs", "SUCCESS", "two"]"#]);
    server.run::<()>(&["SADD", "celery-taskset-meta-g.d", "theirs:1"]);
    let _worker = Worker::start(&server, TASKS, &["-c", "2"]);
    send_part(&server, "again", "last", 2, false);
    send_part(&server, "told", "first", 0, false);
    until("the body is sent", || (!bodies(&server).is_empty()).then_some(()));
    until("both are settled", || (in_flight(&server) == 0).then_some(()));
    assert_eq!(bodies(&server), [value(r#"[[7, "two", null]]"#)]);
    until("the chord is closed", || {
        (server.run::<Vec<String>>(&["KEYS", "celery-taskset-meta-*"]) == ["celery-taskset-meta-g.c"]).then_some(())
    });
    assert_eq!(server.run::<String>(&["GET", "celery-taskset-meta-g.c"]), "done");
}

#[test]
fn the_body_of_a_chord_fails_for_every_client_when_a_part_is_refused_or_fails() {
    let server = RedisServer::start();
    let _worker = Worker::start(
        &server,
        r#"tasks: {bad: {command: [/bin/sh, -c, "exit 1"]}, told: {command: [echo, "7"]}}"#,
        &[],
    );
    for (task, why) in [("unknown", "NotRegistered('unknown')"), ("bad", "CommandFailed('exit status 1')")] {
        begin(&server, 2);
        send_part(&server, "told", "first", 0, false);
        send_part(&server, task, "second", 1, false);
        assert_eq!(why_the_body_failed(&server), format!("ChordError: Dependency second raised {why}"));
        until("both are settled", || (in_flight(&server) == 0).then_some(()));
        assert_eq!(bodies(&server), []);
        server.run::<()>(&["FLUSHALL"]);
    }
}

#[test]
fn a_part_that_ended_on_a_worker_that_died_before_it_counted_it_is_counted_by_the_next_one() {
    let server = RedisServer::start();
    begin(&server, 1);
    server.run::<()>(&["SET", "celery-task-meta-first", r#"{"status": "SUCCESS", "result": 7, "task_id": "first"}"#]);
    let _worker = Worker::start(&server, TASKS, &[]);
    send_part(&server, "told", "first", 0, true);
    until("the body is sent", || (!bodies(&server).is_empty()).then_some(()));
    until("it is acknowledged", || (in_flight(&server) == 0).then_some(()));
    assert_eq!(bodies(&server), [value("[[7]]")]);
}
