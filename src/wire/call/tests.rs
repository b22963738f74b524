use super::*;

/// What `apply_async` of Celery 5.7 has sent, decoded.
const HEADERS: &str = r#"{"lang": "py", "task": "backend.tasks.run_crew_task", "id": "45495316-63b8-4c6d-8998-bcb32881f3e8", "shadow": null, "eta": null, "expires": null, "group": null, "group_index": null, "retries": 0, "timelimit": [3600, 3000], "root_id": "45495316-63b8-4c6d-8998-bcb32881f3e8", "parent_id": null, "argsrepr": "['job-1']", "kwargsrepr": "{'inputs': {'topic': 'AI'}, 'bypass_cache': False}", "origin": "gen16895@vm", "ignore_result": false, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}}"#;
const BODY: &str = r#"[["job-1"], {"inputs": {"topic": "AI"}, "bypass_cache": false}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#;
const PROPERTIES: &str = r#"{"correlation_id": "45495316-63b8-4c6d-8998-bcb32881f3e8", "reply_to": "7d6aa047-0846-3694-be39-f46333652c5f", "delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": "crew_jobs"}, "priority": 5, "body_encoding": "base64", "delivery_tag": "6849b978-3d88-48c8-a122-4144e7a0c16e"}"#;

fn call() -> Call {
    Call {
        delivery_tag: "6849b978-3d88-48c8-a122-4144e7a0c16e".to_owned(),
        reply_to: "7d6aa047-0846-3694-be39-f46333652c5f".to_owned(),
        args: vec!["job-1".into()],
        kwargs: Object::new().with("inputs", Object::new().with("topic", "AI")).with("bypass_cache", false),
        time_limit: TimeLimit::seconds(3600, 3000),
        origin: "gen16895@vm".to_owned(),
        ..Call::new("backend.tasks.run_crew_task", "45495316-63b8-4c6d-8998-bcb32881f3e8", "crew_jobs")
    }
}

fn value(text: &str) -> Value {
    Value::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_call_is_sent_as_apply_async_sends_it() {
    let sent = Value::parse(&call().envelope().encode()).unwrap();
    assert_eq!(sent.get("headers"), Some(&value(HEADERS)));
    assert_eq!(sent.get("properties"), Some(&value(PROPERTIES)));
    assert_eq!(sent.get("content-type"), Some(&"application/json".into()));
    assert_eq!(sent.get("content-encoding"), Some(&"utf-8".into()));
    assert_eq!(sent.as_object().unwrap().len(), 5);
    assert_eq!(call().envelope().body_json(&crate::wire::Limits::default()).unwrap(), value(BODY));
}

#[test]
fn fields_stand_in_celerys_order() {
    let sent = Value::parse(&call().envelope().encode()).unwrap();
    let order = |value: &Value| value.as_object().unwrap().keys().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(order(sent.get("headers").unwrap()), order(&value(HEADERS)));
}

#[test]
fn an_attempt_names_its_root_and_parent_and_carries_own_headers() {
    let call = Call {
        root_id: Some("first".to_owned()),
        parent_id: Some("second".to_owned()),
        retries: 2,
        headers: Object::new().with("crewjob_uid", "u"),
        ..call()
    };
    let headers = call.envelope().headers;
    assert_eq!(headers.get("root_id"), Some(&"first".into()));
    assert_eq!(headers.get("parent_id"), Some(&"second".into()));
    assert_eq!(headers.get("retries"), Some(&2.into()));
    assert_eq!(headers.get("crewjob_uid"), Some(&"u".into()));
}
