//! Publishing, publishing again, taking back, moving.

use crewjob::core::id::Priority;
use crewjob::core::plan::InPlaceOf;
use crewjob::store::{Enqueued, Error, MarkerState, Message, Requeued, Secret, Settings, Store, Withdrawn};
use futures::future::join_all;

use super::*;

async fn published(server: &RedisServer) -> (Store, Message) {
    let (store, message) = (store(server).await, message(1));
    assert_eq!(store.enqueue(FIRST, &message).await, Ok(Enqueued::Published));
    (store, message)
}

#[tokio::test]
async fn an_attempt_is_published_once_however_many_callers_try() {
    let server = RedisServer::start();
    let (one, other, message) = (store(&server).await, store(&server).await, message(1));
    let tries = (0..50).map(|n| if n % 2 == 0 { &one } else { &other }).map(|store| store.enqueue(FIRST, &message));
    let outcomes = join_all(tries).await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Ok(Enqueued::Published)).count(), 1);
    for outcome in outcomes {
        if let Enqueued::Already(marker) = outcome.unwrap() {
            assert_eq!((marker.uid, marker.generation, &*marker.name), (uid(1), 0, "job-1"));
        }
    }
    assert_eq!(server.list(HIGH), [message.envelope]);
}

#[tokio::test]
async fn a_marker_records_the_publication() {
    let server = RedisServer::start();
    let (store, message) = published(&server).await;
    let absent = crewjob::store::MarkerId::new("elsewhere", message.id.task);
    let markers = store.markers(&[message.marker(), absent]).await.unwrap();
    let [Some(marker), None] = &markers[..] else { panic!("one marker: {markers:?}") };
    assert_eq!((&*marker.tag, &*marker.queue), (&*message.id.tag(), "crew_jobs"));
    assert_eq!((marker.attempt, marker.priority, marker.state), (1, Priority::clamped(5), MarkerState::Queued));
    let now: (i64, i64) = server.run(&["TIME"]);
    assert!((now.0 - marker.at.as_second()).abs() <= 2, "{}", marker.at);
    assert_eq!(server.run::<i64>(&["TTL", &format!("crewjob:{{cluster}}:team:{}", message.id.task)]), -1);
    let encoding: String =
        server.run(&["OBJECT", "ENCODING", &format!("crewjob:{{cluster}}:team:{}", message.id.task)]);
    assert_eq!(encoding, "listpack", "a marker takes little memory");
    store.forget(&[message.marker()]).await.unwrap();
    assert_eq!(store.markers(&[message.marker()]).await, Ok(vec![None]));
    assert_eq!(server.run::<Vec<String>>(&["KEYS", "crewjob:*"]), ["crewjob:{cluster}:epoch:crewjob/crewjob-operator"]);
}

#[tokio::test]
async fn markers_of_this_cluster_are_found_among_all_keys() {
    let server = RedisServer::start();
    let (store, settings) = (store(&server).await, settings(&server));
    let other = Store::connect(&Settings { cluster_uid: "other".into(), ..settings }).await.unwrap();
    other.enqueue(FIRST, &message(9)).await.unwrap();
    for job in 1..=1500 {
        store.enqueue(FIRST, &message(job)).await.unwrap();
    }
    let mut found = Vec::new();
    store.scan_markers(|id| found.push(id)).await.unwrap();
    let mut expected: Vec<_> = (1..=1500).map(|job| message(job).marker()).collect();
    found.sort_by_key(|id| id.task);
    expected.sort_by_key(|id| id.task);
    assert_eq!(found, expected);
}

#[tokio::test]
async fn two_clusters_share_one_redis_and_neither_can_disturb_the_other() {
    let server = RedisServer::start();
    let (ours, settings) = (store(&server).await, settings(&server));
    let theirs = Store::connect(&Settings { cluster_uid: "other".into(), ..settings }).await.unwrap();
    ours.claim(term(7)).await.unwrap();
    theirs.claim(FIRST).await.unwrap();
    assert_eq!(ours.enqueue(term(7), &message(1)).await, Ok(Enqueued::Published));
    assert_eq!(theirs.enqueue(FIRST, &message(2)).await, Ok(Enqueued::Published), "our epoch does not fence them");
    assert_eq!(server.list(HIGH), [message(2).envelope, message(1).envelope], "the workers serve both");
    let audit = theirs.audit(&queues()).await.unwrap();
    assert!(audit.poison.is_empty() && audit.places.contains_key(&attempt(2).task));
    let mut found = Vec::new();
    theirs.scan_markers(|id| found.push(id)).await.unwrap();
    assert_eq!(found, [message(2).marker()], "ours are no strays of theirs");
    assert_eq!(theirs.withdraw(FIRST, &message(2).marker(), 0).await, Ok(Withdrawn::Removed));
    assert_eq!(theirs.sweep(FIRST, &all_gone([message(2).marker()]), &queues()).await, Ok(vec![]));
    theirs.forget(&[message(2).marker()]).await.unwrap();
    assert_eq!(server.list(HIGH), [message(1).envelope]);
    assert!(ours.markers(&[message(1).marker()]).await.unwrap()[0].is_some());
}

