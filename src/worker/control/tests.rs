mod worker;

use self::worker::Worker;
use super::*;
use crate::wire::Envelope;
use crate::wire::pidbox::{Reply, ReturnAddress, TaskInfo, WorkerConf, WorkerStats};

const RECORDED: &[u8] = include_bytes!("../../../tests/golden/celery-5.7/control.json");
const TASK: &str = "backend.tasks.run_crew_task";

fn value(text: &str) -> Value {
    Value::parse(text.as_bytes()).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_795_618_600).unwrap()
}

/// A request that waits for its reply.
fn request(method: &str, arguments: &str) -> Request {
    let Value::Object(arguments) = value(arguments) else { panic!("{arguments}") };
    let reply = Some(ReturnAddress { ticket: "t".to_owned(), oid: "o".to_owned() });
    Request { method: method.to_owned(), arguments, reply, ..Request::default() }
}

#[track_caller]
fn asked(method: &str, arguments: &str) -> (Value, Vec<Action>) {
    let Answered { reply, actions } = Worker::recorded().answer(&request(method, arguments));
    (reply.unwrap(), actions)
}

#[track_caller]
fn told(method: &str, arguments: &str, reply: &str, actions: &[Action]) {
    assert_eq!(asked(method, arguments), (value(reply), actions.to_vec()));
}

/// The same keys in the same order, and values of the same types; either may be `null`.
fn same_shape(path: &str, ours: &Value, theirs: &Value) {
    match (ours, theirs) {
        (Value::Null, _)
        | (_, Value::Null)
        | (Value::Bool(_), Value::Bool(_))
        | (Value::String(_), Value::String(_)) => {}
        (Value::Number(ours), Value::Number(theirs)) => {
            assert_eq!(ours.is_integer(), theirs.is_integer(), "{path}");
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            for (ours, theirs) in ours.iter().zip(theirs) {
                same_shape(&format!("{path}[]"), ours, theirs);
            }
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{path}");
            for ((key, ours), (_, theirs)) in ours.iter().zip(theirs.iter()) {
                same_shape(&format!("{path}.{key}"), ours, theirs);
            }
        }
        _ => panic!("{path}: {ours} is not of the type of {theirs}"),
    }
}

#[test]
fn every_command_is_answered_as_celery_answers_it() {
    let mut worker = Worker::recorded();
    for case in value(std::str::from_utf8(RECORDED).unwrap()).as_array().unwrap() {
        let text = |key: &str| case.get(key).and_then(Value::as_str).unwrap();
        assert_eq!(worker.node, text("node"));
        let asked = request(text("method"), &case.get("arguments").unwrap().to_json());
        let Some(ours) = worker.answer(&asked).reply else { panic!("{asked:?}") };
        let theirs = case.get("reply").unwrap();
        match text("method") {
            // Celery's worker cannot stop sending events that it sends from the start, and says nothing of it.
            "disable_events" | "enable_events" if theirs.get("ok").is_some() => {}
            "report" => same_shape("report", &ours, theirs),
            "clock" | "hello" => same_shape(text("method"), &ours, theirs),
            "stats" => same_shape("stats", &without_pool_writes(ours.clone()), &without_pool_writes(theirs.clone())),
            "active_queues" if theirs.as_array().is_some() => same_shape("queues", &ours, theirs),
            "conf" => {
                assert_eq!(ours.get("broker_url").and_then(Value::as_str), Some("redis://:********@127.0.0.1:6379/0"));
            }
            _ if theirs.get("ok").or(theirs.get("error")).is_some() => assert_eq!(&ours, theirs, "{asked:?}"),
            _ => {
                same_shape(text("method"), &ours, theirs);
                assert_eq!(strip_times(&ours), strip_times(theirs), "{asked:?}");
            }
        }
        if text("method") == "hello" {
            assert_eq!(ours.get("revoked"), theirs.get("revoked"));
        }
    }
}

/// Celery counts how it writes to its processes; there is no such thing here, which Celery calls `N/A` too.
fn without_pool_writes(mut stats: Value) -> Value {
    let Value::Object(members) = &mut stats else { panic!() };
    let Some(Value::Object(mut pool)) = members.remove("pool") else { panic!() };
    let Some(Value::Object(mut broker)) = members.remove("broker") else { panic!() };
    pool.remove("writes");
    broker.remove("transport_options");
    members.insert("pool", pool);
    members.insert("broker", broker);
    stats
}

