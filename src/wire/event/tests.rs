use proptest::prelude::*;

use super::*;
use crate::wire::json::tests::any_value;

fn message(body: &str) -> Vec<u8> {
    Envelope::new(Object::new(), body, Properties::default()).encode()
}

/// Decodes one event, and makes sure that nothing is lost.
#[track_caller]
fn decode(json: &str) -> Event {
    let event = Event::decode(&message(json)).unwrap().remove(0);
    assert_eq!(event.to_value(), Value::parse(json.as_bytes()).unwrap());
    event
}

#[test]
fn a_worker_says_that_it_is_online() {
    let event = decode(
        r#"{"hostname": "worker1@vm", "utcoffset": 0.0, "pid": 19969, "clock": 1, "freq": 2.0, "active": 0, "processed": 0, "loadavg": [4.03, 2.38, 1.03], "sw_ident": "py-celery", "sw_ver": "5.7.0", "sw_sys": "Linux", "timestamp": 1795354770.325659, "type": "worker-online"}"#,
    );
    assert_eq!((event.event_type(), event.task_id()), ("worker-online", None));
    assert_eq!((event.hostname.as_deref(), event.pid, event.clock), (Some("worker1@vm"), Some(19969), Some(1)));
    let Detail::WorkerOnline(status) = event.detail else { panic!("{:?}", event.detail) };
    assert_eq!((status.active, status.processed, status.sw_ver.as_deref()), (Some(0), Some(0), Some("5.7.0")));
    assert_eq!(event.timestamp.unwrap().to_string(), "1795354770.325659");
}

#[test]
fn task_events_are_told_apart() {
    for (json, event_type) in [
        (
            r#"{"uuid": "i", "root_id": "i", "parent_id": null, "name": "t", "args": "()", "kwargs": "{}", "retries": 0, "eta": null, "expires": null, "queue": "crew_jobs", "exchange": "", "routing_key": "crew_jobs", "type": "task-sent"}"#,
            "task-sent",
        ),
        (
            r#"{"uuid": "i", "root_id": "i", "parent_id": null, "name": "t", "args": "()", "kwargs": "{}", "retries": 0, "eta": null, "expires": null, "type": "task-received"}"#,
            "task-received",
        ),
        (r#"{"uuid": "i", "type": "task-started"}"#, "task-started"),
        (
            r#"{"uuid": "i", "result": "{'a': 1}", "runtime": 0.004885672000000341, "type": "task-succeeded"}"#,
            "task-succeeded",
        ),
        (r#"{"uuid": "i", "exception": "ValueError('x')", "traceback": "T", "type": "task-failed"}"#, "task-failed"),
        (r#"{"uuid": "i", "exception": "ValueError('x')", "traceback": null, "type": "task-retried"}"#, "task-retried"),
        (
            r#"{"uuid": "i", "terminated": true, "signum": 15, "expired": false, "type": "task-revoked"}"#,
            "task-revoked",
        ),
        (
            r#"{"uuid": "i", "terminated": false, "signum": null, "expired": true, "type": "task-revoked"}"#,
            "task-revoked",
        ),
        (r#"{"uuid": "i", "requeue": false, "type": "task-rejected"}"#, "task-rejected"),
    ] {
        let event = decode(json);
        assert_eq!((event.event_type(), event.task_id()), (event_type, Some("i")));
        assert!(!matches!(event.detail, Detail::Other { .. }), "{json}");
    }
}

#[test]
fn unknown_events_and_fields_are_kept() {
    let event = decode(r#"{"type": "crew-step", "uuid": "i", "step": {"n": [1]}, "clock": "16"}"#);
    assert_eq!(event.detail, Detail::Other { event_type: "crew-step".to_owned(), uuid: Some("i".to_owned()) });
    assert_eq!(event.clock, None);
    let event = decode(r#"{"type": "task-started", "uuid": 7}"#);
    assert_eq!(event.detail, Detail::Other { event_type: "task-started".to_owned(), uuid: None });
}

#[test]
fn a_batch_is_read_in_order() {
    let events =
        Event::decode(&message(r#"[{"type": "task-started", "uuid": "a"}, {"type": "task-started", "uuid": "b"}]"#));
    let ids: Vec<_> = events.unwrap().iter().map(|event| event.task_id().map(str::to_owned)).collect();
    assert_eq!(ids, [Some("a".to_owned()), Some("b".to_owned())]);
    assert_eq!(Event::decode(&message("[]")), Ok(vec![]));
}

#[test]
fn a_body_that_is_no_event_is_refused() {
    for (body, error) in [
        ("1", "the body is not an event or a batch of events"),
        ("[1]", "the event is not an object"),
        ("{}", "the event's type is missing"),
        (r#"[{"type": "x"}, {"type": 1}]"#, "the event's type is not a string"),
    ] {
        assert_eq!(Event::decode(&message(body)).unwrap_err().to_string(), error);
    }
}

#[test]
fn an_event_is_published_as_celery_does() {
    let event = decode(r#"{"hostname": "w@h", "uuid": "i", "type": "task-started"}"#);
    let sent = event.envelope("tag");
    assert_eq!(sent.headers, Object::new().with("hostname", "w@h"));
    assert_eq!(sent.properties.delivery_info.routing_key, "task.started");
    assert_eq!(Event::decode(&sent.encode()), Ok(vec![event]));
}

proptest! {
    #[test]
    fn events_survive_a_round_trip(
        event_type in "(worker|task)-(online|heartbeat|offline|sent|received|started|succeeded|failed|retried|revoked|rejected)|[a-z]{0,3}",
        key in "uuid|clock|timestamp|hostname|freq|active|args|retries|result|runtime|terminated|signum|requeue|[a-z]{0,3}",
        value in any_value(),
        uuid: Option<String>,
    ) {
        let mut fields = Object::new().with("uuid", uuid).with(key, value);
        fields.insert("type", event_type);
        if let Ok(event) = Event::from_value(fields.clone().into()) {
            let sent = event.to_value();
            for (key, value) in fields.iter() {
                prop_assert_eq!(sent.get(key), Some(value));
            }
            prop_assert_eq!(Event::from_value(sent).unwrap(), event);
        }
    }
}
