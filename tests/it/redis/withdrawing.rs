//! Taking messages back, and moving them.

use crewjob::core::id::Priority;
use crewjob::core::plan::InPlaceOf;
use crewjob::store::{Enqueued, MarkerState, Moved, Requeued, Swept, Wanted, Withdrawn};
use crewjob::wire::envelope::peek;

use super::*;

#[tokio::test]
async fn a_queued_message_is_taken_back_once_and_for_all() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let (one, two) = (message(1), message(2));
    store.enqueue(FIRST, &one).await.unwrap();
    store.enqueue(FIRST, &two).await.unwrap();
    assert_eq!(store.withdraw(FIRST, &one.marker(), 1).await, Ok(Withdrawn::NotQueued), "another generation");
    assert_eq!(store.withdraw(FIRST, &one.marker(), 0).await, Ok(Withdrawn::Removed));
    assert_eq!(store.withdraw(FIRST, &one.marker(), 0).await, Ok(Withdrawn::Removed), "a repeated call says the same");
    assert_eq!(server.list(HIGH), std::slice::from_ref(&two.envelope));
    let markers = store.markers(&[one.marker(), two.marker()]).await.unwrap();
    let states: Vec<_> = markers.into_iter().flatten().map(|marker| marker.state).collect();
    assert_eq!(states, [MarkerState::Withdrawn, MarkerState::Queued]);
    assert!(matches!(store.enqueue(FIRST, &one).await, Ok(Enqueued::Already(_))), "it is not published by accident");
    let next = again(&one, 1);
    assert_eq!(store.requeue(FIRST, InPlaceOf::Nowhere(0), &next, false).await, Ok(Requeued::Published));
    assert_eq!(server.list(HIGH), [next.envelope, two.envelope]);
}

#[tokio::test]
async fn a_message_that_a_worker_has_taken_is_not_withdrawn() {
    let server = RedisServer::start();
    let (store, message) = (store(&server).await, message(1));
    store.enqueue(FIRST, &message).await.unwrap();
    take(&server, HIGH, &message.id.tag());
    assert_eq!(store.withdraw(FIRST, &message.marker(), 0).await, Ok(Withdrawn::NotQueued));
    let priority = Priority::clamped(9);
    assert_eq!(store.move_band(FIRST, &message.marker(), 0, "crew_jobs", priority).await, Ok(Moved::NotQueued));
    assert_eq!(server.run::<i64>(&["HLEN", "unacked"]), 1);
}

#[tokio::test]
async fn large_messages_are_taken_back_and_moved_in_one_pass_for_all_of_them() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let padding = "x".repeat(60_000);
    for job in 1..=2_000 {
        store.enqueue(FIRST, &message_of(attempt(job), job, 5, &padding)).await.unwrap();
    }
    let kept: Vec<String> = server.run(&["KEYS", "crewjob:*:message"]);
    assert_eq!(kept, Vec::<String>::new(), "a large message is not held twice");
    let before = store.round_trips();
    let mut wanted = HashMap::new();
    for job in 1..=1_000 {
        let id = message(job).marker();
        assert_eq!(store.withdraw(FIRST, &id, 0).await, Ok(Withdrawn::NotQueued), "its bytes are not known");
        wanted.insert(id, Wanted::Gone);
    }
    for job in 1_001..=1_100 {
        let id = message(job).marker();
        assert_eq!(
            store.move_band(FIRST, &id, 0, "crew_jobs", Priority::clamped(6)).await,
            Ok(Moved::Moved),
            "it stays"
        );
        assert_eq!(store.move_band(FIRST, &id, 0, "crew_jobs", Priority::clamped(0)).await, Ok(Moved::Large));
        wanted.insert(id, Wanted::Band(Priority::clamped(0)));
    }
    wanted.insert(message(2_001).marker(), Wanted::Gone);
    assert_eq!(store.round_trips() - before, 1_200, "none of them looks through the queue");
    let began_at = std::time::Instant::now();
    let swept = store.sweep(FIRST, &wanted, &queues()).await.unwrap();
    let (trips, took) = (store.round_trips() - before - 1_200, began_at.elapsed());
    println!("1,100 of 2,000 messages of 80 kB: {trips} round trips, {took:?}");
    assert!(trips < 500, "{trips} round trips for one pass");
    assert_eq!(swept.len(), 1_000);
    assert_eq!((server.run::<usize>(&["LLEN", HIGH]), server.run::<usize>(&["LLEN", LOWEST])), (900, 100));
    let markers = store.markers(&[1, 1_001, 1_101].map(|job| message(job).marker())).await.unwrap();
    let seen: Vec<_> = markers.into_iter().flatten().map(|marker| (marker.state, marker.priority.get())).collect();
    assert_eq!(seen, [(MarkerState::Withdrawn, 5), (MarkerState::Queued, 0), (MarkerState::Queued, 5)]);
    let moved = server.run::<String>(&["LINDEX", LOWEST, "-1"]);
    let expected = message_of(attempt(1_100), 1_100, 0, &padding).envelope;
    assert!(moved.as_bytes() == expected, "kombu restores it to its new band: {}", &moved[moved.len() - 400..]);
}

