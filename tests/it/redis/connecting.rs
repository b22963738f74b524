//! Getting in, being kept out, and losing the connection.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crewjob::core::plan::InPlaceOf;
use crewjob::store::{ConnectError, Enqueued, Error, Secret, Settings, Store};

use super::*;
use crate::support::monitor::Monitor;
use crate::support::redis::Setup;

const PASSWORD: &str = "s3cret-p4ss";

/// What a Redis user for the operator must be allowed to do: in the chart's own Redis, and as the documentation says.
fn permissions() -> [String; 2] {
    let users = include_str!("../../../charts/crewjob-operator/files/redis-users.acl");
    let bundled = users.lines().find_map(|line| line.strip_prefix("operator ")).expect("the operator's rules");
    let readme = include_str!("../../../charts/crewjob-operator/README.md");
    let rules = readme.split("ACL SETUSER operator on >PASSWORD").nth(1).expect("the rules").split("```").next();
    [bundled.to_owned(), rules.expect("the end of the rules").replace(['\\', '\n'], " ")]
}

async fn refusal(settings: &Settings) -> ConnectError {
    let refused = Store::connect(settings).await.err().expect("no connection");
    let told = format!("{refused} {refused:?} {settings:?}");
    assert!(!told.contains(PASSWORD) && !told.contains("hunter2"), "{told}");
    refused
}

