//! The fence, and what others plant beside it: Redis is written by workers.

use std::time::Duration;

use crewjob::core::claims::fence::Fence;
use crewjob::store::{Enqueued, Epoch, Error, Store};
use crewjob::wire::pidbox::Reply;

use super::*;

const FENCE: &str = "crewjob:{cluster}:epoch:crewjob/crewjob-operator";

fn is_kept_out<T: std::fmt::Debug>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Fenced { .. }))
}

/// Whether a leader of this term is kept out, by the script and by the same judgement of a snapshot.
async fn keeps_out(store: &Store, term: Epoch) -> bool {
    let closed = matches!(store.snapshot(&queues()).await.expect("a snapshot").fence(term), Fence::Closed(_));
    let claimed = store.claim(term).await;
    assert_eq!(closed, is_kept_out(&claimed), "the script and the operator judge alike: {claimed:?}");
    closed
}

#[tokio::test]
async fn a_lease_that_was_created_anew_outranks_the_fence_of_the_old_one() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let (old, new) = (Epoch { created: 100, transitions: 2_147_483_647 }, Epoch { created: 101, transitions: 1 });
    store.claim(old).await.unwrap();
    assert!(!keeps_out(&store, new).await);
    assert!(is_kept_out(&store.enqueue(old, &message(1)).await), "the former leader is paused, and comes back");
    assert_eq!(store.enqueue(new, &message(1)).await, Ok(Enqueued::Published));
}

#[tokio::test]
async fn the_fence_of_an_operator_that_compared_less_is_outranked_and_keeps_it_out_afterwards() {
    let server = RedisServer::start();
    let store = store(&server).await;
    server.run::<()>(&["HSET", FENCE, "epoch", "6", "born", "1"]);
    store.claim(term(7)).await.unwrap();
    assert_eq!(server.run::<String>(&["HGET", FENCE, "epoch"]), "7", "it compares this field");
    assert_eq!(server.run::<String>(&["HGET", FENCE, "born"]), "1", "the data is what it was");
}

#[tokio::test]
async fn a_fence_that_no_operator_has_written_keeps_all_operators_out_and_is_not_followed() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let ours = term(7);
    let max = "18446744073709551615";
    for planted in ["2147483646", "4294967296", max, "-1", "1e3", "0x1", "7.5", " 7", "", "text", "9007199254740993"] {
        for field in ["epoch", "created"] {
            server.run::<()>(&["DEL", FENCE]);
            store.claim(ours).await.unwrap();
            server.run::<()>(&["HSET", FENCE, field, planted]);
            let is_later = planted != "2147483646" || field == "epoch" || ours.created < 2_147_483_646;
            assert_eq!(keeps_out(&store, ours).await, is_later, "{field} {planted:?}");
            assert!(is_kept_out(&store.enqueue(ours, &message(1)).await));
            assert_eq!(server.run::<String>(&["HGET", FENCE, field]), planted, "it is left as it is");
        }
    }
    server.run::<()>(&["HSET", FENCE, "epoch", "\u{1b}[31m".repeat(100_000).as_str()]);
    assert!(keeps_out(&store, ours).await);
}

#[tokio::test]
async fn a_fence_of_another_type_keeps_all_operators_out_until_the_command_of_the_condition_clears_it() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let (port, ours) = (server.port().to_string(), term(7));
    server.run::<()>(&["SET", FENCE, "2147483646"]);
    assert!(keeps_out(&store, ours).await);
    assert!(is_kept_out(&store.enqueue(ours, &message(1)).await));
    let command = store.clearing_the_fence();
    assert_eq!(command, format!("redis-cli -h 127.0.0.1 -p {port} DEL '{FENCE}'"));
    assert!(std::process::Command::new("sh").args(["-c", &command]).status().unwrap().success());
    assert_eq!(store.enqueue(ours, &message(1)).await, Ok(Enqueued::Published));
}

#[tokio::test]
async fn the_command_that_clears_the_fence_holds_no_password() {
    let setup = crate::support::redis::Setup::default().config("requirepass s3cret");
    let server = setup.start();
    let url = server.url(3).replace("redis://", "redis://:s3cret@");
    let store = Store::connect(&Settings::new(Secret::new(url), "cluster", "crewjob/crewjob-operator")).await.unwrap();
    let command = store.clearing_the_fence();
    assert!(command.contains(" -n 3 --askpass DEL '") && !command.contains("s3cret"), "{command}");
}

#[tokio::test]
async fn a_marker_that_no_operator_has_written_is_none_and_hides_no_other() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let key = |job: u128| format!("crewjob:{{cluster}}:team:{}", attempt(job).task);
    for job in 1..=8 {
        store.enqueue(FIRST, &message(job)).await.unwrap();
    }
    server.run::<()>(&["HSET", &key(1), "gen", "4294967295"]);
    server.run::<()>(&["HSET", &key(2), "attempt", "0"]);
    server.run::<()>(&["HSET", &key(3), "priority", "11"]);
    server.run::<()>(&["HSET", &key(4), "at", "9223372036854775807"]);
    server.run::<()>(&["HSET", &key(5), "name", &"x".repeat(1_000_000)]);
    server.run::<()>(&["HDEL", &key(6), "uid"]);
    server.run::<()>(&["DEL", &key(7)]);
    server.run::<()>(&["SET", &key(7), "no hash"]);
    let ids: Vec<_> = (1..=8).map(|job| message(job).marker()).collect();
    let read: Vec<bool> = store.markers(&ids).await.unwrap().iter().map(Option::is_some).collect();
    assert_eq!(read, [false, false, false, false, false, false, false, true]);
}

#[tokio::test]
async fn replies_that_no_worker_would_send_are_thrown_away_unread() {
    let server = RedisServer::start();
    let store = store(&server).await;
    let mut other = ::redis::Client::open(server.url(0)).unwrap().get_connection().unwrap();
    let mut listener = ::redis::Client::open(server.url(0)).unwrap().get_connection().unwrap();
    let forger = std::thread::spawn(move || {
        let mut heard = listener.as_pubsub();
        heard.psubscribe("*.pidbox").unwrap();
        let asked: String = heard.get_message().unwrap().get_payload().unwrap();
        let body = crewjob::wire::Envelope::decode(asked.as_bytes()).unwrap().body_bytes().unwrap().into_owned();
        let request: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let oid = request["reply_to"]["routing_key"].as_str().unwrap();
        let list = format!("{oid}.reply.celery.pidbox");
        let ticket = request["ticket"].as_str().unwrap();
        for (node, padding) in [("crew@fine", 1), ("crew@large", 8 << 20)] {
            let answer = Object::new().with("padding", "x".repeat(padding));
            let reply = Reply { ticket: Some(ticket.to_owned()), nodes: Object::new().with(node, answer) };
            ::redis::cmd("LPUSH").arg(&list).arg(reply.envelope(oid, 1, "t").encode()).exec(&mut other).unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answers = store.inspect(crewjob::wire::pidbox::Request::stats()).await.expect("an answer");
    forger.join().unwrap();
    assert_eq!(answers.iter().map(|(node, _)| &**node).collect::<Vec<_>>(), ["crew@fine"]);
}
