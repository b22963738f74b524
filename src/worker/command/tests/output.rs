//! What goes in and what comes out.

use super::*;

#[tokio::test]
async fn a_command_reads_its_call_as_one_line_and_then_the_end() {
    let expected = concat!(
        r#"{"task":"shop.ship","id":"c0ffee","args":["parcel",2],"kwargs":{"express":true},"#,
        r#""job":null,"idempotency_key":"c0ffee","retries":1,"worker":"native@host","time_limit":60,"soft_time_limit":1.5,"state_dir":null}"#
    );
    let limited = Call { hard: Some(Duration::from_mins(1)), soft: Some(Duration::from_millis(1500)), ..call() };
    let report = report_within(&Bounds::usual(), &shell("cat"), &limited).await;
    assert_eq!(report.outcome, succeeded(expected));
}

#[tokio::test]
async fn a_command_finds_its_call_in_the_environment() {
    let names = "$CREWJOB_TASK $CREWJOB_TASK_ID $CREWJOB_RETRIES $CREWJOB_WORKER $MORE ${PATH:+p}";
    let mut spec = shell(&format!(r#"echo "\"{names}\"""#));
    spec.env = vec![("MORE".to_owned(), "more".to_owned()), ("CREWJOB_TASK".to_owned(), "no".to_owned())];
    assert_eq!(outcome(&spec).await, succeeded("\"shop.ship c0ffee 1 native@host more p\""));
}

#[tokio::test]
async fn a_command_finds_its_job_and_its_arguments_in_the_environment() {
    let job = Job { name: "report".into(), namespace: "team".into(), uid: "u-1".into() };
    let call = Call { job: Some(job), idempotency_key: "first".into(), ..call() };
    let names = "$CREWJOB_NAMESPACE/$CREWJOB_NAME $CREWJOB_UID $CREWJOB_IDEMPOTENCY_KEY";
    let spec =
        shell(&format!(r#"echo "\"{names} $CREWJOB_ARGS_0 $CREWJOB_KWARGS_express ${{CREWJOB_ARGS_9-none}}\"""#));
    let expected = succeeded("\"team/report u-1 first parcel true none\"");
    assert_eq!(report_within(&Bounds::usual(), &spec, &call).await.outcome, expected);
}

#[tokio::test]
async fn a_command_finds_the_span_that_its_message_names_where_processes_look_for_one() {
    let spec = shell(r#"echo "\"${TRACEPARENT-none} ${TRACESTATE-none}\"""#);
    assert_eq!(report_within(&Bounds::usual(), &spec, &call()).await.outcome, succeeded("\"none none\""));
    let call = Call {
        state_dir: None,
        trace: Object::new().with("traceparent", "00-a-b-01").with("tracestate", "c=d"),
        ..call()
    };
    assert_eq!(report_within(&Bounds::usual(), &spec, &call).await.outcome, succeeded("\"00-a-b-01 c=d\""));
}

#[tokio::test]
async fn an_argument_of_the_call_is_one_argument_of_the_command_whatever_is_in_it() {
    let spec = Spec::new(["printf", "[\"%s\", \"%s\"]", "{{args.0}}; $HOME", "{{kwargs.express}}"]);
    assert_eq!(outcome(&spec).await, succeeded(r#"["parcel; $HOME", "true"]"#));
    let (kind, message) = refused(outcome(&Spec::new(["echo", "{{kwargs.size}}"])).await);
    assert_eq!(kind, "ArgumentMissing");
    assert!(message.starts_with("kwargs.size is not among the arguments"), "{message}");
}

#[tokio::test]
async fn a_result_may_be_written_to_a_file_whatever_is_printed() {
    let script = r#"echo '{"progress": 1}'; echo start; printf '{\n  "a": 1\n}\n' > "$CREWJOB_RESULT"; echo bye"#;
    assert_eq!(outcome(&shell(script)).await, succeeded("{\n  \"a\": 1\n}"));
    let spec = Spec { output: Output::Text, ..shell("echo start; echo text > $CREWJOB_RESULT") };
    assert_eq!(outcome(&spec).await, succeeded(r#""text\n""#));
    let script = r#"echo '{"error": {"type": "NoStock", "message": "0"}, "retry": true}' > $CREWJOB_RESULT; exit 1"#;
    let (failure, retryable) = failure(outcome(&shell(script)).await);
    assert_eq!((failure.exception.exc_type.as_str(), retryable), ("NoStock", true));
    let large = "head -c 17M /dev/zero > $CREWJOB_RESULT; echo 1";
    assert_eq!(refused(outcome(&shell(large)).await).0, "ResultTooLarge");
    let path = outcome(&shell(r#"echo 1 > "$CREWJOB_RESULT"; echo "{\"result\": \"$CREWJOB_RESULT\"}""#)).await;
    assert_eq!(path, succeeded("1"));
}

#[tokio::test]
async fn the_file_of_a_result_goes_with_its_run() {
    let Outcome::Succeeded(path) = outcome(&shell(r#"echo "\"$CREWJOB_RESULT\"""#)).await else { panic!() };
    let path = path.as_str().trim_matches('"');
    assert!(path.contains("/crewjob-"), "{path}");
    outcome(&shell(r#"mkfifo "$CREWJOB_RESULT"; echo 1"#)).await;
    let folder = std::path::Path::new(path).parent().unwrap();
    until(|| std::fs::read_dir(folder).unwrap().count() == 0).await;
}

#[tokio::test]
async fn a_pretty_printed_result_and_lines_after_a_result_are_accepted() {
    let pretty = r#"echo loading; printf '{\n  "a": [\n    1\n  ]\n}\n'"#;
    assert_eq!(outcome(&shell(pretty)).await, succeeded("{\n  \"a\": [\n    1\n  ]\n}"));
    assert_eq!(outcome(&shell(&format!("{pretty}; echo bye"))).await, succeeded("{\n  \"a\": [\n    1\n  ]\n}"));
    assert_eq!(
        outcome(&shell(r#"echo '{"result": "paid"}'; echo traces are in /tmp; echo 7"#)).await,
        succeeded("\"paid\"")
    );
}

#[tokio::test]
async fn a_process_between_the_command_and_its_output_passes_on_the_last_line() {
    let spec = Spec::new(["/bin/bash", "-c", "exec > >(sleep 0.05; cat); echo 1"]);
    assert_eq!(outcome(&spec).await, succeeded("1"));
}

#[tokio::test]
async fn a_command_runs_where_its_task_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = shell(r#"printf '"%s"' "$(pwd -P)""#);
    spec.directory = Some(folder.path().canonicalize().unwrap());
    let Outcome::Succeeded(value) = outcome(&spec).await else { panic!() };
    assert_eq!(value.parse(&crate::wire::Limits::default()).unwrap().as_str(), spec.directory.unwrap().to_str());
}

#[tokio::test]
async fn no_shell_reads_the_arguments() {
    let spec = Spec::new(["printf", "\"%s\"", "$HOME; *"]);
    assert_eq!(outcome(&spec).await, succeeded("\"$HOME; *\""));
}

#[tokio::test]
async fn a_command_need_not_read_its_input() {
    let large = Call { args: vec!["x".repeat(1 << 20).into()], ..call() };
    for script in ["echo 1", "exec 0<&-; echo 1", "head -c 10 >/dev/null; echo 1"] {
        let report = report_within(&Bounds::usual(), &shell(script), &large).await;
        assert_eq!(report.outcome, succeeded("1"), "{script}");
    }
}

#[tokio::test]
async fn input_and_output_may_both_be_larger_than_a_pipe() {
    let large = Call { args: vec!["x".repeat(1 << 20).into()], ..call() };
    let report = report_within(&Bounds::usual(), &shell("cat; cat /dev/null"), &large).await;
    let Outcome::Succeeded(value) = report.outcome else { panic!("{:?}", report.outcome) };
    assert!(value.as_str().len() > 1 << 20);
}

#[tokio::test]
async fn the_last_line_is_the_result_verbatim() {
    assert_eq!(
        outcome(&shell("echo starting; echo '{\"b\": 1.50,  \"a\": 2}'; echo")).await,
        succeeded("{\"b\": 1.50,  \"a\": 2}")
    );
    assert_eq!(outcome(&shell("printf 5")).await, succeeded("5"));
    assert_eq!(outcome(&shell("true")).await, succeeded("null"));
}

#[tokio::test]
async fn all_of_the_text_is_the_result() {
    let spec = Spec { output: Output::Text, ..shell(r"printf 'one\n\n  two\n'") };
    assert_eq!(outcome(&spec).await, succeeded(r#""one\n\n  two\n""#));
    assert_eq!(outcome(&Spec { output: Output::Text, ..shell(r"printf '\377'") }).await, succeeded("\"\u{fffd}\""));
}

#[tokio::test]
async fn garbage_is_no_result() {
    let (kind, message) = refused(outcome(&shell("echo 1; echo done")).await);
    assert_eq!(kind, "InvalidResult");
    assert!(message.contains("expected a value at byte 0: done"), "{message}");
    for script in [
        "echo '[NaN]'",
        "printf '\"\\377\"'",
        "head -c 1000 /dev/urandom | tr -d '\\n'; echo",
        r#"echo '{"__type__":"x","__value__":1}'"#,
    ] {
        assert_eq!(refused(outcome(&shell(script)).await).0, "InvalidResult", "{script}");
    }
}

/// Runs a script that waits, after its first report, until a file called `go` is there.
async fn released(script: impl Fn(&str) -> Spec) -> (Report, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let (_stop, stopped) = oneshot::channel();
    let (started, _) = oneshot::channel();
    let reports = Reports::default();
    let mut latest = reports.progress.subscribe();
    let (spec, call) = (script(go.to_str().unwrap()), call());
    let text = |value: &Option<RawJson>| value.as_ref().map(RawJson::to_string).unwrap_or_default();
    let release = async {
        latest.changed().await.unwrap();
        let first = text(&latest.borrow_and_update());
        std::fs::write(&go, "").unwrap();
        first
    };
    let (report, first) = bounded(async { tokio::join!(run(&spec, &call, stopped, started, &reports), release) }).await;
    let last = text(&latest.borrow());
    (report, first, last)
}

#[tokio::test]
async fn progress_is_told_while_the_command_runs() {
    let script = |go: &str| {
        let wait = format!("until [ -e {go} ]; do sleep 0.01; done");
        shell(&format!(r#"echo '{{"progress": {{"done": 1}}}}'; {wait}; echo '{{"progress": 2}}'; echo 3"#))
    };
    let (report, first, last) = released(script).await;
    assert_eq!(report.outcome, succeeded("3"));
    assert_eq!((first.as_str(), last.as_str()), (r#"{"done": 1}"#, "2"));
}

#[tokio::test]
async fn endless_output_takes_no_memory_and_is_a_failure() {
    let highest = || Peak::new(std::process::id()).highest().unwrap();
    let before = highest();
    for output in [Output::Json, Output::Text] {
        let spec = Spec { output, ..shell("head -c 300M /dev/zero | tr '\\0' x; echo; echo 1") };
        let (kind, message) = refused(outcome(&spec).await);
        assert_eq!(kind, "ResultTooLarge");
        assert!(message.contains("of more than 16777216 bytes"), "{message}");
    }
    let grown = highest() - before;
    assert!(grown < 200 << 20, "{grown} bytes");
}

#[tokio::test]
async fn many_short_lines_are_not_too_much_json() {
    let bounds = Bounds { output: 1000, ..Bounds::usual() };
    let spec = shell("yes 1 | head -n 2000");
    assert_eq!(report_within(&bounds, &spec, &call()).await.outcome, succeeded("1"));
    let text = Spec { output: Output::Text, ..spec };
    assert_eq!(refused(report_within(&bounds, &text, &call()).await.outcome).0, "ResultTooLarge");
}

#[tokio::test]
async fn a_command_may_close_its_output_early() {
    let report = report(&shell("echo 1; exec >&- 2>&-; sleep 0.3")).await;
    assert_eq!(report.outcome, succeeded("1"));
    assert!(report.seconds >= 0.3, "it was waited for: {}", report.seconds);
}

#[tokio::test]
async fn the_process_is_known_while_it_runs() {
    let (stop, stopped) = oneshot::channel();
    let (started, process) = oneshot::channel();
    let reports = Reports::default();
    let (spec, call) = (shell(FOREVER), call());
    let look = async {
        let process = process.await.unwrap();
        assert!(lives(process));
        stop.send(15).unwrap();
        process
    };
    let (report, process) = bounded(async { tokio::join!(run(&spec, &call, stopped, started, &reports), look) }).await;
    assert_eq!(report.pid, Some(process));
}

#[tokio::test]
async fn memory_is_that_of_the_largest_process() {
    let python = |go: &str| {
        format!(
            r#"import os, time
kept = bytearray(80 << 20)
del kept
print("{{\"progress\": 0}}", flush=True)
while not os.path.exists("{go}"): time.sleep(0.01)
"#
        )
    };
    let mebibytes = |report: &Report| report.memory.unwrap().peak.unwrap() >> 20;
    let (large, ..) = released(|go| Spec::new(["python3", "-c", &python(go)])).await;
    assert!((80..200).contains(&mebibytes(&large)), "{large:?}");
    let (wrapped, ..) = released(|go| shell(&format!("python3 -c '{}'; true", python(go)))).await;
    assert!((80..200).contains(&mebibytes(&wrapped)), "{wrapped:?}");
    let script = |go: &str| shell(&format!("echo '{{\"progress\": 0}}'; until [ -e {go} ]; do sleep 0.01; done"));
    let (small, ..) = released(script).await;
    assert!(mebibytes(&small) < 20, "{small:?}");
}
