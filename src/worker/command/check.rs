//! Tries a command before any task depends on it.

use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::classify::{BILLIARD, FLAWS};
use super::{Call, MODULE, Report, Spec, answer, run};
use crate::wire::{Object, RawJson};
use crate::worker::outcome::{Failure, Outcome};

/// An example call is not waited for longer.
const LIMIT: Duration = Duration::from_mins(1);

/// Runs the command for an example call of `task`, without arguments, and says in plain words what came of it: `Ok` if
/// the command keeps the contract, be it that it failed in an orderly way, `Err` if it does not.
///
/// The command really runs. It is killed after a minute.
pub async fn check(spec: &Spec, task: &str) -> Result<String, String> {
    check_within(LIMIT, spec, task).await
}

async fn check_within(limit: Duration, spec: &Spec, task: &str) -> Result<String, String> {
    let call = Call {
        task: task.to_owned(),
        id: "00000000-0000-0000-0000-000000000000".to_owned(),
        args: Vec::new(),
        kwargs: Object::new(),
        retries: 0,
        worker: "check".to_owned(),
        soft: None,
        hard: Some(limit),
    };
    // Held until it has ended: nobody stops it.
    let (_stop, stopped) = oneshot::channel();
    let (started, _) = oneshot::channel();
    let (progress, latest) = watch::channel(None);
    let report = run(spec, &call, stopped, started, &progress).await;
    let progress = latest.borrow().as_ref().map(|value| format!("Its last progress report was {}.", excerpt(value)));
    let verdict = verdict(&report);
    let with_progress = |text: String| [Some(text), progress].into_iter().flatten().collect::<Vec<_>>().join(" ");
    verdict.map(with_progress.clone()).map_err(with_progress)
}

fn verdict(report: &Report) -> Result<String, String> {
    let seconds = report.seconds;
    match &report.outcome {
        Outcome::Succeeded(value) if answer::error(value.as_str()).is_some() => Err(format!(
            "It printed an error, but exited with 0, so the error would be the result of a task that succeeded. Exit \
             with another status. It printed {}.",
            excerpt(value)
        )),
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
        tokio::time::timeout(LIMIT, check_within(Duration::from_secs(1), &spec, "shop.ship")).await.unwrap()
    }

    #[track_caller]
    fn contains(text: &str, part: &str) {
        assert!(text.contains(part), "{text}");
    }

    #[tokio::test]
    async fn what_keeps_the_contract_is_told_what_came_of_it() {
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
    async fn what_breaks_the_contract_is_told_how() {
        contains(&said("echo done").await.unwrap_err(), "InvalidResult: the last line of standard output is no JSON");
        contains(&said("kill -9 $$").await.unwrap_err(), "WorkerLostError: Worker exited prematurely");
        contains(&said("sleep 3600").await.unwrap_err(), "It had not ended after 1.");
        contains(
            &said(r#"echo '{"error":{"type":"E","message":""}}'"#).await.unwrap_err(),
            "Exit with another status.",
        );
        let missing = check(&Spec::new(["no-such-command"]), "t").await.unwrap_err();
        contains(&missing, "CommandNotFound: no-such-command is in no folder of PATH");
    }
}
