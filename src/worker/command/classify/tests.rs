use expect_test::{Expect, expect};

use super::*;

const NOTHING: Done = Done { stopped: None, soft: false, hard: false };
const SOFT: Done = Done { soft: true, ..NOTHING };
const HARD: Done = Done { hard: true, ..NOTHING };
const STOPPED: Done = Done { stopped: Some(15), ..NOTHING };

fn seen(exit: Exit, done: Done, printed: &str) -> Seen {
    let mut errors = Tail::default();
    errors.push("here".to_owned());
    errors.push("it broke".to_owned());
    Seen { exit, done, printed: Printed::Text(printed.into()), errors, oom: false }
}

#[track_caller]
fn check(seen: &Seen, expected: &Expect) {
    check_as(Output::Json, seen, expected);
}

#[track_caller]
fn check_as(output: Output, seen: &Seen, expected: &Expect) {
    let rules = Rules { id: "7", output, retry_exit_codes: &[75, 3], hard: Some(Duration::from_secs(2)) };
    let text = match classify(&rules, seen) {
        Outcome::Succeeded(value) => format!("succeeded: {value}"),
        Outcome::Stopped { signal } => format!("stopped: {signal}"),
        Outcome::Failed { failure: Failure { exception, traceback }, retryable } => format!(
            "{}: {}.{} {}; traceback {traceback:?}",
            if retryable { "failed, retryable" } else { "failed" },
            exception.exc_module.as_deref().unwrap_or_default(),
            exception.exc_type,
            Value::from(exception.exc_message.clone()),
        ),
    };
    expected.assert_eq(&text);
}

