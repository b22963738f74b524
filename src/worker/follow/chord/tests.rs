use super::*;
use crate::wire::{Call, RawJson};
use crate::worker::follow::Defaults;
use crate::worker::routes::Routes;

const GROUP: &str = "the-group";

fn value(text: &str) -> Value {
    Value::parse(text.as_bytes()).unwrap()
}

fn document(id: &str, status: State, result: &str) -> ResultDocument {
    let refused = ResultDocument::decode(br#"{"status": "FAILURE", "result": null, "task_id": ""}"#).unwrap();
    ResultDocument { status, result: RawJson::new(result).unwrap(), task_id: id.to_owned(), ..refused }
}

/// The message of a part, with the rest of its chain.
fn message(chord: &str, chain: &str) -> Message {
    let mut call = Call::new("part", "id-1", "default");
    call.embed.chord = value(chord);
    call.embed.chain = value(chain);
    let mut envelope = call.envelope();
    envelope.headers.insert("group", GROUP);
    envelope.headers.insert("group_index", 2);
    Message::decode(&envelope).unwrap()
}

/// What follows when the parts have ended so.
fn followed(body: &str, records: &[&str], structure: Option<&str>) -> Body {
    let (routes, defaults) = (Routes::new([], "default"), Defaults::default());
    let sender = Sender { origin: "o", reply_to: "r", routes: &routes, defaults: &defaults };
    let parent = Headers { id: "last".to_owned(), root_id: Some("root".to_owned()), ..Headers::default() };
    let is_builtin_errback = |task: &str| task == "native";
    let send = BodySender { parent: &parent, sender: &sender, is_builtin_errback, now: Timestamp::UNIX_EPOCH };
    let records: Vec<Vec<u8>> = records.iter().map(|record| record.as_bytes().to_vec()).collect();
    let mut ids = 0;
    let fresh = || {
        ids += 1;
        format!("fresh-{ids}")
    };
    super::body(&value(body), &records, structure.map(str::as_bytes), &send, fresh)
}

fn failed(body: &Body) -> Vec<(String, String)> {
    let told = |document: &ResultDocument| {
        let exception = document.exception().unwrap();
        (document.task_id.clone(), format!("{}: {}", exception.exc_type, exception.message()))
    };
    body.failed.iter().map(told).collect()
}

#[test]
fn the_end_of_a_part_is_recorded_as_celery_records_it_and_a_retry_is_no_end() {
    let part = message(r#"{"task": "body"}"#, "null");
    let recorded = |status, result: &str| {
        parts(&part, &document("id-1", status, result).encode(), &[]).into_iter().map(|part| part.record).next()
    };
    assert_eq!(recorded(State::Success, "[7, null]").unwrap(), r#"[1, "id-1", "SUCCESS", [7, null]]"#);
    let exception = r#"{"exc_type":"ValueError","exc_message":["no"],"exc_module":"builtins"}"#;
    assert_eq!(recorded(State::Failure, exception).unwrap(), format!(r#"[1, "id-1", "FAILURE", {exception}]"#));
    assert!(recorded(State::Revoked, exception).is_some());
    assert_eq!(recorded(State::Retry, exception), None);
    let [Part { group, task, index, body, .. }] =
        &parts(&part, &document("id-1", State::Success, "1").encode(), &[])[..]
    else {
        panic!("one part")
    };
    assert_eq!((&**group, &**task, &**index, body), (GROUP, "id-1", "2", &value(r#"{"task": "body"}"#)));
    assert_eq!(parts(&message("null", "null"), &document("id-1", State::Success, "1").encode(), &[]), []);
}

#[test]
fn a_part_that_is_a_chain_ends_when_one_of_its_steps_fails() {
    let last =
        r#"{"task": "z", "options": {"task_id": "z-id", "group_id": "g", "group_index": 0, "chord": {"task": "b"}}}"#;
    let first = message("null", &format!(r#"[{last}, {{"task": "y", "options": {{"task_id": "y-id"}}}}]"#));
    let failed = [document("z-id", State::Failure, "{}"), document("y-id", State::Failure, "{}")];
    let own = document("id-1", State::Failure, "{}").encode();
    let ended = parts(&first, &own, &failed);
    assert_eq!(ended.iter().map(|part| (&*part.group, &*part.task)).collect::<Vec<_>>(), [("g", "z-id")]);
    assert_eq!(parts(&first, &document("id-1", State::Success, "1").encode(), &[]), [], "the chain goes on");
}

#[test]
fn the_body_gets_the_results_of_all_parts_in_their_order_and_in_their_shape() {
    let body = r#"{"task": "body", "args": ["own"], "kwargs": {}, "options": {"task_id": "b", "queue": "q"}}"#;
    let records = [r#"[1, "a", "SUCCESS", 1]"#, r#"[1, "b", "SUCCESS", {"x": 2}]"#, r#"[1, "c", "SUCCESS", null]"#];
    let sent = |structure| {
        let followed = followed(body, &records, structure);
        assert_eq!((followed.messages.len(), followed.failed.len()), (1, 0));
        Message::decode(&followed.messages[0]).unwrap()
    };
    let message = sent(None);
    assert_eq!(message.args, [value(r#"[1, {"x": 2}, null]"#), "own".into()]);
    assert_eq!((&*message.headers.id, message.headers.root_id.as_deref()), ("b", Some("root")));
    assert_eq!(message.headers.parent_id.as_deref(), Some("last"));
    let nested = r#"{"result": [["g", null], [[["b", null], null], [["h", null], [[["c", null], null], [["a", null], null]]]]]}"#;
    assert_eq!(sent(Some(nested)).args[0], value(r#"[{"x": 2}, [null, 1]]"#));
    let immutable = body.replace("\"options\"", "\"immutable\": true, \"options\"");
    assert_eq!(Message::decode(&followed(&immutable, &records, None).messages[0]).unwrap().args, ["own".into()]);
}

#[test]
fn the_body_fails_with_what_comes_after_it_when_a_part_has_failed() {
    let body = r#"{"task": "body", "options": {"task_id": "b", "chain": [{"task": "after", "options": {"task_id": "c"}}],
        "link_error": [{"task": "theirs"}, {"task": "native"}]}}"#;
    let records = [
        r#"[1, "a", "SUCCESS", 1]"#,
        r#"[1, "x", "FAILURE", {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}]"#,
    ];
    let followed = followed(body, &records, None);
    let why = "ChordError: Dependency x raised ValueError('no')".to_owned();
    assert_eq!(failed(&followed), [("b".to_owned(), why.clone()), ("c".to_owned(), why)]);
    let errback = Message::decode(&followed.messages[0]).unwrap();
    assert_eq!((&*errback.headers.task, errback.args), ("theirs", vec!["b".into()]));
    assert_eq!(followed.in_place[0].0.task, "native");
}

#[test]
fn each_task_of_a_body_that_is_a_group_fails_as_the_part_did() {
    let tasks = r#"[{"task": "t", "options": {"task_id": "one"}}, {"task": "t", "options": {"task_id": "two"}}]"#;
    let body = format!(
        r#"{{"task": "celery.group", "subtask_type": "group", "kwargs": {{"tasks": {tasks}}}, "options": {{}}}}"#
    );
    let record = r#"[1, "x", "REVOKED", {"exc_type": "TaskRevokedError", "exc_message": ["revoked"]}]"#;
    let mut told = failed(&followed(&body, &[record], None));
    told.sort();
    let why = "TaskRevokedError: revoked".to_owned();
    assert_eq!(told, [("one".to_owned(), why.clone()), ("two".to_owned(), why)]);
}

#[test]
fn a_body_that_cannot_be_sent_or_records_that_cannot_be_read_are_a_failure_of_the_body() {
    let chord = r#"{"task": "celery.chord", "subtask_type": "chord", "kwargs": {}, "options": {"task_id": "b"}}"#;
    let told = failed(&followed(chord, &[r#"[1, "a", "SUCCESS", 1]"#], None));
    assert!(told[0].1.starts_with("ChordError: Callback error: "), "{told:?}");
    let body = r#"{"task": "body", "options": {"task_id": "b"}}"#;
    for (records, structure) in
        [("junk", None), ("[1, 2]", None), (r#"[1, "a", "SUCCESS", 1]"#, Some(r#"{"result": 7}"#))]
    {
        let told = failed(&followed(body, &[records], structure));
        assert!(told[0].1.starts_with("ChordError: Join error: "), "{told:?}");
    }
}
