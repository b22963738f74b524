//! Taking messages, leases, putting messages back.

use crewjob::store::Keys;
use crewjob::store::channel::Begun;

use super::*;
use crate::support::gate::Gate;

/// How many messages are put back that no worker has acknowledged for an hour.
async fn restored(channel: &Channel) -> u64 {
    channel.restore_visible(Duration::from_hours(1), "me", &queues()).await.unwrap().restored
}

#[tokio::test]
async fn messages_are_taken_in_kombus_order() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    for (queue, id, priority) in
        [("default", "1", 9), ("crew_jobs", "2", 5), ("default", "3", 4), ("crew_jobs", "4", 3), ("default", "5", 0)]
    {
        send(&server, queue, id, priority);
    }
    let mut order = Vec::new();
    while let Some(taken) = reserve(&channel).await {
        order.push(taken);
    }
    let expected = [("t5", 1), ("t2", 0), ("t4", 0), ("t3", 1), ("t1", 1)];
    assert_eq!(order, expected.map(|(tag, queue)| (tag.to_owned(), queue)));
}

#[tokio::test]
async fn a_message_that_was_taken_is_in_flight_as_kombu_notes_it() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    send(&server, "crew_jobs", "1", 5);
    let before: Vec<Vec<u8>> = server.list("crew_jobs\u{6}\u{16}3");
    let (delivery, refused) = take(&channel, &["crew_jobs"]).await;
    let delivery = delivery.unwrap();
    assert_eq!((&delivery.envelope, refused), (&before[0], 0), "verbatim");
    let unacked = in_flight(&server, "t1").unwrap();
    assert_eq!((unacked.exchange.as_str(), unacked.routing_key.as_str()), ("", "crew_jobs"));
    assert_eq!(unacked.envelope.encode(), before[0]);
    let (now, _): (f64, u32) = server.run(&["TIME"]);
    let score: f64 = server.run(&["ZSCORE", "unacked_index", "t1"]);
    assert!((now - score).abs() < 5.0, "{score}");
}

#[tokio::test]
async fn an_element_that_is_no_message_goes_into_quarantine_and_the_next_message_is_taken() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    for junk in ["not json", "{}", r#"{"properties": {"delivery_tag": 7}}"#, r#"{"properties": []}"#, "[[["] {
        server.run::<()>(&["LPUSH", "crew_jobs", junk]);
    }
    send(&server, "crew_jobs", "1", 0);
    let (delivery, refused) = take(&channel, &["crew_jobs"]).await;
    assert_eq!((delivery.unwrap().tag.as_str(), refused), ("t1", 5));
    assert_eq!(server.run::<u64>(&["XLEN", &channel.quarantine_stream()]), 5);
    assert_eq!(take(&channel, &["crew_jobs"]).await, (None, 0));
}

#[tokio::test]
async fn a_worker_that_did_not_get_the_answer_is_given_the_same_message_again() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    for id in ["1", "2"] {
        send(&server, "crew_jobs", id, 5);
    }
    let ask =
        async |last: &str| channel.reserve(&["crew_jobs"], "me", last).await.unwrap().0.map(|it| (it.tag, it.envelope));
    let first = ask("").await.unwrap();
    let again = ask("").await.unwrap();
    assert_eq!((first.0.as_str(), &again), ("t1", &first), "the answer was lost");
    assert_eq!(ask("t1").await.unwrap().0, "t2");
    server.run::<()>(&["HDEL", "unacked", "t2"]);
    assert_eq!(ask("t1").await, None, "another worker has ended it since");
}

#[tokio::test]
async fn one_run_at_a_time_has_the_lease_on_a_task() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    assert_eq!(channel.begin("1", "t1", "me", LEASE).await, Ok(Begun::Taken(Vec::new())));
    assert_eq!(
        channel.begin("1", "t1", "me", LEASE).await,
        Ok(Begun::Taken(Vec::new())),
        "asked again: the answer was lost"
    );
    let Ok(Begun::LeasedElsewhere(left)) = channel.begin("1", "t1", "other", LEASE).await else { panic!("held") };
    assert!(left > Duration::from_secs(4) && left <= LEASE, "{left:?}");
    assert_eq!(server.run::<String>(&["GET", "crewjob-lease:1"]), "me", "the guard of Python workers looks there");
}