#[tokio::test]
async fn messages_wait_in_the_band_of_their_priority() {
    let server = RedisServer::start();
    let store = store(&server).await;
    for (priority, list) in [(10_i32, "crew_jobs"), (5, HIGH), (3, "crew_jobs\u{6}\u{16}6"), (0, LOWEST)] {
        let job = u128::from(priority.unsigned_abs());
        let message = message_of(attempt(job), job, priority, "");
        store.enqueue(FIRST, &message).await.unwrap();
        assert_eq!(server.list(list), [message.envelope], "priority {priority}");
    }
}

#[tokio::test]
async fn an_earlier_leader_can_change_nothing() {
    let server = RedisServer::start();
    let (store, message) = published(&server).await;
    let (next, old, id) = (again(&message, 1), FIRST, message.marker());
    store.claim(term(7)).await.unwrap();
    let mut before: Vec<String> = server.run(&["KEYS", "*"]);
    let fenced = |outcome: Result<(), Error>| {
        assert!(matches!(outcome, Err(Error::Fenced { .. })), "{outcome:?}");
    };
    fenced(store.claim(old).await);
    fenced(store.enqueue(old, &super::message(2)).await.map(|_| ()));
    fenced(store.enqueue(old, &message).await.map(|_| ()));
    fenced(store.requeue(old, InPlaceOf::Nowhere(0), &next, true).await.map(|_| ()));
    fenced(store.withdraw(old, &id, 0).await.map(|_| ()));
    fenced(store.drop_copy(old, &id, 0, None).await.map(|_| ()));
    fenced(store.move_band(old, &id, 0, "crew_jobs", Priority::clamped(0)).await.map(|_| ()));
    fenced(store.sweep(old, &all_gone([id]), &queues()).await.map(|_| ()));
    let mut after: Vec<String> = server.run(&["KEYS", "*"]);
    before.sort();
    after.sort();
    assert_eq!(before, after);
    assert_eq!(server.list(HIGH), std::slice::from_ref(&message.envelope));
    assert_eq!(store.requeue(term(8), InPlaceOf::Nowhere(0), &next, false).await, Ok(Requeued::Published));
    let paused = store.claim(term(7)).await;
    assert!(matches!(paused, Err(Error::Fenced { .. })), "{paused:?}");
}

#[tokio::test]
async fn one_of_many_callers_publishes_the_next_generation() {
    let server = RedisServer::start();
    let (store, message) = published(&server).await;
    let next = again(&message, 1);
    let outcomes = join_all((0..50).map(|_| store.requeue(FIRST, InPlaceOf::Nowhere(0), &next, false))).await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Ok(Requeued::Published)).count(), 1);
    for outcome in outcomes {
        if let Requeued::Superseded(marker) = outcome.unwrap() {
            assert_eq!((marker.generation, &*marker.tag), (1, &*next.id.tag()));
        }
    }
    assert_eq!(server.list(HIGH), [next.envelope, message.envelope]);
}

#[tokio::test]
async fn a_lost_delivery_is_released_when_its_message_is_published_again() {
    let server = RedisServer::start();
    let (store, message) = published(&server).await;
    let published_at = store.markers(&[message.marker()]).await.unwrap()[0].clone().unwrap().at;
    take(&server, HIGH, &message.id.tag());
    take_foreign(&server);
    let next = again(&message, 1);
    assert_eq!(store.requeue(FIRST, InPlaceOf::InFlight(0), &next, false).await, Ok(Requeued::Published));
    assert_eq!(server.run::<Vec<String>>(&["HKEYS", "unacked"]), ["foreign"]);
    assert_eq!(server.run::<Vec<String>>(&["ZRANGE", "unacked_index", "0", "-1"]), ["foreign"]);
    assert_eq!(server.list(HIGH), [next.envelope]);
    let marker = store.markers(&[message.marker()]).await.unwrap()[0].clone().unwrap();
    assert_eq!(marker.at, published_at, "the attempt keeps the time of its first message");
}