fn strip_times(value: &Value) -> Value {
    match value {
        Value::Array(elements) => Value::Array(elements.iter().map(strip_times).collect()),
        Value::Object(members) => {
            let kept = members.iter().filter(|(key, _)| !["time_start", "worker_pid", "eta"].contains(key));
            Value::Object(kept.map(|(key, value)| (key, strip_times(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Verbatim(_) => value.clone(),
    }
}

#[test]
fn the_settings_are_celerys_with_values_of_its_types() {
    let recorded = value(std::str::from_utf8(RECORDED).unwrap());
    let all = |case: &&Value| case.get("arguments").unwrap().get("with_defaults") == Some(&true.into());
    let theirs = recorded.as_array().unwrap().iter().find(all).and_then(|case| case.get("reply")).unwrap();
    for arguments in [r#"{"with_defaults": true}"#, "{}"] {
        let (ours, _) = asked("conf", arguments);
        for (name, ours) in ours.as_object().unwrap().iter() {
            let theirs = theirs.get(name).unwrap_or_else(|| panic!("Celery has no setting {name}"));
            if !["broker_transport_options", "task_queues"].contains(&name) {
                same_shape(name, ours, theirs);
            }
        }
        let conf = WorkerConf::decode(&ours);
        let expected = (Some(1), Some(true), Some(true), Some(7200));
        let told = (conf.prefetch_multiplier, conf.acks_late, conf.send_task_events, conf.visibility_timeout);
        assert_eq!(told, expected);
        assert_eq!(ours.get("task_protocol").is_some(), arguments != "{}");
    }
}

#[test]
fn our_own_decoders_read_our_answers() {
    let active = TaskInfo::list(&asked("active", "{}").0).remove(0);
    assert_eq!((active.name.as_deref(), active.worker_pid), (Some(TASK), Some(14815)));
    assert_eq!(active.time_start.unwrap().to_string(), "1795618560.624923");
    assert_eq!(TaskInfo::list(&asked("scheduled", "{}").0)[0].id, "65fbc605-6207-53c0-a61f-4d0256badc1e");
    let found = TaskInfo::query(&asked("query_task", r#"{"ids": ["65fbc605-6207-53c0-a61f-4d0256badc1e", "x"]}"#).0);
    assert_eq!((found.len(), found[0].0.as_str()), (1, "scheduled"));
    let stats = WorkerStats::decode(&asked("stats", "{}").0);
    assert_eq!((stats.pid, stats.max_concurrency, stats.prefetch_count), (Some(14776), Some(1), Some(2)));
    assert_eq!(stats.processes, [14815]);
}

#[test]
fn an_answer_comes_with_the_actions_that_the_worker_takes() {
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let revoke = |some: &[&str], signal| [Action::Revoke { ids: ids(some), signal }];
    told("revoke", r#"{"task_id": ["a", "a"]}"#, r#"{"ok": "tasks {'a'} flagged as revoked"}"#, &revoke(&["a"], None));
    let busy = "92f6ac74-30f0-5fd5-8589-5d11bd91bd3e";
    told(
        "revoke",
        &format!(r#"{{"task_id": ["x", "{busy}"], "terminate": true, "signal": "SIGUSR1"}}"#),
        &format!(r#"{{"ok": "terminate: {busy}"}}"#),
        &revoke(&["x", busy], Some(10)),
    );
    let (reply, actions) = asked("revoke", r#"{"task_id": "c", "terminate": 1, "signal": -1}"#);
    assert_eq!((reply.get("error").is_some(), &actions[..]), (true, &revoke(&["c"], None)[..]));
    told("heartbeat", "{}", "null", &[Action::Heartbeat]);
    told("pool_grow", "{}", r#"{"ok": "pool will grow"}"#, &[Action::Grow(1)]);
    told("disable_events", "{}", r#"{"ok": "task events disabled"}"#, &[Action::DisableEvents]);
    let extra = Queue::new("extra", "key");
    let added = r#"{"ok": "add consumer extra"}"#;
    told("add_consumer", r#"{"queue": "extra", "routing_key": "key"}"#, added, &[Action::AddConsumer(extra)]);
    let cancelled = Action::CancelConsumer("extra".to_owned());
    told("cancel_consumer", r#"{"queue": "extra"}"#, r#"{"ok": "no longer consuming from extra"}"#, &[cancelled]);
    let limits = Action::TimeLimit { task: TASK.to_owned(), hard: Some(120.into()), soft: None };
    let arguments = format!(r#"{{"task_name": "{TASK}", "hard": 120}}"#);
    told("time_limit", &arguments, r#"{"ok": "time limits set successfully"}"#, &[limits]);
}

#[test]
fn rates_are_per_second_minute_or_hour() {
    for (given, expected) in [
        ("\"60/m\"", Some(1.0)),
        ("\"7200/h\"", Some(2.0)),
        ("\" 0.5/s\"", Some(0.5)),
        ("3", Some(3.0)),
        ("\"0/s\"", None),
        ("null", None),
        ("\"\"", None),
    ] {
        let (_, actions) = asked("rate_limit", &format!(r#"{{"task_name": "{TASK}", "rate_limit": {given}}}"#));
        let [Action::RateLimit { per_second, .. }] = &actions[..] else { panic!("{given}: {actions:?}") };
        assert_eq!(*per_second, expected, "{given}");
    }
}

#[test]
fn a_shutdown_and_a_request_without_a_reply_address_are_not_answered() {
    let shutdown = Answered { reply: None, actions: vec![Action::Shutdown] };
    assert_eq!(Worker::recorded().answer(&request("shutdown", "{}")), shutdown);
    let cast = Request { reply: None, ..request("revoke", r#"{"task_id": "a"}"#) };
    let answered = Worker::recorded().answer(&cast);
    assert_eq!((answered.reply, answered.actions.len()), (None, 1));
}

#[test]
fn bad_arguments_are_refused_and_change_nothing() {
    for (method, arguments) in [
        ("revoke", r#"{"task_id": [1]}"#),
        ("revoke", r#"{"task_id": {"a": 1}}"#),
        ("query_task", r#"{"ids": 7}"#),
        ("pool_grow", r#"{"n": -1}"#),
        ("pool_grow", r#"{"n": 1e9}"#),
        ("pool_shrink", r#"{"n": "x"}"#),
        ("pool_shrink", r#"{"n": 2}"#),
        ("time_limit", r#"{"task_name": "backend.tasks.run_crew_task", "hard": "x"}"#),
        ("time_limit", r#"{"task_name": 7}"#),
        ("rate_limit", r#"{"task_name": "backend.tasks.run_crew_task", "rate_limit": "nan"}"#),
        ("rate_limit", r#"{"task_name": "backend.tasks.run_crew_task", "rate_limit": []}"#),
        ("add_consumer", r#"{"queue": "x", "exchange_type": "fanout"}"#),
        ("add_consumer", r#"{"queue": ""}"#),
        ("cancel_consumer", r#"{"queue": 7}"#),
        ("revoke_by_stamped_headers", r#"{"headers": {}}"#),
    ] {
        let Answered { reply, actions } = Worker::recorded().answer(&request(method, arguments));
        assert!(reply.unwrap().get("error").is_some() && actions.is_empty(), "{method} {arguments}");
    }
    let unread = Request { other: Object::new().with("arguments", 7), ..request("ping", "{}") };
    assert!(Worker::recorded().answer(&unread).reply.unwrap().get("error").is_some());
}

#[test]
fn requests_are_for_some_nodes() {
    let to = |nodes: &[&str]| request("ping", "{}").to(nodes.iter().map(|node| (*node).to_owned()).collect());
    let matching = |pattern: &str, matcher: &str| Request {
        pattern: Some(pattern.to_owned()),
        matcher: Some(matcher.to_owned()),
        ..request("ping", "{}")
    };
    let node = "crew@golden";
    for (yes, request) in [
        (true, request("ping", "{}")),
        (true, to(&[])),
        (true, to(&["other", node])),
        (false, to(&["crew@golde"])),
        (true, matching("crew@*", "glob")),
        (false, matching("crew", "glob")),
        (true, matching("crew", "pcre")),
        (false, matching("(crew", "pcre")),
        (false, matching(&"*".repeat(2000), "glob")),
        (false, matching("*", "sql")),
        (true, matching("x", "")),
        (false, Request { destination: Some(vec!["x".to_owned()]), ..matching("*", "glob") }),
        (true, Request { other: Object::new().with("destination", "crew@golden,x"), ..to(&[]) }),
        (false, Request { other: Object::new().with("destination", value("[7]")), ..Request::ping() }),
    ] {
        assert_eq!(is_for(&request, node), yes, "{request:?}");
    }
}

#[test]
fn a_reply_goes_out_under_the_node_name() {
    let (value, _) = asked("ping", "{}");
    let reply = Reply { ticket: Some("t".to_owned()), nodes: Object::new().with("crew@golden", value) };
    let sent = Envelope::decode(&reply.envelope("o", 1, "tag").encode()).unwrap();
    assert_eq!(sent.body_bytes().unwrap().as_ref(), br#"{"crew@golden":{"ok":"pong"}}"#);
}

#[test]
fn memory_is_told_in_units() {
    let worker = Worker::recorded();
    for (bytes, said) in [(17, "17b"), (2048, "2.0KB"), (60_000_000, "57.2MB")] {
        let view = View { memory: Some(bytes), ..worker.view() };
        let reply = answer(&request("memsample", "{}"), &view, now()).reply;
        assert_eq!(reply, Some(said.into()));
    }
}
