//! Messages of ours that no operator has published: Celery's own retries, what a task replaces itself by, what people send.

use crewjob::core::plan::InPlaceOf;
use crewjob::store::{MarkerState, Place, Requeued, Swept};
use crewjob::wire::{Envelope, Value};
use uuid::Uuid;

use super::*;

const TAG: Uuid = Uuid::from_u128(0x1d2c_3b4a_5968_4777_8695_a4b3_c2d1_e0ff);

/// The message as a task publishes it that retries with another argument: under the same id and a tag of its own.
fn retried(message: &Message, tag: Uuid) -> String {
    let mut envelope = Envelope::decode(&message.envelope).unwrap();
    envelope.properties.delivery_tag = tag.to_string();
    envelope.headers.insert("retries", 1);
    envelope.body = "W1sib3RoZXIiXSwge30sIHt9XQ==".into();
    String::from_utf8(envelope.encode()).unwrap()
}

/// What a chain sends on by which this task has replaced itself.
fn follower(root: TaskId, id: &str) -> String {
    format!(
        r#"{{"body":"W10=","headers":{{"id":"{id}","root_id":"{root}"}},"properties":{{"delivery_tag":"tag-of-{id}"}}}}"#
    )
}

/// A worker has taken the operator's message, retried, and acknowledged it; the retry waits. Its message is returned.
async fn waiting(server: &RedisServer, store: &Store) -> Message {
    let message = message(1);
    store.enqueue(FIRST, &message).await.unwrap();
    server.run::<()>(&["RPOP", HIGH]);
    server.run::<()>(&["LPUSH", HIGH, &retried(&message, TAG)]);
    message
}

#[tokio::test]
async fn an_audit_sees_a_retry_wherever_it_is_and_the_messages_that_follow_from_a_task() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let message = waiting(&server, &store).await;
    let audit = store.audit(&queues()).await.unwrap();
    let tag = TAG.to_string();
    assert!(matches!(&audit.places[&message.id.task][..], [Place::Queued { tag: it, .. }] if **it == *tag));
    take(&server, HIGH, &tag);
    let steps = [follower(message.id.task, "waits"), format!("[{}, \"\", \"\"]", follower(message.id.task, "flies"))];
    server.run::<()>(&["LPUSH", "default", &steps[0]]);
    server.run::<()>(&["HSET", "unacked", "tag", &steps[1]]);
    // Another attempt of the same job names the first one as its root, too.
    let second = TaskId::derive(uid(1), 2).to_string();
    server.run::<()>(&["LPUSH", "default", &follower(message.id.task, &second)]);
    let audit = store.audit(&queues()).await.unwrap();
    assert!(matches!(&audit.places[&message.id.task][..], [Place::InFlight { tag: it, .. }] if **it == *tag));
    let mut followers: Vec<&str> = audit.followers[&message.id.task].iter().map(|id| &**id).collect();
    followers.sort_unstable();
    assert_eq!((followers, audit.followers.len()), (vec!["flies", "waits"], 1));
}

#[tokio::test]
async fn a_retry_whose_worker_died_is_published_again_as_it_was_sent_under_the_next_tag_and_only_once() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let message = waiting(&server, &store).await;
    let next = again(&message, 1);
    let copy = InPlaceOf::Copy(0, TAG);
    assert_eq!(store.requeue(FIRST, copy, &next, false).await, Ok(Requeued::Changed), "it waits");
    take(&server, HIGH, &TAG.to_string());
    assert_eq!(store.requeue(FIRST, copy, &next, false).await, Ok(Requeued::Published));
    assert!(matches!(store.requeue(FIRST, copy, &next, false).await, Ok(Requeued::Superseded(_))));
    let [published] = &server.list(HIGH)[..] else { panic!("{:?}", server.list(HIGH)) };
    let published = Envelope::decode(published).unwrap();
    let sent = Envelope::decode(retried(&message, TAG).as_bytes()).unwrap();
    assert_eq!((&published.body, published.headers.get("retries")), (&sent.body, Some(&Value::from(1))));
    assert_eq!(published.properties.delivery_tag, next.id.tag());
    assert_eq!(server.run::<(u64, u64)>(&["EVAL", COUNTS, "0"]), (0, 0), "nothing brings the other one back");
    assert_eq!(store.locate(&[next.marker()]).await.unwrap().iter().flatten().count(), 1, "the marker knows it");
}

/// How many messages are in flight, by both of kombu's keys.
const COUNTS: &str = "return {redis.call('HLEN', 'unacked'), redis.call('ZCARD', 'unacked_index')}";

#[tokio::test]
async fn one_copy_is_taken_out_of_flight_unless_the_attempt_is_at_another_delivery() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let message = message(1);
    store.enqueue(FIRST, &message).await.unwrap();
    server.run::<()>(&["LPUSH", HIGH, &retried(&message, TAG)]);
    take(&server, HIGH, &message.id.tag());
    take(&server, HIGH, &TAG.to_string());
    let id = message.marker();
    assert_eq!(store.drop_copy(FIRST, &id, 1, Some(TAG)).await, Ok(false));
    assert_eq!(store.drop_copy(FIRST, &id, 0, Some(TAG)).await, Ok(true));
    assert_eq!(server.run::<Vec<String>>(&["HKEYS", "unacked"]), [message.id.tag()]);
    assert_eq!(store.drop_copy(FIRST, &id, 0, None).await, Ok(true));
    assert_eq!(server.run::<(u64, u64)>(&["EVAL", COUNTS, "0"]), (0, 0));
    assert_eq!(store.drop_copy(FIRST, &id, 0, None).await, Ok(true), "a repeated call says the same");
}

#[tokio::test]
async fn a_retry_that_is_taken_off_its_queue_withdraws_its_task_unless_a_worker_has_the_operators_message() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let message = waiting(&server, &store).await;
    let id = message.marker();
    let swept = store.sweep(FIRST, &all_gone([id.clone()]), &queues()).await.unwrap();
    assert_eq!(swept, [Swept { task: message.id.task, generation: None, still_held: false }]);
    assert_eq!((server.list(HIGH).len(), state(&store, &message).await), (0, MarkerState::Withdrawn));

    let held = super::message(2);
    store.enqueue(FIRST, &held).await.unwrap();
    take(&server, HIGH, &held.id.tag());
    server.run::<()>(&["LPUSH", HIGH, &retried(&held, TAG)]);
    store.sweep(FIRST, &all_gone([held.marker()]), &queues()).await.unwrap();
    assert_eq!((server.list(HIGH).len(), state(&store, &held).await), (0, MarkerState::Queued));
}

async fn state(store: &Store, message: &Message) -> MarkerState {
    store.markers(&[message.marker()]).await.unwrap().remove(0).unwrap().state
}
