use proptest::prelude::*;

use super::*;

/// As Celery 5.7 sent it.
const SENT: &str = r#"{"body": "W1siam9iLTEiXSwge30sIHsiY2FsbGJhY2tzIjogbnVsbH1d", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"lang": "py", "task": "backend.tasks.run_crew_task", "id": "45495316", "eta": null, "retries": 2}, "properties": {"correlation_id": "45495316", "reply_to": "7d6aa047", "delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": "crew_jobs"}, "priority": 5, "body_encoding": "base64", "delivery_tag": "6849b978"}}"#;

fn sent() -> Envelope {
    Envelope::decode(SENT.as_bytes()).unwrap()
}

fn value(bytes: &[u8]) -> Value {
    Value::parse(bytes).unwrap()
}

#[track_caller]
fn refused(text: &str, error: &str) {
    assert_eq!(Envelope::decode(text.as_bytes()).unwrap_err().to_string(), error);
}

#[test]
fn no_field_is_lost_or_added() {
    assert_eq!(value(&sent().encode()), value(SENT.as_bytes()));
}

#[test]
fn unknown_fields_and_fields_of_unknown_types_survive() {
    let text = r#"{"body":"","content-type":7,"x":[1],"headers":{"y":NaN},"properties":{"delivery_tag":"t","reply_to":null,"app_id":"a","delivery_info":{"exchange":"e","routing_key":"k","redelivered":"?","z":{}}}}"#;
    assert_eq!(value(&Envelope::decode(text.as_bytes()).unwrap().encode()), value(text.as_bytes()));
}

#[test]
fn the_minimal_envelope_that_a_worker_accepts_is_accepted() {
    let text = r#"{"body":"W1tdLHt9LHt9XQ==","content-encoding":"utf-8","content-type":"application/json","headers":{"task":"backend.tasks.health_check","id":"minimal"},"properties":{"delivery_tag":"dt3","delivery_info":{"exchange":"","routing_key":"default"},"body_encoding":"base64"}}"#;
    let envelope = Envelope::decode(text.as_bytes()).unwrap();
    assert_eq!(envelope.body_bytes().unwrap().as_ref(), b"[[],{},{}]");
    assert_eq!(value(&envelope.encode()), value(text.as_bytes()));
}

