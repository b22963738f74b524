//! Tries a command before any task depends on it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

use tokio::sync::oneshot;

use super::classify::{BILLIARD, FLAWS};
use super::server::Server;
use super::{Call, MODULE, Report, Reports, Spec, run};
use crate::wire::{Object, RawJson, Value};
use crate::worker::outcome::{Failure, Outcome};
use crate::worker::scratch;

/// An example call is not waited for longer.
const LIMIT: Duration = Duration::from_mins(1);

/// What a command is tried with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Example {
    /// Positional arguments.
    pub args: Vec<Value>,
    /// Keyword arguments.
    pub kwargs: Object,
}

impl Example {
    /// What stands after `--call`: `{"args": […], "kwargs": {…}}`, of which both may be missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value = Value::parse(text.as_bytes()).map_err(|error| error.to_string())?;
        let object = value.as_object().ok_or("it is no object")?;
        if let Some(key) = object.keys().find(|key| !matches!(*key, "args" | "kwargs")) {
            return Err(format!("it has the key {key}, and only args and kwargs are known"));
        }
        let args = object.get("args").map(|args| args.as_array().ok_or("args is no array")).transpose()?;
        let kwargs = object.get("kwargs").map(|kwargs| kwargs.as_object().ok_or("kwargs is no object")).transpose()?;
        Ok(Self { args: args.unwrap_or_default().to_vec(), kwargs: kwargs.cloned().unwrap_or_default() })
    }
}

/// Runs the command for an example call of `task` and says in plain words what came of it: `Ok` if the command keeps the
/// contract, be it that it failed in an orderly way, `Err` if it does not. One that `stays` is called twice.
///
/// The command really runs. It is killed after a minute.
pub async fn check(spec: &Spec, stays: bool, task: &str, example: Example) -> Result<String, String> {
    check_within(LIMIT, spec, stays, task, example).await
}

async fn check_within(
    limit: Duration,
    spec: &Spec,
    stays: bool,
    task: &str,
    Example { args, kwargs }: Example,
) -> Result<String, String> {
    const ID: &str = "00000000-0000-0000-0000-000000000000";
    // Empty, as a first run finds it.
    let state = scratch::path().filter(|folder| DirBuilder::new().mode(0o700).create(folder).is_ok());
    let call = Call {
        task: task.to_owned(),
        id: ID.to_owned(),
        args,
        kwargs,
        job: None,
        idempotency_key: ID.to_owned(),
        retries: 0,
        worker: "check".to_owned(),
        soft: None,
        hard: Some(limit),
        state_dir: state.clone(),
        trace: Object::new(),
    };
    let reports = Reports::default();
    let verdict = if stays { twice(spec, &call, &reports).await } else { once(spec, &call, &reports).await };
    // What the command has left in it is of no use.
    let _ = state.map(std::fs::remove_dir_all);
    let progress =
        reports.progress.borrow().as_ref().map(|value| format!("Its last progress report was {}.", excerpt(value)));
    let with_progress = |text: String| [Some(text), progress].into_iter().flatten().collect::<Vec<_>>().join(" ");
    verdict.map(with_progress.clone()).map_err(with_progress)
}

async fn once(spec: &Spec, call: &Call, reports: &Reports) -> Result<String, String> {
    // Held until it has ended: a dropped sender would stop nothing.
    let (_stop, stopped) = oneshot::channel();
    let report = run(spec, call, stopped, oneshot::channel().0, reports).await;
    verdict(&report)
}

async fn twice(spec: &Spec, call: &Call, reports: &Reports) -> Result<String, String> {
    let mut server = Server::new(spec.clone(), Server::MAX_CALLS);
    let mut calls = Vec::new();
    for _ in 0..2 {
        let (_stop, stopped) = oneshot::channel();
        let report = server.call(call, stopped, oneshot::channel().0, reports).await;
        verdict(&report)?;
        calls.push(report);
    }
    server.close().await;
    let [first, second] = calls.as_slice() else { return Ok(String::new()) };
    if first.pid != second.pid {
        return Err(
            "It answered and ended: a command that stays answers one call after the other, until there are no \
                    more lines on its standard input. Leave `server` out for one that runs once per call."
                .to_owned(),
        );
    }
    Ok(format!("The same process served two calls. {}", verdict(second)?))
}

fn verdict(report: &Report) -> Result<String, String> {
    let seconds = report.seconds;
    match &report.outcome {
        Outcome::Succeeded(value) => {
            Ok(format!("It succeeded after {seconds:.1} s, with the result {}.", excerpt(value)))
        }
        Outcome::Stopped { signal } => Err(format!("It was stopped by signal {signal}.")),
        Outcome::Failed { failure, retryable } => {
            let Failure { exception, traceback } = failure;
            let mut text =
                format!("It failed after {seconds:.1} s with {}: {}.", exception.exc_type, exception.message());
            if let Some(traceback) = traceback {
                text = format!("{text}\nIt wrote:\n{traceback}\n");
            }
            match exception.exc_module.as_deref() {
                Some(BILLIARD) if exception.exc_type == "TimeLimitExceeded" => {
                    Err(format!("It had not ended after {seconds:.1} s and was killed."))
                }
                Some(BILLIARD) => Err(text),
                Some(MODULE) if FLAWS.contains(&&*exception.exc_type) => Err(text),
                Some(_) | None => {
                    let again = if *retryable { "may" } else { "would not" };
                    Ok(format!("{text} That is in order: a task would fail like this, and {again} be tried again."))
                }
            }
        }
    }
}

