//! Where every message is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crewjob::store::{Place, Poison};
use futures::future::join_all;

use super::*;

#[tokio::test]
async fn an_audit_finds_every_message_and_names_elements_that_are_none() {
    let server = RedisServer::start();
    let store = store(&server).await;
    for job in 1..=3 {
        store.enqueue(FIRST, &message(job)).await.unwrap();
    }
    let first = take(&server, HIGH, &attempt(1).tag());
    // A blip of the connection: kombu puts back what its worker still runs.
    let copy = String::from_utf8(restored(first.as_bytes())).unwrap();
    server.run::<()>(&["RPUSH", HIGH, &copy]);
    server.run::<()>(&["LPUSH", "default", "not json"]);
    server.run::<()>(&[
        "LPUSH",
        "default",
        r#"{"body":"W10=","headers":{"id":"minimal"},"properties":{"delivery_tag":"x"}}"#,
    ]);
    server.run::<()>(&["LPUSH", "default", "{}"]);
    server.run::<()>(&["HSET", "unacked", "junk", "[", "foreign", "[{\"headers\": {\"id\": \"a\"}}, \"\", \"mail\"]"]);
    let audit = store.audit(&queues()).await.unwrap();
    let queued = |job, redelivered| Place::Queued {
        tag: attempt(job).tag().into(),
        queue: "crew_jobs".into(),
        band: 3,
        redelivered,
    };
    let received_at = Some("2026-11-22T13:39:35.530768Z".parse().unwrap());
    let Place::InFlight { tag, received_at: seen_at, eta: None } = &audit.places[&attempt(1).task][1] else {
        panic!("{audit:?}")
    };
    assert_eq!(
        (&**tag, seen_at.map(jiff::Timestamp::as_second)),
        (&*attempt(1).tag(), received_at.map(jiff::Timestamp::as_second))
    );
    assert_eq!(audit.places[&attempt(1).task][0], queued(1, true));
    assert_eq!(audit.places[&attempt(2).task], [queued(2, false)]);
    assert_eq!((audit.places.len(), audit.poisoned), (3, 2));
    let poison = |key: &str, position, size| Poison { key: key.into(), position, size };
    assert_eq!(audit.poison, [poison("default", 0, 2), poison("default", 2, 8)]);
}

#[tokio::test]
async fn elements_that_no_worker_survives_are_quarantined_and_messages_stay() {
    let server = RedisServer::start();
    let store = store(&server).await;
    store.enqueue(FIRST, &message(1)).await.unwrap();
    for element in ["no JSON", "[1]", "{\"headers\": {}, \"properties\": {}}", "no JSON"] {
        server.run::<()>(&["LPUSH", HIGH, element]);
    }
    store.enqueue(FIRST, &message(2)).await.unwrap();
    let audit = store.audit(&queues()).await.unwrap();
    assert_eq!(store.quarantine(&audit.poison).await, Ok(4));
    assert_eq!(store.quarantine(&audit.poison).await, Ok(0), "what is there now is left alone");
    let audit = store.audit(&queues()).await.unwrap();
    assert_eq!((audit.places.len(), audit.poisoned, server.run::<u64>(&["LLEN", HIGH])), (2, 0, 2));
    let kept: Vec<(String, Vec<(String, String)>)> = ::redis::cmd("XRANGE")
        .arg(store.quarantine_stream())
        .arg("-")
        .arg("+")
        .query(&mut server.connection())
        .unwrap();
    let elements: Vec<&str> = kept.iter().map(|(_, fields)| &*fields[1].1).collect();
    assert_eq!(elements, ["no JSON", "[1]", "{\"headers\": {}, \"properties\": {}}", "no JSON"]);
    assert_eq!(kept[0].1[0], ("list".to_owned(), HIGH.to_owned()));
}

#[tokio::test]
async fn a_flood_of_poison_is_counted_and_not_kept() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let mut pipe = ::redis::pipe();
    for _ in 0..5000 {
        pipe.lpush("crew_jobs", &b"\xff\x00{{"[..]).ignore();
    }
    pipe.lpush("crew_jobs", vec![b'['; 2 << 20]).ignore();
    pipe.exec(&mut server.connection()).unwrap();
    let audit = store.audit(&queues()).await.unwrap();
    assert_eq!((audit.poison.len(), audit.poisoned), (100, 5001));
    assert_eq!(store.snapshot(&queues()).await.unwrap().queues[0].depth(), 5001);
}