#[tokio::test]
async fn a_lease_is_renewed_and_made_again_and_its_loss_is_told() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    for task in ["1", "2", "3"] {
        channel.begin(task, &format!("t{task}"), "me", Duration::from_secs(1)).await.unwrap();
    }
    server.run::<()>(&["DEL", "crewjob-lease:2"]);
    server.run::<()>(&["SET", "crewjob-lease:3", "other"]);
    let lost = channel.keep(&[("1", "me"), ("2", "me"), ("3", "me")], LEASE).await.unwrap();
    assert_eq!(lost, [(2, "other".to_owned())]);
    assert!(server.run::<u64>(&["PTTL", "crewjob-lease:1"]) > 4000);
    assert!(server.run::<u64>(&["PTTL", "crewjob-lease:2"]) > 4000);
}

#[tokio::test]
async fn a_run_that_begins_sees_the_result_of_the_run_before() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    server.run::<()>(&["SET", "celery-task-meta-1", r#"{"status": "SUCCESS"}"#]);
    server.run::<()>(&[
        "SET",
        "celery-task-meta-2",
        &format!(r#"{{"status": "SUCCESS", "result": "{}"}}"#, "long ".repeat(20_000)),
    ]);
    assert_eq!(channel.begin("1", "t1", "me", LEASE).await, Ok(Begun::Taken(br#"{"status": "SUCCESS"}"#.to_vec())));
    let Ok(Begun::Taken(head)) = channel.begin("2", "t2", "me", LEASE).await else { panic!("taken") };
    assert!(head.starts_with(br#"{"status": "SUCCESS""#) && head.len() < 70_000, "cut: {}", head.len());
}

#[tokio::test]
async fn a_message_that_is_put_back_comes_next_and_says_so() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    for id in ["1", "2"] {
        send(&server, "crew_jobs", id, 5);
    }
    reserve(&channel).await.unwrap();
    channel.begin("1", "t1", "me", LEASE).await.unwrap();
    assert_eq!(channel.restore("t1", "1", "me", &queues()).await, Ok(true));
    assert_eq!(in_flight(&server, "t1"), None);
    assert!(!server.run::<bool>(&["EXISTS", "crewjob-lease:1"]), "the lease is given up");
    assert_eq!(channel.restore("t1", "1", "me", &queues()).await, Ok(false), "once");
    let (again, _) = take(&channel, &["crew_jobs"]).await;
    let again = crewjob::wire::Envelope::decode(&again.unwrap().envelope).unwrap();
    assert_eq!(
        (again.properties.delivery_tag.as_str(), again.properties.delivery_info.redelivered),
        ("t1", Some(true))
    );
}

#[tokio::test]
async fn a_large_message_is_given_again_and_put_back_like_any_other() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    let mut call = Call::new("a.task", "1", "crew_jobs");
    call.priority = 0;
    call.args = vec!["x".repeat(20 << 20).into()];
    let sent = String::from_utf8(call.envelope().encode()).unwrap();
    server.run::<()>(&["LPUSH", "crew_jobs", &sent]);
    for _ in 0..2 {
        let (delivery, _) = channel.reserve(&["crew_jobs"], "me", "").await.unwrap();
        assert!(delivery.unwrap().envelope == sent.as_bytes(), "the same, though the answer was lost");
    }
    assert_eq!(channel.restore("1", "1", "", &queues()).await, Ok(true));
    reserve(&channel).await.unwrap();
    server.run::<()>(&["ZADD", "unacked_index", "1", "1"]);
    assert_eq!(restored(&channel).await, 1);
    assert_eq!(server.run::<u64>(&["LLEN", "crew_jobs"]), 1);
    assert_eq!(server.run::<u64>(&["XLEN", &channel.quarantine_stream()]), 0);
}

#[tokio::test]
async fn a_name_that_leads_to_another_server_by_now_is_followed() {
    let (mut first, second) = (RedisServer::start(), RedisServer::start());
    let gate = Gate::before(first.port(), |_| None);
    let channel = Channel::connect(&Access::new(Secret::new(gate.url(0)))).await.unwrap();
    assert_eq!(reserve(&channel).await, None);
    // A failover that leaves the connection to what is a replica now.
    first.run::<()>(&["REPLICAOF", "127.0.0.1", &second.port().to_string()]);
    gate.lead_to(second.port());
    send(&second, "crew_jobs", "1", 5);
    assert_eq!(reserve(&channel).await.map(|(tag, _)| tag).as_deref(), Some("t1"));
    first.stop();
}

#[tokio::test]
async fn a_message_through_an_exchange_goes_back_to_the_queue_that_is_bound_to_it() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    server.run::<()>(&["SADD", "_kombu.binding.theirs", "their.key\u{6}\u{16}\u{6}\u{16}their_queue"]);
    for (exchange, key, list) in
        [("crew_jobs", "crew.jobs", "crew_jobs"), ("theirs", "their.key", "their_queue"), ("", "any", "any")]
    {
        let mut envelope = Call::new("a.task", "1", "x").envelope();
        envelope.properties.priority = Some(0);
        envelope.properties.delivery_info.exchange = exchange.into();
        envelope.properties.delivery_info.routing_key = key.into();
        server.run::<()>(&["LPUSH", "crew_jobs", std::str::from_utf8(&envelope.encode()).unwrap()]);
        reserve(&channel).await.unwrap();
        assert_eq!(channel.restore("1", "1", "", &queues()).await, Ok(true));
        assert_eq!(server.run::<u64>(&["LLEN", list]), 1, "{exchange} {key}");
        server.run::<()>(&["DEL", list]);
    }
}

/// Puts a message in flight that was sent through this exchange, longer ago than any visibility timeout.
fn lost_through(server: &RedisServer, exchange: &str, key: &str) {
    let mut envelope = Call::new("a.task", "1", "x").envelope();
    envelope.properties.priority = Some(0);
    let message = Unacked { envelope, exchange: exchange.into(), routing_key: key.into() }.encode();
    server.run::<()>(&["HSET", "unacked", "t1", std::str::from_utf8(&message).unwrap()]);
    server.run::<()>(&["ZADD", "unacked_index", "1", "t1"]);
}

/// Puts it back in both ways: as the worker that has it, and as one that finds it lost.
async fn put_back_twice(server: &RedisServer, (exchange, key): (&str, &str)) {
    let channel = channel(server).await;
    lost_through(server, exchange, key);
    assert_eq!(channel.restore("t1", "1", "", &queues()).await, Ok(true));
    lost_through(server, exchange, key);
    assert_eq!(restored(&channel).await, 1);
    assert_eq!(in_flight(server, "t1"), None);
}

#[tokio::test]
async fn a_message_through_a_topic_exchange_goes_back_to_every_queue_whose_pattern_matches() {
    let server = RedisServer::start();
    let bindings =
        [("feed.#", r"^feed\..*?$", "feed_tasks"), ("*.import", r"^[^\.]+\.import$", "imports"), ("x", "^x$", "x")];
    for (key, pattern, queue) in bindings {
        let member = [key, pattern, queue].join("\u{6}\u{16}");
        server.run::<()>(&["SADD", "_kombu.binding.tasks", &member]);
    }
    put_back_twice(&server, ("tasks", "feed.import")).await;
    for (list, length) in [("feed_tasks", 2), ("imports", 2), ("x", 0), ("feed.import", 0)] {
        assert_eq!(server.run::<u64>(&["LLEN", list]), length, "{list}");
    }
}

#[tokio::test]
async fn a_message_whose_exchange_no_queue_is_bound_to_is_quarantined_under_its_name() {
    let server = RedisServer::start();
    server.run::<()>(&["SADD", "_kombu.binding.news", "celery\u{6}\u{16}\u{6}\u{16}bcast.6f1c"]);
    for (exchange, key) in [("gone", "any.key"), ("news", "celery"), ("crew_jobs", "other.key")] {
        put_back_twice(&server, (exchange, key)).await;
        for list in [key, exchange, "bcast.6f1c"] {
            assert!(!server.run::<bool>(&["EXISTS", list]), "no list is invented: {list}");
        }
        let found: Vec<(String, Vec<(String, String)>)> = server.run(&["XRANGE", "crewjob:quarantine", "-", "+"]);
        for (_, fields) in &found {
            let names = [("exchange", exchange), ("routing_key", key)].map(|(k, v)| (k.to_owned(), v.to_owned()));
            assert_eq!(fields[..2], names);
        }
        assert_eq!(found.len(), 2);
        server.run::<()>(&["DEL", "crewjob:quarantine"]);
    }
}

#[tokio::test]
async fn messages_that_were_not_acknowledged_in_time_are_put_back_by_one_worker_at_a_time() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    for id in ["1", "2", "3", "4"] {
        send(&server, "crew_jobs", id, 5);
        reserve(&channel).await.unwrap();
    }
    let (now, _): (f64, u32) = server.run(&["TIME"]);
    for tag in ["t1", "t2", "t4", "stray"] {
        server.run::<()>(&["ZADD", "unacked_index", &(now - 3601.0).to_string(), tag]);
    }
    assert_eq!(channel.renew(&["t2", "gone"]).await, Ok(1), "its worker lives");
    server.run::<()>(&["HSET", "unacked", "t4", "junk"]);
    server.run::<()>(&["SET", "unacked_mutex", "kombu"]);
    assert_eq!(restored(&channel).await, 0, "kombu is at it");
    server.run::<()>(&["DEL", "unacked_mutex"]);
    // t1 goes back; the junk of t4 into quarantine; the stray time is taken away.
    assert_eq!(restored(&channel).await, 2);
    assert_eq!(server.run::<Vec<String>>(&["ZRANGE", "unacked_index", "0", "-1"]), ["t3", "t2"]);
    assert_eq!(server.run::<u64>(&["XLEN", &channel.quarantine_stream()]), 1);
    assert!(!server.run::<bool>(&["EXISTS", "unacked_mutex"]));
    assert_eq!(reserve(&channel).await.unwrap().0, "t1");
}

#[tokio::test]
async fn a_message_that_redis_refuses_to_put_back_keeps_no_other_one_in_flight() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    // More than are looked at in one go, the oldest ones of a queue that is no list.
    server.run::<()>(&["SET", "theirs", "no list"]);
    for number in 0..250 {
        let (queue, tag) = (if number < 120 { "theirs" } else { "default" }, format!("t{number}"));
        let mut call = Call::new("a.task", tag.clone(), queue);
        call.priority = 0;
        let message = Unacked { envelope: call.envelope(), exchange: String::new(), routing_key: queue.into() };
        server.run::<()>(&["HSET", "unacked", &tag, std::str::from_utf8(&message.encode()).unwrap()]);
        server.run::<()>(&["ZADD", "unacked_index", &(number + 1).to_string(), &tag]);
    }
    let swept = channel.restore_visible(Duration::from_hours(1), "me", &queues()).await.unwrap();
    assert_eq!((swept.restored, swept.failed, swept.more), (130, 120, false));
    assert!(swept.refusal.unwrap().to_string().contains("WRONGTYPE"));
    assert_eq!(server.run::<u64>(&["LLEN", "default"]), 130);
    assert_eq!(server.run::<u64>(&["HLEN", "unacked"]), 120, "what is refused stays in flight");
}

#[tokio::test]
async fn the_sweep_has_the_lock_that_belongs_to_the_name_of_the_messages_in_flight() {
    let server = RedisServer::start();
    let mut access = Access::new(Secret::new(server.url(0)));
    access.keys = Keys { global_prefix: "app1:".into(), unacked: "held".into(), ..Keys::default() };
    let channel = Channel::connect(&access).await.unwrap();
    let envelope = Call::new("a.task", "1", "default").envelope().encode();
    let message = format!("[{}, \"\", \"default\"]", String::from_utf8(envelope).unwrap());
    server.run::<()>(&["HSET", "app1:held", "t1", &message]);
    server.run::<()>(&["ZADD", "app1:held_index", "1", "t1"]);
    server.run::<()>(&["SET", "app1:held_mutex", "kombu"]);
    assert_eq!(restored(&channel).await, 0, "kombu is at it");
    server.run::<()>(&["DEL", "app1:held_mutex"]);
    assert_eq!(restored(&channel).await, 1);
    assert_eq!(server.run::<u64>(&["LLEN", "app1:default\u{6}\u{16}3"]), 1);
}
