//! Taking messages back, and moving them.

use crewjob::core::job::Priority;
use crewjob::core::plan::InPlaceOf;
use crewjob::store::{Enqueued, MarkerState, Moved, Requeued, Swept, Withdrawn};
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
async fn large_messages_are_found_on_their_queue() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let padding = "x".repeat(20_000);
    for job in 1..=450 {
        store.enqueue(FIRST, &message_of(attempt(job), job, 5, &padding)).await.unwrap();
    }
    let kept: Vec<String> = server.run(&["KEYS", "crewjob:*:message"]);
    assert_eq!(kept, Vec::<String>::new(), "a large message is not held twice");
    for job in [1, 225, 450] {
        let id = message(job).marker();
        assert_eq!(store.move_band(FIRST, &id, 0, "crew_jobs", Priority::clamped(0)).await, Ok(Moved::Moved));
        assert_eq!(store.withdraw(FIRST, &id, 0).await, Ok(Withdrawn::Removed));
    }
    assert_eq!(store.withdraw(FIRST, &message(451).marker(), 0).await, Ok(Withdrawn::NotQueued));
    assert_eq!((server.list(HIGH).len(), server.list(LOWEST).len()), (447, 0));
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
    let mut swept = store.sweep_copies(FIRST, &ids, &queues()).await.unwrap();
    swept.sort_by_key(|copy| (ids.iter().position(|id| id.task == copy.task), copy.still_held));
    let copy = |job, still_held| Swept { task: attempt(job).task, still_held };
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