fn take_foreign(server: &RedisServer) {
    server.run::<()>(&["HSET", "unacked", "foreign", "[{}, \"\", \"crew_jobs\"]"]);
    server.run::<()>(&["ZADD", "unacked_index", "1", "foreign"]);
}

/// What `requeue` does when this document is there, and whether the document survives.
async fn requeue_over(document: &str, clear: bool, apart: bool) -> (Requeued, bool) {
    let (server, results) = (RedisServer::start(), RedisServer::start());
    let result_url = apart.then(|| Secret::new(results.url(3)));
    let store = Store::connect(&changed(settings(&server), |access| access.result_url = result_url)).await.unwrap();
    let message = message(1);
    store.enqueue(FIRST, &message).await.unwrap();
    let holder = if apart { &results } else { &server };
    let key = result_key(message.id.task);
    if apart {
        let mut connection = ::redis::Client::open(holder.url(3)).unwrap().get_connection().unwrap();
        ::redis::cmd("SET").arg(&key).arg(document).exec(&mut connection).unwrap();
    } else {
        holder.run::<()>(&["SET", &key, document]);
    }
    let outcome = store.requeue(FIRST, InPlaceOf::Nowhere(0), &again(&message, 1), clear).await.unwrap();
    let survives = store.outcome(message.id.task).await.unwrap().is_some();
    assert_eq!(server.list(HIGH).len(), if outcome == Requeued::Published { 2 } else { 1 });
    (outcome, survives)
}

