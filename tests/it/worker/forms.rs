//! Messages as producers send them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::support::compressed::{METHODS, compressed};

const ECHO: &str = "tasks: {echo: {command: [cat]}, nap: {command: [sleep, '1']}}";

/// The message of a call whose body was compressed.
fn with_body(task: &str, id: &str, method: &str, body: &[u8]) -> Vec<u8> {
    let mut envelope = Call::new(task, id, "default").envelope();
    envelope.properties.priority = Some(0);
    envelope.headers.insert("compression", method);
    envelope.body = STANDARD.encode(compressed(method, body));
    envelope.encode()
}

fn push(server: &RedisServer, element: &[u8]) {
    redis::cmd("LPUSH").arg("default").arg(element).exec(&mut server.connection()).unwrap();
}

#[test]
fn compressed_messages_are_run_and_what_follows_them_is_not_compressed() {
    let server = RedisServer::start();
    let _worker = Worker::start(&server, ECHO, &[]);
    for (number, method) in METHODS.into_iter().enumerate() {
        let (id, next) = (format!("id-{number}"), format!("next-{number}"));
        let body = format!(
            r#"[["{}"], {{}}, {{"callbacks": [{{"task": "echo", "args": [], "kwargs": {{}}, "options": {{"task_id": "{next}", "queue": "default"}}}}]}}]"#,
            "x".repeat(5000)
        );
        push(&server, &with_body("echo", &id, method, body.as_bytes()));
        let given = state(&server, &next, "SUCCESS").result.to_string();
        assert!(given.contains(&"x".repeat(5000)), "{method}");
    }
    for (id, method) in [("lzma", "application/x-lzma"), ("brotli", "application/x-brotli")] {
        push(&server, &with_body("echo", id, method, b"x"));
        let failure = state(&server, id, "FAILURE");
        assert_eq!(failure.name.as_deref(), Some("echo"));
        assert!(failure.exception().unwrap().message().contains(method), "{failure:?}");
    }
}

#[test]
fn a_bomb_costs_its_sender_only() {
    let server = RedisServer::start();
    let worker = Worker::start(&server, ECHO, &["-c", "2"]);
    let method = METHODS[0];
    // Few bytes for the sender; taken apart, each of these values would take forty bytes for each of its own.
    let large = with_body("echo", "x", method, &[b"[[", b"[0],".repeat(17 << 20).as_slice(), b"0], {}, {}]"].concat());
    let many = with_body("nap", "x", method, &[b"[[[", b"[0],".repeat(8 << 20).as_slice(), b"0]], {}, {}]"].concat());
    assert!(large.len() < 1 << 20 && many.len() < 1 << 20);
    let named = |message: &[u8], id: &str| {
        let text = std::str::from_utf8(message).unwrap();
        text.replace("\"x\"", &format!("\"{id}\"")).into_bytes()
    };
    for id in ["large-1", "large-2"] {
        push(&server, &named(&large, id));
    }
    push(&server, &named(&many, "many"));
    send(&server, "nap", "other", "[]");
    state(&server, "other", "SUCCESS");
    for id in ["large-1", "large-2"] {
        assert_eq!(state(&server, id, "FAILURE").exception().unwrap().exc_type, "LimitExceeded");
    }
    until("the arguments are handed on", || {
        let head: String = server.run(&["GETRANGE", "celery-task-meta-many", "0", "20"]);
        head.contains("SUCCESS").then_some(())
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.process.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 800 << 10, "two messages of 64 MiB at once took {peak} kB");
}

#[test]
fn messages_of_protocol_1_are_run_and_one_that_cannot_be_read_fails_under_its_id() {
    let server = RedisServer::start();
    let _worker = Worker::start(&server, ECHO, &[]);
    let message = |id: &str, body: &str| {
        format!(
            r#"{{"body": "{}", "content-type": "application/json", "properties": {{"body_encoding": "base64", "correlation_id": "{id}",
            "reply_to": "x", "delivery_info": {{"priority": 0, "routing_key": "default", "exchange": "default"}}, "delivery_mode": 2,
            "delivery_tag": "tag-{id}"}}, "content-encoding": "utf-8"}}"#,
            STANDARD.encode(body)
        )
    };
    let body = |id: &str| {
        format!(
            r#"{{"id": "{id}", "task": "echo", "args": [1], "kwargs": {{"a": 2}}, "retries": 0, "eta": null, "expires": null}}"#
        )
    };
    push(&server, message("go-1", &body("go-1")).as_bytes());
    let given = state(&server, "go-1", "SUCCESS").result.to_string();
    assert!(given.contains(r#""args":[1],"kwargs":{"a":2}"#), "{given}");
    push(&server, message("broken", "{").as_bytes());
    assert_eq!(state(&server, "broken", "FAILURE").exception().unwrap().exc_type, "DecodeError");
    let unknown = body("unknown").replace("echo", "no.such.task");
    push(&server, message("unknown", &unknown).as_bytes());
    assert_eq!(state(&server, "unknown", "FAILURE").exception().unwrap().exc_type, "NotRegistered");
    until("nothing is left in flight", || (in_flight(&server) == 0).then_some(()));
    assert_eq!(server.run::<u64>(&["XLEN", "crewjob:quarantine"]), 0);
}

#[test]
fn messages_with_lone_surrogates_bytes_that_are_not_utf8_or_a_charset_are_run() {
    let server = RedisServer::start();
    let _worker = Worker::start(&server, ECHO, &[]);
    let plain = |id: &str| {
        let mut envelope = Call::new("echo", id, "default").envelope();
        envelope.properties.priority = Some(0);
        envelope.headers.insert("file", "FILE");
        envelope.body = r#"[["FILE"], {}, null]"#.into();
        envelope.properties.body_encoding = None;
        String::from_utf8(envelope.encode()).unwrap()
    };
    let with = |id: &str, file: &[u8]| {
        let message = plain(id);
        let parts: Vec<&[u8]> = message.split("FILE").map(str::as_bytes).collect();
        parts.join(file)
    };
    push(&server, &with("surrogate", br"caf\udce9.pdf"));
    push(&server, &with("bytes", b"caf\xe9.pdf"));
    push(&server, plain("charset").replace("application/json", "application/json; charset=UTF-8").as_bytes());
    for id in ["surrogate", "bytes", "charset"] {
        let given = state(&server, id, "SUCCESS").result.to_string();
        assert!(given.contains("caf\u{fffd}.pdf") || id == "charset", "{given}");
    }
    push(&server, plain("latin").replace("application/json", "application/json; charset=latin-1").as_bytes());
    assert_eq!(state(&server, "latin", "FAILURE").exception().unwrap().exc_type, "ContentDisallowed");
    assert_eq!(server.run::<u64>(&["XLEN", "crewjob:quarantine"]), 0);
}

#[test]
fn a_native_result_of_many_values_is_an_argument_of_the_next_native_task() {
    let server = RedisServer::start();
    let tasks = r#"
tasks:
  many: {command: [python3, -c, 'print([0.5] * 300000)']}
  count: {command: [python3, -c, 'import json, sys; print(len(json.load(sys.stdin)["args"][0]))']}
"#;
    send_changed(&server, "many", "id-1", "[]", |call| {
        call.embed.chain = value(
            r#"[{"task": "count", "args": [], "kwargs": {}, "options": {"task_id": "id-2", "queue": "default"}}]"#,
        );
    });
    let _worker = Worker::start(&server, tasks, &[]);
    assert_eq!(state(&server, "id-2", "SUCCESS").result.to_string(), "300000");
}
