use proptest::prelude::*;

use super::*;
use crate::wire::json::tests::any_value;

fn envelope(headers: &str, body: &str) -> Envelope {
    let headers = Value::parse(headers.as_bytes()).unwrap().into_object("headers").unwrap();
    Envelope::new(headers, body, Properties::default())
}

#[track_caller]
fn refused(headers: &str, body: &str, error: &str) {
    assert_eq!(Message::decode(&envelope(headers, body)).unwrap_err().to_string(), error);
}

#[test]
fn a_task_is_read_in_full() {
    let headers = r#"{"lang": "py", "task": "t", "id": "i", "shadow": null, "eta": "2026-11-22T13:39:46.319080+00:00", "expires": null, "group": "g", "group_index": 3, "retries": 2, "timelimit": [3600, 2.5], "root_id": "r", "parent_id": null, "argsrepr": "()", "kwargsrepr": "{}", "origin": "gen1@vm", "ignore_result": false, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}, "celery_beat_task": true}"#;
    let body = r#"[["job-1"], {"a": 1}, {"callbacks": null, "errbacks": [{"task": "backend.celery_app.error_handler", "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false}], "chain": null, "chord": null, "extra": 1}]"#;
    let message = Message::decode(&envelope(headers, body)).unwrap();
    assert_eq!(message.args, ["job-1".into()]);
    assert_eq!(message.kwargs.get("a"), Some(&1.into()));
    assert_eq!(message.headers.timelimit, TimeLimit { hard: Some(3600.into()), soft: Some(2.5.into()) });
    assert_eq!((message.headers.group_index, message.headers.retries), (Some(3), Some(2)));
    assert_eq!(message.headers.eta_at().unwrap().as_microsecond(), 1_795_354_786_319_080);
    assert_eq!(message.headers.other, Object::new().with("celery_beat_task", true));
    assert_eq!(message.embed.other, Object::new().with("extra", 1));

    let errback = message.embed.errbacks.as_array().unwrap()[0].clone();
    let signature = Signature::decode(&errback).unwrap();
    assert_eq!(signature.task, "backend.celery_app.error_handler");
    assert_eq!(signature.to_value(), errback);

    let again = message.to_envelope(Properties::default());
    assert_eq!(Value::from(again.headers), Value::parse(headers.as_bytes()).unwrap());
    assert_eq!(message.body(), Value::parse(body.as_bytes()).unwrap());
}

#[test]
fn a_minimal_task_gets_the_headers_that_celery_sends() {
    let message = Message::decode(&envelope(r#"{"task": "t", "id": "i"}"#, "[[],{},{}]")).unwrap();
    assert_eq!(message.headers.ignore_result, None);
    let headers = message.headers.to_object();
    assert_eq!(headers.len(), 19);
    assert_eq!(headers.get("timelimit"), Some(&Value::Array(vec![Value::Null, Value::Null])));
    assert_eq!(headers.get("retries"), Some(&0.into()));
}

#[test]
fn headers_of_unexpected_types_are_sent_on_as_they_came() {
    let headers = r#"{"task": "t", "id": "i", "retries": "many", "timelimit": 5, "eta": [], "stamps": 1}"#;
    let message = Message::decode(&envelope(headers, "[[],{},null]")).unwrap();
    assert_eq!((message.headers.retries, &message.headers.eta), (None, &None));
    let sent = message.headers.to_object();
    for (key, value) in Value::parse(headers.as_bytes()).unwrap().as_object().unwrap().iter() {
        assert_eq!(sent.get(key), Some(value), "{key}");
    }
}

#[test]
fn a_message_that_is_no_task_is_refused() {
    refused("{}", "[[],{},{}]", "headers.task is missing");
    refused(r#"{"task": "t"}"#, "[[],{},{}]", "headers.id is missing");
    refused(r#"{"task": "t", "id": 1}"#, "[[],{},{}]", "headers.id is not a string");
    for body in ["{}", "[]", "[[],{}]", "[{},[],{}]", "[[],{},{},{}]", "[[],{},[]]"] {
        refused(r#"{"task": "t", "id": "i"}"#, body, "the message body is not [args, kwargs, embed]");
    }
    refused(r#"{"task": "t", "id": "i"}"#, "[", "the message body is not valid JSON");
}

#[test]
fn the_limits_hold_for_the_body() {
    let envelope = envelope(r#"{"task": "t", "id": "i"}"#, "[[],{},[]]".replace("[]]", r#"{"a":1}]"#).as_str());
    assert!(Message::decode_within(&envelope, &Limits::default().bytes(15)).is_ok());
    assert!(Message::decode_within(&envelope, &Limits::default().bytes(13)).is_err());
}

proptest! {
    #[test]
    fn messages_survive_a_round_trip(task: String, id: String, value in any_value(), retries: Option<i64>, shadow: Option<String>) {
        let headers = Headers {
            task, id, shadow,
            retries: Some(retries.unwrap_or(0)),
            replaced_task_nesting: Some(0),
            other: Object::new().with("x-other", value.clone()),
            ..Headers::default()
        };
        let embed = Embed { chain: value.clone(), ..Embed::default() };
        let kwargs = Object::new().with("k", value.clone());
        let message = Message { headers, args: vec![value], kwargs, embed };
        prop_assert_eq!(Message::decode(&message.to_envelope(Properties::default())).unwrap(), message);
    }

    #[test]
    fn any_headers_are_read_or_refused(value in any_value(), key in "task|id|retries|timelimit|stamps|stamped_headers|group_index|eta") {
        let fields = Object::new().with("task", "t").with("id", "i").with(key.clone(), value);
        if let Ok(headers) = Headers::from_object(fields.clone()) {
            let sent = headers.to_object();
            prop_assert_eq!(&Headers::from_object(sent.clone()).unwrap().to_object(), &sent);
            prop_assert!(sent.get(&key) == fields.get(&key) || fields.get(&key).unwrap().is_null());
        }
    }
}
