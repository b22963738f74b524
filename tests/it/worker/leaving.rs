//! How a worker goes.

use super::*;

const SLEEP: &str = r#"tasks: {slow: {command: [/bin/sh, -c, "echo '{\"progress\": 1}'; sleep 2; echo 1"]}}"#;

#[test]
fn a_worker_that_is_told_to_stop_finishes_its_tasks_and_takes_no_more_messages() {
    let server = RedisServer::start();
    let mut worker = Worker::start(&server, SLEEP, &[]);
    send(&server, "slow", "id-1", "[]");
    state(&server, "id-1", "PROGRESS");
    send(&server, "slow", "id-2", "[]");
    worker.signal("TERM");
    assert!(worker.gone().success());
    assert_eq!(document(&server, "id-1").unwrap().status.as_str(), "SUCCESS");
    assert_eq!((server.run::<u64>(&["LLEN", "default"]), in_flight(&server)), (1, 0));
    assert!(!server.run::<bool>(&["EXISTS", "_kombu.binding.celery.pidbox"]), "its mailbox is gone");
    assert!(!server.run::<bool>(&["EXISTS", "crewjob-lease:id-1"]));
}

#[test]
fn a_worker_that_has_to_stop_at_once_kills_its_tasks_and_puts_their_messages_back() {
    let server = RedisServer::start();
    for signals in [vec!["QUIT"], vec!["TERM", "INT"]] {
        let mut worker = Worker::start(&server, SLEEP, &[]);
        send(&server, "slow", "id-1", "[]");
        state(&server, "id-1", "PROGRESS");
        for signal in &signals {
            worker.signal(signal);
            until("it is heard", || {
                worker.log().contains("second signal").then_some(()).or((signals.len() == 1).then_some(()))
            });
        }
        assert!(worker.gone().success());
        assert_eq!(document(&server, "id-1").unwrap().status.as_str(), "PROGRESS", "no result is invented");
        let (put_back, flying) = (server.list("default"), in_flight(&server));
        assert_eq!((put_back.len(), flying), (1, 0));
        let envelope = crewjob::wire::Envelope::decode(&put_back[0]).unwrap();
        assert_eq!(envelope.properties.delivery_info.redelivered, Some(true));
        assert!(!server.run::<bool>(&["EXISTS", "crewjob-lease:id-1"]), "the next one can begin at once");
        server.run::<()>(&["FLUSHALL"]);
    }
}

#[test]
fn a_message_that_waits_for_its_time_goes_back_to_its_queue() {
    let server = RedisServer::start();
    send_changed(&server, "slow", "id-1", "[]", |call| {
        call.headers.insert("eta", Value::from("2100-01-01T00:00:00+00:00"));
    });
    let mut worker = Worker::start(&server, SLEEP, &[]);
    until("it is taken", || (in_flight(&server) == 1).then_some(()));
    worker.signal("TERM");
    assert!(worker.gone().success());
    assert_eq!((server.run::<u64>(&["LLEN", "default"]), in_flight(&server)), (1, 0));
}

#[test]
fn a_message_for_later_that_is_only_just_taken_when_the_worker_stops_goes_back_to_its_queue() {
    let server = RedisServer::start();
    let mut worker = Worker::start(&server, SLEEP, &[]);
    until("it is ready", || worker.log().contains("ready").then_some(()));
    let numbers = value(&format!("[{}1]", "1,".repeat(200_000)));
    send_changed(&server, "slow", "id-1", "[]", |call| {
        call.args = vec![numbers.clone(); 5]; // takes long to read
        call.headers.insert("eta", Value::from("2100-01-01T00:00:00+00:00"));
    });
    until("it is taken", || (in_flight(&server) == 1).then_some(()));
    worker.signal("TERM");
    assert!(worker.gone().success());
    assert_eq!((server.run::<u64>(&["LLEN", "default"]), in_flight(&server)), (1, 0));
}

#[test]
fn a_worker_puts_back_what_still_runs_when_its_shutdown_timeout_is_over() {
    let server = RedisServer::start();
    let tasks = r#"tasks: {slow: {command: [/bin/sh, -c, "echo '{\"progress\": 1}'; sleep 100"]}}"#;
    let mut worker = Worker::start(&server, tasks, &["--shutdown-timeout", "1"]);
    send(&server, "slow", "id-1", "[]");
    state(&server, "id-1", "PROGRESS");
    worker.signal("TERM");
    assert!(worker.gone().success());
    assert!(worker.log().contains("--shutdown-timeout is over"), "{}", worker.log());
    assert_eq!((server.run::<u64>(&["LLEN", "default"]), in_flight(&server)), (1, 0));
    assert!(!server.run::<bool>(&["EXISTS", "crewjob-lease:id-1"]), "the next one can begin at once");
}

#[test]
fn a_worker_that_stops_while_redis_refuses_puts_its_messages_back_as_soon_as_it_can() {
    let server = RedisServer::start();
    send_changed(&server, "slow", "id-1", "[]", |call| {
        call.headers.insert("eta", Value::from("2100-01-01T00:00:00+00:00"));
    });
    let mut worker = Worker::start(&server, SLEEP, &[]);
    until("it is taken", || (in_flight(&server) == 1).then_some(()));
    server.run::<()>(&["SET", "default", "no list"]);
    worker.signal("TERM");
    until("putting it back is refused", || worker.log().contains("a step on Redis failed").then_some(()));
    assert_eq!(in_flight(&server), 1, "it is still there");
    server.run::<()>(&["DEL", "default"]);
    assert!(worker.gone().success());
    assert_eq!((server.run::<u64>(&["LLEN", "default"]), in_flight(&server)), (1, 0));
}

#[test]
fn a_worker_that_cannot_start_says_why_and_names_the_remedy() {
    let server = RedisServer::start();
    let run = |url: Option<&str>, options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crewjob"));
        command.arg("worker").args(options).env_remove("REDIS_URL").envs(url.map(|url| ("REDIS_URL", url)));
        let done = command.output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, said) = run(None, &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("neither REDIS_URL nor REDIS_URL_FILE is set"), "{said}");
    let url = server.url(0);
    let (_, said) = run(Some(&url), &["--task", "nonsense"]);
    assert!(said.contains("expected NAME=COMMAND"), "{said}");
    let (_, said) = run(Some(&url), &["--tasks", "/no/such/file"]);
    assert!(said.contains("/no/such/file") && said.contains("No such file"), "{said}");
    let (_, said) = run(Some("redis://:hunter2@127.0.0.1:1/0"), &[]);
    assert!(said.contains("127.0.0.1:1") && !said.contains("hunter2"), "{said}");
}
