//! What a worker holds without running it is bounded, and the rest stays for other workers.

use super::*;
use crate::support::redis::Setup;

const NAP: &str = r#"tasks: {nap: {command: [/bin/sh, -c, "sleep 0.5; echo 1"]}}"#;

const ECHO: &str = r#"tasks: {echo: {command: [/bin/sh, -c, "echo 1"]}}"#;

/// Puts a call on the queue as a message that kombu has put back.
fn send_again(server: &RedisServer, task: &str, id: &str) {
    let mut call = Call::new(task, id, "default");
    call.priority = 0;
    let message = call.envelope().redelivered().encode();
    server.run::<()>(&["LPUSH", "default", std::str::from_utf8(&message).unwrap()]);
}

fn send_later(server: &RedisServer, id: &str, eta: &str, args: &str) {
    send_changed(server, "backend.tasks.health_check", id, args, |call| {
        call.headers.insert("eta", Value::from(eta));
    });
}

fn waiting(server: &RedisServer) -> u64 {
    server.run(&["LLEN", "default"])
}

/// Megabytes of memory that a worker occupies.
fn memory(worker: &Worker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn messages_that_were_put_back_are_shared_by_all_workers() {
    let server = RedisServer::start();
    for number in 0..24 {
        send_again(&server, "nap", &format!("id-{number}"));
    }
    let first = Worker::start(&server, NAP, &["-c", "1", "-n", "first@h"]);
    until("it holds what it may", || (in_flight(&server) >= 4).then_some(()));
    until("it pauses", || (waiting(&server) + in_flight(&server) == 24).then_some(()));
    assert!(in_flight(&server) <= 5, "{}", in_flight(&server));
    let others = ["b@h", "c@h", "d@h"].map(|name| Worker::start(&server, NAP, &["-c", "1", "-n", name]));
    let ran = |worker: &Worker| worker.log().matches("task succeeded").count();
    until("all have run", || {
        (ran(&first) + others.iter().map(ran).sum::<usize>() == 24 && in_flight(&server) == 0).then_some(())
    });
    for worker in others.iter().chain([&first]) {
        assert!(ran(worker) >= 3, "each has its share: {}", ran(worker));
    }
}

#[test]
fn copies_of_tasks_that_run_elsewhere_hold_up_no_other_task() {
    let server = RedisServer::start();
    for number in 0..30 {
        let id = format!("id-{number}");
        server.run::<()>(&["SET", &format!("crewjob-lease:{id}"), "another run"]);
        send(&server, "backend.tasks.health_check", &id, "[]");
    }
    send(&server, "backend.tasks.health_check", "plain", "[]");
    let _worker = Worker::start(&server, NAP, &["-c", "2"]);
    state(&server, "plain", "SUCCESS");
    assert!(in_flight(&server) <= 10, "{}", in_flight(&server));
    assert!(waiting(&server) >= 20, "{}", waiting(&server));
}

#[test]
fn a_flood_of_countdowns_takes_little_memory_holds_up_no_plain_task_and_is_left_behind_by_no_worker() {
    let server = RedisServer::start();
    let argument = format!("[{:?}]", "x".repeat(20_000));
    for number in 0..600 {
        send_later(&server, &format!("id-{number}"), "2100-01-01T00:00:00+00:00", &argument);
    }
    send(&server, "backend.tasks.health_check", "plain", "[]");
    let mut worker = Worker::start(&server, "{}", &["--log", "warn"]);
    until("it has taken some", || (in_flight(&server) > 20).then_some(()));
    let before = memory(&worker);
    state(&server, "plain", "SUCCESS");
    until("only they are in flight", || (in_flight(&server) == 600).then_some(()));
    // Their bodies are 16 MB as they lie there.
    assert!(memory(&worker) < before + 8, "{before} and {} MB", memory(&worker));
    worker.signal("TERM");
    assert!(worker.gone().success());
    assert_eq!((waiting(&server), in_flight(&server)), (600, 0));
}

#[test]
fn a_worker_holds_no_more_countdowns_than_it_may_beside_its_slots() {
    let server = RedisServer::start();
    for number in 0..20 {
        send_later(&server, &format!("id-{number}"), "2100-01-01T00:00:00+00:00", "[]");
    }
    let _worker = Worker::start(&server, "{}", &["-c", "2", "--eta-task-limit", "5"]);
    until("it holds what it may", || (in_flight(&server) == 7).then_some(()));
    sleep(Duration::from_millis(300));
    assert_eq!((in_flight(&server), waiting(&server)), (7, 13));
}

#[test]
fn a_task_whose_countdown_is_over_is_run_by_any_worker_with_a_free_slot() {
    let server = RedisServer::start();
    let eta = crewjob::runtime::clock::now().checked_add(Duration::from_secs(2)).unwrap().to_string();
    for number in 0..4 {
        send_changed(&server, "nap", &format!("id-{number}"), "[]", |call| {
            call.headers.insert("eta", Value::from(&*eta));
        });
    }
    let first = Worker::start(&server, NAP, &["-c", "1", "-n", "first@h"]);
    until("it holds them", || (in_flight(&server) == 4).then_some(()));
    let second = Worker::start(&server, NAP, &["-c", "1", "-n", "second@h"]);
    for number in 0..4 {
        state(&server, &format!("id-{number}"), "SUCCESS");
    }
    for worker in [&first, &second] {
        worker.logs("task succeeded"); // both have their share
        assert!(!worker.log().contains("put aside"), "it has not run before");
    }
}

#[test]
fn a_full_redis_is_emptied_by_the_tasks_that_end() {
    for results in [0, 3] {
        let server = Setup::default().config("maxmemory 10mb").config("maxmemory-policy noeviction").start();
        let full = fill(&server, 200_000);
        assert!(full > 20, "{full} messages");
        let env = [("REDIS_URL", server.url(0)), ("RESULT_BACKEND_URL", server.url(results))];
        let worker = Worker::start_with(&env, ECHO, &["-c", "2", "--without-mingle", "-Q", "default"]);
        until("the queue is empty", || (waiting(&server) + in_flight(&server) == 0).then_some(()));
        until("all have run", || (worker.log().matches("task succeeded").count() == full).then_some(()));
    }
}

/// Sends calls with an argument of so many bytes until Redis is full; says how many there are.
fn fill(server: &RedisServer, bytes: usize) -> usize {
    let mut connection = server.connection();
    for number in 0.. {
        let mut call = Call::new("echo", format!("id-{number}"), "default");
        call.priority = 0;
        call.args = vec!["x".repeat(bytes).into()];
        let sent = redis::cmd("LPUSH").arg("default").arg(call.envelope().encode()).exec(&mut connection);
        if let Err(refused) = sent {
            assert!(refused.to_string().contains("OOM"), "{refused}");
            return number;
        }
    }
    unreachable!("Redis has a limit")
}

#[test]
fn a_worker_whose_results_fill_redis_takes_no_further_task_until_there_is_room() {
    let server = Setup::default().config("maxmemory 8mb").config("maxmemory-policy noeviction").start();
    let large = r#"tasks: {large: {command: [/bin/sh, -c, "head -c 200000 /dev/zero | tr '\\0' x"], output: text}}"#;
    for number in 0..80 {
        send(&server, "large", &format!("id-{number}"), "[]");
    }
    let worker = Worker::start(&server, large, &["-c", "1"]);
    until("it waits", || worker.log().contains("taking a message from Redis failed").then_some(()));
    let (left, ran) = (waiting(&server), worker.log().matches("task succeeded").count());
    assert!(left > 40 && in_flight(&server) == 0, "{left}");
    for number in 0..ran {
        server.run::<()>(&["DEL", &format!("celery-task-meta-id-{number}")]);
    }
    until("it goes on", || (worker.log().matches("task succeeded").count() > ran).then_some(()));
}

#[test]
fn a_worker_whose_result_backend_is_away_holds_no_more_than_it_can_run() {
    let (server, mut results) = (RedisServer::start(), RedisServer::start());
    let env = [("REDIS_URL", server.url(0)), ("RESULT_BACKEND_URL", results.url(0))];
    let worker = Worker::start_with(&env, "{}", &["-c", "2", "--without-mingle"]);
    until("it is ready", || worker.log().contains("ready").then_some(()));
    results.stop();
    for number in 0..50 {
        send(&server, "backend.tasks.health_check", &format!("id-{number}"), "[]");
    }
    until("it holds what it can run", || (in_flight(&server) == 2).then_some(()));
    until("it tries again", || (worker.log().matches("taking the lease failed").count() > 3).then_some(()));
    assert_eq!((in_flight(&server), waiting(&server)), (2, 48));
    results.start_again();
    until("all have run", || (waiting(&server) + in_flight(&server) == 0).then_some(()));
}
