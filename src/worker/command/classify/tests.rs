use super::*;

const NOTHING: Done = Done { stopped: None, soft: false, hard: false };
const SOFT: Done = Done { soft: true, ..NOTHING };
const HARD: Done = Done { hard: true, ..NOTHING };
const STOPPED: Done = Done { stopped: Some(15), ..NOTHING };
const RULES: Rules<'_> =
    Rules { id: "7", output: Output::Json, retry_exit_codes: &[75, 3], hard: Some(Duration::from_secs(2)) };
const TEXT: Rules<'_> = Rules { output: Output::Text, ..RULES };

/// A command that wrote two lines to its standard error.
fn seen(exit: Exit, done: Done, printed: &str) -> Seen {
    let mut errors = Tail::default();
    errors.push("here".to_owned());
    errors.push("it broke".to_owned());
    Seen { exit, done, printed: Printed::Text(printed.into()), filed: None, errors, oom: false }
}

#[track_caller]
fn check(seen: &Seen, expected: &str) {
    check_by(&RULES, seen, expected);
}

/// `expected` names a failure by its module, its class and the arguments.
#[track_caller]
fn check_by(rules: &Rules<'_>, seen: &Seen, expected: &str) {
    let text = match classify(rules, seen) {
        Outcome::Succeeded(value) => format!("succeeded: {value}"),
        Outcome::Stopped { signal } => format!("stopped: {signal}"),
        Outcome::Failed { failure: Failure { exception, traceback }, retryable } => {
            let words = if exception.exc_type == "TimeLimitExceeded" { None } else { seen.errors.text() };
            assert_eq!(traceback, words, "the traceback");
            let Exception { exc_type, exc_message, exc_module } = exception;
            let module = exc_module.unwrap();
            let again = if retryable { "retryable: " } else { "" };
            format!("{again}{module}.{exc_type} {}", Value::from(exc_message))
        }
    };
    assert_eq!(text, expected, "{seen:?}");
}

