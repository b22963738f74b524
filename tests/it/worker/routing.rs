//! Which queues a worker's messages go to when they name an exchange.

use super::*;

/// Binds queues as kombu does: exchange, routing key, pattern, queue.
fn bind(server: &RedisServer, [exchange, key, pattern, queue]: [&str; 4]) {
    let member = [key, pattern, queue].join("\u{6}\u{16}");
    server.run::<()>(&["SADD", &format!("_kombu.binding.{exchange}"), &member]);
}

const TOPIC: [&str; 4] = ["tasks", "feed.#", r"^feed\..*?$", "feed_tasks"];
const DIRECT: [&str; 4] = ["media", "media.video", "", "videos"];

/// Puts a call on a queue, in the most urgent band, that was sent through this exchange.
fn send_through(server: &RedisServer, queue: &str, (exchange, key): (&str, &str), task: &str, id: &str, embed: &str) {
    let mut call = Call::new(task, id, queue);
    call.priority = 0;
    call.embed.callbacks = value(embed);
    let mut envelope = call.envelope();
    envelope.properties.delivery_info.exchange = exchange.into();
    envelope.properties.delivery_info.routing_key = key.into();
    server.run::<()>(&["LPUSH", queue, std::str::from_utf8(&envelope.encode()).unwrap()]);
}

fn quarantined(server: &RedisServer) -> Vec<(String, Vec<(String, String)>)> {
    server.run(&["XRANGE", "crewjob:quarantine", "-", "+"])
}

#[test]
fn a_retry_through_a_topic_or_a_direct_exchange_goes_to_the_queue_that_is_bound_and_is_run() {
    let server = RedisServer::start();
    bind(&server, TOPIC);
    bind(&server, DIRECT);
    let _worker = Worker::start(&server, TASKS, &["-Q", "feed_tasks,videos"]);
    send_through(&server, "feed_tasks", ("tasks", "feed.import"), "again", "topic", "null");
    send_through(&server, "videos", ("media", "media.video"), "again", "direct", "null");
    state(&server, "topic", "SUCCESS");
    state(&server, "direct", "SUCCESS");
    for list in ["feed.import", "media.video"] {
        assert!(!server.run::<bool>(&["EXISTS", list]), "{list} is a routing key, not a queue");
    }
}

#[test]
fn a_task_that_cannot_be_sent_again_because_no_queue_is_bound_fails_at_once() {
    let server = RedisServer::start();
    let worker = Worker::start(&server, TASKS, &[]);
    send_through(&server, "default", ("gone", "any.key"), "again", "id-1", "null");
    state(&server, "id-1", "FAILURE");
    worker.logs("no queue is bound to the exchange \\\"gone\\\"");
    assert!(!server.run::<bool>(&["EXISTS", "any.key"]));
}

#[test]
fn what_follows_through_an_exchange_goes_to_each_queue_that_is_bound_or_is_quarantined_with_a_failure() {
    let server = RedisServer::start();
    bind(&server, TOPIC);
    bind(&server, ["tasks", "*.import", r"^[^\.]+\.import$", "imports"]);
    let option = |exchange: &str, id: &str| {
        format!(
            r#"{{"task": "next", "args": [], "kwargs": {{}}, "immutable": true,
                "options": {{"exchange": "{exchange}", "routing_key": "feed.import", "task_id": "{id}"}}}}"#
        )
    };
    let callbacks = format!("[{}, {}]", option("tasks", "sent"), option("gone", "unsent"));
    let worker = Worker::start(&server, TASKS, &[]);
    send_changed(&server, "told", "id-1", "[]", |call| call.embed.callbacks = value(&callbacks));
    state(&server, "id-1", "SUCCESS");
    for queue in ["feed_tasks", "imports"] {
        assert_eq!(server.run::<u64>(&["LLEN", queue]), 1, "{queue}: {}", worker.log());
    }
    let failed = state(&server, "unsent", "FAILURE").exception().unwrap();
    assert!(failed.message().contains(r#"the exchange "gone" with the routing key "feed.import""#), "{failed:?}");
    let [(_, fields)] = &quarantined(&server)[..] else { panic!("one element") };
    let names = [("exchange", "gone"), ("routing_key", "feed.import")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(fields[..2], names);
    assert!(fields[2].1.contains("unsent"), "{fields:?}");
    assert!(!server.run::<bool>(&["EXISTS", "feed.import"]));
}

#[test]
fn what_follows_through_a_fanout_exchange_is_published_to_its_listeners() {
    let server = RedisServer::start();
    bind(&server, ["news", "celery", "", "bcast.6f1c"]);
    let mut listener = redis::Client::open(server.url(0)).unwrap().get_connection().unwrap();
    let mut listening = listener.as_pubsub();
    listening.subscribe("/0.news/celery").unwrap();
    listening.set_read_timeout(Some(PATIENCE)).unwrap();
    let _worker = Worker::start(&server, TASKS, &[]);
    send_changed(&server, "told", "id-1", "[]", |call| {
        call.embed.callbacks = value(
            r#"[{"task": "next", "args": [], "kwargs": {}, "options": {"exchange": "news", "routing_key": "celery"}}]"#,
        );
    });
    let heard: Vec<u8> = listening.get_message().unwrap().get_payload().unwrap();
    assert_eq!(crewjob::wire::Envelope::decode(&heard).unwrap().properties.delivery_info.exchange, "news");
    assert!(!server.run::<bool>(&["EXISTS", "bcast.6f1c"]), "a queue that is listened to is no list");
}

#[test]
fn messages_of_a_topic_exchange_that_a_worker_holds_when_it_stops_go_back_to_their_queue() {
    let server = RedisServer::start();
    bind(&server, TOPIC);
    let mut worker = Worker::start(&server, TASKS, &["-Q", "feed_tasks"]);
    let mut call = Call::new("told", "id-1", "feed_tasks");
    call.priority = 0;
    call.headers.insert("eta", Value::from("2100-01-01T00:00:00+00:00"));
    let mut envelope = call.envelope();
    envelope.properties.delivery_info.exchange = "tasks".to_owned();
    envelope.properties.delivery_info.routing_key = "feed.import".to_owned();
    server.run::<()>(&["LPUSH", "feed_tasks", std::str::from_utf8(&envelope.encode()).unwrap()]);
    until("it is taken", || (in_flight(&server) == 1).then_some(()));
    worker.signal("TERM");
    assert!(worker.gone().success());
    assert_eq!((server.run::<u64>(&["LLEN", "feed_tasks"]), in_flight(&server)), (1, 0));
}
