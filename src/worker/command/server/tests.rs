//! Real servers, in the shell and in Python.

mod endings;

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;

use super::*;
use crate::wire::{Object, RawJson, Value};

const PATIENCE: Duration = Duration::from_mins(1);

/// Answers each call by what its first argument says.
const SERVER: &str = r#"
import json, os, signal, sys, time
def say(line):
    print(line, flush=True)
for count, line in enumerate(sys.stdin, 1):
    call = json.loads(line)
    what = call["args"][0] if call["args"] else None
    if what == "progress":
        say('{"progress": 50}')
    if what == "fail":
        print("it broke", file=sys.stderr)
        say('{"error": {"type": "NoStock", "message": "0 left"}, "retry": %s}' % json.dumps(call["args"][1]))
    elif what == "malformed":
        say('{"error": "no type"}')
    elif what == "foreign":
        say('loading\n{"level": "info"}\n{"result": 1}')
    elif what == "foreign after":
        say('{"result": 1}\ntraces are in /tmp')
        os.write(1, b"a line between two calls\n")
    elif what == "nan":
        say('{"result": NaN}')
    elif what == "long":
        say('{"result": "%s"}' % ("x" * 2000))
    elif what == "exit":
        sys.exit(call["args"][1])
    elif what == "kill":
        os.kill(os.getpid(), call["args"][1])
    elif what == "sleep":
        say('{"progress": 0}')
        time.sleep(3600)
    elif what == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say('{"progress": 0}')
        time.sleep(3600)
    elif what == "in time":
        def answer(*_):
            say('{"result": "in time"}')
        signal.signal(signal.SIGTERM, answer)
        say('{"progress": 0}')
        signal.pause()
    elif what == "answer and exit":
        say('{"result": "bye"}')
        sys.exit(0)
    elif what == "answer twice":
        say('{"result": 1}\n{"result": 2}')
    elif what == "mute":
        os.close(1)
        time.sleep(3600)
    else:
        say(json.dumps({"result": [os.getpid(), count]}))
"#;

fn python(max_calls: u32) -> Server {
    Server::new(Spec::new(["python3", "-c", SERVER]), max_calls)
}

fn shell(script: &str) -> Server {
    Server::new(Spec { grace: Duration::from_millis(300), ..Spec::new(["/bin/sh", "-c", script]) }, 2)
}

fn asking<T: Into<Value>>(args: impl IntoIterator<Item = T>) -> Call {
    Call {
        task: "shop.ship".to_owned(),
        id: "c0ffee".to_owned(),
        args: args.into_iter().map(Into::into).collect(),
        kwargs: Object::new(),
        job: None,
        idempotency_key: "c0ffee".to_owned(),
        retries: 0,
        worker: "native@host".to_owned(),
        soft: None,
        hard: None,
        state_dir: None,
        trace: Object::new(),
    }
}

fn identify() -> Call {
    asking(["identify"])
}

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("a test that ends")
}

async fn ask(server: &mut Server, call: &Call) -> Report {
    let (_stop, stopped) = oneshot::channel();
    let (started, _) = oneshot::channel();
    let reports = Reports::default();
    bounded(server.call(call, stopped, started, &reports)).await
}

/// The process that answered, and how many calls it has had.
async fn answered_by(server: &mut Server) -> (u32, i64) {
    let report = ask(server, &identify()).await;
    let Outcome::Succeeded(value) = &report.outcome else { panic!("{report:?}") };
    let value = Value::parse(value.as_str().as_bytes()).unwrap();
    let [process, count] = value.as_array().unwrap() else { panic!("{value}") };
    assert_eq!(process.as_i64().map(u32::try_from), report.pid.map(Ok));
    (report.pid.unwrap(), count.as_i64().unwrap())
}

/// Type and message of a failure, and whether it may be tried again.
#[track_caller]
fn failure(report: &Report) -> (String, String, bool) {
    match &report.outcome {
        Outcome::Failed { failure, retryable } => {
            (failure.exception.exc_type.clone(), failure.exception.message(), *retryable)
        }
        other @ (Outcome::Succeeded(_) | Outcome::Stopped { .. }) => panic!("{other:?}"),
    }
}

