//! Snapshots, audits, results, and what keeps Celery's structures in order.

use std::time::Duration;

use crewjob::core::claims::fence::Fence;
use crewjob::core::id::TaskId;
use crewjob::core::status::Output;
use crewjob::store::{Document, Keys, Place, Snapshot, Store};
use sha2::{Digest, Sha256};

use super::*;

async fn snapshot(store: &Store) -> Snapshot {
    store.snapshot(&queues()).await.expect("a snapshot")
}

fn in_flight(server: &RedisServer, tag: &str, value: &str) {
    server.run::<()>(&["HSET", "unacked", tag, value]);
    server.run::<()>(&["ZADD", "unacked_index", "1795354775.5307684", tag]);
}

#[tokio::test]
async fn a_snapshot_counts_messages_that_wait_and_messages_that_workers_have() {
    let server = RedisServer::start();
    let store = store(&server).await;
    for (job, priority) in [(1, 5), (2, 5), (3, 10), (4, 0), (5, 5)] {
        store.enqueue(FIRST, &message_of(attempt(job), job, priority, "")).await.unwrap();
    }
    server.run::<()>(&["LPUSH", "default", "a foreign message"]);
    take(&server, HIGH, &attempt(1).tag());
    in_flight(&server, "by-exchange", r#"[{"headers": {"eta": null}}, "crew_jobs", "crew.jobs"]"#);
    in_flight(&server, "past", r#"[{"headers": {"eta": "2020-01-02T03:04:05.000678+00:00"}}, "", "default"]"#);
    in_flight(&server, "future", r#"[{"headers": {"eta": "2199-01-02T03:04:05+00:00"}}, "", "default"]"#);
    in_flight(&server, "future-west", r#"[{"headers":{"eta":"2199-01-02T03:04:05-08:00"}},"","default"]"#);
    in_flight(&server, "foreign", r#"[{"body": "\"eta\": \"2199-01-02T03:04:05Z\""}, "", "mail"]"#);
    in_flight(&server, "poison", "\u{1}");
    let before = store.round_trips();
    let seen = snapshot(&store).await;
    assert_eq!(store.round_trips() - before, 1);
    let loads: Vec<_> = seen.queues.iter().map(|load| (&*load.queue, load.depth(), load.in_flight)).collect();
    assert_eq!(loads, [("crew_jobs", 4, 2), ("default", 1, 1)]);
    assert_eq!(seen.queues[0].bands, [(0, 1), (3, 2), (6, 0), (9, 1)]);
    assert_eq!((seen.foreign_in_flight, seen.fence(FIRST)), (2, Fence::Open));
    let now: (i64, i64) = server.run(&["TIME"]);
    assert!((now.0 - seen.at.as_second()).abs() <= 1, "{}", seen.at);
}

#[tokio::test]
async fn times_to_wait_for_are_compared_to_the_minute_and_offset() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let (now, _): (i64, i64) = server.run(&["TIME"]);
    let at = |offset: i64| jiff::Timestamp::from_second(now + offset).unwrap();
    let text = |offset: i64, zone: &str| {
        let local = at(offset + if zone == "+05:30" { 19_800 } else { 0 });
        format!(r#"[{{"headers": {{"eta": "{}{zone}"}}}}, "", "default"]"#, &local.to_string()[..19])
    };
    in_flight(&server, "a", &text(-5, "+00:00"));
    in_flight(&server, "b", &text(-5, "+05:30"));
    in_flight(&server, "c", &text(120, "Z"));
    in_flight(&server, "d", &text(120, "+05:30"));
    let seen = snapshot(&store).await;
    assert_eq!(seen.queues[1].in_flight, 2);
}

#[tokio::test]
async fn many_messages_in_flight_are_estimated() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let mut pipe = ::redis::pipe();
    for n in 0..12_000 {
        let queue = if n % 4 == 0 { "default" } else { "crew_jobs" };
        pipe.hset("unacked", n, format!("[{{}}, \"\", \"{queue}\"]")).ignore();
    }
    pipe.exec(&mut server.connection()).unwrap();
    let seen = snapshot(&store).await;
    assert!(seen.queues[0].in_flight.abs_diff(9000) < 600, "{seen:?}");
    assert!(seen.queues[1].in_flight.abs_diff(3000) < 600, "{seen:?}");
    server.run::<()>(&["FLUSHALL"]);
    for n in 0..100 {
        let large = format!("[{{\"body\": \"{}\"}}, \"\", \"default\"]", "x".repeat(100_000));
        server.run::<()>(&["HSET", "unacked", &n.to_string(), &large]);
    }
    assert_eq!(snapshot(&store).await.queues[1].in_flight, 100);
}

#[tokio::test]
async fn an_emptied_or_restarted_redis_is_noticed_even_if_an_operator_has_written_since() {
    let mut server = RedisServer::start();
    let store = store(&server).await;
    assert_eq!(snapshot(&store).await.fence(FIRST), Fence::Missing);
    store.claim(FIRST).await.unwrap();
    let first = snapshot(&store).await.incarnation;
    store.enqueue(FIRST, &message(1)).await.unwrap();
    assert_eq!(snapshot(&store).await.incarnation, first);
    server.run::<()>(&["FLUSHALL"]);
    store.enqueue(FIRST, &message(1)).await.unwrap();
    let emptied = snapshot(&store).await.incarnation;
    assert_ne!(emptied, first);
    assert_eq!(emptied.run_id, first.run_id);
    server.stop();
    server.start_again();
    let restarted = snapshot(&store).await.incarnation;
    assert_ne!(restarted.run_id, first.run_id);
    assert_ne!(restarted.replication_id, first.replication_id);
}

fn success(task: TaskId, result: &str) -> String {
    format!(r#"{{"status": "SUCCESS", "result": {result}, "traceback": null, "task_id": "{task}", "retries": 1}}"#)
}

/// Size, digest and text of a success.
fn output(document: &Document) -> &Output {
    let Document::Read { fields, output: Some(output) } = document else { panic!("{document:?}") };
    assert_eq!((fields.status.as_str(), fields.retries), ("SUCCESS", Some(1)));
    output
}

#[tokio::test]
async fn results_come_with_the_positions_of_their_tasks_and_long_ones_as_size_and_digest() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let tasks: Vec<TaskId> = (1..=1203).map(|job| attempt(job).task).collect();
    let megabytes = format!("\"{}\"", "x".repeat(5 << 20));
    let text = |index: usize| match index {
        0 | 3 | 6 => megabytes.clone(),
        _ if index.is_multiple_of(7) => format!("\"{}\"", "y".repeat(60_000)),
        _ => index.to_string(),
    };
    for (index, task) in tasks.iter().enumerate().filter(|(index, _)| index % 3 == 0) {
        server.run::<()>(&["SET", &result_key(*task), &success(*task, &text(index))]);
    }
    let mut seen = Vec::new();
    store
        .outcomes(&tasks, |index, document| {
            let (output, text) = (output(&document).clone(), text(index));
            assert_eq!((output.bytes, output.sha256), (text.len() as u64, Sha256::digest(&text).into()), "{index}");
            assert_eq!(output.text.as_deref(), Some(&*text).filter(|text| text.len() <= 4096), "{index}");
            seen.push(index);
        })
        .await
        .unwrap();
    assert_eq!(seen, (0..1203).step_by(3).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_text_of_a_result_is_fetched_again_only_if_it_is_the_one_that_was_measured() {
    let server = RedisServer::start();
    let (store, task) = (store(&server).await, attempt(1).task);
    for size in [10, 60_000, 1_000_000] {
        let text = format!("\"{}\"", "é".repeat(size / 2));
        server.run::<()>(&["SET", &result_key(task), &success(task, &text)]);
        let document = store.outcome(task).await.unwrap().unwrap();
        assert_eq!(store.result_text(task, output(&document)).await, Ok(Some(text)));
        server.run::<()>(&["SET", &result_key(task), &success(task, &format!("\"{}\"", "x".repeat(size)))]);
        assert_eq!(store.result_text(task, output(&document)).await, Ok(None), "another one");
        server.run::<()>(&["DEL", &result_key(task)]);
        assert_eq!(store.result_text(task, output(&document)).await, Ok(None), "none");
    }
}

#[tokio::test]
async fn a_long_document_that_is_none_is_unreadable_and_says_its_size() {
    let server = RedisServer::start();
    let (store, task) = (store(&server).await, attempt(1).task);
    for (document, why) in
        [("x".repeat(1 << 20), "expected an object"), (format!("{{{}", " ".repeat(1 << 20)), "unexpected end")]
    {
        server.run::<()>(&["SET", &result_key(task), &document]);
        let Some(Document::Unreadable(said)) = store.outcome(task).await.unwrap() else { panic!("readable") };
        assert!(said.contains(why) && said.contains(&document.len().to_string()), "{said}");
    }
}

#[tokio::test]
async fn the_life_of_a_result_is_never_shortened() {
    let server = RedisServer::start();
    let (store, task) = (store(&server).await, attempt(1).task);
    let key = result_key(task);
    let life = |ttl| store.extend_result(task, Duration::from_secs(ttl));
    assert_eq!(life(60).await, Ok(false), "there is none");
    server.run::<()>(&["SETEX", &key, "3600", "{}"]);
    for (asked, left) in [(60, 3600), (7200, 7200)] {
        assert_eq!(life(asked).await, Ok(true));
        assert!((left - 1..=left).contains(&server.run::<i64>(&["TTL", &key])));
    }
    server.run::<()>(&["PERSIST", &key]);
    assert_eq!(life(60).await, Ok(true));
    assert_eq!(server.run::<i64>(&["TTL", &key]), -1);
}

#[tokio::test]
async fn only_messages_in_flight_are_renewed_and_never_set_back() {
    let server = RedisServer::start();
    let store = store(&server).await;
    server.run::<()>(&["ZADD", "unacked_index", "1000.5", "old", "9999999999", "ahead"]);
    let tags = ["old", "ahead", "acknowledged"].map(str::to_owned);
    assert_eq!(store.renew(&tags).await, Ok(1));
    let (now, _): (f64, f64) = server.run(&["TIME"]);
    let scores: Vec<Option<f64>> = server.run(&["ZMSCORE", "unacked_index", "old", "ahead", "acknowledged"]);
    assert!((scores[0].unwrap() - now).abs() < 2.0);
    assert_eq!(scores[1..], [Some(9_999_999_999.0), None]);
}

#[tokio::test]
async fn queues_are_bound_as_kombu_binds_them() {
    let server = RedisServer::start();
    store(&server).await.declare(&queues()).await.unwrap();
    for key in ["_kombu.binding.crew_jobs", "_kombu.binding_permanent.crew_jobs"] {
        assert_eq!(server.run::<Vec<String>>(&["SMEMBERS", key]), ["crew.jobs\u{6}\u{16}\u{6}\u{16}crew_jobs"]);
    }
}

#[tokio::test]
async fn other_names_for_everything_are_respected() {
    let server = RedisServer::start();
    let keys = Keys {
        separator: ":p".into(),
        priority_steps: vec![0, 5],
        global_prefix: "app1:".into(),
        unacked: "held".into(),
        result_prefix: "res".into(),
    };
    let store = Store::connect(&changed(settings(&server), |access| access.keys = keys)).await.unwrap();
    let message = message_of(attempt(1), 1, 4, "");
    store.enqueue(FIRST, &message).await.unwrap();
    store.declare(&queues()[..1]).await.unwrap();
    assert_eq!(server.list("app1:crew_jobs:p5"), [message.envelope]);
    server.run::<()>(&["SET", &format!("res_{}", result_key(message.id.task)), "{}"]);
    server.run::<()>(&["HSET", "app1:held", "t", "[{}, \"\", \"default\"]"]);
    server.run::<()>(&["ZADD", "app1:held_index", "1", "t"]);
    assert!(store.outcome(message.id.task).await.unwrap().is_some());
    let seen = snapshot(&store).await;
    assert_eq!((&seen.queues[0].bands[..], seen.queues[1].in_flight), (&[(0, 0), (5, 1)][..], 1));
    assert_eq!(store.renew(&["t".to_owned()]).await, Ok(1));
    let audit = store.audit(&queues()).await.unwrap();
    let place = Place::Queued { tag: message.id.tag().into(), queue: "crew_jobs".into(), band: 5, redelivered: false };
    assert_eq!(audit.places[&message.id.task], [place]);
    let bad = Keys { priority_steps: vec![3, 3], ..Keys::default() };
    let refused = Store::connect(&changed(settings(&server), |access| access.keys = bad)).await;
    assert_eq!(
        refused.err().map(|error| error.to_string()).as_deref(),
        Some("prioritySteps is not usable: priority steps must increase: 3 follows 3")
    );
}
