//! Looking up single messages, and telling by a glance that nothing has moved.

use crewjob::store::{Document, Place};

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

fn bytes(document: &Document) -> u64 {
    let Document::Read { output: Some(output), .. } = document else { panic!("{document:?}") };
    output.bytes
}

#[tokio::test]
async fn a_message_is_looked_up_by_its_tag_and_its_result_is_read_where_it_was_acknowledged() {
    for is_apart in [false, true] {
        let (server, other) = (RedisServer::start(), RedisServer::start());
        let result_url = is_apart.then(|| Secret::new(other.url(0)));
        let settings = changed(settings(&server), |access| access.result_url = result_url);
        let store = Store::connect(&settings).await.unwrap();
        for job in 1..=5 {
            store.enqueue(FIRST, &message(job)).await.unwrap();
        }
        take(&server, HIGH, &attempt(1).tag());
        let result = |job: u128, text: &str| {
            let document =
                format!(r#"{{"status": "SUCCESS", "result": "{text}", "task_id": "{}"}}"#, attempt(job).task);
            let results = if is_apart { &other } else { &server };
            results.run::<()>(&["SET", &format!("celery-task-meta-{}", attempt(job).task), &document]);
        };
        result(1, "on its way");
        result(2, "short");
        result(3, &"x".repeat(300_000));
        server.run::<()>(&["SET", &format!("crewjob:{{cluster}}:team:{}", attempt(6).task), "planted"]);
        let mut asked: Vec<(MarkerId, String)> = (1..=6).map(|job| (id(job), attempt(job).tag())).collect();
        asked.push((id(1), "another".to_owned()));
        let mut read = Vec::new();
        let found = store.look_up(&asked, |at, document| read.push((at, document))).await.unwrap();
        let found: Vec<_> = found.iter().map(|it| (it.generation, it.is_in_flight)).collect();
        let gone = (Some(0), false);
        assert_eq!(found, [(Some(0), true), gone, gone, gone, gone, (None, false), gone]);
        read.sort_by_key(|(at, _)| *at);
        let bytes: Vec<_> = read.iter().map(|(at, document)| (*at, bytes(document))).collect();
        assert_eq!(bytes, [(1, 7), (2, 300_002), (6, 12)]);
        assert_eq!(store.look_up(&[], |_, _| unreachable!()).await.unwrap(), []);
    }
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
