//! What a worker has left in flight that was killed is taken back by the next worker, not after the visibility timeout.

use super::*;

const TASKS: &str =
    r#"tasks: {quick: {command: [echo, "1"]}, slow: {command: [/bin/sh, -c, "echo '{\"progress\": 1}'; sleep 100"]}}"#;

/// Kills a worker that runs a task and holds a message for later.
fn kill_one_with_messages(server: &RedisServer, name: &str) {
    let mut worker = Worker::start(server, TASKS, &["-n", name, "-c", "1"]);
    send_changed(server, "quick", "later", "[]", |call| {
        call.headers.insert("eta", Value::from("2100-01-01T00:00:00+00:00"));
    });
    until("it holds the one", || (in_flight(server) == 1).then_some(()));
    send(server, "slow", "running", "[]");
    state(server, "running", "PROGRESS");
    worker.signal("KILL");
    worker.gone();
    assert_eq!(in_flight(server), 2);
}

#[test]
fn the_next_worker_that_starts_puts_back_within_seconds_what_a_killed_worker_had() {
    let server = RedisServer::start();
    kill_one_with_messages(&server, "killed@h");
    let next = Worker::start(&server, TASKS, &["-n", "next@h", "-Q", "another"]);
    until("both are back", || (server.run::<u64>(&["LLEN", "default"]) == 2).then_some(()));
    assert_eq!(in_flight(&server), 0);
    next.logs("put back the messages of a worker that has died");
}

#[test]
fn a_worker_that_starts_again_under_its_name_does_not_wait_for_its_predecessor() {
    let server = RedisServer::start();
    kill_one_with_messages(&server, "same@h");
    let died = Instant::now();
    let _next = Worker::start(&server, TASKS, &["-n", "same@h", "-Q", "another"]);
    until("both are back", || (server.run::<u64>(&["LLEN", "default"]) == 2).then_some(()));
    assert!(died.elapsed() < Duration::from_secs(15), "{:?}", died.elapsed());
}

#[test]
fn a_worker_that_lives_keeps_its_messages_whichever_worker_starts() {
    let server = RedisServer::start();
    let _living = Worker::start(&server, TASKS, &["-n", "living@h"]);
    send(&server, "slow", "running", "[]");
    state(&server, "running", "PROGRESS");
    kill_one_with_messages_of_another_queue(&server);
    let _next = Worker::start(&server, TASKS, &["-n", "next@h", "-Q", "another"]);
    until("the other's message is back", || (server.run::<u64>(&["LLEN", "theirs"]) == 1).then_some(()));
    assert_eq!((in_flight(&server), server.run::<u64>(&["LLEN", "default"])), (1, 0));
}

fn kill_one_with_messages_of_another_queue(server: &RedisServer) {
    let mut worker = Worker::start(server, TASKS, &["-n", "killed@h", "-Q", "theirs"]);
    let mut call = Call::new("quick", "later", "theirs");
    call.priority = 0;
    call.headers.insert("eta", Value::from("2100-01-01T00:00:00+00:00"));
    server.run::<()>(&["LPUSH", "theirs", std::str::from_utf8(&call.envelope().encode()).unwrap()]);
    until("it is taken", || (in_flight(server) == 2).then_some(()));
    worker.signal("KILL");
    worker.gone();
}
