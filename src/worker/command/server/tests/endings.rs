//! Servers that end, or have to.

use super::*;

#[tokio::test]
async fn a_foreign_line_is_logged_and_neither_ends_the_call_nor_the_program() {
    let mut server = python(100);
    let (process, _) = answered_by(&mut server).await;
    for what in ["foreign", "foreign after"] {
        let report = ask(&mut server, &asking([what])).await;
        assert_eq!(report.outcome, Outcome::Succeeded(RawJson::new("1").unwrap()), "{what}");
    }
    assert_eq!(answered_by(&mut server).await, (process, 4));
}

#[tokio::test]
async fn an_answer_that_is_none_kills_the_program_and_the_next_call_starts_another() {
    let mut server = python(100);
    for (what, kind, says) in [
        ("malformed", "InvalidResult", "has the keys of an answer and is none: {\"error\": \"no type\"}"),
        ("long", "ResultTooLarge", "more than 1000 bytes"),
    ] {
        server.bounds.output = 1000;
        server.child = None;
        let (process, _) = answered_by(&mut server).await;
        let (told, message, retryable) = failure(&ask(&mut server, &asking([what])).await);
        assert_eq!((told.as_str(), retryable), (kind, false));
        assert!(message.contains(says), "{message}");
        until(|| !lives(process)).await;
        assert_eq!(answered_by(&mut server).await.1, 1);
    }
}

#[tokio::test]
async fn the_failure_of_a_server_that_ends_in_a_call_names_its_exit_status() {
    let mut server = python(100);
    let exit = |code: i64| asking([Value::from("exit"), code.into()]);
    let told = failure(&ask(&mut server, &exit(3)).await);
    assert_eq!(told, ("CommandFailed".to_owned(), "exit status 3".to_owned(), false));
    assert!(failure(&ask(&mut server, &exit(75)).await).2);
    let told = failure(&ask(&mut server, &exit(0)).await);
    assert_eq!(told, ("InvalidResult".to_owned(), "the server ended in the middle of a call".to_owned(), false));
    let (kind, message, _) = failure(&ask(&mut server, &asking([Value::from("kill"), 9.into()])).await);
    assert_eq!(
        (kind.as_str(), message.as_str()),
        ("WorkerLostError", "Worker exited prematurely: signal 9 (SIGKILL) Job: c0ffee.")
    );
    let (kind, message, _) = failure(&ask(&mut server, &asking(["mute"])).await);
    assert_eq!(
        (kind.as_str(), message.as_str()),
        ("InvalidResult", "the server closed its pipes in the middle of a call")
    );
    assert_eq!(answered_by(&mut server).await.1, 1);
}

#[tokio::test]
async fn a_call_that_meets_the_end_of_its_server_may_be_tried_again() {
    let mut server = python(100);
    answered_by(&mut server).await;
    let told = failure(&ask(&mut server, &asking([Value::from("exit"), 0.into()])).await);
    assert_eq!(told, ("InvalidResult".to_owned(), "the server ended in the middle of a call".to_owned(), true));
}

#[tokio::test]
async fn an_answer_counts_although_the_server_ends_with_it() {
    let mut server = python(100);
    let report = ask(&mut server, &asking(["answer and exit"])).await;
    assert_eq!(report.outcome, Outcome::Succeeded(RawJson::new("\"bye\"").unwrap()));
    until(|| has_ended(&server)).await;
    assert_eq!(answered_by(&mut server).await.1, 1);
}

