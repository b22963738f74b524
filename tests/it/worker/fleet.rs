//! What workers cost Redis, idle and busy.

use super::*;

fn connections(server: &RedisServer) -> usize {
    let clients: String = server.run(&["CLIENT", "LIST"]);
    // One is of the test.
    clients.lines().count() - 1
}

#[test]
fn a_worker_has_at_most_four_connections_whatever_queues_and_bands_it_consumes() {
    let queues = (0..12).map(|number| format!("queue-{number}")).collect::<Vec<_>>().join(",");
    for results in [0, 3] {
        let server = RedisServer::start();
        let env = [("REDIS_URL", server.url(0)), ("RESULT_BACKEND_URL", server.url(results))];
        let options = ["-Q", &*queues, "--priority-steps", "0,1,2,3,4,5,6,7,8,9"];
        let first = Worker::start_with(&env, "{}", &[&options[..], &["-n", "first@h"]].concat());
        let watched = || {
            server
                .run::<String>(&["CLIENT", "LIST"])
                .contains("flags=t ")
                .then_some(())
                .filter(|()| connections(&server) <= 4)
        };
        until("it watches", watched);
        send(&server, "backend.tasks.health_check", "id-1", "[]");
        server.run::<()>(&["RENAME", "default", "queue-7"]);
        state_in(&server, results, "id-1");
        assert!(connections(&server) <= 4, "{}", server.run::<String>(&["CLIENT", "LIST"]));
        let _second = Worker::start_with(&env, "{}", &[&options[..], &["-n", "second@h"]].concat());
        until("it waits", || server.run::<String>(&["CLIENT", "LIST"]).contains("cmd=blpop").then_some(()));
        until("both have few connections", || (connections(&server) <= 8).then_some(()));
        drop(first);
    }
}

fn state_in(server: &RedisServer, database: u8, id: &str) {
    let key = format!("celery-task-meta-{id}");
    let mut connection = redis::Client::open(server.url(database)).unwrap().get_connection().unwrap();
    until("it is done", || redis::cmd("EXISTS").arg(&key).query::<bool>(&mut connection).unwrap().then_some(()));
}

/// Scripts that the server has run.
fn scripts(server: &RedisServer) -> u64 {
    let stats: String = server.run(&["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn a_task_costs_one_script_while_further_messages_wait() {
    let server = RedisServer::start();
    let _worker = Worker::start(&server, "{}", &["-c", "1", "--log", "warn"]);
    send(&server, "backend.tasks.health_check", "first", "[]");
    state(&server, "first", "SUCCESS");
    for number in 0..200 {
        send_changed(&server, "backend.tasks.health_check", &format!("id-{number}"), "[]", |_| ());
        server.run::<()>(&["RPOPLPUSH", "default", "ready"]);
    }
    let before = scripts(&server);
    server.run::<()>(&["RENAME", "ready", "default"]);
    state(&server, "id-199", "SUCCESS");
    let all = scripts(&server) - before;
    assert!(all < 260, "{all} scripts for 200 tasks");
}

#[test]
fn a_message_that_was_put_aside_gets_a_slot_while_others_wait_on_the_queue() {
    let server = RedisServer::start();
    server.run::<()>(&["SET", "crewjob-lease:copy", "another run", "PX", "1500"]);
    send(&server, "nap", "copy", "[]");
    for number in 0..200 {
        send(&server, "nap", &format!("id-{number}"), "[]");
    }
    let nap = r#"tasks: {nap: {command: [/bin/sh, -c, "sleep 0.2; echo 1"]}}"#;
    let _worker = Worker::start(&server, nap, &["-c", "1"]);
    state(&server, "copy", "SUCCESS");
    assert!(server.run::<u64>(&["LLEN", "default"]) > 50, "the others wait");
}
