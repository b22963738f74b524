//! The end of a run.

use crewjob::store::channel::{Begun, Publication, Settled, Settlement};

use super::*;

pub(super) const SUCCESS: &[u8] = br#"{"status":"SUCCESS","result":1,"task_id":"1"}"#;
pub(super) const FAILURE: &[u8] = br#"{"status":"FAILURE","result":null,"task_id":"1"}"#;
pub(super) const RETRY: &[u8] = br#"{"status":"RETRY","result":null,"task_id":"1"}"#;
pub(super) const TAKEN: Settled = Settled { taken: true, acknowledged: true };

pub(super) fn end(document: &'static [u8]) -> Settlement<'static> {
    Settlement {
        task: "1",
        tag: "t1",
        holder: "me",
        place: "w:1",
        id: std::str::from_utf8(document).unwrap(),
        document: Some(document),
        expires: Some(Duration::from_hours(1)),
        is_success: document == SUCCESS,
        others: &[],
        publish: &[],
    }
}

pub(super) fn next() -> [Publication; 1] {
    [Publication { queue: "default".into(), priority: Some(5), envelope: b"next".to_vec() }]
}

/// A task that runs under our lease.
pub(super) async fn begun(server: &RedisServer) -> Channel {
    let channel = channel(server).await;
    send(server, "crew_jobs", "1", 5);
    reserve(&channel).await.unwrap();
    channel.begin("1", "t1", "me", LEASE).await.unwrap();
    channel
}

/// Settles as a worker does.
pub(super) async fn settle(channel: &Channel, end: &Settlement<'_>) -> Result<Settled, crewjob::store::Error> {
    let stored = channel.publish_and_store(end).await?;
    channel.settle(end, stored).await
}

fn result(server: &RedisServer) -> Option<String> {
    server.run(&["GET", "celery-task-meta-1"])
}

fn sent(server: &RedisServer) -> u64 {
    server.run(&["LLEN", "default\u{6}\u{16}3"])
}

#[tokio::test]
async fn an_end_is_stored_published_and_acknowledged_in_one_step() {
    let server = RedisServer::start();
    let channel = begun(&server).await;
    let mut connection = server.connection();
    let mut heard = connection.as_pubsub();
    heard.subscribe("celery-task-meta-1").unwrap();
    assert_eq!(settle(&channel, &Settlement { publish: &next(), ..end(SUCCESS) }).await, Ok(TAKEN));
    assert_eq!(result(&server).unwrap().as_bytes(), SUCCESS);
    assert_eq!(heard.get_message().unwrap().get_payload_bytes(), SUCCESS, "a waiting producer hears of it");
    assert!((3590..=3600).contains(&server.run::<u64>(&["TTL", "celery-task-meta-1"])));
    assert_eq!(in_flight(&server, "t1"), None);
    assert!(!server.run::<bool>(&["EXISTS", "crewjob-lease:1"]));
    assert_eq!(sent(&server), 1);
}

#[tokio::test]
async fn an_end_whose_answer_was_lost_may_be_repeated() {
    let server = RedisServer::start();
    let channel = begun(&server).await;
    for document in [FAILURE, SUCCESS] {
        let end = Settlement { publish: &next(), ..end(document) };
        let before = sent(&server);
        assert_eq!(settle(&channel, &end).await, Ok(TAKEN));
        assert_eq!(settle(&channel, &end).await, Ok(TAKEN), "repeated");
        assert_eq!(sent(&server), before + 1, "what follows is published once");
    }
}

#[tokio::test]
async fn a_success_is_final() {
    let server = RedisServer::start();
    let channel = begun(&server).await;
    settle(&channel, &end(SUCCESS)).await.unwrap();
    channel.begin("1", "t1", "me", LEASE).await.unwrap();
    let late = Settlement { publish: &next(), ..end(FAILURE) };
    assert_eq!(settle(&channel, &late).await, Ok(Settled { taken: false, acknowledged: true }));
    assert_eq!(result(&server).unwrap().as_bytes(), SUCCESS);
    assert_eq!(sent(&server), 0);
}

#[tokio::test]
async fn a_run_that_has_lost_the_lease_leaves_the_message_to_the_other_run_and_only_its_success_counts() {
    let server = RedisServer::start();
    let channel = begun(&server).await;
    server.run::<()>(&["SET", "crewjob-lease:1", "other"]);
    let late = Settlement { publish: &next(), ..end(FAILURE) };
    assert_eq!(settle(&channel, &late).await, Ok(Settled { taken: false, acknowledged: false }));
    assert_eq!((result(&server), sent(&server)), (None, 0));
    let won = settle(&channel, &end(SUCCESS)).await;
    assert_eq!(won, Ok(Settled { taken: true, acknowledged: false }));
    assert!(in_flight(&server, "t1").is_some(), "the other run acknowledges it");
    assert_eq!(server.run::<String>(&["GET", "crewjob-lease:1"]), "other");
}

#[tokio::test]
async fn an_end_without_a_result_only_acknowledges_and_publishes_once() {
    let server = RedisServer::start();
    let channel = begun(&server).await;
    let end = Settlement { document: None, publish: &next(), ..end(SUCCESS) };
    assert_eq!(settle(&channel, &end).await, Ok(TAKEN));
    assert_eq!(settle(&channel, &end).await, Ok(TAKEN), "repeated");
    let another = Settlement { id: "another", ..end };
    assert_eq!(settle(&channel, &another).await, Ok(Settled { taken: false, acknowledged: true }));
    assert_eq!((result(&server), sent(&server)), (None, 1));
    assert_eq!(in_flight(&server, "t1"), None);
}

#[tokio::test]
async fn a_failure_that_is_repeated_after_the_task_went_on_elsewhere_changes_nothing() {
    let server = RedisServer::start();
    let channel = begun(&server).await;
    let retry = Settlement { publish: &next(), ..end(RETRY) };
    assert_eq!(settle(&channel, &retry).await, Ok(TAKEN));
    server.run::<()>(&["SET", "celery-task-meta-1", std::str::from_utf8(FAILURE).unwrap()]);
    assert_eq!(settle(&channel, &retry).await, Ok(TAKEN), "the answer that was lost");
    assert_eq!((result(&server).unwrap().as_bytes(), sent(&server)), (FAILURE, 1));
}

#[tokio::test]
async fn an_end_without_a_result_does_not_count_either_once_the_lease_is_lost() {
    let server = RedisServer::start();
    let channel = begun(&server).await;
    server.run::<()>(&["SET", "crewjob-lease:1", "other"]);
    let late = Settlement { document: None, publish: &next(), ..end(SUCCESS) };
    assert_eq!(settle(&channel, &late).await, Ok(Settled { taken: false, acknowledged: false }));
    assert_eq!(sent(&server), 0);
}

#[tokio::test]
async fn the_ends_of_other_tasks_are_stored_with_an_end_that_counts() {
    let server = RedisServer::start();
    let channel = begun(&server).await;
    let others = [("2".to_owned(), FAILURE.to_vec()), ("3".to_owned(), FAILURE.to_vec())];
    let end = Settlement { others: &others, publish: &next(), ..end(FAILURE) };
    let of = |task: &str| server.run::<Option<String>>(&["GET", &format!("celery-task-meta-{task}")]);
    server.run::<()>(&["SET", "crewjob-lease:1", "other"]);
    settle(&channel, &end).await.unwrap();
    assert_eq!((of("1"), of("2")), (None, None), "another run goes on");
    server.run::<()>(&["SET", "crewjob-lease:1", "me"]);
    server.run::<()>(&["SET", "celery-task-meta-3", std::str::from_utf8(SUCCESS).unwrap()]);
    settle(&channel, &Settlement { id: "later", ..end }).await.unwrap();
    for task in ["1", "2"] {
        assert_eq!(of(task).unwrap().as_bytes(), FAILURE);
    }
    assert_eq!(of("3").unwrap().as_bytes(), SUCCESS, "a success is final");
    assert_eq!(sent(&server), 1);
}

#[tokio::test]
async fn a_death_between_two_databases_loses_and_repeats_nothing() {
    let (server, mut results) = (RedisServer::start(), RedisServer::start());
    let mut access = Access::new(Secret::new(server.url(0)));
    access.result_url = Some(Secret::new(results.url(0)));
    begun(&server).await;
    let channel = Channel::connect(&access).await.unwrap();
    let others = [("2".to_owned(), FAILURE.to_vec())];
    let end = Settlement { others: &others, publish: &next(), ..end(FAILURE) };
    // Read-only in between: the result is looked at, what follows is published, and nothing can be stored.
    results.run::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    for _ in 0..2 {
        assert!(channel.publish_and_store(&end).await.is_err());
    }
    assert_eq!((sent(&server), in_flight(&server, "t1").is_some()), (1, true));
    results.run::<()>(&["REPLICAOF", "NO", "ONE"]);
    // Its worker dies, and the next one is given the message.
    server.run::<()>(&["DEL", "crewjob-lease:1"]);
    let next_one = Channel::connect(&access).await.unwrap();
    let begun = next_one.begin("1", "t1", "next", LEASE).await;
    assert_eq!(begun, Ok(Begun::Taken(FAILURE.to_vec())), "it has ended");
    next_one.store_noted("t1", end.expires).await.unwrap();
    assert_eq!(next_one.acknowledge_ended("1", "t1", "next").await, Ok(true));
    for task in ["1", "2"] {
        let stored: String = results.run(&["GET", &format!("celery-task-meta-{task}")]);
        assert_eq!(stored.as_bytes(), FAILURE);
    }
    assert_eq!((sent(&server), in_flight(&server, "t1")), (1, None));
    let left: Vec<String> = server.run(&["KEYS", "crewjob-*"]);
    let of_workers = ["crewjob-reserved", "crewjob-held", "crewjob-settled:w:1"];
    assert!(left.iter().all(|key| of_workers.iter().any(|name| key.starts_with(name))), "{left:?}");
    results.stop();
}

#[tokio::test]
async fn the_message_of_a_task_that_has_ended_is_acknowledged_though_its_retry_runs() {
    let server = RedisServer::start();
    let channel = begun(&server).await;
    assert_eq!(channel.acknowledge_ended("1", "t1", "").await, Ok(true));
    assert_eq!(in_flight(&server, "t1"), None);
    assert_eq!(server.run::<String>(&["GET", "crewjob-lease:1"]), "me");
    assert_eq!(channel.acknowledge_ended("1", "t1", "me").await, Ok(false), "again");
    assert!(!server.run::<bool>(&["EXISTS", "crewjob-lease:1"]));
}

#[tokio::test]
async fn a_result_backend_of_its_own_gets_the_result_before_the_message_is_acknowledged() {
    let server = RedisServer::start();
    let mut access = Access::new(Secret::new(server.url(0)));
    access.result_url = Some(Secret::new(server.url(3)));
    begun(&server).await;
    let channel = Channel::connect(&access).await.unwrap();
    for _ in 0..2 {
        assert_eq!(settle(&channel, &Settlement { publish: &next(), ..end(SUCCESS) }).await, Ok(TAKEN));
    }
    assert_eq!((result(&server), in_flight(&server, "t1"), sent(&server)), (None, None, 1));
    server.run::<()>(&["SELECT", "3"]);
    assert_eq!(result(&server).unwrap().as_bytes(), SUCCESS);
}

#[tokio::test]
async fn a_state_that_is_no_end_never_hides_one() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    let progress = br#"{"status":"PROGRESS","result":{"percent":5},"task_id":"1"}"#;
    assert_eq!(channel.store_state("1", progress, None).await, Ok(true));
    assert_eq!(server.run::<i64>(&["TTL", "celery-task-meta-1"]), -1);
    for ended in ["SUCCESS", "FAILURE", "REVOKED"] {
        server.run::<()>(&["SET", "celery-task-meta-1", &format!(r#"{{"status": "{ended}"}}"#)]);
        assert_eq!(channel.store_state("1", progress, None).await, Ok(false), "{ended}");
    }
}