#[tokio::test]
async fn an_answer_counts_that_is_read_after_the_end() {
    let mut server = shell("read call; echo '{\"result\":1}'");
    let (_stop, stopped) = oneshot::channel();
    let (started, process) = oneshot::channel();
    let reports = Reports::default();
    let call = identify();
    let hold = async {
        let process = process.await.unwrap();
        // Blocks the one thread of the test, so that answer and end are seen together.
        while lives(process) {
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let (report, ()) = bounded(async { tokio::join!(server.call(&call, stopped, started, &reports), hold) }).await;
    assert_eq!(report.outcome, Outcome::Succeeded(RawJson::new("1").unwrap()));
}

#[tokio::test]
async fn a_server_that_dies_between_calls_is_replaced() {
    let mut server = python(100);
    let (process, _) = answered_by(&mut server).await;
    server.child.as_mut().unwrap().group.signal(Signal::KILL);
    until(|| has_ended(&server)).await;
    let (other, count) = answered_by(&mut server).await;
    assert_eq!(count, 1);
    assert_ne!(process, other);
}

#[tokio::test]
async fn a_server_that_no_longer_reads_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("closed");
    let script = format!("read call; exec 0<&-; echo > {}; echo '{{\"result\":1}}'; sleep 3600", file.display());
    let mut server = Server::new(Spec::new(["/bin/sh", "-c", &script]), 100);
    let one = ask(&mut server, &identify()).await;
    let other = ask(&mut server, &identify()).await;
    assert_eq!(one.outcome, other.outcome);
    assert_ne!(one.pid, other.pid);
}

#[tokio::test]
async fn limits_have_the_outcomes_of_other_commands() {
    let mut server = python(100);
    let soon = Some(Duration::from_secs(1));
    answered_by(&mut server).await;
    let soft = ask(&mut server, &Call { soft: soon, ..asking(["sleep"]) }).await;
    assert_eq!(failure(&soft).0, "SoftTimeLimitExceeded");
    answered_by(&mut server).await;
    let limited = Call { soft: soon, hard: Some(Duration::from_millis(1500)), ..asking(["stubborn"]) };
    assert_eq!(failure(&ask(&mut server, &limited).await).1, "TimeLimitExceeded(1.5,)");
    answered_by(&mut server).await;
    let in_time = ask(&mut server, &Call { soft: soon, ..asking(["in time"]) }).await;
    assert_eq!(in_time.outcome, Outcome::Succeeded(RawJson::new("\"in time\"").unwrap()));
    assert_ne!(answered_by(&mut server).await.0, in_time.pid.unwrap());
}

#[tokio::test]
async fn a_stop_ends_the_server() {
    for what in ["sleep", "in time"] {
        let mut server = python(100);
        let (stop, stopped) = oneshot::channel();
        let (started, _) = oneshot::channel();
        let reports = Reports::default();
        let mut latest = reports.progress.subscribe();
        let call = asking([what]);
        let ask = async {
            latest.changed().await.unwrap();
            stop.send(15).unwrap();
        };
        let (report, ()) = bounded(async { tokio::join!(server.call(&call, stopped, started, &reports), ask) }).await;
        assert_eq!(report.outcome, Outcome::Stopped { signal: 15 });
        assert_ne!(answered_by(&mut server).await.0, report.pid.unwrap());
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_kills_the_server() {
    let mut server = python(100);
    let (process, _) = answered_by(&mut server).await;
    let call = asking(["sleep"]);
    let (_stop, stopped) = oneshot::channel();
    let (started, _) = oneshot::channel();
    let reports = Reports::default();
    let mut latest = reports.progress.subscribe();
    tokio::select! {
        _ = server.call(&call, stopped, started, &reports) => panic!("it sleeps"),
        changed = latest.changed() => changed.unwrap(),
    }
    until(|| !lives(process)).await;
    assert_eq!(answered_by(&mut server).await.1, 1);
}

#[tokio::test]
async fn a_dropped_server_is_killed() {
    let mut server = python(100);
    let (process, _) = answered_by(&mut server).await;
    drop(server);
    until(|| !lives(process)).await;
}

#[tokio::test]
async fn a_command_that_is_no_server_fails_with_the_reason() {
    let mut missing = Server::new(Spec::new(["no-such-command"]), 100);
    assert_eq!(failure(&ask(&mut missing, &identify()).await).0, "CommandNotFound");
    let mut failing = Server::new(Spec::new(["false"]), 100);
    assert_eq!(failure(&ask(&mut failing, &identify()).await).1, "exit status 1");
    let mut silent = Server::new(Spec::new(["true"]), 100);
    assert_eq!(failure(&ask(&mut silent, &identify()).await).1, "the server ended in the middle of a call");
}
