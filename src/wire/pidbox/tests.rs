use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::wire::BrokerKeys;
use crate::wire::json::tests::any_value;

fn value(text: &str) -> Value {
    Value::parse(text.as_bytes()).unwrap()
}

fn address() -> ReturnAddress {
    ReturnAddress { ticket: "789b3ecb".to_owned(), oid: "12c4dd0d".to_owned() }
}

#[track_caller]
fn body(request: &Request, expected: &str) {
    let sent = request.envelope(1, None, "t");
    assert_eq!(sent.body_json(&Limits::default()).unwrap(), value(expected));
    assert_eq!(&Request::decode(&sent.encode()).unwrap(), request);
}

#[test]
fn a_ping_is_sent_as_celery_sends_it() {
    let sent = Request::ping().replying_to(address()).envelope(1, Some(1_795_354_874.807_673_7), "5a5975b5");
    assert_eq!(sent.headers, Object::new().with("clock", 1).with("expires", 1_795_354_874.807_673_7));
    assert_eq!(
        sent.body_json(&Limits::default()).unwrap(),
        value(
            r#"{"method": "ping", "arguments": {}, "destination": null, "pattern": null, "matcher": null, "ticket": "789b3ecb", "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "12c4dd0d"}}"#
        )
    );
    assert_eq!(
        Value::parse(&sent.encode()).unwrap().get("properties"),
        Some(&value(
            r#"{"delivery_mode": 2, "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""}, "priority": 0, "body_encoding": "base64", "delivery_tag": "5a5975b5"}"#
        ))
    );
    assert_eq!(
        address().binding_member(&BrokerKeys::default()),
        "12c4dd0d\u{6}\u{16}\u{6}\u{16}12c4dd0d.reply.celery.pidbox"
    );
}

#[test]
fn a_revoke_names_one_task_or_several() {
    body(
        &Request::revoke(vec!["a".to_owned()], Some("SIGTERM")),
        r#"{"method": "revoke", "arguments": {"task_id": "a", "terminate": true, "signal": "SIGTERM"}, "destination": null, "pattern": null, "matcher": null}"#,
    );
    body(
        &Request::revoke(vec!["a".to_owned(), "b".to_owned()], None).to(vec!["w@h".to_owned()]),
        r#"{"method": "revoke", "arguments": {"task_id": ["a", "b"], "terminate": false, "signal": "SIGTERM"}, "destination": ["w@h"], "pattern": null, "matcher": null}"#,
    );
}