#[tokio::test]
async fn an_element_of_any_size_is_judged_and_moved_without_being_fetched() {
    let server = RedisServer::start();
    let store = store(&server).await;
    store.enqueue(FIRST, &message(1)).await.unwrap();
    let large = 30 << 20;
    let foreign = format!(r#"{{"body": "{}", "properties": {{"delivery_tag": "x"}}}}"#, "x".repeat(large));
    let mut connection = server.connection();
    for element in ["x".repeat(large), foreign.clone(), "x".repeat(3 << 20)] {
        ::redis::cmd("LPUSH").arg(HIGH).arg(element).exec(&mut connection).unwrap();
    }
    store.enqueue(FIRST, &message(2)).await.unwrap();
    server.run::<()>(&[
        "HSET",
        "unacked",
        "large",
        &foreign,
        "own",
        &format!("[{}, \"\", \"crew_jobs\"]", String::from_utf8(message(3).envelope).unwrap()),
    ]);
    let audit = store.audit(&queues()).await.unwrap();
    assert_eq!((audit.places.len(), audit.poisoned), (3, 2));
    let sizes: Vec<_> = audit.poison.iter().map(|poison| (poison.position, poison.size)).collect();
    assert_eq!(sizes, [(1, 3 << 20), (3, large)]);
    assert_eq!(store.quarantine(&audit.poison).await, Ok(2));
    assert_eq!(store.quarantine(&audit.poison).await, Ok(0), "what is there now is left alone");
    let audit = store.audit(&queues()).await.unwrap();
    assert_eq!((audit.places.len(), audit.poisoned, server.run::<u64>(&["LLEN", HIGH])), (3, 0, 3));
    assert_eq!(server.run::<u64>(&["XLEN", store.quarantine_stream()]), 2);
}

const TAKE: &str = r#"local taken = redis.call('RPOP', KEYS[1])
redis.call('HSET', KEYS[2], string.match(taken, '"id":"([^"]+)"'), '[' .. taken .. ', "", "crew_jobs"]')
"#;

/// While an audit reads, workers take messages, kombu puts others back to either end, and producers push. Nothing may be
/// missed, whenever it moves.
#[tokio::test(flavor = "multi_thread")]
async fn no_audit_misses_a_message_that_moves_meanwhile() {
    const JOBS: u128 = 1000;
    let server = RedisServer::start();
    let store = store(&server).await;
    let count = Arc::new(AtomicU32::new(0));
    let mut overlaps = 0;
    for round in 0..4 {
        server.run::<()>(&["FLUSHALL"]);
        let messages: Vec<_> = (1..=JOBS).map(message).collect();
        join_all(messages.iter().map(|message| store.enqueue(FIRST, message))).await;
        let mut connection = server.connection();
        let take = ::redis::Script::new(TAKE);
        for _ in 1..=JOBS / 2 {
            take.key(HIGH).key("unacked").invoke::<()>(&mut connection).unwrap();
        }
        let held: Vec<String> = server.run(&["HKEYS", "unacked"]);
        let done = count.clone();
        let mover = std::thread::spawn(move || {
            let script = ::redis::Script::new(
                &(TAKE.to_owned()
                    + r#"redis.call('LPUSH', KEYS[1], '{"headers":{"id":"foreign"}}')
                    local held = redis.call('HGET', KEYS[2], ARGV[1])
                    redis.call('HDEL', KEYS[2], ARGV[1])
                    redis.call(ARGV[2], KEYS[3], string.match(held, '^%[(.*), "", "crew_jobs"%]$'))"#),
            );
            for (tag, end) in held.iter().zip(["RPUSH", "LPUSH"].into_iter().cycle()) {
                let mut call = script.key(HIGH);
                call.key("unacked").key("default").arg(tag).arg(end);
                call.invoke::<()>(&mut connection).expect("a move");
                done.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        while !mover.is_finished() {
            let before = count.load(Ordering::Relaxed);
            let audit = store.audit(&queues()).await.unwrap();
            let missing = (1..=JOBS).filter(|job| !audit.places.contains_key(&attempt(*job).task)).count();
            assert_eq!(missing, 0, "in round {round}");
            overlaps += u32::from(count.load(Ordering::Relaxed) > before);
        }
        mover.join().expect("the mover");
    }
    assert!(overlaps > 0, "messages did move during an audit");
}
