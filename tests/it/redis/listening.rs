//! Results and events as they come, over losses of the connection.

use std::pin::Pin;
use std::time::Duration;

use crewjob::store::{Keys, Notice, Secret, Stage, Store, TaskEvent, WorkerState};
use crewjob::wire::event::{Detail, Event};
use crewjob::wire::{Envelope, Value};
use futures::{Stream, StreamExt};
use tokio::time::timeout;

use super::*;
use crate::support::redis::Setup;

type Notices = Pin<Box<dyn Stream<Item = Notice> + Send>>;

async fn next(notices: &mut Notices) -> Notice {
    timeout(Duration::from_secs(10), notices.next()).await.expect("a notice in time").expect("an endless stream")
}

async fn listen(store: &Store) -> Notices {
    let mut notices: Notices = Box::pin(store.subscribe());
    assert_eq!(next(&mut notices).await, Notice::Connected);
    notices
}

fn event(fields: &str) -> Event {
    let common = r#""hostname": "crew@pod", "timestamp": 1795354775.5, "pid": 1, "clock": 2, "utcoffset": 0.0"#;
    Event::from_value(Value::parse(format!("{{{common}, {fields}}}").as_bytes()).unwrap()).unwrap()
}

fn publish(server: &RedisServer, channel: &str, payload: &[u8]) -> i64 {
    ::redis::cmd("PUBLISH").arg(channel).arg(payload).query(&mut server.connection()).unwrap()
}

fn result(server: &RedisServer, job: u128, document: &str) {
    publish(server, &result_key(attempt(job).task), document.as_bytes());
}

