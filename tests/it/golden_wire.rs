//! The codec against bytes recorded from real Celery.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say where")]

mod damaged;

use std::collections::BTreeMap;
use std::path::Path;

use crewjob::wire::envelope::peek;
use crewjob::wire::event::Detail;
use crewjob::wire::pidbox::{Reply, Request, ReturnAddress, TaskInfo, WorkerConf, WorkerStats};
use crewjob::wire::{
    Bands, BrokerKeys, Call, Embed, Envelope, Event, Limits, Message, Object, ResultDocument, Signature, State,
    TimeLimit, Unacked, Value, priority, python,
};

const LIMITS: Limits = Limits { bytes: 16 << 20, depth: 128, values: 250_000 };

struct Golden {
    name: String,
    kind: String,
    source: String,
    bytes: Vec<u8>,
}

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/celery-5.7")
}

fn golden(file: &str) -> Vec<u8> {
    std::fs::read(directory().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn goldens() -> Vec<Golden> {
    let index = json(&golden("index.json"));
    let text = |case: &Value, key| case.get(key).and_then(Value::as_str).unwrap().to_owned();
    let cases = index.get("cases").and_then(Value::as_array).unwrap();
    cases
        .iter()
        .map(|case| {
            let name = text(case, "file");
            Golden { bytes: golden(&name), kind: text(case, "kind"), source: text(case, "source"), name }
        })
        .collect()
}

fn json(bytes: &[u8]) -> Value {
    Value::parse(bytes).unwrap()
}

fn envelope(name: &str) -> Envelope {
    Envelope::decode(&golden(&format!("envelope/{name}.json"))).unwrap()
}

fn message(name: &str) -> Message {
    Message::decode(&envelope(name)).unwrap()
}

fn result(name: &str) -> ResultDocument {
    ResultDocument::decode(&golden(&format!("result/{name}.json"))).unwrap()
}

fn event(name: &str) -> Event {
    Event::decode(&golden(&format!("event/{name}.json"))).unwrap().remove(0)
}

fn reply(name: &str) -> (String, Value) {
    let reply = Reply::decode(&golden(&format!("pidbox-reply/{name}.json"))).unwrap();
    reply.nodes.into_iter().next().unwrap()
}

#[test]
fn every_recording_is_read_and_written_without_losing_a_field() {
    let mut counts = BTreeMap::new();
    for Golden { name, kind, source, bytes } in goldens() {
        match kind.as_str() {
            "envelope" => check_envelope(&name, &source, &bytes),
            "unacked" => check_unacked(&name, &bytes),
            "result" => check_result(&name, &source, &bytes),
            "event" => check_events(&name, &source, &bytes),
            "pidbox-request" => check_request(&name, &bytes),
            "pidbox-reply" => check_reply(&name, &bytes),
            "binding" => assert_eq!(bytes.windows(2).filter(|pair| pair == b"\x06\x16").count(), 2, "{name}"),
            _ => panic!("{name} is of the unknown kind {kind}"),
        }
        *counts.entry(kind).or_insert(0) += 1;
    }
    println!("{counts:?}");
    assert_eq!(counts.len(), 7, "{counts:?}");
}

fn check_envelope(name: &str, source: &str, bytes: &[u8]) {
    let envelope = Envelope::decode(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(json(&envelope.encode()), json(bytes), "{name}");
    assert_eq!(Envelope::decode(&envelope.encode()).as_ref(), Ok(&envelope), "{name}");

    let message = Message::decode(&envelope).unwrap_or_else(|error| panic!("{name}: {error}"));
    let again = message.to_envelope(envelope.properties.clone());
    assert_eq!(again.headers, envelope.headers, "{name}");
    assert_eq!(again.body_json(&LIMITS).unwrap(), envelope.body_json(&LIMITS).unwrap(), "{name}");
    assert_eq!(Message::decode(&again).unwrap(), message, "{name}");
    assert_eq!(envelope.properties.correlation_id.as_ref(), Some(&message.headers.id), "{name}");
    assert_eq!(message.headers.eta_at().is_some(), message.headers.eta.is_some(), "{name}");
    assert_eq!(message.headers.expires_at().is_some(), message.headers.expires.is_some(), "{name}");

    let seen = peek(bytes).unwrap();
    assert_eq!(seen.task_id.as_deref(), Some(&*message.headers.id), "{name}");
    assert_eq!(seen.task_name.as_deref(), Some(&*message.headers.task), "{name}");
    assert_eq!(seen.delivery_tag.as_deref(), Some(&*envelope.properties.delivery_tag), "{name}");
    assert_eq!(seen.eta.as_deref(), message.headers.eta.as_deref(), "{name}");
    assert_eq!(seen.redelivered, name.contains("restored"), "{name}");
    let queue = if name.contains("named-exchange") { "crew_jobs" } else { &seen.routing_key };
    assert_eq!(Bands::default().key(queue, seen.priority), source, "{name}");
}

fn check_unacked(name: &str, bytes: &[u8]) {
    let entry = Unacked::decode(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(json(&entry.encode()), json(bytes), "{name}");
    let seen = peek(bytes).unwrap();
    assert_eq!((&*seen.exchange, &*seen.routing_key), (entry.exchange.as_str(), entry.routing_key.as_str()), "{name}");
    assert_eq!(seen.delivery_tag.as_deref(), Some(&*entry.envelope.properties.delivery_tag), "{name}");
    Message::decode(&entry.envelope).unwrap_or_else(|error| panic!("{name}: {error}"));
}

fn check_result(name: &str, source: &str, bytes: &[u8]) {
    let document = ResultDocument::decode(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(json(&document.encode()), json(bytes), "{name}");
    assert_eq!(ResultDocument::decode(&document.encode()).as_ref(), Ok(&document), "{name}");
    assert_eq!(source, format!("celery-task-meta-{}", document.task_id), "{name}");
    assert_eq!(document.done_at().is_some(), document.date_done.is_some(), "{name}");
    assert!(!matches!(document.status, State::Custom(_)) || name.contains("progress"), "{name}");
    let has_exception = name.contains("failure") || name.contains("revoked") || name.contains("retry");
    assert_eq!(document.exception().is_some(), has_exception, "{name}");
    assert_eq!(document.is_full_form(), !name.contains("short"), "{name}");
}

fn check_events(name: &str, source: &str, bytes: &[u8]) {
    let events = Event::decode(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    let envelope = Envelope::decode(bytes).unwrap();
    let values: Vec<Value> = events.iter().map(Event::to_value).collect();
    let body = envelope.body_json(&LIMITS).unwrap();
    let sent = body.as_array().map_or_else(|| vec![body.clone()], <[Value]>::to_vec);
    assert_eq!(values, sent, "{name}");
    for event in events {
        assert!(!matches!(event.detail, Detail::Other { .. }), "{name}: {event:?}");
        assert_eq!(event.task_id().is_none(), event.event_type().starts_with("worker-"), "{name}");
        assert!(event.hostname.is_some() && event.timestamp.is_some() && event.clock.is_some(), "{name}");
        assert!(event.other.is_empty(), "{name}: {:?}", event.other);
        let again = event.envelope(envelope.properties.delivery_tag.clone());
        assert_eq!(again.headers, envelope.headers, "{name}");
        if sent.len() == 1 && !source.ends_with("multi") {
            assert_eq!(again.properties, envelope.properties, "{name}");
        }
    }
}

fn check_request(name: &str, bytes: &[u8]) {
    let request = Request::decode(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    let sent = Envelope::decode(bytes).unwrap();
    let clock = sent.headers.get("clock").and_then(Value::as_i64).unwrap();
    let expires = sent.headers.get("expires").and_then(Value::as_f64);
    let again = request.envelope(clock, expires, sent.properties.delivery_tag.clone());
    assert_eq!(again.body_json(&LIMITS).unwrap(), sent.body_json(&LIMITS).unwrap(), "{name}");
    assert_eq!((again.headers, again.properties), (sent.headers, sent.properties), "{name}");
    assert!(request.other.is_empty(), "{name}: {:?}", request.other);
}

fn check_reply(name: &str, bytes: &[u8]) {
    let reply = Reply::decode(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    let sent = Envelope::decode(bytes).unwrap();
    let clock = sent.headers.get("clock").and_then(Value::as_i64).unwrap();
    let oid = &sent.properties.delivery_info.routing_key;
    let again = reply.envelope(oid, clock, sent.properties.delivery_tag.clone());
    assert_eq!(again.body_json(&LIMITS).unwrap(), sent.body_json(&LIMITS).unwrap(), "{name}");
    assert_eq!((again.headers, again.properties), (sent.headers, sent.properties), "{name}");
    assert_eq!(reply.nodes.len(), 1, "{name}");
}

#[test]
fn a_call_is_what_apply_async_sends() {
    for name in ["apply-async", "priority-00", "priority-09", "custom-headers", "unicode", "long-args"] {
        let sent = envelope(name);
        let Message { headers, args, kwargs, embed } = message(name);
        let call = Call {
            delivery_tag: sent.properties.delivery_tag.clone(),
            reply_to: sent.properties.reply_to.clone().unwrap(),
            args,
            kwargs,
            embed: Embed { errbacks: embed.errbacks, ..Embed::default() },
            priority: sent.properties.priority.unwrap(),
            time_limit: TimeLimit::seconds(3600, 3000),
            origin: headers.origin.unwrap(),
            headers: headers.other,
            ..Call::new("backend.tasks.run_crew_task", headers.id, "crew_jobs")
        };
        let mut again = call.envelope();
        assert_eq!(again.body_json(&LIMITS).unwrap(), sent.body_json(&LIMITS).unwrap(), "{name}");
        // The body's white space differs.
        again.body.clone_from(&sent.body);
        assert_eq!(json(&again.encode()), json(&golden(&format!("envelope/{name}.json"))), "{name}");
    }
}

#[test]
fn a_message_is_put_back_as_kombu_does() {
    let restored = envelope("restored");
    let mut taken = restored.clone();
    taken.headers.remove("redelivered");
    taken.properties.delivery_info.redelivered = None;
    assert_ne!(taken, restored);
    assert_eq!(taken.redelivered(), restored);
}

#[test]
fn a_signature_in_a_chain_is_read() {
    let chain = message("chain").embed.chain;
    let next = chain.as_array().unwrap().last().unwrap();
    let signature = Signature::decode(next).unwrap();
    assert_eq!(&signature.to_value(), next);
    assert!(!signature.task.is_empty());
}

#[test]
fn fields_that_producers_by_name_leave_open_are_open() {
    let headers = message("send-task").headers;
    assert_eq!((headers.ignore_result, headers.timelimit), (None, TimeLimit::default()));
    assert_eq!(envelope("send-task").properties.priority, Some(0));
    assert_eq!(message("ignore-result").headers.ignore_result, Some(true));
    let headers = message("countdown-expires-limits").headers;
    assert_eq!(headers.timelimit, TimeLimit::seconds(10, 5));
    assert_eq!(headers.expires_at().unwrap().as_second() - headers.eta_at().unwrap().as_second(), 60);
    let headers = message("retry").headers;
    assert_eq!((headers.retries, headers.parent_id.as_ref()), (Some(1), Some(&headers.id)));
}

#[test]
fn values_that_kubernetes_cannot_hold_are_recognised() {
    let kwargs = Value::from(message("typed-kwargs").kwargs);
    assert!(!kwargs.has_exact_json_numbers());
    assert_eq!(result("success-integer-beyond-64-bit").result.as_str().matches("1180591620717411303424").count(), 1);
    for (name, exact) in [
        ("success", true),
        ("success-nan", false),
        ("success-integer-beyond-64-bit", false),
        ("success-float-large", true),
        ("success-float-whole", true),
    ] {
        assert_eq!(result(name).result.parse(&LIMITS).unwrap().has_exact_json_numbers(), exact, "{name}");
    }
    let lone = result("success-lone-surrogate").result;
    assert_eq!((lone.as_str(), lone.parse(&LIMITS).unwrap()), (r#""\ud83d alone""#, "\u{fffd} alone".into()));
}

#[test]
fn failures_read_as_python_prints_them() {
    for (name, exc_type, message) in [
        ("failure-time-limit", "TimeLimitExceeded", "TimeLimitExceeded(2,)"),
        ("failure-soft-time-limit", "SoftTimeLimitExceeded", "SoftTimeLimitExceeded()"),
        ("failure-not-registered", "NotRegistered", "'no.such.task'"),
        ("revoked-terminated", "TaskRevokedError", "terminated"),
        ("revoked-expired", "TaskRevokedError", "expired"),
        ("revoked-short", "TaskRevokedError", "revoked"),
    ] {
        let exception = result(name).exception().unwrap();
        assert_eq!((exception.exc_type.as_str(), exception.message().as_str()), (exc_type, message), "{name}");
    }
    assert_eq!(result("progress").status, State::Custom("PROGRESS".to_owned()));
    assert_eq!(result("started").status, State::Started);
}

#[test]
fn events_tell_what_happened() {
    let Detail::TaskRevoked { terminated, signum, expired, .. } = event("task-revoked").detail else { panic!() };
    assert_eq!((terminated, signum, expired), (Some(true), Some(15), Some(false)));
    let Detail::WorkerOnline(status) = event("worker-online").detail else { panic!() };
    assert_eq!(status.sw_ident.as_deref(), Some("py-celery"));
    assert!(event("task-started").hostname.unwrap().starts_with("crew@"));
    assert_eq!(Event::decode(&golden("event/task-failed-time-limit.json")).unwrap().len(), 2);
}

#[test]
fn answers_of_workers_are_understood() {
    let (node, answer) = reply("ping");
    assert_eq!((node.starts_with("crew@"), answer), (true, Object::new().with("ok", "pong").into()));
    let active = TaskInfo::list(&reply("active").1).remove(0);
    assert_eq!((active.name.as_deref(), active.acknowledged), (Some("backend.tasks.run_crew_task"), Some(false)));
    assert!(active.time_start.is_some() && active.worker_pid.is_some() && active.redelivered == Some(false));
    assert_eq!(TaskInfo::list(&reply("scheduled").1).len(), reply("scheduled").1.as_array().unwrap().len());
    assert!(!TaskInfo::query(&reply("query-task").1).is_empty());
    let stats = WorkerStats::decode(&reply("stats").1);
    assert_eq!((stats.max_concurrency, stats.processes.len()), (Some(1), 1));
    assert_eq!(stats.implementation.as_deref(), Some("celery.concurrency.prefork:TaskPool"));
    let conf = WorkerConf::decode(&reply("conf").1);
    assert_eq!((conf.prefetch_multiplier, conf.acks_late, conf.send_task_events), (Some(1), Some(true), Some(true)));
    let waiting = i64::try_from(TaskInfo::list(&reply("scheduled").1).len()).unwrap();
    assert_eq!(stats.prefetch_count, Some(1 + waiting));
    // It was started with `--prefetch-multiplier 4`.
    assert_eq!(WorkerConf::decode(&reply("conf-greedy").1), conf);
    assert_eq!(WorkerStats::decode(&reply("stats-greedy").1).prefetch_count, Some(4));
}

#[test]
fn requests_are_what_celery_sends() {
    let ids = |request: &Request| match request.arguments.get("task_id") {
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(id)) => vec![id.clone()],
        _ => Vec::new(),
    };
    for (name, build) in [
        ("ping", Request::ping()),
        ("active", Request::active()),
        ("reserved", Request::reserved()),
        ("scheduled", Request::scheduled()),
        ("revoked", Request::revoked()),
        ("stats", Request::stats()),
        ("conf", Request::conf(false)),
        ("conf-with-defaults", Request::conf(true)),
        ("registered", Request::registered()),
        ("active-queues", Request::active_queues()),
        ("revoke", Request::revoke(vec![], None)),
        ("revoke-many", Request::revoke(vec![], None)),
        ("revoke-terminate", Request::revoke(vec![], Some("SIGTERM"))),
    ] {
        let sent = Request::decode(&golden(&format!("pidbox-request/{name}.json"))).unwrap();
        let mut expected = Request { reply: sent.reply.clone(), destination: sent.destination.clone(), ..build };
        if let Some(task_id) = expected.arguments.get("task_id").cloned() {
            let terminate = sent.arguments.get("terminate") == Some(&true.into());
            assert!(task_id.as_array().is_some_and(<[Value]>::is_empty), "{name}");
            expected.arguments = Request::revoke(ids(&sent), terminate.then_some("SIGTERM")).arguments;
        }
        assert_eq!(expected, sent, "{name}");
    }
}

#[test]
fn bindings_are_what_kombu_declares() {
    let text = |name: &str| String::from_utf8(golden(&format!("binding/{name}"))).unwrap();
    assert_eq!(text("crew-jobs"), BrokerKeys::default().binding_member("crew.jobs", "", "crew_jobs"));
    assert_eq!(text("default"), BrokerKeys::default().binding_member("default", "", "default"));
    let reply = text("reply-pidbox");
    let oid = reply.split(priority::SEPARATOR).next().unwrap().to_owned();
    assert_eq!(reply, ReturnAddress { ticket: String::new(), oid }.binding_member(&BrokerKeys::default()));
}

#[test]
fn reprs_are_those_of_python() {
    for Golden { name, bytes, .. } in goldens().into_iter().filter(|golden| golden.kind == "envelope") {
        let Message { headers, args, kwargs, .. } = Message::decode(&Envelope::decode(&bytes).unwrap()).unwrap();
        let (argsrepr, kwargsrepr) = (headers.argsrepr.unwrap(), headers.kwargsrepr.unwrap());
        assert!([python::safe_repr_array(&args), python::repr_tuple(&args)].contains(&argsrepr), "{name}: {argsrepr}");
        if !name.contains("typed") {
            assert_eq!(python::safe_repr_object(&kwargs), kwargsrepr, "{name}");
        }
    }
}
