//! The next message is taken, and its task begun, in the step that ends the last one.

use crewjob::store::channel::{Ask, Settlement, Taken};

use super::*;

const QUEUES: [&str; 2] = ["crew_jobs", "default"];

fn ask<'a>(last: &'a str, holder: &'a str) -> Ask<'a> {
    Ask { queues: &QUEUES, asker: "me", worker: "w", last, holder, lease: LEASE }
}

fn end<'a>(task: &'a str, tag: &'a str, holder: &'a str, document: &'a [u8]) -> Settlement<'a> {
    Settlement {
        task,
        tag,
        holder,
        place: tag,
        id: tag,
        document: Some(document),
        others: &[],
        expires: None,
        is_success: true,
        publish: &[],
    }
}

fn begun(taken: &Taken) -> Option<&str> {
    taken.delivery.as_ref()?.begun.as_ref().map(|(id, _)| id.as_str())
}

#[tokio::test]
async fn the_next_task_is_taken_and_begun_in_the_step_that_settles_the_last_one() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    for id in ["1", "2"] {
        send(&server, "crew_jobs", id, 0);
    }
    let first = channel.take(&ask("", "first")).await.unwrap();
    assert_eq!(begun(&first), Some("1"));
    assert_eq!(server.run::<String>(&["GET", "crewjob-lease:1"]), "first");
    let ended = end("1", "t1", "first", br#"{"status":"SUCCESS","task_id":"1"}"#);
    let question = ask("t1", "second");
    for _ in 0..3 {
        // An answer that was lost is given again.
        let (settled, next) = channel.settle_and_take(&ended, None, Some(&question)).await.unwrap();
        let next = next.unwrap();
        assert!(settled.taken && settled.acknowledged);
        assert_eq!(next.delivery.as_ref().map(|next| next.tag.as_str()), Some("t2"));
        assert_eq!(begun(&next), Some("2"));
    }
    assert_eq!(server.run::<String>(&["GET", "crewjob-lease:2"]), "second");
    assert!(in_flight(&server, "t1").is_none() && in_flight(&server, "t2").is_some());
    let last = end("2", "t2", "second", br#"{"status":"SUCCESS","task_id":"2"}"#);
    let (_, none) = channel.settle_and_take(&last, None, Some(&ask("t2", "third"))).await.unwrap();
    assert_eq!(none, Some(Taken::default()));
    assert_eq!(channel.settle_and_take(&last, None, None).await.unwrap().1, None);
}

#[tokio::test]
async fn a_task_that_has_to_wait_is_taken_without_its_lease() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    let push = |envelope: crewjob::wire::Envelope| {
        server.run::<()>(&["LPUSH", "default", std::str::from_utf8(&envelope.encode()).unwrap()]);
    };
    let call = |id: &str| Call::new("a.task", id, "default");
    push(call("1").envelope().redelivered());
    let mut later = call("2");
    later.headers.insert("eta", crewjob::wire::Value::from("2100-01-01T00:00:00+00:00"));
    push(later.envelope());
    server.run::<()>(&["SET", "crewjob-lease:3", "other"]);
    push(call("3").envelope());
    server.run::<()>(&["LPUSH", "crewjob-lease:4", "no lease"]);
    push(call("4").envelope());
    server.run::<()>(&["SET", "celery-task-meta-5", r#"{"status": "RETRY"}"#]);
    push(call("5").envelope());
    let mut last = String::new();
    for (id, is_begun) in [("1", false), ("2", false), ("3", false), ("4", false), ("5", true)] {
        let taken = channel.take(&ask(&last, "me")).await.unwrap();
        assert_eq!(begun(&taken), is_begun.then_some(id), "{id}");
        let delivery = taken.delivery.unwrap();
        let head = delivery.begun.map(|(_, head)| head);
        assert_eq!(head.as_deref(), is_begun.then_some(br#"{"status": "RETRY"}"#.as_slice()));
        last = delivery.tag;
    }
    assert_eq!(server.run::<String>(&["GET", "crewjob-lease:3"]), "other");
}

#[tokio::test]
async fn nothing_is_begun_with_its_message_where_results_are_in_another_database() {
    let server = RedisServer::start();
    let mut access = Access::new(Secret::new(server.url(0)));
    access.result_url = Some(Secret::new(server.url(3)));
    let channel = Channel::connect(&access).await.unwrap();
    send(&server, "default", "1", 0);
    let taken = channel.take(&ask("", "me")).await.unwrap();
    assert!(taken.delivery.is_some() && begun(&taken).is_none());
}
