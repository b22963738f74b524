//! Looking up single messages, and telling by a glance that nothing has moved.

use crewjob::store::Place;

use super::*;

fn id(job: u128) -> MarkerId {
    MarkerId::new("team", attempt(job).task)
}

#[tokio::test]
async fn a_single_message_is_found_in_its_queue_and_in_flight_and_is_not_guessed_where_it_is_in_neither() {
    let server = RedisServer::start();
    let store = store(&server).await;
    for job in 1..=4 {
        store.enqueue(FIRST, &message(job)).await.unwrap();
    }
    take(&server, HIGH, &attempt(1).tag());
    let copy = take(&server, HIGH, &attempt(2).tag());
    server.run::<()>(&["HDEL", "unacked", &attempt(2).tag()]);
    // Kombu puts a message back with other bytes.
    let copy = String::from_utf8(restored(copy.as_bytes())).unwrap();
    server.run::<()>(&["RPUSH", HIGH, &copy]);
    let places = store.locate(&[id(1), id(2), id(3), id(4), id(5)]).await.unwrap();
    let is_queued =
        |place: &Option<Place>, job| matches!(place, Some(Place::Queued { tag, .. }) if **tag == *attempt(job).tag());
    let Some(Place::InFlight { tag, received_at: Some(at), .. }) = &places[0] else { panic!("{places:?}") };
    assert_eq!((&**tag, at.as_second()), (&*attempt(1).tag(), 1_795_354_775));
    assert!(places[1].is_none(), "an audit must find it");
    assert!(is_queued(&places[2], 3) && is_queued(&places[3], 4), "{places:?}");
    assert!(places[4].is_none(), "it was never published");
}

#[tokio::test]
async fn two_glances_are_equal_only_while_nothing_was_put_on_the_queues_or_taken_from_them() {
    let server = RedisServer::start();
    let store = store(&server).await;
    for job in 1..=3 {
        store.enqueue(FIRST, &message(job)).await.unwrap();
    }
    let before = store.glance(&queues()).await.unwrap();
    assert_eq!(store.glance(&queues()).await.unwrap(), before);
    // One is taken and another one comes: as many as before.
    take(&server, HIGH, &attempt(1).tag());
    server.run::<()>(&["LPUSH", HIGH, "not json"]);
    let after = store.glance(&queues()).await.unwrap();
    assert_ne!(after, before);
    server.run::<()>(&["LPOP", HIGH]);
    assert_ne!(store.glance(&queues()).await.unwrap(), before);
    server.run::<()>(&["LPUSH", LOWEST, "not json"]);
    assert_ne!(store.glance(&queues()).await.unwrap(), after, "every band of every queue is looked at");
}