#[test]
fn status_0_is_success() {
    check(&seen(Exit::Code(0), NOTHING, "[1.50,  2]"), "succeeded: [1.50,  2]");
    check(&seen(Exit::Code(0), NOTHING, ""), "succeeded: null");
    check_by(&TEXT, &seen(Exit::Code(0), NOTHING, "a \"b\"\n"), r#"succeeded: "a \"b\"\n""#);
}

#[test]
fn another_status_is_a_failure_with_the_last_words() {
    let failed = seen(Exit::Code(1), NOTHING, "[1]");
    check(&failed, r#"crewjob.worker.CommandFailed ["exit status 1: it broke"]"#);
    let silent = Seen { errors: Tail::default(), ..failed };
    check(&silent, r#"crewjob.worker.CommandFailed ["exit status 1"]"#);
}

#[test]
fn some_statuses_may_be_tried_again() {
    for code in [75, 3] {
        let busy = seen(Exit::Code(code), NOTHING, r#"{"error":{"type":"Busy","message":"later"}}"#);
        check(&busy, r#"retryable: crewjob.worker.Busy ["later"]"#);
    }
}

#[test]
fn a_command_may_name_its_failure() {
    let error = r#"{"error":{"type":"NoStock","message":"0 left"}}"#;
    let expected = r#"crewjob.worker.NoStock ["0 left"]"#;
    check(&seen(Exit::Code(1), NOTHING, error), expected);
    check_by(&TEXT, &seen(Exit::Code(1), NOTHING, &format!("a\n{error}\n\n")), expected);
    check(&seen(Exit::Code(0), NOTHING, error), expected);
    let value_error = r#"{"error":{"type":"ValueError","message":"no"}}"#;
    check(&seen(Exit::Code(1), NOTHING, value_error), r#"builtins.ValueError ["no"]"#);
}

#[test]
fn retry_beside_an_error_says_more_than_the_exit_status() {
    let error = |retry| format!(r#"{{"error":{{"type":"Busy","message":""}},"retry":{retry}}}"#);
    for code in [0, 1, 75] {
        check(&seen(Exit::Code(code), NOTHING, &error(true)), r#"retryable: crewjob.worker.Busy [""]"#);
        check(&seen(Exit::Code(code), NOTHING, &error(false)), r#"crewjob.worker.Busy [""]"#);
    }
}

#[test]
fn both_ways_to_return_a_value_mean_the_same() {
    check(&seen(Exit::Code(0), NOTHING, r#"{"result": [1,  2]}"#), "succeeded: [1,  2]");
    check(&seen(Exit::Code(0), NOTHING, r#"{"result": {"result": 1}}"#), r#"succeeded: {"result": 1}"#);
    check(&seen(Exit::Code(0), NOTHING, r#"{"result": 1, "cost": 2}"#), r#"succeeded: {"result": 1, "cost": 2}"#);
    check(&seen(Exit::Code(0), NOTHING, r#"{"error": "is a value"}"#), r#"succeeded: {"error": "is a value"}"#);
}

fn filed(seen: Seen, text: &str) -> Seen {
    Seen { filed: Some(Printed::Text(text.into())), ..seen }
}

#[test]
fn what_is_in_the_file_of_the_result_goes_before_what_was_printed() {
    let exit = |code| seen(Exit::Code(code), NOTHING, "bye");
    check(&filed(exit(0), "{\n  \"a\": 1\n}\n"), "succeeded: {\n  \"a\": 1\n}");
    check(&filed(exit(0), r#"{"result": 1}"#), "succeeded: 1");
    check_by(&TEXT, &filed(exit(0), "a\nb\n"), r#"succeeded: "a\nb\n""#);
    let error = "{\n  \"error\": {\"type\": \"NoStock\", \"message\": \"0\"}\n}\n";
    check(&filed(exit(1), error), r#"crewjob.worker.NoStock ["0"]"#);
    check(&filed(exit(0), error), r#"crewjob.worker.NoStock ["0"]"#);
    let flaw = "the file of the result is no JSON that Celery can carry: expected a value at byte 0: done";
    check(&filed(exit(0), "done"), &format!("crewjob.worker.InvalidResult {}", Value::from(vec![flaw])));
    check(&filed(seen(Exit::Code(0), SOFT, "bye"), "[1]"), "succeeded: [1]");
}

#[test]
fn json_that_other_lines_follow_is_a_result_unless_the_command_was_told_to_stop() {
    let followed = |done| Seen { printed: Printed::Followed("[1]".into()), ..seen(Exit::Code(0), done, "") };
    check(&followed(NOTHING), "succeeded: [1]");
    check(&followed(SOFT), "billiard.exceptions.SoftTimeLimitExceeded []");
}

#[test]
fn a_result_that_celery_cannot_carry_is_a_failure() {
    let invalid = |flaw: &str| {
        let what = "the last line of standard output is no JSON that Celery can carry";
        let advice = "print the result in one line, as `jq -c` does, or write it to the file that CREWJOB_RESULT names";
        format!("crewjob.worker.InvalidResult {}", Value::from(vec![format!("{what}: {flaw}: {advice}")]))
    };
    check(&seen(Exit::Code(0), NOTHING, "done"), &invalid("expected a value at byte 0: done"));
    let binary = Seen { printed: Printed::Text(vec![b'a', 0xff]), ..seen(Exit::Code(0), NOTHING, "") };
    check(&binary, &invalid("invalid utf-8 sequence of 1 bytes from index 1: a\u{fffd}"));
}

#[test]
fn a_result_that_is_too_large_is_a_failure() {
    let advice = "store it elsewhere, and return where";
    let large = Seen { printed: Printed::TooLarge(9), ..seen(Exit::Code(0), NOTHING, "") };
    let expected =
        |what| format!(r#"crewjob.worker.ResultTooLarge ["{what} of more than 9 bytes on standard output: {advice}"]"#);
    check(&large, &expected("a value"));
    check_by(&TEXT, &large, &expected("text"));
    let failed = Seen { exit: Exit::Code(75), ..large };
    check(&failed, r#"retryable: crewjob.worker.CommandFailed ["exit status 75: it broke"]"#);
}

#[test]
fn a_signal_that_the_worker_did_not_send_is_a_lost_worker() {
    for (signal, name) in [(9, "SIGKILL"), (11, "SIGSEGV"), (15, "SIGTERM"), (31, "SIGSYS"), (40, "unknown")] {
        let says = format!("Worker exited prematurely: signal {signal} ({name}) Job: 7.");
        let lost = seen(Exit::Signal(signal), NOTHING, "[1]");
        check(&lost, &format!(r#"billiard.exceptions.WorkerLostError ["{says}"]"#));
    }
}

#[test]
fn running_out_of_memory_is_told() {
    let oom = |exit, done| Seen { oom: true, ..seen(exit, done, "") };
    let says = "Worker exited prematurely: signal 9 (SIGKILL) Job: 7. It ran out of memory.";
    let lost = format!(r#"billiard.exceptions.WorkerLostError ["{says}"]"#);
    check(&oom(Exit::Signal(9), NOTHING), &lost);
    let wrapped = oom(Exit::Code(137), NOTHING);
    check(&wrapped, r#"crewjob.worker.CommandFailed ["exit status 137 (out of memory): it broke"]"#);
    assert!(wrapped.oom_killed() && oom(Exit::Signal(9), NOTHING).oom_killed());
    for (exit, done) in
        [(Exit::Code(1), NOTHING), (Exit::Signal(15), NOTHING), (Exit::Signal(9), HARD), (Exit::Signal(9), STOPPED)]
    {
        assert!(!oom(exit, done).oom_killed(), "another process was killed: {exit:?}, {done:?}");
    }
}

#[test]
fn after_the_soft_limit_only_a_result_is_success() {
    for (exit, printed) in [
        (Exit::Signal(15), "[1]"),
        (Exit::Signal(9), ""),
        (Exit::Code(1), "[1]"),
        (Exit::Code(75), ""),
        (Exit::Code(0), ""),
        (Exit::Code(0), "bye"),
        (Exit::Unknown, "[1]"),
    ] {
        check(&seen(exit, SOFT, printed), "billiard.exceptions.SoftTimeLimitExceeded []");
    }
    check(&seen(Exit::Code(0), SOFT, "[1]"), "succeeded: [1]");
}

#[test]
fn after_the_hard_limit_nothing_is_success() {
    for done in [HARD, Done { soft: true, ..HARD }] {
        for exit in [Exit::Signal(9), Exit::Code(0), Exit::Code(75)] {
            check(&seen(exit, done, "[1]"), "billiard.exceptions.TimeLimitExceeded [2]");
        }
    }
}

#[test]
fn a_command_that_is_stopped_counts_as_stopped_whatever_it_exits_with() {
    for done in [STOPPED, Done { soft: true, ..STOPPED }] {
        for exit in [Exit::Signal(15), Exit::Signal(9), Exit::Code(0), Exit::Code(75), Exit::Unknown] {
            check(&seen(exit, done, "[1]"), "stopped: 15");
        }
    }
}

#[test]
fn an_unknown_exit_status_is_a_failure() {
    let unknown = seen(Exit::Unknown, NOTHING, "[1]");
    check(&unknown, r#"crewjob.worker.CommandFailed ["its exit status is unknown"]"#);
}