#[test]
fn commands_carry_the_arguments_that_celery_sends() {
    for (request, method, arguments) in [
        (Request::active(), "active", r#"{"safe": null}"#),
        (Request::reserved(), "reserved", "{}"),
        (Request::scheduled(), "scheduled", "{}"),
        (Request::revoked(), "revoked", "{}"),
        (Request::stats(), "stats", "{}"),
        (Request::conf(false), "conf", r#"{"with_defaults": false}"#),
        (Request::registered(), "registered", r#"{"taskinfoitems": []}"#),
        (Request::active_queues(), "active_queues", "{}"),
        (Request::query_task(vec!["a".to_owned()]), "query_task", r#"{"ids": ["a"]}"#),
        (Request::enable_events(), "enable_events", "{}"),
        (Request::heartbeat(), "heartbeat", "{}"),
        (Request::shutdown(), "shutdown", "{}"),
        (Request::hello("w@h", vec![]), "hello", r#"{"from_node": "w@h", "revoked": []}"#),
    ] {
        let rest = r#""destination": null, "pattern": null, "matcher": null}"#;
        body(&request, &format!(r#"{{"method": "{method}", "arguments": {arguments}, {rest}"#));
    }
}

#[test]
fn replies_name_the_node_and_the_ticket() {
    let headers = Object::new().with("ticket", "789b3ecb").with("clock", 3);
    let sent = Envelope::new(headers, r#"{"worker1@vm": {"ok": "pong"}}"#, Properties::default());
    let reply = Reply::decode(&sent.encode()).unwrap();
    assert_eq!(reply.ticket.as_deref(), Some("789b3ecb"));
    assert_eq!(reply.nodes, Object::new().with("worker1@vm", Object::new().with("ok", "pong")));
    assert_eq!(Reply::decode(&reply.envelope("12c4dd0d", 3, "t").encode()).unwrap(), reply);
    assert_eq!(error_of(&value(r#"{"error": "KeyError('no_such')"}"#)), Some("KeyError('no_such')"));
    assert_eq!(error_of(&value("[]")), None);
    assert!(Reply::decode(&Envelope::new(Object::new(), "[]", Properties::default()).encode()).is_err());
}

const INFO: &str = r#"{"id": "08ab0e5d", "name": "backend.tasks.run_crew_task", "args": ["job-slow"], "kwargs": {}, "type": "backend.tasks.run_crew_task", "hostname": "worker1@vm", "time_start": 1795354875.1969843, "acknowledged": false, "delivery_info": {"exchange": "", "routing_key": "crew_jobs", "priority": 5, "redelivered": false}, "worker_pid": 22688}"#;

#[test]
fn tasks_are_described_by_their_worker() {
    let info = TaskInfo::list(&value(&format!("[{INFO}, 7]"))).remove(0);
    assert_eq!((info.id.as_str(), info.hostname.as_deref()), ("08ab0e5d", Some("worker1@vm")));
    assert_eq!((info.acknowledged, info.redelivered, info.worker_pid), (Some(false), Some(false), Some(22688)));
    assert_eq!(
        (info.routing_key.as_deref(), info.time_start.unwrap().as_f64()),
        (Some("crew_jobs"), 1_795_354_875.196_984_3)
    );
    let scheduled = format!(r#"[{{"eta": "2026-11-22T13:53:05+00:00", "priority": 6, "request": {INFO}}}]"#);
    assert_eq!(TaskInfo::list(&value(&scheduled))[0].id, "08ab0e5d");
    let found = TaskInfo::query(&value(&format!(r#"{{"08ab0e5d": ["active", {INFO}], "x": []}}"#)));
    assert_eq!((found.len(), found[0].0.as_str(), found[0].1.id.as_str()), (1, "active", "08ab0e5d"));
}

#[test]
fn stats_tell_prefetch_and_concurrency() {
    let stats = WorkerStats::decode(&value(
        r#"{"pid": 22645, "clock": "16", "prefetch_count": 1, "pool": {"implementation": "celery.concurrency.prefork:TaskPool", "max-concurrency": 1, "processes": [22688]}}"#,
    ));
    assert_eq!((stats.pid, stats.prefetch_count, stats.max_concurrency), (Some(22645), Some(1), Some(1)));
    assert_eq!(stats.processes, [22688]);
    assert_eq!(WorkerStats::decode(&Value::Null), WorkerStats::default());
}

#[test]
fn settings_tell_how_messages_are_taken() {
    let answer = r#"{"worker_prefetch_multiplier": 1, "task_acks_late": true, "broker_transport_options": {"visibility_timeout": 7200.0}, "result_backend_always_retry": true}"#;
    let conf = WorkerConf::decode(&value(answer));
    assert_eq!((conf.prefetch_multiplier, conf.acks_late, conf.always_retry), (Some(1), Some(true), Some(true)));
    assert_eq!((conf.send_task_events, conf.visibility_timeout), (None, Some(7200)));
    assert_eq!(WorkerConf::decode(&Value::Null), WorkerConf::default());
}

proptest! {
    #[test]
    fn requests_survive_a_round_trip(
        method: String, argument in any_value(), destination: Option<Vec<String>>, pattern: Option<String>, reply: Option<(String, String)>,
        key in "ticket|reply_to|x", other in any_value(),
    ) {
        let mut request = Request { method, destination, pattern, arguments: Object::new().with("a", argument), ..Request::default() };
        match reply {
            Some((ticket, oid)) => request = request.replying_to(ReturnAddress { ticket, oid }),
            None => request.other = Object::new().with(key, other),
        }
        prop_assert_eq!(Request::decode(&request.envelope(1, None, "t").encode()).unwrap(), request);
    }

    #[test]
    fn any_answer_is_read(answer in any_value()) {
        TaskInfo::list(&answer);
        TaskInfo::query(&answer);
        WorkerStats::decode(&answer);
        WorkerConf::decode(&answer);
        error_of(&answer);
    }
}

#[test]
fn a_workers_report_tells_its_celery_and_its_result_backend() {
    let report = |text: &str| WorkerReport::decode(&Value::from(Object::new().with("ok", text)));
    let celerys = "\nsoftware -> celery:5.3.6 (emerald-rush) kombu:5.3.7 py:3.11.7\n            billiard:4.3.2 redis:5.0.8\n\
        settings -> transport:redis results:redis://user:**@127.0.0.1:16399/3\n\nbroker_url: 'redis://127.0.0.1:16399/0'";
    let told = report(celerys);
    assert_eq!(told.celery, Some((5, 3)));
    assert_eq!(told.results.as_deref(), Some("redis://user:**@127.0.0.1:16399/3"));
    assert_eq!(report("software -> celery:5.6.0rc1 (recovery)").celery, Some((5, 6)));
    let native = report("software -> crewjob:0.1.0\nsettings -> transport:redis results:redis\n");
    assert_eq!((native.celery, native.results.as_deref()), (None, Some("redis")));
    assert_eq!(WorkerReport::decode(&value("[1]")), WorkerReport::default());
}

#[test]
fn registered_tasks_are_read_with_their_attributes() {
    let task = |name: &str, ignore_result, acks_late, every| RegisteredTask {
        name: name.to_owned(),
        ignore_result,
        acks_late,
        every,
    };
    let answer =
        value(r#"["t [ignore_result=True acks_late=False]", "plain", "u [rate_limit=10/m acks_late=None]", 7]"#);
    assert_eq!(
        RegisteredTask::list(&answer),
        [
            task("t", Some(true), Some(false), None),
            task("plain", None, None, None),
            task("u", None, None, Some(Duration::from_secs(6)))
        ]
    );
}

#[test]
fn a_rate_limit_says_how_long_one_run_keeps_the_next_one_waiting() {
    let every = |limit: &str| {
        let answer = Value::Array(vec![Value::from(format!("t [rate_limit={limit}]"))]);
        RegisteredTask::list(&answer)[0].every.map(|it| it.as_secs_f64())
    };
    let seconds = [("10", 0.1), ("2.0", 0.5), ("4/s", 0.25), ("0.5/m", 120.0), ("2/h", 1800.0)];
    for (limit, expected) in seconds {
        assert_eq!(every(limit), Some(expected), "{limit}");
    }
    for limit in ["0", "0/m", "-1/m", "None", "", "nan", "1/d", "1e-300/h", "/m"] {
        assert_eq!(every(limit), None, "{limit}");
    }
}

#[test]
fn the_options_of_the_broker_are_read_where_no_stars_hide_them() {
    let stats = value(
        r#"{"pid": 1, "broker": {"hostname": "redis", "port": 6379, "transport_options":
            {"visibility_timeout": 3600, "priority_steps": [0, 1, 2], "sep": ":", "unacked_key": "u"}}}"#,
    );
    let broker = WorkerStats::decode(&stats).broker;
    assert_eq!((broker.hostname.as_deref(), broker.port), (Some("redis"), Some(6379)));
    assert_eq!(broker.priority_steps, Some(vec![0, 1, 2]));
    assert_eq!((broker.separator.as_deref(), broker.unacked_key.as_deref()), (Some(":"), Some("u")));
    assert_eq!(WorkerStats::decode(&value(r#"{"pid": 1}"#)).broker, BrokerInfo::default());
    let conf = |options: &str| {
        let text = format!(r#"{{"result_serializer": "json", "result_backend_transport_options": {options}}}"#);
        WorkerConf::decode(&value(&text)).has_result_prefix
    };
    assert_eq!(conf(r#"{"global_keyprefix": "********"}"#), Some(true));
    assert_eq!(conf("{}"), Some(false));
    assert_eq!(WorkerConf::decode(&value("{}")).has_result_prefix, None, "it says nothing of it");
}