fn at(url: impl Into<String>) -> Settings {
    let quickly = Duration::from_millis(500);
    let settings = Settings::new(Secret::new(url), "cluster", "crewjob/crewjob-operator");
    changed(settings, |access| (access.connect_timeout, access.response_timeout) = (quickly, quickly))
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_told_from_an_absent_server() {
    let server = Setup::default().config(&format!("requirepass {PASSWORD}")).start();
    for url in [server.url(0), server.url_as("", "hunter2"), server.url_as("unknown", "hunter2")] {
        let refused = refusal(&at(url)).await;
        let address = format!("redis://127.0.0.1:{}", server.port());
        assert_eq!(refused, ConnectError::AuthenticationFailed { address });
    }
    let store = Store::connect(&at(server.url_as("", PASSWORD))).await.unwrap();
    assert_eq!(store.enqueue(FIRST, &message(1)).await, Ok(Enqueued::Published));
}

#[tokio::test]
async fn the_permissions_of_the_chart_and_of_the_documentation_are_enough() {
    for rules in permissions() {
        let server = server_with(&rules);
        do_everything_on(&server).await;
    }
}

#[tokio::test]
async fn scripts_declare_the_keys_that_they_touch_but_for_those_that_only_they_can_know() {
    let server = server_with(&permissions()[0]);
    let monitor = Monitor::of(&server);
    do_everything_on(&server).await;
    let named = |key: &str| match key.rsplit_once(':') {
        Some((_, "message")) => "the message of a marker".to_owned(),
        _ => key.split('\u{6}').next().unwrap_or_default().to_owned(),
    };
    let (undeclared, ran) = monitor.undeclared(&server, named);
    // The list in which a message waits is what its marker says.
    let known = ["lua/locate: crew_jobs", "lua/move: crew_jobs", "lua/withdraw: crew_jobs"];
    assert_eq!(undeclared.iter().map(String::as_str).collect::<Vec<_>>(), known, "{ran:?}");
    // Those are of other servers, of results elsewhere and of large messages, and have no keys but those of their first line.
    let left = ["carry", "clear", "large", "replies"];
    let all = [
        "carry", "claim", "clear", "drop", "enqueue", "extend", "forget", "glance", "ids", "large", "locate", "look_up",
    ];
    let more = [
        "markers",
        "move",
        "outcomes",
        "quarantine",
        "renew",
        "replies",
        "requeue",
        "retire",
        "snapshot",
        "sweep",
        "withdraw",
    ];
    for script in all.iter().chain(&more).filter(|script| !left.contains(script)) {
        assert!(ran.contains(&format!("lua/{script}")), "{script}: {ran:?}");
    }
}

fn server_with(rules: &str) -> RedisServer {
    Setup::default()
        .config(&format!("user operator on >{PASSWORD} {rules}"))
        .config("user default on nopass ~* &* +@all")
        .start()
}

async fn do_everything_on(server: &RedisServer) {
    use crewjob::store::Notice;
    use futures::StreamExt;

    let store = Store::connect(&at(server.url_as("operator", PASSWORD))).await.unwrap();
    let mut notices = Box::pin(store.subscribe());
    assert_eq!(notices.next().await, Some(Notice::Connected));
    let (message, id) = (message(1), message(1).marker());
    store.claim(FIRST).await.unwrap();
    store.declare(&queues()).await.unwrap();
    store.enqueue(FIRST, &message).await.unwrap();
    let lowest = crewjob::core::id::Priority::clamped(0);
    store.move_band(FIRST, &id, 0, "crew_jobs", crewjob::core::id::Priority::clamped(6)).await.unwrap();
    store.move_band(FIRST, &id, 0, "crew_jobs", lowest).await.unwrap();
    assert!(matches!(store.locate(std::slice::from_ref(&id)).await.as_deref(), Ok([Some(_)])));
    take(server, LOWEST, &message.id.tag());
    assert!(matches!(store.locate(std::slice::from_ref(&id)).await.as_deref(), Ok([Some(_)])));
    assert_eq!(store.renew(&[message.id.tag()]).await, Ok(1));
    server.run::<()>(&["LPUSH", "default", "poison"]);
    let audit = store.audit(&queues()).await.unwrap();
    assert_eq!(store.quarantine(&audit.poison).await, Ok(1));
    assert_eq!(store.retire(FIRST, InPlaceOf::Nowhere(0), &id, message.id).await, Ok(false));
    store.requeue(FIRST, InPlaceOf::Ended(0), &again(&message, 1), true).await.unwrap();
    server.run::<()>(&["SET", &result_key(message.id.task), "?"]);
    store.requeue(FIRST, InPlaceOf::Nowhere(1), &again(&again(&message, 1), 1), true).await.unwrap();
    store.outcome(message.id.task).await.unwrap();
    server.run::<()>(&["EXPIRE", &result_key(message.id.task), "10"]);
    store.extend_result(message.id.task, Duration::from_mins(1)).await.unwrap();
    store.snapshot(&queues()).await.unwrap();
    store.sweep(FIRST, &all_gone([id.clone()]), &queues()).await.unwrap();
    store.withdraw(FIRST, &id, 1).await.unwrap();
    store.enqueue(FIRST, &self::message(2)).await.unwrap();
    store.withdraw(FIRST, &self::message(2).marker(), 0).await.unwrap();
    store.drop_copy(FIRST, &id, 1, None).await.unwrap();
    store.look_up(&[(id.clone(), message.id.tag())], |_, _| {}).await.unwrap();
    store.glance(&queues()).await.unwrap();
    store.markers(std::slice::from_ref(&id)).await.unwrap();
    store.scan_markers(|_| {}).await.unwrap();
    store.forget(&[id]).await.unwrap();
    store.revoke(&[message.id.task], Some("SIGTERM"), None).await.unwrap();
    store.holders(&[message.id.task]).await.unwrap();
    store.present().await.unwrap();
    store.tasks_of(&["crew@a".into()]).await.unwrap();
    store.node_settings(&["crew@a".into()], &[]).await.unwrap();
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let setup = Setup::default().config(&format!("user operator on >{PASSWORD} ~crewjob:* +@all -lpush"));
    let server = setup.config("user default on nopass ~* &* +@all").start();
    let store = Store::connect(&at(server.url_as("operator", PASSWORD))).await.unwrap();
    let refused = store.enqueue(FIRST, &message(1)).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Refused { detail, .. } if detail.to_lowercase().contains("permission")),
        "{refused}"
    );
    // Nothing half done: the same call goes through once the permission is there.
    server.run::<()>(&["ACL", "SETUSER", "operator", "allkeys", "+@all"]);
    assert_eq!(store.enqueue(FIRST, &message(1)).await, Ok(Enqueued::Published));
}

