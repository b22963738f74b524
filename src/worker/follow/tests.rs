//! Against what a Celery worker has published for the same messages.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::retry::Retried;
use super::*;
use crate::wire::{BrokerKeys, Envelope, Exception, Limits, Object, Properties, ResultDocument, TimeLimit, time};
use crate::worker::routes::Routes;

/// What is not compared with the others: a task that the worker which recorded these does not know, and chords.
const OTHERWISE: [&str; 3] = ["link-unknown", "link-chord", "chain-chord"];

struct Case {
    incoming: Envelope,
    message: Message,
    published: Vec<Value>,
    results: Vec<ResultDocument>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/celery-5.7/follow")
}

fn names() -> Vec<String> {
    let files = std::fs::read_dir(directory()).unwrap().map(|file| file.unwrap().path());
    let mut names: Vec<String> = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn case(name: &str) -> Case {
    let recorded = Value::parse(&std::fs::read(directory().join(format!("{name}.json"))).unwrap()).unwrap();
    let field = |name: &str| recorded.get(name).unwrap();
    let list = |name: &str| field(name).as_array().unwrap();
    let incoming = Envelope::decode(field("incoming").to_json().as_bytes()).unwrap();
    let published = list("published").iter().map(|sent| sent.get("message").unwrap().clone()).collect();
    let document = |document: &Value| ResultDocument::decode(document.to_json().as_bytes()).unwrap();
    let results = list("results").iter().map(document).collect();
    Case { message: Message::decode(&incoming).unwrap(), incoming, published, results }
}

/// A worker with the settings of the one that recorded, and its names.
fn worker() -> (String, String, Routes, Defaults) {
    let link = Envelope::decode(case("link").published[0].to_json().as_bytes()).unwrap();
    let origin = link.headers.get("origin").unwrap().as_str().unwrap().to_owned();
    let routes = [("backend.tasks.run_crew_task".to_owned(), "crew_jobs".to_owned())];
    let (priority, time_limit, ignore_result) = (5, TimeLimit::seconds(3600, 3000), Some(false));
    let defaults = Defaults { priority, time_limit, ignore_result };
    (origin, link.properties.reply_to.unwrap(), Routes::new(routes, "default"), defaults)
}

fn counter() -> impl FnMut() -> String {
    let mut last = 0;
    move || {
        last += 1;
        format!("{last:08}-0000-4000-8000-000000000000")
    }
}

fn now(case: &Case) -> Timestamp {
    case.results[0].done_at().unwrap_or_else(|| {
        let eta = case.published[0].get("headers").unwrap().get("eta").unwrap().as_str().unwrap();
        time::parse(eta).unwrap() - jiff::SignedDuration::from_secs(60)
    })
}

/// The envelopes by their lists, as they were recorded.
fn sorted(mut messages: Vec<Envelope>) -> Vec<Value> {
    let keys = BrokerKeys::default();
    let queue = |key: &str| if key == "crew.jobs" { "crew_jobs".to_owned() } else { key.to_owned() };
    let list =
        |sent: &Envelope| keys.queue(&queue(&sent.properties.delivery_info.routing_key), sent.properties.priority);
    messages.sort_by_key(list);
    messages.iter().map(|sent| Value::parse(&sent.encode()).unwrap()).collect()
}

/// Decodes the body, numbers ids that are not in `known`, and rounds times to seconds from `now`.
struct Normal<'a> {
    known: &'a str,
    ids: HashMap<String, String>,
    now: Timestamp,
}

impl Normal<'_> {
    fn message(&mut self, envelope: &Value) -> Value {
        let decoded = Envelope::decode(envelope.to_json().as_bytes()).unwrap();
        let mut fields = envelope.as_object().unwrap().clone();
        fields.insert("body", decoded.body_json(&Limits::default()).unwrap());
        self.value("", &fields.into())
    }

    fn value(&mut self, key: &str, value: &Value) -> Value {
        match value {
            Value::Array(elements) => Value::Array(elements.iter().map(|value| self.value("", value)).collect()),
            Value::Object(members) => {
                // In one order, for the ids to be numbered alike.
                let mut members: Vec<_> = members.iter().collect();
                members.sort_by_key(|(key, _)| *key);
                members.into_iter().map(|(key, value)| (key, self.value(key, value))).collect::<Object>().into()
            }
            Value::String(text) => self.text(key, text).into(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Verbatim(_) => value.clone(),
        }
    }

    fn text(&mut self, key: &str, text: &str) -> String {
        let seconds = |millis: i128| (millis + 500).div_euclid(1000);
        if key == "expiration" {
            return seconds(text.parse().unwrap()).to_string();
        }
        if ["eta", "expires"].contains(&key) {
            let at = time::parse(text).unwrap();
            return format!("in {} s", seconds(at.duration_since(self.now).as_millis()));
        }
        let id = text.len() == 36 && text.matches('-').count() == 4;
        if !id || self.known.contains(text) {
            return text.to_owned();
        }
        let number = self.ids.len();
        self.ids.entry(text.to_owned()).or_insert_with(|| format!("id {number}")).clone()
    }
}