#[test]
fn a_missing_delivery_info_is_completed_because_consumers_need_it() {
    let envelope = Envelope::decode(br#"{"body":"","properties":{"delivery_tag":"t"}}"#).unwrap();
    let info = value(&envelope.encode()).get("properties").unwrap().get("delivery_info").cloned();
    assert_eq!(info, Some(value(br#"{"exchange":"","routing_key":""}"#)));
}

#[test]
fn an_envelope_that_no_worker_could_deliver_is_refused() {
    refused("nonsense", "the message is not valid JSON");
    refused("[]", "the message is not an object");
    refused("{}", "body is missing");
    refused(r#"{"body": {}}"#, "body is not a string");
    refused(r#"{"body": ""}"#, "properties is missing");
    refused(r#"{"body": "", "properties": {}}"#, "properties.delivery_tag is missing");
    refused(r#"{"body": "", "properties": {"delivery_tag": 1}}"#, "properties.delivery_tag is not a string");
    refused(r#"{"body": "", "headers": [], "properties": {"delivery_tag": ""}}"#, "headers is not an object");
}

#[test]
fn bodies_are_base64_or_plain_text() {
    let mut envelope = sent();
    assert!(envelope.body_bytes().unwrap().starts_with(b"[[\"job-1\"]"));
    envelope.body = "YQ".to_owned();
    assert_eq!(envelope.body_bytes().unwrap().as_ref(), b"a", "without padding");
    envelope.body = "?".to_owned();
    assert_eq!(envelope.body_bytes().unwrap_err().to_string(), "the body is not valid base64");
    envelope.properties.body_encoding = None;
    assert_eq!(envelope.body_bytes().unwrap().as_ref(), b"?");
    envelope.properties.body_encoding = Some("rot13".to_owned());
    assert!(envelope.body_bytes().is_err());
    envelope.content_type = Some("application/x-python-serialize".to_owned());
    assert!(envelope.body_json(&Limits::default()).is_err());
}

#[test]
fn priorities_are_read_as_kombu_reads_them() {
    for (text, priority) in [
        ("5", Some(5)),
        ("\"7\"", Some(7)),
        ("4.9", Some(4)),
        ("true", Some(1)),
        ("-3", Some(-3)),
        ("null", None),
        ("[]", None),
        ("NaN", None),
    ] {
        let text = format!(r#"{{"body":"","properties":{{"delivery_tag":"t","priority":{text}}}}}"#);
        assert_eq!(Envelope::decode(text.as_bytes()).unwrap().properties.priority, priority, "{text}");
        assert_eq!(peek(text.as_bytes()).unwrap().priority, priority, "{text}");
    }
}

#[test]
fn a_message_put_back_is_marked_twice_and_keeps_its_tag() {
    let back = sent().redelivered();
    assert_eq!(back.headers.get("redelivered"), Some(&Value::Bool(true)));
    assert_eq!(back.properties.delivery_info.redelivered, Some(true));
    assert_eq!(back.properties.delivery_tag, "6849b978");
    assert_eq!(back.clone().redelivered(), back);
}

#[test]
fn unacked_entries_are_read_and_written() {
    let text = format!(r#"[{SENT}, "crew_jobs", "crew.jobs"]"#);
    let entry = Unacked::decode(text.as_bytes()).unwrap();
    assert_eq!(entry.envelope, sent());
    assert_eq!((entry.exchange.as_str(), entry.routing_key.as_str()), ("crew_jobs", "crew.jobs"));
    assert_eq!(value(&entry.encode()), value(text.as_bytes()));
    for text in ["{}", "[]", "[{}, 1, 2]", r#"[{}, "", "", ""]"#] {
        assert!(Unacked::decode(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn a_peek_reads_the_fields_that_an_audit_needs() {
    let seen = peek(SENT.as_bytes()).unwrap();
    assert_eq!(seen.task_id.as_deref(), Some("45495316"));
    assert_eq!(seen.task_name.as_deref(), Some("backend.tasks.run_crew_task"));
    assert_eq!(seen.delivery_tag.as_deref(), Some("6849b978"));
    assert_eq!((seen.eta, seen.retries, seen.priority, seen.redelivered), (None, Some(2), Some(5), false));
    assert_eq!((&*seen.exchange, &*seen.routing_key), ("", "crew_jobs"));
    assert_eq!(seen.root_id, None);
    let follows = SENT.replace("\"eta\": null", "\"root_id\": \"1d2c\", \"eta\": null");
    assert_eq!(peek(follows.as_bytes()).unwrap().root_id.as_deref(), Some("1d2c"));
}

#[test]
fn a_peek_at_an_unacked_entry_sees_the_way_back() {
    let back = String::from_utf8(sent().redelivered().encode()).unwrap();
    let entry = format!(r#"[{back}, "crew_jobs", "crew.jobs"]"#);
    let seen = peek(entry.as_bytes()).unwrap();
    assert_eq!((&*seen.exchange, &*seen.routing_key), ("crew_jobs", "crew.jobs"));
    assert!(seen.redelivered);
    assert_eq!(peek(b"[{}"), None);
    assert_eq!(peek(b"nonsense"), None);
    assert_eq!(peek(br#"[{}, "", "", ""]"#), None);
}

#[test]
fn a_message_with_bytes_that_are_not_utf8_is_seen_as_kombu_reads_it() {
    let odd = SENT.replace("headers", "odd\": \"\u{1}\", \"headers");
    let bytes: Vec<u8> = odd.bytes().map(|byte| if byte == 1 { 0xff } else { byte }).collect();
    let expected = peek(SENT.as_bytes());
    assert!(std::str::from_utf8(&bytes).is_err() && expected.is_some());
    assert_eq!(peek(&bytes), expected);
}

proptest! {
    #[test]
    fn envelopes_survive_a_round_trip(value in crate::wire::json::tests::any_value(), priority in any::<Option<i64>>(), tag: String, key: String) {
        let headers = Object::new().with("x", value.clone());
        let properties = Properties {
            priority,
            delivery_tag: tag,
            delivery_info: DeliveryInfo::to_queue(key),
            other: Object::new().with("y", value.clone()),
            ..Properties::default()
        };
        let envelope = Envelope::new(headers, &value.to_json(), properties);
        let bytes = envelope.encode();
        prop_assert_eq!(&Envelope::decode(&bytes).unwrap(), &envelope);
        prop_assert_eq!(envelope.body_json(&Limits::default()).unwrap(), value);
        prop_assert_eq!(peek(&bytes).unwrap().delivery_tag.unwrap(), envelope.properties.delivery_tag);
    }
}