#[tokio::test]
async fn results_and_events_of_our_tasks_are_heard_and_others_are_not() {
    let server = RedisServer::start();
    let mut notices = listen(&store(&server).await).await;
    let task = attempt(1).task;
    publish(&server, "celery-task-meta-45495316-63b8-4c6d-8998-bcb32881f3e8", b"foreign");
    publish(&server, "celery-task-meta-fixed-id", b"foreign");
    publish(&server, "/0.celeryev/task.multi", b"junk");
    publish(&server, "/1.celeryev/worker.online", &event(r#""type": "worker-online""#).envelope("").encode());
    publish(&server, "/0.celeryev/task.sent", b"junk");
    result(&server, 1, "any bytes");
    assert_eq!(next(&mut notices).await, Notice::Result { task, document: Some(b"any bytes".to_vec()) });

    let batch = [
        event(&format!(r#""type": "task-received", "uuid": "{task}", "retries": 2"#)),
        event(r#""type": "task-received", "uuid": "45495316-63b8-4c6d-8998-bcb32881f3e8""#),
        event(r#""type": "task-of-a-later-celery""#),
        event(&format!(r#""type": "task-revoked", "uuid": "{task}", "terminated": true, "signum": 15"#)),
    ];
    let body = Value::Array(batch.iter().map(Event::to_value).collect()).to_json();
    let envelope = Envelope::new(crewjob::wire::Object::new(), &body, batch[0].envelope("").properties);
    publish(&server, "/0.celeryev/task.multi", &envelope.encode());
    let at = Some("2026-11-22T13:39:35.5Z".parse().unwrap());
    let heard = |stage, retries| Notice::Task(TaskEvent { task, stage, node: "crew@pod".into(), retries, at });
    assert_eq!(next(&mut notices).await, heard(Stage::Received, Some(2)));
    assert_eq!(next(&mut notices).await, heard(Stage::Revoked { terminated: true }, None));

    publish(
        &server,
        "/0.celeryev/worker.heartbeat",
        &event(r#""type": "worker-heartbeat", "active": 3"#).envelope("").encode(),
    );
    let Notice::Worker(worker) = next(&mut notices).await else { panic!("a worker event") };
    assert_eq!((&*worker.node, worker.state), ("crew@pod", WorkerState::Heartbeat { active: 3 }));
    publish(&server, "/0.celeryev/worker.offline", &event(r#""type": "worker-offline""#).envelope("").encode());
    let Notice::Worker(worker) = next(&mut notices).await else { panic!("a worker event") };
    assert_eq!(worker.state, WorkerState::Offline);
    assert!(matches!(batch[2].detail, Detail::Other { .. }));
}

#[tokio::test]
async fn listening_goes_on_after_the_connection_or_the_server_was_lost() {
    let mut server = RedisServer::start();
    let mut notices = listen(&store(&server).await).await;
    for _ in 0..3 {
        assert_eq!(server.run::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]), 1);
        assert!(matches!(next(&mut notices).await, Notice::Disconnected(_)));
        assert_eq!(next(&mut notices).await, Notice::Connected);
    }
    server.stop();
    assert!(matches!(next(&mut notices).await, Notice::Disconnected(_)));
    tokio::time::sleep(Duration::from_millis(600)).await;
    server.start_again();
    assert_eq!(next(&mut notices).await, Notice::Connected, "said once, however many attempts failed");
    result(&server, 1, "{}");
    assert!(matches!(next(&mut notices).await, Notice::Result { .. }));
}

#[tokio::test]
async fn a_result_that_the_server_does_not_deliver_costs_the_connection_and_is_told() {
    // Redis drops subscribers that have more than this to read.
    let server = Setup::default().config("client-output-buffer-limit pubsub 1mb 0 0").start();
    let mut notices = listen(&store(&server).await).await;
    result(&server, 1, &"x".repeat(3 << 20));
    assert!(matches!(next(&mut notices).await, Notice::Disconnected(_)));
    assert_eq!(next(&mut notices).await, Notice::Connected);
}

/// Whether a connection to this port has bytes that were not read: the queues in the kernel's table of connections.
fn is_anything_under_way(port: u16) -> bool {
    let (table, port) = (std::fs::read_to_string("/proc/net/tcp").unwrap(), format!(":{port:04X}"));
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, _, queues, ..] = fields[..] else { return false };
        (local.ends_with(&port) || remote.ends_with(&port)) && queues != "00000000:00000000"
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_told_that_it_missed_something_and_memory_stays_bounded() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let mut notices = listen(&store).await;
    let mut pipe = ::redis::pipe();
    for job in 0..20_000 {
        pipe.publish(result_key(attempt(job % 50).task), "{}").ignore();
    }
    pipe.exec(&mut server.connection()).unwrap();
    let all_read = async {
        while is_anything_under_way(server.port()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), all_read)
        .await
        .expect("the connection is read although nothing takes the notices");
    tokio::time::sleep(Duration::from_millis(100)).await; // what was read last is still being decoded
    assert_eq!(next(&mut notices).await, Notice::Lagged);
    let mut heard = 0;
    while let Ok(Some(notice)) = timeout(Duration::from_millis(300), notices.next()).await {
        assert!(matches!(notice, Notice::Result { .. } | Notice::Lagged), "{notice:?}");
        heard += 1;
    }
    assert!((8000..9000).contains(&heard), "{heard}");
    result(&server, 1, "afterwards");
    assert!(
        matches!(next(&mut notices).await, Notice::Result { document, .. } if document.as_deref() == Some(b"afterwards"))
    );
}

#[tokio::test]
async fn of_a_long_result_only_its_arrival_is_told_and_listening_goes_on() {
    let server = Setup::default().config("client-output-buffer-limit pubsub 0 0 0").start();
    let mut notices = listen(&store(&server).await).await;
    let task = attempt(1).task;
    for bytes in [8193, 200 << 10, 40 << 20] {
        result(&server, 1, &"x".repeat(bytes));
        assert_eq!(next(&mut notices).await, Notice::Result { task, document: None });
        result(&server, 1, "short");
        assert_eq!(next(&mut notices).await, Notice::Result { task, document: Some(b"short".to_vec()) });
    }
    publish(&server, "/0.celeryev/task.multi", "x".repeat(10 << 20).as_bytes());
    result(&server, 1, "afterwards");
    assert!(matches!(next(&mut notices).await, Notice::Result { document: Some(_), .. }));
}

#[tokio::test]
async fn a_dropped_stream_leaves_the_server_alone() {
    let server = RedisServer::start();
    let store = store(&server).await;
    drop(listen(&store).await);
    for _ in 0..100 {
        if server.run::<i64>(&["PUBSUB", "NUMPAT"]) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still subscribed");
}

#[tokio::test]
async fn broker_and_results_may_be_apart_and_have_prefixes() {
    let (broker, results) = (RedisServer::start(), RedisServer::start());
    let keys = Keys { global_prefix: "app1:".into(), result_prefix: "res".into(), ..Keys::default() };
    let result_url = Some(Secret::new(results.url(0)));
    let url = Secret::new(broker.url(2));
    let apart = changed(settings(&broker), |access| {
        (access.keys, access.result_url, access.url) = (keys, result_url, url);
    });
    let store = Store::connect(&apart).await.unwrap();
    let mut notices = listen(&store).await;
    assert_eq!(next(&mut notices).await, Notice::Connected, "once for each server");
    publish(&results, &format!("res_{}", result_key(attempt(1).task)), b"{}");
    assert!(matches!(next(&mut notices).await, Notice::Result { .. }));
    publish(&broker, "app1:/2.celeryev/worker.online", &event(r#""type": "worker-online""#).envelope("").encode());
    assert!(matches!(next(&mut notices).await, Notice::Worker(_)));
}