async fn until(condition: impl Fn() -> bool) {
    bounded(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

fn lives(process: u32) -> bool {
    Path::new(&format!("/proc/{process}/exe")).read_link().is_ok()
}

fn has_ended(server: &Server) -> bool {
    server.child.as_ref().is_none_or(|child| child.group.has_ended())
}

#[tokio::test]
async fn one_process_serves_many_calls() {
    let mut server = python(100);
    let (process, first) = answered_by(&mut server).await;
    assert_eq!((first, answered_by(&mut server).await), (1, (process, 2)));
    bounded(server.close()).await;
    assert!(!lives(process));
}

#[tokio::test]
async fn progress_and_the_process_are_told() {
    let mut server = python(100);
    let (_stop, stopped) = oneshot::channel();
    let (started, process) = oneshot::channel();
    let reports = Reports::default();
    let latest = reports.progress.subscribe();
    let report = bounded(server.call(&asking(["progress"]), stopped, started, &reports)).await;
    assert_eq!(latest.borrow().as_ref().map(RawJson::as_str), Some("50"));
    assert_eq!(process.await.ok(), report.pid);
    assert!(report.memory.unwrap().peak.unwrap() > 1 << 20);
}

#[tokio::test]
async fn an_error_says_whether_to_try_again_and_ends_nothing() {
    let mut server = python(100);
    let (process, _) = answered_by(&mut server).await;
    for retry in [true, false] {
        let report = ask(&mut server, &asking([Value::from("fail"), retry.into()])).await;
        assert_eq!(failure(&report), ("NoStock".to_owned(), "0 left".to_owned(), retry));
        let Outcome::Failed { failure, .. } = report.outcome else { panic!() };
        assert_eq!(failure.traceback.as_deref(), Some("it broke"));
    }
    assert_eq!(answered_by(&mut server).await, (process, 4));
}

#[tokio::test]
async fn a_server_is_replaced_after_its_calls() {
    let mut server = python(2);
    let (one, _) = answered_by(&mut server).await;
    assert_eq!(answered_by(&mut server).await, (one, 2));
    let (other, count) = answered_by(&mut server).await;
    assert_ne!(one, other);
    assert_eq!(count, 1);
    until(|| !lives(one)).await;
}

#[tokio::test]
async fn a_server_that_does_not_exit_when_its_input_ends_is_terminated_and_then_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("term");
    let mut polite = shell(&format!(
        "trap 'echo told > {}; exit' TERM; read call; echo '{{\"result\":1}}'; while :; do sleep 0.01; done",
        file.display()
    ));
    let report = ask(&mut polite, &identify()).await;
    bounded(polite.close()).await;
    assert_eq!(std::fs::read_to_string(file).unwrap(), "told\n");
    assert!(!lives(report.pid.unwrap()));

    let mut stubborn = shell("trap '' TERM; read call; echo '{\"result\":1}'; sleep 3600; sleep 3600");
    let report = ask(&mut stubborn, &identify()).await;
    bounded(stubborn.close()).await;
    assert!(!lives(report.pid.unwrap()));
}

#[tokio::test]
async fn a_server_that_is_closed_sees_the_end_of_its_input_first_and_may_write_much() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ended");
    let script = format!(
        "while read call; do echo '{{\"result\":1}}'; done; head -c 1M /dev/zero >&2; echo by itself > {}",
        file.display()
    );
    let mut server = Server::new(Spec::new(["/bin/sh", "-c", &script]), 100);
    ask(&mut server, &identify()).await;
    bounded(server.close()).await;
    assert_eq!(std::fs::read_to_string(file).unwrap(), "by itself\n");
}

#[tokio::test]
async fn a_result_that_celery_cannot_carry_fails_its_call_only() {
    let mut server = python(100);
    let (process, _) = answered_by(&mut server).await;
    let (kind, message, _) = failure(&ask(&mut server, &asking(["nan"])).await);
    assert_eq!(kind, "InvalidResult");
    assert!(message.contains("expected a finite number"), "{message}");
    assert_eq!(answered_by(&mut server).await, (process, 3));
}

#[tokio::test]
async fn a_server_that_writes_without_a_call_is_replaced() {
    let mut server = python(100);
    let (process, _) = answered_by(&mut server).await;
    assert_eq!(
        ask(&mut server, &asking(["answer twice"])).await.outcome,
        Outcome::Succeeded(RawJson::new("1").unwrap())
    );
    let (other, count) = answered_by(&mut server).await;
    assert_eq!(count, 1);
    assert_ne!(process, other);
}