#[tokio::test]
async fn a_message_that_waits_in_its_band_already_is_left_where_it_is() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let mut wanted = HashMap::new();
    for job in 1..=300 {
        store.enqueue(FIRST, &message_of(attempt(job), job, 5, &"x".repeat(6_000))).await.unwrap();
        wanted.insert(message(job).marker(), Wanted::Band(Priority::clamped(6)));
    }
    let before = server.list(HIGH);
    assert_eq!(store.sweep(FIRST, &wanted, &queues()).await, Ok(vec![]));
    assert_eq!(server.list(HIGH), before);
}

#[tokio::test]
async fn a_message_moves_to_a_band_of_the_queue_it_was_published_on_whatever_the_caller_takes_for_its_queue() {
    let server = RedisServer::start();
    let store = store(&server).await;
    for believed in ["", "default", "crew_jobs"] {
        store.enqueue(FIRST, &message(1)).await.unwrap();
        let id = message(1).marker();
        assert_eq!(store.move_band(FIRST, &id, 0, believed, Priority::clamped(0)).await, Ok(Moved::Moved));
        assert_eq!((server.list(HIGH).len(), server.list(LOWEST).len()), (0, 1), "taken for one of {believed:?}");
        assert_eq!(store.withdraw(FIRST, &id, 0).await, Ok(Withdrawn::Removed));
        store.forget(&[id]).await.unwrap();
    }
}

#[tokio::test]
async fn a_moved_message_waits_behind_the_others_of_its_new_band() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let waiting = message_of(attempt(9), 9, 0, "");
    store.enqueue(FIRST, &waiting).await.unwrap();
    // The word also stands in the arguments; only the property may change.
    let message = message_of(attempt(1), 1, 5, "\"priority\": 5");
    store.enqueue(FIRST, &message).await.unwrap();
    let id = message.marker();
    assert_eq!(store.move_band(FIRST, &id, 0, "crew_jobs", Priority::clamped(0)).await, Ok(Moved::Moved));
    let expected = message_of(attempt(1), 1, 0, "\"priority\": 5");
    assert_eq!(server.list(LOWEST), [expected.envelope, waiting.envelope]);
    assert_eq!(server.list(HIGH).len(), 0);
    assert_eq!(store.markers(std::slice::from_ref(&id)).await.unwrap()[0].as_ref().unwrap().priority.get(), 0);
    assert_eq!(store.withdraw(FIRST, &id, 0).await, Ok(Withdrawn::Removed), "it can be taken back from there");
}

#[tokio::test]
async fn a_message_keeps_its_place_when_its_band_stays() {
    let server = RedisServer::start();
    let store = store(&server).await;
    for job in 1..=3 {
        store.enqueue(FIRST, &message(job)).await.unwrap();
    }
    let before = server.list(HIGH);
    let moved = store.move_band(FIRST, &message(2).marker(), 0, "crew_jobs", Priority::clamped(6)).await;
    assert_eq!((moved, server.list(HIGH)), (Ok(Moved::Moved), before));
}

#[tokio::test]
async fn restored_copies_are_swept_whatever_their_bytes() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let mut connection = server.connection();
    let push = |connection: &mut ::redis::Connection, list: &str, bytes: &[u8]| {
        ::redis::cmd("RPUSH").arg(list).arg(bytes).exec(connection).unwrap();
    };
    for job in 1..=500 {
        store.enqueue(FIRST, &message(job)).await.unwrap();
    }
    push(&mut connection, HIGH, b"not a message");
    // Jobs 1 and 2 were restored; a worker still has job 2.
    for job in [1, 2] {
        push(&mut connection, "default\u{6}\u{16}3", &restored(&message(job).envelope));
    }
    server.run::<()>(&["HSET", "unacked", &attempt(2).tag(), "[]"]);
    let ids: Vec<_> = [1, 2, 250, 777].map(|job| message(job).marker()).to_vec();
    let mut swept = store.sweep(FIRST, &all_gone(ids.clone()), &queues()).await.unwrap();
    swept.sort_by_key(|copy| (ids.iter().position(|id| id.task == copy.task), copy.still_held));
    let copy = |job, still_held| Swept { task: attempt(job).task, generation: Some(0), still_held };
    assert_eq!(swept, [copy(1, false), copy(1, false), copy(2, true), copy(2, true), copy(250, false)]);
    let left = server.list(HIGH);
    assert_eq!(left.len(), 500 - 3 + 1);
    assert!(
        !left
            .iter()
            .any(|element| peek(element).is_some_and(|seen| seen.task_id == Some(ids[0].task.to_string().into())))
    );
    let markers = store.markers(&ids).await.unwrap();
    let states: Vec<_> = markers.into_iter().map(|marker| marker.map(|marker| marker.state)).collect();
    let (queued, withdrawn) = (Some(MarkerState::Queued), Some(MarkerState::Withdrawn));
    assert_eq!(states, [withdrawn, queued, withdrawn, None]);
}
