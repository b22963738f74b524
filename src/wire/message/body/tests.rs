use super::*;
use crate::wire::{Envelope, Message, Properties};

fn envelope(headers: &str, body: &str) -> Envelope {
    let headers = Value::parse(headers.as_bytes()).unwrap().into_object("headers").unwrap();
    Envelope::new(headers, body, Properties::default())
}

const HEADERS: &str = r#"{"task": "t", "id": "i"}"#;

#[track_caller]
fn decoded(headers: &str, body: &str) -> Message {
    Message::decode(&envelope(headers, body)).unwrap()
}

/// As Celery sends it for `task_protocol = 1`.
const PROTOCOL_1: &str = r#"{"task": "t", "id": "i", "args": [1, "two"], "kwargs": {"a": null}, "group": "g", "group_index": 2,
    "retries": 3, "eta": "2026-11-22T13:39:46.319080+00:00", "expires": null, "utc": true,
    "callbacks": [{"task": "next", "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false}],
    "errbacks": null, "timelimit": [60, 50], "taskset": "g", "chord": null}"#;

#[test]
fn a_message_of_protocol_1_is_read_as_celery_reads_it() {
    let message = decoded("{}", PROTOCOL_1);
    let headers = &message.headers;
    assert_eq!((headers.task.as_str(), headers.id.as_str(), headers.retries), ("t", "i", Some(3)));
    assert_eq!((headers.group.as_deref(), headers.group_index), (Some("g"), Some(2)));
    assert_eq!((headers.eta_at().is_some(), headers.expires_at()), (true, None));
    assert_eq!(headers.timelimit, crate::wire::TimeLimit::seconds(60, 50));
    assert_eq!((headers.argsrepr.as_deref(), headers.kwargsrepr.as_deref()), (Some("[1, 'two']"), Some("{'a': None}")));
    assert_eq!(headers.other, Object::new(), "nothing is left over");
    assert_eq!((message.args, message.kwargs), (vec![1.into(), "two".into()], Object::new().with("a", Value::Null)));
    assert_eq!(message.embed.callbacks.as_array().map(<[_]>::len), Some(1));
    // What a client in Go sends; a redelivered message has a header all the same.
    let go = r#"{"id": "i", "task": "t", "args": [1], "kwargs": null, "retries": 0, "eta": null, "expires": null}"#;
    let message = decoded(r#"{"redelivered": true}"#, go);
    assert_eq!((message.headers.id.as_str(), message.args.len(), message.kwargs.len()), ("i", 1, 0));
}

#[test]
fn a_message_of_both_protocols_has_the_headers_of_its_envelope() {
    let message = decoded(r#"{"task": "t", "id": "outer", "retries": 1, "root_id": "r"}"#, PROTOCOL_1);
    let headers = &message.headers;
    assert_eq!((headers.id.as_str(), headers.retries, headers.root_id.as_deref()), ("outer", Some(1), Some("r")));
    assert_eq!((message.args.len(), message.kwargs.len()), (2, 1));
}

#[test]
fn arguments_of_any_number_and_depth_of_values_are_handed_on_as_they_are() {
    let matrix = format!("[{}]", vec!["[0.5, 1e3, -0]"; 100_000].join(", "));
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let records = format!("[{}]", vec![r#"{"caf\udce9": 1, "b": {}}"#; 100_000].join(",\n"));
    for large in [matrix, deep, records] {
        let signature =
            format!(r#"{{"task": "s", "args": [{large}], "kwargs": {{"k": {large}}}, "options": {{"task_id": "2"}}}}"#);
        let group = format!(
            r#"{{"task": "celery.group", "args": [], "kwargs": {{"tasks": [{signature}]}}, "subtask_type": "group"}}"#
        );
        let body = format!(
            r#"[[1, {large}, {{"few": [1]}}], {{"k": {large}, "l": 2}}, {{"callbacks": [{group}], "chain": [{signature}]}}]"#
        );
        let message = decoded(HEADERS, &body);
        let text = large.replace('\n', " ");
        let as_it_came = |value: Option<&Value>| value.unwrap().to_json() == text;
        assert!(as_it_came(message.args.get(1)) && as_it_came(message.kwargs.get("k")));
        assert_eq!(message.args[2].get("few"), Some(&vec![1].into()), "the others are taken apart");
        let step = &message.embed.chain.as_array().unwrap()[0];
        let within = message.embed.callbacks.as_array().unwrap()[0].get("kwargs").unwrap().get("tasks").unwrap();
        for signature in [step, &within.as_array().unwrap()[0]] {
            assert!(as_it_came(Some(&signature.get("args").unwrap().as_array().unwrap()[0])));
            assert!(as_it_came(signature.get("kwargs").unwrap().get("k")));
            assert_eq!(signature.get("options").unwrap().get("task_id").and_then(Value::as_str), Some("2"));
        }
        // And sent on.
        let again = Message::decode(&message.to_envelope(Properties::default())).unwrap();
        assert!((again.args, again.kwargs, again.embed) == (message.args, message.kwargs, message.embed));
        let protocol_1 = format!(r#"{{"task": "t", "id": "i", "args": [{large}], "kwargs": {{}}, "retries": 0}}"#);
        assert!(as_it_came(decoded("{}", &protocol_1).args.first()));
    }
}

#[test]
fn what_follows_a_task_is_bounded_and_so_is_the_number_of_its_arguments() {
    let many = format!("[{}]", vec!["0"; 250_001].join(","));
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    for (body, why) in [
        (format!("[{many}, {{}}, {{}}]"), "more than 250000 values"),
        (format!(r#"[[], {{}}, {{"callbacks": {many}}}]"#), "more than 250000 values"),
        (format!(r#"[[], {{}}, {{"chain": {deep}}}]"#), "nested deeper than"),
    ] {
        let error = Message::decode(&envelope(HEADERS, &body)).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(why), "{source}");
    }
}

#[test]
fn a_body_that_says_null_for_its_arguments_has_none() {
    let message = decoded(HEADERS, "[null, null, null]");
    assert_eq!((message.args.len(), message.kwargs.len()), (0, 0));
}
