//! Remote control and events.

use crewjob::store::channel;
use crewjob::wire::pidbox::{Request, ReturnAddress};
use crewjob::wire::{BrokerKeys, Value};

use super::*;

#[tokio::test]
async fn requests_are_heard_and_only_callers_that_wait_are_answered() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    channel.open_mailbox("a@b").await.unwrap();
    let members: Vec<String> = server.run(&["SMEMBERS", "_kombu.binding.celery.pidbox"]);
    assert_eq!(members, ["\u{6}\u{16}\u{6}\u{16}a@b.celery.pidbox"]);
    let (mut calls, _listening) = channel.requests();
    assert_eq!(calls.recv().await, Some(channel::Call::Connected));

    let address = ReturnAddress { ticket: "ticket".into(), oid: "oid".into() };
    let request = Request::ping().replying_to(address.clone());
    server.run::<()>(&["PUBLISH", "/0.celery.pidbox", "no request"]);
    let sent = request.envelope(1, None, "tag").encode();
    server.run::<()>(&["PUBLISH", "/0.celery.pidbox", std::str::from_utf8(&sent).unwrap()]);
    let Some(channel::Call::Request(heard)) = calls.recv().await else { panic!("a request") };
    assert_eq!((heard.method.as_str(), heard.reply.as_ref()), ("ping", Some(&address)));

    let answer = |answer: &str| channel.reply(&address, "a@b", Value::from(answer), 7, "tag".into());
    assert_eq!(answer("late").await, Ok(false), "no caller waits");
    let keys = BrokerKeys::default();
    server.run::<()>(&["SADD", "_kombu.binding.reply.celery.pidbox", &address.binding_member(&keys)]);
    assert_eq!(answer("pong").await, Ok(true));
    assert_eq!(server.run::<u64>(&["LLEN", &keys.reply_list("oid")]), 1);
    channel.close_mailbox("a@b").await.unwrap();
    assert!(!server.run::<bool>(&["EXISTS", "_kombu.binding.celery.pidbox"]));
}