#[tokio::test]
async fn tls_is_spoken_with_the_given_authority_only() {
    let server = Setup::default().tls().config(&format!("requirepass {PASSWORD}")).start();
    let url = server.url_as("default", PASSWORD);
    let trusting = changed(at(&url), |access| access.ca = Some(server.ca()));
    let store = Store::connect(&trusting).await.unwrap();
    assert_eq!(store.enqueue(FIRST, &message(1)).await, Ok(Enqueued::Published));
    let mut notices = Box::pin(store.subscribe());
    assert_eq!(futures::StreamExt::next(&mut notices).await, Some(crewjob::store::Notice::Connected));

    // Celery wants to be told in the URL; the parameter changes nothing here, also where it asks for less.
    for parameter in ["required", "CERT_REQUIRED", "none"] {
        let url = format!("{url}?ssl_cert_reqs={parameter}");
        Store::connect(&changed(at(&url), |access| access.ca = Some(server.ca()))).await.unwrap();
        assert!(matches!(refusal(&at(&url)).await, ConnectError::Unreachable { .. }), "{parameter}");
    }

    for (parameters, named) in [
        ("?ssl_cert_reqs=none", "ssl_cert_reqs=none in REDIS_URL is not heeded"),
        ("?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem", "ssl_ca_certs"),
        ("?ssl_certfile=/client.pem&ssl_keyfile=/client.key", "ssl_certfile"),
        ("#insecure", "#insecure"),
    ] {
        let refused = refusal(&at(format!("{url}{parameters}"))).await.to_string();
        assert!(refused.contains(named), "{parameters}: {refused}");
    }
    let unknown = refusal(&at(&url)).await.to_string();
    assert!(unknown.contains("REDIS_CA"), "{unknown}");
    let plain = refusal(&at(url.replace("rediss://", "redis://"))).await.to_string();
    assert!(plain.contains("use rediss:// in REDIS_URL"), "{plain}");
    let with_ca = |ca: &str| changed(at(&url), |access| access.ca = Some(ca.to_owned()));
    let junk = refusal(&with_ca("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")).await;
    assert!(matches!(junk, ConnectError::Invalid { field: "REDIS_CA", .. }), "{junk}");
    let empty = refusal(&with_ca("no PEM at all")).await;
    assert!(matches!(empty, ConnectError::Invalid { field: "REDIS_CA", .. }), "{empty}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_client_certificate_gets_the_one_of_the_secret_and_is_refused_in_words_without() {
    let server = Setup::default().mutual_tls().start();
    let with = |certificate: Option<&str>, key: Option<&str>| {
        changed(at(server.url(0)), |access| {
            access.ca = Some(server.ca());
            access.client_cert = certificate.map(ToOwned::to_owned);
            access.client_key = key.map(Secret::new);
        })
    };
    let file = |name: &str| server.file(name);
    let (certificate, key) = (file("client.crt"), file("client.key"));
    let store = Store::connect(&with(Some(&certificate), Some(&key))).await.unwrap();
    assert_eq!(store.enqueue(FIRST, &message(1)).await, Ok(Enqueued::Published));
    let mut notices = Box::pin(store.subscribe());
    assert_eq!(futures::StreamExt::next(&mut notices).await, Some(crewjob::store::Notice::Connected));

    let none = refusal(&with(None, None)).await.to_string();
    assert!(none.contains("asks for a client certificate; give it as REDIS_CLIENT_CERT"), "{none}");
    let stranger = refusal(&with(Some(&file("stranger.crt")), Some(&file("stranger.key")))).await.to_string();
    assert!(stranger.contains("does not accept the REDIS_CLIENT_CERT"), "{stranger}");

    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (certificate, key, field, said) in [
        (Some(&*certificate), None, "REDIS_CLIENT_KEY", "it is missing"),
        (None, Some(&*key), "REDIS_CLIENT_CERT", "it is missing"),
        (Some("no PEM"), Some(&key), "REDIS_CLIENT_CERT", "no PEM certificate"),
        (Some(&key), Some(&key), "REDIS_CLIENT_CERT", "no PEM certificate"),
        (Some(&certificate), Some("no PEM"), "REDIS_CLIENT_KEY", "no PEM private key"),
        (Some(&certificate), Some(&certificate), "REDIS_CLIENT_KEY", "no PEM private key"),
        (Some(&certificate), Some(encrypted), "REDIS_CLIENT_KEY", "it is encrypted"),
        (Some(&certificate), Some(&file("stranger.key")), "REDIS_CLIENT_KEY", "not the key of REDIS_CLIENT_CERT"),
    ] {
        let refused = refusal(&with(certificate, key)).await;
        let ConnectError::Invalid { field: named, detail } = &refused else { panic!("{field}: {refused}") };
        assert!(*named == field && detail.contains(said), "{said}: {refused}");
        let secret = key.unwrap_or_default().lines().nth(1).unwrap_or("-");
        assert!(!refused.to_string().contains(secret), "{refused}");
    }
}

#[tokio::test]
async fn a_redis_cluster_is_refused_in_words_whatever_the_database_and_the_prefix() {
    let server = Setup::default().config("cluster-enabled yes").start();
    // One node has all the slots.
    server.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    for (database, prefix) in [(0, ""), (0, "{app}"), (1, "")] {
        let settings = changed(at(server.url(database)), |access| access.keys.global_prefix = prefix.into());
        let refused = refusal(&settings).await;
        assert!(matches!(&refused, ConnectError::Unsupported { .. } | ConnectError::Unreachable { .. }), "{refused:?}");
        let refused = refused.to_string();
        assert!(
            refused.contains("Redis Cluster is not supported") && refused.contains("a prefix in braces"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_a_bad_certificate() {
    let server = RedisServer::start();
    let refused = refusal(&at(server.url(0).replace("redis://", "rediss://"))).await.to_string();
    assert!(refused.contains("use redis:// in REDIS_URL"), "{refused}");
}

#[tokio::test]
async fn invalid_urls_are_refused_without_quoting_them() {
    for url in [
        "",
        "redis://",
        "http://hunter2@redis",
        "redis://:hunter2@host:notaport/0",
        "redis://:hunter2@host/zero",
        "redis://:hunter2@host:6379/0?protocol=hunter2",
        "unix:///tmp/hunter2",
        "redis://user:hunt%er2@[::1/0",
    ] {
        let refused = refusal(&at(url)).await;
        assert!(matches!(refused, ConnectError::Invalid { field: "REDIS_URL", .. }), "{url}: {refused}");
    }
    let amqp = Some(Secret::new("amqp://hunter2"));
    let results = changed(at("redis://127.0.0.1"), |access| access.result_url = amqp);
    assert!(matches!(refusal(&results).await, ConnectError::Invalid { field: "RESULT_BACKEND_URL", .. }));
}

#[tokio::test]
async fn a_server_that_hangs_lies_or_is_absent_costs_no_more_than_the_timeout() {
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let lying = TcpListener::bind("127.0.0.1:0").unwrap();
    let absent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (hangs, lies) = (hanging.local_addr().unwrap(), lying.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in lying.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    for (address, tls) in [(hangs, "redis"), (hangs, "rediss"), (lies, "redis"), (lies, "rediss"), (absent, "redis")] {
        let begun = Instant::now();
        let refused = refusal(&at(format!("{tls}://:hunter2@{address}/0"))).await;
        assert!(matches!(refused, ConnectError::Unreachable { .. }), "{refused}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{tls}://{address}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_lost_connection_is_made_again_without_the_caller_noticing() {
    let mut server = RedisServer::start();
    let store = Store::connect(&at(server.url(0))).await.unwrap();
    store.enqueue(FIRST, &message(1)).await.unwrap();
    server.run::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert!(matches!(store.enqueue(FIRST, &message(1)).await, Ok(Enqueued::Already(_))));
    server.stop();
    for _ in 0..3 {
        let begun = Instant::now();
        let failed = store.snapshot(&queues()).await;
        assert!(matches!(failed, Err(Error::Unavailable { .. })), "{failed:?}");
        assert!(begun.elapsed() < Duration::from_millis(600));
    }
    server.start_again();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(store.enqueue(FIRST, &message(1)).await, Ok(Enqueued::Published));
}

#[tokio::test]
async fn a_server_that_stops_answering_is_given_up_and_asked_again_later() {
    let server = Setup::default().config("enable-debug-command yes").start();
    let store = Store::connect(&at(server.url(0))).await.unwrap();
    let mut blocker = server.connection();
    let blocking = std::thread::spawn(move || ::redis::cmd("DEBUG").arg("SLEEP").arg("1.5").exec(&mut blocker));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    assert!(matches!(store.enqueue(FIRST, &message(1)).await, Err(Error::Unavailable { .. })));
    assert!(begun.elapsed() < Duration::from_millis(1200), "{:?}", begun.elapsed());
    blocking.join().unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    // The first call may have got through late; either way there is one message.
    store.enqueue(FIRST, &message(1)).await.unwrap();
    assert_eq!(server.list(HIGH).len(), 1);
}