#[track_caller]
fn same(name: &str, case: &Case, ours: (Vec<Envelope>, &Value)) {
    let known = Value::from(case.incoming.headers.clone()).to_json()
        + &case.message.body().to_json()
        + &{
            let (origin, reply_to, ..) = worker();
            origin + &reply_to
        };
    let normal = |messages: &[Value], children: &Value| {
        let mut normal = Normal { known: &known, ids: HashMap::new(), now: now(case) };
        let messages: Vec<Value> = messages.iter().map(|sent| normal.message(sent)).collect();
        (messages, normal.value("", children))
    };
    let children = case.results[0].children.parse(&Limits::default()).unwrap();
    let (ours, theirs) = (normal(&sorted(ours.0), ours.1), normal(&case.published, &children));
    for (ours, theirs) in ours.0.iter().zip(&theirs.0) {
        assert_eq!(ours, theirs, "{name}");
    }
    assert_eq!(ours, theirs, "{name}");
}

#[test]
fn the_messages_that_follow_a_run_equal_celerys_field_by_field() {
    let (origin, reply_to, routes, defaults) = worker();
    let sender = Sender { origin: &origin, reply_to: &reply_to, routes: &routes, defaults: &defaults };
    let mut seen = HashMap::new();
    for name in names().iter().filter(|name| !OTHERWISE.contains(&name.as_str())) {
        let case = case(name);
        let Case { incoming, message, results, .. } = &case;
        assert_eq!(refusal(message), None, "{name}");
        let (messages, children) = match results[0].status.as_str() {
            "SUCCESS" => {
                let Following { messages, children } =
                    after_success(message, &results[0].result, &sender, now(&case), counter()).unwrap();
                (messages, children)
            }
            "FAILURE" => {
                let native = |task: &str| task == "backend.celery_app.error_handler";
                let failed = after_failure(message, &failure(&results[0]), &sender, native, now(&case), counter());
                assert_eq!(failed.in_place.len(), usize::from(name == "link-error-native"), "{name}");
                assert!(failed.refused.is_empty(), "{name}");
                chain_failed(name, &failed.chain, &results[1..]);
                (failed.messages, Value::Array(Vec::new()))
            }
            "RETRY" => {
                let Retried { message, children } =
                    retry(message, &incoming.properties, 60, &sender, now(&case), counter());
                assert_eq!(message.headers.get("expires"), incoming.headers.get("expires"), "{name}");
                (vec![message], children)
            }
            status => panic!("{name}: {status}"),
        };
        let tags: Vec<&str> = messages.iter().map(|sent| sent.properties.delivery_tag.as_str()).collect();
        assert!(!tags.contains(&incoming.properties.delivery_tag.as_str()), "{name}");
        *seen.entry(results[0].status.to_string()).or_insert(0) += 1;
        same(name, &case, (messages, &children));
    }
    assert!(seen["SUCCESS"] > 30 && seen["FAILURE"] > 5 && seen["RETRY"] > 3, "{seen:?}");
}

fn failure(document: &ResultDocument) -> Failure {
    Failure { exception: document.exception().unwrap(), traceback: document.traceback.clone() }
}

#[track_caller]
fn chain_failed(name: &str, ours: &[ResultDocument], theirs: &[ResultDocument]) {
    let fields = |document: &ResultDocument| {
        let undated = ResultDocument { date_done: None, ..document.clone() };
        Value::parse(&undated.encode()).unwrap()
    };
    let (ours, theirs): (Vec<_>, Vec<_>) = (ours.iter().map(fields).collect(), theirs.iter().map(fields).collect());
    assert_eq!(ours, theirs, "{name}");
}

