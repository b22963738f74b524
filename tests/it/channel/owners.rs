//! Which worker has which messages, and what is put back of one that has died.

use std::collections::BTreeSet;

use super::*;

const SILENCE: Duration = Duration::from_secs(6);

/// Lets a worker have said for the last time so many seconds ago that it lives.
fn silence(server: &RedisServer, worker: &str, seconds: f64) {
    let (now, _): (f64, u32) = server.run(&["TIME"]);
    server.run::<()>(&["ZADD", "crewjob-workers", &format!("{:.6}", now - seconds), worker]);
}

/// Takes the next message as this worker, which got this one last.
async fn take_as(channel: &Channel, worker: &str, last: &str) -> String {
    channel.reserve(&["crew_jobs"], worker, last).await.unwrap().0.unwrap().tag
}

/// Lets a message have been taken or renewed so many seconds ago.
fn received(server: &RedisServer, tag: &str, seconds: f64) {
    let (now, _): (f64, u32) = server.run(&["TIME"]);
    server.run::<()>(&["ZADD", "unacked_index", &format!("{:.6}", now - seconds), tag]);
}

#[tokio::test]
async fn a_message_is_noted_for_its_worker_in_the_step_that_takes_it_until_the_worker_says_what_it_has() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    for id in ["1", "2"] {
        send(&server, "crew_jobs", id, 5);
    }
    assert_eq!(channel.beat("w@h/1/u", &[], &[]).await, Ok(false));
    for last in ["", "t1"] {
        take_as(&channel, "w@h/1/u", last).await;
    }
    let noted = || server.run::<BTreeSet<String>>(&["SMEMBERS", "crewjob-held:w@h/1/u"]);
    assert_eq!(noted(), ["t1".to_owned(), "t2".to_owned()].into());
    assert_eq!(channel.beat("w@h/1/u", &["t1".to_owned()], &["t3"]).await, Ok(true));
    assert_eq!(noted(), ["t2".to_owned(), "t3".to_owned()].into(), "it need not know yet that it has t2");
    channel.retire("w@h/1/u").await.unwrap();
    let left: u64 = server.run(&["EXISTS", "crewjob-workers", "crewjob-held:w@h/1/u"]);
    assert_eq!(left, 0, "nothing is left of it");
}

#[tokio::test]
async fn messages_of_a_dead_worker_are_put_back_but_those_that_another_worker_has_taken_or_renewed_since() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    let mut last = String::new();
    for id in ["1", "2", "3", "4"] {
        send(&server, "crew_jobs", id, 5);
        take_as(&channel, "dead@h/1/u", &last).await;
        last = format!("t{id}");
        received(&server, &format!("t{id}"), 60.0);
    }
    channel.beat("alive@h/1/v", &[], &[]).await.unwrap();
    silence(&server, "dead@h/1/u", 30.0);
    // One was acknowledged, one renewed by an operator, one put back and taken by another worker.
    server.run::<()>(&["HDEL", "unacked", "t1"]);
    server.run::<()>(&["ZREM", "unacked_index", "t1"]);
    for tag in ["t2", "t3"] {
        received(&server, tag, 10.0);
    }
    // Taken just before the worker would have said again that it lives.
    received(&server, "t4", 26.1);
    let [dead] = &channel.silent_workers(SILENCE).await.unwrap()[..] else { panic!("one worker is silent") };
    assert_eq!(dead.worker, "dead@h/1/u");
    let swept = channel.inherit(dead, &queues()).await.unwrap();
    assert_eq!((swept.restored, swept.failed), (1, 0));
    assert_eq!(take_as(&channel, "alive@h/1/v", "").await, "t4");
    assert_eq!(server.run::<u64>(&["HLEN", "unacked"]), 3);
    assert_eq!(channel.silent_workers(SILENCE).await, Ok(Vec::new()), "it is forgotten");
    assert!(!server.run::<bool>(&["EXISTS", "crewjob-held:dead@h/1/u"]));
}

#[tokio::test]
async fn a_worker_that_says_meanwhile_that_it_lives_is_not_forgotten() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    silence(&server, "cut-off@h/1/u", 30.0);
    let [cut_off] = &channel.silent_workers(SILENCE).await.unwrap()[..] else { panic!("it is silent") };
    channel.beat("cut-off@h/1/u", &[], &["t1"]).await.unwrap();
    channel.inherit(cut_off, &queues()).await.unwrap();
    assert!(server.run::<bool>(&["EXISTS", "crewjob-held:cut-off@h/1/u"]));
    assert_eq!(server.run::<u64>(&["ZCARD", "crewjob-workers"]), 1);
}
