//! A primary that is found through sentinels.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crewjob::store::{ConnectError, Enqueued, Error, Notice, Secret, Settings, Store};
use futures::StreamExt;

use super::*;
use crate::support::redis::{RedisServer, Setup};

const PASSWORD: &str = "s3cret-p4ss";
const OF_SENTINELS: &str = "0ther-p4ss";

fn at(url: impl Into<String>) -> Settings {
    let quickly = Duration::from_millis(500);
    let settings = Settings::new(Secret::new(url), "cluster", "crewjob/crewjob-operator");
    changed(settings, |access| {
        (access.connect_timeout, access.response_timeout) = (quickly, quickly);
        access.sentinel.master = Some("mymaster".into());
        access.sentinel.password = Some(Secret::new(OF_SENTINELS));
    })
}

fn redis(more: &str) -> RedisServer {
    Setup::default().config(&format!("requirepass {PASSWORD}\nmasterauth {PASSWORD}\n{more}")).start()
}

fn sentinel(primary: &RedisServer) -> RedisServer {
    let auth = format!("sentinel auth-pass mymaster {PASSWORD}\nrequirepass {OF_SENTINELS}");
    Setup::default().sentinel_of(primary).config(&auth).start()
}

/// `sentinel://` with the password of Redis for these ports.
fn url(ports: &[u16]) -> String {
    let all: Vec<_> = ports.iter().map(|port| format!("sentinel://:{PASSWORD}@127.0.0.1:{port}/0")).collect();
    all.join(";")
}

fn as_user<T: ::redis::FromRedisValue>(server: &RedisServer, password: &str, command: &[&str]) -> T {
    let client = ::redis::Client::open(server.url_as("", password)).unwrap();
    ::redis::cmd(command[0]).arg(&command[1..]).query(&mut client.get_connection().unwrap()).unwrap()
}

async fn refusal(settings: &Settings) -> ConnectError {
    let refused = Store::connect(settings).await.err().expect("no connection");
    let told = format!("{refused} {refused:?} {settings:?}");
    assert!(!told.contains(PASSWORD) && !told.contains(OF_SENTINELS), "{told}");
    refused
}

