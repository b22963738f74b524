//! Each task ends once, whatever happens to messages, workers and Redis.

use super::*;

/// Notes that it ran, waits until it may go on, and notes that it ends.
fn noted(folder: &Path) -> String {
    let line =
        format!("cd {}; echo begin >> runs; until [ -e go ]; do sleep 0.02; done; echo end >> runs", folder.display());
    format!("tasks: {{noted: {{command: [/bin/sh, -c, {line:?}]}}}}")
}

#[test]
fn a_copy_of_a_running_task_does_not_run() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    send(&server, "noted", "id-1", "[]");
    let worker = Worker::start(&server, &noted(folder.path()), &["-c", "2"]);
    written(&folder.path().join("runs"));
    // What kombu does to messages in flight when it takes their worker for lost.
    send_changed(&server, "noted", "id-1", "[]", |call| call.retries = 0);
    until("the copy is put aside", || worker.log().contains("put aside").then_some(()));
    std::fs::write(folder.path().join("go"), "").unwrap();
    state(&server, "id-1", "SUCCESS");
    until("the copy is given up", || worker.log().contains("not run again").then_some(()));
    // It says so before it acknowledges it.
    until("the copy is acknowledged", || (in_flight(&server) == 0).then_some(()));
    assert_eq!(written(&folder.path().join("runs")), "begin\nend\n");
}

#[test]
fn a_run_whose_worker_was_cut_off_for_long_gets_its_lease_back_before_its_copy_runs() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    send(&server, "noted", "id-1", "[]");
    let cut = Worker::start(&server, &noted(folder.path()), &["-n", "cut@h"]);
    written(&folder.path().join("runs"));
    let message: Vec<u8> = server.run(&["HGET", "unacked", "id-1"]);
    let copy = crewjob::wire::Unacked::decode(&message).unwrap().envelope.redelivered().encode();
    cut.signal("STOP");
    until("the lease runs out", || (!server.run::<bool>(&["EXISTS", "crewjob-lease:id-1"])).then_some(()));
    server.run::<()>(&["RPUSH", "default", std::str::from_utf8(&copy).unwrap()]);
    let other = Worker::start(&server, &noted(folder.path()), &["-n", "other@h"]);
    until("the copy waits", || other.log().contains("its former run may go on").then_some(()));
    cut.signal("CONT");
    until("the lease is back", || server.run::<bool>(&["EXISTS", "crewjob-lease:id-1"]).then_some(()));
    std::fs::write(folder.path().join("go"), "").unwrap();
    state(&server, "id-1", "SUCCESS");
    until("the copy is acknowledged", || other.log().contains("not run again").then_some(()));
    assert_eq!(written(&folder.path().join("runs")), "begin\nend\n");
}

#[test]
fn a_copy_that_has_waited_waits_anew_once_it_has_seen_a_lease() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    send(&server, "noted", "id-1", "[]");
    let message: Vec<u8> = server.run(&["LINDEX", "default", "0"]);
    let copy = crewjob::wire::Envelope::decode(&message).unwrap().redelivered().encode();
    server.run::<()>(&["LSET", "default", "0", std::str::from_utf8(&copy).unwrap()]);
    let worker = Worker::start(&server, &noted(folder.path()), &[]);
    let waits = |times| (worker.log().matches("its former run may go on").count() == times).then_some(());
    until("the copy waits", || waits(1));
    // The worker that runs it is back in time, and cut off again.
    server.run::<()>(&["SET", "crewjob-lease:id-1", "another run", "PX", "8000"]);
    until("the copy waits anew", || waits(2));
    assert!(!folder.path().join("runs").exists(), "nothing runs");
}