fn excerpt(value: &RawJson) -> String {
    let mut text: String = value.as_str().chars().take(200).collect();
    if text.len() < value.as_str().len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(script: &str) -> Result<String, String> {
        said_of(script, Example::default()).await
    }

    async fn said_of(script: &str, example: Example) -> Result<String, String> {
        let spec = Spec::new(["/bin/sh", "-c", script]);
        let checked = check_within(Duration::from_secs(1), &spec, false, "shop.ship", example);
        tokio::time::timeout(LIMIT, checked).await.unwrap()
    }

    #[tokio::test]
    async fn a_command_is_tried_with_a_call() {
        let example = Example::parse(r#"{"args": ["a", 2], "kwargs": {"k": null}}"#).unwrap();
        let text = said_of("cat", example).await.unwrap();
        contains(&text, r#""args":["a",2],"kwargs":{"k":null}"#);
        assert_eq!(Example::parse("{}"), Ok(Example::default()));
        for (text, flaw) in [
            ("{", "unexpected end at byte 1"),
            ("[]", "it is no object"),
            (r#"{"args": {}}"#, "args is no array"),
            (r#"{"kwargs": []}"#, "kwargs is no object"),
            (r#"{"arguments": []}"#, "it has the key arguments, and only args and kwargs are known"),
        ] {
            assert_eq!(Example::parse(text).unwrap_err(), flaw);
        }
    }

    async fn said_by_server(script: &str) -> Result<String, String> {
        let spec = Spec { grace: Duration::from_secs(1), ..Spec::new(["/bin/sh", "-c", script]) };
        let kwargs = Object::new().with("inputs", Object::new().with("topic", "t"));
        let example = Example { kwargs, ..Example::default() };
        let checked = check_within(Duration::from_secs(2), &spec, true, "shop.ship", example);
        tokio::time::timeout(LIMIT, checked).await.unwrap()
    }

    #[track_caller]
    fn contains(text: &str, part: &str) {
        assert!(text.contains(part), "{text}");
    }

    #[tokio::test]
    async fn a_command_that_keeps_the_contract_is_shown_its_outcome() {
        let text = said("echo '{\"progress\": 3}'; echo '[1]'").await.unwrap();
        contains(&text, "It succeeded after 0.");
        contains(&text, "with the result [1]. Its last progress report was 3.");
        contains(&said(r#"printf '"%s"' $CREWJOB_TASK"#).await.unwrap(), "the result \"shop.ship\"");
        contains(&said(&format!("echo '\"{}\"'", "x".repeat(1000))).await.unwrap(), "xxx….");
    }

    #[tokio::test]
    async fn a_command_has_a_folder_for_its_state_which_is_removed_afterwards() {
        let script = r#"echo 1 > "$CREWJOB_STATE_DIR/step" && echo '{"checkpoint": true}' && printf '"%s"' "$CREWJOB_STATE_DIR""#;
        let text = said(script).await.unwrap();
        let folder = text.split('"').nth(1).unwrap();
        assert!(folder.starts_with('/') && !std::path::Path::new(folder).exists(), "{text}");
    }

    #[tokio::test]
    async fn an_orderly_failure_keeps_the_contract() {
        let text = said("echo 'no arguments' >&2; exit 2").await.unwrap();
        contains(&text, "with CommandFailed: exit status 2: no arguments.\nIt wrote:\nno arguments\n");
        contains(&text, "and would not be tried again.");
        contains(&said("exit 75").await.unwrap(), "and may be tried again.");
        contains(&said(r#"echo '{"error":{"type":"NoStock","message":"0"}}'; exit 1"#).await.unwrap(), "NoStock: 0.");
    }

    #[tokio::test]
    async fn a_command_that_breaks_the_contract_is_told_how() {
        contains(&said("echo done").await.unwrap_err(), "InvalidResult: the last line of standard output is no JSON");
        contains(&said("kill -9 $$").await.unwrap_err(), "WorkerLostError: Worker exited prematurely");
        contains(&said("sleep 3600").await.unwrap_err(), "It had not ended after 1.");
        let missing = check(&Spec::new(["no-such-command"]), false, "t", Example::default()).await.unwrap_err();
        contains(&missing, "CommandNotFound: no-such-command is in no folder of PATH");
    }

    #[tokio::test]
    async fn a_command_that_stays_is_called_twice() {
        let served = r#"n=0; while read -r call; do n=$((n + 1)); echo "{\"result\": [$n, $call]}"; done"#;
        let text = said_by_server(served).await.unwrap();
        contains(&text, "The same process served two calls. It succeeded after 0.");
        contains(&text, "[2, {");
        contains(&text, r#""inputs":{"topic":"t"}"#);
        let failing = r#"while read -r call; do echo '{"error": {"type": "NoTopic", "message": "none"}}'; done"#;
        contains(&said_by_server(failing).await.unwrap(), " s with NoTopic: none. That is in order");
        // Seen between the calls or at the second one.
        let text = said_by_server("read -r call; echo '{\"result\": 1}'").await.unwrap_err();
        assert!(text.contains("It answered and ended") || text.contains("ended in the middle of a call"), "{text}");
        contains(&said_by_server("while read -r call; do echo hello; done").await.unwrap_err(), "It had not ended");
        contains(&said_by_server("sleep 60").await.unwrap_err(), "It had not ended after");
    }
}