#[tokio::test]
async fn the_primary_is_found_and_found_again_after_a_failover() {
    let first = redis("");
    let second = redis(&format!("replicaof 127.0.0.1 {}", first.port()));
    let watching = sentinel(&first);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let absent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ports = [silent.local_addr().unwrap().port(), absent, watching.port()];
    let store = Store::connect(&at(url(&ports))).await.unwrap();
    assert_eq!(
        store.address(),
        format!("sentinel://127.0.0.1:{},127.0.0.1:{absent},127.0.0.1:{}/mymaster/0", ports[0], ports[2])
    );
    let mut notices = Box::pin(store.subscribe());
    assert_eq!(notices.next().await, Some(Notice::Connected));
    assert_eq!(store.enqueue(FIRST, &message(1)).await, Ok(Enqueued::Published));
    assert_eq!(as_user::<u64>(&first, PASSWORD, &["LLEN", HIGH]), 1);

    let deadline = Instant::now() + Duration::from_secs(30);
    let until = async |what: &str, is_so: &mut dyn FnMut() -> bool| {
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut is_known = || {
        let replicas: Vec<::redis::Value> = as_user(&watching, OF_SENTINELS, &["SENTINEL", "REPLICAS", "mymaster"]);
        format!("{replicas:?}").contains("master-link-status") && !format!("{replicas:?}").contains("\"err\"")
    };
    until("the sentinel knows the replica", &mut is_known).await;
    let mut has_all = || as_user::<u64>(&second, PASSWORD, &["LLEN", HIGH]) == 1;
    until("the replica has all", &mut has_all).await;
    as_user::<()>(&watching, OF_SENTINELS, &["SENTINEL", "FAILOVER", "mymaster"]);
    while store.enqueue(FIRST, &message(2)).await.is_err() || as_user::<u64>(&second, PASSWORD, &["LLEN", HIGH]) < 2 {
        assert!(Instant::now() < deadline, "it is published on the new primary");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(matches!(store.enqueue(FIRST, &message(1)).await, Ok(Enqueued::Already(_))));
    let mut notices = notices.filter(|notice| futures::future::ready(*notice == Notice::Connected));
    notices.next().await;
    assert!(store.clearing_the_fence().contains(&format!("-p {}", second.port())), "{}", store.clearing_the_fence());
}

#[tokio::test]
async fn a_primary_that_became_a_replica_is_left_without_the_caller_noticing() {
    let (first, second) = (redis(""), redis(""));
    let watching = sentinel(&first);
    let store = Store::connect(&at(url(&[watching.port()]))).await.unwrap();
    let others = Store::connect(&at(url(&[watching.port()]))).await.unwrap();
    let port = second.port().to_string();
    as_user::<()>(&watching, OF_SENTINELS, &["SENTINEL", "REMOVE", "mymaster"]);
    as_user::<()>(&watching, OF_SENTINELS, &["SENTINEL", "MONITOR", "mymaster", "127.0.0.1", &port, "1"]);
    as_user::<()>(&first, PASSWORD, &["REPLICAOF", "127.0.0.1", &port]);
    assert_eq!(store.enqueue(FIRST, &message(1)).await, Ok(Enqueued::Published));
    assert_eq!(as_user::<u64>(&second, PASSWORD, &["LLEN", HIGH]), 1);

    // A sentinel that has not heard of it yet is not believed.
    let late = sentinel(&first);
    let refused = refusal(&at(url(&[late.port()]))).await.to_string();
    assert!(refused.contains("is not a primary"), "{refused}");
    let both = Store::connect(&at(url(&[late.port(), watching.port()]))).await.unwrap();
    assert!(matches!(both.enqueue(FIRST, &message(1)).await, Ok(Enqueued::Already(_))));

    // Where no sentinel knows a primary, it is an outage and not a refusal.
    as_user::<()>(&watching, OF_SENTINELS, &["SENTINEL", "REMOVE", "mymaster"]);
    let outage = others.enqueue(FIRST, &message(2)).await;
    assert!(matches!(outage, Err(Error::Unavailable { .. })), "{outage:?}");
}

#[tokio::test]
async fn what_keeps_sentinels_from_answering_is_told_by_the_key_to_mend() {
    let primary = redis("");
    let watching = sentinel(&primary);
    let good = at(url(&[watching.port()]));
    Store::connect(&good).await.unwrap();
    let with = |change: fn(&mut crewjob::store::Sentinel)| changed(good.clone(), |access| change(&mut access.sentinel));
    for (settings, named) in [
        (with(|it| it.master = None), "REDIS_SENTINEL_MASTER is not usable: it is missing"),
        (with(|it| it.master = Some("other".into())), "knows no primary \"other\"; mend REDIS_SENTINEL_MASTER"),
        (with(|it| it.password = None), "mend REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD"),
        (
            with(|it| it.password = Some(Secret::new("hunter2"))),
            "mend REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD",
        ),
        (with(|it| it.tls = Some("yes".into())), "REDIS_SENTINEL_TLS is not usable: it must be true or false"),
        (at("sentinel://127.0.0.1"), "REDIS_URL is not usable: each part needs the host and the port"),
        (at(url(&[primary.port()])), "mend REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD"),
    ] {
        let refused = refusal(&settings).await.to_string();
        assert!(refused.contains(named), "{named}: {refused}");
    }
    let wrong = at(url(&[watching.port()]).replace(PASSWORD, "hunter2"));
    assert!(matches!(refusal(&wrong).await, ConnectError::AuthenticationFailed { .. }));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let begun = Instant::now();
    let refused = refusal(&at(url(&[silent.local_addr().unwrap().port()]))).await.to_string();
    assert!(refused.contains("does not answer") && begun.elapsed() < Duration::from_secs(2), "{refused}");
}

#[tokio::test]
async fn tls_is_spoken_with_the_primary_and_with_sentinels_each_where_it_is_asked_for() {
    let primary = Setup::default().tls().start();
    let plain = Setup::default().sentinel_of(&primary).start();
    let certified = Setup::default().tls().sentinel_of(&primary).start();
    let url = |server: &RedisServer| format!("sentinel://127.0.0.1:{}/0?ssl_cert_reqs=required", server.port());
    let settings = |server: &RedisServer, tls: &str| {
        changed(at(url(server)), |access| {
            access.ca = Some(primary.ca() + &if tls == "true" { certified.ca() } else { String::new() });
            (access.sentinel.password, access.sentinel.tls) = (None, Some(tls.into()));
        })
    };
    for (server, tls) in [(&plain, "false"), (&certified, "true")] {
        let store = Store::connect(&settings(server, tls)).await.unwrap();
        store.enqueue(FIRST, &message(1)).await.unwrap();
    }
    refusal(&settings(&certified, "false")).await;
    refusal(&settings(&plain, "true")).await;
}
