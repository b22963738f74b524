//! What is kept, and what is cleaned up.

use crewjob::store::channel::Cleaned;
use jiff::Timestamp;

use super::*;

#[tokio::test]
async fn only_old_results_without_an_expiry_and_replies_without_a_caller_are_deleted() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    let done = |at: &str| format!(r#"{{"status": "SUCCESS", "result": 1, "date_done": {at}, "task_id": "x"}}"#);
    let old = done(r#""2026-11-20T00:00:00+00:00""#);
    server.run::<()>(&["SET", "celery-task-meta-old", &old]);
    server.run::<()>(&["SET", "celery-task-meta-expires", &old, "EX", "1000"]);
    server.run::<()>(&["SET", "celery-task-meta-young", &done(r#""2026-11-22T00:00:00""#)]);
    server.run::<()>(&["SET", "celery-task-meta-runs", &done("null")]);
    server.run::<()>(&["SET", "celery-task-meta-other", "no result"]);
    server.run::<()>(&["SET", "elsewhere", &old]);
    server.run::<()>(&["LPUSH", "gone.reply.celery.pidbox", "a reply"]);
    server.run::<()>(&["LPUSH", "here.reply.celery.pidbox", "a reply"]);
    let here = "here\u{6}\u{16}\u{6}\u{16}here.reply.celery.pidbox";
    server.run::<()>(&["SADD", "_kombu.binding.reply.celery.pidbox", here]);

    let oldest: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
    let expected = Cleaned { results: 5, results_deleted: 1, replies: 2, replies_deleted: 1 };
    assert_eq!(channel.clean(oldest).await, Ok(expected));
    let mut left: Vec<String> = server.run(&["KEYS", "*"]);
    left.sort();
    let expected = [
        "_kombu.binding.reply.celery.pidbox",
        "celery-task-meta-expires",
        "celery-task-meta-other",
        "celery-task-meta-runs",
        "celery-task-meta-young",
        "elsewhere",
        "here.reply.celery.pidbox",
    ];
    assert_eq!(left, expected);
}

#[tokio::test]
async fn outputs_are_cached_under_the_key_that_python_workers_use() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    let inputs = r#"{"topic":"AI"}"#;
    assert_eq!(channel.cached("offline", inputs).await, Ok(None));
    channel.cache("offline", inputs, b"{}", Duration::from_mins(1)).await.unwrap();
    assert_eq!(channel.cached("offline", inputs).await, Ok(Some(b"{}".to_vec())));
    // hashlib.sha256(b'{"topic":"AI"}').hexdigest()
    let key = "crew-cache:offline:b3e91428f19affd2d652fe3a5ca273e937fd1b87ba7f8a1b2ff014e6e4d30aee";
    assert!((50..=60).contains(&server.run::<i64>(&["TTL", key])), "{:?}", server.run::<Vec<String>>(&["KEYS", "*"]));
}