#[test]
fn the_task_of_a_killed_worker_is_run_by_another_one() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    send(&server, "noted", "id-1", "[]");
    let mut first = Worker::start(&server, &noted(folder.path()), &[]);
    written(&folder.path().join("runs"));
    first.signal("KILL");
    first.gone();
    assert_eq!(in_flight(&server), 1, "nothing is lost");
    // The visibility timeout runs out.
    server.run::<()>(&["ZADD", "unacked_index", "1", "id-1"]);
    std::fs::write(folder.path().join("go"), "").unwrap();
    let _second = Worker::start(&server, &noted(folder.path()), &[]);
    state(&server, "id-1", "SUCCESS");
    until("it is acknowledged", || (in_flight(&server) == 0).then_some(()));
    let runs = written(&folder.path().join("runs"));
    assert_eq!(runs.matches("begin").count(), 2, "{runs}");
}

#[test]
fn a_result_is_delivered_when_redis_is_back() {
    let (mut server, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    send(&server, "noted", "id-1", "[]");
    let worker = Worker::start(&server, &noted(folder.path()), &[]);
    written(&folder.path().join("runs"));
    server.stop();
    std::fs::write(folder.path().join("go"), "").unwrap();
    until("the result cannot be stored", || worker.log().contains("retrying until Redis answers").then_some(()));
    server.start_again();
    state(&server, "id-1", "SUCCESS");
    send(&server, "noted", "id-2", "[]");
    state(&server, "id-2", "SUCCESS");
}

#[test]
fn messages_that_no_worker_can_run_neither_stop_it_nor_stay() {
    let server = RedisServer::start();
    for junk in ["not json", "{}", r#"{"properties": {"delivery_tag": "t"}}"#] {
        server.run::<()>(&["LPUSH", "default", junk]);
    }
    let mut broken = Call::new("echo", "id-1", "default").envelope();
    broken.body = "%%%".into();
    server.run::<()>(&["LPUSH", "default", std::str::from_utf8(&broken.encode()).unwrap()]);
    send(&server, "backend.tasks.health_check", "id-2", "[]");
    let _worker = Worker::start(&server, "{}", &[]);
    state(&server, "id-2", "SUCCESS");
    assert_eq!(state(&server, "id-1", "FAILURE").exception().unwrap().exc_type, "DecodeError");
    until("nothing is left in flight", || (in_flight(&server) == 0).then_some(()));
    assert_eq!(server.run::<u64>(&["XLEN", "crewjob:quarantine"]), 3);
}

#[test]
fn a_task_that_takes_longer_than_the_visibility_timeout_is_kept_in_flight() {
    let (server, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    send(&server, "noted", "id-1", "[]");
    let _worker = Worker::start(&server, &noted(folder.path()), &["--visibility-timeout", "10"]);
    written(&folder.path().join("runs"));
    let taken: f64 = server.run(&["ZSCORE", "unacked_index", "id-1"]);
    until("it counts as just taken", || {
        (server.run::<f64>(&["ZSCORE", "unacked_index", "id-1"]) > taken).then_some(())
    });
    std::fs::write(folder.path().join("go"), "").unwrap();
    state(&server, "id-1", "SUCCESS");
}

#[test]
fn a_task_whose_next_step_redis_refuses_for_good_fails_and_gives_its_slot_up() {
    let server = RedisServer::start();
    server.run::<()>(&["SET", "no-list\u{6}\u{16}3", "text"]);
    send_changed(&server, "backend.tasks.health_check", "id-1", "[]", |call| {
        call.embed.callbacks =
            value(r#"[{"task": "next", "args": [], "kwargs": {}, "options": {"queue": "no-list", "priority": 5}}]"#);
    });
    let _worker = Worker::start(&server, "{}", &["-c", "1"]);
    let failure = state(&server, "id-1", "FAILURE").exception().unwrap();
    assert!(failure.exc_type == "OperationalError" && failure.message().contains("WRONGTYPE"), "{failure:?}");
    send(&server, "backend.tasks.health_check", "id-2", "[]");
    state(&server, "id-2", "SUCCESS");
    until("nothing is left in flight", || (in_flight(&server) == 0).then_some(()));
}