#[test]
fn a_task_that_follows_gets_no_limits_no_priority_and_no_word_on_its_result_as_celery_sends_it() {
    let (origin, reply_to, routes, _) = worker();
    let defaults = Defaults::default();
    let sender = Sender { origin: &origin, reply_to: &reply_to, routes: &routes, defaults: &defaults };
    let case = case("link-unknown");
    let Following { messages, children } =
        after_success(&case.message, &case.results[0].result, &sender, now(&case), counter()).unwrap();
    let headers = &messages[0].headers;
    assert_eq!(headers.get("timelimit"), Some(&vec![Value::Null, Value::Null].into()));
    assert_eq!((headers.get("ignore_result"), messages[0].properties.priority), (Some(&Value::Null), Some(0)));
    same("link-unknown", &case, (messages, &children));
}

#[test]
fn an_attempt_leaves_it_to_the_task_whether_its_result_is_ignored_unless_the_message_says_so() {
    let (routes, defaults) = (Routes::new([], "default"), Defaults::default());
    let sender = Sender { origin: "o", reply_to: "r", routes: &routes, defaults: &defaults };
    for said in [None, Some(false), Some(true)] {
        let mut message = message("{}");
        message.headers.ignore_result = said;
        let again = retry(&message, &Properties::default(), 0, &sender, Timestamp::UNIX_EPOCH, counter()).message;
        assert_eq!(Message::decode(&again).unwrap().headers.ignore_result, said);
    }
}

/// A task with these in its body.
fn message(embed: &str) -> Message {
    let body = format!("[[], {{}}, {embed}]");
    let headers = Object::new().with("task", "t").with("id", "failed-id");
    Message::decode(&Envelope::new(headers, &body, Properties::default())).unwrap()
}

fn following(embed: &str, result: &str) -> Result<Following, String> {
    let (routes, defaults) = (Routes::new([], "default"), Defaults::default());
    let sender = Sender { origin: "o", reply_to: "r", routes: &routes, defaults: &defaults };
    let result = RawJson::new(result).unwrap();
    after_success(&message(embed), &result, &sender, Timestamp::UNIX_EPOCH, counter())
        .map_err(|failure| failure.exception.message())
}

#[test]
fn what_follows_a_traced_task_and_its_next_attempt_name_the_same_span_unless_a_signature_names_another() {
    let ours = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let theirs = ours.replace("-01", "-00");
    let embed = format!(
        r#"{{"callbacks": [{{"task": "a"}}, {{"task": "b", "options": {{"headers": {{"traceparent": "{theirs}"}}}}}}],
            "chain": [{{"task": "c"}}]}}"#
    );
    let mut message = message(&embed);
    message.headers.other = Object::new().with("traceparent", ours).with("tracestate", "a=b").with("tenant", "x");
    let (routes, defaults) = (Routes::new([], "default"), Defaults::default());
    let sender = Sender { origin: "o", reply_to: "r", routes: &routes, defaults: &defaults };
    let result = RawJson::new("1").unwrap();
    let sent = after_success(&message, &result, &sender, Timestamp::UNIX_EPOCH, counter()).unwrap().messages;
    let mut named: Vec<_> = sent
        .iter()
        .map(|sent| {
            let text = |name| sent.headers.get(name).and_then(Value::as_str).unwrap_or("none").to_owned();
            (text("task"), text("traceparent"), text("tracestate"), text("tenant"))
        })
        .collect();
    named.sort();
    let expected = [("a", ours, "a=b", "none"), ("b", &theirs, "none", "none"), ("c", ours, "a=b", "none")];
    assert_eq!(named, expected.map(|(a, b, c, d)| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned())));
    let again = retry(&message, &Properties::default(), 0, &sender, Timestamp::UNIX_EPOCH, counter()).message;
    assert_eq!(again.headers.get("traceparent"), Some(&ours.into()));
}