#[test]
fn status_0_is_success() {
    check(&seen(Exit::Code(0), NOTHING, "[1.50,  2]"), &expect!["succeeded: [1.50,  2]"]);
    check(&seen(Exit::Code(0), NOTHING, ""), &expect!["succeeded: null"]);
    check_as(Output::Text, &seen(Exit::Code(0), NOTHING, "a \"b\"\n"), &expect![[r#"succeeded: "a \"b\"\n""#]]);
}

#[test]
fn another_status_is_a_failure_with_the_last_words() {
    check(
        &seen(Exit::Code(1), NOTHING, "[1]"),
        &expect![[
            r#"failed: crewjob.worker.CommandFailed ["exit status 1: it broke"]; traceback Some("here\nit broke")"#
        ]],
    );
    let silent = Seen { errors: Tail::default(), ..seen(Exit::Code(1), NOTHING, "") };
    check(&silent, &expect![[r#"failed: crewjob.worker.CommandFailed ["exit status 1"]; traceback None"#]]);
}

#[test]
fn some_statuses_may_be_tried_again() {
    for code in [75, 3] {
        let outcome = seen(Exit::Code(code), NOTHING, r#"{"error":{"type":"Busy","message":"later"}}"#);
        check(
            &outcome,
            &expect![[r#"failed, retryable: crewjob.worker.Busy ["later"]; traceback Some("here\nit broke")"#]],
        );
    }
}

#[test]
fn a_command_may_name_its_failure() {
    let error = r#"{"error":{"type":"NoStock","message":"0 left"}}"#;
    let expected = expect![[r#"failed: crewjob.worker.NoStock ["0 left"]; traceback Some("here\nit broke")"#]];
    check(&seen(Exit::Code(1), NOTHING, error), &expected);
    check_as(Output::Text, &seen(Exit::Code(1), NOTHING, &format!("a\n{error}\n\n")), &expected);
    check(
        &seen(Exit::Code(0), NOTHING, error),
        &expect![[r#"succeeded: {"error":{"type":"NoStock","message":"0 left"}}"#]],
    );
}

#[test]
fn a_result_that_celery_cannot_carry_is_a_failure() {
    check(
        &seen(Exit::Code(0), NOTHING, "done"),
        &expect![[
            r#"failed: crewjob.worker.InvalidResult ["the last line of standard output is no JSON that Celery can carry: expected a value at byte 0: done"]; traceback Some("here\nit broke")"#
        ]],
    );
    let binary = Seen { printed: Printed::Text(vec![b'"', 0xff, b'"']), ..seen(Exit::Code(0), NOTHING, "") };
    check(
        &binary,
        &expect![[
            r#"failed: crewjob.worker.InvalidResult ["the last line of standard output is no JSON that Celery can carry: invalid utf-8 sequence of 1 bytes from index 1: \"�\""]; traceback Some("here\nit broke")"#
        ]],
    );
    let long = Seen { printed: Printed::TooLarge(9), ..seen(Exit::Code(0), NOTHING, "") };
    check(
        &long,
        &expect![[
            r#"failed: crewjob.worker.ResultTooLarge ["a line of more than 9 bytes on standard output: store it elsewhere, and return where"]; traceback Some("here\nit broke")"#
        ]],
    );
}

#[test]
fn an_exit_status_counts_more_than_what_was_printed() {
    let long = Seen { printed: Printed::TooLarge(9), ..seen(Exit::Code(75), NOTHING, "") };
    check(
        &long,
        &expect![[
            r#"failed, retryable: crewjob.worker.CommandFailed ["exit status 75: it broke"]; traceback Some("here\nit broke")"#
        ]],
    );
}

#[test]
fn a_signal_that_nobody_here_sent_is_a_lost_worker() {
    check(
        &seen(Exit::Signal(9), NOTHING, "[1]"),
        &expect![[
            r#"failed: billiard.exceptions.WorkerLostError ["Worker exited prematurely: signal 9 (SIGKILL) Job: 7."]; traceback Some("here\nit broke")"#
        ]],
    );
    check(
        &seen(Exit::Signal(11), NOTHING, ""),
        &expect![[
            r#"failed: billiard.exceptions.WorkerLostError ["Worker exited prematurely: signal 11 (SIGSEGV) Job: 7."]; traceback Some("here\nit broke")"#
        ]],
    );
    check(
        &seen(Exit::Signal(40), NOTHING, ""),
        &expect![[
            r#"failed: billiard.exceptions.WorkerLostError ["Worker exited prematurely: signal 40 (unknown) Job: 7."]; traceback Some("here\nit broke")"#
        ]],
    );
}

#[test]
fn running_out_of_memory_is_told() {
    let oom = |exit, done| Seen { oom: true, ..seen(exit, done, "") };
    check(
        &oom(Exit::Signal(9), NOTHING),
        &expect![[
            r#"failed: billiard.exceptions.WorkerLostError ["Worker exited prematurely: signal 9 (SIGKILL) Job: 7. It ran out of memory."]; traceback Some("here\nit broke")"#
        ]],
    );
    check(
        &oom(Exit::Code(137), NOTHING),
        &expect![[
            r#"failed: crewjob.worker.CommandFailed ["exit status 137 (out of memory): it broke"]; traceback Some("here\nit broke")"#
        ]],
    );
    assert!(oom(Exit::Signal(9), NOTHING).oom_killed());
    for other in [
        oom(Exit::Code(1), NOTHING),
        oom(Exit::Signal(15), NOTHING),
        oom(Exit::Signal(9), HARD),
        oom(Exit::Signal(9), STOPPED),
    ] {
        assert!(!other.oom_killed(), "somebody else was killed: {other:?}");
    }
}

#[test]
fn after_the_soft_limit_only_a_result_is_success() {
    let expected =
        expect![[r#"failed: billiard.exceptions.SoftTimeLimitExceeded []; traceback Some("here\nit broke")"#]];
    for (exit, printed) in [
        (Exit::Signal(15), "[1]"),
        (Exit::Signal(9), ""),
        (Exit::Code(1), "[1]"),
        (Exit::Code(75), ""),
        (Exit::Code(0), ""),
        (Exit::Code(0), "bye"),
        (Exit::Unknown, "[1]"),
    ] {
        check(&seen(exit, SOFT, printed), &expected);
    }
    check(&seen(Exit::Code(0), SOFT, "[1]"), &expect!["succeeded: [1]"]);
}

#[test]
fn after_the_hard_limit_nothing_is_success() {
    for done in [HARD, Done { soft: true, ..HARD }] {
        for exit in [Exit::Signal(9), Exit::Code(0), Exit::Code(75)] {
            check(
                &seen(exit, done, "[1]"),
                &expect!["failed: billiard.exceptions.TimeLimitExceeded [2]; traceback None"],
            );
        }
    }
}

#[test]
fn who_is_stopped_is_stopped_whatever_it_exits_with() {
    for done in [STOPPED, Done { soft: true, ..STOPPED }] {
        for exit in [Exit::Signal(15), Exit::Signal(9), Exit::Code(0), Exit::Code(75), Exit::Unknown] {
            check(&seen(exit, done, "[1]"), &expect!["stopped: 15"]);
        }
    }
}

#[test]
fn a_status_that_nobody_knows_is_a_failure() {
    check(
        &seen(Exit::Unknown, NOTHING, "[1]"),
        &expect![[
            r#"failed: crewjob.worker.CommandFailed ["its exit status is unknown"]; traceback Some("here\nit broke")"#
        ]],
    );
}
