//! From one Redis to another.

use crewjob::core::plan::InPlaceOf;
use crewjob::store::{MarkerState, Requeued, Withdrawn};

use super::*;

#[tokio::test]
async fn a_message_that_was_withdrawn_on_the_former_redis_is_a_withdrawn_one_on_the_new_and_is_published_once() {
    let servers = (RedisServer::start(), RedisServer::start());
    let (from, to) = (store(&servers.0).await, store(&servers.1).await);
    let (message, id) = (message(1), message(1).marker());
    from.enqueue(FIRST, &message).await.unwrap();
    assert_eq!(from.withdraw(FIRST, &id, 0).await, Ok(Withdrawn::Removed));
    assert_eq!(to.carry_marker(FIRST, &from, &id).await, Ok(true));
    assert_eq!(to.carry_marker(FIRST, &from, &id).await, Ok(false), "what is there stays");
    let marker = to.markers(std::slice::from_ref(&id)).await.unwrap().remove(0).expect("the marker");
    assert_eq!((marker.state, marker.generation, marker.uid), (MarkerState::Withdrawn, 0, uid(1)));
    let next = again(&message, 1);
    assert_eq!(to.requeue(FIRST, InPlaceOf::Nowhere(0), &next, false).await, Ok(Requeued::Published));
    assert_eq!(servers.1.list(HIGH), [next.envelope]);
    assert_eq!(servers.0.list(HIGH), Vec::<Vec<u8>>::new());
}

#[tokio::test]
async fn a_result_on_the_former_redis_is_copied_whole_whatever_its_size_and_lives_as_long() {
    let servers = (RedisServer::start(), RedisServer::start());
    let (from, to) = (store(&servers.0).await, store(&servers.1).await);
    let task = attempt(1).task;
    assert_eq!(to.carry_result(&from, task).await, Ok(false), "there is none");
    let started = r#"{"status": "STARTED", "result": null}"#;
    servers.0.run::<()>(&["SET", &result_key(task), started]);
    assert_eq!(to.carry_result(&from, task).await, Ok(false), "it goes on");
    let document = format!(r#"{{"status": "SUCCESS", "result": "{}"}}"#, "x".repeat(1_000_000));
    servers.0.run::<()>(&["SET", &result_key(task), &document, "EX", "600"]);
    assert_eq!(to.carry_result(&from, task).await, Ok(true));
    assert_eq!(to.carry_result(&from, task).await, Ok(true), "again");
    assert_eq!(servers.1.run::<String>(&["GET", &result_key(task)]), document);
    assert!((1..=600).contains(&servers.1.run::<i64>(&["TTL", &result_key(task)])));
    let left: Vec<String> = servers.1.run(&["KEYS", "*carried*"]);
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn one_server_under_two_names_is_one_and_two_databases_of_it_are_two() {
    let server = RedisServer::start();
    let other = Settings::new(Secret::new(server.url(0).replace("127.0.0.1", "localhost")), "cluster", "l");
    let other = Store::connect(&other).await.unwrap();
    let apart = Settings::new(Secret::new(server.url(1)), "cluster", "l");
    let apart = Store::connect(&apart).await.unwrap();
    let store = store(&server).await;
    assert_eq!(store.is_same_as(&other).await, Ok(true));
    assert_eq!(store.is_same_as(&apart).await, Ok(false));
}