#[test]
fn a_task_that_a_chord_follows_is_refused_before_it_is_run_and_a_part_of_a_chord_is_not() {
    for message in [case("link-chord").message, case("chain-chord").message] {
        let Exception { exc_type, exc_message, exc_module } = refusal(&message).unwrap().exception;
        assert_eq!((exc_type.as_str(), exc_module.as_deref()), ("NotImplementedError", Some("builtins")));
        assert_eq!(exc_message, ["this worker does not take part in the sending of chords".into()]);
    }
    let chord = r#"{"task": "celery.chord", "subtask_type": "chord", "kwargs": {}}"#;
    assert_eq!(refusal(&message(&format!(r#"{{"chain": [{chord}, {{"task": "next"}}]}}"#))), None);
    assert_eq!(refusal(&message(r#"{"chord": {"task": "body", "options": {}}}"#)), None);
}

#[test]
fn the_last_step_of_a_chain_takes_its_chord_along() {
    let step = r#"{"task": "last", "options": {"chord": {"task": "body"}, "group_id": "g", "group_index": 1}}"#;
    let sent = following(&format!(r#"{{"chain": [{step}]}}"#), "1").unwrap().messages.remove(0);
    let sent = Message::decode(&sent).unwrap();
    assert_eq!(sent.embed.chord, Value::parse(br#"{"task": "body"}"#).unwrap());
    assert_eq!((sent.headers.group.as_deref(), sent.headers.group_index), (Some("g"), Some(1)));
}

#[test]
fn a_signature_that_cannot_be_sent_is_refused_and_then_nothing_is_sent() {
    let group = r#"{"task": "g", "subtask_type": "group", "kwargs": {"tasks": [{"task": "a"}, {"task": "b"}]}}"#;
    let chain = |tasks: &str| {
        format!(r#"{{"callbacks": [{{"task": "c", "subtask_type": "chain", "kwargs": {{"tasks": [{tasks}]}}}}]}}"#)
    };
    for embed in [
        r#"{"callbacks": [{"task": "m", "subtask_type": "xmap"}]}"#.to_owned(),
        r#"{"callbacks": [{"task": "g", "subtask_type": "group", "kwargs": {}}]}"#.to_owned(),
        r#"{"callbacks": [{"task": "g", "subtask_type": "group", "kwargs": {"tasks": []}, "options": {"link": []}}]}"#
            .to_owned(),
        r#"{"callbacks": [{"args": []}]}"#.to_owned(),
        r#"{"callbacks": ["text"]}"#.to_owned(),
        chain(&format!(r#"{group}, {{"task": "a"}}"#)),
    ] {
        assert!(refusal(&message(&embed)).is_some(), "{embed}");
        assert!(following(&embed, "1").is_err(), "{embed}");
    }
    for option in [r#""countdown": 1e300"#, r#""eta": 7"#, r#""expires": "soon""#, r#""task_id": 7"#] {
        let embed = format!(r#"{{"callbacks": [{{"task": "a"}}, {{"task": "b", "options": {{{option}}}}}]}}"#);
        assert!(following(&embed, "1").is_err(), "{embed}");
    }
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    assert_eq!(following("{}", &deep).unwrap().messages, []);
}

#[test]
fn a_result_of_any_depth_and_any_number_of_values_is_passed_on_as_it_is() {
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    let many = format!("[{}]", vec!["0.50"; 300_000].join(","));
    for result in [deep, many] {
        let sent = following(r#"{"callbacks": [{"task": "a"}]}"#, &result).unwrap().messages;
        assert!(Message::decode(&sent[0]).unwrap().args[0].to_json() == result);
    }
}

#[test]
fn a_result_that_makes_the_next_message_too_large_to_run_is_a_failure_and_nothing_is_sent() {
    let large = format!("\"{}\"", "x".repeat(40 << 20));
    let embed = |bytes: usize| format!(r#"{{"chain": [{{"task": "next", "args": ["{}"]}}]}}"#, "y".repeat(bytes));
    assert!(following(&embed(1), &large).is_ok());
    let failure = following(&embed(14 << 20), &large).unwrap_err();
    assert!(failure.contains("the message to next would have more than"), "{failure}");
}

#[test]
fn no_message_follows_an_empty_group_or_chain() {
    let empty = r#"{"task": "g", "subtask_type": "group", "kwargs": {"tasks": []}}"#;
    let chain = format!(r#"{{"task": "c", "subtask_type": "chain", "kwargs": {{"tasks": [{empty}]}}}}"#);
    for callbacks in ["[]", "null", "7", &format!("[{empty}]"), &format!("[{chain}]"), &format!("[{empty}, {chain}]")] {
        let following = following(&format!(r#"{{"callbacks": {callbacks}, "chain": []}}"#), "1").unwrap();
        assert!(following.messages.is_empty(), "{callbacks}");
    }
}

#[test]
fn a_countdown_of_zero_is_no_eta_and_an_expiry_in_the_past_expires_at_once() {
    let embed = r#"{"callbacks": [{"task": "a", "options": {"countdown": 0, "expires": -5}}]}"#;
    let sent = following(embed, "1").unwrap().messages.remove(0);
    assert_eq!(sent.headers.get("eta"), Some(&Value::Null));
    assert_eq!(sent.headers.get("expires"), Some(&"1969-12-31T23:59:55+00:00".into()));
    assert_eq!(sent.properties.expiration.as_deref(), Some("0"));

    let (routes, defaults) = (Routes::new([], "default"), Defaults::default());
    let sender = Sender { origin: "o", reply_to: "r", routes: &routes, defaults: &defaults };
    let again = retry(&message("{}"), &Properties::default(), 0, &sender, Timestamp::UNIX_EPOCH, counter()).message;
    assert_eq!(again.headers.get("eta"), Some(&Value::Null));
    assert_eq!((again.properties.priority, again.headers.get("retries")), (Some(0), Some(&1.into())));
}

#[test]
fn an_errback_that_cannot_be_sent_is_told_and_keeps_no_other_back() {
    let (routes, defaults) = (Routes::new([], "default"), Defaults::default());
    let sender = Sender { origin: "o", reply_to: "r", routes: &routes, defaults: &defaults };
    let message = message(r#"{"errbacks": [{"task": "m", "subtask_type": "chord"}, {"task": "a"}]}"#);
    let failure = Failure::new("builtins", "ValueError", "x");
    let failed = after_failure(&message, &failure, &sender, |_| false, Timestamp::UNIX_EPOCH, counter());
    assert_eq!((failed.messages.len(), failed.refused.len()), (1, 1));
    let sent = Message::decode(&failed.messages[0]).unwrap();
    assert_eq!((sent.args, sent.headers.group_index), (vec!["failed-id".into()], Some(0)));
}

#[test]
fn the_body_of_a_chord_in_a_failed_chain_fails_too() {
    let body = r#"{"task": "body", "options": {"task_id": "b"}}"#;
    let kwargs = format!(r#"{{"body": {body}}}"#);
    let chord =
        format!(r#"{{"task": "c", "subtask_type": "chord", "kwargs": {kwargs}, "options": {{"task_id": "c"}}}}"#);
    let message = message(&format!(r#"{{"chain": [{{"task": "unnamed"}}, {chord}]}}"#));
    let (routes, defaults) = (Routes::new([], "default"), Defaults::default());
    let sender = Sender { origin: "o", reply_to: "r", routes: &routes, defaults: &defaults };
    let failure = Failure::new("builtins", "ValueError", "x");
    let failed = after_failure(&message, &failure, &sender, |_| false, Timestamp::UNIX_EPOCH, counter());
    let ids: Vec<&str> = failed.chain.iter().map(|document| document.task_id.as_str()).collect();
    assert_eq!(ids, ["c", "b"]);
}

#[test]
fn a_task_with_odd_headers_is_tried_again_as_often_as_any_other() {
    let mut odd = message("{}");
    odd.headers.other = Object::new().with("retries", "many").with("eta", 7).with("tenant", "a");
    odd.headers.retries = None;
    let (routes, defaults) = (Routes::new([], "default"), Defaults::default());
    let sender = Sender { origin: "o", reply_to: "r", routes: &routes, defaults: &defaults };
    let again = retry(&odd, &Properties::default(), 60, &sender, Timestamp::UNIX_EPOCH, counter());
    let headers = Message::decode(&again.message).unwrap().headers;
    assert_eq!((headers.retries, headers.eta.as_deref()), (Some(1), Some("1970-01-01T00:01:00+00:00")));
    assert_eq!(headers.other.get("tenant").and_then(Value::as_str), Some("a"));
}

#[test]
fn a_message_that_follows_a_run_can_be_decoded_whatever_its_signature_would_set() {
    let embed = r#"{"callbacks": [{"task": "a", "options": {"task_id": "next", "body_encoding": "base32", "delivery_tag": 7,
        "delivery_info": 7, "headers": {"id": 7, "task": null, "tenant": "a"}}}]}"#;
    let sent = following(embed, "1").unwrap().messages.remove(0);
    let message = Message::decode(&Envelope::decode(&sent.encode()).unwrap()).unwrap();
    assert_eq!((message.headers.task.as_str(), message.headers.id.as_str()), ("a", "next"));
    assert_eq!(message.headers.other.get("tenant").and_then(Value::as_str), Some("a"));
}