#[tokio::test]
async fn only_a_failure_is_cleared_and_a_success_is_never_run_again() {
    for apart in [false, true] {
        let over = async |document, clear| requeue_over(document, clear, apart).await;
        let late = r#"{"result": {"status": "FAILURE"}, "status": "SUCCESS"}"#;
        assert_eq!(over(r#"{"status": "SUCCESS", "result": 1}"#, true).await, (Requeued::Ended, true));
        assert_eq!(over(late, true).await, (Requeued::Ended, true), "the status may come late in the document");
        assert_eq!(over(r#"{"status":"FAILURE","result":{}}"#, true).await, (Requeued::Published, false));
        assert_eq!(over(r#"{"status": "FAILURE"}"#, false).await, (Requeued::Ended, true));
        assert_eq!(over(r#"{"status": "REVOKED", "children": []}"#, true).await, (Requeued::Ended, true));
        let short = r#"{"status": "REVOKED", "children": null}"#;
        assert_eq!(over(short, true).await, (Requeued::Published, false), "workers that do not have the task wrote it");
        assert_eq!(over(r#"{"status": "STARTED"}"#, false).await, (Requeued::Published, false), "its worker is dead");
        assert_eq!(over("\u{1f}compressed", true).await, (Requeued::Ended, true), "unreadable may be a success");
    }
}

#[tokio::test]
async fn an_attempt_that_left_a_result_is_not_run_again_when_its_marker_is_lost() {
    let server = RedisServer::start();
    let (store, message) = published(&server).await;
    server.run::<()>(&["FLUSHALL"]);
    server.run::<()>(&["SET", &result_key(message.id.task), r#"{"status": "SUCCESS"}"#]);
    assert_eq!(store.enqueue(FIRST, &message).await, Ok(Enqueued::HasResult));
    assert_eq!(server.list(HIGH).len(), 0);
    let results = Some(Secret::new(server.url(0)));
    let url = Secret::new(server.url(4));
    let elsewhere = changed(settings(&server), |access| (access.url, access.result_url) = (url, results));
    let apart = Store::connect(&elsewhere).await.unwrap();
    assert_eq!(apart.enqueue(FIRST, &message).await, Ok(Enqueued::HasResult));
}

#[tokio::test]
async fn a_delivery_is_replaced_only_when_it_is_where_it_was_seen() {
    let server = RedisServer::start();
    let (store, message) = published(&server).await;
    let next = again(&message, 1);
    let requeue = |in_place_of| store.requeue(FIRST, in_place_of, &next, false);
    assert_eq!(requeue(InPlaceOf::InFlight(0)).await, Ok(Requeued::Changed));
    take(&server, HIGH, &message.id.tag());
    assert_eq!(requeue(InPlaceOf::Nowhere(0)).await, Ok(Requeued::Changed));
    assert_eq!(requeue(InPlaceOf::InFlight(0)).await, Ok(Requeued::Published));
}

#[tokio::test]
async fn a_delivery_that_was_noted_after_redis_was_emptied_is_replaced() {
    let server = RedisServer::start();
    let (store, message) = published(&server).await;
    let next = again(&message, 1);
    take(&server, HIGH, &message.id.tag());
    server.run::<()>(&["DEL", &format!("crewjob:{{cluster}}:team:{}", message.id.task)]);
    assert_eq!(store.requeue(FIRST, InPlaceOf::Nowhere(0), &next, false).await, Ok(Requeued::Changed));
    assert_eq!(store.requeue(FIRST, InPlaceOf::InFlight(0), &next, false).await, Ok(Requeued::Published));
    let once_more = store.requeue(FIRST, InPlaceOf::InFlight(0), &next, false).await;
    assert!(matches!(once_more, Ok(Requeued::Superseded(_))), "{once_more:?}");
    assert_eq!(server.list(HIGH), [next.envelope]);
}

#[tokio::test]
async fn an_old_delivery_is_given_up_only_when_it_is_where_it_was_seen_and_then_no_worker_restores_it() {
    let server = RedisServer::start();
    let (store, message) = published(&server).await;
    let recorded = AttemptId { generation: 3, ..message.id };
    let id = message.marker();
    let retire = |in_place_of| store.retire(FIRST, in_place_of, &id, recorded);
    take(&server, HIGH, &message.id.tag());
    assert_eq!(store.markers(&[message.marker()]).await.unwrap()[0].as_ref().unwrap().spec, Some(message.spec));
    assert_eq!(retire(InPlaceOf::Nowhere(0)).await, Ok(false), "a worker has it");
    assert_eq!(retire(InPlaceOf::InFlight(1)).await, Ok(false), "another delivery");
    assert_eq!(retire(InPlaceOf::InFlight(0)).await, Ok(true));
    assert_eq!(retire(InPlaceOf::InFlight(0)).await, Ok(false), "it is done");
    let marker = store.markers(&[message.marker()]).await.unwrap().remove(0).unwrap();
    assert_eq!((marker.generation, marker.state, &*marker.tag), (3, MarkerState::Withdrawn, &*recorded.tag()));
    assert_eq!(
        server.run::<(u64, u64)>(&[
            "EVAL",
            "return {redis.call('HLEN', 'unacked'), redis.call('ZCARD', 'unacked_index')}",
            "0"
        ]),
        (0, 0)
    );
    let older = store.retire(term(0), InPlaceOf::Nowhere(3), &message.marker(), recorded).await;
    assert!(matches!(older, Err(Error::Fenced { .. })), "{older:?}");
}

#[tokio::test]
async fn a_message_left_in_flight_is_removed_with_its_marker() {
    let server = RedisServer::start();
    let (store, message) = published(&server).await;
    take(&server, HIGH, &message.id.tag());
    take_foreign(&server);
    store.forget(&[message.marker()]).await.unwrap();
    assert_eq!(store.markers(&[message.marker()]).await, Ok(vec![None]));
    assert_eq!(server.run::<Vec<String>>(&["HKEYS", "unacked"]), ["foreign"]);
}

#[tokio::test]
async fn emptying_redis_between_any_two_calls_loses_no_attempt() {
    let server = RedisServer::start();
    let (store, message) = published(&server).await;
    server.run::<()>(&["FLUSHALL"]);
    assert_eq!(store.withdraw(FIRST, &message.marker(), 0).await, Ok(Withdrawn::NotQueued));
    assert_eq!(store.requeue(FIRST, InPlaceOf::Nowhere(0), &again(&message, 1), false).await, Ok(Requeued::Changed));
    assert_eq!(store.requeue(FIRST, InPlaceOf::Nothing, &again(&message, 1), false).await, Ok(Requeued::Published));
    server.run::<()>(&["FLUSHALL"]);
    assert_eq!(store.enqueue(FIRST, &message).await, Ok(Enqueued::Published));
    server.run::<()>(&["SCRIPT", "FLUSH"]);
    assert!(matches!(store.enqueue(FIRST, &message).await, Ok(Enqueued::Already(_))));
    assert_eq!(server.list(HIGH), [message.envelope]);
}
