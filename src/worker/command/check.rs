//! Tries a command before any task depends on it.

use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::classify::{BILLIARD, FLAWS};
use super::server::Server;
use super::{Call, MODULE, Report, Spec, answer, run};
use crate::wire::{Object, RawJson};
use crate::worker::outcome::{Failure, Outcome};

/// An example call is not waited for longer.
const LIMIT: Duration = Duration::from_mins(1);

/// Runs the command for an example call of `task` and says in plain words what came of it: `Ok` if the command keeps the
/// contract, be it that it failed in an orderly way, `Err` if it does not. One that `stays` is called twice.
///
/// The command really runs. It is killed after a minute.
pub async fn check(spec: &Spec, stays: bool, task: &str, kwargs: Object) -> Result<String, String> {
    check_within(LIMIT, spec, stays, task, kwargs).await
}

async fn check_within(limit: Duration, spec: &Spec, stays: bool, task: &str, kwargs: Object) -> Result<String, String> {
    let call = Call {
        task: task.to_owned(),
        id: "00000000-0000-0000-0000-000000000000".to_owned(),
        args: Vec::new(),
        kwargs,
        retries: 0,
        worker: "check".to_owned(),
        soft: None,
        hard: Some(limit),
    };
    let (progress, latest) = watch::channel(None);
    let verdict = if stays { twice(spec, &call, &progress).await } else { once(spec, &call, &progress).await };
    let progress = latest.borrow().as_ref().map(|value| format!("Its last progress report was {}.", excerpt(value)));
    let with_progress = |text: String| [Some(text), progress].into_iter().flatten().collect::<Vec<_>>().join(" ");
    verdict.map(with_progress.clone()).map_err(with_progress)
}

type Latest = watch::Sender<Option<RawJson>>;

async fn once(spec: &Spec, call: &Call, progress: &Latest) -> Result<String, String> {
    // Held until it has ended: a dropped sender would stop nothing.
    let (_stop, stopped) = oneshot::channel();
    let report = run(spec, call, stopped, oneshot::channel().0, progress).await;
    match &report.outcome {
        Outcome::Succeeded(value) if answer::error(value.as_str()).is_some() => Err(format!(
            "It printed an error, but exited with 0, so the error would be the result of a task that succeeded. Exit \
             with another status. It printed {}.",
            excerpt(value)
        )),
        Outcome::Succeeded(_) | Outcome::Failed { .. } | Outcome::Stopped { .. } => verdict(&report),
    }
}

async fn twice(spec: &Spec, call: &Call, progress: &Latest) -> Result<String, String> {
    let mut server = Server::new(spec.clone(), Server::MAX_CALLS);
    let mut reports = Vec::new();
    for _ in 0..2 {
        let (_stop, stopped) = oneshot::channel();
        let report = server.call(call, stopped, oneshot::channel().0, progress).await;
        verdict(&report)?;
        reports.push(report);
    }
    server.close().await;
    let [first, second] = reports.as_slice() else { return Ok(String::new()) };
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
                Some(MODULE) if !FLAWS.contains(&&*exception.exc_type) => {
                    let again = if *retryable { "may" } else { "would not" };
                    Ok(format!("{text} That is in order: a task would fail like this, and {again} be tried again."))
                }
                _ => Err(text),
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
        let spec = Spec::new(["/bin/sh", "-c", script]);
        let checked = check_within(Duration::from_secs(1), &spec, false, "shop.ship", Object::new());
        tokio::time::timeout(LIMIT, checked).await.unwrap()
    }

    async fn said_by_server(script: &str) -> Result<String, String> {
        let spec = Spec { grace: Duration::from_secs(1), ..Spec::new(["/bin/sh", "-c", script]) };
        let kwargs = Object::new().with("inputs", Object::new().with("topic", "t"));
        let checked = check_within(Duration::from_secs(2), &spec, true, "shop.ship", kwargs);
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
        contains(
            &said(r#"echo '{"error":{"type":"E","message":""}}'"#).await.unwrap_err(),
            "Exit with another status.",
        );
        let missing = check(&Spec::new(["no-such-command"]), false, "t", Object::new()).await.unwrap_err();
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
        contains(&said_by_server("while read -r call; do echo hello; done").await.unwrap_err(), "InvalidResult");
        contains(&said_by_server("sleep 60").await.unwrap_err(), "It had not ended after");
    }
}
